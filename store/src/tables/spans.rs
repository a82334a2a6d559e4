//! Columns of `spans`: what the rules read out of each span, and the span itself without loss.
//!
//! # How a span is kept whole
//! - The id of a parent that stands a few rows above is kept as the distance (`parents`).
//! - Resource, scope, events and links are OTLP/JSON text (`otlp_json`).
//! - Attributes go to one of three places (`attributes`): nowhere, when a public column already
//!   says the same (`http.method` in `method`); into a column of their own (`attr_…`), when proxies
//!   send the key often; else into the map `attributes`. `attribute_shape` lists the keys of the
//!   span in their order with type and place, so that reading puts them back exactly. Spans of one
//!   kind share their shape, so the dictionary makes it nearly free.
//!
//! Rows are stored with the spans of a trace together, traces by start: see [`sort`].

mod attributes;
mod parents;
mod public;

use std::hash::Hash;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use hashbrown::HashMap;
use windrose_proto::Text;
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::model::{IngestProtocol, Reason, SpanKind};
use windrose_proto::normal::NormalSpan;
use windrose_proto::span::{Resource, Scope, Span, StatusCode};
use windrose_proto::time::UnixNanos;

use self::attributes::{AttributeReader, AttributeWriter, Shapes};
pub use self::parents::Restore;
pub(crate) use self::parents::Shorten;
use self::public::{Public, PublicReader};
use super::TableError;
use super::columns::{Columns, Reader, id_at, long_at, parse_word, text_at};
use super::hops::trace_at;
use super::otlp_json::{self, Malformed};
use crate::row::SpanRow;

/// The columns.
#[must_use]
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| to_batch(&[]).schema());
    Arc::clone(&SCHEMA)
}

/// What the rules read out of a span: a span as it was received is made without these columns.
const READ_OUT: [&str; 22] = [
    "consumer",
    "delay_ms",
    "dst_namespace",
    "dst_rule",
    "dst_service",
    "error",
    "fault",
    "fault_rule",
    "grpc_status",
    "identity_rule",
    "protocol",
    "proxy_kind",
    "proxy_rule",
    "reasons",
    "retry",
    "role_rule",
    "sampled",
    "tls",
    "upstream_subset",
    "vantage",
    "vantage_rule",
    "workload",
];

/// The columns that [`from_batch`] needs. A lookup of one trace spends its time on columns, not on rows.
#[must_use]
pub fn received_schema() -> SchemaRef {
    static RECEIVED: LazyLock<SchemaRef> = LazyLock::new(|| {
        let all = schema();
        let is_received = |field: &&FieldRef| READ_OUT.binary_search(&field.name().as_str()).is_err();
        Arc::new(Schema::new(all.fields().iter().filter(is_received).cloned().collect::<Vec<_>>()))
    });
    Arc::clone(&RECEIVED)
}

/// Puts the spans of a trace together, traces by their first start, spans by start. Equal input
/// in any order becomes equal output.
pub fn sort(rows: &mut [SpanRow]) {
    let mut starts: HashMap<TraceId, UnixNanos> = HashMap::new();
    for row in rows.iter() {
        let start = starts.entry(row.span.trace_id).or_insert(row.span.start);
        *start = (*start).min(row.span.start);
    }
    rows.sort_by_cached_key(|row| {
        let span = &row.span;
        (starts[&span.trace_id], span.trace_id, span.start, std::cmp::Reverse(span.end), span.span_id, span.kind)
    });
}

/// Rows as columns.
#[must_use]
pub fn to_batch(rows: &[SpanRow]) -> RecordBatch {
    Batches::default().to_batch(rows)
}

/// Rows as columns, batch after batch of one file.
#[derive(Debug)]
pub struct Batches {
    resources: SharedTexts<u64, Resource>,
    scopes: SharedTexts<Text, Scope>,
    shapes: Shapes,
}

impl Default for Batches {
    fn default() -> Self {
        Self {
            resources: SharedTexts::new(otlp_json::resource_to_text),
            scopes: SharedTexts::new(otlp_json::scope_to_text),
            shapes: Shapes::default(),
        }
    }
}

