//! The captures are sound: the truth that judges the product agrees with a plain reading of the spans themselves.

use std::path::Path;

use windrose_tests::capture::Capture;
use windrose_tests::oracle;
use windrose_tests::places;
use windrose_tests::truth::{Tracer, Truth, UNKNOWN};

#[track_caller]
fn check(folder: &Path) {
    let capture = Capture::load(folder);
    let truth = Truth::load(folder, Tracer::OpenTelemetry).edges();
    let spans = oracle::latencies(&capture);
    // Nobody but the callee knows of a probe.
    for (pair, edge) in truth.iter().filter(|(pair, _)| pair.0 != UNKNOWN) {
        let seen = spans.get(pair).map_or(0, |durations| durations.len() as u64);
        assert_eq!(seen, edge.calls, "{}: spans of {pair:?}", folder.display());
    }
    let unknown: Vec<_> = spans.keys().filter(|pair| !truth.contains_key(*pair)).collect();
    assert!(unknown.is_empty(), "{}: spans of edges that nobody called: {unknown:?}", folder.display());
}

#[test]
fn spans_of_the_trimmed_capture_equal_what_the_applications_counted() {
    check(&places::capture("full"));
}

#[test]
fn spans_of_the_whole_capture_equal_what_the_applications_counted() {
    match places::shared("mesh/captures/full") {
        Some(folder) => check(&folder),
        None => places::skip("the whole capture", "TESTS_SHARED names no folder with mesh/captures/full"),
    }
}
