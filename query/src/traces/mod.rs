//! Traces: search, the joined view, and the explanation of the join.

mod explanation;
mod filter;
mod summary;
mod view;

pub use explanation::Explanation;
pub use filter::TraceFilter;
pub use summary::TraceSummary;
pub use view::{HopView, TraceView};
