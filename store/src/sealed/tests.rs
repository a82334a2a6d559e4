use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use windrose_proto::edge::{EdgeKey, EdgeRow, EdgeStats, SEALED_WINDOW_NANOS};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::model::Direction;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::{TimeRange, UnixNanos};

use super::catalog::TenantCatalog;
use super::{SealError, SealInput, SealPart, Sealed, SealedCatalog, WriterName};
use crate::edge_sums::{Adder, Detail};
use crate::row::{HopRow, RequestRow, SpanRow};
use crate::tables::Table;
use crate::tables::arbitrary::{edge_row, hop_row, request_row, span_row};

pub(super) const NOW: UnixNanos = UnixNanos(1_795_219_200_000_000_000);

/// What a store does with writes once its budget is used up.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// The write does not happen.
    Refused,
    /// The write happens but the answer is an error; all later ones are refused.
    AnswerLost,
}

/// Fails writes after a number of them, like a full disk or a crash.
#[derive(Debug)]
struct Faulty {
    inner: Arc<InMemory>,
    writes_left: AtomicI64,
    fault: Fault,
}

impl Faulty {
    /// Whether the next write happens and whether its answer arrives.
    fn next_write(&self) -> (bool, bool) {
        let left = self.writes_left.fetch_sub(1, Ordering::SeqCst);
        (left > 0 || (left == 0 && self.fault == Fault::AnswerLost), left > 0)
    }
}

fn lost() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "no space left on device".into() }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        let (happens, answered) = self.next_write();
        let result = if happens { self.inner.put_opts(path, payload, options).await } else { Err(lost()) };
        if answered { result } else { Err(lost()) }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Random rows are expensive to make, so every seal uses the same ones under other ids.
struct Samples {
    spans: Vec<SpanRow>,
    hops: Vec<HopRow>,
    requests: Vec<RequestRow>,
    edges: Vec<EdgeRow>,
}

static SAMPLES: LazyLock<Samples> = LazyLock::new(|| Samples {
    spans: sample(span_row(), 12),
    hops: sample(hop_row(), 5),
    requests: sample(request_row(), 3),
    edges: sample(edge_row(), 4),
});

fn sample<S: Strategy>(strategy: S, count: usize) -> Vec<S::Value> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// Rows of a seal, told apart by the seal's number.
pub(super) fn part(tenant: &str, seal: u64) -> SealPart {
    let id = |number: usize| u128::from(seal) << 64 | (number as u128 + 1);
    let trace = |number: usize| TraceId::new(id(number).to_be_bytes()).unwrap();
    let start = UnixNanos(NOW.0 + seal * 1_000_000_000);
    let spans = SAMPLES.spans.iter().cloned().enumerate().map(|(number, row)| {
        let mut span = (*row.span).clone();
        span.trace_id = trace(number / 4);
        span.span_id = SpanId::new(((seal << 32) | (number as u64 + 1)).to_be_bytes()).unwrap();
        span.start = start;
        SpanRow { span: Arc::new(span), ..row }
    });
    let hops = SAMPLES.hops.iter().cloned().enumerate().map(|(number, row)| {
        let mut hop = (*row.hop).clone();
        (hop.trace_id, hop.start) = (trace(number), start);
        HopRow { hop: Arc::new(hop), revision: 1 }
    });
    let requests = SAMPLES.requests.iter().cloned().enumerate().map(|(number, row)| {
        let mut request = (*row.request).clone();
        (request.trace_id, request.start) = (trace(number), start);
        RequestRow { request: Arc::new(request), revision: 1 + u32::from(number == 2) }
    });
    let edges = SAMPLES.edges.iter().cloned().map(|mut row| {
        (row.window_start, row.window_nanos) = (start, SEALED_WINDOW_NANOS);
        row
    });
    SealPart {
        tenant: TenantId::new(tenant).unwrap(),
        spans: spans.collect(),
        hops: hops.collect(),
        requests: requests.collect(),
        edges: edges.collect(),
        open_traces: vec![trace(0)],
    }
}

