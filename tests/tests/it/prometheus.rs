//! The Prometheus API over a running mesh: its numbers are those of the topology, and every panel of every dashboard
//! shows something.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use windrose_proto::time::{Clock as _, SystemClock};
use windrose_tests::capture::Capture;
use windrose_tests::client::{Answer, Http};
use windrose_tests::places;
use windrose_tests::replay::{Plan, shift_to_now};
use windrose_tests::server::Home;
use windrose_tests::truth::{Tracer, Truth};
use windrose_tests::wait::until;

use crate::support::{topology_of, window};

/// `POST path` with a form, as Grafana asks.
async fn form(http: &Http, path: &str, parameters: &[(&str, &str)]) -> Answer {
    let pairs = parameters.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    let body = pairs.collect::<Vec<_>>().join("&");
    http.post(path, &[("content-type", "application/x-www-form-urlencoded")], body).await
}

/// A text as it may stand in a query string.
pub(crate) fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The result of a query at one instant: labels and values.
pub(crate) async fn samples(http: &Http, query: &str, time: &str) -> Vec<(BTreeMap<String, String>, f64)> {
    let answer = form(http, "/api/v1/query", &[("query", query), ("time", time)]).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    let result = answer.json()["data"]["result"].take();
    let sample = |sample: &Value| {
        let labels = serde_json::from_value(sample["metric"].clone()).unwrap();
        (labels, sample["value"][1].as_str().unwrap().parse().unwrap())
    };
    result.as_array().unwrap().iter().map(sample).collect()
}

/// The same by the values of some labels.
async fn by(http: &Http, labels: &[&str], query: &str, time: &str) -> BTreeMap<Vec<String>, f64> {
    let found = samples(http, query, time).await.into_iter();
    let key = |have: &BTreeMap<String, String>| {
        labels.iter().map(|label| have.get(*label).cloned().unwrap_or_default()).collect()
    };
    found.map(|(have, value)| (key(&have), value)).collect()
}

fn close(found: f64, expect: f64) -> bool {
    (found - expect).abs() <= 1e-6 * expect.abs().max(1.0)
}

#[track_caller]
fn assert_equal(what: &str, found: &BTreeMap<Vec<String>, f64>, expect: &BTreeMap<Vec<String>, f64>) {
    assert!(!expect.is_empty(), "{what}: nothing to compare");
    assert_eq!(found.keys().collect::<Vec<_>>(), expect.keys().collect::<Vec<_>>(), "{what}");
    for (key, expect) in expect {
        assert!(close(found[key], *expect), "{what} of {key:?}: {} instead of {expect}", found[key]);
    }
}

#[tokio::test]
async fn series_are_the_topology_in_other_words() {
    let folder = places::capture("full");
    let capture = Capture::load(&folder);
    let truth = Truth::load(&folder, Tracer::OpenTelemetry);
    let server = Home::brisk().start().await;
    let http = server.http();
    Plan::new(&capture, shift_to_now(&capture)).send(&server.ports()).await;
    let window = window();
    let topology = topology_of(&http, window, &truth.edges()).await.raw;

    let (start, end) = (window.start.as_millis(), window.end.as_millis());
    let time = format!("{}.{:03}", end / 1000, end % 1000);
    let increase = |selector: &str| format!("increase({selector}[{}ms])", end - start);
    let edges = topology["edges"].as_array().unwrap();
    let of_edges = |read: &dyn Fn(&Value) -> Option<f64>| -> BTreeMap<Vec<String>, f64> {
        let end = |edge: &Value, name: &str| edge[name].as_str().unwrap().to_owned();
        edges.iter().filter_map(|edge| Some((vec![end(edge, "source"), end(edge, "target")], read(edge)?))).collect()
    };
    let ends = ["source", "target"];
    let sum = |selector: &str| format!("sum by (source, target) ({})", increase(selector));

    let calls = by(&http, &ends, &sum("windrose_edge_requests_total{observed_by=\"spans\"}"), &time).await;
    assert_equal("calls", &calls, &of_edges(&|edge| edge["evidence"]["calls"].as_f64()));
    let errors = by(&http, &ends, &sum("windrose_edge_errors_total{observed_by=\"spans\"}"), &time).await;
    assert_equal("errors", &errors, &of_edges(&|edge| edge["errors"]["total"].as_f64()));
    let count = by(&http, &ends, &sum("windrose_edge_latency_seconds_count{side=\"client\"}"), &time).await;
    let counted = |edge: &Value| edge["latency_ms"]["client"]["count"].as_f64().filter(|count| *count > 0.0);
    assert_equal("latencies", &count, &of_edges(&counted));
    let slowest =
        "max by (source, target) (last_over_time(windrose_topology_edge_latency_seconds{quantile=\"1\"}[RANGE]))";
    let slowest = by(&http, &ends, &slowest.replace("RANGE", &format!("{}ms", end - start)), &time).await;
    let slow = |edge: &Value| {
        let side = |side: &str| edge["latency_ms"][side]["max"].as_f64();
        side("client").or_else(|| side("server")).map(|millis| millis / 1e3)
    };
    assert_equal("slowest", &slowest, &of_edges(&slow));
    let rate = format!("sum by (source, target) (last_over_time(windrose_topology_edge[{}ms]))", end - start);
    let per_second = of_edges(&|edge| edge["calls"]["per_second"].as_f64());
    assert_equal("calls per second", &by(&http, &ends, &rate, &time).await, &per_second);

    let parameters = window.parameters();
    let routes = http.data(&format!("/api/v1/routes?{parameters}")).await;
    let requests = routes["routes"].as_array().unwrap().iter();
    let requests =
        requests.map(|route| (vec![route["route"].as_str().unwrap().to_owned()], route["requests"].as_f64().unwrap()));
    let mut expect: BTreeMap<Vec<String>, f64> = BTreeMap::new();
    requests.for_each(|(route, requests)| *expect.entry(route).or_default() += requests);
    let query = format!("sum by (route) ({})", increase("windrose_route_requests_total"));
    assert_equal("requests", &by(&http, &["route"], &query, &time).await, &expect);

    let mut expect: BTreeMap<Vec<String>, f64> = BTreeMap::new();
    let egress = http.data(&format!("/api/v1/egress?{parameters}")).await;
    for row in egress["egress"].as_array().unwrap() {
        let key = vec![row["host"].as_str().unwrap().to_owned(), row["caller"].as_str().unwrap_or_default().to_owned()];
        *expect.entry(key).or_default() += row["calls"].as_f64().unwrap();
    }
    let query = format!("sum by (host, caller) ({})", increase("windrose_egress_requests_total"));
    assert_equal("egress", &by(&http, &["host", "caller"], &query, &time).await, &expect);

    // A slow call leads to its trace.
    let parameters =
        [("query", "windrose_route_latency_seconds_bucket"), ("start", &*(start / 1000).to_string()), ("end", &*time)];
    let exemplars = form(&http, "/api/v1/query_exemplars", &parameters).await.json()["data"].take();
    let trace =
        exemplars[0]["exemplars"][0]["labels"]["trace_id"].as_str().unwrap_or_else(|| panic!("{exemplars}")).to_owned();
    let view = http.data(&format!("/api/v1/traces/{trace}")).await;
    assert!(!view["spans"].as_array().unwrap().is_empty(), "{view}");
}

