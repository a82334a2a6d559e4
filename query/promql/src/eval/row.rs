//! One series over all steps.

use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::Grid;
use crate::histogram::FloatHistogram;
use crate::value::{ABSENT, Sample, Series, is_absent};
use windrose_proto::metric::labels::Labels;

/// Histograms per step; most rows have none.
pub(crate) type HistogramCells = Vec<Option<Arc<FloatHistogram>>>;

/// A series with one optional sample per step: a histogram where there is one, else a float that is not
/// [`ABSENT`].
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) labels: Labels,
    /// Whether the metric name goes when the result is final.
    pub(crate) drop_name: bool,
    pub(crate) values: Vec<f64>,
    pub(crate) histograms: Option<HistogramCells>,
}

impl Row {
    pub(crate) fn new(labels: Labels, values: Vec<f64>) -> Self {
        Self { labels, drop_name: false, values, histograms: None }
    }

    pub(crate) fn histogram(&self, step: usize) -> Option<&Arc<FloatHistogram>> {
        self.histograms.as_ref().and_then(|cells| cells[step].as_ref())
    }

    pub(crate) fn has_sample(&self, step: usize) -> bool {
        !is_absent(self.values[step]) || self.histogram(step).is_some()
    }

    pub(crate) fn sample(&self, step: usize) -> Option<Sample> {
        match self.histogram(step) {
            Some(histogram) => Some(Sample::Histogram(Arc::clone(histogram))),
            None => (!is_absent(self.values[step])).then(|| Sample::Float(self.values[step])),
        }
    }

    pub(crate) fn set(&mut self, step: usize, sample: Option<Sample>) {
        let (value, histogram) = match sample {
            None => (ABSENT, None),
            Some(Sample::Float(value)) => (value, None),
            Some(Sample::Histogram(histogram)) => (ABSENT, Some(histogram)),
        };
        self.values[step] = value;
        if histogram.is_some() || self.histograms.is_some() {
            let steps = self.values.len();
            self.histograms.get_or_insert_with(|| vec![None; steps])[step] = histogram;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        (0..self.values.len()).all(|step| !self.has_sample(step))
    }

    /// Floats only; histograms become absent.
    pub(crate) fn drop_histograms(&mut self) {
        self.histograms = None;
    }

    /// How many samples it holds in memory.
    pub(crate) fn weight(&self) -> usize {
        let histograms = self.histograms.iter().flatten().flatten().map(|histogram| histogram.weight());
        self.values.len() + histograms.sum::<usize>()
    }

    /// Applies a delayed name removal.
    pub(crate) fn settle_name(&mut self) {
        if self.drop_name {
            self.labels = self.labels.without_name(true);
            self.drop_name = false;
        }
    }

    /// The same single sample at every step.
    pub(crate) fn repeat(mut self, steps: usize) -> Self {
        let value = self.values[0];
        self.values.clear();
        self.values.resize(steps, value);
        if let Some(cells) = &mut self.histograms {
            let cell = cells[0].clone();
            cells.clear();
            cells.resize(steps, cell);
        }
        self
    }

    pub(crate) fn into_series(self, grid: &Grid) -> Series {
        let cells = self.histograms.into_iter().flatten().enumerate();
        let histograms = cells.filter_map(|(step, cell)| Some((grid.time(step), cell?))).collect();
        let present = self.values.into_iter().enumerate().filter(|(_, value)| !is_absent(*value));
        let floats = present.map(|(step, value)| (grid.time(step), value)).collect();
        Series { labels: self.labels, floats, histograms }
    }

    /// Takes the samples of another row where this one has none; false when both have one.
    fn absorb(&mut self, other: &Self) -> bool {
        for step in 0..other.values.len() {
            let Some(sample) = other.sample(step) else { continue };
            if self.has_sample(step) {
                return false;
            }
            self.set(step, Some(sample));
        }
        self.drop_name |= other.drop_name;
        true
    }
}

/// Joins rows with equal labels in the order of first appearance; `None` when two have a sample at the same step.
pub(crate) fn merge_same_labels(rows: Vec<Row>) -> Option<Vec<Row>> {
    if !has_duplicates(&rows) {
        return Some(rows);
    }
    let mut index: HashMap<Labels, usize> = HashMap::with_capacity(rows.len());
    let mut out: Vec<Row> = Vec::with_capacity(rows.len());
    for row in rows {
        match index.entry(row.labels.clone()) {
            Entry::Vacant(slot) => {
                slot.insert(out.len());
                out.push(row);
            }
            Entry::Occupied(slot) => {
                if !out[*slot.get()].absorb(&row) {
                    return None;
                }
            }
        }
    }
    Some(out)
}

/// Whether two rows have equal labels.
pub(crate) fn has_duplicates(rows: &[Row]) -> bool {
    if rows.len() < 2 {
        return false;
    }
    let mut seen = hashbrown::HashSet::with_capacity(rows.len());
    rows.iter().any(|row| !seen.insert(&row.labels))
}
