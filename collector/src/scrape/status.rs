//! What is known of each target now: the answer of `/api/v1/targets`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use windrose_proto::metric::Metadata;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;

use super::ScrapeReport;
use super::relabel::LabelSet;
use super::target::Target;
use crate::metrics_map::TargetIdentity;

/// Whether the last scrape went well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Not scraped yet.
    #[default]
    Unknown,
    Up,
    Down,
}

/// A target and how its scrapes went.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetStatus {
    pub target: Arc<Target>,
    pub health: Health,
    /// Empty when the last scrape went well.
    pub last_error: String,
    pub last_scrape: Option<UnixNanos>,
    pub last_success: Option<UnixNanos>,
    pub last_duration: Duration,
    pub samples: usize,
    pub samples_kept: usize,
    /// Scrapes since the target is known.
    pub scrapes: u64,
    pub failures: u64,
    /// Series whose counters are not followed because the target has too many.
    pub series_over_limit: usize,
    /// What its pages say about its families.
    pub families: Arc<BTreeMap<Box<str>, Metadata>>,
    /// Why the samples of the last scrape are not stored.
    pub store_error: Option<String>,
}

/// An address that is not scraped.
#[derive(Clone, Debug, PartialEq)]
pub struct DroppedTarget {
    pub job: String,
    pub discovered: LabelSet,
    /// Why, unless relabelling dropped it on purpose.
    pub reason: Option<String>,
}

/// The status of one target, shared between its worker and whoever asks.
#[derive(Clone, Debug)]
pub(super) struct StatusCell(Arc<Mutex<TargetStatus>>);

impl Health {
    /// The wire word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

impl StatusCell {
    pub(super) fn new(target: Arc<Target>) -> Self {
        Self(Arc::new(Mutex::new(TargetStatus {
            target,
            health: Health::Unknown,
            last_error: String::new(),
            last_scrape: None,
            last_success: None,
            last_duration: Duration::ZERO,
            samples: 0,
            samples_kept: 0,
            scrapes: 0,
            failures: 0,
            series_over_limit: 0,
            families: Arc::default(),
            store_error: None,
        })))
    }

    pub(super) fn get(&self) -> TargetStatus {
        self.lock().clone()
    }

    /// Whether the target was scraped with success and may be `identity`.
    pub(super) fn counts_for(&self, tenant: &TenantId, identity: &TargetIdentity) -> bool {
        let status = self.lock();
        let target = &status.target;
        status.last_success.is_some() && target.pool.tenant == *tenant && target.identity.may_be(identity)
    }

    /// Notes whether the samples of a scrape are stored.
    pub(super) fn note_stored(&self, error: Option<String>) {
        self.lock().store_error = error;
    }

    /// Whether the last scrape did not fail to be stored with the same words.
    pub(super) fn is_news(&self, store_error: &str) -> bool {
        self.lock().store_error.as_deref() != Some(store_error)
    }

    fn lock(&self) -> MutexGuard<'_, TargetStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a scrape; returns whether the health changed.
    pub(super) fn note(
        &self,
        report: &ScrapeReport,
        series_over_limit: usize,
        families: &BTreeMap<Box<str>, Metadata>,
    ) -> bool {
        let known = Arc::clone(&self.lock().families);
        let families = if *known == *families { known } else { Arc::new(families.clone()) };
        let mut status = self.lock();
        status.families = families;
        let before = status.health;
        status.health = if report.is_up() { Health::Up } else { Health::Down };
        status.last_error = report.error.clone().unwrap_or_default();
        status.last_scrape = Some(report.scraped_at);
        if report.is_up() {
            status.last_success = Some(report.scraped_at);
            status.series_over_limit = series_over_limit;
        }
        status.last_duration = report.duration;
        status.samples = report.counts.samples;
        status.samples_kept = report.counts.samples_kept;
        status.scrapes += 1;
        status.failures += u64::from(!report.is_up());
        before != status.health
    }
}
