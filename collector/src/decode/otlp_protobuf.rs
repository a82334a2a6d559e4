//! OTLP `ExportTraceServiceRequest` in protobuf, walked without generated types.
//!
//! Texts are slices of the body; resource and scope are read once and shared by their spans.
//! Semantics are protobuf's: unknown fields are skipped, the last scalar wins, repeated
//! occurrences of a message merge, fields come in any order (so a resource may follow its spans,
//! which is why each group is walked twice: first for the resource, then for the spans).
//! Bytes that are not UTF-8 where text is expected are repaired, not refused.
//!
//! A malformed span is refused alone; anything malformed outside a span refuses the body, because
//! nothing says any more where the next span begins.

use std::sync::Arc;

use bytes::Bytes;
use windrose_proto::Text;
use windrose_proto::attributes::{Attributes, KeyValue, Value};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::limits;
use windrose_proto::model::SpanKind;
use windrose_proto::reject::RejectReason;
use windrose_proto::span::{Event, Link, Resource, Scope, Span, StatusCode};
use windrose_proto::time::UnixNanos;

use super::sink::{Budget, CappedAttributes, Draft, OverBudget, Refusal, Sink, SpanKindOrDefault, finish_attributes};
use super::text::Source;
use super::wire::{Fields, WireError};
use super::{DecodeError, Decoded, Origin};

mod logs;
mod metrics;
#[cfg(test)]
mod tests;

pub use logs::decode_otlp_logs_protobuf;
pub(super) use metrics::walk_metrics_protobuf;

/// Field number of `ResourceSpans.instrumentation_library_spans` between OTLP 0.15 and 0.20; before
/// that it was 2, where `scope_spans` is now with the same layout.
const INSTRUMENTATION_LIBRARY_SPANS: u32 = 1000;

/// Decodes an `ExportTraceServiceRequest`.
///
/// # Errors
/// When the body is not such a message; nothing of it is taken then.
pub fn decode_otlp_protobuf(body: &Bytes, origin: Origin) -> Result<Decoded, DecodeError> {
    let mut walker = Walker::new(body, Sink::new(origin));
    walker.request().map_err(|fault| DecodeError {
        reason: fault.reason(),
        message: format!("not an OTLP ExportTraceServiceRequest in protobuf: {fault}"),
    })?;
    Ok(walker.sink.finish())
}

/// What can be wrong inside a message.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
    #[error("attribute value nested deeper than {}", limits::VALUE_DEPTH_MAX)]
    TooDeep,
    #[error("{0} of {1} bytes")]
    IdLength(&'static str, usize),
}

impl Fault {
    const fn reason(&self) -> RejectReason {
        match self {
            Self::OverBudget(_) => RejectReason::TooLarge,
            Self::Wire(_) | Self::TooDeep | Self::IdLength(..) => RejectReason::BadBody,
        }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::OverBudget(over) => Self::new(RejectReason::TooLarge, over.to_string()),
            Fault::IdLength("trace id", _) => Self::new(RejectReason::BadTraceId, fault.to_string()),
            Fault::IdLength(..) => Self::new(RejectReason::BadSpanId, fault.to_string()),
            Fault::Wire(_) | Fault::TooDeep => Self::unreadable(fault),
        }
    }
}

/// Spans in a request: a list that grows while it is read is copied several times.
fn count_spans(body: &[u8]) -> Result<usize, WireError> {
    let mut count = 0;
    let mut groups = Fields::of(body);
    while let Some(group) = groups.next()? {
        if group.number != 1 {
            continue;
        }
        let mut scopes = Fields::of(group.bytes()?);
        while let Some(scope) = scopes.next()? {
            if scope.number != 2 && scope.number != INSTRUMENTATION_LIBRARY_SPANS {
                continue;
            }
            let mut spans = Fields::of(scope.bytes()?);
            while let Some(span) = spans.next()? {
                count += usize::from(span.number == 2);
            }
        }
    }
    Ok(count)
}

struct Walker<'a> {
    source: Source<'a>,
    sink: Sink,
    /// How many attributes the span before had: its neighbours have as many, so that lists are
    /// allocated once at the right size.
    last_attributes_len: usize,
    /// The same of resources.
    last_resource_len: usize,
}

impl<'a> Walker<'a> {
    fn new(body: &'a Bytes, sink: Sink) -> Self {
        Self { source: Source::new(body), sink, last_attributes_len: 0, last_resource_len: 0 }
    }

    fn request(&mut self) -> Result<(), Fault> {
        let body = self.source.body();
        // Malformed bodies are found out below.
        self.sink.expect(count_spans(body).unwrap_or_default(), body.len());
        let mut fields = Fields::of(body);
        while let Some(field) = fields.next()? {
            if field.number == 1 {
                self.resource_spans(field.bytes()?)?;
            }
        }
        Ok(())
    }

