//! The open traces of one tenant, and everything they have emitted that is not sealed yet.
//!
//! Invariants:
//! - at every published instant the rollups equal the sum over all derived hops of all spans
//!   received so far: an open trace's hops are in, a settled trace's hops are in, once;
//! - hop and request rows are written when a trace settles, and again with the next revision when a
//!   late span changes them;
//! - after [`TenantJoin::begin_seal`] the sealed rows are a function of exactly the spans received
//!   before it; traces that are still open then are listed with the seal.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use windrose_proto::edge::{CounterStats, EdgeKey, Sign};
use windrose_proto::hop::{Derived, Hop, Question, Request};
use windrose_proto::id::TraceId;
use windrose_proto::normal::Fact;
use windrose_proto::span::Span;
use windrose_proto::time::UnixNanos;
use windrose_store::hot::{HotTables, SpanChunk};
use windrose_store::ledger::{Ledger, Reporter};
use windrose_store::row::{HopRow, RequestRow, SpanRow};
use windrose_store::sealed::TenantCatalog;
use windrose_store::snapshot::{Revisions, TenantSnapshot};

use super::across::{Across, AcrossCounts};
use super::derive::derive;
use super::diff::diff;
use super::edge_keys::EdgeKeys;
use super::editions::{Edition, Editions};
use super::open_trace::{OpenTrace, Taken};
use super::uses::SpanUses;
use crate::normalise::{Normaliser, fact};

/// When a trace is settled and how much may be open.
#[derive(Clone, Copy, Debug)]
pub struct JoinLimits {
    /// Settled after this long without a new span. Envoy flushes every 5 s and the spans of one
    /// trace were measured up to 5.02 s apart, so 10 s leaves room for a slow child.
    pub settle_after: Duration,
    /// Settled at this age even while spans keep coming.
    pub max_age: Duration,
    /// Memory of all open traces of a tenant; beyond it those idle longest are settled early.
    pub max_open_bytes: usize,
}

impl Default for JoinLimits {
    fn default() -> Self {
        Self { settle_after: Duration::from_secs(10), max_age: Duration::from_secs(60), max_open_bytes: 512 << 20 }
    }
}

/// Spans of a trace that left memory: how the joiner asks for them.
pub trait TraceArchive {
    /// Whether sealed files may hold spans of `trace`; false positives cost a read.
    fn may_contain(&self, trace: TraceId) -> bool;
    /// The sealed spans of `trace`.
    ///
    /// # Errors
    /// When a file cannot be read; the trace is then treated as unknown and the error counted.
    fn load(&self, trace: TraceId) -> Result<Vec<Span>, ArchiveError>;
}

/// The archive of a tenant, for the catalog the join knows.
pub trait TraceArchives {
    /// The sealed spans in `catalog`.
    fn archive(&self, catalog: Arc<TenantCatalog>) -> Box<dyn TraceArchive + '_>;
}

/// No sealed spans at all: for joins whose rows never leave memory.
#[derive(Clone, Copy, Debug)]
pub struct NothingSealed;

impl TraceArchive for NothingSealed {
    fn may_contain(&self, _trace: TraceId) -> bool {
        false
    }

    fn load(&self, _trace: TraceId) -> Result<Vec<Span>, ArchiveError> {
        Ok(Vec::new())
    }
}

impl TraceArchives for NothingSealed {
    fn archive(&self, _catalog: Arc<TenantCatalog>) -> Box<dyn TraceArchive + '_> {
        Box::new(Self)
    }
}

/// Sealed spans could not be read.
#[derive(Debug, thiserror::Error)]
#[error("reading sealed spans of trace {trace}")]
pub struct ArchiveError {
    pub trace: TraceId,
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// What happened, for the process' own metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct JoinCounts {
    pub spans_stored: u64,
    pub spans_duplicate: u64,
    pub spans_late: u64,
    pub spans_beyond_trace_limit: u64,
    pub traces_opened: u64,
    pub traces_reopened: u64,
    pub traces_settled: u64,
    pub traces_evicted: u64,
    pub revisions: u64,
    pub derivations: u64,
    pub archive_errors: u64,
    /// Facts of other traces that were stored with a trace.
    pub facts_address: u64,
    pub facts_entry: u64,
    /// Of them, those that say that several answers fit.
    pub facts_conflict: u64,
    /// What became of the spans stored since the start: their sum, once everything is derived, is
    /// `spans_stored` without those beyond the limit of their trace.
    pub uses: SpanUses,
}

