//! What normalising a span, deriving a trace and all of the join cost: `cargo bench -p windrose-collector --bench derive`.
//!
//! Budgets: 1 µs to normalise a span; 1 µs per span to derive a trace of 8, 1.5 µs of 200.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use windrose_collector::join::derive::{DeriveOptions, derive};
use windrose_collector::join::joiner::{JoinLimits, Joiner, NothingSealed};
use windrose_collector::normalise::Normaliser;
use windrose_proto::attributes::{Attributes, Value};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::model::{IngestProtocol, SpanKind};
use windrose_proto::normal::NormalSpan;
use windrose_proto::span::{Resource, Scope, Span, StatusCode};
use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;
use windrose_store::store::Store;

/// How long a figure is measured; long enough that the machine's noise averages out.
const MEASURED: Duration = Duration::from_millis(1_500);

/// Spans joined to measure the whole of it.
const JOINED_SPANS: usize = 200_000;

#[expect(clippy::print_stdout, reason = "a bench measures time and prints it")]
fn main() {
    // `cargo bench` says so; anything else only wants to know that the bench still runs.
    let measured = if std::env::args().any(|arg| arg == "--bench") { MEASURED } else { Duration::ZERO };
    let spans = trace(8);
    let mut normaliser = Normaliser::default();
    let per_span = |name: &str, spans: usize, mut work: Box<dyn FnMut() + '_>| {
        work();
        let (begun, mut rounds) = (Instant::now(), 0_u32);
        loop {
            work();
            rounds += 1;
            if begun.elapsed() >= measured {
                break;
            }
        }
        let nanos = begun.elapsed().as_nanos() as f64 / f64::from(rounds) / spans as f64;
        println!("{name:<28} {nanos:>8.0} ns/span");
    };
    per_span(
        "normalise",
        spans.len(),
        Box::new(|| {
            for span in &spans {
                black_box(normaliser.normalise(black_box(span)));
            }
        }),
    );
    for count in [8, 200, 10_000] {
        let normal: Vec<Arc<NormalSpan>> =
            trace(count).iter().map(|span| Arc::new(normaliser.normalise(span))).collect();
        let options = DeriveOptions::default();
        per_span(
            &format!("derive {count} spans"),
            count,
            Box::new(|| {
                black_box(derive(black_box(&normal), &options));
            }),
        );
    }
    for count in [8, 200] {
        let traces = if measured.is_zero() { 1 } else { JOINED_SPANS / count };
        println!(
            "{:<28} {:>8.0} ns/span",
            format!("join {count} spans in two parts"),
            join_nanos(&trace(count), traces)
        );
    }
    let heap: usize = spans.iter().map(|span| normaliser.normalise(span).heap_estimate_bytes()).sum();
    println!("{:<28} {:>8} B/span", "normalised span", heap / spans.len());
}

/// What the joiner does for a span: normalise, take it up, derive, find the difference to what was shown before, add it
/// up. Half of each trace comes after a tick, so that everything is derived twice and much of it corrected.
fn join_nanos(spans: &[Span], traces: usize) -> f64 {
    let of_trace = |number: usize| {
        let id = TraceId::from_slice(&(number as u128 + 1).to_be_bytes()).expect("not zero");
        spans.iter().map(move |span| Span { trace_id: id, ..span.clone() })
    };
    let all: Vec<Span> = (0..traces).flat_map(of_trace).collect();
    let (early, late): (Vec<_>, Vec<_>) = all.into_iter().enumerate().partition(|(place, _)| place % 2 == 0);
    let mut joiner = Joiner::new(Normaliser::default(), JoinLimits::default(), Store::default());
    let (tenant, now) = (TenantId::default(), spans[0].end);
    let count = early.len() + late.len();
    let begun = Instant::now();
    for part in [early, late] {
        let part = part.into_iter().map(|(_, span)| span).collect();
        joiner.ingest(&tenant, part, now, &NothingSealed, now);
        joiner.tick(&NothingSealed, now);
    }
    let nanos = begun.elapsed().as_nanos() as f64 / count as f64;
    assert_eq!(joiner.counts().spans_stored, count as u64);
    nanos
}

/// A request through an Istio mesh: gateway, then pairs of sidecar spans, each service calling two.
fn trace(count: usize) -> Vec<Span> {
    (0..count).map(|n| if n < 2 { gateway_span(n) } else { sidecar_span(n) }).collect()
}