impl Batches {
    /// The next rows as columns.
    #[must_use]
    pub fn to_batch(&mut self, rows: &[SpanRow]) -> RecordBatch {
        let spans = rows.iter().map(|row| &*row.span);
        let normals = rows.iter().map(|row| &*row.normal);
        let public: Vec<Public<'_>> = rows.iter().map(Public::of).collect();
        let mut columns = Columns::default();
        push_ids_and_times(&mut columns, rows);
        columns.text("kind", spans.clone().map(|span| span.kind.as_str()));
        columns.text("name", spans.clone().map(|span| &*span.name));
        push_identity(&mut columns, normals.clone());
        push_destination(&mut columns, normals.clone());
        public::push(&mut columns, &public);
        push_outcome(&mut columns, normals.clone());
        columns.text_opt("consumer", normals.clone().map(|normal| normal.consumer().map(|name| &**name)));
        columns.text("tls", normals.map(|normal| normal.tls.as_str()));
        push_envelope(&mut columns, rows, self);
        let mut attributes = AttributeWriter::new(&mut self.shapes);
        for (row, public) in rows.iter().zip(&public) {
            attributes.append(&row.span.attributes, public);
        }
        attributes.finish(&mut columns);
        columns.finish(rows.len())
    }
}

fn push_ids_and_times(columns: &mut Columns, rows: &[SpanRow]) {
    let spans = rows.iter().map(|row| &*row.span);
    columns.id("trace_id", spans.clone().map(|span| *span.trace_id.as_bytes()));
    columns.id("span_id", spans.clone().map(|span| *span.span_id.as_bytes()));
    columns.id_opt("parent_span_id", spans.clone().map(|span| span.parent_span_id.map(|id| *id.as_bytes())));
    // Only files have distances.
    columns.int_opt("parent_back", spans.clone().map(|_| None));
    columns.long("start_ns", spans.clone().map(|span| span.start.0 as i64));
    // Wrapping, so that a span that ends before it starts keeps its end.
    columns.long("duration_ns", spans.map(|span| span.end.0.wrapping_sub(span.start.0) as i64));
    columns.long("delay_ms", rows.iter().map(delay_millis));
}

/// How long after its end a span arrived. In whole milliseconds it costs a byte a span; the time
/// of arrival to the nanosecond would cost three.
fn delay_millis(row: &SpanRow) -> i64 {
    row.arrived.0.wrapping_sub(row.span.end.0) as i64 / 1_000_000
}

fn push_identity<'a>(columns: &mut Columns, normals: impl Iterator<Item = &'a NormalSpan> + Clone) {
    columns.text("proxy_kind", normals.clone().map(|normal| normal.proxy_kind.as_str()));
    columns.text("proxy_rule", normals.clone().map(|normal| normal.proxy_rule.0));
    columns.text("vantage", normals.clone().map(|normal| normal.vantage.as_str()));
    columns.text("vantage_rule", normals.clone().map(|normal| normal.vantage_rule.0));
    columns.text_opt("node_role", normals.clone().map(|normal| public::role_word(normal.role)));
    columns.text("role_rule", normals.clone().map(|normal| normal.role_rule.0));
    let identity = normals.clone().map(|normal| &*normal.identity);
    columns.text("service", identity.clone().map(|identity| &*identity.service));
    columns.text_opt("namespace", identity.clone().map(|identity| identity.namespace.as_deref()));
    columns.text_opt("workload", identity.clone().map(|identity| identity.workload.as_deref()));
    columns.text_opt("version", identity.clone().map(|identity| identity.version.as_deref()));
    columns.text_opt("pod", identity.clone().map(|identity| identity.pod.as_deref()));
    columns.text_opt("cluster", identity.clone().map(|identity| identity.cluster.as_deref()));
    let addresses: Vec<Option<String>> = identity.map(|identity| identity.ip.map(|ip| ip.to_string())).collect();
    columns.text_opt("node_ip", addresses.iter().map(Option::as_deref));
    columns.text("identity_rule", normals.map(|normal| normal.identity_rule.0));
}

fn push_destination<'a>(columns: &mut Columns, normals: impl Iterator<Item = &'a NormalSpan> + Clone) {
    let to = normals.map(|normal| normal.destination.as_deref());
    columns.text_opt("dst_service", to.clone().map(|to| to.map(|to| &*to.service)));
    columns.text_opt("dst_namespace", to.clone().map(|to| to.and_then(|to| to.namespace.as_deref())));
    columns.text_opt("upstream_subset", to.clone().map(|to| to.and_then(|to| to.subset.as_deref())));
    columns.text_opt("dst_rule", to.map(|to| to.map(|to| to.rule.0)));
}

fn push_outcome<'a>(columns: &mut Columns, normals: impl Iterator<Item = &'a NormalSpan> + Clone) {
    columns.text("protocol", normals.clone().map(|normal| normal.protocol.as_str()));
    let outcome = normals.map(|normal| &normal.outcome);
    columns.int_opt("grpc_status", outcome.clone().map(|outcome| outcome.grpc_status.map(i32::from)));
    columns.words("reasons", outcome.clone().map(|outcome| outcome.reasons.iter().map(Reason::word)));
    columns.flag("error", outcome.clone().map(|outcome| outcome.error));
    columns.text("fault", outcome.clone().map(|outcome| outcome.fault.as_str()));
    columns.text("fault_rule", outcome.clone().map(|outcome| outcome.fault_rule.0));
    columns.int("retry", outcome.map(|outcome| i32::from(outcome.retry)));
}

