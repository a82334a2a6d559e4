use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use windrose_proto::metric::{MatchOp, Matcher, MetricKind, is_stale_marker};
use windrose_proto::tenant::TenantId;
use windrose_proto::time::{ManualClock, UnixNanos};
use windrose_store::disk::SimDisk;
use windrose_store::metrics::{MetricConfig, MetricStore, ReadLimits, SeriesSlice};
use windrose_store::sealed::WriterName;

use super::{Page, TargetSeries, report};
use crate::exposition::Dialect;
use crate::metrics_map::Options;
use crate::normalise::host::HostRules;
use crate::normalise::overrides::{Alias, Overrides};
use crate::scrape::page::tests::target;
use crate::scrape::{PageCounts, ScrapeReport, Target};

/// An empty store in memory.
pub(in crate::scrape) async fn empty_store() -> MetricStore {
    let clock = Arc::new(ManualClock::new(UnixNanos::from_secs(1000)));
    let (disk, tables) = (Arc::new(SimDisk::new(1)), Arc::new(InMemory::new()));
    let writer = WriterName::new("test").unwrap();
    MetricStore::open(disk, Path::new("/metrics"), MetricConfig::default(), clock, tables, writer).await.unwrap().0
}

/// Every sample of the series whose name matches, as `labels time=value …` lines.
pub(in crate::scrape) async fn stored(store: &MetricStore, name: &str) -> Vec<String> {
    let matchers = [Matcher::new(MatchOp::Regex, "__name__", name).unwrap()];
    let reader = store.reader(&TenantId::default());
    let mut selected = reader.select(&matchers, i64::MIN, i64::MAX, ReadLimits::default()).await.unwrap();
    let mut lines = Vec::new();
    while let Some(SeriesSlice { labels, timestamps, values }) = selected.next().unwrap() {
        let mut line = labels.to_string();
        for (timestamp, value) in timestamps.iter().zip(values) {
            let value = if is_stale_marker(*value) { "stale".to_owned() } else { value.to_string() };
            line.push_str(&format!(" {}={value}", *timestamp as f64 / 1000.0));
        }
        lines.push(line);
    }
    lines
}

/// One target, scraped page by page.
struct Bench {
    target: Target,
    series: TargetSeries,
    store: MetricStore,
    options: Options,
}

impl Bench {
    async fn new(more: &str) -> Self {
        let (series, options) = (TargetSeries::default(), Options::default());
        Self { target: target(more), series, store: empty_store().await, options }
    }

    async fn scrape(&mut self, secs: u64, body: &str) -> Result<PageCounts, String> {
        let scraped_at = UnixNanos::from_secs(secs);
        let mut append = self.store.append(&self.target.pool.tenant);
        let page = Page { body: body.as_bytes(), dialect: Dialect::Text, scraped_at };
        let read = self.series.read(&self.target, page, &self.options, &mut append);
        let counts = read.map(|(counts, _)| counts).map_err(|error| error.to_string());
        if counts.is_err() {
            append = self.store.append(&self.target.pool.tenant);
            self.series.fail(&self.target, scraped_at, true, &mut append);
        }
        self.report(scraped_at, counts.clone(), &mut append);
        append.commit().await.unwrap();
        counts
    }

    async fn no_answer(&mut self, secs: u64) {
        let scraped_at = UnixNanos::from_secs(secs);
        let mut append = self.store.append(&self.target.pool.tenant);
        self.series.fail(&self.target, scraped_at, false, &mut append);
        self.report(scraped_at, Err("connection refused".to_owned()), &mut append);
        append.commit().await.unwrap();
    }

    fn report(&self, scraped_at: UnixNanos, counts: Result<PageCounts, String>, append: &mut super::Append) {
        let error = counts.clone().err();
        let (counts, duration) = (counts.unwrap_or_default(), Duration::from_millis(250));
        report(&self.target, &ScrapeReport { scraped_at, duration, error, counts, body_bytes: 77 }, append);
    }

    async fn stored(&self, name: &str) -> Vec<String> {
        stored(&self.store, name).await
    }
}

const TARGET: &str = r#"app="orders", instance="a:1", job="j""#;