    fn resource_spans(&mut self, message: &'a [u8]) -> Result<(), Fault> {
        let resource = self.resource_of_group(message)?;
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            if field.number == 2 || field.number == INSTRUMENTATION_LIBRARY_SPANS {
                self.scope_spans(field.bytes()?, &resource)?;
            }
        }
        Ok(())
    }

    /// The resource of a `ResourceSpans` or `ResourceLogs`.
    fn resource_of_group(&mut self, message: &'a [u8]) -> Result<Arc<Resource>, Fault> {
        let mut resource = Resource::default();
        let mut attributes = CappedAttributes::with_capacity(self.last_resource_len);
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.resource(field.bytes()?, &mut resource, &mut attributes)?,
                3 => resource.schema_url = self.source.text(field.bytes()?, limits::NAME_MAX_BYTES),
                _ => {}
            }
        }
        self.last_resource_len = attributes.len();
        (resource.attributes, resource.dropped_attributes_count) =
            finish_attributes(attributes, resource.dropped_attributes_count);
        Ok(Arc::new(resource))
    }

    fn resource(
        &mut self,
        message: &'a [u8],
        resource: &mut Resource,
        attributes: &mut CappedAttributes,
    ) -> Result<(), Fault> {
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => attributes.push(self.key_value(field.bytes()?)?),
                2 => resource.dropped_attributes_count = field.uint32()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn scope_spans(&mut self, message: &'a [u8], resource: &Arc<Resource>) -> Result<(), Fault> {
        let scope = self.scope_of_group(message)?;
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            if field.number == 2 {
                let message = field.bytes()?;
                if self.sink.has_room() {
                    let read = self.span(message).map_err(Refusal::from);
                    self.sink.take(read, resource, &scope);
                }
            }
        }
        Ok(())
    }

    /// The scope of a `ScopeSpans` or `ScopeLogs`.
    fn scope_of_group(&mut self, message: &'a [u8]) -> Result<Arc<Scope>, Fault> {
        let mut scope = Scope::default();
        let mut attributes = CappedAttributes::default();
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.scope(field.bytes()?, &mut scope, &mut attributes)?,
                3 => scope.schema_url = self.source.text(field.bytes()?, limits::NAME_MAX_BYTES),
                _ => {}
            }
        }
        (scope.attributes, scope.dropped_attributes_count) =
            finish_attributes(attributes, scope.dropped_attributes_count);
        Ok(Arc::new(scope))
    }

    fn scope(&mut self, message: &'a [u8], scope: &mut Scope, attributes: &mut CappedAttributes) -> Result<(), Fault> {
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => scope.name = self.source.text(field.bytes()?, limits::NAME_MAX_BYTES),
                2 => scope.version = self.source.text(field.bytes()?, limits::NAME_MAX_BYTES),
                3 => attributes.push(self.key_value(field.bytes()?)?),
                4 => scope.dropped_attributes_count = field.uint32()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn span(&mut self, message: &'a [u8]) -> Result<Draft, Fault> {
        let mut draft =
            Draft { attributes: CappedAttributes::with_capacity(self.last_attributes_len), ..Draft::default() };
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => draft.trace_id = trace_id(field.bytes()?)?,
                2 => draft.span_id = span_id("span id", field.bytes()?)?,
                3 => draft.trace_state = self.source.text(field.bytes()?, limits::ATTRIBUTE_VALUE_MAX_BYTES),
                4 => draft.parent_span_id = span_id("parent span id", field.bytes()?)?,
                5 => draft.name = self.source.text(field.bytes()?, limits::NAME_MAX_BYTES),
                6 => draft.kind = SpanKindOrDefault(SpanKind::from_otlp(field.int32()?)),
                7 => draft.start = UnixNanos(field.fixed64()?),
                8 => draft.end = UnixNanos(field.fixed64()?),
                9 => draft.push(self.key_value(field.bytes()?)?),
                10 => draft.dropped_attributes_count = field.uint32()?,
                11 => draft.events.push(self.event(field.bytes()?)?),
                12 => draft.dropped_events_count = field.uint32()?,
                13 => draft.links.push(self.link(field.bytes()?)?),
                14 => draft.dropped_links_count = field.uint32()?,
                15 => self.status(field.bytes()?, &mut draft)?,
                16 => draft.flags = field.fixed32()?,
                _ => {}
            }
        }
        self.last_attributes_len = draft.attributes.len();
        Ok(draft)
    }

    fn status(&mut self, message: &'a [u8], draft: &mut Draft) -> Result<(), Fault> {
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            match field.number {
                2 => draft.status_message = self.source.text(field.bytes()?, limits::ATTRIBUTE_VALUE_MAX_BYTES),
                3 => draft.status = StatusCode::from_otlp(field.int32()?),
                _ => {}
            }
        }
        Ok(())
    }

    fn event(&mut self, message: &'a [u8]) -> Result<Event, Fault> {
        self.sink.budget.charge_one::<Event>()?;
        let mut event = Event {
            time: UnixNanos::ZERO,
            name: Text::new(),
            attributes: Attributes::default(),
            dropped_attributes_count: 0,
        };
        let mut attributes = CappedAttributes::default();
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => event.time = UnixNanos(field.fixed64()?),
                2 => event.name = self.source.text(field.bytes()?, limits::NAME_MAX_BYTES),
                3 => attributes.push(self.key_value(field.bytes()?)?),
                4 => event.dropped_attributes_count = field.uint32()?,
                _ => {}
            }
        }
        (event.attributes, event.dropped_attributes_count) =
            finish_attributes(attributes, event.dropped_attributes_count);
        Ok(event)
    }

    fn link(&mut self, message: &'a [u8]) -> Result<Link, Fault> {
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
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            match field.number {
                // A link to nothing is still a link; only the span's own ids are worth a refusal.
                1 => link.trace_id = TraceId::from_slice(field.bytes()?),
                2 => link.span_id = SpanId::from_slice(field.bytes()?),
                3 => link.trace_state = self.source.text(field.bytes()?, limits::ATTRIBUTE_VALUE_MAX_BYTES),
                4 => attributes.push(self.key_value(field.bytes()?)?),
                5 => link.dropped_attributes_count = field.uint32()?,
                6 => link.flags = field.fixed32()?,
                _ => {}
            }
        }
        (link.attributes, link.dropped_attributes_count) = finish_attributes(attributes, link.dropped_attributes_count);
        Ok(link)
    }

    #[inline]
    fn key_value(&mut self, message: &'a [u8]) -> Result<KeyValue, Fault> {
        key_value(self.source, &mut self.sink.budget, message, 0)
    }
}

