//! Columns of `requests`: one row per request that entered the mesh.

use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use windrose_proto::Text;
use windrose_proto::hop::{Gap, Request};
use windrose_proto::id::SpanId;
use windrose_proto::model::{Fault, Reason};
use windrose_proto::time::UnixNanos;

use super::columns::{Columns, Reader, id_at, int_at, parse_word, text_at, words_at};
use super::hops::{reasons_at, trace_at};
use super::node::{EntryReader, NodeReader, push_entry, push_node};
use super::{Table, TableError, conform};
use crate::row::RequestRow;

/// The columns.
#[must_use]
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| to_batch(&[]).schema());
    Arc::clone(&SCHEMA)
}

/// Rows as columns.
#[must_use]
pub fn to_batch(rows: &[RequestRow]) -> RecordBatch {
    let requests = rows.iter().map(|row| &*row.request);
    let text = |pick: fn(&Request) -> Option<&Text>| requests.clone().map(move |request| pick(request).map(|t| &**t));
    let mut columns = Columns::default();
    columns.id("trace_id", requests.clone().map(|request| *request.trace_id.as_bytes()));
    columns.id_opt("entry_span", requests.clone().map(|request| request.entry_span.map(|id| *id.as_bytes())));
    columns.long("start_ns", requests.clone().map(|request| request.start.0 as i64));
    columns.long("duration_ns", requests.clone().map(|request| request.duration_nanos as i64));
    push_node(&mut columns, "entry", requests.clone().map(|request| &*request.entry_node));
    push_entry(&mut columns, requests.clone().map(|request| Some(&request.entry)));
    columns.text_opt("method", text(|request| request.method.as_ref()));
    columns.text_opt("host", text(|request| request.host.as_ref()));
    columns.text_opt("path", text(|request| request.path.as_ref()));
    columns.text_opt("consumer", text(|request| request.consumer.as_ref()));
    columns.text_opt("request_id", text(|request| request.request_id.as_ref()));
    columns.int_opt("http_status", requests.clone().map(|request| request.http_status.map(i32::from)));
    columns.int_opt("grpc_status", requests.clone().map(|request| request.grpc_status.map(i32::from)));
    columns.flag("error", requests.clone().map(|request| request.error));
    columns.text("fault", requests.clone().map(|request| request.fault.as_str()));
    columns.words("reasons", requests.clone().map(|request| request.reasons.iter().map(Reason::word)));
    columns.long("span_count", requests.clone().map(|request| i64::from(request.span_count)));
    columns.long("hop_count", requests.clone().map(|request| i64::from(request.hop_count)));
    columns.long("service_count", requests.clone().map(|request| i64::from(request.service_count)));
    // As hexadecimal words: the list is empty for nearly every request, and readable in any tool.
    columns.words(
        "missing_parents",
        requests.clone().map(|request| request.missing_parents.iter().map(SpanId::to_string)),
    );
    columns.words("gaps", requests.map(|request| request.gaps.iter().map(|gap| gap.as_str())));
    columns.long("revision", rows.iter().map(|row| i64::from(row.revision)));
    columns.finish(rows.len())
}

/// Columns as rows.
///
/// # Errors
/// When a column is missing or holds what this version does not know.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<RequestRow>, TableError> {
    let batch = conform(batch, Table::Requests)?;
    let reader = Reader::new(&batch);
    let (trace_id, entry_span) = (reader.id("trace_id")?, reader.id("entry_span")?);
    let (start, duration) = (reader.long("start_ns")?, reader.long("duration_ns")?);
    let mut node = NodeReader::new(reader, "entry")?;
    let mut entry = EntryReader::new(reader)?;
    let (method, host, path) = (reader.text("method")?, reader.text("host")?, reader.text("path")?);
    let (consumer, request_id) = (reader.text("consumer")?, reader.text("request_id")?);
    let (http_status, grpc_status) = (reader.int("http_status")?, reader.int("grpc_status")?);
    let (error, fault, reasons) = (reader.flag("error")?, reader.text("fault")?, reader.list("reasons")?);
    let (spans, hops) = (reader.long("span_count")?, reader.long("hop_count")?);
    let (services, revision) = (reader.long("service_count")?, reader.long("revision")?);
    let (missing_parents, gaps) = (reader.list("missing_parents")?, reader.list("gaps")?);

    let text = |array, row| text_at(array, row).map(Text::from);
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let request = Request {
            trace_id: trace_at(trace_id, row)?,
            entry_span: id_at(entry_span, row).and_then(SpanId::new),
            entry_node: node.require(row)?,
            entry: entry.require(row)?,
            method: text(method, row),
            host: text(host, row),
            path: text(path, row),
            consumer: text(consumer, row),
            request_id: text(request_id, row),
            http_status: int_at(http_status, row).map(|status| status as u16),
            grpc_status: int_at(grpc_status, row).map(|status| status as u8),
            error: error.value(row),
            fault: parse_word("fault", fault.value(row), Fault::parse)?,
            reasons: reasons_at(reasons, row)?,
            start: UnixNanos(start.value(row) as u64),
            duration_nanos: duration.value(row) as u64,
            span_count: spans.value(row) as u32,
            hop_count: hops.value(row) as u32,
            service_count: services.value(row) as u32,
            missing_parents: missing_parents
                .value(row)
                .as_string::<i32>()
                .iter()
                .flatten()
                .map(|word| parse_word("missing_parents", word, SpanId::parse))
                .collect::<Result<_, _>>()?,
            gaps: words_at(gaps, row)
                .iter()
                .map(|word| parse_word("gaps", word, Gap::parse))
                .collect::<Result<_, _>>()?,
        };
        rows.push(RequestRow { request: Arc::new(request), revision: revision.value(row) as u32 });
    }
    Ok(rows)
}
