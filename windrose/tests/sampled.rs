//! Rates corrected for sampling, against recorded traffic: of a recording every tenth trace is
//! kept, the counters count everything, and the intervals must hold what really happened.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, too")]
#![expect(clippy::print_stdout, reason = "what was compared is worth a line")]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use windrose_collector::decode::{BodyFormat, ContentEncoding, Origin, decode};
use windrose_collector::join::derive::{DeriveOptions, derive};
use windrose_collector::normalise::Normaliser;
use windrose_proto::Text;
use windrose_proto::edge::{CounterStats, EdgeKey, EdgeRow, EdgeStats, SEALED_WINDOW_NANOS, Sign};
use windrose_proto::hop::{EntryRoute, Hop};
use windrose_proto::id::TraceId;
use windrose_proto::model::{Direction, IngestProtocol, NodeRole};
use windrose_proto::normal::NormalSpan;
use windrose_proto::time::UnixNanos;
use windrose_query::graph::{Graph, NodeId, Scope};
use windrose_query::sampling::{Correction, Method};

/// One in so many traces is kept.
const KEPT_ONE_IN: u64 = 10;

/// Hops by trace.
type Traces = BTreeMap<TraceId, Vec<Hop>>;

fn recorded(folder: &Path) -> Traces {
    let packed = std::fs::read(folder.join("capture/otlp.bin.zst")).unwrap();
    let mut decoder = zstd::Decoder::new(&packed[..]).unwrap();
    decoder.window_log_max(27).unwrap();
    let mut raw = Vec::new();
    decoder.read_to_end(&mut raw).unwrap();
    let mut normaliser = Normaliser::default();
    let mut spans: BTreeMap<TraceId, Vec<Arc<NormalSpan>>> = BTreeMap::new();
    let mut rest = &raw[4..];
    while !rest.is_empty() {
        // Arrival, kind, length of the notes, notes, length of the body, body.
        let arrived = UnixNanos(u64::from_le_bytes(rest[..8].try_into().unwrap()));
        let kind = rest[8];
        let notes = usize::from(u16::from_le_bytes(rest[9..11].try_into().unwrap()));
        let length = u32::from_le_bytes(rest[11 + notes..15 + notes].try_into().unwrap()) as usize;
        let body = &rest[15 + notes..15 + notes + length];
        rest = &rest[15 + notes + length..];
        if kind != 1 {
            continue;
        }
        let origin = Origin { ingest: IngestProtocol::OtlpGrpc, arrived };
        let body = Bytes::copy_from_slice(body);
        let decoded = decode(BodyFormat::OtlpProtobuf, ContentEncoding::Identity, &body, origin).unwrap();
        for span in &decoded.spans {
            spans.entry(span.trace_id).or_default().push(Arc::new(normaliser.normalise(span)));
        }
    }
    let options = DeriveOptions::from(&normaliser);
    spans.into_iter().map(|(trace, spans)| (trace, derive(&spans, &options).hops)).collect()
}

fn row(key: EdgeKey, stats: EdgeStats) -> EdgeRow {
    EdgeRow {
        window_start: UnixNanos(0),
        window_nanos: SEALED_WINDOW_NANOS,
        key: Arc::new(key),
        stats: Arc::new(stats),
    }
}

fn rollup<'h>(hops: impl Iterator<Item = &'h Hop>) -> Vec<EdgeRow> {
    let mut cells: BTreeMap<EdgeKey, EdgeStats> = BTreeMap::new();
    for hop in hops {
        cells.entry(EdgeKey::of(hop)).or_default().spans.apply(hop, Sign::Add, false);
    }
    cells.into_iter().map(|(key, stats)| row(key, stats)).collect()
}

/// What unsampled counters of the callers would say of these hops.
fn counters<'h>(hops: impl Iterator<Item = &'h Hop>, counts: impl Fn(&Hop) -> bool) -> Vec<EdgeRow> {
    let mut cells: BTreeMap<EdgeKey, CounterStats> = BTreeMap::new();
    for hop in hops.filter(|hop| hop.is_call() && counts(hop)) {
        let key = EdgeKey { entry: None, origin: None, ..EdgeKey::of(hop) };
        let counters = cells.entry(key).or_default();
        counters.calls += 1;
        counters.errors += i64::from(hop.error);
        counters.scrapes = 2;
        let code = hop.http_status.map_or_else(|| "0".to_owned(), |status| status.to_string());
        *counters.by_code.entry(Text::from(code)).or_default() += 1;
    }
    let row_of = |(key, client_counters)| row(key, EdgeStats { client_counters, ..EdgeStats::default() });
    cells.into_iter().map(row_of).collect()
}

