//! Columns of `edges`: one row per window and edge, everything a topology answer needs.
//!
//! All numbers are sums and may be negative in correction rows: add rows up before reading them.
//! A sketch is a list of `{bucket, count}` where bucket `i` holds latencies in
//! `[2^(i/16), 2^((i+1)/16))` nanoseconds. `*_slowest` are the slowest calls with their traces,
//! `*_slowest_removed` take entries of other rows away, `*_slowest_cut` says that there were more.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, FixedSizeBinaryArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use hashbrown::HashMap;
use windrose_proto::Text;
use windrose_proto::edge::{CounterStats, EdgeKey, EdgeRow, EdgeStats, ErrorClass, Largest, Latency, SpanStats};
use windrose_proto::id::TraceId;
use windrose_proto::model::{Direction, Fault, Protocol, Reason};
use windrose_proto::sketch::{Bucket, Sketch};
use windrose_proto::time::UnixNanos;

use super::columns::{Columns, Reader, StructList, decimal_at, id_at, ids, long_at, parse_word, text_at};
use super::node::{EntryReader, NodeReader, push_entry, push_node, push_node_opt};
use super::{Table, TableError, conform};

/// The columns.
#[must_use]
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| to_batch(&[]).schema());
    Arc::clone(&SCHEMA)
}

