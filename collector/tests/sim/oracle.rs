//! What must be there, compared with what readers see.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::runtime::Runtime;
use windrose_collector::join::derive::{DeriveOptions, derive};
use windrose_collector::normalise::Normaliser;
use windrose_collector::normalise::overrides::Overrides;
use windrose_proto::edge::{EdgeKey, EdgeStats, Largest, Sign};
use windrose_proto::hop::{Hop, Request};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::span::Span;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::TimeRange;
use windrose_store::snapshot::TenantSnapshot;
use windrose_store::store::Store;
use windrose_store::tables::{Table, spans};

/// Which span.
pub(crate) type Key = (TenantId, TraceId, SpanId);

/// What the senders know.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// Every span ever sent.
    sent: BTreeMap<Key, Span>,
    acknowledged: BTreeSet<Key>,
    /// Refused in this life of the process: must not be seen unless a crash shows what a failed
    /// write left behind.
    refused: BTreeSet<Key>,
    /// May be there or not: refused, and then the process died.
    unknown: BTreeSet<Key>,
}

impl Oracle {
    pub(crate) fn sent(&mut self, key: &Key, span: &Span) {
        self.sent.entry(key.clone()).or_insert_with(|| span.clone());
    }

    pub(crate) fn acknowledged(&mut self, keys: Vec<Key>) {
        self.acknowledged.extend(keys);
    }

    pub(crate) fn refused(&mut self, keys: Vec<Key>) {
        self.refused.extend(keys);
    }

    /// The process has died: what it refused may have reached the disk all the same.
    pub(crate) fn process_died(&mut self) {
        self.unknown.append(&mut self.refused);
    }

    /// Compares the spans. Returns those that are there.
    ///
    /// # Panics
    /// When the store is wrong.
    pub(crate) fn check_spans(&self, store: &Store, runtime: &Runtime) -> BTreeMap<Key, Span> {
        let mut present: BTreeMap<Key, Span> = BTreeMap::new();
        for tenant in store.tenants() {
            let snapshot = store.snapshot(&tenant).expect("a tenant of the store");
            for span in spans_of(&snapshot, runtime) {
                let key = (tenant.clone(), span.trace_id, span.span_id);
                let before = present.insert(key.clone(), span);
                assert_eq!(before, None, "{key:?} is there twice");
            }
        }
        for key in &self.acknowledged {
            assert!(present.contains_key(key), "acknowledged {key:?} is lost");
        }
        for (key, span) in &present {
            let sent = self.sent.get(key).unwrap_or_else(|| panic!("{key:?} was never sent"));
            assert_eq!(span, sent, "a span has changed");
            let expected = self.acknowledged.contains(key) || self.unknown.contains(key);
            assert!(expected, "{key:?} was refused and is there (refused now: {})", self.refused.contains(key));
        }
        present
    }

    /// Compares the graph and the rows, once all traces have settled.
    ///
    /// # Panics
    /// When the store is wrong.
    pub(crate) fn check_answers(&self, store: &Store, runtime: &Runtime) {
        let present = self.check_spans(store, runtime);
        for tenant in store.tenants() {
            let snapshot = store.snapshot(&tenant).expect("a tenant of the store");
            let of_tenant = present.iter().filter(|((of, ..), _)| *of == tenant).map(|(_, span)| span);
            let (want_rollup, want_rows) = model(of_tenant);
            let rollup = rollup_of(&snapshot, runtime);
            assert_eq!(
                rollup.keys().collect::<Vec<_>>(),
                want_rollup.keys().collect::<Vec<_>>(),
                "other edges than those of the spans"
            );
            for (key, stats) in rollup {
                let mut want = want_rollup[&key].clone();
                assert_eq!(comparable(stats, &mut want), want, "{key:?}");
            }
            let rows = rows_of(&snapshot, runtime);
            assert_eq!(rows.keys().collect::<Vec<_>>(), want_rows.keys().collect::<Vec<_>>(), "requests");
            for (trace, row) in &rows {
                assert_eq!(row, &want_rows[trace], "{trace}");
            }
        }
    }
}

fn spans_of(snapshot: &TenantSnapshot, runtime: &Runtime) -> Vec<Span> {
    let hot = snapshot.generations().flat_map(|tables| &tables.spans).flat_map(|chunk| chunk.rows());
    let mut found: Vec<Span> = hot.map(|row| Span::clone(&row.span)).collect();
    for segment in snapshot.sealed.segments(Table::Spans) {
        found.extend(runtime.block_on(segment.read_rows(spans::from_batch)).expect("a sealed file"));
    }
    found
}

