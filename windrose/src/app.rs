//! The running process, read from top to bottom like the flow of the data.
//!
//! ```text
//! ports ─► receivers ─► pipeline: log → join → store ─► query API
//!                          ▲                              │
//!              scraper ────┘                    HTTP port ┘ + health, metrics
//! ```
//!
//! Three runtimes: what is pushed is taken in on `ingest`; what is scraped on `scrape`, which has one
//! thread, because a page comes in twenty pieces and threads that wake one another for each cost more
//! than reading it; queries run on `query`, so that a scan over months cannot delay an
//! acknowledgement. The joiner and the log have threads of their own.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use windrose_collector::in_force::InForce;
use windrose_collector::join::derive::{DeriveOptions, derive};
use windrose_collector::join::joiner::JoinLimits;
use windrose_collector::normalise::Normaliser;
use windrose_collector::pipeline::{self, Pipeline, PipelineConfig, SealPolicy};
use windrose_collector::receive::{MetricReceiver, PushedToEdges, ReceiveOptions, Receiver};
use windrose_proto::time::Clock;
use windrose_query::http::{DeriveFn, QueryLimits, QueryState};
use windrose_store::disk::{Disk, DiskLock, LockError};
use windrose_store::metrics::MetricStore;
use windrose_store::wal::{SyncPolicy, WalConfig};

use crate::config::{Config, Loaded, PromqlFeature, WalSync};
use crate::maintenance::Maintenance;
use crate::metrics::Metrics;
use crate::ops::{self, Ops};
use crate::ports::{Addresses, BindError, Ports};
use crate::readiness::{NotReadyYet, Readiness};
use crate::reload::{ConfigSource, Reloader};
use crate::scraping::Scraping;
use crate::tasks::Tasks;
use crate::telemetry::{PortStats, Sources, Telemetry};

/// How often it is looked whether the log has been caught up with after the start.
const RECOVERY_POLL: Duration = Duration::from_millis(20);

