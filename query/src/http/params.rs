//! Request parameters: read once, each error naming the parameter, its value and what is accepted.

use std::collections::BTreeMap;
use std::time::Duration;

use windrose_proto::model::Direction;
use windrose_proto::time::{TimeRange, UnixNanos};

use super::error::ApiError;

/// Without `start`, the last hour.
const DEFAULT_RANGE: Duration = Duration::from_secs(3600);

/// The parameters of one request, by name. The first of a repeated parameter counts.
#[derive(Clone, Debug, Default)]
pub struct Params(BTreeMap<String, String>);

impl Params {
    /// From a raw query string. Unknown names are refused, so that a typing error is not silently
    /// answered with everything.
    ///
    /// # Errors
    /// When a parameter is not in `known`.
    pub fn parse(query: Option<&str>, known: &[&str]) -> Result<Self, ApiError> {
        let pairs = serde_urlencoded(query.unwrap_or_default());
        let mut params = BTreeMap::new();
        for (name, value) in pairs {
            let accepted = known.contains(&name.as_str())
                || known.iter().any(|known| known.ends_with('*') && name.starts_with(&known[..known.len() - 1]));
            if !accepted {
                return Err(ApiError::bad_data(format!(
                    "unknown parameter {name:?}: accepted are {}",
                    known.join(", ")
                )));
            }
            params.entry(name).or_insert(value);
        }
        Ok(Self(params))
    }

    /// The text of a parameter; empty counts as absent.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// Parameters whose name starts with `prefix`, without the prefix.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_str())))
    }

    /// Anything that can be read from text.
    ///
    /// # Errors
    /// When the value cannot be read.
    pub fn read<T>(
        &self,
        name: &str,
        accepted: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        match self.text(name) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| ApiError::parameter(name, value, accepted)),
        }
    }

    /// A whole number within bounds.
    ///
    /// # Errors
    /// When it is not a number, or outside.
    pub fn number(&self, name: &str, default: usize, max: usize) -> Result<usize, ApiError> {
        let accepted = format!("a whole number from 0 to {max}");
        let read = |value: &str| value.parse().ok().filter(|number| *number <= max);
        Ok(self.read(name, &accepted, read)?.unwrap_or(default))
    }

    /// A direction of the model.
    ///
    /// # Errors
    /// When the word is none of them.
    pub fn direction(&self, name: &str) -> Result<Option<Direction>, ApiError> {
        let read = |word: &str| match Direction::parse(word) {
            Some(Direction::Local | Direction::Unknown) | None => None,
            direction => direction,
        };
        self.read(name, "north_south, east_west or egress", read)
    }

    /// A duration in seconds or as `1m30s`.
    ///
    /// # Errors
    /// When it cannot be read or is not positive.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, ApiError> {
        self.read(name, "a positive number of seconds or a duration such as 30s, 5m, 1h30m", parse_duration)
    }

    /// `start` and `end`: unix seconds, RFC 3339, or relative to now (`now-1h`).
    ///
    /// # Errors
    /// When one cannot be read, or `end` is not after `start`.
    pub fn range(&self, now: UnixNanos) -> Result<TimeRange, ApiError> {
        const ACCEPTED: &str = "unix seconds, RFC 3339, or relative such as now-1h";
        let end = self.read("end", ACCEPTED, |text| parse_time(text, now))?.unwrap_or(now);
        let start = self.read("start", ACCEPTED, |text| parse_time(text, now))?.unwrap_or(end.minus(DEFAULT_RANGE));
        TimeRange::new(start, end)
            .filter(|range| range.seconds() > 0.0)
            .ok_or_else(|| ApiError::parameter("end", self.text("end").unwrap_or("now"), "must be after start"))
    }
}

/// `a=b&c=d`, percent-decoded.
fn serde_urlencoded(query: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

fn parse_time(text: &str, now: UnixNanos) -> Option<UnixNanos> {
    if let Some(rest) = text.strip_prefix("now") {
        return match rest.split_at_checked(1) {
            None => Some(now),
            Some(("-", back)) => Some(now.minus(parse_duration(back)?)),
            Some(("+", ahead)) => Some(now.plus(parse_duration(ahead)?)),
            Some(_) => None,
        };
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return (seconds.is_finite() && (0.0..1e11).contains(&seconds)).then(|| UnixNanos::from_secs_f64(seconds));
    }
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_nanosecond()).ok().map(UnixNanos)
}

/// Seconds, or units from `ms` to `w` in any combination.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<f64>() {
        return (seconds > 0.0).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten();
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0)?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return None,
        };
        total += Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(millis)?);
        rest = next;
    }
    (!total.is_zero()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::{Params, parse_duration, parse_time};
    use std::time::Duration;
    use windrose_proto::time::UnixNanos;

    const NOW: UnixNanos = UnixNanos::from_secs(1_800_000_000);

    #[track_caller]
    fn check_time(text: &str, expect: Option<u64>) {
        assert_eq!(parse_time(text, NOW).map(|at| at.0 / 1_000_000_000), expect, "{text}");
    }

    #[test]
    fn times() {
        check_time("1795195990.5", Some(1_795_195_990));
        check_time("now", Some(1_800_000_000));
        check_time("now-1h", Some(1_799_996_400));
        check_time("2026-11-21T12:00:00Z", Some(1_795_262_400));
        check_time("yesterday", None);
        check_time("nowish", None);
        check_time("NaN", None);
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("15"), Some(Duration::from_secs(15)));
        for bad in ["", "0", "-5", "5y", "h", "1h-"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn errors_name_the_parameter() {
        let error = Params::parse(Some("scop=service"), &["scope", "start"]).unwrap_err();
        assert_eq!(error.message, "unknown parameter \"scop\": accepted are scope, start");
        let params = Params::parse(Some("start=5&end=3"), &["start", "end"]).unwrap();
        assert_eq!(params.range(NOW).unwrap_err().message, "invalid parameter \"end\": \"3\": must be after start");
    }
}
