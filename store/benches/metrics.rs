//! What a sample and a series cost: appending by cached references, selecting, memory, blocks.
//!
//! The load is that of Istio sidecars: per edge two classic histograms and a counter with two dozen
//! shared labels, four in ten edges idle, the others busy from 0.1 to 300 requests a scrape.
//!
//! `cargo bench -p windrose-store --bench metrics [-- DIR]` measures on the file system of `DIR`;
//! `cargo test --benches` runs it once with a tiny input.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use windrose_proto::metric::{Labels, Matcher};
use windrose_proto::tenant::TenantId;
use windrose_proto::time::{ManualClock, UnixNanos};
use windrose_store::disk::{Disk, OsDisk};
use windrose_store::metrics::{MetricConfig, MetricStore, ReadLimits, SeriesRef};
use windrose_store::sealed::{DiskStore, WriterName};
use windrose_store::wal::{SyncPolicy, WalConfig};

/// 2026-11-21T00:00:00Z, a multiple of two hours.
const START_SECS: u64 = 1_795_219_200;
const SCRAPE_MS: i64 = 15_000;
const BUCKETS: [&str; 20] = [
    "0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "30000", "60000",
    "300000", "600000", "1.8e+06", "3.6e+06", "+Inf",
];
/// Two histograms with sum and count, and a counter.
const SERIES_PER_EDGE: usize = 2 * (BUCKETS.len() + 2) + 1;
const EDGES_PER_SIDECAR: usize = 20;

/// A counter that grows like requests do.
struct Edge {
    /// Requests per scrape, 0 for an idle one.
    rate: f64,
    counts: [[f64; BUCKETS.len()]; 2],
    sums: [f64; 2],
    total: f64,
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as f64) / f64::from(1_u32 << 31)
    }

    /// Roughly Poisson: the sum of many rare events, or a normal around a large mean.
    fn count(&mut self, mean: f64) -> f64 {
        let spread: f64 = (0..4).map(|_| self.next() - 0.5).sum();
        (mean + spread * (3.0 * mean).sqrt() + self.next() - 0.5).round().max(0.0)
    }
}

impl Edge {
    fn new(random: &mut Random) -> Self {
        let idle = random.next() < 0.4;
        let rate = if idle { 0.0 } else { 10_f64.powf(random.next() * 3.5 - 1.0) };
        let start = (random.next() * 1e6).round();
        Self { rate, counts: [[start; BUCKETS.len()]; 2], sums: [start * 20.0; 2], total: start }
    }

    fn scrape(&mut self, random: &mut Random) {
        if self.rate == 0.0 {
            return;
        }
        for (histogram, counts) in self.counts.iter_mut().enumerate() {
            let mut below = 0.0;
            for (bucket, count) in counts.iter_mut().enumerate() {
                let distance = (bucket as f64 - 6.0) / 2.0;
                below += random.count(self.rate * 0.2 * (-distance * distance / 2.0).exp());
                *count += below;
            }
            self.sums[histogram] = ((self.sums[histogram] + below * 43.0 * random.next()) * 1000.0).round() / 1000.0;
            if histogram == 0 {
                self.total += below;
            }
        }
    }

    fn values(&self) -> impl Iterator<Item = f64> + '_ {
        let histogram =
            |index: usize| self.counts[index].iter().copied().chain([self.sums[index], self.counts[index][19]]);
        histogram(0).chain(histogram(1)).chain([self.total])
    }
}

fn labels_of(sidecar: usize, edge: usize) -> Vec<Labels> {
    let mut shared: Vec<(String, String)> =
        (0..16).map(|index| (format!("label_{index:02}"), format!("value-{index}-{}", edge % 3))).collect();
    let pod = format!("service-{}-7d9f8b6c5-{sidecar:05}", sidecar % 100);
    for (name, value) in [
        ("destination_service", format!("service-{edge}.prod.svc.cluster.local")),
        ("destination_workload", format!("service-{edge}")),
        ("instance", format!("10.{}.{}.7:15020", sidecar / 256, sidecar % 256)),
        ("job", "istio".to_owned()),
        ("pod", pod),
        ("reporter", "source".to_owned()),
        ("response_code", "200".to_owned()),
        ("source_workload", format!("service-{}", sidecar % 100)),
    ] {
        shared.push((name.to_owned(), value));
    }
    let series = |name: &str, bucket: Option<&str>| {
        let mut labels = shared.clone();
        labels.push(("__name__".to_owned(), name.to_owned()));
        labels.extend(bucket.map(|bucket| ("le".to_owned(), bucket.to_owned())));
        Labels::from_pairs(labels)
    };
    let mut all = Vec::with_capacity(SERIES_PER_EDGE);
    for name in ["istio_request_duration_milliseconds", "istio_request_bytes"] {
        all.extend(BUCKETS.iter().map(|bucket| series(&format!("{name}_bucket"), Some(bucket))));
        all.extend(["_sum", "_count"].map(|suffix| series(&format!("{name}{suffix}"), None)));
    }
    all.push(series("istio_requests_total", None));
    all
}

