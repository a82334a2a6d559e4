//! What open traces cost: `cargo run --release -p windrose-collector --example open_traces -- [traces]`.
//!
//! Opens that many traces (1 000 000 unless said otherwise) of three spans each, twice: with room
//! for all of them, to see what one takes, and with the default limit, to see that it holds and
//! that what left early is counted. Memory is what the operating system says the process takes.

use std::sync::Arc;

use windrose_collector::join::joiner::{JoinLimits, Joiner, NothingSealed};
use windrose_collector::normalise::Normaliser;
use windrose_proto::attributes::{Attributes, Value};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::model::{IngestProtocol, SpanKind};
use windrose_proto::span::{Resource, Scope, Span, StatusCode};
use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;
use windrose_store::store::Store;

const START: u64 = 1_800_000_000_000_000_000;
/// Spans of every trace: a gateway's entry and attempt, and the entry of the service behind it.
const SPANS: usize = 3;
/// Traces handed in between two ticks.
const BATCH: usize = 10_000;

fn main() {
    let traces = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    open(traces, JoinLimits { max_open_bytes: usize::MAX, ..JoinLimits::default() }, "without limit");
    open(traces, JoinLimits::default(), "with the default limit");
}

#[expect(clippy::print_stdout, reason = "an example prints what it measured")]
fn open(traces: usize, limits: JoinLimits, name: &str) {
    let before = resident_bytes();
    let mut joiner = Joiner::new(Normaliser::default(), limits, Store::default());
    let (tenant, now) = (TenantId::default(), UnixNanos(START));
    let mut most_open = 0;
    for first in (0..traces).step_by(BATCH) {
        let batch = first..(first + BATCH).min(traces);
        joiner.ingest(&tenant, batch.flat_map(trace).collect(), now, &NothingSealed, now);
        joiner.tick(&NothingSealed, now);
        most_open = most_open.max(joiner.gauges().open_bytes);
        // What is sealed leaves memory, as it does in the server; what is open stays.
        for (tenant, _) in joiner.begin_seal(now) {
            joiner.finish_seal(&tenant, Arc::default());
        }
    }
    let (gauges, counts) = (joiner.gauges(), joiner.counts());
    let resident = resident_bytes().saturating_sub(before);
    let open = gauges.open_traces.max(1);
    println!("{name}: {traces} traces of {SPANS} spans handed in");
    println!(
        "  open {} traces, {} evicted, {} settled",
        gauges.open_traces, counts.traces_evicted, counts.traces_settled
    );
    println!(
        "  counted   {:>6} B/trace {:>6} B/span, at most {} MiB",
        gauges.open_bytes / open,
        gauges.open_bytes / open / SPANS,
        most_open >> 20
    );
    println!(
        "  resident  {:>6} B/trace {:>6} B/span, {} MiB in all",
        resident / open,
        resident / open / SPANS,
        resident >> 20
    );
    println!("  known across traces: {:?}", gauges.across);
    let is_bounded = most_open <= limits.max_open_bytes;
    println!("  within the limit: {is_bounded}; stored {} = used {}", counts.spans_stored, counts.uses.sum());
    if !is_bounded || counts.uses.sum() != counts.spans_stored as i64 {
        panic!("the limit did not hold, or a span was not accounted for");
    }
}

/// What the operating system says; 0 where it does not say.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn trace(number: usize) -> [Span; SPANS] {
    let service = number % 50;
    let at = START + number as u64 * 1_000;
    let router = "router~10.0.0.1~ingress-6c9f8b7d4-x2x9k.istio-system~istio-system.svc.cluster.local".to_owned();
    let sidecar = format!("sidecar~10.1.0.{service}~s{service}-v1-6c9f8b7d4-x2x9k.shop~shop.svc.cluster.local");
    let outbound = format!("outbound|8080||s{service}.shop.svc.cluster.local");
    [
        span(number, 1, 0, SpanKind::Server, "ingress.istio-system", Some(router), &outbound, (at, at + 9_000_000)),
        span(number, 2, 1, SpanKind::Client, "ingress.istio-system", None, &outbound, (at + 1_000, at + 8_000_000)),
        span(
            number,
            3,
            2,
            SpanKind::Server,
            &format!("s{service}.shop"),
            Some(sidecar),
            "inbound|8080||",
            (at + 2_000, at + 7_000_000),
        ),
    ]
}

#[expect(clippy::too_many_arguments, reason = "a span has that many parts, and this is the only place that makes one")]
fn span(
    number: usize,
    id: u64,
    parent: u64,
    kind: SpanKind,
    service: &str,
    node_id: Option<String>,
    cluster: &str,
    (start, end): (u64, u64),
) -> Span {
    let mut attributes = Attributes::default();
    let mut put = |key: &'static str, value: &str| attributes.push(key, Value::Str(value.into()));
    put("component", "proxy");
    put("http.status_code", "200");
    put("response_flags", "-");
    put("upstream_cluster", cluster);
    match node_id {
        Some(node_id) => {
            put("node_id", &node_id);
            put("http.method", "GET");
            put("http.url", "http://shop.example.com/api/orders/549?verbose=1");
            put("guid:x-request-id", &format!("c45bca99-e087-98d3-9c38-{number:012}"));
        }
        None => put("upstream_address", "10.1.0.9:15006"),
    }
    let mut resource = Attributes::default();
    resource.push("service.name", Value::Str(service.into()));
    Span {
        trace_id: TraceId::new((number as u128 + 1).to_be_bytes()).unwrap_or_else(|| unreachable!("not zero")),
        span_id: SpanId::new(id.to_be_bytes()).unwrap_or_else(|| unreachable!("not zero")),
        parent_span_id: SpanId::new(parent.to_be_bytes()),
        trace_state: "".into(),
        flags: 0,
        name: "call".into(),
        kind,
        start: UnixNanos(start),
        end: UnixNanos(end),
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