/// What one seal writes.
#[derive(Debug)]
pub struct SealBatch {
    pub tables: Arc<HotTables>,
    /// Traces whose hop and request rows are not in `tables` because they may still grow.
    pub open_traces: Vec<TraceId>,
}

/// The join of one tenant.
#[derive(Debug)]
pub(super) struct TenantJoin {
    limits: JoinLimits,
    open: HashMap<TraceId, OpenTrace>,
    open_bytes: usize,
    /// Bytes of the rows in `hot` and of those that will be there after the tick.
    row_bytes: usize,
    /// Open traces in the order in which they are to be looked at for settling.
    waiting: VecDeque<(UnixNanos, TraceId)>,
    dirty: Vec<TraceId>,
    /// Traces settled in the current generation and in the one being sealed, as they were read.
    settled: HashMap<TraceId, Edition>,
    settled_sealing: HashMap<TraceId, Edition>,
    keys: EdgeKeys,
    across: Across,

    hot: HotTables,
    pending_spans: Vec<SpanRow>,
    pending_hops: Vec<HopRow>,
    pending_requests: Vec<RequestRow>,
    sealing: Option<Arc<HotTables>>,
    sealed: Arc<TenantCatalog>,
    revisions: Arc<Revisions>,
    ledger: Ledger,
    changed: bool,
    pub(super) counts: JoinCounts,
}

impl TenantJoin {
    pub(super) fn new(limits: JoinLimits, sealed: Arc<TenantCatalog>, revisions: Revisions, now: UnixNanos) -> Self {
        Self {
            limits,
            open: HashMap::new(),
            open_bytes: 0,
            row_bytes: 0,
            waiting: VecDeque::new(),
            dirty: Vec::new(),
            settled: HashMap::new(),
            settled_sealing: HashMap::new(),
            keys: EdgeKeys::default(),
            across: Across::default(),
            hot: HotTables::default(),
            pending_spans: Vec::new(),
            pending_hops: Vec::new(),
            pending_requests: Vec::new(),
            sealing: None,
            sealed,
            revisions: Arc::new(revisions),
            ledger: Ledger { since: now, ..Ledger::default() },
            changed: true,
            counts: JoinCounts::default(),
        }
    }

    /// Takes one received span.
    pub(super) fn ingest(
        &mut self,
        span: Span,
        arrived: UnixNanos,
        archive: &dyn TraceArchive,
        editions: &mut Editions,
        now: UnixNanos,
    ) {
        let trace = span.trace_id;
        if !self.open.contains_key(&trace) {
            self.open_trace(trace, archive, editions, now);
        }
        let Some(open) = self.open.get_mut(&trace) else { return };
        let edition = open.edition;
        let normal = Arc::new(editions.of(edition).normalise(&span));
        let row = SpanRow { span: Arc::new(span), normal, arrived };
        let was_dirty = open.dirty || !open.duplicates.is_empty();
        let bytes_before = open.bytes();
        let taken = open.take(&row);
        open.last_arrival = now;
        let late = open.written_revision > 0;
        self.open_bytes = self.open_bytes + open.bytes() - bytes_before;
        if !was_dirty {
            self.dirty.push(trace);
        }
        self.book(&row, taken, late);
        if taken != Taken::Duplicate {
            if edition == editions.latest() {
                self.across.see(&row.normal);
            }
            self.row_bytes += row.heap_estimate_bytes();
            self.pending_spans.push(row);
        }
        self.changed = true;
    }

