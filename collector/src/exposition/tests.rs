use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Dialect, Entry, ErrorKind, MetricKind, Parser};
use crate::tests::{shared, skip};

/// One line per entry, so that expectations read like the page.
fn render(page: &[u8], dialect: Dialect) -> Vec<String> {
    Parser::new(page, dialect)
        .map(|entry| match entry {
            Ok(Entry::Sample(sample)) => {
                let mut text = format!("{} {{{}}} {:?}", sample.name, labels_of(sample.labels), sample.value);
                if let Some(time) = sample.timestamp_millis {
                    text += &format!(" @{time}");
                }
                if let Some(exemplar) = sample.exemplar {
                    text += &format!(" #{{{}}} {:?}", labels_of(exemplar.labels), exemplar.value);
                    text += &exemplar.timestamp_millis.map(|time| format!(" @{time}")).unwrap_or_default();
                }
                text
            }
            Ok(Entry::Type { family, kind }) => format!("TYPE {family} {}", kind.as_str()),
            Ok(Entry::Help { family, text }) => format!("HELP {family} {text}"),
            Ok(Entry::Unit { family, unit }) => format!("UNIT {family} {unit}"),
            Err(error) => format!("error: {error}"),
        })
        .collect()
}

fn labels_of(labels: super::Labels<'_>) -> String {
    let parts: Vec<String> = labels.iter().map(|label| format!("{}={:?}", label.name, label.value)).collect();
    assert_eq!(parts.len(), labels.len(), "the count and the walk must agree");
    parts.join(",")
}

#[track_caller]
fn check_text(page: &str, expect: &[&str]) {
    assert_eq!(render(page.as_bytes(), Dialect::Text), expect, "{page:?}");
}

#[track_caller]
fn check_open(page: &str, expect: &[&str]) {
    assert_eq!(render(page.as_bytes(), Dialect::OpenMetrics), expect, "{page:?}");
}

