//! Zipkin v2 JSON: a list of spans, or one alone.
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

use bytes::Bytes;
use windrose_proto::attributes::{Attributes, KeyValue, Value};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::model::SpanKind;
use windrose_proto::reject::RejectReason;
use windrose_proto::span::{Event, Resource, Scope, StatusCode};
use windrose_proto::time::UnixNanos;
use windrose_proto::{Text, limits};

use super::json::{JsonError, Kind, Reader, ShapeError, SyntaxError};
use super::sink::{Draft, OverBudget, Refusal, Sink, SpanKindOrDefault};
use super::text::{Source, cut};
use super::{DecodeError, Decoded, Origin};

#[cfg(test)]
mod tests;

/// Decodes a list of Zipkin v2 spans.
///
/// # Errors
/// When the body is not JSON or not a list of objects; nothing of it is taken then.
pub fn decode_zipkin_json(body: &Bytes, origin: Origin) -> Result<Decoded, DecodeError> {
    let mut walker = Walker {
        reader: Reader::new(Source::new(body)),
        sink: Sink::new(origin),
        resources: HashMap::new(),
        scope: Arc::new(Scope::default()),
    };
    walker
        .document()
        .map_err(|error| DecodeError::bad_body(format!("not a list of Zipkin v2 spans in JSON: {error}")))?;
    Ok(walker.sink.finish())
}

/// What can be wrong with one span; [`Fault::Syntax`] spoils the document.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    #[error(transparent)]
    Shape(#[from] ShapeError),
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
    #[error("unreadable {what} {spelling:?}")]
    Id { what: &'static str, spelling: String },
}

impl From<JsonError> for Fault {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Syntax(error) => Self::Syntax(error),
            JsonError::Shape(error) => Self::Shape(error),
        }
    }
}

impl Fault {
    fn into_refusal(self) -> Result<Refusal, Self> {
        match self {
            Self::Syntax(_) => Err(self),
            Self::OverBudget(over) => Ok(Refusal::new(RejectReason::TooLarge, over.to_string())),
            Self::Id { what: "traceId", .. } => Ok(Refusal::new(RejectReason::BadTraceId, self.to_string())),
            Self::Id { .. } => Ok(Refusal::new(RejectReason::BadSpanId, self.to_string())),
            Self::Shape(_) => Ok(Refusal::unreadable(self)),
        }
    }
}

/// Longest spelling of an unreadable id quoted back to the sender.
const QUOTED_MAX_BYTES: usize = 64;

/// An `Endpoint`: who a span is by, or about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Endpoint {
    service: Text,
    ip: Text,
    port: u16,
}

struct Walker<'a> {
    reader: Reader<'a>,
    sink: Sink,
    /// One resource per endpoint of the request.
    resources: HashMap<Endpoint, Arc<Resource>>,
    scope: Arc<Scope>,
}

