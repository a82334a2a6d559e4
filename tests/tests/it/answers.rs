//! Every resource of the API tells the same story about one recorded run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use windrose_proto::time::{Clock as _, SystemClock};
use windrose_tests::capture::Capture;
use windrose_tests::client::Http;
use windrose_tests::places;
use windrose_tests::replay::{Plan, connect, export, shift_to_now};
use windrose_tests::server::{Home, TestServer};
use windrose_tests::synthetic::Request;
use windrose_tests::topology::{Topology, Window};
use windrose_tests::truth::{EGRESS, GATEWAY, Tracer, Truth, public_path};
use windrose_tests::wait::until;

use crate::support::{SHOWN_WITHIN, topology_of, window};

/// A server that took in the trimmed capture.
struct Mesh {
    server: TestServer,
    window: Window,
    truth: Truth,
    answer: Topology,
}

impl Mesh {
    async fn new() -> Self {
        let folder = places::capture("full");
        let capture = Capture::load(&folder);
        let truth = Truth::load(&folder, Tracer::OpenTelemetry);
        let server = Home::brisk().start().await;
        Plan::new(&capture, shift_to_now(&capture)).send(&server.ports()).await;
        let window = window();
        let answer = topology_of(&server.http(), window, &truth.edges()).await;
        Self { server, window, truth, answer }
    }

    fn http(&self) -> Http {
        self.server.http()
    }

    /// The `data` of a resource for the window of the run.
    async fn data(&self, resource: &str) -> Value {
        let separator = if resource.contains('?') { '&' } else { '?' };
        self.http().data(&format!("/api/v1/{resource}{separator}{}", self.window.parameters())).await
    }

    fn edge(&self, source: &str, target: &str) -> (String, u64) {
        let edge = self.answer.edges()[&(source.to_owned(), target.to_owned())];
        (edge.text("/id").to_owned(), edge.calls())
    }
}

fn rows<'a>(data: &'a Value, name: &str) -> &'a Vec<Value> {
    data[name].as_array().unwrap_or_else(|| panic!("no {name}: {data}"))
}

#[tokio::test]
async fn routes_egress_and_services() {
    let mesh = Mesh::new().await;
    let edges = mesh.truth.edges();

    let mut requests: BTreeMap<String, u64> = BTreeMap::new();
    let data = mesh.data("routes").await;
    for route in rows(&data, "routes") {
        let (_, path) = route["route"].as_str().unwrap().split_once(' ').unwrap_or_else(|| panic!("no path: {route}"));
        *requests.entry(public_path(path)).or_default() += route["requests"].as_u64().unwrap();
    }
    assert_eq!(requests, mesh.truth.traced_requests());

    let mut calls: BTreeMap<String, u64> = BTreeMap::new();
    let data = mesh.data("egress").await;
    for row in rows(&data, "egress") {
        let caller = row["caller"].as_str().unwrap_or_else(|| panic!("nobody called: {row}"));
        assert!(caller.ends_with("/payments") || caller.ends_with("/notify"), "{row}");
        *calls.entry(row["host"].as_str().unwrap().to_owned()).or_default() += row["calls"].as_u64().unwrap();
    }
    let left = edges.iter().filter(|(pair, _)| pair.0 == EGRESS);
    assert_eq!(calls, left.map(|(pair, edge)| (pair.1.clone(), edge.calls)).collect());

    let data = mesh.data("services").await;
    let names: Vec<&str> = rows(&data, "services").iter().map(|service| service["name"].as_str().unwrap()).collect();
    for workload in &mesh.truth.workloads {
        assert!(names.contains(&workload.app.as_str()), "{} is no service: {names:?}", workload.app);
    }
    let orders = mesh.data("services/shop/orders").await;
    assert_eq!(orders["versions"], json!(["v1", "v2"]), "{orders}");
    assert_eq!(rows(&orders, "outbound").len(), edges.keys().filter(|pair| pair.0 == "orders").count());
}

#[tokio::test]
async fn one_edge_in_full() {
    let mesh = Mesh::new().await;
    let (id, calls) = mesh.edge("orders", "inventory");
    let detail = mesh.data(&format!("edges/{id}")).await;
    assert_eq!(detail["evidence"]["calls"], calls);

    let history = mesh.data(&format!("edges/{id}/history?step=10s")).await;
    let counted: u64 = rows(&history, "points").iter().map(|point| point["calls"].as_u64().unwrap_or(0)).sum();
    assert_eq!(counted, calls, "the steps add up: {history}");

    let evidence = mesh.data(&format!("edges/{id}/evidence")).await;
    for trace in rows(&evidence, "traces") {
        let view = mesh.http().data(&format!("/api/v1/traces/{}", trace["trace_id"].as_str().unwrap())).await;
        let proves = |hop: &Value| hop["source"] == "shop/orders" && hop["target"] == "shop/inventory";
        assert!(rows(&view, "hops").iter().any(proves), "{trace} is no proof of the edge: {view}");
    }
    assert!(!rows(&evidence, "traces").is_empty(), "an edge seen by spans has proofs");

    let latency = mesh.data("latency?source=shop/orders&target=shop/inventory&quantiles=0.5,0.99").await;
    assert_eq!(latency["calls"], calls, "{latency}");
    let edge = &mesh.answer.edges()[&("orders".to_owned(), "inventory".to_owned())];
    assert_eq!(latency["max_ms"], edge.0["latency_ms"]["client"]["max"], "{latency}");
}

