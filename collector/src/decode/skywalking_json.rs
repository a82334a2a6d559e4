//! SkyWalking segments in JSON: `POST /v3/segments`, what APISIX's `skywalking` plugin sends.
//!
//! | SkyWalking | Span |
//! |---|---|
//! | `traceId` (any text) | trace id: the text itself when it is 32 hexadecimal digits, dashes aside, else its hash |
//! | `traceSegmentId` + `spanId` | span id: a hash of both |
//! | `parentSpanId`, or the first of `refs` | parent: the hash of the same pair over there |
//! | `startTime`, `endTime` (ms) | `start`, `end` |
//! | `spanType` Entry, Exit, Local | kind server, client, internal |
//! | `service`, `serviceInstance` | resource `service.name`, `service.instance.id` |
//! | `peer` | `server.address` on exits, `peer.address` else |
//! | `tags` | attributes; `url`, `status_code` under the names HTTP spans have elsewhere |
//! | `logs` | events |
//! | `isError` | status |
//!
//! The hashes are FNV-1a, which every sender's spans pass alike, so that segments find each other
//! whoever reports them and in whatever order.

use std::sync::Arc;

use bytes::Bytes;
use windrose_proto::attributes::{Attributes, KeyValue, Value};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::model::SpanKind;
use windrose_proto::span::{Event, Resource, Scope, StatusCode};
use windrose_proto::time::UnixNanos;
use windrose_proto::{Text, limits};

use super::fnv::{Fnv64, fnv1a_128};
use super::json::Reader;
use super::json_items::{Fault, Walk};
use super::sink::{Draft, Sink, SpanKindOrDefault};
use super::text::Source;
use super::{DecodeError, Decoded, Origin};

#[cfg(test)]
mod tests;

/// SkyWalking's number for APISIX as a component; its spans carry no other mark of their maker.
const COMPONENT_APISIX: i64 = 6002;

/// Decodes a list of segments, or one alone.
///
/// # Errors
/// When the body is not JSON or not a list of objects; nothing of it is taken then.
pub fn decode_skywalking_json(body: &Bytes, origin: Origin) -> Result<Decoded, DecodeError> {
    let mut walker =
        Walker { reader: Reader::new(Source::new(body)), sink: Sink::new(origin), scope: Arc::new(Scope::default()) };
    walker
        .document()
        .map_err(|error| DecodeError::bad_body(format!("not a list of SkyWalking segments in JSON: {error}")))?;
    Ok(walker.sink.finish())
}

/// What all spans of a segment share.
#[derive(Debug, Default)]
struct Segment {
    trace_id: Option<TraceId>,
    id: Text,
    service: Text,
    instance: Text,
}

impl Segment {
    fn resource(&self) -> Arc<Resource> {
        let mut attributes = Attributes::default();
        for (key, value) in [("service.name", &self.service), ("service.instance.id", &self.instance)] {
            if !value.is_empty() {
                attributes.push(Text::from_static(key), Value::Str(value.clone()));
            }
        }
        Arc::new(Resource { attributes, ..Resource::default() })
    }
}

/// Where a span was called from.
#[derive(Debug, Default)]
struct Reference {
    segment_id: Text,
    span_id: i64,
}

struct Walker<'a> {
    reader: Reader<'a>,
    sink: Sink,
    scope: Arc<Scope>,
}

impl<'a> Walk<'a> for Walker<'a> {
    fn reader(&mut self) -> &mut Reader<'a> {
        &mut self.reader
    }
}

