//! `GET /api/v1/traces`, `/api/v1/traces/{id}` and `/api/v1/explain`.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use windrose_proto::id::TraceId;
use windrose_proto::span::Span;
use windrose_store::row::RequestRow;
use windrose_store::snapshot::TenantSnapshot;

use super::envelope::Success;
use super::error::ApiError;
use super::params::Params;
use super::state::QueryState;
use crate::traces::{Explanation, TraceFilter, TraceSummary, TraceView};

const LIST_PARAMS: &[&str] =
    &["start", "end", "service", "route", "min_duration_ms", "max_duration_ms", "status", "attr.*", "limit"];

/// Traces of one answer when `limit` is not given.
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 1_000;

/// Settled requests, newest first.
#[utoipa::path(
    get, path = "/api/v1/traces", tag = "traces",
    params(("start" = Option<String>, Query), ("end" = Option<String>, Query),
        ("service" = Option<String>, Query, description = "a service the trace touches"),
        ("route" = Option<String>, Query, description = "public route"),
        ("min_duration_ms" = Option<f64>, Query), ("max_duration_ms" = Option<f64>, Query),
        ("status" = Option<String>, Query, description = "ok, error, or an HTTP status"),
        ("attr.KEY" = Option<String>, Query, description = "a span of the trace carries this attribute value"),
        ("limit" = Option<usize>, Query, description = "default 20")),
    responses((status = 200, body = Success<Vec<TraceSummary>>), (status = 400, body = super::error::ErrorBody)),
)]
pub(super) async fn list(
    State(state): State<QueryState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Success<Vec<TraceSummary>>, ApiError> {
    let params = Params::parse(query.as_deref(), LIST_PARAMS)?;
    let tenant = state.tenant(&headers)?;
    let range = params.range(state.clock.now())?;
    let limit = params.number("limit", DEFAULT_LIMIT, MAX_LIMIT)?;
    let filter = TraceFilter::from_params(&params)?;
    let worker = state.clone();
    let answer = state.run(async move {
        let snapshot = worker.snapshot(&tenant);
        let mut rows = request_rows(&snapshot, range).await?;
        rows.sort_by_key(|row| std::cmp::Reverse((row.request.start, row.request.trace_id)));
        let mut found = Vec::new();
        for row in rows {
            if found.len() > limit {
                break;
            }
            if !filter.takes_request(&row.request) {
                continue;
            }
            if filter.needs_spans() {
                let spans = trace_spans(&snapshot, row.request.trace_id).await?;
                let derived = (worker.derive)(&spans);
                if !filter.takes_spans(&spans, &derived) {
                    continue;
                }
            }
            found.push(TraceSummary::new(&row));
        }
        Ok(found)
    });
    let mut found = answer.await?;
    let truncated = found.len() > limit;
    found.truncate(limit);
    let warnings = if truncated {
        vec![format!("results truncated at limit {limit}: newer traces shown first")]
    } else {
        Vec::new()
    };
    Ok(Success::with_warnings(found, warnings))
}

/// Current request rows of a range.
async fn request_rows(
    snapshot: &TenantSnapshot,
    range: windrose_proto::time::TimeRange,
) -> Result<Vec<RequestRow>, ApiError> {
    let hot = snapshot.generations().flat_map(|tables| tables.requests.iter()).flat_map(|chunk| chunk.iter());
    let mut rows: Vec<RequestRow> = hot.filter(|row| range.contains(row.request.start)).cloned().collect();
    let sealed = snapshot.sealed.read_requests(range).await;
    rows.extend(sealed.map_err(|error| ApiError::internal(format!("reading sealed requests: {error}")))?);
    rows.retain(|row| !snapshot.is_superseded(row.request.trace_id, row.revision));
    Ok(rows)
}

/// All spans of a trace, live and sealed, without exact duplicates.
///
/// # Errors
/// When a sealed file cannot be read.
pub(super) async fn trace_spans(snapshot: &TenantSnapshot, trace: TraceId) -> Result<Vec<Arc<Span>>, ApiError> {
    let hot = snapshot.generations().flat_map(|tables| tables.spans_of_trace(trace));
    let mut spans: Vec<Arc<Span>> = hot.map(|row| Arc::clone(&row.span)).collect();
    let sealed = snapshot.sealed.read_trace(trace).await;
    let sealed = sealed.map_err(|error| ApiError::internal(format!("reading sealed spans: {error}")))?;
    spans.extend(sealed.into_iter().map(Arc::new));
    // A longer copy of a span may have come after the shorter one was sealed: the longest counts.
    spans.sort_by(|a, b| (a.start, a.span_id, b.end).cmp(&(b.start, b.span_id, a.end)));
    let mut distinct: Vec<Arc<Span>> = Vec::with_capacity(spans.len());
    for span in spans {
        let copy = |kept: &Arc<Span>| {
            kept.span_id == span.span_id
                && kept.kind == span.kind
                && kept.name == span.name
                && kept.resource == span.resource
        };
        match distinct.iter_mut().find(|kept| copy(kept)) {
            Some(kept) if kept.duration_nanos() < span.duration_nanos() => *kept = span,
            Some(_) => {}
            None => distinct.push(span),
        }
    }
    // What other traces said about spans that can no longer be read is no trace.
    if distinct.iter().all(|span| span.is_fact()) {
        distinct.clear();
    }
    Ok(distinct)
}

#[derive(Clone, Copy)]
enum Format {
    Json,
    Otlp,
}

/// The joined view of one trace, or its spans as OTLP.
#[utoipa::path(
    get, path = "/api/v1/traces/{trace_id}", tag = "traces",
    params(("trace_id" = String, Path, description = "hexadecimal; 64-bit ids may be short"),
        ("format" = Option<String>, Query, description = "json (default) or otlp")),
    responses((status = 200, body = Success<TraceView>), (status = 404, body = super::error::ErrorBody)),
)]
pub(super) async fn trace(
    State(state): State<QueryState>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let params = Params::parse(query.as_deref(), &["format"])?;
    let read = |word: &str| match word {
        "json" => Some(Format::Json),
        "otlp" => Some(Format::Otlp),
        _ => None,
    };
    let format = params.read("format", "json or otlp", read)?.unwrap_or(Format::Json);
    let (trace, spans) = find(&state, &headers, "trace_id", &id).await?;
    match format {
        Format::Otlp => {
            let body = windrose_proto::otlp::to_json(spans.iter().map(Arc::as_ref).filter(|span| !span.is_fact()));
            Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
        }
        Format::Json => {
            let derived = (state.derive)(&spans);
            Ok(Success::new(TraceView::new(trace, &spans, &derived)).into_response())
        }
    }
}

