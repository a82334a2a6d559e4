//! The set of targets: what should be scraped, what is, and how one becomes the other.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::Clock;
use windrose_store::metrics::MetricStore;

use super::ScrapeEvent;
use super::buffers::PageBuffers;
use super::client::Client;
use super::config::{PoolConfig, ScrapeConfig};
use super::discovery::{Files, Lookup, POLL_INTERVAL};
use super::relabel::LabelSet;
use super::status::{DroppedTarget, StatusCell, TargetStatus};
use super::target::{Resolved, Target, TargetKey, resolve_group};
use super::worker::Worker;
use crate::in_force::InForce;
use crate::metrics_map::TargetIdentity;
use crate::receive::ScrapedProxies;

/// Scrapes everything that is configured. Make it with [`Scraper::new`], run it as one task.
#[derive(Debug)]
pub struct Scraper {
    configs: watch::Receiver<Arc<ScrapeConfig>>,
    board: Arc<Board>,
    clock: Arc<dyn Clock>,
    store: MetricStore,
    events: mpsc::Sender<ScrapeEvent>,
    overrides: InForce,
    buffers: Arc<PageBuffers>,
    cores: Arc<Semaphore>,
    pools: BTreeMap<String, Pool>,
    /// Targets that ended lately, and what tells their workers that others have taken over.
    ended: Vec<(LabelSet, Weak<AtomicBool>)>,
    /// Tells of lookups that found something else.
    found: Arc<Notify>,
    workers: JoinSet<()>,
}

/// Asks and steers a running [`Scraper`].
#[derive(Clone, Debug)]
pub struct ScrapeHandle {
    configs: Arc<watch::Sender<Arc<ScrapeConfig>>>,
    board: Arc<Board>,
}

/// What is scraped now, for whoever asks.
#[derive(Debug, Default)]
struct Board {
    seen: Mutex<Seen>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    targets: Vec<StatusCell>,
    dropped: Vec<DroppedTarget>,
}

/// Dropped targets that are remembered. A cluster's discovery drops most of what it finds.
const DROPPED_KEPT_MAX: usize = 10_000;

#[derive(Debug)]
struct Pool {
    config: Arc<PoolConfig>,
    client: Result<Client, Arc<str>>,
    files: Vec<Files>,
    lookups: Vec<Lookup>,
    running: BTreeMap<TargetKey, Running>,
    dropped: Vec<DroppedTarget>,
    is_over_limit: bool,
}

#[derive(Debug)]
struct Running {
    target: Arc<Target>,
    removed: CancellationToken,
    status: StatusCell,
    is_succeeded: Arc<AtomicBool>,
}

// === impl ScrapeHandle ===

impl ScrapeHandle {
    /// Goes on with another configuration. Targets that are the same in both go on undisturbed.
    pub fn reload(&self, config: ScrapeConfig) {
        self.configs.send_replace(Arc::new(config));
    }

    /// Every target and how its scrapes went, by job and address.
    #[must_use]
    pub fn targets(&self) -> Vec<TargetStatus> {
        let cells = self.board.seen.lock().unwrap_or_else(PoisonError::into_inner).targets.clone();
        cells.iter().map(StatusCell::get).collect()
    }

    /// What was discovered and is not scraped.
    #[must_use]
    pub fn dropped(&self) -> Vec<DroppedTarget> {
        self.board.seen.lock().unwrap_or_else(PoisonError::into_inner).dropped.clone()
    }
}

impl ScrapedProxies for ScrapeHandle {
    /// Also if the target is down for now: its counters will be known again.
    fn scrapes(&self, tenant: &TenantId, identity: &TargetIdentity) -> bool {
        let seen = self.board.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.targets.iter().any(|target| target.counts_for(tenant, identity))
    }
}

// === impl Scraper ===

