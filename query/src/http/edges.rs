//! `GET /api/v1/edges/{id}`, its history and its evidence.

use std::collections::BTreeMap;

use axum::extract::{Path, RawQuery, State};
use http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;
use windrose_proto::edge::{CounterStats, EdgeKey};
use windrose_proto::time::TimeRange;
use windrose_store::edge_sums::Detail;
use windrose_store::snapshot::TenantSnapshot;

use super::bins::read_bins;
use super::envelope::Success;
use super::error::ApiError;
use super::params::Params;
use super::state::{QueryState, edge_sums};
use crate::graph::{EdgeTotals, Graph, NodeId, Resolver, Scope};
use crate::sampling::correct;
use crate::series::{Point, Side, Steps, points};
use crate::topology::{EdgeAnswer, WindowAnswer, edge_id};

/// One edge in full.
#[derive(Debug, Serialize, ToSchema)]
pub struct EdgeDetail {
    pub window: WindowAnswer,
    #[serde(flatten)]
    pub edge: EdgeAnswer,
}

/// One edge over time.
#[derive(Debug, Serialize, ToSchema)]
pub struct EdgeHistory {
    pub id: String,
    pub source: String,
    pub target: String,
    pub step_seconds: f64,
    pub points: Vec<Point>,
}

/// A trace that proves an edge.
#[derive(Debug, Serialize, ToSchema)]
pub struct TraceEvidence {
    pub trace_id: String,
    /// Why this one: `slowest` or `latest_error`.
    pub kind: &'static str,
    /// Latency by which it was remembered; `null` for errors.
    pub latency_ms: Option<f64>,
}

/// What the proxy of one side counted.
#[derive(Debug, Serialize, ToSchema)]
pub struct CounterEvidence {
    /// `client` or `server`.
    pub side: &'static str,
    pub calls: i64,
    pub attempts: i64,
    pub errors: i64,
    pub by_code: BTreeMap<String, i64>,
    pub retries: i64,
    pub timeouts: i64,
    pub circuit_rejected: i64,
    pub connect_failures: i64,
    pub bytes_sent: i64,
    pub bytes_received: i64,
    /// Scrape intervals that contributed.
    pub scrapes: i64,
}

/// The proof that an edge exists.
#[derive(Debug, Serialize, ToSchema)]
pub struct EdgeEvidence {
    pub id: String,
    pub source: String,
    pub target: String,
    pub spans: i64,
    pub calls: i64,
    pub attempts: i64,
    pub seen_from_both_sides: i64,
    pub inferred: i64,
    /// Calls known from access logs alone, within `calls`.
    pub logged: i64,
    pub late: i64,
    pub duplicate: i64,
    /// Mirrored requests; they are in no other number but `spans`.
    pub mirrored: i64,
    pub traces: Vec<TraceEvidence>,
    pub counters: Vec<CounterEvidence>,
}

/// The graph of a range, and which of its edges has this id.
async fn find(snapshot: &TenantSnapshot, id: &str, range: TimeRange) -> Result<(Graph, (NodeId, NodeId)), ApiError> {
    let mut graph = Graph::of(&edge_sums(snapshot, range, Detail::Calls).await?, Scope::Service);
    correct(&mut graph);
    let ends = graph.edges.keys().find(|(source, target)| edge_id(source, target) == id).cloned();
    let ends = ends.ok_or_else(|| {
        ApiError::not_found(format!("no edge {id:?} between start and end: ids are listed by /api/v1/topology"))
    })?;
    Ok((graph, ends))
}

