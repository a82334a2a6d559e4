//! The JSON of `/api/v1/topology`: every number with its unit in its name, every unknown `null`
//! with a reason beside it.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;
use windrose_proto::edge::{ErrorClass, Latency, SpanStats};
use windrose_proto::hop::CLIENT_NODE;
use windrose_proto::model::NodeRole;
use windrose_proto::time::{TimeRange, UnixNanos};

use super::health::{Health, judge};
use super::unresolved::{Unresolved, unresolved};
use crate::graph::{EdgeTotals, Graph, NodeId, NodeTotals, RouteId, RouteTotals, Traffic, VolumeSource};
use crate::sampling::{CorrectedRate, Estimate};
use crate::scrape_status::ScrapeStatus;

/// Routes of all edges together that an answer lists without being asked: a large mesh has tens of thousands.
const ROUTES_MAX: usize = 2_000;
/// Beyond, so many of each edge. The edge's own answer has them all.
const ROUTES_OF_EDGE: usize = 5;

/// How many routes of an edge an answer about this graph lists.
#[must_use]
pub fn routes_shown(graph: &Graph) -> usize {
    let all: usize = graph.edges.values().map(|edge| edge.routes.len()).sum();
    if all <= ROUTES_MAX { usize::MAX } else { ROUTES_OF_EDGE }
}

/// The whole answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TopologyAnswer {
    pub window: WindowAnswer,
    pub nodes: Vec<NodeAnswer>,
    pub edges: Vec<EdgeAnswer>,
    pub unresolved: Vec<Unresolved>,
}

/// What span of time the answer covers.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct WindowAnswer {
    /// RFC 3339.
    pub start: String,
    pub end: String,
    /// Traces that ended before are settled; later ones may still grow.
    pub complete_until: String,
    /// Traces revised so far because spans came late.
    pub revision: u64,
}

impl WindowAnswer {
    /// Covers `range` as known at a snapshot.
    #[must_use]
    pub fn new(range: TimeRange, complete_until: UnixNanos, revision: u64) -> Self {
        let complete_until = complete_until.clamp(range.start(), range.end());
        Self {
            start: rfc3339(range.start()),
            end: rfc3339(range.end()),
            complete_until: rfc3339(complete_until),
            revision,
        }
    }
}

pub(crate) fn rfc3339(at: UnixNanos) -> String {
    // Every value of 64 bits is a time that jiff can write.
    jiff::Timestamp::from_nanosecond(i128::from(at.0))
        .map_or_else(|_| at.as_secs_f64().to_string(), |time| time.to_string())
}

/// Traffic in one direction of a node.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Flow {
    pub per_second: f64,
    /// `null` without calls.
    pub error_ratio: Option<f64>,
}

/// One node.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NodeAnswer {
    pub id: String,
    pub name: String,
    pub namespace: Option<String>,
    pub cluster: Option<String>,
    /// The version, when only one was seen.
    pub version: Option<String>,
    pub versions: Vec<String>,
    pub workloads: Vec<String>,
    /// `gateway`, `workload`, `waypoint`, `egress`, `external`, `client` or `unknown`.
    pub role: &'static str,
    pub proxy_kind: &'static str,
    #[serde(rename = "in")]
    pub inbound: Flow,
    #[serde(rename = "out")]
    pub outbound: Flow,
    pub health: Health,
    pub reasons: Vec<String>,
    /// `null` when no scrape target belongs to the node.
    pub scrape: Option<ScrapeStatus>,
}

/// How many calls.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Calls {
    pub per_second: f64,
    pub total: i64,
    #[schema(value_type = String)]
    pub source: VolumeSource,
    /// With what sampling left out.
    pub corrected: CorrectedRate,
}

/// One class of failures.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ErrorShare {
    pub code: String,
    pub reason: Option<String>,
    pub fault: &'static str,
    pub count: i64,
    /// Of all failed calls.
    pub share: f64,
}

/// Failures of an edge.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Errors {
    /// `null` without calls.
    pub ratio: Option<f64>,
    /// Failed calls by spans.
    pub total: i64,
    #[schema(value_type = Option<String>)]
    pub source: Option<VolumeSource>,
    pub by: Vec<ErrorShare>,
}

/// Latency seen from one side, milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct SideLatency {
    pub count: i64,
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
    /// Exact; `null` without observations, and where late corrections took back all of the slowest calls that are kept.
    pub max: Option<f64>,
    /// Exact.
    pub mean: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

