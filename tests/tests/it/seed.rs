//! A mesh of three vendors from end to end: Kong in front of an Istio canary that leaves through an APISIX egress gateway.
//!
//! Twenty requests are traced and a thousand are counted: spans give the structure, counters the numbers, and nobody adds
//! one to the other.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use serde_json::{Value, json};
use windrose_proto::time::{Clock as _, SystemClock};
use windrose_tests::capture::{Capture, Message, ProxyPages, read_zstd};
use windrose_tests::client::Http;
use windrose_tests::pages::Pages;
use windrose_tests::places;
use windrose_tests::replay::{Plan, shift_to_now};
use windrose_tests::server::Home;
use windrose_tests::topology::Topology;
use windrose_tests::wait::until;

use crate::prometheus::samples;
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

/// A mean duration that the scraped histograms tell of what happened between the two pages.
#[derive(Debug)]
struct Mean {
    family: &'static str,
    selector: &'static str,
    millis: f64,
}

const MEANS: [Mean; 7] = [
    Mean { family: "kong_request_latency_ms", selector: "", millis: 79.71 },
    Mean {
        family: ISTIO,
        selector: r#"reporter="destination",source_app="unknown",app="orders",version="v1""#,
        millis: 71.889,
    },
    Mean {
        family: ISTIO,
        selector: r#"reporter="destination",source_app="unknown",app="orders",version="v2""#,
        millis: 50.0,
    },
    Mean { family: ISTIO, selector: r#"reporter="source",app="orders",version="v1""#, millis: 42.0 },
    Mean { family: ISTIO, selector: r#"reporter="source",app="orders",version="v2""#, millis: 20.0 },
    Mean { family: ISTIO, selector: r#"reporter="source",app="payments""#, millis: 12.0 },
    Mean { family: "apisix_http_latency", selector: r#"type="upstream""#, millis: 8.0 },
];

const ISTIO: &str = "istio_request_duration_milliseconds";

impl Mean {
    /// Sum and count so far.
    async fn read(&self, http: &Http) -> (f64, f64) {
        let now = SystemClock.now().as_secs_f64().to_string();
        let total = async |part: &str| {
            let query = format!("sum({}_{part}{{{}}})", self.family, self.selector);
            samples(http, &query, &now).await.first().map_or(0.0, |(_, value)| *value)
        };
        (total("sum").await, total("count").await)
    }
}

#[tokio::test]
async fn kong_istio_canary_and_apisix_egress() {
    let pages = Pages::serve(&pages()).await;
    let home = Home::new(&configuration(&pages));
    let server = home.start().await;
    pages.scraped().await;
    let capture = spans();
    Plan::new(&capture, shift_to_now(&capture)).send(&server.ports()).await;
    let http = server.http();
    let mut before = Vec::new();
    for mean in &MEANS {
        before.push(mean.read(&http).await);
    }
    pages.show_last();
    pages.scraped().await;
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
    let versions = Topology::fetch(&http, &format!("{}&scope=version", window().parameters())).await.unwrap();
    check_versions(&versions);
    for (mean, before) in MEANS.iter().zip(before) {
        let (sum, count) = mean.read(&http).await;
        let found = (sum - before.0) / (count - before.1);
        assert!((found - mean.millis).abs() < 1e-3, "{mean:?}: {found}");
    }
    assert_eq!(server.complaints(), Vec::<String>::new());
}

/// Seen by version, the canary is two nodes, and Kong's own counters, which know no version, are not told beside them.
#[track_caller]
fn check_versions(answer: &Topology) {
    let told = |edge: &Value| {
        let text = |field: &str| edge[field].as_str().unwrap().replace("Kubernetes/", "");
        let counted = edge["evidence"]["counter_requests"].as_f64().unwrap();
        let errors = (counted * edge["errors"]["ratio"].as_f64().unwrap()).round();
        (text("source"), text("target"), counted, errors, edge["resilience"]["timeouts"].as_f64().unwrap())
    };
    let found: Vec<_> = answer.raw["edges"].as_array().unwrap().iter().map(told).collect();
    let expect = [
        ("(client)", KONG, 1000.0, 10.0, 0.0),
        (KONG, "shop/orders@v1", 900.0, 10.0, 0.0),
        (KONG, "shop/orders@v2", 100.0, 0.0, 0.0),
        ("egress/apisix-egress", PARTNER, 990.0, 5.0, 0.0),
        ("shop/orders@v1", "shop/payments@v1", 900.0, 10.0, 10.0),
        ("shop/orders@v2", "shop/payments@v1", 100.0, 0.0, 0.0),
        ("shop/payments@v1", "egress/apisix-egress", 990.0, 5.0, 0.0),
    ];
    let expect = expect.map(|(from, to, calls, errors, late)| (from.to_owned(), to.to_owned(), calls, errors, late));
    assert_eq!(found, expect);
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