#[tokio::test]
async fn a_page_is_stored_with_its_report() {
    let mut bench = Bench::new("").await;
    let page = "# TYPE m counter\n# HELP m many \\n lines\nm{x=\"1\",le=\"1\"} 5 # {trace_id=\"t\"} 0.5\nn 2\n";
    let counts = bench.scrape(10, page).await.unwrap();
    assert_eq!((counts.samples, counts.samples_kept, counts.series_added), (2, 2, 2));
    let counts = bench.scrape(20, &page.replace("} 5", "} 6")).await.unwrap();
    assert_eq!((counts.samples, counts.series_added), (2, 0));
    assert_eq!(
        bench.stored("m|n").await,
        [
            r#"{__name__="m", app="orders", instance="a:1", job="j", le="1.0", x="1"} 10=5 20=6"#.to_owned(),
            format!(r#"{{__name__="n", {TARGET}}} 10=2 20=2"#),
        ]
    );
    assert_eq!(
        bench.stored("up|scrape_.*").await,
        [
            format!(r#"{{__name__="scrape_duration_seconds", {TARGET}}} 10=0.25 20=0.25"#),
            format!(r#"{{__name__="scrape_samples_post_metric_relabeling", {TARGET}}} 10=2 20=2"#),
            format!(r#"{{__name__="scrape_samples_scraped", {TARGET}}} 10=2 20=2"#),
            format!(r#"{{__name__="scrape_series_added", {TARGET}}} 10=2 20=0"#),
            format!(r#"{{__name__="up", {TARGET}}} 10=1 20=1"#),
        ]
    );
    let reader = bench.store.reader(&TenantId::default());
    let exemplars = reader.exemplars(&[vec![Matcher::equal("__name__", "m")]], i64::MIN, i64::MAX).await.unwrap();
    assert_eq!(exemplars[0].1[0].labels.get("trace_id"), "t");
    assert_eq!(exemplars[0].1[0].timestamp, 10_000, "without a time of its own it has the sample's");
    let (family, metadata) = reader.metadata().next().unwrap();
    assert_eq!((&*family, metadata.kind, metadata.help.as_str()), ("m", MetricKind::Counter, "many \n lines"));
}

#[tokio::test]
async fn series_that_vanish_end_once() {
    let mut bench = Bench::new("").await;
    bench.scrape(10, "a 1\nb{x=\"1\",y=\"2\"} 1\n").await.unwrap();
    // The same series in another order is there all the time.
    bench.scrape(20, "b{y=\"2\",x=\"1\"} 2\n").await.unwrap();
    bench.scrape(30, "b{x=\"1\",y=\"2\"} 3\n").await.unwrap();
    bench.scrape(40, "a 4\nb{x=\"1\",y=\"2\"} 4\n").await.unwrap();
    assert_eq!(bench.stored("a").await, [format!(r#"{{__name__="a", {TARGET}}} 10=1 20=stale 40=4"#)]);
    let b = format!(r#"{{__name__="b", {TARGET}, x="1", y="2"}} 10=1 20=2 30=3 40=4"#);
    assert_eq!(bench.stored("b").await, [b]);
}

#[tokio::test]
async fn a_failed_scrape_ends_everything_once() {
    let mut bench = Bench::new("").await;
    bench.scrape(10, "a 1\n").await.unwrap();
    assert_eq!(
        bench.scrape(20, "a 2\nnew 1\nbroken{\n").await.unwrap_err(),
        "expected a label name in line \"broken{\""
    );
    bench.no_answer(30).await;
    bench.scrape(40, "a 4\n").await.unwrap();
    bench.no_answer(50).await;
    assert_eq!(bench.stored("a").await, [format!(r#"{{__name__="a", {TARGET}}} 10=1 20=stale 40=4 50=stale"#)]);
    assert_eq!(bench.stored("new").await, [] as [&str; 0], "a bad page makes no series");
    assert_eq!(bench.stored("up").await, [format!(r#"{{__name__="up", {TARGET}}} 10=1 20=0 30=0 40=1 50=0"#)]);
    let mut append = bench.store.append(&TenantId::default());
    bench.series.end(&bench.target, UnixNanos::from_secs(60), &mut append);
    append.commit().await.unwrap();
    let up = bench.stored("up").await;
    assert!(up[0].ends_with(" 50=0 60=stale"), "{up:?}");
}

#[tokio::test]
async fn series_with_times_of_their_own_end_only_if_asked() {
    for (more, expect) in [("", " 5=1"), ("  track_timestamps_staleness: true\n", " 5=1 20=stale")] {
        let mut bench = Bench::new(more).await;
        bench.scrape(10, "a 1 5000\nb 1\n").await.unwrap();
        bench.scrape(20, "b 1\n").await.unwrap();
        assert_eq!(bench.stored("a").await, [format!(r#"{{__name__="a", {TARGET}}}{expect}"#)]);
    }
    let mut bench = Bench::new("").await;
    let counts = bench.scrape(10, "a 1 610000\nb 1 610001\n").await.unwrap();
    assert_eq!((counts.samples_kept, counts.samples_too_new), (2, 1));
    assert_eq!(bench.stored("b").await, [] as [&str; 0]);
}

#[tokio::test]
async fn a_page_beyond_a_limit_fails_whole() {
    for (more, page, expect) in [
        ("  sample_limit: 1\n", "a 1\nb 2\n", "sample limit exceeded: 1 samples"),
        ("  label_limit: 4\n", "a{x=\"1\"} 1\n", "label_limit exceeded (metric: a, number of labels: 5, limit: 4)"),
    ] {
        let mut bench = Bench::new(more).await;
        for secs in [10, 20] {
            assert_eq!(bench.scrape(secs, page).await.unwrap_err(), expect);
        }
        assert_eq!(bench.stored("a|b").await, [] as [&str; 0]);
        // And the next page is as good as ever.
        bench.scrape(30, "a 3\n").await.unwrap();
        assert_eq!(bench.stored("a").await, [format!(r#"{{__name__="a", {TARGET}}} 30=3"#)]);
    }
    let rules = "  sample_limit: 1\n  metric_relabel_configs: [{source_labels: [__name__], regex: a, action: drop}]\n";
    let mut bench = Bench::new(rules).await;
    let counts = bench.scrape(10, "a 1\nb 2\n").await.unwrap();
    assert_eq!((counts.samples, counts.samples_kept), (2, 1), "limits count what is kept");
    assert_eq!(bench.stored("a").await, [] as [&str; 0]);
}

#[tokio::test]
async fn expired_series_are_looked_up_again() {
    let mut bench = Bench::new("").await;
    let (first, second) = ("a 1\nb 1\nc 1\n", "a 2\nb 2\nd 2\n");
    bench.scrape(10, first).await.unwrap();
    let scraped_at = UnixNanos::from_secs(20);
    let page = Page { body: second.as_bytes(), dialect: Dialect::Text, scraped_at };
    let mut lost = bench.store.append(&TenantId::default());
    bench.series.read(&bench.target, page, &bench.options, &mut lost).unwrap();
    drop(lost);
    let expired: Vec<_> = bench.series.lines.present().filter_map(|line| line.series()).take(2).collect();
    bench.series.expire(&expired);
    let mut append = bench.store.append(&TenantId::default());
    let counts = bench.series.read_again(&bench.target, page, &mut append).unwrap();
    append.commit().await.unwrap();
    assert_eq!(counts.samples, 3);
    let values = |line: &String| line.split_once("} ").unwrap().1.to_owned();
    let stored: Vec<String> = bench.stored("a|b|c|d").await.iter().map(values).collect();
    assert_eq!(stored, ["10=1 20=2", "10=1 20=2", "10=1 20=stale", "20=2"]);
}

#[tokio::test]
async fn limits_are_reported_if_asked() {
    let mut bench = Bench::new("  extra_scrape_metrics: true\n  sample_limit: 9\n").await;
    bench.scrape(10, "a 1\n").await.unwrap();
    let values = |line: &String| line.split_once("} ").unwrap().1.to_owned();
    let names = "scrape_body_size_bytes|scrape_sample_limit|scrape_timeout_seconds";
    assert_eq!(bench.stored(names).await.iter().map(values).collect::<Vec<_>>(), ["10=77", "10=9", "10=10"]);
}

/// Which hosts are inside decides what a line means; the counters go on from where they were.
#[tokio::test]
async fn lines_are_worked_out_anew_when_other_hosts_are_inside() {
    let mut bench = Bench::new("").await;
    let page = |value: u64| {
        format!(
            "envoy_cluster_upstream_rq{{response_code=\"200\",cluster_name=\"outbound|80||crm.corp.example\"}} {value}\n"
        )
    };
    let scrape = |bench: &mut Bench, secs: u64, value: u64| {
        let mut append = bench.store.append(&bench.target.pool.tenant);
        let (scraped_at, body) = (UnixNanos::from_secs(secs), page(value));
        let page = Page { body: body.as_bytes(), dialect: Dialect::Text, scraped_at };
        let (_, counted) = bench.series.read(&bench.target, page, &bench.options, &mut append).unwrap();
        let edges = counted.counters.map(|batch| batch.edges).unwrap_or_default();
        let told =
            |edge: windrose_proto::wire::EdgeCounters| (edge.direction, edge.destination.unwrap().service, edge.calls);
        edges.into_iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!(scrape(&mut bench, 10, 100), []);
    assert_eq!(scrape(&mut bench, 20, 103), [("egress".to_owned(), "crm.corp.example".to_owned(), 3)]);
    let hosts = HostRules { internal_suffixes: vec!["corp.example".to_owned()], ..HostRules::default() };
    bench.options.overrides = Arc::new(Overrides { hosts, ..Overrides::default() });
    let inside = scrape(&mut bench, 30, 108);
    assert_eq!(
        inside.iter().map(|(direction, _, calls)| (&**direction, *calls)).collect::<Vec<_>>(),
        [("east_west", 5)]
    );
    // Names are given to what was told, so that nothing is worked out anew.
    let aliases = [(inside[0].1.clone(), Alias::parse("sales/crm"))].into();
    bench.options.overrides = Arc::new(Overrides { aliases, ..Overrides::clone(&bench.options.overrides) });
    assert_eq!(scrape(&mut bench, 40, 110), [("east_west".to_owned(), "crm".to_owned(), 2)]);
}