/// Plain sums of [`SpanStats`]: column name, read, write.
type Sum<T> = (&'static str, fn(&T) -> i64, fn(&mut T, i64));

const SPAN_SUMS: [Sum<SpanStats>; 16] = [
    ("calls", |stats| stats.calls, |stats, sum| stats.calls = sum),
    ("attempts", |stats| stats.attempts, |stats, sum| stats.attempts = sum),
    ("errors", |stats| stats.errors, |stats, sum| stats.errors = sum),
    ("attempt_errors", |stats| stats.attempt_errors, |stats, sum| stats.attempt_errors = sum),
    ("both_sides", |stats| stats.both_sides, |stats, sum| stats.both_sides = sum),
    ("tls_mutual", |stats| stats.tls_mutual, |stats, sum| stats.tls_mutual = sum),
    ("tls_known", |stats| stats.tls_known, |stats, sum| stats.tls_known = sum),
    ("req_bytes", |stats| stats.request_bytes, |stats, sum| stats.request_bytes = sum),
    ("resp_bytes", |stats| stats.response_bytes, |stats, sum| stats.response_bytes = sum),
    ("spans", |stats| stats.spans, |stats, sum| stats.spans = sum),
    ("inferred", |stats| stats.inferred, |stats, sum| stats.inferred = sum),
    ("logged", |stats| stats.logged, |stats, sum| stats.logged = sum),
    ("late", |stats| stats.late, |stats, sum| stats.late = sum),
    ("duplicate", |stats| stats.duplicate, |stats, sum| stats.duplicate = sum),
    ("late_server", |stats| stats.late_server, |stats, sum| stats.late_server = sum),
    ("mirrored", |stats| stats.mirrored, |stats, sum| stats.mirrored = sum),
];

const COUNTER_SUMS: [Sum<CounterStats>; 16] = [
    ("calls", |stats| stats.calls, |stats, sum| stats.calls = sum),
    ("attempts", |stats| stats.attempts, |stats, sum| stats.attempts = sum),
    ("errors", |stats| stats.errors, |stats, sum| stats.errors = sum),
    ("retries", |stats| stats.retries, |stats, sum| stats.retries = sum),
    ("retries_succeeded", |stats| stats.retries_succeeded, |stats, sum| stats.retries_succeeded = sum),
    ("retries_exhausted", |stats| stats.retries_exhausted, |stats, sum| stats.retries_exhausted = sum),
    ("timeouts", |stats| stats.timeouts, |stats, sum| stats.timeouts = sum),
    ("circuit_rejected", |stats| stats.circuit_rejected, |stats, sum| stats.circuit_rejected = sum),
    ("connect_failures", |stats| stats.connect_failures, |stats, sum| stats.connect_failures = sum),
    ("resets", |stats| stats.resets, |stats, sum| stats.resets = sum),
    ("ejections", |stats| stats.ejections, |stats, sum| stats.ejections = sum),
    ("bytes_sent", |stats| stats.bytes_sent, |stats, sum| stats.bytes_sent = sum),
    ("bytes_received", |stats| stats.bytes_received, |stats, sum| stats.bytes_received = sum),
    ("tls_mutual", |stats| stats.tls_mutual, |stats, sum| stats.tls_mutual = sum),
    ("tls_known", |stats| stats.tls_known, |stats, sum| stats.tls_known = sum),
    ("scrapes", |stats| stats.scrapes, |stats, sum| stats.scrapes = sum),
];

/// Rows as columns.
#[must_use]
pub fn to_batch(rows: &[EdgeRow]) -> RecordBatch {
    let keys = rows.iter().map(|row| &*row.key);
    let spans = || rows.iter().map(|row| &row.stats.spans);
    let mut columns = Columns::default();
    columns.long("window_start_ns", rows.iter().map(|row| row.window_start.0 as i64));
    columns.long("window_ns", rows.iter().map(|row| row.window_nanos as i64));
    push_node(&mut columns, "src", keys.clone().map(|key| &*key.source));
    push_node(&mut columns, "dst", keys.clone().map(|key| &*key.destination));
    push_node_opt(&mut columns, "origin", keys.clone().map(|key| key.origin.as_deref()));
    columns.text("direction", keys.clone().map(|key| key.direction.as_str()));
    columns.text("protocol", keys.clone().map(|key| key.protocol.as_str()));
    push_entry(&mut columns, keys.map(|key| key.entry.as_ref()));

    for (name, read, _) in SPAN_SUMS {
        columns.long(name, spans().map(read));
    }
    columns.decimal("overhead_sum_ns", spans().map(|stats| stats.overhead_sum_nanos));
    push_classes(&mut columns, rows);
    push_latency(&mut columns, "client", rows, |stats| &stats.client);
    push_latency(&mut columns, "server", rows, |stats| &stats.server);
    push_largest(&mut columns, "latest_errors", spans().map(|stats| &stats.latest_errors));
    push_counters(&mut columns, "client_counter", rows, |stats| &stats.client_counters);
    push_counters(&mut columns, "server_counter", rows, |stats| &stats.server_counters);
    columns.finish(rows.len())
}

fn push_classes(columns: &mut Columns, rows: &[EdgeRow]) {
    let lengths = rows.iter().map(|row| row.stats.spans.by_class.len());
    let classes = || rows.iter().flat_map(|row| &row.stats.spans.by_class);
    let reason = |class: &ErrorClass| class.reason.as_ref().map(Reason::word);
    columns.structs(
        "by_class",
        lengths,
        vec![
            (
                "code",
                false,
                Arc::new(classes().map(|(class, _)| Some(&*class.code)).collect::<StringArray>()) as ArrayRef,
            ),
            ("reason", true, Arc::new(classes().map(|(class, _)| reason(class)).collect::<StringArray>())),
            ("fault", false, Arc::new(classes().map(|(class, _)| Some(class.fault.as_str())).collect::<StringArray>())),
            ("count", false, Arc::new(Int64Array::from_iter_values(classes().map(|(_, count)| *count)))),
        ],
    );
}

fn push_latency(columns: &mut Columns, side: &str, rows: &[EdgeRow], pick: fn(&SpanStats) -> &Latency) {
    let sides = || rows.iter().map(move |row| pick(&row.stats.spans));
    columns.long(format!("{side}_count"), sides().map(|latency| latency.count));
    columns.decimal(format!("{side}_sum_ns"), sides().map(|latency| latency.sum_nanos));
    let buckets = || sides().flat_map(|latency| latency.sketch.buckets());
    columns.structs(
        format!("{side}_sketch"),
        sides().map(|latency| latency.sketch.buckets().len()),
        vec![
            (
                "bucket",
                false,
                Arc::new(Int32Array::from_iter_values(buckets().map(|(bucket, _)| i32::from(bucket.0)))) as ArrayRef,
            ),
            ("count", false, Arc::new(Int64Array::from_iter_values(buckets().map(|(_, count)| *count)))),
        ],
    );
    push_largest(columns, &format!("{side}_slowest"), sides().map(|latency| &latency.slowest));
}

fn push_largest<'a>(columns: &mut Columns, name: &str, lists: impl Iterator<Item = &'a Largest> + Clone) {
    push_entries(columns, name.to_owned(), lists.clone().map(Largest::entries));
    push_entries(columns, format!("{name}_removed"), lists.clone().map(Largest::removals));
    columns.flag(format!("{name}_cut"), lists.clone().map(|list| list.cut().is_some()));
    columns.long_opt(format!("{name}_cut_ns"), lists.clone().map(|list| list.cut().map(|(nanos, _)| nanos as i64)));
    columns.id_opt(format!("{name}_cut_trace"), lists.map(|list| list.cut().map(|(_, trace)| *trace.as_bytes())));
}

