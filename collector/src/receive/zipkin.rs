//! Zipkin: `POST /api/v2/spans`.
//!
//! Success is exactly 202 with an empty body: Envoy counts any other answer as dropped spans.
//! Zipkin has no partial success; bad spans among good ones are counted, and only a request
//! without a single good span is refused.

use std::sync::Arc;

use ::http::{HeaderMap, Method, Request, Response, StatusCode};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::any;
use windrose_proto::model::IngestProtocol;

use super::accept::{Accepted, Message, content_encoding};
use super::failure::Failure;
use super::http::{add_hints, http_status, media_type, plain};
use super::{Intake, Receiver};
use crate::decode::BodyFormat;

pub(super) fn router<I: Intake>(receiver: Arc<Receiver<I>>) -> Router {
    Router::new()
        .route("/api/v2/spans", any(spans::<I>))
        .route("/api/v1/spans", any(v1::<I>))
        .fallback(async || plain(StatusCode::NOT_FOUND, "this port takes Zipkin spans: POST /api/v2/spans\n"))
        .with_state(receiver)
}

async fn spans<I: Intake>(State(receiver): State<Arc<Receiver<I>>>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let result = match prepare(&head.method, &head.headers) {
        Ok(cut) => receiver.accept(IngestProtocol::Zipkin, &head.headers, body, cut).await,
        Err(failure) => Err(receiver.refuse(IngestProtocol::Zipkin, failure)),
    };
    match result {
        Ok(accepted) => success(&accepted),
        Err(failure) => refusal(&failure),
    }
}

async fn v1<I: Intake>(State(receiver): State<Arc<Receiver<I>>>) -> Response<Body> {
    let failure = Failure::unsupported(
        "Zipkin v1 is not taken: send v2 to /api/v2/spans (collectorEndpointVersion HTTP_JSON in Envoy)",
    );
    refusal(&receiver.refuse(IngestProtocol::Zipkin, failure))
}

fn prepare(
    method: &Method,
    headers: &HeaderMap,
) -> Result<impl FnOnce(bytes::Bytes) -> Result<Message, Failure> + use<>, Failure> {
    if method != Method::POST {
        return Err(Failure::method("POST"));
    }
    let format = match media_type(headers).as_deref() {
        // Zipkin itself takes everything for JSON that does not say otherwise, and senders rely on it.
        None | Some("application/json" | "text/plain" | "application/x-www-form-urlencoded") => BodyFormat::ZipkinJson,
        Some("application/x-protobuf" | "application/protobuf") => BodyFormat::ZipkinProtobuf,
        Some(other) => {
            return Err(Failure::unsupported(format!(
                "content-type {other:?} is not understood: use application/json or application/x-protobuf"
            )));
        }
    };
    let encoding = content_encoding(headers, "content-encoding")?;
    Ok(move |body| Ok(Message { format, encoding, body }))
}

fn success(accepted: &Accepted) -> Response<Body> {
    if accepted.spans == 0 && !accepted.rejected.is_empty() {
        return plain(StatusCode::BAD_REQUEST, format!("{}\n", accepted.rejected.summary()));
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

fn refusal(failure: &Failure) -> Response<Body> {
    let mut response = plain(http_status(failure.kind), format!("{failure}\n"));
    add_hints(response.headers_mut(), failure);
    response
}
