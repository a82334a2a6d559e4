//! The families: name, help, and how their numbers are read out of a rollup row.

use smallvec::{SmallVec, smallvec};
use windrose_proto::edge::{CounterStats, EdgeStats, Largest, Latency, SpanStats};
use windrose_proto::metric::MetricKind;
use windrose_proto::model::Reason;

use super::entities::Group;

/// Labels that a family adds to those of its entity.
pub(super) type Extra<'a> = &'a [(&'static str, &'a str)];

/// Reads sums.
type ReadSums = fn(&EdgeStats, &mut dyn FnMut(Extra<'_>, f64));
/// Reads latencies.
type ReadLatencies = fn(&EdgeStats, &mut dyn FnMut(Extra<'_>, &Latency));

/// How the numbers of a family are read.
#[derive(Clone, Copy)]
pub(crate) enum Measure {
    /// Sums.
    Counter(ReadSums),
    /// Latencies, shown as a classic histogram.
    Latency(ReadLatencies),
    /// The largest value of the asked window, by side (empty: there is but one).
    Slowest(fn(&EdgeStats) -> Sides<'_>),
    /// Read from the graph of the asked window.
    Graph(GraphGauge),
}

/// The slowest calls of one row, by side.
pub(super) type Sides<'s> = SmallVec<[(&'static str, &'s Largest); 2]>;

/// Numbers of the whole graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GraphGauge {
    Node,
    NodeErrors,
    Edge,
    EdgeErrors,
    EdgeLatency,
}

/// One metric family.
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(super) group: Group,
    pub(super) measure: Measure,
}

impl Family {
    /// As `/api/v1/metadata` says it.
    pub(crate) const fn kind(&self) -> MetricKind {
        match self.measure {
            Measure::Counter(_) => MetricKind::Counter,
            Measure::Latency(_) => MetricKind::Histogram,
            Measure::Slowest(_) | Measure::Graph(_) => MetricKind::Gauge,
        }
    }

    /// The names of its series.
    pub(super) fn parts(&self) -> Vec<(String, Part)> {
        match self.measure {
            Measure::Latency(_) => [("_bucket", Part::Bucket), ("_sum", Part::Sum), ("_count", Part::Count)]
                .map(|(suffix, part)| (format!("{}{suffix}", self.name), part))
                .to_vec(),
            Measure::Counter(_) | Measure::Slowest(_) | Measure::Graph(_) => vec![(self.name.to_owned(), Part::Whole)],
        }
    }
}

/// Which series of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    Whole,
    Bucket,
    Sum,
    Count,
}

/// All families.
pub(crate) fn families() -> &'static [Family] {
    &FAMILIES
}

const OBSERVED_BY: &str = "observed_by";

/// Spans, and the counters of both proxies: side by side, because they describe the same traffic.
fn observed(
    stats: &EdgeStats,
    spans: Option<fn(&SpanStats) -> i64>,
    counters: fn(&CounterStats) -> i64,
    emit: &mut dyn FnMut(Extra<'_>, f64),
) {
    if let (Some(read), true) = (spans, seen(&stats.spans)) {
        emit(&[(OBSERVED_BY, "spans")], read(&stats.spans) as f64);
    }
    for (side, counted) in [("source_proxy", &stats.client_counters), ("target_proxy", &stats.server_counters)] {
        if !counted.is_absent() {
            emit(&[(OBSERVED_BY, side)], counters(counted) as f64);
        }
    }
}

/// Whether spans say anything here, be it a correction.
fn seen(spans: &SpanStats) -> bool {
    spans.attempts != 0 || spans.calls != 0 || spans.errors != 0
}

fn plain(stats: &EdgeStats, read: fn(&SpanStats) -> i64, emit: &mut dyn FnMut(Extra<'_>, f64)) {
    if seen(&stats.spans) {
        emit(&[], read(&stats.spans) as f64);
    }
}

fn both_sides(stats: &EdgeStats, emit: &mut dyn FnMut(Extra<'_>, &Latency)) {
    for (side, latency) in [("client", &stats.spans.client), ("server", &stats.spans.server)] {
        if !is_empty(latency) {
            emit(&[("side", side)], latency);
        }
    }
}

fn is_empty(latency: &Latency) -> bool {
    latency.count == 0 && latency.sum_nanos == 0 && latency.sketch.is_empty()
}

fn one_side(latency: &Latency, emit: &mut dyn FnMut(Extra<'_>, &Latency)) {
    if !is_empty(latency) {
        emit(&[], latency);
    }
}

/// The callee's own time, or what the caller waited when the callee reports none: an edge to the outside has a
/// latency too.
fn server_or_client(stats: &EdgeStats) -> &Latency {
    if is_empty(&stats.spans.server) { &stats.spans.client } else { &stats.spans.server }
}

fn by_class(stats: &EdgeStats, emit: &mut dyn FnMut(Extra<'_>, f64)) {
    for (class, count) in &stats.spans.by_class {
        let reason = class.reason.as_ref().map(Reason::word).unwrap_or_default();
        emit(&[("code", &class.code), ("reason", &reason), ("fault", class.fault.as_str())], *count as f64);
    }
}

fn by_code(stats: &EdgeStats, emit: &mut dyn FnMut(Extra<'_>, f64)) {
    for (side, counted) in [("source_proxy", &stats.client_counters), ("target_proxy", &stats.server_counters)] {
        for (code, count) in &counted.by_code {
            emit(&[(OBSERVED_BY, side), ("code", code)], *count as f64);
        }
    }
}

fn by_status(stats: &EdgeStats, emit: &mut dyn FnMut(Extra<'_>, f64)) {
    if seen(&stats.spans) {
        let SpanStats { calls, errors, .. } = stats.spans;
        emit(&[("status_code", "STATUS_CODE_UNSET")], (calls - errors) as f64);
        emit(&[("status_code", "STATUS_CODE_ERROR")], errors as f64);
    }
}

const fn counter(name: &'static str, group: Group, help: &'static str, read: ReadSums) -> Family {
    Family { name, help, group, measure: Measure::Counter(read) }
}

const fn latency(name: &'static str, group: Group, help: &'static str, read: ReadLatencies) -> Family {
    Family { name, help, group, measure: Measure::Latency(read) }
}

const fn slowest(name: &'static str, group: Group, help: &'static str, read: fn(&EdgeStats) -> Sides<'_>) -> Family {
    Family { name, help, group, measure: Measure::Slowest(read) }
}

const fn graph(name: &'static str, help: &'static str, gauge: GraphGauge) -> Family {
    Family { name, help, group: Group::Edge, measure: Measure::Graph(gauge) }
}

static FAMILIES: [Family; 43] = [
    counter("windrose_edge_requests_total", Group::Edge, "Calls on the edge, by who saw them.", |stats, emit| {
        observed(stats, Some(|spans| spans.calls), |counters| counters.calls, emit);
    }),
    counter("windrose_edge_errors_total", Group::Edge, "Calls that failed, by who saw them.", |stats, emit| {
        observed(stats, Some(|spans| spans.errors), |counters| counters.errors, emit);
    }),
    counter("windrose_edge_attempts_total", Group::Edge, "Attempts, retries included.", |stats, emit| {
        observed(stats, Some(|spans| spans.attempts), |counters| counters.attempts, emit);
    }),
    counter(
        "windrose_edge_failures_total",
        Group::Edge,
        "Failed calls by code, reason and the end at fault, by spans.",
        by_class,
    ),
    counter("windrose_edge_responses_total", Group::Edge, "Answers by code, by counters.", by_code),
    counter("windrose_edge_retries_total", Group::Edge, "Retries, by counters.", |stats, emit| {
        observed(stats, None, |counters| counters.retries, emit);
    }),
    counter("windrose_edge_timeouts_total", Group::Edge, "Timeouts, by counters.", |stats, emit| {
        observed(stats, None, |counters| counters.timeouts, emit);
    }),
    counter(
        "windrose_edge_circuit_rejected_total",
        Group::Edge,
        "Calls refused by a circuit breaker, by counters.",
        |stats, emit| observed(stats, None, |counters| counters.circuit_rejected, emit),
    ),
    counter(
        "windrose_edge_connect_failures_total",
        Group::Edge,
        "Connections that failed, by counters.",
        |stats, emit| {
            observed(stats, None, |counters| counters.connect_failures, emit);
        },
    ),
    counter(
        "windrose_edge_ejections_total",
        Group::Edge,
        "Endpoints ejected as outliers, by counters.",
        |stats, emit| {
            observed(stats, None, |counters| counters.ejections, emit);
        },
    ),
    counter("windrose_edge_sent_bytes_total", Group::Edge, "Bytes sent to the target.", |stats, emit| {
        observed(stats, Some(|spans| spans.request_bytes), |counters| counters.bytes_sent, emit);
    }),
    counter("windrose_edge_received_bytes_total", Group::Edge, "Bytes received from the target.", |stats, emit| {
        observed(stats, Some(|spans| spans.response_bytes), |counters| counters.bytes_received, emit);
    }),
    counter("windrose_edge_tls_mutual_total", Group::Edge, "Calls under mutual TLS.", |stats, emit| {
        observed(stats, Some(|spans| spans.tls_mutual), |counters| counters.tls_mutual, emit);
    }),
    counter("windrose_edge_tls_known_total", Group::Edge, "Calls whose transport security is known.", |stats, emit| {
        observed(stats, Some(|spans| spans.tls_known), |counters| counters.tls_known, emit);
    }),
    latency(
        "windrose_edge_latency_seconds",
        Group::Edge,
        "Time of attempts: what the caller waited (side=client), what the callee worked (side=server).",
        both_sides,
    ),
    slowest(
        "windrose_edge_latency_max_seconds",
        Group::Edge,
        "The slowest attempt of the asked window, exactly.",
        |stats| smallvec![("client", &stats.spans.client.slowest), ("server", &stats.spans.server.slowest)],
    ),
    counter(
        "windrose_edge_network_seconds_sum",
        Group::Edge,
        "Time between the two ends of attempts that both ends report.",
        |stats, emit| {
            if seen(&stats.spans) {
                emit(&[], stats.spans.overhead_sum_nanos as f64 / 1e9);
            }
        },
    ),
    counter("windrose_edge_network_seconds_count", Group::Edge, "Attempts that both ends report.", |stats, emit| {
        plain(stats, |spans| spans.both_sides, emit);
    }),
    counter(
        "windrose_route_requests_total",
        Group::Route,
        "Requests of a public route at its gateway.",
        |stats, emit| {
            plain(stats, |spans| spans.calls, emit);
        },
    ),
    counter("windrose_route_errors_total", Group::Route, "Requests of a public route that failed.", |stats, emit| {
        plain(stats, |spans| spans.errors, emit);
    }),
    latency(
        "windrose_route_latency_seconds",
        Group::Route,
        "Time of requests of a public route as its gateway measured it.",
        |stats, emit| one_side(&stats.spans.server, emit),
    ),
    slowest(
        "windrose_route_latency_max_seconds",
        Group::Route,
        "The slowest request of the asked window, exactly.",
        |stats| smallvec![("", &stats.spans.server.slowest)],
    ),
    counter(
        "windrose_route_calls_total",
        Group::RouteEdge,
        "Calls behind the gateway on behalf of a public route.",
        |stats, emit| plain(stats, |spans| spans.calls, emit),
    ),
    counter(
        "windrose_route_call_errors_total",
        Group::RouteEdge,
        "Calls behind the gateway on behalf of a public route that failed.",
        |stats, emit| plain(stats, |spans| spans.errors, emit),
    ),
    counter("windrose_egress_requests_total", Group::Egress, "Calls to a host outside.", |stats, emit| {
        plain(stats, |spans| spans.calls, emit);
    }),
    counter("windrose_egress_errors_total", Group::Egress, "Calls to a host outside that failed.", |stats, emit| {
        plain(stats, |spans| spans.errors, emit);
    }),
    latency(
        "windrose_egress_latency_seconds",
        Group::Egress,
        "What the last hop inside waited for a host outside.",
        |stats, emit| one_side(&stats.spans.client, emit),
    ),
    slowest(
        "windrose_egress_latency_max_seconds",
        Group::Egress,
        "The slowest attempt of the asked window, exactly.",
        |stats| smallvec![("", &stats.spans.client.slowest)],
    ),
    counter(
        "traces_service_graph_request_total",
        Group::ServiceGraph,
        "Calls by spans, as Tempo names them.",
        |stats, emit| {
            plain(stats, |spans| spans.calls, emit);
        },
    ),
    counter(
        "traces_service_graph_request_failed_total",
        Group::ServiceGraph,
        "Failed calls by spans, as Tempo names them.",
        |stats, emit| plain(stats, |spans| spans.errors, emit),
    ),
    latency(
        "traces_service_graph_request_server_seconds",
        Group::ServiceGraph,
        "Time at the callee, or at the caller when the callee reports none.",
        |stats, emit| one_side(server_or_client(stats), emit),
    ),
    latency(
        "traces_service_graph_request_client_seconds",
        Group::ServiceGraph,
        "Time at the caller.",
        |stats, emit| one_side(&stats.spans.client, emit),
    ),
    counter("traces_spanmetrics_calls_total", Group::SpanServer, "Calls by service and public route.", by_status),
    counter("traces_spanmetrics_calls_total", Group::SpanClient, "Calls by service and public route.", by_status),
    latency(
        "traces_spanmetrics_latency",
        Group::SpanServer,
        "Time by service and public route, seconds.",
        |stats, emit| one_side(&stats.spans.server, emit),
    ),
    latency(
        "traces_spanmetrics_latency",
        Group::SpanClient,
        "Time by service and public route, seconds.",
        |stats, emit| one_side(&stats.spans.client, emit),
    ),
    graph("windrose_topology_node", "Calls per second into the node over the asked window.", GraphGauge::Node),
    graph("windrose_topology_node_error_ratio", "Share of these calls that failed.", GraphGauge::NodeErrors),
    graph("windrose_topology_edge", "Calls per second on the edge over the asked window.", GraphGauge::Edge),
    graph("windrose_topology_edge_error_ratio", "Share of these calls that failed.", GraphGauge::EdgeErrors),
    graph(
        "windrose_topology_edge_latency_seconds",
        "Quantiles of the caller's time, of the callee's when no caller reports.",
        GraphGauge::EdgeLatency,
    ),
    counter(
        "windrose_edge_late_spans_total",
        Group::Edge,
        "Attempts that came to light after their trace had been settled.",
        |stats, emit| plain(stats, |spans| spans.late, emit),
    ),
    counter("windrose_edge_inferred_total", Group::Edge, "Attempts that no span reports directly.", |stats, emit| {
        plain(stats, |spans| spans.inferred, emit);
    }),
];
