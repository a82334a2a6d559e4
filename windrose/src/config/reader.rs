//! Reads settings from the layers: flags over environment over file over default.
//!
//! A [`Section`] is asked for one key after the other. It answers with a value in any case (the
//! default when what is written is wrong) and notes the mistake, so that one run reports them all.
//! Everything that was asked for is also noted with its origin: that list is what `check-config`
//! prints and what the documentation test compares with the documentation.

use std::collections::BTreeMap;
use std::fmt;

use super::tree::{Node, Value};
use super::value::Setting;

/// Every environment variable of ours starts with this.
pub(crate) const ENV_PREFIX: &str = "WINDROSE_";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File { line: u64 },
    Environment { variable: String },
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { line } => write!(f, "file, line {line}"),
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// A value in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// `wal.sync`.
    pub path: String,
    pub value: EffectiveValue,
    pub origin: Origin,
}

/// The value of an [`Effective`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EffectiveValue {
    Scalar(String),
    List(Vec<String>),
    Map(Vec<(String, String)>),
}

impl Origin {
    /// Mistakes are listed in this order: by line of the file, then the layers above it.
    pub(crate) const fn order(&self) -> (u8, u64) {
        match self {
            Self::File { line } => (0, *line),
            Self::Default => (1, 0),
            Self::Environment { .. } => (2, 0),
            Self::Flag => (3, 0),
        }
    }
}

/// One mistake in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key it is about; empty when it is about the whole file.
    pub path: String,
    pub origin: Origin,
    /// What is wrong and what is accepted.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File { line: 0 } | Origin::Default => {}
            Origin::File { line } => write!(f, "line {line}: ")?,
            Origin::Environment { variable } => write!(f, "environment {variable}: ")?,
            Origin::Flag => f.write_str("flag: ")?,
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.what)
    }
}

/// The layers above the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Variables of the environment, ours and others.
    pub environment: BTreeMap<String, String>,
    /// Key path to text, from the command line.
    pub flags: BTreeMap<String, String>,
}

/// What reading collects.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) effective: Vec<Effective>,
    pub(crate) problems: Vec<Problem>,
}