    /// Counts what became of a row; spans also on their reporter, whose own counters know of spans only.
    fn book(&mut self, row: &SpanRow, taken: Taken, late: bool) {
        // Of a longer copy, which takes the place of the stored one, the earlier was the duplicate.
        let is_duplicate = matches!(taken, Taken::Duplicate | Taken::Longer);
        if is_duplicate {
            self.counts.spans_duplicate += 1;
        } else {
            self.counts.spans_stored += 1;
            self.counts.spans_late += u64::from(late);
            self.counts.spans_beyond_trace_limit += u64::from(taken == Taken::BeyondLimit);
        }
        if row.normal.logged.is_some() {
            return;
        }
        let counts = self.ledger.entry(&reporter_of(row));
        counts.received += 1;
        counts.last_span = counts.last_span.max(row.arrived);
        if is_duplicate {
            counts.duplicate += 1;
        } else {
            counts.stored += 1;
            counts.late += u64::from(late);
        }
    }

    /// Opens a trace; one that had been settled comes back with its spans and what it has emitted.
    fn open_trace(&mut self, trace: TraceId, archive: &dyn TraceArchive, editions: &mut Editions, now: UnixNanos) {
        let settled = self.settled.get(&trace).or_else(|| self.settled_sealing.get(&trace));
        let edition = settled.copied().unwrap_or_else(|| editions.latest());
        let mut open = OpenTrace::new(edition, now);
        for row in self.known_spans(trace, archive, editions.of(edition), now) {
            if edition == editions.latest() {
                self.across.see(&row.normal);
            }
            open.take(&row);
        }
        if !open.has_spans() {
            self.counts.traces_opened += 1;
        } else {
            open.dirty = false;
            open.duplicates.clear();
            let derived = derive(&open.normalised(), &editions.options(edition));
            open.uses = SpanUses::of(&derived);
            open.emitted = derived.hops;
            open.request = Some(Arc::new(derived.request));
            open.written_revision = self.revisions.get(&trace).copied().unwrap_or(1);
            self.counts.traces_reopened += 1;
        }
        self.open_bytes += open.bytes();
        self.waiting.push_back((now.plus(self.limits.settle_after), trace));
        self.open.insert(trace, open);
    }

    /// Takes up a trace that was open when its spans were sealed: its hops are in the sealed
    /// rollups, none of its rows is written.
    pub(super) fn resume(
        &mut self,
        trace: TraceId,
        archive: &dyn TraceArchive,
        editions: &mut Editions,
        now: UnixNanos,
    ) {
        self.open_trace(trace, archive, editions, now);
        if let Some(open) = self.open.get_mut(&trace) {
            open.written_revision = 0;
            open.changed = true;
        }
    }

    fn known_spans(
        &mut self,
        trace: TraceId,
        archive: &dyn TraceArchive,
        normaliser: &mut Normaliser,
        now: UnixNanos,
    ) -> Vec<SpanRow> {
        let mut rows = Vec::new();
        if self.settled.contains_key(&trace) || self.settled_sealing.contains_key(&trace) {
            rows.extend(self.pending_spans.iter().filter(|row| row.span.trace_id == trace).cloned());
            rows.extend(self.hot.spans_of_trace(trace).cloned());
            if let Some(sealing) = &self.sealing {
                rows.extend(sealing.spans_of_trace(trace).cloned());
            }
        }
        if archive.may_contain(trace) {
            match archive.load(trace) {
                Ok(spans) => rows.extend(spans.into_iter().map(|span| {
                    let normal = Arc::new(normaliser.normalise(&span));
                    SpanRow { span: Arc::new(span), normal, arrived: now }
                })),
                Err(error) => {
                    self.counts.archive_errors += 1;
                    tracing::error!(error = %error, source = ?error.source, "late span: sealed spans of its trace cannot be read, its hops may be counted twice");
                }
            }
        }
        rows
    }

    /// Attaches what a scrape counted to its edge.
    pub(super) fn add_counters(&mut self, key: EdgeKey, client_side: bool, at: UnixNanos, counters: &CounterStats) {
        let key = self.keys.shared(key);
        self.hot.add_to_edge(at, &key, |stats| {
            let side = if client_side { &mut stats.client_counters } else { &mut stats.server_counters };
            side.merge(counters);
        });
        self.changed = true;
    }