/// Why the process did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("starting a runtime")]
    Runtime(#[source] io::Error),
    #[error("creating the data directory {}", dir.display())]
    DataDir { dir: PathBuf, source: io::Error },
    #[error(transparent)]
    Locked(#[from] LockError),
    #[error("starting the pipeline")]
    Pipeline(#[from] pipeline::StartError),
    #[error("opening the metric store")]
    Metrics(#[from] windrose_store::metrics::OpenError),
    #[error("serving a port")]
    Serve(#[source] io::Error),
}

/// Held by the process that uses a data directory.
const LOCK_FILE: &str = "LOCK";

/// A running server.
#[derive(Debug)]
pub struct App {
    addresses: Addresses,
    readiness: Readiness,
    /// Ports and their connections.
    serving: Tasks,
    scraping: Scraping,
    reloader: Arc<Reloader>,
    maintenance: Maintenance,
    metrics: Metrics,
    pipeline: Pipeline,
    ingest: Runtime,
    scrape: Runtime,
    query: Runtime,
    /// Of the whole data directory, to the very end: whoever writes there must be the only one.
    lock: Box<dyn DiskLock>,
}

impl App {
    /// Starts everything; `source` is read again when that is asked for. Ports are bound before the disk is
    /// touched, so that a second server on
    /// the same ports fails without harm. Blocks; call it outside a runtime.
    ///
    /// # Errors
    /// When a port is taken or the data directory cannot be used.
    pub fn start(
        loaded: &Loaded,
        source: ConfigSource,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        let config = &loaded.config;
        let ports = Ports::bind(&config.listen)?;
        let addresses = ports.addresses();
        let ingest = runtime("ingest")?;
        let scrape = runtime_of_one("scrape")?;
        let query = runtime("query")?;
        let readiness = Readiness::default();
        let recovery = readiness.expect("replay of the write-ahead log");

        let dir = &config.data_dir;
        disk.create_dir_all(dir).map_err(|source| StartError::DataDir { dir: dir.clone(), source })?;
        let lock = disk.lock(&dir.join(LOCK_FILE))?;

        // Before the pipeline: both clean up after a crash in the directory of the tables.
        let opening =
            Metrics::open(config, sync_policy(config), Arc::clone(&disk), Arc::clone(&clock), ingest.handle().clone());
        let metrics = ingest.block_on(opening)?;
        let overrides = InForce::new(config.join.overrides.clone());
        let starting = Pipeline::start(
            pipeline_config(config, overrides.clone()),
            disk,
            Arc::clone(&clock),
            ingest.handle().clone(),
        );
        let pipeline = ingest.block_on(starting)?;
        metrics.start();
        let store = metrics.store().clone();
        let scraping =
            Scraping::start(config, overrides.clone(), &pipeline, store, Arc::clone(&clock), scrape.handle());
        let options = ReceiveOptions { require_tenant: config.tenancy.require_header, ..ReceiveOptions::default() };
        let receiver = Receiver::new(Arc::clone(pipeline.intake()), Arc::clone(&clock), options);
        let edges = PushedToEdges::new(clock.now(), overrides.clone(), Arc::new(scraping.handle()));
        let metric_receiver = MetricReceiver::new(Arc::clone(&receiver), metrics.store().clone(), edges);
        let reloader = Arc::new(Reloader::new(source, scraping.handle(), overrides.clone(), loaded.clone()));
        let sealed = Arc::clone(pipeline.sealed());
        let maintenance = Maintenance::start(config, sealed, Arc::clone(&clock), ingest.handle());

        let stats = [(); 4].map(|()| Arc::new(PortStats::default()));
        let telemetry = Telemetry::new(Sources {
            readiness: readiness.clone(),
            started: clock.now(),
            receive: Arc::clone(receiver.stats()),
            metric_receive: Arc::clone(metric_receiver.stats()),
            wal: Arc::clone(pipeline.wal_stats()),
            join: Arc::clone(pipeline.join_stats()),
            maintenance: Arc::clone(maintenance.stats()),
            metrics: metrics.store().clone(),
            targets: scraping.targets(),
            ports: config.listen.named().map(|(name, _)| name).into_iter().zip(stats.iter().cloned()).collect(),
        });
        let ops = ops::router(Arc::new(Ops {
            readiness: readiness.clone(),
            telemetry,
            wal: Arc::clone(pipeline.wal_stats()),
            started: clock.now(),
            clock: Arc::clone(&clock),
            reloader: Arc::clone(&reloader),
        }));
        let api = windrose_query::http::router(query_state(
            config,
            overrides,
            &pipeline,
            metrics.store().clone(),
            &scraping,
            clock,
            &query,
        ));

        let serving = Tasks::new(ingest.handle().clone());
        let routers = [
            (ports.otlp_grpc, receiver.grpc_router().merge(metric_receiver.otlp_grpc_router())),
            (ports.otlp_http, receiver.otlp_http_router().merge(metric_receiver.otlp_http_router())),
            (ports.zipkin, receiver.zipkin_router()),
            (ports.http, ops.merge(api).merge(metric_receiver.remote_write_router())),
        ];
        for ((port, router), stats) in routers.into_iter().zip(stats) {
            tracing::info!(port = port.name, address = %port.address, "listening");
            port.serve(router, stats, config.drain_timeout, &serving).map_err(StartError::Serve)?;
        }
        let app = Self {
            addresses,
            readiness,
            serving,
            scraping,
            reloader,
            maintenance,
            metrics,
            pipeline,
            ingest,
            scrape,
            query,
            lock,
        };
        app.watch_recovery(recovery);
        Ok(app)
    }

    /// Where it listens.
    #[must_use]
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The runtime that takes data in; for tasks of the command that started the server.
    #[must_use]
    pub const fn ingest(&self) -> &Runtime {
        &self.ingest
    }

    /// What reads the configuration again.
    #[must_use]
    pub const fn reloader(&self) -> &Arc<Reloader> {
        &self.reloader
    }

    /// Whether it is ready, and for what it waits.
    #[must_use]
    pub const fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Ends in the order that loses nothing: the ports close, what is in flight is answered, then
    /// everything acknowledged is joined and on disk. Blocks; call it outside the runtimes.
    pub fn shutdown(self) {
        tracing::info!("draining");
        self.readiness.drain();
        self.ingest.block_on(self.serving.stop());
        tracing::info!("ports closed, requests answered");
        self.scraping.shutdown(&self.ingest);
        self.maintenance.shutdown(&self.ingest);
        self.metrics.shutdown(&self.ingest);
        self.pipeline.shutdown();
        // Queries were requests of a port; what is left of them has nobody to answer.
        self.query.shutdown_background();
        self.scrape.shutdown_background();
        self.ingest.shutdown_background();
        drop(self.lock);
        tracing::info!("stopped");
    }

    /// Says "ready" once everything that was in the log at the start can be seen in answers.
    fn watch_recovery(&self, recovery: NotReadyYet) {
        let caught_up = self.pipeline.caught_up();
        let stop = self.serving.stopping();
        self.serving.spawn("recovery", async move {
            let mut looks = tokio::time::interval(RECOVERY_POLL);
            while !caught_up.load(std::sync::atomic::Ordering::Acquire) {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    _ = looks.tick() => {}
                }
            }
            tracing::info!("ready");
            drop(recovery);
        });
    }
}

fn runtime(name: &'static str) -> Result<Runtime, StartError> {
    Builder::new_multi_thread().enable_all().thread_name(name).build().map_err(StartError::Runtime)
}

/// A runtime with one thread.
fn runtime_of_one(name: &'static str) -> Result<Runtime, StartError> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().thread_name(name).build().map_err(StartError::Runtime)
}

fn sync_policy(config: &Config) -> SyncPolicy {
    match config.wal.sync {
        WalSync::Always => SyncPolicy::Always,
        WalSync::Interval => SyncPolicy::Interval(config.wal.sync_interval),
        WalSync::Never => SyncPolicy::Never,
    }
}

fn pipeline_config(config: &Config, overrides: InForce) -> PipelineConfig {
    let wal = &config.wal;
    PipelineConfig {
        data_dir: config.data_dir.clone(),
        tables: config.storage.tables.clone(),
        wal: WalConfig {
            sync: sync_policy(config),
            segment_bytes: wal.segment_bytes.0,
            max_bytes: wal.max_bytes.0,
            ..WalConfig::default()
        },
        join: JoinLimits {
            settle_after: config.join.settle_after,
            max_age: config.join.max_age,
            max_open_bytes: config.join.max_open_bytes.as_usize(),
        },
        overrides,
        tick: config.join.tick,
        drain: config.drain_timeout,
        seal: SealPolicy { interval: config.seal.interval, max_bytes: config.seal.max_bytes.as_usize() },
    }
}

fn query_state(
    config: &Config,
    overrides: InForce,
    pipeline: &Pipeline,
    metrics: MetricStore,
    scraping: &Scraping,
    clock: Arc<dyn Clock>,
    query: &Runtime,
) -> QueryState {
    let limits = QueryLimits {
        timeout: config.query.timeout,
        max_concurrent: config.query.max_concurrent,
        memory_bytes: config.query.memory_limit.as_usize(),
        ..QueryLimits::default()
    };
    let derive = derive_fn(overrides);
    let store = pipeline.store().clone();
    let mut state = QueryState::new(store, metrics, clock, derive, scraping.targets(), limits, query.handle().clone());
    state.require_tenant = config.tenancy.require_header;
    for feature in &config.query.promql_features {
        match feature {
            PromqlFeature::ExperimentalFunctions => state.engine.parse.experimental_functions = true,
            PromqlFeature::ExtendedRangeSelectors => state.engine.parse.extended_range_selectors = true,
            PromqlFeature::FillModifiers => state.engine.parse.fill_modifiers = true,
            PromqlFeature::DelayedNameRemoval => state.engine.delayed_name_removal = true,
            PromqlFeature::StartTimestamps => state.engine.use_start_timestamps = true,
        }
    }
    state
}

/// The join of a single trace, for answers about it.
fn derive_fn(overrides: InForce) -> DeriveFn {
    Arc::new(move |spans| {
        let mut normaliser = Normaliser::new(overrides.get());
        let options = DeriveOptions::from(&normaliser);
        let normal: Vec<_> = spans.iter().map(|span| Arc::new(normaliser.normalise(span))).collect();
        derive(&normal, &options)
    })
}
