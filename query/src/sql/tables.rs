//! Hot rows and sealed files as one table each.

use arrow::record_batch::RecordBatch;
use datafusion::execution::context::SessionContext;
use windrose_store::row::{HopRow, RequestRow};
use windrose_store::snapshot::TenantSnapshot;
use windrose_store::tables::{Table, edges, hops, requests, spans};

use super::engine::{execution, planning};
use crate::http::error::ApiError;
use windrose_proto::time::TimeRange;

/// Makes the tables that `query` names known to `context`. Tables it does not name are not even
/// looked at: turning hot rows into columns is the dearest part of a small query.
pub(super) async fn register(context: &SessionContext, query: &str, snapshot: &TenantSnapshot) -> Result<(), ApiError> {
    let state = context.state();
    let dialect = state.config().options().sql_parser.dialect;
    let statement = state.sql_to_statement(query, &dialect).map_err(|error| planning(&error))?;
    let references = state.resolve_table_references(&statement).map_err(|error| planning(&error))?;
    for table in Table::ALL {
        if references.iter().any(|reference| reference.table() == table.name()) {
            register_table(context, table, snapshot).await?;
        }
    }
    Ok(())
}

async fn register_table(context: &SessionContext, table: Table, snapshot: &TenantSnapshot) -> Result<(), ApiError> {
    let mut batches = vec![RecordBatch::new_empty(table.schema())];
    batches.extend(hot_batches(table, snapshot));
    let frame = context.read_batches(batches).map_err(|error| execution(&error))?;
    context.register_table(table.name(), frame.into_view()).map_err(|error| execution(&error))?;
    Ok(())
}

/// The unsealed rows of a table, superseded ones left out.
fn hot_batches(table: Table, snapshot: &TenantSnapshot) -> Vec<RecordBatch> {
    let generations = snapshot.generations();
    match table {
        Table::Spans => {
            let chunks = generations.flat_map(|tables| tables.spans.iter());
            chunks.map(|chunk| spans::to_batch(chunk.rows())).collect()
        }
        Table::Hops => {
            let current = |row: &&HopRow| !snapshot.is_superseded(row.hop.trace_id, row.revision);
            let rows: Vec<HopRow> = generations
                .flat_map(|tables| &tables.hops)
                .flat_map(|chunk| chunk.iter())
                .filter(current)
                .cloned()
                .collect();
            vec![hops::to_batch(&rows)]
        }
        Table::Requests => {
            let current = |row: &&RequestRow| !snapshot.is_superseded(row.request.trace_id, row.revision);
            let rows: Vec<RequestRow> = generations
                .flat_map(|tables| &tables.requests)
                .flat_map(|chunk| chunk.iter())
                .filter(current)
                .cloned()
                .collect();
            vec![requests::to_batch(&rows)]
        }
        Table::Edges => {
            let rows: Vec<_> = generations.flat_map(|tables| tables.edge_rows(TimeRange::ALL)).collect();
            vec![edges::to_batch(&rows)]
        }
    }
}
