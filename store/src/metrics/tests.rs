mod blocks;
mod durability;

use std::sync::Arc;

use object_store::memory::InMemory;
use windrose_proto::metric::{Exemplar, Labels, Matcher, Metadata, MetricKind};
use windrose_proto::time::{ManualClock, UnixNanos};

use super::*;
use crate::disk::SimDisk;
use crate::wal::WalConfig;

const ALL: (i64, i64) = (i64::MIN, i64::MAX);

fn tenant() -> TenantId {
    TenantId::default()
}

fn labels(text: &str) -> Labels {
    Labels::from_pairs(text.split(' ').filter_map(|pair| pair.split_once('=')))
}

async fn open(config: MetricConfig) -> MetricStore {
    let clock = Arc::new(ManualClock::new(UnixNanos::from_secs(1_795_219_200)));
    let writer = WriterName::new("test").unwrap();
    let tables = Arc::new(InMemory::new());
    MetricStore::open(Arc::new(SimDisk::new(1)), Path::new("/metrics"), config, clock, tables, writer).await.unwrap().0
}

async fn append(store: &MetricStore, samples: &[(&str, i64, f64)]) -> AppendReport {
    let mut append = store.append(&tenant());
    for (text, timestamp_ms, value) in samples {
        let series = append.series(&labels(text)).unwrap();
        append.sample(series, *timestamp_ms, *value);
    }
    append.commit().await.unwrap()
}

/// Everything selected, as `labels time=value …` lines.
async fn select(store: &MetricStore, matchers: &[Matcher], (min_ms, max_ms): (i64, i64)) -> Vec<String> {
    let reader = store.reader(&tenant());
    let mut selected = reader.select(matchers, min_ms, max_ms, ReadLimits::default()).await.unwrap();
    let mut lines = Vec::new();
    while let Some(SeriesSlice { labels, timestamps, values }) = selected.next().unwrap() {
        let samples = timestamps.iter().zip(values).map(|(timestamp, value)| format!(" {timestamp}={value}"));
        lines.push(format!("{labels}{}", samples.collect::<String>()));
    }
    lines
}

