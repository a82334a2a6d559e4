//! The demo against a real server in this process: what it answers is what the generator did.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use windrose_proto::edge::LIVE_WINDOW_NANOS;
use windrose_proto::time::{Clock, SystemClock};
use windrose_store::disk::OsDisk;

use super::{Driver, Fleet, Truth};
use crate::app::App;
use crate::client::ApiClient;
use crate::config::{Config, Loaded, Overrides};
use crate::tasks::Tasks;

/// The server may be this slow on a busy machine before the test fails.
const WITHIN: Duration = Duration::from_secs(60);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

fn config(directory: &TempDir, fleet: &Fleet) -> Loaded {
    let data = directory.path().display();
    let yaml = format!(
        "data_dir: {data}\nlisten: {{otlp_grpc: '127.0.0.1:0', otlp_http: '127.0.0.1:0', zipkin: '127.0.0.1:0', http: '127.0.0.1:0'}}\n{}",
        fleet.scrape_yaml()
    );
    Config::load(Some(("test", &yaml)), &Overrides::default()).expect("a good configuration")
}

type Edges = BTreeMap<(String, String), (i64, i64)>;

/// Calls and errors per edge by spans; nodes as `namespace/name`. Versions are left out: a call that a
/// circuit breaker refused reached none.
fn answered(topology: &Value) -> Edges {
    let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned);
    let name_of = |node: &Value| {
        let namespace = text(node, "namespace").map(|namespace| format!("{namespace}/")).unwrap_or_default();
        format!("{namespace}{}", text(node, "name").unwrap_or_default())
    };
    let nodes: BTreeMap<String, String> = topology["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|node| (text(node, "id").unwrap_or_default(), name_of(node)))
        .collect();
    let edges = topology["edges"].as_array().into_iter().flatten().map(|edge| {
        let end = |key| nodes.get(&text(edge, key).unwrap_or_default()).cloned().unwrap_or_default();
        let calls = edge.pointer("/evidence/calls").and_then(Value::as_i64).unwrap_or(-1);
        let errors = edge.pointer("/errors/total").and_then(Value::as_i64).unwrap_or(-1);
        ((end("source"), end("target")), (calls, errors))
    });
    edges.collect()
}

fn expected(truth: &Truth) -> Edges {
    let number = |count: u64| i64::try_from(count).expect("a count");
    let unversioned = |node: &str| node.split('@').next().unwrap_or_default().to_owned();
    let mut edges = Edges::new();
    for (edge, counts) in &truth.sampled {
        let sum = edges.entry((unversioned(&edge.source), unversioned(&edge.target))).or_default();
        *sum = (sum.0 + number(counts.calls), sum.1 + number(counts.errors));
    }
    edges
}

#[test]
fn the_server_answers_what_the_generator_did() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let tasks = Tasks::new(runtime.handle().clone());
    let fleet = Fleet::start(Arc::clone(&clock), &tasks).expect("ports");
    let directory = TempDir::new().expect("a directory");
    let started = clock.now().window_start(LIVE_WINDOW_NANOS);
    let loaded = config(&directory, &fleet);
    let made = loaded.clone();
    let source = Arc::new(move || Ok(made.clone()));
    let app = App::start(&loaded, source, Arc::new(OsDisk), Arc::clone(&clock)).expect("a server");
    runtime.block_on(async {
        let otlp = format!("http://{}", app.addresses().otlp_grpc);
        let driver = Driver::new(fleet.clone(), &otlp, 5, 150.0).expect("a driver");
        let requests = async {
            let mut looks = tokio::time::interval(LOOK);
            while fleet.progress().truth.sampled.values().map(|counts| counts.calls).sum::<u64>() < 2_000 {
                looks.tick().await;
            }
        };
        driver.run(requests).await;
        let progress = fleet.progress();
        assert_eq!(progress.spans_lost, 0, "{:?}", progress.last_error);
        let client = ApiClient::new(&format!("http://{}", app.addresses().http), None).expect("a client");
        let range = [("start", format!("{:.3}", started.as_secs_f64()))];
        let wanted = expected(&progress.truth);
        let mut looks = tokio::time::interval(LOOK);
        let agrees = async {
            loop {
                looks.tick().await;
                if answered(&client.data("/api/v1/topology", &range).await.expect("an answer")) == wanted {
                    break;
                }
            }
        };
        if tokio::time::timeout(WITHIN, agrees).await.is_err() {
            let answer = client.data("/api/v1/topology", &range).await.expect("an answer");
            panic!("left: answered, right: true\n{:#?}\n{:#?}", answered(&answer), wanted);
        }
    });
    runtime.block_on(tasks.stop());
    app.shutdown();
}
