//! Relabelling: rules that rewrite, keep or drop label sets, with Prometheus' semantics.
//!
//! Pure. A label with an empty value is the same as no label.

use std::collections::BTreeMap;

use regex::Regex;
use serde::Deserialize;
use thiserror::Error;

use super::md5;

#[cfg(test)]
mod tests;

/// Labels by name.
pub type LabelSet = BTreeMap<String, String>;

/// What a rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    #[default]
    Replace,
    Keep,
    Drop,
    KeepEqual,
    DropEqual,
    HashMod,
    LabelMap,
    LabelDrop,
    LabelKeep,
    Lowercase,
    Uppercase,
}

/// A rule as it is written.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RelabelConfig {
    #[serde(default)]
    pub source_labels: Vec<String>,
    pub separator: Option<String>,
    pub regex: Option<String>,
    #[serde(default)]
    pub modulus: u64,
    pub target_label: Option<String>,
    pub replacement: Option<String>,
    #[serde(default)]
    pub action: Action,
}

/// A rule that can be applied.
#[derive(Clone, Debug)]
pub struct Rule {
    written: RelabelConfig,
    regex: Regex,
}

/// Why a rule makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RelabelError {
    #[error("relabel rule: `{0}` is not a regular expression: {1}")]
    Regex(String, String),
    #[error("relabel rule: action {0:?} needs `{1}`")]
    Missing(Action, &'static str),
    #[error("relabel rule: action {0:?} takes no `{1}`")]
    Superfluous(Action, &'static str),
    #[error("relabel rule: `{0}` is not a label name")]
    LabelName(String),
}

/// Longest regular expression compiled. Rules are operators' own, but a page of alternatives is a
/// mistake worth naming before it costs megabytes.
const REGEX_MAX_BYTES: usize = 10 << 20;

/// Applies `rules` in order. `false` when a rule drops the set.
#[must_use]
pub fn apply(rules: &[Rule], labels: &mut LabelSet) -> bool {
    rules.iter().all(|rule| rule.apply(labels))
}

impl Rule {
    /// Checks a rule and prepares it.
    ///
    /// # Errors
    /// When the regular expression cannot be read, or the action lacks what it needs.
    pub fn compile(written: &RelabelConfig) -> Result<Self, RelabelError> {
        let pattern = written.regex.as_deref().unwrap_or("(.*)");
        // Anchored, and `.` matches newlines, as in Prometheus 3.
        let regex = regex::RegexBuilder::new(&format!("^(?s:{pattern})$"))
            .size_limit(REGEX_MAX_BYTES)
            .build()
            .map_err(|error| RelabelError::Regex(pattern.to_owned(), error.to_string()))?;
        validate(written)?;
        Ok(Self { written: written.clone(), regex })
    }

    fn apply(&self, labels: &mut LabelSet) -> bool {
        let rule = &self.written;
        let value = self.source_value(labels);
        let target = rule.target_label.as_deref().unwrap_or_default();
        let target_value = || labels.get(target).map(String::as_str).unwrap_or_default();
        match rule.action {
            Action::Keep => return self.regex.is_match(&value),
            Action::Drop => return !self.regex.is_match(&value),
            Action::KeepEqual => return target_value() == value,
            Action::DropEqual => return target_value() != value,
            Action::Replace => self.replace(labels, &value),
            Action::Lowercase => set(labels, target, value.to_lowercase()),
            Action::Uppercase => set(labels, target, value.to_uppercase()),
            Action::HashMod => set(labels, target, (hash(&value) % rule.modulus).to_string()),
            Action::LabelMap => self.map_names(labels),
            Action::LabelDrop => labels.retain(|name, _| !self.regex.is_match(name)),
            Action::LabelKeep => labels.retain(|name, _| self.regex.is_match(name)),
        }
        true
    }

    fn source_value(&self, labels: &LabelSet) -> String {
        let separator = self.written.separator.as_deref().unwrap_or(";");
        let values = self.written.source_labels.iter().map(|name| labels.get(name).map_or("", String::as_str));
        values.collect::<Vec<_>>().join(separator)
    }

    fn replace(&self, labels: &mut LabelSet, value: &str) {
        let Some(captures) = self.regex.captures(value) else { return };
        let mut target = String::new();
        captures.expand(self.written.target_label.as_deref().unwrap_or_default(), &mut target);
        if !is_label_name(&target) {
            return;
        }
        let mut replacement = String::new();
        captures.expand(self.written.replacement.as_deref().unwrap_or("$1"), &mut replacement);
        set(labels, &target, replacement);
    }

    fn map_names(&self, labels: &mut LabelSet) {
        let template = self.written.replacement.as_deref().unwrap_or("$1");
        let renamed: Vec<(String, String)> = labels
            .iter()
            .filter(|(name, _)| self.regex.is_match(name))
            .map(|(name, value)| (self.regex.replace_all(name, template).into_owned(), value.clone()))
            .collect();
        for (name, value) in renamed {
            set(labels, &name, value);
        }
    }
}

fn set(labels: &mut LabelSet, name: &str, value: String) {
    if value.is_empty() {
        labels.remove(name);
    } else {
        labels.insert(name.to_owned(), value);
    }
}

/// The last eight bytes of the digest, big-endian.
fn hash(value: &str) -> u64 {
    let digest = md5::digest(value.as_bytes());
    digest[8..].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn validate(rule: &RelabelConfig) -> Result<(), RelabelError> {
    let action = rule.action;
    let has_target = rule.target_label.as_deref().is_some_and(|label| !label.is_empty());
    let needs_target = matches!(
        action,
        Action::Replace
            | Action::HashMod
            | Action::Lowercase
            | Action::Uppercase
            | Action::KeepEqual
            | Action::DropEqual
    );
    if needs_target && !has_target {
        return Err(RelabelError::Missing(action, "target_label"));
    }
    if action == Action::HashMod && rule.modulus == 0 {
        return Err(RelabelError::Missing(action, "modulus"));
    }
    if matches!(action, Action::Keep | Action::Drop | Action::KeepEqual | Action::DropEqual)
        && rule.source_labels.is_empty()
    {
        return Err(RelabelError::Missing(action, "source_labels"));
    }
    if matches!(action, Action::LabelDrop | Action::LabelKeep) {
        let superfluous = [
            (!rule.source_labels.is_empty(), "source_labels"),
            (rule.target_label.is_some(), "target_label"),
            (rule.modulus != 0, "modulus"),
            (rule.separator.is_some(), "separator"),
            (rule.replacement.is_some(), "replacement"),
        ];
        if let Some((_, key)) = superfluous.iter().find(|(is_set, _)| *is_set) {
            return Err(RelabelError::Superfluous(action, key));
        }
    }
    // A target of `replace` may be a template; what it expands to is looked at when it is applied.
    let is_template =
        action == Action::Replace && rule.target_label.as_deref().is_some_and(|label| label.contains('$'));
    if needs_target && !is_template {
        let target = rule.target_label.as_deref().unwrap_or_default();
        if !is_label_name(target) {
            return Err(RelabelError::LabelName(target.to_owned()));
        }
    }
    Ok(())
}

/// Any UTF-8 text names a label since Prometheus 3.
const fn is_label_name(name: &str) -> bool {
    !name.is_empty()
}
