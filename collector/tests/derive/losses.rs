//! Spans and access log entries that never come: what is left shows no call that the whole trace does not show.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use windrose_collector::join::derive::{DeriveOptions, derive};
use windrose_collector::normalise::Normaliser;
use windrose_proto::hop::UNKNOWN_NODE;
use windrose_proto::normal::NormalSpan;
use windrose_proto::span::Span;

use crate::load;
use crate::mesh::{edges_of, entries_of, repository_capture, spans_of};

/// Ways to lose two that are tried per trace.
const PAIRS_MAX: usize = 150;

type Calls = BTreeMap<(String, String), i64>;

fn calls<'s>(rows: impl Iterator<Item = &'s Arc<NormalSpan>>, options: &DeriveOptions) -> Calls {
    let rows: Vec<_> = rows.cloned().collect();
    let hops = derive(&rows, options).hops;
    edges_of(hops.iter()).into_iter().map(|(pair, edge)| (pair, edge.calls)).collect()
}

/// Edges with more calls than there were, and nodes called more often than they were, by whomever.
fn surplus(left: &Calls, whole: &Calls) -> Vec<String> {
    let called = |calls: &Calls, node: &str| -> i64 {
        calls.iter().filter(|((_, other), _)| other == node).map(|(_, calls)| calls).sum()
    };
    let is_known = |(source, _): &&(String, String)| source != UNKNOWN_NODE;
    let edges = left.keys().filter(is_known).filter(|edge| left[*edge] > whole.get(*edge).copied().unwrap_or(0));
    let nodes: BTreeSet<&str> = left.keys().map(|(_, node)| &**node).filter(|node| *node != UNKNOWN_NODE).collect();
    let nodes = nodes.into_iter().filter(|node| called(left, node) > called(whole, node));
    edges.map(|(source, node)| format!("{source} -> {node}")).chain(nodes.map(str::to_owned)).collect()
}

/// Loses any one row of each trace, and any two when `pairs`.
#[track_caller]
fn check(spans: Vec<Span>, pairs: bool) {
    let mut tried = 0;
    for (trace, spans) in load::by_trace(spans) {
        let mut normaliser = Normaliser::default();
        let rows: Vec<Arc<NormalSpan>> = spans.iter().map(|span| Arc::new(normaliser.normalise(span))).collect();
        let options = DeriveOptions::from(&normaliser);
        let whole = calls(rows.iter(), &options);
        let ones = (0..rows.len()).map(|place| [place, place]);
        let count = rows.len() * rows.len().saturating_sub(1) / 2;
        let twos = (0..rows.len()).flat_map(|a| (a + 1..rows.len()).map(move |b| [a, b]));
        let twos = twos.step_by(count / PAIRS_MAX + 1).take(if pairs { PAIRS_MAX } else { 0 });
        for lost in ones.chain(twos) {
            let kept = || rows.iter().enumerate().filter(|(place, _)| !lost.contains(place)).map(|(_, row)| row);
            if kept().next().is_none() {
                continue;
            }
            tried += 1;
            let more = surplus(&calls(kept(), &options), &whole);
            let names = lost.map(|place| rows[place].span_id.to_string());
            assert!(more.is_empty(), "trace {trace} without {names:?} shows too many calls: {more:?}");
        }
    }
    assert!(tried > 1_000, "only {tried} losses were tried");
}

#[test]
fn istio_defaults() {
    check(spans_of(&repository_capture("full")), true);
}

#[test]
fn one_span_per_proxy() {
    check(spans_of(&repository_capture("spawn-none")), true);
}

#[test]
fn without_istio_tags() {
    check(spans_of(&repository_capture("plain")), true);
}

#[test]
fn zipkin_with_shared_ids() {
    check(spans_of(&repository_capture("zipkin-shared")), true);
}

#[test]
fn with_access_logs() {
    let folder = repository_capture("access-logs");
    check(spans_of(&folder).into_iter().chain(entries_of(&folder)).collect(), true);
}

/// Of concurrent calls to one service that were all tried again, two lost spans leave open which attempt was whose.
#[test]
fn a_span_per_attempt_in_every_proxy() {
    check(spans_of(&repository_capture("spawn-all")), false);
}

/// An application that calls the outside does not know of the egress gateway in between; with both of the spans lost
/// that do, its word stands.
#[test]
fn with_spans_of_applications() {
    check(spans_of(&repository_capture("app-spans")), false);
}
