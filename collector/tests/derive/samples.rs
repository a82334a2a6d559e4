//! The samples of every proxy, field by field against what the rules say must come out.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};
use windrose_collector::join::derive::{DeriveOptions, derive};
use windrose_collector::normalise::Normaliser;
use windrose_proto::hop::{Derived, Hop, SpanVerdict};
use windrose_proto::model::Reason;
use windrose_proto::normal::NormalSpan;
use windrose_proto::span::Span;

use crate::load;

/// Differences from the expected files that are kept on purpose, each with its reason:
/// sample, place of the value, why.
const KEPT_DIFFERENCES: &[(&str, &str, &str)] = &[];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/samples")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

#[test]
fn every_sample_gives_what_is_expected() {
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".expected.json").map(str::to_owned))
        .collect();
    names.sort();
    assert!(names.len() > 25, "samples are missing");
    let mut differences = Vec::new();
    for name in &names {
        let inputs = match name.as_str() {
            "hard-64bit-half.merged" => {
                vec!["hard-64bit-half.zipkin.json".to_owned(), "hard-64bit-half.otlp.json".to_owned()]
            }
            name => vec![format!("{name}.json")],
        };
        let spans: Vec<Span> = inputs.iter().flat_map(|input| load::sample(&read(input))).collect();
        let expected: Json = serde_json::from_str(&read(&format!("{name}.expected.json"))).unwrap();
        compare(name, &actual(spans), &expected, &mut differences);
    }
    let kept = |difference: &&String| {
        KEPT_DIFFERENCES.iter().any(|(sample, place, _)| difference.starts_with(&format!("{sample}: {place}")))
    };
    let unexplained: Vec<&String> = differences.iter().filter(|difference| !kept(difference)).collect();
    assert!(unexplained.is_empty(), "{} differences:\n{}", unexplained.len(), join(&unexplained));
    for (sample, place, why) in KEPT_DIFFERENCES {
        let is_real = differences.iter().any(|difference| difference.starts_with(&format!("{sample}: {place}")));
        assert!(is_real, "{sample}: {place} no longer differs ({why})");
    }
}

fn join(lines: &[&String]) -> String {
    lines.iter().map(|line| line.as_str()).collect::<Vec<_>>().join("\n")
}

/// What comes out, in the shape of the expected files.
fn actual(spans: Vec<Span>) -> Json {
    let mut normaliser = Normaliser::default();
    let mut traces = Map::new();
    for (trace, spans) in load::by_trace(spans) {
        let normal: Vec<Arc<NormalSpan>> = spans.iter().map(|span| Arc::new(normaliser.normalise(span))).collect();
        let derived = derive(&normal, &DeriveOptions::from(&normaliser));
        traces.insert(trace.to_string(), trace_json(&derived, &normal));
    }
    Json::Object(traces)
}

fn trace_json(derived: &Derived, normal: &[Arc<NormalSpan>]) -> Json {
    let spans: Vec<Json> = derived.verdicts.iter().map(|verdict| span_json(verdict, normal)).collect();
    let hops: Vec<Json> = derived.hops.iter().map(hop_json).collect();
    json!({ "spans": spans, "hops": hops })
}

fn span_json(verdict: &SpanVerdict, normal: &[Arc<NormalSpan>]) -> Json {
    let outcome = &verdict.outcome;
    let is_of = |span: &&Arc<NormalSpan>| span.span_id == verdict.span_id && span.vantage_rule == verdict.vantage_rule;
    let span =
        normal.iter().find(is_of).or_else(|| normal.iter().find(|span| span.span_id == verdict.span_id)).unwrap();
    json!({
        "span": verdict.span_id,
        "parent": span.parent_span_id.map_or_else(String::new, |id| id.to_string()),
        "name": &*span.name,
        "kind": span.kind,
        "proxy": verdict.proxy_kind,
        "proxy_rule": verdict.proxy_rule,
        "vantage": verdict.vantage,
        "vantage_rule": verdict.vantage_rule,
        "role": verdict.role,
        "role_rule": verdict.role_rule,
        "service": &*span.identity.service,
        "namespace": span.identity.namespace.as_deref(),
        "workload": span.identity.workload.as_deref(),
        "version": span.identity.version.as_deref(),
        "pod": span.identity.pod.as_deref(),
        "ip": span.identity.ip,
        "protocol": span.protocol,
        "http_status": outcome.http_status,
        "grpc_status": outcome.grpc_status,
        "flags": outcome.flags.iter().map(|flag| &**flag).collect::<Vec<_>>(),
        "reasons": words(&outcome.reasons),
        "fault": outcome.fault,
        "fault_rule": outcome.fault_rule,
        "retry": outcome.retry,
        "shared_id": verdict.shared_id,
    })
}

fn hop_json(hop: &Hop) -> Json {
    json!({
        "direction": hop.direction,
        "dir_rule": hop.direction_rule,
        "src": &*hop.source.service,
        "src_ns": hop.source.namespace.as_deref(),
        "src_role": hop.source.role,
        "dst": &*hop.destination.service,
        "dst_ns": hop.destination.namespace.as_deref(),
        "dst_role": hop.destination.role,
        "dst_version": hop.destination.version.as_deref(),
        "via": hop.via.as_deref(),
        "client_span": hop.client_span,
        "server_span": hop.server_span,
        "reporters": hop.reporters,
        "http": hop.http_status,
        "error": hop.error,
        "fault": hop.fault,
        "fault_at": hop.fault_at,
        "reasons": words(&hop.reasons),
        "retry": hop.retry,
        "proto": hop.protocol,
        "client_ns": hop.client_nanos,
        "server_ns": hop.server_nanos,
        "skew_ns": hop.skew_nanos,
        "late_server_ns": hop.late_server_nanos,
        "queue_ns": hop.queue_nanos,
        "final": hop.is_final,
        "root_cause": hop.root_cause,
    })
}

fn words(reasons: &[Reason]) -> Vec<String> {
    let mut words: Vec<String> = reasons.iter().map(|reason| reason.word().into_owned()).collect();
    words.sort();
    words
}

fn compare(sample: &str, actual: &Json, expected: &Json, differences: &mut Vec<String>) {
    let traces = expected.as_object().unwrap();
    assert_eq!(actual.as_object().unwrap().len(), traces.len(), "{sample}: traces");
    for (trace, expected) in traces {
        let short = &trace[..6];
        for (part, keys) in
            [("spans", &["span", "kind", "name"][..]), ("hops", &["client_span", "server_span", "retry"])]
        {
            let keyed = |json: &Json| {
                let mut rows: Vec<(String, Json)> = json[trace][part]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|row| {
                        (keys.iter().map(|key| row[*key].to_string()).collect::<Vec<_>>().join("/"), row.clone())
                    })
                    .collect();
                rows.sort_by(|a, b| a.0.cmp(&b.0));
                rows
            };
            let ours = keyed(actual);
            let theirs = keyed(&json!({ trace.as_str(): expected }));
            for (key, row) in &theirs {
                match ours.iter().find(|(other, _)| other == key) {
                    None => differences.push(format!("{sample}: {part} {short} {key} is missing: {row}")),
                    Some((_, other)) => {
                        for (field, value) in row.as_object().unwrap() {
                            if &other[field] != value {
                                let got = &other[field];
                                differences
                                    .push(format!("{sample}: {part} {short} {key} {field}: {got}, expected {value}"));
                            }
                        }
                    }
                }
            }
            for (key, row) in &ours {
                if !theirs.iter().any(|(other, _)| other == key) {
                    differences.push(format!("{sample}: {part} {short} {key} is too much: {row}"));
                }
            }
        }
    }
}
