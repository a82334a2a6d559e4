//! What was acknowledged is there: after a kill, after an orderly end, in every answer exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use windrose_proto::time::{Clock as _, SystemClock};
use windrose_tests::capture::Capture;
use windrose_tests::client::Http;
use windrose_tests::places;
use windrose_tests::remote_write::Counter;
use windrose_tests::replay::{Plan, shift_to_now};
use windrose_tests::senders::Senders;
use windrose_tests::server::Home;
use windrose_tests::truth::{Tracer, Truth};
use windrose_tests::wait::until;

use crate::prometheus::encode;
use crate::support::{topology_of, window};

/// Acknowledged requests before each kill: several group commits and seals.
const REQUESTS_PER_ROUND: usize = 300;
/// Kills; each next server replays what all before it left.
const ROUNDS: usize = 4;

/// How long that may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

/// Settles and seals so often that kills fall into both.
fn busy_home() -> Home {
    Home::new("join:\n  settle_after: 500ms\n  tick: 100ms\nseal:\n  interval: 1s\n")
}

#[tokio::test]
async fn killed_under_load_again_and_again() {
    let (home, load) = (busy_home(), Senders::default());
    for _ in 0..ROUNDS {
        let server = home.start().await;
        let mut senders = load.start(&server);
        load.acknowledged_more(REQUESTS_PER_ROUND).await;
        server.kill().await;
        while senders.join_next().await.is_some() {}
    }
    let server = home.start().await;
    load.sent().await.all_answered_once(&server.http()).await;
}

#[tokio::test]
async fn ended_in_order_under_load() {
    let (home, load) = (busy_home(), Senders::default());
    let mut server = home.start().await;
    let mut senders = load.start(&server);
    load.acknowledged_more(REQUESTS_PER_ROUND).await;
    server.terminate();
    let status = server.ended().await;
    assert!(status.success(), "{status}: {}", server.log().join("\n"));
    while senders.join_next().await.is_some() {}
    let server = home.start().await;
    load.sent().await.all_answered_once(&server.http()).await;
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

/// Samples of one request of a writer.
const SAMPLES_PER_REQUEST: u64 = 20;
/// Requests acknowledged before each kill, of all writers together.
const WRITES_PER_ROUND: u64 = 200;

/// Pushed samples are all there after kills, and so is whatever a query has shown of scraped ones.
#[tokio::test]
async fn samples_survive_kills_while_they_are_written_and_scraped() {
    let home = Home::new(
        "global:\n  scrape_interval: 100ms\n  scrape_timeout: 100ms\n\
         scrape_configs:\n  - job_name: nobody\n    static_configs:\n      - targets: ['127.0.0.1:1']\n",
    );
    let first = SystemClock.now().minus(Duration::from_secs(600));
    let mut counters: Vec<Counter> = (0..4).map(|writer| Counter::new(writer, first)).collect();
    let mut scraped = Vec::new();
    for _ in 0..ROUNDS {
        let server = home.start().await;
        let shown = stored(&server.http(), "up").await;
        assert!(shown.starts_with(&scraped), "shown before the kill: {scraped:?}, after it: {shown:?}");
        let acknowledged = Arc::new(AtomicU64::new(0));
        let mut writers = JoinSet::new();
        for mut counter in counters.drain(..) {
            let (http, acknowledged) = (server.http(), Arc::clone(&acknowledged));
            writers.spawn(async move {
                while counter.send(&http, SAMPLES_PER_REQUEST).await {
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
                counter
            });
        }
        scraped = until("writes and scrapes", WITHIN, async || {
            let (writes, scrapes) = (acknowledged.load(Ordering::SeqCst), stored(&server.http(), "up").await);
            let is_enough = writes >= WRITES_PER_ROUND && scrapes.len() > shown.len();
            if is_enough { Ok(scrapes) } else { Err(format!("{writes} writes, {} scrapes", scrapes.len())) }
        })
        .await;
        server.kill().await;
        counters = writers.join_all().await;
    }
    let server = home.start().await;
    for counter in counters {
        let numbers: Vec<f64> =
            stored(&server.http(), &counter.selector()).await.into_iter().map(|(_, value)| value).collect();
        let expect: Vec<f64> = (1..=counter.acknowledged).map(|number| number as f64).collect();
        assert!(numbers.starts_with(&expect), "{} were acknowledged, {} are stored", expect.len(), numbers.len());
    }
}

/// Times and values of all samples of a series.
async fn stored(http: &Http, selector: &str) -> Vec<(f64, f64)> {
    let result =
        http.data(&format!("/api/v1/query?query={}", encode(&format!("{selector}[1h]")))).await["result"].take();
    let sample = |sample: &Value| (sample[0].as_f64().unwrap(), sample[1].as_str().unwrap().parse().unwrap());
    let samples = result.as_array().unwrap().iter().flat_map(|series| series["values"].as_array().unwrap());
    samples.map(sample).collect()
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

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_named() {
    let home = Home::brisk();
    // A file where the directory should be: not even root writes there.
    std::fs::write(home.data(), "in the way").unwrap();
    let mut server = home.spawn();
    let status = server.ended().await;
    let log = server.log().join("\n");
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(home.data().to_str().unwrap()), "the error names the directory: {log}");
}
