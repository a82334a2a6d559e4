//! The joiner: all tenants' open traces, one owner, no locks.
//!
//! It is a state machine without I/O of its own: spans and counters in, ticks, and out come
//! published snapshots and batches to seal. Sealed spans are reached through [`TraceArchive`].

use std::collections::BTreeMap;
use std::sync::Arc;

use windrose_proto::edge::{CounterStats, EdgeKey};
use windrose_proto::hop::Node;
use windrose_proto::model::{Direction, NodeRole, Protocol, ProxyKind};
use windrose_proto::span::Span;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;
use windrose_proto::{Text, wire};
use windrose_store::ledger::Reporter;
use windrose_store::sealed::TenantCatalog;
use windrose_store::snapshot::Revisions;
use windrose_store::store::Store;

pub use super::across::AcrossCounts;
use super::editions::Editions;
use super::tenant::TenantJoin;
pub use super::tenant::{ArchiveError, JoinCounts, JoinLimits, NothingSealed, SealBatch, TraceArchive, TraceArchives};
pub use super::uses::SpanUses;
use crate::normalise::Normaliser;
use crate::normalise::overrides::Overrides;

/// Gauges of the join at one instant.
#[derive(Clone, Copy, Debug, Default)]
pub struct JoinGauges {
    pub open_traces: usize,
    pub open_bytes: usize,
    pub unsealed_rows: usize,
    pub unsealed_bytes: usize,
    pub across: AcrossCounts,
}

/// The join of all tenants.
#[derive(Debug)]
pub struct Joiner {
    tenants: BTreeMap<TenantId, TenantJoin>,
    editions: Editions,
    limits: JoinLimits,
    store: Store,
}

impl Joiner {
    /// An empty join that publishes to `store`.
    #[must_use]
    pub fn new(normaliser: Normaliser, limits: JoinLimits, store: Store) -> Self {
        Self { tenants: BTreeMap::new(), editions: Editions::new(normaliser), limits, store }
    }

    /// Makes a tenant's sealed data known before anything is received for it, and takes up the
    /// traces that were open at its last seal.
    pub fn restore(
        &mut self,
        tenant: &TenantId,
        catalog: Arc<TenantCatalog>,
        revisions: Revisions,
        open_traces: &[windrose_proto::id::TraceId],
        archive: &dyn TraceArchive,
        now: UnixNanos,
    ) {
        let mut join = TenantJoin::new(self.limits, catalog, revisions, now);
        for trace in open_traces {
            join.resume(*trace, archive, &mut self.editions, now);
        }
        self.tenants.insert(tenant.clone(), join);
    }

    /// The sealed data of a tenant as the join knows it.
    #[must_use]
    pub fn catalog(&self, tenant: &TenantId) -> Arc<TenantCatalog> {
        self.tenants.get(tenant).map_or_else(Arc::default, TenantJoin::catalog)
    }

    /// Takes the spans of one acknowledged request.
    pub fn ingest(
        &mut self,
        tenant: &TenantId,
        spans: Vec<Span>,
        arrived: UnixNanos,
        archive: &dyn TraceArchive,
        now: UnixNanos,
    ) {
        let limits = self.limits;
        let join = tenant_join(&mut self.tenants, tenant, limits, now);
        for span in spans {
            join.ingest(span, arrived, archive, &mut self.editions, now);
        }
    }

    /// Takes what the scrapes of proxies counted.
    pub fn add_counters(&mut self, tenant: &TenantId, batch: wire::CounterBatch, now: UnixNanos) {
        let join = tenant_join(&mut self.tenants, tenant, self.limits, now);
        for edge in batch.edges {
            let key = EdgeKey {
                source: Arc::new(node_of(edge.source.clone())),
                destination: Arc::new(node_of(edge.destination.clone())),
                direction: Direction::parse(&edge.direction).unwrap_or(Direction::Unknown),
                protocol: Protocol::parse(&edge.protocol).unwrap_or(Protocol::Unknown),
                entry: None,
                origin: None,
            };
            // The middle of the interval: the window most of the counted requests fall into.
            let middle = edge.interval_start_unix_nano / 2 + edge.interval_end_unix_nano / 2;
            join.add_counters(key, edge.client_side, UnixNanos(middle), &counters_of(edge));
        }
        for proxy in batch.proxy_spans {
            let node = node_of(proxy.node);
            let reporter = Reporter { namespace: node.namespace, service: node.service, proxy_kind: node.proxy_kind };
            join.add_reported_spans(&reporter, proxy.sent.max(0) as u64, proxy.dropped.max(0) as u64);
        }
    }

    /// Derives what changed, settles what is due and publishes. Call about once a second.
    pub fn tick(&mut self, archives: &dyn TraceArchives, now: UnixNanos) {
        for join in self.tenants.values_mut() {
            let archive = archives.archive(join.catalog());
            join.tick(&mut self.editions, &*archive, now);
        }
        self.publish(now);
    }

    /// Makes what changed visible to readers.
    pub fn publish(&mut self, now: UnixNanos) {
        let changed = self.tenants.iter_mut();
        self.store.publish(changed.filter_map(|(tenant, join)| Some((tenant.clone(), join.snapshot(now)?))));
    }

