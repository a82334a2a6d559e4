//! Real clients against real sockets on 127.0.0.1:0.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use windrose_proto::limits;
use windrose_proto::model::IngestProtocol;
use windrose_proto::reject::RejectReason;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::{ManualClock, UnixNanos};
use windrose_proto::wire::CounterBatch;

use super::rpc_status::{RetryInfo, Status};
use super::{Intake, IntakeError, ReceiveOptions, Receiver, Submission};
use crate::decode::{BodyFormat, ContentEncoding, decode};

mod metrics;

const NOW: UnixNanos = UnixNanos(1_760_000_000_000_000_000);

/// Remembers what it took, or refuses.
#[derive(Debug, Default)]
struct Recorder {
    taken: Mutex<Vec<Submission>>,
    counters: Mutex<Vec<CounterBatch>>,
    refuse: Mutex<Option<IntakeError>>,
}

impl Intake for Recorder {
    async fn submit(&self, submission: Submission) -> Result<(), IntakeError> {
        if let Some(error) = *self.refuse.lock().unwrap() {
            return Err(error);
        }
        self.taken.lock().unwrap().push(submission);
        Ok(())
    }

    async fn submit_counters(&self, _: TenantId, counters: CounterBatch) -> Result<(), IntakeError> {
        self.counters.lock().unwrap().push(counters);
        Ok(())
    }
}

/// The three receivers on ports of their own.
struct App {
    recorder: Arc<Recorder>,
    receiver: Arc<Receiver<Recorder>>,
    grpc: SocketAddr,
    http: SocketAddr,
    zipkin: SocketAddr,
}

async fn serve(router: axum::Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

impl App {
    async fn start() -> Self {
        Self::with(ReceiveOptions::default()).await
    }

    async fn with(options: ReceiveOptions) -> Self {
        let recorder = Arc::new(Recorder::default());
        let receiver = Receiver::new(Arc::clone(&recorder), Arc::new(ManualClock::new(NOW)), options);
        Self {
            grpc: serve(receiver.grpc_router()).await,
            http: serve(receiver.otlp_http_router()).await,
            zipkin: serve(receiver.zipkin_router()).await,
            recorder,
            receiver,
        }
    }

    fn refuse(&self, error: IntakeError) {
        *self.recorder.refuse.lock().unwrap() = Some(error);
    }

    fn taken(&self) -> Vec<Submission> {
        std::mem::take(&mut *self.recorder.taken.lock().unwrap())
    }

    async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.grpc)).unwrap().connect().await.unwrap()
    }

    async fn traces(&self) -> TraceServiceClient<Channel> {
        TraceServiceClient::new(self.channel().await)
    }
}

fn good_span() -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: "GET /".into(),
        start_time_unix_nano: 1_000,
        end_time_unix_nano: 2_000,
        ..Span::default()
    }
}

fn request_of(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
}

fn good_request() -> ExportTraceServiceRequest {
    request_of(vec![good_span()])
}