/// One edge with everything known about it.
#[utoipa::path(
    get, path = "/api/v1/edges/{id}", tag = "topology",
    params(("id" = String, Path, description = "from /api/v1/topology"), ("start" = Option<String>, Query), ("end" = Option<String>, Query)),
    responses((status = 200, body = Success<EdgeDetail>), (status = 404, body = super::error::ErrorBody)),
)]
pub(super) async fn edge(
    State(state): State<QueryState>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Success<EdgeDetail>, ApiError> {
    let range = Params::parse(query.as_deref(), &["start", "end"])?.range(state.clock.now())?;
    let snapshot = state.snapshot(&state.tenant(&headers)?);
    let detail = state.run(async move {
        let (graph, ends) = find(&snapshot, &id, range).await?;
        let edge = EdgeAnswer::new(&graph, &ends, &graph.edges[&ends], range.seconds(), usize::MAX);
        Ok(EdgeDetail { window: WindowAnswer::new(range, snapshot.complete_until, snapshot.revision_count), edge })
    });
    Ok(Success::new(detail.await?))
}

/// One edge in steps of time.
#[utoipa::path(
    get, path = "/api/v1/edges/{id}/history", tag = "topology",
    params(("id" = String, Path), ("start" = Option<String>, Query), ("end" = Option<String>, Query),
        ("step" = Option<String>, Query, description = "width of a point; default a sixtieth of the range"),
        ("side" = Option<String>, Query, description = "client (default) or server")),
    responses((status = 200, body = Success<EdgeHistory>), (status = 404, body = super::error::ErrorBody)),
)]
pub(super) async fn history(
    State(state): State<QueryState>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Success<EdgeHistory>, ApiError> {
    let params = Params::parse(query.as_deref(), &["start", "end", "step", "side"])?;
    let range = params.range(state.clock.now())?;
    let steps = Steps::new(range, params.duration("step")?)?;
    let side = params.read("side", "client or server", Side::parse)?.unwrap_or_default();
    let snapshot = state.snapshot(&state.tenant(&headers)?);
    let history = state.run(async move {
        let (_, (source, target)) = find(&snapshot, &id, range).await?;
        let is_it = |key: &EdgeKey, names: &Resolver| {
            names.resolve(&key.source) == source && names.resolve(&key.destination) == target
        };
        let bins = read_bins(&snapshot, range, steps, Detail::Calls, is_it).await?;
        let points = points(&bins, steps, side, crate::series::DEFAULT_QUANTILES);
        Ok(EdgeHistory {
            id,
            source: source.to_string(),
            target: target.to_string(),
            step_seconds: steps.width_seconds(),
            points,
        })
    });
    Ok(Success::new(history.await?))
}

/// The proof that an edge exists: traces and counters.
#[utoipa::path(
    get, path = "/api/v1/edges/{id}/evidence", tag = "topology",
    params(("id" = String, Path), ("start" = Option<String>, Query), ("end" = Option<String>, Query)),
    responses((status = 200, body = Success<EdgeEvidence>), (status = 404, body = super::error::ErrorBody)),
)]
pub(super) async fn evidence(
    State(state): State<QueryState>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Success<EdgeEvidence>, ApiError> {
    let range = Params::parse(query.as_deref(), &["start", "end"])?.range(state.clock.now())?;
    let snapshot = state.snapshot(&state.tenant(&headers)?);
    let proof = state.run(async move {
        let (graph, ends) = find(&snapshot, &id, range).await?;
        Ok(evidence_of(id, &ends, &graph.edges[&ends]))
    });
    Ok(Success::new(proof.await?))
}

fn evidence_of(id: String, (source, target): &(NodeId, NodeId), edge: &EdgeTotals) -> EdgeEvidence {
    let spans = &edge.stats.spans;
    let slowest = spans.client.slowest.entries().iter().chain(spans.server.slowest.entries());
    let mut traces: Vec<TraceEvidence> = slowest
        .map(|(nanos, trace)| TraceEvidence {
            trace_id: trace.to_string(),
            kind: "slowest",
            latency_ms: Some(crate::topology::millis(*nanos as f64)),
        })
        .collect();
    traces.extend(spans.latest_errors.entries().iter().map(|(_, trace)| TraceEvidence {
        trace_id: trace.to_string(),
        kind: "latest_error",
        latency_ms: None,
    }));
    let sides = [("client", &edge.stats.client_counters), ("server", &edge.stats.server_counters)];
    EdgeEvidence {
        id,
        source: source.to_string(),
        target: target.to_string(),
        spans: spans.spans,
        calls: spans.calls,
        attempts: spans.attempts,
        seen_from_both_sides: spans.both_sides,
        inferred: spans.inferred,
        logged: spans.logged,
        late: spans.late,
        duplicate: spans.duplicate,
        mirrored: spans.mirrored,
        traces,
        counters: sides.into_iter().filter(|(_, side)| !side.is_absent()).map(counter_evidence).collect(),
    }
}

fn counter_evidence((side, counters): (&'static str, &CounterStats)) -> CounterEvidence {
    CounterEvidence {
        side,
        calls: counters.calls,
        attempts: counters.attempts,
        errors: counters.errors,
        by_code: counters.by_code.iter().map(|(code, count)| (code.to_string(), *count)).collect(),
        retries: counters.retries,
        timeouts: counters.timeouts,
        circuit_rejected: counters.circuit_rejected,
        connect_failures: counters.connect_failures,
        bytes_sent: counters.bytes_sent,
        bytes_received: counters.bytes_received,
        scrapes: counters.scrapes,
    }
}
