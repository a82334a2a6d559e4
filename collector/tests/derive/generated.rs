//! Properties over generated meshes: requests through gateways, sidecars, applications and egress
//! gateways, with retries, work that outlives its caller, shared ids, mirrored copies and spans that
//! never come. A generated request knows its own truth.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use windrose_collector::join::derive::{DeriveOptions, derive};
use windrose_collector::join::joiner::{JoinLimits, Joiner, NothingSealed, SpanUses};
use windrose_collector::normalise::Normaliser;
use windrose_proto::attributes::{Attributes, Value};
use windrose_proto::edge::{EdgeKey, EdgeStats, Largest, Sign, SpanStats};
use windrose_proto::hop::{Derived, Entry, Hop};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::model::{Direction, SpanKind};
use windrose_proto::normal::NormalSpan;
use windrose_proto::span::{Resource, Scope, Span, StatusCode};
use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;
use windrose_store::store::Store;

use crate::load::empty_span;

const START: u64 = 1_800_000_000_000_000_000;
const MILLI: u64 = 1_000_000;
const EGRESS: &str = "istio-egressgateway";

/// One call and what its callee does.
#[derive(Clone, Debug)]
struct Call {
    service: u8,
    /// Attempts that were repeated before the last one.
    retries: u8,
    fails: bool,
    /// The callee's work goes on after its caller got an answer.
    outlives: bool,
    /// Its sidecar sends a copy to a service that nobody waits for.
    mirrored: bool,
    /// The callee's application makes spans of its own.
    has_app: bool,
    /// Calls a partner outside through the egress gateway.
    egress: bool,
    calls: Vec<Self>,
}

/// What is drawn of a call besides the calls it makes.
type Shape = (u8, u8, (bool, bool, bool, bool, bool));

fn call() -> impl Strategy<Value = Call> {
    let flags = (
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.15),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.2),
    );
    let shape = (0..5_u8, prop_oneof![5 => Just(0_u8), 1 => 1..3_u8], flags);
    let make = |((service, retries, flags), calls): (Shape, Vec<Call>)| Call {
        service,
        retries,
        fails: flags.0,
        outlives: flags.1,
        mirrored: flags.2,
        has_app: flags.3,
        egress: flags.4,
        calls,
    };
    let leaf = shape.clone().prop_map(move |shape| make((shape, Vec::new())));
    leaf.prop_recursive(4, 24, 3, move |inner| (shape.clone(), prop::collection::vec(inner, 0..3)).prop_map(make))
}

/// A request and how its spans travel.
#[derive(Clone, Debug)]
struct Request {
    by_gateway: bool,
    shared_ids: bool,
    call: Call,
}

fn request() -> impl Strategy<Value = Request> {
    (prop::bool::weighted(0.8), prop::bool::weighted(0.25), call()).prop_map(|(by_gateway, shared_ids, call)| Request {
        by_gateway,
        shared_ids,
        call,
    })
}

/// Calls and attempts by source and destination.
type Truth = BTreeMap<(String, String), (usize, usize)>;

struct Writer {
    trace: TraceId,
    shared_ids: bool,
    next_id: u64,
    spans: Vec<Span>,
    truth: Truth,
    mirrored: usize,
}

/// Who writes a span, and where it is sent.
struct Place<'a> {
    service: &'a str,
    node: &'a str,
    kind: SpanKind,
    cluster: Option<String>,
    host: String,
}

impl Writer {
    fn of(request: &Request, number: u8) -> Self {
        let mut writer = Self {
            trace: TraceId::new([number.max(1); 16]).unwrap(),
            shared_ids: request.shared_ids,
            next_id: 1,
            spans: Vec::new(),
            truth: Truth::new(),
            mirrored: 0,
        };
        let (start, end) = (START, START + 4_000 * MILLI);
        if request.by_gateway {
            writer.count("(client)", "gateway", 1);
            let place = |kind| Place {
                service: "gateway",
                node: "router",
                kind,
                cluster: Some(cluster_of(request.call.service)),
                host: "shop.example.com".to_owned(),
            };
            let entry = writer.span(place(SpanKind::Server), None, (start, end), 200);
            writer.attempts("gateway", &request.call, entry, (start, end));
        } else {
            // A job of its own.
            let service = name_of(request.call.service);
            let place = inbound(&service, "");
            let entry = writer.span(place, None, (start, end), 200);
            writer.count("(unknown)", &service, 1);
            writer.work(&service, &request.call, entry, (start, end));
        }
        writer
    }

