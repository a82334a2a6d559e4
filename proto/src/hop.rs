//! What the join derives from one trace: hops, the request they serve, and gaps that say why
//! something is missing.

use std::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::Text;
use crate::id::{SpanId, TraceId};
use crate::model::{Direction, Fault, FaultAt, NodeRole, Protocol, ProxyKind, Reason, Reporters, Rule, Tls};
use crate::time::UnixNanos;

/// Reserved node name of callers outside that nobody names.
pub const CLIENT_NODE: &str = "(client)";
/// Reserved node name of an end that could not be resolved.
pub const UNKNOWN_NODE: &str = "(unknown)";

/// A node of the topology: one service (at one version and workload) in one role.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    pub cluster: Option<Text>,
    pub namespace: Option<Text>,
    pub service: Text,
    pub workload: Option<Text>,
    pub version: Option<Text>,
    pub role: NodeRole,
    pub proxy_kind: ProxyKind,
}

impl Node {
    /// The reserved node for unnamed external callers.
    #[must_use]
    pub fn client() -> Self {
        Self::reserved(CLIENT_NODE, NodeRole::External)
    }

    /// The reserved node for an end that could not be resolved.
    #[must_use]
    pub fn unknown() -> Self {
        Self::reserved(UNKNOWN_NODE, NodeRole::Unknown)
    }

    fn reserved(name: &'static str, role: NodeRole) -> Self {
        Self {
            cluster: None,
            namespace: None,
            service: Text::from_static(name),
            workload: None,
            version: None,
            role,
            proxy_kind: ProxyKind::None,
        }
    }
}

/// The public route a trace entered by. `None` parts are unknown, not empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryRoute {
    /// `GET /api/orders/{id}`: method and path template.
    pub route: Text,
    pub host: Option<Text>,
}

/// Why a hop's entry, or a hop's end, is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Gap {
    /// A span names a parent that never came.
    ParentNeverReceived,
    /// The service started a new trace instead of forwarding the context.
    PropagationLost,
    /// The trace began inside the mesh: a job, a probe or a service of its own accord.
    NoGateway,
    /// Neither span nor counter names the peer.
    UnknownPeer,
    /// The trace was larger than the join looks at.
    TraceTooLarge,
}

impl Gap {
    /// The wire word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ParentNeverReceived => "parent_never_received",
            Self::PropagationLost => "propagation_lost",
            Self::NoGateway => "no_gateway",
            Self::UnknownPeer => "unknown_peer",
            Self::TraceTooLarge => "trace_too_large",
        }
    }

    /// From the wire word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::ParentNeverReceived, Self::PropagationLost, Self::NoGateway, Self::UnknownPeer, Self::TraceTooLarge]
            .into_iter()
            .find(|gap| gap.as_str() == word)
    }
}

/// Which public route a hop served, or why that is not known.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entry {
    Route(Arc<EntryRoute>),
    Unknown(Gap),
}

/// One attempt over one edge, derived from the spans of one trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Hop {
    pub trace_id: TraceId,
    pub client_span: Option<SpanId>,
    pub server_span: Option<SpanId>,
    pub source: Arc<Node>,
    pub destination: Arc<Node>,
    /// Hops that leave an egress gateway: the workload on whose behalf it called, that is the
    /// nearest node above it that is not an egress gateway. `None` for all other hops, and when
    /// that node is not known.
    pub origin: Option<Arc<Node>>,
    /// Address or `ip:port` of the chosen endpoint.
    pub endpoint: Option<Text>,
    /// The waypoint between the two.
    pub via: Option<Text>,
    pub direction: Direction,
    pub direction_rule: Rule,
    pub reporters: Reporters,
    pub protocol: Protocol,
    pub method: Option<Text>,
    pub http_status: Option<u16>,
    pub grpc_status: Option<u8>,
    pub error: bool,
    pub fault: Fault,
    pub fault_at: Option<FaultAt>,
    /// Sorted and unique.
    pub reasons: SmallVec<[Reason; 1]>,
    /// 0 for the first attempt.
    pub retry: u8,
    /// No later attempt of the same request exists: this one counts as the call.
    pub is_final: bool,
    pub root_cause: bool,
    /// Made by a proxy's traffic mirroring, or on behalf of a mirrored request: nobody's load but its own.
    pub mirror: bool,
    pub tls: Tls,
    /// What the caller waited; the user-visible latency.
    pub client_nanos: Option<u64>,
    /// What the callee worked.
    pub server_nanos: Option<u64>,
    /// What to add to the callee's clock; stored times are never rewritten.
    pub skew_nanos: Option<i64>,
    /// How long the callee kept working after the caller had given up.
    pub late_server_nanos: Option<u64>,
    /// Messaging: time between sending and receiving.
    pub queue_nanos: Option<u64>,
    pub request_bytes: Option<u64>,
    pub response_bytes: Option<u64>,
    pub start: UnixNanos,
    pub entry: Entry,
    /// The source, when it is not known, and why.
    pub source_gap: Option<Gap>,
    /// Known from access logs alone: no span reports it.
    pub logged: bool,
}

