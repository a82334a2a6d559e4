//! OTLP metrics: `MetricsService/Export` over gRPC, `POST /v1/metrics` over HTTP.
//!
//! Headers, codings, limits and errors are those of spans. What of a request cannot be stored is told in
//! `partial_success`, and the rest is stored: senders do not repeat what was answered.

use std::sync::Arc;

use ::http::{HeaderMap, Method, Request, Response};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::any;
use bytes::Bytes;

use super::Intake;
use super::accept::content_encoding;
use super::failure::Failure;
use super::grpc::{GRPC_ENCODING, answer, hint_unless_grpc, unframe};
use super::http::{Format, refusal, success};
use super::metric_stats::MetricProtocol;
use super::metrics::{MetricContent, MetricMessage, MetricReceiver};
use super::rpc_status::ExportResponse;
use crate::decode::OtlpForm;

const METHOD: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const PATH: &str = "/v1/metrics";

/// What the answer in JSON calls the number of rejected points.
const REJECTED_NAME: &str = "rejectedDataPoints";

pub(super) fn grpc_router<I: Intake>(receiver: Arc<MetricReceiver<I>>) -> Router {
    Router::new().route(METHOD, any(export_grpc::<I>)).with_state(receiver)
}

pub(super) fn http_router<I: Intake>(receiver: Arc<MetricReceiver<I>>) -> Router {
    Router::new().route(PATH, any(export_http::<I>)).with_state(receiver)
}

async fn export_grpc<I: Intake>(receiver: State<Arc<MetricReceiver<I>>>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    if let Some(hint) = hint_unless_grpc(&head.method, &head.headers) {
        return hint;
    }
    let protocol = MetricProtocol::OtlpGrpc;
    let result = match content_encoding(&head.headers, GRPC_ENCODING) {
        Ok(agreed) => {
            let cut = move |body| {
                let (encoding, body) = unframe(body, agreed)?;
                Ok(MetricMessage { content: MetricContent::Otlp { form: OtlpForm::Protobuf, encoding }, body })
            };
            receiver.accept(protocol, &head.headers, body, cut).await
        }
        Err(failure) => Err(receiver.refuse(protocol, failure)),
    };
    answer(result.map(|rejected| ExportResponse::of_samples(&rejected)))
}

async fn export_http<I: Intake>(receiver: State<Arc<MetricReceiver<I>>>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let protocol = MetricProtocol::OtlpHttp;
    let format = Format::of(&head.headers);
    let result = match prepare(&head.method, &head.headers, format.clone()) {
        Ok(cut) => receiver.accept(protocol, &head.headers, body, cut).await,
        Err(failure) => Err(receiver.refuse(protocol, failure)),
    };
    // Who did not name a format that is understood can at least read JSON.
    let format = format.unwrap_or(Format::Json);
    match result {
        Ok(rejected) => success(format, &ExportResponse::of_samples(&rejected), REJECTED_NAME),
        Err(failure) => refusal(format, &failure),
    }
}

/// Everything that can be refused before the body is read.
fn prepare(
    method: &Method,
    headers: &HeaderMap,
    format: Result<Format, Failure>,
) -> Result<impl FnOnce(Bytes) -> Result<MetricMessage, Failure> + use<>, Failure> {
    if method != Method::POST {
        return Err(Failure::method("POST"));
    }
    let form = match format? {
        Format::Protobuf => OtlpForm::Protobuf,
        Format::Json => OtlpForm::Json,
    };
    let encoding = content_encoding(headers, "content-encoding")?;
    Ok(move |body| Ok(MetricMessage { content: MetricContent::Otlp { form, encoding }, body }))
}