    fn count(&mut self, source: &str, destination: &str, attempts: usize) {
        let edge = self.truth.entry((source.to_owned(), destination.to_owned())).or_default();
        edge.0 += 1;
        edge.1 += attempts;
    }

    /// A gateway makes a span per attempt.
    fn attempts(&mut self, source: &str, call: &Call, entry: SpanId, (start, end): (u64, u64)) {
        let service = name_of(call.service);
        let tries = u64::from(call.retries) + 1;
        let width = (end - start) / tries;
        for attempt in 0..tries {
            let at = (start + attempt * width + MILLI, start + (attempt + 1) * width - MILLI);
            let is_last = attempt + 1 == tries;
            let status = if !is_last || call.fails { 503 } else { 200 };
            let place = Place {
                service: source,
                node: "",
                kind: SpanKind::Client,
                cluster: Some(cluster_of(call.service)),
                host: String::new(),
            };
            let client = self.span(place, Some(entry), at, status);
            let last = self.spans.len() - 1;
            self.put(last, "upstream_address", "10.0.0.9:15006");
            if attempt > 0 {
                self.put(last, "retry.count", &attempt.to_string());
            }
            self.arrive(&service, call, client, at, status, is_last);
        }
        self.count(source, &service, tries as usize);
    }

    /// A sidecar makes one span over all attempts.
    fn sidecar_call(&mut self, source: &str, call: &Call, parent: SpanId, (start, end): (u64, u64)) {
        let service = name_of(call.service);
        let client = self.app_call(source, call, parent, (start, end));
        let tries = u64::from(call.retries) + 1;
        let width = (end - start) / tries;
        for attempt in 0..tries {
            let is_last = attempt + 1 == tries;
            let status = if !is_last || call.fails { 503 } else { 200 };
            let mut at = (start + attempt * width + MILLI, start + (attempt + 1) * width - MILLI);
            if is_last && call.outlives {
                at.1 = end + 300 * MILLI;
            }
            self.arrive(&service, call, client, at, status, is_last);
        }
        self.count(source, &service, tries as usize);
        if call.mirrored {
            let copy = inbound("copycat", "-shadow");
            self.span(copy, Some(client), (start + 2 * MILLI, end), 500);
            self.mirrored += 1;
        }
    }

    /// The client span of a sidecar, below that of its application when it has one.
    fn app_call(&mut self, source: &str, call: &Call, parent: SpanId, at: (u64, u64)) -> SpanId {
        let place = Place {
            service: source,
            node: "sidecar",
            kind: SpanKind::Client,
            cluster: Some(cluster_of(call.service)),
            host: host_of(&name_of(call.service), ""),
        };
        self.span(place, Some(parent), at, if call.fails { 503 } else { 200 })
    }

    fn arrive(&mut self, service: &str, call: &Call, client: SpanId, at: (u64, u64), status: u16, works: bool) {
        let place = inbound(service, "");
        let entry = if self.shared_ids && call.retries == 0 && !call.mirrored {
            // Both halves have the id and the parent of the client half.
            self.span(place, parent_of(&self.spans, client), at, status);
            let half = self.spans.last_mut().unwrap();
            (half.span_id, half.shared) = (client, true);
            client
        } else {
            self.span(place, Some(client), at, status)
        };
        if works {
            self.work(service, call, entry, at);
        }
    }

    /// What a service does between its sidecar's two sides.
    fn work(&mut self, service: &str, call: &Call, entry: SpanId, (start, end): (u64, u64)) {
        let end = end.min(start + 3_900 * MILLI);
        let steps = call.calls.len() as u64 + u64::from(call.egress);
        let mut parent = entry;
        if call.has_app {
            parent = self.app_span(service, SpanKind::Server, entry, (start, end));
        }
        if steps == 0 || end <= start + 10 * MILLI * steps {
            return;
        }
        let width = (end - start) / steps;
        for (step, inner) in call.calls.iter().enumerate() {
            // Nobody calls itself: two pods of one service look alike.
            let own: u8 = service.trim_start_matches('s').parse().unwrap_or(0);
            let inner = &Call { service: (own + 1 + inner.service % 4) % 5, ..inner.clone() };
            let at = (start + step as u64 * width, start + (step as u64 + 1) * width);
            if at.1 - at.0 < 10 * MILLI {
                return;
            }
            let parent = if call.has_app { self.app_span(service, SpanKind::Client, parent, at) } else { parent };
            self.sidecar_call(service, inner, parent, at);
        }
        if call.egress {
            self.egress_call(service, parent, (end - width, end));
        }
    }

