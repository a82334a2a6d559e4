//! The graph of a window as gauges, shaped so that the node graph panel needs no relabelling: labels are the panel's
//! fields. A gauge is read over the window it is asked for, `last_over_time(windrose_topology_edge[$__range])`, so the
//! panel's time range means what it says; an instant selector reads over the lookback.

use windrose_proto::edge::{EdgeRow, Largest};
use windrose_proto::time::{TimeRange, UnixNanos};

use super::entities::Pairs;
use super::families::GraphGauge;
use super::increments::start_millis;
use crate::graph::{Graph, Scope};
use crate::topology::{EdgeAnswer, NodeAnswer};

/// The rows whose window starts in `[from, to)`; rows are sorted by it.
pub(super) fn window(rows: &[EdgeRow], from: i64, to: i64) -> &[EdgeRow] {
    let first = rows.partition_point(|row| start_millis(row) < from);
    let count = rows[first..].partition_point(|row| start_millis(row) < to);
    &rows[first..first + count]
}

/// What the gauge shows for the window `[from, to)` that `rows` are of.
pub(super) fn read(gauge: GraphGauge, rows: &[EdgeRow], from: i64, to: i64) -> Vec<(Pairs, f64)> {
    let nanos = |millis: i64| UnixNanos(u64::try_from(millis.max(0)).unwrap_or(0).saturating_mul(1_000_000));
    let seconds = TimeRange::new(nanos(from), nanos(to)).map_or(0.0, TimeRange::seconds);
    let graph = Graph::build(rows, Scope::Service);
    match gauge {
        GraphGauge::Node | GraphGauge::NodeErrors => nodes(gauge, &graph, seconds),
        GraphGauge::Edge | GraphGauge::EdgeErrors | GraphGauge::EdgeLatency => edges(gauge, &graph, seconds),
    }
}

fn nodes(gauge: GraphGauge, graph: &Graph, seconds: f64) -> Vec<(Pairs, f64)> {
    let answers = graph.nodes.iter().map(|(id, node)| NodeAnswer::new(id, node, seconds, None));
    #[expect(clippy::unnecessary_filter_map, reason = "`?` leaves out what is unknown")]
    let gauges = answers.filter_map(|node| {
        // Nobody calls a client; what it does is what it sends.
        let flow = if node.role == "client" { &node.outbound } else { &node.inbound };
        if gauge == GraphGauge::NodeErrors {
            return Some((vec![("id", node.id.clone())], flow.error_ratio?));
        }
        let labels = vec![
            ("id", node.id.clone()),
            ("title", node.name.clone()),
            ("subtitle", node.namespace.clone().unwrap_or_default()),
            ("role", node.role.to_owned()),
            ("icon", icon(node.role).to_owned()),
            ("color", color(flow.error_ratio).to_owned()),
        ];
        Some((labels, flow.per_second))
    });
    gauges.collect()
}

fn edges(gauge: GraphGauge, graph: &Graph, seconds: f64) -> Vec<(Pairs, f64)> {
    let answers = graph.edges.iter().map(|(ends, edge)| EdgeAnswer::new(graph, ends, edge, seconds, 0));
    let gauges = answers.flat_map(|edge| {
        let ends = vec![("id", edge.id.clone()), ("source", edge.source.clone()), ("target", edge.target.clone())];
        match gauge {
            GraphGauge::EdgeErrors => edge.errors.ratio.map(|ratio| (ends, ratio)).into_iter().collect(),
            GraphGauge::EdgeLatency => quantiles(&edge, &ends),
            _ => {
                let mut labels = ends;
                labels.push(("direction", edge.direction.to_owned()));
                labels.push(("protocol", edge.protocol.to_owned()));
                labels.push(("mtls", mtls(edge.tls.mutual_ratio).to_owned()));
                labels.push(("color", color(edge.errors.ratio).to_owned()));
                labels.push(("strokedasharray", if edge.direction == "egress" { "6 4" } else { "" }.to_owned()));
                vec![(labels, edge.calls.per_second)]
            }
        }
    });
    gauges.collect()
}

fn quantiles(edge: &EdgeAnswer, ends: &Pairs) -> Vec<(Pairs, f64)> {
    let latency = if edge.latency_ms.client.count > 0 { &edge.latency_ms.client } else { &edge.latency_ms.server };
    let found = [("0.5", latency.p50), ("0.95", latency.p95), ("0.99", latency.p99), ("1", latency.max)];
    let gauge = |(quantile, millis): (&str, Option<f64>)| {
        let mut labels = ends.clone();
        labels.push(("quantile", quantile.to_owned()));
        Some((labels, millis? / 1e3))
    };
    found.into_iter().filter_map(gauge).collect()
}

/// Grafana's names.
fn icon(role: &str) -> &'static str {
    match role {
        "client" => "user",
        "external" => "cloud",
        "gateway" => "signin",
        "egress" => "signout",
        "waypoint" => "exchange-alt",
        "unknown" => "question-circle",
        _ => "cube",
    }
}

/// From how many failures on a node or edge is drawn in another colour: as `health` in the topology.
fn color(error_ratio: Option<f64>) -> &'static str {
    match error_ratio {
        None => "gray",
        Some(ratio) if ratio >= 0.10 => "red",
        Some(ratio) if ratio >= 0.01 => "orange",
        Some(_) => "green",
    }
}

fn mtls(mutual_ratio: Option<f64>) -> &'static str {
    match mutual_ratio {
        None => "unknown",
        Some(ratio) if ratio >= 1.0 => "yes",
        Some(ratio) if ratio <= 0.0 => "no",
        Some(_) => "partly",
    }
}

/// The largest value of the windows that start in `[from, to)`, in seconds.
pub(super) fn largest(found: &[(i64, &Largest)], from: i64, to: i64) -> Option<f64> {
    let mut merged = Largest::default();
    found.iter().filter(|(at, _)| (from..to).contains(at)).for_each(|(_, largest)| merged.merge(largest));
    merged.max_nanos().map(|nanos| nanos as f64 / 1e9)
}