impl Walker<'_> {
    fn document(&mut self) -> Result<(), Fault> {
        if self.reader.kind()? == Kind::Object {
            self.one_span()?;
        } else {
            let mut list = self.reader.array()?;
            while self.reader.next_item(&mut list)? {
                self.one_span()?;
            }
        }
        Ok(self.reader.end()?)
    }

    /// Reads a span; one that cannot be read is skipped as a whole and counted.
    fn one_span(&mut self) -> Result<(), Fault> {
        if !self.sink.has_room() {
            return Ok(self.reader.skip()?);
        }
        let (start, depth) = (self.reader.mark(), self.reader.depth());
        let mut local = Endpoint::default();
        let read = match self.span(&mut local) {
            Ok(draft) => Ok(draft),
            Err(fault) => {
                let refusal = fault.into_refusal()?;
                self.reader.go_back_out(start, depth);
                self.reader.skip()?;
                Err(refusal)
            }
        };
        let resource = self.resource(local);
        self.sink.take(read, &resource, &self.scope);
        Ok(())
    }

    fn span(&mut self, local: &mut Endpoint) -> Result<Draft, Fault> {
        let mut draft = Draft::default();
        let mut duration_nanos = 0;
        let mut remote = Endpoint::default();
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            match name.content().as_ref() {
                b"traceId" => draft.trace_id = self.id("traceId", TraceId::parse)?,
                b"id" => draft.span_id = self.id("id", SpanId::parse)?,
                b"parentId" => draft.parent_span_id = self.id("parentId", SpanId::parse)?,
                b"name" => draft.name = self.reader.lenient_text(limits::NAME_MAX_BYTES)?,
                b"kind" => draft.kind = SpanKindOrDefault(self.kind()?),
                b"timestamp" => draft.start = UnixNanos(self.micros()?),
                b"duration" => duration_nanos = self.micros()?,
                b"localEndpoint" => *local = self.endpoint()?,
                b"remoteEndpoint" => remote = self.endpoint()?,
                b"tags" => self.tags(&mut draft)?,
                b"annotations" => self.annotations(&mut draft)?,
                b"shared" => draft.shared = self.reader.lenient_bool()?,
                b"debug" => {
                    if self.reader.lenient_bool()? {
                        draft.push_static("zipkin.debug", Value::Bool(true));
                    }
                }
                _ => self.reader.skip()?,
            }
        }
        add_remote(&mut draft, remote);
        if draft.start == UnixNanos::ZERO {
            // A span whose start was reported elsewhere still has the times of what happened in it.
            draft.start = draft.events.iter().map(|event| event.time).min().unwrap_or_default();
        }
        draft.end = UnixNanos(draft.start.0.saturating_add(duration_nanos));
        Ok(draft)
    }

    fn id<T>(&mut self, what: &'static str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Fault> {
        let spelling = self.reader.lenient_text(limits::NAME_MAX_BYTES)?;
        match parse(&spelling) {
            Some(id) => Ok(Some(id)),
            None if spelling.bytes().all(|byte| byte == b'0') => Ok(None),
            None => Err(Fault::Id { what, spelling: cut(spelling, QUOTED_MAX_BYTES).to_string() }),
        }
    }

    fn kind(&mut self) -> Result<SpanKind, Fault> {
        let word = self.reader.lenient_text(limits::NAME_MAX_BYTES)?.to_ascii_lowercase();
        Ok(SpanKind::parse(&word).unwrap_or(SpanKind::Unspecified))
    }

    /// Microseconds, whole or with a fraction, as nanoseconds.
    fn micros(&mut self) -> Result<u64, Fault> {
        Ok(self.reader.lenient_u64()?.saturating_mul(1000))
    }

    fn endpoint(&mut self) -> Result<Endpoint, Fault> {
        let mut endpoint = Endpoint::default();
        let mut ipv6 = Text::new();
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            match name.content().as_ref() {
                b"serviceName" => endpoint.service = self.reader.lenient_text(limits::NAME_MAX_BYTES)?,
                b"ipv4" => endpoint.ip = self.reader.lenient_text(limits::NAME_MAX_BYTES)?,
                b"ipv6" => ipv6 = self.reader.lenient_text(limits::NAME_MAX_BYTES)?,
                b"port" => endpoint.port = u16::try_from(self.reader.lenient_u64()?).unwrap_or_default(),
                _ => self.reader.skip()?,
            }
        }
        if endpoint.ip.is_empty() {
            endpoint.ip = ipv6;
        }
        Ok(endpoint)
    }

    fn tags(&mut self, draft: &mut Draft) -> Result<(), Fault> {
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            self.sink.budget.charge_one::<KeyValue>()?;
            let key = name.text(self.reader.source, limits::NAME_MAX_BYTES);
            let value = self.tag_value()?;
            if &*key == "error" {
                draft.status = StatusCode::Error;
                if !matches!(&*value, "" | "true") {
                    draft.status_message = value.clone();
                }
            }
            draft.push(KeyValue { key, value: Value::Str(value) });
        }
        Ok(())
    }

    /// Text; lists and objects, which Zipkin does not have, as the JSON they are.
    fn tag_value(&mut self) -> Result<Text, Fault> {
        let start = self.reader.mark();
        match self.reader.kind()? {
            Kind::Array | Kind::Object => {
                self.reader.skip()?;
                Ok(self.reader.source.text(self.reader.raw_since(start), limits::ATTRIBUTE_VALUE_MAX_BYTES))
            }
            Kind::Null | Kind::Bool | Kind::Number | Kind::String => {
                Ok(self.reader.lenient_text(limits::ATTRIBUTE_VALUE_MAX_BYTES)?)
            }
        }
    }

    fn annotations(&mut self, draft: &mut Draft) -> Result<(), Fault> {
        let mut list = self.reader.array()?;
        while self.reader.next_item(&mut list)? {
            self.sink.budget.charge_one::<Event>()?;
            let mut event = Event {
                time: UnixNanos::ZERO,
                name: Text::new(),
                attributes: Attributes::default(),
                dropped_attributes_count: 0,
            };
            let mut object = self.reader.object()?;
            while let Some(name) = self.reader.next_member(&mut object)? {
                match name.content().as_ref() {
                    b"timestamp" => event.time = UnixNanos(self.micros()?),
                    b"value" => event.name = self.reader.lenient_text(limits::NAME_MAX_BYTES)?,
                    _ => self.reader.skip()?,
                }
            }
            draft.events.push(event);
        }
        Ok(())
    }

    fn resource(&mut self, local: Endpoint) -> Arc<Resource> {
        let resource = self.resources.entry(local).or_insert_with_key(|local| {
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

fn add_remote(draft: &mut Draft, remote: Endpoint) {
    if !remote.service.is_empty() {
        draft.push_static("zipkin.remote.name", Value::Str(remote.service));
    }
    if !remote.ip.is_empty() {
        draft.push_static("zipkin.remote.ip", Value::Str(remote.ip));
    }
    if remote.port != 0 {
        draft.push_static("zipkin.remote.port", Value::Int(i64::from(remote.port)));
    }
}
