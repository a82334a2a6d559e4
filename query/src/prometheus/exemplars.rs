//! `query_exemplars`: the traces behind an expression's series.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use windrose_promql::api_json::write_labels;
use windrose_promql::ast::Expr;
use windrose_promql::number::{parse_float, write_api_timestamp, write_api_value};
use windrose_promql::{Matcher, parse_expr};
use windrose_proto::edge::EdgeRow;
use windrose_proto::metric::labels::{BUCKET, METRIC_NAME};
use windrose_proto::metric::{Exemplar, Labels};
use windrose_proto::time::{TimeRange, UnixNanos};

use super::answer::Answer;
use super::load::{View, read_error};
use super::proxy_series::ProxySeries;
use super::query::parse_error;
use super::request::Form;
use crate::edge_series;
use crate::edge_series::exemplars::EXEMPLARS_MAX;
use crate::http::QueryState;
use crate::http::error::ApiError;

/// Bucket series that are looked at for traces of their edges: 1,000 histograms of some 20 buckets.
const PROXY_SERIES_MAX: usize = 20_000;

/// `/api/v1/query_exemplars`.
#[utoipa::path(
    get, path = "/api/v1/query_exemplars", tag = "prometheus",
    params(("query" = Option<String>, Query, description = "an expression"), ("start" = Option<String>, Query), ("end" = Option<String>, Query)),
    responses((status = 200, description = "Traces behind the series of an expression."), (status = 400, body = crate::http::error::ErrorBody)),
)]
pub(super) async fn query_exemplars(
    State(state): State<QueryState>,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, ApiError> {
    let tenant = state.tenant(&headers)?;
    let (from, to) = form.span()?;
    if to < from {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
    }
    let expr = parse_expr(form.first("query"), state.engine.parse).map_err(|error| parse_error(&error))?;
    let mut sets = Vec::new();
    selectors(&expr, &mut sets);
    if sets.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let view = View::new(&state, &tenant, state.engine.lookback);
    let answer = state.run(async move {
        let stored = view.metrics.exemplars(&sets, from, to).await.map_err(read_error)?;
        let mut found: BTreeMap<Labels, Vec<Exemplar>> = stored.into_iter().collect();
        let measured = proxy_sets(&view, &sets, from, to).await?;
        if !measured.is_empty() || sets.iter().any(|set| edge_series::exemplars::concerns(set)) {
            let rows = view.edge_rows(range(from, to.min(view.now))).await?;
            found.extend(edge_series::exemplars::of_series(&rows, &sets, from, to));
            for (labels, exemplar) in of_proxies(&measured, &rows, from, to) {
                found.entry(labels).or_default().push(exemplar);
            }
        }
        found.values_mut().for_each(|exemplars| exemplars.sort_by_key(|exemplar| exemplar.timestamp));
        Ok(Answer::written(write(&found), Vec::new(), Vec::new()))
    });
    Ok(answer.await?.into_response())
}

/// One histogram of a proxy: its edge, and its bucket series by ascending upper bound.
type Histogram = (ProxySeries, Vec<(f64, Labels)>);

/// The latency histograms of proxies among what is selected. Several of one edge (a series per status code or per pod)
/// would all be given the same traces, so the first stands for them.
async fn proxy_sets(view: &View, sets: &[Vec<Matcher>], from: i64, to: i64) -> Result<Vec<Histogram>, ApiError> {
    let names_proxy = |set: &&Vec<Matcher>| {
        let allows = |name: &str| set.iter().all(|matcher| matcher.name != METRIC_NAME || matcher.matches(name));
        ProxySeries::names().any(allows)
    };
    let sets: Vec<Vec<Matcher>> = sets.iter().filter(names_proxy).cloned().collect();
    if sets.is_empty() {
        return Ok(Vec::new());
    }
    let series = view.metrics.series(&sets, from, to, PROXY_SERIES_MAX).await.map_err(read_error)?;
    let mut histograms: BTreeMap<Labels, Histogram> = BTreeMap::new();
    for labels in series {
        let Some(bound) = parse_float(labels.get(BUCKET)) else { continue };
        let Some(edge) = ProxySeries::of(&labels) else { continue };
        let whole = labels.drop_all(&[BUCKET.to_owned()]);
        histograms.entry(whole).or_insert_with(|| (edge, Vec::new())).1.push((bound, labels));
    }
    let mut chosen: Vec<Histogram> = Vec::new();
    for (edge, mut buckets) in histograms.into_values() {
        if chosen.iter().all(|(known, _)| *known != edge) {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            chosen.push((edge, buckets));
        }
    }
    Ok(chosen)
}

/// The slow calls of the edges, each in the bucket that counted it.
fn of_proxies(histograms: &[Histogram], rows: &[EdgeRow], from: i64, to: i64) -> Vec<(Labels, Exemplar)> {
    let mut found = Vec::new();
    for (edge, buckets) in histograms {
        let slow = edge_series::exemplars::of_edges(rows, edge.at_client, |key| edge.is_about(key));
        for call in slow.between(from, to, EXEMPLARS_MAX.saturating_sub(found.len())) {
            let value = edge.value(call.seconds());
            if let Some((_, labels)) = buckets.iter().find(|(bound, _)| value <= *bound) {
                found.push((labels.clone(), call.exemplar(value)));
            }
        }
    }
    found
}

/// A window holds what began after it started, so the one before counts too.
fn range(from: i64, to: i64) -> Option<TimeRange> {
    const WINDOW_MILLIS: i64 = 60_000;
    let nanos = |millis: i64| UnixNanos(u64::try_from(millis.max(0)).unwrap_or(0).saturating_mul(1_000_000));
    TimeRange::new(nanos(from.saturating_sub(WINDOW_MILLIS)), nanos(to.saturating_add(1)))
}

/// The matchers of every selector.
fn selectors(expr: &Expr, sets: &mut Vec<Vec<Matcher>>) {
    match expr {
        Expr::Number(_) | Expr::String(_) => {}
        Expr::Vector(node) => sets.push(node.matchers.clone()),
        Expr::Matrix(node) => sets.push(node.vector.matchers.clone()),
        Expr::Subquery(node) => selectors(&node.expr, sets),
        Expr::Call(node) => node.args.iter().for_each(|arg| selectors(arg, sets)),
        Expr::Aggregate(node) => {
            node.param.iter().for_each(|param| selectors(param, sets));
            selectors(&node.expr, sets);
        }
        Expr::Binary(node) => {
            selectors(&node.lhs, sets);
            selectors(&node.rhs, sets);
        }
        Expr::Unary(node) => selectors(&node.expr, sets),
        Expr::Paren(node) => selectors(&node.expr, sets),
    }
}

fn write(found: &BTreeMap<Labels, Vec<Exemplar>>) -> String {
    let mut out = String::from("[");
    for (index, (labels, exemplars)) in found.iter().enumerate() {
        out.push_str(if index > 0 { "," } else { "" });
        out.push_str("{\"seriesLabels\":");
        write_labels(&mut out, labels);
        out.push_str(",\"exemplars\":[");
        for (index, exemplar) in exemplars.iter().enumerate() {
            out.push_str(if index > 0 { "," } else { "" });
            out.push_str("{\"labels\":");
            write_labels(&mut out, &exemplar.labels);
            out.push_str(",\"value\":\"");
            write_api_value(&mut out, exemplar.value);
            out.push_str("\",\"timestamp\":");
            write_api_timestamp(&mut out, exemplar.timestamp);
            out.push('}');
        }
        out.push_str("]}");
    }
    out.push(']');
    out
}
