//! `GET /api/v1/egress`: calls that leave, per external host, caller and public route.

use std::collections::BTreeMap;

use axum::extract::{RawQuery, State};
use http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;
use windrose_proto::edge::SpanStats;
use windrose_proto::hop::{Entry, EntryRoute};
use windrose_proto::model::{Direction, NodeRole};
use windrose_store::edge_sums::{Detail, EdgeSum, EdgeSums};

use super::envelope::Success;
use super::error::ApiError;
use super::params::Params;
use super::state::{QueryState, edge_sums};
use crate::graph::{NodeId, Resolver, ratio};
use crate::topology::{ErrorShare, SideLatency, WindowAnswer, errors_by_class, millis};

/// Calls of one caller to one host on behalf of one route.
#[derive(Debug, Serialize, ToSchema)]
pub struct EgressAnswer {
    pub host: String,
    /// The workload that called; `null` when the egress gateway's caller is not known.
    pub caller: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller_reason: Option<&'static str>,
    /// The egress gateway on the way; `null` when the workload called directly.
    pub gateway: Option<String>,
    /// `null` with a reason when the public route is not known.
    pub route: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_reason: Option<&'static str>,
    pub calls: i64,
    pub calls_per_second: f64,
    pub success_ratio: Option<f64>,
    pub errors_by: Vec<ErrorShare>,
    /// As the last proxy inside measured it: mean, exact max, quantiles.
    pub latency_ms: SideLatency,
    /// What the egress gateway adds on average, over all calls this caller sends through it;
    /// `null` without a gateway.
    pub gateway_overhead_ms: Option<f64>,
}

/// Everything that leaves.
#[derive(Debug, Serialize, ToSchema)]
pub struct EgressReport {
    pub window: WindowAnswer,
    pub egress: Vec<EgressAnswer>,
}

type Key = (NodeId, Option<NodeId>, Option<NodeId>, Option<EntryRoute>, Option<&'static str>);

/// Calls that leave the mesh.
#[utoipa::path(
    get, path = "/api/v1/egress", tag = "egress",
    params(("start" = Option<String>, Query), ("end" = Option<String>, Query)),
    responses((status = 200, body = Success<EgressReport>), (status = 400, body = super::error::ErrorBody)),
)]
pub(super) async fn egress(
    State(state): State<QueryState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Success<EgressReport>, ApiError> {
    let params = Params::parse(query.as_deref(), &["start", "end"])?;
    let tenant = state.tenant(&headers)?;
    let range = params.range(state.clock.now())?;
    let worker = state.clone();
    let report = state.run(async move {
        let snapshot = worker.snapshot(&tenant);
        let sums = edge_sums(&snapshot, range, Detail::Calls).await?;
        let window = WindowAnswer::new(range, snapshot.complete_until, snapshot.revision_count);
        Ok(EgressReport { window, egress: report(&sums, range.seconds()) })
    });
    Ok(Success::new(report.await?))
}

fn report(sums: &EdgeSums, seconds: f64) -> Vec<EgressAnswer> {
    let resolver = Resolver::of(sums);
    let mut leaving: BTreeMap<Key, SpanStats> = BTreeMap::new();
    // What callers waited for the gateway, and what the gateway waited for the outside.
    let mut waited: BTreeMap<(NodeId, NodeId), SpanStats> = BTreeMap::new();
    let mut passed_on: BTreeMap<(NodeId, NodeId), SpanStats> = BTreeMap::new();
    let leaves = |edge: &&EdgeSum| edge.key.direction == Direction::Egress && edge.stats.spans.attempts > 0;
    // What leaves is kept by route and origin.
    for EdgeSum { key, stats, .. } in sums.edges().filter(leaves) {
        let (source, destination) = (resolver.resolve(&key.source), resolver.resolve(&key.destination));
        if key.destination.role == NodeRole::Egress {
            waited.entry((source, destination)).or_default().merge(&stats.spans);
            continue;
        }
        let (route, gap) = match &key.entry {
            Some(Entry::Route(route)) => (Some(EntryRoute::clone(route)), None),
            Some(Entry::Unknown(gap)) => (None, Some(gap.as_str())),
            None => (None, Some("counters know no route")),
        };
        let through_gateway = key.source.role == NodeRole::Egress;
        let (caller, gateway) = if through_gateway {
            (key.origin.as_deref().map(|origin| resolver.resolve(origin)), Some(source))
        } else {
            (Some(source), None)
        };
        if let (Some(caller), Some(gateway)) = (&caller, &gateway) {
            passed_on.entry((caller.clone(), gateway.clone())).or_default().merge(&stats.spans);
        }
        leaving.entry((destination, caller, gateway, route, gap)).or_default().merge(&stats.spans);
    }
    let overhead = |caller: &NodeId, gateway: &NodeId| {
        let ends = (caller.clone(), gateway.clone());
        let outer = waited.get(&ends)?.client.mean_nanos()?;
        Some(millis(outer - passed_on.get(&ends)?.client.mean_nanos()?))
    };
    let answer = |((host, caller, gateway, route, gap), spans): (Key, SpanStats)| EgressAnswer {
        host: host.to_string(),
        caller_reason: caller.is_none().then_some("the span by which the caller reached the gateway is missing"),
        gateway_overhead_ms: caller
            .as_ref()
            .zip(gateway.as_ref())
            .and_then(|(caller, gateway)| overhead(caller, gateway)),
        caller: caller.map(|caller| caller.to_string()),
        gateway: gateway.map(|gateway| gateway.to_string()),
        route: route.map(|route| route.route.to_string()),
        route_reason: gap,
        calls: spans.calls,
        calls_per_second: spans.calls as f64 / seconds,
        success_ratio: (spans.calls > 0).then(|| 1.0 - ratio(spans.errors, spans.calls)),
        errors_by: errors_by_class(&spans),
        latency_ms: SideLatency::of(&spans.client),
    };
    let mut answers: Vec<EgressAnswer> = leaving.into_iter().map(answer).collect();
    answers.sort_by(|a, b| b.calls.cmp(&a.calls).then_with(|| (&a.host, &a.caller).cmp(&(&b.host, &b.caller))));
    answers
}