fn mixed_request() -> ExportTraceServiceRequest {
    request_of(vec![good_span(), Span { span_id: vec![], ..good_span() }])
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zlib(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

// gRPC.

#[tokio::test]
async fn grpc_takes_spans_in_every_coding_and_keeps_the_bytes() {
    let app = App::start().await;
    for (coding, expect) in [
        (None, ContentEncoding::Identity),
        (Some(CompressionEncoding::Gzip), ContentEncoding::Gzip),
        (Some(CompressionEncoding::Zstd), ContentEncoding::Zstd),
    ] {
        let mut client = app.traces().await;
        if let Some(coding) = coding {
            client = client.send_compressed(coding).accept_compressed(coding);
        }
        let response = client.export(good_request()).await.unwrap().into_inner();
        assert_eq!(response, ExportTraceServiceResponse::default(), "nothing was refused");

        let [submission] = app.taken().try_into().unwrap();
        assert_eq!(submission.encoding, expect);
        assert_eq!((submission.format, submission.tenant.as_str()), (BodyFormat::OtlpProtobuf, "default"));
        assert_eq!((submission.origin.ingest, submission.origin.arrived), (IngestProtocol::OtlpGrpc, NOW));
        assert_eq!(submission.decoded.spans.len(), 1);
        let again = decode(submission.format, submission.encoding, &submission.body, submission.origin).unwrap();
        assert_eq!(again.spans, submission.decoded.spans, "the log decodes to the same");
    }
    let stats = app.receiver.stats().protocol(IngestProtocol::OtlpGrpc);
    assert_eq!((stats.requests.count(), stats.spans()), (3, 3));
    assert!(stats.requests.body_bytes() > 0);
    assert_eq!(app.receiver.stats().in_flight_requests(), 0);
}

#[tokio::test]
async fn grpc_says_what_was_refused() {
    let app = App::start().await;
    let response = app.traces().await.export(mixed_request()).await.unwrap().into_inner();
    let partial = response.partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 1);
    assert_eq!(partial.error_message, "1 spans rejected (bad_span_id=1); first: span id is missing or all zero");
    assert_eq!(app.taken()[0].decoded.spans.len(), 1);
    let stats = app.receiver.stats().protocol(IngestProtocol::OtlpGrpc);
    assert_eq!((stats.spans(), stats.rejected_spans(RejectReason::BadSpanId)), (1, 1));
}

#[tokio::test]
async fn grpc_needs_nothing_stored_for_an_empty_request() {
    let app = App::start().await;
    app.refuse(IntakeError::Closed);
    assert!(app.traces().await.export(ExportTraceServiceRequest::default()).await.is_ok());
}

#[tokio::test]
async fn grpc_passes_the_tenant_on_and_refuses_bad_ones() {
    let app = App::start().await;
    let with_tenant = |name: &str| {
        let mut request = tonic::Request::new(good_request());
        request.metadata_mut().insert("x-scope-orgid", name.parse().unwrap());
        request
    };
    app.traces().await.export(with_tenant("team-a")).await.unwrap();
    assert_eq!(app.taken()[0].tenant.as_str(), "team-a");
    let status = app.traces().await.export(with_tenant("../x")).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert!(status.message().starts_with("invalid X-Scope-OrgID \"../x\""), "{}", status.message());

    let strict = App::with(ReceiveOptions { require_tenant: true, ..ReceiveOptions::default() }).await;
    let status = strict.traces().await.export(good_request()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    let stats = strict.receiver.stats().protocol(IngestProtocol::OtlpGrpc);
    assert_eq!(stats.requests.refused(RejectReason::BadTenant), 1);
    assert!(strict.taken().is_empty());
}

#[tokio::test]
async fn grpc_tells_senders_when_to_come_back() {
    let app = App::start().await;
    let retry_after = Duration::from_millis(2500);
    for (error, code, reason, retries) in [
        (IntakeError::DiskFull { retry_after }, tonic::Code::ResourceExhausted, RejectReason::DiskFull, true),
        (IntakeError::TooBusy { retry_after }, tonic::Code::ResourceExhausted, RejectReason::Overloaded, true),
        (IntakeError::Closed, tonic::Code::Unavailable, RejectReason::Unavailable, false),
        (IntakeError::Internal, tonic::Code::Unavailable, RejectReason::Unavailable, false),
    ] {
        app.refuse(error);
        let status = app.traces().await.export(good_request()).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, error.to_string().as_str()));
        if retries {
            let details = Status::decode(status.details()).unwrap();
            assert_eq!(details.code, code as i32);
            assert_eq!(details.details[0].type_url, "type.googleapis.com/google.rpc.RetryInfo");
            let delay = RetryInfo::decode(&details.details[0].value[..]).unwrap().retry_delay.unwrap();
            assert_eq!((delay.seconds, delay.nanos), (2, 500_000_000));
        } else {
            assert!(status.details().is_empty());
        }
        assert!(app.receiver.stats().protocol(IngestProtocol::OtlpGrpc).rejected_spans(reason) > 0);
    }
}

#[tokio::test]
async fn grpc_knows_no_other_method() {
    let app = App::start().await;
    // Metrics are a router of their own, which this port does not have here.
    let metrics = MetricsServiceClient::new(app.channel().await).export(ExportMetricsServiceRequest::default()).await;
    let status = metrics.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    assert!(status.message().contains("TraceService"), "{}", status.message());
}