    fn egress_call(&mut self, service: &str, parent: SpanId, (start, end): (u64, u64)) {
        let to_egress = Place {
            service,
            node: "sidecar",
            kind: SpanKind::Client,
            cluster: Some(format!("outbound|80||{EGRESS}.istio-system.svc.cluster.local")),
            host: "api.partner.example".to_owned(),
        };
        let client = self.span(to_egress, Some(parent), (start, end), 200);
        let cluster = || Some("outbound|443||api.partner.example".to_owned());
        let place = |node, kind| Place {
            service: EGRESS,
            node,
            kind,
            cluster: cluster(),
            host: "api.partner.example".to_owned(),
        };
        let entry = self.span(place("router", SpanKind::Server), Some(client), (start + MILLI, end - MILLI), 200);
        self.span(place("", SpanKind::Client), Some(entry), (start + 2 * MILLI, end - 2 * MILLI), 200);
        let last = self.spans.len() - 1;
        self.put(last, "upstream_address", "203.0.113.7:443");
        self.count(service, EGRESS, 1);
        self.count(EGRESS, "api.partner.example", 1);
    }

    fn app_span(&mut self, service: &str, kind: SpanKind, parent: SpanId, (start, end): (u64, u64)) -> SpanId {
        let id = self.id();
        self.spans.push(Span {
            trace_id: self.trace,
            span_id: id,
            parent_span_id: Some(parent),
            name: "handle".into(),
            kind,
            start: UnixNanos(start),
            end: UnixNanos(end),
            resource: resource(service, None),
            scope: Arc::new(Scope { name: "app".into(), ..Scope::default() }),
            ..empty_span()
        });
        id
    }

    fn id(&mut self) -> SpanId {
        self.next_id += 1;
        SpanId::new(self.next_id.to_be_bytes()).unwrap()
    }

    fn span(&mut self, place: Place<'_>, parent: Option<SpanId>, (start, end): (u64, u64), status: u16) -> SpanId {
        let id = self.id();
        let mut attributes = Attributes::default();
        let mut put = |key: &'static str, value: String| attributes.push(key, Value::Str(value.into()));
        put("component", "proxy".to_owned());
        put("http.status_code", status.to_string());
        put("response_flags", "-".to_owned());
        if let Some(cluster) = place.cluster {
            put("upstream_cluster", cluster);
        }
        if !place.node.is_empty() {
            let address = place.service.bytes().fold(7_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
            let pod = format!("{}-v1-6c9f8b7d4-x2x9k.shop", place.service);
            put("node_id", format!("{}~10.0.1.{address}~{pod}~shop.svc.cluster.local", place.node));
            put("http.method", "GET".to_owned());
            put("http.url", format!("http://{}/api/items/17", place.host));
            put("guid:x-request-id", format!("request-{}", self.trace));
        }
        self.spans.push(Span {
            trace_id: self.trace,
            span_id: id,
            parent_span_id: parent,
            name: "call".into(),
            kind: place.kind,
            start: UnixNanos(start),
            end: UnixNanos(end.max(start)),
            attributes,
            status: if status >= 500 { StatusCode::Error } else { StatusCode::Unset },
            resource: resource(place.service, Some("shop")),
            scope: Arc::new(Scope { name: "envoy".into(), ..Scope::default() }),
            ..empty_span()
        });
        id
    }

    fn put(&mut self, place: usize, key: &'static str, value: &str) {
        self.spans[place].attributes.push(key, Value::Str(value.into()));
    }
}

fn parent_of(spans: &[Span], id: SpanId) -> Option<SpanId> {
    spans.iter().find(|span| span.span_id == id).and_then(|span| span.parent_span_id)
}

fn inbound<'a>(service: &'a str, shadow: &str) -> Place<'a> {
    Place {
        service,
        node: "sidecar",
        kind: SpanKind::Server,
        cluster: Some("inbound|8080||".to_owned()),
        host: host_of(service, shadow),
    }
}

fn name_of(service: u8) -> String {
    format!("s{service}")
}

fn host_of(service: &str, shadow: &str) -> String {
    format!("{service}.shop.svc.cluster.local{shadow}:8080")
}

fn cluster_of(service: u8) -> String {
    format!("outbound|8080||{}.shop.svc.cluster.local", name_of(service))
}

fn resource(service: &str, namespace: Option<&str>) -> Arc<Resource> {
    let mut attributes = Attributes::default();
    let name = namespace.map_or_else(|| service.to_owned(), |namespace| format!("{service}.{namespace}"));
    attributes.push("service.name", Value::Str(name.into()));
    Arc::new(Resource { attributes, ..Resource::default() })
}

