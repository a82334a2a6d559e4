//! What was acknowledged survives whatever happens to the process and the machine.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::disk::{Fault, Operation, PowerCut};
use crate::sealed::DiskStore;

/// What a reader must find: by series and time, the bits of the value.
type Model = BTreeMap<(u32, i64), u64>;

#[derive(Clone, Debug)]
enum Step {
    /// Samples of these series, all at this time, in one batch.
    Page {
        first_series: u32,
        series: u32,
        timestamp_ms: i64,
        value: f64,
    },
    /// The end of an epoch.
    Flush,
    /// The next write or sync fails.
    Fail {
        write: bool,
    },
    Kill,
    CutPower {
        tear: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let page = (0_u32..30, 1_u32..20, -50_i64..200, prop_oneof![(0_i32..100).prop_map(f64::from), any::<f64>()]);
    let page = page.prop_map(|(first_series, series, slot, value)| Step::Page {
        first_series,
        series,
        timestamp_ms: slot * 15_000,
        value,
    });
    prop_oneof![
        12 => page,
        3 => Just(Step::Flush),
        2 => any::<bool>().prop_map(|write| Step::Fail { write }),
        1 => Just(Step::Kill),
        1 => any::<bool>().prop_map(|tear| Step::CutPower { tear }),
    ]
}

fn series_labels(series: u32) -> Labels {
    labels(&format!("__name__=requests_total pod={series} zone=a"))
}

async fn open_on(disk: &SimDisk, clock: &ManualClock) -> MetricStore {
    let wal = WalConfig { segment_bytes: 4096, max_bytes: 1 << 22, keep_free_bytes: 0, ..MetricConfig::default().wal };
    let config = MetricConfig { wal, ..MetricConfig::default() };
    let writer = WriterName::new("test").unwrap();
    let disk: Arc<dyn Disk> = Arc::new(disk.process());
    let tables = Arc::new(DiskStore::open(Arc::clone(&disk), Path::new("/tables")).unwrap());
    let clock = Arc::new(clock.clone());
    MetricStore::open(disk, Path::new("/metrics"), config, clock, tables, writer).await.unwrap().0
}

async fn everything(store: &MetricStore) -> Model {
    let mut found = Model::new();
    let reader = store.reader(&tenant());
    let mut selected = reader.select(&[], ALL.0, ALL.1, ReadLimits::default()).await.unwrap();
    while let Some(SeriesSlice { labels, timestamps, values }) = selected.next().unwrap() {
        let series = labels.get("pod").parse().unwrap();
        assert_eq!(labels, &series_labels(series));
        for (timestamp_ms, value) in timestamps.iter().zip(values) {
            assert_eq!(found.insert((series, *timestamp_ms), value.to_bits()), None, "every time once");
        }
    }
    found
}

/// Acknowledged samples must be there; those of a refused or unanswered batch may be.
#[track_caller]
fn compare(found: &Model, acknowledged: &Model, possible: &[(u32, i64, u64)]) {
    for (key, bits) in acknowledged {
        let of_refused = || possible.contains(&(key.0, key.1, found.get(key).copied().unwrap_or_default()));
        assert!(found.get(key) == Some(bits) || of_refused(), "{key:?} is lost or changed");
    }
    for (key, bits) in found {
        assert!(
            acknowledged.get(key) == Some(bits) || possible.contains(&(key.0, key.1, *bits)),
            "{key:?} is invented"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn acknowledged_samples_survive_crashes(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let disk = SimDisk::new(seed);
            let clock = ManualClock::new(UnixNanos::from_secs(1_795_219_200));
            let mut store = open_on(&disk, &clock).await;
            let (mut acknowledged, mut possible) = (Model::new(), Vec::new());
            for step in steps.into_iter().chain([Step::Kill]) {
                match step {
                    Step::Page { first_series, series, timestamp_ms, value } => {
                        let mut append = store.append(&tenant());
                        let page = first_series..first_series + series;
                        for series in page.clone() {
                            let reference = append.series(&series_labels(series)).unwrap();
                            append.sample(reference, timestamp_ms, value);
                        }
                        let committed = append.commit().await;
                        for series in page {
                            match committed {
                                Ok(_) => { acknowledged.entry((series, timestamp_ms)).or_insert(value.to_bits()); }
                                Err(_) => possible.push((series, timestamp_ms, value.to_bits())),
                            }
                        }
                    }
                    Step::Flush => {
                        clock.advance(Duration::from_secs(7200));
                        // Whether it works is the disk's affair; nothing may be lost by it.
                        drop(store.flush().await);
                        compare(&everything(&store).await, &acknowledged, &possible);
                    }
                    Step::Fail { write: true } => disk.fail_next(Operation::Write, Fault::Io, 1),
                    Step::Fail { write: false } => disk.fail_next(Operation::Sync, Fault::Io, 1),
                    Step::Kill => {
                        disk.kill_process();
                        drop(store);
                        disk.heal();
                        store = open_on(&disk, &clock).await;
                        compare(&everything(&store).await, &acknowledged, &possible);
                    }
                    Step::CutPower { tear } => {
                        disk.cut_power(if tear { PowerCut::Tear } else { PowerCut::DropUnsynced });
                        drop(store);
                        disk.heal();
                        store = open_on(&disk, &clock).await;
                        compare(&everything(&store).await, &acknowledged, &possible);
                    }
                }
            }
        });
    }
}

#[tokio::test]
async fn a_batch_that_the_log_refuses_is_not_visible() {
    let disk = SimDisk::new(1);
    let clock = ManualClock::new(UnixNanos::from_secs(1_795_219_200));
    let store = open_on(&disk, &clock).await;
    append(&store, &[("__name__=requests_total pod=1 zone=a", 1, 1.0)]).await;
    disk.fail_next(Operation::Sync, Fault::Io, 1);
    let mut batch = store.append(&tenant());
    for (pod, value) in [("1", 2.0), ("2", 3.0)] {
        let series = batch.series(&labels(&format!("__name__=requests_total pod={pod} zone=a"))).unwrap();
        batch.sample(series, 2, value);
    }
    assert!(matches!(batch.commit().await, Err(AppendError::Log(_))));
    assert_eq!(everything(&store).await.len(), 1);
    assert!(store.stats().dropped.contains(&(DropReason::Log, 2)));
    append(&store, &[("__name__=requests_total pod=2 zone=a", 3, 4.0)]).await;
    disk.kill_process();
    drop(store);
    disk.heal();
    let store = open_on(&disk, &clock).await;
    let expect = Model::from([((1, 1), 1_f64.to_bits()), ((2, 3), 4_f64.to_bits())]);
    assert_eq!(everything(&store).await, expect, "a later batch defines the series again");
}

#[tokio::test]
async fn replay_restores_exemplars_metadata_and_tenants() {
    let disk = SimDisk::new(1);
    let clock = ManualClock::new(UnixNanos::from_secs(1_795_219_200));
    let store = open_on(&disk, &clock).await;
    let other = TenantId::new("other").unwrap();
    let mut append = store.append(&other);
    let series = append.series(&labels("__name__=h_bucket le=1")).unwrap();
    let exemplar = Exemplar { labels: labels("trace_id=abc"), value: 0.5, timestamp: 7 };
    append.exemplar(series, exemplar.clone());
    append.sample(series, 7, 1.0);
    let metadata = Metadata { kind: MetricKind::Histogram, help: "Latency.".to_owned(), unit: String::new() };
    append.metadata("h", &metadata);
    append.commit().await.unwrap();
    disk.kill_process();
    drop(store);
    disk.heal();
    let store = open_on(&disk, &clock).await;
    assert_eq!(store.tenants(), std::slice::from_ref(&other));
    let reader = store.reader(&other);
    assert_eq!(reader.metadata().map(|(_, metadata)| metadata).collect::<Vec<_>>(), [metadata]);
    let found = reader.exemplars(&[vec![]], ALL.0, ALL.1).await.unwrap();
    assert_eq!(found, [(labels("__name__=h_bucket le=1"), vec![exemplar])]);
}
