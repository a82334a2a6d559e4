use std::sync::Arc;

use windrose_proto::Text;
use windrose_proto::edge::{CounterStats, EdgeKey, EdgeRow, EdgeStats, ErrorClass, LIVE_WINDOW_NANOS, SpanStats};
use windrose_proto::hop::{Entry, EntryRoute, Node};
use windrose_proto::model::{Direction, Fault, NodeRole, Protocol};
use windrose_proto::time::UnixNanos;

use super::interval::{Total, share_of};
use super::{Correction, Method};
use crate::graph::{Graph, Scope};

fn node(name: &str, role: NodeRole) -> Node {
    Node { service: Text::from(name), role, ..Node::unknown() }
}

fn route(name: &str) -> EntryRoute {
    EntryRoute { route: Text::from(name), host: None }
}

/// Spans of one route of an edge.
fn spans(source: &Node, destination: &Node, name: &str, calls: i64, errors: i64) -> EdgeRow {
    let class = ErrorClass { code: Text::from_static("503"), reason: None, fault: Fault::Upstream };
    let by_class = (errors > 0).then_some((class, errors)).into_iter().collect();
    let spans = SpanStats { calls, attempts: calls, errors, by_class, ..SpanStats::default() };
    let entry = Some(Entry::Route(Arc::new(route(name))));
    row(source, destination, entry, EdgeStats { spans, ..EdgeStats::default() })
}

/// Counters of an edge.
fn counters(source: &Node, destination: &Node, good: i64, failed: i64) -> EdgeRow {
    let by_code = [("200", good), ("503", failed)].map(|(code, n)| (Text::from(code), n)).into_iter().collect();
    let client_counters =
        CounterStats { calls: good + failed, by_code, errors: failed, scrapes: 2, ..CounterStats::default() };
    row(source, destination, None, EdgeStats { client_counters, ..EdgeStats::default() })
}

fn row(source: &Node, destination: &Node, entry: Option<Entry>, stats: EdgeStats) -> EdgeRow {
    let key = EdgeKey {
        source: Arc::new(source.clone()),
        destination: Arc::new(destination.clone()),
        direction: Direction::EastWest,
        protocol: Protocol::Http1,
        entry,
        origin: None,
    };
    EdgeRow { window_start: UnixNanos(0), window_nanos: LIVE_WINDOW_NANOS, key: Arc::new(key), stats: Arc::new(stats) }
}

/// Gateway counted 1000 requests, 60 + 40 of them were sampled; orders → users is not counted,
/// orders → stock is.
fn sampled_mesh() -> Graph {
    let gateway = node("gateway", NodeRole::Gateway);
    let [orders, users, stock] = ["orders", "users", "stock"].map(|name| node(name, NodeRole::Sidecar));
    Graph::build(
        &[
            counters(&Node::client(), &gateway, 900, 100),
            spans(&Node::client(), &gateway, "GET /a", 60, 0),
            spans(&Node::client(), &gateway, "GET /b", 40, 10),
            spans(&orders, &users, "GET /a", 120, 0),
            counters(&orders, &stock, 500, 0),
            spans(&orders, &stock, "GET /a", 10, 0),
            spans(&orders, &stock, "GET /b", 40, 0),
        ],
        Scope::Service,
    )
}

#[test]
fn rates_come_from_counters_divided_as_the_spans_are() {
    let graph = sampled_mesh();
    let correction = Correction::of(&graph);
    let id = |name: &str| graph.routes.id(&route(name)).expect("a route");
    let edge = |to: &str| graph.edges.iter().find(|((_, id), _)| &*id.name == to).expect("edge").1;
    let check = |estimate: super::Estimate, method: Method, value: f64| {
        let total = estimate.calls.expect("a counter knows");
        assert_eq!(estimate.method, method);
        assert!((total.value - value).abs() < 1e-6, "{total:?} is not {value}");
        assert!(total.low <= total.value && total.value <= total.high, "{total:?}");
        total
    };
    check(correction.edge(edge("gateway")), Method::Counter, 1000.0);
    // 100 counted failures are all of b, 900 successes are 60 parts a and 30 parts b.
    check(correction.route(&route("GET /a")), Method::Marginal, 600.0);
    check(correction.route(&route("GET /b")), Method::Marginal, 400.0);
    check(correction.route_on_edge(edge("stock"), id("GET /a")), Method::Marginal, 100.0);
    // Not counted: two calls per request of a.
    let joint = check(correction.route_on_edge(edge("users"), id("GET /a")), Method::Joint, 1200.0);
    assert!(joint.low < 1100.0 && joint.high > 1300.0, "sixty requests do not tell exactly: {joint:?}");
    check(correction.edge(edge("users")), Method::Joint, 1200.0);
}

#[test]
fn without_any_counter_the_rate_is_not_known() {
    let [orders, users] = ["orders", "users"].map(|name| node(name, NodeRole::Sidecar));
    let graph = Graph::build(&[spans(&orders, &users, "GET /a", 12, 0)], Scope::Service);
    let correction = Correction::of(&graph);
    let edge = graph.edges.values().next().expect("edge");
    for estimate in
        [correction.edge(edge), correction.route_on_edge(edge, graph.routes.id(&route("GET /a")).expect("a route"))]
    {
        let rate = estimate.per_second(10.0);
        assert_eq!((rate.per_second, rate.low, rate.high), (None, None, None));
        assert_eq!((rate.method, rate.reason), (Method::Spans, Some(super::NO_COUNTER)));
    }
}

#[test]
fn everything_seen_is_exact_and_nothing_seen_is_anything() {
    assert_eq!(share_of(100, 100, 30, 1.0), Total::exact(30.0));
    assert_eq!(share_of(100, 0, 0, 1.0), Total { value: 0.0, low: 0.0, high: 100.0 });
    let few = share_of(1000, 10, 0, 1.0);
    assert!(few.value == 0.0 && few.low == 0.0 && few.high > 100.0, "none of ten may be many of a thousand: {few:?}");
}

/// The interval holds the truth as often as it says: binomial samples, all outcomes weighed by
/// their probability.
#[test]
fn the_interval_covers_the_truth() {
    for (counted, sampled) in [(10_000, 50), (10_000, 400), (600, 300)] {
        for true_share in [0.02, 0.1, 0.5, 0.9] {
            let truth = f64::from(counted) * true_share;
            let of_whole = truth as i64;
            let mut covered = 0.0;
            for seen in 0..=sampled {
                let total = share_of(i64::from(counted), sampled, seen, 1.0);
                if total.low <= truth && truth <= total.high {
                    covered += hypergeometric(i64::from(counted), of_whole, sampled, seen);
                }
            }
            assert!(covered > 0.91, "{counted} {sampled} {true_share}: {covered}");
        }
    }
}

/// Probability of `seen` marked among `sampled` drawn from `all` with `marked`.
fn hypergeometric(all: i64, marked: i64, sampled: i64, seen: i64) -> f64 {
    if seen > marked || sampled - seen > all - marked {
        return 0.0;
    }
    let ln_choose = |n: i64, k: i64| -> f64 { (1..=k).map(|i| ((n - k + i) as f64 / i as f64).ln()).sum() };
    (ln_choose(marked, seen) + ln_choose(all - marked, sampled - seen) - ln_choose(all, sampled)).exp()
}