    /// Books what a proxy says it sent.
    pub(super) fn add_reported_spans(&mut self, reporter: &Reporter, sent: u64, dropped: u64) {
        let counts = self.ledger.entry(reporter);
        counts.reported_sent = Some(counts.reported_sent.unwrap_or(0) + sent);
        counts.reported_dropped = Some(counts.reported_dropped.unwrap_or(0) + dropped);
        self.changed = true;
    }

    /// Derives what changed, tells traces what others know, settles what is due.
    pub(super) fn tick(&mut self, editions: &mut Editions, archive: &dyn TraceArchive, now: UnixNanos) {
        self.rederive_dirty(editions, now);
        for (trace, question, fact) in self.across.take_news() {
            if !self.open.contains_key(&trace) {
                self.open_trace(trace, archive, editions, now);
            }
            self.tell(trace, &question, &fact, editions, now);
        }
        self.rederive_dirty(editions, now);
        self.across.sweep(now);
        while let Some((due, trace)) = self.waiting.front().copied() {
            if due > now && self.open_bytes <= self.limits.max_open_bytes {
                break;
            }
            self.waiting.pop_front();
            let Some(open) = self.open.get(&trace) else { continue };
            let settled_at = open.last_arrival.plus(self.limits.settle_after);
            let aged_out = open.first_arrival.plus(self.limits.max_age) <= now;
            if settled_at <= now || aged_out {
                self.settle(trace);
            } else if self.open_bytes > self.limits.max_open_bytes {
                self.counts.traces_evicted += 1;
                self.settle(trace);
            } else {
                self.waiting.push_back((settled_at, trace));
            }
        }
        self.publish_rows();
    }

    fn rederive_dirty(&mut self, editions: &mut Editions, now: UnixNanos) {
        for trace in std::mem::take(&mut self.dirty) {
            if let Some(derived) = self.derive(trace, editions, now) {
                self.emit(trace, derived);
            }
            self.book_duplicates(trace);
        }
    }

    /// What a trace derives to, once it has been told what others know; `None` when nothing changed.
    fn derive(&mut self, trace: TraceId, editions: &mut Editions, now: UnixNanos) -> Option<Derived> {
        let open = self.open.get_mut(&trace).filter(|open| open.dirty && open.has_spans())?;
        open.dirty = false;
        let options = editions.options(open.edition);
        let mut derived = derive(&open.normalised(), &options);
        self.counts.derivations += 1;
        for question in &derived.questions {
            if let Some(fact) = self.across.ask(trace, question, now) {
                self.tell(trace, question, &fact, editions, now);
            }
        }
        let open = self.open.get_mut(&trace)?;
        if std::mem::take(&mut open.dirty) {
            derived = derive(&open.normalised(), &options);
            self.counts.derivations += 1;
        }
        self.across.offer(&derived, now);
        Some(derived)
    }

    /// Stores what other traces say about this one, unless it has been told so already.
    fn tell(&mut self, trace: TraceId, question: &Question, fact: &Fact, editions: &mut Editions, now: UnixNanos) {
        let Some(open) = self.open.get_mut(&trace).filter(|open| open.has_spans()) else { return };
        let decisions = match open.told(question) {
            Some((told, _)) if told == fact => return,
            Some((_, decisions)) => decisions,
            None => 0,
        };
        let span = fact::to_span(trace, question, fact, decisions + 1);
        let normal = Arc::new(editions.of(open.edition).normalise(&span));
        let row = SpanRow { normal, span: Arc::new(span), arrived: now };
        let was_dirty = open.dirty || !open.duplicates.is_empty();
        let bytes_before = open.bytes();
        open.take(&row);
        open.duplicates.retain(|span| *span != row.span.span_id);
        self.open_bytes = self.open_bytes + open.bytes() - bytes_before;
        if !was_dirty {
            self.dirty.push(trace);
        }
        self.pending_spans.push(row);
        let (count, is_conflict) = match fact {
            Fact::Address { node, .. } => (&mut self.counts.facts_address, node.is_none()),
            Fact::Entry { link } => (&mut self.counts.facts_entry, link.is_none()),
        };
        *count += 1;
        self.counts.facts_conflict += u64::from(is_conflict);
        self.changed = true;
    }

