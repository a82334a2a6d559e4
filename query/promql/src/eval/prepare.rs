//! Settles everything that depends on the query but not on data: duration expressions, `@ start()` and `@ end()`;
//! and tells which parts have the same value at every step.

use super::{EvalError, Evaluated, MAX_TIME, execution};
use crate::ast::{At, BinaryOp, Duration, DurationExpr, Expr, VectorSelector};
use crate::duration::from_seconds;

/// A copy of the tree in which every duration is in milliseconds and every `@` a timestamp.
pub(super) fn prepare(expr: &Expr, start: i64, end: i64, step: i64) -> Evaluated<Expr> {
    let mut expr = expr.clone();
    Preparation { start, end, step }.visit(&mut expr)?;
    Ok(expr)
}

struct Preparation {
    start: i64,
    end: i64,
    step: i64,
}

impl Preparation {
    fn visit(&self, expr: &mut Expr) -> Evaluated<()> {
        match expr {
            Expr::Number(_) | Expr::String(_) => Ok(()),
            Expr::Vector(node) => self.selector(node),
            Expr::Matrix(node) => {
                self.positive(&mut node.range)?;
                self.selector(&mut node.vector)
            }
            Expr::Subquery(node) => {
                self.positive(&mut node.range)?;
                if node.step.is_set() {
                    self.positive(&mut node.step)?;
                }
                self.settle(&mut node.offset)?;
                self.pin(&mut node.at);
                self.visit(&mut node.expr)
            }
            Expr::Call(node) => node.args.iter_mut().try_for_each(|arg| self.visit(arg)),
            Expr::Aggregate(node) => {
                if let Some(param) = &mut node.param {
                    self.visit(param)?;
                }
                self.visit(&mut node.expr)
            }
            Expr::Binary(node) => {
                self.visit(&mut node.lhs)?;
                self.visit(&mut node.rhs)
            }
            Expr::Unary(node) => self.visit(&mut node.expr),
            Expr::Paren(node) => self.visit(&mut node.expr),
        }
    }

    fn selector(&self, node: &mut VectorSelector) -> Evaluated<()> {
        self.pin(&mut node.at);
        self.settle(&mut node.offset)
    }

    fn pin(&self, at: &mut Option<At>) {
        *at = match *at {
            Some(At::Start) => Some(At::Timestamp(self.start)),
            Some(At::End) => Some(At::Timestamp(self.end)),
            Some(At::Timestamp(time)) => Some(At::Timestamp(time.clamp(-MAX_TIME, MAX_TIME))),
            None => None,
        };
    }

    fn settle(&self, duration: &mut Duration) -> Evaluated<()> {
        if let Duration::Expr(expr) = duration {
            let seconds = self.seconds(expr)?;
            let millis =
                from_seconds(seconds).ok_or_else(|| EvalError::Execution("duration is out of range".to_owned()))?;
            *duration = Duration::Millis(millis);
        }
        Ok(())
    }

    fn positive(&self, duration: &mut Duration) -> Evaluated<()> {
        self.settle(duration)?;
        if duration.millis() <= 0 {
            return execution("duration must be greater than 0");
        }
        Ok(())
    }

    fn seconds(&self, expr: &DurationExpr) -> Evaluated<f64> {
        Ok(match expr {
            DurationExpr::Number(number) => number.value,
            DurationExpr::Step => self.step as f64 / 1000.0,
            DurationExpr::Range => (self.end - self.start) as f64 / 1000.0,
            DurationExpr::Negate(inner) => -self.seconds(inner)?,
            DurationExpr::Paren(inner) => self.seconds(inner)?,
            DurationExpr::Min(a, b) => self.seconds(a)?.min(self.seconds(b)?),
            DurationExpr::Max(a, b) => self.seconds(a)?.max(self.seconds(b)?),
            DurationExpr::Binary(op, lhs, rhs) => {
                let (lhs, rhs) = (self.seconds(lhs)?, self.seconds(rhs)?);
                match op {
                    BinaryOp::Div if rhs == 0.0 => return execution("division by zero"),
                    BinaryOp::Mod if rhs == 0.0 => return execution("modulo by zero"),
                    op => super::element::float_arithmetic(*op, lhs, rhs),
                }
            }
        })
    }
}

/// Functions whose value changes from step to step whatever their arguments.
const STEP_DEPENDENT: [&str; 12] = [
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "hour",
    "minute",
    "month",
    "predict_linear",
    "start_timestamp",
    "time",
    "timestamp",
    "year",
];

/// Whether the expression has the same value at every step.
pub(super) fn is_step_invariant(expr: &Expr) -> bool {
    match expr {
        Expr::Number(_) | Expr::String(_) => true,
        Expr::Vector(node) => node.at.is_some(),
        Expr::Matrix(node) => node.vector.at.is_some(),
        Expr::Subquery(node) => node.at.is_some(),
        Expr::Call(node) => !STEP_DEPENDENT.contains(&node.function.name) && node.args.iter().all(is_step_invariant),
        Expr::Aggregate(node) => is_step_invariant(&node.expr) && node.param.as_ref().is_none_or(is_step_invariant),
        Expr::Binary(node) => is_step_invariant(&node.lhs) && is_step_invariant(&node.rhs),
        Expr::Unary(node) => is_step_invariant(&node.expr),
        Expr::Paren(node) => is_step_invariant(&node.expr),
    }
}