#[expect(clippy::needless_pass_by_value, reason = "an iterator that is cloned for every column")]
fn push_entries<'a>(columns: &mut Columns, name: String, lists: impl Iterator<Item = &'a [(u64, TraceId)]> + Clone) {
    let entries = || lists.clone().flatten();
    columns.structs(
        name,
        lists.clone().map(<[_]>::len),
        vec![
            (
                "ns",
                false,
                Arc::new(Int64Array::from_iter_values(entries().map(|(nanos, _)| *nanos as i64))) as ArrayRef,
            ),
            ("trace_id", false, Arc::new(ids(entries().map(|(_, trace)| Some(*trace.as_bytes()))))),
        ],
    );
}

fn push_counters(columns: &mut Columns, side: &str, rows: &[EdgeRow], pick: fn(&EdgeStats) -> &CounterStats) {
    let sides = || rows.iter().map(move |row| pick(&row.stats));
    for (name, read, _) in COUNTER_SUMS {
        columns.long(format!("{side}_{name}"), sides().map(read));
    }
    let codes = || sides().flat_map(|counters| &counters.by_code);
    columns.structs(
        format!("{side}_by_code"),
        sides().map(|counters| counters.by_code.len()),
        vec![
            ("code", false, Arc::new(codes().map(|(code, _)| Some(&**code)).collect::<StringArray>()) as ArrayRef),
            ("count", false, Arc::new(Int64Array::from_iter_values(codes().map(|(_, count)| *count)))),
        ],
    );
}

/// Columns as rows.
///
/// # Errors
/// When a column is missing or holds what this version does not know.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<EdgeRow>, TableError> {
    let batch = conform(batch, Table::Edges)?;
    let reader = Reader::new(&batch);
    let (window_start, window) = (reader.long("window_start_ns")?, reader.long("window_ns")?);
    let mut keys = KeyReader::new(reader)?;
    let mut stats = StatsReader::new(reader)?;
    (0..batch.num_rows())
        .map(|row| {
            Ok(EdgeRow {
                window_start: UnixNanos(window_start.value(row) as u64),
                window_nanos: window.value(row) as u64,
                key: keys.get(row)?,
                stats: Arc::new(stats.get(row)?),
            })
        })
        .collect()
}

/// Reads edge keys and shares equal ones: the same edges come in window after window.
struct KeyReader<'a> {
    source: NodeReader<'a>,
    destination: NodeReader<'a>,
    origin: NodeReader<'a>,
    entry: EntryReader<'a>,
    direction: &'a StringArray,
    protocol: &'a StringArray,
    seen: HashMap<EdgeKey, Arc<EdgeKey>>,
}