/// One access log entry and one line of an application.
fn two_records() -> ExportLogsServiceRequest {
    let text = |text: &str| Some(AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) });
    let line =
        "[2026-11-20T17:39:57.812Z] \"GET /pay HTTP/1.1\" 200 - 11 91 3 - \"-\" \"-\" \"-\" \"pay\" \"10.0.0.4:443\"";
    let record = |body: &str| LogRecord { time_unix_nano: NOW.0, body: text(body), ..LogRecord::default() };
    let scope_logs = vec![ScopeLogs { log_records: vec![record(line), record("started")], ..ScopeLogs::default() }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] }
}

#[tokio::test]
async fn access_logs_are_taken_over_grpc_and_http_and_other_logs_counted() {
    let app = App::start().await;
    let answer = LogsServiceClient::new(app.channel().await).export(two_records()).await.unwrap();
    assert_eq!(answer.into_inner().partial_success, None, "nothing that the sender could mend");
    let http = send("POST", app.http, "/v1/logs", &[PROTOBUF], whole(two_records().encode_to_vec())).await;
    assert_eq!((http.status.as_u16(), http.body.len()), (200, 0));
    let formats: Vec<BodyFormat> = app.taken().iter().map(|submission| submission.format).collect();
    assert_eq!(formats, [BodyFormat::OtlpLogsProtobuf; 2]);
    let stats = app.receiver.stats().protocol(IngestProtocol::AccessLog);
    assert_eq!((stats.requests.count(), stats.spans(), stats.rejected_spans(RejectReason::NotAccessLog)), (2, 2, 2));
}

/// A gRPC request written by hand; the grpc-status and grpc-message that came back.
async fn raw_grpc(address: SocketAddr, headers: &[(&str, &str)], body: Vec<u8>) -> (StatusCode, HeaderMap) {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let path = "opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let mut request = Request::post(format!("http://{address}/{path}")).header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let mut headers = head.headers;
    if let Some(trailers) = body.collect().await.unwrap().trailers() {
        headers.extend(trailers.clone());
    }
    (head.status, headers)
}

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![flag];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame
}

#[tokio::test]
async fn grpc_refuses_malformed_calls_with_the_cause() {
    const GRPC: (&str, &str) = ("content-type", "application/grpc");
    let good = good_request().encode_to_vec();
    let bomb = gzip(&vec![0; limits::DECOMPRESSED_MAX_BYTES + 1]);
    let app = App::start().await;
    for (headers, body, code, message) in [
        (vec![GRPC], vec![], "3", "no gRPC message"),
        (vec![GRPC], framed(0, &good)[..20].to_vec(), "3", "one whole message expected"),
        (vec![GRPC], [framed(0, &good), framed(0, &good)].concat(), "3", "one whole message expected"),
        (vec![GRPC], framed(1, &good), "3", "without grpc-encoding"),
        (vec![GRPC], framed(7, &good), "3", "unknown flags"),
        (vec![GRPC], framed(0, b"garbage"), "3", "not an OTLP ExportTraceServiceRequest"),
        (vec![GRPC, ("grpc-encoding", "gzip")], framed(1, &good), "3", "not valid gzip"),
        (vec![GRPC, ("grpc-encoding", "gzip")], framed(1, &bomb), "3", "inflates to more than 64 MiB"),
        (vec![GRPC, ("grpc-encoding", "snappy")], framed(1, &good), "12", "snappy"),
        (vec![GRPC], framed(0, &vec![0; limits::BODY_MAX_BYTES]), "3", "larger than 16 MiB"),
        (vec![GRPC, ("x-scope-orgid", "a"), ("x-scope-orgid", "b")], framed(0, &good), "3", "more than once"),
        // Not compressed although a coding is agreed on.
        (vec![GRPC, ("grpc-encoding", "gzip")], framed(0, &good), "0", ""),
        (vec![("content-type", "application/grpc+proto")], framed(0, &good), "0", ""),
    ] {
        let (status, answer) = raw_grpc(app.grpc, &headers, body).await;
        assert_eq!(status, StatusCode::OK, "{message}");
        assert_eq!(answer["grpc-status"], code, "{message}");
        let said = answer.get("grpc-message").map(|value| value.to_str().unwrap().replace("%20", " "));
        assert!(said.unwrap_or_default().contains(message), "{answer:?} should say {message}");
        if code == "12" {
            assert_eq!(answer["grpc-accept-encoding"], "zstd,gzip,deflate,identity");
        }
    }
    let (status, _) = raw_grpc(app.grpc, &[("content-type", "application/x-protobuf")], good).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(app.receiver.stats().in_flight_requests(), 0);
}

