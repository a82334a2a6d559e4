//! A pull reader for JSON that senders really write: borrows from the body, allocates only to
//! unescape, never recurses on its own and says where a document is broken.
//!
//! Reads everything `serde_json` reads, and on top of it bare `NaN` and `Infinity` (Python writes
//! them), control characters and broken UTF-8 inside strings. Numbers may be strings and scalars
//! text: the `lenient_*` methods take either.

use std::borrow::Cow;

use windrose_proto::Text;

use super::text::{Source, cut};

#[cfg(test)]
mod tests;

/// Deepest nesting of objects and arrays: `serde_json`'s limit, and enough for an OTLP attribute
/// of the deepest nesting kept.
const DEPTH_MAX: usize = 128;

/// Where and why a document is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub(super) struct SyntaxError {
    pub(super) what: &'static str,
    pub(super) at: usize,
}

/// A value of another type than was hoped for; it has been skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} expected at byte {at}")]
pub(super) struct ShapeError {
    pub(super) wanted: &'static str,
    pub(super) at: usize,
}

/// Either; only the first spoils the whole document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum JsonError {
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    #[error(transparent)]
    Shape(#[from] ShapeError),
}

/// The kind of value that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// A string as it stands in the body.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawString<'a> {
    /// Between the quotes.
    raw: &'a [u8],
    is_escaped: bool,
}

impl<'a> RawString<'a> {
    /// The content, copied only when something in it is escaped.
    pub(super) fn content(self) -> Cow<'a, [u8]> {
        if self.is_escaped { Cow::Owned(unescape(self.raw)) } else { Cow::Borrowed(self.raw) }
    }

    /// The content as text, at most `max_bytes` long.
    pub(super) fn text(self, source: Source<'a>, max_bytes: usize) -> Text {
        match self.content() {
            Cow::Borrowed(raw) => source.text(raw, max_bytes),
            Cow::Owned(bytes) => cut(Text::from(String::from_utf8_lossy(&bytes).into_owned()), max_bytes),
        }
    }
}

/// Progress through one object or array.
#[derive(Clone, Copy, Debug)]
pub(super) struct Container {
    is_open: bool,
    is_first: bool,
}

/// A position in a document that may be returned to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(usize);