/// The status of a WebSocket, and of everything else that goes on as another protocol.
const SWITCHING_PROTOCOLS: u16 = 101;

/// Envoy waits for 15 s, Nginx, HAProxy, Kong and the SDKs' clients for up to 60 s.
const STREAM_MIN_NANOS: u64 = 60_000_000_000;

impl Hop {
    /// Whether the hop counts as a call on its edge (attempts that were retried do not, nor does
    /// the leg between a proxy and its own application, nor do mirrored requests).
    #[must_use]
    pub fn is_call(&self) -> bool {
        self.is_final && self.direction != Direction::Local && !self.mirror
    }

    /// Whether it lasted as long as somebody kept a connection open, which says nothing about how fast
    /// anybody answered (rule K5): an upgraded connection, or a success that took longer than any proxy
    /// waits for an answer unless it is told to.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        let lasted = self.client_nanos.max(self.server_nanos).unwrap_or(0);
        let is_success = match (self.grpc_status, self.http_status) {
            (Some(code), _) => code == 0,
            (None, status) => status == Some(200),
        };
        self.http_status == Some(SWITCHING_PROTOCOLS) || is_success && lasted >= STREAM_MIN_NANOS
    }
}

/// One request that entered by a gateway (or started inside), from the view of its entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub trace_id: TraceId,
    /// The span by which the request entered.
    pub entry_span: Option<SpanId>,
    /// The gateway, or the first service when there is none.
    pub entry_node: Arc<Node>,
    pub entry: Entry,
    pub method: Option<Text>,
    pub host: Option<Text>,
    pub path: Option<Text>,
    pub consumer: Option<Text>,
    pub request_id: Option<Text>,
    pub http_status: Option<u16>,
    pub grpc_status: Option<u8>,
    pub error: bool,
    pub fault: Fault,
    pub reasons: SmallVec<[Reason; 1]>,
    pub start: UnixNanos,
    pub duration_nanos: u64,
    pub span_count: u32,
    pub hop_count: u32,
    pub service_count: u32,
    /// Spans whose parent is named but was not received.
    pub missing_parents: SmallVec<[SpanId; 1]>,
    pub gaps: SmallVec<[Gap; 1]>,
}

/// How one span was used, so that no span disappears without a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpanUse {
    /// Half of a hop; index into [`Derived::hops`].
    Hop { hops: SmallVec<[u32; 2]> },
    /// Work inside a process.
    Phase,
    /// Why it is in no hop.
    Unlinked { why: &'static str },
}

/// What the trace-level rules made of one span, for explanation and the span table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanVerdict {
    pub span_id: SpanId,
    pub proxy_kind: ProxyKind,
    pub proxy_rule: Rule,
    pub vantage: crate::model::Vantage,
    pub vantage_rule: Rule,
    pub role: NodeRole,
    pub role_rule: Rule,
    pub shared_id: bool,
    pub usage: SpanUse,
    /// Not a span that was received, but what the join knows from other traces.
    pub is_fact: bool,
    /// Status, reasons and fault after the trace-level refinements.
    pub outcome: crate::normal::Outcome,
}

/// What only other traces can tell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// Whose address this was when a request came from it or went to it (S4).
    Address { ip: IpAddr, at: UnixNanos },
    /// Which request of a gateway has this request id (L1, L2).
    Entry { request_id: Text, service: Text, at: UnixNanos },
}

/// Everything the join derives from the spans of one trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Derived {
    pub request: Request,
    /// Ordered by start, then attempt.
    pub hops: Vec<Hop>,
    /// One per distinct span, in the order they were taken up (start, end descending, id, kind).
    pub verdicts: Vec<SpanVerdict>,
    /// Access log entries of spans that were received: they confirm these and add nothing (L0).
    pub confirmations: u32,
    /// What the trace leaves open, asked again even when a fact answers it: the answer may change.
    pub questions: SmallVec<[Question; 1]>,
}
