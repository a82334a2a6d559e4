use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use windrose_promql::{
    Engine, QueryKind, QueryOptions, QueryResult, Select, SeriesSet, SeriesView, Storage, StorageError,
};
use windrose_proto::Text;
use windrose_proto::edge::{EdgeKey, EdgeRow, EdgeStats, LIVE_WINDOW_NANOS, SEALED_WINDOW_NANOS};
use windrose_proto::hop::{Entry, EntryRoute, Node};
use windrose_proto::id::TraceId;
use windrose_proto::metric::{MatchOp, Matcher};
use windrose_proto::model::{Direction, NodeRole, Protocol, ProxyKind};
use windrose_proto::time::UnixNanos;

use super::exemplars::of_series;
use super::{Selection, VirtualSeries, label_sets, names_of, rows_needed, select};
use crate::graph::{Graph, Scope};

/// 2026-11-20 23:50:00 UTC: midnight lies inside the tests' ranges.
const START: i64 = 1_795_218_600_000;
const LOOKBACK: i64 = 300_000;
const NOW: i64 = START + 100 * 86_400_000;

fn node(name: &str, role: NodeRole) -> Arc<Node> {
    Arc::new(Node {
        cluster: None,
        namespace: (role != NodeRole::External).then(|| Text::from_static("shop")),
        service: Text::from(name),
        workload: None,
        version: None,
        role,
        proxy_kind: ProxyKind::None,
    })
}

fn key(source: &str, target: &str) -> Arc<EdgeKey> {
    let role = |name: &str| match name {
        "gateway" => NodeRole::Gateway,
        "(client)" | "bank.example.com" => NodeRole::External,
        _ => NodeRole::Sidecar,
    };
    let direction = match (source, target) {
        (_, "bank.example.com") => Direction::Egress,
        ("(client)" | "gateway", _) => Direction::NorthSouth,
        _ => Direction::EastWest,
    };
    Arc::new(EdgeKey {
        source: node(source, role(source)),
        destination: node(target, role(target)),
        direction,
        protocol: Protocol::Http1,
        entry: Some(Entry::Route(Arc::new(EntryRoute { route: Text::from_static("GET /orders"), host: None }))),
        origin: None,
    })
}

/// A window `offset` seconds after the start with calls of so many milliseconds; the last `errors` of them failed.
fn row(key: &Arc<EdgeKey>, offset: i64, width: u64, calls: &[u64], errors: i64) -> EdgeRow {
    let mut stats = EdgeStats::default();
    let count = calls.len() as i64;
    stats.spans.calls = count;
    stats.spans.attempts = count;
    stats.spans.errors = errors;
    for (index, millis) in calls.iter().enumerate() {
        let nanos = millis * 1_000_000;
        let trace =
            TraceId::new([(offset % 251) as u8, index as u8 + 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]).unwrap();
        for side in [&mut stats.spans.client, &mut stats.spans.server] {
            side.count += 1;
            side.sum_nanos += i128::from(nanos);
            side.sketch.add(nanos, 1);
            side.slowest.add(nanos, trace);
        }
    }
    EdgeRow {
        window_start: UnixNanos(((START + offset * 1000) as u64) * 1_000_000),
        window_nanos: width,
        key: Arc::clone(key),
        stats: Arc::new(stats),
    }
}

/// A retraction of one call in a window.
fn retraction(key: &Arc<EdgeKey>, offset: i64) -> EdgeRow {
    let mut row = row(key, offset, LIVE_WINDOW_NANOS, &[], 0);
    let stats = Arc::make_mut(&mut row.stats);
    (stats.spans.calls, stats.spans.attempts) = (-1, -1);
    row
}

struct Rows(Vec<EdgeRow>);

impl Rows {
    fn sorted(mut rows: Vec<EdgeRow>) -> Self {
        rows.sort_by_key(|row| row.window_start);
        Self(rows)
    }
}

struct Cursor(std::vec::IntoIter<VirtualSeries>, Option<VirtualSeries>);

impl SeriesSet for Cursor {
    fn next(&mut self) -> Result<Option<SeriesView<'_>>, StorageError> {
        self.1 = self.0.next();
        Ok(self.1.as_ref().map(|series| SeriesView::floats(&series.labels, &series.timestamps, &series.values)))
    }
}

