//! What a reader sees: hot tables, the generation being sealed, and sealed segments of one tenant
//! at one instant, without gap or double count.
//!
//! A generation moves from `hot` to `sealing` to `sealed` by publishing a new snapshot each time;
//! a row is in exactly one of the three in every snapshot.

use std::sync::Arc;

use hashbrown::HashMap;
use windrose_proto::id::TraceId;
use windrose_proto::time::UnixNanos;

use crate::hot::HotTables;
use crate::ledger::Ledger;
use crate::sealed::TenantCatalog;

/// The latest revision of every trace that has been revised (revision 2 and above); rows of
/// smaller revisions are superseded. Traces that are not listed are at revision 1.
pub type Revisions = HashMap<TraceId, u32>;

/// One tenant at one instant.
#[derive(Clone, Debug)]
pub struct TenantSnapshot {
    pub published: UnixNanos,
    pub hot: Arc<HotTables>,
    pub sealing: Option<Arc<HotTables>>,
    pub sealed: Arc<TenantCatalog>,
    pub revisions: Arc<Revisions>,
    pub ledger: Arc<Ledger>,
    /// Revisions made so far by late spans.
    pub revision_count: u64,
    /// Everything that started before is settled: no open trace started earlier.
    pub complete_until: UnixNanos,
    pub open_traces: usize,
}

impl TenantSnapshot {
    /// Unsealed generations, oldest first.
    pub fn generations(&self) -> impl Iterator<Item = &HotTables> {
        self.sealing.iter().map(Arc::as_ref).chain(std::iter::once(self.hot.as_ref()))
    }

    /// Whether a hop or request row of `trace` at `revision` has been superseded.
    #[must_use]
    pub fn is_superseded(&self, trace: TraceId, revision: u32) -> bool {
        self.revisions.get(&trace).is_some_and(|latest| revision < *latest)
    }
}

impl TenantSnapshot {
    /// What a reader sees of a tenant for which nothing was ever received.
    #[must_use]
    pub fn empty(now: UnixNanos) -> Self {
        Self {
            published: now,
            hot: Arc::default(),
            sealing: None,
            sealed: Arc::default(),
            revisions: Arc::default(),
            ledger: Arc::default(),
            revision_count: 0,
            complete_until: now,
            open_traces: 0,
        }
    }
}