// HTTP.

type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

fn whole(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed_unsync()
}

/// Without Content-Length, in pieces of `size` bytes.
fn chunked(body: &[u8], size: usize) -> Body {
    let frames: Vec<_> = body.chunks(size).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
    StreamBody::new(futures::stream::iter(frames)).boxed_unsync()
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

async fn send(method: &str, address: SocketAddr, path: &str, headers: &[(&str, &str)], body: Body) -> Answer {
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build_http();
    let mut request = Request::builder().method(method).uri(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.request(request.body(body).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    Answer { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
}

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");

const GOOD_JSON: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"0af7651916cd43dd8448eb211c80319c",
    "spanId":"b7ad6b7169203331","startTimeUnixNano":"1000","endTimeUnixNano":"2000"}]}]}]}"#;
const MIXED_JSON: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"1","spanId":"1",
    "startTimeUnixNano":"1000","endTimeUnixNano":"2000"},{}]}]}]}"#;

#[tokio::test]
async fn http_success_is_exactly_200_in_the_format_of_the_request() {
    let app = App::start().await;
    let good = good_request().encode_to_vec();
    for (content_type, encoding, body) in [
        (PROTOBUF, None, whole(good.clone())),
        (PROTOBUF, None, chunked(&good, 7)),
        (PROTOBUF, Some("gzip"), whole(gzip(&good))),
        (PROTOBUF, Some("zstd"), whole(zstd::encode_all(&good[..], 1).unwrap())),
        (PROTOBUF, Some("deflate"), whole(zlib(&good))),
        (PROTOBUF, Some("identity"), whole(good.clone())),
        (JSON, None, whole(GOOD_JSON)),
        (JSON, Some("gzip"), chunked(&gzip(GOOD_JSON.as_bytes()), 11)),
        (("content-type", "Application/JSON; charset=utf-8"), None, whole(GOOD_JSON)),
    ] {
        let mut headers = vec![content_type];
        headers.extend(encoding.map(|encoding| ("content-encoding", encoding)));
        let answer = send("POST", app.http, "/v1/traces", &headers, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{headers:?}: {answer:?}", answer = answer.text());
        if content_type == PROTOBUF {
            assert_eq!(
                (&answer.headers["content-type"], &answer.body[..]),
                (&"application/x-protobuf".parse().unwrap(), &b""[..])
            );
        } else {
            assert_eq!((&answer.headers["content-type"], answer.text()), (&"application/json".parse().unwrap(), "{}"));
        }
        let [submission] = app.taken().try_into().unwrap();
        assert_eq!(submission.decoded.spans.len(), 1);
        assert_eq!(submission.origin.ingest, IngestProtocol::OtlpHttp);
        let again = decode(submission.format, submission.encoding, &submission.body, submission.origin).unwrap();
        assert_eq!(again.spans, submission.decoded.spans, "the log decodes to the same");
    }
}

#[tokio::test]
async fn http_says_what_was_refused() {
    let app = App::start().await;
    let answer = send("POST", app.http, "/v1/traces", &[PROTOBUF], whole(mixed_request().encode_to_vec())).await;
    assert_eq!(answer.status, StatusCode::OK);
    let partial = ExportTraceServiceResponse::decode(answer.body).unwrap().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 1);

    let answer = send("POST", app.http, "/v1/traces", &[JSON], whole(MIXED_JSON)).await;
    let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let message = "1 spans rejected (bad_trace_id=1); first: trace id is missing or all zero";
    assert_eq!(answer, serde_json::json!({"partialSuccess": {"rejectedSpans": "1", "errorMessage": message}}));
    assert_eq!(app.taken().len(), 2);
}

