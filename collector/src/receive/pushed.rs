//! Pushed counters on their way from a stored request to the edges they tell of.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;
use windrose_proto::wire::CounterBatch;

use super::metric_stats::{MetricReceiveStats, PushedCounters};
use crate::in_force::InForce;
use crate::metrics_map::pushed::{PushedPages, PushedProxies};
use crate::metrics_map::{Options, TargetIdentity};

/// Who knows which proxies are scraped.
pub trait ScrapedProxies: fmt::Debug + Send + Sync {
    /// Whether the counters of `identity` are known from its pages.
    fn scrapes(&self, tenant: &TenantId, identity: &TargetIdentity) -> bool;
}

/// Turns pushes into counters of edges. One per process: it remembers what each proxy pushed last.
#[derive(Debug)]
pub struct PushedToEdges {
    proxies: Mutex<PushedProxies>,
    overrides: InForce,
    scraped: Arc<dyn ScrapedProxies>,
}

impl PushedToEdges {
    /// For a process that listens `since` then.
    #[must_use]
    pub fn new(since: UnixNanos, overrides: InForce, scraped: Arc<dyn ScrapedProxies>) -> Self {
        Self { proxies: Mutex::new(PushedProxies::new(since)), overrides, scraped }
    }

    /// What the pages of a request say about edges. Takes a while for large ones.
    pub(super) fn take(&self, tenant: &TenantId, pages: PushedPages, stats: &MetricReceiveStats) -> Vec<CounterBatch> {
        let options = Options { overrides: self.overrides.get(), ..Options::default() };
        let mut batches = Vec::new();
        for page in pages {
            let mut proxies = self.proxies.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = proxies.take(tenant, &page, &options, |identity| self.scraped.scrapes(tenant, identity));
            drop(proxies);
            stats.count_pushed(match &taken {
                Ok(_) => PushedCounters::Attached,
                Err(reason) => PushedCounters::Unattached(*reason),
            });
            batches.extend(taken.ok().flatten());
        }
        batches
    }
}