type Rollup = BTreeMap<EdgeKey, EdgeStats>;
type Rows = BTreeMap<TraceId, (Request, Vec<Hop>)>;

/// Each trace derived once from all its spans.
fn model<'a>(spans: impl Iterator<Item = &'a Span>) -> (Rollup, Rows) {
    let mut normaliser = Normaliser::new(Overrides::default());
    let mut traces: BTreeMap<TraceId, Vec<_>> = BTreeMap::new();
    for span in spans {
        traces.entry(span.trace_id).or_default().push(Arc::new(normaliser.normalise(span)));
    }
    let options = DeriveOptions::from(&normaliser);
    let (mut rollup, mut rows) = (Rollup::new(), Rows::new());
    for (trace, spans) in traces {
        let derived = derive(&spans, &options);
        for hop in &derived.hops {
            rollup.entry(EdgeKey::of(hop)).or_default().spans.apply(hop, Sign::Add, false);
        }
        rows.insert(trace, (derived.request, sorted(derived.hops)));
    }
    (rollup, rows)
}

fn rollup_of(snapshot: &TenantSnapshot, runtime: &Runtime) -> Rollup {
    let mut rollup = Rollup::new();
    let sealed = runtime.block_on(snapshot.sealed.read_edges(TimeRange::ALL)).expect("sealed edges");
    for row in snapshot.generations().flat_map(|tables| tables.edge_rows(TimeRange::ALL)).chain(sealed) {
        rollup.entry(EdgeKey::clone(&row.key)).or_default().merge(&row.stats);
    }
    rollup.retain(|_, stats| !stats.spans.is_absent());
    rollup
}

/// The rows of the latest revision of each trace.
fn rows_of(snapshot: &TenantSnapshot, runtime: &Runtime) -> Rows {
    let sealed = runtime.block_on(snapshot.sealed.read_requests(TimeRange::ALL)).expect("sealed requests");
    let hot = snapshot.generations().flat_map(|tables| &tables.requests).flat_map(|chunk| chunk.iter().cloned());
    let mut rows = Rows::new();
    for row in hot.chain(sealed) {
        let trace = row.request.trace_id;
        if !snapshot.is_superseded(trace, row.revision) {
            let twice = rows.insert(trace, (Request::clone(&row.request), Vec::new()));
            assert!(twice.is_none(), "two valid request rows of {trace}");
        }
    }
    let sealed = runtime.block_on(snapshot.sealed.read_hops(TimeRange::ALL)).expect("sealed hops");
    let hot = snapshot.generations().flat_map(|tables| &tables.hops).flat_map(|chunk| chunk.iter().cloned());
    for row in hot.chain(sealed) {
        if !snapshot.is_superseded(row.hop.trace_id, row.revision) {
            rows.get_mut(&row.hop.trace_id).expect("hops come with a request row").1.push(Hop::clone(&row.hop));
        }
    }
    rows.into_iter().map(|(trace, (request, hops))| (trace, (request, sorted(hops)))).collect()
}

fn sorted(mut hops: Vec<Hop>) -> Vec<Hop> {
    hops.sort_by_key(|hop| (hop.start, hop.client_span, hop.server_span));
    hops
}

/// What was found, without the evidence of how the spans came, and in both the few largest reduced to
/// the maximum: how many runners-up are left depends on how often they were taken back. Once some
/// were cut off the maximum may be unknown.
fn comparable(mut found: EdgeStats, want: &mut EdgeStats) -> EdgeStats {
    (found.spans.late, found.spans.duplicate) = (0, 0);
    let (found_spans, want) = (&mut found.spans, &mut want.spans);
    let lists = [
        (&mut found_spans.client.slowest, &mut want.client.slowest),
        (&mut found_spans.server.slowest, &mut want.server.slowest),
        (&mut found_spans.latest_errors, &mut want.latest_errors),
    ];
    for (found, want) in lists {
        if found.cut().is_some() && found.max_nanos().is_none() {
            (*found, *want) = (Largest::default(), Largest::default());
        }
        for largest in [found, want] {
            *largest = Largest::from_parts(largest.entries().first().copied(), [], None);
        }
    }
    found
}
