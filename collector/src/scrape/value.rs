//! Single values of a scrape configuration: durations, sizes, secrets.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};

/// A duration as Prometheus writes it: `15s`, `1h30m`, `500ms`, `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PromDuration(pub Duration);

/// A size as Prometheus writes it: `10MB`, `512KiB`, `100B`; a unit is a power of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

/// Text that must not be shown.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

/// Units from the largest, in the order Prometheus demands.
const UNITS_MILLIS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3600 * 1000),
    ("w", 7 * 24 * 3600 * 1000),
    ("d", 24 * 3600 * 1000),
    ("h", 3600 * 1000),
    ("m", 60 * 1000),
    ("s", 1000),
    ("ms", 1),
];

impl PromDuration {
    /// Reads a duration. `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "0" {
            return Some(Self(Duration::ZERO));
        }
        let mut rest = text;
        let mut total_millis = 0_u64;
        let mut units = UNITS_MILLIS.iter();
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let amount: u64 = rest.get(..digits)?.parse().ok()?;
            rest = &rest[digits..];
            let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            let unit = &rest[..letters];
            rest = &rest[letters..];
            let (_, millis) = units.find(|(name, _)| *name == unit)?;
            total_millis = total_millis.checked_add(amount.checked_mul(*millis)?)?;
        }
        (!text.is_empty()).then_some(Self(Duration::from_millis(total_millis)))
    }
}

impl fmt::Display for PromDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in UNITS_MILLIS.iter().skip(2) {
            let amount = millis / size;
            if amount > 0 {
                write!(f, "{amount}{unit}")?;
                millis %= size;
            }
        }
        Ok(())
    }
}

impl ByteSize {
    /// Reads a size. `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "0" {
            return Some(Self(0));
        }
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let amount: u64 = text.get(..digits)?.parse().ok()?;
        let shift = match &text[digits..] {
            "B" => 0,
            "KB" | "KiB" => 10,
            "MB" | "MiB" => 20,
            "GB" | "GiB" => 30,
            "TB" | "TiB" => 40,
            _ => return None,
        };
        amount.checked_mul(1 << shift).map(Self)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl<'de> de::Deserialize<'de> for PromDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |text: &str| Self::parse(text);
        deserializer.deserialize_str(Text { parse, expected: "a duration such as 15s or 1h30m" })
    }
}

impl<'de> de::Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |text: &str| Self::parse(text);
        deserializer.deserialize_str(Text { parse, expected: "a size such as 10MB or 0" })
    }
}

struct Text<F> {
    parse: F,
    expected: &'static str,
}

impl<T, F: Fn(&str) -> Option<T>> Visitor<'_> for Text<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ByteSize, PromDuration, Secret};

    #[test]
    fn durations_are_read_and_written() {
        for (text, millis) in
            [("15s", 15_000), ("1h30m", 5_400_000), ("500ms", 500), ("1d", 86_400_000), ("1m0s", 60_000)]
        {
            let duration = PromDuration::parse(text).unwrap();
            assert_eq!(duration.0, Duration::from_millis(millis), "{text}");
            assert_eq!(PromDuration::parse(&duration.to_string()), Some(duration), "{text}");
        }
        assert_eq!(PromDuration::parse("0").unwrap().to_string(), "0s");
        for bad in ["", "15", "s", "1.5s", "1m1h", "-1s", "1 s", "99999999999999y"] {
            assert_eq!(PromDuration::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(ByteSize::parse("10MB"), Some(ByteSize(10 << 20)));
        assert_eq!(ByteSize::parse("1KiB"), Some(ByteSize(1024)));
        assert_eq!(ByteSize::parse("0"), Some(ByteSize(0)));
        for bad in ["", "10", "MB", "1.5MB", "99999999TB"] {
            assert_eq!(ByteSize::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", Secret("hunter2".to_owned())), "<secret>");
    }
}
