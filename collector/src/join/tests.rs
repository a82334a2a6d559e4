//! The join against a model: whatever the order, the batches, the duplicates, the ticks and the
//! seals, the sum of everything published equals deriving each trace once from all its spans.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use proptest::prelude::*;
use windrose_proto::Text;
use windrose_proto::attributes::{Attributes, Value};
use windrose_proto::edge::{EdgeKey, EdgeStats, Largest, Sign};
use windrose_proto::hop::{Hop, Request};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::model::{IngestProtocol, SpanKind};
use windrose_proto::span::{Resource, Scope, Span, StatusCode};
use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;
use windrose_store::hot::HotTables;
use windrose_store::sealed::TenantCatalog;
use windrose_store::store::Store;

use super::derive::{DeriveOptions, derive};
use super::joiner::{ArchiveError, JoinLimits, Joiner, TraceArchive, TraceArchives};
use crate::normalise::Normaliser;
use crate::normalise::overrides::{Alias, Overrides};

pub(super) const START: u64 = 1_800_000_000_000_000_000;

/// Spans that left memory, as sealed files would give them back.
#[derive(Debug, Default)]
struct Sealed {
    spans: HashMap<TraceId, Vec<Span>>,
    tables: Vec<Arc<HotTables>>,
}

impl TraceArchive for Sealed {
    fn may_contain(&self, trace: TraceId) -> bool {
        self.spans.contains_key(&trace)
    }

    fn load(&self, trace: TraceId) -> Result<Vec<Span>, ArchiveError> {
        Ok(self.spans.get(&trace).cloned().unwrap_or_default())
    }
}

impl TraceArchive for &Sealed {
    fn may_contain(&self, trace: TraceId) -> bool {
        Sealed::may_contain(self, trace)
    }

    fn load(&self, trace: TraceId) -> Result<Vec<Span>, ArchiveError> {
        Sealed::load(self, trace)
    }
}

impl TraceArchives for Sealed {
    fn archive(&self, _catalog: Arc<TenantCatalog>) -> Box<dyn TraceArchive + '_> {
        Box::new(self)
    }
}

fn envoy(service: &str) -> Arc<Resource> {
    let mut attributes = Attributes::default();
    attributes.push("service.name", Value::Str(format!("{service}.shop").into()));
    attributes.push("telemetry.sdk.name", Value::Str("envoy".into()));
    Arc::new(Resource { attributes, ..Resource::default() })
}

pub(super) struct Half<'a> {
    pub(super) service: &'a str,
    pub(super) node: &'a str,
    pub(super) kind: SpanKind,
    pub(super) cluster: String,
    pub(super) id: u64,
    pub(super) parent: Option<u64>,
    pub(super) start: u64,
    pub(super) millis: u64,
    pub(super) status: u16,
}

pub(super) fn span(trace: u128, half: Half<'_>) -> Span {
    let mut attributes = Attributes::default();
    let text = |value: String| Value::Str(Text::from(value));
    attributes.push("component", text("proxy".into()));
    attributes
        .push("node_id", text(format!("{}~10.0.0.1~{}-v1-abcde.shop~shop.svc.cluster.local", half.node, half.service)));
    attributes.push("http.method", text("GET".into()));
    attributes.push("http.url", text("http://api.example.com/api/orders/17?token=secret".into()));
    attributes.push("http.status_code", text(half.status.to_string()));
    attributes.push("response_flags", text("-".into()));
    attributes.push("upstream_cluster", text(half.cluster));
    Span {
        trace_id: TraceId::new(trace.to_be_bytes()).expect("not zero"),
        span_id: SpanId::new(half.id.to_be_bytes()).expect("not zero"),
        parent_span_id: half.parent.and_then(|id| SpanId::new(id.to_be_bytes())),
        trace_state: Text::default(),
        flags: 0,
        name: Text::from_static("shop"),
        kind: half.kind,
        start: UnixNanos(half.start),
        end: UnixNanos(half.start + half.millis * 1_000_000),
        attributes,
        dropped_attributes_count: 0,
        events: Vec::new(),
        dropped_events_count: 0,
        links: Vec::new(),
        dropped_links_count: 0,
        status: StatusCode::Unset,
        status_message: Text::default(),
        resource: envoy(half.service),
        scope: Arc::new(Scope { name: Text::from_static("envoy"), ..Scope::default() }),
        shared: false,
        ingest: IngestProtocol::OtlpGrpc,
    }
}

