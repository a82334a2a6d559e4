//! The operations' part of the HTTP port: health, our own metrics, what is running.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::json;
use windrose_proto::time::UnixNanos;

use crate::readiness::Readiness;
use crate::telemetry::Telemetry;

/// What prometheus-client writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the handlers show.
#[derive(Debug)]
pub(crate) struct Ops {
    pub readiness: Readiness,
    pub telemetry: Telemetry,
    pub started: UnixNanos,
    /// The configuration in force, secrets blanked.
    pub config_yaml: String,
}

/// The routes.
pub(crate) fn router(ops: Arc<Ops>) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/status/config", get(config))
        .route("/api/v1/status/buildinfo", get(buildinfo))
        .route("/api/v1/status/runtimeinfo", get(runtimeinfo))
        .with_state(ops)
}

async fn readyz(State(ops): State<Arc<Ops>>) -> Response {
    match ops.readiness.check() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(ops): State<Arc<Ops>>) -> Response {
    match ops.telemetry.page() {
        Ok(page) => ([(CONTENT_TYPE, OPENMETRICS)], page).into_response(),
        Err(error) => {
            tracing::error!(error = %error, "the page of our own metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn config(State(ops): State<Arc<Ops>>) -> Response {
    success(&json!({"yaml": ops.config_yaml}))
}

async fn buildinfo() -> Response {
    success(&json!({"application": "windrose", "version": env!("CARGO_PKG_VERSION")}))
}

async fn runtimeinfo(State(ops): State<Arc<Ops>>) -> Response {
    success(&json!({"start_time_seconds": ops.started.as_secs_f64(), "ready": ops.readiness.check().is_ok()}))
}

fn success(data: &serde_json::Value) -> Response {
    Json(json!({"status": "success", "data": data})).into_response()
}
