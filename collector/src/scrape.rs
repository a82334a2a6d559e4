//! Scrape: proxies' metric pages, fetched as Prometheus fetches them.
//!
//! [`config`] reads `scrape_configs` in Prometheus' own shape; [`manager`] keeps one worker per
//! target, follows changes of configuration and of files of targets, and leaves undisturbed what
//! did not change; a worker (`worker`) fetches (`client`) in one of the formats of [`protocol`], reads the page within its limits into one
//! batch of samples ([`series`], [`page`]), stores it, takes the differences of counters
//! ([`crate::metrics_map`]) and hands these on over a bounded channel as a [`ScrapeEvent`].
//!
//! Invariants:
//! - a page is used whole or not at all, and the target's last error says why not;
//! - memory: one page per scrape that is under way, within its body limit, and what is remembered of
//!   each target's lines; as many pages with new lines are taken apart at a time as there are cores; when the channel is full, scrapes wait and later ones are skipped, never
//!   piled up;
//! - files are read in `discovery` only; tasks are made in [`manager`] only.

use std::sync::Arc;
use std::time::Duration;

use windrose_proto::time::UnixNanos;
use windrose_proto::wire::CounterBatch;

mod buffers;
mod client;
pub mod config;
mod discovery;
pub mod manager;
mod md5;
pub mod page;
mod pending;
pub mod protocol;
pub mod relabel;
pub mod series;
pub mod status;
pub mod target;
#[cfg(test)]
mod tests;
pub mod value;
mod worker;

pub use config::{ConfigError, ScrapeConfig};
pub use manager::{ScrapeHandle, Scraper};
pub use page::PageCounts;
pub use status::{DroppedTarget, Health, TargetStatus};
pub use target::Target;

/// Events that may wait for their consumer. The differences of a page are some 10 KB, those of a large
/// gateway 1 MB; when the channel is full, scrapes wait.
pub const EVENTS_WAITING_MAX: usize = 32;

/// What scraping tells its consumer, in the order it happened for each target.
#[derive(Clone, Debug)]
pub enum ScrapeEvent {
    Scraped(Box<Scraped>),
    /// The target is no longer scraped; its series end here. Not sent when the process stops.
    Gone(Arc<Target>),
}

/// One scrape.
#[derive(Clone, Debug)]
pub struct Scraped {
    pub target: Arc<Target>,
    pub report: ScrapeReport,
    /// What the counters of the page say about edges since the previous page.
    pub counters: Option<CounterBatch>,
}

/// How a scrape went: what `up` and the `scrape_…` series are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrapeReport {
    pub scraped_at: UnixNanos,
    pub duration: Duration,
    /// `None` when it went well.
    pub error: Option<String>,
    pub counts: PageCounts,
    pub body_bytes: usize,
}

impl ScrapeReport {
    /// The value of `up`.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.error.is_none()
    }
}
