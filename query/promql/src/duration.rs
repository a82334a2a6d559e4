//! Durations as Prometheus writes them (`1h30m`, `5y`, `100ms`), in milliseconds.

use windrose_proto::metric::quote::quote;

/// Units from the largest; a duration may name each at most once and in this order.
const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Go's time.Duration counts nanoseconds in an i64; what does not fit is out of range there, so it is here.
pub const MAX_DURATION_MS: i64 = i64::MAX / 1_000_000;

/// Reads a duration. The error is the text Prometheus gives.
pub fn parse(text: &str) -> Result<i64, String> {
    if text == "0" {
        return Ok(0);
    }
    if text.is_empty() {
        return Err("empty duration string".to_owned());
    }
    let invalid = || format!("not a valid duration string: {}", quote(text));
    let mut rest = text;
    let mut total: i64 = 0;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Err(invalid());
        }
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(|byte| !byte.is_ascii_digit()).count();
        if letters == 0 {
            return Err(invalid());
        }
        let (unit, tail) = tail.split_at(letters);
        let Some(position) = UNITS.iter().position(|(name, _)| *name == unit) else {
            return Err(format!("unknown unit {} in duration {}", quote(unit), quote(text)));
        };
        if position < next_unit {
            return Err(invalid());
        }
        next_unit = position + 1;
        let amount = number.parse::<i64>().ok().and_then(|count| count.checked_mul(UNITS[position].1));
        total = amount
            .and_then(|amount| total.checked_add(amount))
            .filter(|sum| *sum <= MAX_DURATION_MS)
            .ok_or_else(|| "duration out of range".to_owned())?;
        rest = tail;
    }
    Ok(total)
}

/// Writes a duration; years and weeks only when nothing remains, because `90d` reads easier than `12w6d`.
pub fn format(millis: i64) -> String {
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut rest = millis;
    let mut out = String::new();
    if millis < 0 {
        out.push('-');
        rest = millis.saturating_neg();
    }
    for (unit, length) in UNITS {
        if matches!(unit, "y" | "w") && rest % length != 0 {
            continue;
        }
        let count = rest / length;
        if count > 0 {
            out.push_str(&count.to_string());
            out.push_str(unit);
            rest -= count * length;
        }
    }
    out
}

/// Seconds to milliseconds the way Go does: round to nanoseconds, cut to milliseconds. `None` when out of range.
pub fn from_seconds(seconds: f64) -> Option<i64> {
    let nanos = (seconds * 1e9).round();
    // The bound is i64::MAX as a float, which rounds up; a value equal to it already overflows.
    if nanos.is_nan() || nanos.abs() >= i64::MAX as f64 {
        return None;
    }
    Some((nanos as i64) / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_back() {
        for text in ["1h30m", "5y", "100ms", "90d", "1m30ms", "2w"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
        assert_eq!(format(0), "0s");
        assert_eq!(format(-90_000), "-1m30s");
    }

    #[test]
    fn errors_are_those_of_prometheus() {
        for (text, expect) in [
            ("5m1h", "not a valid duration string: \"5m1h\""),
            ("5m1m", "not a valid duration string: \"5m1m\""),
            ("5y1hs", "unknown unit \"hs\" in duration \"5y1hs\""),
            ("", "empty duration string"),
            ("300y", "duration out of range"),
        ] {
            assert_eq!(parse(text).unwrap_err(), expect);
        }
    }
}