pub(super) async fn open(store: Arc<dyn ObjectStore>) -> (Sealed, Option<super::Recovered>) {
    Sealed::open(store, WriterName::new("a").unwrap(), NOW).await.unwrap()
}

async fn seal(sealed: &Sealed, number: u64) -> Result<Arc<SealedCatalog>, SealError> {
    let parts = [part("default", number), part("other", number)];
    sealed.seal(SealInput { seal_number: number, wal: (number, 10), at: NOW, parts: &parts }).await
}

/// A smaller seal, for tests that make hundreds.
pub(super) async fn seal_one(sealed: &Sealed, number: u64) -> Result<Arc<SealedCatalog>, SealError> {
    let parts = [part("default", number)];
    sealed.seal(SealInput { seal_number: number, wal: (number, 10), at: NOW, parts: &parts }).await
}

/// Row counts by table over both tenants.
async fn counts(catalog: &SealedCatalog) -> [usize; 4] {
    let mut counts = [0; 4];
    for (_, tenant) in catalog.tenants() {
        for segment in tenant.segments(Table::Spans) {
            counts[0] += segment.read_rows(crate::tables::spans::from_batch).await.unwrap().len();
        }
        counts[1] += tenant.read_hops(TimeRange::ALL).await.unwrap().len();
        counts[2] += tenant.read_requests(TimeRange::ALL).await.unwrap().len();
        counts[3] += tenant.read_edges(TimeRange::ALL).await.unwrap().len();
    }
    counts
}

/// Row counts after that many smaller seals.
pub(super) fn counts_of_one(seals: usize) -> [usize; 4] {
    counts_of(seals).map(|rows| rows / 2)
}

/// Row counts after that many seals.
fn counts_of(seals: usize) -> [usize; 4] {
    [24, 10, 6, 8].map(|rows| rows * seals)
}

#[tokio::test]
async fn sealed_rows_are_read_back_now_and_after_reopening() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (sealed, recovered) = open(Arc::clone(&store)).await;
    assert_eq!(recovered, None);
    seal(&sealed, 1).await.unwrap();
    seal(&sealed, 2).await.unwrap();
    let (again, recovered) = open(store).await;
    let expect = part("default", 2);
    let recovered = recovered.unwrap();
    assert_eq!((recovered.seal_number, recovered.wal), (2, (2, 10)));
    assert_eq!(recovered.open_traces[&expect.tenant], expect.open_traces);
    for catalog in [sealed.catalog(), again.catalog()] {
        assert_eq!(counts(&catalog).await, counts_of(2));
        let tenant = catalog.tenant(&expect.tenant);
        let trace = expect.open_traces[0];
        let spans = tenant.read_trace(trace).await.unwrap();
        assert_eq!(spans.len(), 4);
        assert!(expect.spans.iter().filter(|row| row.span.trace_id == trace).all(|row| spans.contains(&row.span)));
        assert!(!tenant.may_contain(TraceId::new([0xee; 16]).unwrap()));
        let second = TimeRange::new(expect.edges[0].window_start, UnixNanos(u64::MAX)).unwrap();
        assert_eq!(tenant.read_edges(second).await.unwrap().len(), expect.edges.len());
        assert_eq!(tenant.read_hops(second).await.unwrap().len(), expect.hops.len());
        let revised: Vec<u32> = tenant.revisions().into_values().collect();
        assert_eq!(revised, [2, 2], "one request of each seal was revised");
    }
}

