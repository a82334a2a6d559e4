//! Functions that order an instant vector. Range results are always ordered by labels, so there they only warn.

use std::cmp::Ordering;

use super::row::Row;
use super::stream::Sink;
use super::{Evaluated, Evaluator, Grid};
use crate::ast::{Call, Expr};
use crate::value::is_absent;

impl Evaluator<'_> {
    pub(super) fn stream_sorted(&self, call: &Call, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        let mut rows = self.vector(&call.args[0], grid)?;
        rows.iter_mut().for_each(Row::drop_histograms);
        rows.retain(|row| !row.is_empty());
        if self.warns_instead_of_sorting(call) {
            return rows.into_iter().try_for_each(sink);
        }
        let descending = call.function.name == "sort_desc";
        rows.retain(|row| !is_absent(row.values[0]));
        rows.sort_by(|a, b| order_values(a.values[0], b.values[0], descending));
        rows.into_iter().try_for_each(sink)
    }

    pub(super) fn stream_sorted_by_label(&self, call: &Call, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        let mut rows = self.vector(&call.args[0], grid)?;
        if self.warns_instead_of_sorting(call) {
            return rows.into_iter().try_for_each(sink);
        }
        let names: Vec<&str> = call.args[1..].iter().filter_map(text_of).collect();
        let descending = call.function.name == "sort_by_label_desc";
        rows.sort_by(|a, b| {
            let by_labels = names
                .iter()
                .map(|name| natural_order(a.labels.get(name), b.labels.get(name)))
                .find(|order| *order != Ordering::Equal);
            let order = by_labels.unwrap_or_else(|| a.labels.compare(&b.labels));
            if descending { order.reverse() } else { order }
        });
        rows.into_iter().try_for_each(sink)
    }

    fn warns_instead_of_sorting(&self, call: &Call) -> bool {
        if self.is_range {
            self.annotate(|a| a.ineffective_sort(call.span));
        }
        self.is_range
    }
}

fn text_of(expr: &Expr) -> Option<&str> {
    match expr.unwrap_parens() {
        Expr::String(literal) => Some(&literal.value),
        _ => None,
    }
}

/// By value, NaN last in either direction.
pub(super) fn order_values(a: f64, b: f64, descending: bool) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => {
            let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
            if descending { order.reverse() } else { order }
        }
    }
}

/// Runs of digits compare as numbers, everything else as text.
fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        match (left.is_empty(), right.is_empty()) {
            (true, true) => return Ordering::Equal,
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (false, false) => {}
        }
        let (left_chunk, left_rest) = split_chunk(left);
        let (right_chunk, right_rest) = split_chunk(right);
        let order = match (left_chunk.parse::<i64>(), right_chunk.parse::<i64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            _ => left_chunk.cmp(right_chunk),
        };
        if order != Ordering::Equal {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
}

/// The leading run of digits or of non-digits.
fn split_chunk(text: &str) -> (&str, &str) {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_compare_as_numbers() {
        assert_eq!(natural_order("4m5", "4m600"), Ordering::Less);
        assert_eq!(natural_order("1.2.3", "1.11.3"), Ordering::Less);
        assert_eq!(natural_order("a", "a1"), Ordering::Less);
        assert_eq!(natural_order("b", "a10"), Ordering::Greater);
    }
}
