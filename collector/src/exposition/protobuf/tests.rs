//! Messages are written by `prost` from definitions of their own here, texts by hand.

use proptest::prelude::*;
use prost::Message;

use super::{ProtobufError, TextPage, to_text};
use crate::exposition::{Dialect, Entry, Parser, Sample};

/// More than any page here.
const MAX_BYTES: usize = 1 << 20;

#[derive(Clone, PartialEq, Message)]
struct MetricFamily {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    help: String,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
    #[prost(string, tag = "5")]
    unit: String,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Single>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Counter>,
    #[prost(message, optional, tag = "4")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "5")]
    untyped: Option<Single>,
    #[prost(int64, optional, tag = "6")]
    timestamp_ms: Option<i64>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelPair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Single {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct Counter {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
    #[prost(message, optional, tag = "2")]
    exemplar: Option<Exemplar>,
    #[prost(message, optional, tag = "3")]
    created: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "2")]
    sum: f64,
    #[prost(message, repeated, tag = "3")]
    quantile: Vec<Quantile>,
    #[prost(message, optional, tag = "4")]
    created: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Quantile {
    #[prost(double, tag = "1")]
    quantile: f64,
    #[prost(double, tag = "2")]
    value: f64,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "4")]
    count_float: f64,
    #[prost(double, tag = "2")]
    sum: f64,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<Bucket>,
    #[prost(message, optional, tag = "15")]
    created: Option<Timestamp>,
    #[prost(sint32, optional, tag = "5")]
    schema: Option<i32>,
    #[prost(double, tag = "6")]
    zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    zero_count: u64,
    #[prost(bytes, repeated, tag = "12")]
    positive_span: Vec<Vec<u8>>,
    #[prost(sint64, repeated, tag = "13")]
    positive_delta: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Bucket {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "4")]
    count_float: f64,
    #[prost(double, tag = "2")]
    upper_bound: f64,
    #[prost(message, optional, tag = "3")]
    exemplar: Option<Exemplar>,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(message, optional, tag = "3")]
    timestamp: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

const COUNTER: i32 = 0;
const GAUGE: i32 = 1;
const SUMMARY: i32 = 2;
const UNTYPED: i32 = 3;
const HISTOGRAM: i32 = 4;
const GAUGE_HISTOGRAM: i32 = 5;

fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    pairs.iter().map(|(name, value)| LabelPair { name: (*name).to_owned(), value: (*value).to_owned() }).collect()
}

fn family(name: &str, kind: i32, metric: Vec<Metric>) -> MetricFamily {
    MetricFamily { name: name.to_owned(), kind: Some(kind), metric, ..MetricFamily::default() }
}

fn gauge(pairs: &[(&str, &str)], value: f64) -> Metric {
    Metric { label: labels(pairs), gauge: Some(Single { value: Some(value) }), ..Metric::default() }
}

fn histogram(pairs: &[(&str, &str)], histogram: Histogram) -> Metric {
    Metric { label: labels(pairs), histogram: Some(histogram), ..Metric::default() }
}

fn bucket(upper_bound: f64, count: u64) -> Bucket {
    Bucket { upper_bound, count, ..Bucket::default() }
}

fn exemplar(trace: &str, value: f64, timestamp: Option<Timestamp>) -> Exemplar {
    Exemplar { label: labels(&[("trace_id", trace)]), value, timestamp }
}

fn delimited(families: &[MetricFamily]) -> Vec<u8> {
    families.iter().flat_map(Message::encode_length_delimited_to_vec).collect()
}

fn rewritten(families: &[MetricFamily]) -> TextPage {
    to_text(&delimited(families), MAX_BYTES).unwrap()
}

/// What a page says, in an order of its own; numbers to the bit, lest one not-a-number be no other.
fn meaning(page: &str, dialect: Dialect) -> Vec<String> {
    let labels = |labels: crate::exposition::Labels<'_>| {
        let mut labels: Vec<_> =
            labels.iter().map(|label| (label.name.to_string(), bound(&label.name, &label.value))).collect();
        labels.sort_unstable();
        labels
    };
    let entry = |entry: Entry<'_>| match entry {
        Entry::Sample(sample) => {
            let Sample { name, labels: own, value, timestamp_millis, exemplar, .. } = sample;
            let exemplar = exemplar.map(|own| (labels(own.labels), own.value.to_bits(), own.timestamp_millis));
            format!("{name} {:?} {:x} {timestamp_millis:?} {exemplar:?}", labels(own), value.to_bits())
        }
        metadata => format!("{metadata:?}"),
    };
    let mut entries: Vec<String> = Parser::new(page.as_bytes(), dialect).map(|read| entry(read.unwrap())).collect();
    entries.sort_unstable();
    entries
}

