//! A selection of PromQL answered from rollup rows.

use std::collections::{BTreeMap, BTreeSet};

use windrose_promql::StorageError;
use windrose_proto::edge::{EdgeRow, Largest};
use windrose_proto::metric::labels::{BUCKET, METRIC_NAME};
use windrose_proto::metric::{Labels, LabelsBuilder, Matcher};
use windrose_proto::time::{TimeRange, UnixNanos};

use super::entities::{Entities, Pairs};
use super::families::{Family, Measure, Part, families};
use super::gauges;
use super::increments::{Gain, Gains, LatencyGains, PerEntity, Windows, gather, start_millis};
use super::points::{DAY_MILLIS, Ends, Points, is_edge_function};
use crate::graph::Resolver;

/// A counter is shown this long after its last gain: an edge that fell silent shows zero for a while, and midnight ends
/// no line of a dashboard.
const REMEMBERED_MILLIS: i64 = 3_600_000;

/// Names and labels of the series are looked for in at most this much of the asked range: naming costs as much as
/// reading, and what a mesh consists of does not change that fast.
const LABEL_REACH_MILLIS: i64 = 6 * 3_600_000;

/// Gauges of the graph build one graph per step; rows times steps beyond this take seconds.
const GRAPH_ROWS_MAX: usize = 5_000_000;

/// One selection of a query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selection<'a> {
    pub(crate) matchers: &'a [Matcher],
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
    pub(crate) function: &'a str,
    /// 0 for an instant selector.
    pub(crate) range: i64,
    pub(crate) step: i64,
    /// How far an instant selector looks back.
    pub(crate) lookback: i64,
    pub(crate) now: i64,
    /// Most samples of the answer.
    pub(crate) max_samples: usize,
}

/// One series of the answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VirtualSeries {
    pub(crate) labels: Labels,
    pub(crate) timestamps: Vec<i64>,
    pub(crate) values: Vec<f64>,
}

impl Selection<'_> {
    /// What a window is for gauges, and how far before its first instant an evaluation looks.
    const fn window(&self) -> i64 {
        if self.range > 0 { self.range } else { self.lookback }
    }

    fn ends(&self) -> Result<Ends, StorageError> {
        let first = self.min_time.saturating_add(self.window()).saturating_sub(1);
        let latest = self.now.saturating_add(self.lookback);
        Ends::new(first.min(self.max_time), self.max_time, self.step, latest)
            .ok_or_else(|| StorageError("too many steps for series computed from edges: use a longer step".to_owned()))
    }
}

/// The parts of families that a selection's name matchers let through.
pub(super) fn wanted(matchers: &[Matcher]) -> Vec<(&'static Family, Vec<(String, Part)>)> {
    let names: Vec<&Matcher> = matchers.iter().filter(|matcher| matcher.name == METRIC_NAME).collect();
    let named = |family: &'static Family| {
        let mut parts = family.parts();
        parts.retain(|(name, _)| names.iter().all(|matcher| matcher.matches(name)));
        (!parts.is_empty()).then_some((family, parts))
    };
    families().iter().filter_map(named).collect()
}

/// The rows that a selection is computed from; `None` when it selects none of our series, or no time at all.
pub(crate) fn rows_needed(selection: &Selection<'_>) -> Option<TimeRange> {
    let families = wanted(selection.matchers);
    if families.is_empty() {
        return None;
    }
    let mut from = selection.min_time.saturating_sub(1);
    if families.iter().any(|(family, _)| matches!(family.measure, Measure::Counter(_) | Measure::Latency(_))) {
        let midnight = from.div_euclid(DAY_MILLIS).saturating_mul(DAY_MILLIS);
        from = from.saturating_sub(REMEMBERED_MILLIS);
        if !is_edge_function(selection.function, selection.range) {
            from = from.min(midnight);
        }
    }
    let to = selection.max_time.min(selection.now.saturating_add(selection.lookback));
    millis_range(from, to)
}

fn millis_range(from: i64, to: i64) -> Option<TimeRange> {
    let nanos = |millis: i64| UnixNanos(u64::try_from(millis.max(0)).unwrap_or(0).saturating_mul(1_000_000));
    TimeRange::new(nanos(from), nanos(to)).filter(|range| range.start() < range.end())
}

