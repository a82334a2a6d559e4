//! MB/s of reading a metric page, against `prometheus-parse`, and samples per second of taking
//! counters out of it.
//!
//! Run with `cargo bench -p windrose-collector --bench scrape`. Under `cargo test` it runs once over
//! one page. Contenders take turns and the best round of each counts, because a busy machine only
//! ever makes things slower.

use std::hint::black_box;
use std::time::{Duration, Instant};

use windrose_collector::exposition::{Dialect, Line, LineTable, PageReader, Parser, Series};
use windrose_collector::metrics_map::{Observer, Options, Page, TargetIdentity, TargetState, Use};
use windrose_proto::time::UnixNanos;

/// A page of the mesh's ingress gateway, trimmed.
const PAGE: &str = include_str!("../src/exposition/testdata/envoy-ingress.prom");

const ROUNDS: u32 = 50;

fn best(rounds: u32, mut work: impl FnMut()) -> Duration {
    let time = |_| {
        let started = Instant::now();
        work();
        started.elapsed()
    };
    (0..rounds).map(time).min().unwrap_or_default()
}

#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
fn main() {
    let is_test = !std::env::args().any(|argument| argument == "--bench");
    let (copies, rounds) = if is_test { (1, 1) } else { (20, ROUNDS) };
    let page = PAGE.repeat(copies);
    let samples = Parser::new(page.as_bytes(), Dialect::Text).samples().count();
    assert!(samples > 200 * copies, "only {samples} samples were read");

    let megabytes = page.len() as f64 / 1e6;
    let ours = best(rounds, || {
        black_box(Parser::new(black_box(page.as_bytes()), Dialect::Text).samples().count());
    });
    let theirs = best(rounds.min(10), || {
        let lines = black_box(&page).lines().map(|line| Ok(line.to_owned()));
        drop(black_box(prometheus_parse::Scrape::parse(lines)));
    });
    println!(
        "read: {:.0} MB/s, prometheus-parse {:.0} MB/s",
        megabytes / ours.as_secs_f64(),
        megabytes / theirs.as_secs_f64()
    );

    let identity = TargetIdentity::from_labels([("app", "istio-ingressgateway"), ("kind", "gateway")]);
    let (mut state, options) = (TargetState::default(), Options::default());
    let mut lines: LineTable<Option<Use>> = LineTable::default();
    let mut secs = 0;
    let mut scrape = || {
        secs += 5;
        let page = Page { body: PAGE.as_bytes(), dialect: Dialect::Text, scraped_at: UnixNanos::from_secs(secs) };
        let mut reader = PageReader::new(page.body, page.dialect, &mut lines);
        let mut observer = Observer::new(&identity, &mut state, page, &options);
        while let Ok(Some(line)) = reader.next_line() {
            let Line::Sample { line, series, numbers } = line else { continue };
            let memory = reader.memory(line);
            let counter = match *memory {
                Some(counter) => counter,
                None => {
                    let Ok(series) = Series::parse(series, Dialect::Text) else { continue };
                    *memory.insert(observer.admit(&series))
                }
            };
            observer.take(counter, numbers.value);
        }
        black_box(observer.finish());
    };
    // The first page works out what each series means; every later one only looks it up.
    scrape();
    let counted = best(rounds, scrape);
    let per_page = samples / copies;
    println!("count: {:.0} ns per sample on a known page", counted.as_nanos() as f64 / per_page as f64);
}
