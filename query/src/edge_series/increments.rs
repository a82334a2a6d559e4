//! Rows → what each series gained in each window. Sums add up whatever rows they come in, so nothing is merged first.

use hashbrown::HashSet;
use windrose_proto::edge::{EdgeRow, Largest, Latency, SEALED_WINDOW_NANOS};

use super::buckets;
use super::entities::{Entities, Pairs};
use super::families::{Extra, Measure};

/// Milliseconds of a window's start and what was gained in it.
pub(super) type Gain = (i64, f64);

/// A latency's gains, each part apart.
#[derive(Debug)]
pub(super) struct LatencyGains {
    /// By bucket, not cumulative over buckets.
    pub(super) buckets: [Vec<Gain>; buckets::COUNT],
    pub(super) sum: Vec<Gain>,
    pub(super) count: Vec<Gain>,
}

impl Default for LatencyGains {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| Vec::new()), sum: Vec::new(), count: Vec::new() }
    }
}

/// For each entity: the labels its family adds, and what was gained under them.
pub(super) type PerEntity<T> = Vec<Vec<(Pairs, T)>>;

/// What the rows hold for one measure.
#[derive(Debug)]
pub(super) enum Gains<'r> {
    Sums(PerEntity<Vec<Gain>>),
    Latencies(PerEntity<LatencyGains>),
    Largest(PerEntity<Vec<(i64, &'r Largest)>>),
}

/// Where the windows of a set of rows begin. Rows of 10 s and rows of 60 s overlap when part of a minute is sealed, or
/// is corrected after it was; then the whole minute is one window, so that a correction meets what it corrects.
#[derive(Debug)]
pub(super) struct Windows(HashSet<i64>);

const SEALED_MILLIS: i64 = (SEALED_WINDOW_NANOS / 1_000_000) as i64;

impl Windows {
    pub(super) fn of(rows: &[EdgeRow]) -> Self {
        let sealed = rows.iter().filter(|row| row.window_nanos >= SEALED_WINDOW_NANOS);
        Self(sealed.map(|row| minute(start_millis(row))).collect())
    }

    pub(super) fn start(&self, row: &EdgeRow) -> i64 {
        let start = start_millis(row);
        let minute = minute(start);
        if self.0.contains(&minute) { minute } else { start }
    }
}

const fn minute(millis: i64) -> i64 {
    millis - millis.rem_euclid(SEALED_MILLIS)
}

/// When a row's window starts, in milliseconds; 2^64 ns are some 1.8e13 of them.
pub(super) fn start_millis(row: &EdgeRow) -> i64 {
    row.window_start.as_millis() as i64
}

/// Reads one measure out of all rows. Gains come in the order of the rows, which is that of time.
pub(super) fn gather<'r>(
    rows: &'r [EdgeRow],
    windows: &Windows,
    measure: Measure,
    entities: &mut Entities<'r>,
) -> Gains<'r> {
    match measure {
        Measure::Counter(read) => {
            Gains::Sums(per_entity(rows, entities, |row, slots: &mut Vec<(Pairs, Vec<Gain>)>| {
                let at = windows.start(row);
                read(&row.stats, &mut |extra, value| slot(slots, extra).push((at, value)));
            }))
        }
        Measure::Latency(read) => {
            Gains::Latencies(per_entity(rows, entities, |row, slots: &mut Vec<(Pairs, LatencyGains)>| {
                let at = windows.start(row);
                read(&row.stats, &mut |extra, latency| slot(slots, extra).add(at, latency));
            }))
        }
        Measure::Slowest(read) => {
            Gains::Largest(per_entity(rows, entities, |row, slots: &mut Vec<(Pairs, Vec<(i64, &'r Largest)>)>| {
                for (side, largest) in read(&row.stats) {
                    let extra: Extra<'_> = if side.is_empty() { &[] } else { &[("side", side)] };
                    slot(slots, extra).push((start_millis(row), largest));
                }
            }))
        }
        // Gauges of the graph are read from the rows of each window, not from gains.
        Measure::Graph(_) => Gains::Sums(Vec::new()),
    }
}

fn per_entity<'r, T>(
    rows: &'r [EdgeRow],
    entities: &mut Entities<'r>,
    mut read: impl FnMut(&'r EdgeRow, &mut Vec<(Pairs, T)>),
) -> PerEntity<T> {
    let mut all: PerEntity<T> = Vec::new();
    for row in rows {
        let Some(entity) = entities.of(row) else { continue };
        if all.len() <= entity {
            all.resize_with(entity + 1, Vec::new);
        }
        read(row, &mut all[entity]);
    }
    all
}

/// The place of a set of added labels. An entity has a handful, so a linear search is the fastest.
fn slot<'s, T: Default>(slots: &'s mut Vec<(Pairs, T)>, extra: Extra<'_>) -> &'s mut T {
    let same = |(pairs, _): &(Pairs, T)| {
        pairs.len() == extra.len() && pairs.iter().zip(extra).all(|(a, b)| a.0 == b.0 && a.1 == b.1)
    };
    let place = slots.iter().position(same).unwrap_or_else(|| {
        let pairs = extra.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        slots.push((pairs, T::default()));
        slots.len() - 1
    });
    &mut slots[place].1
}

impl LatencyGains {
    fn add(&mut self, at: i64, latency: &Latency) {
        self.count.push((at, latency.count as f64));
        self.sum.push((at, latency.sum_nanos as f64 / 1e9));
        for (bucket, count) in buckets::spread(&latency.sketch) {
            self.buckets[bucket].push((at, count as f64));
        }
    }
}
