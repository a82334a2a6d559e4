//! What a query will ask of the store, known before it runs: a store that must fetch can do so ahead of an evaluation
//! that never waits.

use super::prepare::prepare;
use super::selector::{Reference, instant_request, range_request};
use super::window::subquery_grid;
use super::{Engine, EvalError, Evaluated, Grid, QueryKind, QueryOptions};
use crate::ast::{Call, Expr, VectorSelector};
use crate::storage::Select;
use windrose_proto::metric::labels::METRIC_NAME;
use windrose_proto::metric::matcher::Matcher;

/// One selection to come.
#[derive(Clone, Debug)]
pub struct PlannedSelect {
    /// All must match. The evaluation asks for exactly these; `info` adds matchers that depend on data.
    pub matchers: Vec<Matcher>,
    /// First millisecond, inclusive.
    pub min_time: i64,
    /// Last millisecond, inclusive.
    pub max_time: i64,
    /// The function the samples go to, empty when none.
    pub function: String,
    /// The window of a range selector in milliseconds, 0 for an instant selector.
    pub range: i64,
    /// The step in milliseconds.
    pub step: i64,
}

impl Engine {
    /// The selections that [`Engine::evaluate`] will make.
    pub fn plan(
        &self,
        expr: &Expr,
        kind: QueryKind,
        options: &QueryOptions<'_>,
    ) -> Result<Vec<PlannedSelect>, EvalError> {
        let (grid, query_end, query_step) = self.times(expr, kind)?;
        let expr = prepare(expr, grid.start, query_end, query_step)?;
        let mut planner = Planner { engine: self, lookback: self.lookback(options), selects: Vec::new() };
        planner.visit(&expr, &grid, "")?;
        Ok(planner.selects)
    }
}

struct Planner<'e> {
    engine: &'e Engine,
    lookback: i64,
    selects: Vec<PlannedSelect>,
}

impl Planner<'_> {
    fn visit(&mut self, expr: &Expr, grid: &Grid, function: &str) -> Evaluated<()> {
        if grid.count == 0 {
            return Ok(());
        }
        match expr {
            Expr::Number(_) | Expr::String(_) => Ok(()),
            Expr::Vector(node) => {
                self.instant(node, grid, function);
                Ok(())
            }
            Expr::Matrix(node) => {
                let reference = Reference::new(grid, node.vector.at, &node.vector.offset);
                self.push(&range_request(node, &reference, function, self.lookback, grid.step));
                Ok(())
            }
            Expr::Subquery(node) => {
                let reference = Reference::new(grid, node.at, &node.offset);
                match subquery_grid(&reference, node, self.engine)? {
                    Some(inner) => self.visit(&node.expr, &inner, ""),
                    None => Ok(()),
                }
            }
            Expr::Call(node) if node.function.name == "info" => self.info(node, grid),
            Expr::Call(node) => node.args.iter().try_for_each(|arg| self.visit(arg, grid, node.function.name)),
            Expr::Aggregate(node) => {
                if let Some(param) = &node.param {
                    self.visit(param, grid, "")?;
                }
                self.visit(&node.expr, grid, "")
            }
            Expr::Binary(node) => {
                self.visit(&node.lhs, grid, "")?;
                self.visit(&node.rhs, grid, "")
            }
            Expr::Unary(node) => self.visit(&node.expr, grid, ""),
            Expr::Paren(node) => self.visit(&node.expr, grid, function),
        }
    }

    fn instant(&mut self, node: &VectorSelector, grid: &Grid, function: &str) {
        let reference = Reference::new(grid, node.at, &node.offset);
        let function = if function == "timestamp" { function } else { "" };
        self.push(&instant_request(node, &reference, function, self.lookback, grid.step));
    }

    /// The series, and the info series that may describe them.
    fn info(&mut self, node: &Call, grid: &Grid) -> Evaluated<()> {
        self.visit(&node.args[0], grid, "")?;
        self.instant(&super::info::info_selector(node)?, grid, "timestamp");
        Ok(())
    }

    fn push(&mut self, request: &Select<'_>) {
        self.selects.push(PlannedSelect {
            matchers: request.matchers.to_vec(),
            min_time: request.min_time,
            max_time: request.max_time,
            function: request.function.to_owned(),
            range: request.range,
            step: request.step,
        });
    }
}

impl PlannedSelect {
    /// The metric name when the selection is of one metric.
    pub fn metric_name(&self) -> Option<&str> {
        let equal = |matcher: &&Matcher| {
            matcher.op == windrose_proto::metric::matcher::MatchOp::Equal && matcher.name == METRIC_NAME
        };
        self.matchers.iter().find(equal).map(|matcher| matcher.value.as_str())
    }
}
