//! Blocks: what they hold, and that readers do not notice where samples are.

use std::time::Duration;

use futures::TryStreamExt;

use super::*;

/// A store over tables in memory, reopened at will.
struct Setup {
    disk: SimDisk,
    clock: ManualClock,
    tables: Arc<InMemory>,
    config: MetricConfig,
}

impl Setup {
    fn new(config: MetricConfig) -> Self {
        let clock = ManualClock::new(UnixNanos::from_secs(1_795_219_200));
        Self { disk: SimDisk::new(1), clock, tables: Arc::new(InMemory::new()), config }
    }

    async fn open(&self) -> (MetricStore, MetricRecovery) {
        let (disk, clock) = (Arc::new(self.disk.process()), Arc::new(self.clock.clone()));
        let tables = Arc::clone(&self.tables) as Arc<dyn ObjectStore>;
        let writer = WriterName::new("test").unwrap();
        MetricStore::open(disk, Path::new("/metrics"), self.config.clone(), clock, tables, writer).await.unwrap()
    }

    fn now_ms(&self) -> i64 {
        self.clock.now().as_millis() as i64
    }

    /// Names of the files of a table.
    async fn files(&self, table: &str) -> Vec<String> {
        let root = object_store::path::Path::from(table);
        let listed: Vec<_> = self.tables.list(Some(&root)).try_collect().await.unwrap();
        let paths = listed.into_iter().map(|object| object.location.to_string());
        paths.filter(|path| path.ends_with(".parquet")).collect()
    }
}

/// Two hours of three series, the last one with odd values.
async fn fill(store: &MetricStore, start_ms: i64) {
    for page in 0..480_i64 {
        let at = start_ms + page * 15_000;
        let odd = if page % 7 == 0 { f64::NAN } else { page as f64 / 3.0 };
        append(
            store,
            &[
                ("__name__=requests_total pod=a", at, (page * 3) as f64),
                ("__name__=requests_total pod=b", at, 7.0),
                ("__name__=odd", at, odd),
            ],
        )
        .await;
    }
}