fn normalised(spans: &[Span]) -> Vec<Arc<NormalSpan>> {
    let mut normaliser = Normaliser::default();
    spans.iter().map(|span| Arc::new(normaliser.normalise(span))).collect()
}

fn derived(spans: &[Span]) -> Derived {
    derive(&normalised(spans), &DeriveOptions::default())
}

fn is_edge(hop: &Hop) -> bool {
    hop.direction != Direction::Local && !hop.mirror
}

fn found(hops: &[Hop]) -> Truth {
    let mut found = Truth::new();
    for hop in hops.iter().filter(|hop| is_edge(hop)) {
        let ends = (hop.source.service.to_string(), hop.destination.service.to_string());
        let edge = found.entry(ends).or_default();
        edge.0 += usize::from(hop.is_call());
        edge.1 += 1;
    }
    found
}

type Rollup = BTreeMap<EdgeKey, EdgeStats>;

fn rolled_up<'h>(hops: impl IntoIterator<Item = &'h Hop>) -> Rollup {
    let mut rollup = Rollup::new();
    for hop in hops {
        rollup.entry(EdgeKey::of(hop)).or_default().spans.apply(hop, Sign::Add, false);
    }
    rollup
}

fn merged(mut into: Rollup, from: &Rollup) -> Rollup {
    for (key, stats) in from {
        into.entry(key.clone()).or_default().merge(stats);
    }
    into
}

/// Where corrections used up the list of one, its largest is unknown and says nothing about the other's.
fn forget_used_up(one: &mut Rollup, other: &mut Rollup) {
    for (key, one) in one {
        let Some(other) = other.get_mut(key) else { continue };
        for (one, other) in largest_of(&mut one.spans).into_iter().zip(largest_of(&mut other.spans)) {
            if [&*one, &*other].iter().any(|largest| largest.cut().is_some() && largest.entries().is_empty()) {
                (*one, *other) = Default::default();
            }
        }
    }
}

fn largest_of(spans: &mut SpanStats) -> [&mut Largest; 3] {
    [&mut spans.client.slowest, &mut spans.server.slowest, &mut spans.latest_errors]
}

/// Without what may be cut off: how many runners-up of the slowest are remembered.
fn comparable(mut rollup: Rollup) -> Rollup {
    for stats in rollup.values_mut() {
        let spans = &mut stats.spans;
        (spans.late, spans.duplicate) = (0, 0);
        for largest in largest_of(spans) {
            *largest = Largest::from_parts(largest.entries().first().copied(), [], None);
        }
    }
    rollup.retain(|_, stats| !stats.spans.is_absent());
    rollup
}

fn without(spans: &[Span], missing: &[prop::sample::Index]) -> Vec<Span> {
    let mut kept = spans.to_vec();
    for index in missing {
        if kept.len() > 1 {
            kept.remove(index.index(kept.len()));
        }
    }
    kept
}

