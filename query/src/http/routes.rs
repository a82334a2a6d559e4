//! `GET /api/v1/routes`: every public route and what it reaches.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{RawQuery, State};
use http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;
use windrose_proto::edge::SpanStats;
use windrose_proto::hop::{Entry, EntryRoute};
use windrose_proto::model::NodeRole;
use windrose_store::edge_sums::{Detail, EdgeSums, is_entry_edge};

use super::envelope::Success;
use super::error::ApiError;
use super::params::Params;
use super::state::{QueryState, edge_sums};
use crate::graph::{Graph, Resolver, Scope, ratio};
use crate::sampling::{CorrectedRate, Correction};
use crate::topology::{SideLatency, WindowAnswer};

/// Routes of one answer when `limit` is not given.
const DEFAULT_LIMIT: usize = 200;
const MAX_LIMIT: usize = 10_000;

/// One public route.
#[derive(Debug, Serialize, ToSchema)]
pub struct RouteAnswer {
    /// Method and path template.
    pub route: String,
    pub host: Option<String>,
    pub gateways: Vec<String>,
    pub requests: i64,
    pub requests_per_second: f64,
    /// With what sampling left out.
    pub corrected: CorrectedRate,
    /// `null` without requests.
    pub success_ratio: Option<f64>,
    /// As the gateway measured it.
    pub latency_ms: SideLatency,
    /// Services the route's requests reach.
    pub services: Vec<String>,
    /// Hosts outside that it reaches.
    pub egress_hosts: Vec<String>,
    /// Calls between services per request of the route.
    pub calls_per_request: Option<f64>,
}

/// All routes.
#[derive(Debug, Serialize, ToSchema)]
pub struct RoutesAnswer {
    pub window: WindowAnswer,
    pub routes: Vec<RouteAnswer>,
}

#[derive(Default)]
struct Gathered {
    entry: SpanStats,
    gateways: BTreeSet<String>,
    services: BTreeSet<String>,
    egress_hosts: BTreeSet<String>,
    inner_calls: i64,
}

/// Every public route with its traffic, its latency and what it reaches.
#[utoipa::path(
    get, path = "/api/v1/routes", tag = "routes",
    params(("start" = Option<String>, Query), ("end" = Option<String>, Query), ("limit" = Option<usize>, Query, description = "busiest first, default 200")),
    responses((status = 200, body = Success<RoutesAnswer>), (status = 400, body = super::error::ErrorBody)),
)]
pub(super) async fn routes(
    State(state): State<QueryState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Success<RoutesAnswer>, ApiError> {
    let params = Params::parse(query.as_deref(), &["start", "end", "limit"])?;
    let tenant = state.tenant(&headers)?;
    let range = params.range(state.clock.now())?;
    let limit = params.number("limit", DEFAULT_LIMIT, MAX_LIMIT)?;
    let worker = state.clone();
    let answer = state.run(async move {
        let snapshot = worker.snapshot(&tenant);
        let sums = edge_sums(&snapshot, range, Detail::Calls).await?;
        let graph = Graph::of(&sums, Scope::Service);
        let mut routes = word(gather(&sums), &Correction::of(&graph), range.seconds());
        let total = routes.len();
        routes.truncate(limit);
        let window = WindowAnswer::new(range, snapshot.complete_until, snapshot.revision_count);
        Ok((RoutesAnswer { window, routes }, total))
    });
    let (answer, total) = answer.await?;
    let warnings =
        if total > limit { vec![format!("results truncated: {limit} of {total} routes")] } else { Vec::new() };
    Ok(Success::with_warnings(answer, warnings))
}

fn gather(sums: &EdgeSums) -> BTreeMap<EntryRoute, Gathered> {
    let resolver = Resolver::of(sums);
    let mut routes: BTreeMap<EntryRoute, Gathered> = BTreeMap::new();
    for edge in sums.edges() {
        let destination = resolver.resolve(&edge.key.destination);
        let is_entry = is_entry_edge(&edge.key);
        for (entry, calls) in sums.entries_of(edge) {
            let Entry::Route(route) = entry else { continue };
            let route = routes.entry(EntryRoute::clone(route)).or_default();
            if is_entry {
                // Where requests enter, an edge is kept by route.
                route.entry.merge(&edge.stats.spans);
                route.gateways.insert(destination.to_string());
                continue;
            }
            route.inner_calls += calls.calls;
            match edge.key.destination.role {
                NodeRole::External => drop(route.egress_hosts.insert(destination.to_string())),
                NodeRole::Egress | NodeRole::Gateway | NodeRole::Unknown => {}
                _ => drop(route.services.insert(destination.to_string())),
            }
        }
    }
    routes
}

fn word(routes: BTreeMap<EntryRoute, Gathered>, correction: &Correction<'_>, seconds: f64) -> Vec<RouteAnswer> {
    let answer = |(route, gathered): (EntryRoute, Gathered)| {
        let requests = gathered.entry.calls;
        RouteAnswer {
            route: route.route.to_string(),
            host: route.host.as_ref().map(ToString::to_string),
            gateways: gathered.gateways.into_iter().collect(),
            requests,
            requests_per_second: requests as f64 / seconds,
            corrected: correction.route(&route).per_second(seconds),
            success_ratio: (requests > 0).then(|| 1.0 - ratio(gathered.entry.errors, requests)),
            latency_ms: SideLatency::of(&gathered.entry.server),
            services: gathered.services.into_iter().collect(),
            egress_hosts: gathered.egress_hosts.into_iter().collect(),
            calls_per_request: (requests > 0).then(|| ratio(gathered.inner_calls, requests)),
        }
    };
    let mut answers: Vec<RouteAnswer> = routes.into_iter().map(answer).collect();
    answers.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.route.cmp(&b.route)));
    answers
}
