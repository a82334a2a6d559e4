//! The evaluator: one series at a time through the tree, all steps of it at once.
//!
//! A vector expression is a stream of `row::Row`s, each holding one value per step of the `Grid`. Selectors
//! produce rows, functions and scalar operators change them in place, aggregations swallow them into one accumulator
//! per group; only vector-to-vector operators and the sorting functions hold a whole operand. Memory is therefore
//! (groups x steps) plus one series, not (series x steps).
//!
//! ```text
//! selector --> window kernel --> element-wise --> aggregation     each arrow hands over one Row
//! ```

mod aggregate;
mod aggregate_k;
mod binary;
pub(crate) mod civil;
mod dates;
mod element;
mod info;
mod instant;
pub(crate) mod kahan;
mod label_functions;
mod plan;
mod prepare;
mod quantile;
mod range;
mod rate;
mod row;
mod selector;
mod sorting;
mod stream;
mod vector_match;
mod window;

pub use plan::PlannedSelect;

use std::cell::{Cell, RefCell};

use crate::annotations::Annotations;
use crate::ast::{Expr, StringLiteral, ValueType};
use crate::parse::{ParseError, ParseOptions, parse_expr};
use crate::storage::{Storage, StorageError};
use crate::value::{QueryResult, Series};
use row::Row;
use windrose_proto::metric::labels::is_legacy_label_name;

/// What one query may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Samples held in memory at once.
    pub max_samples: usize,
    /// Steps of a range query or of a subquery inside it.
    pub max_steps: usize,
}

impl Default for Limits {
    /// 50 million samples as Prometheus; 11 million steps is far above its 11,000 points but stops a subquery with
    /// a millisecond step over a year.
    fn default() -> Self {
        Self { max_samples: 50_000_000, max_steps: 11_000_000 }
    }
}

/// Why a query was stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// Its time is over.
    Timeout,
    /// Nobody waits for it any more.
    Canceled,
}

/// Settings of the engine.
#[derive(Clone, Copy, Debug)]
pub struct Engine {
    /// How far back an instant selector looks, in milliseconds.
    pub lookback: i64,
    /// Step of subqueries that name none, in milliseconds.
    pub default_subquery_step: i64,
    /// Whether metric names are dropped at the end rather than by each operation.
    pub delayed_name_removal: bool,
    /// Whether functions may only create label names that need no quotes, as before UTF-8 names
    /// (`metric_name_validation_scheme: legacy`).
    pub legacy_label_names: bool,
    /// Whether counters are taken to be reset when a sample says that its count began after the one before.
    pub use_start_timestamps: bool,
    /// What the parser accepts.
    pub parse: ParseOptions,
    /// Bounds.
    pub limits: Limits,
}

impl Default for Engine {
    /// Prometheus without feature flags.
    fn default() -> Self {
        Self {
            lookback: 300_000,
            default_subquery_step: 60_000,
            delayed_name_removal: false,
            legacy_label_names: false,
            use_start_timestamps: false,
            parse: ParseOptions::default(),
            limits: Limits::default(),
        }
    }
}

/// When to evaluate, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryKind {
    /// At one instant.
    Instant(i64),
    /// From start to end, both included, in steps.
    Range {
        /// First evaluation.
        start: i64,
        /// No evaluation after this.
        end: i64,
        /// Distance, more than zero.
        step: i64,
    },
}

impl QueryKind {
    fn within_bounds(self) -> Self {
        let bound = |time: i64| time.clamp(-MAX_TIME, MAX_TIME);
        match self {
            Self::Instant(time) => Self::Instant(bound(time)),
            Self::Range { start, end, step } => {
                Self::Range { start: bound(start), end: bound(end), step: step.min(MAX_TIME) }
            }
        }
    }
}

/// Settings of one query.
#[derive(Default)]
pub struct QueryOptions<'a> {
    /// Overrides the lookback of the engine.
    pub lookback: Option<i64>,
    /// Asked now and then; an answer ends the query.
    pub interrupt: Option<&'a dyn Fn() -> Option<Interrupt>>,
}

impl std::fmt::Debug for QueryOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryOptions")
            .field("lookback", &self.lookback)
            .field("interrupt", &self.interrupt.is_some())
            .finish()
    }
}

/// Why a query has no result. Each kind is one `errorType` of the HTTP API.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// `bad_data`: the text is not a query.
    #[error("invalid parameter \"query\": {0}")]
    Parse(#[from] ParseError),
    /// `bad_data`: a query, but not for this kind of evaluation.
    #[error("{0}")]
    BadData(String),
    /// `execution`: the data or the limits forbid it.
    #[error("{0}")]
    Execution(String),
    /// `timeout`
    #[error("query timed out in expression evaluation")]
    Timeout,
    /// `canceled`
    #[error("query was canceled in expression evaluation")]
    Canceled,
}

