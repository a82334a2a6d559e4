use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar, metric,
    number_data_point, summary_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::prelude::*;
use prost::Message as _;
use windrose_proto::metric::{Labels, Metadata, is_stale_marker};
use windrose_proto::span::Resource as Shared;

use super::{OtlpForm, OtlpSink, PointRefusal, Stat, walk_otlp_metrics};
use crate::decode::remote_write::{RemoteSeries, RemoteSink};

const SECOND: u64 = 1_000_000_000;
const DELTA: i32 = 1;
const CUMULATIVE: i32 = 2;

/// Everything that was handed on, as text.
#[derive(Default)]
struct Seen(Vec<String>);

impl RemoteSink for Seen {
    fn series(&mut self, series: &RemoteSeries<'_>) {
        let labels = series.labels.as_ref().unwrap();
        assert!(labels.windows(2).all(|pair| pair[0].0 < pair[1].0), "{labels:?}");
        assert!(labels.iter().all(|(_, value)| !value.is_empty()), "{labels:?}");
        let mut line = Labels::from_pairs(labels.iter().copied()).to_string();
        for (millis, value) in &series.samples {
            let value = if is_stale_marker(*value) { "stale".to_owned() } else { value.to_string() };
            line.push_str(&format!(" {millis}={value}"));
        }
        for exemplar in &series.exemplars {
            let labels = Labels::from_pairs(exemplar.labels.iter().copied());
            line.push_str(&format!(" # {labels} {} {}", exemplar.timestamp_ms, exemplar.value));
        }
        self.0.push(line);
    }

    fn metadata(&mut self, family: &str, Metadata { kind, help, unit }: Metadata) {
        self.0.push(format!("# {family} {} {unit:?} {help:?}", kind.as_str()));
    }
}

impl OtlpSink for Seen {
    fn refuse(&mut self, reason: PointRefusal, points: u64, cause: &dyn Fn() -> String) {
        self.0.push(format!("! {points} {reason:?} {}", cause()));
    }
}

/// What is handed on as lines of a page.
#[derive(Default)]
struct Lines(Vec<String>);

impl RemoteSink for Lines {
    fn series(&mut self, _: &RemoteSeries<'_>) {}

    fn metadata(&mut self, _: &str, _: Metadata) {}
}

impl OtlpSink for Lines {
    fn refuse(&mut self, _: PointRefusal, _: u64, _: &dyn Fn() -> String) {}

    fn page_name(&self, metric: &str, is_counter: bool) -> Option<String> {
        let name = metric.strip_prefix("envoy.")?.replace('.', "_");
        Some(if is_counter { format!("{name}_counted") } else { name })
    }

    fn stat(&mut self, _: &Arc<Shared>, stat: &Stat<'_>) {
        let labels = Labels::from_pairs(stat.labels.iter().copied());
        let start = stat.start.map_or_else(|| "?".to_owned(), |start| (start.0 / SECOND).to_string());
        let delta = if stat.is_delta { " delta" } else { "" };
        self.0.push(format!("{labels} {start}..{}={}{delta}", stat.time.0 / SECOND, stat.value));
    }
}

#[track_caller]
fn check_lines(metric: Metric, expect: &[&str]) {
    let request = request(&[("service.name", "edge")], vec![metric]);
    for (form, body) in
        [(OtlpForm::Protobuf, request.encode_to_vec()), (OtlpForm::Json, serde_json::to_vec(&request).unwrap())]
    {
        let mut lines = Lines::default();
        walk_otlp_metrics(form, &body.into(), &mut lines).unwrap();
        assert_eq!(lines.0, expect, "{form:?}");
    }
}

fn walk(form: OtlpForm, body: impl Into<Bytes>) -> Result<Vec<String>, String> {
    let mut seen = Seen::default();
    walk_otlp_metrics(form, &body.into(), &mut seen).map_err(|error| error.to_string())?;
    Ok(seen.0)
}

/// Both forms say the same.
#[track_caller]
fn seen(request: &ExportMetricsServiceRequest) -> Vec<String> {
    let from_protobuf = walk(OtlpForm::Protobuf, request.encode_to_vec()).unwrap();
    let from_json = walk(OtlpForm::Json, serde_json::to_vec(request).unwrap()).unwrap();
    assert_eq!(from_protobuf, from_json);
    from_protobuf
}

#[track_caller]
fn check(resource: &[(&str, &str)], metric: Metric, expect: &[&str]) {
    assert_eq!(seen(&request(resource, vec![metric])), expect);
}

fn text(pairs: &[(&str, &str)]) -> Vec<KeyValue> {
    let value = |text: &str| Some(AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) });
    let pair =
        |(key, text): &(&str, &str)| KeyValue { key: (*key).to_owned(), value: value(text), ..KeyValue::default() };
    pairs.iter().map(pair).collect()
}