/// A bound is its number, however it is spelled: `1`, `1.0`.
fn bound(name: &str, value: &str) -> String {
    let number = value.parse::<f64>().ok().filter(|_| matches!(name, "le" | "quantile"));
    number.map_or_else(|| value.to_owned(), |number| number.to_string())
}

#[track_caller]
fn check(families: &[MetricFamily], expect: &str) {
    assert_eq!(rewritten(families).text, expect);
}

#[test]
fn simple_types() {
    let timed = Metric { timestamp_ms: Some(1234), ..gauge(&[], 2.5) };
    let counter = Counter {
        value: Some(7.0),
        exemplar: Some(exemplar("ab", 0.5, Some(Timestamp { seconds: 12, nanos: 345_678_901 }))),
        created: Some(Timestamp { seconds: 3, nanos: 0 }),
    };
    let counter = Metric { label: labels(&[("a", "1")]), counter: Some(counter), ..Metric::default() };
    let bare = Metric { counter: Some(Counter::default()), ..Metric::default() };
    let untyped = Metric { untyped: Some(Single { value: Some(-0.0) }), ..Metric::default() };
    check(
        &[
            MetricFamily {
                help: "How \\ full\n\"it\" is.".to_owned(),
                unit: "ratio".to_owned(),
                ..family("fill_ratio", GAUGE, vec![timed, gauge(&[("b", "x\"\\\ny"), ("c", "ü")], f64::NAN)])
            },
            family("calls_total", COUNTER, vec![counter]),
            MetricFamily { kind: None, ..family("no_type", 0, vec![bare]) },
            family("anything", UNTYPED, vec![untyped]),
            family("nothing", GAUGE, vec![]),
        ],
        "# TYPE fill_ratio gauge\n\
         # HELP fill_ratio How \\\\ full\\n\"it\" is.\n\
         # UNIT fill_ratio ratio\n\
         fill_ratio 2.5 1234\n\
         fill_ratio{b=\"x\\\"\\\\\\ny\",c=\"ü\"} NaN\n\
         # TYPE calls_total counter\n\
         calls_total{a=\"1\"} 7 # {trace_id=\"ab\"} 0.5 12.345\n\
         calls_created{a=\"1\"} 3.000\n\
         # TYPE no_type counter\n\
         no_type 0\n\
         # TYPE anything unknown\n\
         anything -0\n\
         # TYPE nothing gauge\n",
    );
}

#[test]
fn names_that_need_quotes() {
    let classic = Histogram { count: 1, bucket: vec![bucket(1.0, 1)], ..Histogram::default() };
    check(
        &[
            family("my.gauge", GAUGE, vec![gauge(&[], 1.0), gauge(&[("http.route", "/"), ("ok", "")], 2.0)]),
            family("a\"b", HISTOGRAM, vec![histogram(&[("x", "y")], classic)]),
        ],
        "# TYPE \"my.gauge\" gauge\n\
         {\"my.gauge\"} 1\n\
         {\"my.gauge\",\"http.route\"=\"/\",ok=\"\"} 2\n\
         # TYPE \"a\\\"b\" histogram\n\
         {\"a\\\"b_bucket\",x=\"y\",le=\"1\"} 1\n\
         {\"a\\\"b_bucket\",x=\"y\",le=\"+Inf\"} 1\n\
         {\"a\\\"b_sum\",x=\"y\"} 0\n\
         {\"a\\\"b_count\",x=\"y\"} 1\n",
    );
}

