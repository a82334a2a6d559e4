//! Zipkin v2 JSON: a list of spans, or one alone. `zipkin.rs` says where each part goes.
//!
//! A span that cannot be read is refused alone; a document that is not JSON is refused as a whole.

use std::sync::Arc;

use bytes::Bytes;
use windrose_proto::attributes::KeyValue;
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::model::SpanKind;
use windrose_proto::span::{Event, Scope};
use windrose_proto::time::UnixNanos;
use windrose_proto::{Text, limits};

use super::json::{Kind, Reader};
use super::json_items::{Fault, IdKind, Walk};
use super::sink::{Draft, Sink, SpanKindOrDefault};
use super::text::{Source, cut};
use super::zipkin::{Endpoint, Extras, Resources, add_tag, annotation, finish};
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
        resources: Resources::default(),
        scope: Arc::new(Scope::default()),
    };
    walker
        .document()
        .map_err(|error| DecodeError::bad_body(format!("not a list of Zipkin v2 spans in JSON: {error}")))?;
    Ok(walker.sink.finish())
}

/// Longest spelling of an unreadable id quoted back to the sender.
const QUOTED_MAX_BYTES: usize = 64;

struct Walker<'a> {
    reader: Reader<'a>,
    sink: Sink,
    resources: Resources,
    scope: Arc<Scope>,
}

impl<'a> Walk<'a> for Walker<'a> {
    fn reader(&mut self) -> &mut Reader<'a> {
        &mut self.reader
    }
}

impl Walker<'_> {
    fn document(&mut self) -> Result<(), Fault> {
        self.list_or_one(Self::one_span)
    }

    /// Reads a span; one that cannot be read is skipped as a whole and counted.
    fn one_span(&mut self) -> Result<(), Fault> {
        if !self.sink.has_room() {
            return Ok(self.reader.skip()?);
        }
        let mut local = Endpoint::default();
        let read = self.one(|walker| walker.span(&mut local))?;
        let resource = self.resources.of(local);
        self.sink.take(read, &resource, &self.scope);
        Ok(())
    }

    fn span(&mut self, local: &mut Endpoint) -> Result<Draft, Fault> {
        let mut draft = Draft::default();
        let mut extras = Extras::default();
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            match name.content().as_ref() {
                b"traceId" => draft.trace_id = self.id(IdKind::Trace, TraceId::parse)?,
                b"id" => draft.span_id = self.id(IdKind::Span, SpanId::parse)?,
                b"parentId" => draft.parent_span_id = self.id(IdKind::ParentSpan, SpanId::parse)?,
                b"name" => draft.name = self.reader.lenient_text(limits::NAME_MAX_BYTES)?,
                b"kind" => draft.kind = SpanKindOrDefault(self.kind()?),
                b"timestamp" => draft.start = UnixNanos(self.micros()?),
                b"duration" => extras.duration_nanos = self.micros()?,
                b"localEndpoint" => *local = self.endpoint()?,
                b"remoteEndpoint" => extras.remote = self.endpoint()?,
                b"tags" => self.tags(&mut draft)?,
                b"annotations" => self.annotations(&mut draft)?,
                b"shared" => draft.shared = self.reader.lenient_bool()?,
                b"debug" => extras.is_debug = self.reader.lenient_bool()?,
                _ => self.reader.skip()?,
            }
        }
        finish(&mut draft, extras);
        Ok(draft)
    }

    fn id<T>(&mut self, id: IdKind, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Fault> {
        let spelling = self.reader.lenient_text(limits::NAME_MAX_BYTES)?;
        match parse(&spelling) {
            Some(parsed) => Ok(Some(parsed)),
            None if spelling.bytes().all(|byte| byte == b'0') => Ok(None),
            None => Err(Fault::Id { id, spelling: cut(spelling, QUOTED_MAX_BYTES).to_string() }),
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
            add_tag(draft, key, value);
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
            let (mut time, mut value) = (UnixNanos::ZERO, Text::new());
            let mut object = self.reader.object()?;
            while let Some(name) = self.reader.next_member(&mut object)? {
                match name.content().as_ref() {
                    b"timestamp" => time = UnixNanos(self.micros()?),
                    b"value" => value = self.reader.lenient_text(limits::NAME_MAX_BYTES)?,
                    _ => self.reader.skip()?,
                }
            }
            draft.events.push(annotation(time, value));
        }
        Ok(())
    }
}
