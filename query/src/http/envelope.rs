//! The envelope of every answer, as Prometheus has it.

use axum::response::{IntoResponse, Response};
use http::header;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;

/// A good answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Success<T> {
    /// Always `success`.
    status: &'static str,
    data: T,
    /// What the reader should know before trusting the numbers, for example that they were cut.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl<T> Success<T> {
    /// Without warnings.
    pub const fn new(data: T) -> Self {
        Self { status: "success", data, warnings: Vec::new() }
    }

    /// With warnings.
    pub const fn with_warnings(data: T, warnings: Vec<String>) -> Self {
        Self { status: "success", data, warnings }
    }
}

impl<T: Serialize> IntoResponse for Success<T> {
    fn into_response(self) -> Response {
        // An answer about a mesh is a megabyte, and a plain vector takes small pieces in faster than what `Json` uses.
        match serde_json::to_vec(&self) {
            Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
            Err(error) => ApiError::internal(format!("the answer cannot be written as JSON: {error}")).into_response(),
        }
    }
}
