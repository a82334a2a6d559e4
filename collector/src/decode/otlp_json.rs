//! OTLP/JSON as senders write it.
//!
//! Beyond the specification it takes: snake case names, ids in any spelling of the ID rules, enums
//! by name or number, numbers as strings and the other way round, `null` anywhere, bare values
//! instead of `AnyValue` objects, attributes as one object, and the older names
//! `instrumentationLibrarySpans` and `batches`. Unknown members are skipped.
//!
//! A span with a member of the wrong type is refused alone; a document that is not JSON is refused
//! as a whole. Members come in any order, so that groups are walked twice: for the resource first.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use windrose_proto::attributes::{Attributes, KeyValue, Value};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::model::SpanKind;
use windrose_proto::span::{Event, Link, Resource, Scope, StatusCode};
use windrose_proto::time::UnixNanos;
use windrose_proto::{Text, limits};

use super::json::{Kind, Reader};
use super::json_items::{Fault, IdKind, Walk};
use super::sink::{CappedAttributes, Draft, Sink, SpanKindOrDefault, finish_attributes};
use super::text::Source;
use super::{DecodeError, Decoded, Origin};

mod logs;
mod metrics;
#[cfg(test)]
mod tests;

pub use logs::decode_otlp_logs_json;
pub(super) use metrics::walk_metrics_json;

/// Decodes an OTLP/JSON `ExportTraceServiceRequest`.
///
/// # Errors
/// When the body is not JSON or not of that shape; nothing of it is taken then.
pub fn decode_otlp_json(body: &Bytes, origin: Origin) -> Result<Decoded, DecodeError> {
    let mut walker = Walker { reader: Reader::new(Source::new(body)), sink: Sink::new(origin) };
    walker.request().map_err(|fault| DecodeError {
        reason: fault.reason(),
        message: format!("not an OTLP/JSON ExportTraceServiceRequest: {fault}"),
    })?;
    Ok(walker.sink.finish())
}

/// Longest spelling of an unreadable id quoted back to the sender.
const QUOTED_MAX_BYTES: usize = 64;

struct Walker<'a> {
    reader: Reader<'a>,
    sink: Sink,
}

impl<'a> Walk<'a> for Walker<'a> {
    fn reader(&mut self) -> &mut Reader<'a> {
        &mut self.reader
    }
}