impl<'a> KeyReader<'a> {
    fn new(reader: Reader<'a>) -> Result<Self, TableError> {
        Ok(Self {
            source: NodeReader::new(reader, "src")?,
            destination: NodeReader::new(reader, "dst")?,
            origin: NodeReader::new(reader, "origin")?,
            entry: EntryReader::new(reader)?,
            direction: reader.text("direction")?,
            protocol: reader.text("protocol")?,
            seen: HashMap::new(),
        })
    }

    fn get(&mut self, row: usize) -> Result<Arc<EdgeKey>, TableError> {
        let key = EdgeKey {
            source: self.source.require(row)?,
            destination: self.destination.require(row)?,
            direction: parse_word("direction", self.direction.value(row), Direction::parse)?,
            protocol: parse_word("protocol", self.protocol.value(row), Protocol::parse)?,
            entry: self.entry.get(row)?,
            origin: self.origin.get(row)?,
        };
        Ok(Arc::clone(self.seen.entry(key).or_insert_with_key(|key| Arc::new(key.clone()))))
    }
}

/// Reads the sums of a row.
struct StatsReader<'a> {
    sums: Vec<&'a Int64Array>,
    overhead: &'a arrow::array::Decimal128Array,
    classes: StructList<'a>,
    client: LatencyReader<'a>,
    server: LatencyReader<'a>,
    latest_errors: LargestReader<'a>,
    client_counters: CounterReader<'a>,
    server_counters: CounterReader<'a>,
    codes: HashMap<String, Text>,
}

impl<'a> StatsReader<'a> {
    fn new(reader: Reader<'a>) -> Result<Self, TableError> {
        Ok(Self {
            sums: SPAN_SUMS.iter().map(|(name, ..)| reader.long(name)).collect::<Result<_, _>>()?,
            overhead: reader.decimal("overhead_sum_ns")?,
            classes: StructList::new(reader, "by_class")?,
            client: LatencyReader::new(reader, "client")?,
            server: LatencyReader::new(reader, "server")?,
            latest_errors: LargestReader::new(reader, "latest_errors")?,
            client_counters: CounterReader::new(reader, "client_counter")?,
            server_counters: CounterReader::new(reader, "server_counter")?,
            codes: HashMap::new(),
        })
    }

    fn get(&mut self, row: usize) -> Result<EdgeStats, TableError> {
        let mut spans = SpanStats::default();
        for ((.., write), sums) in SPAN_SUMS.iter().zip(&self.sums) {
            write(&mut spans, sums.value(row));
        }
        spans.overhead_sum_nanos = decimal_at(self.overhead, row);
        spans.by_class = self.classes_at(row)?;
        spans.client = self.client.get(row)?;
        spans.server = self.server.get(row)?;
        spans.latest_errors = self.latest_errors.get(row)?;
        Ok(EdgeStats {
            spans,
            client_counters: self.client_counters.get(row, &mut self.codes),
            server_counters: self.server_counters.get(row, &mut self.codes),
        })
    }

    fn classes_at(&mut self, row: usize) -> Result<BTreeMap<ErrorClass, i64>, TableError> {
        let (code, reason) = (self.classes.texts(0), self.classes.texts(1));
        let (fault, count) = (self.classes.texts(2), self.classes.longs(3));
        self.classes
            .range(row)
            .map(|item| {
                let reason = text_at(reason, item).map(|word| parse_word("by_class", word, Reason::parse));
                let class = ErrorClass {
                    code: shared_text(&mut self.codes, code.value(item)),
                    reason: reason.transpose()?,
                    fault: parse_word("by_class", fault.value(item), Fault::parse)?,
                };
                Ok((class, count.value(item)))
            })
            .collect()
    }
}

struct LatencyReader<'a> {
    count: &'a Int64Array,
    sum: &'a arrow::array::Decimal128Array,
    sketch: StructList<'a>,
    slowest: LargestReader<'a>,
}

