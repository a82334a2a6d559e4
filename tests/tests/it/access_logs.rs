//! Access logs as evidence: proxies that trace one request in ten and log every one of them give exact edges.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;
use windrose_tests::capture::Capture;
use windrose_tests::client::Http;
use windrose_tests::judge;
use windrose_tests::places;
use windrose_tests::replay::{Plan, shift_to_now};
use windrose_tests::server::{Home, TestServer};
use windrose_tests::topology::Topology;
use windrose_tests::truth::{EdgeTruth, Pair, Tracer, Truth};
use windrose_tests::wait::until;

use crate::support::{SHOWN_WITHIN, accounted, topology_of, window};

/// What really happened, every request, traced or not.
fn truth() -> BTreeMap<Pair, EdgeTruth> {
    let mut edges = Truth::load(&places::capture("access-logs"), Tracer::Everything).edges();
    // The recorded log format says nothing of gRPC's own status, so failures that only it shows are not known.
    let grpc = edges.get_mut(&("checkout".to_owned(), "inventory".to_owned())).unwrap();
    grpc.errors.0 = 0;
    edges
}

async fn check(disturb: impl Fn(Plan) -> Plan) -> (TestServer, Topology) {
    let capture = Capture::load(&places::capture("access-logs"));
    let server = Home::brisk().start().await;
    disturb(Plan::new(&capture, shift_to_now(&capture))).send(&server.ports()).await;
    let truth = truth();
    let answer = topology_of(&server.http(), window(), &truth).await;
    judge::verdict(&judge::roles(&answer, &truth)).unwrap();
    assert_eq!(server.complaints(), Vec::<String>::new());
    accounted(&server).await;
    (server, answer)
}

#[tokio::test]
async fn one_trace_in_ten_and_every_access_log_entry() {
    let (_server, answer) = check(Plan::sampled).await;
    let edges = answer.edges();
    let logged: f64 = edges.values().map(|edge| edge.number("/evidence/logged")).sum();
    let calls: f64 = edges.values().map(|edge| edge.number("/evidence/calls")).sum();
    assert!(logged / calls > 0.8, "{logged} of {calls} calls are known from access logs alone");
}

#[tokio::test]
async fn every_span_and_every_access_log_entry() {
    let (server, _) = check(|plan| plan).await;
    // What an entry confirms is not counted again; only requests without a trace are known from their entries alone.
    // Entries may have been joined before the last of their spans.
    let traced = Truth::load(&places::capture("access-logs"), Tracer::OpenTelemetry).edges();
    let http = server.http();
    until("every span to stand for its entry", SHOWN_WITHIN, async || {
        for (pair, edge) in Topology::fetch(&http, &window().parameters()).await?.edges() {
            let (expect, logged) = (edge.calls() - traced[&pair].calls, &edge.0["evidence"]["logged"]);
            if logged.as_u64() != Some(expect) {
                return Err(format!("{pair:?}: {logged} known from entries alone, not {expect}"));
            }
        }
        Ok(())
    })
    .await;
}

/// What is logged is known, whatever becomes of the spans.
#[tokio::test]
async fn some_spans_never_come() {
    let capture = Capture::load(&places::capture("access-logs"));
    let server = Home::brisk().start().await;
    let plan = Plan::new(&capture, shift_to_now(&capture)).without_some_spans(7, 0.2).shuffled(7);
    plan.send(&server.ports()).await;
    let (http, truth) = (server.http(), truth());
    until("the calls to equal the truth", SHOWN_WITHIN, async || {
        let answer = Topology::fetch(&http, &window().parameters()).await?;
        let calls = |edges: Vec<(Pair, u64)>| edges.into_iter().collect::<BTreeMap<Pair, u64>>();
        let found = calls(answer.edges().into_iter().map(|(pair, edge)| (pair, edge.calls())).collect());
        let expect = calls(truth.iter().map(|(pair, edge)| (pair.clone(), edge.calls)).collect());
        if found == expect { Ok(()) } else { Err(format!("{found:#?}, not {expect:#?}")) }
    })
    .await;
    accounted(&server).await;
}

#[tokio::test]
async fn shuffled_and_doubled() {
    check(|plan| plan.sampled().shuffled(7).doubled(7, 0.4)).await;
}

#[tokio::test]
async fn logs_of_applications_are_taken_and_left_out() {
    let server = Home::brisk().start().await;
    let http = Http::new(server.ports().otlp_http);
    let record = json!({"timeUnixNano": "1", "severityText": "INFO", "body": {"stringValue": "user 7 logged in"}});
    let body = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}).to_string();
    let answer = http.post("/v1/logs", &[("content-type", "application/json")], Bytes::from(body)).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
    let left_out = server.metric("windrose_receive_rejected_spans_total{reason=\"not_access_log\"}");
    assert!((left_out.await - 1.0).abs() < f64::EPSILON);
}
