//! Plans and runs one statement.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::context::{SQLOptions, SessionConfig, SessionContext};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use windrose_store::snapshot::TenantSnapshot;

use super::tables;
use crate::http::error::{ApiError, ErrorKind};

/// Rows of one answer when no limit is given.
pub const DEFAULT_LIMIT: usize = 10_000;
/// Most rows of one answer.
pub const MAX_LIMIT: usize = 1_000_000;

/// Parallel partitions of a plan. Two: queries must leave cores to ingest.
const PARTITIONS: usize = 2;

/// One statement with its row limit.
#[derive(Clone, Debug)]
pub struct SqlRequest {
    pub query: String,
    pub limit: usize,
}

/// The rows of a statement.
#[derive(Debug)]
pub struct SqlAnswer {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    /// Whether rows were cut off at the limit.
    pub truncated: bool,
}

/// Runs statements within one memory budget.
#[derive(Debug)]
pub struct SqlEngine {
    runtime: Result<Arc<RuntimeEnv>, String>,
}

impl SqlEngine {
    /// All statements together use at most `memory_bytes`; sorts and groupings spill to disk.
    #[must_use]
    pub fn new(memory_bytes: usize) -> Self {
        let pool = Arc::new(FairSpillPool::new(memory_bytes));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc();
        Self { runtime: runtime.map_err(|error| error.to_string()) }
    }

    /// Runs one read-only statement over a tenant's snapshot.
    ///
    /// # Errors
    /// `bad_data` when the statement cannot be planned or is not a query, `execution` when it runs
    /// into the memory limit or fails.
    pub async fn run(&self, snapshot: &TenantSnapshot, request: &SqlRequest) -> Result<SqlAnswer, ApiError> {
        let runtime = self.runtime.as_ref().map_err(|error| ApiError::internal(format!("SQL engine: {error}")))?;
        let config = SessionConfig::new().with_target_partitions(PARTITIONS).with_information_schema(true);
        let context = SessionContext::new_with_config_rt(config, Arc::clone(runtime));
        tables::register(&context, &request.query, snapshot).await?;
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let frame = context.sql_with_options(&request.query, read_only).await.map_err(|error| planning(&error))?;
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let limited = frame.limit(0, Some(request.limit.saturating_add(1))).map_err(|error| planning(&error))?;
        let mut batches = limited.collect().await.map_err(|error| execution(&error))?;
        let truncated = cut(&mut batches, request.limit);
        Ok(SqlAnswer { schema, batches, truncated })
    }
}

/// Keeps the first `limit` rows; says whether there were more.
fn cut(batches: &mut Vec<RecordBatch>, limit: usize) -> bool {
    let mut left = limit;
    for place in 0..batches.len() {
        let rows = batches[place].num_rows();
        if rows > left {
            batches[place] = batches[place].slice(0, left);
            batches.truncate(place + 1);
            return true;
        }
        left -= rows;
    }
    false
}

pub(super) fn planning(error: &DataFusionError) -> ApiError {
    ApiError::bad_data(format!("invalid parameter \"query\": {}", error.strip_backtrace()))
}

pub(super) fn execution(error: &DataFusionError) -> ApiError {
    let text = error.strip_backtrace();
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => ApiError::execution(format!(
            "the query needs more memory than it may use ({text}): select fewer columns, add a time condition, or aggregate before joining"
        )),
        DataFusionError::IoError(_) | DataFusionError::ObjectStore(_) | DataFusionError::ParquetError(_) => {
            ApiError { kind: ErrorKind::Internal, message: format!("reading a table: {text}") }
        }
        _ => ApiError::execution(text),
    }
}
