//! `POST /api/v1/sql`.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::envelope::Success;
use super::error::ApiError;
use super::state::QueryState;
use crate::sql::{Column, SqlRequest, arrow_stream, csv, json_rows};

/// Arrow IPC stream.
const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

/// A statement.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlBody {
    /// One SELECT over `spans`, `hops`, `requests`, `edges`, `access_logs` and `facts`.
    query: String,
    /// Most rows; default 10 000.
    #[serde(default)]
    limit: Option<usize>,
}

/// The rows of a statement.
#[derive(Debug, Serialize, ToSchema)]
pub struct SqlRows {
    columns: Vec<Column>,
    #[schema(value_type = Vec<Object>)]
    rows: Box<RawValue>,
}

/// Read-only SQL over the tables, within the memory and time limits of queries.
#[utoipa::path(
    post, path = "/api/v1/sql", tag = "sql", request_body = SqlBody,
    responses((status = 200, body = Success<SqlRows>, description = "or CSV / Arrow IPC by the Accept header"),
        (status = 400, body = super::error::ErrorBody), (status = 422, body = super::error::ErrorBody)),
)]
pub(super) async fn sql(
    State(state): State<QueryState>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let tenant = state.tenant(&headers)?;
    let body: SqlBody = serde_json::from_slice(&body).map_err(|error| {
        ApiError::bad_data(format!("the body must be {{\"query\": \"SELECT …\", \"limit\": 100}}: {error}"))
    })?;
    let limit = body.limit.unwrap_or(crate::sql::DEFAULT_LIMIT);
    if limit == 0 || limit > crate::sql::MAX_LIMIT {
        let accepted = format!("a whole number from 1 to {}", crate::sql::MAX_LIMIT);
        return Err(ApiError::parameter("limit", &limit.to_string(), &accepted));
    }
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let worker = state.clone();
    state
        .run(async move {
            let snapshot = worker.snapshot(&tenant);
            let answer = worker.sql.run(&snapshot, &SqlRequest { query: body.query, limit }).await?;
            let failed = |error: arrow::error::ArrowError| {
                ApiError::execution(format!("the rows cannot be written in the format asked for: {error}"))
            };
            if accept.contains(ARROW_STREAM) {
                return Ok(
                    ([(header::CONTENT_TYPE, ARROW_STREAM)], arrow_stream(&answer).map_err(failed)?).into_response()
                );
            }
            if accept.contains("text/csv") {
                return Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], csv(&answer).map_err(failed)?)
                    .into_response());
            }
            let text = String::from_utf8(json_rows(&answer).map_err(failed)?)
                .map_err(|_| ApiError::internal("rows are not UTF-8"))?;
            let rows = RawValue::from_string(text)
                .map_err(|error| ApiError::internal(format!("rows are not JSON: {error}")))?;
            let warnings =
                if answer.truncated { vec![format!("results truncated at {limit} rows")] } else { Vec::new() };
            Ok(Success::with_warnings(SqlRows { columns: answer.columns(), rows }, warnings).into_response())
        })
        .await
}
