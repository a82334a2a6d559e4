//! From scraped pages to numbers on edges: what the proxies' counters say equals their access logs.

use std::collections::BTreeMap;
use std::path::Path;

use windrose_tests::capture::Capture;
use windrose_tests::client::Http;
use windrose_tests::pages::Pages;
use windrose_tests::places;
use windrose_tests::replay::{Plan, shift_to_now};
use windrose_tests::server::Home;
use windrose_tests::topology::{Edge, Topology};
use windrose_tests::truth::{CLIENT, Pair, ProxyTotal, Tracer, Truth, target};
use windrose_tests::wait::until;

use crate::support::{SHOWN_WITHIN, topology_of, window};

/// Fewest and most calls of an edge that counters may show. They differ where Envoy counts no answer: a caller that hung
/// up, and an injected fault, which never reaches the cluster that is counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    least: u64,
    most: u64,
}

/// From the gateways' and sidecars' own access logs of the whole run.
pub(crate) fn logged(truth: &Truth) -> BTreeMap<Pair, Counted> {
    let mut edges: BTreeMap<Pair, Counted> = BTreeMap::new();
    for total in truth.totals.iter().filter(|total| total.listener != "inbound") {
        let Some(callee) = target(&total.cluster) else { continue };
        let workload = truth.workloads.iter().find(|workload| workload.name == total.proxy).unwrap();
        let edge = edges.entry((workload.app.clone(), callee.to_owned())).or_default();
        let calls = total.count - refused(total);
        edge.least += calls - total.zero - total.flags.get("FI").unwrap_or(&0);
        edge.most += calls;
    }
    edges
}

/// From what the applications of a run without access logs counted, traced or not.
fn called(folder: &Path) -> BTreeMap<Pair, Counted> {
    let edges = Truth::load(folder, Tracer::Everything).edges();
    let from_proxies = edges.into_iter().filter(|(pair, _)| pair.0 != CLIENT);
    let counts = from_proxies.map(|(pair, edge)| {
        let hung_up = edge.errors.1 - edge.errors.0;
        let injects_faults = pair.0 == "orders" && pair.1 == "users";
        let injected = if injects_faults { edge.calls - edge.arrivals.unwrap_or(edge.calls) } else { 0 };
        (pair, Counted { least: edge.calls - hung_up - injected, most: edge.calls })
    });
    counts.collect()
}

/// What a gateway answered itself although its route led to a cluster: no key, too many requests.
fn refused(total: &ProxyTotal) -> u64 {
    let codes = ["401", "429"].iter().filter_map(|code| total.code.get(*code));
    if total.listener == "gateway" { codes.sum() } else { 0 }
}

/// Waits until the counters of every edge say what the access logs say.
pub(crate) async fn counters_equal(http: &Http, expect: &BTreeMap<Pair, Counted>) {
    let answer = until("the counters to equal the access logs", SHOWN_WITHIN, async || {
        let answer = Topology::fetch(http, &window().parameters()).await?;
        differences(&answer, expect).map(|()| answer)
    })
    .await;
    let edges = answer.edges();
    for pair in expect.keys() {
        check_coverage(pair, edges[pair]);
    }
}

fn differences(answer: &Topology, expect: &BTreeMap<Pair, Counted>) -> Result<(), String> {
    let edges = answer.edges();
    let mut wrong = Vec::new();
    for (pair, expect) in expect {
        let found = edges.get(pair).map(|edge| edge.0["evidence"]["counter_requests"].clone()).unwrap_or_default();
        let source = edges.get(pair).map_or("", |edge| edge.text("/calls/source"));
        match found.as_u64() {
            // Requests given up are counted a few pages later; until then spans may have seen more.
            Some(calls) if (expect.least..=expect.most).contains(&calls) && source == "counter" => {}
            _ => wrong.push(format!("{pair:?}: counters say {found}, the access log {expect:?}")),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn check_coverage(pair: &Pair, edge: Edge<'_>) {
    let counters = edge.number("/evidence/counter_requests");
    let total = edge.number("/calls/total");
    assert_eq!(edge.text("/calls/source"), "counter", "{pair:?}");
    assert!((total - counters).abs() < 1e-9, "{pair:?}: {total} calls, {counters} counted");
    let ratio = edge.number("/evidence/coverage_ratio");
    let expect = edge.calls() as f64 / counters;
    assert!((ratio - expect).abs() < 1e-9, "{pair:?}: coverage {ratio}, expected {expect}");
}

async fn check(name: &str, expect: impl Fn(&Truth, &Path) -> BTreeMap<Pair, Counted>) {
    let folder = places::capture(name);
    let capture = Capture::load(&folder);
    let truth = Truth::load(&folder, Tracer::OpenTelemetry);
    let pages = Pages::serve(&capture.pages).await;
    let home = Home::new(
        "join:\n  settle_after: 1s\n  tick: 200ms\nglobal:\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\n\
         scrape_configs:\n  - job_name: mesh\n    file_sd_configs:\n      - files: [targets.json]\n",
    );
    std::fs::write(home.path().join("targets.json"), pages.file_sd(&truth.workloads).to_string()).unwrap();
    let server = home.start().await;
    // The first page makes the start of every counter, the last one what was counted since.
    pages.scraped().await;
    Plan::new(&capture, shift_to_now(&capture)).send(&server.ports()).await;
    topology_of(&server.http(), window(), &truth.edges()).await;
    pages.show_last();
    pages.scraped().await;
    counters_equal(&server.http(), &expect(&truth, &folder)).await;
}

#[tokio::test]
async fn istio_stat_names() {
    check("full", |truth, _| logged(truth)).await;
}

#[tokio::test]
async fn plain_stat_names() {
    check("plain", |_, folder| called(folder)).await;
}
