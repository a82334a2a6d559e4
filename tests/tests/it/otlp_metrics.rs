//! OTLP metrics pushed to a real server over gRPC and HTTP, and read back with PromQL.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, exemplar, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use serde_json::{Value, json};
use windrose_proto::time::{Clock as _, SystemClock, UnixNanos};
use windrose_tests::client::Http;
use windrose_tests::replay::channel;
use windrose_tests::server::Home;

const CUMULATIVE: i32 = 2;

fn text(pairs: &[(&str, &str)]) -> Vec<KeyValue> {
    let value = |text: &str| Some(AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) });
    let pair =
        |(key, text): &(&str, &str)| KeyValue { key: (*key).to_owned(), value: value(text), ..KeyValue::default() };
    pairs.iter().map(pair).collect()
}

/// A counter and a histogram of a service, and a histogram that is not stored.
fn request(at: UnixNanos, calls: i64) -> ExportMetricsServiceRequest {
    let exemplar = Exemplar {
        time_unix_nano: at.0,
        trace_id: vec![0xab; 16],
        span_id: vec![0xcd; 8],
        value: Some(exemplar::Value::AsDouble(0.3)),
        ..Exemplar::default()
    };
    let counter = Sum {
        data_points: vec![NumberDataPoint {
            attributes: text(&[("http.route", "/pay")]),
            time_unix_nano: at.0,
            value: Some(number_data_point::Value::AsInt(calls)),
            ..NumberDataPoint::default()
        }],
        aggregation_temporality: CUMULATIVE,
        is_monotonic: true,
    };
    let histogram = Histogram {
        data_points: vec![HistogramDataPoint {
            time_unix_nano: at.0,
            count: 4,
            sum: Some(1.5),
            bucket_counts: vec![1, 2, 1],
            explicit_bounds: vec![0.1, 0.5],
            exemplars: vec![exemplar],
            ..HistogramDataPoint::default()
        }],
        aggregation_temporality: CUMULATIVE,
    };
    let exponential = ExponentialHistogram {
        data_points: vec![ExponentialHistogramDataPoint { time_unix_nano: at.0, ..Default::default() }],
        aggregation_temporality: CUMULATIVE,
    };
    let metric = |name: &str, unit: &str, data| Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        description: "What it is.".to_owned(),
        data: Some(data),
        ..Metric::default()
    };
    let metrics = vec![
        metric("http.server.requests", "{request}", metric::Data::Sum(counter)),
        metric("http.server.duration", "s", metric::Data::Histogram(histogram)),
        metric("http.server.size", "By", metric::Data::ExponentialHistogram(exponential)),
    ];
    let attributes = text(&[
        ("service.name", "pay"),
        ("service.namespace", "shop"),
        ("service.instance.id", "pay-1"),
        ("host.name", "node-7"),
    ]);
    let resource = Some(Resource { attributes, ..Resource::default() });
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }],
    }
}

fn seconds(at: UnixNanos) -> String {
    format!("{}.{:03}", at.as_millis() / 1000, at.as_millis() % 1000)
}

/// What a query finds at one instant: labels and value.
async fn query(http: &Http, expr: &str, at: UnixNanos) -> Vec<(Value, String)> {
    let expr = expr.replace('{', "%7B").replace('}', "%7D").replace('"', "%22").replace(' ', "%20");
    let data = http.data(&format!("/api/v1/query?query={expr}&time={}", seconds(at))).await;
    let result = data["result"].as_array().unwrap().iter();
    result.map(|series| (series["metric"].clone(), series["value"][1].as_str().unwrap().to_owned())).collect()
}

