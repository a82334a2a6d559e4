//! A recorded mesh of real Envoys: what the spans derive to, against what the client and the
//! applications of the same run logged. Exactly.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;
use windrose_collector::join::derive::{DeriveOptions, derive};
use windrose_collector::normalise::Normaliser;
use windrose_proto::edge::{EdgeKey, Sign, SpanStats};
use windrose_proto::hop::{CLIENT_NODE, Derived, Entry, Gap, Hop, SpanUse, UNKNOWN_NODE};
use windrose_proto::model::{Direction, NodeRole};
use windrose_proto::normal::NormalSpan;
use windrose_proto::span::Span;

use crate::load;

const GATEWAY: &str = "istio-ingressgateway";
const EGRESS: &str = "istio-egressgateway";
/// Decompressed size beyond which a recording is damaged; the largest has 30 MB.
const RECORDING_MAX_BYTES: usize = 256 << 20;

/// What an edge should show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) calls: i64,
    errors: i64,
    /// Attempts that the callee saw; not compared for partners outside, which send no spans.
    arrivals: i64,
    routes: BTreeMap<String, i64>,
}

pub(crate) type Edges = BTreeMap<(String, String), Edge>;

pub(crate) fn repository_capture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name)
}

#[test]
fn istio_defaults() {
    check(&repository_capture("full"));
}

#[test]
fn a_span_per_attempt_in_every_proxy() {
    check(&repository_capture("spawn-all"));
}

#[test]
fn one_span_per_proxy() {
    check(&repository_capture("spawn-none"));
}

#[test]
fn without_istio_tags() {
    check(&repository_capture("plain"));
}

#[test]
fn with_spans_of_applications() {
    check(&repository_capture("app-spans"));
}

#[test]
fn zipkin_with_shared_ids() {
    check(&repository_capture("zipkin-shared"));
}

#[test]
fn with_the_caller_announced() {
    check(&repository_capture("add-user-agent"));
}

/// The whole recordings, when they are at hand.
#[test]
fn whole_recordings() {
    let captures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/mesh/captures");
    for name in ["full", "variants/rich", "variants/als-metrics"] {
        let folder = captures.join(name);
        if folder.join("capture/otlp.bin.zst").exists() {
            check(&folder);
        } else {
            println!("skipped: the whole recording `{name}` is not here");
        }
    }
}

#[track_caller]
fn check(folder: &Path) {
    let traces = derived(folder);
    check_edges(folder, &measured(&traces));
    for trace in &traces {
        check_nodes(trace);
        check_uses(trace);
    }
}

/// The edges are those of the truth.
#[track_caller]
pub(crate) fn check_edges(folder: &Path, edges: &Edges) {
    let expected = expected(folder);
    let mut differences = Vec::new();
    for key in edges.keys().chain(expected.keys()).collect::<BTreeSet<_>>() {
        let (ours, truth) = (edges.get(key), expected.get(key));
        if key.0 == UNKNOWN_NODE && key.1 == "notify" {
            // The kubelet's probes: nobody logged them.
            continue;
        }
        let is_external = key.1.ends_with(".example.com");
        let comparable = |edge: Option<&Edge>| {
            let mut edge = edge.cloned().unwrap_or_default();
            edge.arrivals = if is_external { 0 } else { edge.arrivals };
            edge
        };
        if comparable(ours) != comparable(truth) {
            differences.push(format!("{} -> {}:\n  spans {ours:?}\n  truth {truth:?}", key.0, key.1));
        }
    }
    let name = folder.display();
    assert!(differences.is_empty(), "{name}: {} edges differ\n{}", differences.len(), differences.join("\n"));
    assert!(expected.len() >= 14, "{name}: the truth has only {} edges", expected.len());
}

