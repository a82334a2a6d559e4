//! PromQL as Prometheus 3.x understands it: lexer, parser, printer and a series-major evaluator over any
//! [`Storage`].
//!
//! It is a crate of its own because it is pure: values in, values out, no clock, disk, network or Arrow. It builds
//! and runs the whole conformance suite in seconds, while the query crate around it waits for DataFusion.
//!
//! ```text
//! text --lex--> tokens --parse--> Expr --check--> typed Expr --prepare--> Expr without duration expressions
//!                                                                              |
//!                  Storage::select  -- series by series -->  eval  ------------+--> QueryResult + Annotations
//! ```
//!
//! Invariants:
//! - Positions are byte offsets into the query; errors and annotations name them as `line:column`.
//! - A sample that is absent is the staleness marker bit pattern ([`value::ABSENT`]); an ordinary NaN is a value.
//! - The evaluator visits series in the order the storage gives them and steps in time order, so that the same
//!   query over the same data gives the same bits.
//! - No input can make it panic, recurse without bound or allocate without a cap ([`eval::Limits`]).

pub mod annotations;
pub mod api_json;
pub mod ast;
pub mod ast_json;
pub mod duration;
pub mod eval;
pub mod function;
pub mod histogram;
mod lex;
pub mod memory;
pub mod number;
pub mod parse;
pub mod print;
pub mod storage;
pub mod value;

pub use annotations::Annotations;
pub use ast::Expr;
pub use eval::{Engine, EvalError, Evaluation, Interrupt, Limits, PlannedSelect, QueryKind, QueryOptions};
pub use histogram::FloatHistogram;

pub use parse::{ParseError, ParseOptions, parse_expr, parse_selector};
pub use storage::{Select, SeriesSet, SeriesView, Storage, StorageError};
pub use value::{QueryResult, Sample, Series};
pub use windrose_proto::metric::{Labels, MatchOp, Matcher};
