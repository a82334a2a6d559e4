//! Where every decoder puts what it found: the checks a finished span must pass, the limits on
//! how many and how large, and the count of what was refused.

use std::sync::Arc;
use std::time::Duration;

use windrose_proto::Text;
use windrose_proto::attributes::{Attributes, KeyValue, Value};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::limits;
use windrose_proto::model::{IngestProtocol, SpanKind};
use windrose_proto::otlp::SHARED_ATTRIBUTE;
use windrose_proto::reject::RejectReason;
use windrose_proto::span::{Event, Link, Resource, Scope, Span, StatusCode};
use windrose_proto::time::UnixNanos;

use super::{Decoded, Origin, Rejections};

/// Why one span was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: RejectReason,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(reason: RejectReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// The item could not be read.
    pub(super) fn unreadable(cause: impl std::fmt::Display) -> Self {
        Self::new(RejectReason::BadSpan, format!("unreadable: {cause}"))
    }
}

/// Memory the decoded form of one body may still take. Two bytes of a body can cost a hundred in
/// memory (an empty attribute), so the body's own limit does not bound it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    left_bytes: usize,
}

/// The budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request decodes to more than {} MiB: send smaller batches", limits::DECODED_MAX_BYTES >> 20)]
pub(super) struct OverBudget;

impl Budget {
    /// Pays for `bytes` of memory.
    #[inline]
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), OverBudget> {
        self.left_bytes = self.left_bytes.checked_sub(bytes).ok_or(OverBudget)?;
        Ok(())
    }

    /// Pays for one more element of a list of `T`.
    #[inline]
    pub(super) fn charge_one<T>(&mut self) -> Result<(), OverBudget> {
        self.charge(size_of::<T>())
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self { left_bytes: limits::DECODED_MAX_BYTES }
    }
}

/// A list that keeps its first `MAX` items and counts the rest.
#[derive(Debug)]
pub(super) struct Capped<T, const MAX: usize> {
    items: Vec<T>,
    beyond: u32,
}

impl<T, const MAX: usize> Default for Capped<T, MAX> {
    fn default() -> Self {
        Self { items: Vec::new(), beyond: 0 }
    }
}

impl<T, const MAX: usize> Capped<T, MAX> {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { items: Vec::with_capacity(capacity.min(MAX)), beyond: 0 }
    }

    #[inline]
    pub(super) fn push(&mut self, item: T) {
        if self.items.len() < MAX {
            self.items.push(item);
        } else {
            self.beyond = self.beyond.saturating_add(1);
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there were more items than are kept.
    pub(super) const fn is_cut(&self) -> bool {
        self.beyond > 0
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.items.iter()
    }

    /// The items, and how many are missing given how many the sender had left out already.
    pub(super) fn finish(self, dropped_by_sender: u32) -> (Vec<T>, u32) {
        (self.items, dropped_by_sender.saturating_add(self.beyond))
    }
}

/// Attributes of a span, resource, scope, event or link.
pub(super) type CappedAttributes = Capped<KeyValue, { limits::ATTRIBUTES_PER_SPAN_MAX }>;
/// Events of a span.
pub(super) type CappedEvents = Capped<Event, { limits::EVENTS_PER_SPAN_MAX }>;
/// Links of a span.
pub(super) type CappedLinks = Capped<Link, { limits::LINKS_PER_SPAN_MAX }>;

/// Attributes with the count of the missing ones.
pub(super) fn finish_attributes(list: CappedAttributes, dropped_by_sender: u32) -> (Attributes, u32) {
    let (items, dropped) = list.finish(dropped_by_sender);
    (Attributes(items), dropped)
}

/// A span as far as it has been read, before it is known to be complete.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) trace_id: Option<TraceId>,
    pub(super) span_id: Option<SpanId>,
    pub(super) parent_span_id: Option<SpanId>,
    pub(super) trace_state: Text,
    pub(super) flags: u32,
    pub(super) name: Text,
    pub(super) kind: SpanKindOrDefault,
    pub(super) start: UnixNanos,
    pub(super) end: UnixNanos,
    pub(super) attributes: CappedAttributes,
    pub(super) dropped_attributes_count: u32,
    pub(super) events: CappedEvents,
    pub(super) dropped_events_count: u32,
    pub(super) links: CappedLinks,
    pub(super) dropped_links_count: u32,
    pub(super) status: StatusCode,
    pub(super) status_message: Text,
    pub(super) shared: bool,
}

/// The kind of a span that has not named one is unspecified.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpanKindOrDefault(pub(super) SpanKind);

impl Default for SpanKindOrDefault {
    fn default() -> Self {
        Self(SpanKind::Unspecified)
    }
}

impl Draft {
    /// Appends an attribute; takes back what Windrose itself had to write as one.
    #[inline]
    pub(super) fn push(&mut self, attribute: KeyValue) {
        if attribute.key.len() == SHARED_ATTRIBUTE.len() && is_shared_mark(&attribute) {
            self.shared = true;
        } else {
            self.attributes.push(attribute);
        }
    }

