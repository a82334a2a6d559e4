//! Spans and metrics pushed to us: OTLP/gRPC, OTLP/HTTP, Zipkin and SkyWalking; remote write and OTLP.
//!
//! | file | what |
//! |---|---|
//! | `intake.rs` | what is handed on after decoding, and the trait of who takes it |
//! | `grpc.rs` | OTLP/gRPC, framed by hand so that the body stays the sender's bytes |
//! | `http.rs` | OTLP/HTTP |
//! | `zipkin.rs` | Zipkin over HTTP |
//! | `skywalking.rs` | SkyWalking over HTTP |
//! | `remote_write.rs` | Prometheus remote write over HTTP |
//! | `otlp_metrics.rs` | OTLP metrics over gRPC and HTTP |
//! | `metrics.rs`, `metric_batch.rs`, `metric_stats.rs` | the way of every request with metrics |
//! | `accept.rs` | the way of every request: read, decode, hand on, count |
//! | `admission.rs`, `body.rs` | caps on size, time and memory of all requests together |
//! | `failure.rs`, `rpc_status.rs` | refusals, and the messages answers are made of |
//! | `stats.rs` | counters |
//!
//! Invariants: nothing is acknowledged before [`Intake::submit`] has returned; every span of a
//! request is acknowledged, or reported back and counted with its reason; memory in flight is at
//! most [`ReceiveOptions::in_flight_max_bytes`] plus one request per decoding slot.
//!
//! Routers are values; the process binds ports and serves them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use windrose_proto::time::Clock;

mod accept;
mod admission;
mod body;
mod failure;
mod grpc;
mod http;
mod intake;
mod metric_batch;
mod metric_stats;
mod metrics;
mod otlp_metrics;
mod pushed;
mod remote_write;
mod rpc_status;
mod skywalking;
mod stats;
#[cfg(test)]
mod tests;
mod zipkin;

use self::admission::Admission;
pub use self::intake::{Intake, IntakeError, Submission};
pub use self::metric_stats::{MetricProtocol, MetricProtocolStats, MetricReceiveStats, PushedCounters, SampleReject};
pub use self::metrics::MetricReceiver;
pub use self::pushed::{PushedToEdges, ScrapedProxies};
pub use self::remote_write::REMOTE_WRITE_PATH;
pub use self::stats::{ProtocolStats, ReceiveStats, RequestStats};

/// How requests are received.
#[derive(Clone, Debug)]
pub struct ReceiveOptions {
    /// Memory that bodies and their decoded spans may take, over all requests.
    pub in_flight_max_bytes: usize,
    /// How long a request may wait for that memory before it is refused.
    pub admission_wait: Duration,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// Refuse requests without `X-Scope-OrgID` instead of using the default tenant.
    pub require_tenant: bool,
}

impl Default for ReceiveOptions {
    /// 512 MiB hold two requests of the largest decoded size, or 40,000 Envoy exports of five
    /// spans. Envoy gives up on an export after 10 s; waiting any longer than half of that for
    /// memory would only turn a refusal into a timeout.
    fn default() -> Self {
        Self {
            in_flight_max_bytes: 512 << 20,
            admission_wait: Duration::from_secs(5),
            body_timeout: Duration::from_secs(30),
            require_tenant: false,
        }
    }
}

/// Receives spans by every push protocol and hands them to one intake.
#[derive(Debug)]
pub struct Receiver<I> {
    intake: Arc<I>,
    clock: Arc<dyn Clock>,
    stats: Arc<ReceiveStats>,
    options: ReceiveOptions,
    admission: Admission,
    /// Large bodies decoded at the same time: as many as there are cores to do it.
    decode_slots: Arc<Semaphore>,
}

impl<I: Intake> Receiver<I> {
    #[must_use]
    pub fn new(intake: Arc<I>, clock: Arc<dyn Clock>, options: ReceiveOptions) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            intake,
            clock,
            stats: Arc::new(ReceiveStats::default()),
            admission: Admission::new(options.in_flight_max_bytes, options.admission_wait),
            options,
            decode_slots: Arc::new(Semaphore::new(cores)),
        })
    }

    /// The counters, for export.
    #[must_use]
    pub const fn stats(&self) -> &Arc<ReceiveStats> {
        &self.stats
    }

    /// OTLP/gRPC, usually on port 4317. Serve it with HTTP/2 (prior knowledge).
    pub fn grpc_router(self: &Arc<Self>) -> axum::Router {
        grpc::router(Arc::clone(self))
    }

    /// OTLP/HTTP, and SkyWalking's paths beside it, usually on port 4318.
    pub fn otlp_http_router(self: &Arc<Self>) -> axum::Router {
        http::router(Arc::clone(self)).merge(skywalking::router(Arc::clone(self)))
    }

    /// Zipkin, usually on port 9411.
    pub fn zipkin_router(self: &Arc<Self>) -> axum::Router {
        zipkin::router(Arc::clone(self))
    }
}
