//! `GET /api/v1/status/tables`: what is stored, table by table, and what of it cannot be read.

use axum::extract::{RawQuery, State};
use http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;
use windrose_proto::tenant::TenantId;
use windrose_store::hot::HotTables;
use windrose_store::snapshot::TenantSnapshot;
use windrose_store::tables::Table;

use super::envelope::Success;
use super::error::ApiError;
use super::params::Params;
use super::state::{QueryState, TENANT_HEADER};
use crate::topology::rfc3339;

/// A file that is left out of answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuarantinedFile {
    /// Below the place of the tables.
    pub path: String,
    pub rows: u64,
    pub bytes: u64,
    pub reason: String,
}

/// One table of one tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct TableStatus {
    pub tenant: String,
    pub table: &'static str,
    /// Version of the table's log; `null` when the tenant has no file in any table.
    pub version: Option<u64>,
    pub files: u64,
    /// In files, quarantined ones included; rows of superseded revisions too.
    pub rows: u64,
    pub bytes: u64,
    /// Rows that are not in files yet; of `edges`, cells of ten seconds.
    pub rows_in_memory: u64,
    /// First and last time of rows in files; `null` without files.
    pub oldest: Option<String>,
    pub newest: Option<String>,
    /// Files found damaged or missing when something was read from them since the server started.
    pub quarantined: Vec<QuarantinedFile>,
}

/// What is stored.
#[derive(Debug, Serialize, ToSchema)]
pub struct TablesAnswer {
    pub tables: Vec<TableStatus>,
}

/// Rows, files, bytes and damage per table: of the tenant in the header, or of all without one.
#[utoipa::path(
    get, path = "/api/v1/status/tables", tag = "status",
    responses((status = 200, body = Success<TablesAnswer>), (status = 400, body = super::error::ErrorBody)),
)]
pub(super) async fn tables(
    State(state): State<QueryState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Success<TablesAnswer>, ApiError> {
    Params::parse(query.as_deref(), &[])?;
    let tenant = state.tenant(&headers)?;
    let tenants = if headers.contains_key(TENANT_HEADER) { vec![tenant] } else { state.store.tenants() };
    let worker = state.clone();
    let answer = state.run(async move {
        let mut tables = Vec::new();
        for tenant in tenants {
            let snapshot = worker.snapshot(&tenant);
            tables.extend(Table::ALL.into_iter().map(|table| status(&tenant, table, &snapshot)));
        }
        Ok(TablesAnswer { tables })
    });
    Ok(Success::new(answer.await?))
}

fn status(tenant: &TenantId, table: Table, snapshot: &TenantSnapshot) -> TableStatus {
    let segments = snapshot.sealed.segments(table);
    let quarantined = segments.iter().filter_map(|segment| {
        Some(QuarantinedFile {
            path: segment.path().to_string(),
            rows: segment.rows(),
            bytes: segment.bytes(),
            reason: segment.quarantine_reason()?.to_owned(),
        })
    });
    TableStatus {
        tenant: tenant.to_string(),
        table: table.name(),
        version: snapshot.sealed.version(table),
        files: segments.len() as u64,
        rows: segments.iter().map(|segment| segment.rows()).sum(),
        bytes: segments.iter().map(|segment| segment.bytes()).sum(),
        rows_in_memory: snapshot.generations().map(|hot| rows_in_memory(table, hot)).sum(),
        oldest: segments.iter().map(|segment| segment.time_range().0).min().map(rfc3339),
        newest: segments.iter().map(|segment| segment.time_range().1).max().map(rfc3339),
        quarantined: quarantined.collect(),
    }
}

fn rows_in_memory(table: Table, hot: &HotTables) -> u64 {
    let rows: usize = match table {
        Table::Spans => hot.span_rows(),
        Table::Hops => hot.hops.iter().map(|chunk| chunk.len()).sum(),
        Table::Requests => hot.requests.iter().map(|chunk| chunk.len()).sum(),
        Table::Edges => hot.edges.values().map(|window| window.len()).sum(),
    };
    rows as u64
}