impl From<StorageError> for EvalError {
    fn from(error: StorageError) -> Self {
        Self::Execution(format!("expanding series: {}", error.0))
    }
}

pub(crate) type Evaluated<T> = Result<T, EvalError>;

pub(crate) fn execution<T>(message: impl Into<String>) -> Evaluated<T> {
    Err(EvalError::Execution(message.into()))
}

/// Evaluation times are kept within this many milliseconds of 1970, some 285,000 years: no sum of offsets, ranges and
/// steps on top can overflow, and nothing was measured then.
const MAX_TIME: i64 = 1 << 53;

/// The message for two series that became one.
const SAME_LABELSET: &str = "vector cannot contain metrics with the same labelset";

/// A finished query.
#[derive(Debug)]
pub struct Evaluation {
    /// The result.
    pub result: QueryResult,
    /// Warnings and infos.
    pub annotations: Annotations,
    /// Samples read from the store.
    pub samples_read: usize,
}

/// The instants of an evaluation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub(crate) start: i64,
    pub(crate) step: i64,
    pub(crate) count: usize,
}

impl Grid {
    pub(crate) fn time(&self, index: usize) -> i64 {
        // The count was computed from an i64 range, so the product fits.
        self.start + self.step * index as i64
    }

    fn first_only(&self) -> Self {
        Self { count: 1, ..*self }
    }
}

impl Engine {
    /// Parses and evaluates.
    pub fn query(
        &self,
        storage: &dyn Storage,
        query: &str,
        kind: QueryKind,
        options: &QueryOptions<'_>,
    ) -> Result<Evaluation, EvalError> {
        let expr = parse_expr(query, self.parse)?;
        self.evaluate(storage, &expr, kind, options)
    }

    /// Evaluates a parsed query.
    pub fn evaluate(
        &self,
        storage: &dyn Storage,
        expr: &Expr,
        kind: QueryKind,
        options: &QueryOptions<'_>,
    ) -> Result<Evaluation, EvalError> {
        let (grid, query_end, query_step) = self.times(expr, kind)?;
        let is_range = matches!(kind, QueryKind::Range { .. });
        let expr = prepare::prepare(expr, grid.start, query_end, query_step)?;
        let evaluator = Evaluator {
            storage,
            engine: *self,
            lookback: self.lookback(options),
            is_range,
            query: QueryTimes { start: grid.start, end: query_end, step: query_step },
            interrupt: options.interrupt,
            annotations: RefCell::default(),
            samples_held: Cell::new(0),
            samples_read: Cell::new(0),
            pool: RefCell::default(),
            only_statistics: Cell::new(false),
        };
        let result = evaluator.run(&expr, &grid, is_range)?;
        Ok(Evaluation {
            result,
            samples_read: evaluator.samples_read.get(),
            annotations: evaluator.annotations.into_inner(),
        })
    }

    fn lookback(&self, options: &QueryOptions<'_>) -> i64 {
        options.lookback.filter(|lookback| *lookback > 0).unwrap_or(self.lookback)
    }

    /// The instants of a query, its end, and its step as `step()` sees it: zero for an instant query.
    fn times(&self, expr: &Expr, kind: QueryKind) -> Evaluated<(Grid, i64, i64)> {
        let kind = kind.within_bounds();
        let grid = self.grid(kind, expr.value_type())?;
        Ok(match kind {
            QueryKind::Instant(time) => (grid, time, 0),
            QueryKind::Range { end, step, .. } => (grid, end, step),
        })
    }

    fn grid(&self, kind: QueryKind, value_type: ValueType) -> Evaluated<Grid> {
        match kind {
            QueryKind::Instant(time) => Ok(Grid { start: time, step: 1, count: 1 }),
            QueryKind::Range { start, end, step } => {
                if !matches!(value_type, ValueType::Scalar | ValueType::Vector) {
                    return Err(EvalError::BadData(format!(
                        "invalid expression type \"{}\" for range query, must be Scalar or instant Vector",
                        value_type.documented()
                    )));
                }
                if step <= 0 {
                    return Err(EvalError::BadData(
                        "zero or negative query resolution step widths are not accepted. Try a positive integer"
                            .to_owned(),
                    ));
                }
                let count = step_count(start, end, step);
                if count > self.limits.max_steps {
                    return execution("query has too many steps; increase the step or shorten the range");
                }
                Ok(Grid { start, step, count })
            }
        }
    }
}

/// How many steps fit from start to end, both included.
pub(crate) fn step_count(start: i64, end: i64, step: i64) -> usize {
    if end < start {
        return 0;
    }
    usize::try_from((i128::from(end) - i128::from(start)) / i128::from(step) + 1).unwrap_or(usize::MAX)
}

