//! Functions over instant vectors that look at one sample at a time.

use std::sync::Arc;

use super::dates::calendar_function;
use super::row::Row;
use super::selector::Reading;
use super::stream::Sink;
use super::{Evaluated, Evaluator, Grid, execution};
use crate::ast::{Call, Expr};
use crate::histogram::FloatHistogram;
use crate::value::{ABSENT, is_absent};
use windrose_proto::metric::labels::{Labels, LabelsBuilder, METRIC_NAME};
use windrose_proto::metric::matcher::{MatchOp, Matcher};

impl Evaluator<'_> {
    pub(super) fn stream_simple_function(&self, call: &Call, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        let name = call.function.name;
        if let Some(read) = calendar_function(name) {
            return self.stream_calendar(call, read, grid, sink);
        }
        if let Some(read) = histogram_reader(name) {
            return self.stream_renamed(&call.args[0], grid, &mut |row| read_histograms(row, read), sink);
        }
        if let Some(apply) = float_function(name) {
            return self.stream_renamed(&call.args[0], grid, &mut |row| map_floats(row, |_, value| apply(value)), sink);
        }
        let scalars: Vec<Vec<f64>> =
            call.args[1..].iter().map(|arg| self.scalar(arg, grid)).collect::<Evaluated<_>>()?;
        let argument = |index: usize, step: usize, default: f64| scalars.get(index).map_or(default, |all| all[step]);
        let mut apply: Box<dyn FnMut(usize, f64) -> f64> = match name {
            "round" => Box::new(move |step, value| {
                let inverse = 1.0 / argument(0, step, 1.0);
                (value * inverse + 0.5).floor() / inverse
            }),
            "clamp" | "clamp_min" | "clamp_max" => Box::new(move |step, value| {
                let (low, high) = match name {
                    "clamp" => (argument(0, step, f64::NAN), argument(1, step, f64::NAN)),
                    "clamp_min" => (argument(0, step, f64::NAN), f64::INFINITY),
                    _ => (f64::NEG_INFINITY, argument(0, step, f64::NAN)),
                };
                if high < low { ABSENT } else { max_nan(low, min_nan(high, value)) }
            }),
            _ => return execution(format!("function {name} is not implemented")),
        };
        self.stream_renamed(&call.args[0], grid, &mut |row| map_floats(row, &mut apply), sink)
    }

    pub(super) fn stream_negated(&self, inner: &Expr, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        let change = &mut |row: &mut Row| {
            for value in row.values.iter_mut().filter(|value| !is_absent(**value)) {
                *value = -*value;
            }
            for histogram in row.histograms.iter_mut().flatten().flatten() {
                let mut copy = FloatHistogram::clone(histogram);
                copy.scale(-1.0);
                *histogram = Arc::new(copy);
            }
            Ok(())
        };
        self.stream_renamed(inner, grid, change, sink)
    }

    /// The time of the sample for a selector, of the evaluation for anything else. Only samples have a start.
    pub(super) fn stream_timestamp(&self, call: &Call, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        let inner = &call.args[0];
        let reading = if call.function.name == "timestamp" { Reading::Time } else { Reading::Start };
        if let Expr::Vector(selector) = inner.unwrap_parens() {
            let now = self.drops_names_now();
            let collect = now && !super::stream::names_are_equal(inner);
            let mut rows = Vec::new();
            self.stream_selector(selector, grid, reading, &mut |mut row| {
                row.drop_name = true;
                if now {
                    row.settle_name();
                }
                if collect {
                    rows.push(row);
                    return Ok(());
                }
                sink(row)
            })?;
            return self.merge_same_labels(rows)?.into_iter().try_for_each(sink);
        }
        let change = &mut |row: &mut Row| {
            for step in 0..row.values.len() {
                if row.has_sample(step) {
                    row.values[step] = if reading == Reading::Start { ABSENT } else { grid.time(step) as f64 / 1000.0 };
                }
            }
            row.drop_histograms();
            Ok(())
        };
        self.stream_renamed(inner, grid, change, sink)
    }

    pub(super) fn stream_absent(&self, inner: &Expr, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        let mut present = vec![false; grid.count];
        self.stream(inner, grid, &mut |row| {
            present.iter_mut().enumerate().for_each(|(step, present)| *present |= row.has_sample(step));
            self.recycle(row);
            Ok(())
        })?;
        self.sink_absent(inner, &present, sink)
    }

    /// One series with value 1 at every step where nothing was present.
    pub(super) fn sink_absent(&self, inner: &Expr, present: &[bool], sink: Sink<'_>) -> Evaluated<()> {
        if present.iter().all(|present| *present) {
            return Ok(());
        }
        let values = present.iter().map(|present| if *present { ABSENT } else { 1.0 }).collect();
        sink(Row::new(labels_of_absent(inner), values))
    }
}

/// Labels that an absent series would have: those its selector fixes to one value.
fn labels_of_absent(expr: &Expr) -> Labels {
    let matchers: &[Matcher] = match expr.unwrap_parens() {
        Expr::Vector(node) => &node.matchers,
        Expr::Matrix(node) => &node.vector.matchers,
        _ => &[],
    };
    let mut builder = LabelsBuilder::default();
    let mut seen: Vec<&str> = Vec::new();
    for matcher in matchers.iter().filter(|matcher| matcher.name != METRIC_NAME) {
        if matcher.op == MatchOp::Equal && !seen.contains(&matcher.name.as_str()) {
            builder.set(&matcher.name, &matcher.value);
            seen.push(&matcher.name);
        } else {
            builder.set(&matcher.name, "");
        }
    }
    builder.build()
}

/// Functions of one float.
fn float_function(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "sqrt" => f64::sqrt,
        "ln" => f64::ln,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "asinh" => f64::asinh,
        "acosh" => f64::acosh,
        "atanh" => f64::atanh,
        "rad" => |value| value * std::f64::consts::PI / 180.0,
        "deg" => |value| value * 180.0 / std::f64::consts::PI,
        "sgn" => |value| match value {
            value if value < 0.0 => -1.0,
            value if value > 0.0 => 1.0,
            value => value,
        },
        _ => return None,
    })
}

/// Functions of one histogram.
fn histogram_reader(name: &str) -> Option<fn(&FloatHistogram) -> f64> {
    Some(match name {
        "histogram_count" => |histogram| histogram.count,
        "histogram_sum" => |histogram| histogram.sum,
        "histogram_avg" => |histogram| histogram.sum / histogram.count,
        "histogram_stddev" => |histogram| super::quantile::histogram_variance(histogram).sqrt(),
        "histogram_stdvar" => super::quantile::histogram_variance,
        _ => return None,
    })
}

fn read_histograms(row: &mut Row, read: fn(&FloatHistogram) -> f64) -> Evaluated<()> {
    let cells = row.histograms.take();
    for (step, value) in row.values.iter_mut().enumerate() {
        *value = cells.as_ref().and_then(|cells| cells[step].as_ref()).map_or(ABSENT, |histogram| read(histogram));
    }
    Ok(())
}

fn map_floats(row: &mut Row, mut apply: impl FnMut(usize, f64) -> f64) -> Evaluated<()> {
    row.drop_histograms();
    for (step, value) in row.values.iter_mut().enumerate() {
        if !is_absent(*value) {
            *value = apply(step, *value);
        }
    }
    Ok(())
}

/// Go's `math.Min`: NaN wins.
fn min_nan(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

/// Go's `math.Max`: NaN wins.
fn max_nan(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}