/// One mapping of the file, together with the layers above it.
pub(crate) struct Section<'a> {
    notes: &'a mut Notes,
    overrides: &'a Overrides,
    path: String,
    entries: &'a [(String, Node)],
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The outermost section.
    pub(crate) fn root(node: &'a Node, overrides: &'a Overrides, notes: &'a mut Notes) -> Self {
        let entries = entries_of(node, "", notes);
        Self { notes, overrides, path: String::new(), entries, asked: Vec::new() }
    }

    /// Reads the mapping under `key` with `read`; an absent one is read as empty.
    pub(crate) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let path = self.path_of(key);
        let entries = self.take(key).map_or(&[][..], |node| entries_of(node, &path, self.notes));
        let mut inner =
            Section { notes: &mut *self.notes, overrides: self.overrides, path, entries, asked: Vec::new() };
        let value = read(&mut inner);
        inner.finish();
        value
    }

    /// Reads a scalar.
    pub(crate) fn value<T: Setting>(&mut self, key: &'static str, default: T) -> T {
        let path = self.path_of(key);
        let mut origin = Origin::Default;
        let mut value = default;
        if let Some((text, from)) = self.scalar(key, &path) {
            match T::read(&text) {
                Some(read) => (value, origin) = (read, from),
                None => self.refuse(&path, from, format!("`{text}` is not accepted; write {}", T::ACCEPTED)),
            }
        }
        self.note(path, EffectiveValue::Scalar(value.write()), origin);
        value
    }

    /// Reads a list of scalars; in the environment and in flags they are separated by commas.
    pub(crate) fn list<T: Setting>(&mut self, key: &'static str) -> Vec<T> {
        let path = self.path_of(key);
        let in_file = self.take(key);
        let mut values = Vec::new();
        let mut origin = Origin::Default;
        let above = self.value_above(&path);
        let items: Vec<(String, Origin)> = match (above, in_file) {
            (Some((text, from)), _) => {
                origin = from.clone();
                text.split(',').map(|item| (item.trim().to_owned(), from.clone())).collect()
            }
            (None, Some(node)) => {
                origin = Origin::File { line: node.line };
                self.items_of(node, &path)
            }
            (None, None) => Vec::new(),
        };
        for (text, from) in items {
            match T::read(&text) {
                Some(value) => values.push(value),
                None => self.refuse(&path, from, format!("`{text}` is not accepted; write {}", T::ACCEPTED)),
            }
        }
        self.note(path, EffectiveValue::List(values.iter().map(Setting::write).collect()), origin);
        values
    }

    /// Reads a mapping of free keys to scalars. Only the file can hold one.
    pub(crate) fn map<T: Setting>(&mut self, key: &'static str) -> Vec<(String, T)> {
        let path = self.path_of(key);
        let in_file = self.take(key);
        if let Some((_, from)) = self.value_above(&path) {
            self.refuse(&path, from, "a mapping can only be set in the configuration file".to_owned());
        }
        let origin = in_file.map_or(Origin::Default, |node| Origin::File { line: node.line });
        let mut values = Vec::new();
        for (name, node) in in_file.map_or(&[][..], |node| entries_of(node, &path, self.notes)) {
            let from = Origin::File { line: node.line };
            let read = match &node.value {
                Value::Scalar(text) => T::read(text),
                Value::Null | Value::List(_) | Value::Map(_) => None,
            };
            match read {
                Some(value) => values.push((name.clone(), value)),
                None => self.refuse(
                    &format!("{path}.{name}"),
                    from,
                    format!("{} is not accepted; write {}", node.describe(), T::ACCEPTED),
                ),
            }
        }
        let written = values.iter().map(|(name, value)| (name.clone(), value.write())).collect();
        self.note(path, EffectiveValue::Map(written), origin);
        values
    }

    /// The variables of the environment that begin with `prefix` and are not ours.
    pub(crate) fn variables(&self, prefix: &str) -> Vec<(String, String)> {
        let variables = self.overrides.environment.iter().filter(|(name, _)| name.starts_with(prefix));
        variables.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Leaves `key` to somebody else who reads it.
    pub(crate) fn foreign(&mut self, key: &'static str) -> Option<&'a Node> {
        self.take(key)
    }

    /// Adds a mistake that shows only when several values are looked at together.
    pub(crate) fn require(&mut self, holds: bool, key: &str, what: impl FnOnce() -> String) {
        if holds {
            return;
        }
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        let origin = self
            .notes
            .effective
            .iter()
            .find(|known| known.path == path)
            .map_or(Origin::Default, |known| known.origin.clone());
        self.refuse(&path, origin, what());
    }

    /// Reports the keys nobody asked for.
    pub(crate) fn finish(self) {
        for (key, node) in self.entries {
            if !self.asked.contains(&key.as_str()) {
                let path = if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
                let what = unknown(key, self.asked.iter().copied());
                self.notes.problems.push(Problem { path, origin: Origin::File { line: node.line }, what });
            }
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.asked.push(key);
        let node = self.entries.iter().find(|(name, _)| name == key).map(|(_, node)| node)?;
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    fn scalar(&mut self, key: &'static str, path: &str) -> Option<(String, Origin)> {
        let in_file = self.take(key);
        if let Some(above) = self.value_above(path) {
            return Some(above);
        }
        let node = in_file?;
        let from = Origin::File { line: node.line };
        match &node.value {
            Value::Scalar(text) => Some((text.clone(), from)),
            Value::Null => None,
            Value::List(_) | Value::Map(_) => {
                self.refuse(path, from, format!("{} stands where one value is expected", node.describe()));
                None
            }
        }
    }

    fn items_of(&mut self, node: &Node, path: &str) -> Vec<(String, Origin)> {
        let Value::List(items) = &node.value else {
            let what = format!("{} is not accepted; write a list", node.describe());
            self.refuse(path, Origin::File { line: node.line }, what);
            return Vec::new();
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            let from = Origin::File { line: item.line };
            match &item.value {
                Value::Scalar(text) => texts.push((text.clone(), from)),
                Value::Null | Value::List(_) | Value::Map(_) => {
                    self.refuse(path, from, format!("{} stands where one value is expected", item.describe()));
                }
            }
        }
        texts
    }

    fn value_above(&self, path: &str) -> Option<(String, Origin)> {
        if let Some(text) = self.overrides.flags.get(path) {
            return Some((text.clone(), Origin::Flag));
        }
        let variable = env_name(path);
        let text = self.overrides.environment.get(&variable)?.clone();
        Some((text, Origin::Environment { variable }))
    }

    fn note(&mut self, path: String, value: EffectiveValue, origin: Origin) {
        self.notes.effective.push(Effective { path, value, origin });
    }

    fn refuse(&mut self, path: &str, origin: Origin, what: String) {
        self.notes.problems.push(Problem { path: path.to_owned(), origin, what });
    }
}

/// `wal.sync_interval` → `WINDROSE_WAL_SYNC_INTERVAL`.
pub(crate) fn env_name(path: &str) -> String {
    format!("{ENV_PREFIX}{}", path.replace('.', "_").to_ascii_uppercase())
}

/// The sentence about a key that does not exist.
pub(crate) fn unknown<'k>(key: &str, known: impl Iterator<Item = &'k str> + Clone) -> String {
    let nearest = known.clone().map(|name| (edit_distance(key, name), name)).min();
    match nearest {
        // Two letters swapped are two edits; beyond a third of the word it is no typing mistake.
        Some((distance, name)) if distance <= (key.len() / 3).max(2) && distance < key.len() => {
            format!("unknown key; did you mean `{name}`?")
        }
        _ => format!("unknown key; known here: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

/// Levenshtein distance.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn entries_of<'n>(node: &'n Node, path: &str, notes: &mut Notes) -> &'n [(String, Node)] {
    match &node.value {
        Value::Map(entries) => entries,
        Value::Null => &[],
        Value::Scalar(_) | Value::List(_) => {
            notes.problems.push(Problem {
                path: path.to_owned(),
                origin: Origin::File { line: node.line },
                what: format!("{} is not accepted; write a mapping of keys to values", node.describe()),
            });
            &[]
        }
    }
}
