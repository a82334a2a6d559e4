//! The syntax tree. Every node knows the bytes of the query it came from.

use crate::function::Function;
use windrose_proto::metric::matcher::Matcher;

/// A range of bytes of the query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// From the start of `self` to the end of `other`.
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start, end: other.end }
    }
}

/// What an expression evaluates to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// One float per step.
    Scalar,
    /// A set of series with at most one sample per step.
    Vector,
    /// A set of series with a window of samples per step.
    Matrix,
    /// A constant text.
    String,
}

impl ValueType {
    /// The name used in error messages.
    pub fn documented(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
            Self::String => "string",
        }
    }

    /// The name used in the HTTP API.
    pub fn api(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Vector => "vector",
            Self::Matrix => "matrix",
            Self::String => "string",
        }
    }
}

/// An expression.
#[derive(Clone, Debug)]
pub enum Expr {
    /// `1.5`, `0x1F`, `5m`
    Number(NumberLiteral),
    /// `"text"`
    String(StringLiteral),
    /// `name{label="value"}`
    Vector(VectorSelector),
    /// `name[5m]`
    Matrix(MatrixSelector),
    /// `expr[5m:1m]`
    Subquery(Box<Subquery>),
    /// `rate(...)`
    Call(Call),
    /// `sum by (job) (...)`
    Aggregate(Box<Aggregate>),
    /// `a + b`
    Binary(Box<Binary>),
    /// `-a`
    Unary(Box<Unary>),
    /// `(a)`
    Paren(Box<Paren>),
}

/// A number; a duration written as a number counts seconds.
#[derive(Clone, Debug)]
pub struct NumberLiteral {
    /// Its value.
    pub value: f64,
    /// Whether it was written as a duration.
    pub is_duration: bool,
    /// Where.
    pub span: Span,
}

/// A string.
#[derive(Clone, Debug)]
pub struct StringLiteral {
    /// Its value; what is not UTF-8 is replaced.
    pub value: String,
    /// The bytes, when escapes produced something that is not UTF-8.
    pub invalid_utf8: Option<Vec<u8>>,
    /// Where.
    pub span: Span,
}

impl StringLiteral {
    /// The literal quoted as Go would.
    pub fn quoted(&self) -> String {
        windrose_proto::metric::quote::quote_bytes(self.invalid_utf8.as_deref().unwrap_or(self.value.as_bytes()))
    }
}

/// The instant a selector is pinned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// `@ 1609746000`, in milliseconds.
    Timestamp(i64),
    /// `@ start()`
    Start,
    /// `@ end()`
    End,
}

/// How samples at the edges of a window count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extension {
    /// Only samples inside the window, rates extrapolated.
    #[default]
    None,
    /// The last sample before the window stands at its start.
    Anchored,
    /// Values at both edges are interpolated.
    Smoothed,
}

/// A length of time in a selector.
#[derive(Clone, Debug)]
pub enum Duration {
    /// Known when parsed, in milliseconds.
    Millis(i64),
    /// Depends on the query or is an arithmetic expression.
    Expr(Box<DurationExpr>),
}

impl Duration {
    /// No time at all.
    pub const ZERO: Self = Self::Millis(0);

    /// The length in milliseconds. An expression counts as zero: queries are evaluated only after
    /// [`crate::eval`] has replaced every expression by its value.
    pub fn millis(&self) -> i64 {
        match self {
            Self::Millis(millis) => *millis,
            Self::Expr(_) => 0,
        }
    }

    /// Whether anything was written.
    pub fn is_set(&self) -> bool {
        !matches!(self, Self::Millis(0))
    }
}

/// Arithmetic over durations, in seconds.
#[derive(Clone, Debug)]
pub enum DurationExpr {
    /// `5m` or `300`
    Number(NumberLiteral),
    /// `step()`
    Step,
    /// `range()`
    Range,
    /// `-a`
    Negate(DurationOperand),
    /// `a + b`
    Binary(BinaryOp, DurationOperand, DurationOperand),
    /// `min_of(a, b)`
    Min(DurationOperand, DurationOperand),
    /// `max_of(a, b)`
    Max(DurationOperand, DurationOperand),
    /// `(a)`
    Paren(DurationOperand),
}

