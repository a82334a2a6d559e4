//! What was acknowledged is there: after a kill, after an orderly end, in every answer exactly once.

use windrose_tests::capture::Capture;
use windrose_tests::places;
use windrose_tests::replay::{Plan, shift_to_now};
use windrose_tests::senders::Senders;
use windrose_tests::server::Home;
use windrose_tests::truth::{Tracer, Truth};

use crate::support::{topology_of, window};

/// Acknowledged requests before each kill: several group commits and seals.
const REQUESTS_PER_ROUND: usize = 300;
/// Kills; each next server replays what all before it left.
const ROUNDS: usize = 4;

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
