//! The span as received: protocol-neutral and lossless. Whatever protocol it came by, it can be
//! written back as OTLP without losing a field.

use std::sync::Arc;

use crate::Text;
use crate::attributes::Attributes;
use crate::id::{SpanId, TraceId};
use crate::model::{IngestProtocol, SpanKind};
use crate::time::UnixNanos;

/// Who emitted spans: one per OTLP `ResourceSpans`, or per Zipkin `localEndpoint`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resource {
    pub attributes: Attributes,
    pub dropped_attributes_count: u32,
    pub schema_url: Text,
}

/// The instrumentation scope.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    pub name: Text,
    pub version: Text,
    pub attributes: Attributes,
    pub dropped_attributes_count: u32,
    pub schema_url: Text,
}

/// OTLP status code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StatusCode {
    #[default]
    Unset,
    Ok,
    Error,
}

impl StatusCode {
    /// From the OTLP number; unknown numbers are unset.
    #[must_use]
    pub const fn from_otlp(number: i32) -> Self {
        match number {
            1 => Self::Ok,
            2 => Self::Error,
            _ => Self::Unset,
        }
    }

    /// The OTLP number.
    #[must_use]
    pub const fn to_otlp(self) -> i32 {
        match self {
            Self::Unset => 0,
            Self::Ok => 1,
            Self::Error => 2,
        }
    }
}

/// A timed event inside a span.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub time: UnixNanos,
    pub name: Text,
    pub attributes: Attributes,
    pub dropped_attributes_count: u32,
}

/// A reference to another span.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    pub trace_id: Option<TraceId>,
    pub span_id: Option<SpanId>,
    pub trace_state: Text,
    pub attributes: Attributes,
    pub dropped_attributes_count: u32,
    pub flags: u32,
}

/// One received span.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub parent_span_id: Option<SpanId>,
    pub trace_state: Text,
    /// W3C trace flags in the low byte; bits 8 and 9 say whether the parent is remote.
    pub flags: u32,
    pub name: Text,
    pub kind: SpanKind,
    pub start: UnixNanos,
    pub end: UnixNanos,
    pub attributes: Attributes,
    pub dropped_attributes_count: u32,
    pub events: Vec<Event>,
    pub dropped_events_count: u32,
    pub links: Vec<Link>,
    pub dropped_links_count: u32,
    pub status: StatusCode,
    pub status_message: Text,
    pub resource: Arc<Resource>,
    pub scope: Arc<Scope>,
    /// Zipkin's `shared`: the server half reuses the client half's span id.
    pub shared: bool,
    pub ingest: IngestProtocol,
}

/// OTLP flag bit: bit 9 carries information.
const FLAG_HAS_IS_REMOTE: u32 = 0x100;
/// OTLP flag bit: the parent is in another process.
const FLAG_IS_REMOTE: u32 = 0x200;

/// Scope of what is stored among spans without being one: facts of other traces.
pub const FACT_SCOPE: &str = "windrose.join";

impl Span {
    /// Whether it stores what the join learned from other traces, and nobody sent it.
    #[must_use]
    pub fn is_fact(&self) -> bool {
        &*self.scope.name == FACT_SCOPE
    }

    /// How long it took; 0 when the clock went backwards.
    #[must_use]
    pub const fn duration_nanos(&self) -> u64 {
        self.end.since(self.start)
    }

    /// Bytes this span holds in memory, resource and scope not counted, which others share.
    #[must_use]
    pub fn heap_estimate_bytes(&self) -> usize {
        let events: usize =
            self.events.iter().map(|event| size_of::<Event>() + event.attributes.heap_estimate_bytes()).sum();
        let links: usize =
            self.links.iter().map(|link| size_of::<Link>() + link.attributes.heap_estimate_bytes()).sum();
        size_of::<Self>() + self.name.len() + self.attributes.heap_estimate_bytes() + events + links
    }

    /// Whether the parent is in another process; `None` when the sender does not say.
    #[must_use]
    pub const fn parent_is_remote(&self) -> Option<bool> {
        if self.flags & FLAG_HAS_IS_REMOTE == 0 { None } else { Some(self.flags & FLAG_IS_REMOTE != 0) }
    }
}
