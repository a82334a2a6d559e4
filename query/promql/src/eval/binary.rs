//! Binary operators: with a scalar on one side, and sets.

use hashbrown::HashMap;

use super::row::Row;
use super::stream::Sink;
use super::{Evaluated, Evaluator, Grid, execution};
use crate::ast::{Binary, BinaryOp, Expr, Matching, Span, ValueType};
use crate::value::{ABSENT, Sample, is_absent};
use windrose_proto::metric::labels::Labels;

/// The labels by which series of the two sides are matched.
pub(super) fn signature(labels: &Labels, matching: &Matching) -> Labels {
    if matching.on { labels.keep(&matching.labels) } else { labels.drop_all(&matching.labels) }
}

impl Evaluator<'_> {
    pub(super) fn stream_binary(&self, node: &Binary, span: Span, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        match (node.lhs.value_type(), node.rhs.value_type()) {
            (ValueType::Scalar, _) => self.stream_with_scalar(node, &node.rhs, &node.lhs, true, span, grid, sink),
            (_, ValueType::Scalar) => self.stream_with_scalar(node, &node.lhs, &node.rhs, false, span, grid, sink),
            _ => {
                let Some(matching) = &node.matching else {
                    return execution("vector operation without matching");
                };
                if node.op.is_set() {
                    self.stream_set(node, matching, grid, sink)
                } else {
                    self.stream_matched(node, matching, span, grid, sink)
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the two sides, their order and where to report")]
    fn stream_with_scalar(
        &self,
        node: &Binary,
        vector: &Expr,
        scalar: &Expr,
        swapped: bool,
        span: Span,
        grid: &Grid,
        sink: Sink<'_>,
    ) -> Evaluated<()> {
        let scalars = self.scalar(scalar, grid)?;
        let change = &mut |row: &mut Row| {
            self.apply_scalar(row, node, &scalars, swapped, span);
            Ok(())
        };
        if node.op.changes_meaning() || node.return_bool {
            return self.stream_renamed(vector, grid, change, sink);
        }
        self.stream(vector, grid, &mut |mut row| {
            change(&mut row)?;
            if row.is_empty() {
                self.recycle(row);
                return Ok(());
            }
            sink(row)
        })
    }

    fn apply_scalar(&self, row: &mut Row, node: &Binary, scalars: &[f64], swapped: bool, span: Span) {
        if row.histograms.is_some() {
            for (step, scalar) in scalars.iter().enumerate() {
                if let Some(sample) = row.sample(step) {
                    let result = self.element_with_scalar(node, sample, *scalar, swapped, span);
                    row.set(step, result);
                }
            }
            return;
        }
        let trims = matches!(node.op, BinaryOp::TrimUpper | BinaryOp::TrimLower);
        for (value, scalar) in row.values.iter_mut().zip(scalars) {
            if is_absent(*value) {
                continue;
            }
            let (lhs, rhs) = if swapped { (*scalar, *value) } else { (*value, *scalar) };
            if trims {
                self.annotate(|a| a.incompatible_types(span, "float", node.op.as_str(), "float"));
                *value = ABSENT;
            } else if !node.op.is_comparison() {
                *value = super::element::float_arithmetic(node.op, lhs, rhs);
            } else {
                let holds = super::element::compares(node.op, lhs, rhs);
                if node.return_bool {
                    *value = f64::from(u8::from(holds));
                } else if !holds {
                    *value = ABSENT;
                }
            }
        }
    }

    fn element_with_scalar(
        &self,
        node: &Binary,
        sample: Sample,
        scalar: f64,
        swapped: bool,
        span: Span,
    ) -> Option<Sample> {
        let scalar = Sample::Float(scalar);
        let (lhs, rhs) = if swapped { (&scalar, &sample) } else { (&sample, &scalar) };
        let (value, keep) = self.element(node.op, lhs, rhs, span)?;
        if node.return_bool {
            return Some(Sample::Float(f64::from(u8::from(keep))));
        }
        if !keep {
            return None;
        }
        // A comparison filters the vector, whichever side it is on.
        Some(if node.op.is_comparison() { sample } else { value })
    }

    fn stream_set(&self, node: &Binary, matching: &Matching, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        let mut left = self.vector(&node.lhs, grid)?;
        let mut right = self.vector(&node.rhs, grid)?;
        match node.op {
            BinaryOp::And | BinaryOp::Unless => {
                let wanted = node.op == BinaryOp::And;
                let present = Presence::of(&right, matching, grid);
                for mut row in left {
                    present.mask(&mut row, matching, wanted);
                    if !row.is_empty() {
                        sink(row)?;
                    }
                }
                Ok(())
            }
            _ => {
                let present = Presence::of(&left, matching, grid);
                for row in &mut right {
                    present.mask(row, matching, false);
                }
                right.retain(|row| !row.is_empty());
                left.append(&mut right);
                self.merge_same_labels(left)?.into_iter().try_for_each(sink)
            }
        }
    }
}

/// At which steps each signature has a sample.
struct Presence {
    index: HashMap<Labels, Vec<bool>>,
}

impl Presence {
    fn of(rows: &[Row], matching: &Matching, grid: &Grid) -> Self {
        let mut index: HashMap<Labels, Vec<bool>> = HashMap::new();
        for row in rows {
            let steps = index.entry(signature(&row.labels, matching)).or_insert_with(|| vec![false; grid.count]);
            for (step, present) in steps.iter_mut().enumerate() {
                *present |= row.has_sample(step);
            }
        }
        Self { index }
    }

    /// Removes the samples of a row where the presence of its signature is not as wanted.
    fn mask(&self, row: &mut Row, matching: &Matching, wanted: bool) {
        let steps = self.index.get(&signature(&row.labels, matching));
        for step in 0..row.values.len() {
            if steps.is_some_and(|steps| steps[step]) != wanted {
                row.set(step, None);
            }
        }
    }
}
