//! Columns of `hops`: one row per attempt over one edge.

use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use windrose_proto::Text;
use windrose_proto::hop::{Gap, Hop};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::model::{Direction, Fault, FaultAt, Protocol, Reason, Reporters, Tls};
use windrose_proto::time::UnixNanos;

use super::columns::{Columns, Reader, id_at, int_at, long_at, parse_word, text_at, words_at};
use super::node::{EntryReader, NodeReader, push_entry, push_node, push_node_opt};
use super::rule::rule;
use super::{Table, TableError, conform};
use crate::row::HopRow;

/// The columns.
#[must_use]
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| to_batch(&[]).schema());
    Arc::clone(&SCHEMA)
}

/// Rows as columns.
#[must_use]
pub fn to_batch(rows: &[HopRow]) -> RecordBatch {
    let hops = rows.iter().map(|row| &*row.hop);
    let mut columns = Columns::default();
    columns.id("trace_id", hops.clone().map(|hop| *hop.trace_id.as_bytes()));
    columns.id_opt("client_span", hops.clone().map(|hop| hop.client_span.map(|id| *id.as_bytes())));
    columns.id_opt("server_span", hops.clone().map(|hop| hop.server_span.map(|id| *id.as_bytes())));
    columns.long("start_ns", hops.clone().map(|hop| hop.start.0 as i64));
    push_node(&mut columns, "src", hops.clone().map(|hop| &*hop.source));
    push_node(&mut columns, "dst", hops.clone().map(|hop| &*hop.destination));
    push_node_opt(&mut columns, "origin", hops.clone().map(|hop| hop.origin.as_deref()));
    columns.text_opt("endpoint", hops.clone().map(|hop| hop.endpoint.as_deref()));
    columns.text_opt("via", hops.clone().map(|hop| hop.via.as_deref()));
    columns.text("direction", hops.clone().map(|hop| hop.direction.as_str()));
    columns.text("dir_rule", hops.clone().map(|hop| hop.direction_rule.0));
    columns.text("reporters", hops.clone().map(|hop| hop.reporters.as_str()));
    columns.text("protocol", hops.clone().map(|hop| hop.protocol.as_str()));
    columns.text_opt("method", hops.clone().map(|hop| hop.method.as_deref()));
    columns.int_opt("http_status", hops.clone().map(|hop| hop.http_status.map(i32::from)));
    columns.int_opt("grpc_status", hops.clone().map(|hop| hop.grpc_status.map(i32::from)));
    columns.flag("error", hops.clone().map(|hop| hop.error));
    columns.text("fault", hops.clone().map(|hop| hop.fault.as_str()));
    columns.text_opt("fault_at", hops.clone().map(|hop| hop.fault_at.map(FaultAt::as_str)));
    columns.words("reasons", hops.clone().map(|hop| hop.reasons.iter().map(Reason::word)));
    columns.int("retry", hops.clone().map(|hop| i32::from(hop.retry)));
    columns.flag("final", hops.clone().map(|hop| hop.is_final));
    columns.flag("root_cause", hops.clone().map(|hop| hop.root_cause));
    columns.flag("mirror", hops.clone().map(|hop| hop.mirror));
    columns.text("tls", hops.clone().map(|hop| hop.tls.as_str()));
    let nanos = |pick: fn(&Hop) -> Option<u64>| hops.clone().map(move |hop| pick(hop).map(|value| value as i64));
    columns.long_opt("client_ns", nanos(|hop| hop.client_nanos));
    columns.long_opt("server_ns", nanos(|hop| hop.server_nanos));
    columns.long_opt("skew_ns", hops.clone().map(|hop| hop.skew_nanos));
    columns.long_opt("late_server_ns", nanos(|hop| hop.late_server_nanos));
    columns.long_opt("queue_ns", nanos(|hop| hop.queue_nanos));
    columns.long_opt("req_bytes", nanos(|hop| hop.request_bytes));
    columns.long_opt("resp_bytes", nanos(|hop| hop.response_bytes));
    push_entry(&mut columns, hops.clone().map(|hop| Some(&hop.entry)));
    columns.text_opt("source_gap", hops.clone().map(|hop| hop.source_gap.map(Gap::as_str)));
    columns.flag("logged", hops.map(|hop| hop.logged));
    columns.long("revision", rows.iter().map(|row| i64::from(row.revision)));
    columns.finish(rows.len())
}

