//! Spans per second of decoding, against `prost`, on bodies like those Envoy sends: 512 spans of
//! 1.1 KB with 21 attributes, one resource of 10 attributes.
//!
//! Run with `cargo bench -p windrose-collector --bench decode`. Under `cargo test` it runs once over
//! a small body and only checks that everything decodes. Contenders take turns and the best round
//! of each counts, because a busy machine only ever makes things slower.

use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use windrose_collector::decode::{BodyFormat, ContentEncoding, Origin, decode};
use windrose_proto::model::IngestProtocol;
use windrose_proto::otlp;
use windrose_proto::time::UnixNanos;

const ORIGIN: Origin = Origin { ingest: IngestProtocol::OtlpGrpc, arrived: UnixNanos(1_760_000_000_000_000_000) };

/// A small generator of numbers that look random and are the same on every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 11
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.into())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn resource(service: &str) -> Resource {
    let pod = format!("{service}-5d9f7d9f-abcde");
    let attributes = vec![
        text("service.name", format!("{service}.shop")),
        text("k8s.namespace.name", "shop"),
        text("k8s.pod.name", pod.as_str()),
        text("k8s.node.name", "ip-10-0-1-17.ec2.internal"),
        text("k8s.cluster.name", "prod-eu-1"),
        text("telemetry.sdk.language", "cpp"),
        text("telemetry.sdk.name", "envoy"),
        text("telemetry.sdk.version", "e1e6d5aeb3a5/1.32.1/Clean/RELEASE/BoringSSL"),
        text("host.name", pod.as_str()),
        text("service.instance.id", pod.as_str()),
    ];
    Resource { attributes, ..Resource::default() }
}

fn span(numbers: &mut Numbers, service: &str) -> Span {
    let cluster = format!("outbound|8080||{service}.shop.svc.cluster.local");
    let start = 1_759_000_000_000_000_000 + numbers.below(1 << 40);
    let id = |numbers: &mut Numbers, len: usize| (0..len).map(|_| numbers.next() as u8).collect::<Vec<u8>>();
    let request_id = format!("{:08x}-aaaa-4bbb-8ccc-{:012x}", numbers.below(1 << 32), numbers.below(1 << 48));
    let url = format!("http://{service}.shop.svc.cluster.local:8080/api/v1/orders/get/{}", numbers.below(100_000_000));
    Span {
        trace_id: id(numbers, 16),
        span_id: id(numbers, 8),
        parent_span_id: id(numbers, 8),
        name: format!("{service}.shop.svc.cluster.local:8080/*"),
        kind: 3,
        start_time_unix_nano: start,
        end_time_unix_nano: start + numbers.below(1 << 28),
        flags: 257,
        attributes: vec![
            text("node_id", format!("sidecar~10.4.2.17~{service}-5d9f7d9f-abcde.shop~shop.svc.cluster.local")),
            text("zone", "eu-central-1a"),
            text("guid:x-request-id", request_id),
            text("http.url", url),
            text("http.method", "GET"),
            text("downstream_cluster", "-"),
            text("user_agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/101.0.0.0 Safari/537.36"),
            text("http.protocol", "HTTP/1.1"),
            text("peer.address", "10.17.4.99"),
            text("request_size", numbers.below(800).to_string()),
            text("response_size", numbers.below(20_000).to_string()),
            text("component", "proxy"),
            text("upstream_cluster", cluster.as_str()),
            text("upstream_cluster.name", cluster.as_str()),
            text("http.status_code", "200"),
            text("response_flags", "-"),
            text("istio.mesh_id", "cluster.local"),
            text("istio.canonical_service", service),
            text("istio.canonical_revision", "v1"),
            text("istio.cluster_id", "Kubernetes"),
            text("istio.namespace", "shop"),
        ],
        ..Span::default()
    }
}

fn request(spans: usize) -> ExportTraceServiceRequest {
    let mut numbers = Numbers(7);
    let scope = InstrumentationScope { name: "envoy".into(), version: "1.32.1".into(), ..Default::default() };
    let spans = (0..spans).map(|_| span(&mut numbers, "svc-orders-7")).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let resource = Some(resource("svc-orders-7"));
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }],
    }
}

fn gzip(content: &[u8]) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("memory");
    Bytes::from(encoder.finish().expect("memory"))
}

/// One thing that is measured: returns the spans it handled.
struct Contender {
    name: &'static str,
    bytes: usize,
    run: Box<dyn Fn() -> usize>,
    best: Duration,
}

impl Contender {
    fn new(name: &'static str, bytes: usize, run: impl Fn() -> usize + 'static) -> Self {
        Self { name, bytes, run: Box::new(run), best: Duration::MAX }
    }

    fn decoding(name: &'static str, format: BodyFormat, encoding: ContentEncoding, body: &Bytes) -> Self {
        let body = body.clone();
        Self::new(name, body.len(), move || {
            black_box(decode(format, encoding, black_box(&body), ORIGIN)).map_or(0, |decoded| decoded.spans.len())
        })
    }
}

fn contenders(spans: usize) -> Vec<Contender> {
    let body = Bytes::from(request(spans).encode_to_vec());
    let decoded = decode(BodyFormat::OtlpProtobuf, ContentEncoding::Identity, &body, ORIGIN).expect("well-formed");
    let json = Bytes::from(otlp::to_json(&decoded.spans));
    let zipped = gzip(&body);
    let zstd = Bytes::from(zstd::encode_all(&body[..], 1).expect("memory"));
    let for_prost = body.clone();
    let (for_json, for_protobuf) = (decoded.spans.clone(), decoded.spans);
    let count = spans;
    vec![
        Contender::new("prost, all fields", body.len(), move || {
            let request = ExportTraceServiceRequest::decode(black_box(for_prost.clone())).expect("well-formed");
            black_box(&request).resource_spans[0].scope_spans[0].spans.len()
        }),
        Contender::decoding("protobuf", BodyFormat::OtlpProtobuf, ContentEncoding::Identity, &body),
        Contender::decoding("protobuf, gzip", BodyFormat::OtlpProtobuf, ContentEncoding::Gzip, &zipped),
        Contender::decoding("protobuf, zstd", BodyFormat::OtlpProtobuf, ContentEncoding::Zstd, &zstd),
        Contender::decoding("json", BodyFormat::OtlpJson, ContentEncoding::Identity, &json),
        Contender::new("write protobuf", body.len(), move || {
            black_box(otlp::to_protobuf(&for_protobuf));
            count
        }),
        Contender::new("write json", json.len(), move || {
            black_box(otlp::to_json(&for_json));
            count
        }),
    ]
}

#[expect(clippy::print_stdout, reason = "a bench prints its result")]
fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (spans, rounds, repeats) = if is_bench { (512, 15, 40) } else { (5, 1, 1) };
    let mut contenders = contenders(spans);
    for _ in 0..rounds {
        for contender in &mut contenders {
            let started = Instant::now();
            for _ in 0..repeats {
                assert_eq!((contender.run)(), spans, "{} lost spans", contender.name);
            }
            contender.best = contender.best.min(started.elapsed() / repeats);
        }
    }
    println!("{:<20} {:>12} {:>10} {:>10}", "", "spans/s", "ns/span", "MB/s");
    for contender in &contenders {
        let secs = contender.best.as_secs_f64();
        println!(
            "{:<20} {:>12.0} {:>10.0} {:>10.0}",
            contender.name,
            spans as f64 / secs,
            secs * 1e9 / spans as f64,
            contender.bytes as f64 / secs / 1e6
        );
    }
}