/// Every node has the role it has, every hop the direction.
#[track_caller]
fn check_nodes(trace: &Derived) {
    for hop in trace.hops.iter().filter(|hop| hop.direction != Direction::Local) {
        for node in [&hop.source, &hop.destination] {
            let expect: &[NodeRole] = match &*node.service {
                GATEWAY => &[NodeRole::Gateway],
                EGRESS => &[NodeRole::Egress],
                CLIENT_NODE => &[NodeRole::External],
                UNKNOWN_NODE => &[NodeRole::Unknown],
                name if name.ends_with(".example.com") => &[NodeRole::External],
                // Known only by its cluster name when the call never arrived.
                _ => &[NodeRole::Sidecar, NodeRole::App],
            };
            assert!(expect.contains(&node.role), "{}: {hop:?}", node.service);
        }
        let (source, destination) = (&*hop.source.service, &*hop.destination.service);
        let expect = match (source, destination) {
            (UNKNOWN_NODE, _) => Direction::Unknown,
            (EGRESS, _) | (_, EGRESS) => Direction::Egress,
            (GATEWAY, _) | (_, GATEWAY) => Direction::NorthSouth,
            _ => Direction::EastWest,
        };
        assert_eq!(hop.direction, expect, "{source} -> {destination}");
        assert_ne!(source, destination, "a self-edge: {hop:?}");
        let origin = hop.origin.as_ref().map(|node| &*node.service);
        let expect = match destination {
            "partner-pay.example.com" => Some("payments"),
            "partner-sms.example.com" => Some("notify"),
            _ => None,
        };
        assert_eq!(origin, expect, "{source} -> {destination}");
    }
}

/// No span disappears.
#[track_caller]
fn check_uses(trace: &Derived) {
    for (index, hop) in trace.hops.iter().enumerate() {
        let names = |span| {
            trace.verdicts.iter().any(|verdict| {
                verdict.span_id == span
                    && matches!(&verdict.usage, SpanUse::Hop { hops } if hops.contains(&(index as u32)))
            })
        };
        assert!([hop.client_span, hop.server_span].into_iter().flatten().all(names), "{hop:?}");
    }
}

pub(crate) fn spans_of(folder: &Path) -> Vec<Span> {
    let recording = unpacked(&folder.join("capture/otlp.bin.zst"));
    records(&recording).into_iter().flat_map(|(kind, body)| load::message(kind, &body)).collect()
}

pub(crate) fn entries_of(folder: &Path) -> Vec<Span> {
    let recording = unpacked(&folder.join("capture/otlp.bin.zst"));
    records(&recording).into_iter().flat_map(|(kind, body)| load::logged(kind, &body)).collect()
}

fn derived(folder: &Path) -> Vec<Derived> {
    let mut normaliser = Normaliser::default();
    let traces = load::by_trace(spans_of(folder));
    traces
        .into_iter()
        .map(|(_, spans)| {
            let normal: Vec<Arc<NormalSpan>> = spans.iter().map(|span| Arc::new(normaliser.normalise(span))).collect();
            derive(&normal, &DeriveOptions::from(&normaliser))
        })
        .collect()
}

/// The edges as a rollup of the hops gives them.
fn measured(traces: &[Derived]) -> Edges {
    edges_of(traces.iter().flat_map(|trace| &trace.hops))
}

/// The edges as a rollup of any hops gives them.
pub(crate) fn edges_of<'h>(hops: impl Iterator<Item = &'h Hop>) -> Edges {
    let mut cells: BTreeMap<EdgeKey, (SpanStats, i64)> = BTreeMap::new();
    for hop in hops.filter(|hop| hop.direction != Direction::Local) {
        let cell = cells.entry(EdgeKey::of(hop)).or_default();
        cell.0.apply(hop, Sign::Add, false);
        cell.1 += i64::from(hop.server_span.is_some());
    }
    let mut edges = Edges::new();
    for (key, (stats, arrivals)) in cells {
        let edge = edges.entry((key.source.service.to_string(), key.destination.service.to_string())).or_default();
        edge.calls += stats.calls;
        edge.errors += stats.errors;
        edge.arrivals += arrivals;
        let route = match key.entry {
            Some(Entry::Route(route)) => route.route.to_string(),
            Some(Entry::Unknown(gap)) => gap.as_str().to_owned(),
            None => String::new(),
        };
        *edge.routes.entry(route).or_default() += stats.calls;
    }
    edges.values_mut().for_each(|edge| edge.routes.retain(|_, calls| *calls != 0));
    edges
}

