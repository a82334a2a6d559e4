//! `GET /api/v1/latency`: quantiles over time of whatever part of the mesh is asked for.

use axum::extract::{RawQuery, State};
use http::HeaderMap;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;
use windrose_proto::edge::EdgeKey;
use windrose_proto::hop::Entry;
use windrose_proto::model::Direction;
use windrose_store::edge_sums::{Detail, is_entry_edge};

use super::bins::{read_bins, total};
use super::envelope::Success;
use super::error::ApiError;
use super::params::Params;
use super::state::QueryState;
use crate::graph::Resolver;
use crate::series::{DEFAULT_QUANTILES, Point, Side, Steps, points, quantiles_ms};
use crate::topology::{WindowAnswer, millis};

const PARAMS: &[&str] =
    &["start", "end", "source", "target", "route", "node", "direction", "quantiles", "step", "side"];

/// Most quantiles of one request.
const QUANTILES_MAX: usize = 20;

/// Latency of what was selected, as a whole and over time.
#[derive(Debug, Serialize, ToSchema)]
pub struct LatencyReport {
    pub window: WindowAnswer,
    /// `client` or `server`.
    pub side: &'static str,
    pub step_seconds: f64,
    pub calls: i64,
    pub errors: i64,
    pub count: i64,
    pub quantiles_ms: BTreeMap<String, Option<f64>>,
    /// Exact; `null` without observations, and where late corrections took back all of the slowest calls that are kept.
    pub max_ms: Option<f64>,
    /// Exact.
    pub mean_ms: Option<f64>,
    /// Why the numbers are `null`, when they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub series: Vec<Point>,
}

/// Latency over time.
#[utoipa::path(
    get, path = "/api/v1/latency", tag = "latency",
    params(("start" = Option<String>, Query), ("end" = Option<String>, Query),
        ("source" = Option<String>, Query, description = "calling node: name, namespace/name or id"),
        ("target" = Option<String>, Query, description = "called node"),
        ("node" = Option<String>, Query, description = "called node; same as target"),
        ("route" = Option<String>, Query, description = "public route; without source and target its latency at the gateway"),
        ("direction" = Option<String>, Query), ("quantiles" = Option<String>, Query, description = "for example 0.5,0.99"),
        ("step" = Option<String>, Query), ("side" = Option<String>, Query, description = "client or server; default client, at the gateway server")),
    responses((status = 200, body = Success<LatencyReport>), (status = 400, body = super::error::ErrorBody)),
)]
pub(super) async fn latency(
    State(state): State<QueryState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Success<LatencyReport>, ApiError> {
    let params = Params::parse(query.as_deref(), PARAMS)?;
    let tenant = state.tenant(&headers)?;
    let range = params.range(state.clock.now())?;
    let steps = Steps::new(range, params.duration("step")?)?;
    let quantiles = params
        .read("quantiles", "numbers from 0 to 1 separated by commas, at most 20", parse_quantiles)?
        .unwrap_or_else(|| DEFAULT_QUANTILES.to_vec());
    let wanted = Wanted::from_params(&params)?;
    let side = params.read("side", "client or server", Side::parse)?;
    let worker = state.clone();
    let report = state.run(async move {
        let snapshot = worker.snapshot(&tenant);
        let bins = read_bins(&snapshot, range, steps, wanted.detail(), |key, names| wanted.takes(key, names)).await?;
        // Nobody reports what the client outside waited, so an entry is timed by the gateway itself.
        let side = side.unwrap_or(if wanted.is_entry() { Side::Server } else { Side::Client });
        let total = total(&bins);
        let latency = side.of(&total);
        let other = if side == Side::Client { Side::Server } else { Side::Client };
        let reason = match (total.calls, latency.count, other.of(&total).count) {
            (0, 0, _) => Some("nothing in the window matches".to_owned()),
            (_, 0, 1..) => Some(format!("only the other side was reported: ask for side={}", other.as_str())),
            (_, 0, _) => Some("no span of these calls carries a duration".to_owned()),
            _ => None,
        };
        Ok(LatencyReport {
            window: WindowAnswer::new(range, snapshot.complete_until, snapshot.revision_count),
            side: side.as_str(),
            step_seconds: steps.width_seconds(),
            calls: total.calls,
            errors: total.errors,
            count: latency.count,
            quantiles_ms: quantiles_ms(latency, &quantiles),
            max_ms: latency.slowest.max_nanos().map(|nanos| millis(nanos as f64)),
            mean_ms: latency.mean_nanos().map(millis),
            reason,
            series: points(&bins, steps, side, &quantiles),
        })
    });
    Ok(Success::new(report.await?))
}

/// What part of the mesh is asked for.
struct Wanted {
    source: Option<String>,
    target: Option<String>,
    route: Option<String>,
    direction: Option<Direction>,
}

impl Wanted {
    fn from_params(params: &Params) -> Result<Self, ApiError> {
        let text = |name| params.text(name).map(str::to_owned);
        Ok(Self {
            source: text("source"),
            target: text("target").or_else(|| text("node")),
            route: text("route"),
            direction: params.direction("direction")?,
        })
    }

    /// Asked for a route as such: its requests are timed where they enter.
    fn is_entry(&self) -> bool {
        self.route.is_some() && self.source.is_none() && self.target.is_none() && self.direction.is_none()
    }

    /// A route on inner edges is told apart only where everything is kept per route.
    fn detail(&self) -> Detail {
        if self.route.is_some() && !self.is_entry() { Detail::Routes } else { Detail::Calls }
    }

    fn takes(&self, key: &EdgeKey, resolver: &Resolver) -> bool {
        if key.direction == Direction::Local || self.direction.is_some_and(|direction| direction != key.direction) {
            return false;
        }
        if self.is_entry() && !is_entry_edge(key) {
            return false;
        }
        let named =
            |wanted: &Option<String>, node| wanted.as_deref().is_none_or(|name| resolver.resolve(node).is_named(name));
        let on_route = match (&self.route, &key.entry) {
            (None, _) => true,
            (Some(route), Some(Entry::Route(entry))) => &*entry.route == route.as_str(),
            (Some(_), _) => false,
        };
        on_route && named(&self.source, &key.source) && named(&self.target, &key.destination)
    }
}

fn parse_quantiles(text: &str) -> Option<Vec<f64>> {
    let read = |part: &str| part.trim().parse().ok().filter(|q: &f64| (0.0..=1.0).contains(q));
    let quantiles: Vec<f64> = text.split(',').map(read).collect::<Option<_>>()?;
    (quantiles.len() <= QUANTILES_MAX).then_some(quantiles)
}
