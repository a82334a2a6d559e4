//! The way of every request with metrics: tenant, body, decode, store, counts.
//!
//! Counters of proxies are attached to edges besides, once they are stored (`pushed.rs`).
//!
//! What is good in a request is stored even if other samples of it are not: a sender does not send
//! again what was answered with 400, so refusing the whole would lose the good ones too.

use std::sync::Arc;

use ::http::HeaderMap;
use axum::body::Body;
use bytes::Bytes;
use windrose_proto::tenant::TenantId;
use windrose_store::metrics::{AppendError, MetricStore};
use windrose_store::wal;

use super::body::read_body;
use super::failure::Failure;
use super::grpc::length_in;
use super::metric_batch::{MetricBatch, Rejected};
use super::metric_stats::{MetricProtocol, MetricReceiveStats};
use super::pushed::PushedToEdges;
use super::{Intake, IntakeError, Receiver, otlp_metrics, remote_write};
use crate::decode::{self, ContentEncoding, DecodeError, OtlpForm};
use crate::metrics_map::pushed::PushedPages;

/// Bodies up to here are decoded where they are received: at some 150 ns per sample of about
/// 30 compressed bytes that is half a millisecond.
const INLINE_MAX_BYTES: usize = 64 << 10;

/// A batch whose series expired while it was put together is put together anew so often.
const STORE_ATTEMPTS: usize = 3;

/// What bytes cost in memory beside the body: the message, and the batch made of it.
const EXPANSION: usize = 8;

/// Receives metrics and puts them into the store. It shares the caps of the receiver of spans.
#[derive(Debug)]
pub struct MetricReceiver<I> {
    pub(super) base: Arc<Receiver<I>>,
    store: MetricStore,
    edges: Arc<PushedToEdges>,
    stats: Arc<MetricReceiveStats>,
}

/// A message with metrics as it was cut out of a request.
#[derive(Clone, Debug)]
pub(super) struct MetricMessage {
    pub(super) content: MetricContent,
    pub(super) body: Bytes,
}

/// What a body with metrics holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum MetricContent {
    RemoteWrite,
    Otlp { form: OtlpForm, encoding: ContentEncoding },
}

impl<I: Intake> MetricReceiver<I> {
    #[must_use]
    pub fn new(base: Arc<Receiver<I>>, store: MetricStore, edges: PushedToEdges) -> Arc<Self> {
        Arc::new(Self { base, store, edges: Arc::new(edges), stats: Arc::default() })
    }

    /// The counters, for export.
    #[must_use]
    pub const fn stats(&self) -> &Arc<MetricReceiveStats> {
        &self.stats
    }

    /// Prometheus remote write: `POST /api/v1/write`, where Prometheus has it, beside the query API.
    pub fn remote_write_router(self: &Arc<Self>) -> axum::Router {
        remote_write::router(Arc::clone(self))
    }

    /// `MetricsService/Export` of OTLP/gRPC, for the port of [`Receiver::grpc_router`].
    pub fn otlp_grpc_router(self: &Arc<Self>) -> axum::Router {
        otlp_metrics::grpc_router(Arc::clone(self))
    }

    /// `POST /v1/metrics` of OTLP/HTTP, for the port of [`Receiver::otlp_http_router`].
    pub fn otlp_http_router(self: &Arc<Self>) -> axum::Router {
        otlp_metrics::http_router(Arc::clone(self))
    }

    /// Counts a request that was refused before anything of it was read.
    pub(super) fn refuse(&self, protocol: MetricProtocol, failure: Failure) -> Failure {
        let stats = self.stats.protocol(protocol);
        stats.requests.count_request();
        stats.requests.count_refused(failure.reason);
        failure
    }

    /// Takes a request through to the store. `cut` finds the message in the body, and may refuse. `Ok`
    /// names what of it is not stored.
    pub(super) async fn accept(
        &self,
        protocol: MetricProtocol,
        headers: &HeaderMap,
        body: Body,
        cut: impl FnOnce(Bytes) -> Result<MetricMessage, Failure>,
    ) -> Result<Rejected, Failure> {
        let stats = self.stats.protocol(protocol);
        stats.requests.count_request();
        let result = self.take(protocol, headers, body, cut).await;
        match &result {
            Ok(rejected) => rejected.book(stats),
            Err(failure) => {
                stats.requests.count_refused(failure.reason);
                tracing::debug!(protocol = protocol.as_str(), error = %failure, "request with metrics refused");
            }
        }
        result
    }

