//! The labels of a sample, kept as the text between the braces and read again on demand.
//!
//! The parser has walked the block once, so the iterator here can rely on its form; on a block of
//! any other form it just ends early.

use std::borrow::Cow;

/// One label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label<'a> {
    pub name: Cow<'a, str>,
    pub value: Cow<'a, str>,
}

/// The labels of one sample, in the order of the page. Copying it is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Labels<'a> {
    block: &'a str,
    count: u32,
}

/// Walks the labels of a sample.
#[derive(Clone, Debug)]
pub struct LabelsIter<'a> {
    rest: &'a str,
}

impl<'a> Labels<'a> {
    pub(super) const fn of_block(block: &'a str, count: u32) -> Self {
        Self { block, count }
    }

    /// How many labels, the metric name not counted.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The labels in page order.
    #[must_use]
    pub const fn iter(&self) -> LabelsIter<'a> {
        LabelsIter { rest: self.block }
    }

    /// The value of the first label called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Cow<'a, str>> {
        self.iter().find(|label| label.name == name).map(|label| label.value)
    }
}

impl<'a> IntoIterator for Labels<'a> {
    type Item = Label<'a>;
    type IntoIter = LabelsIter<'a>;

    fn into_iter(self) -> LabelsIter<'a> {
        self.iter()
    }
}

impl<'a> LabelsIter<'a> {
    /// The common form, `name="value"` without blanks, and the comma behind it.
    fn plain(&mut self) -> Option<Label<'a>> {
        let rest = self.rest;
        let equals = rest.bytes().position(|byte| matches!(byte, b'=' | b'"' | b' ' | b'\t' | b'\r' | b','))?;
        let inner = rest.get(equals..)?.strip_prefix("=\"").filter(|_| equals > 0)?;
        let end = closing_quote(inner.as_bytes())?;
        let label = Label { name: Cow::Borrowed(&rest[..equals]), value: unescape(&inner[..end]) };
        let behind = &inner[end + 1..];
        self.rest = behind.strip_prefix(',').unwrap_or(behind);
        Some(label)
    }
}

impl<'a> Iterator for LabelsIter<'a> {
    type Item = Label<'a>;

    fn next(&mut self) -> Option<Label<'a>> {
        if let Some(label) = self.plain() {
            return Some(label);
        }
        loop {
            let rest = self.rest.trim_start_matches([' ', '\t', '\r', ',']);
            if rest.is_empty() {
                return None;
            }
            let (name, rest) = match rest.strip_prefix('"') {
                Some(inner) => {
                    let end = closing_quote(inner.as_bytes())?;
                    (unescape(&inner[..end]), &inner[end + 1..])
                }
                None => {
                    let end = rest.find(['=', ' ', '\t', '\r'])?;
                    (Cow::Borrowed(&rest[..end]), &rest[end..])
                }
            };
            let rest = rest.trim_start_matches([' ', '\t', '\r']);
            // A quoted word without `=` is the metric name.
            let Some(rest) = rest.strip_prefix('=') else {
                self.rest = rest;
                continue;
            };
            let inner = rest.trim_start_matches([' ', '\t', '\r']).strip_prefix('"')?;
            let end = closing_quote(inner.as_bytes())?;
            self.rest = &inner[end + 1..];
            return Some(Label { name, value: unescape(&inner[..end]) });
        }
    }
}

/// Most label values end within so many bytes, where a plain loop beats the start of a vectorised
/// search.
const NEAR_BYTES: usize = 16;

/// Where the quote that ends a quoted text stands.
pub(super) fn closing_quote(bytes: &[u8]) -> Option<usize> {
    let near = bytes.iter().take(NEAR_BYTES).position(|byte| matches!(byte, b'"' | b'\\'));
    let mut found = match near {
        Some(found) => found,
        None => NEAR_BYTES + memchr::memchr2(b'"', b'\\', bytes.get(NEAR_BYTES..)?)?,
    };
    while bytes[found] != b'"' {
        // A backslash takes the next byte with it.
        let rest = found + 2;
        found = rest + memchr::memchr2(b'"', b'\\', bytes.get(rest..)?)?;
    }
    Some(found)
}

/// Resolves `\\`, `\"` and `\n`; any other backslash stands for itself, as in Prometheus.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    if memchr::memchr(b'\\', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => plain.push('\n'),
            Some(escaped @ ('\\' | '"')) => plain.push(escaped),
            Some(other) => plain.extend(['\\', other]),
            None => plain.push('\\'),
        }
    }
    Cow::Owned(plain)
}