#[tokio::test]
async fn pictures_and_tables() {
    let mesh = Mesh::new().await;
    let fetch = async |format: &str| {
        let path = format!("/api/v1/topology?format={format}&{}", mesh.window.parameters());
        let answer = mesh.http().get(&path).await;
        assert_eq!(answer.status, 200, "{format}: {}", answer.text());
        answer.text()
    };
    let edges = mesh.answer.edges().len();
    let dot = fetch("dot").await;
    assert_eq!((dot.lines().next(), dot.matches(" -> ").count()), (Some("digraph windrose {"), edges), "{dot}");
    let mermaid = fetch("mermaid").await;
    assert_eq!((mermaid.lines().next(), mermaid.matches(" -->|").count()), (Some("flowchart LR"), edges), "{mermaid}");
    let csv = fetch("csv").await;
    assert_eq!(csv.lines().count(), edges + 1, "{csv}");
}

#[tokio::test]
async fn parts_of_the_topology() {
    let mesh = Mesh::new().await;
    let pairs = async |filter: &str| {
        let answer = Topology::fetch(&mesh.http(), &format!("{filter}&{}", mesh.window.parameters())).await.unwrap();
        answer.edges().into_keys().collect::<Vec<_>>()
    };
    let all = mesh.truth.edges();
    let with = |keep: &dyn Fn(&str, &str) -> bool| -> Vec<(String, String)> {
        all.keys().filter(|pair| keep(&pair.0, &pair.1)).cloned().collect()
    };
    let external = |name: &str| name.ends_with(".example.com");
    assert_eq!(pairs("direction=egress").await, with(&|from, to| from == EGRESS || to == EGRESS || external(to)));
    assert_eq!(pairs("direction=north_south").await, with(&|from, to| from == GATEWAY || to == GATEWAY));
    let downstream = pairs("focus=shop/payments&direction_of=down&depth=2").await;
    assert_eq!(downstream, with(&|from, _| from == "payments" || from == EGRESS));
    let upstream = pairs("focus=shop/payments&direction_of=up&depth=1").await;
    // What lies around the node: its callers, and how these call each other.
    let around = ["payments", "checkout", "orders"];
    assert_eq!(upstream, with(&|from, to| around.contains(&from) && around.contains(&to)));
    let report = pairs("route=GET+/api/report").await;
    assert_eq!(
        report,
        with(&|from, to| matches!((from, to), (_, GATEWAY) | (GATEWAY, "users") | ("users", "inventory")))
    );
    let versions = Topology::fetch(&mesh.http(), &format!("scope=version&{}", mesh.window.parameters())).await.unwrap();
    let orders = versions.raw["nodes"].as_array().unwrap().iter().filter(|node| node["name"] == "orders");
    assert!(orders.count() >= 2, "the canary is a node of its own: {}", versions.raw["nodes"]);
}

#[tokio::test]
async fn traces_are_found_and_explained() {
    let mesh = Mesh::new().await;
    let http = mesh.http();
    let slow = until("the traces to settle", SHOWN_WITHIN, async || {
        let found = mesh.data("traces?service=payments&status=error&min_duration_ms=300&limit=5").await;
        let found = found.as_array().unwrap().clone();
        if found.is_empty() { Err("no trace found") } else { Ok(found) }
    })
    .await;
    for trace in slow {
        assert!(trace["duration_ms"].as_f64().unwrap() >= 300.0 && trace["error"] == true, "{trace}");
        let id = trace["trace_id"].as_str().unwrap();
        let view = http.data(&format!("/api/v1/traces/{id}")).await;
        let at_fault = rows(&view, "hops").iter().filter(|hop| hop["root_cause"] == true);
        assert_eq!(at_fault.count(), 1, "one hop is the root cause: {view}");
        let explained = http.data(&format!("/api/v1/explain?trace={id}")).await;
        assert_eq!(rows(&explained, "spans").len(), rows(&view, "spans").len(), "{explained}");
    }
}

/// A promise about an idle machine, tried a few times because a test run is not one.
#[tokio::test]
async fn a_span_is_seen_soon() {
    const TRACE_WITHIN: Duration = Duration::from_secs(1);
    const EDGE_WITHIN: Duration = Duration::from_secs(2);
    let server = Home::new("").start().await;
    let http = server.http();
    let mut took = Vec::new();
    for number in 1..=5_u64 {
        let request = Request::new(number, SystemClock.now());
        export(connect(server.ports().otlp_grpc), request.export()).await.unwrap();
        let sent = Instant::now();
        let path = format!("/api/v1/traces/{}", request.trace_hex());
        until("the trace", SHOWN_WITHIN, async || {
            let answer = http.try_get(&path).await?;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        })
        .await;
        let trace = sent.elapsed();
        until("the edge", SHOWN_WITHIN, async || {
            let answer = Topology::fetch(&http, &window().parameters()).await?;
            let counts = answer.edges().values().all(|edge| edge.calls() == number) && answer.edges().len() == 2;
            if counts { Ok(()) } else { Err(answer.raw.to_string()) }
        })
        .await;
        took.push((trace, sent.elapsed()));
    }
    assert!(took.iter().any(|(trace, edge)| *trace <= TRACE_WITHIN && *edge <= EDGE_WITHIN), "{took:?}");
}
