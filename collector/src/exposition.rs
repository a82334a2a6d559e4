//! Exposition pages: what a scraped proxy answers, read without copying.
//!
//! [`Parser`] walks a page and yields borrowed [`Entry`]s. It reads the Prometheus text format
//! (0.0.4 and 1.0.0 with quoted UTF-8 names) and OpenMetrics 1.0, and in the text dialect it also
//! takes what proxies really send: `name{} 1` (Envoy), tabs between tokens, OpenMetrics under
//! `text/plain` (ztunnel), and an application's OpenMetrics page glued behind Envoy's text page
//! (Istio's merged port), so exemplars and `# EOF` may stand anywhere. A page in protobuf is rewritten
//! as text first ([`protobuf`]), so that there is one way from a page to series.
//!
//! Invariants: never panics; allocates only to resolve escapes; linear in the size of the page. A
//! line that cannot be read is one error, and reading goes on with the next line, so that the
//! caller decides what a bad line costs.

use std::borrow::Cow;
use std::fmt;

mod cursor;
mod dialect;
mod labels;
pub mod line_table;
mod number;
pub mod page_reader;
pub mod protobuf;
#[cfg(test)]
mod tests;

pub use dialect::Dialect;
pub use labels::{Label, Labels, LabelsIter};
pub use line_table::{LineId, LineTable};
pub use page_reader::{Line, PageReader};
pub use windrose_proto::metric::MetricKind;

use cursor::Cursor;

/// One line of a page.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry<'a> {
    Sample(Sample<'a>),
    Type { family: Cow<'a, str>, kind: MetricKind },
    Help { family: Cow<'a, str>, text: Cow<'a, str> },
    Unit { family: Cow<'a, str>, unit: &'a str },
}

/// One value of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'a> {
    pub name: Cow<'a, str>,
    pub labels: Labels<'a>,
    pub value: f64,
    /// Milliseconds since the epoch, when the page states a time.
    pub timestamp_millis: Option<i64>,
    pub exemplar: Option<Exemplar<'a>>,
    /// Name and labels as they stand in the page: equal text is the same series, so this is the
    /// key for caching what was derived from a series.
    pub series: &'a str,
}

/// What names a series on a page.
#[derive(Clone, Debug, PartialEq)]
pub struct Series<'a> {
    pub name: Cow<'a, str>,
    pub labels: Labels<'a>,
}

/// What follows the series on a sample's line.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers<'a> {
    pub value: f64,
    /// Milliseconds since the epoch, when the page states a time.
    pub timestamp_millis: Option<i64>,
    pub exemplar: Option<Exemplar<'a>>,
}

/// A single observation attached to a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar<'a> {
    pub labels: Labels<'a>,
    pub value: f64,
    pub timestamp_millis: Option<i64>,
}

/// A line that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseError<'a> {
    pub kind: ErrorKind,
    /// The line, for the message; empty when the error is about the page.
    pub line: &'a str,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    ExpectedName,
    ExpectedLabelName,
    ExpectedEquals,
    ExpectedLabelValue,
    ExpectedCommaOrBrace,
    NameTwice,
    NameMissing,
    ExpectedValue,
    BadValue,
    BadTimestamp,
    BadExemplar,
    TrailingText,
    BadMetadata,
    UnknownType,
    NotUtf8,
    MissingEof,
    DataAfterEof,
    TooManySeries,
}

/// Reads a page entry by entry.
#[derive(Clone, Debug)]
pub struct Parser<'a> {
    dialect: Dialect,
    cursor: Cursor<'a>,
    /// What follows the text under the cursor and is not yet known to be UTF-8.
    tail: &'a [u8],
    saw_eof: bool,
    is_done: bool,
}

// === impl Series ===

impl<'a> Series<'a> {
    /// Reads the text of a series as a page holds it ([`Sample::series`]).
    ///
    /// # Errors
    /// When it is no such text.
    pub fn parse(text: &'a str, dialect: Dialect) -> Result<Self, ErrorKind> {
        Parser { dialect, cursor: Cursor::new(text), tail: &[], saw_eof: false, is_done: false }.series()
    }
}

// === impl Parser ===