impl Walker<'_> {
    fn document(&mut self) -> Result<(), Fault> {
        self.list_or_one(Self::segment)
    }

    /// Members come in any order, so a segment is walked twice: first for what its spans share.
    fn segment(&mut self) -> Result<(), Fault> {
        let start = self.reader.mark();
        let mut segment = Segment::default();
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            match name.content().as_ref() {
                b"traceId" => segment.trace_id = trace_id(&self.name()?),
                b"traceSegmentId" => segment.id = self.name()?,
                b"service" => segment.service = self.name()?,
                b"serviceInstance" => segment.instance = self.name()?,
                _ => self.reader.skip()?,
            }
        }
        let resource = segment.resource();

        self.reader.go_back(start);
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            match name.content().as_ref() {
                b"spans" => self.each(|walker| walker.one_span(&segment, &resource))?,
                _ => self.reader.skip()?,
            }
        }
        Ok(())
    }

    /// Reads a span; one that cannot be read is skipped as a whole and counted.
    fn one_span(&mut self, segment: &Segment, resource: &Arc<Resource>) -> Result<(), Fault> {
        if !self.sink.has_room() {
            return Ok(self.reader.skip()?);
        }
        let read = self.one(|walker| walker.span(segment))?;
        self.sink.take(read, resource, &self.scope);
        Ok(())
    }

    fn span(&mut self, segment: &Segment) -> Result<Draft, Fault> {
        let mut draft = Draft { trace_id: segment.trace_id, ..Draft::default() };
        let (mut span_number, mut parent_number) = (None, -1);
        let mut caller = None;
        let mut peer = Text::new();
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            match name.content().as_ref() {
                b"spanId" => span_number = Some(self.reader.lenient_i64()?),
                b"parentSpanId" => parent_number = self.reader.lenient_i64()?,
                b"operationName" => draft.name = self.name()?,
                b"spanType" => draft.kind = SpanKindOrDefault(self.span_kind()?),
                b"startTime" => draft.start = self.millis()?,
                b"endTime" => draft.end = self.millis()?,
                b"isError" => {
                    if self.reader.lenient_bool()? {
                        draft.status = StatusCode::Error;
                    }
                }
                b"peer" => peer = self.name()?,
                b"componentId" => {
                    if self.reader.lenient_i64()? == COMPONENT_APISIX {
                        draft.push_static("component", Value::Str(Text::from_static("apisix")));
                    }
                }
                b"tags" => self.tags(&mut draft)?,
                b"logs" => self.logs(&mut draft)?,
                b"refs" => caller = self.references()?,
                _ => self.reader.skip()?,
            }
        }
        if !peer.is_empty() {
            let key = if draft.kind.0 == SpanKind::Client { "server.address" } else { "peer.address" };
            draft.push_static(key, Value::Str(peer));
        }
        draft.span_id = span_number.and_then(|number| span_id(&segment.id, number));
        draft.parent_span_id = match caller {
            _ if parent_number >= 0 => span_id(&segment.id, parent_number),
            Some(Reference { segment_id, span_id: number }) => span_id(&segment_id, number),
            None => None,
        };
        Ok(draft)
    }

    fn name(&mut self) -> Result<Text, Fault> {
        Ok(self.reader.lenient_text(limits::NAME_MAX_BYTES)?)
    }

    fn millis(&mut self) -> Result<UnixNanos, Fault> {
        Ok(UnixNanos(self.reader.lenient_u64()?.saturating_mul(1_000_000)))
    }

    /// By name or by number.
    fn span_kind(&mut self) -> Result<SpanKind, Fault> {
        Ok(match self.name()?.to_ascii_lowercase().as_str() {
            "entry" | "0" => SpanKind::Server,
            "exit" | "1" => SpanKind::Client,
            "local" | "2" => SpanKind::Internal,
            _ => SpanKind::Unspecified,
        })
    }

    fn tags(&mut self, draft: &mut Draft) -> Result<(), Fault> {
        let mut list = self.reader.array()?;
        while self.reader.next_item(&mut list)? {
            let (key, value) = self.pair()?;
            let key = match &*key {
                "url" => Text::from_static("http.url"),
                "status_code" => Text::from_static("http.status_code"),
                _ => key,
            };
            draft.push(KeyValue { key, value: Value::Str(value) });
        }
        Ok(())
    }

    /// A key and a value, of tags and of log data.
    fn pair(&mut self) -> Result<(Text, Text), Fault> {
        self.sink.budget.charge_one::<KeyValue>()?;
        let (mut key, mut value) = (Text::new(), Text::new());
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            match name.content().as_ref() {
                b"key" => key = self.name()?,
                b"value" => value = self.reader.lenient_text(limits::ATTRIBUTE_VALUE_MAX_BYTES)?,
                _ => self.reader.skip()?,
            }
        }
        Ok((key, value))
    }

    /// A log entry is an event; the entry `event` of its data is the event's name.
    fn logs(&mut self, draft: &mut Draft) -> Result<(), Fault> {
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
                    b"time" => event.time = self.millis()?,
                    b"data" => {
                        let mut data = self.reader.array()?;
                        while self.reader.next_item(&mut data)? {
                            let (key, value) = self.pair()?;
                            if &*key == "event" && event.name.is_empty() {
                                event.name = value;
                            } else {
                                event.attributes.push(key, Value::Str(value));
                            }
                        }
                    }
                    _ => self.reader.skip()?,
                }
            }
            draft.events.push(event);
        }
        Ok(())
    }

    /// The first reference: a request has one caller, only messages read in batches have more.
    fn references(&mut self) -> Result<Option<Reference>, Fault> {
        let mut first = None;
        let mut list = self.reader.array()?;
        while self.reader.next_item(&mut list)? {
            let mut reference = Reference::default();
            let mut object = self.reader.object()?;
            while let Some(name) = self.reader.next_member(&mut object)? {
                match name.content().as_ref() {
                    b"parentTraceSegmentId" => reference.segment_id = self.name()?,
                    b"parentSpanId" => reference.span_id = self.reader.lenient_i64()?,
                    _ => self.reader.skip()?,
                }
            }
            if first.is_none() && !reference.segment_id.is_empty() {
                first = Some(reference);
            }
        }
        Ok(first)
    }
}

/// The id itself when it is a UUID or 32 hexadecimal digits, else a hash of the text.
fn trace_id(spelling: &str) -> Option<TraceId> {
    if spelling.is_empty() {
        return None;
    }
    let digits: String = spelling.chars().filter(|character| *character != '-').collect();
    if digits.len() == 2 * TraceId::LEN && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return TraceId::parse(&digits);
    }
    TraceId::new(fnv1a_128(spelling.as_bytes()).to_be_bytes())
}

/// The span `number` of a segment.
fn span_id(segment_id: &str, number: i64) -> Option<SpanId> {
    if segment_id.is_empty() {
        return None;
    }
    SpanId::new(Fnv64::new().with(segment_id.as_bytes()).with(&number.to_be_bytes()).finish().to_be_bytes())
}