/// gateway → orders → users, as Istio's proxies report it, five spans.
fn trace_spans(number: u64, millis: u64, status: u16) -> Vec<Span> {
    let trace = u128::from(number) + 1;
    let base = number * 100;
    let at = START + number * 1_000_000_000;
    let outbound = |service: &str| format!("outbound|8080||{service}.shop.svc.cluster.local");
    let inbound = || "inbound|8080||".to_owned();
    let half = |service, node, kind, cluster, id, parent: u64, shift: u64, status| {
        let parent = (parent > 0).then_some(base + parent);
        span(
            trace,
            Half {
                service,
                node,
                kind,
                cluster,
                id: base + id,
                parent,
                start: at + shift,
                millis: millis + 10 - shift / 1_000_000,
                status,
            },
        )
    };
    vec![
        half("gateway", "router", SpanKind::Server, outbound("orders"), 1, 0, 0, status),
        half("gateway", "router", SpanKind::Client, outbound("orders"), 2, 1, 1_000_000, status),
        half("orders", "sidecar", SpanKind::Server, inbound(), 3, 2, 2_000_000, status),
        half("orders", "sidecar", SpanKind::Client, outbound("users"), 4, 3, 3_000_000, 200),
        half("users", "sidecar", SpanKind::Server, inbound(), 5, 4, 4_000_000, 200),
    ]
}

type Rollup = BTreeMap<EdgeKey, EdgeStats>;
type Rows = BTreeMap<TraceId, (Request, Vec<Hop>)>;

/// What must come out: each trace derived once from all its spans.
fn model(spans: &[Span]) -> (Rollup, Rows) {
    model_with(spans, &Arc::default())
}

fn model_with(spans: &[Span], overrides: &Arc<Overrides>) -> (Rollup, Rows) {
    let mut normaliser = Normaliser::new(Arc::clone(overrides));
    let mut traces: BTreeMap<TraceId, Vec<_>> = BTreeMap::new();
    for span in spans {
        traces.entry(span.trace_id).or_default().push(Arc::new(normaliser.normalise(span)));
    }
    let options = DeriveOptions::from(&normaliser);
    let mut rollup = Rollup::new();
    let mut rows = Rows::new();
    for (trace, spans) in traces {
        let derived = derive(&spans, &options);
        for hop in &derived.hops {
            rollup.entry(EdgeKey::of(hop)).or_default().spans.apply(hop, Sign::Add, false);
        }
        rows.insert(trace, (derived.request, derived.hops));
    }
    (comparable(rollup), rows)
}

/// Everything published, sealed generations first. Evidence of how it came (late, duplicate) is
/// left out: that is what may differ.
fn published(store: &Store, sealed: &Sealed) -> (Rollup, Rows) {
    let snapshot = store.snapshot(&TenantId::default()).expect("published");
    let generations: Vec<&HotTables> = sealed.tables.iter().map(Arc::as_ref).chain(snapshot.generations()).collect();
    let mut rollup = Rollup::new();
    for (key, stats) in generations.iter().flat_map(|tables| tables.edges.values()).flat_map(|window| window.iter()) {
        rollup.entry(EdgeKey::clone(key)).or_default().merge(stats);
    }
    rollup.retain(|_, stats| !stats.spans.is_absent());
    let mut rows: BTreeMap<TraceId, (u32, Request, Vec<Hop>)> = BTreeMap::new();
    for row in generations.iter().flat_map(|tables| &tables.requests).flat_map(|chunk| chunk.iter()) {
        let trace = row.request.trace_id;
        assert!(rows.get(&trace).is_none_or(|(revision, ..)| *revision != row.revision), "revision written twice");
        if rows.get(&trace).is_none_or(|(revision, ..)| *revision < row.revision) {
            rows.insert(trace, (row.revision, Request::clone(&row.request), Vec::new()));
        }
    }
    for row in generations.iter().flat_map(|tables| &tables.hops).flat_map(|chunk| chunk.iter()) {
        let entry = rows.get_mut(&row.hop.trace_id).expect("hops come with a request row");
        if entry.0 == row.revision {
            assert!(!snapshot.is_superseded(row.hop.trace_id, row.revision));
            entry.2.push(Hop::clone(&row.hop));
        } else {
            assert!(snapshot.is_superseded(row.hop.trace_id, row.revision));
        }
    }
    (comparable(rollup), rows.into_iter().map(|(trace, (_, request, hops))| (trace, (request, hops))).collect())
}

