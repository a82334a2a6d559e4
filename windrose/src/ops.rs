//! The operations' part of the HTTP port: health, our own metrics, what is running.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use serde_json::json;
use windrose_proto::time::{Clock, UnixNanos};
use windrose_store::wal::WalStats;

use crate::metrics_page::Format;
use crate::readiness::Readiness;
use crate::reload::{Reloaded, Reloader};
use crate::telemetry::Telemetry;

/// What the handlers show.
#[derive(Debug)]
pub(crate) struct Ops {
    pub readiness: Readiness,
    pub telemetry: Telemetry,
    pub wal: Arc<WalStats>,
    pub started: UnixNanos,
    pub clock: Arc<dyn Clock>,
    pub reloader: Arc<Reloader>,
}

/// The routes.
pub(crate) fn router(ops: Arc<Ops>) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/-/healthy", get(async || "Prometheus Server is Healthy.\n"))
        .route("/-/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/-/reload", post(reload).put(reload))
        .route("/api/v1/status/config", get(config))
        .route("/api/v1/status/buildinfo", get(buildinfo))
        .route("/api/v1/status/runtimeinfo", get(runtimeinfo))
        .with_state(ops)
}

/// Lag does not make it unready: everything is taken in, and answers are complete up to some moment ago. It is said
/// all the same, for whoever looks why the newest spans are missing.
async fn readyz(State(ops): State<Arc<Ops>>) -> Response {
    let lag = lag_line(ops.wal.lag_bytes.load(Ordering::Relaxed));
    match ops.readiness.check() {
        Ok(()) => format!("ready\n{lag}").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n{lag}")).into_response(),
    }
}

/// The same in the words that Prometheus' own clients look for.
async fn ready(State(ops): State<Arc<Ops>>) -> Response {
    match ops.readiness.check() {
        Ok(()) => "Prometheus Server is Ready.\n".into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable").into_response(),
    }
}

/// What the joiner has still before it, in words; nothing when it keeps up.
fn lag_line(lag_bytes: u64) -> String {
    if lag_bytes == 0 { String::new() } else { format!("{lag_bytes} bytes of the log are not joined yet\n") }
}

async fn metrics(State(ops): State<Arc<Ops>>, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::asked_for(accept);
    match ops.telemetry.page() {
        Ok(page) => ([(CONTENT_TYPE, format.content_type())], format.write(page)).into_response(),
        Err(error) => {
            tracing::error!(error = %error, "the page of our own metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn config(State(ops): State<Arc<Ops>>) -> Response {
    success(&json!({"yaml": ops.reloader.effective_yaml()}))
}

/// As Prometheus answers it: 200 or 500 with the reason in words.
async fn reload(State(ops): State<Arc<Ops>>) -> Response {
    let reloader = Arc::clone(&ops.reloader);
    let failed = |error: String| (StatusCode::INTERNAL_SERVER_ERROR, format!("failed to reload config: {error}\n"));
    match tokio::task::spawn_blocking(move || reloader.reload()).await {
        Ok(Ok(Reloaded { need_restart })) if need_restart.is_empty() => "reloaded\n".into_response(),
        Ok(Ok(Reloaded { need_restart })) => {
            format!("reloaded; these keys need a restart: {}\n", need_restart.join(", ")).into_response()
        }
        Ok(Err(error)) => failed(error).into_response(),
        Err(error) => failed(error.to_string()).into_response(),
    }
}

/// The version of Prometheus whose API is spoken here: clients decide by it what they may ask. There are no `features`,
/// which would make Grafana believe that rules can be written.
const PROMETHEUS_VERSION: &str = "3.4.0";

async fn buildinfo() -> Response {
    success(&json!({
        "version": PROMETHEUS_VERSION,
        "revision": concat!("windrose-", env!("CARGO_PKG_VERSION")),
        "branch": "windrose",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
        "application": "windrose",
        "applicationVersion": env!("CARGO_PKG_VERSION"),
    }))
}

async fn runtimeinfo(State(ops): State<Arc<Ops>>) -> Response {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    success(&json!({
        "startTime": rfc3339(ops.started),
        "serverTime": rfc3339(ops.clock.now()),
        "reloadConfigSuccess": true,
        "corruptionCount": 0,
        "GOMAXPROCS": cores,
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": "",
        "ready": ops.readiness.check().is_ok(),
        "walLagBytes": ops.wal.lag_bytes.load(Ordering::Relaxed),
    }))
}

fn rfc3339(at: UnixNanos) -> String {
    // Every value of 64 bits is a time that jiff can write.
    jiff::Timestamp::from_nanosecond(i128::from(at.0)).unwrap_or_default().to_string()
}

fn success(data: &serde_json::Value) -> Response {
    Json(json!({"status": "success", "data": data})).into_response()
}

#[cfg(test)]
mod tests {
    use super::lag_line;

    #[test]
    fn lag_is_said_when_there_is_any() {
        assert_eq!(lag_line(0), "");
        assert_eq!(lag_line(4096), "4096 bytes of the log are not joined yet\n");
    }
}
