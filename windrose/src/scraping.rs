//! The scraper's place in the process: what it counts goes into the pipeline, and its targets are
//! shown to the query side.

use std::sync::Arc;

use tokio::runtime::{Handle, Runtime};
use tokio::sync::mpsc::Receiver;
use windrose_collector::in_force::InForce;
use windrose_collector::pipeline::{LogIntake, Pipeline};
use windrose_collector::receive::Intake as _;
use windrose_collector::scrape::{EVENTS_WAITING_MAX, Health, ScrapeEvent, ScrapeHandle, Scraper, TargetStatus};
use windrose_proto::time::Clock;
use windrose_query::scrape_status::{DroppedTarget, Target, TargetSource};
use windrose_store::metrics::MetricStore;

use crate::config::Config;
use crate::tasks::{self, Tasks};

/// Scrapes what is configured until it is stopped.
#[derive(Debug)]
pub(crate) struct Scraping {
    tasks: Tasks,
    targets: Arc<ScrapeTargets>,
}

#[derive(Debug)]
struct ScrapeTargets(ScrapeHandle);

impl Scraping {
    /// Starts the scraper, which stores samples by itself, and the task that hands its counters to
    /// the pipeline.
    pub(crate) fn start(
        config: &Config,
        overrides: InForce,
        pipeline: &Pipeline,
        metrics: MetricStore,
        clock: Arc<dyn Clock>,
        runtime: &Handle,
    ) -> Self {
        let tasks = Tasks::new(runtime.clone());
        let (sender, events) = tasks::channel(EVENTS_WAITING_MAX);
        let (handle, scraper) = Scraper::new(config.scrape.clone(), clock, metrics, sender, overrides);
        tasks.spawn("scraper", scraper.run(tasks.stopping()));
        tasks.spawn("scraped counters", hand_on(events, Arc::clone(pipeline.intake())));
        Self { tasks, targets: Arc::new(ScrapeTargets(handle)) }
    }

    /// What is scraped, for answers about it.
    pub(crate) fn targets(&self) -> Arc<dyn TargetSource> {
        Arc::clone(&self.targets) as Arc<dyn TargetSource>
    }

    /// What steers the scraper.
    pub(crate) fn handle(&self) -> ScrapeHandle {
        self.targets.0.clone()
    }

    /// Ends; what has been scraped is in the pipeline then.
    pub(crate) fn shutdown(self, runtime: &Runtime) {
        runtime.block_on(self.tasks.stop());
    }
}

/// Ends when the scraper has ended and all of its events are handed on.
async fn hand_on(mut events: Receiver<ScrapeEvent>, intake: Arc<LogIntake>) {
    let mut failing = false;
    while let Some(event) = events.recv().await {
        let ScrapeEvent::Scraped(scraped) = event else { continue };
        let Some(counters) = scraped.counters else { continue };
        let taken = intake.submit_counters(scraped.target.pool.tenant.clone(), counters).await;
        // Said when it begins and when it is over, not at every scrape.
        match taken {
            Err(error) if !failing => {
                tracing::error!(error = %error, "scraped counters are not stored; their interval is missing from edges");
                failing = true;
            }
            Ok(()) if failing => {
                tracing::info!("scraped counters are stored again");
                failing = false;
            }
            Ok(()) | Err(_) => {}
        }
    }
}

impl TargetSource for ScrapeTargets {
    fn targets(&self) -> Vec<Target> {
        self.0.targets().into_iter().map(described).collect()
    }

    fn dropped(&self) -> Vec<DroppedTarget> {
        let dropped = self.0.dropped().into_iter();
        dropped.map(|dropped| DroppedTarget { pool: dropped.job, discovered_labels: dropped.discovered }).collect()
    }
}

/// A target in the words of the query side.
fn described(status: TargetStatus) -> Target {
    let TargetStatus { target, health, last_error, last_scrape, last_success, last_duration, .. } = status;
    Target {
        pool: target.pool.job_name.clone(),
        url: target.url.to_string(),
        labels: target.labels.clone(),
        discovered_labels: target.discovered.clone(),
        up: match health {
            Health::Unknown => None,
            Health::Up => Some(true),
            Health::Down => Some(false),
        },
        last_error,
        last_scrape,
        last_success,
        last_duration_seconds: last_duration.as_secs_f64(),
        interval_seconds: target.interval.as_secs_f64(),
        timeout_seconds: target.timeout.as_secs_f64(),
        service: Some(target.identity.service.to_string()),
        namespace: target.identity.namespace.as_ref().map(ToString::to_string),
    }
}
