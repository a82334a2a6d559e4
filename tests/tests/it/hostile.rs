//! Garbage on every port: clear refusals, flat memory, and the good data of others untouched.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use windrose_proto::time::{Clock as _, SystemClock};
use windrose_tests::client::Http;
use windrose_tests::raw_codec::RawCodec;
use windrose_tests::replay::{connect, export};
use windrose_tests::server::{Home, TestServer};
use windrose_tests::synthetic::{Request, SPANS_PER_REQUEST};
use windrose_tests::wait::until;

use crate::support::SHOWN_WITHIN;

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

/// What garbage may add to the process's memory: a few requests at their size limits, not the bomb's gigabyte.
const MEMORY_GROWTH_MAX_KIB: u64 = 300 << 10;

async fn good_data(server: &TestServer, number: u64) {
    let request = Request::new(number, SystemClock.now().minus(Duration::from_secs(1)));
    export(connect(server.ports().otlp_grpc), request.export()).await.unwrap();
    let (http, path) = (server.http(), format!("/api/v1/traces/{}", request.trace_hex()));
    until("a good trace to be shown", SHOWN_WITHIN, async || {
        let answer = http.try_get(&path).await?;
        let spans =
            if answer.status == 200 { answer.json()["data"]["spans"].as_array().map_or(0, Vec::len) } else { 0 };
        if spans == SPANS_PER_REQUEST { Ok(()) } else { Err(answer.text()) }
    })
    .await;
}

/// The process's largest resident size so far, in KiB.
fn peak_memory_kib(server: &TestServer) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn all_ports(server: &TestServer) -> [SocketAddr; 4] {
    let ports = server.ports();
    [ports.otlp_grpc, ports.otlp_http, ports.zipkin, ports.http]
}

/// Writes bytes to a port and reads until the server hangs up or half a second passes.
async fn throw(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server that hangs up in the middle of garbage does right.
    if stream.write_all(bytes).await.is_ok() {
        let mut answer = Vec::new();
        drop(tokio::time::timeout(Duration::from_millis(500), stream.read_to_end(&mut answer)).await);
    }
}

#[tokio::test]
async fn random_bytes_on_every_port() {
    let server = Home::brisk().start().await;
    good_data(&server, 1).await;
    let mut random = StdRng::seed_from_u64(7);
    for address in all_ports(&server) {
        for length in [1, 100, 100_000] {
            let mut bytes = vec![0; length];
            random.fill_bytes(&mut bytes);
            throw(address, &bytes).await;
        }
        throw(address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff").await;
        throw(address, b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999\r\n\r\n").await;
    }
    good_data(&server, 2).await;
}

#[tokio::test]
async fn damaged_messages() {
    let server = Home::brisk().start().await;
    let whole = Request::new(1, SystemClock.now()).export().encode_to_vec();
    let http = Http::new(server.ports().otlp_http);
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..300 {
        let mut damaged = whole.clone();
        damaged.truncate(random.random_range(0..=whole.len()));
        for _ in 0..random.random_range(0..4) {
            if let Some(byte) = damaged.get_mut(random.random_range(0..whole.len())) {
                *byte = random.random();
            }
        }
        let answer = http.post("/v1/traces", &[PROTOBUF], damaged).await;
        assert!(matches!(answer.status, 200 | 400), "{}: {}", answer.status, answer.text());
    }
    good_data(&server, 2).await;
}

#[tokio::test]
async fn garbage_over_grpc_is_an_invalid_argument() {
    let server = Home::brisk().start().await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.ports().otlp_grpc)).unwrap();
    let mut client = tonic::client::Grpc::new(endpoint.connect().await.unwrap());
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    let garbage = tonic::Request::new(bytes::Bytes::from_static(b"\xff\xff\xff\xff garbage"));
    let refused = client.unary(garbage, path, RawCodec).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(!refused.message().is_empty());
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Nothing");
    let refused = client.unary(tonic::Request::new(bytes::Bytes::new()), path, RawCodec).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
    good_data(&server, 2).await;
}

#[tokio::test]
async fn a_bomb_costs_no_memory() {
    let server = Home::brisk().start().await;
    good_data(&server, 1).await;
    let before = peak_memory_kib(&server);
    let zipped = gzipped_zeros(1 << 30);
    let zstd = zstd::encode_all(std::io::Read::take(std::io::repeat(0), 1 << 30), 1).unwrap();
    let http = Http::new(server.ports().otlp_http);
    for (encoding, bomb) in [("gzip", zipped), ("zstd", zstd)] {
        let answer = http.post("/v1/traces", &[PROTOBUF, ("content-encoding", encoding)], bomb).await;
        assert!(matches!(answer.status, 400 | 413), "{encoding}: {} {}", answer.status, answer.text());
    }
    let grown = peak_memory_kib(&server) - before;
    assert!(grown < MEMORY_GROWTH_MAX_KIB, "{grown} KiB more");
    good_data(&server, 2).await;
}

fn gzipped_zeros(count: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..count >> 20 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.finish().unwrap()
}

#[tokio::test]
async fn absurd_times() {
    let server = Home::brisk().start().await;
    let now = SystemClock.now().0;
    let http = Http::new(server.ports().otlp_http);
    let hour = 3_600_000_000_000;
    let cases = [
        (0, 0),
        (1, 2),
        (u64::MAX - 1, u64::MAX),
        (now, now - hour),
        (now + 9_000 * hour, now + 9_000 * hour),
        (0, now),
    ];
    for (place, (start, end)) in cases.into_iter().enumerate() {
        let mut export = Request::new(100 + place as u64, SystemClock.now()).export();
        let scopes = export.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans);
        for span in scopes.flat_map(|scope| &mut scope.spans) {
            (span.start_time_unix_nano, span.end_time_unix_nano) = (start, end);
        }
        let answer = http.post("/v1/traces", &[PROTOBUF], export.encode_to_vec()).await;
        assert_eq!(answer.status, 200, "{start}..{end}: {}", answer.text());
    }
    good_data(&server, 1).await;
    let topology = server.http().get("/api/v1/topology").await;
    assert_eq!(topology.status, 200, "{}", topology.text());
}