/// What OTLP has besides ids, times and attributes. Zero and empty are null: they nearly always are.
fn push_envelope(columns: &mut Columns, rows: &[SpanRow], batches: &mut Batches) {
    let spans = rows.iter().map(|row| &*row.span);
    columns.flag("sampled", spans.clone().map(|span| span.flags & 1 != 0));
    columns.flag("shared_id", spans.clone().map(|span| span.shared));
    columns.text("ingest", spans.clone().map(|span| span.ingest.as_str()));
    columns.text("status", spans.clone().map(|span| status_word(span.status)));
    columns.text_opt("status_message", spans.clone().map(|span| non_empty(&span.status_message)));
    columns.text_opt("trace_state", spans.clone().map(|span| non_empty(&span.trace_state)));
    columns.long("flags_otlp", spans.clone().map(|span| i64::from(span.flags)));
    let dropped =
        |pick: fn(&Span) -> u32| spans.clone().map(move |span| Some(i64::from(pick(span))).filter(|count| *count != 0));
    columns.long_opt("dropped_attributes", dropped(|span| span.dropped_attributes_count));
    columns.long_opt("dropped_events", dropped(|span| span.dropped_events_count));
    columns.long_opt("dropped_links", dropped(|span| span.dropped_links_count));
    let events: Vec<Option<String>> =
        spans.clone().map(|span| (!span.events.is_empty()).then(|| otlp_json::events_to_text(&span.events))).collect();
    columns.text_opt("events", events.iter().map(Option::as_deref));
    let links: Vec<Option<String>> =
        spans.clone().map(|span| (!span.links.is_empty()).then(|| otlp_json::links_to_text(&span.links))).collect();
    columns.text_opt("links", links.iter().map(Option::as_deref));
    let resources = rows.iter().map(|row| (&row.span.resource, &row.normal.process.resource_hash));
    let resources = batches.resources.of(resources);
    columns.text("resource", resources.iter().map(|text| &**text));
    let scopes = batches.scopes.of(rows.iter().map(|row| (&row.span.scope, &row.span.scope.name)));
    columns.text("scope", scopes.iter().map(|text| &**text));
}

/// The texts of parts that many spans share, each written once. Spans of one request share the part itself; parts of
/// different requests are mostly equal, and equal parts have equal keys.
#[derive(Debug)]
struct SharedTexts<K, T> {
    write: fn(&T) -> String,
    known: HashMap<K, Vec<SharedText<T>>>,
}

type SharedText<T> = (Arc<T>, Arc<str>);

/// Parts kept per key: senders whose parts all differ must not make each wait for a long search.
const ALIKE_MAX: usize = 8;

impl<K: Clone + Eq + Hash, T: PartialEq> SharedTexts<K, T> {
    fn new(write: fn(&T) -> String) -> Self {
        Self { write, known: HashMap::new() }
    }

    /// The texts of these parts.
    fn of<'a>(&mut self, parts: impl Iterator<Item = (&'a Arc<T>, &'a K)>) -> Vec<Arc<str>>
    where
        T: 'a,
        K: 'a,
    {
        let mut here: HashMap<*const T, Arc<str>> = HashMap::new();
        let text = |(part, key)| Arc::clone(here.entry(Arc::as_ptr(part)).or_insert_with(|| self.get(part, key)));
        parts.map(text).collect()
    }

    fn get(&mut self, part: &Arc<T>, key: &K) -> Arc<str> {
        let alike = self.known.entry(key.clone()).or_default();
        if let Some((_, text)) = alike.iter().find(|(known, _)| known == part) {
            return Arc::clone(text);
        }
        let text: Arc<str> = (self.write)(part).into();
        if alike.len() < ALIKE_MAX {
            alike.push((Arc::clone(part), Arc::clone(&text)));
        }
        text
    }
}

fn non_empty(text: &Text) -> Option<&str> {
    (!text.is_empty()).then_some(&**text)
}

const fn status_word(status: StatusCode) -> &'static str {
    match status {
        StatusCode::Unset => "unset",
        StatusCode::Ok => "ok",
        StatusCode::Error => "error",
    }
}

fn parse_status(word: &str) -> Option<StatusCode> {
    [StatusCode::Unset, StatusCode::Ok, StatusCode::Error].into_iter().find(|status| status_word(*status) == word)
}