/// Reads one document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    pub(super) source: Source<'a>,
    input: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: Source<'a>) -> Self {
        // A byte order mark is white space here; Windows tools write it.
        let at = if source.body().starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        Self { source, input: source.body(), at, depth: 0 }
    }

    const fn broken<T>(&self, what: &'static str) -> Result<T, SyntaxError> {
        Err(SyntaxError { what, at: self.at })
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.input.get(self.at) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.skip_space();
        self.input.get(self.at).copied()
    }

    /// What comes next.
    pub(super) fn kind(&mut self) -> Result<Kind, SyntaxError> {
        match self.peek() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(b'-' | b'0'..=b'9' | b'N' | b'I') => Ok(Kind::Number),
            Some(_) => self.broken("a value expected"),
            None => self.broken("the document ends too early"),
        }
    }

    /// Nothing but white space may follow.
    pub(super) fn end(&mut self) -> Result<(), SyntaxError> {
        if self.peek().is_some() { self.broken("something follows the document") } else { Ok(()) }
    }

    /// Where the reader stands; [`Self::go_back`] returns here.
    pub(super) const fn mark(&self) -> Mark {
        Mark(self.at)
    }

    /// Returns to a mark at the same nesting.
    pub(super) const fn go_back(&mut self, mark: Mark) {
        self.at = mark.0;
    }

    /// The nesting, to restore after a jump out of several containers.
    pub(super) const fn depth(&self) -> usize {
        self.depth
    }

    /// Returns to a mark out of however many containers.
    pub(super) const fn go_back_out(&mut self, mark: Mark, depth: usize) {
        self.at = mark.0;
        self.depth = depth;
    }

    /// What has been read since `mark`.
    pub(super) fn raw_since(&self, mark: Mark) -> &'a [u8] {
        self.input[mark.0..self.at].trim_ascii()
    }

    // Containers. `null` is an empty one.

    /// Enters an object; [`Self::next_member`] walks it.
    pub(super) fn object(&mut self) -> Result<Container, JsonError> {
        self.enter(Kind::Object, "an object")
    }

    /// Enters an array; [`Self::next_item`] walks it.
    pub(super) fn array(&mut self) -> Result<Container, JsonError> {
        self.enter(Kind::Array, "an array")
    }

    fn enter(&mut self, wanted_kind: Kind, wanted: &'static str) -> Result<Container, JsonError> {
        let kind = self.kind()?;
        if kind == wanted_kind {
            if self.depth == DEPTH_MAX {
                return Ok(self.broken("nested too deep")?);
            }
            self.at += 1;
            self.depth += 1;
            return Ok(Container { is_open: true, is_first: true });
        }
        if kind == Kind::Null {
            self.word("null")?;
            return Ok(Container { is_open: false, is_first: true });
        }
        Err(self.unexpected(wanted)?)
    }

    /// Skips a value of the wrong type.
    fn unexpected(&mut self, wanted: &'static str) -> Result<JsonError, SyntaxError> {
        let at = self.at;
        self.skip()?;
        Ok(ShapeError { wanted, at }.into())
    }

    /// The name of the next member; its value follows and must be read or skipped.
    pub(super) fn next_member(&mut self, object: &mut Container) -> Result<Option<RawString<'a>>, SyntaxError> {
        if !self.advance(object, b'}')? {
            return Ok(None);
        }
        if self.peek() != Some(b'"') {
            return self.broken("a name expected");
        }
        let name = self.raw_string()?;
        if self.peek() != Some(b':') {
            return self.broken("a colon expected");
        }
        self.at += 1;
        Ok(Some(name))
    }

    /// Whether another item follows; it must be read or skipped.
    pub(super) fn next_item(&mut self, array: &mut Container) -> Result<bool, SyntaxError> {
        self.advance(array, b']')
    }

    fn advance(&mut self, container: &mut Container, close: u8) -> Result<bool, SyntaxError> {
        if !container.is_open {
            return Ok(false);
        }
        match self.peek() {
            Some(byte) if byte == close => {
                self.at += 1;
                self.depth -= 1;
                container.is_open = false;
                Ok(false)
            }
            Some(b',') if !container.is_first => {
                self.at += 1;
                if self.peek() == Some(close) { self.broken("a trailing comma") } else { Ok(true) }
            }
            Some(_) if container.is_first => {
                container.is_first = false;
                Ok(true)
            }
            Some(_) => self.broken("a comma expected"),
            None => self.broken("the document ends too early"),
        }
    }

    // Scalars.

    /// `true` or `false`, also as text; `null` is false.
    pub(super) fn lenient_bool(&mut self) -> Result<bool, JsonError> {
        match self.kind()? {
            Kind::Bool => Ok(self.bool()?),
            Kind::Null => {
                self.word("null")?;
                Ok(false)
            }
            Kind::String => {
                let at = self.at;
                match self.raw_string()?.content().as_ref() {
                    b"true" | b"True" | b"1" => Ok(true),
                    b"false" | b"False" | b"0" | b"" => Ok(false),
                    _ => Err(ShapeError { wanted: "true or false", at }.into()),
                }
            }
            Kind::Number => Ok(self.raw_number()? != b"0"),
            Kind::Array | Kind::Object => Err(self.unexpected("true or false")?),
        }
    }

    /// A scalar as text: numbers and booleans as they are written, `null` as nothing.
    pub(super) fn lenient_text(&mut self, max_bytes: usize) -> Result<Text, JsonError> {
        let mark = self.mark();
        match self.kind()? {
            Kind::String => Ok(self.raw_string()?.text(self.source, max_bytes)),
            Kind::Null => {
                self.word("null")?;
                Ok(Text::new())
            }
            Kind::Bool | Kind::Number => {
                self.skip()?;
                Ok(self.source.text(self.raw_since(mark), max_bytes))
            }
            Kind::Array | Kind::Object => Err(self.unexpected("text")?),
        }
    }

    /// A whole number, however it is written: digits, text, with an exponent or a fraction (cut
    /// off); `null` and the empty text are 0. Out of range saturates.
    pub(super) fn lenient_i128(&mut self) -> Result<i128, JsonError> {
        let (digits, at) = self.digits("a number")?;
        whole_number(&digits).ok_or_else(|| ShapeError { wanted: "a number", at }.into())
    }

    /// A number that counts something.
    pub(super) fn lenient_u64(&mut self) -> Result<u64, JsonError> {
        Ok(self.lenient_i128()?.clamp(0, i128::from(u64::MAX)) as u64)
    }

    /// A small number that counts something.
    pub(super) fn lenient_u32(&mut self) -> Result<u32, JsonError> {
        Ok(self.lenient_i128()?.clamp(0, i128::from(u32::MAX)) as u32)
    }

    /// A signed number.
    pub(super) fn lenient_i64(&mut self) -> Result<i64, JsonError> {
        Ok(self.lenient_i128()?.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64)
    }

    /// A floating point number, also as text, also not a number.
    pub(super) fn lenient_f64(&mut self) -> Result<f64, JsonError> {
        let (digits, at) = self.digits("a number")?;
        floating_number(&digits).ok_or_else(|| ShapeError { wanted: "a number", at }.into())
    }

    fn digits(&mut self, wanted: &'static str) -> Result<(Cow<'a, [u8]>, usize), JsonError> {
        let kind = self.kind()?;
        let at = self.at;
        match kind {
            Kind::Number => Ok((Cow::Borrowed(self.raw_number()?), at)),
            Kind::String => Ok((self.raw_string()?.content(), at)),
            Kind::Null => {
                self.word("null")?;
                Ok((Cow::Borrowed(b""), at))
            }
            Kind::Bool | Kind::Array | Kind::Object => Err(self.unexpected(wanted)?),
        }
    }

    /// A string value.
    pub(super) fn raw_string(&mut self) -> Result<RawString<'a>, SyntaxError> {
        if self.peek() != Some(b'"') {
            return self.broken("a string expected");
        }
        let start = self.at + 1;
        let mut at = start;
        let mut is_escaped = false;
        loop {
            let Some(offset) = memchr::memchr2(b'"', b'\\', &self.input[at..]) else {
                return self.broken("a string does not end");
            };
            at += offset;
            if self.input[at] == b'"' {
                break;
            }
            is_escaped = true;
            let len = escape_len(&self.input[at..]).ok_or(SyntaxError { what: "an unknown escape", at })?;
            at += len;
        }
        self.at = at + 1;
        Ok(RawString { raw: &self.input[start..at], is_escaped })
    }

    /// The characters of a number.
    pub(super) fn raw_number(&mut self) -> Result<&'a [u8], SyntaxError> {
        self.skip_space();
        let rest = &self.input[self.at..];
        let len = rest
            .iter()
            .position(|byte| !matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'a'..=b'z' | b'A'..=b'Z'))
            .unwrap_or(rest.len());
        let number = &rest[..len];
        if floating_number(number).is_none() || number.is_empty() {
            return self.broken("not a number");
        }
        self.at += len;
        Ok(number)
    }

    /// `true` or `false`.
    pub(super) fn bool(&mut self) -> Result<bool, SyntaxError> {
        let is_true = self.peek() == Some(b't');
        self.word(if is_true { "true" } else { "false" })?;
        Ok(is_true)
    }

    /// `null`.
    pub(super) fn null(&mut self) -> Result<(), SyntaxError> {
        self.word("null")
    }

    fn word(&mut self, word: &'static str) -> Result<(), SyntaxError> {
        self.skip_space();
        if !self.input[self.at..].starts_with(word.as_bytes()) {
            return self.broken("an unknown word");
        }
        self.at += word.len();
        Ok(())
    }

    /// Skips one value of any kind. Iterative: nesting costs no stack.
    pub(super) fn skip(&mut self) -> Result<(), SyntaxError> {
        // One bit per open container: set for an object.
        let mut is_object: u128 = 0;
        let mut open: Vec<Container> = Vec::new();
        loop {
            // One value, or the opening of one.
            match self.kind()? {
                Kind::Null => self.word("null")?,
                Kind::Bool => drop(self.bool()?),
                Kind::Number => drop(self.raw_number()?),
                Kind::String => drop(self.raw_string()?),
                kind @ (Kind::Array | Kind::Object) => {
                    if self.depth == DEPTH_MAX {
                        return self.broken("nested too deep");
                    }
                    self.at += 1;
                    self.depth += 1;
                    is_object = is_object << 1 | u128::from(kind == Kind::Object);
                    open.push(Container { is_open: true, is_first: true });
                }
            }
            // On to the next value, out of everything that ends here.
            loop {
                let Some(container) = open.last_mut() else { return Ok(()) };
                let has_more = if is_object & 1 == 1 {
                    self.next_member(container)?.is_some()
                } else {
                    self.next_item(container)?
                };
                if has_more {
                    break;
                }
                open.pop();
                is_object >>= 1;
            }
        }
    }
}

