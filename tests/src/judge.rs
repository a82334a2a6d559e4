//! Compares an answer with the truth and says every difference in words.

use std::collections::BTreeMap;

use crate::oracle::Durations;
use crate::topology::{Edge, Topology};
use crate::truth::{CLIENT, EGRESS, EdgeTruth, GATEWAY, Pair, UNKNOWN};

/// A latency is right within 3 % or 1 ms, whichever is more.
const LATENCY_RATIO: f64 = 0.03;
const LATENCY_MS: f64 = 1.0;
/// Shares are computed from whole calls: only rounding may differ.
const SHARE: f64 = 1e-6;

/// Differences of edges: which there are, their calls, errors, attempts, direction, and the routes they served.
#[must_use]
pub fn edges(answer: &Topology, truth: &BTreeMap<Pair, EdgeTruth>) -> Vec<String> {
    let found = answer.edges();
    let mut wrong = Vec::new();
    for (pair, expect) in truth {
        match found.get(pair) {
            None => wrong.push(format!("{}: missing", name(pair))),
            Some(edge) => wrong.extend(edge_differences(pair, *edge, expect)),
        }
    }
    let surplus = found.keys().filter(|pair| !truth.contains_key(*pair));
    wrong.extend(surplus.map(|pair| format!("{}: nobody called", name(pair))));
    wrong
}

fn edge_differences(pair: &Pair, edge: Edge<'_>, expect: &EdgeTruth) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut note = |what: &str, found: &dyn std::fmt::Debug, expect: &dyn std::fmt::Debug| {
        wrong.push(format!("{}: {what} {found:?}, expected {expect:?}", name(pair)));
    };
    let calls = edge.calls();
    if calls != expect.calls {
        note("calls", &calls, &expect.calls);
    }
    let errors = edge.errors();
    if errors < expect.errors.0 || errors > expect.errors.1 {
        note("errors", &errors, &expect.errors);
    }
    // Where a call can end before it arrives, arrivals say nothing about attempts.
    if let Some(arrivals) = expect.arrivals.filter(|arrivals| *arrivals > expect.calls) {
        let attempts = (edge.number("/attempts_per_call") * calls as f64).round() as u64;
        if attempts != arrivals {
            note("attempts", &attempts, &arrivals);
        }
    }
    let direction = direction(pair);
    if edge.text("/direction") != direction {
        note("direction", &edge.text("/direction"), &direction);
    }
    let shares = edge.route_shares();
    let expected = shares_of(&expect.routes);
    if !close(&shares, &expected) {
        note("route shares", &shares, &expected);
    }
    wrong
}

/// Differences of latencies: quantiles, and the exact maximum.
#[must_use]
pub fn latencies(answer: &Topology, spans: &BTreeMap<Pair, Durations>) -> Vec<String> {
    let found = answer.edges();
    let mut wrong = Vec::new();
    for (pair, durations) in spans {
        let Some(edge) = found.get(pair) else { continue };
        // Nobody outside reports: the edge into the gateway is what the gateway saw.
        let side = if pair.0 == CLIENT { "server" } else { "client" };
        for (quantile, key) in [(0.5, "p50"), (0.9, "p90"), (0.99, "p99")] {
            let expect = durations.quantile_ms(quantile);
            let value = edge.number(&format!("/latency_ms/{side}/{key}"));
            if (value - expect).abs() > LATENCY_MS.max(expect * LATENCY_RATIO) {
                wrong.push(format!("{}: {side} {key} {value} ms, the spans' own is {expect} ms", name(pair)));
            }
        }
        let (value, expect) = (edge.number(&format!("/latency_ms/{side}/max")), durations.max_ms());
        if (value - expect).abs() > 1e-6 {
            wrong.push(format!("{}: {side} max {value} ms, the longest span is {expect} ms", name(pair)));
        }
    }
    wrong
}

/// Differences of nodes: every end of an edge of the truth is a node with the right role.
#[must_use]
pub fn roles(answer: &Topology, truth: &BTreeMap<Pair, EdgeTruth>) -> Vec<String> {
    let nodes = answer.nodes();
    let mut wrong = Vec::new();
    for node in truth.keys().flat_map(|(source, target)| [source.as_str(), target.as_str()]) {
        let expect = role(node);
        match nodes.get(node).map(|node| node["role"].as_str().unwrap_or_default()) {
            None => wrong.push(format!("{node}: no such node")),
            Some(found) if found != expect => wrong.push(format!("{node}: role {found}, expected {expect}")),
            Some(_) => {}
        }
    }
    wrong.sort_unstable();
    wrong.dedup();
    wrong
}

/// `Ok` when nothing is wrong, else all of it.
///
/// # Errors
/// The differences, one a line.
pub fn verdict(wrong: &[String]) -> Result<(), String> {
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn direction(pair: &Pair) -> &'static str {
    if pair.0 == EGRESS || pair.1 == EGRESS || is_external(&pair.1) {
        "egress"
    } else if pair.0 == UNKNOWN {
        "unknown"
    } else if pair.0 == CLIENT || pair.0 == GATEWAY {
        "north_south"
    } else {
        "east_west"
    }
}

fn role(node: &str) -> &'static str {
    match node {
        CLIENT => "client",
        UNKNOWN => "unknown",
        GATEWAY => "gateway",
        EGRESS => "egress",
        name if is_external(name) => "external",
        _ => "workload",
    }
}

fn is_external(name: &str) -> bool {
    name.ends_with(".example.com")
}

fn name(pair: &Pair) -> String {
    format!("{} -> {}", pair.0, pair.1)
}

fn shares_of(calls: &BTreeMap<String, u64>) -> BTreeMap<String, f64> {
    let all: u64 = calls.values().sum();
    calls.iter().map(|(route, calls)| (route.clone(), *calls as f64 / all as f64)).collect()
}

fn close(found: &BTreeMap<String, f64>, expect: &BTreeMap<String, f64>) -> bool {
    found.len() == expect.len()
        && expect.iter().all(|(route, share)| found.get(route).is_some_and(|found| (found - share).abs() < SHARE))
}
