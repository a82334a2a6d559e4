//! `GET /api/v1/completeness`: what every proxy says it sent, and what came of it.

use axum::extract::{RawQuery, State};
use http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;
use windrose_store::edge_sums::Detail;
use windrose_store::ledger::{Reporter, ReporterCounts};

use super::envelope::Success;
use super::error::ApiError;
use super::params::Params;
use super::state::{QueryState, edge_sums};
use crate::graph::{Graph, Scope, ratio};
use crate::topology::{WindowAnswer, edge_id, rfc3339};

/// One reporting proxy or application since the server started.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReporterAnswer {
    pub service: String,
    pub namespace: Option<String>,
    pub proxy_kind: &'static str,
    pub spans_received: u64,
    pub spans_stored: u64,
    pub spans_duplicate: u64,
    /// Came after their trace had been settled.
    pub spans_late: u64,
    pub last_span: Option<String>,
    /// By the proxy's own counter, over the scrapes since the server started.
    pub spans_reported_sent: Option<u64>,
    pub spans_reported_dropped: Option<u64>,
    /// Distinct spans received per span reported as sent; `null` when the proxy's counter is not scraped.
    pub completeness_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completeness_reason: Option<&'static str>,
}

/// Counters against spans on one edge.
#[derive(Debug, Serialize, ToSchema)]
pub struct EdgeCoverage {
    pub id: String,
    pub source: String,
    pub target: String,
    pub span_calls: i64,
    pub counter_requests: Option<i64>,
    pub coverage_ratio: Option<f64>,
}

/// The ledger.
#[derive(Debug, Serialize, ToSchema)]
pub struct CompletenessAnswer {
    pub window: WindowAnswer,
    /// Since when reporters are counted.
    pub since: String,
    /// `received = stored + duplicate`, always.
    pub spans_received: u64,
    pub spans_stored: u64,
    pub spans_duplicate: u64,
    pub reporters: Vec<ReporterAnswer>,
    pub edges: Vec<EdgeCoverage>,
}

/// Completeness per reporter and coverage per edge.
#[utoipa::path(
    get, path = "/api/v1/completeness", tag = "completeness",
    params(("start" = Option<String>, Query, description = "for the edges; reporters are counted since the server started"), ("end" = Option<String>, Query)),
    responses((status = 200, body = Success<CompletenessAnswer>), (status = 400, body = super::error::ErrorBody)),
)]
pub(super) async fn completeness(
    State(state): State<QueryState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Success<CompletenessAnswer>, ApiError> {
    let params = Params::parse(query.as_deref(), &["start", "end"])?;
    let tenant = state.tenant(&headers)?;
    let range = params.range(state.clock.now())?;
    let worker = state.clone();
    let answer = state.run(async move {
        let snapshot = worker.snapshot(&tenant);
        let graph = Graph::of(&edge_sums(&snapshot, range, Detail::Calls).await?, Scope::Service);
        let edges = graph.edges.iter().map(|((source, target), edge)| {
            let counted = edge.counters().map(|counters| counters.calls);
            EdgeCoverage {
                id: edge_id(source, target),
                source: source.to_string(),
                target: target.to_string(),
                span_calls: edge.stats.spans.calls,
                counter_requests: counted,
                coverage_ratio: counted.filter(|calls| *calls > 0).map(|calls| ratio(edge.stats.spans.calls, calls)),
            }
        });
        let counts = snapshot.ledger.reporters.values();
        let sum = |of: fn(&ReporterCounts) -> u64| counts.clone().map(of).sum();
        Ok(CompletenessAnswer {
            window: WindowAnswer::new(range, snapshot.complete_until, snapshot.revision_count),
            since: rfc3339(snapshot.ledger.since),
            spans_received: sum(|counts| counts.received),
            spans_stored: sum(|counts| counts.stored),
            spans_duplicate: sum(|counts| counts.duplicate),
            reporters: snapshot.ledger.reporters.iter().map(reporter).collect(),
            edges: edges.collect(),
        })
    });
    Ok(Success::new(answer.await?))
}

fn reporter((reporter, counts): (&Reporter, &ReporterCounts)) -> ReporterAnswer {
    let (completeness_ratio, completeness_reason) = match counts.reported_sent {
        None => (None, Some("the proxy's counter of sent spans is not scraped")),
        Some(0) => (None, Some("the proxy's counter of sent spans has not moved since the first scrape")),
        Some(sent) => (Some(counts.stored as f64 / sent as f64), None),
    };
    ReporterAnswer {
        service: reporter.service.to_string(),
        namespace: reporter.namespace.as_ref().map(ToString::to_string),
        proxy_kind: reporter.proxy_kind.as_str(),
        spans_received: counts.received,
        spans_stored: counts.stored,
        spans_duplicate: counts.duplicate,
        spans_late: counts.late,
        last_span: (counts.last_span.0 > 0).then(|| rfc3339(counts.last_span)),
        spans_reported_sent: counts.reported_sent,
        spans_reported_dropped: counts.reported_dropped,
        completeness_ratio,
        completeness_reason,
    }
}
