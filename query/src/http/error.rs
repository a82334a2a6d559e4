//! Errors of the API: one place that turns a kind into a status and the Prometheus-shaped body.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

/// What the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Change the request.
    BadData,
    /// The query cannot be run, or ran into a limit.
    Execution,
    /// Ask for less, or later.
    Timeout,
    /// Whoever asked has gone.
    Canceled,
    NotFound,
    /// Our fault.
    Internal,
    /// Try again later.
    Unavailable,
}

/// An error answer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub kind: ErrorKind,
    pub message: String,
}

/// The body of an error answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// Always `error`.
    status: &'static str,
    #[serde(rename = "errorType")]
    error_type: ErrorKind,
    error: String,
}

impl ApiError {
    /// A parameter that cannot be read: names it, its value, and what is accepted.
    #[must_use]
    pub fn parameter(name: &str, value: &str, accepted: &str) -> Self {
        let shown: String = value.chars().take(200).collect();
        Self { kind: ErrorKind::BadData, message: format!("invalid parameter {name:?}: {shown:?}: {accepted}") }
    }

    /// A request that cannot be understood.
    #[must_use]
    pub fn bad_data(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::BadData, message: message.into() }
    }

    /// A query that ran into an error of its own making.
    #[must_use]
    pub fn execution(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Execution, message: message.into() }
    }

    /// Nothing under that name.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::NotFound, message: message.into() }
    }

    /// Our own failure, or that of the disk.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Internal, message: message.into() }
    }

    /// The status code of the kind.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.kind {
            ErrorKind::BadData => StatusCode::BAD_REQUEST,
            ErrorKind::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::Timeout | ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            // 499, as Prometheus has it; nobody reads it.
            ErrorKind::Canceled => StatusCode::from_u16(499).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.kind == ErrorKind::Internal {
            tracing::error!(error = %self.message, "a query failed");
        }
        let body = ErrorBody { status: "error", error_type: self.kind, error: self.message.clone() };
        (self.status(), Json(body)).into_response()
    }
}