/// A boxed part of a [`DurationExpr`].
pub type DurationOperand = Box<DurationExpr>;

/// `name{label="value"} @ 5 offset 1m`
#[derive(Clone, Debug)]
pub struct VectorSelector {
    /// The name outside the braces, empty when there is none.
    pub name: String,
    /// All matchers, including the one for the name.
    pub matchers: Vec<Matcher>,
    /// Moves the evaluation into the past.
    pub offset: Duration,
    /// Pins the evaluation.
    pub at: Option<At>,
    /// `anchored` or `smoothed`.
    pub extension: Extension,
    /// Whether a selector without a non-empty matcher is allowed (second argument of `info`).
    pub allow_empty: bool,
    /// Where.
    pub span: Span,
}

/// `name[5m]`
#[derive(Clone, Debug)]
pub struct MatrixSelector {
    /// The series; carries offset, `@` and extension.
    pub vector: VectorSelector,
    /// The window.
    pub range: Duration,
    /// Where.
    pub span: Span,
}

/// `expr[5m:1m]`
#[derive(Clone, Debug)]
pub struct Subquery {
    /// What is evaluated at every step of the window.
    pub expr: Expr,
    /// The window.
    pub range: Duration,
    /// The step; zero means the default of the engine.
    pub step: Duration,
    /// Moves the window into the past.
    pub offset: Duration,
    /// Pins the window.
    pub at: Option<At>,
    /// Where.
    pub span: Span,
}

/// A function call.
#[derive(Clone, Debug)]
pub struct Call {
    /// What is called.
    pub function: &'static Function,
    /// With what.
    pub args: Vec<Expr>,
    /// Where.
    pub span: Span,
}

/// Aggregation operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the operators of the language")]
pub enum AggregateOp {
    Avg,
    BottomK,
    Count,
    CountValues,
    Group,
    LimitK,
    LimitRatio,
    Max,
    Min,
    Quantile,
    StdDev,
    StdVar,
    Sum,
    TopK,
}

impl AggregateOp {
    /// All of them with their spelling.
    pub const ALL: [(&'static str, Self); 14] = [
        ("avg", Self::Avg),
        ("bottomk", Self::BottomK),
        ("count", Self::Count),
        ("count_values", Self::CountValues),
        ("group", Self::Group),
        ("limitk", Self::LimitK),
        ("limit_ratio", Self::LimitRatio),
        ("max", Self::Max),
        ("min", Self::Min),
        ("quantile", Self::Quantile),
        ("stddev", Self::StdDev),
        ("stdvar", Self::StdVar),
        ("sum", Self::Sum),
        ("topk", Self::TopK),
    ];

    /// As written.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, op)| *op == self).map_or("", |(name, _)| name)
    }

    /// Whether it takes a parameter before the vector.
    pub fn has_param(self) -> bool {
        matches!(
            self,
            Self::BottomK | Self::TopK | Self::LimitK | Self::LimitRatio | Self::Quantile | Self::CountValues
        )
    }

    /// Whether it is behind the experimental flag.
    pub fn is_experimental(self) -> bool {
        matches!(self, Self::LimitK | Self::LimitRatio)
    }
}

/// An aggregation.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// The operator.
    pub op: AggregateOp,
    /// The vector.
    pub expr: Expr,
    /// `k`, the quantile, the label of `count_values`.
    pub param: Option<Expr>,
    /// Labels of `by` or `without`.
    pub grouping: Vec<String>,
    /// Whether `without` was written.
    pub without: bool,
    /// Where.
    pub span: Span,
}

/// Binary operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the operators of the language")]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Eq,
    Ne,
    Gt,
    Lt,
    Ge,
    Le,
    TrimUpper,
    TrimLower,
    And,
    Or,
    Unless,
}

