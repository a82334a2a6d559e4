//! Numbers of a sample line: values and timestamps.

use super::{Dialect, ErrorKind};

/// Digits that surely fit a 53-bit mantissa, so that the integer is the float.
const EXACT_DIGITS_MAX: usize = 15;

/// A sample value. Counters are mostly small integers, which need no float parser.
pub(super) fn value(text: &str) -> Result<f64, ErrorKind> {
    let bytes = text.as_bytes();
    if bytes.len() <= EXACT_DIGITS_MAX && bytes.iter().all(u8::is_ascii_digit) {
        let integer = bytes.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        return Ok(integer as f64);
    }
    let value: f64 = text.parse().map_err(|_| ErrorKind::BadValue)?;
    let is_overflow = value.is_infinite() && bytes.iter().any(u8::is_ascii_digit);
    if is_overflow { Err(ErrorKind::BadValue) } else { Ok(value) }
}

/// Milliseconds since the epoch. The text format counts milliseconds, OpenMetrics seconds; a
/// fraction under the text format is an OpenMetrics page served as `text/plain`.
pub(super) fn timestamp(text: &str, dialect: Dialect) -> Result<i64, ErrorKind> {
    if dialect == Dialect::Text
        && let Ok(millis) = text.parse::<i64>()
    {
        return Ok(millis);
    }
    let is_decimal = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E'));
    let seconds: f64 = text.parse().map_err(|_| ErrorKind::BadTimestamp)?;
    let millis = seconds * 1000.0;
    // 2^63 milliseconds are 292 million years: beyond it the cast would saturate.
    let is_representable = is_decimal && millis.is_finite() && millis.abs() < 9.2e18;
    if is_representable { Ok(millis.round() as i64) } else { Err(ErrorKind::BadTimestamp) }
}
