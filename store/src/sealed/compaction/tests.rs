use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use windrose_proto::tenant::TenantId;
use windrose_proto::time::TimeRange;

use super::CompactionPolicy;
use crate::sealed::tests::{NOW, counts_of_one, open, part, seal_one};
use crate::sealed::{Retention, RetentionPolicy, SealInput, Sealed, SealedCatalog};
use crate::tables::Table;

const POLICY: CompactionPolicy = CompactionPolicy {
    files_min: 3,
    target_bytes: 64 << 20,
    hours_after: Duration::from_secs(2 * 24 * 3600),
    days_after: Duration::from_secs(14 * 24 * 3600),
};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn files(catalog: &SealedCatalog) -> [usize; 4] {
    Table::ALL.map(|table| catalog.tenants().map(|(_, tenant)| tenant.segments(table).len()).sum())
}

/// Sums that compaction must not change.
async fn sums(catalog: &SealedCatalog) -> (i128, i64, usize) {
    let (_, tenant) = catalog.tenants().next().unwrap();
    let edges = tenant.read_edges(TimeRange::ALL).await.unwrap();
    let calls = edges.iter().map(|row| i128::from(row.stats.spans.calls)).sum();
    let observed = edges.iter().map(|row| row.stats.spans.client.sketch.count()).sum();
    (calls, observed, tenant.read_hops(TimeRange::ALL).await.unwrap().len())
}

async fn sealed_five(store: &Arc<dyn ObjectStore>) -> Sealed {
    let (sealed, _) = open(Arc::clone(store)).await;
    for number in 1..=5 {
        seal_one(&sealed, number).await.unwrap();
    }
    sealed
}

#[tokio::test]
async fn compaction_changes_files_and_no_answer() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let sealed = sealed_five(&store).await;
    let before = sums(&sealed.catalog()).await;
    assert_eq!(files(&sealed.catalog()), [5; 4]);
    let old = sealed.catalog();
    let report = sealed.compact(&POLICY, NOW).await.unwrap();
    assert_eq!((report.files_before, report.files_after), (20, 4));
    assert_eq!(files(&sealed.catalog()), [1; 4]);
    for catalog in [sealed.catalog(), open(Arc::clone(&store)).await.0.catalog(), old] {
        assert_eq!(sums(&catalog).await, before);
        let (_, tenant) = catalog.tenants().next().unwrap();
        for number in 1..=5 {
            assert_eq!(tenant.read_trace(part("default", number).open_traces[0]).await.unwrap().len(), 4);
        }
    }
    assert_eq!(sealed.compact(&POLICY, NOW).await.unwrap().files_after, 0, "nothing left to merge");
}

#[tokio::test]
async fn vacuum_deletes_what_nobody_reads_any_more() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let sealed = sealed_five(&store).await;
    sealed.compact(&POLICY, NOW).await.unwrap();
    let hour = Duration::from_secs(3600);
    assert_eq!(sealed.vacuum(hour, NOW.plus(hour / 2)).await.unwrap(), 0);
    assert_eq!(sealed.vacuum(hour, NOW.plus(hour * 2)).await.unwrap(), 25, "20 files and 5 indexes");
    assert_eq!(sealed.vacuum(hour, NOW.plus(hour * 2)).await.unwrap(), 0);
    seal_one(&sealed, 6).await.unwrap();
    let (again, _) = open(store).await;
    assert_eq!(sums(&again.catalog()).await.2, counts_of_one(6)[1]);
    assert!(again.catalog().quarantined().is_empty());
}

#[tokio::test]
async fn old_rollup_rows_get_wider_windows_and_keep_their_sums() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let sealed = sealed_five(&store).await;
    let before = sums(&sealed.catalog()).await;
    let mut rows = Vec::new();
    for days in [1, 3, 15] {
        sealed.compact(&POLICY, NOW.plus(DAY * days + DAY / 2)).await.unwrap();
        assert_eq!(sums(&sealed.catalog()).await, before, "after {days} days");
        let tenant = sealed.catalog().tenant(&TenantId::default());
        let edges = tenant.read_edges(TimeRange::ALL).await.unwrap();
        rows.push((edges.iter().map(|row| row.window_nanos).min().unwrap() / 1_000_000_000, edges.len()));
    }
    // Five seals of four edges each, every seal with a window of its own.
    assert_eq!(rows, [(60, 20), (3600, 4), (86_400, 4)]);
    let again = sealed.compact(&POLICY, NOW.plus(DAY * 40)).await.unwrap();
    assert_eq!(again.files_after, 0, "there is nothing wider than a day");
}