/// Columns as the spans that were received. Batches of a file go through one [`Restore`] first.
///
/// # Errors
/// When a column is missing or holds what this version does not know.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<Span>, TableError> {
    let batch = Restore::default().received(batch)?;
    let reader = Reader::new(&batch);
    let (trace_id, span_id) = (reader.id("trace_id")?, reader.id("span_id")?);
    let (parent, start) = (reader.id("parent_span_id")?, reader.long("start_ns")?);
    let duration = reader.long("duration_ns")?;
    let (kind, name, ingest) = (reader.text("kind")?, reader.text("name")?, reader.text("ingest")?);
    let (status, status_message) = (reader.text("status")?, reader.text("status_message")?);
    let (trace_state, flags) = (reader.text("trace_state")?, reader.long("flags_otlp")?);
    let shared = reader.flag("shared_id")?;
    let dropped_attributes = reader.long("dropped_attributes")?;
    let (dropped_events, dropped_links) = (reader.long("dropped_events")?, reader.long("dropped_links")?);
    let (events, links) = (reader.text("events")?, reader.text("links")?);
    let mut resource = SharedReader::new("resource", reader.text("resource")?, otlp_json::resource_from_text);
    let mut scope = SharedReader::new("scope", reader.text("scope")?, otlp_json::scope_from_text);
    let public = PublicReader::new(reader)?;
    let mut attributes = AttributeReader::new(reader)?;

    let text = |array, row| Text::from(text_at(array, row).unwrap_or_default());
    let count_at = |array, row| long_at(array, row).unwrap_or_default() as u32;
    let mut spans = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let start = start.value(row) as u64;
        spans.push(Span {
            trace_id: trace_at(trace_id, row)?,
            span_id: id_at(span_id, row)
                .and_then(SpanId::new)
                .ok_or_else(|| TableError::Inconsistent { column: "span_id".to_owned(), why: "all zero or null" })?,
            parent_span_id: id_at(parent, row).and_then(SpanId::new),
            trace_state: text(trace_state, row),
            flags: flags.value(row) as u32,
            name: Text::from(name.value(row)),
            kind: parse_word("kind", kind.value(row), SpanKind::parse)?,
            start: UnixNanos(start),
            end: UnixNanos(start.wrapping_add(duration.value(row) as u64)),
            attributes: attributes.get(row, &public.get(row))?,
            dropped_attributes_count: count_at(dropped_attributes, row),
            events: json_at("events", events, row, otlp_json::events_from_text)?,
            dropped_events_count: count_at(dropped_events, row),
            links: json_at("links", links, row, otlp_json::links_from_text)?,
            dropped_links_count: count_at(dropped_links, row),
            status: parse_word("status", status.value(row), parse_status)?,
            status_message: text(status_message, row),
            resource: resource.get(row)?,
            scope: scope.get(row)?,
            shared: shared.value(row),
            ingest: parse_word("ingest", ingest.value(row), IngestProtocol::parse)?,
        });
    }
    Ok(spans)
}

/// The trace id of each row of a batch that need not have other columns.
///
/// # Errors
/// When the column is missing or not ids.
pub fn trace_ids(batch: &RecordBatch) -> Result<Vec<TraceId>, TableError> {
    let missing = || TableError::MissingColumn("trace_id".to_owned());
    let ids = cast(batch.column_by_name("trace_id").ok_or_else(missing)?, &DataType::FixedSizeBinary(16))?;
    (0..ids.len()).map(|row| trace_at(ids.as_fixed_size_binary(), row)).collect()
}

fn json_at<T>(
    column: &str,
    array: &StringArray,
    row: usize,
    read: fn(&str) -> Result<Vec<T>, Malformed>,
) -> Result<Vec<T>, TableError> {
    match text_at(array, row) {
        None => Ok(Vec::new()),
        Some(text) => read(text).map_err(|Malformed| malformed(column)),
    }
}

fn malformed(column: &str) -> TableError {
    TableError::Inconsistent { column: column.to_owned(), why: "not the JSON this column is written in" }
}

/// Reads resources or scopes and shares equal ones.
struct SharedReader<'a, T> {
    name: &'static str,
    array: &'a StringArray,
    read: fn(&str) -> Result<T, Malformed>,
    seen: HashMap<&'a str, Arc<T>>,
}

impl<'a, T> SharedReader<'a, T> {
    fn new(name: &'static str, array: &'a StringArray, read: fn(&str) -> Result<T, Malformed>) -> Self {
        Self { name, array, read, seen: HashMap::new() }
    }

    fn get(&mut self, row: usize) -> Result<Arc<T>, TableError> {
        let text = self.array.value(row);
        if let Some(shared) = self.seen.get(text) {
            return Ok(Arc::clone(shared));
        }
        let shared = Arc::new((self.read)(text).map_err(|Malformed| malformed(self.name))?);
        self.seen.insert(text, Arc::clone(&shared));
        Ok(shared)
    }
}