impl<'a> Parser<'a> {
    /// Starts reading `page`. Costs one validation pass over the bytes.
    #[must_use]
    pub fn new(page: &'a [u8], dialect: Dialect) -> Self {
        let (text, tail) = valid_lines(page);
        Self { dialect, cursor: Cursor::new(text), tail, saw_eof: false, is_done: false }
    }

    /// Only the samples, skipping metadata and unreadable lines.
    pub fn samples(self) -> impl Iterator<Item = Sample<'a>> {
        self.filter_map(|entry| match entry {
            Ok(Entry::Sample(sample)) => Some(sample),
            _ => None,
        })
    }

    fn is_strict(&self) -> bool {
        self.dialect == Dialect::OpenMetrics
    }

    /// Runs once the text under the cursor is used up: the rest of the page starts with a line
    /// that is not UTF-8.
    fn next_chunk(&mut self) -> ErrorKind {
        let line_end = memchr::memchr(b'\n', self.tail).map_or(self.tail.len(), |end| end + 1);
        let (text, tail) = valid_lines(&self.tail[line_end..]);
        self.cursor = Cursor::new(text);
        self.tail = tail;
        ErrorKind::NotUtf8
    }

    fn page_end(&mut self) -> Option<Result<Entry<'a>, ParseError<'a>>> {
        self.is_done = true;
        let is_missing = self.is_strict() && !self.saw_eof;
        is_missing.then_some(Err(ParseError { kind: ErrorKind::MissingEof, line: "" }))
    }

    /// Reads one line. `Ok(None)` for lines that say nothing.
    fn line(&mut self) -> Result<Option<Entry<'a>>, ErrorKind> {
        if self.saw_eof {
            self.is_done = true;
            return Err(ErrorKind::DataAfterEof);
        }
        if !self.is_strict() {
            self.cursor.skip_blanks();
            if self.cursor.at_line_end() {
                self.cursor.skip_line();
                return Ok(None);
            }
        }
        if self.cursor.peek() == Some(b'#') { self.comment() } else { self.sample().map(|s| Some(Entry::Sample(s))) }
    }

    /// `# TYPE`, `# HELP`, `# UNIT`, `# EOF`; in the text dialect anything else is a remark.
    fn comment(&mut self) -> Result<Option<Entry<'a>>, ErrorKind> {
        let line = self.cursor.take_line();
        let Some((keyword, rest)) = comment_keyword(line, self.is_strict()) else {
            return if self.is_strict() { Err(ErrorKind::BadMetadata) } else { Ok(None) };
        };
        if keyword == Keyword::Eof {
            self.saw_eof = self.is_strict();
            return Ok(None);
        }
        let mut cursor = Cursor::new(rest);
        let family = cursor.metadata_name()?;
        let text = cursor.metadata_text(self.is_strict())?;
        let entry = match keyword {
            Keyword::Help => Entry::Help { family, text: labels::unescape(text) },
            Keyword::Type => Entry::Type { family, kind: MetricKind::parse(text).ok_or(ErrorKind::UnknownType)? },
            Keyword::Unit | Keyword::Eof if is_unit_of(&family, text) || !self.is_strict() => {
                Entry::Unit { family, unit: text }
            }
            Keyword::Unit | Keyword::Eof => return Err(ErrorKind::BadMetadata),
        };
        Ok(Some(entry))
    }

    fn sample(&mut self) -> Result<Sample<'a>, ErrorKind> {
        let start = self.cursor.position();
        let Series { name, labels } = self.series()?;
        let series = self.cursor.since(start).trim_end();
        let Numbers { value, timestamp_millis, exemplar } = self.numbers()?;
        Ok(Sample { name, labels, value, timestamp_millis, exemplar, series })
    }

    /// Name and labels of a sample.
    fn series(&mut self) -> Result<Series<'a>, ErrorKind> {
        let strict = self.is_strict();
        let cursor = &mut self.cursor;
        let bare_name = cursor.metric_name();
        if !strict {
            cursor.skip_blanks();
        }
        let (labels, quoted_name) = if cursor.eat(b'{') { cursor.labels(strict)? } else { (Labels::default(), None) };
        let name = match (bare_name, quoted_name) {
            (Some(_), Some(_)) => return Err(ErrorKind::NameTwice),
            (Some(bare), None) => Cow::Borrowed(bare),
            (None, Some(quoted)) => labels::unescape(quoted),
            (None, None) if labels.is_empty() => return Err(ErrorKind::ExpectedName),
            (None, None) => return Err(ErrorKind::NameMissing),
        };
        Ok(Series { name, labels })
    }

    /// The rest of a sample's line.
    fn numbers(&mut self) -> Result<Numbers<'a>, ErrorKind> {
        let strict = self.is_strict();
        let cursor = &mut self.cursor;
        let value = number::value(cursor.token(strict).ok_or(ErrorKind::ExpectedValue)?)?;
        let timestamp_millis = cursor.token(strict).map(|text| number::timestamp(text, self.dialect)).transpose()?;
        let exemplar = if cursor.eat_exemplar_mark(strict) { Some(exemplar(cursor, strict)?) } else { None };
        if !cursor.end_line(strict) {
            return Err(ErrorKind::TrailingText);
        }
        Ok(Numbers { value, timestamp_millis, exemplar })
    }

    /// Reads the next line if it is a sample whose series `find` knows. `None` leaves the parser
    /// where it was.
    ///
    /// Where the series ends is guessed; what `find` knows is the text of a whole series, so no
    /// other reading of the line is possible when it knows the guess.
    fn known_sample<T>(&mut self, mut find: impl FnMut(&'a str) -> Option<T>) -> Option<(T, &'a str, Numbers<'a>)> {
        if self.saw_eof {
            return None;
        }
        let start = self.cursor.position();
        let line = self.cursor.line();
        let (series, found) = series_guesses(line).find_map(|series| Some((series, find(series)?)))?;
        self.cursor.advance(series.len());
        match self.numbers() {
            Ok(numbers) => Some((found, series, numbers)),
            Err(_) => {
                // The long way says what is wrong.
                self.cursor.go_back(start);
                None
            }
        }
    }

    /// Skips the next line if it is a comment that `is_known`.
    fn skip_known_comment(&mut self, is_known: impl FnOnce(&'a str) -> bool) -> bool {
        let line = self.cursor.line();
        let is_skipped = !self.saw_eof && line.starts_with('#') && is_known(line);
        if is_skipped {
            self.cursor.skip_line();
        }
        is_skipped
    }

    /// The next entry with the text it was read from; of metadata that is the line.
    fn next_with_text(&mut self) -> Option<Result<(Entry<'a>, &'a str), ParseError<'a>>> {
        // Blank lines and remarks before the entry are no part of its text, which is its last line.
        let entry = self.next()?;
        Some(entry.map(|entry| {
            let text = if matches!(entry, Entry::Sample(_)) { "" } else { self.cursor.line_before() };
            (entry, text)
        }))
    }
}