#[test]
fn text_pages_are_read() {
    check_text("up 1\n", &["up {} 1.0"]);
    check_text("up{} 1", &["up {} 1.0"]);
    check_text(r#"a:b{c="d",e="f",} -1.5e3 1395066363000"#, &[r#"a:b {c="d",e="f"} -1500.0 @1395066363000"#]);
    check_text("a{b=\"x\"}\t2\t3\r\nb 4\n", &[r#"a {b="x"} 2.0 @3"#, "b {} 4.0"]);
    check_text("\n  \n# a remark\n#\n  a { b = \"c\" , d = \"e\" }  7\n", &[r#"a {b="c",d="e"} 7.0"#]);
    check_text("a NaN\nb +Inf\nc -Inf\nd nan\n", &["a {} NaN", "b {} inf", "c {} -inf", "d {} NaN"]);
    check_text("a 18446744073709551615\n", &["a {} 1.8446744073709552e19"]);
    check_text("a 0.00000000000000000012345678901234567890\n", &["a {} 1.2345678901234568e-19"]);
    check_text(
        "# TYPE a counter\n# HELP a some \\\\ help\\n\n#  TYPE \tb\thistogram \n# TYPE c untyped\n",
        &["TYPE a counter", "HELP a some \\ help\n", "TYPE b histogram", "TYPE c unknown"],
    );
}

#[test]
fn label_values_keep_every_character() {
    check_text("a{b=\"x} 1, y=\\\"z\\\" \\\\ \\n \\t # ü\"} 1\n", &[r#"a {b="x} 1, y=\"z\" \\ \n \\t # ü"} 1.0"#]);
    check_text("a{b=\"two\nlines\"} 1\n", &[r#"a {b="two\nlines"} 1.0"#]);
    check_text(
        r#"a{cluster_name="outbound|8080||users.shop"} 1"#,
        &[r#"a {cluster_name="outbound|8080||users.shop"} 1.0"#],
    );
}

#[test]
fn quoted_names_are_read() {
    check_text(r#"{"my.metric",l="v"} 1"#, &[r#"my.metric {l="v"} 1.0"#]);
    check_text(r#"{"my \"metric\""} 1"#, &[r#"my "metric" {} 1.0"#]);
    check_text(r#"m{"label.with.dots"="v"} 1"#, &[r#"m {label.with.dots="v"} 1.0"#]);
    check_text(r#"{l="v","my.metric"} 1"#, &[r#"my.metric {l="v"} 1.0"#]);
    check_text("# TYPE \"my.metric\" gauge\n", &["TYPE my.metric gauge"]);
}

#[test]
fn openmetrics_pages_are_read() {
    check_open(
        "# TYPE a_seconds histogram\n# UNIT a_seconds seconds\n# HELP a_seconds x\\\"y\n\
         a_seconds_bucket{le=\"0.5\"} 2 1520879607.789 # {trace_id=\"ab\"} 0.4 1520879606.5\n\
         a_seconds_count 2\na_seconds_created 1.5e9\n# EOF\n",
        &[
            "TYPE a_seconds histogram",
            "UNIT a_seconds seconds",
            "HELP a_seconds x\"y",
            r#"a_seconds_bucket {le="0.5"} 2.0 @1520879607789 #{trace_id="ab"} 0.4 @1520879606500"#,
            "a_seconds_count {} 2.0",
            "a_seconds_created {} 1500000000.0",
        ],
    );
    check_open("# EOF", &[]);
}

#[test]
fn openmetrics_under_text_plain_loses_nothing() {
    check_text(
        "# TYPE a counter\na_total{b=\"c\"} 1 # {trace_id=\"ab\"} 0.67 1.5\n# EOF\nb 2 1520879607.789\n",
        &["TYPE a counter", r#"a_total {b="c"} 1.0 #{trace_id="ab"} 0.67 @1500"#, "b {} 2.0 @1520879607789"],
    );
}

#[test]
fn a_bad_line_costs_one_line() {
    check_text(
        "a 1\nb{c=d} 2\ne 3\n",
        &["a {} 1.0", "error: expected a quoted label value in line \"b{c=d} 2\"", "e {} 3.0"],
    );
    let page = b"a 1\nb{c=\"\xff\"} 2\nd 3\n\xff\ne 4";
    let (a, d, e) = ("a {} 1.0", "d {} 3.0", "e {} 4.0");
    assert_eq!(render(page, Dialect::Text), [a, "error: line is not UTF-8", d, "error: line is not UTF-8", e],);
}

#[test]
fn errors_name_their_cause() {
    for (line, kind) in [
        ("9a 1", ErrorKind::ExpectedName),
        ("{} 1", ErrorKind::ExpectedName),
        (r#"{b="c",} 1"#, ErrorKind::NameMissing),
        (r#"a{"b"} 1"#, ErrorKind::NameTwice),
        (r#"{"a","b"} 1"#, ErrorKind::NameTwice),
        (r#"a{=""} 0"#, ErrorKind::ExpectedLabelName),
        (r#"a{b="c",,d="e"} 1"#, ErrorKind::ExpectedLabelName),
        (r#"a{b="c"d="e"} 1"#, ErrorKind::ExpectedCommaOrBrace),
        ("{A}0", ErrorKind::ExpectedEquals),
        (r#"{"a", "b = "c"}"#, ErrorKind::ExpectedEquals),
        (r#"a{b='c'} 1"#, ErrorKind::ExpectedLabelValue),
        (r#"a{b="c} 1"#, ErrorKind::ExpectedLabelValue),
        ("a", ErrorKind::ExpectedValue),
        ("a x", ErrorKind::BadValue),
        ("foo 1_2", ErrorKind::BadValue),
        ("foo 0x1p-3", ErrorKind::BadValue),
        ("a 1e999", ErrorKind::BadValue),
        ("foo 0 1_2", ErrorKind::BadTimestamp),
        ("a 1 NaN", ErrorKind::BadTimestamp),
        ("a 1 2 3", ErrorKind::TrailingText),
        (r#"a 1 # {b="c"}"#, ErrorKind::BadExemplar),
        ("# TYPE a kaput", ErrorKind::UnknownType),
        ("# TYPE # counter", ErrorKind::ExpectedName),
    ] {
        let error = Parser::new(line.as_bytes(), Dialect::Text).find_map(Result::err);
        assert_eq!(error.map(|error| error.kind), Some(kind), "{line}");
    }
    check_open("a 1\n", &["a {} 1.0", "error: page does not end with # EOF"]);
    check_open("# EOF\na 1\n", &["error: unexpected data after # EOF in line \"a 1\""]);
    check_open("a  1\n# EOF", &["error: expected a value in line \"a  1\""]);
    check_open("\n# EOF\n", &["error: expected a metric name"]);
    check_open("# UNIT m suffix\n# EOF\n", &["error: unreadable metadata in line \"# UNIT m suffix\""]);
}

#[test]
fn series_text_is_the_cache_key() {
    let page = "a{b=\"c\"} 1\na{b=\"c\"}  2 3\nd 4\n";
    let series: Vec<&str> = Parser::new(page.as_bytes(), Dialect::Text).samples().map(|sample| sample.series).collect();
    assert_eq!(series, [r#"a{b="c"}"#, r#"a{b="c"}"#, "d"]);
}

#[test]
fn content_types_name_the_dialect() {
    for (header, dialect) in [
        ("text/plain; version=0.0.4; charset=utf-8", Some(Dialect::Text)),
        ("text/plain; charset=UTF-8", Some(Dialect::Text)),
        ("application/openmetrics-text; version=1.0.0", Some(Dialect::OpenMetrics)),
        ("Application/OpenMetrics-Text", Some(Dialect::OpenMetrics)),
        ("text/html", None),
        ("", None),
    ] {
        assert_eq!(Dialect::from_content_type(header), dialect, "{header}");
    }
}

#[test]
fn a_page_of_our_mesh_is_read_whole() {
    let page = include_str!("testdata/envoy-ingress.prom");
    let lines = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
    let entries: Vec<_> = Parser::new(page.as_bytes(), Dialect::Text).collect::<Result<_, _>>().unwrap();
    let samples = entries.iter().filter(|entry| matches!(entry, Entry::Sample(_))).count();
    assert_eq!(samples, lines);
    assert!(samples > 200);
    agrees_with_oracle(page);
}

// === the differential oracle ===

/// Compares every untyped, counter and gauge sample with what `prometheus-parse` makes of the
/// page, where it can read it at all.
#[track_caller]
fn agrees_with_oracle(page: &str) {
    let oracle = prometheus_parse::Scrape::parse(page.lines().map(|line| Ok(line.to_owned()))).unwrap();
    let mut theirs: BTreeMap<String, f64> = BTreeMap::new();
    for sample in &oracle.samples {
        let value = match &sample.value {
            prometheus_parse::Value::Counter(v)
            | prometheus_parse::Value::Gauge(v)
            | prometheus_parse::Value::Untyped(v) => *v,
            _ => continue,
        };
        let labels: BTreeMap<&str, &str> = sample.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        theirs.insert(format!("{}{labels:?}", sample.metric), value);
    }
    let mut ours: BTreeMap<String, f64> = BTreeMap::new();
    for sample in Parser::new(page.as_bytes(), Dialect::Text).samples() {
        let pairs: Vec<(String, String)> =
            sample.labels.iter().map(|label| (label.name.into_owned(), label.value.into_owned())).collect();
        let labels: BTreeMap<&str, &str> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        ours.insert(format!("{}{labels:?}", sample.name), sample.value);
    }
    assert!(!theirs.is_empty());
    for (series, value) in &theirs {
        let found = ours.get(series).unwrap_or_else(|| panic!("{series} is missing"));
        assert!(found == value || (found.is_nan() && value.is_nan()), "{series}: {found} is not {value}");
    }
}

/// Pages the oracle can read: no braces without labels, no `}`, `,`, `=` or escapes in values.
fn oracle_page() -> impl Strategy<Value = String> {
    let label = ("[a-z_][a-z0-9_]{0,6}", "[a-zA-Z0-9 ./|;ü-]{1,12}");
    let line = (
        "[a-z_][a-z0-9_]{0,12}",
        prop::collection::btree_map(label.0, label.1, 0..4),
        prop_oneof![
            any::<f64>().prop_map(|value| format!("{value:e}")),
            any::<i32>().prop_map(|value| value.to_string()),
            Just("NaN".to_owned()),
            Just("+Inf".to_owned()),
        ],
        prop::option::of(0_i64..4_102_444_800_000),
    );
    prop::collection::vec(line, 1..30).prop_map(|lines| {
        let mut page = String::new();
        for (number, (name, labels, value, time)) in lines.into_iter().enumerate() {
            // A number keeps names apart: both sides key by series.
            page += &format!("{name}_{number}x");
            if !labels.is_empty() {
                let pairs: Vec<String> =
                    labels.iter().map(|(name, value)| format!("{name}=\"{}\"", value.trim())).collect();
                page += &format!("{{{}}}", pairs.join(","));
            }
            let time = time.map(|time| format!(" {time}")).unwrap_or_default();
            let value = value.replace("inf", "Inf");
            page += &format!(" {value}{time}\n");
        }
        page
    })
}

proptest! {
    #[test]
    fn generated_pages_agree_with_the_oracle(page in oracle_page()) {
        agrees_with_oracle(&page);
    }

    #[test]
    fn written_samples_read_back(
        name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,10}|[\\PC&&[^\"\\\\]]{1,10}",
        labels in prop::collection::vec(("[a-zA-Z_][a-zA-Z0-9_]{0,5}", any::<String>()), 0..5),
        value in any::<f64>(),
        time in prop::option::of(any::<i64>()),
    ) {
        let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"));
        let mut parts = vec![quote(&name)];
        parts.extend(labels.iter().map(|(name, value)| format!("{name}={}", quote(value))));
        let time_text = time.map(|time| format!(" {time}")).unwrap_or_default();
        let page = format!("{{{}}} {value:?}{time_text}\n", parts.join(","));
        let entries: Vec<_> = Parser::new(page.as_bytes(), Dialect::Text).collect();
        prop_assert_eq!(entries.len(), 1, "{:?}", page);
        let Ok(Entry::Sample(sample)) = &entries[0] else { panic!("{entries:?}") };
        prop_assert_eq!(sample.name.as_ref(), name.as_str());
        prop_assert!(sample.value == value || (sample.value.is_nan() && value.is_nan()));
        prop_assert_eq!(sample.timestamp_millis, time);
        let read: Vec<(String, String)> =
            sample.labels.iter().map(|label| (label.name.into_owned(), label.value.into_owned())).collect();
        prop_assert_eq!(read, labels);
    }

    #[test]
    fn any_bytes_are_walked_to_the_end(page in prop::collection::vec(any::<u8>(), 0..400), strict in any::<bool>()) {
        let dialect = if strict { Dialect::OpenMetrics } else { Dialect::Text };
        let lines = page.iter().filter(|byte| **byte == b'\n').count() + 2;
        prop_assert!(Parser::new(&page, dialect).count() <= lines);
    }

    #[test]
    fn near_pages_are_walked_to_the_end(page in "([a-z{}\"=,# 0-9\\\\\n]|TYPE |EOF){0,60}", strict in any::<bool>()) {
        let dialect = if strict { Dialect::OpenMetrics } else { Dialect::Text };
        for entry in Parser::new(page.as_bytes(), dialect) {
            if let Ok(Entry::Sample(sample)) = entry {
                prop_assert_eq!(sample.labels.iter().count(), sample.labels.len(), "{:?}", page);
            }
        }
    }
}

#[test]
fn type_words_read_back() {
    for word in ["counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset", "unknown"] {
        assert_eq!(MetricKind::parse(word).map(MetricKind::as_str), Some(word));
    }
}

// === conformance material, read where it is kept ===

/// Python wrote bytes that are not UTF-8 as lone surrogates, which JSON readers refuse.
fn bytes_of_case(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\udc") {
        bytes.extend(serde_json::from_str::<String>(&format!("\"{before}\"")).unwrap().into_bytes());
        bytes.push(u8::from_str_radix(&after[..2], 16).unwrap());
        rest = &after[2..];
    }
    bytes.extend(serde_json::from_str::<String>(&format!("\"{rest}\"")).unwrap().into_bytes());
    bytes
}

#[test]
fn pages_prometheus_refuses_are_refused() {
    #[derive(serde::Deserialize)]
    struct Case<'a> {
        format: &'a str,
        #[serde(borrow)]
        input: &'a serde_json::value::RawValue,
    }
    let Some(path) = shared("prometheus/exposition_error_cases.json") else {
        return skip("pages that Prometheus refuses", "TESTS_SHARED names no folder with prometheus");
    };
    let text = std::fs::read_to_string(path).unwrap();
    let cases: Vec<Case<'_>> = serde_json::from_str(&text).unwrap();
    for case in cases {
        let raw = case.input.get().trim_matches('"');
        let page = bytes_of_case(raw);
        let dialect = if case.format == "om" { Dialect::OpenMetrics } else { Dialect::Text };
        // What Go calls the end of the page is no error here.
        if raw.starts_with("# EOF") && raw.trim_end_matches("\\n") == "# EOF" {
            continue;
        }
        assert!(Parser::new(&page, dialect).any(|entry| entry.is_err()), "{raw} ({}) is read", case.format);
    }
}

#[test]
fn openmetrics_pages_are_judged() {
    let Some(folders) = shared("prometheus/openmetrics") else {
        return skip("OpenMetrics pages", "TESTS_SHARED names no folder with prometheus/openmetrics");
    };
    let (mut good, mut bad, mut refused) = (0, 0, 0);
    for folder in std::fs::read_dir(folders).unwrap().flatten().map(|folder| folder.path()) {
        let page = std::fs::read(folder.join("metrics")).unwrap();
        let test: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.join("test.json")).unwrap()).unwrap();
        let error = Parser::new(&page, Dialect::OpenMetrics).find_map(Result::err);
        if test["shouldParse"] == true {
            assert_eq!(error, None, "{}", folder.display());
            good += 1;
        } else {
            bad += 1;
            refused += usize::from(error.is_some());
        }
    }
    println!("{good} good pages read, {refused} of {bad} bad pages refused");
    // The rest is well-formed and breaks rules between lines: order of families, values of counters.
    assert!(refused >= 50, "{refused} of {bad}");
}
