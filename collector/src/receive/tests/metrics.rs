//! OTLP metrics over both transports, into a store in memory.

use std::path::Path;

use object_store::memory::InMemory;
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsPartialSuccess, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
};
use windrose_proto::metric::{MatchOp, Matcher};
use windrose_proto::tenant::TenantId;
use windrose_store::disk::SimDisk;
use windrose_store::metrics::{MetricConfig, MetricStore, ReadLimits, SeriesSlice};
use windrose_store::sealed::WriterName;

use super::*;
use crate::in_force::InForce;
use crate::metrics_map::TargetIdentity;
use crate::receive::{MetricProtocol, MetricReceiver, PushedToEdges, SampleReject, ScrapedProxies};

#[derive(Debug)]
struct NothingScraped;

impl ScrapedProxies for NothingScraped {
    fn scrapes(&self, _: &TenantId, _: &TargetIdentity) -> bool {
        false
    }
}

/// The ports of OTLP with a store behind them.
struct MetricApp {
    receiver: Arc<MetricReceiver<Recorder>>,
    store: MetricStore,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl MetricApp {
    async fn start(options: ReceiveOptions, config: MetricConfig) -> Self {
        let clock = Arc::new(ManualClock::new(NOW));
        let (disk, tables) = (Arc::new(SimDisk::new(1)), Arc::new(InMemory::new()));
        let writer = WriterName::new("test").unwrap();
        let opening = MetricStore::open(disk, Path::new("/metrics"), config, Arc::clone(&clock) as _, tables, writer);
        let store = opening.await.unwrap().0;
        let base = Receiver::new(Arc::new(Recorder::default()), clock, options);
        let edges = PushedToEdges::new(NOW, InForce::default(), Arc::new(NothingScraped));
        let receiver = MetricReceiver::new(Arc::clone(&base), store.clone(), edges);
        let grpc = serve(base.grpc_router().merge(receiver.otlp_grpc_router())).await;
        let http = serve(base.otlp_http_router().merge(receiver.otlp_http_router())).await;
        Self { receiver, store, grpc, http }
    }

    async fn client(&self) -> MetricsServiceClient<Channel> {
        let channel = Channel::from_shared(format!("http://{}", self.grpc)).unwrap().connect().await.unwrap();
        MetricsServiceClient::new(channel)
    }

    /// Every sample of a tenant, as `labels seconds=value …` lines.
    async fn stored(&self, tenant: &str) -> Vec<String> {
        let reader = self.store.reader(&TenantId::new(tenant).unwrap());
        let all = [Matcher::new(MatchOp::Regex, "__name__", ".+").unwrap()];
        let mut selected = reader.select(&all, i64::MIN, i64::MAX, ReadLimits::default()).await.unwrap();
        let mut lines = Vec::new();
        while let Some(SeriesSlice { labels, timestamps, values }) = selected.next().unwrap() {
            let samples = timestamps.iter().zip(values).map(|(time, value)| format!(" {}={value}", time / 1000));
            lines.push(format!("{labels}{}", samples.collect::<String>()));
        }
        lines
    }

    fn rejected(&self, protocol: MetricProtocol) -> Vec<(&'static str, u64)> {
        let stats = self.receiver.stats().protocol(protocol);
        let counts = SampleReject::ALL.iter().map(|reason| (reason.as_str(), stats.rejected_samples(*reason)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

async fn start() -> MetricApp {
    MetricApp::start(ReceiveOptions::default(), MetricConfig::default()).await
}

fn point(secs: u64, value: i64) -> NumberDataPoint {
    let value = Some(number_data_point::Value::AsInt(value));
    NumberDataPoint { time_unix_nano: secs * 1_000_000_000, value, ..NumberDataPoint::default() }
}

fn request(metrics: Vec<(&str, metric::Data)>) -> ExportMetricsServiceRequest {
    let metric =
        |(name, data): (&str, metric::Data)| Metric { name: name.to_owned(), data: Some(data), ..Metric::default() };
    let metrics = metrics.into_iter().map(metric).collect();
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }],
    }
}

fn gauge(secs: u64, value: i64) -> ExportMetricsServiceRequest {
    request(vec![("load", metric::Data::Gauge(Gauge { data_points: vec![point(secs, value)] }))])
}

fn sum(aggregation_temporality: i32, value: i64) -> metric::Data {
    metric::Data::Sum(Sum { data_points: vec![point(50, value)], aggregation_temporality, is_monotonic: true })
}

#[tokio::test]
async fn metrics_are_stored_by_both_transports_in_every_coding() {
    let app = start().await;
    for (secs, coding) in [(1, None), (2, Some(CompressionEncoding::Gzip)), (3, Some(CompressionEncoding::Zstd))] {
        let mut client = app.client().await;
        if let Some(coding) = coding {
            client = client.send_compressed(coding).accept_compressed(coding);
        }
        let answer = client.export(gauge(secs, 7)).await.unwrap().into_inner();
        assert_eq!(answer, ExportMetricsServiceResponse::default());
    }
    let protobuf = |secs| gauge(secs, 8).encode_to_vec();
    let json = |secs| serde_json::to_vec(&gauge(secs, 9)).unwrap();
    for (headers, body) in [
        (vec![PROTOBUF], whole(protobuf(4))),
        (vec![PROTOBUF], chunked(&protobuf(5), 7)),
        (vec![PROTOBUF, ("content-encoding", "deflate")], whole(zlib(&protobuf(6)))),
        (vec![JSON], whole(json(7))),
        (vec![JSON, ("content-encoding", "gzip")], chunked(&gzip(&json(8)), 11)),
    ] {
        let answer = send("POST", app.http, "/v1/metrics", &headers, body).await;
        let expect = if headers[0] == JSON { "{}" } else { "" };
        assert_eq!((answer.status.as_u16(), answer.text()), (200, expect));
        assert_eq!(answer.headers["content-type"], headers[0].1);
    }
    assert_eq!(app.stored("default").await, [r#"{__name__="load"} 1=7 2=7 3=7 4=8 5=8 6=8 7=9 8=9"#]);
    let stats = app.receiver.stats();
    let (grpc, http) = (stats.protocol(MetricProtocol::OtlpGrpc), stats.protocol(MetricProtocol::OtlpHttp));
    assert_eq!((grpc.requests.count(), grpc.samples(), http.requests.count(), http.samples()), (3, 3, 5, 5));
    assert!(grpc.requests.body_bytes() > 0 && http.requests.body_bytes() > 0);
    assert_eq!(app.receiver.base.admission.free_bytes(), ReceiveOptions::default().in_flight_max_bytes);
}

#[tokio::test]
async fn what_is_not_stored_is_told_and_counted() {
    let app = start().await;
    let mixed = || {
        request(vec![
            ("good", sum(2, 5)),
            ("delta", sum(1, 5)),
            ("late", metric::Data::Gauge(Gauge { data_points: vec![point(NOW.as_secs_f64() as u64 + 3600, 1)] })),
        ])
    };
    let answer = app.client().await.export(mixed()).await.unwrap().into_inner();
    let ExportMetricsPartialSuccess { rejected_data_points, error_message } = answer.partial_success.unwrap();
    assert_eq!(rejected_data_points, 2);
    let told = "2 samples not stored (1 too_new, 1 delta_temporality), the first: delta temporality is not stored, send totals";
    assert!(error_message.starts_with(told), "{error_message}");

    // The same time and another value.
    let changed = request(vec![("good", sum(2, 6))]);
    let answer = send("POST", app.http, "/v1/metrics", &[JSON], whole(serde_json::to_vec(&changed).unwrap())).await;
    assert_eq!(answer.status, StatusCode::OK);
    let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(answer["partialSuccess"]["rejectedDataPoints"], "1");
    assert!(answer["partialSuccess"]["errorMessage"].as_str().unwrap().contains("1 conflict"), "{answer}");

    assert_eq!(app.stored("default").await, [r#"{__name__="good_total"} 50=5"#]);
    assert_eq!(app.rejected(MetricProtocol::OtlpGrpc), [("too_new", 1), ("delta_temporality", 1)]);
    assert_eq!(app.rejected(MetricProtocol::OtlpHttp), [("conflict", 1)]);
}

#[tokio::test]
async fn limits_of_the_store_hold() {
    let config = MetricConfig { max_series: 1, ..MetricConfig::default() };
    let app = MetricApp::start(ReceiveOptions::default(), config).await;
    let answer = app.client().await.export(request(vec![("a", sum(2, 1)), ("b", sum(2, 1))])).await.unwrap();
    let partial = answer.into_inner().partial_success.unwrap();
    assert!(partial.error_message.contains("metrics.max_series"), "{}", partial.error_message);
    assert_eq!(app.rejected(MetricProtocol::OtlpGrpc), [("series_limit", 1)]);
}

#[tokio::test]
async fn metrics_have_tenants() {
    let strict = ReceiveOptions { require_tenant: true, ..ReceiveOptions::default() };
    let app = MetricApp::start(strict, MetricConfig::default()).await;
    let mut red = tonic::Request::new(gauge(1, 1));
    red.metadata_mut().insert("x-scope-orgid", "red".parse().unwrap());
    app.client().await.export(red).await.unwrap();
    let blue = ("x-scope-orgid", "blue");
    send("POST", app.http, "/v1/metrics", &[PROTOBUF, blue], whole(gauge(2, 2).encode_to_vec())).await;
    assert_eq!(app.stored("red").await, [r#"{__name__="load"} 1=1"#]);
    assert_eq!(app.stored("blue").await, [r#"{__name__="load"} 2=2"#]);
    let status = app.client().await.export(gauge(1, 1)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn requests_with_metrics_are_refused_as_those_with_spans_are() {
    let app = start().await;
    let good = gauge(1, 1).encode_to_vec();
    let bomb = gzip(&vec![0; limits::DECOMPRESSED_MAX_BYTES + 1]);
    for (method, headers, body, status, cause) in [
        ("GET", vec![PROTOBUF], whole(""), 405, "use POST"),
        ("POST", vec![], whole(good.clone()), 415, "content-type is missing"),
        ("POST", vec![PROTOBUF, ("content-encoding", "br")], whole(good.clone()), 415, "br"),
        ("POST", vec![PROTOBUF], whole(&b"<html>"[..]), 400, "not an OTLP ExportMetricsServiceRequest"),
        ("POST", vec![JSON], whole("["), 400, "not an OTLP/JSON ExportMetricsServiceRequest"),
        ("POST", vec![PROTOBUF, ("content-encoding", "gzip")], whole(bomb), 413, "inflates to more than"),
        ("POST", vec![PROTOBUF], whole(vec![0; limits::BODY_MAX_BYTES + 1]), 413, "larger than 16 MiB"),
        ("POST", vec![PROTOBUF, ("x-scope-orgid", "a/b")], whole(good.clone()), 400, "X-Scope-OrgID"),
    ] {
        let is_protobuf = headers.contains(&PROTOBUF);
        let answer = send(method, app.http, "/v1/metrics", &headers, body).await;
        assert_eq!(answer.status.as_u16(), status, "{cause}");
        let message = if is_protobuf {
            Status::decode(answer.body).unwrap().message
        } else {
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            body["message"].as_str().unwrap().to_owned()
        };
        assert!(message.contains(cause), "{message:?} should name {cause:?}");
    }
    assert_eq!(app.stored("default").await, [""; 0]);
    let stats = app.receiver.stats().protocol(MetricProtocol::OtlpHttp);
    let refused: u64 = RejectReason::ALL.iter().map(|reason| stats.requests.refused(*reason)).sum();
    assert_eq!((stats.requests.count(), refused), (8, 8));

    // Spans and logs of the same ports are still taken.
    let answer = send("POST", app.http, "/v1/traces", &[PROTOBUF], whole(good_request().encode_to_vec())).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn large_requests_with_metrics_are_stored_too() {
    let app = start().await;
    let points: Vec<NumberDataPoint> = (1..=20_000).map(|secs| point(secs, 1)).collect();
    let body = request(vec![("load", metric::Data::Gauge(Gauge { data_points: points }))]).encode_to_vec();
    assert!(body.len() > 256 << 10);
    for headers in [vec![PROTOBUF], vec![PROTOBUF, ("content-encoding", "gzip")]] {
        let sent = if headers.len() == 1 { whole(body.clone()) } else { whole(gzip(&body)) };
        let answer = send("POST", app.http, "/v1/metrics", &headers, sent).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, ""));
    }
    assert_eq!(app.stored("default").await[0].matches("=1").count(), 20_000);
}
