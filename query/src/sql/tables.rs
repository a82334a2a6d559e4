//! Hot rows and sealed files as one table each.

use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::common::cast::{as_fixed_size_binary_array, as_int64_array};
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::execution::context::SessionContext;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::prelude::{DataFrame, col, lit, not};
use windrose_proto::id::TraceId;
use windrose_proto::model::IngestProtocol;
use windrose_proto::span::FACT_SCOPE;
use windrose_store::row::{HopRow, RequestRow};
use windrose_store::snapshot::TenantSnapshot;
use windrose_store::tables::{Table, edges, hops, requests, spans};

use super::engine::{execution, planning};
use super::parents::{PARENT_BACK, SpanFiles};
use super::sealed_files::SealedFiles;
use crate::http::error::ApiError;
use windrose_proto::time::TimeRange;

/// Access log entries, with the columns of spans.
const ACCESS_LOGS: &str = "access_logs";
/// What the join learned across traces, with the columns of spans.
const FACTS: &str = "facts";

/// Below which a statement's context knows the sealed files, each table in a store of its own.
const STORE_URL: &str = "windrose://";

/// Makes the tables that `query` names known to `context`. Tables it does not name are not even
/// looked at: turning hot rows into columns is the dearest part of a small query.
pub(super) async fn register(context: &SessionContext, query: &str, snapshot: &TenantSnapshot) -> Result<(), ApiError> {
    let state = context.state();
    let dialect = state.config().options().sql_parser.dialect;
    let statement = state.sql_to_statement(query, &dialect).map_err(|error| planning(&error))?;
    let references = state.resolve_table_references(&statement).map_err(|error| planning(&error))?;
    let is_named = |name: &str| references.iter().any(|reference| reference.table() == name);
    for table in Table::ALL {
        if is_named(table.name()) || (table == Table::Spans && (is_named(ACCESS_LOGS) || is_named(FACTS))) {
            register_table(context, table, snapshot).await?;
        }
    }
    Ok(())
}

async fn register_table(context: &SessionContext, table: Table, snapshot: &TenantSnapshot) -> Result<(), ApiError> {
    let mut batches = vec![RecordBatch::new_empty(table.schema())];
    batches.extend(hot_batches(table, snapshot));
    let hot = context.read_batches(batches).map_err(|error| execution(&error))?;
    let rows = match sealed_rows(context, table, snapshot).await? {
        Some(sealed) => hot.union(sealed).map_err(|error| execution(&error))?,
        None => hot,
    };
    if table != Table::Spans {
        context.register_table(table.name(), rows.into_view()).map_err(|error| execution(&error))?;
        return Ok(());
    }
    let rows = rows.drop_columns(&[PARENT_BACK]).map_err(|error| execution(&error))?;
    // Entries and facts lie beside the spans of their traces, so that one index finds all; who counts spans wants
    // neither.
    let is_entry = || col("ingest").eq(lit(IngestProtocol::AccessLog.as_str()));
    let is_fact = || col("scope").like(lit(format!("%\"name\":\"{FACT_SCOPE}\"%")));
    let parts =
        [(Table::Spans.name(), not(is_entry()).and(not(is_fact()))), (ACCESS_LOGS, is_entry()), (FACTS, is_fact())];
    for (name, condition) in parts {
        let part = rows.clone().filter(condition).map_err(|error| execution(&error))?;
        context.register_table(name, part.into_view()).map_err(|error| execution(&error))?;
    }
    Ok(())
}

/// The sealed rows of a table, read by DataFusion itself with its pruning; superseded rows are
/// filtered out. `None` when nothing is sealed.
async fn sealed_rows(
    context: &SessionContext,
    table: Table,
    snapshot: &TenantSnapshot,
) -> Result<Option<DataFrame>, ApiError> {
    let segments: Vec<_> =
        snapshot.sealed.segments(table).iter().filter(|segment| segment.quarantine_reason().is_none()).collect();
    let Some(first) = segments.first() else { return Ok(None) };
    let base = format!("{STORE_URL}{}/", table.name());
    let url = ObjectStoreUrl::parse(&base).map_err(|error| execution(&error))?;
    context.register_object_store(
        url.as_ref(),
        Arc::new(SealedFiles::new(first.store(), segments.iter().map(|segment| &***segment))),
    );
    let urls: Result<Vec<_>, _> =
        segments.iter().map(|segment| ListingTableUrl::parse(format!("{base}{}", segment.path()))).collect();
    let options = ListingOptions::new(Arc::new(ParquetFormat::default()));
    let config = ListingTableConfig::new_with_multi_paths(urls.map_err(|error| execution(&error))?)
        .with_listing_options(options)
        .with_schema(table.schema());
    let files = Arc::new(ListingTable::try_new(config).map_err(|error| execution(&error))?);
    let files: Arc<dyn TableProvider> = if table == Table::Spans { Arc::new(SpanFiles::new(files)) } else { files };
    let rows = context.read_table(files).map_err(|error| execution(&error))?;
    if snapshot.revisions.is_empty() || !matches!(table, Table::Hops | Table::Requests) {
        return Ok(Some(rows));
    }
    let current = current_revision(snapshot).call(vec![col("trace_id"), col("revision")]);
    rows.filter(current).map(Some).map_err(|error| execution(&error))
}

/// Whether a row's revision is the latest of its trace.
fn current_revision(snapshot: &TenantSnapshot) -> ScalarUDF {
    let revisions = Arc::clone(&snapshot.revisions);
    let is_current = move |arguments: &[ColumnarValue]| {
        let columns = ColumnarValue::values_to_arrays(arguments)?;
        let traces = as_fixed_size_binary_array(&columns[0])?;
        let numbers = as_int64_array(&columns[1])?;
        let current = traces.iter().zip(numbers).map(|(trace, number)| {
            let trace = trace.and_then(TraceId::from_slice);
            let latest = trace.and_then(|trace| revisions.get(&trace)).copied().unwrap_or(1);
            Some(number.is_none_or(|number| number >= i64::from(latest)))
        });
        Ok(ColumnarValue::Array(Arc::new(current.collect::<BooleanArray>())))
    };
    let types = vec![DataType::FixedSizeBinary(TraceId::LEN as i32), DataType::Int64];
    create_udf("current_revision", types, DataType::Boolean, Volatility::Stable, Arc::new(is_current))
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
