//! Samples, series and results.

use std::sync::Arc;

use crate::histogram::FloatHistogram;
use windrose_proto::metric::labels::Labels;

/// The bit pattern of Prometheus' staleness marker. In storage it ends a series; inside the evaluator it marks a
/// step without a sample. It can do both because a marker never is a value.
pub const ABSENT_BITS: u64 = windrose_proto::metric::STALE_MARKER_BITS;

/// See [`ABSENT_BITS`].
pub const ABSENT: f64 = f64::from_bits(ABSENT_BITS);

/// Whether a float is the staleness marker, not merely NaN.
pub fn is_absent(value: f64) -> bool {
    value.to_bits() == ABSENT_BITS
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<FloatHistogram>),
}

/// A series of a result: its samples in time order, floats and histograms apart as the API shows them. At any instant
/// there is at most one of the two.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Its labels.
    pub labels: Labels,
    /// Milliseconds and value.
    pub floats: Vec<(i64, f64)>,
    /// Milliseconds and value.
    pub histograms: Vec<(i64, Arc<FloatHistogram>)>,
}

impl Series {
    /// Whether it has no sample.
    pub fn is_empty(&self) -> bool {
        self.floats.is_empty() && self.histograms.is_empty()
    }

    /// All samples in time order.
    pub fn samples(&self) -> Vec<(i64, Sample)> {
        let floats = self.floats.iter().map(|(time, value)| (*time, Sample::Float(*value)));
        let histograms =
            self.histograms.iter().map(|(time, histogram)| (*time, Sample::Histogram(Arc::clone(histogram))));
        let mut samples: Vec<(i64, Sample)> = floats.chain(histograms).collect();
        samples.sort_by_key(|(time, _)| *time);
        samples
    }
}

/// What a query returns.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryResult {
    /// Instant query over a vector expression, in the order the expression gives.
    Vector(Vec<(Labels, Sample)>, i64),
    /// Range query, or an instant query over a range vector; sorted by labels.
    Matrix(Vec<Series>),
    /// Instant query over a scalar.
    Scalar(f64, i64),
    /// Instant query over a string.
    String(String, i64),
}

impl QueryResult {
    /// Drops what goes beyond `limit` series; true when something was dropped.
    pub fn truncate(&mut self, limit: usize) -> bool {
        let (before, after) = match self {
            Self::Vector(samples, _) => {
                let before = samples.len();
                samples.truncate(limit);
                (before, samples.len())
            }
            Self::Matrix(series) => {
                let before = series.len();
                series.truncate(limit);
                (before, series.len())
            }
            Self::Scalar(..) | Self::String(..) => (0, 0),
        };
        before > after
    }
}
