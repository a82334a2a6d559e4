//! Sealed spans with the ids of their parents, where files have distances instead.
//!
//! A distance counts rows, so whoever asks for parents reads files whole and in order, without pruning; who does not
//! ask reads them as ever.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::{StreamExt, stream};
use windrose_store::tables::spans::Restore;

/// Column of the distances; outside of files it says nothing.
pub(super) const PARENT_BACK: &str = "parent_back";
const PARENT: &str = "parent_span_id";
/// What parents are restored from.
const NEEDED: [&str; 4] = ["trace_id", "span_id", PARENT, PARENT_BACK];

/// Span files of which parents can be asked for by id.
#[derive(Debug)]
pub(super) struct SpanFiles {
    files: Arc<dyn TableProvider>,
}

impl SpanFiles {
    pub(super) fn new(files: Arc<dyn TableProvider>) -> Self {
        Self { files }
    }
}

#[async_trait]
impl TableProvider for SpanFiles {
    fn schema(&self) -> SchemaRef {
        self.files.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.files.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.schema();
        let wanted = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        if !wanted.contains(&schema.index_of(PARENT)?) {
            return self.files.scan(state, projection, filters, limit).await;
        }
        let mut read = wanted.clone();
        for name in NEEDED {
            let place = schema.index_of(name)?;
            if !read.contains(&place) {
                read.push(place);
            }
        }
        let plan = self.files.scan(state, Some(&read), &[], None).await?;
        let partition = |number| {
            Arc::new(Restored { plan: Arc::clone(&plan), schema: plan.schema(), number }) as Arc<dyn PartitionStream>
        };
        let partitions = (0..plan.output_partitioning().partition_count()).map(partition).collect();
        let shown: Vec<usize> = (0..wanted.len()).collect();
        Ok(Arc::new(StreamingTableExec::try_new(plan.schema(), partitions, Some(&shown), [], false, limit)?))
    }
}

/// The rows of some files in order.
#[derive(Debug)]
struct Restored {
    plan: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    number: usize,
}

impl PartitionStream for Restored {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.schema);
        let mut restore = Restore::default();
        match self.plan.execute(self.number, context) {
            Ok(batches) => {
                let restored = batches.map(move |batch| restored(&mut restore, &batch?));
                Box::pin(RecordBatchStreamAdapter::new(schema, restored))
            }
            Err(error) => Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter([Err(error)]))),
        }
    }
}

fn restored(restore: &mut Restore, batch: &RecordBatch) -> Result<RecordBatch> {
    let [traces, spans, parents, distances] =
        NEEDED.map(|name| batch.column_by_name(name).ok_or_else(|| unexpected(name)));
    let (parents, distances) = (parents?, distances?);
    let ids = restore.ids(
        traces?.as_fixed_size_binary_opt().ok_or_else(|| unexpected(NEEDED[0]))?,
        spans?.as_fixed_size_binary_opt().ok_or_else(|| unexpected(NEEDED[1]))?,
        parents.as_fixed_size_binary_opt().ok_or_else(|| unexpected(PARENT))?,
        distances.as_primitive_opt::<Int32Type>().ok_or_else(|| unexpected(PARENT_BACK))?,
    );
    let ids = ids.map_err(|error| DataFusionError::External(error.into()))?;
    let columns = batch.schema_ref().fields().iter().zip(batch.columns());
    let columns = columns.map(|(field, column)| match field.name() == PARENT {
        true => Arc::new(ids.clone()) as Arc<dyn Array>,
        false => Arc::clone(column),
    });
    Ok(RecordBatch::try_new(batch.schema(), columns.collect())?)
}

fn unexpected(column: &str) -> DataFusionError {
    DataFusionError::Execution(format!("column {column} is missing or of another type"))
}