impl Storage for Rows {
    fn select<'a>(&'a self, request: &Select<'_>) -> Result<Box<dyn SeriesSet + 'a>, StorageError> {
        let selection = Selection {
            matchers: request.matchers,
            min_time: request.min_time,
            max_time: request.max_time,
            function: request.function,
            range: request.range,
            step: request.step,
            lookback: LOOKBACK,
            now: NOW,
            max_samples: 1_000_000,
        };
        let rows: Vec<EdgeRow> = match rows_needed(&selection) {
            Some(range) => self.0.iter().filter(|row| range.contains(row.window_start)).cloned().collect(),
            None => Vec::new(),
        };
        Ok(Box::new(Cursor(select(&rows, &selection)?.into_iter(), None)))
    }
}

/// The values of a query, by labels, `offset` seconds after the start.
fn query(rows: &Rows, query: &str, offset: i64) -> Vec<(String, f64)> {
    let at = QueryKind::Instant(START + offset * 1000);
    let evaluation = Engine::default().query(rows, query, at, &QueryOptions::default()).unwrap();
    let QueryResult::Vector(samples, _) = evaluation.result else { panic!("no vector: {query}") };
    let value = |sample| match sample {
        windrose_promql::Sample::Float(value) => value,
        windrose_promql::Sample::Histogram(_) => f64::NAN,
    };
    let mut found: Vec<_> = samples.into_iter().map(|(labels, sample)| (labels.to_string(), value(sample))).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[track_caller]
fn check(rows: &Rows, text: &str, offset: i64, expect: &[(&str, f64)]) {
    let found = query(rows, text, offset);
    let close = |(a, b): (&(String, f64), &(&str, f64))| a.0 == b.0 && (a.1 - b.1).abs() <= 1e-9 * b.1.abs().max(1.0);
    assert!(found.len() == expect.len() && found.iter().zip(expect).all(close), "{text}: {found:?}, not {expect:?}");
}

/// Three calls at 0 s, two at 10 s of which one failed, one at 65 s; and an edge to the outside.
fn mesh() -> Rows {
    let (orders, bank) = (key("gateway", "orders"), key("orders", "bank.example.com"));
    Rows::sorted(vec![
        row(&key("(client)", "gateway"), 0, LIVE_WINDOW_NANOS, &[20, 30, 40], 0),
        row(&orders, 0, LIVE_WINDOW_NANOS, &[10, 11, 9], 0),
        row(&orders, 10, LIVE_WINDOW_NANOS, &[10, 100], 1),
        row(&orders, 60, LIVE_WINDOW_NANOS, &[2000], 0),
        row(&bank, 10, LIVE_WINDOW_NANOS, &[90], 1),
    ])
}

#[test]
fn increase_is_the_sum_of_the_windows_that_start_inside() {
    let rows = mesh();
    let total =
        |range: &str| format!("sum(increase(traces_service_graph_request_total{{server=\"orders\"}}[{range}]))");
    check(&rows, &total("1m"), 60, &[("{}", 5.0)]);
    check(&rows, &total("1m"), 61, &[("{}", 3.0)]);
    check(&rows, &total("1m"), 120, &[("{}", 1.0)]);
    check(&rows, &total("1m"), 200, &[("{}", 0.0)]);
    check(&rows, &total("1h"), 900, &[("{}", 6.0)]);
    check(
        &rows,
        "sum(rate(windrose_edge_requests_total{target=\"shop/orders\",observed_by=\"spans\"}[1m]))",
        60,
        &[("{}", 5.0 / 60.0)],
    );
    check(
        &rows,
        "sum by (server) (increase(traces_service_graph_request_failed_total[1m]))",
        60,
        &[("{server=\"bank.example.com\"}", 1.0), ("{server=\"gateway\"}", 0.0), ("{server=\"orders\"}", 1.0)],
    );
}

#[test]
fn counters_count_from_midnight() {
    let rows = mesh();
    let orders = "sum(traces_service_graph_request_total{server=\"orders\"})";
    check(&rows, orders, 1, &[("{}", 3.0)]);
    check(&rows, orders, 300, &[("{}", 6.0)]);
    check(&rows, orders, 599, &[("{}", 6.0)]);
    check(&rows, orders, 600, &[("{}", 0.0)]);
    // A restart at midnight takes nothing away from what grew before.
    check(&rows, "sum(resets(traces_service_graph_request_total{server=\"orders\"}[20m]))", 900, &[("{}", 1.0)]);
    check(&rows, "sum(increase(traces_service_graph_request_total{server=\"orders\"}[20m]))", 900, &[("{}", 6.0)]);
}

#[test]
fn buckets_hold_every_call_and_quantiles_lie_in_them() {
    let rows = mesh();
    let count = "sum by (le) (increase(traces_service_graph_request_server_seconds_bucket{server=\"orders\",le=~\"0.012|0.128|2.048|\\\\+Inf\"}[1h]))";
    check(
        &rows,
        count,
        900,
        &[("{le=\"+Inf\"}", 6.0), ("{le=\"0.012\"}", 4.0), ("{le=\"0.128\"}", 5.0), ("{le=\"2.048\"}", 6.0)],
    );
    check(
        &rows,
        "sum(increase(traces_service_graph_request_server_seconds_sum{server=\"orders\"}[1h]))",
        900,
        &[("{}", 2.14)],
    );
    let [(_, p99)] = query(&rows, "histogram_quantile(0.99, sum by (le) (rate(windrose_edge_latency_seconds_bucket{side=\"client\",target=\"shop/orders\"}[1h])))", 900).try_into().unwrap();
    assert!((1.6..=2.048).contains(&p99), "{p99}");
}

#[test]
fn egress_routes_and_gauges() {
    let rows = mesh();
    check(
        &rows,
        "increase(windrose_egress_requests_total[1m])",
        60,
        &[("{caller=\"shop/orders\", host=\"bank.example.com\", route=\"GET /orders\"}", 1.0)],
    );
    check(
        &rows,
        "increase(windrose_route_requests_total[1m])",
        60,
        &[("{gateway=\"shop/gateway\", route=\"GET /orders\"}", 3.0)],
    );
    check(
        &rows,
        "max(last_over_time(windrose_edge_latency_max_seconds{target=\"shop/orders\"}[5m]))",
        300,
        &[("{}", 2.0)],
    );
    check(
        &rows,
        "max(last_over_time(windrose_edge_latency_max_seconds{target=\"shop/orders\"}[1m]))",
        60,
        &[("{}", 0.1)],
    );
    check(
        &rows,
        "sum by (source, target) (last_over_time(windrose_topology_edge[1m]))",
        60,
        &[
            ("{source=\"(client)\", target=\"shop/gateway\"}", 3.0 / 60.0),
            ("{source=\"shop/gateway\", target=\"shop/orders\"}", 5.0 / 60.0),
            ("{source=\"shop/orders\", target=\"bank.example.com\"}", 1.0 / 60.0),
        ],
    );
    check(&rows, "count(windrose_topology_node)", 60, &[("{}", 4.0)]);
    check(&rows, "count(windrose_topology_node{icon=\"user\"})", 60, &[("{}", 1.0)]);
    check(&rows, "max(windrose_topology_edge_error_ratio)", 60, &[("{}", 1.0)]);
}

#[test]
fn a_correction_in_a_sealed_minute_is_no_restart() {
    let orders = key("gateway", "orders");
    let rows = Rows::sorted(vec![
        row(&orders, 0, SEALED_WINDOW_NANOS, &[10, 10, 10], 0),
        retraction(&orders, 20),
        row(&orders, 60, LIVE_WINDOW_NANOS, &[10], 0),
    ]);
    check(&rows, "sum(increase(traces_service_graph_request_total[2m]))", 120, &[("{}", 3.0)]);
    check(&rows, "sum(increase(traces_service_graph_request_total[1m]))", 60, &[("{}", 2.0)]);
    check(&rows, "sum(resets(traces_service_graph_request_total[5m]))", 120, &[("{}", 0.0)]);
}

#[test]
fn names_and_labels() {
    let rows = mesh().0;
    let name = |op, value: &str| vec![Matcher::new(op, "__name__", value).unwrap()];
    let names = names_of(&rows, &[name(MatchOp::Regex, "windrose_(egress|route)_.*")]).unwrap();
    assert!(
        names.contains("windrose_egress_latency_seconds_bucket") && names.contains("windrose_route_requests_total")
    );
    assert!(!names_of(&rows, &[]).unwrap().contains("windrose_edge_retries_total"), "no proxy is scraped");
    assert!(names_of(&[], &[]).unwrap().is_empty());
    let mut set = name(MatchOp::Equal, "windrose_edge_requests_total");
    set.push(Matcher::equal("target", "bank.example.com"));
    let found = label_sets(&rows, &[set]);
    assert_eq!(found.iter().map(|labels| labels.get("source")).collect::<Vec<_>>(), ["shop/orders"]);
}

#[test]
fn exemplars_name_the_trace_in_the_right_bucket() {
    let rows = mesh().0;
    let set = vec![
        Matcher::equal("__name__", "traces_service_graph_request_server_seconds_bucket"),
        Matcher::equal("server", "orders"),
    ];
    let found = of_series(&rows, &[set], START, START + 3_600_000);
    let slowest = found.iter().find(|(labels, _)| labels.get("le") == "2.048").expect("the slow call");
    let [exemplar] = &slowest.1[..] else { panic!("{:?}", slowest.1) };
    assert_eq!((exemplar.value, exemplar.timestamp, exemplar.labels.get("trace_id").len()), (2.0, START + 65_000, 32));
    assert_eq!(
        found.iter().map(|(_, exemplars)| exemplars.len()).sum::<usize>(),
        6,
        "all calls are among the four slowest of their window"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the windows, the range and the time: `increase` is the topology's number, at each step of a range query.
    #[test]
    fn increase_is_the_topology(
        windows in prop::collection::vec((0_i64..360, 1_usize..6, 0_u8..3), 1..40),
        range_secs in 1_i64..900,
        step_secs in 1_i64..300,
        first_secs in 0_i64..1200,
    ) {
        let keys = [key("gateway", "orders"), key("orders", "users"), key("(client)", "gateway")];
        let rows: Vec<EdgeRow> = windows
            .iter()
            .map(|(window, calls, edge)| row(&keys[usize::from(*edge)], window * 10, LIVE_WINDOW_NANOS, &vec![7; *calls], 0))
            .collect();
        let rows = Rows::sorted(rows);
        let kind = QueryKind::Range { start: START + first_secs * 1000, end: START + (first_secs + 5 * step_secs) * 1000, step: step_secs * 1000 };
        let text = format!("sum by (source, target) (increase(windrose_edge_requests_total[{range_secs}s]))");
        let evaluation = Engine::default().query(&rows, &text, kind, &QueryOptions::default()).unwrap();
        let QueryResult::Matrix(matrix) = evaluation.result else { panic!("no matrix") };
        for step in 0..6 {
            let end = START + (first_secs + step * step_secs) * 1000;
            let from = end - range_secs * 1000;
            let inside: Vec<EdgeRow> = rows.0.iter().filter(|row| (from..end).contains(&super::increments::start_millis(row))).cloned().collect();
            let graph = Graph::build(&inside, Scope::Service);
            let mut shown = 0.0;
            for series in &matrix {
                let value = series.floats.iter().find(|(at, _)| *at == end).map_or(0.0, |(_, value)| *value);
                shown += value;
                let edge = graph.edges.iter().find(|((source, target), _)| {
                    source.to_string() == series.labels.get("source") && target.to_string() == series.labels.get("target")
                });
                let calls = edge.map_or(0, |(_, edge)| edge.stats.spans.calls) as f64;
                prop_assert!((value - calls).abs() < 1e-6, "{} at {step}: {value}, not {calls}", series.labels);
            }
            let all: i64 = graph.edges.values().map(|edge| edge.stats.spans.calls).sum();
            prop_assert!((shown - all as f64).abs() < 1e-6, "{shown} of {all} calls are shown");
        }
    }
}

#[test]
fn too_many_steps_are_refused() {
    let evaluation = Engine::default().query(
        &mesh(),
        "sum_over_time(windrose_topology_edge[1w:1ms])",
        QueryKind::Instant(START + Duration::from_secs(60).as_millis() as i64),
        &QueryOptions::default(),
    );
    assert!(evaluation.is_err(), "{evaluation:?}");
}
