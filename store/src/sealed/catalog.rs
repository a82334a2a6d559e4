//! The sealed files of all tenants at one instant, and how rows are read across them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use hashbrown::{HashMap, HashSet};
use object_store::path::Path;
use windrose_proto::edge::EdgeRow;
use windrose_proto::id::TraceId;
use windrose_proto::span::Span;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::{TimeRange, UnixNanos};

use super::cache::{RowCache, SumCache};
use crate::row::{HopRow, RequestRow};
use crate::segment::{FooterCache, RowGroup, Segment, SegmentError};
use crate::table_log::Version;
use crate::tables::{Table, edges, hops, requests};

/// Files read at the same time for one question.
const READS_AT_ONCE: usize = 8;

/// Versions of the table logs, in the order of [`Table::ALL`].
pub(super) type Versions = [Version; Table::ALL.len()];

/// Memory for footers of span files, 100 to 200 KiB each: some 400 files, and a lookup that meets
/// one of them reads nothing but the rows.
const FOOTERS_BUDGET_BYTES: usize = 64 << 20;

/// What was read from sealed files, shared by all tenants; the default keeps no footers.
#[derive(Clone, Debug, Default)]
pub(super) struct Caches {
    pub(super) rows: Arc<RowCache>,
    pub(super) sums: Arc<SumCache>,
    footers: Arc<FooterCache>,
}

impl Caches {
    pub(super) fn new() -> Self {
        Self { rows: Arc::default(), sums: Arc::default(), footers: Arc::new(FooterCache::new(FOOTERS_BUDGET_BYTES)) }
    }
}

/// All tenants at one instant. Immutable.
#[derive(Clone, Debug, Default)]
pub struct SealedCatalog {
    tenants: BTreeMap<TenantId, Arc<TenantCatalog>>,
}

/// The sealed files of one tenant at one instant. Immutable; the default is empty.
#[derive(Clone, Debug, Default)]
pub struct TenantCatalog {
    /// By [`Table::ALL`], ordered by path.
    segments: [Vec<Arc<Segment>>; Table::ALL.len()],
    /// Of the table logs; `None` while nothing is sealed.
    versions: Option<Versions>,
    pub(super) caches: Caches,
}

/// A file that is left out of answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    pub tenant: TenantId,
    pub table: Table,
    pub path: String,
    pub rows: u64,
    pub reason: String,
}

impl SealedCatalog {
    /// What is sealed of `tenant`; nothing when it is unknown.
    #[must_use]
    pub fn tenant(&self, tenant: &TenantId) -> Arc<TenantCatalog> {
        self.tenants.get(tenant).map(Arc::clone).unwrap_or_default()
    }

    /// All tenants with sealed files.
    pub fn tenants(&self) -> impl Iterator<Item = (&TenantId, &Arc<TenantCatalog>)> {
        self.tenants.iter()
    }

    /// The files that are damaged, as far as anybody has tried to read them.
    #[must_use]
    pub fn quarantined(&self) -> Vec<Quarantined> {
        let mut found = Vec::new();
        for (tenant, catalog) in &self.tenants {
            for segment in catalog.segments.iter().flatten() {
                if let Some(reason) = segment.quarantine_reason() {
                    found.push(Quarantined {
                        tenant: tenant.clone(),
                        table: segment.table(),
                        path: segment.path().to_string(),
                        rows: segment.rows(),
                        reason: reason.to_owned(),
                    });
                }
            }
        }
        found
    }

    /// Where all files lie.
    pub(super) fn paths(&self) -> HashSet<Path> {
        let segments = self.tenants.values().flat_map(|catalog| catalog.segments.iter().flatten());
        segments.map(|segment| segment.path().clone()).collect()
    }