/// Columns as rows.
///
/// # Errors
/// When a column is missing or holds what this version does not know.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<HopRow>, TableError> {
    let batch = conform(batch, Table::Hops)?;
    let reader = Reader::new(&batch);
    let (trace_id, start) = (reader.id("trace_id")?, reader.long("start_ns")?);
    let (client_span, server_span) = (reader.id("client_span")?, reader.id("server_span")?);
    let mut source = NodeReader::new(reader, "src")?;
    let mut destination = NodeReader::new(reader, "dst")?;
    let mut origin = NodeReader::new(reader, "origin")?;
    let mut entry = EntryReader::new(reader)?;
    let (endpoint, via, method) = (reader.text("endpoint")?, reader.text("via")?, reader.text("method")?);
    let (direction, direction_rule) = (reader.text("direction")?, reader.text("dir_rule")?);
    let (reporters, protocol, tls) = (reader.text("reporters")?, reader.text("protocol")?, reader.text("tls")?);
    let (http_status, grpc_status) = (reader.int("http_status")?, reader.int("grpc_status")?);
    let (error, is_final) = (reader.flag("error")?, reader.flag("final")?);
    let (fault, fault_at, reasons) = (reader.text("fault")?, reader.text("fault_at")?, reader.list("reasons")?);
    let (retry, root_cause, mirror) = (reader.int("retry")?, reader.flag("root_cause")?, reader.flag("mirror")?);
    let (client, server, skew) = (reader.long("client_ns")?, reader.long("server_ns")?, reader.long("skew_ns")?);
    let (late_server, queue) = (reader.long("late_server_ns")?, reader.long("queue_ns")?);
    let (request_bytes, response_bytes) = (reader.long("req_bytes")?, reader.long("resp_bytes")?);
    let logged = reader.flag("logged")?;
    let (source_gap, revision) = (reader.text("source_gap")?, reader.long("revision")?);

    let text = |array, row| text_at(array, row).map(Text::from);
    let unsigned = |array, row| long_at(array, row).map(|value| value as u64);
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let hop = Hop {
            trace_id: trace_at(trace_id, row)?,
            client_span: id_at(client_span, row).and_then(SpanId::new),
            server_span: id_at(server_span, row).and_then(SpanId::new),
            source: source.require(row)?,
            destination: destination.require(row)?,
            origin: origin.get(row)?,
            endpoint: text(endpoint, row),
            via: text(via, row),
            direction: parse_word("direction", direction.value(row), Direction::parse)?,
            direction_rule: rule(direction_rule.value(row)),
            reporters: parse_word("reporters", reporters.value(row), Reporters::parse)?,
            protocol: parse_word("protocol", protocol.value(row), Protocol::parse)?,
            method: text(method, row),
            http_status: int_at(http_status, row).map(|status| status as u16),
            grpc_status: int_at(grpc_status, row).map(|status| status as u8),
            error: error.value(row),
            fault: parse_word("fault", fault.value(row), Fault::parse)?,
            fault_at: text_at(fault_at, row).map(|word| parse_word("fault_at", word, FaultAt::parse)).transpose()?,
            reasons: reasons_at(reasons, row)?,
            retry: retry.value(row) as u8,
            is_final: is_final.value(row),
            root_cause: root_cause.value(row),
            mirror: mirror.value(row),
            tls: parse_word("tls", tls.value(row), Tls::parse)?,
            client_nanos: unsigned(client, row),
            server_nanos: unsigned(server, row),
            skew_nanos: long_at(skew, row),
            late_server_nanos: unsigned(late_server, row),
            queue_nanos: unsigned(queue, row),
            request_bytes: unsigned(request_bytes, row),
            response_bytes: unsigned(response_bytes, row),
            start: UnixNanos(start.value(row) as u64),
            entry: entry.require(row)?,
            source_gap: text_at(source_gap, row).map(|word| parse_word("source_gap", word, Gap::parse)).transpose()?,
            logged: logged.value(row),
        };
        rows.push(HopRow { hop: Arc::new(hop), revision: revision.value(row) as u32 });
    }
    Ok(rows)
}

/// The trace id of `row`.
pub(super) fn trace_at(array: &arrow::array::FixedSizeBinaryArray, row: usize) -> Result<TraceId, TableError> {
    id_at(array, row)
        .and_then(TraceId::new)
        .ok_or_else(|| TableError::Inconsistent { column: "trace_id".to_owned(), why: "all zero or null" })
}

/// The reasons of `row`.
pub(super) fn reasons_at<C: Extend<Reason> + Default>(
    array: &arrow::array::ListArray,
    row: usize,
) -> Result<C, TableError> {
    let mut reasons = C::default();
    for word in words_at(array, row) {
        reasons.extend([parse_word("reasons", &word, Reason::parse)?]);
    }
    Ok(reasons)
}