impl SideLatency {
    /// Reads the quantiles out of a rollup.
    #[must_use]
    pub fn of(latency: &Latency) -> Self {
        let max = latency.slowest.max_nanos();
        // A quantile is the middle of its bucket, which can lie above the largest value in it.
        let quantile = |q| {
            let nanos = latency.sketch.quantile_nanos(q)?;
            Some(millis(max.map_or(nanos, |max| nanos.min(max as f64))))
        };
        let reason = if latency.count <= 0 {
            Some("no span reported this side")
        } else if max.is_none() {
            Some("max: the slowest calls were revised by late spans")
        } else {
            None
        };
        Self {
            count: latency.count,
            p50: quantile(0.5),
            p90: quantile(0.9),
            p95: quantile(0.95),
            p99: quantile(0.99),
            max: max.map(|nanos| millis(nanos as f64)),
            mean: latency.mean_nanos().map(millis),
            reason,
        }
    }
}

/// Milliseconds, to the nanosecond.
pub(crate) fn millis(nanos: f64) -> f64 {
    nanos.round() / 1e6
}

/// Latency of both sides.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct LatencyAnswer {
    /// What the caller waited.
    pub client: SideLatency,
    /// What the callee worked.
    pub server: SideLatency,
}

/// Where the time of the edge goes on average, milliseconds; durations only, so clocks do not matter.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Decomposition {
    /// Network and queues between the two observation points.
    pub network: Option<f64>,
    /// The callee's side, its proxy included.
    pub callee: Option<f64>,
    pub caller_proxy: Option<f64>,
    pub callee_proxy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// Transport security of the edge.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct TlsAnswer {
    pub mutual_ratio: Option<f64>,
    /// Whether anything that saw the connection reported how it was secured.
    pub verifiable: bool,
}

/// Share of one version of the destination.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct VersionShare {
    pub version: String,
    pub share: f64,
}

/// What the caller's proxy did to keep the edge working; only counters know.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Resilience {
    pub retries: i64,
    pub retries_succeeded: i64,
    pub retries_exhausted: i64,
    pub timeouts: i64,
    pub circuit_rejected: i64,
    pub connect_failures: i64,
    pub ejections: i64,
}

/// A public route's part of the edge.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct RouteShare {
    pub route: String,
    pub host: Option<String>,
    pub calls: i64,
    /// Of the calls whose route is known.
    pub share: f64,
    /// How often one request of the route calls this edge; `null` when no gateway reported the route.
    pub calls_per_request: Option<f64>,
    /// With what sampling left out.
    pub corrected: CorrectedRate,
}

/// Why the edge is believed to exist.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct EvidenceAnswer {
    pub spans: i64,
    /// Calls joined from spans.
    pub calls: i64,
    /// Calls by counters; `null` when none is scraped.
    pub counter_requests: Option<i64>,
    /// Joined calls per counted request; `null` when nothing was counted.
    pub coverage_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage_reason: Option<&'static str>,
    pub late: i64,
    pub duplicate: i64,
    pub inferred: i64,
    /// Calls known from access logs alone, within `calls`: their requests were not sampled.
    pub logged: i64,
    /// Calls whose callee went on working after the caller had given up.
    pub late_server: i64,
    /// Mirrored requests; they are in no other number but `spans`.
    pub mirrored: i64,
    /// `high`: seen from both sides, or by spans and counters; `medium`: from one; `low`: inferred.
    pub confidence: &'static str,
    /// Largest first, then the last failure.
    pub trace_ids: Vec<String>,
}

/// One edge.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EdgeAnswer {
    pub id: String,
    pub source: String,
    pub target: String,
    pub direction: &'static str,
    pub protocol: &'static str,
    pub calls: Calls,
    pub attempts_per_call: Option<f64>,
    pub errors: Errors,
    pub latency_ms: LatencyAnswer,
    pub decomposition_ms: Decomposition,
    pub tls: TlsAnswer,
    pub versions: Vec<VersionShare>,
    /// `null` when the caller's proxy is not scraped.
    pub resilience: Option<Resilience>,
    /// Busiest first; in the answer about a large mesh the first five.
    pub routes: Vec<RouteShare>,
    /// Routes of the edge that are not listed; `/api/v1/edges/{id}` lists them all.
    pub routes_omitted: usize,
    /// Calls whose public route is not known, by reason.
    pub route_unknown: BTreeMap<&'static str, i64>,
    pub evidence: EvidenceAnswer,
}

