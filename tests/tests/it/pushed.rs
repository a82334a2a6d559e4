//! From pushed metrics to numbers on edges: what Envoy's stat sink says equals the proxies' access logs, and nothing is told
//! twice when the same proxies are scraped.

use windrose_tests::capture::Capture;
use windrose_tests::pages::Pages;
use windrose_tests::places;
use windrose_tests::replay::{Plan, shift_to_now};
use windrose_tests::server::{Home, TestServer};
use windrose_tests::truth::{Tracer, Truth};

use crate::counters::{counters_equal, logged};

async fn pushed(server: &TestServer, result: &str) -> f64 {
    server.metric(&format!("windrose_metric_receive_pushed_counters_total{{result=\"{result}\"}}")).await
}

/// One trace in ten comes as spans; every call is counted.
async fn check(name: &str) {
    let folder = places::capture(name);
    let (capture, truth) = (Capture::load(&folder), Truth::load(&folder, Tracer::OpenTelemetry));
    let server = Home::brisk().start().await;
    let plan = Plan::new(&capture, shift_to_now(&capture));
    let messages = plan.clone().metrics().len();
    plan.clone().without_metrics().sampled().send(&server.ports()).await;
    plan.clone().metrics().send_in_order(&server.ports()).await;
    counters_equal(&server.http(), &logged(&truth)).await;
    assert_eq!(pushed(&server, "attached").await, messages as f64);
    // What a sender repeats is not counted again.
    plan.metrics().send_in_order(&server.ports()).await;
    assert_eq!(pushed(&server, "late").await, messages as f64);
    counters_equal(&server.http(), &logged(&truth)).await;
}

#[tokio::test]
async fn totals() {
    check("pushed-metrics").await;
}

#[tokio::test]
async fn differences_since_the_last_push() {
    check("pushed-deltas").await;
}

#[tokio::test]
async fn scraped_and_pushed() {
    let folder = places::capture("pushed-metrics");
    let (capture, truth) = (Capture::load(&folder), Truth::load(&folder, Tracer::OpenTelemetry));
    let pages = Pages::serve(&capture.pages).await;
    let home = Home::new(
        "join:\n  settle_after: 1s\n  tick: 200ms\nglobal:\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\n\
         scrape_configs:\n  - job_name: mesh\n    file_sd_configs:\n      - files: [targets.json]\n",
    );
    std::fs::write(home.path().join("targets.json"), pages.file_sd(&truth.workloads).to_string()).unwrap();
    let server = home.start().await;
    pages.scraped().await;
    let plan = Plan::new(&capture, shift_to_now(&capture)).metrics();
    let messages = plan.len();
    plan.send_in_order(&server.ports()).await;
    assert_eq!(pushed(&server, "scraped").await, messages as f64);
    pages.show_last();
    pages.scraped().await;
    counters_equal(&server.http(), &logged(&truth)).await;
    assert_eq!(pushed(&server, "attached").await, 0.0);
}