    /// Hands out what is to be sealed. Call right after [`Self::tick`]. Tenants without new rows are
    /// part of it as long as they have open traces: a restart knows of those only what the last
    /// seal says.
    pub fn begin_seal(&mut self, now: UnixNanos) -> Vec<(TenantId, SealBatch)> {
        if !self.tenants.values().any(TenantJoin::can_seal) {
            return Vec::new();
        }
        let tenants = self.tenants.iter_mut();
        let batches = tenants.filter_map(|(tenant, join)| Some((tenant.clone(), join.begin_seal()?))).collect();
        self.publish(now);
        batches
    }

    /// The batch of `tenant` is on disk and in `catalog`.
    pub fn finish_seal(&mut self, tenant: &TenantId, catalog: Arc<TenantCatalog>) {
        if let Some(join) = self.tenants.get_mut(tenant) {
            join.finish_seal(catalog);
        }
        if self.editions.has_old() {
            let tenants = &self.tenants;
            self.editions.retain(|edition| tenants.values().any(|join| join.needs(edition)));
        }
    }

    /// The sealed files of a tenant are others now, with the same rows or with rows of other
    /// collectors besides. Not to be called while a seal is under way: its rows would be there twice.
    pub fn replace_catalog(&mut self, tenant: &TenantId, catalog: Arc<TenantCatalog>, now: UnixNanos) {
        tenant_join(&mut self.tenants, tenant, self.limits, now).replace_catalog(catalog);
    }

    /// Reads traces that begin from now on with `overrides`, if they are others than those in force. A
    /// trace keeps those it began with as long as its spans are in memory.
    pub fn follow(&mut self, overrides: &Arc<Overrides>) {
        if self.editions.follow(overrides) {
            self.tenants.values_mut().for_each(TenantJoin::forget_names);
        }
    }

    /// Sums over all tenants since the start.
    #[must_use]
    pub fn counts(&self) -> JoinCounts {
        let mut sum = JoinCounts::default();
        for join in self.tenants.values() {
            let counts = &join.counts;
            sum.spans_stored += counts.spans_stored;
            sum.spans_duplicate += counts.spans_duplicate;
            sum.spans_late += counts.spans_late;
            sum.spans_beyond_trace_limit += counts.spans_beyond_trace_limit;
            sum.traces_opened += counts.traces_opened;
            sum.traces_reopened += counts.traces_reopened;
            sum.traces_settled += counts.traces_settled;
            sum.traces_evicted += counts.traces_evicted;
            sum.revisions += counts.revisions;
            sum.derivations += counts.derivations;
            sum.archive_errors += counts.archive_errors;
            sum.facts_address += counts.facts_address;
            sum.facts_entry += counts.facts_entry;
            sum.facts_conflict += counts.facts_conflict;
            sum.uses.replace(SpanUses::default(), counts.uses);
        }
        sum
    }

    /// Bytes that wait for a seal, as in [`Self::gauges`] but cheap enough to ask at every record.
    #[must_use]
    pub fn unsealed_bytes(&self) -> usize {
        self.tenants.values().map(TenantJoin::unsealed_bytes).sum()
    }

    /// What is held in memory now.
    #[must_use]
    pub fn gauges(&self) -> JoinGauges {
        let mut sum = JoinGauges::default();
        for join in self.tenants.values() {
            sum.open_traces += join.open_traces();
            sum.open_bytes += join.open_bytes();
            sum.unsealed_rows += join.unsealed_rows();
            sum.unsealed_bytes += join.unsealed_bytes();
            let across = join.across();
            sum.across.addresses += across.addresses;
            sum.across.requests += across.requests;
            sum.across.questions += across.questions;
            sum.across.refused += across.refused;
        }
        sum
    }
}

fn tenant_join<'a>(
    tenants: &'a mut BTreeMap<TenantId, TenantJoin>,
    tenant: &TenantId,
    limits: JoinLimits,
    now: UnixNanos,
) -> &'a mut TenantJoin {
    let empty = || TenantJoin::new(limits, Arc::default(), Revisions::default(), now);
    tenants.entry(tenant.clone()).or_insert_with(empty)
}

fn node_of(node: Option<wire::Node>) -> Node {
    let Some(node) = node else { return Node::unknown() };
    let optional = |text: String| (!text.is_empty()).then(|| Text::from(text));
    Node {
        cluster: optional(node.cluster),
        namespace: optional(node.namespace),
        service: Text::from(node.service),
        workload: optional(node.workload),
        version: optional(node.version),
        role: NodeRole::parse(&node.role).unwrap_or(NodeRole::Unknown),
        proxy_kind: ProxyKind::parse(&node.proxy_kind).unwrap_or(ProxyKind::None),
    }
}

fn counters_of(edge: wire::EdgeCounters) -> CounterStats {
    CounterStats {
        calls: edge.calls,
        attempts: edge.attempts,
        by_code: edge.by_code.into_iter().map(|(code, count)| (Text::from(code), count)).collect(),
        errors: edge.errors,
        retries: edge.retries,
        retries_succeeded: edge.retries_succeeded,
        retries_exhausted: edge.retries_exhausted,
        timeouts: edge.timeouts,
        circuit_rejected: edge.circuit_rejected,
        connect_failures: edge.connect_failures,
        resets: edge.resets,
        ejections: edge.ejections,
        bytes_sent: edge.bytes_sent,
        bytes_received: edge.bytes_received,
        tls_mutual: edge.tls_mutual,
        tls_known: edge.tls_known,
        scrapes: 1,
    }
}