impl Scraper {
    /// A scraper and its handle. `events` should hold [`super::EVENTS_WAITING_MAX`].
    #[must_use]
    pub fn new(
        config: ScrapeConfig,
        clock: Arc<dyn Clock>,
        store: MetricStore,
        events: mpsc::Sender<ScrapeEvent>,
        overrides: InForce,
    ) -> (ScrapeHandle, Self) {
        let (sender, configs) = watch::channel(Arc::new(config));
        let board = Arc::new(Board::default());
        let handle = ScrapeHandle { configs: Arc::new(sender), board: Arc::clone(&board) };
        let (pools, ended, workers) = (BTreeMap::new(), Vec::new(), JoinSet::new());
        let (buffers, found) = (Arc::default(), Arc::new(Notify::new()));
        let cores = Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, NonZero::get)));
        let scraper =
            Self { configs, board, clock, store, events, overrides, buffers, cores, pools, ended, found, workers };
        (handle, scraper)
    }

    /// Scrapes until `shutdown`; returns when every worker has ended.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let config = Arc::clone(&self.configs.borrow_and_update());
        self.adopt(&config);
        self.discover().await;
        self.settle(&shutdown);
        let mut polls = tokio::time::interval(POLL_INTERVAL);
        polls.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased; // Ending first; a reload before a look at files, which it may change.
                () = shutdown.cancelled() => break,
                Ok(()) = self.configs.changed() => {
                    let config = Arc::clone(&self.configs.borrow_and_update());
                    self.adopt(&config);
                    self.discover().await;
                    self.settle(&shutdown);
                }
                () = self.found.notified() => self.settle(&shutdown),
                _at = polls.tick() => {
                    if self.discover().await {
                        self.settle(&shutdown);
                    }
                }
                Some(_ended) = self.workers.join_next() => {}
            }
        }
        // Lookups end with their pools.
        self.pools.clear();
        while self.workers.join_next().await.is_some() {}
    }

    /// Makes the pools those of `config`. A pool whose settings are unchanged stays as it is, with
    /// its connections; a changed one is ended and made anew.
    fn adopt(&mut self, config: &ScrapeConfig) {
        let mut old = std::mem::take(&mut self.pools);
        for wanted in &config.pools {
            let pool = match old.remove(&wanted.job_name) {
                Some(pool) if pool.config == *wanted => pool,
                Some(changed) => {
                    self.ended.extend(changed.end());
                    self.new_pool(wanted)
                }
                None => self.new_pool(wanted),
            };
            self.pools.insert(wanted.job_name.clone(), pool);
        }
        self.ended.extend(old.into_values().flat_map(Pool::end));
    }

    fn new_pool(&mut self, config: &Arc<PoolConfig>) -> Pool {
        let mut pool = Pool::new(config);
        for lookup in &config.lookups {
            let (lookup, task) = Lookup::new(lookup, &self.found);
            self.workers.spawn(task);
            pool.lookups.push(lookup);
        }
        pool
    }

    /// Looks at files of targets; returns whether anything changed.
    async fn discover(&mut self) -> bool {
        let now = self.clock.now();
        let mut is_changed = false;
        for pool in self.pools.values_mut().filter(|pool| !pool.files.is_empty()) {
            let mut files = std::mem::take(&mut pool.files);
            let look = move || {
                let is_changed = files.iter_mut().fold(false, |changed, files| files.refresh(now) | changed);
                (files, is_changed)
            };
            match tokio::task::spawn_blocking(look).await {
                Ok((files, changed)) => {
                    pool.files = files;
                    is_changed |= changed;
                }
                Err(error) => {
                    tracing::error!(job = pool.config.job_name, %error, "files of targets could not be read");
                    pool.files = pool.config.file_sd_configs.iter().cloned().map(Files::new).collect();
                }
            }
        }
        is_changed
    }

    /// Tells workers of ended targets whose labels another target has now: the series are its, and
    /// go on.
    fn tell_succeeded(&mut self) {
        self.ended.retain(|(_, is_succeeded)| is_succeeded.strong_count() > 0);
        if self.ended.is_empty() {
            return;
        }
        let running: BTreeSet<&LabelSet> =
            self.pools.values().flat_map(|pool| pool.running.values().map(|running| &running.target.labels)).collect();
        for (labels, is_succeeded) in &self.ended {
            if let Some(is_succeeded) = is_succeeded.upgrade() {
                is_succeeded.store(running.contains(labels), Ordering::Release);
            }
        }
    }

    /// Starts and ends workers until what is scraped is what should be.
    fn settle(&mut self, shutdown: &CancellationToken) {
        for pool in self.pools.values_mut() {
            let (started, ended) = pool.settle();
            self.ended.extend(ended);
            for running in started {
                let worker = Worker {
                    target: running.target,
                    client: pool.client_or_limit(),
                    clock: Arc::clone(&self.clock),
                    store: self.store.clone(),
                    events: self.events.clone(),
                    status: running.status,
                    overrides: self.overrides.clone(),
                    buffers: Arc::clone(&self.buffers),
                    cores: Arc::clone(&self.cores),
                    is_succeeded: running.is_succeeded,
                };
                self.workers.spawn(worker.run(running.removed, shutdown.clone()));
            }
        }
        self.tell_succeeded();
        let targets = self.pools.values().flat_map(|pool| pool.running.values().map(|running| running.status.clone()));
        let dropped = self.pools.values().flat_map(|pool| pool.dropped.iter().cloned()).take(DROPPED_KEPT_MAX);
        let seen = Seen { targets: targets.collect(), dropped: dropped.collect() };
        *self.board.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

// === impl Running ===

type Ended = (LabelSet, Weak<AtomicBool>);

impl Running {
    fn new(target: Target) -> Self {
        let target = Arc::new(target);
        let status = StatusCell::new(Arc::clone(&target));
        Self { target, removed: CancellationToken::new(), status, is_succeeded: Arc::default() }
    }

    fn share(&self) -> Self {
        Self {
            target: Arc::clone(&self.target),
            removed: self.removed.clone(),
            status: self.status.clone(),
            is_succeeded: Arc::clone(&self.is_succeeded),
        }
    }

    fn end(self) -> Ended {
        self.removed.cancel();
        (self.target.labels.clone(), Arc::downgrade(&self.is_succeeded))
    }
}

// === impl Pool ===

impl Pool {
    fn new(config: &Arc<PoolConfig>) -> Self {
        let client = Client::new(&config.tls).map_err(|error| Arc::from(error.to_string().as_str()));
        Self {
            config: Arc::clone(config),
            client,
            files: config.file_sd_configs.iter().cloned().map(Files::new).collect(),
            lookups: Vec::new(),
            running: BTreeMap::new(),
            dropped: Vec::new(),
            is_over_limit: false,
        }
    }

    fn end(self) -> Vec<Ended> {
        self.running.into_values().map(Running::end).collect()
    }

    /// Ends what is no longer wanted; returns what is new, and what was ended.
    fn settle(&mut self) -> (Vec<Running>, Vec<Ended>) {
        let mut wanted = self.wanted();
        let limit = self.config.limits.target;
        let is_over_limit = limit != 0 && wanted.len() > limit;
        let begins_anew = is_over_limit != self.is_over_limit;
        self.is_over_limit = is_over_limit;
        // When the limit is exceeded or no longer is, every target of the job begins anew, because
        // each reports it.
        let (kept, ended): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|(key, _)| !begins_anew && wanted.remove(key).is_some());
        self.running = kept;
        let mut started = Vec::with_capacity(wanted.len());
        for (key, target) in wanted {
            let running = Running::new(target);
            started.push(running.share());
            self.running.insert(key, running);
        }
        (started, ended.into_values().map(Running::end).collect())
    }

    fn wanted(&mut self) -> BTreeMap<TargetKey, Target> {
        let looked_up: Vec<_> = self.lookups.iter().map(Lookup::groups).collect();
        let looked_up = looked_up.iter().flat_map(|groups| groups.iter());
        let groups = self.config.static_configs.iter().chain(self.files.iter().flat_map(Files::groups));
        let groups = groups.chain(looked_up);
        let mut wanted = BTreeMap::new();
        let mut dropped = Vec::new();
        for resolved in groups.flat_map(|group| resolve_group(&self.config, group)) {
            let (discovered, reason) = match resolved {
                Resolved::Target(target) => {
                    wanted.insert(target.key(), *target);
                    continue;
                }
                Resolved::Dropped(discovered) => (discovered, None),
                Resolved::Invalid { discovered, reason } => (discovered, Some(reason)),
            };
            if dropped.len() < DROPPED_KEPT_MAX {
                dropped.push(DroppedTarget { job: self.config.job_name.clone(), discovered, reason });
            }
        }
        self.dropped = dropped;
        wanted
    }

    /// The client, or why nothing of this job is scraped.
    fn client_or_limit(&self) -> Result<Client, Arc<str>> {
        if self.is_over_limit {
            let (found, limit) = (self.running.len(), self.config.limits.target);
            let text = format!("target_limit exceeded (number of targets: {found}, limit: {limit})");
            return Err(Arc::from(text.as_str()));
        }
        self.client.clone()
    }
}
