//! Parameters as Prometheus reads them.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use http::{Method, header};
use windrose_promql::{Matcher, parse_selector};
use windrose_proto::time::UnixNanos;

use crate::http::error::ApiError;

/// The earliest and latest time that can be asked for, in milliseconds. Sums with offsets and ranges do not overflow.
pub(super) const MIN_TIME: i64 = i64::MIN / 4;
pub(super) const MAX_TIME: i64 = i64::MAX / 4;

/// How Go writes its first and last time: what `promtool` sends when nothing is asked for.
const FIRST_TIME_TEXT: &str = "-292273086-05-16T16:47:06Z";
const LAST_TIME_TEXT: &str = "292277025-08-18T07:12:54.999999999Z";

/// Parameters of the body and of the URL, in this order; repeated ones stay.
#[derive(Clone, Debug, Default)]
pub(super) struct Form(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let is_form = request.headers().get(header::CONTENT_TYPE).is_some_and(|value| {
            value.as_bytes().to_ascii_lowercase().starts_with(b"application/x-www-form-urlencoded")
        });
        let mut pairs = Vec::new();
        if request.method() == Method::POST && is_form {
            let body = Bytes::from_request(request, state).await;
            let body = body.map_err(|error| ApiError::bad_data(format!("error parsing form values: {error}")))?;
            pairs.extend(form_urlencoded::parse(&body).into_owned());
        }
        pairs.extend(form_urlencoded::parse(query.as_bytes()).into_owned());
        Ok(Self(pairs))
    }
}

impl Form {
    #[cfg(test)]
    pub(super) fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    /// The first value; empty when absent.
    pub(super) fn first(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
    }

    /// All values of a repeated parameter.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A time in milliseconds that must be there.
    pub(super) fn time(&self, name: &str) -> Result<i64, ApiError> {
        parse_time(self.first(name)).map_err(|why| invalid(name, &why))
    }

    /// A time in milliseconds, or the default when absent.
    pub(super) fn time_or(&self, name: &str, default: i64) -> Result<i64, ApiError> {
        match self.first(name) {
            "" => Ok(default),
            text => parse_time(text).map_err(|why| invalid(name, &format!("invalid time value for '{name}': {why}"))),
        }
    }

    /// A duration in nanoseconds; `None` when absent.
    pub(super) fn duration(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.first(name) {
            "" => Ok(None),
            text => parse_duration(text).map(Some).map_err(|why| invalid(name, &why)),
        }
    }

    /// `limit`; 0 is none.
    pub(super) fn limit(&self) -> Result<usize, ApiError> {
        self.count("limit").map(Option::unwrap_or_default)
    }

    /// A number that is not negative.
    pub(super) fn count(&self, name: &str) -> Result<Option<usize>, ApiError> {
        let text = self.first(name);
        if text.is_empty() {
            return Ok(None);
        }
        let number: i64 = text.parse().map_err(|_| {
            let quoted = windrose_proto::metric::quote::quote(text);
            invalid(name, &format!("strconv.Atoi: parsing {quoted}: invalid syntax"))
        })?;
        usize::try_from(number).map(Some).map_err(|_| invalid(name, &format!("{name} must be non-negative")))
    }

    /// The matcher sets of `match[]`. An error is worded as Prometheus words it for this parameter, without its name.
    pub(super) fn matchers(&self) -> Result<Vec<Vec<Matcher>>, ApiError> {
        let set = |text: &str| {
            let matchers = parse_selector(text).map_err(|error| error.to_string())?;
            if matchers.iter().all(|matcher| matcher.matches("")) {
                return Err("match[] must contain at least one non-empty matcher".to_owned());
            }
            Ok(matchers)
        };
        self.all("match[]").map(set).collect::<Result<_, _>>().map_err(ApiError::bad_data)
    }

    /// `start` and `end`, everything when absent.
    pub(super) fn span(&self) -> Result<(i64, i64), ApiError> {
        Ok((self.time_or("start", MIN_TIME)?, self.time_or("end", MAX_TIME)?))
    }
}

/// A parameter that cannot be read, in the words of Prometheus.
pub(super) fn invalid(name: &str, why: &str) -> ApiError {
    ApiError::bad_data(format!("invalid parameter {name:?}: {why}"))
}

/// Unix seconds with a fraction, or RFC 3339; in milliseconds.
pub(super) fn parse_time(text: &str) -> Result<i64, String> {
    if let Some(seconds) = text.parse::<f64>().ok().filter(|seconds| !seconds.is_nan()) {
        let millis = seconds.trunc() * 1000.0 + (seconds.fract() * 1000.0).round();
        return Ok((millis as i64).clamp(MIN_TIME, MAX_TIME));
    }
    match text {
        FIRST_TIME_TEXT => return Ok(MIN_TIME),
        LAST_TIME_TEXT => return Ok(MAX_TIME),
        _ => {}
    }
    let time: Result<jiff::Timestamp, _> = text.parse();
    time.map(jiff::Timestamp::as_millisecond)
        .map_err(|_| format!("cannot parse {} to a valid timestamp", windrose_proto::metric::quote::quote(text)))
}

/// Seconds with a fraction, or `1h30m`; in nanoseconds.
pub(super) fn parse_duration(text: &str) -> Result<i64, String> {
    /// 2^63: the first float beyond 64 bits. Go lets exactly this value through, and it becomes negative.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    let failed = || format!("cannot parse {} to a valid duration", windrose_proto::metric::quote::quote(text));
    if let Ok(seconds) = text.parse::<f64>() {
        let nanos = seconds * 1e9;
        return match nanos {
            _ if nanos.is_nan() => Err(failed()),
            _ if !(-BEYOND..=BEYOND).contains(&nanos) => Err(format!("{}. It overflows int64", failed())),
            _ if nanos == BEYOND => Ok(i64::MIN),
            _ => Ok(nanos as i64),
        };
    }
    let millis = windrose_promql::duration::parse(text).map_err(|_| failed())?;
    millis.checked_mul(1_000_000).ok_or_else(|| format!("{}. It overflows int64", failed()))
}

/// Milliseconds since 1970.
pub(super) fn millis(at: UnixNanos) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(MAX_TIME)
}