#[tokio::test]
async fn http_refuses_with_status_and_cause() {
    let app = App::start().await;
    let good = good_request().encode_to_vec();
    let too_large = vec![0; limits::BODY_MAX_BYTES + 1];
    let bomb = zstd::encode_all(&vec![0; limits::DECOMPRESSED_MAX_BYTES + 1][..], 1).unwrap();
    for (method, headers, body, status, cause) in [
        ("GET", vec![PROTOBUF], whole(""), 405, "use POST"),
        ("PUT", vec![PROTOBUF], whole(good.clone()), 405, "use POST"),
        ("POST", vec![], whole(good.clone()), 415, "content-type is missing"),
        ("POST", vec![("content-type", "text/html")], whole(good.clone()), 415, "text/html"),
        ("POST", vec![PROTOBUF, ("content-encoding", "br")], whole(good.clone()), 415, "br"),
        ("POST", vec![PROTOBUF], whole(&b"<html>"[..]), 400, "not an OTLP ExportTraceServiceRequest"),
        ("POST", vec![PROTOBUF], whole(good[..good.len() - 1].to_vec()), 400, "truncated"),
        ("POST", vec![JSON], whole(good.clone()), 400, "not an OTLP/JSON"),
        ("POST", vec![JSON], whole(&GOOD_JSON[..50]), 400, "at byte 44"),
        ("POST", vec![PROTOBUF, ("content-encoding", "gzip")], whole(good.clone()), 400, "not valid gzip"),
        ("POST", vec![PROTOBUF, ("content-encoding", "zstd")], whole(bomb), 413, "inflates to more than"),
        ("POST", vec![PROTOBUF], whole(too_large.clone()), 413, "larger than 16 MiB"),
        ("POST", vec![PROTOBUF], chunked(&too_large, 1 << 20), 413, "larger than 16 MiB"),
        ("POST", vec![PROTOBUF, ("x-scope-orgid", "a/b")], whole(good.clone()), 400, "X-Scope-OrgID"),
        ("POST", vec![PROTOBUF, ("x-scope-orgid", "")], whole(good.clone()), 400, "X-Scope-OrgID"),
    ] {
        let is_json = !headers.contains(&PROTOBUF);
        let answer = send(method, app.http, "/v1/traces", &headers, body).await;
        assert_eq!(answer.status.as_u16(), status, "{cause}");
        let message = if is_json {
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            body["message"].as_str().unwrap().to_owned()
        } else {
            Status::decode(answer.body).unwrap().message
        };
        assert!(message.contains(cause), "{message:?} should name {cause:?}");
        match status {
            405 => assert_eq!(answer.headers["allow"], "POST"),
            415 => assert_eq!(answer.headers["accept-encoding"], "zstd, gzip, deflate, identity"),
            _ => {}
        }
    }
    assert!(app.taken().is_empty());
    let stats = app.receiver.stats().protocol(IngestProtocol::OtlpHttp);
    assert_eq!(stats.requests.count(), 15);
    let refused: u64 = RejectReason::ALL.iter().map(|reason| stats.requests.refused(*reason)).sum();
    assert_eq!(refused, 15);
    assert_eq!(app.receiver.stats().in_flight_requests(), 0);
}

#[tokio::test]
async fn http_tells_senders_when_to_come_back() {
    let app = App::start().await;
    for (error, status, retry_after) in [
        (IntakeError::DiskFull { retry_after: Duration::from_millis(2500) }, 503, Some("3")),
        (IntakeError::TooBusy { retry_after: Duration::ZERO }, 429, Some("1")),
        (IntakeError::Closed, 503, None),
        (IntakeError::Internal, 503, None),
    ] {
        app.refuse(error);
        let answer = send("POST", app.http, "/v1/traces", &[JSON], whole(GOOD_JSON)).await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.headers.get("retry-after").map(|value| value.to_str().unwrap()), retry_after);
        assert!(answer.text().contains(&error.to_string()), "{}", answer.text());
    }
}