    /// The catalog of these segments. Segments of `before` that are still there are kept as they
    /// are, with their filters and their quarantine.
    pub(super) fn build(
        before: &Self,
        segments: impl IntoIterator<Item = (TenantId, Arc<Segment>)>,
        versions: Versions,
        caches: &Caches,
    ) -> Self {
        let mut tenants: BTreeMap<TenantId, TenantCatalog> = BTreeMap::new();
        for (tenant, segment) in segments {
            let known = before.tenants.get(&tenant).and_then(|catalog| catalog.find(&segment));
            let catalog = tenants.entry(tenant).or_default();
            catalog.segments[place_of(segment.table())].push(known.unwrap_or(segment));
        }
        for catalog in tenants.values_mut() {
            catalog.caches = caches.clone();
            catalog.versions = Some(versions);
            for list in &mut catalog.segments {
                list.sort_by(|a, b| a.path().cmp(b.path()));
            }
        }
        Self { tenants: tenants.into_iter().map(|(tenant, catalog)| (tenant, Arc::new(catalog))).collect() }
    }
}

impl TenantCatalog {
    /// The files of one table, damaged ones included.
    #[must_use]
    pub fn segments(&self, table: Table) -> &[Arc<Segment>] {
        &self.segments[place_of(table)]
    }

    /// The version of a table's log; `None` when the tenant has no sealed file.
    #[must_use]
    pub fn version(&self, table: Table) -> Option<Version> {
        self.versions.map(|versions| versions[place_of(table)])
    }

    fn find(&self, segment: &Segment) -> Option<Arc<Segment>> {
        let list = self.segments(segment.table());
        list.binary_search_by(|known| known.path().cmp(segment.path())).ok().map(|place| Arc::clone(&list[place]))
    }

    pub(super) fn overlapping(&self, table: Table, range: TimeRange) -> impl Iterator<Item = &Arc<Segment>> {
        self.segments(table).iter().filter(move |segment| segment.overlaps(range))
    }

    /// Rollup rows whose window starts inside `range`.
    ///
    /// # Errors
    /// When the object store fails.
    pub async fn read_edges(&self, range: TimeRange) -> Result<Vec<EdgeRow>, SegmentError> {
        let parts = self.edge_parts(range).await?;
        Ok(parts.iter().flat_map(|(rows, inside)| &rows[inside.clone()]).cloned().collect())
    }

    /// The rows of parts of files, and which of them start inside `range`.
    pub(super) async fn edge_parts(
        &self,
        range: TimeRange,
    ) -> Result<Vec<(Arc<Vec<EdgeRow>>, Range<usize>)>, SegmentError> {
        let parts = self.edge_row_groups(range).await?;
        let reads: Vec<_> = parts.into_iter().map(|(segment, group)| self.read_edge_part(segment, group)).collect();
        let parts: Vec<Arc<Vec<EdgeRow>>> = stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
        let place = |rows: &[EdgeRow], at: UnixNanos| rows.partition_point(|row| row.window_start < at);
        Ok(parts
            .into_iter()
            .map(|rows| {
                let inside = place(&rows, range.start())..place(&rows, range.end());
                (rows, inside)
            })
            .collect())
    }

    /// The parts of files with rows that may start inside `range`.
    pub(super) async fn edge_row_groups(&self, range: TimeRange) -> Result<Vec<(&Segment, RowGroup)>, SegmentError> {
        let mut parts = Vec::new();
        for segment in self.overlapping(Table::Edges, range) {
            let groups = segment.row_groups(&self.caches.footers).await?;
            let inside = groups.iter().filter(|group| group.overlaps(range));
            parts.extend(inside.map(|group| (&**segment, *group)));
        }
        Ok(parts)
    }

    /// The rows of a part of a file, ordered by window.
    async fn read_edge_part(&self, segment: &Segment, group: RowGroup) -> Result<Arc<Vec<EdgeRow>>, SegmentError> {
        let name = (segment.path().clone(), group.number);
        if let Some(rows) = self.caches.rows.get(&name) {
            return Ok(rows);
        }
        let mut rows = segment.read_row_group(group.number, &self.caches.footers, edges::from_batch).await?;
        rows.sort_by_key(|row| row.window_start);
        self.caches.rows.share_keys(rows.iter_mut().map(|row| &mut row.key));
        let rows = Arc::new(rows);
        if segment.quarantine_reason().is_none() {
            self.caches.rows.insert(name, &rows);
        }
        Ok(rows)
    }