#[tokio::test]
async fn pushed_metrics_answer_queries_and_outlive_a_crash() {
    let home = Home::brisk();
    let server = home.start().await;
    let at = SystemClock.now();
    let before = at.minus(Duration::from_secs(60));

    let mut grpc = MetricsServiceClient::new(channel(server.ports().otlp_grpc));
    let answer = grpc.export(request(before, 10)).await.unwrap().into_inner();
    let partial = answer.partial_success.unwrap();
    assert_eq!(partial.rejected_data_points, 1);
    assert!(partial.error_message.contains("1 native_histogram"), "{}", partial.error_message);

    let http = Http::new(server.ports().otlp_http);
    let body = serde_json::to_vec(&request(at, 25)).unwrap();
    let answer = http.post("/v1/metrics", &[("content-type", "application/json")], body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["partialSuccess"]["rejectedDataPoints"], "1");

    for (series, expect) in [
        ("windrose_metric_receive_samples_total{protocol=\"otlp_grpc\"}", 7.0),
        ("windrose_metric_receive_samples_total{protocol=\"otlp_http\"}", 7.0),
        ("windrose_metric_receive_requests_total{protocol=\"otlp_grpc\"}", 1.0),
        ("windrose_metric_receive_rejected_samples_total{protocol=\"otlp_grpc\",reason=\"native_histogram\"}", 1.0),
    ] {
        assert_eq!(server.metric(series).await, expect, "{series}");
    }
    check_answers(&server.http(), before, at).await;

    // What was acknowledged is in the log.
    server.kill().await;
    let server = home.start().await;
    check_answers(&server.http(), before, at).await;
}

async fn check_answers(api: &Http, before: UnixNanos, at: UnixNanos) {
    let whose = |more: Value| {
        let mut labels = json!({"job": "shop/pay", "instance": "pay-1"});
        labels.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        labels
    };
    let counter = whose(json!({"__name__": "http_server_requests_total", "http_route": "/pay"}));
    assert_eq!(query(api, "http_server_requests_total", before).await, [(counter.clone(), "10".to_owned())]);
    assert_eq!(query(api, "http_server_requests_total", at).await, [(counter, "25".to_owned())]);
    let median = query(api, "histogram_quantile(0.5, http_server_duration_seconds_bucket)", at).await;
    assert_eq!(median, [(whose(json!({})), "0.30000000000000004".to_owned())]);
    let info = query(api, "target_info{job=\"shop/pay\"}", at).await;
    assert_eq!(info, [(whose(json!({"__name__": "target_info", "host_name": "node-7"})), "1".to_owned())]);

    let metadata = api.data("/api/v1/metadata?metric=http_server_duration_seconds").await;
    let expect = json!([{"type": "histogram", "unit": "seconds", "help": "What it is."}]);
    assert_eq!(metadata["http_server_duration_seconds"], expect);

    let (start, end) = (seconds(before.minus(Duration::from_secs(1))), seconds(at));
    let path = format!("/api/v1/query_exemplars?query=http_server_duration_seconds_bucket&start={start}&end={end}");
    let exemplars = api.data(&path).await;
    assert_eq!(exemplars[0]["seriesLabels"]["le"], "0.5", "{exemplars}");
    let labels = json!({"trace_id": "ab".repeat(16), "span_id": "cd".repeat(8)});
    assert_eq!(exemplars[0]["exemplars"][0]["labels"], labels, "{exemplars}");
}

/// A sender that tells differences is told what to change, and what it sent is counted.
#[tokio::test]
async fn differences_are_refused_with_the_remedy() {
    let server = Home::brisk().start().await;
    let body = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "calls", "sum": {
        "aggregationTemporality": 1, "isMonotonic": true,
        "dataPoints": [{"timeUnixNano": SystemClock.now().0.to_string(), "asInt": "5"}],
    }}]}]}]});
    let http = Http::new(server.ports().otlp_http);
    let answer = http.post("/v1/metrics", &[("content-type", "application/json")], body.to_string()).await;
    assert_eq!(answer.status, 200);
    let message = answer.json()["partialSuccess"]["errorMessage"].as_str().unwrap().to_owned();
    assert!(message.contains("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=cumulative"), "{message}");
    let series = "windrose_metric_receive_rejected_samples_total{protocol=\"otlp_http\",reason=\"delta_temporality\"}";
    assert_eq!(server.metric(series).await, 1.0);
}
