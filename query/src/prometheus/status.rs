//! `status/flags` and `status/tsdb`. What the process itself knows (`buildinfo`, `config`, `runtimeinfo`) it serves
//! itself.

use std::collections::BTreeMap;

use axum::extract::State;
use http::HeaderMap;
use serde_json::{Value, json};

use super::answer::Answer;
use super::request::Form;
use crate::http::QueryState;
use crate::http::error::ApiError;

/// `/api/v1/status/flags`: the settings that Prometheus has as flags.
#[utoipa::path(
    get, path = "/api/v1/status/flags", tag = "prometheus",
    responses((status = 200, description = "Settings of queries by the names of the flags of Prometheus."), (status = 400, body = crate::http::error::ErrorBody)),
)]
pub(super) async fn flags(State(state): State<QueryState>) -> Result<Answer, ApiError> {
    let duration = |millis: i64| windrose_promql::duration::format(millis);
    let timeout = i64::try_from(state.limits.timeout.as_millis()).unwrap_or(i64::MAX);
    let flags = BTreeMap::from([
        ("query.lookback-delta", duration(state.engine.lookback)),
        ("query.max-concurrency", state.limits.max_concurrent.to_string()),
        ("query.max-samples", state.engine.limits.max_samples.to_string()),
        ("query.timeout", duration(timeout)),
    ]);
    Answer::new(&flags)
}

/// Entries of each list when `limit` is not given, and at most: as in Prometheus.
const DEFAULT_TOP: usize = 10;
const MAX_TOP: usize = 10_000;

/// `/api/v1/status/tsdb`: where the series in memory are.
#[utoipa::path(
    get, path = "/api/v1/status/tsdb", tag = "prometheus",
    params(("limit" = Option<String>, Query, description = "entries of each list")),
    responses((status = 200, description = "Where the series in memory are."), (status = 400, body = crate::http::error::ErrorBody)),
)]
pub(super) async fn tsdb(State(state): State<QueryState>, headers: HeaderMap, form: Form) -> Result<Answer, ApiError> {
    let tenant = state.tenant(&headers)?;
    let top = match form.first("limit") {
        "" => DEFAULT_TOP,
        text => {
            let number = text.parse().ok().filter(|number| *number > 0);
            number.ok_or_else(|| ApiError::bad_data("limit must be a positive number"))?
        }
    };
    let reader = state.metrics.reader(&tenant);
    let answer = state.run(async move {
        let found = reader.cardinality(top.min(MAX_TOP));
        let list = |entries: Vec<(String, u64)>| -> Vec<Value> {
            entries.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
        };
        let (first, last) = found.time_range_ms.unzip();
        Answer::new(&json!({
            "headStats": {
                "numSeries": found.series,
                "numLabelPairs": found.label_pairs,
                "chunkCount": found.chunks,
                // What Prometheus shows of an empty head.
                "minTime": first.unwrap_or(i64::MAX),
                "maxTime": last.unwrap_or(i64::MIN),
            },
            "seriesCountByMetricName": list(found.series_by_metric),
            "labelValueCountByLabelName": list(found.values_by_label),
            "memoryInBytesByLabelName": list(found.bytes_by_label),
            "seriesCountByLabelValuePair": list(found.series_by_pair),
        }))
    });
    answer.await
}
