//! SQL over the same snapshot everything else reads: DataFusion, read-only, within a memory limit.
//!
//! | file | what |
//! |---|---|
//! | `engine.rs` | plans and runs one statement |
//! | `tables.rs` | hot rows and sealed files as one table |
//! | `parents.rs` | sealed spans with the ids of their parents |
//! | `sealed_files.rs` | the files of a snapshot, as DataFusion reads them |
//! | `output.rs` | record batches as JSON, CSV or an Arrow stream |

mod engine;
mod output;
mod parents;
mod sealed_files;
mod tables;

pub use engine::{DEFAULT_LIMIT, MAX_LIMIT, SqlAnswer, SqlEngine, SqlRequest};
pub use output::{Column, arrow_stream, csv, json_rows};
