//! The normalised span: what the rules of the model read out of one received span, looking at
//! nothing but that span. It is the join's only input besides other normalised spans.
//!
//! Identities, resources and texts are shared, so that an open trace costs a few hundred bytes per span.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::Text;
use crate::hop::{EntryRoute, Node};
use crate::id::{SpanId, TraceId};
use crate::model::{Fault, NodeRole, Protocol, ProxyKind, Reason, Rule, SpanKind, Tls, Vantage};
use crate::time::UnixNanos;

/// Who a process is, as far as its own spans (or scrape labels) say. Rules I.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Identity {
    pub service: Text,
    pub namespace: Option<Text>,
    pub workload: Option<Text>,
    pub version: Option<Text>,
    pub pod: Option<Text>,
    pub cluster: Option<Text>,
    /// The address other proxies know this process by.
    pub ip: Option<IpAddr>,
}

/// A process for the question "is this the same process?": equal resource and node id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process {
    /// Hash over the canonical resource attributes, independent of their order.
    pub resource_hash: u64,
    /// Envoy's `node_id`, only on connection manager spans.
    pub node_id: Option<Text>,
}

/// Where a span says its request went. Rules T.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub service: Text,
    pub namespace: Option<Text>,
    /// Subset of the upstream cluster; stands in for the version when the callee is silent.
    pub subset: Option<Text>,
    /// `None` when nothing decides between inside and outside.
    pub external: bool,
    pub ip: Option<IpAddr>,
    /// Sent nowhere on purpose (Istio's BlackHoleCluster).
    pub blackhole: bool,
    pub rule: Rule,
}

/// Whom a span names as its caller. Rules S.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceHint {
    /// Named outright (S1).
    Workload { service: Text, namespace: Option<Text>, rule: Rule },
    /// Known by address only (S2).
    Address { ip: IpAddr, rule: Rule },
}

/// How the request ended as this span saw it. Rules O and F.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `None` when nobody answered.
    pub http_status: Option<u16>,
    pub grpc_status: Option<u8>,
    /// Response flags as written, without `-`.
    pub flags: SmallVec<[Text; 1]>,
    /// Sorted and unique.
    pub reasons: SmallVec<[Reason; 1]>,
    pub error: bool,
    pub fault: Fault,
    pub fault_rule: Rule,
    /// Number of this attempt as written by the proxy, 0 for the first.
    pub retry: u8,
    /// Kong's 1-based balancer try.
    pub try_number: Option<u8>,
}

/// Which leg of its own process a one-process-two-legs proxy (Linkerd) reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leg {
    Inbound,
    Outbound,
}

/// The connections of a request, which only access log entries name. Rules L find the caller's
/// entry by them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Who connected to the proxy.
    pub caller: Option<SocketAddr>,
    /// The proxy's own end of the connection it passed the request on by.
    pub outgoing: Option<SocketAddr>,
    /// The other end of that connection.
    pub endpoint: Option<SocketAddr>,
}

/// A role that the span alone may leave open. Rules R.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoleHint {
    Known(NodeRole),
    /// Surely a proxy, but gateway, egress or sidecar depends on the rest of the trace (R4).
    InContext,
}

/// What other traces say about this one. The join decides it, and stores it among the spans of the
/// trace, so that the trace alone says again what it said before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Whose address this was at the time (S4); `None` when several workloads claim it.
    Address { ip: IpAddr, node: Option<Arc<Node>> },
    /// The request this trace goes on with, by its request id (L1); `None` when several fit.
    Entry { link: Option<Arc<Link>> },
}

/// The other trace of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub trace_id: TraceId,
    pub route: Arc<EntryRoute>,
    /// Whether that trace holds the call by which this one begins (L2): then the call is counted there.
    pub continues_call: bool,
}

/// One span after the span-level rules. The `*_rule` fields say which rule decided.
#[derive(Clone, Debug)]
pub struct NormalSpan {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub parent_span_id: Option<SpanId>,
    pub start: UnixNanos,
    pub end: UnixNanos,
    pub kind: SpanKind,
    pub name: Text,
    pub status_error: bool,
    /// Zipkin's `shared` flag.
    pub shared: bool,
    /// OTLP: whether the parent is in another process, when the sender says so.
    pub parent_is_remote: Option<bool>,

    pub process: Arc<Process>,
    pub identity: Arc<Identity>,
    pub identity_rule: Rule,
    pub proxy_kind: ProxyKind,
    pub proxy_rule: Rule,
    pub vantage: Vantage,
    pub vantage_rule: Rule,
    pub role: RoleHint,
    pub role_rule: Rule,

    pub destination: Option<Arc<Destination>>,
    pub source: Option<SourceHint>,
    pub outcome: Outcome,
    pub protocol: Protocol,
    pub tls: Tls,

    pub method: Option<Text>,
    /// Host the client asked for, without port.
    pub host: Option<Text>,
    /// Path without query string.
    pub path: Option<Text>,
    /// Route template named by the proxy or framework (`http.route` and kin).
    pub route: Option<Text>,
    pub request_id: Option<Text>,
    pub request_bytes: Option<u64>,
    pub response_bytes: Option<u64>,
    /// As written by the proxy.
    pub upstream_cluster: Option<Text>,
    /// Whether the upstream cluster is the proxy's own application (`inbound|…`, `local_app`).
    pub upstream_is_own_app: bool,
    pub peer_ip: Option<IpAddr>,
    pub peer_port: Option<u16>,

    /// Linkerd's `direction`.
    pub leg: Option<Leg>,
    /// Kong's balancer reported that this try failed and the next one followed.
    pub kong_next: bool,
    /// What few spans say.
    pub hints: Option<Box<Hints>>,
    /// Whether the proxy made the answer itself, when it says so (`response_code_details`).
    pub local_reply: Option<bool>,
    /// Set when this is no span but an access log entry, which knows no parent.
    pub logged: Option<Arc<Connections>>,
    /// Whether it is part of a mirrored request, whose answer nobody waits for.
    pub mirror: bool,
    /// Not a span at all, but what the join knows from other traces.
    pub fact: Option<Arc<Fact>>,
}

/// What few spans say, kept apart so that the others, of which a million may be open, do not make room for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    pub consumer: Option<Text>,
    /// Service named by a proxy that emits no client span (rule T5).
    pub inferred_service: Option<Text>,
    /// Envoy's `downstream_cluster`: the calling service, when the caller announces itself.
    pub downstream_cluster: Option<Text>,
}

impl Hints {
    /// `None` when there are none.
    #[must_use]
    pub fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

impl NormalSpan {
    /// Who called, by the name that a gateway authenticated.
    #[must_use]
    pub fn consumer(&self) -> Option<&Text> {
        self.hints.as_ref()?.consumer.as_ref()
    }

    /// How long it took; 0 when the clock went backwards.
    #[must_use]
    pub const fn duration_nanos(&self) -> u64 {
        self.end.since(self.start)
    }

    /// Bytes this span holds in an open trace, shared parts not counted.
    #[must_use]
    pub fn heap_estimate_bytes(&self) -> usize {
        let hints = self.hints.as_ref().map_or(0, |_| size_of::<Hints>());
        size_of::<Self>() + hints + self.name.len() + self.path.as_ref().map_or(0, |path| path.len())
    }
}