/// The id of an edge: stable over time and restarts, short enough for a URL.
#[must_use]
pub fn edge_id(source: &NodeId, target: &NodeId) -> String {
    // FNV-1a, 64 bits: the id must never change between versions, so no library's hasher.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in source.to_string().bytes().chain([0]).chain(target.to_string().bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

impl TopologyAnswer {
    /// Words a graph, with so many routes of each edge.
    #[must_use]
    pub fn new(
        graph: &Graph,
        window: WindowAnswer,
        seconds: f64,
        scrapes: &BTreeMap<NodeId, ScrapeStatus>,
        routes_max: usize,
    ) -> Self {
        let edges =
            graph.edges.iter().map(|(ends, edge)| EdgeAnswer::new(graph, ends, edge, seconds, routes_max)).collect();
        let nodes = graph.nodes.iter().map(|(id, node)| NodeAnswer::new(id, node, seconds, scrapes.get(id))).collect();
        Self { window, nodes, edges, unresolved: unresolved(graph) }
    }
}

impl NodeAnswer {
    /// Words one node.
    #[must_use]
    pub fn new(id: &NodeId, node: &NodeTotals, seconds: f64, scrape: Option<&ScrapeStatus>) -> Self {
        let Traffic { calls, errors } = node.received;
        let (health, reasons) = judge(calls, errors, node.sent.calls > 0);
        let flow = |traffic: Traffic| Flow {
            per_second: per_second(traffic.calls, seconds),
            error_ratio: (traffic.calls > 0).then(|| traffic.errors / traffic.calls as f64),
        };
        let versions: Vec<String> = node.versions.keys().map(ToString::to_string).collect();
        Self {
            id: id.to_string(),
            name: id.name.to_string(),
            namespace: id.namespace.as_ref().map(ToString::to_string),
            cluster: id.cluster.as_ref().map(ToString::to_string),
            version: (versions.len() == 1).then(|| versions[0].clone()),
            versions,
            workloads: node.workloads.keys().map(ToString::to_string).collect(),
            role: role_word(id, node.role),
            proxy_kind: node.proxy_kind.as_str(),
            inbound: flow(node.received),
            outbound: flow(node.sent),
            health,
            reasons,
            scrape: scrape.cloned(),
        }
    }
}

/// The role in the words of the API, where a sidecar and its application are one workload.
pub(crate) fn role_word(id: &NodeId, role: NodeRole) -> &'static str {
    match role {
        NodeRole::External if &*id.name == CLIENT_NODE => "client",
        NodeRole::Sidecar | NodeRole::App | NodeRole::NodeProxy => "workload",
        NodeRole::Gateway | NodeRole::Eastwest => "gateway",
        NodeRole::Egress => "egress",
        NodeRole::Waypoint => "waypoint",
        NodeRole::External => "external",
        NodeRole::Unknown => "unknown",
    }
}

fn per_second(calls: i64, seconds: f64) -> f64 {
    if seconds > 0.0 { calls as f64 / seconds } else { 0.0 }
}

impl EdgeAnswer {
    /// Words one edge with so many of its routes.
    #[must_use]
    pub fn new(
        graph: &Graph,
        (source, target): &(NodeId, NodeId),
        edge: &EdgeTotals,
        seconds: f64,
        routes_max: usize,
    ) -> Self {
        let spans = &edge.stats.spans;
        let volume = edge.volume();
        let (routes, routes_omitted) = routes_of(graph, edge, seconds, routes_max);
        Self {
            id: edge_id(source, target),
            source: source.to_string(),
            target: target.to_string(),
            direction: edge.direction().as_str(),
            protocol: edge.protocol().as_str(),
            calls: Calls {
                per_second: per_second(volume.calls, seconds),
                total: volume.calls,
                source: volume.source,
                corrected: Estimate::rate_of(edge.corrected, seconds),
            },
            attempts_per_call: (spans.calls > 0).then(|| crate::graph::ratio(spans.attempts, spans.calls)),
            errors: errors_of(edge),
            latency_ms: LatencyAnswer {
                client: SideLatency::of(&spans.client),
                server: SideLatency::of(&spans.server),
            },
            decomposition_ms: decomposition_of(edge),
            tls: tls_of(edge),
            versions: versions_of(edge),
            resilience: edge.counters().map(|counters| Resilience {
                retries: counters.retries,
                retries_succeeded: counters.retries_succeeded,
                retries_exhausted: counters.retries_exhausted,
                timeouts: counters.timeouts,
                circuit_rejected: counters.circuit_rejected,
                connect_failures: counters.connect_failures,
                ejections: counters.ejections,
            }),
            routes,
            routes_omitted,
            route_unknown: edge.gaps.iter().filter(|(_, n)| **n > 0).map(|(gap, n)| (gap.as_str(), *n)).collect(),
            evidence: evidence_of(edge),
        }
    }
}

fn errors_of(edge: &EdgeTotals) -> Errors {
    let spans = &edge.stats.spans;
    let ratio = edge.error_ratio();
    Errors {
        ratio: ratio.map(|(value, _)| value),
        total: spans.errors,
        source: ratio.map(|(_, source)| source),
        by: errors_by_class(spans),
    }
}

