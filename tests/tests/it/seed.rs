//! A mesh of three vendors from end to end: Kong in front of an Istio canary that leaves through an APISIX egress gateway.
//!
//! Twenty requests are traced and a thousand are counted: spans give the structure, counters the numbers, and nobody adds
//! one to the other.

use std::collections::BTreeMap;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use serde_json::json;
use windrose_tests::capture::{Capture, Message, ProxyPages, read_zstd};
use windrose_tests::pages::Pages;
use windrose_tests::places;
use windrose_tests::replay::{Plan, shift_to_now};
use windrose_tests::server::Home;
use windrose_tests::topology::Topology;
use windrose_tests::wait::until;

use crate::support::{SHOWN_WITHIN, window};

const KONG: &str = "kong";
const PARTNER: &str = "api.partner.example";

/// What service discovery knows of the scraped proxies.
const PROXIES: [(&str, &str); 5] = [
    ("kong", "app: kong, kind: gateway"),
    ("orders-v1", "app: orders, namespace: shop, version: v1"),
    ("orders-v2", "app: orders, namespace: shop, version: v2"),
    ("payments", "app: payments, namespace: shop, version: v1"),
    ("apisix-egress", "app: apisix-egress, kind: egress"),
];

fn pages() -> Vec<ProxyPages> {
    let folder = places::capture("seed").join("pages");
    let page = |proxy: &str, at: &str| Bytes::from(read_zstd(&folder.join(format!("{proxy}-{at}.prom.zst"))));
    PROXIES
        .iter()
        .map(|(proxy, _)| ProxyPages { proxy: (*proxy).to_owned(), pages: vec![page(proxy, "t0"), page(proxy, "t1")] })
        .collect()
}

fn spans() -> Capture {
    let body = Bytes::from(read_zstd(&places::capture("seed").join("spans.pb.zst")));
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    let last_arrival_nanos = scopes.flat_map(|scope| &scope.spans).map(|span| span.end_time_unix_nano).max().unwrap();
    Capture { last_arrival_nanos, messages: vec![Message::Otlp(request)], pages: Vec::new() }
}

fn configuration(pages: &Pages) -> String {
    let mut text =
        "join:\n  settle_after: 1s\n  tick: 200ms\nglobal:\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\n\
                    scrape_configs:\n  - job_name: mesh\n    static_configs:\n"
            .to_owned();
    for ((proxy, address), (described, labels)) in pages.addresses().zip(PROXIES) {
        assert_eq!(proxy, described);
        text += &format!("      - targets: [\"{address}\"]\n        labels: {{{labels}}}\n");
    }
    text
}

/// What an edge must say: calls and failures counted, calls and failures traced, direction.
struct Expect {
    ends: (&'static str, &'static str),
    direction: &'static str,
    counted: u64,
    traced: u64,
    traced_errors: u64,
}

const EDGES: [Expect; 5] = [
    Expect { ends: ("(client)", KONG), direction: "north_south", counted: 1000, traced: 20, traced_errors: 1 },
    Expect { ends: (KONG, "orders"), direction: "north_south", counted: 1000, traced: 20, traced_errors: 1 },
    Expect { ends: ("orders", "payments"), direction: "east_west", counted: 1000, traced: 20, traced_errors: 1 },
    Expect { ends: ("payments", "apisix-egress"), direction: "egress", counted: 990, traced: 19, traced_errors: 1 },
    Expect { ends: ("apisix-egress", PARTNER), direction: "egress", counted: 990, traced: 19, traced_errors: 1 },
];

#[tokio::test]
async fn kong_istio_canary_and_apisix_egress() {
    let pages = Pages::serve(&pages()).await;
    let home = Home::new(&configuration(&pages));
    let server = home.start().await;
    pages.scraped().await;
    let capture = spans();
    Plan::new(&capture, shift_to_now(&capture)).send(&server.ports()).await;
    pages.show_last();
    pages.scraped().await;
    let http = server.http();
    let answer = until("the topology of the seed", SHOWN_WITHIN, async || {
        let answer = Topology::fetch(&http, &window().parameters()).await?;
        let wrong = differences(&answer);
        if wrong.is_empty() { Ok(answer) } else { Err(format!("{}\n{:#}", wrong.join("\n"), answer.raw)) }
    })
    .await;
    let edges = answer.edges();
    let edge = |source: &str, target: &str| edges[&(source.to_owned(), target.to_owned())];
    // The canary: 900 and 100 of 1000 by counters, whatever 20 traces would make of it.
    let shares: Vec<_> = edge(KONG, "orders").0["versions"].as_array().unwrap().clone();
    assert_eq!(shares, [json!({"version": "v1", "share": 0.9}), json!({"version": "v2", "share": 0.1})]);
    // A sidecar that gave up after its own timeout, and a partner that failed.
    assert_eq!(edge("orders", "payments").0["resilience"]["timeouts"], 10);
    for (source, target, errors, calls) in [
        ("orders", "payments", 10.0, 1000.0),
        ("payments", "apisix-egress", 5.0, 990.0),
        ("apisix-egress", PARTNER, 5.0, 990.0),
    ] {
        let ratio = edge(source, target).number("/errors/ratio");
        assert!((ratio - errors / calls).abs() < 1e-9, "{source} -> {target}: {ratio}");
    }
    let by = |source: &str, target: &str| edge(source, target).0["errors"]["by"][0].clone();
    let timeout = by("orders", "payments");
    assert_eq!(
        (&timeout["code"], &timeout["reason"], &timeout["fault"]),
        (&json!("504"), &json!("timeout"), &json!("proxy"))
    );
    assert_eq!(by("apisix-egress", PARTNER)["fault"], "upstream");
    // Seen by version, the canary is two nodes.
    let versions = Topology::fetch(&http, &format!("{}&scope=version", window().parameters())).await.unwrap();
    let counted: BTreeMap<&str, u64> = versions.raw["edges"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|edge| edge["source"] == KONG)
        .filter_map(|edge| Some((edge["target"].as_str()?, edge["evidence"]["counter_requests"].as_u64()?)))
        .collect();
    assert_eq!(counted, BTreeMap::from([("shop/orders@v1", 900), ("shop/orders@v2", 100)]));
    assert_eq!(server.complaints(), Vec::<String>::new());
}

fn differences(answer: &Topology) -> Vec<String> {
    let edges = answer.edges();
    let mut wrong: Vec<String> = Vec::new();
    for expect in &EDGES {
        let Expect { ends: (source, target), direction, counted, traced, traced_errors } = *expect;
        let Some(edge) = edges.get(&(source.to_owned(), target.to_owned())) else {
            wrong.push(format!("{source} -> {target}: missing"));
            continue;
        };
        let found =
            (edge.text("/direction"), edge.0["evidence"]["counter_requests"].as_u64(), edge.calls(), edge.errors());
        let wanted = (direction, Some(counted), traced, traced_errors);
        if found != wanted {
            wrong.push(format!("{source} -> {target}: {found:?}, expected {wanted:?}"));
        }
    }
    let surplus = edges.keys().filter(|(source, target)| !EDGES.iter().any(|known| known.ends == (source, target)));
    wrong.extend(surplus.map(|(source, target)| format!("{source} -> {target}: nobody called")));
    wrong
}
