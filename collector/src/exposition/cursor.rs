//! A position in a page and the tokens that can be read from it.
//!
//! Every cut is made at an ASCII byte, so slices of the page stay valid text.

use std::borrow::Cow;

use super::ErrorKind;
use super::labels::{self, Labels};

/// Whether a byte may stand in a bare label name.
const IS_LABEL_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_usize;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric() || byte as u8 == b'_';
        byte += 1;
    }
    table
};

#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, position: 0 }
    }

    pub(super) const fn position(&self) -> usize {
        self.position
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.position >= self.text.len()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.position).copied()
    }

    /// The text from `start` to here.
    pub(super) fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.position).unwrap_or_default()
    }

    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.position += usize::from(is_next);
        is_next
    }

    /// Spaces and tabs, and the carriage return of a CRLF line.
    pub(super) fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r')) {
            self.position += 1;
        }
    }

    pub(super) fn at_line_end(&self) -> bool {
        matches!(self.peek(), None | Some(b'\n'))
    }

    pub(super) fn skip_line(&mut self) {
        self.take_line();
    }

    /// The rest of the line without its end; the cursor then stands on the next line.
    pub(super) fn take_line(&mut self) -> &'a str {
        let rest = &self.text.as_bytes()[self.position..];
        let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let line = self.text.get(self.position..self.position + length).unwrap_or_default();
        self.position = (self.position + length + 1).min(self.text.len());
        line
    }

    /// The line under the cursor without its end, which is not read by that.
    pub(super) fn line(&self) -> &'a str {
        let rest = &self.text.as_bytes()[self.position..];
        let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        self.text.get(self.position..self.position + length).unwrap_or_default()
    }

    /// The line the cursor stands behind.
    pub(super) fn line_before(&self) -> &'a str {
        let read = self.text.get(..self.position).unwrap_or_default();
        let line = read.strip_suffix('\n').unwrap_or(read);
        line.get(memchr::memrchr(b'\n', line.as_bytes()).map_or(0, |end| end + 1)..).unwrap_or_default()
    }

    /// Goes past text that is known.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.position = (self.position + bytes).min(self.text.len());
    }

    /// Goes back to where it was.
    pub(super) const fn go_back(&mut self, position: usize) {
        self.position = position;
    }

    /// Goes back to the line that began at `start`, returns it and stands behind it.
    pub(super) fn restart_after_line(&mut self, start: usize) -> &'a str {
        self.position = start;
        self.take_line()
    }

    /// The end of a line: nothing more, or a newline.
    pub(super) fn end_line(&mut self, strict: bool) -> bool {
        if !strict {
            self.skip_blanks();
        }
        self.is_at_end() || self.eat(b'\n')
    }

    /// `[a-zA-Z_:][a-zA-Z0-9_:]*`
    pub(super) fn metric_name(&mut self) -> Option<&'a str> {
        let start = self.position;
        if self.peek().is_none_or(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let rest = &self.text.as_bytes()[start..];
        self.position += rest.iter().take_while(|byte| IS_LABEL_BYTE[usize::from(**byte)] || **byte == b':').count();
        (self.position > start).then(|| self.since(start))
    }

    /// A family name in metadata, bare or quoted, and the blank behind it.
    pub(super) fn metadata_name(&mut self) -> Result<Cow<'a, str>, ErrorKind> {
        let name = if self.eat(b'"') {
            labels::unescape(self.quoted_rest(true).ok_or(ErrorKind::ExpectedName)?)
        } else {
            Cow::Borrowed(self.metric_name().ok_or(ErrorKind::ExpectedName)?)
        };
        match self.peek() {
            None | Some(b' ' | b'\t' | b'\r') => Ok(name),
            Some(_) => Err(ErrorKind::ExpectedName),
        }
    }

    /// What follows the family name in metadata.
    pub(super) fn metadata_text(&mut self, strict: bool) -> Result<&'a str, ErrorKind> {
        if strict {
            return if self.eat(b' ') { Ok(self.take_line()) } else { Err(ErrorKind::BadMetadata) };
        }
        self.skip_blanks();
        Ok(self.take_line().trim_end())
    }

    /// The next word of a sample line, with the blank before it. `None` at the end of the line and
    /// before an exemplar; nothing is consumed then.
    pub(super) fn token(&mut self, strict: bool) -> Option<&'a str> {
        let before = self.position;
        if strict {
            self.eat(b' ').then_some(())?;
        } else {
            self.skip_blanks();
        }
        let start = self.position;
        let rest = &self.text.as_bytes()[start..];
        self.position += rest.iter().take_while(|byte| **byte > b' ' && **byte != b'#').count();
        if self.position == start {
            self.position = before;
            return None;
        }
        Some(self.since(start))
    }

    /// ` # {`
    pub(super) fn eat_exemplar_mark(&mut self, strict: bool) -> bool {
        let before = self.position;
        let is_mark = if strict {
            [b' ', b'#', b' ', b'{'].into_iter().all(|byte| self.eat(byte))
        } else {
            self.skip_blanks();
            let is_hash = self.eat(b'#');
            self.skip_blanks();
            is_hash && self.eat(b'{')
        };
        if !is_mark {
            self.position = before;
        }
        is_mark
    }

    /// Reads labels behind an opening brace up to and with the closing one. A quoted word without
    /// value is the metric name.
    pub(super) fn labels(&mut self, strict: bool) -> Result<(Labels<'a>, Option<&'a str>), ErrorKind> {
        let start = self.position;
        let mut count = self.plain_labels(strict);
        let mut metric_name = None;
        self.skip_inner_blanks(strict);
        while !self.eat(b'}') {
            let is_quoted = self.eat(b'"');
            let name = if is_quoted {
                self.quoted_rest(strict).ok_or(ErrorKind::ExpectedLabelName)?
            } else {
                self.label_name().ok_or(ErrorKind::ExpectedLabelName)?
            };
            self.skip_inner_blanks(strict);
            if self.eat(b'=') {
                self.skip_inner_blanks(strict);
                let is_value = self.eat(b'"') && self.quoted_rest(strict).is_some();
                if !is_value {
                    return Err(ErrorKind::ExpectedLabelValue);
                }
                if name.is_empty() {
                    return Err(ErrorKind::ExpectedLabelName);
                }
                count += 1;
                self.skip_inner_blanks(strict);
            } else if !is_quoted || !matches!(self.peek(), Some(b',' | b'}')) {
                return Err(ErrorKind::ExpectedEquals);
            } else if name.is_empty() {
                return Err(ErrorKind::ExpectedName);
            } else if metric_name.replace(name).is_some() {
                return Err(ErrorKind::NameTwice);
            }
            let is_comma = self.eat(b',');
            self.skip_inner_blanks(strict);
            if !is_comma && self.peek() != Some(b'}') {
                return Err(ErrorKind::ExpectedCommaOrBrace);
            }
        }
        let block = self.text.get(start..self.position - 1).unwrap_or_default();
        Ok((Labels::of_block(block, count), metric_name))
    }

    /// Reads labels in the form nearly all pages have, `name="value",`, without looking for anything
    /// else; the first label that is different is left to [`Self::labels`]. Returns how many.
    fn plain_labels(&mut self, strict: bool) -> u32 {
        let bytes = self.text.as_bytes();
        let mut at = self.position;
        let mut count = 0;
        loop {
            let name_length = bytes[at..].iter().take_while(|byte| IS_LABEL_BYTE[usize::from(**byte)]).count();
            let value = at + name_length + 2;
            let is_plain = name_length > 0
                && !bytes[at].is_ascii_digit()
                && bytes.get(value - 2..value).is_some_and(|between| between == b"=\"");
            let Some(length) = is_plain.then(|| labels::closing_quote(&bytes[value..])).flatten() else { return count };
            let end = value + length + 1;
            if bytes.get(end) != Some(&b',') || strict && bytes[value..end].contains(&b'\n') {
                return count;
            }
            count += 1;
            at = end + 1;
            self.position = at;
        }
    }

    /// `[a-zA-Z_][a-zA-Z0-9_]*`
    fn label_name(&mut self) -> Option<&'a str> {
        let start = self.position;
        if self.peek().is_none_or(|byte| byte.is_ascii_digit()) {
            return None;
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            self.position += 1;
        }
        (self.position > start).then(|| self.since(start))
    }

    /// The inside of a quoted text whose opening quote has been read. The text format lets a value
    /// run over lines, OpenMetrics does not.
    fn quoted_rest(&mut self, strict: bool) -> Option<&'a str> {
        let start = self.position;
        let end = labels::closing_quote(&self.text.as_bytes()[start..])?;
        let inner = self.text.get(start..start + end)?;
        if strict && inner.contains('\n') {
            return None;
        }
        self.position = start + end + 1;
        Some(inner)
    }

    fn skip_inner_blanks(&mut self, strict: bool) {
        if !strict {
            self.skip_blanks();
        } else {
            // Prometheus' own lexer skips blanks between labels in OpenMetrics too.
            while self.peek() == Some(b' ') {
                self.position += 1;
            }
        }
    }
}
