//! The envelope of every answer, as Prometheus has it.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

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
        Json(self).into_response()
    }
}
