//! What the query side needs to know of scrape targets. The collector scrapes; the process hands
//! its state over through [`TargetSource`].

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use utoipa::ToSchema;
use windrose_proto::time::UnixNanos;

/// Scraping of the targets that belong to one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct ScrapeStatus {
    pub targets: usize,
    pub up: usize,
    /// Since the last good scrape of the target that has waited longest; `null` before the first.
    pub stale_seconds: Option<f64>,
}

/// One scrape target now.
#[derive(Clone, Debug)]
pub struct Target {
    pub pool: String,
    pub url: String,
    /// Labels after relabelling.
    pub labels: BTreeMap<String, String>,
    /// Labels as discovered.
    pub discovered_labels: BTreeMap<String, String>,
    /// `None` before the first scrape.
    pub up: Option<bool>,
    pub last_error: String,
    pub last_scrape: Option<UnixNanos>,
    pub last_success: Option<UnixNanos>,
    pub last_duration_seconds: f64,
    pub interval_seconds: f64,
    pub timeout_seconds: f64,
    /// The node the target's counters are attached to.
    pub service: Option<String>,
    pub namespace: Option<String>,
}

/// An address that was discovered and is not scraped.
#[derive(Clone, Debug)]
pub struct DroppedTarget {
    pub pool: String,
    /// Labels as discovered.
    pub discovered_labels: BTreeMap<String, String>,
}

/// Where the current targets are known.
pub trait TargetSource: fmt::Debug + Send + Sync {
    /// All targets now.
    fn targets(&self) -> Vec<Target>;

    /// What was discovered and left out; none for a source that leaves nothing out.
    fn dropped(&self) -> Vec<DroppedTarget> {
        Vec::new()
    }
}