impl Walker<'_> {
    fn request(&mut self) -> Result<(), Fault> {
        let mut root = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut root)? {
            match name.content().as_ref() {
                b"resourceSpans" | b"resource_spans" | b"batches" => self.each(Self::resource_spans)?,
                _ => self.reader.skip()?,
            }
        }
        Ok(self.reader.end()?)
    }

    fn resource_spans(&mut self) -> Result<(), Fault> {
        let resource = self.resource_of_group()?;
        let mut group = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut group)? {
            match name.content().as_ref() {
                b"scopeSpans" | b"scope_spans" | b"instrumentationLibrarySpans" | b"instrumentation_library_spans" => {
                    self.each(|walker| walker.scope_spans(&resource))?;
                }
                _ => self.reader.skip()?,
            }
        }
        Ok(())
    }

    /// The resource of the group that is to be read, which may stand behind the spans: reads to the
    /// end of the group and goes back to its start.
    fn resource_of_group(&mut self) -> Result<Arc<Resource>, Fault> {
        let start = self.reader.mark();
        let mut resource = Resource::default();
        let mut group = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut group)? {
            match name.content().as_ref() {
                b"resource" => self.resource(&mut resource)?,
                b"schemaUrl" | b"schema_url" => resource.schema_url = self.name()?,
                _ => self.reader.skip()?,
            }
        }
        self.reader.go_back(start);
        Ok(Arc::new(resource))
    }

    fn resource(&mut self, resource: &mut Resource) -> Result<(), Fault> {
        let schema_url = std::mem::take(&mut resource.schema_url);
        let mut attributes = CappedAttributes::default();
        let mut dropped = 0;
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            match name.content().as_ref() {
                b"attributes" => self.attributes(&mut |attribute| attributes.push(attribute))?,
                b"droppedAttributesCount" | b"dropped_attributes_count" => dropped = self.reader.lenient_u32()?,
                _ => self.reader.skip()?,
            }
        }
        let (attributes, dropped_attributes_count) = finish_attributes(attributes, dropped);
        *resource = Resource { attributes, dropped_attributes_count, schema_url };
        Ok(())
    }

    fn scope_spans(&mut self, resource: &Arc<Resource>) -> Result<(), Fault> {
        let scope = self.scope_of_group()?;
        let mut group = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut group)? {
            match name.content().as_ref() {
                b"spans" => self.each(|walker| walker.one_span(resource, &scope))?,
                _ => self.reader.skip()?,
            }
        }
        Ok(())
    }

    /// The scope of the group that is to be read; goes back to its start.
    fn scope_of_group(&mut self) -> Result<Arc<Scope>, Fault> {
        let start = self.reader.mark();
        let mut scope = Scope::default();
        let mut group = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut group)? {
            match name.content().as_ref() {
                b"scope" | b"instrumentationLibrary" | b"instrumentation_library" => self.scope(&mut scope)?,
                b"schemaUrl" | b"schema_url" => scope.schema_url = self.name()?,
                _ => self.reader.skip()?,
            }
        }
        self.reader.go_back(start);
        Ok(Arc::new(scope))
    }

    fn scope(&mut self, scope: &mut Scope) -> Result<(), Fault> {
        let mut attributes = CappedAttributes::default();
        let mut dropped = 0;
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            match name.content().as_ref() {
                b"name" => scope.name = self.name()?,
                b"version" => scope.version = self.name()?,
                b"attributes" => self.attributes(&mut |attribute| attributes.push(attribute))?,
                b"droppedAttributesCount" | b"dropped_attributes_count" => dropped = self.reader.lenient_u32()?,
                _ => self.reader.skip()?,
            }
        }
        (scope.attributes, scope.dropped_attributes_count) = finish_attributes(attributes, dropped);
        Ok(())
    }

    /// Reads a span; one that cannot be read is skipped as a whole and counted.
    fn one_span(&mut self, resource: &Arc<Resource>, scope: &Arc<Scope>) -> Result<(), Fault> {
        if !self.sink.has_room() {
            return Ok(self.reader.skip()?);
        }
        let read = self.one(Self::span)?;
        self.sink.take(read, resource, scope);
        Ok(())
    }

    fn span(&mut self) -> Result<Draft, Fault> {
        let mut draft = Draft::default();
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            match name.content().as_ref() {
                b"traceId" | b"trace_id" => draft.trace_id = self.id(IdKind::Trace, TraceId::parse)?,
                b"spanId" | b"span_id" => draft.span_id = self.id(IdKind::Span, SpanId::parse)?,
                b"parentSpanId" | b"parent_span_id" => {
                    draft.parent_span_id = self.id(IdKind::ParentSpan, SpanId::parse)?;
                }
                b"traceState" | b"trace_state" => draft.trace_state = self.text()?,
                b"flags" => draft.flags = self.reader.lenient_u32()?,
                b"name" => draft.name = self.name()?,
                b"kind" => draft.kind = SpanKindOrDefault(self.span_kind()?),
                b"startTimeUnixNano" | b"start_time_unix_nano" => draft.start = self.time()?,
                b"endTimeUnixNano" | b"end_time_unix_nano" => draft.end = self.time()?,
                b"attributes" => self.attributes(&mut |attribute| draft.push(attribute))?,
                b"droppedAttributesCount" | b"dropped_attributes_count" => {
                    draft.dropped_attributes_count = self.reader.lenient_u32()?;
                }
                b"events" => {
                    let mut events = self.reader.array()?;
                    while self.reader.next_item(&mut events)? {
                        draft.events.push(self.event()?);
                    }
                }
                b"droppedEventsCount" | b"dropped_events_count" => {
                    draft.dropped_events_count = self.reader.lenient_u32()?;
                }
                b"links" => {
                    let mut links = self.reader.array()?;
                    while self.reader.next_item(&mut links)? {
                        draft.links.push(self.link()?);
                    }
                }
                b"droppedLinksCount" | b"dropped_links_count" => {
                    draft.dropped_links_count = self.reader.lenient_u32()?;
                }
                b"status" => self.status(&mut draft)?,
                _ => self.reader.skip()?,
            }
        }
        Ok(draft)
    }

    fn status(&mut self, draft: &mut Draft) -> Result<(), Fault> {
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            match name.content().as_ref() {
                b"message" => draft.status_message = self.text()?,
                b"code" => draft.status = self.status_code()?,
                _ => self.reader.skip()?,
            }
        }
        Ok(())
    }

    fn event(&mut self) -> Result<Event, Fault> {
        self.sink.budget.charge_one::<Event>()?;
        let mut event = Event {
            time: UnixNanos::ZERO,
            name: Text::new(),
            attributes: Attributes::default(),
            dropped_attributes_count: 0,
        };
        let mut attributes = CappedAttributes::default();
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            match name.content().as_ref() {
                b"timeUnixNano" | b"time_unix_nano" => event.time = self.time()?,
                b"name" => event.name = self.name()?,
                b"attributes" => self.attributes(&mut |attribute| attributes.push(attribute))?,
                b"droppedAttributesCount" | b"dropped_attributes_count" => {
                    event.dropped_attributes_count = self.reader.lenient_u32()?;
                }
                _ => self.reader.skip()?,
            }
        }
        (event.attributes, event.dropped_attributes_count) =
            finish_attributes(attributes, event.dropped_attributes_count);
        Ok(event)
    }

    fn link(&mut self) -> Result<Link, Fault> {
        self.sink.budget.charge_one::<Link>()?;
        let mut link = Link {
            trace_id: None,
            span_id: None,
            trace_state: Text::new(),
            attributes: Attributes::default(),
            dropped_attributes_count: 0,
            flags: 0,
        };
        let mut attributes = CappedAttributes::default();
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            match name.content().as_ref() {
                b"traceId" | b"trace_id" => link.trace_id = TraceId::parse(&self.name()?),
                b"spanId" | b"span_id" => link.span_id = SpanId::parse(&self.name()?),
                b"traceState" | b"trace_state" => link.trace_state = self.text()?,
                b"attributes" => self.attributes(&mut |attribute| attributes.push(attribute))?,
                b"droppedAttributesCount" | b"dropped_attributes_count" => {
                    link.dropped_attributes_count = self.reader.lenient_u32()?;
                }
                b"flags" => link.flags = self.reader.lenient_u32()?,
                _ => self.reader.skip()?,
            }
        }
        (link.attributes, link.dropped_attributes_count) = finish_attributes(attributes, link.dropped_attributes_count);
        Ok(link)
    }

    // Scalars.

    fn name(&mut self) -> Result<Text, Fault> {
        Ok(self.reader.lenient_text(limits::NAME_MAX_BYTES)?)
    }

    fn text(&mut self) -> Result<Text, Fault> {
        Ok(self.reader.lenient_text(limits::ATTRIBUTE_VALUE_MAX_BYTES)?)
    }

    fn time(&mut self) -> Result<UnixNanos, Fault> {
        Ok(UnixNanos(self.reader.lenient_u64()?))
    }

    fn id<T>(&mut self, id: IdKind, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Fault> {
        let spelling = self.name()?;
        match parse(&spelling) {
            Some(parsed) => Ok(Some(parsed)),
            None if means_absent(&spelling) => Ok(None),
            None => Err(Fault::Id { id, spelling: super::text::cut(spelling, QUOTED_MAX_BYTES).to_string() }),
        }
    }

    fn span_kind(&mut self) -> Result<SpanKind, Fault> {
        let word = self.name()?.to_ascii_lowercase();
        let word = word.strip_prefix("span_kind_").unwrap_or(&word);
        Ok(SpanKind::parse(word).unwrap_or_else(|| SpanKind::from_otlp(word.parse().unwrap_or_default())))
    }

    fn status_code(&mut self) -> Result<StatusCode, Fault> {
        let word = self.name()?.to_ascii_lowercase();
        Ok(match word.strip_prefix("status_code_").unwrap_or(&word) {
            "ok" => StatusCode::Ok,
            "error" => StatusCode::Error,
            number => StatusCode::from_otlp(number.parse().unwrap_or_default()),
        })
    }

    // Attributes.

    /// A list of key and value, or one object of them.
    fn attributes(&mut self, push: &mut dyn FnMut(KeyValue)) -> Result<(), Fault> {
        self.key_values(0, push)
    }

    fn key_values(&mut self, depth: usize, push: &mut dyn FnMut(KeyValue)) -> Result<(), Fault> {
        if self.reader.kind()? == Kind::Object {
            let mut object = self.reader.object()?;
            while let Some(name) = self.reader.next_member(&mut object)? {
                self.sink.budget.charge_one::<KeyValue>()?;
                let key = name.text(self.reader.source, limits::NAME_MAX_BYTES);
                push(KeyValue { key, value: self.any_value(depth)? });
            }
            return Ok(());
        }
        let mut list = self.reader.array()?;
        while self.reader.next_item(&mut list)? {
            self.sink.budget.charge_one::<KeyValue>()?;
            let mut attribute = KeyValue { key: Text::new(), value: Value::Empty };
            let mut object = self.reader.object()?;
            while let Some(name) = self.reader.next_member(&mut object)? {
                match name.content().as_ref() {
                    b"key" => attribute.key = self.name()?,
                    b"value" => attribute.value = self.any_value(depth)?,
                    _ => self.reader.skip()?,
                }
            }
            push(attribute);
        }
        Ok(())
    }

    /// An `AnyValue` object, or the bare value itself.
    fn any_value(&mut self, depth: usize) -> Result<Value, Fault> {
        match self.reader.kind()? {
            Kind::Null => {
                self.reader.null()?;
                Ok(Value::Empty)
            }
            Kind::Bool => Ok(Value::Bool(self.reader.bool()?)),
            Kind::String => Ok(Value::Str(self.text()?)),
            Kind::Number => self.bare_number(),
            Kind::Array => self.values(deeper(depth)?),
            Kind::Object => self.tagged_value(depth),
        }
    }

    fn bare_number(&mut self) -> Result<Value, Fault> {
        let start = self.reader.mark();
        let digits = self.reader.raw_number()?;
        if digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'-')) {
            self.reader.go_back(start);
            return Ok(Value::Int(self.reader.lenient_i64()?));
        }
        self.reader.go_back(start);
        Ok(Value::Double(self.reader.lenient_f64()?))
    }

    fn tagged_value(&mut self, depth: usize) -> Result<Value, Fault> {
        let mut value = Value::Empty;
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            let name = name.content();
            if self.reader.kind()? == Kind::Null {
                self.reader.null()?;
                continue;
            }
            match name.as_ref() {
                b"stringValue" | b"string_value" => value = Value::Str(self.text()?),
                b"boolValue" | b"bool_value" => value = Value::Bool(self.reader.lenient_bool()?),
                b"intValue" | b"int_value" => value = Value::Int(self.reader.lenient_i64()?),
                b"doubleValue" | b"double_value" => value = Value::Double(self.reader.lenient_f64()?),
                b"arrayValue" | b"array_value" => value = self.array_value(deeper(depth)?)?,
                b"kvlistValue" | b"kvlist_value" => value = self.map_value(deeper(depth)?)?,
                b"bytesValue" | b"bytes_value" => value = self.bytes_value()?,
                _ => self.reader.skip()?,
            }
        }
        Ok(value)
    }

    /// `{"values":[…]}`, or the list itself.
    fn array_value(&mut self, depth: usize) -> Result<Value, Fault> {
        if self.reader.kind()? == Kind::Array {
            return self.values(depth);
        }
        let mut value = Value::Array(Vec::new());
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            match name.content().as_ref() {
                b"values" => value = self.values(depth)?,
                _ => self.reader.skip()?,
            }
        }
        Ok(value)
    }

    fn values(&mut self, depth: usize) -> Result<Value, Fault> {
        let mut items = Vec::new();
        let mut array = self.reader.array()?;
        while self.reader.next_item(&mut array)? {
            self.sink.budget.charge_one::<Value>()?;
            items.push(self.any_value(depth)?);
        }
        Ok(Value::Array(items))
    }

    fn map_value(&mut self, depth: usize) -> Result<Value, Fault> {
        let mut entries = Vec::new();
        let mut object = self.reader.object()?;
        while let Some(name) = self.reader.next_member(&mut object)? {
            match name.content().as_ref() {
                b"values" => self.key_values(depth, &mut |entry| entries.push(entry))?,
                _ => self.reader.skip()?,
            }
        }
        Ok(Value::Map(entries))
    }

    fn bytes_value(&mut self) -> Result<Value, Fault> {
        let spelling = self.reader.lenient_text(BASE64_MAX_BYTES)?;
        // Both alphabets are in use; they differ in two characters.
        let standard = spelling.replace('-', "+").replace('_', "/");
        let mut bytes = BASE64.decode(standard.trim()).map_err(|_| Fault::Base64)?;
        bytes.truncate(limits::ATTRIBUTE_VALUE_MAX_BYTES);
        Ok(Value::Bytes(Bytes::from(bytes)))
    }
}

/// Base64 of the longest value kept. A multiple of four, so that what is cut still decodes.
const BASE64_MAX_BYTES: usize = limits::ATTRIBUTE_VALUE_MAX_BYTES.div_ceil(3) * 4;

/// Standard base64, padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// ID5: nothing, or zeros in hexadecimal or base64.
fn means_absent(spelling: &str) -> bool {
    spelling.bytes().all(|byte| matches!(byte, b'0' | b'-')) || spelling.bytes().all(|byte| matches!(byte, b'A' | b'='))
}

const fn deeper(depth: usize) -> Result<usize, Fault> {
    if depth >= limits::VALUE_DEPTH_MAX { Err(Fault::TooDeep) } else { Ok(depth + 1) }
}