/// Why each span of a trace was linked or not.
#[utoipa::path(
    get, path = "/api/v1/explain", tag = "traces",
    params(("trace" = String, Query, description = "trace id")),
    responses((status = 200, body = Success<Explanation>), (status = 404, body = super::error::ErrorBody)),
)]
pub(super) async fn explain(
    State(state): State<QueryState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Success<Explanation>, ApiError> {
    let params = Params::parse(query.as_deref(), &["trace"])?;
    let id = params.text("trace").ok_or_else(|| ApiError::bad_data("missing parameter \"trace\": a trace id"))?;
    let (trace, spans) = find(&state, &headers, "trace", id).await?;
    let derived = (state.derive)(&spans);
    Ok(Success::new(Explanation::new(trace, &spans, &derived)))
}

async fn find(
    state: &QueryState,
    headers: &HeaderMap,
    parameter: &str,
    id: &str,
) -> Result<(TraceId, Vec<Arc<Span>>), ApiError> {
    let tenant = state.tenant(headers)?;
    let trace = TraceId::parse(id)
        .ok_or_else(|| ApiError::parameter(parameter, id, "a trace id of 1-32 hexadecimal digits"))?;
    let worker = state.clone();
    let spans = state.run(async move { trace_spans(&worker.snapshot(&tenant), trace).await }).await?;
    if spans.is_empty() {
        return Err(ApiError::not_found(format!("no span of trace {trace} was received")));
    }
    Ok((trace, spans))
}