    /// The first and last instant that files of a table speak of.
    pub(super) fn extent(&self, table: Table) -> Option<(UnixNanos, UnixNanos)> {
        let spans = self.segments(table).iter().map(|segment| segment.extent());
        spans.reduce(|all, one| (all.0.min(one.0), all.1.max(one.1)))
    }

    /// Request rows that start inside `range`, superseded ones too.
    ///
    /// # Errors
    /// When the object store fails.
    pub async fn read_requests(&self, range: TimeRange) -> Result<Vec<RequestRow>, SegmentError> {
        let mut rows = self.read_table(Table::Requests, range, requests::from_batch).await?;
        rows.retain(|row| range.contains(row.request.start));
        Ok(rows)
    }

    /// Hop rows that start inside `range`, superseded ones too.
    ///
    /// # Errors
    /// When the object store fails.
    pub async fn read_hops(&self, range: TimeRange) -> Result<Vec<HopRow>, SegmentError> {
        let mut rows = self.read_table(Table::Hops, range, hops::from_batch).await?;
        rows.retain(|row| range.contains(row.hop.start));
        Ok(rows)
    }

    async fn read_table<R: Send + 'static>(
        &self,
        table: Table,
        range: TimeRange,
        from_batch: fn(&arrow::array::RecordBatch) -> Result<Vec<R>, crate::tables::TableError>,
    ) -> Result<Vec<R>, SegmentError> {
        let reads: Vec<_> = self.overlapping(table, range).map(|segment| segment.read_rows(from_batch)).collect();
        let mut files = stream::iter(reads).buffered(READS_AT_ONCE);
        let mut rows = Vec::new();
        while let Some(file) = files.try_next().await? {
            rows.extend(file);
        }
        Ok(rows)
    }

    /// False when no sealed file has spans of `trace`; true lies once in 250 times per file.
    #[must_use]
    pub fn may_contain(&self, trace: TraceId) -> bool {
        self.segments(Table::Spans).iter().any(|segment| segment.may_contain(trace))
    }

    /// The sealed spans of one trace.
    ///
    /// # Errors
    /// When the object store fails.
    pub async fn read_trace(&self, trace: TraceId) -> Result<Vec<Span>, SegmentError> {
        self.read_traces(&HashSet::from([trace])).await
    }

    /// The sealed spans of some traces; each file is opened once.
    ///
    /// # Errors
    /// When the object store fails.
    pub async fn read_traces(&self, traces: &HashSet<TraceId>) -> Result<Vec<Span>, SegmentError> {
        let files = self.segments(Table::Spans).iter();
        let reads: Vec<_> = files.map(|segment| segment.read_spans_of_traces(traces, &self.caches.footers)).collect();
        let mut files = stream::iter(reads).buffered(READS_AT_ONCE);
        let mut spans = Vec::new();
        while let Some(file) = files.try_next().await? {
            spans.extend(file);
        }
        Ok(spans)
    }

    /// The latest revision of every trace that late spans changed after it was first written.
    #[must_use]
    pub fn revisions(&self) -> HashMap<TraceId, u32> {
        let mut revisions: HashMap<TraceId, u32> = HashMap::new();
        for (trace, revision) in self.segments(Table::Requests).iter().flat_map(|segment| segment.revised()) {
            let latest = revisions.entry(*trace).or_default();
            *latest = (*revision).max(*latest);
        }
        revisions
    }
}

fn place_of(table: Table) -> usize {
    match table {
        Table::Spans => 0,
        Table::Hops => 1,
        Table::Requests => 2,
        Table::Edges => 3,
    }
}