/// Without the evidence of how the spans came, and with the few largest reduced to the maximum: how
/// many runners-up are left depends on how often they were taken back.
fn comparable(mut rollup: Rollup) -> Rollup {
    for stats in rollup.values_mut() {
        let spans = &mut stats.spans;
        spans.late = 0;
        spans.duplicate = 0;
        for largest in largest_of(stats) {
            *largest = Largest::from_parts(largest.entries().first().copied(), [], largest.cut());
        }
    }
    rollup
}

fn largest_of(stats: &mut EdgeStats) -> [&mut Largest; 3] {
    let spans = &mut stats.spans;
    [&mut spans.client.slowest, &mut spans.server.slowest, &mut spans.latest_errors]
}

/// Where corrections used up the few largest that are kept, which was the largest is unknown, and only there.
fn forget_used_up(found: &mut Rollup, want: &mut Rollup) {
    for (key, found) in found {
        let Some(want) = want.get_mut(key) else { continue };
        for (found, want) in largest_of(found).into_iter().zip(largest_of(want)) {
            let is_used_up = found.cut().is_some() && found.entries().is_empty();
            for largest in [found, want] {
                let entries = if is_used_up { &[] } else { largest.entries() };
                *largest = Largest::from_parts(entries.to_vec(), [], None);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Hand in so many spans of the shuffled list.
    Ingest(usize),
    /// Let time pass, in seconds, and tick.
    Tick(u64),
    Seal,
    /// Forget everything unsealed and start from what was sealed.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1_usize..8).prop_map(Step::Ingest),
        4 => (0_u64..15).prop_map(Step::Tick),
        1 => Just(Step::Seal),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

struct Run {
    joiner: Joiner,
    store: Store,
    sealed: Sealed,
    open_at_seal: Vec<TraceId>,
    now: UnixNanos,
}

impl Run {
    fn new() -> Self {
        let store = Store::default();
        let joiner = Joiner::new(Normaliser::new(Overrides::default()), JoinLimits::default(), store.clone());
        Self { joiner, store, sealed: Sealed::default(), open_at_seal: Vec::new(), now: UnixNanos(START) }
    }

    fn ingest(&mut self, spans: &[Span]) {
        self.joiner.ingest(&TenantId::default(), spans.to_vec(), self.now, &self.sealed, self.now);
    }

    fn tick(&mut self, secs: u64) {
        self.now = self.now.plus(Duration::from_secs(secs));
        self.joiner.tick(&self.sealed, self.now);
    }

    fn seal(&mut self) {
        self.tick(0);
        for (tenant, batch) in self.joiner.begin_seal(self.now) {
            for row in batch.tables.spans.iter().flat_map(|chunk| chunk.rows()) {
                self.sealed.spans.entry(row.span.trace_id).or_default().push(Span::clone(&row.span));
            }
            self.sealed.tables.push(batch.tables);
            self.open_at_seal = batch.open_traces;
            self.joiner.finish_seal(&tenant, Arc::default());
        }
    }

    /// Everything after the last seal is gone; the caller hands it in again, as the log would.
    fn restart(&mut self) {
        self.store = Store::default();
        self.joiner = Joiner::new(Normaliser::new(Overrides::default()), JoinLimits::default(), self.store.clone());
        let mut revisions: HashMap<TraceId, u32> = HashMap::new();
        for row in self.sealed.tables.iter().flat_map(|tables| &tables.requests).flat_map(|chunk| chunk.iter()) {
            let latest = revisions.entry(row.request.trace_id).or_default();
            *latest = (*latest).max(row.revision);
        }
        revisions.retain(|_, revision| *revision > 1);
        let tenant = TenantId::default();
        self.joiner.restore(&tenant, Arc::default(), revisions, &self.open_at_seal, &self.sealed, self.now);
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_sum_is_the_model(
        shapes in prop::collection::vec((1_u64..500, prop::sample::select(vec![200_u16, 404, 500, 503])), 1..6),
        order in any::<u64>(),
        duplicates in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        missing in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        steps in steps(),
    ) {
        let mut spans: Vec<Span> =
            shapes.iter().enumerate().flat_map(|(number, (millis, status))| trace_spans(number as u64, *millis, *status)).collect();
        for index in missing {
            spans.remove(index.index(spans.len()));
        }
        let (mut want_rollup, want_rows) = model(&spans);
        let mut sent = spans.clone();
        sent.extend(duplicates.iter().map(|index| spans[index.index(spans.len())].clone()));
        shuffle(&mut sent, order);

        let mut run = Run::new();
        let (mut next, mut sealed_until) = (0, 0);
        for step in steps {
            match step {
                Step::Ingest(count) => {
                    let end = (next + count).min(sent.len());
                    run.ingest(&sent[next..end]);
                    next = end;
                }
                Step::Tick(secs) => run.tick(secs),
                Step::Seal => {
                    run.seal();
                    sealed_until = next;
                }
                Step::Restart => {
                    run.restart();
                    next = sealed_until;
                }
            }
        }
        run.ingest(&sent[next..]);
        run.tick(0);
        run.tick(11);
        let (mut rollup, rows) = published(&run.store, &run.sealed);
        forget_used_up(&mut rollup, &mut want_rollup);
        prop_assert_eq!(rollup, want_rollup);
        prop_assert_eq!(rows, want_rows);
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

#[test]
fn a_late_span_makes_a_revision_and_is_counted() {
    let spans = trace_spans(0, 5, 200);
    let mut run = Run::new();
    run.ingest(&spans[..4]);
    run.tick(1);
    run.tick(11);
    assert_eq!(run.joiner.counts().traces_settled, 1);
    run.ingest(&spans[4..]);
    run.tick(1);
    run.tick(11);
    let counts = run.joiner.counts();
    assert_eq!((counts.traces_reopened, counts.revisions, counts.spans_late), (1, 1, 1));
    let (rollup, rows) = published(&run.store, &run.sealed);
    let (want_rollup, want_rows) = model(&spans);
    assert_eq!(rollup, want_rollup);
    assert_eq!(rows, want_rows);
}

/// A trace that was settled, one that was open and one that began after other overrides came into
/// force; the rest of the first two comes later, the third's caller is known by its address only.
#[test]
fn a_trace_keeps_the_overrides_it_began_with() {
    let renamed = Arc::new(Overrides {
        aliases: [("orders".to_owned(), Alias::parse("sales/shop"))].into(),
        ..Overrides::default()
    });
    let [settled, open, fresh] = [0, 1, 2].map(|number| trace_spans(number, 5, 200));
    let mut run = Run::new();
    run.ingest(&settled[..4]);
    run.tick(1);
    run.tick(11);
    run.ingest(&open[..3]);
    run.tick(1);
    run.joiner.follow(&renamed);
    run.ingest(&fresh);
    run.ingest(&settled[4..]);
    // The open ones stay what they are beyond a seal.
    run.seal();
    run.ingest(&open[3..]);
    run.tick(1);
    run.tick(11);
    let (rollup, rows) = published(&run.store, &run.sealed);
    let (mut want_rollup, mut want_rows) = model(&[settled, open].concat());
    let (fresh_rollup, fresh_rows) = model_with(&fresh, &renamed);
    for (key, stats) in fresh_rollup {
        want_rollup.entry(key).or_default().merge(&stats);
    }
    want_rows.extend(fresh_rows);
    assert_eq!(edge_names(&rollup), edge_names(&want_rollup));
    assert_eq!(comparable(rollup), comparable(want_rollup));
    assert_eq!(rows, want_rows);
    assert!(rows.values().flat_map(|(_, hops)| hops).any(|hop| hop.destination.service == "shop"));
    // The same overrides once more change nothing.
    run.joiner.follow(&renamed);
    assert_eq!(run.joiner.counts().spans_duplicate, 0);
}

#[test]
fn the_ledger_balances_and_a_duplicate_is_stored_once() {
    let spans = trace_spans(0, 5, 200);
    let mut run = Run::new();
    run.ingest(&spans);
    run.ingest(&spans[1..3]);
    run.tick(1);
    let snapshot = run.store.snapshot(&TenantId::default()).expect("published");
    let sum = |of: fn(&windrose_store::ledger::ReporterCounts) -> u64| -> u64 {
        snapshot.ledger.reporters.values().map(of).sum()
    };
    assert_eq!((sum(|c| c.received), sum(|c| c.stored), sum(|c| c.duplicate)), (7, 5, 2));
    assert_eq!(snapshot.hot.span_rows(), 5);
}

#[test]
fn memory_of_open_traces_is_bounded() {
    let limits = JoinLimits { max_open_bytes: 20_000, ..JoinLimits::default() };
    let store = Store::default();
    let mut joiner = Joiner::new(Normaliser::new(Overrides::default()), limits, store);
    let sealed = Sealed::default();
    let now = UnixNanos(START);
    for number in 0..200 {
        joiner.ingest(&TenantId::default(), trace_spans(number, 5, 200), now, &sealed, now);
        joiner.tick(&sealed, now);
    }
    assert!(joiner.gauges().open_bytes <= limits.max_open_bytes, "{:?}", joiner.gauges());
    assert!(joiner.counts().traces_evicted > 0);
}

// === Across traces ===

/// A caller that nobody heard of yet, an orphan it called, and a restarted trace of one request.
fn spans_across_traces() -> Vec<Span> {
    let at = |millis: u64| START + millis * 1_000_000;
    let outbound = |service: &str| format!("outbound|8080||{service}.shop.svc.cluster.local");
    let half = |service, node, kind, cluster, id, parent, start, millis| Half {
        service,
        node,
        kind,
        cluster,
        id,
        parent,
        start,
        millis,
        status: 200,
    };
    let with = |span: Span, texts: &[(&'static str, &str)]| {
        let mut span = span;
        for (key, text) in texts {
            span.attributes.push(*key, Value::Str((*text).into()));
        }
        span
    };
    let from = |span: Span, ip: &str| {
        let mut moved = span.clone();
        moved.attributes = Attributes::default();
        for attribute in span.attributes.iter() {
            let value = match (&*attribute.key, attribute.value.as_str()) {
                ("node_id", Some(id)) => Value::Str(id.replace("10.0.0.1", ip).into()),
                _ => attribute.value.clone(),
            };
            moved.attributes.push(attribute.key.clone(), value);
        }
        moved
    };
    let request = [("guid:x-request-id", "r-1")];
    vec![
        // Trace 1: orders calls users; its own address is 10.0.0.5.
        from(span(1, half("orders", "sidecar", SpanKind::Client, outbound("users"), 11, None, at(0), 20)), "10.0.0.5"),
        from(
            span(1, half("users", "sidecar", SpanKind::Server, "inbound|8080||".into(), 12, Some(11), at(1), 10)),
            "10.0.0.6",
        ),
        // Trace 2: stock was called from 10.0.0.5; the caller's span never came.
        with(
            from(
                span(2, half("stock", "sidecar", SpanKind::Server, "inbound|8080||".into(), 21, Some(20), at(5), 10)),
                "10.0.0.7",
            ),
            &[("peer.address", "10.0.0.5")],
        ),
        // Trace 3: a gateway calls carts, whose sidecar does not read its header.
        with(span(3, half("gateway", "router", SpanKind::Server, outbound("carts"), 31, None, at(100), 50)), &request),
        span(3, half("gateway", "router", SpanKind::Client, outbound("carts"), 32, Some(31), at(101), 48)),
        // Trace 4: the same request, begun anew, goes on to prices.
        with(
            from(
                span(4, half("carts", "sidecar", SpanKind::Server, "inbound|8080||".into(), 41, None, at(102), 40)),
                "10.0.0.8",
            ),
            &request,
        ),
        with(
            from(
                span(4, half("carts", "sidecar", SpanKind::Client, outbound("prices"), 42, Some(41), at(103), 30)),
                "10.0.0.8",
            ),
            &request,
        ),
    ]
}

fn edge_names(rollup: &Rollup) -> Vec<String> {
    let name = |(key, stats): (&EdgeKey, &EdgeStats)| {
        let entry = match &key.entry {
            Some(windrose_proto::hop::Entry::Route(route)) => route.route.to_string(),
            Some(windrose_proto::hop::Entry::Unknown(gap)) => gap.as_str().to_owned(),
            None => String::new(),
        };
        let ends = format!("{} -> {}", key.source.service, key.destination.service);
        format!("{ends} [{entry}] {} {}", key.direction, stats.spans.calls)
    };
    let mut names: Vec<String> = rollup.iter().map(name).collect();
    names.sort();
    names
}

#[test]
fn other_traces_say_whose_an_address_is_and_which_request_goes_on() {
    let mut run = Run::new();
    run.ingest(&spans_across_traces());
    run.tick(0);
    run.tick(11);
    let (rollup, rows) = published(&run.store, &run.sealed);
    assert_eq!(
        edge_names(&rollup),
        [
            "(client) -> gateway [GET /api/orders/{id}] north_south 1",
            "carts -> prices [GET /api/orders/{id}] east_west 1",
            "gateway -> carts [GET /api/orders/{id}] north_south 1",
            "orders -> stock [parent_never_received] east_west 1",
            "orders -> users [propagation_lost] east_west 1",
        ]
    );
    let trace = TraceId::new(4_u128.to_be_bytes()).expect("not zero");
    assert_eq!(rows[&trace].0.gaps.as_slice(), [windrose_proto::hop::Gap::NoGateway]);
    let counts = run.joiner.counts();
    assert_eq!((counts.facts_address, counts.facts_entry, counts.facts_conflict), (1, 1, 0));
}

proptest! {
    /// In whatever order, batches and ticks the spans come, with late ones after settling and after
    /// sealing: the same rollups and rows.
    #[test]
    fn what_traces_learn_from_each_other_does_not_depend_on_the_order(
        order in any::<u64>(),
        duplicates in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        steps in prop::collection::vec(prop_oneof![
            4 => (1_usize..4).prop_map(Step::Ingest),
            3 => (0_u64..15).prop_map(Step::Tick),
            1 => Just(Step::Seal),
        ], 1..20),
    ) {
        let spans = spans_across_traces();
        let mut at_once = Run::new();
        at_once.ingest(&spans);
        at_once.tick(0);
        at_once.tick(11);
        let want = published(&at_once.store, &at_once.sealed);

        let mut sent = spans.clone();
        sent.extend(duplicates.iter().map(|index| spans[index.index(spans.len())].clone()));
        shuffle(&mut sent, order);
        let mut run = Run::new();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Ingest(count) => {
                    let end = (next + count).min(sent.len());
                    run.ingest(&sent[next..end]);
                    next = end;
                }
                Step::Tick(secs) => run.tick(secs),
                Step::Seal => run.seal(),
                Step::Restart => unreachable!("not among the steps"),
            }
        }
        run.ingest(&sent[next..]);
        run.tick(0);
        run.tick(11);
        let found = published(&run.store, &run.sealed);
        prop_assert_eq!(found.0, want.0);
        prop_assert_eq!(found.1, want.1);
    }
}
