//! Hot tables: what has been joined but is not in sealed files yet.
//!
//! Immutable once published. The joiner appends one chunk per tick and publishes by swapping a
//! pointer, so a reader sees spans, hops, requests and rollups of the same instant.
//!
//! Invariants: rows inside a span chunk are sorted by trace id; edge windows are sums.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use windrose_proto::edge::{EdgeKey, EdgeRow, EdgeStats, LIVE_WINDOW_NANOS, SEALED_WINDOW_NANOS};
use windrose_proto::id::TraceId;
use windrose_proto::time::{TimeRange, UnixNanos};

use crate::row::{HopRow, RequestRow, SpanRow};

/// The rollup cells of one window.
pub type EdgeWindow = HashMap<Arc<EdgeKey>, Arc<EdgeStats>>;

/// Span rows that became visible together, sorted by trace id.
#[derive(Clone, Debug)]
pub struct SpanChunk {
    rows: Arc<[SpanRow]>,
}

impl SpanChunk {
    /// Sorts the rows.
    #[must_use]
    pub fn new(mut rows: Vec<SpanRow>) -> Self {
        rows.sort_by_key(|row| (row.span.trace_id, row.span.start));
        Self { rows: rows.into() }
    }

    /// All rows.
    #[must_use]
    pub fn rows(&self) -> &[SpanRow] {
        &self.rows
    }

    /// The rows of one trace.
    #[must_use]
    pub fn of_trace(&self, trace: TraceId) -> &[SpanRow] {
        let first = self.rows.partition_point(|row| row.span.trace_id < trace);
        let count = self.rows[first..].partition_point(|row| row.span.trace_id == trace);
        &self.rows[first..first + count]
    }
}

/// One generation of unsealed rows.
#[derive(Clone, Debug, Default)]
pub struct HotTables {
    pub spans: Vec<SpanChunk>,
    pub hops: Vec<Arc<[HopRow]>>,
    pub requests: Vec<Arc<[RequestRow]>>,
    /// By start of the 10 s window.
    pub edges: BTreeMap<UnixNanos, Arc<EdgeWindow>>,
}

impl HotTables {
    /// Whether there is nothing to seal.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.hops.is_empty() && self.requests.is_empty() && self.edges.is_empty()
    }

    /// Number of span rows.
    #[must_use]
    pub fn span_rows(&self) -> usize {
        self.spans.iter().map(|chunk| chunk.rows().len()).sum()
    }

    /// Number of rows of all tables, as far as sealing is concerned.
    #[must_use]
    pub fn rows(&self) -> usize {
        let hops: usize = self.hops.iter().map(|chunk| chunk.len()).sum();
        let requests: usize = self.requests.iter().map(|chunk| chunk.len()).sum();
        let edges: usize = self.edges.values().map(|window| window.len()).sum();
        self.span_rows() + hops + requests + edges
    }

    /// Bytes the rollup cells hold in memory.
    #[must_use]
    pub fn edge_bytes(&self) -> usize {
        let cells: usize = self.edges.values().map(|window| window.len()).sum();
        cells * size_of::<EdgeStats>()
    }

    /// The rows of one trace.
    pub fn spans_of_trace(&self, trace: TraceId) -> impl Iterator<Item = &SpanRow> {
        self.spans.iter().flat_map(move |chunk| chunk.of_trace(trace))
    }

    /// Adds `stats` to a cell.
    pub fn add_to_edge(&mut self, window: UnixNanos, key: &Arc<EdgeKey>, add: impl FnOnce(&mut EdgeStats)) {
        let cells = Arc::make_mut(self.edges.entry(window.window_start(LIVE_WINDOW_NANOS)).or_default());
        let stats = cells.entry(Arc::clone(key)).or_default();
        add(Arc::make_mut(stats));
    }

    /// Live rollup rows whose window starts inside `range`.
    pub fn edge_rows(&self, range: TimeRange) -> impl Iterator<Item = EdgeRow> {
        self.edges.range(range.start()..range.end()).flat_map(|(start, cells)| {
            cells.iter().map(|(key, stats)| EdgeRow {
                window_start: *start,
                window_nanos: LIVE_WINDOW_NANOS,
                key: Arc::clone(key),
                stats: Arc::clone(stats),
            })
        })
    }

    /// The rollup merged into the coarser windows that are sealed, ordered by window and key so
    /// that equal input makes equal files.
    #[must_use]
    pub fn sealed_edge_rows(&self) -> Vec<EdgeRow> {
        let mut merged: BTreeMap<(UnixNanos, Arc<EdgeKey>), EdgeStats> = BTreeMap::new();
        for (start, cells) in &self.edges {
            for (key, stats) in cells.iter() {
                merged.entry((start.window_start(SEALED_WINDOW_NANOS), Arc::clone(key))).or_default().merge(stats);
            }
        }
        merged
            .into_iter()
            .map(|((window_start, key), stats)| EdgeRow {
                window_start,
                window_nanos: SEALED_WINDOW_NANOS,
                key,
                stats: Arc::new(stats),
            })
            .collect()
    }
}
