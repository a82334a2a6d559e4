//! What an evaluation will read, loaded before it starts: the evaluator never waits.

use std::cell::RefCell;
use std::sync::Arc;

use windrose_promql::{Matcher, PlannedSelect, Select, SeriesSet, SeriesView, Storage, StorageError};
use windrose_proto::edge::EdgeRow;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::TimeRange;
use windrose_store::metrics::{MetricReader, ReadError, ReadLimits, SelectedSeries};
use windrose_store::snapshot::TenantSnapshot;

use super::request::millis;
use crate::edge_series::{self, Selection, VirtualSeries};
use crate::http::error::ApiError;
use crate::http::{QueryState, edge_rows};

/// One tenant at one instant, as a request sees it.
#[derive(Clone, Debug)]
pub(super) struct View {
    snapshot: Arc<TenantSnapshot>,
    pub(super) metrics: MetricReader,
    /// Milliseconds since 1970.
    pub(super) now: i64,
    pub(super) lookback: i64,
    max_samples: usize,
}

impl View {
    pub(super) fn new(state: &QueryState, tenant: &TenantId, lookback: i64) -> Self {
        Self {
            snapshot: state.snapshot(tenant),
            metrics: state.metrics.reader(tenant),
            now: millis(state.clock.now()),
            lookback,
            max_samples: state.engine.limits.max_samples,
        }
    }

    /// The rollup rows of a range, sorted by the start of their window.
    pub(super) async fn edge_rows(&self, range: Option<TimeRange>) -> Result<Vec<EdgeRow>, ApiError> {
        let Some(range) = range else { return Ok(Vec::new()) };
        let mut rows = edge_rows(&self.snapshot, range).await?;
        rows.sort_by_key(|row| row.window_start);
        Ok(rows)
    }

    fn selection<'a>(&self, request: &Select<'a>) -> Selection<'a> {
        Selection {
            matchers: request.matchers,
            min_time: request.min_time,
            max_time: request.max_time,
            function: request.function,
            range: request.range,
            step: request.step,
            lookback: self.lookback,
            now: self.now,
            max_samples: self.max_samples,
        }
    }
}

/// The selections of one plan.
#[derive(Debug)]
pub(super) struct Loaded {
    view: View,
    /// What all selections of edges need, sorted by the start of their window.
    rows: Vec<EdgeRow>,
    /// Stored series of each selection; compressed until they are read, which happens once.
    stored: Vec<(PlannedSelect, RefCell<Option<SelectedSeries>>)>,
}

/// As the evaluator asks for it.
pub(super) fn as_select(planned: &PlannedSelect) -> Select<'_> {
    Select {
        matchers: &planned.matchers,
        min_time: planned.min_time,
        max_time: planned.max_time,
        function: &planned.function,
        range: planned.range,
        step: planned.step,
    }
}

impl Loaded {
    /// Reads what a plan asks for.
    pub(super) async fn load(view: View, plan: Vec<PlannedSelect>) -> Result<Self, ApiError> {
        let needed = plan.iter().filter_map(|planned| edge_series::rows_needed(&view.selection(&as_select(planned))));
        let rows = view.edge_rows(needed.reduce(hull)).await?;
        let limits = ReadLimits { max_samples: view.max_samples as u64, ..ReadLimits::default() };
        let mut stored = Vec::with_capacity(plan.len());
        for planned in plan {
            let PlannedSelect { matchers, min_time, max_time, .. } = &planned;
            let series = view.metrics.select(matchers, *min_time, *max_time, limits).await.map_err(read_error)?;
            stored.push((planned, RefCell::new(Some(series))));
        }
        Ok(Self { view, rows, stored })
    }

    /// The stored series for a selection: those loaded for it, or else those of a wider one. Whether all its matchers
    /// still have to be looked at says the flag.
    fn stored(&self, request: &Select<'_>) -> Option<(SelectedSeries, bool)> {
        let is_loaded_for = |planned: &PlannedSelect| {
            let asked = as_select(planned);
            asked.matchers == request.matchers
                && (asked.min_time, asked.max_time) == (request.min_time, request.max_time)
        };
        let is_wider = |planned: &PlannedSelect| {
            planned.matchers.iter().all(|matcher| request.matchers.contains(matcher))
                && planned.min_time <= request.min_time
                && planned.max_time >= request.max_time
        };
        let take = |wanted: &dyn Fn(&PlannedSelect) -> bool| {
            self.stored.iter().filter(|(planned, _)| wanted(planned)).find_map(|(_, series)| series.borrow_mut().take())
        };
        take(&is_loaded_for).map(|series| (series, false)).or_else(|| take(&is_wider).map(|series| (series, true)))
    }
}

/// What the store says when it cannot read, as an error of the query.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn read_error(error: ReadError) -> ApiError {
    ApiError::execution(error.to_string())
}

/// The smallest range that holds both.
fn hull(a: TimeRange, b: TimeRange) -> TimeRange {
    TimeRange::new(a.start().min(b.start()), a.end().max(b.end())).unwrap_or(a)
}

impl Storage for Loaded {
    fn select<'a>(&'a self, request: &Select<'_>) -> Result<Box<dyn SeriesSet + 'a>, StorageError> {
        let selection = self.view.selection(request);
        let virtual_series = match edge_series::rows_needed(&selection) {
            Some(range) => edge_series::select(within(&self.rows, range), &selection)?,
            None => Vec::new(),
        };
        let Some((mut stored, is_wider)) = self.stored(request) else {
            return Err(StorageError("a selection that was not planned: please report this query".to_owned()));
        };
        let mut owned = virtual_series;
        if is_wider {
            while let Some(found) = stored.next().map_err(|error| StorageError(error.to_string()))? {
                if edge_series::matches(found.labels, request.matchers) {
                    let (timestamps, values) = (found.timestamps.to_vec(), found.values.to_vec());
                    owned.push(VirtualSeries { labels: found.labels.clone(), timestamps, values });
                }
            }
        }
        Ok(Box::new(Cursor { stored, owned: owned.into_iter(), lent: None }))
    }
}

/// The rows whose window starts inside the range.
fn within(rows: &[EdgeRow], range: TimeRange) -> &[EdgeRow] {
    let first = rows.partition_point(|row| row.window_start < range.start());
    let count = rows[first..].partition_point(|row| row.window_start < range.end());
    &rows[first..first + count]
}

/// Stored series, decoded one by one, then those that are at hand.
struct Cursor {
    stored: SelectedSeries,
    owned: std::vec::IntoIter<VirtualSeries>,
    lent: Option<VirtualSeries>,
}

impl SeriesSet for Cursor {
    fn next(&mut self) -> Result<Option<SeriesView<'_>>, StorageError> {
        if let Some(found) = self.stored.next().map_err(|error| StorageError(error.to_string()))? {
            return Ok(Some(SeriesView::floats(found.labels, found.timestamps, found.values)));
        }
        self.lent = self.owned.next();
        Ok(self.lent.as_ref().map(|series| SeriesView::floats(&series.labels, &series.timestamps, &series.values)))
    }
}

/// One selection outside a query: the latest samples of whatever matches.
pub(super) fn instant_select(matchers: Vec<Matcher>, now: i64, lookback: i64) -> PlannedSelect {
    PlannedSelect {
        matchers,
        min_time: now.saturating_sub(lookback).saturating_add(1),
        max_time: now,
        function: String::new(),
        range: 0,
        step: 0,
    }
}