/// A dashboard's panels: title, expression, whether it is asked at one instant.
fn targets(dashboard: &Value) -> Vec<(String, String, bool)> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().unwrap().clone();
        targets.into_iter().map(move |target| {
            let expr = target["expr"].as_str().unwrap().to_owned();
            (title.clone(), expr, target["instant"] == true)
        })
    });
    targets.collect()
}

/// What Grafana puts in for its variables and the dashboard's own, all chosen.
fn filled_in(expr: &str, dashboard: &Value) -> String {
    let expr = expr.replace("$__rate_interval", "1m0s").replace("$__range", "600s").replace("$__interval", "15s");
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    variables.fold(expr, |expr, variable| expr.replace(&format!("${}", variable["name"].as_str().unwrap()), ".*"))
}

fn dashboards() -> Vec<(PathBuf, Value)> {
    let folder = places::repository().join("dashboards");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    files.map(|path| (path.clone(), serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap())).collect()
}

/// What keeps a panel from showing something.
async fn emptiness(http: &Http, expr: &str, instant: bool) -> Result<(), String> {
    let now = SystemClock.now().as_millis() / 1000;
    let (path, parameters) = if instant {
        ("/api/v1/query", vec![("query", expr.to_owned()), ("time", now.to_string())])
    } else {
        let (start, step) = ((now - 300).to_string(), "15".to_owned());
        (
            "/api/v1/query_range",
            vec![("query", expr.to_owned()), ("start", start), ("end", now.to_string()), ("step", step)],
        )
    };
    let parameters: Vec<(&str, &str)> = parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = form(http, path, &parameters).await;
    if answer.status != 200 {
        return Err(format!("{}: {}", answer.status, answer.text()));
    }
    let result = answer.json()["data"]["result"].take();
    let points = |series: &Value| {
        let mut points = series["values"].as_array().cloned().unwrap_or_default();
        points.extend((!series["value"].is_null()).then(|| series["value"].clone()));
        points
    };
    let any = result.as_array().unwrap().iter().flat_map(points).any(|point| point[1] != "NaN");
    if any { Ok(()) } else { Err("nothing to show".to_owned()) }
}

#[tokio::test]
async fn no_panel_of_any_dashboard_is_empty() {
    let dashboards = dashboards();
    assert_eq!(dashboards.len(), 3);
    let directory = tempfile::TempDir::with_prefix("windrose-test-").unwrap();
    let listen = ["otlp-grpc", "otlp-http", "zipkin", "http"].map(|port| format!("--listen-{port}=127.0.0.1:0"));
    let mut demo = Command::new(places::binary())
        .args(["demo", "--duration", "300s", "--data-dir", "data"])
        .args(&listen)
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let address = loop {
        let line = lines.next_line().await.unwrap().expect("the demo says where to look");
        let address = line.split_once("http://").and_then(|(_, rest)| rest.split_once("/api/v1/"));
        if let Some((address, _)) = address {
            break address.parse().unwrap();
        }
    };
    // What it goes on to print is read away, or it would stop at a full pipe.
    let reading = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    let http = Http::new(address);
    for (path, dashboard) in &dashboards {
        for (title, expr, instant) in targets(dashboard) {
            let expr = filled_in(&expr, dashboard);
            let what = format!("{}: {title}: {expr}", path.file_name().unwrap().to_string_lossy());
            let parsed = form(&http, "/api/v1/parse_query", &[("query", &expr)]).await;
            assert_eq!(parsed.status, 200, "{what}: {}", parsed.text());
            until(&what, Duration::from_secs(120), async || emptiness(&http, &expr, instant).await).await;
        }
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            let query = variable["query"]["query"].as_str().unwrap();
            let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap();
            let (metric, label) = inner.split_once(", ").unwrap();
            let values = http.data(&format!("/api/v1/label/{label}/values?match[]={metric}")).await;
            assert!(!values.as_array().unwrap().is_empty(), "{query}");
        }
    }
    demo.kill().await.unwrap();
    reading.await.unwrap();
}
