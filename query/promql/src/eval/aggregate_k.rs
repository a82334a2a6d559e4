//! Aggregations that pick series (`topk`, `bottomk`, `limitk`, `limit_ratio`) and `count_values`, whose groups come
//! from the values.

use hashbrown::HashMap;

use super::aggregate::group_labels;
use super::row::Row;
use super::sorting::order_values;
use super::stream::Sink;
use super::{Evaluated, Evaluator, Grid, execution};
use crate::ast::{Aggregate, AggregateOp};
use crate::number::{format_fixed, format_general};
use crate::value::{ABSENT, is_absent};
use windrose_proto::metric::labels::Labels;

impl Evaluator<'_> {
    pub(super) fn stream_selection(&self, node: &Aggregate, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        let Some(param) = &node.param else { return execution("aggregation parameter is missing") };
        let params = self.scalar(param, grid)?;
        let is_ratio = node.op == AggregateOp::LimitRatio;
        if is_ratio {
            self.check_ratios(&params, param.span())?;
        } else {
            check_counts(&params)?;
        }
        let mut rows = self.vector(&node.expr, grid)?;
        let mut index: HashMap<Labels, usize> = HashMap::new();
        let mut members: Vec<Vec<usize>> = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            let labels = group_labels(&row.labels, &node.grouping, node.without);
            let group = *index.entry(labels).or_insert_with(|| {
                members.push(Vec::new());
                members.len() - 1
            });
            members[group].push(at);
        }
        // For one step the order of the picks is the order of the result; for several only the picks matter.
        let mut kept: Vec<Vec<bool>> =
            if grid.count > 1 { vec![vec![false; grid.count]; rows.len()] } else { Vec::new() };
        let mut ranked: Vec<usize> = Vec::new();
        for step in 0..grid.count {
            for group in &members {
                let picks = if is_ratio {
                    pick_ratio(&rows, group, step, params[step])
                } else {
                    self.pick_count(&rows, group, step, params[step], node)
                };
                if grid.count == 1 {
                    ranked.extend(picks);
                } else {
                    picks.into_iter().for_each(|row| kept[row][step] = true);
                }
            }
        }
        if grid.count == 1 {
            for at in ranked {
                sink(rows[at].clone())?;
            }
            return Ok(());
        }
        for (row, kept) in rows.iter_mut().zip(&kept) {
            for (step, kept) in kept.iter().enumerate() {
                if !kept {
                    row.set(step, None);
                }
            }
        }
        rows.into_iter().filter(|row| !row.is_empty()).try_for_each(sink)
    }

    fn check_ratios(&self, ratios: &[f64], span: crate::ast::Span) -> Evaluated<()> {
        if ratios.iter().any(|ratio| ratio.is_nan()) {
            return execution("Ratio value is NaN");
        }
        let max = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let min = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        if max > 1.0 {
            self.annotate(|a| a.invalid_ratio(span, max, 1.0));
        }
        if min < -1.0 {
            self.annotate(|a| a.invalid_ratio(span, min, -1.0));
        }
        Ok(())
    }

    /// The rows of a group that are picked at a step, best first.
    fn pick_count(&self, rows: &[Row], group: &[usize], step: usize, count: f64, node: &Aggregate) -> Vec<usize> {
        // Checked to be in the range of i64; fewer than one picks nothing.
        let count = usize::try_from(count as i64).unwrap_or(0);
        if count == 0 {
            return Vec::new();
        }
        let present = group.iter().copied().filter(|row| rows[*row].has_sample(step));
        if node.op == AggregateOp::LimitK {
            return present.take(count).collect();
        }
        let mut picks: Vec<usize> = Vec::new();
        for row in present {
            if is_absent(rows[row].values[step]) {
                self.annotate(|a| a.histogram_ignored_in_aggregation(node.span, node.op.as_str()));
            } else {
                picks.push(row);
            }
        }
        let descending = node.op == AggregateOp::TopK;
        picks.sort_by(|a, b| order_values(rows[*a].values[step], rows[*b].values[step], descending));
        picks.truncate(count);
        picks
    }

    /// One series per group and distinct value, counting the series that have it.
    pub(super) fn stream_count_values(&self, node: &Aggregate, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        let Some(param) = &node.param else { return execution("aggregation parameter is missing") };
        let label = super::label_functions::literal(param)?;
        if !self.accepts_label_name(label) {
            return execution(format!("invalid label name {}", label.quoted()));
        }
        let mut grouping = node.grouping.clone();
        if !node.without {
            grouping.push(label.value.clone());
        }
        let mut index: HashMap<Labels, usize> = HashMap::new();
        let mut out: Vec<Row> = Vec::new();
        self.stream(&node.expr, grid, &mut |row| {
            // Neighbouring steps often have the same value; its group is looked up once.
            let mut last: Option<(u64, usize)> = None;
            for step in 0..grid.count {
                if !row.has_sample(step) {
                    continue;
                }
                let bits = row.values[step].to_bits();
                let group = match (last, row.histogram(step)) {
                    (Some((last_bits, group)), None) if last_bits == bits => group,
                    (_, histogram) => {
                        let text = histogram.map_or_else(|| format_fixed(row.values[step]), ToString::to_string);
                        let mut builder = row.labels.builder();
                        builder.set(&label.value, &text);
                        let labels = group_labels(&builder.build(), &grouping, node.without);
                        match index.get(&labels) {
                            Some(group) => *group,
                            None => {
                                self.hold(grid.count)?;
                                out.push(Row::new(labels.clone(), vec![ABSENT; grid.count]));
                                index.insert(labels, out.len() - 1);
                                out.len() - 1
                            }
                        }
                    }
                };
                last = row.histogram(step).is_none().then_some((bits, group));
                let count = &mut out[group].values[step];
                *count = if is_absent(*count) { 1.0 } else { *count + 1.0 };
            }
            self.recycle(row);
            Ok(())
        })?;
        out.into_iter().try_for_each(sink)
    }
}

fn check_counts(counts: &[f64]) -> Evaluated<()> {
    // The float next to i64::MAX is one past it.
    const LIMIT: f64 = i64::MAX as f64;
    if counts.iter().any(|count| count.is_nan()) {
        return execution("Parameter value is NaN");
    }
    if let Some(large) = counts.iter().find(|count| **count >= LIMIT) {
        return execution(format!("Scalar value {} overflows int64", format_general(*large)));
    }
    if let Some(small) = counts.iter().find(|count| **count < -LIMIT) {
        return execution(format!("Scalar value {} underflows int64", format_general(*small)));
    }
    Ok(())
}

/// Rows whose place in [0, 1), fixed by their labels, lies below the ratio; for a negative one above 1 + ratio.
fn pick_ratio(rows: &[Row], group: &[usize], step: usize, ratio: f64) -> Vec<usize> {
    let ratio = ratio.clamp(-1.0, 1.0);
    let picked = |row: &usize| {
        let place = place_of(&rows[*row].labels);
        (ratio > 0.0 && place < ratio) || (ratio < 0.0 && place >= 1.0 + ratio)
    };
    group.iter().copied().filter(|row| rows[*row].has_sample(step)).filter(picked).collect()
}

/// A hash of the labels as a fraction; the same on every run and machine. It is not the hash of Prometheus, so that the
/// two sample other series.
fn place_of(labels: &Labels) -> f64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for label in labels.iter() {
        for byte in label.name.bytes().chain([0xff]).chain(label.value.bytes()).chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    // FNV leaves the high bits of short inputs poorly mixed; this finaliser spreads them.
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^= hash >> 33;
    // 53 bits, so that the result is below one.
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}
