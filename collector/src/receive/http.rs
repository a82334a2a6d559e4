//! OTLP/HTTP: `POST /v1/traces` and `POST /v1/logs` with protobuf or JSON; what `/v1/metrics` shares.
//!
//! Success is exactly 200 with an `ExportTraceServiceResponse`: Kong and APISIX take any other
//! 2xx for a failure and send again. Errors carry a `google.rpc.Status` in the request's format.

use std::sync::Arc;

use ::http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, RETRY_AFTER};
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::any;
use prost::Message as _;
use windrose_proto::model::IngestProtocol;

use super::accept::{ACCEPTED_ENCODINGS, Message, content_encoding};
use super::failure::{Failure, FailureKind};
use super::rpc_status::{ExportResponse, status_of};
use super::{Intake, Receiver};
use crate::decode::BodyFormat;

/// The two formats of OTLP/HTTP; an answer has that of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Protobuf,
    Json,
}

impl Format {
    /// From the media type of the request.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        match media_type(headers).as_deref() {
            Some("application/x-protobuf" | "application/protobuf") => Ok(Self::Protobuf),
            Some("application/json") => Ok(Self::Json),
            Some(other) => Err(Failure::unsupported(format!(
                "content-type {other:?} is not understood: use application/x-protobuf or application/json"
            ))),
            None => {
                Err(Failure::unsupported("content-type is missing: use application/x-protobuf or application/json"))
            }
        }
    }

    const fn media_type(self) -> HeaderValue {
        match self {
            Self::Protobuf => HeaderValue::from_static("application/x-protobuf"),
            Self::Json => HeaderValue::from_static("application/json"),
        }
    }
}

pub(super) fn router<I: Intake>(receiver: Arc<Receiver<I>>) -> Router {
    Router::new()
        .route("/v1/traces", any(export_traces::<I>))
        .route("/v1/logs", any(export_logs::<I>))
        .fallback(unknown_path)
        .with_state(receiver)
}

async fn unknown_path() -> Response<Body> {
    plain(StatusCode::NOT_FOUND, "this port takes OTLP/HTTP: POST /v1/traces, /v1/metrics or /v1/logs\n")
}

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Traces,
    Logs,
}

impl Signal {
    const fn ingest(self) -> IngestProtocol {
        match self {
            Self::Traces => IngestProtocol::OtlpHttp,
            Self::Logs => IngestProtocol::AccessLog,
        }
    }

    const fn body_format(self, format: Format) -> BodyFormat {
        match (self, format) {
            (Self::Traces, Format::Protobuf) => BodyFormat::OtlpProtobuf,
            (Self::Traces, Format::Json) => BodyFormat::OtlpJson,
            (Self::Logs, Format::Protobuf) => BodyFormat::OtlpLogsProtobuf,
            (Self::Logs, Format::Json) => BodyFormat::OtlpLogsJson,
        }
    }

    /// What the answer in JSON calls the number of rejected items.
    const fn rejected_name(self) -> &'static str {
        match self {
            Self::Traces => "rejectedSpans",
            Self::Logs => "rejectedLogRecords",
        }
    }
}

async fn export_traces<I: Intake>(receiver: State<Arc<Receiver<I>>>, request: Request<Body>) -> Response<Body> {
    export(&receiver, request, Signal::Traces).await
}

async fn export_logs<I: Intake>(receiver: State<Arc<Receiver<I>>>, request: Request<Body>) -> Response<Body> {
    export(&receiver, request, Signal::Logs).await
}

async fn export<I: Intake>(receiver: &Receiver<I>, request: Request<Body>, signal: Signal) -> Response<Body> {
    let (head, body) = request.into_parts();
    let format = Format::of(&head.headers);
    let body_format = format.clone().map(|format| signal.body_format(format));
    let result = match prepare(&head.method, &head.headers, body_format) {
        Ok(cut) => receiver.accept(signal.ingest(), &head.headers, body, cut).await,
        Err(failure) => Err(receiver.refuse(signal.ingest(), failure)),
    };
    // Who did not name a format that is understood can at least read JSON.
    let format = format.unwrap_or(Format::Json);
    match result {
        Ok(accepted) => success(format, &ExportResponse::of(&accepted.rejected), signal.rejected_name()),
        Err(failure) => refusal(format, &failure),
    }
}

/// Everything that can be refused before the body is read.
fn prepare(
    method: &Method,
    headers: &HeaderMap,
    format: Result<BodyFormat, Failure>,
) -> Result<impl FnOnce(bytes::Bytes) -> Result<Message, Failure> + use<>, Failure> {
    if method != Method::POST {
        return Err(Failure::method("POST"));
    }
    let format = format?;
    let encoding = content_encoding(headers, "content-encoding")?;
    Ok(move |body| Ok(Message { format, encoding, body }))
}

/// `rejected_name` is what the answer in JSON calls the number of rejected items.
pub(super) fn success(format: Format, response: &ExportResponse, rejected_name: &str) -> Response<Body> {
    let body = match format {
        Format::Protobuf => response.encode_to_vec(),
        Format::Json => response.to_json(rejected_name).into_bytes(),
    };
    with_type(StatusCode::OK, format.media_type(), body)
}

pub(super) fn refusal(format: Format, failure: &Failure) -> Response<Body> {
    let status = status_of(failure);
    let body = match format {
        Format::Protobuf => status.encode_to_vec(),
        Format::Json => status.to_json().into_bytes(),
    };
    let mut response = with_type(http_status(failure.kind), format.media_type(), body);
    add_hints(response.headers_mut(), failure);
    response
}

/// Headers that say what would be accepted, and when.
pub(super) fn add_hints(headers: &mut HeaderMap, failure: &Failure) {
    match failure.kind {
        FailureKind::Method => drop(headers.insert(ALLOW, HeaderValue::from_static("POST"))),
        FailureKind::Unsupported => {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED_ENCODINGS));
        }
        FailureKind::Busy { retry_after } | FailureKind::Full { retry_after } => {
            // Whole seconds, and never zero: that would invite a busy loop.
            let seconds = retry_after.as_millis().div_ceil(1000).max(1);
            headers.insert(RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
        }
        FailureKind::Malformed | FailureKind::TooLarge | FailureKind::Slow | FailureKind::Unavailable => {}
    }
}

/// The HTTP status of a failure. OTLP senders retry 429, 502, 503 and 504 only.
pub(super) const fn http_status(kind: FailureKind) -> StatusCode {
    match kind {
        FailureKind::Malformed => StatusCode::BAD_REQUEST,
        FailureKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        FailureKind::Unsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        FailureKind::Method => StatusCode::METHOD_NOT_ALLOWED,
        FailureKind::Slow => StatusCode::REQUEST_TIMEOUT,
        FailureKind::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
        FailureKind::Full { .. } | FailureKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The media type without its parameters, in lower case.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().unwrap_or("(unreadable)");
    let essence = value.split(';').next().unwrap_or_default();
    Some(essence.trim().to_ascii_lowercase())
}

/// A short text, for people.
pub(super) fn plain(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    with_type(status, HeaderValue::from_static("text/plain; charset=utf-8"), text.into().into_bytes())
}

/// An answer with a body of the given type.
pub(super) fn with_type(status: StatusCode, media_type: HeaderValue, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}
