//! `targets`, `scrape_pools`: what is scraped.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use serde::Serialize;

use super::answer::Answer;
use super::request::Form;
use crate::http::QueryState;
use crate::http::error::ApiError;
use crate::scrape_status::{DroppedTarget, Target};
use crate::topology::rfc3339;

/// How Go writes "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ActiveTarget {
    discovered_labels: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    scrape_pool: String,
    scrape_url: String,
    global_url: String,
    last_error: String,
    last_scrape: String,
    last_scrape_duration: f64,
    health: &'static str,
    scrape_interval: String,
    scrape_timeout: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Dropped {
    discovered_labels: BTreeMap<String, String>,
    scrape_pool: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Discovery {
    active_targets: Vec<ActiveTarget>,
    dropped_targets: Vec<Dropped>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped_target_counts: Option<BTreeMap<String, usize>>,
}

/// `/api/v1/targets`.
#[utoipa::path(
    get, path = "/api/v1/targets", tag = "prometheus",
    params(("state" = Option<String>, Query, description = "active, dropped or any"), ("scrapePool" = Option<String>, Query, description = "one pool")),
    responses((status = 200, description = "What is scraped."), (status = 400, body = crate::http::error::ErrorBody)),
)]
pub(super) async fn targets(State(state): State<QueryState>, form: Form) -> Result<Answer, ApiError> {
    let wanted = form.first("state").to_ascii_lowercase();
    let pool = form.first("scrapePool");
    let shows = |kind: &str| wanted.is_empty() || wanted == "any" || wanted == kind;
    let in_pool = |name: &str| pool.is_empty() || pool == name;
    let mut active_targets = Vec::new();
    if shows("active") {
        let targets = state.targets.targets().into_iter().filter(|target| in_pool(&target.pool));
        active_targets.extend(targets.map(ActiveTarget::new));
    }
    let mut discovery = Discovery { active_targets, dropped_targets: Vec::new(), dropped_target_counts: None };
    if shows("dropped") {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for dropped in state.targets.dropped().into_iter().filter(|dropped| in_pool(&dropped.pool)) {
            *counts.entry(dropped.pool.clone()).or_default() += 1;
            let DroppedTarget { pool: scrape_pool, discovered_labels } = dropped;
            discovery.dropped_targets.push(Dropped { discovered_labels, scrape_pool });
        }
        discovery.dropped_target_counts = Some(counts);
    }
    Answer::new(&discovery)
}

impl ActiveTarget {
    fn new(target: Target) -> Self {
        let health = match target.up {
            Some(true) => "up",
            Some(false) => "down",
            None => "unknown",
        };
        Self {
            discovered_labels: target.discovered_labels,
            labels: target.labels,
            scrape_pool: target.pool,
            global_url: target.url.clone(),
            scrape_url: target.url,
            last_error: target.last_error,
            last_scrape: target.last_scrape.map_or_else(|| NEVER.to_owned(), rfc3339),
            last_scrape_duration: target.last_duration_seconds,
            health,
            scrape_interval: duration(target.interval_seconds),
            scrape_timeout: duration(target.timeout_seconds),
        }
    }
}

fn duration(seconds: f64) -> String {
    windrose_promql::duration::from_seconds(seconds)
        .map_or_else(|| format!("{seconds}s"), windrose_promql::duration::format)
}

/// `/api/v1/scrape_pools`: names of all pools.
#[utoipa::path(
    get, path = "/api/v1/scrape_pools", tag = "prometheus",
    responses((status = 200, description = "Names of the scrape pools."), (status = 400, body = crate::http::error::ErrorBody)),
)]
pub(super) async fn scrape_pools(State(state): State<QueryState>) -> Result<Answer, ApiError> {
    let pools: BTreeSet<String> = state.targets.targets().into_iter().map(|target| target.pool).collect();
    Answer::new(&serde_json::json!({"scrapePools": pools}))
}
