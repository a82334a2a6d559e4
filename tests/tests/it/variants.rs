//! The same mesh, traced in other ways: whatever the proxies are told to send, the edges are the same.

use windrose_tests::capture::Capture;
use windrose_tests::judge;
use windrose_tests::places;
use windrose_tests::replay::{Plan, shift_to_now};
use windrose_tests::server::Home;
use windrose_tests::truth::{Tracer, Truth};

use crate::support::{topology_of, window};

async fn check(name: &str, tracer: Tracer) {
    let folder = places::capture(name);
    let capture = Capture::load(&folder);
    let truth = Truth::load(&folder, tracer).edges();
    let server = Home::brisk().start().await;
    Plan::new(&capture, shift_to_now(&capture)).send(&server.ports()).await;
    let answer = topology_of(&server.http(), window(), &truth).await;
    judge::verdict(&judge::roles(&answer, &truth)).unwrap();
}

#[tokio::test]
async fn two_spans_at_every_proxy() {
    check("spawn-all", Tracer::OpenTelemetry).await;
}

#[tokio::test]
async fn one_span_at_every_proxy() {
    check("spawn-none", Tracer::OpenTelemetry).await;
}

#[tokio::test]
async fn neither_istio_tags_nor_decorators() {
    check("plain", Tracer::OpenTelemetry).await;
}

#[tokio::test]
async fn spans_of_applications_between_those_of_proxies() {
    check("app-spans", Tracer::OpenTelemetry).await;
}

#[tokio::test]
async fn zipkin_with_shared_span_ids() {
    check("zipkin-shared", Tracer::Everything).await;
}

#[tokio::test]
async fn the_caller_named_by_a_header() {
    check("add-user-agent", Tracer::OpenTelemetry).await;
}
