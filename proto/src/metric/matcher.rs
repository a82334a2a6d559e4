//! Label matchers with RE2 semantics: anchored, `.` matches newlines.
//!
//! Most matchers of dashboards are literals, alternations of literals or prefixes; those never reach the regex
//! engine.

use std::fmt;

use regex::Regex;

use super::labels::is_legacy_label_name;
use super::quote::quote;

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchOp {
    /// As written in a query.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// A compiled pattern can hold this many bytes; a dashboard variable with thousands of alternatives fits.
const REGEX_SIZE_LIMIT: usize = 8 << 20;

/// What a regular expression boils down to.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// Matches exactly one of these values.
    Literals(Vec<String>),
    /// `prefix.*`
    Prefix(String),
    /// `prefix.+`
    PrefixPlus(String),
    /// Anything else.
    General(Regex),
}

/// One label matcher.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// Comparison.
    pub op: MatchOp,
    /// The label it looks at.
    pub name: String,
    /// The text as given.
    pub value: String,
    pattern: Option<Pattern>,
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (self.op, &self.name, &self.value) == (other.op, &other.name, &other.value)
    }
}

impl Matcher {
    /// Builds a matcher; the error is Go's text for a bad regular expression.
    pub fn new(op: MatchOp, name: impl Into<String>, value: impl Into<String>) -> Result<Self, String> {
        let (name, value) = (name.into(), value.into());
        let pattern = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => Some(compile(&value)?),
        };
        Ok(Self { op, name, value, pattern })
    }

    /// An equality matcher.
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { op: MatchOp::Equal, name: name.into(), value: value.into(), pattern: None }
    }

    /// Whether a label value (empty for an absent label) satisfies the matcher.
    pub fn matches(&self, value: &str) -> bool {
        match self.op {
            MatchOp::Equal => self.value == value,
            MatchOp::NotEqual => self.value != value,
            MatchOp::Regex => self.pattern_matches(value),
            MatchOp::NotRegex => !self.pattern_matches(value),
        }
    }

    /// The pattern of a regex matcher: an index can look up literals and prefixes instead of scanning.
    pub fn pattern(&self) -> Option<&Pattern> {
        self.pattern.as_ref()
    }

    fn pattern_matches(&self, value: &str) -> bool {
        match &self.pattern {
            None => false,
            Some(Pattern::Literals(literals)) => literals.iter().any(|literal| literal == value),
            Some(Pattern::Prefix(prefix)) => value.starts_with(prefix.as_str()),
            Some(Pattern::PrefixPlus(prefix)) => value.len() > prefix.len() && value.starts_with(prefix.as_str()),
            Some(Pattern::General(regex)) => regex.is_match(value),
        }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_legacy_label_name(&self.name) {
            f.write_str(&self.name)?;
        } else {
            f.write_str(&quote(&self.name))?;
        }
        write!(f, "{}{}", self.op.as_str(), quote(&self.value))
    }
}

/// Compiles `^(?s:text)$`, for `label_replace` too.
pub fn compile_anchored(text: &str) -> Result<Regex, String> {
    let wrapped = format!("^(?s:{text})$");
    regex::RegexBuilder::new(&wrapped).size_limit(REGEX_SIZE_LIMIT).build().map_err(|error| {
        let reason = match &error {
            regex::Error::Syntax(_) => syntax_reason(text),
            regex::Error::CompiledTooBig(_) => "expression too large".to_owned(),
            _ => "invalid expression".to_owned(),
        };
        format!("error parsing regexp: {reason}")
    })
}

/// Go names the fault; only the common ones have the same words here.
fn syntax_reason(text: &str) -> String {
    let opened = text.matches('(').count();
    let closed = text.matches(')').count();
    let reason = match () {
        () if opened > closed => "missing closing )",
        () if closed > opened => "unexpected )",
        () if text.starts_with(['*', '+', '?']) => {
            return format!("missing argument to repetition operator: `{}`", &text[..1]);
        }
        () if text.contains('[') && !text.contains(']') => "missing closing ]",
        () => "invalid syntax",
    };
    format!("{reason}: `^(?s:{text})$`")
}

fn compile(text: &str) -> Result<Pattern, String> {
    if let Some(literals) = literal_alternatives(text) {
        return Ok(Pattern::Literals(literals));
    }
    for (suffix, build) in
        [(".*", Pattern::Prefix as fn(String) -> Pattern), (".+", Pattern::PrefixPlus as fn(String) -> Pattern)]
    {
        if let Some(prefix) = text.strip_suffix(suffix)
            && is_literal(prefix)
        {
            return Ok(build(prefix.to_owned()));
        }
    }
    compile_anchored(text).map(Pattern::General)
}

fn is_literal(text: &str) -> bool {
    !text.contains(['\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$'])
}

fn literal_alternatives(text: &str) -> Option<Vec<String>> {
    let parts: Vec<&str> = text.split('|').collect();
    parts.iter().all(|part| is_literal(part)).then(|| parts.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, value: &str, expect: bool) {
        let matcher = Matcher::new(MatchOp::Regex, "l", pattern).unwrap();
        assert_eq!(matcher.matches(value), expect, "{pattern} on {value:?}");
    }

    #[test]
    fn fast_paths_agree_with_the_engine() {
        check("a|b", "b", true);
        check("a|b", "ab", false);
        check("a|", "", true);
        check("foo.*", "foo", true);
        check("foo.+", "foo", false);
        check("foo.+", "foo\nbar", true);
        check(".*", "", true);
        check("(?i:FOO).*", "foobar", true);
        check("o", "foo", false);
        check("", "", true);
    }

    #[test]
    fn bad_expressions_are_refused() {
        let error = Matcher::new(MatchOp::Regex, "l", "(.*").unwrap_err();
        assert_eq!(error, "error parsing regexp: missing closing ): `^(?s:(.*)$`");
    }
}