/// A whole number from its digits; the empty text is 0.
fn whole_number(digits: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(digits).ok()?.trim();
    if text.is_empty() {
        return Some(0);
    }
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    floating_number(text.as_bytes()).filter(|number| number.is_finite()).map(|number| number as i128)
}

/// A floating point number; also the names protobuf, JavaScript and Python have for what is not one.
fn floating_number(digits: &[u8]) -> Option<f64> {
    match std::str::from_utf8(digits).ok()?.trim() {
        "" => Some(0.0),
        "NaN" => Some(f64::NAN),
        "Infinity" | "+Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        // `parse` knows more words than JSON does.
        text if text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) => {
            text.parse().ok()
        }
        _ => None,
    }
}

/// Length of the escape at the start; `None` when it is not one.
fn escape_len(at_backslash: &[u8]) -> Option<usize> {
    match at_backslash.get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' => at_backslash.get(2..6).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit)).map(|_| 6),
        _ => None,
    }
}

/// Resolves the escapes of a string that [`Reader::raw_string`] has checked.
fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let (character, len) = match rest.get(1) {
            Some(b'u') => unescape_unicode(rest),
            Some(b'b') => ('\u{8}', 2),
            Some(b'f') => ('\u{c}', 2),
            Some(b'n') => ('\n', 2),
            Some(b'r') => ('\r', 2),
            Some(b't') => ('\t', 2),
            Some(other) => (char::from(*other), 2),
            None => break,
        };
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &rest[len.min(rest.len())..];
    }
    out.extend_from_slice(rest);
    out
}

/// `\uXXXX`, or two of them where they are a surrogate pair; half a pair becomes the replacement
/// character.
fn unescape_unicode(at_backslash: &[u8]) -> (char, usize) {
    let unit = |offset: usize| {
        let escape = at_backslash.get(offset..offset + 6)?;
        let digits = escape.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let Some(first) = unit(0) else { return (char::REPLACEMENT_CHARACTER, 6) };
    let second = unit(6).filter(|_| (0xd800..0xdc00).contains(&first));
    let pair = second.and_then(|second| char::decode_utf16([first, second]).next()?.ok());
    match pair {
        Some(character) => (character, 12),
        None => (char::from_u32(u32::from(first)).unwrap_or(char::REPLACEMENT_CHARACTER), 6),
    }
}
