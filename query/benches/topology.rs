//! What merging rollup rows to a graph costs: `cargo bench -p windrose-query --bench topology`.
//!
//! An answer adds up sums of blocks of time; this is what making one of them of its rows takes, and the graph of it.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use windrose_proto::Text;
use windrose_proto::edge::{EdgeKey, EdgeRow, EdgeStats, SEALED_WINDOW_NANOS};
use windrose_proto::hop::{Entry, EntryRoute, Node};
use windrose_proto::id::TraceId;
use windrose_proto::model::{Direction, NodeRole, Protocol, ProxyKind};
use windrose_proto::time::UnixNanos;
use windrose_query::graph::{Graph, Scope};

/// How long a figure is measured; long enough that the machine's noise averages out.
const MEASURED: Duration = Duration::from_secs(2);
/// Services; each calls four others on behalf of three routes.
const SERVICES: usize = 300;
const FAN_OUT: usize = 4;
const ROUTES: usize = 3;
/// Calls of an edge, route and window.
const CALLS: u64 = 50;

#[expect(clippy::print_stdout, reason = "a bench measures time and prints it")]
fn main() {
    // `cargo bench` says so; anything else only wants to know that the bench still runs.
    let is_bench = std::env::args().any(|arg| arg == "--bench");
    let (measured, sizes) = if is_bench { (MEASURED, &[1_u64, 30, 60][..]) } else { (Duration::ZERO, &[1][..]) };
    for windows in sizes {
        let rows = rows(*windows);
        let begun = Instant::now();
        let mut rounds = 0_u32;
        loop {
            black_box(Graph::build(black_box(&rows), Scope::Service));
            rounds += 1;
            if begun.elapsed() >= measured {
                break;
            }
        }
        let nanos = begun.elapsed().as_nanos() as f64 / f64::from(rounds);
        println!(
            "{windows} windows, {} rows: {:.2} ms, {:.0} ns/row",
            rows.len(),
            nanos / 1e6,
            nanos / rows.len() as f64
        );
    }
}

fn rows(windows: u64) -> Vec<EdgeRow> {
    let node = |service: usize| {
        Arc::new(Node {
            cluster: Some(Text::from_static("prod")),
            namespace: Some(Text::from(format!("ns-{}", service % 12))),
            service: Text::from(format!("service-{service}")),
            workload: Some(Text::from(format!("service-{service}-v1"))),
            version: Some(Text::from_static("v1")),
            role: NodeRole::Sidecar,
            proxy_kind: ProxyKind::Istio,
        })
    };
    let nodes: Vec<_> = (0..SERVICES).map(node).collect();
    let route = |number: usize| {
        Entry::Route(Arc::new(EntryRoute {
            route: Text::from(format!("GET /api/{number}/{{id}}")),
            host: Some(Text::from_static("shop.example")),
        }))
    };
    let mut keys = Vec::new();
    for source in 0..SERVICES {
        for callee in 0..FAN_OUT {
            for number in 0..ROUTES {
                keys.push(Arc::new(EdgeKey {
                    source: Arc::clone(&nodes[source]),
                    destination: Arc::clone(&nodes[(source * 7 + callee * 31 + 1) % SERVICES]),
                    direction: Direction::EastWest,
                    protocol: Protocol::Http1,
                    entry: Some(route(number)),
                    origin: None,
                }));
            }
        }
    }
    let mut random = 1_u64;
    let mut rows = Vec::new();
    for window in 0..windows {
        for key in &keys {
            rows.push(EdgeRow {
                window_start: UnixNanos(window * SEALED_WINDOW_NANOS),
                window_nanos: SEALED_WINDOW_NANOS,
                key: Arc::clone(key),
                stats: Arc::new(stats(&mut random)),
            });
        }
    }
    rows
}

/// A window of calls whose latencies spread over two powers of ten.
fn stats(random: &mut u64) -> EdgeStats {
    let mut stats = EdgeStats::default();
    let spans = &mut stats.spans;
    for _ in 0..CALLS {
        // Knuth's generator: spread evenly, and the same in every run.
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let nanos = (1_000_000.0 * ((*random >> 40) as f64 / f64::from(1 << 24) * 4.6).exp()) as u64;
        spans.calls += 1;
        spans.attempts += 1;
        for side in [&mut spans.client, &mut spans.server] {
            side.count += 1;
            side.sum_nanos += i128::from(nanos);
            side.sketch.add(nanos, 1);
            side.slowest.add(nanos, trace(*random));
        }
    }
    stats
}

fn trace(number: u64) -> TraceId {
    TraceId::from_slice(&u128::from(number).to_be_bytes()).expect("sixteen bytes")
}
