//! The set of targets: what should be scraped, what is, and how one becomes the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use windrose_proto::time::Clock;

use super::ScrapeEvent;
use super::client::Client;
use super::config::{PoolConfig, ScrapeConfig};
use super::discovery::{Files, POLL_INTERVAL};
use super::status::{DroppedTarget, StatusCell, TargetStatus};
use super::target::{Resolved, Target, TargetKey, resolve_group};
use super::worker::Worker;
use crate::metrics_map::Options;

/// Scrapes everything that is configured. Make it with [`Scraper::new`], run it as one task.
#[derive(Debug)]
pub struct Scraper {
    configs: watch::Receiver<Arc<ScrapeConfig>>,
    board: Arc<Board>,
    clock: Arc<dyn Clock>,
    events: mpsc::Sender<ScrapeEvent>,
    options: Arc<Options>,
    pools: BTreeMap<String, Pool>,
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
    running: BTreeMap<TargetKey, Running>,
    dropped: Vec<DroppedTarget>,
    is_over_limit: bool,
}

#[derive(Debug)]
struct Running {
    removed: CancellationToken,
    status: StatusCell,
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

// === impl Scraper ===

impl Scraper {
    /// A scraper and its handle. `events` should hold [`super::EVENTS_WAITING_MAX`].
    #[must_use]
    pub fn new(
        config: ScrapeConfig,
        clock: Arc<dyn Clock>,
        events: mpsc::Sender<ScrapeEvent>,
        options: Options,
    ) -> (ScrapeHandle, Self) {
        let (sender, configs) = watch::channel(Arc::new(config));
        let board = Arc::new(Board::default());
        let handle = ScrapeHandle { configs: Arc::new(sender), board: Arc::clone(&board) };
        let options = Arc::new(options);
        let scraper = Self { configs, board, clock, events, options, pools: BTreeMap::new(), workers: JoinSet::new() };
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
                _at = polls.tick() => {
                    if self.discover().await {
                        self.settle(&shutdown);
                    }
                }
                Some(_ended) = self.workers.join_next() => {}
            }
        }
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
                    changed.end();
                    Pool::new(wanted)
                }
                None => Pool::new(wanted),
            };
            self.pools.insert(wanted.job_name.clone(), pool);
        }
        old.into_values().for_each(|pool| pool.end());
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

    /// Starts and ends workers until what is scraped is what should be.
    fn settle(&mut self, shutdown: &CancellationToken) {
        for pool in self.pools.values_mut() {
            let started = pool.settle();
            for (target, status, removed) in started {
                let worker = Worker {
                    target,
                    client: pool.client_or_limit(),
                    clock: Arc::clone(&self.clock),
                    events: self.events.clone(),
                    status,
                    options: Arc::clone(&self.options),
                };
                self.workers.spawn(worker.run(removed, shutdown.clone()));
            }
        }
        let targets = self.pools.values().flat_map(|pool| pool.running.values().map(|running| running.status.clone()));
        let dropped = self.pools.values().flat_map(|pool| pool.dropped.iter().cloned()).take(DROPPED_KEPT_MAX);
        let seen = Seen { targets: targets.collect(), dropped: dropped.collect() };
        *self.board.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

// === impl Pool ===

type Started = (Arc<Target>, StatusCell, CancellationToken);

impl Pool {
    fn new(config: &Arc<PoolConfig>) -> Self {
        let client = Client::new(config).map_err(|error| Arc::from(error.to_string().as_str()));
        Self {
            config: Arc::clone(config),
            client,
            files: config.file_sd_configs.iter().cloned().map(Files::new).collect(),
            running: BTreeMap::new(),
            dropped: Vec::new(),
            is_over_limit: false,
        }
    }

    fn end(self) {
        self.running.values().for_each(|running| running.removed.cancel());
    }

    /// Ends what is no longer wanted and returns what is new.
    fn settle(&mut self) -> Vec<Started> {
        let mut wanted = self.wanted();
        let limit = self.config.limits.target;
        let is_over_limit = limit != 0 && wanted.len() > limit;
        if is_over_limit != self.is_over_limit {
            // Every target of the job begins anew, because each reports the limit or no longer does.
            self.running.values().for_each(|running| running.removed.cancel());
            self.running.clear();
            self.is_over_limit = is_over_limit;
        }
        self.running.retain(|key, running| {
            let is_wanted = wanted.remove(key).is_some();
            if !is_wanted {
                running.removed.cancel();
            }
            is_wanted
        });
        let mut started = Vec::with_capacity(wanted.len());
        for (key, target) in wanted {
            let target = Arc::new(target);
            let running = Running { removed: CancellationToken::new(), status: StatusCell::new(Arc::clone(&target)) };
            started.push((target, running.status.clone(), running.removed.clone()));
            self.running.insert(key, running);
        }
        started
    }

    fn wanted(&mut self) -> BTreeMap<TargetKey, Target> {
        let groups = self.config.static_configs.iter().chain(self.files.iter().flat_map(Files::groups));
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