fn request(resource: &[(&str, &str)], metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let resource = Some(Resource { attributes: text(resource), ..Resource::default() });
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }],
    }
}

fn metric(name: &str, unit: &str, data: metric::Data) -> Metric {
    let description = "Some help.".to_owned();
    Metric { name: name.to_owned(), unit: unit.to_owned(), description, data: Some(data), ..Metric::default() }
}

fn number(attributes: &[(&str, &str)], secs: u64, value: number_data_point::Value) -> NumberDataPoint {
    NumberDataPoint {
        attributes: text(attributes),
        time_unix_nano: secs * SECOND,
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

fn gauge(data_points: Vec<NumberDataPoint>) -> metric::Data {
    metric::Data::Gauge(Gauge { data_points })
}

fn sum(aggregation_temporality: i32, is_monotonic: bool, data_points: Vec<NumberDataPoint>) -> metric::Data {
    metric::Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic })
}

use number_data_point::Value::{AsDouble, AsInt};

/// As Envoy's sink states them: a start in microseconds, then one in nanoseconds, then none.
#[test]
fn asked_for_points_are_lines_of_a_page() {
    let since = |start, value| NumberDataPoint {
        start_time_unix_nano: start,
        ..number(&[("cluster_name", "users")], 1_760_000_010, AsInt(value))
    };
    let points = vec![since(1_760_000_000_000_000, 3), since(1_760_000_000_000_000_000, 4), since(0, 5)];
    check_lines(
        metric("envoy.rq", "", sum(DELTA, true, points.clone())),
        &[
            r#"{__name__="rq_counted", cluster_name="users"} 1760000000..1760000010=3 delta"#,
            r#"{__name__="rq_counted", cluster_name="users"} 1760000000..1760000010=4 delta"#,
            r#"{__name__="rq_counted", cluster_name="users"} ?..1760000010=5 delta"#,
        ],
    );
    check_lines(
        metric("envoy.active", "", gauge(points[2..].to_vec())),
        &[r#"{__name__="active", cluster_name="users"} ?..1760000010=5"#],
    );
    check_lines(metric("other.rq", "", sum(CUMULATIVE, true, points)), &[]);
    let time = HistogramDataPoint {
        time_unix_nano: 10 * SECOND,
        count: 4,
        sum: Some(1.5),
        bucket_counts: vec![1, 2, 1],
        explicit_bounds: vec![0.5, 5.0],
        ..HistogramDataPoint::default()
    };
    let histogram = Histogram { data_points: vec![time], aggregation_temporality: CUMULATIVE };
    check_lines(
        metric("envoy.time", "ms", metric::Data::Histogram(histogram)),
        &[
            r#"{__name__="time_bucket", le="0.5"} ?..10=1"#,
            r#"{__name__="time_bucket", le="5"} ?..10=3"#,
            r#"{__name__="time_sum"} ?..10=1.5"#,
            r#"{__name__="time_count"} ?..10=4"#,
        ],
    );
}

#[test]
fn gauges_and_sums() {
    let point = || vec![number(&[("a.b", "x")], 5, AsDouble(0.5)), number(&[], 6, AsInt(-7))];
    check(
        &[],
        metric("pool.size", "By", gauge(point())),
        &[
            r#"# pool_size_bytes gauge "bytes" "Some help.""#,
            r#"{__name__="pool_size_bytes", a_b="x"} 5000=0.5"#,
            r#"{__name__="pool_size_bytes"} 6000=-7"#,
        ],
    );
    check(
        &[],
        metric("http.requests", "{request}", sum(CUMULATIVE, true, point())),
        &[
            r#"# http_requests_total counter "" "Some help.""#,
            r#"{__name__="http_requests_total", a_b="x"} 5000=0.5"#,
            r#"{__name__="http_requests_total"} 6000=-7"#,
        ],
    );
    check(
        &[],
        metric("open", "1", sum(CUMULATIVE, false, vec![number(&[], 6, AsInt(3))])),
        &[r#"# open gauge "" "Some help.""#, r#"{__name__="open"} 6000=3"#],
    );
}

#[test]
fn a_resource_says_whose_series_these_are() {
    let whole =
        [("service.name", "pay"), ("service.namespace", "shop"), ("service.instance.id", "i-1"), ("host.name", "h")];
    let point = |secs| number(&[], secs, AsInt(1));
    check(
        &whole,
        // Four minutes apart: the time between is too long for a query to bridge.
        metric("m", "", gauge(vec![point(240), point(480)])),
        &[
            r#"# m gauge "" "Some help.""#,
            r#"{__name__="m", instance="i-1", job="shop/pay"} 240000=1"#,
            r#"{__name__="m", instance="i-1", job="shop/pay"} 480000=1"#,
            r#"# target_info gauge "" "Target metadata""#,
            r#"{__name__="target_info", host_name="h", instance="i-1", job="shop/pay"} 330000=1 480000=1"#,
        ],
    );
    check(
        &whole[..1],
        metric("m", "", gauge(vec![point(1)])),
        &[r#"# m gauge "" "Some help.""#, r#"{__name__="m", job="pay"} 1000=1"#],
    );
}

#[test]
fn a_year_between_points_is_not_filled_with_target_info() {
    let metric = metric("m", "", gauge(vec![number(&[], 1, AsInt(1)), number(&[], 365 * 86_400, AsInt(1))]));
    let seen = seen(&request(&[("service.name", "pay"), ("host.name", "h")], vec![metric]));
    let info = seen.last().unwrap();
    assert_eq!(info.matches("=1").count(), 28_801);
    assert!(info.ends_with(" 31536000000=1"), "{}", &info[info.len() - 40..]);
}

fn histogram(point: HistogramDataPoint, aggregation_temporality: i32) -> Metric {
    let point = HistogramDataPoint { time_unix_nano: 9 * SECOND, ..point };
    let data = metric::Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality });
    metric("latency", "s", data)
}

fn exemplar(value: f64, trace_id: u8, attributes: &[(&str, &str)]) -> Exemplar {
    Exemplar {
        filtered_attributes: text(attributes),
        time_unix_nano: 8 * SECOND,
        span_id: vec![2; 8],
        trace_id: vec![trace_id; 16],
        value: Some(exemplar::Value::AsDouble(value)),
    }
}

#[test]
fn histograms() {
    let point = HistogramDataPoint {
        attributes: text(&[("le", "mine"), ("route", "/")]),
        count: 6,
        sum: Some(2.5),
        bucket_counts: vec![1, 2, 3],
        explicit_bounds: vec![0.1, 1.0],
        exemplars: vec![
            exemplar(5.0, 3, &[]),
            exemplar(0.1, 1, &[("user", "u")]),
            exemplar(0.2, 2, &[("long", &"x".repeat(100))]),
        ],
        ..HistogramDataPoint::default()
    };
    let ids = |trace: &str| format!(r#"span_id="0202020202020202", trace_id="{}""#, trace.repeat(16));
    check(
        &[],
        histogram(point.clone(), CUMULATIVE),
        &[
            r#"# latency_seconds histogram "seconds" "Some help.""#,
            &format!(
                r#"{{__name__="latency_seconds_bucket", le="0.1", route="/"}} 9000=1 # {{{}, user="u"}} 8000 0.1"#,
                ids("01")
            ),
            &format!(r#"{{__name__="latency_seconds_bucket", le="1", route="/"}} 9000=3 # {{{}}} 8000 0.2"#, ids("02")),
            &format!(
                r#"{{__name__="latency_seconds_bucket", le="+Inf", route="/"}} 9000=6 # {{{}}} 8000 5"#,
                ids("03")
            ),
            r#"{__name__="latency_seconds_sum", le="mine", route="/"} 9000=2.5"#,
            r#"{__name__="latency_seconds_count", le="mine", route="/"} 9000=6"#,
        ],
    );
    let bare = HistogramDataPoint { count: 4, ..HistogramDataPoint::default() };
    check(
        &[],
        histogram(bare.clone(), CUMULATIVE),
        &[
            r#"# latency_seconds histogram "seconds" "Some help.""#,
            r#"{__name__="latency_seconds_bucket", le="+Inf"} 9000=4"#,
            r#"{__name__="latency_seconds_count"} 9000=4"#,
        ],
    );
    for (bounds, counts, cause) in [
        (vec![1.0, 2.0], vec![1, 2], "do not fit"),
        (vec![2.0, 1.0], vec![1, 2, 3], "do not rise"),
        (vec![1.0, 1.0], vec![1, 2, 3], "do not rise"),
        (vec![f64::NAN], vec![1, 2], "do not rise"),
        (vec![f64::INFINITY], vec![1, 2], "do not rise"),
        ((0..1025).map(f64::from).collect(), vec![0; 1026], "more than 1024"),
    ] {
        let point = HistogramDataPoint { explicit_bounds: bounds, bucket_counts: counts, ..bare.clone() };
        // JSON has no word for what is not a number that every writer agrees on.
        let body = request(&[], vec![histogram(point, CUMULATIVE)]).encode_to_vec();
        let seen = walk(OtlpForm::Protobuf, body).unwrap();
        let [_, refusal] = &seen[..] else { panic!("{seen:?}") };
        assert!(refusal.starts_with("! 1 Unreadable ") && refusal.contains(cause), "{refusal}");
    }
}

#[test]
fn summaries() {
    let quantile = |quantile, value| summary_data_point::ValueAtQuantile { quantile, value };
    let point = SummaryDataPoint {
        time_unix_nano: SECOND,
        count: 10,
        sum: 1.5,
        quantile_values: vec![quantile(0.5, 0.1), quantile(1.0, 0.9)],
        ..SummaryDataPoint::default()
    };
    check(
        &[],
        metric("wait", "ms", metric::Data::Summary(Summary { data_points: vec![point] })),
        &[
            r#"# wait_milliseconds summary "milliseconds" "Some help.""#,
            r#"{__name__="wait_milliseconds", quantile="0.5"} 1000=0.1"#,
            r#"{__name__="wait_milliseconds", quantile="1"} 1000=0.9"#,
            r#"{__name__="wait_milliseconds_sum"} 1000=1.5"#,
            r#"{__name__="wait_milliseconds_count"} 1000=10"#,
        ],
    );
}

#[test]
fn a_series_can_end() {
    let ended = NumberDataPoint { flags: 1, value: None, ..number(&[], 5, AsInt(0)) };
    check(&[], metric("m", "", gauge(vec![ended])), &[r#"# m gauge "" "Some help.""#, r#"{__name__="m"} 5000=stale"#]);
    let point = HistogramDataPoint {
        flags: 1,
        bucket_counts: vec![0, 0],
        explicit_bounds: vec![1.0],
        exemplars: vec![exemplar(1.0, 1, &[])],
        ..HistogramDataPoint::default()
    };
    check(
        &[],
        histogram(point, CUMULATIVE),
        &[
            r#"# latency_seconds histogram "seconds" "Some help.""#,
            r#"{__name__="latency_seconds_bucket", le="1"} 9000=stale"#,
            r#"{__name__="latency_seconds_bucket", le="+Inf"} 9000=stale"#,
            r#"{__name__="latency_seconds_count"} 9000=stale"#,
        ],
    );
}

#[test]
fn what_is_refused_says_what_to_do() {
    let points = || vec![number(&[], 1, AsInt(1)), number(&[], 2, AsInt(1))];
    let exponential = ExponentialHistogram {
        data_points: vec![ExponentialHistogramDataPoint::default(); 3],
        aggregation_temporality: CUMULATIVE,
    };
    for (metric, refusal, advice) in [
        (metric("m", "", sum(DELTA, true, points())), "! 2 Delta", "TEMPORALITY_PREFERENCE=cumulative"),
        (histogram(HistogramDataPoint::default(), DELTA), "! 1 Delta", "report_histograms_as_deltas"),
        (metric("m", "", sum(0, true, points())), "! 2 Unreadable", "temporality"),
        (metric("m", "", metric::Data::ExponentialHistogram(exponential)), "! 3 Exponential", "explicit_bucket"),
        (metric("::..", "", gauge(vec![])), "", ""),
        (metric("..", "", gauge(points())), "! 2 BadLabels", "without a letter"),
    ] {
        let seen = seen(&request(&[], vec![metric]));
        let told = seen.first().map_or("", String::as_str);
        assert!(seen.len() < 2 && told.starts_with(refusal) && told.contains(advice), "{seen:?}");
    }
    for (point, refusal) in [
        (number(&[], 0, AsInt(1)), "! 1 NoTime"),
        (NumberDataPoint { value: None, ..number(&[], 1, AsInt(1)) }, "! 1 Unreadable"),
        (number(&[("", "x")], 1, AsInt(1)), "! 1 BadLabels"),
        (number(&vec![("k", "v"); 1025], 1, AsInt(1)), "! 1 BadLabels"),
    ] {
        // Its neighbour is taken.
        let seen = seen(&request(&[], vec![metric("m", "", gauge(vec![point, number(&[], 2, AsInt(1))]))]));
        assert!(seen[1].starts_with(refusal) && seen[2].starts_with("{__name__=\"m\"}"), "{seen:?}");
    }
}

/// Envoy's sink: one point per metric, names repeated, the start in microseconds, no word on who it is.
#[test]
fn what_envoy_sends() {
    let point = |cluster, value| NumberDataPoint {
        start_time_unix_nano: 1_795_191_691_703_535,
        ..number(&[("envoy.cluster_name", cluster)], 1_795_191_700, AsInt(value))
    };
    let metric = |cluster, value| Metric {
        description: String::new(),
        ..metric("envoy.cluster.upstream_rq_total", "", sum(CUMULATIVE, true, vec![point(cluster, value)]))
    };
    let request = request(
        &[("telemetry.sdk.name", "envoy")],
        vec![metric("outbound|8080||users", 5), metric("outbound|8080||orders", 7)],
    );
    let name = r#"{__name__="envoy_cluster_upstream_rq_total", envoy_cluster_name="outbound|8080||"#;
    assert_eq!(
        seen(&request),
        [
            r#"# envoy_cluster_upstream_rq_total counter "" """#.to_owned(),
            format!(r#"{name}users"}} 1795191700000=5"#),
            r#"# envoy_cluster_upstream_rq_total counter "" """#.to_owned(),
            format!(r#"{name}orders"}} 1795191700000=7"#),
        ]
    );
}

#[test]
fn json_as_senders_write_it() {
    let body = r#"{"resource_metrics":[{"scopeMetrics":[{"metrics":[
        {"sum":{"dataPoints":[{"timeUnixNano":2000000000,"asInt":"12","attributes":{"a":1}},{"asInt":{},"timeUnixNano":1},
                              {"time_unix_nano":"3e9","asDouble":"NaN","asInt":null}],
                "aggregationTemporality":"AGGREGATION_TEMPORALITY_CUMULATIVE","isMonotonic":true},
         "gauge":null,"name":"late.name","unknown":[1]},
        {"name":"h","histogram":{"aggregationTemporality":2,"dataPoints":[{"timeUnixNano":"1000000","count":"3","sum":1,
         "bucketCounts":["1",2],"explicitBounds":["0.5"]}]}}]}],"resource":{"attributes":null}}]}"#;
    let seen = walk(OtlpForm::Json, body).unwrap();
    let expect = [
        r#"# late_name_total counter "" """#,
        r#"{__name__="late_name_total", a="1"} 2000=12"#,
        r#"{__name__="late_name_total"} 3000=NaN"#,
        r#"# h histogram "" """#,
        r#"{__name__="h_bucket", le="0.5"} 1=1"#,
        r#"{__name__="h_bucket", le="+Inf"} 1=3"#,
        r#"{__name__="h_sum"} 1=1"#,
        r#"{__name__="h_count"} 1=3"#,
    ];
    let (told, rest) = seen.split_first().unwrap();
    assert!(told.starts_with("! 1 Unreadable unreadable: a number expected at byte "), "{told}");
    assert_eq!(rest, &expect);
    for broken in ["", "[", "{\"resourceMetrics\":[{\"scopeMetrics\":5}]}", "{}x"] {
        assert!(walk(OtlpForm::Json, broken).unwrap_err().starts_with("not an OTLP/JSON ExportMetricsServiceRequest"));
    }
}

#[test]
fn a_malformed_point_costs_no_other() {
    let mut bad = number(&[], 1, AsInt(1)).encode_to_vec();
    bad.extend([0x3a, 0x05, 0x0a]);
    let good = number(&[], 2, AsInt(2)).encode_to_vec();
    let field =
        |number: u8, message: &[u8]| [&[number << 3 | 2, u8::try_from(message.len()).unwrap()], message].concat();
    let points = [field(1, &bad), field(1, &good)].concat();
    let metric = [field(1, b"m"), field(5, &points)].concat();
    let request = field(1, &field(2, &field(2, &metric)));
    let seen = walk(OtlpForm::Protobuf, request.clone()).unwrap();
    assert_eq!(seen.len(), 3);
    assert!(seen[0].starts_with("! 1 Unreadable truncated"), "{seen:?}");
    assert_eq!(seen[2], r#"{__name__="m"} 2000=2"#);
    let cut = walk(OtlpForm::Protobuf, request[..request.len() - 1].to_vec()).unwrap_err();
    assert!(cut.starts_with("not an OTLP ExportMetricsServiceRequest in protobuf: truncated"), "{cut}");
}

#[test]
fn counts_come_packed_and_one_by_one() {
    let mut packed = HistogramDataPoint { bucket_counts: vec![1, 2], explicit_bounds: vec![0.5], ..Default::default() };
    packed.time_unix_nano = SECOND;
    packed.count = 3;
    let message = packed.encode_to_vec();
    let mut loose = HistogramDataPoint { time_unix_nano: SECOND, count: 3, ..Default::default() }.encode_to_vec();
    for count in [1_u64, 2] {
        loose.push(6 << 3 | 1);
        loose.extend(count.to_le_bytes());
    }
    loose.push(7 << 3 | 1);
    loose.extend(0.5_f64.to_le_bytes());
    let body = |point: &[u8]| {
        let field =
            |number: u8, message: &[u8]| [&[number << 3 | 2, u8::try_from(message.len()).unwrap()], message].concat();
        let histogram = [field(1, point), vec![0x10, 2]].concat();
        field(1, &field(2, &field(2, &[field(1, b"h"), field(9, &histogram)].concat())))
    };
    let seen = walk(OtlpForm::Protobuf, body(&loose)).unwrap();
    assert_eq!(seen, walk(OtlpForm::Protobuf, body(&message)).unwrap());
    assert_eq!(seen.len(), 4);
}

/// A point as it is drawn: attributes, seconds, value, flags, counts of buckets.
type Drawn = (Vec<(String, String)>, u64, i64, u32, Vec<u64>);

fn arbitrary_metric() -> impl Strategy<Value = Metric> {
    let attributes = prop::collection::vec(("[a-c._]{0,3}", "[x-z]{0,2}"), 0..3);
    let point = (attributes, 0_u64..4, -3_i64..3, 0_u32..2, prop::collection::vec(0_u64..9, 0..4));
    let points = prop::collection::vec(point, 0..4);
    ("[a-z.]{0,4}", "[s1%/By{}]{0,3}", 0..5, 0_i32..3, any::<bool>(), points).prop_map(
        |(name, unit, shape, temporality, is_monotonic, points)| {
            let owned = |pairs: &[(String, String)]| {
                text(&pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Vec<_>>())
            };
            let numbers = || {
                let number = |(attributes, secs, value, flags, _): &Drawn| NumberDataPoint {
                    attributes: owned(attributes),
                    flags: *flags,
                    ..number(&[], *secs, AsInt(*value))
                };
                points.iter().map(number).collect::<Vec<_>>()
            };
            let data = match shape {
                0 => gauge(numbers()),
                1 => sum(temporality, is_monotonic, numbers()),
                2 => {
                    let histogram = |(attributes, secs, _, flags, counts): &Drawn| HistogramDataPoint {
                        attributes: owned(attributes),
                        time_unix_nano: *secs * SECOND,
                        flags: *flags,
                        count: counts.iter().sum(),
                        explicit_bounds: (1..counts.len()).map(|bound| bound as f64).collect(),
                        bucket_counts: counts.clone(),
                        ..HistogramDataPoint::default()
                    };
                    let data_points = points.iter().map(histogram).collect();
                    metric::Data::Histogram(Histogram { data_points, aggregation_temporality: temporality })
                }
                _ => {
                    let summary = |(attributes, secs, ..): &Drawn| {
                        let attributes = owned(attributes);
                        SummaryDataPoint { attributes, time_unix_nano: *secs * SECOND, ..SummaryDataPoint::default() }
                    };
                    metric::Data::Summary(Summary { data_points: points.iter().map(summary).collect() })
                }
            };
            metric(&name, &unit, data)
        },
    )
}

proptest! {
    /// Protobuf and JSON are one request, and what is handed on is well-formed ([`Seen`] looks).
    #[test]
    fn both_forms_agree(metrics in prop::collection::vec(arbitrary_metric(), 0..4), named in any::<bool>()) {
        let resource: &[(&str, &str)] = if named { &[("service.name", "s"), ("x", "y")] } else { &[] };
        seen(&request(resource, metrics));
    }

    #[test]
    fn damaged_requests_never_panic(
        metrics in prop::collection::vec(arbitrary_metric(), 1..3),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let request = request(&[("service.name", "s"), ("x", "y")], metrics);
        for (form, mut body) in [
            (OtlpForm::Protobuf, request.encode_to_vec()),
            (OtlpForm::Json, serde_json::to_vec(&request).unwrap()),
        ] {
            let at = at.index(body.len());
            body[at] = byte;
            drop(walk(form, body));
        }
    }
}
