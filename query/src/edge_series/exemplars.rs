//! The slowest calls of each window with their traces, as exemplars: of our own series, and of what proxies measure
//! without knowing traces.
//!
//! A rollup row remembers which calls were slowest, not when exactly they began: an exemplar stands in the middle of
//! its window.

use std::collections::BTreeMap;

use hashbrown::HashSet;
use windrose_proto::edge::{EdgeKey, EdgeRow, Largest};
use windrose_proto::id::TraceId;
use windrose_proto::metric::{Exemplar, Labels, Matcher};

use super::buckets;
use super::entities::{Entities, Pairs};
use super::families::{Measure, Part};
use super::increments::start_millis;
use super::select::{labels, matches, wanted};
use crate::graph::Resolver;

/// Exemplars of one answer: Grafana draws a dot for each, and more than this is a carpet.
pub(crate) const EXEMPLARS_MAX: usize = 10_000;

/// A slow call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlowCall {
    pub(crate) at: i64,
    pub(crate) nanos: u64,
    pub(crate) trace: TraceId,
}

impl SlowCall {
    pub(crate) fn seconds(&self) -> f64 {
        self.nanos as f64 / 1e9
    }

    /// As an exemplar whose value is in the unit of its series.
    pub(crate) fn exemplar(&self, value: f64) -> Exemplar {
        let labels = Labels::from_pairs([("trace_id", self.trace.to_string())]);
        Exemplar { labels, value, timestamp: self.at }
    }
}

/// The slow calls of some rows; what a revision took back is not among them.
#[derive(Debug, Default)]
pub(crate) struct SlowCalls {
    calls: Vec<SlowCall>,
    taken_back: HashSet<(u64, TraceId)>,
}

impl SlowCalls {
    /// Adds what a row remembers.
    pub(crate) fn add(&mut self, row: &EdgeRow, largest: &Largest) {
        let middle = start_millis(row) + (row.window_nanos / 2_000_000) as i64;
        self.taken_back.extend(largest.removals());
        self.calls.extend(largest.entries().iter().map(|(nanos, trace)| SlowCall {
            at: middle,
            nanos: *nanos,
            trace: *trace,
        }));
    }

    /// Those between the two times, in time order; the slowest when there are too many.
    pub(crate) fn between(mut self, from: i64, to: i64, most: usize) -> Vec<SlowCall> {
        self.calls
            .retain(|call| (from..=to).contains(&call.at) && !self.taken_back.contains(&(call.nanos, call.trace)));
        if self.calls.len() > most {
            self.calls.sort_unstable_by_key(|call| std::cmp::Reverse(call.nanos));
            self.calls.truncate(most);
        }
        self.calls.sort_unstable_by_key(|call| (call.at, call.nanos, call.trace));
        self.calls
    }
}

/// Whether a matcher set may select latency series of ours.
pub(crate) fn concerns(set: &[Matcher]) -> bool {
    wanted(set).iter().any(|(family, _)| matches!(family.measure, Measure::Latency(_)))
}

/// The exemplars of our own latency series that any matcher set selects.
pub(crate) fn of_series(rows: &[EdgeRow], sets: &[Vec<Matcher>], from: i64, to: i64) -> Vec<(Labels, Vec<Exemplar>)> {
    let resolver = Resolver::learn(rows);
    let mut found: BTreeMap<Labels, Vec<Exemplar>> = BTreeMap::new();
    for set in sets {
        for (family, parts) in wanted(set) {
            let Measure::Latency(read) = family.measure else { continue };
            let Some((name, _)) = parts.iter().find(|(_, part)| *part == Part::Bucket) else { continue };
            let mut entities = Entities::new(family.group, &resolver);
            let mut slow: BTreeMap<(usize, Pairs), SlowCalls> = BTreeMap::new();
            for row in rows {
                let Some(entity) = entities.of(row) else { continue };
                read(&row.stats, &mut |extra, latency| {
                    let extra: Pairs = extra.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
                    slow.entry((entity, extra)).or_default().add(row, &latency.slowest);
                });
            }
            let of = entities.into_labels();
            for ((entity, extra), calls) in slow {
                for call in calls.between(from, to, EXEMPLARS_MAX) {
                    let bound = &buckets::bounds()[buckets::index_of(call.seconds())];
                    let labels = labels(name, &of[entity], &extra, Some(bound));
                    if matches(&labels, set) {
                        found.entry(labels).or_default().push(call.exemplar(call.seconds()));
                    }
                }
            }
        }
    }
    found.into_iter().collect()
}

/// The slow calls of the edges that `takes` accepts, as the caller (or else the callee) measured them.
pub(crate) fn of_edges(rows: &[EdgeRow], at_client: bool, takes: impl Fn(&EdgeKey) -> bool) -> SlowCalls {
    let mut slow = SlowCalls::default();
    for row in rows.iter().filter(|row| takes(&row.key)) {
        let (own, other) = (&row.stats.spans.client, &row.stats.spans.server);
        let (own, other) = if at_client { (own, other) } else { (other, own) };
        slow.add(row, if own.slowest.entries().is_empty() { &other.slowest } else { &own.slowest });
    }
    slow
}
