//! Order, repetition and lateness of messages cannot change the answer: it is a function of the set of spans.

use serde_json::Value;
use windrose_tests::capture::Capture;
use windrose_tests::client::Http;
use windrose_tests::places;
use windrose_tests::replay::{Plan, shift_to_now};
use windrose_tests::server::{Home, TestServer};
use windrose_tests::topology::{Topology, Window};
use windrose_tests::truth::{Tracer, Truth, UNKNOWN};
use windrose_tests::wait::until;

use crate::support::{SHOWN_WITHIN, accounted, topology_of, window};

const SEED: u64 = 7;

/// A capture, and what a server says that got it in order.
struct Reference {
    plan: Plan,
    window: Window,
    answer: Value,
}

impl Reference {
    async fn new() -> Self {
        let folder = places::capture("full");
        let capture = Capture::load(&folder);
        let truth = Truth::load(&folder, Tracer::OpenTelemetry).edges();
        let plan = Plan::new(&capture, shift_to_now(&capture));
        let server = Home::brisk().start().await;
        plan.clone().send(&server.ports()).await;
        let window = window();
        let answer = topology_of(&server.http(), window, &truth).await;
        Self { plan, window, answer: answer.without_arrival() }
    }

    /// Waits until another server says the same, and returns its whole answer.
    async fn equals(&self, server: &TestServer) -> Topology {
        let http = server.http();
        until("the answer to equal that of a calm delivery", SHOWN_WITHIN, async || {
            let answer = Topology::fetch(&http, &self.window.parameters()).await?;
            match first_difference("", &answer.without_arrival(), &self.answer) {
                None => Ok(answer),
                Some(difference) => Err(difference),
            }
        })
        .await
    }
}

#[tokio::test]
async fn shuffled() {
    let reference = Reference::new().await;
    let server = Home::brisk().start().await;
    reference.plan.clone().shuffled(SEED).send(&server.ports()).await;
    reference.equals(&server).await;
}

#[tokio::test]
async fn doubled() {
    let reference = Reference::new().await;
    let server = Home::brisk().start().await;
    let plan = reference.plan.clone().doubled(SEED, 0.3);
    let (sent, distinct) = (plan.spans(), reference.plan.spans());
    plan.send(&server.ports()).await;
    let answer = reference.equals(&server).await;
    assert!(evidence(&answer, "duplicate") > 0.0, "no edge shows a duplicate");
    let counts = server.http().data(&format!("/api/v1/completeness?{}", reference.window.parameters())).await;
    let count = |name: &str| counts[name].as_u64().unwrap_or_else(|| panic!("no {name}: {counts}"));
    assert_eq!(count("spans_received"), sent as u64);
    assert_eq!(count("spans_stored"), distinct as u64);
    assert_eq!(count("spans_duplicate"), (sent - distinct) as u64);
}

#[tokio::test]
async fn late() {
    let reference = Reference::new().await;
    let server = Home::brisk().start().await;
    let (punctual, late) = reference.plan.clone().split_late(SEED, 0.05);
    let traces = punctual.traces().len();
    punctual.send(&server.ports()).await;
    settled(&server.http(), traces).await;
    late.send(&server.ports()).await;
    let answer = reference.equals(&server).await;
    assert!(evidence(&answer, "late") > 0.0, "no edge shows a late span");
}

/// Everything a network does to messages, but losing them, and a clock that is 40 ms ahead: the edges are still what
/// the client and the applications logged.
#[tokio::test]
async fn everything_at_once() {
    let folder = places::capture("full");
    let capture = Capture::load(&folder);
    let truth = Truth::load(&folder, Tracer::OpenTelemetry).edges();
    let server = Home::brisk().start().await;
    let plan =
        Plan::new(&capture, shift_to_now(&capture)).skewed("payments.shop", 40).doubled(SEED, 0.05).shuffled(SEED);
    let (punctual, late) = plan.split_late(SEED, 0.1);
    let traces = punctual.traces().len();
    punctual.send(&server.ports()).await;
    settled(&server.http(), traces).await;
    late.send(&server.ports()).await;
    topology_of(&server.http(), window(), &truth).await;
    accounted(&server).await;
}

/// What never came is said to be missing and not made up: no edge that was not, no call too many.
#[tokio::test]
async fn dropped() {
    let folder = places::capture("full");
    let capture = Capture::load(&folder);
    let truth = Truth::load(&folder, Tracer::OpenTelemetry).edges();
    let server = Home::brisk().start().await;
    let plan = Plan::new(&capture, shift_to_now(&capture)).dropped(SEED, 0.1).shuffled(SEED);
    let traces = plan.traces().len();
    plan.send(&server.ports()).await;
    let http = server.http();
    settled(&http, traces).await;
    let answer = Topology::fetch(&http, &window().parameters()).await.unwrap();
    for (pair, edge) in answer.edges() {
        let is_open = [&pair.0, &pair.1].into_iter().any(|name| name == UNKNOWN);
        let happened = truth.get(&pair).map_or(0, |edge| edge.calls);
        assert!(is_open || edge.calls() <= happened, "{pair:?}: {} calls of {happened}", edge.calls());
    }
    let reasons = answer.raw["unresolved"].as_array().unwrap();
    let missing = reasons.iter().find(|hole| hole["reason"] == "parent_never_received");
    assert!(missing.is_some_and(|hole| hole["count"].as_u64() > Some(0)), "nothing is said to be missing: {reasons:?}");
    accounted(&server).await;
}

/// Waits until so many traces are settled: each has its request row then.
async fn settled(http: &Http, traces: usize) {
    until("the traces to settle", SHOWN_WITHIN, async || {
        let rows = http.sql("SELECT count(DISTINCT trace_id) AS traces FROM requests").await;
        let settled = rows[0]["traces"].as_u64().unwrap_or(0);
        if settled == traces as u64 { Ok(()) } else { Err(format!("{settled} of {traces} are settled")) }
    })
    .await;
}

fn evidence(answer: &Topology, name: &str) -> f64 {
    answer.edges().values().map(|edge| edge.number(&format!("/evidence/{name}"))).sum()
}

/// Where two answers differ first, and how.
fn first_difference(at: &str, found: &Value, expect: &Value) -> Option<String> {
    match (found, expect) {
        (Value::Object(found), Value::Object(expect)) if found.keys().eq(expect.keys()) => {
            found.iter().find_map(|(key, value)| first_difference(&format!("{at}/{key}"), value, &expect[key]))
        }
        (Value::Array(found), Value::Array(expect)) if found.len() == expect.len() => {
            let pairs = found.iter().zip(expect).enumerate();
            pairs.into_iter().find_map(|(place, (a, b))| first_difference(&format!("{at}/{place}"), a, b))
        }
        (found, expect) if found == expect => None,
        (found, expect) => Some(format!("{at}: {found}, expected {expect}")),
    }
}