/// A writer that dies at any write, and what the next process makes of it.
#[tokio::test]
async fn a_crash_at_any_write_loses_nothing_and_doubles_nothing() {
    for fault in [Fault::Refused, Fault::AnswerLost] {
        let mut finished = false;
        let mut decided = 0;
        for writes in 0..30 {
            let inner = Arc::new(InMemory::new());
            let (sealed, _) = open(Arc::clone(&inner) as _).await;
            seal_one(&sealed, 1).await.unwrap();
            let faulty = Faulty { inner: Arc::clone(&inner), writes_left: AtomicI64::new(writes), fault };
            let (sealed, _) = open(Arc::new(faulty)).await;
            let result = seal_one(&sealed, 2).await;
            let before = counts(&sealed.catalog()).await;
            assert_eq!(before, counts_of_one(if result.is_ok() { 2 } else { 1 }), "visible whole or not at all");

            let (again, recovered) = open(Arc::clone(&inner) as _).await;
            let reached = recovered.unwrap().seal_number;
            assert_eq!(
                counts(&again.catalog()).await,
                counts_of_one(reached as usize),
                "after {writes} writes, {fault:?}"
            );
            if result.is_ok() {
                assert_eq!(reached, 2);
                finished = true;
                break;
            }
            if reached == 1 {
                seal_one(&again, 2).await.unwrap();
            } else {
                decided += 1;
            }
            seal_one(&again, 3).await.unwrap();
            assert_eq!(counts(&again.catalog()).await, counts_of_one(3), "after {writes} writes, {fault:?}");
        }
        assert!(finished, "the budget covers a whole seal");
        assert!(decided >= 4, "crashes between record and last commit were met: {decided}");
    }
}

/// A full disk or a failing store at any write, and the same process trying again.
#[tokio::test]
async fn a_seal_is_repeated_after_any_error() {
    for fault in [Fault::Refused, Fault::AnswerLost] {
        for writes in 0..12 {
            let inner = Arc::new(InMemory::new());
            let faulty = Arc::new(Faulty { inner, writes_left: AtomicI64::new(i64::MAX), fault });
            let (sealed, _) = open(Arc::clone(&faulty) as _).await;
            seal_one(&sealed, 1).await.unwrap();
            faulty.writes_left.store(writes, Ordering::SeqCst);
            if let Err(error) = seal_one(&sealed, 2).await {
                assert!(error.is_transient(), "{error:?}");
                let skipped = seal_one(&sealed, 3).await.unwrap_err();
                assert!(matches!(skipped, SealError::OutOfOrder { number: 3, last: 2 }), "{skipped:?}");
            }
            faulty.writes_left.store(i64::MAX, Ordering::SeqCst);
            match seal_one(&sealed, 2).await {
                Ok(_) | Err(SealError::OutOfOrder { last: 2, .. }) => {}
                Err(error) => panic!("after {writes} writes, {fault:?}: {error:?}"),
            }
            assert_eq!(counts(&sealed.catalog()).await, counts_of_one(2), "after {writes} writes, {fault:?}");
        }
    }
}

#[tokio::test]
async fn other_rows_under_the_same_number_are_refused() {
    let inner = Arc::new(InMemory::new());
    // Eight files and two indexes, then the record; commits fail.
    let faulty = Arc::new(Faulty { inner, writes_left: AtomicI64::new(i64::MAX), fault: Fault::Refused });
    let (sealed, _) = open(Arc::clone(&faulty) as _).await;
    faulty.writes_left.store(11, Ordering::SeqCst);
    seal(&sealed, 1).await.unwrap_err();
    faulty.writes_left.store(i64::MAX, Ordering::SeqCst);
    let parts = [part("default", 1)];
    let changed = sealed.seal(SealInput { seal_number: 1, wal: (1, 99), at: NOW, parts: &parts }).await;
    assert!(matches!(changed, Err(SealError::Changed { number: 1, recorded: (1, 10), .. })));
    seal(&sealed, 1).await.unwrap();
    assert!(matches!(seal(&sealed, 1).await, Err(SealError::OutOfOrder { number: 1, last: 1 })));
}