/// The series of a selection, sorted by labels. Rows are sorted by the start of their window.
///
/// # Errors
/// When there would be too many samples.
pub(crate) fn select(rows: &[EdgeRow], selection: &Selection<'_>) -> Result<Vec<VirtualSeries>, StorageError> {
    let families = wanted(selection.matchers);
    if families.is_empty() || rows.is_empty() {
        return Ok(Vec::new());
    }
    let ends = selection.ends()?;
    let earliest = rows.first().map_or(0, start_millis);
    let points = Points::new(ends, selection.function, selection.range, earliest);
    let resolver = Resolver::learn(rows);
    let windows = Windows::of(rows);
    let mut answer = Answer { matchers: selection.matchers, series: BTreeMap::new(), room: selection.max_samples };
    for (family, parts) in families {
        match family.measure {
            Measure::Graph(gauge) => {
                let work = rows.len().saturating_mul(usize::try_from(ends.count()).unwrap_or(usize::MAX));
                if work > GRAPH_ROWS_MAX {
                    let hint = "ask for fewer steps or at one instant";
                    return Err(StorageError(format!("{} is built anew for each step: {hint}", family.name)));
                }
                for end in ends.iter() {
                    let from = end.saturating_sub(selection.window());
                    for (pairs, value) in gauges::read(gauge, gauges::window(rows, from, end), from, end) {
                        answer.push_sample(labels(family.name, &pairs, &[], None), end, value)?;
                    }
                }
            }
            Measure::Counter(_) | Measure::Latency(_) | Measure::Slowest(_) => {
                let mut entities = Entities::new(family.group, &resolver);
                let gains = gather(rows, &windows, family.measure, &mut entities);
                let of = entities.into_labels();
                match gains {
                    Gains::Sums(sums) => {
                        for (pairs, extra, gains) in flat(&of, &sums) {
                            answer.counter(labels(family.name, pairs, extra, None), &points, gains, born(gains))?;
                        }
                    }
                    Gains::Latencies(latencies) => {
                        for (pairs, extra, gains) in flat(&of, &latencies) {
                            for (name, part) in &parts {
                                answer.latency(*part, &points, gains, &|bound| labels(name, pairs, extra, bound))?;
                            }
                        }
                    }
                    Gains::Largest(largest) => {
                        for (pairs, extra, found) in flat(&of, &largest) {
                            let labels = labels(family.name, pairs, extra, None);
                            answer.largest(&labels, ends, selection.window(), found)?;
                        }
                    }
                }
            }
        }
    }
    Ok(answer.series.into_values().collect())
}

/// Entity labels, added labels, and what was gathered.
fn flat<'a, T>(of: &'a [Pairs], all: &'a PerEntity<T>) -> impl Iterator<Item = (&'a Pairs, &'a Pairs, &'a T)> {
    of.iter().zip(all).flat_map(|(pairs, slots)| slots.iter().map(move |(extra, found)| (pairs, extra, found)))
}

pub(super) fn labels(name: &str, pairs: &Pairs, extra: &[(&'static str, String)], bound: Option<&str>) -> Labels {
    let mut builder = LabelsBuilder::default();
    builder.set(METRIC_NAME, name);
    pairs.iter().chain(extra).for_each(|(name, value)| builder.set(name, value));
    if let Some(bound) = bound {
        builder.set(BUCKET, bound);
    }
    builder.build()
}

/// When a series first gained anything, be it zero: a window with calls has its errors at zero.
fn born(gains: &[Gain]) -> i64 {
    gains.iter().map(|(at, _)| *at).min().unwrap_or(i64::MAX)
}

struct Answer<'m> {
    matchers: &'m [Matcher],
    series: BTreeMap<Labels, VirtualSeries>,
    room: usize,
}

impl Answer<'_> {
    fn takes(&self, labels: &Labels) -> bool {
        matches(labels, self.matchers)
    }

    fn spend(&mut self, samples: usize) -> Result<(), StorageError> {
        let too_many = "query processing would load too many samples into memory in query execution";
        self.room = self.room.checked_sub(samples).ok_or_else(|| StorageError(too_many.to_owned()))?;
        Ok(())
    }

    fn push(&mut self, labels: Labels, (timestamps, values): (Vec<i64>, Vec<f64>)) {
        if !timestamps.is_empty() {
            self.series.insert(labels.clone(), VirtualSeries { labels, timestamps, values });
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "labels are made for the sample")]
    fn push_sample(&mut self, labels: Labels, at: i64, value: f64) -> Result<(), StorageError> {
        if !self.takes(&labels) {
            return Ok(());
        }
        self.spend(1)?;
        let fresh = || VirtualSeries { labels: labels.clone(), timestamps: Vec::new(), values: Vec::new() };
        let series = self.series.entry(labels.clone()).or_insert_with(fresh);
        series.timestamps.push(at);
        series.values.push(value);
        Ok(())
    }

    fn counter(&mut self, labels: Labels, points: &Points, gains: &[Gain], born: i64) -> Result<(), StorageError> {
        if self.takes(&labels) {
            self.spend(points.len())?;
            self.push(labels, points.read(gains, born));
        }
        Ok(())
    }

    fn latency(
        &mut self,
        part: Part,
        points: &Points,
        gains: &LatencyGains,
        name: &dyn Fn(Option<&str>) -> Labels,
    ) -> Result<(), StorageError> {
        let born = born(&gains.count);
        match part {
            Part::Count | Part::Whole => self.counter(name(None), points, &gains.count, born),
            Part::Sum => self.counter(name(None), points, &gains.sum, born),
            Part::Bucket => {
                // Cumulative over the buckets, so those that are not wanted must be read too.
                let mut below: Vec<f64> = Vec::new();
                for (gains, bound) in gains.buckets.iter().zip(super::buckets::bounds()) {
                    let (timestamps, mut values) = points.read(gains, born);
                    below.resize(values.len(), 0.0);
                    for (value, below) in values.iter_mut().zip(&mut below) {
                        *below += *value;
                        *value = *below;
                    }
                    let labels = name(Some(bound));
                    if self.takes(&labels) {
                        self.spend(values.len())?;
                        self.push(labels, (timestamps, values));
                    }
                }
                Ok(())
            }
        }
    }

    fn largest(
        &mut self,
        labels: &Labels,
        ends: Ends,
        window: i64,
        found: &[(i64, &Largest)],
    ) -> Result<(), StorageError> {
        if !self.takes(labels) {
            return Ok(());
        }
        for end in ends.iter() {
            if let Some(seconds) = gauges::largest(found, end.saturating_sub(window), end) {
                self.push_sample(labels.clone(), end, seconds)?;
            }
        }
        Ok(())
    }
}

