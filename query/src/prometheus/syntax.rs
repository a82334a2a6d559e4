//! `format_query` and `parse_query`: what an expression looks like.

use axum::extract::State;
use windrose_promql::ast_json::to_json;
use windrose_promql::parse_expr;
use windrose_promql::print::pretty;

use super::answer::Answer;
use super::query::parse_error;
use super::request::Form;
use crate::http::QueryState;
use crate::http::error::ApiError;

/// `/api/v1/format_query`: the expression, laid out.
#[utoipa::path(
    get, path = "/api/v1/format_query", tag = "prometheus",
    params(("query" = Option<String>, Query, description = "an expression")),
    responses((status = 200, description = "An expression, laid out."), (status = 400, body = crate::http::error::ErrorBody)),
)]
pub(super) async fn format_query(State(state): State<QueryState>, form: Form) -> Result<Answer, ApiError> {
    let expr = parse_expr(form.first("query"), state.engine.parse).map_err(|error| parse_error(&error))?;
    Answer::new(&pretty(&expr))
}

/// `/api/v1/parse_query`: the expression as a tree.
#[utoipa::path(
    get, path = "/api/v1/parse_query", tag = "prometheus",
    params(("query" = Option<String>, Query, description = "an expression")),
    responses((status = 200, description = "An expression as a tree."), (status = 400, body = crate::http::error::ErrorBody)),
)]
pub(super) async fn parse_query(State(state): State<QueryState>, form: Form) -> Result<Answer, ApiError> {
    let expr = parse_expr(form.first("query"), state.engine.parse).map_err(|error| parse_error(&error))?;
    Answer::new(&to_json(&expr))
}