#[tokio::test]
async fn a_damaged_file_is_named_and_the_rest_answers() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (sealed, _) = open(Arc::clone(&store)).await;
    seal(&sealed, 1).await.unwrap();
    let catalog = seal(&sealed, 2).await.unwrap();
    let tenant = TenantId::default();
    let hops = catalog.tenant(&tenant).segments(Table::Hops)[0].path().clone();
    store.put(&hops, PutPayload::from_static(b"PAR1 this is no parquet PAR1")).await.unwrap();
    let spans = catalog.tenant(&tenant).segments(Table::Spans)[0].path().clone();
    store.delete(&spans).await.unwrap();
    let (again, _) = open(store).await;
    let catalog = again.catalog();
    assert_eq!(catalog.tenant(&tenant).read_hops(TimeRange::ALL).await.unwrap().len(), 5);
    let of_first = part("default", 1).open_traces[0];
    let of_second = part("default", 2).open_traces[0];
    assert_eq!(catalog.tenant(&tenant).read_trace(of_first).await.unwrap().len(), 0);
    assert_eq!(catalog.tenant(&tenant).read_trace(of_second).await.unwrap().len(), 4);
    let named: Vec<(Table, String)> = catalog.quarantined().into_iter().map(|file| (file.table, file.path)).collect();
    assert_eq!(named, [(Table::Spans, spans.to_string()), (Table::Hops, hops.to_string())]);
    seal(&again, 3).await.unwrap();
    assert_eq!(again.catalog().quarantined().len(), 2, "the quarantine outlives a new catalog");
}

#[tokio::test]
async fn damaged_indexes_only_slow_down() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (sealed, _) = open(Arc::clone(&store)).await;
    seal(&sealed, 1).await.unwrap();
    let indexes: Vec<Path> =
        store.list(Some(&Path::from("spans/_traces"))).map_ok(|object| object.location).try_collect().await.unwrap();
    assert_eq!(indexes.len(), 2);
    store.put(&indexes[0], PutPayload::from_static(&[0; 4096])).await.unwrap();
    store.delete(&indexes[1]).await.unwrap();
    let (again, _) = open(store).await;
    for (_, tenant) in again.catalog().tenants() {
        assert_eq!(tenant.read_trace(part("default", 1).open_traces[0]).await.unwrap().len(), 4);
    }
    assert!(again.catalog().quarantined().is_empty());
}

#[tokio::test]
async fn two_writers_share_the_tables() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (one, _) = open(Arc::clone(&store)).await;
    let (two, recovered) = Sealed::open(Arc::clone(&store), WriterName::new("b").unwrap(), NOW).await.unwrap();
    assert_eq!(recovered, None);
    seal(&one, 1).await.unwrap();
    seal(&two, 1).await.unwrap();
    seal(&two, 2).await.unwrap();
    seal(&one, 7).await.unwrap();
    assert_eq!(counts(&one.catalog()).await, counts_of(4));
    assert!(two.refresh().await.unwrap());
    assert!(!two.refresh().await.unwrap());
    assert_eq!(counts(&two.catalog()).await, counts_of(4));
    assert_eq!(open(store).await.1.unwrap().seal_number, 7);
}

#[tokio::test]
async fn one_writer_name_in_two_processes_is_noticed() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (one, _) = open(Arc::clone(&store)).await;
    let (two, _) = open(Arc::clone(&store)).await;
    seal(&one, 1).await.unwrap();
    let parts = [part("default", 9)];
    let error = two.seal(SealInput { seal_number: 1, wal: (5, 5), at: NOW, parts: &parts }).await.unwrap_err();
    assert!(matches!(error, SealError::WriterInUse { .. }), "{error:?}");
}

#[tokio::test]
async fn missing_and_damaged_records_are_named() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (sealed, _) = open(Arc::clone(&store)).await;
    for number in 1..=20 {
        seal(&sealed, number).await.unwrap();
    }
    let records = store.list(Some(&Path::from("_seals/a"))).count().await;
    assert_eq!(records, 9, "old records are dropped");
    let last = Path::from("_seals/a/000000000020.json");
    store.put(&last, PutPayload::from_static(b"{")).await.unwrap();
    let reopen = || Sealed::open(Arc::clone(&store), WriterName::new("a").unwrap(), NOW);
    assert!(matches!(reopen().await, Err(SealError::DamagedRecord { path, .. }) if path == last));
    store.delete(&last).await.unwrap();
    assert!(matches!(reopen().await, Err(SealError::MissingRecord { path }) if path == last));
}

