//! What the spans of a capture say by themselves, read as plainly as possible: durations per edge, ids, counts.
//!
//! Only for captures in Istio's default shape (one span per sidecar and direction, two at a gateway); there this reading
//! equals what the applications counted, so it can judge latencies, which no application sees as a proxy does.

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;

use crate::capture::{Capture, Message};
use crate::truth::{CLIENT, EGRESS, GATEWAY, Pair, target};

/// Durations of the spans of one edge, ascending.
#[derive(Clone, Debug, Default)]
pub struct Durations(Vec<u64>);

impl Durations {
    /// The smallest duration that a share of `quantile` does not exceed, in milliseconds.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        let rank = (quantile * self.0.len() as f64).ceil() as usize;
        self.0[rank.saturating_sub(1)] as f64 / 1e6
    }

    /// The longest, in milliseconds.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn max_ms(&self) -> f64 {
        *self.0.last().expect("an edge has spans") as f64 / 1e6
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Durations per edge as the caller's proxy saw them; of the edge into the gateway as the gateway saw them.
#[must_use]
pub fn latencies(capture: &Capture) -> BTreeMap<Pair, Durations> {
    let mut edges: BTreeMap<Pair, Durations> = BTreeMap::new();
    for_each_span(capture, |service, span| {
        if let Some(pair) = edge_of(service, span) {
            let nanos = span.end_time_unix_nano - span.start_time_unix_nano;
            edges.entry(pair).or_default().0.push(nanos);
        }
    });
    for durations in edges.values_mut() {
        durations.0.sort_unstable();
    }
    edges
}

/// Every span of a capture: trace id and span id in hex.
#[must_use]
pub fn span_ids(capture: &Capture) -> BTreeSet<(String, String)> {
    let mut ids = BTreeSet::new();
    for_each_span(capture, |_, span| {
        ids.insert((hex(&span.trace_id), hex(&span.span_id)));
    });
    ids
}

fn edge_of(service: &str, span: &Span) -> Option<Pair> {
    let cluster = attribute(&span.attributes, "upstream_cluster").unwrap_or_default();
    let is_router = span.name.starts_with("router ");
    let pair = |source: &str, target: &str| Some((source.to_owned(), target.to_owned()));
    match service {
        GATEWAY if !is_router => pair(CLIENT, GATEWAY),
        GATEWAY | EGRESS if is_router => pair(service, target(cluster)?),
        EGRESS => None,
        _ if is_router => None,
        _ => pair(service, target(cluster)?),
    }
}

fn for_each_span(capture: &Capture, mut look: impl FnMut(&str, &Span)) {
    for message in &capture.messages {
        let Message::Otlp(request) = message else { continue };
        for resource in &request.resource_spans {
            let attributes =
                resource.resource.as_ref().map(|resource| resource.attributes.as_slice()).unwrap_or_default();
            let service =
                attribute(attributes, "service.name").unwrap_or_default().split('.').next().unwrap_or_default();
            for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
                look(service, span);
            }
        }
    }
}

/// A text attribute.
#[must_use]
pub fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()? {
        AnyValue { value: Some(any_value::Value::StringValue(text)) } => Some(text),
        _ => None,
    }
}

/// Bytes in hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string");
        text
    })
}
