//! `label_replace` and `label_join`: they change labels and never look at samples.

use super::stream::Sink;
use super::{Evaluated, Evaluator, Grid, execution};
use crate::ast::{Call, Expr, StringLiteral};
use windrose_proto::metric::labels::METRIC_NAME;
use windrose_proto::metric::matcher::compile_anchored;

impl Evaluator<'_> {
    pub(super) fn stream_label_replace(&self, call: &Call, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        let [target, replacement, source, pattern] = literals(call)?;
        let Ok(regex) = compile_anchored(&pattern.value) else {
            return execution(format!("invalid regular expression in label_replace(): {}", pattern.value));
        };
        self.check_label_name(target, "destination", "label_replace")?;
        let mut rows = Vec::new();
        self.stream(&call.args[0], grid, &mut |mut row| {
            if let Some(captures) = regex.captures(row.labels.get(&source.value)) {
                let mut value = String::new();
                captures.expand(&replacement.value, &mut value);
                let mut builder = row.labels.builder();
                builder.set(&target.value, &value);
                drop(captures);
                row.labels = builder.build();
                if target.value == METRIC_NAME {
                    row.drop_name = false;
                }
            }
            self.hold(row.weight())?;
            rows.push(row);
            Ok(())
        })?;
        self.merge_same_labels(rows)?.into_iter().try_for_each(sink)
    }

    pub(super) fn stream_label_join(&self, call: &Call, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        let [target, separator] = literals(call)?;
        let sources: Vec<&StringLiteral> = call.args[3..].iter().map(literal).collect::<Evaluated<_>>()?;
        for source in &sources {
            self.check_label_name(source, "source", "label_join")?;
        }
        self.check_label_name(target, "destination", "label_join")?;
        let mut rows = Vec::new();
        self.stream(&call.args[0], grid, &mut |mut row| {
            let values: Vec<&str> = sources.iter().map(|source| row.labels.get(&source.value)).collect();
            let joined = values.join(&separator.value);
            let mut builder = row.labels.builder();
            builder.set(&target.value, &joined);
            row.labels = builder.build();
            if target.value == METRIC_NAME {
                row.drop_name = false;
            }
            self.hold(row.weight())?;
            rows.push(row);
            Ok(())
        })?;
        self.merge_same_labels(rows)?.into_iter().try_for_each(sink)
    }
}

impl Evaluator<'_> {
    fn check_label_name(&self, literal: &StringLiteral, role: &str, function: &str) -> Evaluated<()> {
        if self.accepts_label_name(literal) {
            return Ok(());
        }
        execution(format!("invalid {role} label name in {function}(): {}", literal.value))
    }
}

/// The string arguments after the vector.
fn literals<const N: usize>(call: &Call) -> Evaluated<[&StringLiteral; N]> {
    let found: Vec<&StringLiteral> = call.args[1..=N].iter().map(literal).collect::<Evaluated<_>>()?;
    found.try_into().or_else(|_| execution(format!("function {} needs more arguments", call.function.name)))
}

pub(super) fn literal(expr: &Expr) -> Evaluated<&StringLiteral> {
    match expr.unwrap_parens() {
        Expr::String(literal) => Ok(literal),
        _ => execution("expected a string literal"),
    }
}