#[tokio::test]
async fn readers_do_not_notice_where_samples_are() {
    let setup = Setup::new(MetricConfig::default());
    let (store, _) = setup.open().await;
    let start_ms = setup.now_ms();
    fill(&store, start_ms).await;
    let in_memory = select(&store, &[], ALL).await;
    assert_eq!(in_memory.len(), 3);
    setup.clock.advance(Duration::from_secs(7200));
    store.flush().await.unwrap();
    assert_eq!(select(&store, &[], ALL).await, in_memory, "the newest are in both");
    append(&store, &[("__name__=requests_total pod=a", start_ms + 7_200_000, 1e6)]).await;
    let stats = store.stats();
    assert_eq!((stats.blocks, stats.blocks_written), (1, 1));
    setup.clock.advance(Duration::from_secs(7200));
    store.flush().await.unwrap();
    setup.clock.advance(Duration::from_secs(7200));
    store.flush().await.unwrap();
    assert_eq!(store.stats().active_series, 0, "nothing came for hours");
    assert_eq!(store.stats().series_expired, 3);
    assert_eq!(store.stats().blocks, 2, "an epoch without samples makes no block");
    let mut expect = in_memory.clone();
    expect[1].push_str(&format!(" {}=1000000", start_ms + 7_200_000));
    assert_eq!(select(&store, &[], ALL).await, expect);
    let some = (start_ms + 60_000, start_ms + 90_000);
    let pod_b = [Matcher::equal("pod", "b")];
    let lines = select(&store, &pod_b, some).await;
    assert_eq!(
        lines,
        [format!(r#"{{__name__="requests_total", pod="b"}} {}=7 {}=7 {}=7"#, some.0, some.0 + 15_000, some.1)]
    );
    // Another process finds the same.
    setup.disk.kill_process();
    drop(store);
    let (store, recovery) = setup.open().await;
    assert_eq!((recovery.samples, recovery.damaged), (0, 0), "everything was in blocks, the log was cut");
    assert_eq!(select(&store, &[], ALL).await, expect);
    let reader = store.reader(&tenant());
    assert_eq!(reader.label_values("pod", &[], ALL.0, ALL.1, 9).await.unwrap(), ["a", "b"]);
    assert_eq!(reader.label_names(&[pod_b.to_vec()], ALL.0, ALL.1, 9).await.unwrap(), ["__name__", "pod"]);
    assert_eq!(reader.series(&[pod_b.to_vec()], ALL.0, ALL.1, 9).await.unwrap().len(), 1);
    assert_eq!(reader.series(&[pod_b.to_vec()], 0, start_ms - 1, 9).await.unwrap(), []);
}

#[tokio::test]
async fn series_beyond_a_row_group_and_samples_beyond_a_row() {
    let setup = Setup::new(MetricConfig::default());
    let (store, _) = setup.open().await;
    let mut batch = store.append(&tenant());
    for series in 0..2500 {
        let reference = batch.series(&labels(&format!("__name__=m{} pod={series}", series % 3))).unwrap();
        batch.sample(reference, i64::from(series), f64::from(series));
    }
    let long = batch.series(&labels("__name__=long")).unwrap();
    (0..13_000).for_each(|index| batch.sample(long, index * 10, (index % 50) as f64));
    assert_eq!(batch.commit().await.unwrap().stored, 15_500);
    let in_memory = select(&store, &[], ALL).await;
    store.flush().await.unwrap();
    assert_eq!(store.stats().chunks, 0, "all of it is old");
    assert_eq!(select(&store, &[], ALL).await, in_memory);
    let m1 = [Matcher::equal("__name__", "m1"), Matcher::equal("pod", "2497")];
    assert_eq!(select(&store, &m1, ALL).await, [r#"{__name__="m1", pod="2497"} 2497=2497"#]);
}

#[tokio::test]
async fn a_late_sample_is_merged_with_its_block() {
    let setup = Setup::new(MetricConfig::default());
    let (store, _) = setup.open().await;
    append(&store, &[("__name__=m", 1000, 1.0), ("__name__=m", 3000, 3.0)]).await;
    store.flush().await.unwrap();
    append(&store, &[("__name__=m", 2000, 2.0), ("__name__=m", 3000, 3.0)]).await;
    assert_eq!(select(&store, &[], ALL).await, [r#"{__name__="m"} 1000=1 2000=2 3000=3"#]);
    store.flush().await.unwrap();
    assert_eq!(select(&store, &[], ALL).await, [r#"{__name__="m"} 1000=1 2000=2 3000=3"#]);
}

#[tokio::test]
async fn exemplars_outlive_memory() {
    let setup = Setup::new(MetricConfig::default());
    let (store, _) = setup.open().await;
    let exemplar = |timestamp| Exemplar { labels: labels("trace_id=abc"), value: 0.5, timestamp };
    for timestamp in 0..30 {
        let mut batch = store.append(&tenant());
        let series = batch.series(&labels("__name__=h_bucket le=1")).unwrap();
        batch.sample(series, timestamp, 1.0);
        batch.exemplar(series, exemplar(timestamp));
        batch.commit().await.unwrap();
        if timestamp % 10 == 9 {
            store.flush().await.unwrap();
        }
    }
    let found = store.reader(&tenant()).exemplars(&[vec![Matcher::equal("le", "1")]], 5, 100).await.unwrap();
    assert_eq!(found, [(labels("__name__=h_bucket le=1"), (5..30).map(exemplar).collect::<Vec<_>>())]);
}

#[tokio::test]
async fn old_blocks_are_removed_and_their_files_later() {
    let setup = Setup::new(MetricConfig { retention: Some(Duration::from_secs(86_400)), ..MetricConfig::default() });
    let (store, _) = setup.open().await;
    // Samples from long ago are as young as the block they come in.
    append(&store, &[("__name__=old", 1000, 1.0)]).await;
    store.flush().await.unwrap();
    store.maintain().await;
    assert_eq!(select(&store, &[], ALL).await, [r#"{__name__="old"} 1000=1"#]);
    setup.clock.advance(Duration::from_secs(86_000));
    append(&store, &[("__name__=new", setup.now_ms(), 1.0)]).await;
    store.flush().await.unwrap();
    setup.clock.advance(Duration::from_secs(401));
    store.maintain().await;
    let lines = select(&store, &[], ALL).await;
    assert!(lines.len() == 1 && lines[0].starts_with(r#"{__name__="new"}"#), "{lines:?}");
    assert_eq!((store.stats().blocks, store.stats().blocks_removed), (1, 1));
    assert_eq!(setup.files("samples").await.len(), 2, "a query may still read it");
    setup.clock.advance(Duration::from_secs(601));
    store.maintain().await;
    for table in ["series", "samples"] {
        assert_eq!(setup.files(table).await.len(), 1, "{table}");
    }
}

#[tokio::test]
async fn blocks_beyond_their_bytes_go_oldest_first() {
    let setup = Setup::new(MetricConfig { retention_max_bytes: Some(1), ..MetricConfig::default() });
    let (store, _) = setup.open().await;
    append(&store, &[("__name__=a", setup.now_ms(), 1.0)]).await;
    store.flush().await.unwrap();
    store.maintain().await;
    assert_eq!(store.stats().blocks, 0);
    assert_eq!(store.stats().block_failures, 0);
}

#[tokio::test]
async fn a_damaged_block_is_left_out_and_the_rest_answers() {
    let setup = Setup::new(MetricConfig::default());
    let (store, _) = setup.open().await;
    append(&store, &[("__name__=a", 1000, 1.0)]).await;
    store.flush().await.unwrap();
    setup.clock.advance(Duration::from_secs(1));
    append(&store, &[("__name__=b", 1000, 1.0)]).await;
    store.flush().await.unwrap();
    let first = setup.files("samples").await.into_iter().min().unwrap();
    let path = object_store::path::Path::from(first);
    let found = setup.tables.get_opts(&path, object_store::GetOptions::default()).await.unwrap();
    let zeros = vec![0_u8; found.meta.size as usize];
    setup.tables.put_opts(&path, zeros.into(), object_store::PutOptions::default()).await.unwrap();
    assert_eq!(select(&store, &[], ALL).await, [r#"{__name__="b"} 1000=1"#]);
}

#[tokio::test]
async fn an_expired_reference_is_reported_and_nothing_stored() {
    let setup = Setup::new(MetricConfig::default());
    let (store, _) = setup.open().await;
    let mut batch = store.append(&tenant());
    let series = batch.series(&labels("__name__=a")).unwrap();
    batch.sample(series, 1000, 1.0);
    batch.commit().await.unwrap();
    for _ in 0..3 {
        append(&store, &[("__name__=alive", setup.now_ms(), 1.0)]).await;
        setup.clock.advance(Duration::from_secs(7200));
        store.flush().await.unwrap();
    }
    let mut batch = store.append(&tenant());
    batch.sample(series, 2000, 2.0);
    let error = batch.commit().await.unwrap_err();
    assert!(matches!(&error, AppendError::Expired { series: expired } if *expired == [series]), "{error}");
    let mut batch = store.append(&tenant());
    let again = batch.series(&labels("__name__=a")).unwrap();
    assert_ne!(again, series);
    batch.sample(again, 2000, 2.0);
    batch.commit().await.unwrap();
    assert_eq!(select(&store, &[Matcher::equal("__name__", "a")], ALL).await, [r#"{__name__="a"} 1000=1 2000=2"#]);
}
