use std::collections::{BTreeMap, BTreeSet, HashMap};

use opentelemetry_proto::tonic::common::v1::any_value::Value;

use super::*;
use crate::demo::truth::Truth;

const START: u64 = 1_800_000_000_000_000_000;

/// Everything that happens in `seconds`, sorted by time.
fn run(seed: u64, seconds: u64) -> Vec<Event> {
    let mut events = Traffic::new(seed, 50.0, START).until(START + seconds * 1_000_000_000);
    events.sort_by_key(|event| event.at);
    events
}

fn attribute<'s>(span: &'s Span, key: &str) -> Option<&'s str> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn truth(events: Vec<Event>) -> Truth {
    let mut truth = Truth::default();
    events.into_iter().filter_map(|event| event.truth).for_each(|call| truth.add(call));
    truth
}

#[test]
fn the_same_seed_makes_the_same_traffic() {
    let shape = |seed| -> Vec<(u64, usize, Option<String>)> {
        run(seed, 5).into_iter().map(|event| (event.at, event.proxy, event.span.map(|span| span.name))).collect()
    };
    assert_eq!(shape(7), shape(7));
    assert_ne!(shape(7), shape(8));
}

#[test]
fn another_start_makes_other_ids_but_the_same_story() {
    let first = Traffic::new(7, 50.0, START).until(START + 2_000_000_000);
    let second = Traffic::new(7, 50.0, START + 1).until(START + 2_000_000_001);
    assert_eq!(first.len(), second.len());
    let ids = |events: &[Event]| -> BTreeSet<Vec<u8>> {
        events.iter().filter_map(|event| Some(event.span.as_ref()?.trace_id.clone())).collect()
    };
    assert!(ids(&first).is_disjoint(&ids(&second)));
}

#[test]
fn asking_in_small_steps_changes_nothing() {
    let whole = truth(run(3, 4));
    let mut traffic = Traffic::new(3, 50.0, START);
    let steps = (1..=40).flat_map(|step| traffic.until(START + step * 100_000_000)).collect();
    assert_eq!(truth(steps), whole);
}

#[test]
fn every_parent_is_there_and_in_the_same_trace() {
    let events = run(1, 20);
    let spans: Vec<&Span> = events.iter().filter_map(|event| event.span.as_ref()).collect();
    let by_id: HashMap<&[u8], &Span> = spans.iter().map(|span| (span.span_id.as_slice(), *span)).collect();
    assert_eq!(by_id.len(), spans.len(), "span ids are unique");
    let mut roots = BTreeMap::new();
    for span in &spans {
        assert!(span.start_time_unix_nano < span.end_time_unix_nano);
        if span.parent_span_id.is_empty() {
            *roots.entry(attribute(span, "istio.canonical_service").expect("a service")).or_insert(0) += 1;
        } else {
            let parent = by_id[span.parent_span_id.as_slice()];
            assert_eq!(parent.trace_id, span.trace_id);
            assert!(parent.start_time_unix_nano <= span.start_time_unix_nano);
        }
    }
    assert_eq!(roots.keys().copied().collect::<Vec<_>>(), ["istio-ingressgateway", "notify"]);
}

#[test]
fn spans_and_counters_tell_the_same_story() {
    let events = run(1, 60);
    // Per proxy and cluster: answers with a code by the counters, and by the spans.
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    let mut sampled: BTreeMap<String, u64> = BTreeMap::new();
    for event in &events {
        for (series, count) in &event.counted {
            let text = format!("{series:?}");
            if text.contains("envoy_cluster_upstream_rq\"")
                && text.contains("response_code=")
                && !text.contains("inbound")
            {
                let cluster =
                    text.split("cluster_name=\\\"").nth(1).and_then(|rest| rest.split('\\').next()).expect("a cluster");
                *counted.entry(format!("{} {cluster}", event.proxy)).or_default() += count;
            }
        }
        let Some(span) = &event.span else { continue };
        // Gateways say it once per request in the SERVER span, sidecars in the CLIENT span.
        let is_router_span = span.name.starts_with("router ");
        let cluster = attribute(span, "upstream_cluster").filter(|cluster| cluster.starts_with("outbound"));
        if let (Some(cluster), false) = (cluster, is_router_span) {
            *sampled.entry(format!("{} {cluster}", event.proxy)).or_default() += 1;
        }
    }
    assert_eq!(counted.keys().collect::<Vec<_>>(), sampled.keys().collect::<Vec<_>>());
    let (all, seen): (u64, u64) = (counted.values().sum(), sampled.values().sum());
    let share = seen as f64 / all as f64;
    assert!((share - SAMPLED_SHARE).abs() < 0.05, "{seen} of {all}");
}

#[test]
fn everything_that_is_planted_grows() {
    let events = run(1, 120);
    let mut flags = BTreeSet::new();
    let mut codes = BTreeSet::new();
    for span in events.iter().filter_map(|event| event.span.as_ref()) {
        flags.insert(attribute(span, "response_flags").expect("flags").to_owned());
        codes.insert(attribute(span, "http.status_code").expect("a code").to_owned());
        let kept = attribute(span, "upstream_cluster").zip(attribute(span, "upstream_cluster.name"));
        assert!(kept.is_none_or(|(raw, alternative)| alternative == format!("{raw};")));
    }
    for planted in ["-", "DC", "NR", "UO", "URX", "UT"] {
        assert!(flags.contains(planted), "{planted} among {flags:?}");
    }
    for planted in ["0", "200", "402", "404", "409", "500", "502", "503", "504"] {
        assert!(codes.contains(planted), "{planted} among {codes:?}");
    }
    let truth = truth(events);
    let edge =
        |source: &str, target: &str| truth.all[&TruthEdge { source: source.to_owned(), target: target.to_owned() }];
    let stable = edge("istio-system/istio-ingressgateway@v1", "shop/orders@v1");
    let canary = edge("istio-system/istio-ingressgateway@v1", "shop/orders@v2");
    let share = canary.calls as f64 / (stable.calls + canary.calls) as f64;
    assert!((0.07..0.13).contains(&share), "canary share {share}");
    let retried = edge("shop/orders@v1", "shop/inventory@v1");
    assert!(retried.attempts > retried.calls);
    let broken = edge("shop/search@v1", "shop/recommend@v1");
    assert!(broken.attempts < broken.calls && broken.errors > 0);
    for (source, target) in [
        ("(client)", "istio-system/istio-ingressgateway@v1"),
        ("shop/checkout@v1", "shop/ledger"),
        ("shop/payments@v1", "istio-system/istio-egressgateway@v1"),
        ("istio-system/istio-egressgateway@v1", "partner-pay.example.com"),
        ("istio-system/istio-egressgateway@v1", "partner-sms.example.com"),
    ] {
        assert!(edge(source, target).calls > 0, "{source} → {target}");
    }
}