/// Where the series of a line may end, the likeliest first.
fn series_guesses(line: &str) -> impl Iterator<Item = &str> {
    let bytes = line.as_bytes();
    let end_before = |limit: usize| match memchr::memrchr(b'}', &bytes[..limit]) {
        Some(brace) => Some(brace + 1),
        None => bytes[..limit].iter().position(|byte| *byte <= b' '),
    };
    let without_exemplar = move || memchr::memmem::rfind(bytes, b" # {").and_then(end_before);
    let is_comment = bytes.first().is_none_or(|first| *first == b'#');
    let guesses = std::iter::once_with(move || end_before(bytes.len())).chain(std::iter::once_with(without_exemplar));
    guesses.take(if is_comment { 0 } else { 2 }).flatten().filter_map(|end| line.get(..end))
}

impl<'a> Iterator for Parser<'a> {
    type Item = Result<Entry<'a>, ParseError<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_done {
            if self.cursor.is_at_end() {
                if self.tail.is_empty() {
                    return self.page_end();
                }
                let kind = self.next_chunk();
                return Some(Err(ParseError { kind, line: "" }));
            }
            let start = self.cursor.position();
            match self.line() {
                Ok(Some(entry)) => return Some(Ok(entry)),
                Ok(None) => {}
                Err(kind) => {
                    let line = self.cursor.restart_after_line(start);
                    return Some(Err(ParseError { kind, line }));
                }
            }
        }
        None
    }
}

