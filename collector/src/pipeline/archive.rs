//! Sealed spans of a trace, for spans that come after their trace was sealed.

use std::sync::Arc;

use hashbrown::HashMap;
use tokio::runtime::Handle;
use windrose_proto::id::TraceId;
use windrose_proto::span::Span;
use windrose_store::sealed::TenantCatalog;

use crate::join::joiner::{ArchiveError, TraceArchive, TraceArchives};

/// The sealed segments of one tenant, read from the joiner's own thread.
#[derive(Debug)]
pub(super) struct SealedArchive {
    pub(super) catalog: Arc<TenantCatalog>,
    pub(super) runtime: Handle,
}

impl TraceArchive for SealedArchive {
    fn may_contain(&self, trace: TraceId) -> bool {
        self.catalog.may_contain(trace)
    }

    fn load(&self, trace: TraceId) -> Result<Vec<Span>, ArchiveError> {
        let read = self.runtime.block_on(self.catalog.read_trace(trace));
        read.map_err(|error| ArchiveError { trace, source: Box::new(error) })
    }
}

/// The sealed segments of any tenant.
#[derive(Debug)]
pub(super) struct SealedArchives {
    pub(super) runtime: Handle,
}

impl TraceArchives for SealedArchives {
    fn archive(&self, catalog: Arc<TenantCatalog>) -> Box<dyn TraceArchive + '_> {
        Box::new(SealedArchive { catalog, runtime: self.runtime.clone() })
    }
}

/// Spans of traces that were open at the last seal, read at the start.
#[derive(Debug)]
pub(super) struct Preloaded {
    pub(super) spans: HashMap<TraceId, Vec<Span>>,
}

impl TraceArchive for Preloaded {
    fn may_contain(&self, trace: TraceId) -> bool {
        self.spans.contains_key(&trace)
    }

    fn load(&self, trace: TraceId) -> Result<Vec<Span>, ArchiveError> {
        Ok(self.spans.get(&trace).cloned().unwrap_or_default())
    }
}
