//! What Zipkin's two forms have in common: where each part of a Zipkin span goes.
//!
//! | Zipkin | Span |
//! |---|---|
//! | `timestamp`, `duration` (µs) | `start`, `end`; without a timestamp the first annotation counts |
//! | `localEndpoint` | resource `service.name`, `host.ip` |
//! | `remoteEndpoint` | `zipkin.remote.name`, `zipkin.remote.ip`, `zipkin.remote.port` |
//! | `tags` | attributes, all text; `error` also makes the status an error |
//! | `annotations` | events |
//! | `shared` | `shared` |
//! | `debug` | `zipkin.debug` |

use std::collections::HashMap;
use std::sync::Arc;

use windrose_proto::Text;
use windrose_proto::attributes::{Attributes, KeyValue, Value};
use windrose_proto::span::{Event, Resource, StatusCode};
use windrose_proto::time::UnixNanos;

use super::sink::Draft;

/// An `Endpoint`: who a span is by, or about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Endpoint {
    pub(super) service: Text,
    pub(super) ip: Text,
    pub(super) port: u16,
}

/// One resource per local endpoint of a request.
#[derive(Debug, Default)]
pub(super) struct Resources(HashMap<Endpoint, Arc<Resource>>);

impl Resources {
    pub(super) fn of(&mut self, local: Endpoint) -> Arc<Resource> {
        let resource = self.0.entry(local).or_insert_with_key(|local| {
            let mut attributes = Attributes::default();
            if !local.service.is_empty() {
                attributes.push(Text::from_static("service.name"), Value::Str(local.service.clone()));
            }
            if !local.ip.is_empty() {
                attributes.push(Text::from_static("host.ip"), Value::Str(local.ip.clone()));
            }
            Arc::new(Resource { attributes, ..Resource::default() })
        });
        Arc::clone(resource)
    }
}

/// What a Zipkin span has beside what goes straight into the draft.
#[derive(Debug, Default)]
pub(super) struct Extras {
    pub(super) duration_nanos: u64,
    pub(super) remote: Endpoint,
    pub(super) is_debug: bool,
}

/// Adds a tag.
pub(super) fn add_tag(draft: &mut Draft, key: Text, value: Text) {
    if &*key == "error" {
        draft.status = StatusCode::Error;
        if !matches!(&*value, "" | "true") {
            draft.status_message = value.clone();
        }
    }
    draft.push(KeyValue { key, value: Value::Str(value) });
}

/// An annotation as an event.
pub(super) fn annotation(time: UnixNanos, value: Text) -> Event {
    Event { time, name: value, attributes: Attributes::default(), dropped_attributes_count: 0 }
}

/// Completes a draft when all of a span has been read.
pub(super) fn finish(draft: &mut Draft, extras: Extras) {
    if extras.is_debug {
        draft.push_static("zipkin.debug", Value::Bool(true));
    }
    let remote = extras.remote;
    if !remote.service.is_empty() {
        draft.push_static("zipkin.remote.name", Value::Str(remote.service));
    }
    if !remote.ip.is_empty() {
        draft.push_static("zipkin.remote.ip", Value::Str(remote.ip));
    }
    if remote.port != 0 {
        draft.push_static("zipkin.remote.port", Value::Int(i64::from(remote.port)));
    }
    if draft.start == UnixNanos::ZERO {
        // A span whose start was reported elsewhere still has the times of what happened in it.
        draft.start = draft.events.iter().map(|event| event.time).min().unwrap_or_default();
    }
    draft.end = UnixNanos(draft.start.0.saturating_add(extras.duration_nanos));
}
