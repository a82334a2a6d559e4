//! Text in quotes, character for character as Go's `%q` writes it: what Prometheus prints in labels, matchers and
//! messages.

use std::fmt::Write as _;

/// Quotes bytes as Go's `strconv.Quote`; invalid UTF-8 becomes `\x..`.
pub fn quote_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            push_quoted(&mut out, character);
        }
        for byte in chunk.invalid() {
            write_infallible(&mut out, format_args!("\\x{byte:02x}"));
        }
    }
    out.push('"');
    out
}

/// Quotes a string as Go's `%q`.
pub fn quote(text: &str) -> String {
    quote_bytes(text.as_bytes())
}

/// Quotes one character as Go's `%q` of a rune.
pub fn quote_char(character: char) -> String {
    let mut out = String::from("'");
    match character {
        '\'' => out.push_str("\\'"),
        '"' => out.push('"'),
        other => push_quoted(&mut out, other),
    }
    out.push('\'');
    out
}

fn push_quoted(out: &mut String, character: char) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0b' => out.push_str("\\v"),
        '\x0c' => out.push_str("\\f"),
        ' '..='\x7e' => out.push(character),
        '\0'..='\x7f' => write_infallible(out, format_args!("\\x{:02x}", u32::from(character))),
        other if is_go_printable(other) => out.push(other),
        other if u32::from(other) <= 0xffff => write_infallible(out, format_args!("\\u{:04x}", u32::from(other))),
        other => write_infallible(out, format_args!("\\U{:08x}", u32::from(other))),
    }
}

/// Whether Go would print the character as is. Without Unicode tables: everything but controls, separators,
/// surrogate-like and private-use code points.
fn is_go_printable(character: char) -> bool {
    let code = u32::from(character);
    !character.is_control()
        && !character.is_whitespace()
        && !matches!(code, 0xad | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xe000..=0xf8ff | 0xfeff | 0xfff9..=0xfffb)
        && code < 0xe0000
}

/// Writing into a `String` cannot fail; this says so once.
fn write_infallible(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    if out.write_fmt(arguments).is_err() {
        debug_assert!(false, "a String accepts every write");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_matches_go() {
        assert_eq!(quote("a\"b\\\n☺"), "\"a\\\"b\\\\\\n☺\"");
        assert_eq!(quote_bytes(b"a\xc5z"), "\"a\\xc5z\"");
    }
}