impl<'a> LatencyReader<'a> {
    fn new(reader: Reader<'a>, side: &str) -> Result<Self, TableError> {
        Ok(Self {
            count: reader.long(&format!("{side}_count"))?,
            sum: reader.decimal(&format!("{side}_sum_ns"))?,
            sketch: StructList::new(reader, &format!("{side}_sketch"))?,
            slowest: LargestReader::new(reader, &format!("{side}_slowest"))?,
        })
    }

    fn get(&self, row: usize) -> Result<Latency, TableError> {
        let (bucket, count) = (self.sketch.ints(0), self.sketch.longs(1));
        let buckets = self.sketch.range(row).map(|item| (Bucket(bucket.value(item) as u16), count.value(item)));
        Ok(Latency {
            count: self.count.value(row),
            sum_nanos: decimal_at(self.sum, row),
            sketch: Sketch::from_buckets(buckets),
            slowest: self.slowest.get(row)?,
        })
    }
}

struct LargestReader<'a> {
    entries: StructList<'a>,
    removed: StructList<'a>,
    cut_ns: &'a Int64Array,
    cut_trace: &'a FixedSizeBinaryArray,
}

impl<'a> LargestReader<'a> {
    fn new(reader: Reader<'a>, name: &str) -> Result<Self, TableError> {
        Ok(Self {
            entries: StructList::new(reader, name)?,
            removed: StructList::new(reader, &format!("{name}_removed"))?,
            cut_ns: reader.long(&format!("{name}_cut_ns"))?,
            cut_trace: reader.id(&format!("{name}_cut_trace"))?,
        })
    }

    fn get(&self, row: usize) -> Result<Largest, TableError> {
        let (entries, removed) = (entries_at(&self.entries, row)?, entries_at(&self.removed, row)?);
        let trace = id_at(self.cut_trace, row).and_then(TraceId::new);
        let cut = long_at(self.cut_ns, row).map(|nanos| nanos as u64).zip(trace);
        Ok(Largest::from_parts(entries, removed, cut))
    }
}

fn entries_at(list: &StructList<'_>, row: usize) -> Result<Vec<(u64, TraceId)>, TableError> {
    let (nanos, trace) = (list.longs(0), list.ids(1));
    list.range(row)
        .map(|item| {
            let trace = id_at(trace, item).and_then(TraceId::new);
            let missing =
                || TableError::Inconsistent { column: "slowest".to_owned(), why: "trace id all zero or null" };
            Ok((nanos.value(item) as u64, trace.ok_or_else(missing)?))
        })
        .collect()
}

struct CounterReader<'a> {
    sums: Vec<&'a Int64Array>,
    by_code: StructList<'a>,
}

impl<'a> CounterReader<'a> {
    fn new(reader: Reader<'a>, side: &str) -> Result<Self, TableError> {
        Ok(Self {
            sums: COUNTER_SUMS
                .iter()
                .map(|(name, ..)| reader.long(&format!("{side}_{name}")))
                .collect::<Result<_, _>>()?,
            by_code: StructList::new(reader, &format!("{side}_by_code"))?,
        })
    }

    fn get(&self, row: usize, codes: &mut HashMap<String, Text>) -> CounterStats {
        let mut counters = CounterStats::default();
        for ((.., write), sums) in COUNTER_SUMS.iter().zip(&self.sums) {
            write(&mut counters, sums.value(row));
        }
        let (code, count) = (self.by_code.texts(0), self.by_code.longs(1));
        counters.by_code =
            self.by_code.range(row).map(|item| (shared_text(codes, code.value(item)), count.value(item))).collect();
        counters
    }
}

/// One copy of each distinct code.
fn shared_text(seen: &mut HashMap<String, Text>, text: &str) -> Text {
    if let Some(shared) = seen.get(text) {
        return shared.clone();
    }
    let shared = Text::from(text);
    seen.insert(text.to_owned(), shared.clone());
    shared
}