    /// Brings the rollups from what the trace has emitted to what it derives to now.
    fn emit(&mut self, trace: TraceId, derived: Derived) {
        let Some(open) = self.open.get_mut(&trace) else { return };
        let bytes_before = open.bytes();
        let uses = SpanUses::of(&derived);
        self.counts.uses.replace(std::mem::replace(&mut open.uses, uses), uses);
        {
            let late = open.written_revision > 0;
            let (hot, keys) = (&mut self.hot, &mut self.keys);
            let mut apply = |hop: &Hop, sign| {
                let key = keys.of_hop(hop);
                hot.add_to_edge(hop.start, &key, |stats| stats.spans.apply(hop, sign, late));
            };
            let (mut retracted, mut added) = (Vec::new(), Vec::new());
            diff(&open.emitted, &derived.hops, |hop| retracted.push(hop), |hop| added.push(hop));
            retracted.iter().for_each(|hop| apply(hop, Sign::Retract));
            added.iter().for_each(|hop| apply(hop, Sign::Add));
            let same_request = open.request.as_deref() == Some(&derived.request);
            open.changed |= !retracted.is_empty() || !added.is_empty() || !same_request;
            open.emitted = derived.hops;
            open.request = Some(Arc::new(derived.request));
        }
        self.open_bytes = self.open_bytes + open.bytes() - bytes_before;
        self.changed = true;
    }

    /// Counts spans that came again on the edges they are evidence of.
    fn book_duplicates(&mut self, trace: TraceId) {
        let Some(open) = self.open.get_mut(&trace) else { return };
        let duplicates = std::mem::take(&mut open.duplicates);
        for span in duplicates {
            let hops = open.emitted.iter().filter(|hop| hop.client_span == Some(span) || hop.server_span == Some(span));
            for hop in hops {
                let key = self.keys.of_hop(hop);
                self.hot.add_to_edge(hop.start, &key, |stats| stats.spans.duplicate += 1);
                self.changed = true;
            }
        }
    }

    /// Writes the rows of a trace and lets go of its spans.
    fn settle(&mut self, trace: TraceId) {
        let Some(open) = self.open.remove(&trace) else { return };
        self.open_bytes -= open.bytes();
        self.settled.insert(trace, open.edition);
        self.counts.traces_settled += 1;
        self.changed = true;
        let Some(request) = open.request.filter(|_| open.changed || open.written_revision == 0) else { return };
        let revision = open.written_revision + 1;
        if revision > 1 {
            Arc::make_mut(&mut self.revisions).insert(trace, revision);
            self.counts.revisions += 1;
        }
        self.row_bytes += open.emitted.len() * (size_of::<HopRow>() + size_of::<Hop>()) + size_of::<Request>();
        self.pending_hops.extend(open.emitted.into_iter().map(|hop| HopRow { hop: Arc::new(hop), revision }));
        self.pending_requests.push(RequestRow { request, revision });
    }

    /// Moves the rows gathered since the last tick into the hot tables.
    fn publish_rows(&mut self) {
        if !self.pending_spans.is_empty() {
            self.hot.spans.push(SpanChunk::new(std::mem::take(&mut self.pending_spans)));
        }
        if !self.pending_hops.is_empty() {
            self.hot.hops.push(std::mem::take(&mut self.pending_hops).into());
        }
        if !self.pending_requests.is_empty() {
            self.hot.requests.push(std::mem::take(&mut self.pending_requests).into());
        }
    }

    /// The state to publish, when anything changed since the last call.
    pub(super) fn snapshot(&mut self, now: UnixNanos) -> Option<TenantSnapshot> {
        std::mem::take(&mut self.changed).then(|| TenantSnapshot {
            published: now,
            hot: Arc::new(self.hot.clone()),
            sealing: self.sealing.clone(),
            sealed: Arc::clone(&self.sealed),
            revisions: Arc::clone(&self.revisions),
            ledger: Arc::new(self.ledger.clone()),
            revision_count: self.counts.revisions,
            complete_until: now.minus(self.limits.settle_after),
            open_traces: self.open.len(),
        })
    }