#[tokio::test]
async fn http_knows_no_other_path() {
    let app = App::start().await;
    for (path, status) in [("/v1/profiles", 404), ("/", 404), ("/v1/traces/", 404)] {
        let answer = send("POST", app.http, path, &[JSON], whole("{}")).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert!(!answer.body.is_empty(), "{path} says why");
    }
}

#[tokio::test]
async fn large_bodies_are_decoded_off_the_reactor() {
    let app = App::start().await;
    let spans: Vec<Span> =
        (1..=20_000_u64).map(|n| Span { span_id: n.to_be_bytes().to_vec(), ..good_span() }).collect();
    let body = request_of(spans).encode_to_vec();
    let body_len = body.len();
    assert!(body_len > 256 << 10);
    for (headers, body) in [
        (vec![PROTOBUF], chunked(&body, 10_000)),
        (vec![PROTOBUF, ("content-encoding", "gzip")], whole(gzip(&body))),
        (vec![PROTOBUF], whole(body.clone())),
    ] {
        let answer = send("POST", app.http, "/v1/traces", &headers, body).await;
        assert_eq!(answer.status, StatusCode::OK);
        let [submission] = app.taken().try_into().unwrap();
        assert_eq!(submission.decoded.spans.len(), 20_000);
        let is_inflated = submission.encoding != ContentEncoding::Identity;
        let least = 20_000 * size_of::<windrose_proto::span::Span>() + if is_inflated { body_len } else { 0 };
        assert!(submission.decoded.memory_bytes >= least, "what was inflated counts as well");
    }
}

#[tokio::test]
async fn requests_beyond_the_memory_are_refused_and_leave_none_behind() {
    let options =
        ReceiveOptions { in_flight_max_bytes: 64 << 10, admission_wait: Duration::ZERO, ..ReceiveOptions::default() };
    let app = App::with(options).await;
    let mut hog = app.receiver.admission.open();
    hog.pay(63 << 10).await.unwrap();
    let body = good_request().encode_to_vec();
    let answer = send("POST", app.http, "/v1/traces", &[PROTOBUF], whole(vec![0x0a; 2 << 10])).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers["retry-after"], "1");
    drop(hog);
    let answer = send("POST", app.http, "/v1/traces", &[PROTOBUF], whole(body)).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(app.receiver.admission.free_bytes(), 64 << 10);
    let stats = app.receiver.stats().protocol(IngestProtocol::OtlpHttp);
    assert_eq!(stats.requests.refused(RejectReason::Overloaded), 1);
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let app = App::with(ReceiveOptions { body_timeout: Duration::from_millis(20), ..ReceiveOptions::default() }).await;
    let first = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"\x0a")))]);
    let stalled = futures::StreamExt::chain(first, futures::stream::pending());
    let answer = send("POST", app.http, "/v1/traces", &[PROTOBUF], StreamBody::new(stalled).boxed_unsync()).await;
    assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
}

// Zipkin.

const GOOD_ZIPKIN: &str = r#"[{"traceId":"1","id":"2","timestamp":5,"localEndpoint":{"serviceName":"a"}}]"#;

#[tokio::test]
async fn zipkin_success_is_exactly_202_and_empty() {
    let app = App::start().await;
    for (headers, body) in [
        (vec![JSON], whole(GOOD_ZIPKIN)),
        (vec![], chunked(GOOD_ZIPKIN.as_bytes(), 9)),
        (vec![JSON, ("content-encoding", "gzip")], whole(gzip(GOOD_ZIPKIN.as_bytes()))),
        (vec![JSON], whole(r#"[{},{"traceId":"1","id":"2","timestamp":5}]"#)),
    ] {
        let answer = send("POST", app.zipkin, "/api/v2/spans", &headers, body).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::ACCEPTED, ""));
        let [submission] = app.taken().try_into().unwrap();
        assert_eq!((submission.format, submission.decoded.spans.len()), (BodyFormat::ZipkinJson, 1));
    }
    let mut span = vec![0x0a, 1, 7, 0x1a, 1, 8, 0x31];
    span.extend(5u64.to_le_bytes());
    let list = [&[0x0a, span.len() as u8][..], &span].concat();
    let answer = send("POST", app.zipkin, "/api/v2/spans", &[PROTOBUF], whole(list)).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::ACCEPTED, ""));
    assert_eq!(app.taken()[0].decoded.spans[0].trace_id.low64(), 7);
    let answer = send("POST", app.zipkin, "/api/v2/spans", &[JSON], whole("[]")).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let stats = app.receiver.stats().protocol(IngestProtocol::Zipkin);
    assert_eq!((stats.spans(), stats.rejected_spans(RejectReason::BadTraceId)), (5, 1));
}

