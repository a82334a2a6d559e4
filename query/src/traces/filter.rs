//! Which traces a search takes.

use std::sync::Arc;

use windrose_proto::hop::{Derived, Entry, Request};
use windrose_proto::span::Span;

use crate::http::error::ApiError;
use crate::http::params::Params;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Status {
    Ok,
    Error,
    Http(u16),
}

/// Filters of a trace search. The default takes everything.
#[derive(Clone, Debug, Default)]
pub struct TraceFilter {
    service: Option<String>,
    route: Option<String>,
    min_nanos: u64,
    max_nanos: Option<u64>,
    status: Option<Status>,
    attributes: Vec<(String, String)>,
}

impl TraceFilter {
    /// Reads the parameters.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn from_params(params: &Params) -> Result<Self, ApiError> {
        let text = |name| params.text(name).map(str::to_owned);
        let millis = |text: &str| {
            let millis: f64 = text.parse().ok().filter(|millis: &f64| millis.is_finite() && *millis >= 0.0)?;
            Some((millis * 1e6) as u64)
        };
        let status = |word: &str| match word {
            "ok" => Some(Status::Ok),
            "error" => Some(Status::Error),
            code => code.parse().ok().filter(|code| (100..600).contains(code)).map(Status::Http),
        };
        Ok(Self {
            service: text("service"),
            route: text("route"),
            min_nanos: params.read("min_duration_ms", "milliseconds, 0 or more", millis)?.unwrap_or(0),
            max_nanos: params.read("max_duration_ms", "milliseconds, 0 or more", millis)?,
            status: params.read("status", "ok, error or an HTTP status", status)?,
            attributes: params.with_prefix("attr.").map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        })
    }

    /// What the request row alone decides.
    #[must_use]
    pub fn takes_request(&self, request: &Request) -> bool {
        let on_route = match (&self.route, &request.entry) {
            (None, _) => true,
            (Some(route), Entry::Route(entry)) => &*entry.route == route.as_str(),
            (Some(_), Entry::Unknown(_)) => false,
        };
        let status = match self.status {
            None => true,
            Some(Status::Ok) => !request.error,
            Some(Status::Error) => request.error,
            Some(Status::Http(code)) => request.http_status == Some(code),
        };
        on_route
            && status
            && request.duration_nanos >= self.min_nanos
            && self.max_nanos.is_none_or(|max| request.duration_nanos <= max)
    }

    /// Whether the spans must be looked at too.
    #[must_use]
    pub fn needs_spans(&self) -> bool {
        self.service.is_some() || !self.attributes.is_empty()
    }

    /// What only the spans decide: the services touched and their attributes.
    #[must_use]
    pub fn takes_spans(&self, spans: &[Arc<Span>], derived: &Derived) -> bool {
        let touches = |service: &str| {
            let (namespace, name) =
                service.rsplit_once('/').map_or((None, service), |(namespace, name)| (Some(namespace), name));
            derived.hops.iter().flat_map(|hop| [&hop.source, &hop.destination]).any(|node| {
                &*node.service == name && namespace.is_none_or(|namespace| node.namespace.as_deref() == Some(namespace))
            })
        };
        let carries = |(key, value): &(String, String)| {
            spans.iter().any(|span| {
                let found = span.attributes.get(key).or_else(|| span.resource.attributes.get(key));
                found.and_then(windrose_proto::attributes::Value::to_text).is_some_and(|text| &*text == value.as_str())
            })
        };
        self.service.as_deref().is_none_or(touches) && self.attributes.iter().all(carries)
    }
}
