//! `query` and `query_range`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use http::HeaderMap;
use windrose_promql::annotations::MAX_SHOWN;
use windrose_promql::api_json::write_result;
use windrose_promql::{Engine, EvalError, Evaluation, Interrupt, ParseError, QueryKind, QueryOptions, parse_expr};
use windrose_proto::tenant::TenantId;

use super::answer::{Answer, TRUNCATED};
use super::load::{Loaded, View};
use super::request::{Form, invalid, millis};
use crate::http::QueryState;
use crate::http::error::{ApiError, ErrorKind};

/// Points of one series in an answer: what Prometheus allows, for the sake of whoever has to draw them.
const POINTS_MAX: i128 = 11_000;

/// `/api/v1/query`: at one instant.
#[utoipa::path(
    get, path = "/api/v1/query", tag = "prometheus",
    params(("query" = Option<String>, Query, description = "an expression"), ("time" = Option<String>, Query, description = "unix seconds or RFC 3339, default now"), ("timeout" = Option<String>, Query, description = "a duration"), ("lookback_delta" = Option<String>, Query, description = "a duration"), ("limit" = Option<String>, Query, description = "series shown"), ("stats" = Option<String>, Query, description = "any value: how long it took")),
    responses((status = 200, description = "PromQL at one instant."), (status = 400, body = crate::http::error::ErrorBody)),
)]
pub(super) async fn instant(
    State(state): State<QueryState>,
    headers: HeaderMap,
    form: Form,
) -> Result<Answer, ApiError> {
    let tenant = state.tenant(&headers)?;
    let limit = form.limit()?;
    let time = form.time_or("time", millis(state.clock.now()))?;
    run(&state, tenant, &form, QueryKind::Instant(time), limit).await
}

/// `/api/v1/query_range`: at many.
#[utoipa::path(
    get, path = "/api/v1/query_range", tag = "prometheus",
    params(("query" = Option<String>, Query, description = "an expression"), ("start" = Option<String>, Query), ("end" = Option<String>, Query), ("step" = Option<String>, Query, description = "seconds or a duration"), ("timeout" = Option<String>, Query), ("lookback_delta" = Option<String>, Query), ("limit" = Option<String>, Query), ("stats" = Option<String>, Query)),
    responses((status = 200, description = "PromQL at many instants."), (status = 400, body = crate::http::error::ErrorBody)),
)]
pub(super) async fn range(State(state): State<QueryState>, headers: HeaderMap, form: Form) -> Result<Answer, ApiError> {
    let tenant = state.tenant(&headers)?;
    let limit = form.limit()?;
    let (start, end) = (form.time("start")?, form.time("end")?);
    if end < start {
        return Err(invalid("end", "end timestamp must not be before start time"));
    }
    // Nobody samples more often than once a millisecond, which is also as fine as times are.
    let step = form.duration("step")?.map_or_else(|| super::request::parse_duration(""), Ok);
    let step = step.map_err(|why| invalid("step", &why))? / 1_000_000;
    if step <= 0 {
        let why = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(invalid("step", why));
    }
    if (i128::from(end) - i128::from(start)) / i128::from(step) > POINTS_MAX {
        let message = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)";
        return Err(ApiError::bad_data(message));
    }
    run(&state, tenant, &form, QueryKind::Range { start, end, step }, limit).await
}

/// What the evaluation of one request took.
#[derive(Clone, Copy, Debug)]
struct Timings {
    asked: Duration,
    admitted: Duration,
    loaded: Duration,
    done: Duration,
}

