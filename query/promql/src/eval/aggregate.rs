//! Aggregations with one series per group. Rows are swallowed as they come: a group holds a few numbers per step.

use std::sync::Arc;

use hashbrown::HashMap;

use super::kahan::{Mean, increment};
use super::range::HistogramSum;
use super::row::{HistogramCells, Row};
use super::stream::Sink;
use super::{Evaluated, Evaluator, Grid};
use crate::annotations::HistogramOp;
use crate::ast::{Aggregate, AggregateOp, Span};
use crate::histogram::FloatHistogram;
use crate::value::{ABSENT, is_absent};
use windrose_proto::metric::labels::Labels;

/// The labels of the group a series belongs to.
pub(super) fn group_labels(labels: &Labels, grouping: &[String], without: bool) -> Labels {
    if without { labels.drop_all(grouping) } else { labels.keep(grouping) }
}

/// Histograms of one group at one step.
#[derive(Clone, Debug, Default)]
struct HistogramCell {
    sum: Option<HistogramSum>,
    incompatible: bool,
}

/// What a group has gathered, per step.
enum Accumulator {
    Sum { sums: Vec<f64>, lost: Vec<f64> },
    Average(Vec<Option<Mean>>),
    Extreme(Vec<f64>),
    Count(Vec<u64>),
    Group(Vec<bool>),
    Variance(Vec<Welford>),
    Quantile(Vec<Vec<f64>>),
}

#[derive(Clone, Copy, Debug, Default)]
struct Welford {
    count: f64,
    mean: f64,
    squares: f64,
}

struct Group {
    labels: Labels,
    drop_name: bool,
    accumulator: Accumulator,
    histograms: Option<Vec<HistogramCell>>,
}

impl Evaluator<'_> {
    pub(super) fn stream_aggregate(&self, node: &Aggregate, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        match node.op {
            AggregateOp::TopK | AggregateOp::BottomK | AggregateOp::LimitK | AggregateOp::LimitRatio => {
                self.stream_selection(node, grid, sink)
            }
            AggregateOp::CountValues => self.stream_count_values(node, grid, sink),
            _ => self.stream_reduction(node, grid, sink),
        }
    }

    fn stream_reduction(&self, node: &Aggregate, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        let quantiles = match &node.param {
            Some(param) => {
                let values = self.scalar(param, grid)?;
                for quantile in values.iter().filter(|quantile| !(0.0..=1.0).contains(*quantile)) {
                    self.annotate(|a| a.invalid_quantile(param.span(), *quantile));
                }
                values
            }
            None => Vec::new(),
        };
        let mut index: HashMap<Labels, usize> = HashMap::new();
        let mut groups: Vec<Group> = Vec::new();
        let span = node.expr.span();
        self.stream(&node.expr, grid, &mut |row| {
            let labels = group_labels(&row.labels, &node.grouping, node.without);
            let at = match index.get(&labels) {
                Some(at) => *at,
                None => {
                    self.hold(grid.count)?;
                    groups.push(Group::new(labels.clone(), node.op, grid.count));
                    index.insert(labels, groups.len() - 1);
                    groups.len() - 1
                }
            };
            groups[at].drop_name |= row.drop_name;
            self.accumulate(&mut groups[at], &row, node.op, span)?;
            self.recycle(row);
            Ok(())
        })?;
        for group in groups {
            let row = self.finish(group, node.op, &quantiles, span);
            if !row.is_empty() {
                sink(row)?;
            }
        }
        Ok(())
    }

    fn accumulate(&self, group: &mut Group, row: &Row, op: AggregateOp, span: Span) -> Evaluated<()> {
        if let Some(cells) = &row.histograms {
            self.accumulate_histograms(group, cells, row, op, span)?;
        }
        group.accumulator.add_floats(&row.values, op, |values| self.hold(values))
    }

    fn accumulate_histograms(
        &self,
        group: &mut Group,
        cells: &HistogramCells,
        row: &Row,
        op: AggregateOp,
        span: Span,
    ) -> Evaluated<()> {
        for (step, histogram) in cells.iter().enumerate().filter_map(|(step, cell)| Some((step, cell.as_ref()?))) {
            match &mut group.accumulator {
                Accumulator::Count(counts) => counts[step] += 1,
                Accumulator::Group(seen) => seen[step] = true,
                Accumulator::Sum { .. } | Accumulator::Average(_) => {
                    let steps = cells.len();
                    let all = group.histograms.get_or_insert_with(|| vec![HistogramCell::default(); steps]);
                    self.add_histogram(&mut all[step], histogram, op, row.labels.metric_name(), span)?;
                }
                Accumulator::Extreme(_) | Accumulator::Variance(_) | Accumulator::Quantile(_) => {
                    self.annotate(|a| a.histogram_ignored_in_aggregation(span, op.as_str()));
                }
            }
        }
        Ok(())
    }

    fn add_histogram(
        &self,
        cell: &mut HistogramCell,
        histogram: &FloatHistogram,
        op: AggregateOp,
        metric: &str,
        span: Span,
    ) -> Evaluated<()> {
        if cell.incompatible {
            return Ok(());
        }
        match &mut cell.sum {
            None => {
                self.hold(histogram.weight())?;
                cell.sum = Some(HistogramSum::new(histogram, op == AggregateOp::Avg));
            }
            Some(sum) => {
                if sum.add(histogram).is_err() {
                    self.annotate(|a| a.mixed_exponential_custom(span, metric));
                    cell.incompatible = true;
                }
            }
        }
        Ok(())
    }

    fn finish(&self, group: Group, op: AggregateOp, quantiles: &[f64], span: Span) -> Row {
        let mut row = Row::new(group.labels, group.accumulator.finish(op, quantiles));
        row.drop_name = group.drop_name;
        let Some(cells) = group.histograms else { return row };
        let mut histograms: HistogramCells = vec![None; cells.len()];
        for (step, cell) in cells.into_iter().enumerate() {
            let Some(sum) = cell.sum else { continue };
            if !is_absent(row.values[step]) {
                self.annotate(|a| a.mixed_floats_histograms_aggregation(span));
                row.values[step] = ABSENT;
                continue;
            }
            if cell.incompatible {
                continue;
            }
            if sum.reset_seen && sum.not_reset_seen {
                self.annotate(|a| a.counter_reset_collision(span, HistogramOp::Aggregate));
            }
            if sum.bounds_reconciled {
                self.annotate(|a| a.mismatched_custom_buckets(span, HistogramOp::Aggregate));
            }
            histograms[step] = Some(Arc::new(sum.finish()));
        }
        row.histograms = Some(histograms);
        row
    }
}

