//! Standard base64 with optional padding, for identifiers only (at most 24 characters).

/// Longest spelling worth decoding: 16 bytes make 24 characters.
const MAX_CHARS: usize = 24;

/// Decodes standard or URL-safe base64; `None` on any character outside the alphabet.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let body = text.trim_end_matches('=').as_bytes();
    if text.is_empty() || text.len() > MAX_CHARS || text.len() - body.len() > 2 || body.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(16);
    let mut buffer = 0_u32;
    let mut bits = 0;
    for byte in body {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        buffer = buffer << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((buffer >> bits) as u8);
            buffer &= (1 << bits) - 1;
        }
    }
    Some(out)
}
