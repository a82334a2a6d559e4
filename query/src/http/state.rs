//! What the handlers share, and how they run: on the query runtime, admitted one by one, with a
//! deadline, so that no query can delay ingest.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use windrose_promql::Engine;
use windrose_proto::edge::EdgeRow;
use windrose_proto::hop::Derived;
use windrose_proto::span::Span;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::{Clock, TimeRange};
use windrose_store::edge_sums::{Adder, Detail, EdgeSums};
use windrose_store::metrics::MetricStore;
use windrose_store::snapshot::TenantSnapshot;
use windrose_store::store::Store;

use super::error::{ApiError, ErrorKind};
use crate::scrape_status::TargetSource;
use crate::sql::SqlEngine;

/// The tenant header.
pub const TENANT_HEADER: &str = "x-scope-orgid";

/// The join's pure function, handed in by the process: the query side must not depend on the collector.
pub type DeriveFn = Arc<dyn Fn(&[Arc<Span>]) -> Derived + Send + Sync>;

/// Limits of queries.
#[derive(Clone, Copy, Debug)]
pub struct QueryLimits {
    /// Answers take at most this long.
    pub timeout: Duration,
    /// Queries that run at once; more wait for a place within their deadline.
    pub max_concurrent: usize,
    /// Memory of one SQL query.
    pub memory_bytes: usize,
    /// Samples that one PromQL query may hold at once.
    pub max_samples: usize,
}

impl Default for QueryLimits {
    fn default() -> Self {
        // Two minutes is Prometheus' own limit. 20 at once is too. 512 MiB lets a self-join over a
        // million spans run (256 MiB was measured to be enough).
        // 50 million samples are Prometheus' own limit.
        Self { timeout: Duration::from_secs(120), max_concurrent: 20, memory_bytes: 512 << 20, max_samples: 50_000_000 }
    }
}

/// Everything a handler needs.
#[derive(Clone)]
pub struct QueryState {
    pub store: Store,
    pub metrics: MetricStore,
    pub clock: Arc<dyn Clock>,
    pub derive: DeriveFn,
    pub targets: Arc<dyn TargetSource>,
    pub sql: Arc<SqlEngine>,
    /// How PromQL is evaluated.
    pub engine: Engine,
    pub limits: QueryLimits,
    /// Whether a request without tenant header is refused.
    pub require_tenant: bool,
    runtime: Handle,
    admission: Arc<Semaphore>,
}

impl std::fmt::Debug for QueryState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryState").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl QueryState {
    /// Queries run on `runtime`.
    #[must_use]
    pub fn new(
        store: Store,
        metrics: MetricStore,
        clock: Arc<dyn Clock>,
        derive: DeriveFn,
        targets: Arc<dyn TargetSource>,
        limits: QueryLimits,
        runtime: Handle,
    ) -> Self {
        Self {
            store,
            metrics,
            clock,
            derive,
            targets,
            sql: Arc::new(SqlEngine::new(limits.memory_bytes)),
            engine: crate::prometheus::engine(limits.max_samples),
            limits,
            require_tenant: false,
            runtime,
            admission: Arc::new(Semaphore::new(limits.max_concurrent)),
        }
    }

    /// Runs `work` on the query runtime.
    ///
    /// # Errors
    /// What `work` answers, or `timeout` when no place was free or the work did not end in time.
    pub async fn run<T, F>(&self, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
    {
        let admission = Arc::clone(&self.admission);
        let timeout = self.limits.timeout;
        let task = self.runtime.spawn(async move {
            let admitted = tokio::time::timeout(timeout, async {
                let _place = admission.acquire_owned().await.map_err(|_| shutting_down())?;
                work.await
            });
            admitted.await.unwrap_or_else(|_| {
                Err(ApiError {
                    kind: ErrorKind::Timeout,
                    message: format!("no answer within {} s: ask for a shorter time range", timeout.as_secs()),
                })
            })
        });
        // Dropping the request drops the answer, and the work with it at its next await.
        let guard = AbortOnDrop(task.abort_handle());
        let answer = task.await.unwrap_or_else(|error| {
            Err(if error.is_panic() { ApiError::internal("the query panicked") } else { shutting_down() })
        });
        drop(guard);
        answer
    }

    /// The tenant a request speaks for.
    ///
    /// # Errors
    /// When the header is missing but demanded, or malformed.
    pub fn tenant(&self, headers: &HeaderMap) -> Result<TenantId, ApiError> {
        match headers.get(TENANT_HEADER) {
            None if self.require_tenant => {
                Err(ApiError::bad_data("missing header X-Scope-OrgID: this server demands a tenant"))
            }
            None => Ok(TenantId::default()),
            Some(value) => {
                let name = value.to_str().map_err(|_| ApiError::bad_data("invalid X-Scope-OrgID: not ASCII"))?;
                TenantId::new(name).map_err(|error| ApiError::bad_data(error.to_string()))
            }
        }
    }

    /// The current snapshot of a tenant; an unknown tenant has an empty one.
    #[must_use]
    pub fn snapshot(&self, tenant: &TenantId) -> Arc<TenantSnapshot> {
        self.store.snapshot(tenant).unwrap_or_else(|| Arc::new(TenantSnapshot::empty(self.clock.now())))
    }
}

fn shutting_down() -> ApiError {
    ApiError { kind: ErrorKind::Unavailable, message: "the server is shutting down".to_owned() }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// All rollup rows of a range: live, being sealed and sealed.
///
/// # Errors
/// When a sealed file cannot be read.
pub(crate) async fn edge_rows(snapshot: &TenantSnapshot, range: TimeRange) -> Result<Vec<EdgeRow>, ApiError> {
    let mut rows: Vec<EdgeRow> = snapshot.generations().flat_map(|tables| tables.edge_rows(range)).collect();
    let sealed = snapshot.sealed.read_edges(range).await;
    rows.extend(sealed.map_err(|error| ApiError::internal(format!("reading sealed edges: {error}")))?);
    Ok(rows)
}

/// Sums which together are those of all rollup rows of a range: live, being sealed and sealed.
///
/// # Errors
/// When a sealed file cannot be read.
pub(super) async fn edge_pieces(
    snapshot: &TenantSnapshot,
    range: TimeRange,
    detail: Detail,
) -> Result<Vec<Arc<EdgeSums>>, ApiError> {
    let sealed = snapshot.sealed.edge_sums(range, detail).await;
    let mut pieces = sealed.map_err(|error| ApiError::internal(format!("reading sealed edges: {error}")))?;
    let mut live = Adder::new(detail);
    snapshot.generations().flat_map(|tables| tables.edge_rows(range)).for_each(|row| live.add_row(&row));
    pieces.push(Arc::new(live.finish()));
    Ok(pieces)
}

/// The sums of all rollup rows of a range.
///
/// # Errors
/// When a sealed file cannot be read.
pub(super) async fn edge_sums(
    snapshot: &TenantSnapshot,
    range: TimeRange,
    detail: Detail,
) -> Result<EdgeSums, ApiError> {
    let mut sums = Adder::new(detail);
    edge_pieces(snapshot, range, detail).await?.iter().for_each(|piece| sums.add(piece));
    Ok(sums.finish())
}