#[tokio::test]
async fn vacuum_deletes_what_a_crash_left_but_not_what_a_seal_decided() {
    let inner = Arc::new(InMemory::new());
    let store: Arc<dyn ObjectStore> = Arc::clone(&inner) as _;
    let (sealed, _) = open(Arc::clone(&store)).await;
    seal_one(&sealed, 1).await.unwrap();
    let left = [
        "spans/tenant=default/date=2026-11-20/a-000000000009.parquet",
        "spans/_traces/tenant=default/date=2026-11-20/a-000000000009.index",
        "edges/tenant=default/date=2026-11-20/b-000000000009-0003-12345678.parquet",
    ];
    for path in left {
        store.put(&Path::from(path), "garbage".into()).await.unwrap();
    }
    // A decided seal of another writer, none of whose commits got through.
    let decided = "hops/tenant=default/date=2026-11-20/b-000000000001.parquet";
    store.put(&Path::from(decided), "decided".into()).await.unwrap();
    let record = format!(
        r#"{{"seal":1,"at":0,"wal_segment":1,"wal_offset":1,"open_traces":{{}},"files":{{"hops":[{{"path":"{}","partitionValues":{{}},"size":7,"modificationTime":0,"dataChange":true}}]}}}}"#,
        &decided[5..]
    );
    store.put(&Path::from("_seals/b/000000000001.json"), record.into()).await.unwrap();
    let hour = Duration::from_secs(3600);
    assert_eq!(sealed.vacuum(hour, NOW).await.unwrap(), 0, "seen for the first time");
    assert_eq!(sealed.vacuum(hour, NOW.plus(hour / 2)).await.unwrap(), 0);
    assert_eq!(sealed.vacuum(hour, NOW.plus(hour * 2)).await.unwrap(), 3);
    for path in left {
        assert!(store.head(&Path::from(path)).await.is_err(), "{path}");
    }
    store.head(&Path::from(decided)).await.unwrap();
    let (again, _) = open(store).await;
    assert_eq!(files(&again.catalog()), [1; 4]);
}

#[tokio::test]
async fn expired_files_leave_the_table_of_their_tenant() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (sealed, _) = open(Arc::clone(&store)).await;
    for (number, days) in [(1, 0), (2, 3), (3, 6)] {
        let parts = [part("default", number), part("kept", number)];
        let at = NOW.plus(DAY * days);
        sealed.seal(SealInput { seal_number: number, wal: (number, 10), at, parts: &parts }).await.unwrap();
    }
    let kept = TenantId::new("kept").unwrap();
    let days = |days| Retention { max_age: Some(DAY * days), max_bytes: None };
    let policy = RetentionPolicy {
        tables: BTreeMap::from([(Table::Hops, days(5)), (Table::Edges, days(1))]),
        tenants: BTreeMap::from([((kept.clone(), Table::Edges), days(99))]),
    };
    let now = NOW.plus(DAY * 7);
    let report = sealed.expire(&policy, now).await.unwrap();
    assert_eq!(report.files, 4);
    assert_eq!(sealed.expire(&policy, now).await.unwrap().files, 0);
    let catalog = open(store).await.0.catalog();
    let files_of = |tenant: &TenantId| Table::ALL.map(|table| catalog.tenant(tenant).segments(table).len());
    assert_eq!(files_of(&TenantId::default()), [3, 2, 3, 1]);
    assert_eq!(files_of(&kept), [3, 2, 3, 3]);
}

#[tokio::test]
async fn two_writers_compacting_at_once_lose_nothing() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let one = sealed_five(&store).await;
    let name = crate::sealed::WriterName::new("b").unwrap();
    let (two, _) = Sealed::open(Arc::clone(&store), name, NOW).await.unwrap();
    let before = sums(&one.catalog()).await;
    one.compact(&POLICY, NOW).await.unwrap();
    two.compact(&POLICY, NOW).await.unwrap();
    for sealed in [one, two] {
        assert_eq!(files(&sealed.catalog()), [1; 4]);
        assert_eq!(sums(&sealed.catalog()).await, before);
    }
}