    /// Appends an attribute with a constant key.
    pub(super) fn push_static(&mut self, key: &'static str, value: Value) {
        self.attributes.push(KeyValue { key: Text::from_static(key), value });
    }
}

fn is_shared_mark(attribute: &KeyValue) -> bool {
    &*attribute.key == SHARED_ATTRIBUTE && attribute.value == Value::Bool(true)
}

/// No span takes less in any protobuf: its two ids.
const SPAN_MIN_BYTES: usize = 28;

/// Collects the spans of one body.
#[derive(Debug)]
pub(super) struct Sink {
    origin: Origin,
    /// Spans that end later than this have a wrong clock.
    end_max: UnixNanos,
    spans: Vec<Span>,
    rejected: Rejections,
    pub(super) budget: Budget,
}

impl Sink {
    pub(super) fn new(origin: Origin) -> Self {
        Self {
            origin,
            end_max: origin.arrived.plus(Duration::from_secs(limits::FUTURE_MAX_SECS)),
            spans: Vec::new(),
            rejected: Rejections::default(),
            budget: Budget::default(),
        }
    }

    /// For a body that holds no spans: only its budget is used.
    pub(super) fn without_spans() -> Self {
        Self::new(Origin { ingest: IngestProtocol::OtlpHttp, arrived: UnixNanos::ZERO })
    }

    /// Makes room for so many spans of a body of `body_bytes`, as far as that can be true.
    pub(super) fn expect(&mut self, spans: usize, body_bytes: usize) {
        self.spans.reserve_exact(spans.min(body_bytes / SPAN_MIN_BYTES).min(limits::SPANS_PER_REQUEST_MAX));
    }

    /// Whether another span may be read; counts the refusal when not.
    pub(super) fn has_room(&mut self) -> bool {
        let has_room = self.spans.len() < limits::SPANS_PER_REQUEST_MAX;
        if !has_room {
            self.rejected.add(RejectReason::TooManySpans, || {
                format!("more than {} spans in one request", limits::SPANS_PER_REQUEST_MAX)
            });
        }
        has_room
    }

    /// Takes what became of one span.
    pub(super) fn take(&mut self, read: Result<Draft, Refusal>, resource: &Arc<Resource>, scope: &Arc<Scope>) {
        let checked = read.and_then(|draft| {
            self.budget.charge_one::<Span>().map_err(|over| Refusal::new(RejectReason::TooLarge, over.to_string()))?;
            self.complete(draft, resource, scope)
        });
        match checked {
            Ok(span) => self.spans.push(span),
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// Counts a span that could not be read.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.rejected.add(refusal.reason, || refusal.message);
    }

    fn complete(&self, draft: Draft, resource: &Arc<Resource>, scope: &Arc<Scope>) -> Result<Span, Refusal> {
        let trace_id =
            draft.trace_id.ok_or_else(|| Refusal::new(RejectReason::BadTraceId, "trace id is missing or all zero"))?;
        let span_id =
            draft.span_id.ok_or_else(|| Refusal::new(RejectReason::BadSpanId, "span id is missing or all zero"))?;
        self.check_times(&draft)?;
        let (attributes, dropped_attributes_count) =
            finish_attributes(draft.attributes, draft.dropped_attributes_count);
        let (events, dropped_events_count) = draft.events.finish(draft.dropped_events_count);
        let (links, dropped_links_count) = draft.links.finish(draft.dropped_links_count);
        Ok(Span {
            trace_id,
            span_id,
            parent_span_id: draft.parent_span_id,
            trace_state: draft.trace_state,
            flags: draft.flags,
            name: draft.name,
            kind: draft.kind.0,
            start: draft.start,
            end: draft.end,
            attributes,
            dropped_attributes_count,
            events,
            dropped_events_count,
            links,
            dropped_links_count,
            status: draft.status,
            status_message: draft.status_message,
            resource: Arc::clone(resource),
            scope: Arc::clone(scope),
            shared: draft.shared,
            ingest: self.origin.ingest,
        })
    }

    /// An end before the start is kept (clocks step back); a missing one is not guessed.
    fn check_times(&self, draft: &Draft) -> Result<(), Refusal> {
        if draft.start == UnixNanos::ZERO || draft.end == UnixNanos::ZERO {
            return Err(Refusal::new(RejectReason::BadTime, "start or end time is missing"));
        }
        if draft.start.max(draft.end) > self.end_max {
            return Err(Refusal::new(
                RejectReason::BadTime,
                format!(
                    "span lies more than {} h in the future: check the sender's clock and unit",
                    limits::FUTURE_MAX_SECS / 3600
                ),
            ));
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Decoded {
        let memory_bytes = limits::DECODED_MAX_BYTES - self.budget.left_bytes;
        Decoded { spans: self.spans, rejected: self.rejected, memory_bytes }
    }
}