#[tokio::test]
async fn what_was_appended_is_selected_in_order() {
    let store = open(MetricConfig::default()).await;
    let report = append(&store, &[("__name__=up pod=b", 1000, 1.0), ("__name__=up pod=a", 1000, 0.0)]).await;
    assert_eq!(report, AppendReport { stored: 2, ..AppendReport::default() });
    append(&store, &[("__name__=up pod=b", 2000, 2.0), ("__name__=down", 1000, 5.0)]).await;
    let up = [Matcher::equal("__name__", "up")];
    assert_eq!(
        select(&store, &up, ALL).await,
        [r#"{__name__="up", pod="a"} 1000=0"#, r#"{__name__="up", pod="b"} 1000=1 2000=2"#]
    );
    assert_eq!(select(&store, &up, (1001, 2000)).await, [r#"{__name__="up", pod="b"} 2000=2"#]);
    assert_eq!(select(&store, &[Matcher::equal("pod", "z")], ALL).await, [] as [&str; 0]);
}

#[tokio::test]
async fn late_double_and_contradicting_samples() {
    let store = open(MetricConfig::default()).await;
    let at = |times: &[(i64, f64)]| -> Vec<(&'static str, i64, f64)> {
        times.iter().map(|(timestamp_ms, value)| ("__name__=m", *timestamp_ms, *value)).collect()
    };
    append(&store, &at(&[(10, 1.0), (20, 2.0), (30, 3.0)])).await;
    let report =
        append(&store, &at(&[(20, 2.0), (20, 9.0), (15, 1.5), (15, 1.5), (15, 8.0), (30, 3.0), (5, 0.5)])).await;
    assert_eq!(report, AppendReport { stored: 2, duplicates: 3, conflicts: 2, ..AppendReport::default() });
    let report = append(&store, &at(&[(i64::MAX, 1.0)])).await;
    assert_eq!(report, AppendReport { too_old: 1, ..AppendReport::default() });
    assert_eq!(select(&store, &[], ALL).await, [r#"{__name__="m"} 5=0.5 10=1 15=1.5 20=2 30=3"#]);
}

#[tokio::test]
async fn backfill_of_thousands_is_sorted_in() {
    let store = open(MetricConfig::default()).await;
    append(&store, &[("__name__=m", 10_000_000, -1.0)]).await;
    for page in 0..50 {
        let times: Vec<_> =
            (0..40).map(|index| ("__name__=m", (page * 40 + index) * 10, f64::from(index as i32))).collect();
        assert_eq!(append(&store, &times).await.stored, 40);
    }
    let lines = select(&store, &[], ALL).await;
    assert_eq!(lines[0].split(' ').count(), 1 + 2001);
    assert!(lines[0].ends_with("19990=39 10000000=-1"), "{}", &lines[0][lines[0].len() - 40..]);
    assert_eq!(append(&store, &[("__name__=m", 17 * 10, 17.0)]).await.duplicates, 1);
}

#[tokio::test]
async fn limits_refuse_a_series_and_are_counted() {
    let config =
        MetricConfig { max_series: 1, max_labels_per_series: 2, max_label_bytes: 20, ..MetricConfig::default() };
    let store = open(config).await;
    let mut append = store.append(&tenant());
    let known = append.series(&labels("a=1")).unwrap();
    assert_eq!(append.series_of(&[("a", "1")]), Ok(known));
    assert_eq!(append.series(&labels("a=2")), Err(SeriesLimit::Series { limit: 1 }));
    assert_eq!(append.series(&labels("a=2 b=1 c=1")), Err(SeriesLimit::Labels { labels: 3, limit: 2 }));
    let long = format!("a={}", "x".repeat(20));
    assert_eq!(append.series(&labels(&long)), Err(SeriesLimit::LabelBytes { bytes: 21, limit: 20 }));
    let dropped = store.stats().dropped;
    for reason in [DropReason::SeriesLimit, DropReason::LabelLimit, DropReason::LabelBytesLimit] {
        assert!(dropped.contains(&(reason, 1)), "{dropped:?}");
    }
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let store = open(MetricConfig::default()).await;
    append(&store, &[("__name__=m", 1, 1.0)]).await;
    let other = store.reader(&TenantId::new("other").unwrap());
    assert_eq!(other.series(&[vec![]], ALL.0, ALL.1, 10).await.unwrap(), []);
    assert_eq!(other.cardinality(10), Cardinality::default());
    assert_eq!(store.tenants(), [tenant()]);
}

#[tokio::test]
async fn listings_respect_matchers_time_and_limits() {
    let store = open(MetricConfig::default()).await;
    append(&store, &[("__name__=m a=1", 1000, 1.0), ("__name__=m a=2", 2000, 1.0), ("__name__=n b=1", 1000, 1.0)])
        .await;
    let reader = store.reader(&tenant());
    let m = [vec![Matcher::equal("__name__", "m")]];
    assert_eq!(reader.label_names(&[], ALL.0, ALL.1, 9).await.unwrap(), ["__name__", "a", "b"]);
    assert_eq!(reader.label_names(&m, ALL.0, ALL.1, 9).await.unwrap(), ["__name__", "a"]);
    assert_eq!(reader.label_values("a", &m, 0, 1500, 9).await.unwrap(), ["1"]);
    assert_eq!(reader.label_values("a", &[], ALL.0, ALL.1, 1).await.unwrap(), ["1"]);
    assert_eq!(reader.series(&m, ALL.0, ALL.1, 9).await.unwrap(), [labels("__name__=m a=1"), labels("__name__=m a=2")]);
    assert_eq!(reader.series(&m, 1500, 3000, 9).await.unwrap(), [labels("__name__=m a=2")]);
}

#[tokio::test]
async fn exemplars_and_metadata_travel_with_the_batch() {
    let store = open(MetricConfig::default()).await;
    let exemplar = |timestamp| Exemplar { labels: labels("trace_id=abc"), value: 0.5, timestamp };
    let mut append = store.append(&tenant());
    let series = append.series(&labels("__name__=h_bucket le=1")).unwrap();
    append.exemplar(series, exemplar(2000));
    append.exemplar(series, exemplar(1000));
    append.exemplar(series, exemplar(2000));
    let metadata = Metadata { kind: MetricKind::Histogram, help: "Latency.".to_owned(), unit: String::new() };
    append.metadata("h", &metadata);
    assert_eq!(append.commit().await.unwrap().exemplars, 2);
    let reader = store.reader(&tenant());
    let found = reader.exemplars(&[vec![Matcher::equal("le", "1")]], ALL.0, ALL.1).await.unwrap();
    assert_eq!(found, [(labels("__name__=h_bucket le=1"), vec![exemplar(1000), exemplar(2000)])]);
    assert_eq!(reader.exemplars(&[vec![]], 1500, 1600).await.unwrap(), []);
    assert_eq!(
        reader.metadata().map(|(family, metadata)| (family.to_string(), metadata)).collect::<Vec<_>>(),
        [("h".to_owned(), metadata)]
    );
}

#[tokio::test]
async fn cardinality_names_the_largest() {
    let store = open(MetricConfig::default()).await;
    append(&store, &[("__name__=m a=1", 1000, 1.0), ("__name__=m a=2", 2000, 1.0), ("__name__=n a=1", 1000, 1.0)])
        .await;
    let cardinality = store.reader(&tenant()).cardinality(1);
    assert_eq!((cardinality.series, cardinality.label_pairs, cardinality.chunks), (3, 4, 3));
    assert_eq!(cardinality.time_range_ms, Some((1000, 2000)));
    assert_eq!(cardinality.series_by_metric, [("m".to_owned(), 2)]);
    assert_eq!(cardinality.series_by_pair, [("__name__=m".to_owned(), 2)]);
    assert_eq!(cardinality.values_by_label, [("__name__".to_owned(), 2)]);
}

#[tokio::test]
async fn a_selection_beyond_its_limits_is_refused() {
    let store = open(MetricConfig::default()).await;
    append(&store, &[("a=1", 1, 1.0), ("a=2", 1, 1.0)]).await;
    let reader = store.reader(&tenant());
    let few_series = ReadLimits { max_series: 1, ..ReadLimits::default() };
    let error = reader.select(&[], ALL.0, ALL.1, few_series).await.unwrap_err();
    assert!(matches!(error, ReadError::TooManySeries { series: 2, limit: 1 }), "{error}");
    let few_samples = ReadLimits { max_samples: 1, ..ReadLimits::default() };
    let error = reader.select(&[], ALL.0, ALL.1, few_samples).await.unwrap_err();
    assert!(matches!(error, ReadError::TooManySamples { .. }), "{error}");
}