async fn run(
    state: &QueryState,
    tenant: TenantId,
    form: &Form,
    kind: QueryKind,
    limit: usize,
) -> Result<Answer, ApiError> {
    let timeout = match form.duration("timeout")? {
        Some(nanos) => Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)).min(state.limits.timeout),
        None => state.limits.timeout,
    };
    let lookback = match form.first("lookback_delta") {
        "" => None,
        text => Some(
            super::request::parse_duration(text)
                .map_err(|why| ApiError::bad_data(format!("error parsing lookback delta duration: {why}")))?
                / 1_000_000,
        ),
    };
    let query = form.first("query").to_owned();
    let engine = state.engine;
    let expr = parse_expr(&query, engine.parse).map_err(|error| parse_error(&error))?;
    let with_stats = !form.first("stats").is_empty();

    let canceled = CancelOnDrop::default();
    let is_canceled = Arc::clone(&canceled.0);
    let (clock, asked) = (Arc::clone(&state.clock), state.clock.monotonic());
    let worker = state.clone();
    let answer = state.run(async move {
        let admitted = clock.monotonic();
        let deadline = asked.saturating_add(timeout);
        let plan = engine.plan(&expr, kind, &QueryOptions { lookback, interrupt: None }).map_err(eval_error)?;
        let lookback_used = lookback.filter(|lookback| *lookback > 0).unwrap_or(engine.lookback);
        let view = View::new(&worker, &tenant, lookback_used);
        let left = deadline.saturating_sub(admitted);
        let loading = tokio::time::timeout(left, Loaded::load(view, plan)).await;
        let loaded = loading.map_err(|_| eval_error(EvalError::Timeout))??;
        let loaded_at = clock.monotonic();
        let evaluating = tokio::task::spawn_blocking(move || {
            let interrupt = || {
                if is_canceled.load(Ordering::Relaxed) {
                    Some(Interrupt::Canceled)
                } else {
                    (clock.monotonic() >= deadline).then_some(Interrupt::Timeout)
                }
            };
            let options = QueryOptions { lookback, interrupt: Some(&interrupt) };
            let evaluation = engine.evaluate(&loaded, &expr, kind, &options).map_err(eval_error)?;
            let timings = Timings { asked, admitted, loaded: loaded_at, done: clock.monotonic() };
            Ok(word(evaluation, &query, limit, with_stats.then_some(timings)))
        });
        evaluating.await.unwrap_or_else(|_| Err(ApiError::internal("the query panicked")))
    });
    let answer = answer.await;
    drop(canceled);
    answer
}

/// Ends an evaluation whose request is gone: dropping a future does not stop a thread.
#[derive(Debug, Default)]
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn word(mut evaluation: Evaluation, query: &str, limit: usize, timings: Option<Timings>) -> Answer {
    let cut = limit > 0 && evaluation.result.truncate(limit);
    let mut data = String::new();
    write_result(&mut data, &evaluation.result);
    if let Some(timings) = timings {
        data.pop();
        data.push_str(",\"stats\":");
        data.push_str(&stats(timings, evaluation.samples_read).to_string());
        data.push('}');
    }
    let (mut warnings, infos) = evaluation.annotations.to_strings(query, MAX_SHOWN);
    if cut {
        warnings.push(TRUNCATED.to_owned());
    }
    Answer::written(data, warnings, infos)
}

fn stats(timings: Timings, samples: usize) -> serde_json::Value {
    let Timings { asked, admitted, loaded, done } = timings;
    let seconds = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64();
    serde_json::json!({
        "timings": {
            "evalTotalTime": seconds(admitted, done),
            "resultSortTime": 0.0,
            "queryPreparationTime": seconds(admitted, loaded),
            "innerEvalTime": seconds(loaded, done),
            "execQueueTime": seconds(asked, admitted),
            "execTotalTime": seconds(asked, done),
        },
        // The evaluator streams: what it held at once is bounded, but not counted per query.
        "samples": {"totalQueryableSamples": samples, "peakSamples": null},
    })
}

/// A query that is none.
pub(super) fn parse_error(error: &ParseError) -> ApiError {
    invalid("query", &error.to_string())
}

/// Each kind of evaluation error is one `errorType`.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn eval_error(error: EvalError) -> ApiError {
    let kind = match &error {
        EvalError::Parse(_) | EvalError::BadData(_) => ErrorKind::BadData,
        EvalError::Execution(_) => ErrorKind::Execution,
        EvalError::Timeout => ErrorKind::Timeout,
        EvalError::Canceled => ErrorKind::Canceled,
    };
    ApiError { kind, message: error.to_string() }
}

/// The engine of the API: Prometheus without feature flags, with this process' limits.
pub(crate) fn engine(max_samples: usize) -> Engine {
    let mut engine = Engine::default();
    engine.limits.max_samples = max_samples;
    engine
}