fn key_value<'a>(source: Source<'a>, budget: &mut Budget, message: &'a [u8], depth: usize) -> Result<KeyValue, Fault> {
    budget.charge_one::<KeyValue>()?;
    let mut read = KeyValue { key: Text::new(), value: Value::Empty };
    let mut fields = Fields::of(message);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => read.key = source.text(field.bytes()?, limits::NAME_MAX_BYTES),
            2 => any_value(source, budget, field.bytes()?, depth, &mut read.value)?,
            _ => {}
        }
    }
    Ok(read)
}

/// Reads an `AnyValue` into `value`: the last variant wins, a list met twice is one list.
fn any_value<'a>(
    source: Source<'a>,
    budget: &mut Budget,
    message: &'a [u8],
    depth: usize,
    value: &mut Value,
) -> Result<(), Fault> {
    let mut fields = Fields::of(message);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => *value = Value::Str(source.text(field.bytes()?, limits::ATTRIBUTE_VALUE_MAX_BYTES)),
            2 => *value = Value::Bool(field.varint()? != 0),
            3 => *value = Value::Int(field.varint()? as i64),
            4 => *value = Value::Double(f64::from_bits(field.fixed64()?)),
            5 => {
                let mut items = match std::mem::replace(value, Value::Empty) {
                    Value::Array(items) => items,
                    _ => Vec::new(),
                };
                array_value(source, budget, field.bytes()?, deeper(depth)?, &mut items)?;
                *value = Value::Array(items);
            }
            6 => {
                let mut entries = match std::mem::replace(value, Value::Empty) {
                    Value::Map(entries) => entries,
                    _ => Vec::new(),
                };
                map_value(source, budget, field.bytes()?, deeper(depth)?, &mut entries)?;
                *value = Value::Map(entries);
            }
            7 => *value = Value::Bytes(source.bytes(field.bytes()?, limits::ATTRIBUTE_VALUE_MAX_BYTES)),
            _ => {}
        }
    }
    Ok(())
}

fn array_value<'a>(
    source: Source<'a>,
    budget: &mut Budget,
    message: &'a [u8],
    depth: usize,
    items: &mut Vec<Value>,
) -> Result<(), Fault> {
    let mut fields = Fields::of(message);
    while let Some(field) = fields.next()? {
        if field.number == 1 {
            budget.charge_one::<Value>()?;
            let mut item = Value::Empty;
            any_value(source, budget, field.bytes()?, depth, &mut item)?;
            items.push(item);
        }
    }
    Ok(())
}

fn map_value<'a>(
    source: Source<'a>,
    budget: &mut Budget,
    message: &'a [u8],
    depth: usize,
    entries: &mut Vec<KeyValue>,
) -> Result<(), Fault> {
    let mut fields = Fields::of(message);
    while let Some(field) = fields.next()? {
        if field.number == 1 {
            entries.push(key_value(source, budget, field.bytes()?, depth)?);
        }
    }
    Ok(())
}

const fn deeper(depth: usize) -> Result<usize, Fault> {
    if depth >= limits::VALUE_DEPTH_MAX { Err(Fault::TooDeep) } else { Ok(depth + 1) }
}

fn trace_id(bytes: &[u8]) -> Result<Option<TraceId>, Fault> {
    if bytes.len() > TraceId::LEN {
        Err(Fault::IdLength("trace id", bytes.len()))
    } else {
        Ok(TraceId::from_slice(bytes))
    }
}

/// An empty or all-zero id is absent (ID5): root spans are written either way.
fn span_id(what: &'static str, bytes: &[u8]) -> Result<Option<SpanId>, Fault> {
    if bytes.len() > SpanId::LEN { Err(Fault::IdLength(what, bytes.len())) } else { Ok(SpanId::from_slice(bytes)) }
}

const _: () = assert!(size_of::<Span>() <= 512, "a span is the unit of ingest memory: keep it small");