#[test]
fn summaries_and_histograms() {
    let quantile = |quantile, value| Quantile { quantile, value };
    let created = Some(Timestamp { seconds: 100, nanos: 500_000_000 });
    let summary =
        Summary { count: 3, sum: 1.5, quantile: vec![quantile(0.5, 0.25), quantile(0.99, f64::NAN)], created };
    let summary = Metric { label: labels(&[("a", "b")]), summary: Some(summary), ..Metric::default() };
    let slow = Bucket { exemplar: Some(exemplar("t", 0.75, None)), ..bucket(1e6, 3) };
    let classic = Histogram {
        count: 4,
        sum: 2e20,
        bucket: vec![bucket(0.005, 1), slow, bucket(f64::INFINITY, 4)],
        created,
        schema: Some(0),
        ..Histogram::default()
    };
    let float = Histogram {
        count_float: 1.5,
        bucket: vec![Bucket { count_float: 0.5, upper_bound: 1.0, ..Bucket::default() }],
        ..Histogram::default()
    };
    check(
        &[
            family("wait_seconds", SUMMARY, vec![summary]),
            family("size_bytes", HISTOGRAM, vec![histogram(&[], classic)]),
            family("queue", GAUGE_HISTOGRAM, vec![histogram(&[], float)]),
        ],
        "# TYPE wait_seconds summary\n\
         wait_seconds{a=\"b\",quantile=\"0.5\"} 0.25\n\
         wait_seconds{a=\"b\",quantile=\"0.99\"} NaN\n\
         wait_seconds_sum{a=\"b\"} 1.5\n\
         wait_seconds_count{a=\"b\"} 3\n\
         wait_seconds_created{a=\"b\"} 100.500\n\
         # TYPE size_bytes histogram\n\
         size_bytes_bucket{le=\"0.005\"} 1\n\
         size_bytes_bucket{le=\"1000000\"} 3 # {trace_id=\"t\"} 0.75\n\
         size_bytes_bucket{le=\"+Inf\"} 4\n\
         size_bytes_sum 2e20\n\
         size_bytes_count 4\n\
         size_bytes_created 100.500\n\
         # TYPE queue gaugehistogram\n\
         queue_bucket{le=\"1\"} 0.5\n\
         queue_bucket{le=\"+Inf\"} 1.5\n\
         queue_sum 0\n\
         queue_count 1.5\n",
    );
}

#[test]
fn of_native_histograms_the_classic_part_is_kept() {
    let native = Histogram {
        count: 5,
        sum: 2.0,
        schema: Some(3),
        zero_threshold: 1e-128,
        positive_span: vec![vec![0x08, 0x02, 0x10, 0x02]],
        positive_delta: vec![3, -1],
        ..Histogram::default()
    };
    let both = Histogram { bucket: vec![bucket(1.0, 5)], ..native.clone() };
    let empty = Histogram { schema: Some(3), zero_threshold: 1e-128, ..Histogram::default() };
    let metrics =
        vec![histogram(&[("a", "1")], native), histogram(&[("a", "2")], both), histogram(&[("a", "3")], empty)];
    let page = rewritten(&[family("h", HISTOGRAM, metrics)]);
    assert_eq!(page.native_histograms, 3);
    assert_eq!(
        page.text,
        "# TYPE h histogram\n\
         h_bucket{a=\"2\",le=\"1\"} 5\n\
         h_bucket{a=\"2\",le=\"+Inf\"} 5\n\
         h_sum{a=\"2\"} 2\n\
         h_count{a=\"2\"} 5\n"
    );
}