/// Whether all matchers let a label set through.
pub(crate) fn matches(labels: &Labels, matchers: &[Matcher]) -> bool {
    matchers.iter().all(|matcher| matcher.matches(labels.get(&matcher.name)))
}

/// Which rows say what series there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LabelReach(Option<TimeRange>);

impl LabelReach {
    /// For series that have samples between the two, `now` being the latest that can matter.
    pub(crate) fn new(min_time: i64, max_time: i64, now: i64) -> Self {
        // A window starts before its samples.
        let to = max_time.min(now).saturating_add(1);
        let from = min_time.saturating_sub(DAY_MILLIS / 1440).max(to.saturating_sub(LABEL_REACH_MILLIS));
        Self(millis_range(from, to))
    }

    /// The rows to read.
    pub(crate) const fn range(self) -> Option<TimeRange> {
        self.0
    }
}

/// The label sets of the series that any of the matcher sets lets through; without sets, of all.
pub(crate) fn label_sets(rows: &[EdgeRow], sets: &[Vec<Matcher>]) -> BTreeSet<Labels> {
    let mut found = BTreeSet::new();
    let all = [Vec::new()];
    let sets = if sets.is_empty() { &all[..] } else { sets };
    let resolver = Resolver::learn(rows);
    let windows = Windows::of(rows);
    for set in sets {
        let mut take = |labels: Labels| {
            if matches(&labels, set) {
                found.insert(labels);
            }
        };
        for (family, parts) in wanted(set) {
            if let Measure::Graph(gauge) = family.measure {
                let (from, to) = (rows.first().map_or(0, start_millis), rows.last().map_or(0, start_millis) + 1);
                let read = gauges::read(gauge, rows, from, to);
                read.iter().for_each(|(pairs, _)| take(labels(family.name, pairs, &[], None)));
                continue;
            }
            let mut entities = Entities::new(family.group, &resolver);
            let gains = gather(rows, &windows, family.measure, &mut entities);
            let of = entities.into_labels();
            let mut name = |pairs: &Pairs, extra: &Pairs| {
                for (name, part) in &parts {
                    if *part == Part::Bucket {
                        let bounds = super::buckets::bounds().iter();
                        bounds.for_each(|bound| take(labels(name, pairs, extra, Some(bound))));
                    } else {
                        take(labels(name, pairs, extra, None));
                    }
                }
            };
            match &gains {
                Gains::Sums(all) => flat(&of, all).for_each(|(pairs, extra, _)| name(pairs, extra)),
                Gains::Latencies(all) => flat(&of, all).for_each(|(pairs, extra, _)| name(pairs, extra)),
                Gains::Largest(all) => flat(&of, all).for_each(|(pairs, extra, _)| name(pairs, extra)),
            }
        }
    }
    found
}

/// The metric names that any of the matcher sets lets through, when all of them look at the name only: then nothing
/// need be computed. `None` when a set looks at other labels.
pub(crate) fn names_of(rows: &[EdgeRow], sets: &[Vec<Matcher>]) -> Option<BTreeSet<String>> {
    if sets.iter().flatten().any(|matcher| matcher.name != METRIC_NAME) {
        return None;
    }
    let all = [Vec::new()];
    let sets = if sets.is_empty() { &all[..] } else { sets };
    let resolver = Resolver::learn(rows);
    let families = sets.iter().flat_map(|set| wanted(set)).filter(|(family, _)| is_present(family, rows, &resolver));
    Some(families.flat_map(|(_, parts)| parts).map(|(name, _)| name).collect())
}

fn is_present(family: &Family, rows: &[EdgeRow], resolver: &Resolver) -> bool {
    let mut entities = Entities::new(family.group, resolver);
    rows.iter().any(|row| {
        let mut says_anything = false;
        if entities.of(row).is_some() {
            match family.measure {
                Measure::Counter(read) => read(&row.stats, &mut |_, _| says_anything = true),
                Measure::Latency(read) => read(&row.stats, &mut |_, _| says_anything = true),
                Measure::Slowest(read) => {
                    says_anything = read(&row.stats).iter().any(|(_, slow)| slow.max_nanos().is_some())
                }
                Measure::Graph(_) => says_anything = true,
            }
        }
        says_anything
    })
}
