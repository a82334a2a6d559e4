//! Dispatch: which part of the evaluator produces the rows or the scalars of a node.

use super::prepare::is_step_invariant;
use super::row::Row;
use super::selector::Reading;
use super::{Evaluated, Evaluator, Grid, execution};
use crate::ast::{AggregateOp, Call, Expr, ValueType};
use windrose_proto::metric::labels::METRIC_NAME;
use windrose_proto::metric::matcher::MatchOp;

/// Where rows go.
pub(super) type Sink<'s> = &'s mut dyn FnMut(Row) -> Evaluated<()>;

impl Evaluator<'_> {
    /// All rows of a vector expression.
    pub(super) fn vector(&self, expr: &Expr, grid: &Grid) -> Evaluated<Vec<Row>> {
        let mut rows = Vec::new();
        self.stream(expr, grid, &mut |row| {
            self.hold(row.weight())?;
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }

    /// Hands the rows of a vector expression to the sink, one at a time.
    pub(super) fn stream(&self, expr: &Expr, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        self.interrupted()?;
        if grid.count == 0 {
            return Ok(());
        }
        if grid.count > 1 && is_step_invariant(expr) {
            return self.stream_steps(expr, &grid.first_only(), &mut |row| sink(row.repeat(grid.count)));
        }
        self.stream_steps(expr, grid, sink)
    }

    fn stream_steps(&self, expr: &Expr, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        match expr {
            Expr::Paren(node) => self.stream(&node.expr, grid, sink),
            Expr::Vector(node) => self.stream_selector(node, grid, Reading::Value, sink),
            Expr::Unary(node) if !node.negate => self.stream(&node.expr, grid, sink),
            Expr::Unary(node) => self.stream_negated(&node.expr, grid, sink),
            Expr::Aggregate(node) => self.stream_aggregate(node, grid, sink),
            Expr::Binary(node) => self.stream_binary(node, expr.span(), grid, sink),
            Expr::Call(node) => self.stream_call(node, grid, sink),
            Expr::Number(_) | Expr::String(_) | Expr::Matrix(_) | Expr::Subquery(_) => {
                execution(format!("unexpected {} where an instant vector is needed", expr.value_type().documented()))
            }
        }
    }

    fn stream_call(&self, call: &Call, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        let before = self.only_statistics.get();
        self.only_statistics.set(match call.function.name {
            "histogram_count" | "histogram_sum" | "histogram_avg" => true,
            "histogram_quantile"
            | "histogram_quantiles"
            | "histogram_fraction"
            | "histogram_stddev"
            | "histogram_stdvar" => false,
            _ => before,
        });
        let result = self.stream_function(call, grid, sink);
        self.only_statistics.set(before);
        result
    }

    fn stream_function(&self, call: &Call, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        if call.args.iter().any(|arg| arg.value_type() == ValueType::Matrix) {
            return self.stream_range_function(call, grid, sink);
        }
        match call.function.name {
            "vector" => {
                let values = self.scalar(&call.args[0], grid)?;
                sink(Row::new(windrose_proto::metric::labels::Labels::default(), values))
            }
            "timestamp" | "start_timestamp" => self.stream_timestamp(call, grid, sink),
            "absent" => self.stream_absent(&call.args[0], grid, sink),
            "label_replace" => self.stream_label_replace(call, grid, sink),
            "label_join" => self.stream_label_join(call, grid, sink),
            "info" => self.stream_info(call, grid, sink),
            "sort" | "sort_desc" => self.stream_sorted(call, grid, sink),
            "sort_by_label" | "sort_by_label_desc" => self.stream_sorted_by_label(call, grid, sink),
            "histogram_quantile" | "histogram_quantiles" | "histogram_fraction" => {
                self.stream_histogram_function(call, grid, sink)
            }
            _ => self.stream_simple_function(call, grid, sink),
        }
    }

    /// One float per step.
    pub(super) fn scalar(&self, expr: &Expr, grid: &Grid) -> Evaluated<Vec<f64>> {
        self.interrupted()?;
        if let Expr::Number(number) = expr {
            return Ok(vec![number.value; grid.count]);
        }
        if grid.count > 1 && is_step_invariant(expr) {
            let value = self.scalar_steps(expr, &grid.first_only())?;
            return Ok(vec![value.first().copied().unwrap_or(f64::NAN); grid.count]);
        }
        self.hold(grid.count)?;
        self.scalar_steps(expr, grid)
    }

    fn scalar_steps(&self, expr: &Expr, grid: &Grid) -> Evaluated<Vec<f64>> {
        match expr {
            Expr::Number(number) => Ok(vec![number.value; grid.count]),
            Expr::Paren(node) => self.scalar(&node.expr, grid),
            Expr::Unary(node) => {
                let mut values = self.scalar(&node.expr, grid)?;
                if node.negate {
                    values.iter_mut().for_each(|value| *value = -*value);
                }
                Ok(values)
            }
            Expr::Binary(node) => {
                let mut lhs = self.scalar(&node.lhs, grid)?;
                let rhs = self.scalar(&node.rhs, grid)?;
                for (left, right) in lhs.iter_mut().zip(rhs) {
                    *left = super::element::scalar_operator(node.op, *left, right);
                }
                Ok(lhs)
            }
            Expr::Call(node) => self.scalar_call(node, grid),
            _ => execution(format!("unexpected {} where a scalar is needed", expr.value_type().documented())),
        }
    }

    fn scalar_call(&self, call: &Call, grid: &Grid) -> Evaluated<Vec<f64>> {
        let constant = |value: f64| Ok(vec![value; grid.count]);
        let seconds = |millis: i64| millis as f64 / 1000.0;
        match call.function.name {
            "time" => Ok((0..grid.count).map(|step| seconds(grid.time(step))).collect()),
            "pi" => constant(std::f64::consts::PI),
            "start" => constant(seconds(self.query.start)),
            "end" => constant(seconds(self.query.end)),
            "step" => constant(seconds(self.query.step)),
            "range" => constant(seconds(self.query.end - self.query.start)),
            "min_of" | "max_of" => {
                let mut first = self.scalar(&call.args[0], grid)?;
                let second = self.scalar(&call.args[1], grid)?;
                let pick = |a: f64, b: f64| match () {
                    () if a.is_nan() || b.is_nan() => f64::NAN,
                    () if call.function.name == "min_of" => a.min(b),
                    () => a.max(b),
                };
                first.iter_mut().zip(second).for_each(|(a, b)| *a = pick(*a, b));
                Ok(first)
            }
            "scalar" => self.scalar_of_vector(&call.args[0], grid),
            name => execution(format!("function {name} does not return a scalar")),
        }
    }

    /// The single float of a vector at each step, NaN when there is none or more than one.
    fn scalar_of_vector(&self, expr: &Expr, grid: &Grid) -> Evaluated<Vec<f64>> {
        let mut found = vec![0_u8; grid.count];
        let mut values = vec![f64::NAN; grid.count];
        self.stream(expr, grid, &mut |row| {
            for step in 0..grid.count {
                if row.histogram(step).is_some() || crate::value::is_absent(row.values[step]) {
                    continue;
                }
                found[step] = found[step].saturating_add(1);
                values[step] = if found[step] == 1 { row.values[step] } else { f64::NAN };
            }
            self.recycle(row);
            Ok(())
        })?;
        Ok(values)
    }

    /// Streams rows whose name goes, applying the removal now or later as configured.
    ///
    /// `change` alters each row; rows left without a sample are dropped. When names are dropped at once, rows that
    /// collide are joined, or an error if they overlap; that is only possible when names may differ.
    pub(super) fn stream_renamed(
        &self,
        inner: &Expr,
        grid: &Grid,
        change: &mut dyn FnMut(&mut Row) -> Evaluated<()>,
        sink: Sink<'_>,
    ) -> Evaluated<()> {
        let now = self.drops_names_now();
        let mut rows = Vec::new();
        let collect = now && !names_are_equal(inner);
        self.stream(inner, grid, &mut |mut row| {
            change(&mut row)?;
            row.drop_name = true;
            if now {
                row.settle_name();
            }
            if row.is_empty() {
                self.recycle(row);
                return Ok(());
            }
            if collect {
                self.hold(row.weight())?;
                rows.push(row);
                return Ok(());
            }
            sink(row)
        })?;
        self.merge_same_labels(rows)?.into_iter().try_for_each(sink)
    }
}

/// Whether all rows of an expression have the same metric name, so that dropping it cannot make two rows equal.
pub(super) fn names_are_equal(expr: &Expr) -> bool {
    match expr {
        Expr::Vector(node) => selects_one_name(&node.matchers),
        Expr::Matrix(node) => selects_one_name(&node.vector.matchers),
        Expr::Subquery(node) => names_are_equal(&node.expr),
        Expr::Paren(node) => names_are_equal(&node.expr),
        Expr::Unary(node) => names_are_equal(&node.expr),
        Expr::Aggregate(node) => match node.op {
            AggregateOp::TopK | AggregateOp::BottomK | AggregateOp::LimitK | AggregateOp::LimitRatio => {
                names_are_equal(&node.expr)
            }
            AggregateOp::CountValues => false,
            // Such groups have no name at all unless it is asked for.
            _ => node.without || !node.grouping.iter().any(|label| label == METRIC_NAME),
        },
        Expr::Binary(node) => {
            let included = node.matching.as_ref().is_some_and(|matching| !matching.include.is_empty());
            node.op.changes_meaning() && !included
        }
        Expr::Call(node) => match node.function.name {
            "label_replace" | "label_join" | "info" => false,
            _ => node
                .args
                .iter()
                .filter(|arg| matches!(arg.value_type(), ValueType::Vector | ValueType::Matrix))
                .all(names_are_equal),
        },
        _ => false,
    }
}

fn selects_one_name(matchers: &[windrose_proto::metric::matcher::Matcher]) -> bool {
    matchers.iter().any(|matcher| matcher.op == MatchOp::Equal && matcher.name == METRIC_NAME)
}
