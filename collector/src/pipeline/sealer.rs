//! Sealing: handing a generation of joined rows to the sealed tables, once, in the background.
//!
//! One seal at a time. A seal that fails keeps its rows (they stay readable, and the log is not cut)
//! and is repeated with the same number until it succeeds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::time::Duration;

use tokio::runtime::Handle;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;
use windrose_store::sealed::{SealError, SealInput, SealPart, Sealed, SealedCatalog};
use windrose_store::wal::WalPosition;

use super::worker::JoinStats;
use crate::join::joiner::SealBatch;

/// Wait before a failed seal is repeated.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// When what is joined goes into files.
#[derive(Clone, Copy, Debug)]
pub struct SealPolicy {
    /// At the latest after this long.
    pub interval: Duration,
    /// Or when rows and rollup cells of so many bytes wait.
    pub max_bytes: usize,
}

/// A seal that came through.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) tenants: Vec<TenantId>,
    pub(super) catalog: Arc<SealedCatalog>,
    /// The log is not needed before this any more.
    pub(super) wal: WalPosition,
}

/// The sealed tables and the seal under way.
pub(super) struct Sealer {
    pub(super) sealed: Arc<Sealed>,
    pub(super) runtime: Handle,
    pub(super) policy: SealPolicy,
    pub(super) next_number: u64,
    pub(super) last: UnixNanos,
    pub(super) under_way: Option<UnderWay>,
    pub(super) stats: Arc<JoinStats>,
}

pub(super) struct UnderWay {
    number: u64,
    parts: Arc<Vec<SealPart>>,
    wal: WalPosition,
    at: UnixNanos,
    outcome: Receiver<Result<Arc<SealedCatalog>, SealError>>,
    /// When the seal has failed: when to repeat it.
    repeat_at: Option<UnixNanos>,
}

impl Sealer {
    /// Whether a new seal should begin.
    pub(super) fn is_due(&self, now: UnixNanos, unsealed_bytes: usize) -> bool {
        let overdue = self.last.plus(self.policy.interval) <= now && unsealed_bytes > 0;
        self.under_way.is_none() && (overdue || unsealed_bytes >= self.policy.max_bytes)
    }

    /// Whether the joiner should leave what comes in the log until the seal is done: the next one is due already.
    pub(super) fn is_behind(&self, unsealed_bytes: usize) -> bool {
        self.under_way.is_some() && unsealed_bytes >= self.policy.max_bytes
    }

    /// Whether a seal is being written right now (a failed one that waits to be repeated is not).
    pub(super) fn is_running(&self) -> bool {
        self.under_way.as_ref().is_some_and(|seal| seal.repeat_at.is_none())
    }

    /// Begins a seal of everything up to `wal`.
    pub(super) fn begin(&mut self, batches: Vec<(TenantId, SealBatch)>, wal: WalPosition, now: UnixNanos) {
        self.last = now;
        if batches.is_empty() {
            return;
        }
        let parts: Arc<Vec<SealPart>> = Arc::new(batches.into_iter().map(part).collect());
        let number = self.next_number;
        self.next_number += 1;
        let outcome = self.start(number, &parts, wal, now);
        self.under_way = Some(UnderWay { number, parts, wal, at: now, outcome, repeat_at: None });
    }

    fn start(
        &self,
        number: u64,
        parts: &Arc<Vec<SealPart>>,
        wal: WalPosition,
        at: UnixNanos,
    ) -> Receiver<Result<Arc<SealedCatalog>, SealError>> {
        // One message per seal: the channel never fills.
        let (done, outcome) = sync_channel(1);
        let (sealed, parts) = (Arc::clone(&self.sealed), Arc::clone(parts));
        self.runtime.spawn(async move {
            let input = SealInput { seal_number: number, wal: (wal.segment, wal.offset), at, parts: &parts };
            let result = sealed.seal(input).await;
            // The joiner is gone only when the process ends; the next start finishes the seal.
            drop(done.send(result));
        });
        outcome
    }

    /// What became of the seal under way, waiting at most `wait`.
    pub(super) fn poll(&mut self, now: UnixNanos, wait: Duration) -> Option<Finished> {
        let under_way = self.under_way.as_mut()?;
        if let Some(repeat_at) = under_way.repeat_at {
            if now >= repeat_at {
                let (number, parts) = (under_way.number, Arc::clone(&under_way.parts));
                let (wal, at) = (under_way.wal, under_way.at);
                let outcome = self.start(number, &parts, wal, at);
                self.under_way = Some(UnderWay { number, parts, wal, at, outcome, repeat_at: None });
            }
            return None;
        }
        let result = if wait.is_zero() {
            under_way.outcome.try_recv().map_err(|error| error == TryRecvError::Disconnected)
        } else {
            under_way.outcome.recv_timeout(wait).map_err(|error| error == RecvTimeoutError::Disconnected)
        };
        match result {
            Ok(Ok(catalog)) => self.finish(catalog),
            Ok(Err(error)) => {
                tracing::error!(error = %error, source = ?std::error::Error::source(&error), seal = under_way.number, "sealing failed; the rows stay in memory and in the log, and the seal is repeated");
                self.stats.seal_failures.fetch_add(1, Ordering::Relaxed);
                under_way.repeat_at = Some(now.plus(RETRY_AFTER));
                None
            }
            Err(true) => {
                tracing::error!(
                    seal = under_way.number,
                    "the seal's task ended without a result; the seal is repeated"
                );
                self.stats.seal_failures.fetch_add(1, Ordering::Relaxed);
                under_way.repeat_at = Some(now.plus(RETRY_AFTER));
                None
            }
            Err(false) => None,
        }
    }

    fn finish(&mut self, catalog: Arc<SealedCatalog>) -> Option<Finished> {
        let under_way = self.under_way.take()?;
        let tenants = under_way.parts.iter().map(|part| part.tenant.clone()).collect();
        tracing::debug!(seal = under_way.number, "sealed");
        Some(Finished { tenants, catalog, wal: under_way.wal })
    }
}

/// A generation as rows.
fn part((tenant, batch): (TenantId, SealBatch)) -> SealPart {
    let tables = batch.tables;
    SealPart {
        tenant,
        spans: tables.spans.iter().flat_map(|chunk| chunk.rows()).cloned().collect(),
        hops: tables.hops.iter().flat_map(|chunk| chunk.iter()).cloned().collect(),
        requests: tables.requests.iter().flat_map(|chunk| chunk.iter()).cloned().collect(),
        edges: tables.sealed_edge_rows(),
        open_traces: batch.open_traces,
    }
}