#[tokio::test]
async fn zipkin_refuses_with_status_and_cause() {
    let app = App::start().await;
    for (method, path, headers, body, status, cause) in [
        ("GET", "/api/v2/spans", vec![], "", 405, "use POST"),
        ("POST", "/api/v2/spans", vec![JSON], "[{]", 400, "at byte 2"),
        ("POST", "/api/v2/spans", vec![JSON], "", 400, "ends too early"),
        ("POST", "/api/v2/spans", vec![JSON], "[{}]", 400, "bad_trace_id=1"),
        ("POST", "/api/v2/spans", vec![JSON, ("x-scope-orgid", ".")], "[]", 400, "X-Scope-OrgID"),
        ("POST", "/api/v2/spans", vec![("content-type", "application/x-thrift")], "x", 415, "application/json"),
        ("POST", "/api/v2/spans", vec![JSON, ("content-encoding", "br")], "x", 415, "zstd, gzip"),
        ("POST", "/api/v1/spans", vec![JSON], "[]", 415, "/api/v2/spans"),
        ("POST", "/", vec![], "", 404, "/api/v2/spans"),
    ] {
        let answer = send(method, app.zipkin, path, &headers, whole(body)).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path} {body}");
        assert!(answer.text().contains(cause), "{:?} should name {cause:?}", answer.text());
    }
    app.refuse(IntakeError::DiskFull { retry_after: Duration::from_secs(7) });
    let answer = send("POST", app.zipkin, "/api/v2/spans", &[JSON], whole(GOOD_ZIPKIN)).await;
    assert_eq!((answer.status.as_u16(), &answer.headers["retry-after"]), (503, &"7".parse().unwrap()));
}

// SkyWalking.

const GOOD_SEGMENT: &str =
    r#"{"traceId":"t","traceSegmentId":"s","service":"APISIX","spans":[{"spanId":0,"startTime":1,"endTime":2}]}"#;

#[tokio::test]
async fn skywalking_takes_segments() {
    let app = App::start().await;
    for (path, body, status, spans) in [
        ("/v3/segments", format!("[{GOOD_SEGMENT}]"), 200, 1),
        ("/v3/segment", GOOD_SEGMENT.to_owned(), 200, 1),
        ("/v3/segments", "[]".to_owned(), 200, 0),
        ("/v3/segments", r#"[{"spans":[{}]}]"#.to_owned(), 400, 0),
        ("/v3/segments", "[{".to_owned(), 400, 0),
        ("/v3/management/keepAlive", "{}".to_owned(), 200, 0),
        ("/v3/management/reportProperties", "{}".to_owned(), 200, 0),
    ] {
        let answer = send("POST", app.http, path, &[], whole(body.clone())).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {body}: {}", answer.text());
        let taken: usize = app.taken().iter().map(|submission| submission.decoded.spans.len()).sum();
        assert_eq!(taken, spans);
    }
    let answer = send("GET", app.http, "/v3/segments", &[], whole("")).await;
    assert_eq!((answer.status.as_u16(), &answer.headers["allow"]), (405, &"POST".parse().unwrap()));
    assert_eq!(app.receiver.stats().protocol(IngestProtocol::Skywalking).spans(), 2);
}

#[tokio::test]
async fn random_bytes_on_every_port_change_nothing() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let app = App::start().await;
    for address in [app.grpc, app.http, app.zipkin] {
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        // The peer may close before everything is written; that is an answer, too.
        drop(socket.write_all(&[0x16, 0x03, 0x01, 0xff, 0x00, b'\r', b'\n', b'\r', b'\n']).await);
        let mut answer = Vec::new();
        drop(socket.read_to_end(&mut answer).await);
    }
    assert!(app.traces().await.export(good_request()).await.is_ok());
}
