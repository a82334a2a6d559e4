//! Samples of a page whose series are not looked up yet: a page that turns out bad must not create
//! series.
//!
//! The first page of a target is all of these. Their labels stand in one text: as maps of their own
//! they took six times the page, and half of the memory that a start needed.

use std::ops::Range;

use windrose_proto::metric::Exemplar;

use super::relabel::LabelSet;
use crate::exposition::LineId;

/// A sample that waits for its series.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) line: LineId,
    pub(super) millis: i64,
    pub(super) value: f64,
    pub(super) exemplar: Option<Exemplar>,
    /// Which of the ends are its labels'.
    labels: Range<usize>,
}

/// What waits, in the order of the page.
#[derive(Debug, Default)]
pub(super) struct PendingSamples {
    samples: Vec<Pending>,
    /// Names and values, one after the other.
    text: String,
    /// Where each of them ends.
    ends: Vec<usize>,
}

impl PendingSamples {
    /// Adds a sample.
    pub(super) fn push(
        &mut self,
        line: LineId,
        labels: &LabelSet,
        (millis, value): (i64, f64),
        exemplar: Option<Exemplar>,
    ) {
        let first = self.ends.len();
        for part in labels.iter().flat_map(|(name, value)| [name, value]) {
            self.text.push_str(part);
            self.ends.push(self.text.len());
        }
        self.samples.push(Pending { line, millis, value, exemplar, labels: first..self.ends.len() });
    }

    /// Takes the samples out; their labels stay readable.
    pub(super) fn take(&mut self) -> Vec<Pending> {
        std::mem::take(&mut self.samples)
    }

    /// The labels of one of them, by name.
    pub(super) fn labels(&self, of: &Pending) -> Vec<(&str, &str)> {
        let mut start = of.labels.start.checked_sub(1).map_or(0, |before| self.ends[before]);
        let mut next = |end: usize| &self.text[std::mem::replace(&mut start, end)..end];
        let (pairs, _) = self.ends[of.labels.clone()].as_chunks::<2>();
        pairs.iter().map(|[name, value]| (next(*name), next(*value))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{LabelSet, PendingSamples};
    use crate::exposition::LineTable;

    #[test]
    fn labels_stay_with_their_sample() {
        let mut table: LineTable<()> = LineTable::default();
        let sets = [vec![("a", "1"), ("é", "ü{}")], vec![], vec![("b", ""), ("c", "3")]];
        let mut pending = PendingSamples::default();
        for (number, set) in sets.iter().enumerate() {
            let labels: LabelSet = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let line = table.insert(&number.to_string(), ()).unwrap();
            pending.push(line, &labels, (number as i64, 0.5), None);
        }
        let samples = pending.take();
        let found: Vec<_> = samples.iter().map(|sample| pending.labels(sample)).collect();
        assert_eq!(found, sets);
        assert_eq!(samples.iter().map(|sample| sample.millis).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(pending.take().is_empty());
    }
}
