//! OTLP/gRPC: `TraceService/Export` and `LogsService/Export`; what `MetricsService/Export` shares.
//!
//! The unary call is framed by hand: a request is one message, five bytes of prefix (is it
//! compressed, length) and its bytes. That keeps the sender's bytes as they are, compressed ones
//! too, for the log; puts decompression under our own caps; and costs no generated types.

use std::sync::Arc;

use ::http::header::{CONTENT_TYPE, HeaderName};
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::any;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use windrose_proto::model::IngestProtocol;

use super::accept::{Message, content_encoding};
use super::body::LengthIn;
use super::failure::{Failure, FailureKind};
use super::rpc_status::{ExportResponse, grpc_code, status_of};
use super::{Intake, Receiver};
use crate::decode::{BodyFormat, ContentEncoding};

const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

pub(super) const GRPC_ENCODING: &str = "grpc-encoding";
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_ENCODINGS: HeaderValue = HeaderValue::from_static("zstd,gzip,deflate,identity");

/// Bytes before a message: one of flags, four of length.
const PREFIX_BYTES: usize = 5;

pub(super) fn router<I: Intake>(receiver: Arc<Receiver<I>>) -> Router {
    Router::new()
        .route(TRACES, any(export_traces::<I>))
        .route(LOGS, any(export_logs::<I>))
        .fallback(unknown_method)
        .with_state(receiver)
}

async fn unknown_method() -> Response<Body> {
    refusal(&Failure::unsupported(
        "unknown method: this is OTLP/gRPC, Export of TraceService, MetricsService and LogsService",
    ))
}

async fn export_traces<I: Intake>(receiver: State<Arc<Receiver<I>>>, request: Request<Body>) -> Response<Body> {
    export(&receiver, request, BodyFormat::OtlpProtobuf, IngestProtocol::OtlpGrpc).await
}

async fn export_logs<I: Intake>(receiver: State<Arc<Receiver<I>>>, request: Request<Body>) -> Response<Body> {
    export(&receiver, request, BodyFormat::OtlpLogsProtobuf, IngestProtocol::AccessLog).await
}

async fn export<I: Intake>(
    receiver: &Receiver<I>,
    request: Request<Body>,
    format: BodyFormat,
    ingest: IngestProtocol,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    if let Some(hint) = hint_unless_grpc(&head.method, &head.headers) {
        return hint;
    }
    let result = match content_encoding(&head.headers, GRPC_ENCODING) {
        Ok(encoding) => {
            let cut = move |body| {
                let (encoding, body) = unframe(body, encoding)?;
                Ok(Message { format, encoding, body })
            };
            receiver.accept(ingest, &head.headers, body, cut).await
        }
        Err(failure) => Err(receiver.refuse(ingest, failure)),
    };
    answer(result.map(|accepted| ExportResponse::of(&accepted.rejected)))
}

/// The answer to what is not gRPC at all: a browser, or OTLP/HTTP on the wrong port.
pub(super) fn hint_unless_grpc(method: &Method, headers: &HeaderMap) -> Option<Response<Body>> {
    if method == Method::POST && is_grpc(headers) {
        return None;
    }
    let hint = "this port speaks OTLP/gRPC over HTTP/2; OTLP/HTTP is usually on port 4318\n";
    let mut response = Response::new(Body::from(hint));
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Some(response)
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let subtype = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    matches!(subtype, Some([] | [b'+' | b';', ..]))
}

/// Where the first bytes of a body say how long it is: before the message of a gRPC request.
pub(super) fn length_in(headers: &HeaderMap) -> Option<LengthIn> {
    is_grpc(headers).then_some(|first| {
        let len = first.get(1..PREFIX_BYTES)?.try_into().map(u32::from_be_bytes).ok()?;
        Some(PREFIX_BYTES + len as usize)
    })
}

/// The one message of a unary request, and its coding where `agreed` is the one of the request.
pub(super) fn unframe(mut body: Bytes, agreed: ContentEncoding) -> Result<(ContentEncoding, Bytes), Failure> {
    if body.len() < PREFIX_BYTES {
        return Err(Failure::malformed("no gRPC message in the request"));
    }
    let compressed = body.get_u8();
    let len = body.get_u32() as usize;
    if len != body.len() {
        return Err(Failure::malformed(format!(
            "gRPC message of {len} bytes in {} bytes: one whole message expected",
            body.len()
        )));
    }
    let encoding = match (compressed, agreed) {
        (0, _) => ContentEncoding::Identity,
        (1, ContentEncoding::Identity) => return Err(Failure::malformed("compressed message without grpc-encoding")),
        (1, encoding) => encoding,
        _ => return Err(Failure::malformed("gRPC message with unknown flags")),
    };
    Ok((encoding, body))
}

pub(super) fn answer(result: Result<ExportResponse, Failure>) -> Response<Body> {
    match result {
        Ok(response) => success(&response),
        Err(failure) => refusal(&failure),
    }
}

/// A message, then the trailers that make it a success.
fn success(response: &ExportResponse) -> Response<Body> {
    let message = response.encode_to_vec();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    frame.put_u8(0);
    // A summary of rejections is far below 4 GiB.
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    let body = Full::new(frame.freeze()).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}

/// No message: the status is in the headers ("trailers only").
fn refusal(failure: &Failure) -> Response<Body> {
    let details = status_of(failure);
    // Details repeat code and message; without anything to add they are left out.
    let details = if details.details.is_empty() { Bytes::new() } else { details.encode_to_vec().into() };
    let status = tonic::Status::with_details(grpc_code(failure.kind), failure.message.clone(), details);
    let mut response: Response<Body> = status.into_http();
    if failure.kind == FailureKind::Unsupported {
        response.headers_mut().insert(GRPC_ACCEPT_ENCODING, GRPC_ENCODINGS);
    }
    response
}
