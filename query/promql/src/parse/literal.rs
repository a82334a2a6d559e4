//! Decodes string literals. The lexer has already checked every escape sequence.

use super::{Parsed, fault};
use crate::ast::{Span, StringLiteral};

/// The value of a quoted literal.
pub(super) fn unquote(text: &str, span: Span) -> Parsed<StringLiteral> {
    let inner = &text[1..text.len() - 1];
    if text.starts_with('`') || !inner.contains('\\') {
        return Ok(StringLiteral { value: inner.to_owned(), invalid_utf8: None, span });
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let Some(tail) = decode_escape(&rest[at + 1..], &mut bytes) else {
            return fault(
                span,
                format!("error unquoting string {}: invalid syntax", windrose_proto::metric::quote::quote(text)),
            );
        };
        rest = tail;
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(match String::from_utf8(bytes) {
        Ok(value) => StringLiteral { value, invalid_utf8: None, span },
        Err(error) => StringLiteral {
            value: String::from_utf8_lossy(error.as_bytes()).into_owned(),
            invalid_utf8: Some(error.into_bytes()),
            span,
        },
    })
}

/// Decodes what follows a backslash and returns the rest.
fn decode_escape<'t>(text: &'t str, bytes: &mut Vec<u8>) -> Option<&'t str> {
    let first = text.chars().next()?;
    let after = &text[first.len_utf8()..];
    let simple = match first {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' | '\'' | '"' => u8::try_from(first).ok()?,
        'x' => {
            bytes.push(u8::from_str_radix(after.get(..2)?, 16).ok()?);
            return after.get(2..);
        }
        '0'..='7' => {
            bytes.push(u8::from_str_radix(text.get(..3)?, 8).ok()?);
            return text.get(3..);
        }
        'u' | 'U' => {
            let digits = if first == 'u' { 4 } else { 8 };
            let character = char::from_u32(u32::from_str_radix(after.get(..digits)?, 16).ok()?)?;
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            return after.get(digits..);
        }
        _ => return None,
    };
    bytes.push(simple);
    Some(after)
}
