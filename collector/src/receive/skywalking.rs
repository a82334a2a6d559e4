//! SkyWalking over HTTP: `POST /v3/segments` (and `/v3/segment`), on the port of OTLP/HTTP.
//!
//! Agents also report properties and heartbeats; these are answered, or they would log an error
//! every few seconds, and nothing of them is kept.

use std::sync::Arc;

use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::{any, post};
use windrose_proto::model::IngestProtocol;

use super::accept::{Accepted, Message, content_encoding};
use super::failure::Failure;
use super::http::{add_hints, http_status, plain, with_type};
use super::{Intake, Receiver};
use crate::decode::BodyFormat;

pub(super) fn router<I: Intake>(receiver: Arc<Receiver<I>>) -> Router {
    Router::new()
        .route("/v3/segments", any(segments::<I>))
        .route("/v3/segment", any(segments::<I>))
        .route("/v3/management/reportProperties", post(done))
        .route("/v3/management/keepAlive", post(done))
        .with_state(receiver)
}

async fn done() -> Response<Body> {
    with_type(StatusCode::OK, HeaderValue::from_static("application/json"), b"{}".to_vec())
}

async fn segments<I: Intake>(State(receiver): State<Arc<Receiver<I>>>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let result = match prepare(&head.method, &head.headers) {
        Ok(cut) => receiver.accept(IngestProtocol::Skywalking, &head.headers, body, cut).await,
        Err(failure) => Err(receiver.refuse(IngestProtocol::Skywalking, failure)),
    };
    match result {
        Ok(accepted) => success(&accepted).await,
        Err(failure) => {
            let mut response = plain(http_status(failure.kind), format!("{failure}\n"));
            add_hints(response.headers_mut(), &failure);
            response
        }
    }
}

/// There is one format only; the content type, which agents leave out, does not matter.
fn prepare(
    method: &Method,
    headers: &HeaderMap,
) -> Result<impl FnOnce(bytes::Bytes) -> Result<Message, Failure> + use<>, Failure> {
    if method != Method::POST {
        return Err(Failure::method("POST"));
    }
    let encoding = content_encoding(headers, "content-encoding")?;
    Ok(move |body| Ok(Message { format: BodyFormat::SkywalkingJson, encoding, body }))
}

/// As with Zipkin there is no partial success: only a request without a good span is refused.
async fn success(accepted: &Accepted) -> Response<Body> {
    if accepted.spans == 0 && !accepted.rejected.is_empty() {
        return plain(StatusCode::BAD_REQUEST, format!("{}\n", accepted.rejected.summary()));
    }
    done().await
}