struct Sidecar {
    edges: Vec<Edge>,
    references: Vec<SeriesRef>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_measurement = arguments.iter().any(|argument| argument == "--bench");
    // Without `--bench` this runs as a test, and a word is a filter.
    let dir = arguments.iter().find(|argument| is_measurement && !argument.starts_with('-')).map(PathBuf::from);
    let temp = tempfile::tempdir_in(dir.unwrap_or_else(std::env::temp_dir)).expect("a directory to write to");
    let (sidecars, scrapes) = if is_measurement { (110, 480) } else { (2, 20) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(temp.path(), sidecars, scrapes));
}

async fn run(dir: &std::path::Path, sidecars: usize, scrapes: i64) {
    let clock = ManualClock::new(UnixNanos::from_secs(START_SECS));
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let tables = DiskStore::open(Arc::clone(&disk), &dir.join("tables")).expect("a directory for tables");
    // The log's syncs are measured by its own bench.
    let wal = WalConfig { sync: SyncPolicy::Never, group_window: Duration::ZERO, ..MetricConfig::default().wal };
    let config = MetricConfig { wal, ..MetricConfig::default() };
    let writer = WriterName::new("bench").expect("a good name");
    let opening = MetricStore::open(disk, &dir.join("log"), config, Arc::new(clock.clone()), Arc::new(tables), writer);
    let store = opening.await.expect("an empty store").0;
    let tenant = TenantId::default();
    let mut random = Random(7);

    let before = resident_bytes();
    let started = Instant::now();
    let mut fleet: Vec<Sidecar> = Vec::with_capacity(sidecars);
    for sidecar in 0..sidecars {
        let mut append = store.append(&tenant);
        let mut references = Vec::new();
        let mut edges = Vec::new();
        for edge in 0..EDGES_PER_SIDECAR {
            edges.push(Edge::new(&mut random));
            for labels in labels_of(sidecar, edge) {
                references.push(append.series(&labels).expect("below the limits"));
            }
        }
        append.commit().await.expect("an empty batch");
        fleet.push(Sidecar { edges, references });
    }
    let series = (sidecars * EDGES_PER_SIDECAR * SERIES_PER_EDGE) as f64;
    line("create", "ns/series, label sets built too", started.elapsed().as_nanos() as f64 / series);

    let mut appending = Duration::ZERO;
    let mut pages: Vec<f64> = Vec::new();
    for scrape in 0..scrapes {
        let now_ms = START_SECS as i64 * 1000 + scrape * SCRAPE_MS;
        for sidecar in &mut fleet {
            pages.clear();
            for edge in &mut sidecar.edges {
                edge.scrape(&mut random);
                pages.extend(edge.values());
            }
            let started = Instant::now();
            let mut append = store.append(&tenant);
            append.reserve(pages.len());
            for (reference, value) in sidecar.references.iter().zip(&pages) {
                append.sample(*reference, now_ms, *value);
            }
            append.commit().await.expect("a log with room");
            appending += started.elapsed();
        }
        clock.advance(Duration::from_millis(SCRAPE_MS as u64));
    }
    let samples = series * scrapes as f64;
    let stats = store.stats();
    line("append", "ns/sample, log included", appending.as_nanos() as f64 / samples);
    line("log", "bytes/sample", stats.log_bytes as f64 / samples);
    line("memory", "bytes/sample in chunks", stats.sample_bytes as f64 / samples);
    line("memory", "bytes/series in the index", stats.index_bytes as f64 / series);
    line("memory", "bytes/series all in, accounted", (stats.index_bytes + stats.sample_bytes) as f64 / series);
    line("memory", "bytes/series, resident", resident_bytes().saturating_sub(before) as f64 / series);

    for (name, matchers) in
        [("select all", vec![]), ("select one metric", vec![Matcher::equal("__name__", "istio_requests_total")])]
    {
        select(&store, &tenant, name, &matchers).await;
    }
    let started = Instant::now();
    store.flush().await.expect("a writable directory");
    line("block", "ns/sample", started.elapsed().as_nanos() as f64 / samples);
    line("block", "bytes/sample, all files", store.stats().block_bytes as f64 / samples);
    clock.advance(Duration::from_secs(4 * 3600));
    store.flush().await.expect("a writable directory");
    clock.advance(Duration::from_secs(4 * 3600));
    store.flush().await.expect("a writable directory");
    for name in ["select from blocks, cold", "select from blocks, cached"] {
        select(&store, &tenant, name, &[]).await;
    }
}

async fn select(store: &MetricStore, tenant: &TenantId, name: &str, matchers: &[Matcher]) {
    let started = Instant::now();
    let selecting = store.reader(tenant).select(matchers, i64::MIN, i64::MAX, ReadLimits::default());
    let mut selected = selecting.await.expect("readable blocks");
    let selecting = started.elapsed();
    let started = Instant::now();
    let (mut series, mut samples) = (0_usize, 0_usize);
    while let Some(slice) = selected.next().expect("readable blocks") {
        series += 1;
        samples += std::hint::black_box(slice.values).len();
    }
    line(name, "us/series to select", selecting.as_nanos() as f64 / 1000.0 / series as f64);
    line(name, "ns/sample to decode", started.elapsed().as_nanos() as f64 / samples as f64);
}

fn line(what: &str, unit: &str, value: f64) {
    print_line(&format!("{what:<28}{value:>12.3} {unit}"));
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).map_or(0, |pages| pages * 4096)
}

#[expect(clippy::print_stdout, reason = "a bench reports to whoever runs it")]
fn print_line(line: &dyn fmt::Display) {
    println!("{line}");
}