type Ends = (NodeId, NodeId);

/// How often the intervals held the truth.
#[derive(Debug, Default)]
struct Coverage {
    held: u32,
    missed: u32,
    /// Routes of which no span was kept.
    unseen: u32,
}

impl Coverage {
    fn share(&self) -> f64 {
        f64::from(self.held) / f64::from(self.held + self.missed)
    }
}

/// Thins the traces ten ways and compares every route's calls of every edge with what happened.
fn coverage(traces: &Traces, method: Method, counts: impl Fn(&Hop) -> bool + Copy) -> Coverage {
    let all = || traces.values().flatten();
    let whole = Graph::build(&rollup(all()), Scope::Service);
    let mut truth: BTreeMap<(&Ends, &EntryRoute), i64> = BTreeMap::new();
    for (ends, edge) in &whole.edges {
        for (route, totals) in &edge.routes {
            truth.insert((ends, whole.routes.route(*route)), totals.spans.calls);
        }
    }
    let mut coverage = Coverage::default();
    for kept in 0..KEPT_ONE_IN {
        let is_kept = |trace: &TraceId| (trace.low64() >> 7) % KEPT_ONE_IN == kept;
        let thinned = traces.iter().filter(|(trace, _)| is_kept(trace)).flat_map(|(_, hops)| hops);
        let mut rows = rollup(thinned);
        rows.extend(counters(all(), counts));
        let graph = Graph::build(&rows, Scope::Service);
        let correction = Correction::of(&graph);
        for ((ends, route), calls) in &truth {
            let found = graph.routes.id(route).zip(graph.edges.get(*ends));
            let Some((id, edge)) = found.filter(|(id, edge)| edge.routes.contains_key(id)) else {
                coverage.unseen += 1;
                continue;
            };
            let estimate = correction.route_on_edge(edge, id);
            if estimate.method != method {
                continue;
            }
            let total = estimate.calls.unwrap_or_else(|| panic!("{ends:?} {route:?}: {estimate:?}"));
            assert!(total.low <= total.value && total.value <= total.high, "{total:?}");
            let truth = *calls as f64;
            if total.low <= truth && truth <= total.high { coverage.held += 1 } else { coverage.missed += 1 }
        }
        for (ends, edge) in &whole.edges {
            let Some(counted) = graph.edges.get(ends).filter(|edge| edge.counters().is_some()) else { continue };
            let total = correction.edge(counted).calls.unwrap();
            assert_eq!(total.value, edge.stats.spans.calls as f64, "a counted edge is exact: {ends:?}");
        }
    }
    coverage
}

fn check(folder: &Path) {
    let traces = recorded(folder);
    let marginal = coverage(&traces, Method::Marginal, |hop| hop.direction != Direction::Local);
    println!("{}: {} traces, marginal {:.3} {marginal:?}", folder.display(), traces.len(), marginal.share());
    assert!(marginal.held > 100, "too little to judge: {marginal:?}");
    assert!(marginal.share() > 0.92, "95 % intervals hold the truth about as often: {marginal:?}");
    let at_gateway = |hop: &Hop| hop.destination.role == NodeRole::Gateway;
    let joint = coverage(&traces, Method::Joint, at_gateway);
    println!("{}: joint {:.3} {joint:?}", folder.display(), joint.share());
    assert!(joint.held > 100, "too little to judge: {joint:?}");
    assert!(joint.share() > 0.90, "{joint:?}");
}

#[test]
fn corrected_rates_hold_the_truth() {
    check(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/full"));
}

/// The whole recording, when it is at hand.
#[test]
fn corrected_rates_hold_the_truth_of_the_whole_recording() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/mesh/captures/full");
    if folder.join("capture/otlp.bin.zst").exists() {
        check(&folder);
    } else {
        println!("skipped: the whole recording is not here");
    }
}
