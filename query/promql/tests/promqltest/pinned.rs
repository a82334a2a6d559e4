//! Pins an expression to a time with `@`, as one would by hand.

use windrose_promql::ast::{At, Expr};

/// Functions whose value depends on the time of the evaluation whatever their argument is pinned to.
const UNSAFE: [&str; 15] = [
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "hour",
    "minute",
    "month",
    "year",
    "predict_linear",
    "time",
    "timestamp",
    "start",
    "end",
    "range",
    "step",
];

/// A copy with every selector and outermost subquery pinned; `None` when that would change the meaning.
pub(crate) fn pin(expr: &Expr, time: i64) -> Option<Expr> {
    let mut copy = expr.clone();
    visit(&mut copy, time, false).then_some(copy)
}

fn visit(expr: &mut Expr, time: i64, inside_subquery: bool) -> bool {
    let pin = |at: &mut Option<At>| {
        if !inside_subquery && at.is_none() {
            *at = Some(At::Timestamp(time));
        }
    };
    match expr {
        Expr::Number(_) | Expr::String(_) => true,
        Expr::Vector(node) => {
            pin(&mut node.at);
            true
        }
        Expr::Matrix(node) => {
            pin(&mut node.vector.at);
            true
        }
        Expr::Subquery(node) => {
            pin(&mut node.at);
            visit(&mut node.expr, time, true)
        }
        Expr::Call(node) => {
            !UNSAFE.contains(&node.function.name) && node.args.iter_mut().all(|arg| visit(arg, time, inside_subquery))
        }
        Expr::Aggregate(node) => {
            node.param.as_mut().is_none_or(|param| visit(param, time, inside_subquery))
                && visit(&mut node.expr, time, inside_subquery)
        }
        Expr::Binary(node) => {
            visit(&mut node.lhs, time, inside_subquery) && visit(&mut node.rhs, time, inside_subquery)
        }
        Expr::Unary(node) => visit(&mut node.expr, time, inside_subquery),
        Expr::Paren(node) => visit(&mut node.expr, time, inside_subquery),
    }
}
