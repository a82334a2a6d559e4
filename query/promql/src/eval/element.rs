//! Operators on single values.

use std::sync::Arc;

use super::Evaluator;
use crate::annotations::HistogramOp;
use crate::ast::{BinaryOp, Span};
use crate::histogram::{FloatHistogram, ResetHint};
use crate::value::Sample;

/// Arithmetic on floats; comparisons and set operators have no float value of their own and give NaN.
pub(super) fn float_arithmetic(op: BinaryOp, lhs: f64, rhs: f64) -> f64 {
    match op {
        BinaryOp::Add => lhs + rhs,
        BinaryOp::Sub => lhs - rhs,
        BinaryOp::Mul => lhs * rhs,
        BinaryOp::Div => lhs / rhs,
        BinaryOp::Mod => lhs % rhs,
        BinaryOp::Pow => lhs.powf(rhs),
        BinaryOp::Atan2 => lhs.atan2(rhs),
        BinaryOp::Eq
        | BinaryOp::Ne
        | BinaryOp::Gt
        | BinaryOp::Lt
        | BinaryOp::Ge
        | BinaryOp::Le
        | BinaryOp::TrimUpper
        | BinaryOp::TrimLower
        | BinaryOp::And
        | BinaryOp::Or
        | BinaryOp::Unless => f64::NAN,
    }
}

/// Whether a comparison holds.
pub(super) fn compares(op: BinaryOp, lhs: f64, rhs: f64) -> bool {
    match op {
        BinaryOp::Eq => lhs == rhs,
        BinaryOp::Ne => lhs != rhs,
        BinaryOp::Gt => lhs > rhs,
        BinaryOp::Lt => lhs < rhs,
        BinaryOp::Ge => lhs >= rhs,
        BinaryOp::Le => lhs <= rhs,
        _ => false,
    }
}

/// An operator between two scalars; comparisons give 0 and 1.
pub(super) fn scalar_operator(op: BinaryOp, lhs: f64, rhs: f64) -> f64 {
    if op.is_comparison() { f64::from(u8::from(compares(op, lhs, rhs))) } else { float_arithmetic(op, lhs, rhs) }
}

impl Evaluator<'_> {
    /// An operator between two samples: the value and whether a filter keeps it; `None` when the two do not go
    /// together, which is then annotated at `span`.
    pub(super) fn element(&self, op: BinaryOp, lhs: &Sample, rhs: &Sample, span: Span) -> Option<(Sample, bool)> {
        match (lhs, rhs) {
            (Sample::Float(a), Sample::Float(b)) => match op {
                BinaryOp::TrimUpper | BinaryOp::TrimLower => self.incompatible(op, "float", "float", span),
                _ if op.is_comparison() => Some((Sample::Float(*a), compares(op, *a, *b))),
                _ => Some((Sample::Float(float_arithmetic(op, *a, *b)), true)),
            },
            (Sample::Float(factor), Sample::Histogram(histogram)) => match op {
                BinaryOp::Mul => Some((
                    changed(histogram, |h| {
                        h.scale(*factor);
                    }),
                    true,
                )),
                _ => self.incompatible(op, "float", "histogram", span),
            },
            (Sample::Histogram(histogram), Sample::Float(number)) => match op {
                BinaryOp::Mul => Some((
                    changed(histogram, |h| {
                        h.scale(*number);
                    }),
                    true,
                )),
                BinaryOp::Div => Some((
                    changed(histogram, |h| {
                        h.divide(*number);
                    }),
                    true,
                )),
                BinaryOp::TrimUpper => Some((changed(histogram, |h| h.trim_above(*number)), true)),
                BinaryOp::TrimLower => Some((changed(histogram, |h| h.trim_below(*number)), true)),
                _ => self.incompatible(op, "histogram", "float", span),
            },
            (Sample::Histogram(a), Sample::Histogram(b)) => match op {
                BinaryOp::Add => self.combine_histograms(a, b, op, span),
                BinaryOp::Sub => self.combine_histograms(a, b, op, span),
                BinaryOp::Eq => Some((lhs.clone(), a.equals(b))),
                BinaryOp::Ne => Some((lhs.clone(), !a.equals(b))),
                _ => self.incompatible(op, "histogram", "histogram", span),
            },
        }
    }

    fn incompatible<T>(&self, op: BinaryOp, lhs: &str, rhs: &str, span: Span) -> Option<T> {
        self.annotate(|a| a.incompatible_types(span, lhs, op.as_str(), rhs));
        None
    }

    fn combine_histograms(
        &self,
        lhs: &FloatHistogram,
        rhs: &FloatHistogram,
        op: BinaryOp,
        span: Span,
    ) -> Option<(Sample, bool)> {
        let mut result = lhs.clone();
        let (outcome, kind) = if op == BinaryOp::Add {
            (result.add(rhs), HistogramOp::Add)
        } else {
            (result.subtract(rhs), HistogramOp::Sub)
        };
        let Ok(outcome) = outcome else {
            self.annotate(|a| a.incompatible_bucket_layout(span, op.as_str()));
            return None;
        };
        if op == BinaryOp::Sub {
            result.hint = ResetHint::Gauge;
        }
        if outcome.reset_collision {
            self.annotate(|a| a.counter_reset_collision(span, kind));
        }
        if outcome.bounds_reconciled {
            self.annotate(|a| a.mismatched_custom_buckets(span, kind));
        }
        result.compact();
        Some((Sample::Histogram(Arc::new(result)), true))
    }
}

fn changed(histogram: &FloatHistogram, change: impl FnOnce(&mut FloatHistogram)) -> Sample {
    let mut copy = histogram.clone();
    change(&mut copy);
    copy.compact();
    Sample::Histogram(Arc::new(copy))
}
