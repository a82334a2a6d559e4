//! The scraper's place in the process: its configuration, its targets as the query side sees them.

use std::sync::Arc;

use tokio::runtime::{Handle, Runtime};
use windrose_collector::pipeline::Pipeline;
use windrose_proto::time::Clock;
use windrose_query::scrape_status::{Target, TargetSource};

use crate::config::Scrape;

/// What is being scraped.
#[derive(Debug)]
pub(crate) struct Scraping {
    targets: Arc<dyn TargetSource>,
}

#[derive(Debug)]
struct NoTargets;

impl TargetSource for NoTargets {
    fn targets(&self) -> Vec<Target> {
        Vec::new()
    }
}

impl Scraping {
    pub(crate) fn start(scrape: &Scrape, _: &Pipeline, _: Arc<dyn Clock>, _: &Handle) -> Self {
        if scrape.yaml.is_some() {
            tracing::warn!("this build does not scrape yet; scrape_configs is ignored");
        }
        Self { targets: Arc::new(NoTargets) }
    }

    pub(crate) fn targets(&self) -> Arc<dyn TargetSource> {
        Arc::clone(&self.targets)
    }

    pub(crate) fn shutdown(self, _: &Runtime) {}
}
