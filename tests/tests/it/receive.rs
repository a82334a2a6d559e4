//! The receiving ports: what is taken, with which status, and what is refused, with which words.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tonic::codec::CompressionEncoding;
use windrose_proto::time::{Clock as _, SystemClock};
use windrose_tests::client::{Answer, Http};
use windrose_tests::replay::connect;
use windrose_tests::server::{Home, TestServer};
use windrose_tests::synthetic::{Request, SPANS_PER_REQUEST};
use windrose_tests::wait::until;

use crate::support::SHOWN_WITHIN;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

type Headers<'a> = &'a [(&'a str, &'a str)];

fn request(number: u64) -> Request {
    Request::new(number, SystemClock.now().minus(Duration::from_secs(1)))
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// Waits until a trace is answered with so many spans.
async fn shown(http: &Http, request: Request, spans: usize) {
    let path = format!("/api/v1/traces/{}", request.trace_hex());
    until("the trace to be shown", SHOWN_WITHIN, async || {
        let answer = http.try_get(&path).await?;
        let found =
            if answer.status == 200 { answer.json()["data"]["spans"].as_array().map_or(0, Vec::len) } else { 0 };
        if found == spans { Ok(()) } else { Err(format!("{found} of {spans} spans: {}", answer.text())) }
    })
    .await;
}

async fn post(server: &TestServer, headers: Headers<'_>, body: impl Into<Bytes>) -> Answer {
    Http::new(server.ports().otlp_http).post("/v1/traces", headers, body).await
}

#[tokio::test]
async fn otlp_over_http() {
    let server = Home::brisk().start().await;
    let http = server.http();
    let protobuf = request(1).export().encode_to_vec();
    let json = serde_json::to_vec(&request(2).export()).unwrap();
    let zipped = gzip(&request(3).export().encode_to_vec());
    let zstd = zstd::encode_all(request(4).export().encode_to_vec().as_slice(), 1).unwrap();
    let zipped_json = gzip(&serde_json::to_vec(&request(5).export()).unwrap());
    let cases: [(u64, Headers<'_>, Vec<u8>); 5] = [
        (1, &[("content-type", PROTOBUF)], protobuf),
        (2, &[("content-type", JSON)], json),
        (3, &[("content-type", PROTOBUF), ("content-encoding", "gzip")], zipped),
        (4, &[("content-type", PROTOBUF), ("content-encoding", "zstd")], zstd),
        (5, &[("content-type", "application/json; charset=utf-8"), ("content-encoding", "gzip")], zipped_json),
    ];
    for (number, headers, body) in cases {
        let answer = post(&server, headers, body).await;
        assert_eq!(answer.status, 200, "{headers:?}: {}", answer.text());
        assert!(headers[0].1.starts_with(answer.header("content-type")), "{headers:?}: answers in the same encoding");
        shown(&http, request(number), SPANS_PER_REQUEST).await;
    }
}

#[tokio::test]
async fn otlp_over_grpc_compressed() {
    let server = Home::brisk().start().await;
    for (number, encoding) in [(1, CompressionEncoding::Gzip), (2, CompressionEncoding::Zstd)] {
        let mut client = connect(server.ports().otlp_grpc).send_compressed(encoding).accept_compressed(encoding);
        let answer = client.export(request(number).export()).await.unwrap().into_inner();
        assert_eq!(answer, ExportTraceServiceResponse::default());
        shown(&server.http(), request(number), SPANS_PER_REQUEST).await;
    }
}

#[tokio::test]
async fn zipkin() {
    let server = Home::brisk().start().await;
    let (request, now) = (request(1), SystemClock.now());
    let span = json!([{
        "traceId": request.trace_hex(), "id": "00000000000000a1", "kind": "SERVER", "name": "get /",
        "timestamp": now.0 / 1000 - 1_000_000, "duration": 1500,
        "localEndpoint": {"serviceName": "orders", "ipv4": "10.0.0.2"}, "tags": {"http.status_code": "200"},
    }]);
    let zipkin = Http::new(server.ports().zipkin);
    let answer = zipkin.post("/api/v2/spans", &[("content-type", JSON)], span.to_string()).await;
    assert_eq!((answer.status, answer.text().as_str()), (202, ""));
    shown(&server.http(), request, 1).await;
    let answer = zipkin.post("/api/v2/spans", &[("content-type", JSON)], "[{\"traceId\":").await;
    assert_eq!(answer.status, 400, "{}", answer.text());
}

#[tokio::test]
async fn what_is_refused_and_how() {
    let server = Home::brisk().start().await;
    let protobuf = request(1).export().encode_to_vec();
    let cut = protobuf[..protobuf.len() - 7].to_vec();
    let cases: [(&str, Headers<'_>, Vec<u8>, &[u16]); 6] = [
        ("cut protobuf", &[("content-type", PROTOBUF)], cut, &[400]),
        ("cut JSON", &[("content-type", JSON)], b"{\"resourceSpans\": [".to_vec(), &[400]),
        ("not gzip", &[("content-type", PROTOBUF), ("content-encoding", "gzip")], protobuf.clone(), &[400]),
        ("unknown encoding", &[("content-type", PROTOBUF), ("content-encoding", "br")], protobuf.clone(), &[400, 415]),
        ("unknown type", &[("content-type", "text/html")], protobuf.clone(), &[400, 415]),
        ("unusable tenant", &[("content-type", PROTOBUF), ("x-scope-orgid", "../../etc")], protobuf, &[400, 401]),
    ];
    for (what, headers, body, expect) in cases {
        let answer = post(&server, headers, body).await;
        assert!(expect.contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
        assert!(!answer.body.is_empty(), "{what}: says what is wrong");
    }
    shown_nothing(&server.http(), request(1)).await;
}

/// Only the head is sent: a server that says no before it has read a body need not read it.
#[tokio::test]
async fn a_body_that_is_too_large_is_refused_unread() {
    let server = Home::brisk().start().await;
    for (port, path) in [(server.ports().otlp_http, "/v1/traces"), (server.ports().zipkin, "/api/v2/spans")] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\ncontent-length: {}\r\n\r\n",
            1_u64 << 40
        );
        let mut stream = TcpStream::connect(port).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let mut reader = BufReader::new(stream);
        tokio::time::timeout(SHOWN_WITHIN, reader.read_line(&mut answer)).await.expect("an answer").unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{path}: {answer}");
    }
}

async fn shown_nothing(http: &Http, request: Request) {
    let answer = http.get(&format!("/api/v1/traces/{}", request.trace_hex())).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    let error = answer.json();
    assert_eq!((error["status"].as_str(), error["errorType"].as_str()), (Some("error"), Some("not_found")), "{error}");
}

#[tokio::test]
async fn good_spans_of_a_request_with_bad_ones_are_kept() {
    let server = Home::brisk().start().await;
    let request = request(1);
    let mut export = request.export();
    export.resource_spans[1].scope_spans[0].spans[0].trace_id = vec![0; 16];
    let answer = post(&server, &[("content-type", PROTOBUF)], export.encode_to_vec()).await;
    assert_eq!(answer.status, 200);
    let partial = ExportTraceServiceResponse::decode(answer.body).unwrap().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 1, "{partial:?}");
    assert!(partial.error_message.contains("trace"), "{partial:?}");
    shown(&server.http(), request, SPANS_PER_REQUEST - 1).await;
}

/// What came in is stored, known already, or refused for a reason; nothing else can become of a span.
#[tokio::test]
async fn every_span_is_accounted_for() {
    let server = Home::brisk().start().await;
    let whole = request(1).export();
    let mut damaged = request(2).export();
    damaged.resource_spans[1].scope_spans[0].spans[0].trace_id = vec![0; 16];
    for export in [&whole, &whole, &damaged] {
        assert_eq!(post(&server, &[("content-type", PROTOBUF)], export.encode_to_vec()).await.status, 200);
    }
    shown(&server.http(), request(2), SPANS_PER_REQUEST - 1).await;
    let expect = [
        ("windrose_receive_spans_total{protocol=\"otlp_http\"}", 8.0),
        ("windrose_receive_rejected_spans_total{reason=\"bad_trace_id\"}", 1.0),
        ("windrose_join_stored_spans_total", 5.0),
        ("windrose_join_duplicate_spans_total", 3.0),
    ];
    for (series, expect) in expect {
        assert_eq!(server.metric(series).await, expect, "{series}");
    }
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let server = Home::brisk().start().await;
    let body = |number| request(number).export().encode_to_vec();
    for (number, tenant) in [(1, "red"), (2, "blue")] {
        let headers = [("content-type", PROTOBUF), ("x-scope-orgid", tenant)];
        assert_eq!(post(&server, &headers, body(number)).await.status, 200);
    }
    let mut grpc = tonic::Request::new(request(3).export());
    grpc.metadata_mut().insert("x-scope-orgid", "red".parse().unwrap());
    connect(server.ports().otlp_grpc).export(grpc).await.unwrap();
    let (red, blue, nobody) = (server.http().as_tenant("red"), server.http().as_tenant("blue"), server.http());
    shown(&red, request(1), SPANS_PER_REQUEST).await;
    shown(&red, request(3), SPANS_PER_REQUEST).await;
    shown(&blue, request(2), SPANS_PER_REQUEST).await;
    for (http, number) in [(&red, 2), (&blue, 1), (&blue, 3), (&nobody, 1), (&nobody, 2), (&nobody, 3)] {
        shown_nothing(http, request(number)).await;
    }
    let count = async |http: &Http| http.sql("SELECT count(*) AS spans FROM spans").await[0]["spans"].clone();
    assert_eq!((count(&red).await, count(&blue).await, count(&nobody).await), (json!(6), json!(3), json!(0)));
}

#[tokio::test]
async fn a_tenant_can_be_demanded() {
    let server = Home::new("tenancy:\n  require_header: true\n").start().await;
    let body = request(1).export().encode_to_vec();
    let answer = post(&server, &[("content-type", PROTOBUF)], body.clone()).await;
    assert!((400..500).contains(&answer.status), "{} {}", answer.status, answer.text());
    assert!(answer.text().to_lowercase().contains("x-scope-orgid"), "{}", answer.text());
    let answer = post(&server, &[("content-type", PROTOBUF), ("x-scope-orgid", "red")], body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn what_comes_back_is_what_was_sent() {
    let server = Home::brisk().start().await;
    let request = request(1);
    let sent = request.export();
    assert_eq!(post(&server, &[("content-type", PROTOBUF)], sent.encode_to_vec()).await.status, 200);
    shown(&server.http(), request, SPANS_PER_REQUEST).await;
    let answer = server.http().get(&format!("/api/v1/traces/{}?format=otlp", request.trace_hex())).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let back: ExportTraceServiceRequest = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(spans(&back), spans(&sent));
}

/// Spans with their resources and scopes, in an order of their own.
fn spans(request: &ExportTraceServiceRequest) -> Vec<String> {
    let mut spans: Vec<String> = Vec::new();
    for resource in &request.resource_spans {
        for scope in &resource.scope_spans {
            let plain = |span| format!("{span:?} {:?} {:?}", resource.resource, scope.scope);
            spans.extend(scope.spans.iter().map(plain));
        }
    }
    spans.sort();
    spans
}

#[tokio::test]
async fn parameters_are_checked() {
    let server = Home::brisk().start().await;
    let cases = [
        ("/api/v1/topology?scop=service", "scop"),
        ("/api/v1/topology?scope=galaxy", "scope"),
        ("/api/v1/topology?start=yesterday", "start"),
        ("/api/v1/topology?start=now&end=now-1h", "end"),
        ("/api/v1/topology?depth=deep", "depth"),
        ("/api/v1/latency?quantiles=0.5,2", "quantiles"),
        ("/api/v1/traces?limit=-1", "limit"),
        ("/api/v1/traces/xyz", "trace_id"),
    ];
    for (path, parameter) in cases {
        let answer = server.http().get(path).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        let error = answer.json();
        assert_eq!(error["errorType"], "bad_data", "{path}: {error}");
        assert!(error["error"].as_str().unwrap().contains(parameter), "{path}: {error}");
    }
    for path in ["/api/v1/nothing", "/api/v1/edges/0000000000000000"] {
        let answer = server.http().get(path).await;
        assert_eq!((answer.status, &answer.json()["errorType"]), (404, &Value::from("not_found")), "{path}");
    }
}

#[tokio::test]
async fn sql_cannot_write() {
    let server = Home::brisk().start().await;
    for query in [
        "DROP TABLE spans",
        "CREATE TABLE t AS SELECT 1",
        "COPY spans TO '/tmp/x.parquet'",
        "SELECT * FROM nowhere",
        "SELEC 1",
    ] {
        let body = json!({ "query": query }).to_string();
        let answer = server.http().post("/api/v1/sql", &[("content-type", JSON)], body).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
    }
}