#[test]
fn the_same_families_in_openmetrics() {
    let page = "# TYPE calls counter\n\
                calls_total{code=\"200\"} 17 # {trace_id=\"ab\"} 0.5 1520879607.789\n\
                calls_created{code=\"200\"} 1520430000.123\n\
                # TYPE wait_seconds summary\n\
                wait_seconds{quantile=\"0.5\"} 0.25\n\
                wait_seconds_sum 2.5\n\
                wait_seconds_count 3\n\
                # TYPE size histogram\n\
                size_bucket{le=\"1.0\"} 1\n\
                size_bucket{le=\"+Inf\"} 2 # {} 9.5\n\
                size_sum 10.5\n\
                size_count 2\n\
                # TYPE temperature gauge\n\
                temperature -3.5 1520879607.789\n\
                # EOF\n";
    let counter = Counter {
        value: Some(17.0),
        exemplar: Some(exemplar("ab", 0.5, Some(Timestamp { seconds: 1_520_879_607, nanos: 789_000_000 }))),
        created: Some(Timestamp { seconds: 1_520_430_000, nanos: 123_000_000 }),
    };
    let counter = Metric { label: labels(&[("code", "200")]), counter: Some(counter), ..Metric::default() };
    let quantile = vec![Quantile { quantile: 0.5, value: 0.25 }];
    let summary = Summary { count: 3, sum: 2.5, quantile, created: None };
    let last = Bucket { exemplar: Some(Exemplar { value: 9.5, ..Exemplar::default() }), ..bucket(f64::INFINITY, 2) };
    let sizes = Histogram { count: 2, sum: 10.5, bucket: vec![bucket(1.0, 1), last], ..Histogram::default() };
    let families = [
        family("calls_total", COUNTER, vec![counter]),
        family("wait_seconds", SUMMARY, vec![Metric { summary: Some(summary), ..Metric::default() }]),
        family("size", HISTOGRAM, vec![histogram(&[], sizes)]),
        family("temperature", GAUGE, vec![Metric { timestamp_ms: Some(1_520_879_607_789), ..gauge(&[], -3.5) }]),
    ];
    let samples =
        |meaning: Vec<String>| meaning.into_iter().filter(|entry| !entry.starts_with("Type")).collect::<Vec<_>>();
    // OpenMetrics names the type of `calls`, the others that of `calls_total`.
    assert_eq!(
        samples(meaning(&rewritten(&families).text, Dialect::Text)),
        samples(meaning(page, Dialect::OpenMetrics))
    );
}

#[track_caller]
fn check_error(page: &[u8], expect: &str) {
    let error = to_text(page, MAX_BYTES).unwrap_err().to_string();
    assert!(error.contains(expect), "{error:?} should say {expect:?}");
}

#[test]
fn pages_that_cannot_be_read() {
    let good = delimited(&[family("m", GAUGE, vec![gauge(&[], 1.0)])]);
    check_error(b"# TYPE m gauge\nm 1\n", "runs past the end");
    check_error(&good[..good.len() - 1], "runs past the end");
    check_error(&delimited(&[family("", GAUGE, vec![])]), "no name");
    check_error(&delimited(&[family("m", 9, vec![])]), "an unknown type");
    check_error(
        &delimited(&[family("m", COUNTER, vec![gauge(&[], 1.0)])]),
        "without a value of the family's type in family \"m\"",
    );
    check_error(&delimited(&[family("m", GAUGE, vec![gauge(&[("", "x")], 1.0)])]), "a label without a name");
    check_error(&[0x03, 0x0a, 0x01, 0xff], "not UTF-8");
    assert_eq!(to_text(&[], MAX_BYTES), Ok(TextPage::default()));
}

#[test]
fn text_stays_within_its_limit() {
    // A long name repeated for every bucket: a page of 100 KB would be one of 100 MB.
    let buckets = (0..1000).map(|bound| bucket(f64::from(bound), 1)).collect();
    let metric = histogram(&[("l", &"x".repeat(50_000))], Histogram { bucket: buckets, ..Histogram::default() });
    let page = delimited(&[family("m", HISTOGRAM, vec![metric])]);
    assert_eq!(to_text(&page, MAX_BYTES), Err(ProtobufError::TooLarge(MAX_BYTES)));
}

/// As an exporter in Go writes text, from the same families.
fn text_of(families: &[MetricFamily]) -> String {
    let mut page = String::new();
    for family in families {
        let kind = ["counter", "gauge", "summary", "untyped", "histogram", "gaugehistogram"]
            [usize::try_from(family.kind.unwrap()).unwrap()];
        page += &format!("# TYPE {} {kind}\n", quoted_name(&family.name));
        for metric in &family.metric {
            let mut line = |suffix: &str, bound: Option<(&str, f64)>, value: f64| {
                let mut parts: Vec<String> = vec![format!("{:?}", format!("{}{suffix}", family.name))];
                parts
                    .extend(metric.label.iter().map(|label| format!("{:?}=\"{}\"", label.name, escaped(&label.value))));
                parts.extend(bound.map(|(name, bound)| format!("{name}=\"{}\"", go(bound))));
                let time =
                    metric.timestamp_ms.filter(|time| *time != 0).map(|time| format!(" {time}")).unwrap_or_default();
                page += &format!("{{{}}} {}{time}\n", parts.join(","), go(value));
            };
            if let Some(Single { value }) = metric.gauge.as_ref().or(metric.untyped.as_ref()) {
                line("", None, value.unwrap_or_default());
            }
            if let Some(counter) = &metric.counter {
                line("", None, counter.value.unwrap_or_default());
            }
            if let Some(summary) = &metric.summary {
                summary.quantile.iter().for_each(|own| line("", Some(("quantile", own.quantile)), own.value));
                line("_sum", None, summary.sum);
                line("_count", None, summary.count as f64);
            }
            if let Some(histogram) = &metric.histogram {
                histogram
                    .bucket
                    .iter()
                    .for_each(|own| line("_bucket", Some(("le", own.upper_bound)), own.count as f64));
                line("_bucket", Some(("le", f64::INFINITY)), histogram.count as f64);
                line("_sum", None, histogram.sum);
                line("_count", None, histogram.count as f64);
            }
        }
    }
    page
}

