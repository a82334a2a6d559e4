//! What was acknowledged is there: after a kill, after an orderly end, in every answer exactly once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use windrose_proto::time::{Clock as _, SystemClock};
use windrose_tests::capture::Capture;
use windrose_tests::client::Http;
use windrose_tests::places;
use windrose_tests::replay::{Plan, connect, export, shift_to_now};
use windrose_tests::server::{Home, TestServer};
use windrose_tests::synthetic::{Request, SPANS_PER_REQUEST};
use windrose_tests::topology::Topology;
use windrose_tests::truth::{Tracer, Truth};
use windrose_tests::wait::until;

use crate::support::{SHOWN_WITHIN, topology_of, window};

/// Senders that push at the same time, each waiting for its acknowledgements: group commits carry several of them.
const SENDERS: usize = 8;
/// Acknowledged requests before each kill: several group commits and seals.
const REQUESTS_PER_ROUND: usize = 300;
/// Kills; each next server replays what all before it left.
const ROUNDS: usize = 4;

/// Pushes requests with growing numbers and remembers which were acknowledged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    next: Arc<AtomicU64>,
    acknowledged: Arc<Mutex<BTreeSet<u64>>>,
}

impl Load {
    /// Starts senders that push until the server goes away.
    pub(crate) fn start(&self, server: &TestServer) -> JoinSet<()> {
        let mut senders = JoinSet::new();
        for _ in 0..SENDERS {
            let (load, client) = (self.clone(), connect(server.ports().otlp_grpc));
            senders.spawn(async move {
                loop {
                    let number = load.next.fetch_add(1, Ordering::SeqCst);
                    let request = Request::new(number, SystemClock.now().minus(Duration::from_secs(1)));
                    if export(client.clone(), request.export()).await.is_err() {
                        return;
                    }
                    load.acknowledged.lock().await.insert(number);
                }
            });
        }
        senders
    }

    /// Waits until so many more were acknowledged.
    pub(crate) async fn acknowledged_more(&self, more: usize) {
        let before = self.acknowledged.lock().await.len();
        until("acknowledgements", SHOWN_WITHIN, async || {
            let now = self.acknowledged.lock().await.len();
            if now >= before + more { Ok(()) } else { Err(format!("{} acknowledged", now - before)) }
        })
        .await;
    }

    /// Every acknowledged span is there, and nothing is there twice: by trace, by table, by edge.
    async fn all_there_once(&self, http: &Http) {
        let requests = self.spans_there_once(http, SHOWN_WITHIN).await;
        let acknowledged = self.acknowledged.lock().await.clone();
        self.traces_answer(http, &acknowledged).await;
        self.edges_there_once(http, requests, SHOWN_WITHIN).await;
    }

    /// Every acknowledged span is in the table, and none twice. Returns how many requests are stored.
    pub(crate) async fn spans_there_once(&self, http: &Http, within: Duration) -> usize {
        let acknowledged = self.acknowledged.lock().await.clone();
        let stored = until("every acknowledged span to be stored", within, async || {
            let rows = http.sql("SELECT trace_id, count(*) AS spans FROM spans GROUP BY trace_id").await;
            let stored: BTreeSet<String> =
                rows.iter().filter(|row| row["spans"] == SPANS_PER_REQUEST).map(trace_id).collect();
            let lacking = acknowledged.iter().filter(|number| !stored.contains(&trace_hex(**number))).count();
            if lacking == 0 {
                Ok(rows)
            } else {
                Err(format!("{lacking} of {} acknowledged lack spans", acknowledged.len()))
            }
        })
        .await;
        let more = stored.iter().find(|row| row["spans"].as_u64() > Some(SPANS_PER_REQUEST as u64));
        assert_eq!(more, None, "a trace has more spans than were sent");
        stored.len()
    }

    async fn traces_answer(&self, http: &Http, acknowledged: &BTreeSet<u64>) {
        for number in acknowledged {
            let trace = http.data(&format!("/api/v1/traces/{}", trace_hex(*number))).await;
            let spans: Vec<&Value> = trace["spans"].as_array().unwrap().iter().map(|span| &span["span_id"]).collect();
            let distinct: BTreeSet<String> = spans.iter().map(ToString::to_string).collect();
            assert_eq!((spans.len(), distinct.len()), (SPANS_PER_REQUEST, SPANS_PER_REQUEST), "{trace}");
        }
    }

    /// Each stored request is one call of each of its two edges.
    pub(crate) async fn edges_there_once(&self, http: &Http, requests: usize, within: Duration) {
        until("the edges to count every stored request once", within, async || {
            let answer = Topology::fetch(http, &window().parameters()).await?;
            let calls: Vec<u64> = answer.edges().values().map(|edge| edge.calls()).collect();
            if calls == [requests as u64; 2] { Ok(()) } else { Err(format!("{calls:?} calls of {requests} requests")) }
        })
        .await;
    }
}

fn trace_hex(number: u64) -> String {
    Request::new(number, SystemClock.now()).trace_hex()
}

fn trace_id(row: &Value) -> String {
    row["trace_id"].as_str().expect("a trace id").to_owned()
}

/// Settles and seals so often that kills fall into both.
fn busy_home() -> Home {
    Home::new("join:\n  settle_after: 500ms\n  tick: 100ms\nseal:\n  interval: 1s\n")
}

#[tokio::test]
async fn killed_under_load_again_and_again() {
    let (home, load) = (busy_home(), Load::default());
    for _ in 0..ROUNDS {
        let server = home.start().await;
        let mut senders = load.start(&server);
        load.acknowledged_more(REQUESTS_PER_ROUND).await;
        server.kill().await;
        while senders.join_next().await.is_some() {}
    }
    let server = home.start().await;
    load.all_there_once(&server.http()).await;
}

#[tokio::test]
async fn ended_in_order_under_load() {
    let (home, load) = (busy_home(), Load::default());
    let mut server = home.start().await;
    let mut senders = load.start(&server);
    load.acknowledged_more(REQUESTS_PER_ROUND).await;
    server.terminate();
    let status = server.ended().await;
    assert!(status.success(), "{status}: {}", server.log().join("\n"));
    while senders.join_next().await.is_some() {}
    let server = home.start().await;
    load.all_there_once(&server.http()).await;
}

#[tokio::test]
async fn the_same_topology_before_and_after() {
    let folder = places::capture("full");
    let capture = Capture::load(&folder);
    let truth = Truth::load(&folder, Tracer::OpenTelemetry).edges();
    let home = Home::new("join:\n  settle_after: 1s\n  tick: 200ms\nseal:\n  interval: 2s\n");
    let server = home.start().await;
    Plan::new(&capture, shift_to_now(&capture)).send(&server.ports()).await;
    let window = window();
    let before = topology_of(&server.http(), window, &truth).await;
    server.kill().await;
    let mut server = home.start().await;
    let after = topology_of(&server.http(), window, &truth).await;
    assert_eq!(before.without_arrival(), after.without_arrival(), "after a kill");
    server.terminate();
    assert!(server.ended().await.success());
    let server = home.start().await;
    let after = topology_of(&server.http(), window, &truth).await;
    assert_eq!(before.without_arrival(), after.without_arrival(), "after an orderly end");
}

#[tokio::test]
async fn a_second_process_on_the_same_directory_is_refused() {
    let home = Home::brisk();
    let server = home.start().await;
    let mut second = home.spawn();
    let status = second.ended().await;
    let log = second.log().join("\n");
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(home.data().to_str().unwrap()), "the error names the directory: {log}");
    assert_eq!(server.http().get("/readyz").await.status, 200, "the first one goes on");
}