impl Group {
    fn new(labels: Labels, op: AggregateOp, steps: usize) -> Self {
        let accumulator = match op {
            AggregateOp::Avg => Accumulator::Average(vec![None; steps]),
            AggregateOp::Min | AggregateOp::Max => Accumulator::Extreme(vec![ABSENT; steps]),
            AggregateOp::Count => Accumulator::Count(vec![0; steps]),
            AggregateOp::Group => Accumulator::Group(vec![false; steps]),
            AggregateOp::StdDev | AggregateOp::StdVar => Accumulator::Variance(vec![Welford::default(); steps]),
            AggregateOp::Quantile => Accumulator::Quantile(vec![Vec::new(); steps]),
            _ => Accumulator::Sum { sums: vec![ABSENT; steps], lost: vec![0.0; steps] },
        };
        Self { labels, drop_name: false, accumulator, histograms: None }
    }
}

impl Accumulator {
    fn add_floats(&mut self, values: &[f64], op: AggregateOp, hold: impl Fn(usize) -> Evaluated<()>) -> Evaluated<()> {
        match self {
            Self::Sum { sums, lost } => {
                for ((value, sum), lost) in values.iter().zip(sums).zip(lost) {
                    if is_absent(*value) {
                        continue;
                    }
                    if is_absent(*sum) {
                        *sum = *value;
                    } else {
                        (*sum, *lost) = increment(*value, *sum, *lost);
                    }
                }
            }
            Self::Average(means) => {
                for (value, mean) in values.iter().zip(means).filter(|(value, _)| !is_absent(**value)) {
                    match mean {
                        Some(mean) => mean.add(*value),
                        None => *mean = Some(Mean::new(*value)),
                    }
                }
            }
            Self::Extreme(best) => {
                let is_min = op == AggregateOp::Min;
                for (value, best) in values.iter().zip(best).filter(|(value, _)| !is_absent(**value)) {
                    // The absent marker is a NaN, so that the first value always wins.
                    if best.is_nan() || (if is_min { *best > *value } else { *best < *value }) {
                        *best = *value;
                    }
                }
            }
            Self::Count(counts) => {
                for (value, count) in values.iter().zip(counts) {
                    *count += u64::from(!is_absent(*value));
                }
            }
            Self::Group(seen) => {
                for (value, seen) in values.iter().zip(seen) {
                    *seen |= !is_absent(*value);
                }
            }
            Self::Variance(cells) => {
                for (value, cell) in values.iter().zip(cells).filter(|(value, _)| !is_absent(**value)) {
                    cell.add(*value);
                }
            }
            Self::Quantile(cells) => {
                hold(values.len())?;
                for (value, cell) in values.iter().zip(cells).filter(|(value, _)| !is_absent(**value)) {
                    cell.push(*value);
                }
            }
        }
        Ok(())
    }

    fn finish(self, op: AggregateOp, quantiles: &[f64]) -> Vec<f64> {
        match self {
            Self::Sum { mut sums, lost } => {
                for (sum, lost) in sums.iter_mut().zip(lost) {
                    if !is_absent(*sum) {
                        *sum += lost;
                    }
                }
                sums
            }
            Self::Average(means) => means.into_iter().map(|mean| mean.map_or(ABSENT, |mean| mean.result())).collect(),
            Self::Extreme(best) => best,
            Self::Count(counts) => {
                counts.into_iter().map(|count| if count == 0 { ABSENT } else { count as f64 }).collect()
            }
            Self::Group(seen) => seen.into_iter().map(|seen| if seen { 1.0 } else { ABSENT }).collect(),
            Self::Variance(cells) => cells.iter().map(|cell| cell.finish(op == AggregateOp::StdDev)).collect(),
            Self::Quantile(cells) => cells
                .into_iter()
                .zip(quantiles)
                .map(
                    |(mut values, quantile)| {
                        if values.is_empty() { ABSENT } else { super::quantile::of_values(*quantile, &mut values) }
                    },
                )
                .collect(),
        }
    }
}

impl Welford {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.mean = value;
            self.squares = if value.is_finite() { 0.0 } else { f64::NAN };
            return;
        }
        let delta = value - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (value - self.mean);
    }

    fn finish(&self, root: bool) -> f64 {
        if self.count == 0.0 {
            return ABSENT;
        }
        let variance = self.squares / self.count;
        if root { variance.sqrt() } else { variance }
    }
}