fn exemplar<'a>(cursor: &mut Cursor<'a>, strict: bool) -> Result<Exemplar<'a>, ErrorKind> {
    let (labels, name) = cursor.labels(strict)?;
    if name.is_some() {
        return Err(ErrorKind::ExpectedEquals);
    }
    let value = number::value(cursor.token(strict).ok_or(ErrorKind::BadExemplar)?)?;
    // Only OpenMetrics has exemplars, so their time is in seconds wherever they stand.
    let time = cursor.token(strict).map(|text| number::timestamp(text, Dialect::OpenMetrics)).transpose()?;
    Ok(Exemplar { labels, value, timestamp_millis: time })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keyword {
    Type,
    Help,
    Unit,
    Eof,
}

/// The keyword of a comment line and what follows it. OpenMetrics wants exactly one space.
fn comment_keyword(line: &str, strict: bool) -> Option<(Keyword, &str)> {
    let rest = line.strip_prefix('#')?;
    if strict && rest == " EOF" {
        return Some((Keyword::Eof, ""));
    }
    let rest = if strict { rest.strip_prefix(' ')? } else { rest.trim_start_matches([' ', '\t']) };
    let (word, rest) = rest.split_at(rest.len().min(rest.find([' ', '\t']).unwrap_or(rest.len())));
    let keyword = match word {
        "TYPE" => Keyword::Type,
        "HELP" => Keyword::Help,
        "UNIT" => Keyword::Unit,
        "EOF" if rest.trim().is_empty() && !strict => Keyword::Eof,
        _ => return None,
    };
    let rest = if strict { rest.strip_prefix(' ')? } else { rest.trim_start_matches([' ', '\t']) };
    Some((keyword, rest))
}

fn is_unit_of(family: &str, unit: &str) -> bool {
    unit.is_empty() || family.strip_suffix(unit).is_some_and(|stem| stem.ends_with('_'))
}

/// The longest run of whole lines that is UTF-8, and the rest.
fn valid_lines(bytes: &[u8]) -> (&str, &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text, &[]),
        Err(error) => {
            let valid = &bytes[..error.valid_up_to()];
            let end = memchr::memrchr(b'\n', valid).map_or(0, |end| end + 1);
            // The first half was validated a moment ago, so this cannot come out empty by error.
            (std::str::from_utf8(&bytes[..end]).unwrap_or_default(), &bytes[end..])
        }
    }
}

// === impl ParseError ===

/// Longest piece of a bad line that goes into a message.
const QUOTED_LINE_MAX_BYTES: usize = 120;

impl fmt::Display for ParseError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        if self.line.is_empty() {
            return Ok(());
        }
        let mut end = self.line.len().min(QUOTED_LINE_MAX_BYTES);
        while !self.line.is_char_boundary(end) {
            end -= 1;
        }
        write!(f, " in line {:?}", &self.line[..end])
    }
}

impl std::error::Error for ParseError<'_> {}

impl ErrorKind {
    /// What is wrong, in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ExpectedName => "expected a metric name",
            Self::ExpectedLabelName => "expected a label name",
            Self::ExpectedEquals => "expected `=` after a label name",
            Self::ExpectedLabelValue => "expected a quoted label value",
            Self::ExpectedCommaOrBrace => "expected `,` or `}` after a label",
            Self::NameTwice => "metric name given twice",
            Self::NameMissing => "metric name not given",
            Self::ExpectedValue => "expected a value",
            Self::BadValue => "value is not a number",
            Self::BadTimestamp => "timestamp is not a time",
            Self::BadExemplar => "exemplar has no value",
            Self::TrailingText => "unexpected text after the sample",
            Self::BadMetadata => "unreadable metadata",
            Self::UnknownType => "unknown metric type",
            Self::NotUtf8 => "line is not UTF-8",
            Self::MissingEof => "page does not end with # EOF",
            Self::DataAfterEof => "unexpected data after # EOF",
            Self::TooManySeries => "the page holds too many series to remember",
        }
    }
}
