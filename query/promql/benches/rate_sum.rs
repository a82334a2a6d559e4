//! `sum by (..) (rate(..))` and its relatives over 5,000 counters of 5,760 samples (24 h at 15 s), 715 steps of
//! 120 s: the cost per sample without any decoding. Run with `cargo bench -p windrose-promql`.
//!
//! Budget: 5 ns per sample for rate and sum together on one core.
#![expect(clippy::print_stdout, reason = "a bench prints what it measures")]

use std::hint::black_box;
use std::ops::Range;
use std::time::Instant;

use windrose_promql::value::QueryResult;
use windrose_promql::{Engine, QueryKind, QueryOptions, Select, SeriesSet, SeriesView, Storage, StorageError};
use windrose_proto::metric::labels::Labels;

const SERIES: usize = 5_000;
const SAMPLES: usize = 5_760;
const INTERVAL: i64 = 15_000;
const STEP: i64 = 120_000;
const GROUPS: usize = 240;

/// Series that share one time column, as blocks of one scrape pool do. Values are rising counters; every fiftieth
/// series resets once.
struct Fleet {
    labels: Vec<Labels>,
    timestamps: Vec<i64>,
    values: Vec<Vec<f64>>,
}

impl Fleet {
    fn new() -> Self {
        let labels = (0..SERIES)
            .map(|index| {
                Labels::from_pairs([
                    ("__name__", "requests_total".to_owned()),
                    ("edge", format!("edge-{}", index % GROUPS)),
                    ("pod", format!("pod-{index}")),
                    ("response_code", "200".to_owned()),
                ])
            })
            .collect();
        let values = (0..SERIES)
            .map(|index| {
                let mut value = 0.0;
                (0..SAMPLES)
                    .map(|sample| {
                        value += ((index * 7 + sample * 13) % 17) as f64;
                        if index % 50 == 0 && sample == SAMPLES / 2 {
                            value = 0.0;
                        }
                        value
                    })
                    .collect()
            })
            .collect();
        Self { labels, timestamps: (0..SAMPLES).map(|sample| sample as i64 * INTERVAL).collect(), values }
    }
}

impl Storage for Fleet {
    fn select<'a>(&'a self, request: &Select<'_>) -> Result<Box<dyn SeriesSet + 'a>, StorageError> {
        let from = self.timestamps.partition_point(|time| *time < request.min_time);
        let to = self.timestamps.partition_point(|time| *time <= request.max_time);
        Ok(Box::new(Cursor { fleet: self, samples: from..to, next: 0 }))
    }
}

struct Cursor<'a> {
    fleet: &'a Fleet,
    samples: Range<usize>,
    next: usize,
}

impl SeriesSet for Cursor<'_> {
    fn next(&mut self) -> Result<Option<SeriesView<'_>>, StorageError> {
        let index = self.next;
        self.next += 1;
        let (fleet, samples) = (self.fleet, self.samples.clone());
        Ok((index < SERIES).then(|| {
            SeriesView::floats(&fleet.labels[index], &fleet.timestamps[samples.clone()], &fleet.values[index][samples])
        }))
    }
}

/// Seconds this thread has been on a processor, so that other work on the machine does not count; wall time where the
/// system does not tell.
fn cpu_seconds(since: Instant) -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat");
    let nanos = told.ok().and_then(|line| line.split(' ').next()?.parse::<u64>().ok());
    nanos.map_or_else(|| since.elapsed().as_secs_f64(), |nanos| nanos as f64 / 1e9)
}

fn main() {
    // `cargo test --benches` runs this too; a debug build would take minutes and measure nothing.
    if cfg!(debug_assertions) {
        return;
    }
    let fleet = Fleet::new();
    let engine = Engine::default();
    let end = SAMPLES as i64 * INTERVAL;
    let begin = Instant::now();
    let range = QueryKind::Range { start: 5 * 60_000, end: end - INTERVAL, step: STEP };
    for (query, kind) in [
        ("sum by (edge) (rate(requests_total[5m]))", range),
        ("sum(rate(requests_total[5m])) / sum(rate(requests_total[5m]))", range),
        ("sum by (edge) (requests_total)", range),
        ("max by (edge) (max_over_time(requests_total[5m]))", range),
        ("topk(5, sum by (edge) (rate(requests_total[5m])))", range),
        ("rate(requests_total[5m])", range),
        ("sum by (edge) (rate(requests_total[5m]))", QueryKind::Instant(end - INTERVAL)),
    ] {
        // The clock of a thread ticks in milliseconds; an instant query takes less and is repeated more often.
        let runs = if matches!(kind, QueryKind::Instant(_)) { 200 } else { 5 };
        let before = cpu_seconds(begin);
        let mut series = 0;
        for _ in 0..runs {
            let evaluation = engine.query(black_box(&fleet), query, kind, &QueryOptions::default());
            series = match evaluation.map(|evaluation| evaluation.result) {
                Ok(QueryResult::Matrix(series)) => series.len(),
                Ok(QueryResult::Vector(samples, _)) => samples.len(),
                _ => 0,
            };
        }
        let cost = (cpu_seconds(begin) - before) / f64::from(runs);
        let per_sample = cost * 1e9 / (SERIES * SAMPLES) as f64;
        println!("{:>9.1} ms  {per_sample:>6.2} ns/sample  {series:>5} series  {query}", cost * 1e3);
    }
}