fn quoted_name(name: &str) -> String {
    format!("{name:?}")
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

fn go(value: f64) -> String {
    if value.is_infinite() { format!("{}Inf", if value > 0.0 { '+' } else { '-' }) } else { format!("{value:e}") }
}

fn arbitrary_family() -> impl Strategy<Value = MetricFamily> {
    let number = prop_oneof![
        Just(0.0),
        Just(f64::NAN),
        Just(f64::NEG_INFINITY),
        -1e3..1e3,
        any::<i32>().prop_map(f64::from),
        any::<f64>(),
    ];
    // `prost` leaves a negative zero out as if it were none.
    let number = number.prop_map(|number| if number == 0.0 { 0.0 } else { number });
    let pairs = prop::collection::btree_map("[a-c_]{1,2}|a\\.b", "[x-z\"\\\\\n}# ]{0,3}", 0..3);
    let numbers = prop::collection::vec(number, 1..4);
    let metric = (pairs, numbers, 0_i64..3, 0_u64..1000);
    ("[a-d_]{1,3}|a\\.b", 0..6_i32, prop::collection::vec(metric, 0..3)).prop_map(|(name, kind, metrics)| {
        let metric =
            |(pairs, numbers, time, count): (std::collections::BTreeMap<String, String>, Vec<f64>, i64, u64)| {
                let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
                let mut metric = Metric { label: labels(&pairs), timestamp_ms: Some(time), ..Metric::default() };
                let single = Single { value: Some(numbers[0]) };
                match kind {
                    COUNTER => metric.counter = Some(Counter { value: Some(numbers[0]), ..Counter::default() }),
                    GAUGE => metric.gauge = Some(single),
                    UNTYPED => metric.untyped = Some(single),
                    SUMMARY => {
                        let quantile = numbers.iter().map(|value| Quantile { quantile: 0.5, value: *value }).collect();
                        metric.summary = Some(Summary { count, sum: numbers[0], quantile, created: None });
                    }
                    _ => {
                        let mut bounds: Vec<f64> = numbers.iter().copied().filter(|bound| bound.is_finite()).collect();
                        bounds.sort_by(f64::total_cmp);
                        let bucket = bounds.into_iter().map(|bound| bucket(bound, count)).collect();
                        metric.histogram = Some(Histogram { count, sum: numbers[0], bucket, ..Histogram::default() });
                    }
                }
                metric
            };
        family(&name, kind, metrics.into_iter().map(metric).collect())
    })
}

proptest! {
    /// The same families as text and as protobuf are the same samples.
    #[test]
    fn protobuf_says_what_text_says(families in prop::collection::vec(arbitrary_family(), 0..4)) {
        let (ours, theirs) = (rewritten(&families).text, text_of(&families));
        prop_assert_eq!(meaning(&ours, Dialect::Text), meaning(&theirs, Dialect::Text));
    }

    #[test]
    fn damaged_pages_never_panic_and_what_is_made_of_them_is_a_page(
        families in prop::collection::vec(arbitrary_family(), 1..3),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut page = delimited(&families);
        let at = at.index(page.len());
        page[at] = byte;
        if let Ok(TextPage { text, .. }) = to_text(&page, MAX_BYTES) {
            prop_assert!(Parser::new(text.as_bytes(), Dialect::Text).all(|entry| entry.is_ok()), "{text}");
        }
    }
}