/// The edges as the client and the applications saw them, of the requests that were traced.
fn expected(folder: &Path) -> Edges {
    let is_zipkin = folder.to_string_lossy().contains("zipkin");
    let clients = jsonl(&folder.join("truth/client.jsonl.zst"));
    let apps = jsonl(&folder.join("truth/apps.jsonl.zst"));
    // A context that is malformed or not sampled makes every Envoy stay silent. Zipkin's tracer
    // does not look at it.
    let untraced: BTreeSet<&str> = clients
        .iter()
        .filter(|client| !is_zipkin && matches!(client["ctx"].as_str(), Some("tp00" | "bad")))
        .map(|client| word(client, "rid"))
        .collect();
    let routes: HashMap<&str, String> = clients.iter().map(|client| (word(client, "rid"), route(client))).collect();
    let mut arrivals: HashMap<&str, Vec<&Json>> = HashMap::new();
    for server in apps.iter().filter(|record| record["k"] == "server" && record["call"] != "probe") {
        arrivals.entry(word(server, "call")).or_default().push(server);
    }
    let answered = answered_anyway(folder);
    let failed_for_client =
        |client: &Json| failed(client) && !(client["status"] == 0 && answered.contains(word(client, "rid")));
    let mut edges = Edges::new();
    let mut add = |source: &str, destination: &str, failed: bool, arrivals: usize, route: &str| {
        let edge = edges.entry((source.to_owned(), destination.to_owned())).or_default();
        edge.calls += 1;
        edge.errors += i64::from(failed);
        edge.arrivals += arrivals as i64;
        *edge.routes.entry(route.to_owned()).or_default() += 1;
    };
    for client in clients.iter().filter(|client| !untraced.contains(word(client, "rid"))) {
        let route = &routes[word(client, "rid")];
        add(CLIENT_NODE, GATEWAY, failed_for_client(client), 1, route);
        let arrived = arrivals.get(format!("client:{}", word(client, "rid")).as_str());
        if let Some(arrived) = arrived {
            add(GATEWAY, word(arrived[0], "svc"), failed_for_client(client), arrived.len(), route);
        }
    }
    for call in apps.iter().filter(|record| record["k"] == "call") {
        let (source, destination) = (word(call, "src"), word(call, "dst"));
        // notify forwards no context: its calls begin a trace of their own, whatever came before.
        let begins_trace = source == "notify";
        if untraced.contains(word(call, "rid")) && !begins_trace {
            continue;
        }
        let lost = Gap::PropagationLost.as_str();
        let route = if begins_trace { lost } else { &routes[word(call, "rid")] };
        let arrived = arrivals.get(word(call, "id")).map_or(0, Vec::len);
        if destination.ends_with(".example.com") {
            add(source, EGRESS, failed(call), 1, route);
            add(EGRESS, destination, failed(call), arrived, route);
        } else {
            add(source, destination, failed(call), arrived, route);
        }
    }
    edges
}

/// Requests whose client hung up when the answer was on its way already: the client saw none, the
/// gateway logged one.
fn answered_anyway(folder: &Path) -> BTreeSet<String> {
    let log = folder.join("accesslog/ingress.jsonl.zst");
    if !log.exists() {
        return BTreeSet::new();
    }
    let is_good = |record: &&Json| record["code"].as_i64().is_some_and(|code| (200..500).contains(&code));
    jsonl(&log).iter().filter(is_good).filter_map(|record| record["rid"].as_str().map(str::to_owned)).collect()
}

/// Failures of the service: 5xx, no answer, or a gRPC code that says so.
fn failed(record: &Json) -> bool {
    match record["grpc"].as_i64() {
        Some(code) if code != 0 => [2, 4, 8, 10, 12, 13, 14, 15].contains(&code),
        _ => matches!(record["status"].as_i64(), None | Some(0 | 500..)),
    }
}

fn route(client: &Json) -> String {
    let path = match word(client, "route") {
        "orders" | "abort" => "/api/orders/{id}",
        "users" => "/api/users/{id}",
        "search" => "/api/search",
        "report" => "/api/report",
        "checkout" | "nokey" => "/api/checkout",
        "legacy" => "/api/legacy/old",
        "unknown" => "(no route)",
        other => panic!("route {other}"),
    };
    format!("{} {path}", word(client, "method"))
}