/// What `start()`, `end()`, `step()` and `range()` see, also inside subqueries.
#[derive(Clone, Copy, Debug)]
struct QueryTimes {
    start: i64,
    end: i64,
    step: i64,
}

struct Evaluator<'a> {
    storage: &'a dyn Storage,
    engine: Engine,
    lookback: i64,
    is_range: bool,
    query: QueryTimes,
    interrupt: Option<&'a dyn Fn() -> Option<Interrupt>>,
    annotations: RefCell<Annotations>,
    samples_held: Cell<usize>,
    samples_read: Cell<usize>,
    pool: RefCell<Vec<Vec<f64>>>,
    /// Whether only counts and sums of histograms are wanted of the selectors being evaluated. Resets between their
    /// samples are then looked for when they are read, because the buckets will be gone.
    only_statistics: Cell<bool>,
}

/// Buffers kept for reuse; one per level of nesting is enough.
const POOLED_BUFFERS: usize = 16;

impl Evaluator<'_> {
    fn run(&self, expr: &Expr, grid: &Grid, is_range: bool) -> Evaluated<QueryResult> {
        match expr.value_type() {
            ValueType::String => {
                let Expr::String(literal) = expr.unwrap_parens() else {
                    return execution("unexpected string expression");
                };
                Ok(QueryResult::String(literal.value.clone(), grid.start))
            }
            ValueType::Scalar => {
                let values = self.scalar(expr, grid)?;
                if !is_range {
                    return Ok(QueryResult::Scalar(values.first().copied().unwrap_or(f64::NAN), grid.start));
                }
                let points = values.into_iter().enumerate().map(|(index, value)| (grid.time(index), value));
                let series = Series { floats: points.collect(), ..Series::default() };
                Ok(QueryResult::Matrix(if series.is_empty() { Vec::new() } else { vec![series] }))
            }
            ValueType::Matrix => self.top_level_matrix(expr, grid),
            ValueType::Vector => {
                let mut rows = self.vector(expr, grid)?;
                for row in &mut rows {
                    row.settle_name();
                }
                if is_range {
                    let mut rows = self.merge_same_labels(rows)?;
                    rows.sort_by(|a, b| a.labels.compare(&b.labels));
                    return Ok(QueryResult::Matrix(
                        rows.into_iter().map(|row| row.into_series(grid)).filter(|series| !series.is_empty()).collect(),
                    ));
                }
                if row::has_duplicates(&rows) {
                    return execution(SAME_LABELSET);
                }
                let samples = rows.into_iter().filter_map(|row| row.sample(0).map(|sample| (row.labels, sample)));
                Ok(QueryResult::Vector(samples.collect(), grid.start))
            }
        }
    }

    /// Whether a function may create this label.
    fn accepts_label_name(&self, literal: &StringLiteral) -> bool {
        let legacy = !self.engine.legacy_label_names || is_legacy_label_name(&literal.value);
        !literal.value.is_empty() && literal.invalid_utf8.is_none() && legacy
    }

    fn interrupted(&self) -> Evaluated<()> {
        match self.interrupt.and_then(|ask| ask()) {
            None => Ok(()),
            Some(Interrupt::Timeout) => Err(EvalError::Timeout),
            Some(Interrupt::Canceled) => Err(EvalError::Canceled),
        }
    }

    /// Counts samples that stay in memory until the query ends.
    fn hold(&self, samples: usize) -> Evaluated<()> {
        let held = self.samples_held.get().saturating_add(samples);
        self.samples_held.set(held);
        if held > self.engine.limits.max_samples {
            return execution("query processing would load too many samples into memory in query execution");
        }
        Ok(())
    }

    fn annotate(&self, add: impl FnOnce(&mut Annotations)) {
        add(&mut self.annotations.borrow_mut());
    }

    /// A row of absent values, from the pool when there is one.
    fn buffer(&self, steps: usize) -> Vec<f64> {
        let mut buffer = self.pool.borrow_mut().pop().unwrap_or_default();
        buffer.clear();
        buffer.resize(steps, crate::value::ABSENT);
        buffer
    }

    /// Takes a row back that nobody needs any more.
    fn recycle(&self, row: Row) {
        let mut pool = self.pool.borrow_mut();
        if pool.len() < POOLED_BUFFERS {
            pool.push(row.values);
        }
    }

    /// Whether an operation drops the metric name at once.
    fn drops_names_now(&self) -> bool {
        !self.engine.delayed_name_removal
    }

    /// Joins rows with equal labels; two samples at the same step are an error.
    fn merge_same_labels(&self, rows: Vec<Row>) -> Evaluated<Vec<Row>> {
        row::merge_same_labels(rows).ok_or_else(|| EvalError::Execution(SAME_LABELSET.to_owned()))
    }
}