    /// Whether there are rows for a seal.
    pub(super) fn can_seal(&self) -> bool {
        self.sealing.is_none() && !self.hot.is_empty()
    }

    /// Starts sealing the current generation. Call right after [`Self::tick`], so that nothing
    /// received is underived. Without rows it may still be part of a seal: what is open is listed
    /// with every seal. `None` when there is neither, or a seal is under way.
    pub(super) fn begin_seal(&mut self) -> Option<SealBatch> {
        if self.sealing.is_some() || (self.hot.is_empty() && self.open.is_empty()) {
            return None;
        }
        // A trace that has been written and has changed since gets its next revision now, so that
        // only traces without any written row are left open across a seal.
        let revised = self.open.iter().filter(|(_, open)| open.written_revision > 0 && open.changed);
        for trace in revised.map(|(trace, _)| *trace).collect::<Vec<_>>() {
            self.settle(trace);
        }
        self.publish_rows();
        let tables = Arc::new(std::mem::take(&mut self.hot));
        self.row_bytes = 0;
        self.sealing = Some(Arc::clone(&tables));
        self.settled_sealing = std::mem::take(&mut self.settled);
        let unwritten = self.open.iter().filter(|(_, open)| open.written_revision == 0);
        let mut open_traces: Vec<TraceId> = unwritten.map(|(trace, _)| *trace).collect();
        open_traces.sort_unstable();
        self.changed = true;
        Some(SealBatch { tables, open_traces })
    }

    /// The generation handed out by [`Self::begin_seal`] is in `catalog` now.
    pub(super) fn finish_seal(&mut self, catalog: Arc<TenantCatalog>) {
        self.sealing = None;
        self.settled_sealing.clear();
        self.sealed = catalog;
        self.keys.forget_unused();
        self.changed = true;
    }

    /// See [`super::joiner::Joiner::replace_catalog`].
    pub(super) fn replace_catalog(&mut self, catalog: Arc<TenantCatalog>) {
        debug_assert!(self.sealing.is_none(), "rows being sealed would be there twice");
        // Our own revisions are known; those of other collectors come with their files.
        let ours = Arc::make_mut(&mut self.revisions);
        for (trace, revision) in catalog.revisions() {
            let latest = ours.entry(trace).or_default();
            *latest = revision.max(*latest);
        }
        self.sealed = catalog;
        self.changed = true;
    }

    /// Other overrides are in force: addresses are to be known by the names that these give.
    pub(super) fn forget_names(&mut self) {
        self.across.forget_names();
    }

    /// Whether the spans of a trace in memory are read with the overrides of `edition`.
    pub(super) fn needs(&self, edition: Edition) -> bool {
        let settled = self.settled.values().chain(self.settled_sealing.values());
        self.open.values().map(|open| open.edition).chain(settled.copied()).any(|needed| needed == edition)
    }

    pub(super) fn catalog(&self) -> Arc<TenantCatalog> {
        Arc::clone(&self.sealed)
    }

    pub(super) fn open_traces(&self) -> usize {
        self.open.len()
    }

    /// What is known across traces.
    pub(super) fn across(&self) -> AcrossCounts {
        self.across.counts()
    }

    pub(super) fn open_bytes(&self) -> usize {
        self.open_bytes
    }

    /// Bytes of the rows and cells that wait for a seal.
    pub(super) fn unsealed_bytes(&self) -> usize {
        self.row_bytes + self.hot.edge_bytes()
    }

    /// Rows and cells that wait for a seal.
    pub(super) fn unsealed_rows(&self) -> usize {
        self.hot.rows()
    }
}

/// The reporter a span is booked on.
fn reporter_of(row: &SpanRow) -> Reporter {
    Reporter {
        namespace: row.normal.identity.namespace.clone(),
        service: row.normal.identity.service.clone(),
        proxy_kind: row.normal.proxy_kind,
    }
}