/// Failed calls by class, most frequent first.
pub(crate) fn errors_by_class(spans: &SpanStats) -> Vec<ErrorShare> {
    let share = |(class, count): (&ErrorClass, &i64)| ErrorShare {
        code: class.code.to_string(),
        reason: class.reason.as_ref().map(ToString::to_string),
        fault: class.fault.as_str(),
        count: *count,
        share: crate::graph::ratio(*count, spans.errors.max(1)),
    };
    let mut by: Vec<ErrorShare> = spans.by_class.iter().map(share).collect();
    by.sort_by_key(|class| std::cmp::Reverse(class.count));
    by
}

fn decomposition_of(edge: &EdgeTotals) -> Decomposition {
    let spans = &edge.stats.spans;
    let both = spans.both_sides > 0;
    Decomposition {
        network: both.then(|| millis(spans.overhead_sum_nanos as f64 / spans.both_sides as f64)),
        callee: spans.server.mean_nanos().map(millis),
        caller_proxy: None,
        callee_proxy: None,
        reason: Some(if both {
            "the parts of the proxies need spans of the applications themselves"
        } else {
            "only one side of the edge is reported"
        }),
    }
}

fn tls_of(edge: &EdgeTotals) -> TlsAnswer {
    let mut known = edge.stats.spans.tls_known;
    let mut mutual = edge.stats.spans.tls_mutual;
    if known == 0 {
        for side in [&edge.stats.client_counters, &edge.stats.server_counters] {
            known += side.tls_known;
            mutual += side.tls_mutual;
        }
    }
    TlsAnswer { mutual_ratio: (known > 0).then(|| crate::graph::ratio(mutual, known)), verifiable: known > 0 }
}

fn versions_of(edge: &EdgeTotals) -> Vec<VersionShare> {
    let total: i64 = edge.versions().values().sum();
    let share = |(version, calls): (&windrose_proto::Text, &i64)| VersionShare {
        version: version.to_string(),
        share: crate::graph::ratio(*calls, total.max(1)),
    };
    edge.versions().iter().filter(|(_, calls)| **calls > 0).map(share).collect()
}

/// The busiest routes of an edge, and how many more there are.
fn routes_of(graph: &Graph, edge: &EdgeTotals, seconds: f64, max: usize) -> (Vec<RouteShare>, usize) {
    let mut routes: Vec<(RouteId, &RouteTotals)> =
        edge.routes.iter().filter(|(_, totals)| totals.spans.calls > 0).map(|(id, totals)| (*id, totals)).collect();
    let total: i64 = routes.iter().map(|(_, totals)| totals.spans.calls).sum();
    routes.sort_by_key(|(id, totals)| (std::cmp::Reverse(totals.spans.calls), *id));
    let omitted = routes.len().saturating_sub(max);
    routes.truncate(max);
    let word = |(id, totals): (RouteId, &RouteTotals)| {
        let (route, calls) = (graph.routes.route(id), totals.spans.calls);
        let requests = graph.requests.get(&id).copied().unwrap_or(0);
        RouteShare {
            route: route.route.to_string(),
            host: route.host.as_ref().map(ToString::to_string),
            calls,
            share: crate::graph::ratio(calls, total.max(1)),
            calls_per_request: (requests > 0).then(|| crate::graph::ratio(calls, requests)),
            corrected: Estimate::rate_of(totals.corrected, seconds),
        }
    };
    (routes.into_iter().map(word).collect(), omitted)
}

fn evidence_of(edge: &EdgeTotals) -> EvidenceAnswer {
    let spans = &edge.stats.spans;
    let counted = edge.counters().map(|counters| counters.calls);
    let coverage = counted.filter(|calls| *calls > 0).map(|calls| crate::graph::ratio(spans.calls, calls));
    let coverage_reason = match counted {
        None => Some("no scraped proxy counts this edge"),
        Some(0) => Some("the counters of this edge did not move"),
        Some(_) => None,
    };
    let both_kinds = counted.is_some_and(|calls| calls > 0) && spans.calls > 0;
    let confidence = if both_kinds || spans.both_sides > 0 {
        "high"
    } else if spans.inferred >= spans.attempts && spans.attempts > 0 {
        "low"
    } else {
        "medium"
    };
    let slowest = spans.client.slowest.entries().iter().chain(spans.server.slowest.entries());
    let mut trace_ids: Vec<String> = Vec::new();
    for trace in slowest.map(|(_, trace)| trace).chain(spans.latest_errors.entries().first().map(|(_, trace)| trace)) {
        let id = trace.to_string();
        if !trace_ids.contains(&id) {
            trace_ids.push(id);
        }
    }
    EvidenceAnswer {
        spans: spans.spans,
        calls: spans.calls,
        counter_requests: counted,
        coverage_ratio: coverage,
        coverage_reason,
        late: spans.late,
        duplicate: spans.duplicate,
        inferred: spans.inferred,
        logged: spans.logged,
        late_server: spans.late_server,
        mirrored: spans.mirrored,
        confidence,
        trace_ids,
    }
}
