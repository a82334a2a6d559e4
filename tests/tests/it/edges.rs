//! From recorded traffic to a topology: every edge, its calls, errors, routes and latencies are what really happened.

use std::path::Path;

use windrose_tests::capture::Capture;
use windrose_tests::judge;
use windrose_tests::replay::{Plan, shift_to_now};
use windrose_tests::server::Home;
use windrose_tests::truth::{Tracer, Truth};
use windrose_tests::{oracle, places};

use crate::support::{topology_of, window};

async fn check(folder: &Path) {
    let capture = Capture::load(folder);
    let truth = Truth::load(folder, Tracer::OpenTelemetry).edges();
    let server = Home::brisk().start().await;
    Plan::new(&capture, shift_to_now(&capture)).send(&server.ports()).await;
    let answer = topology_of(&server.http(), window(), &truth).await;
    judge::verdict(&judge::latencies(&answer, &oracle::latencies(&capture))).unwrap();
    judge::verdict(&judge::roles(&answer, &truth)).unwrap();
    assert_eq!(server.complaints(), Vec::<String>::new());
}

#[tokio::test]
async fn the_trimmed_capture() {
    check(&places::capture("full")).await;
}

#[tokio::test]
async fn the_whole_capture() {
    match places::shared("mesh/captures/full") {
        Some(folder) => check(&folder).await,
        None => places::skip("edges of the whole capture", "TESTS_SHARED names no folder with mesh/captures/full"),
    }
}