proptest! {
    /// With all spans received: the edges, calls and attempts are those that were made, also where a sidecar's span covers
    /// attempts that nobody numbered.
    #[test]
    fn what_was_called_is_what_is_found(request in request()) {
        let writer = Writer::of(&request, 1);
        let trace = derived(&writer.spans);
        let found = found(&trace.hops);
        prop_assert_eq!(&found, &writer.truth);
        let copies = trace.hops.iter().filter(|hop| hop.mirror && hop.direction != Direction::Local).count();
        prop_assert_eq!(copies, writer.mirrored);
        prop_assert_eq!(matches!(trace.request.entry, Entry::Route(_)), request.by_gateway);
        prop_assert!(trace.request.missing_parents.is_empty());
    }

    /// Any subset of the spans, in any order, any of them twice: the same.
    #[test]
    fn order_and_duplicates_do_not_matter(
        request in request(),
        missing in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        duplicates in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        seed in any::<u64>(),
    ) {
        let spans = without(&Writer::of(&request, 1).spans, &missing);
        let mut sent = spans.clone();
        sent.extend(duplicates.iter().map(|index| spans[index.index(spans.len())].clone()));
        shuffle(&mut sent, seed);
        prop_assert_eq!(derived(&spans), derived(&sent));
    }

    /// Any split of several traces into batches, with ticks between them: the same rollups.
    #[test]
    fn batches_do_not_matter(
        requests in prop::collection::vec(request(), 1..4),
        missing in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        batches in prop::collection::vec((1..12_usize, 0..15_u64), 1..8),
        seed in any::<u64>(),
    ) {
        let all: Vec<Span> = (1..).zip(&requests).flat_map(|(n, request)| Writer::of(request, n).spans).collect();
        let spans = without(&all, &missing);
        let run = |sent: &[Span], batches: &[(usize, u64)]| {
            let store = Store::default();
            let mut joiner = Joiner::new(Normaliser::default(), JoinLimits::default(), store.clone());
            let (tenant, mut now, mut rest) = (TenantId::default(), UnixNanos(START), sent);
            for (size, secs) in batches {
                let (batch, after) = rest.split_at((*size).min(rest.len()));
                joiner.ingest(&tenant, batch.to_vec(), now, &NothingSealed, now);
                now = now.plus(Duration::from_secs(*secs));
                joiner.tick(&NothingSealed, now);
                rest = after;
            }
            joiner.ingest(&tenant, rest.to_vec(), now, &NothingSealed, now);
            joiner.tick(&NothingSealed, now);
            let snapshot = store.snapshot(&tenant).unwrap();
            let mut rollup = Rollup::new();
            for (key, stats) in snapshot.generations().flat_map(|tables| tables.edges.values()).flat_map(|w| w.iter()) {
                rollup.entry(EdgeKey::clone(key)).or_default().merge(stats);
            }
            let counts = joiner.counts();
            (rollup, counts.uses, counts.spans_stored)
        };
        let mut shuffled = spans.clone();
        shuffle(&mut shuffled, seed);
        let (mut at_once, uses, stored) = run(&spans, &[]);
        let (mut in_batches, uses_in_batches, _) = run(&shuffled, &batches);
        forget_used_up(&mut at_once, &mut in_batches);
        prop_assert_eq!(comparable(at_once), comparable(in_batches));
        prop_assert_eq!(uses, uses_in_batches);
        // Every span is a half of a hop, of a local leg, a phase, or listed with a reason.
        prop_assert_eq!(uses.sum(), i64::try_from(stored).unwrap());
    }

    /// Rollups add up whatever way they are grouped, and what is taken back is gone.
    #[test]
    fn rollups_are_sums(
        requests in prop::collection::vec(request(), 1..4),
        cuts in any::<[prop::sample::Index; 2]>(),
        taken_back in any::<prop::sample::Index>(),
    ) {
        let traces = (1..).zip(&requests).map(|(n, request)| derived(&Writer::of(request, n).spans));
        let hops: Vec<Hop> = traces.flat_map(|trace| trace.hops).collect();
        let mut cuts = cuts.map(|cut| cut.index(hops.len() + 1));
        cuts.sort_unstable();
        let parts = [&hops[..cuts[0]], &hops[cuts[0]..cuts[1]], &hops[cuts[1]..]].map(rolled_up);
        let [a, b, c] = parts;
        let left = merged(merged(a.clone(), &b), &c);
        let right = merged(a, &merged(b, &c));
        prop_assert_eq!(comparable(left.clone()), comparable(right));
        prop_assert_eq!(comparable(left.clone()), comparable(rolled_up(&hops)));

        let gone = taken_back.index(hops.len());
        let mut correction = EdgeStats::default();
        correction.spans.apply(&hops[gone], Sign::Retract, true);
        let correction = Rollup::from([(EdgeKey::of(&hops[gone]), correction)]);
        let rest = hops.iter().enumerate().filter(|(place, _)| *place != gone).map(|(_, hop)| hop);
        prop_assert_eq!(comparable(merged(left, &correction)), comparable(rolled_up(rest)));
    }

    /// A route's calls are the sum over its edges, and every span is accounted for.
    #[test]
    fn routes_and_spans_add_up(
        request in request(),
        missing in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let spans = without(&Writer::of(&request, 1).spans, &missing);
        let trace = derived(&spans);
        let calls = |hops: &mut dyn Iterator<Item = &Hop>| hops.filter(|hop| hop.is_call()).count() as i64;
        let mut by_route: BTreeMap<&Entry, i64> = BTreeMap::new();
        let rollup = rolled_up(&trace.hops);
        for (key, stats) in &rollup {
            *by_route.entry(key.entry.as_ref().unwrap()).or_default() += stats.spans.calls;
        }
        for (entry, sum) in by_route {
            prop_assert_eq!(sum, calls(&mut trace.hops.iter().filter(|hop| hop.entry == *entry)));
        }
        prop_assert_eq!(SpanUses::of(&trace).sum(), spans.len() as i64);
        prop_assert_eq!(trace.verdicts.len(), spans.len());
    }
}

/// Fisher–Yates with a splitmix sequence: the same order for the same seed in every run.
fn shuffle(spans: &mut [Span], mut seed: u64) {
    for place in (1..spans.len()).rev() {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        spans.swap(place, (mixed >> 16) as usize % (place + 1));
    }
}