fn gateway_span(n: usize) -> Span {
    let mut attributes = common("outbound|8080||s0.shop.svc.cluster.local");
    if n == 0 {
        push(
            &mut attributes,
            "node_id",
            "router~10.0.0.1~ingress-6c9f8b7d4-x2x9k.istio-system~istio-system.svc.cluster.local",
        );
        connection_manager(&mut attributes);
        return span(n, None, SpanKind::Server, "s0.shop.svc.cluster.local:8080/*", "ingress.istio-system", attributes);
    }
    push(&mut attributes, "upstream_address", "10.0.0.2:15006");
    span(
        n,
        Some(0),
        SpanKind::Client,
        "router outbound|8080||s0.shop.svc.cluster.local; egress",
        "ingress.istio-system",
        attributes,
    )
}

fn sidecar_span(n: usize) -> Span {
    // Even: the entry of service n/2-1; odd: a call of an earlier service.
    let is_entry = n.is_multiple_of(2);
    let service = if is_entry { n / 2 - 1 } else { (n / 2 - 1) / 2 };
    let cluster = if is_entry {
        "inbound|8080||".to_owned()
    } else {
        format!("outbound|8080||s{}.shop.svc.cluster.local", n / 2)
    };
    let mut attributes = common(&cluster);
    push(
        &mut attributes,
        "node_id",
        &format!(
            "sidecar~10.1.{}.{}~s{service}-v1-6c9f8b7d4-x2x9k.shop~shop.svc.cluster.local",
            service / 250,
            service % 250
        ),
    );
    connection_manager(&mut attributes);
    let (parent, kind) = if is_entry { (n - 1, SpanKind::Server) } else { (2 * service + 2, SpanKind::Client) };
    span(n, Some(parent), kind, "s.shop.svc.cluster.local:8080/*", &format!("s{service}.shop"), attributes)
}

fn common(cluster: &str) -> Attributes {
    let mut attributes = Attributes::default();
    for (key, value) in [
        ("component", "proxy"),
        ("http.protocol", "HTTP/1.1"),
        ("http.status_code", "200"),
        ("response_flags", "-"),
        ("upstream_cluster", cluster),
        ("upstream_cluster.name", cluster),
        ("peer.address", "10.0.0.9"),
        ("istio.mesh_id", "cluster.local"),
        ("istio.cluster_id", "Kubernetes"),
        ("istio.canonical_revision", "v1"),
    ] {
        push(&mut attributes, key, value);
    }
    attributes
}

fn connection_manager(attributes: &mut Attributes) {
    for (key, value) in [
        ("zone", "z1"),
        ("guid:x-request-id", "c45bca99-e087-98d3-9c38-a53edad0e26f"),
        ("http.url", "http://shop.example.com/api/orders/549?verbose=1"),
        ("http.method", "GET"),
        ("downstream_cluster", "-"),
        ("user_agent", "shop-mobile/3.2"),
        ("request_size", "0"),
        ("response_size", "29"),
    ] {
        push(attributes, key, value);
    }
}

fn push(attributes: &mut Attributes, key: &'static str, value: &str) {
    attributes.push(key, Value::Str(value.into()));
}

fn span(n: usize, parent: Option<usize>, kind: SpanKind, name: &str, service: &str, attributes: Attributes) -> Span {
    let id = |n: usize| SpanId::new((n as u64 + 1).to_be_bytes());
    let mut resource = Attributes::default();
    push(&mut resource, "service.name", service);
    push(&mut resource, "telemetry.sdk.name", "envoy");
    push(&mut resource, "telemetry.sdk.language", "cpp");
    Span {
        trace_id: TraceId::new([9; 16]).unwrap_or_else(|| unreachable!("not all zero")),
        span_id: id(n).unwrap_or_else(|| unreachable!("not zero")),
        parent_span_id: parent.and_then(id),
        trace_state: "".into(),
        flags: 0,
        name: name.into(),
        kind,
        start: UnixNanos(1_000_000_000 + n as u64 * 1_000),
        end: UnixNanos(2_000_000_000 - n as u64 * 1_000),
        attributes,
        dropped_attributes_count: 0,
        events: Vec::new(),
        dropped_events_count: 0,
        links: Vec::new(),
        dropped_links_count: 0,
        status: StatusCode::Unset,
        status_message: "".into(),
        resource: Arc::new(Resource { attributes: resource, ..Resource::default() }),
        scope: Arc::new(Scope { name: "envoy".into(), ..Scope::default() }),
        shared: false,
        ingest: IngestProtocol::OtlpGrpc,
    }
}