fn word<'a>(record: &'a Json, key: &str) -> &'a str {
    record[key].as_str().unwrap()
}

fn unpacked(path: &Path) -> Vec<u8> {
    let packed = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut decoder = zstd::Decoder::new(&packed[..]).unwrap();
    decoder.window_log_max(27).unwrap();
    let mut raw = Vec::new();
    let limited = &mut std::io::Read::take(decoder, RECORDING_MAX_BYTES as u64);
    std::io::Read::read_to_end(limited, &mut raw).unwrap();
    raw
}

fn jsonl(path: &Path) -> Vec<Json> {
    let raw = unpacked(path);
    let lines = raw.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{"));
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// Kind and body of every record of a `WRC1` container.
fn records(raw: &[u8]) -> Vec<(u8, Vec<u8>)> {
    assert_eq!(&raw[..4], b"WRC1");
    let mut rest = &raw[4..];
    let mut take = |n: usize| {
        let (head, tail) = rest.split_at(n);
        rest = tail;
        head
    };
    let mut records = Vec::new();
    let mut left = raw.len() - 4;
    while left > 0 {
        take(8);
        let kind = take(1)[0];
        let meta = usize::from(u16::from_le_bytes(take(2).try_into().unwrap()));
        take(meta);
        let body = u32::from_le_bytes(take(4).try_into().unwrap()) as usize;
        records.push((kind, take(body).to_vec()));
        left -= 15 + meta + body;
    }
    records
}

/// What counts as a call on an edge.
#[test]
fn a_call_is_a_final_attempt_that_left_the_process() {
    let traces = derived(&repository_capture("spawn-all"));
    let (calls, others): (Vec<_>, Vec<_>) = traces.iter().flat_map(|trace| &trace.hops).partition(|hop| hop.is_call());
    assert!(calls.iter().all(|hop| hop.is_final && hop.direction != Direction::Local));
    assert!(
        others.iter().any(|hop| !hop.is_final && hop.direction != Direction::Local),
        "retries are in the recording"
    );
}

/// With every tenth span lost: what is missing is named, and nothing is made up for it.
#[test]
fn lost_spans_are_named_not_guessed() {
    for name in ["full", "spawn-all", "spawn-none", "app-spans", "zipkin-shared"] {
        let folder = repository_capture(name);
        let known: BTreeSet<(String, String)> = measured(&derived(&folder)).into_keys().collect();
        let mut missing = 0;
        for (_, spans) in load::by_trace(spans_of(&folder)) {
            let mut normaliser = Normaliser::default();
            let is_kept = |span: &&Span| !span.span_id.as_u64().is_multiple_of(10);
            let kept: Vec<Arc<NormalSpan>> =
                spans.iter().filter(is_kept).map(|span| Arc::new(normaliser.normalise(span))).collect();
            if kept.is_empty() {
                continue;
            }
            let trace = derive(&kept, &DeriveOptions::from(&normaliser));
            let received: BTreeSet<_> = kept.iter().map(|span| span.span_id).collect();
            let named = kept.iter().filter_map(|span| span.parent_span_id).filter(|parent| !received.contains(parent));
            let named: BTreeSet<_> = named.collect();
            assert_eq!(trace.request.missing_parents.iter().copied().collect::<BTreeSet<_>>(), named);
            missing += named.len();
            for hop in trace.hops.iter().filter(|hop| hop.direction != Direction::Local) {
                let ends = (hop.source.service.to_string(), hop.destination.service.to_string());
                let is_open = ends.0 == UNKNOWN_NODE || ends.1 == UNKNOWN_NODE;
                assert!(is_open || known.contains(&ends), "{name}: {ends:?} is no edge of this mesh: {hop:?}");
                assert_eq!(hop.source_gap.is_some(), ends.0 == UNKNOWN_NODE);
            }
        }
        assert!(missing > 20, "{name}: only {missing} parents are missing");
    }
}
