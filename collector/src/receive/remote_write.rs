//! Prometheus remote write 1.0: `POST /api/v1/write` with a snappy block of protobuf.
//!
//! Answers are Prometheus': 204 when everything is stored; 400 with a text when some samples cannot
//! be (the others are stored, a sender does not repeat a 400); 415 for what is not remote write 1.0;
//! 503 for what should be sent again, because senders take 429 for final unless told otherwise.

use std::sync::Arc;

use ::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use ::http::{HeaderMap, Method, Request, Response, StatusCode};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::any;
use bytes::Bytes;

use super::Intake;
use super::failure::{Failure, FailureKind};
use super::http::{add_hints, http_status, plain};
use super::metric_stats::MetricProtocol;
use super::metrics::{MetricContent, MetricMessage, MetricReceiver};

/// The path, where Prometheus has it.
pub const REMOTE_WRITE_PATH: &str = "/api/v1/write";

pub(super) fn router<I: Intake>(receiver: Arc<MetricReceiver<I>>) -> Router {
    Router::new().route(REMOTE_WRITE_PATH, any(write::<I>)).with_state(receiver)
}

async fn write<I: Intake>(State(receiver): State<Arc<MetricReceiver<I>>>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let result = match check(&head.method, &head.headers) {
        Ok(()) => receiver.accept(MetricProtocol::RemoteWrite, &head.headers, body, cut).await,
        Err(failure) => Err(receiver.refuse(MetricProtocol::RemoteWrite, failure)),
    };
    match result {
        Ok(rejected) if rejected.total() == 0 => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Ok(rejected) => plain(StatusCode::BAD_REQUEST, rejected.summary() + "\n"),
        Err(failure) => refusal(&failure),
    }
}

/// The body is the message.
#[expect(clippy::unnecessary_wraps, reason = "other protocols find out here that there is no message")]
const fn cut(body: Bytes) -> Result<MetricMessage, Failure> {
    Ok(MetricMessage { content: MetricContent::RemoteWrite, body })
}

fn refusal(failure: &Failure) -> Response<Body> {
    let status = match failure.kind {
        FailureKind::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
        kind => http_status(kind),
    };
    let mut response = plain(status, format!("{failure}\n"));
    if failure.kind != FailureKind::Unsupported {
        add_hints(response.headers_mut(), failure);
    }
    response
}

/// Everything that can be refused before the body is read.
fn check(method: &Method, headers: &HeaderMap) -> Result<(), Failure> {
    if method != Method::POST {
        return Err(Failure::method("POST"));
    }
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase());
    if let Some(kind) = text(CONTENT_TYPE) {
        let mut parts = kind.split(';').map(str::trim);
        if parts.next() != Some("application/x-protobuf") {
            return Err(Failure::unsupported(format!(
                "content-type {kind:?} is not remote write: send application/x-protobuf"
            )));
        }
        let message = parts.find_map(|part| part.strip_prefix("proto="));
        if let Some(message) = message
            && message != "prometheus.writerequest"
        {
            return Err(Failure::unsupported(format!(
                "message {message:?} is not taken, only remote write 1.0 is: set protobuf_message to \
                 prometheus.WriteRequest in the sender's remote_write section"
            )));
        }
    }
    match text(CONTENT_ENCODING).as_deref() {
        None | Some("snappy") => Ok(()),
        Some(other) => Err(Failure::unsupported(format!("content-encoding {other:?} is not remote write: use snappy"))),
    }
}
