//! What the evaluator needs from a store.

use std::sync::Arc;

use crate::histogram::FloatHistogram;
use windrose_proto::metric::labels::Labels;
use windrose_proto::metric::matcher::Matcher;

/// Why a selection failed; the text reaches the user.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StorageError(pub String);

/// What is selected. The hints after the time range may be ignored.
#[derive(Clone, Copy, Debug)]
pub struct Select<'a> {
    /// All must match.
    pub matchers: &'a [Matcher],
    /// First millisecond that can matter, inclusive.
    pub min_time: i64,
    /// Last millisecond that can matter, inclusive.
    pub max_time: i64,
    /// The function or aggregation the samples go to, empty when none.
    pub function: &'a str,
    /// The window of a range selector in milliseconds, 0 for an instant selector.
    pub range: i64,
    /// The step of the query in milliseconds, 0 for an instant query.
    pub step: i64,
}

/// A store of series.
pub trait Storage {
    /// Series that match, each with its samples inside the time range (more is allowed). The order must be the same
    /// whenever the data is; the evaluator adds floats in this order.
    fn select<'a>(&'a self, request: &Select<'_>) -> Result<Box<dyn SeriesSet + 'a>, StorageError>;
}

/// A cursor over series. It lends each series, so that a store can decode all of them into one buffer.
pub trait SeriesSet {
    /// The next series, `None` after the last.
    fn next(&mut self) -> Result<Option<SeriesView<'_>>, StorageError>;
}

/// One series. Floats and histograms are separate columns, each in ascending time order; at most one of the two has a
/// sample at any instant.
#[derive(Clone, Copy, Debug)]
pub struct SeriesView<'a> {
    /// Its labels, with the metric name.
    pub labels: &'a Labels,
    /// Milliseconds of the floats.
    pub timestamps: &'a [i64],
    /// The floats; staleness markers included.
    pub values: &'a [f64],
    /// Native histograms; one whose sum is the staleness marker is a staleness marker.
    pub histograms: &'a [(i64, Arc<FloatHistogram>)],
    /// When the count behind each float began, in milliseconds, 0 when unknown; empty when the store does not know
    /// any.
    pub starts: &'a [i64],
    /// The same for the histograms.
    pub histogram_starts: &'a [i64],
}

impl<'a> SeriesView<'a> {
    /// A series of floats whose starts are not known: what most stores have.
    pub fn floats(labels: &'a Labels, timestamps: &'a [i64], values: &'a [f64]) -> Self {
        Self { labels, timestamps, values, histograms: &[], starts: &[], histogram_starts: &[] }
    }
}
