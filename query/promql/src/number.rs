//! Numbers as text, digit for digit as Go prints and reads them: the HTTP API, `count_values`, the printer and the
//! annotations each use another of Go's formats.

use std::fmt::Write as _;

/// Go's `strconv.FormatFloat(v, 'f', -1, 64)`: shortest digits that read back, never an exponent.
pub fn format_fixed(value: f64) -> String {
    let mut out = String::new();
    write_fixed(&mut out, value);
    out
}

/// Appends what [`format_fixed`] returns.
pub fn write_fixed(out: &mut String, value: f64) {
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        write_infallible(out, format_args!("{value}"));
    }
}

/// Go's `%g` and `%v`: shortest digits, an exponent below 1e-4 and from 1e6 on.
pub fn format_general(value: f64) -> String {
    let mut out = String::new();
    if !value.is_finite() || value == 0.0 {
        write_fixed(&mut out, value);
        return out;
    }
    let exponent = decimal_exponent(value);
    if !(-4..6).contains(&exponent) {
        write_exponent(&mut out, value);
    } else {
        write_fixed(&mut out, value);
    }
    out
}

/// The value as the HTTP API writes it between quotes: fixed, but with an exponent below 1e-6 and from 1e21 on.
pub fn write_api_value(out: &mut String, value: f64) {
    let magnitude = value.abs();
    if value.is_finite() && magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        write_exponent(out, value);
    } else {
        write_fixed(out, value);
    }
}

/// A millisecond timestamp as the HTTP API writes it: seconds, without a fraction or with exactly three decimals.
pub fn write_api_timestamp(out: &mut String, millis: i64) {
    let magnitude = millis.unsigned_abs();
    if millis < 0 {
        out.push('-');
    }
    write_infallible(out, format_args!("{}", magnitude / 1000));
    if !magnitude.is_multiple_of(1000) {
        write_infallible(out, format_args!(".{:03}", magnitude % 1000));
    }
}

/// A float as an OpenMetrics label value (`1.0`, `0.25`, `1e+06`), used for `le` and quantile labels.
pub fn format_openmetrics(value: f64) -> String {
    if !value.is_finite() {
        return format_fixed(value);
    }
    let mut text = format_general(value);
    if !text.contains(['e', '.']) {
        text.push_str(".0");
    }
    text
}

/// Reads a float as Go's `ParseFloat` does for label values; `None` when it is not one.
pub fn parse_float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned.len() > 2 && unsigned[..2].eq_ignore_ascii_case("0x") {
        return None;
    }
    text.parse().ok()
}

/// Reads a number literal of the language: Go integers with base prefix and underscores, else a float.
pub fn parse_literal(text: &str) -> Option<f64> {
    if let Some(integer) = parse_go_integer(text) {
        return Some(integer);
    }
    if text.contains('_') {
        return None;
    }
    parse_float(text)
}

/// Go's `strconv.ParseInt(text, 0, 64)`: `0x`, `0o`, `0b`, leading-zero octal, underscores between digits.
fn parse_go_integer(text: &str) -> Option<f64> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits, prefixed) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..], true),
        [b'0', b'o', ..] => (8, &lower[2..], true),
        [b'0', b'b', ..] => (2, &lower[2..], true),
        [b'0', _, ..] => (8, &lower[1..], true),
        _ => (10, lower.as_str(), false),
    };
    if digits.ends_with('_') || digits.contains("__") || (digits.starts_with('_') && !prefixed) {
        return None;
    }
    let plain: String = digits.chars().filter(|c| *c != '_').collect();
    if !plain.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    // Beyond i64 Go falls back to ParseFloat, which reads the same digits as a float.
    i64::from_str_radix(&plain, radix).ok().map(|integer| integer as f64)
}

/// The decimal exponent of the shortest representation: 3 for 1234, -2 for 0.05.
fn decimal_exponent(value: f64) -> i32 {
    let text = format!("{value:e}");
    text.rsplit('e').next().and_then(|exponent| exponent.parse().ok()).unwrap_or(0)
}

/// Go's `'e'` with shortest digits: at least two exponent digits and always a sign.
fn write_exponent(out: &mut String, value: f64) {
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    write_infallible(out, format_args!("{mantissa}e{sign}{:02}", exponent.unsigned_abs()));
}

/// Go's `%.2g`: two significant digits, an exponent below 1e-4 and from 1e2 on.
pub fn format_two_digits(value: f64) -> String {
    if !value.is_finite() || value == 0.0 {
        return format_fixed(value);
    }
    let text = format!("{value:.1e}");
    let exponent: i32 = text.rsplit('e').next().and_then(|e| e.parse().ok()).unwrap_or(0);
    let rounded: f64 = text.parse().unwrap_or(value);
    let mut out = String::new();
    if !(-4..2).contains(&exponent) {
        write_exponent(&mut out, rounded);
    } else {
        write_fixed(&mut out, rounded);
    }
    out
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

    #[track_caller]
    fn check_api(value: f64, expect: &str) {
        let mut out = String::new();
        write_api_value(&mut out, value);
        assert_eq!(out, expect);
    }

    #[test]
    fn api_values_switch_to_exponents_at_go_json_bounds() {
        check_api(1e-7, "1e-07");
        check_api(0.000_001, "0.000001");
        check_api(1e21, "1e+21");
        check_api(1e20, "100000000000000000000");
        check_api(-0.0, "-0");
        check_api(f64::NAN, "NaN");
        check_api(f64::INFINITY, "+Inf");
        check_api(1.5, "1.5");
    }

    #[test]
    fn timestamps_have_no_fraction_or_three_digits() {
        for (millis, expect) in
            [(0, "0"), (10_000, "10"), (10_500, "10.500"), (123, "0.123"), (-1, "-0.001"), (-61_000, "-61")]
        {
            let mut out = String::new();
            write_api_timestamp(&mut out, millis);
            assert_eq!(out, expect);
        }
    }

    #[test]
    fn literals_read_as_go_integers_first() {
        for (text, expect) in
            [("0755", 493.0), ("0x1F", 31.0), ("1_000", 1000.0), ("5e-3", 0.005), ("2.", 2.0), (".5", 0.5)]
        {
            assert_eq!(parse_literal(text), Some(expect), "{text}");
        }
        assert_eq!(parse_literal("08"), Some(8.0));
        assert_eq!(parse_literal("1__0"), None);
    }

    #[test]
    fn short_forms_match_go() {
        assert_eq!(format_general(1e-5), "1e-05");
        assert_eq!(format_two_digits(123.0), "1.2e+02");
        assert_eq!(format_openmetrics(1.0), "1.0");
    }
}
