//! Zipkin v2 protobuf (`zipkin.proto3.ListOfSpans`), which Envoy calls `HTTP_PROTO`.
//!
//! Read like OTLP: a malformed span is refused alone, malformed framing refuses the body.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bytes::Bytes;
use windrose_proto::attributes::KeyValue;
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::model::SpanKind;
use windrose_proto::reject::RejectReason;
use windrose_proto::span::{Event, Scope};
use windrose_proto::time::UnixNanos;
use windrose_proto::{Text, limits};

use super::sink::{Draft, OverBudget, Refusal, Sink, SpanKindOrDefault};
use super::text::Source;
use super::wire::{Fields, WireError};
use super::zipkin::{Endpoint, Extras, Resources, add_tag, annotation, finish};
use super::{DecodeError, Decoded, Origin};

#[cfg(test)]
mod tests;

/// Decodes a `ListOfSpans`.
///
/// # Errors
/// When the body is not such a message; nothing of it is taken then.
pub fn decode_zipkin_protobuf(body: &Bytes, origin: Origin) -> Result<Decoded, DecodeError> {
    let mut walker = Walker {
        source: Source::new(body),
        sink: Sink::new(origin),
        resources: Resources::default(),
        scope: Arc::new(Scope::default()),
    };
    walker.list().map_err(|error| DecodeError::bad_body(format!("not a Zipkin ListOfSpans in protobuf: {error}")))?;
    Ok(walker.sink.finish())
}

/// What can be wrong with one span.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
    #[error("{what} of {len} bytes")]
    IdLength { what: &'static str, len: usize },
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::OverBudget(over) => Self::new(RejectReason::TooLarge, over.to_string()),
            Fault::IdLength { what: "trace id", .. } => Self::new(RejectReason::BadTraceId, fault.to_string()),
            Fault::IdLength { .. } => Self::new(RejectReason::BadSpanId, fault.to_string()),
            Fault::Wire(_) => Self::unreadable(fault),
        }
    }
}

struct Walker<'a> {
    source: Source<'a>,
    sink: Sink,
    resources: Resources,
    scope: Arc<Scope>,
}

impl<'a> Walker<'a> {
    fn list(&mut self) -> Result<(), WireError> {
        let mut fields = Fields::of(self.source.body());
        while let Some(field) = fields.next()? {
            if field.number == 1 {
                let message = field.bytes()?;
                if self.sink.has_room() {
                    let mut local = Endpoint::default();
                    let read = self.span(message, &mut local).map_err(Refusal::from);
                    let resource = self.resources.of(local);
                    self.sink.take(read, &resource, &self.scope);
                }
            }
        }
        Ok(())
    }

    fn span(&mut self, message: &'a [u8], local: &mut Endpoint) -> Result<Draft, Fault> {
        let mut draft = Draft::default();
        let mut extras = Extras::default();
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => {
                    let bytes = field.bytes()?;
                    check_len("trace id", bytes, TraceId::LEN)?;
                    draft.trace_id = TraceId::from_slice(bytes);
                }
                2 => {
                    let bytes = field.bytes()?;
                    check_len("parent id", bytes, SpanId::LEN)?;
                    draft.parent_span_id = SpanId::from_slice(bytes);
                }
                3 => {
                    let bytes = field.bytes()?;
                    check_len("span id", bytes, SpanId::LEN)?;
                    draft.span_id = SpanId::from_slice(bytes);
                }
                4 => draft.kind = SpanKindOrDefault(span_kind(field.int32()?)),
                5 => draft.name = self.source.text(field.bytes()?, limits::NAME_MAX_BYTES),
                6 => draft.start = micros(field.fixed64()?),
                7 => extras.duration_nanos = field.varint()?.saturating_mul(1000),
                8 => self.endpoint(field.bytes()?, local)?,
                9 => self.endpoint(field.bytes()?, &mut extras.remote)?,
                10 => draft.events.push(self.annotation(field.bytes()?)?),
                11 => self.tag(field.bytes()?, &mut draft)?,
                12 => extras.is_debug = field.varint()? != 0,
                13 => draft.shared = field.varint()? != 0,
                _ => {}
            }
        }
        finish(&mut draft, extras);
        Ok(draft)
    }

    fn endpoint(&self, message: &'a [u8], endpoint: &mut Endpoint) -> Result<(), WireError> {
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => endpoint.service = self.source.text(field.bytes()?, limits::NAME_MAX_BYTES),
                2 => {
                    if let Ok(octets) = <[u8; 4]>::try_from(field.bytes()?) {
                        endpoint.ip = Text::from(Ipv4Addr::from(octets).to_string());
                    }
                }
                // The JSON form prefers version 4 as well.
                3 if endpoint.ip.is_empty() => {
                    if let Ok(octets) = <[u8; 16]>::try_from(field.bytes()?) {
                        endpoint.ip = Text::from(Ipv6Addr::from(octets).to_string());
                    }
                }
                4 => endpoint.port = u16::try_from(field.int32()?).unwrap_or_default(),
                _ => {}
            }
        }
        Ok(())
    }

    fn annotation(&mut self, message: &'a [u8]) -> Result<Event, Fault> {
        self.sink.budget.charge_one::<Event>()?;
        let (mut time, mut value) = (UnixNanos::ZERO, Text::new());
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => time = micros(field.fixed64()?),
                2 => value = self.source.text(field.bytes()?, limits::NAME_MAX_BYTES),
                _ => {}
            }
        }
        Ok(annotation(time, value))
    }

    /// An entry of `map<string, string>`.
    fn tag(&mut self, message: &'a [u8], draft: &mut Draft) -> Result<(), Fault> {
        self.sink.budget.charge_one::<KeyValue>()?;
        let (mut key, mut value) = (Text::new(), Text::new());
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => key = self.source.text(field.bytes()?, limits::NAME_MAX_BYTES),
                2 => value = self.source.text(field.bytes()?, limits::ATTRIBUTE_VALUE_MAX_BYTES),
                _ => {}
            }
        }
        add_tag(draft, key, value);
        Ok(())
    }
}

const fn check_len(what: &'static str, bytes: &[u8], max: usize) -> Result<(), Fault> {
    if bytes.len() > max { Err(Fault::IdLength { what, len: bytes.len() }) } else { Ok(()) }
}

const fn micros(micros: u64) -> UnixNanos {
    UnixNanos(micros.saturating_mul(1000))
}

/// Zipkin numbers the kinds differently from OTLP.
const fn span_kind(number: i32) -> SpanKind {
    match number {
        1 => SpanKind::Client,
        2 => SpanKind::Server,
        3 => SpanKind::Producer,
        4 => SpanKind::Consumer,
        _ => SpanKind::Unspecified,
    }
}