    async fn take(
        &self,
        protocol: MetricProtocol,
        headers: &HeaderMap,
        body: Body,
        cut: impl FnOnce(Bytes) -> Result<MetricMessage, Failure>,
    ) -> Result<Rejected, Failure> {
        let tenant = self.base.tenant(headers)?;
        let mut account = self.base.admission.open();
        let body = read_body(body, &mut account, self.base.options.body_timeout, length_in(headers)).await?;
        self.stats.protocol(protocol).requests.count_body(body.len());
        let message = cut(body)?;
        let mut paid_bytes = message.body.len().saturating_mul(EXPANSION);
        account.pay(paid_bytes).await?;
        for _attempt in 0..STORE_ATTEMPTS {
            let MetricBatch { append, mut rejected, memory_bytes, pages, .. } =
                self.fill(&tenant, message.clone()).await?;
            account.pay(memory_bytes.saturating_sub(paid_bytes)).await?;
            paid_bytes = paid_bytes.max(memory_bytes);
            match append.commit().await {
                Ok(report) => {
                    self.stats.protocol(protocol).count_samples(report.stored + report.duplicates);
                    rejected.count_report(report);
                    self.attach(&tenant, pages).await;
                    return Ok(rejected);
                }
                Err(AppendError::Expired { .. }) => {}
                Err(AppendError::Log(error)) => return Err(failure_of(&error)),
            }
        }
        // Only when the store lets series go all the time.
        Err(Failure::from(IntakeError::Internal))
    }

    /// Hands on what proxies counted. The samples are stored by now, so the sender is not told when this
    /// fails, as a scraped proxy would not be.
    async fn attach(&self, tenant: &TenantId, pages: PushedPages) {
        if pages.is_empty() {
            return;
        }
        let (edges, stats, whose) = (Arc::clone(&self.edges), Arc::clone(&self.stats), tenant.clone());
        let taking = tokio::task::spawn_blocking(move || edges.take(&whose, pages, &stats));
        let batches = match taking.await {
            Ok(batches) => batches,
            Err(error) => return tracing::error!(%error, "pushed counters could not be read"),
        };
        for counters in batches {
            if let Err(error) = self.base.intake.submit_counters(tenant.clone(), counters).await {
                tracing::error!(%error, "pushed counters are not stored; their interval is missing from edges");
            }
        }
    }

    /// Decoding that takes long must not hold up the other connections of this thread.
    async fn fill(&self, tenant: &TenantId, message: MetricMessage) -> Result<MetricBatch, Failure> {
        let mut batch = MetricBatch::new(self.store.append(tenant), self.base.clock.now());
        let MetricMessage { content, body } = message;
        if content.expected_bytes(&body) <= INLINE_MAX_BYTES {
            content.fill(&body, &mut batch)?;
            return Ok(batch);
        }
        let _slot = self.base.decode_slots.acquire().await.map_err(|_| Failure::unavailable())?;
        let filling = tokio::task::spawn_blocking(move || content.fill(&body, &mut batch).map(|()| batch));
        match filling.await {
            Ok(filled) => Ok(filled?),
            Err(error) => {
                tracing::error!(%error, "a decoder of metrics panicked");
                Err(Failure::malformed("the body could not be decoded"))
            }
        }
    }
}

impl MetricContent {
    /// How much there is to decode, for the choice of where to do it.
    fn expected_bytes(self, body: &Bytes) -> usize {
        match self {
            Self::RemoteWrite | Self::Otlp { encoding: ContentEncoding::Identity, .. } => body.len(),
            Self::Otlp { .. } => body.len().saturating_mul(EXPANSION),
        }
    }

    /// Puts what a body holds into a batch.
    fn fill(self, body: &Bytes, batch: &mut MetricBatch) -> Result<(), DecodeError> {
        match self {
            Self::RemoteWrite => decode::walk_remote_write(&decode::unpack_remote_write(body)?, batch),
            Self::Otlp { form, encoding } => {
                decode::walk_otlp_metrics(form, &decode::decompress(encoding, body)?, batch)
            }
        }
    }
}

fn failure_of(error: &wal::AppendError) -> Failure {
    match error {
        wal::AppendError::TooLarge { max_bytes, .. } => {
            Failure::too_large(usize::try_from(*max_bytes).unwrap_or(usize::MAX))
        }
        other => Failure::from(IntakeError::of_log(other)),
    }
}