impl BinaryOp {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Gt => ">",
            Self::Lt => "<",
            Self::Ge => ">=",
            Self::Le => "<=",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
        }
    }

    /// Whether it filters (or with `bool` yields 0 and 1).
    pub fn is_comparison(self) -> bool {
        matches!(self, Self::Eq | Self::Ne | Self::Gt | Self::Lt | Self::Ge | Self::Le)
    }

    /// Whether it works on sets of series.
    pub fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }

    /// Whether the result is another quantity, so that the metric name no longer fits.
    pub fn changes_meaning(self) -> bool {
        matches!(self, Self::Add | Self::Sub | Self::Mul | Self::Div | Self::Mod | Self::Pow | Self::Atan2)
    }

    /// Binding strength; higher binds tighter.
    pub fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::Eq | Self::Ne | Self::Gt | Self::Lt | Self::Ge | Self::Le | Self::TrimUpper | Self::TrimLower => 3,
            Self::Add | Self::Sub => 4,
            Self::Mul | Self::Div | Self::Mod | Self::Atan2 => 5,
            Self::Pow => 6,
        }
    }
}

/// How many series of each side may match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cardinality {
    /// One on each side.
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
    /// Set operators.
    ManyToMany,
}

impl Cardinality {
    /// The name in the HTTP API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneToOne => "one-to-one",
            Self::ManyToOne => "many-to-one",
            Self::OneToMany => "one-to-many",
            Self::ManyToMany => "many-to-many",
        }
    }
}

/// Which series of the two sides belong together.
#[derive(Clone, Debug)]
pub struct Matching {
    /// How many may match.
    pub cardinality: Cardinality,
    /// Labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// Whether `on` was written.
    pub on: bool,
    /// Labels of `group_left` or `group_right`.
    pub include: Vec<String>,
    /// Value for a missing left side.
    pub fill_left: Option<f64>,
    /// Value for a missing right side.
    pub fill_right: Option<f64>,
}

/// A binary operation.
#[derive(Clone, Debug)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// Left operand.
    pub lhs: Expr,
    /// Right operand.
    pub rhs: Expr,
    /// `None` when a side is a scalar.
    pub matching: Option<Matching>,
    /// Whether a comparison yields 0 and 1.
    pub return_bool: bool,
}

/// A sign before an expression.
#[derive(Clone, Debug)]
pub struct Unary {
    /// Whether it is a minus.
    pub negate: bool,
    /// The operand.
    pub expr: Expr,
    /// Where.
    pub span: Span,
}

/// Parentheses.
#[derive(Clone, Debug)]
pub struct Paren {
    /// What is inside.
    pub expr: Expr,
    /// Where.
    pub span: Span,
}

impl Expr {
    /// The bytes it came from.
    pub fn span(&self) -> Span {
        match self {
            Self::Number(node) => node.span,
            Self::String(node) => node.span,
            Self::Vector(node) => node.span,
            Self::Matrix(node) => node.span,
            Self::Subquery(node) => node.span,
            Self::Call(node) => node.span,
            Self::Aggregate(node) => node.span,
            Self::Binary(node) => node.lhs.span().to(node.rhs.span()),
            Self::Unary(node) => node.span,
            Self::Paren(node) => node.span,
        }
    }

    /// What it evaluates to.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::Number(_) => ValueType::Scalar,
            Self::String(_) => ValueType::String,
            Self::Vector(_) | Self::Aggregate(_) => ValueType::Vector,
            Self::Matrix(_) | Self::Subquery(_) => ValueType::Matrix,
            Self::Call(node) => node.function.returns,
            Self::Binary(node) => {
                if node.lhs.value_type() == ValueType::Scalar && node.rhs.value_type() == ValueType::Scalar {
                    ValueType::Scalar
                } else {
                    ValueType::Vector
                }
            }
            Self::Unary(node) => node.expr.value_type(),
            Self::Paren(node) => node.expr.value_type(),
        }
    }

    /// The expression inside any parentheses.
    pub fn unwrap_parens(&self) -> &Self {
        let mut expr = self;
        while let Self::Paren(paren) = expr {
            expr = &paren.expr;
        }
        expr
    }
}