#[tokio::test]
async fn an_empty_seal_moves_the_log_position() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (sealed, _) = open(Arc::clone(&store)).await;
    sealed.seal(SealInput { seal_number: 3, wal: (4, 5), at: NOW, parts: &[] }).await.unwrap();
    let recovered = open(store).await.1.unwrap();
    assert_eq!((recovered.seal_number, recovered.wal), (3, (4, 5)));
}

/// What rows say per edge, whatever their windows.
fn per_edge(rows: &[EdgeRow]) -> BTreeMap<EdgeKey, EdgeStats> {
    let mut sums: BTreeMap<EdgeKey, EdgeStats> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.key.direction != Direction::Local) {
        sums.entry(EdgeKey::clone(&row.key)).or_default().merge(&row.stats);
    }
    sums
}

/// What the blocks of a range say per edge.
async fn sums_of(tenant: &TenantCatalog, range: TimeRange) -> BTreeMap<EdgeKey, EdgeStats> {
    let mut sums = Adder::new(Detail::Routes);
    tenant.edge_sums(range, Detail::Routes).await.unwrap().iter().for_each(|piece| sums.add(piece));
    sums.finish().edges().map(|edge| (EdgeKey::clone(&edge.key), edge.stats.clone())).collect()
}

#[tokio::test]
async fn totals_add_up_to_the_rows_of_any_range() {
    const MINUTE: u64 = 60_000_000_000;
    let (sealed, _) = open(Arc::new(InMemory::new())).await;
    let edges = part("default", 1).edges;
    let (days, mut random) = (UnixNanos(20_000 * 1440 * MINUTE), 1_u64);
    for number in 1..=6 {
        let windows = (0..400_u64).map(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            days.0 + (random >> 33) % (3 * 1440) * MINUTE
        });
        let row = |(place, start): (usize, u64)| {
            let mut stats = EdgeStats::default();
            let spans = &mut stats.spans;
            (spans.calls, spans.attempts) = (1, 1);
            (spans.client.count, spans.client.sum_nanos) = (1, i128::from(start % 977));
            spans.client.sketch.add(start % 977, 1);
            spans.client.slowest.add(start % 977, TraceId::new(u128::from(start).to_be_bytes()).unwrap());
            let key = Arc::clone(&edges[place % edges.len()].key);
            EdgeRow { window_start: UnixNanos(start), window_nanos: MINUTE, key, stats: Arc::new(stats) }
        };
        let edges: Vec<EdgeRow> = windows.enumerate().map(row).collect();
        let parts = [SealPart { edges, ..part("default", number) }];
        sealed.seal(SealInput { seal_number: number, wal: (number, 10), at: NOW, parts: &parts }).await.unwrap();
        // The second look is answered from what the first one kept, and the next seal makes it stale.
        for (from, minutes) in [(0, 3 * 1440), (7, 61), (1438, 1445), (0, 5), (3, 1), (100, 0), (0, 3 * 1440)] {
            let start = UnixNanos(days.0 + from * MINUTE);
            let range = TimeRange::new(start, UnixNanos(start.0 + minutes * MINUTE)).unwrap();
            let tenant = sealed.catalog().tenant(&TenantId::default());
            let (rows, sums) = (tenant.read_edges(range).await.unwrap(), sums_of(&tenant, range).await);
            assert_eq!(sums, per_edge(&rows), "{minutes} minutes from {from}");
        }
        let tenant = sealed.catalog().tenant(&TenantId::default());
        let (rows, sums) = (tenant.read_edges(TimeRange::ALL).await.unwrap(), sums_of(&tenant, TimeRange::ALL).await);
        assert_eq!(sums, per_edge(&rows));
    }
}
