//! Pages in protobuf, as the text pages that say the same.
//!
//! A page is a list of `io.prometheus.client.MetricFamily`, each behind its length. Rewriting it means
//! that everything behind it is shared with text: the memory of a target's lines, limits, relabelling,
//! staleness, differences of counters. It costs about as much as reading the text it makes.
//!
//! ```text
//! MetricFamily  1 name  2 help  3 type  4 metric  5 unit
//! Metric        1 label (1 name  2 value)  2 gauge  3 counter  4 summary  5 untyped  6 timestamp_ms  7 histogram
//! Counter       1 value  2 exemplar  3 created_timestamp
//! Gauge, …      1 value
//! Summary       1 sample_count  2 sample_sum  3 quantile (1 quantile  2 value)  4 created_timestamp
//! Histogram     1 sample_count  2 sample_sum  3 bucket  4 sample_count_float  15 created_timestamp
//!               5 to 14 native  16 exemplars
//! Bucket        1 cumulative_count  2 upper_bound  3 exemplar  4 cumulative_count_float
//! Exemplar      1 label  2 value  3 timestamp (1 seconds  2 nanos)
//! ```
//!
//! Creation times become `_created` as in OpenMetrics. Native histograms are counted and left out; their
//! classic buckets, where a page has both, are kept.

use std::fmt::Write as _;

use windrose_proto::metric::MetricKind;
use windrose_proto::metric::labels::{is_legacy_label_name, is_legacy_metric_name};

use crate::decode::wire::{Field, Fields, Payload, WireError};

#[cfg(test)]
mod tests;

/// A page as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextPage {
    /// In the dialect [`super::Dialect::Text`].
    pub text: String,
    /// Native histograms that are not in it.
    pub native_histograms: u64,
}

/// Why a page cannot be rewritten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// It is no protobuf.
    #[error("page is not a list of MetricFamily: {0}")]
    Malformed(&'static str),
    /// It is protobuf, and not of this kind.
    #[error("{what} in family {family:?}")]
    Family { what: &'static str, family: String },
    /// Its text would be too long.
    #[error("page is more than {0} bytes as text")]
    TooLarge(usize),
}

/// Rewrites a page. Linear in the length of what it makes, which is at most `max_bytes` and a line.
///
/// # Errors
/// When anything in it cannot be read: a page is used whole or not at all.
pub fn to_text(page: &[u8], max_bytes: usize) -> Result<TextPage, ProtobufError> {
    let mut writer = Writer { page: TextPage::default(), max_bytes };
    let mut families = Fields::of(page);
    let malformed = |error: WireError| ProtobufError::Malformed(describe(error));
    while let Some(message) = families.next_delimited().map_err(malformed)? {
        let family = Family::read(message).map_err(|fault| fault.of_family(""))?;
        writer.family(&family).map_err(|fault| fault.of_family(family.name))?;
    }
    Ok(writer.page)
}

/// What is wrong inside a family.
enum Fault {
    What(&'static str),
    TooLarge(usize),
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Self::What(describe(error))
    }
}

impl Fault {
    fn of_family(self, family: &str) -> ProtobufError {
        match self {
            Self::What(what) => ProtobufError::Family { what, family: family.to_owned() },
            Self::TooLarge(max_bytes) => ProtobufError::TooLarge(max_bytes),
        }
    }
}

const fn describe(error: WireError) -> &'static str {
    match error {
        WireError::Truncated => "a field runs past the end of its message",
        WireError::VarintTooLong => "a number is longer than 64 bits",
        WireError::BadKey => "a field key is out of range",
        WireError::BadWireType(_) => "a field has an unknown wire type",
        WireError::BadGroup => "a group does not end",
        WireError::WrongType(_) => "a field has the wrong wire type",
    }
}

// === messages ===

/// A family as far as it is needed before its metrics.
#[derive(Default)]
struct Family<'a> {
    name: &'a str,
    help: &'a str,
    unit: &'a str,
    kind: Kind,
    metrics: Vec<&'a [u8]>,
}

/// The type of a family; that of the first number is meant when none is stated.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Counter,
    Gauge,
    Summary,
    Untyped,
    Histogram,
    GaugeHistogram,
}

impl Kind {
    const fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Counter,
            1 => Self::Gauge,
            2 => Self::Summary,
            3 => Self::Untyped,
            4 => Self::Histogram,
            5 => Self::GaugeHistogram,
            _ => return None,
        })
    }

    /// The field of a metric that holds its numbers.
    const fn field(self) -> u32 {
        match self {
            Self::Gauge => 2,
            Self::Counter => 3,
            Self::Summary => 4,
            Self::Untyped => 5,
            Self::Histogram | Self::GaugeHistogram => 7,
        }
    }

    const fn metric_kind(self) -> MetricKind {
        match self {
            Self::Counter => MetricKind::Counter,
            Self::Gauge => MetricKind::Gauge,
            Self::Summary => MetricKind::Summary,
            Self::Untyped => MetricKind::Unknown,
            Self::Histogram => MetricKind::Histogram,
            Self::GaugeHistogram => MetricKind::GaugeHistogram,
        }
    }
}

impl<'a> Family<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Fault> {
        let mut family = Self::default();
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => family.name = text(&field)?,
                2 => family.help = text(&field)?,
                3 => family.kind = Kind::from_number(field.int32()?).ok_or(Fault::What("an unknown type"))?,
                4 => family.metrics.push(field.bytes()?),
                5 => family.unit = text(&field)?,
                _ => {}
            }
        }
        if family.name.is_empty() { Err(Fault::What("no name")) } else { Ok(family) }
    }
}

/// One label set of a family.
struct Metric<'a> {
    /// `a="b",c="d"`, escaped.
    labels: String,
    timestamp_ms: i64,
    /// The message with the numbers.
    numbers: &'a [u8],
}

impl<'a> Metric<'a> {
    fn read(message: &'a [u8], kind: Kind) -> Result<Self, Fault> {
        let (mut labels, mut timestamp_ms, mut numbers) = (String::new(), 0, None);
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => push_label(&mut labels, field.bytes()?)?,
                6 => timestamp_ms = field.varint()?.cast_signed(),
                number if number == kind.field() => numbers = Some(field.bytes()?),
                _ => {}
            }
        }
        let numbers = numbers.ok_or(Fault::What("a metric without a value of the family's type"))?;
        Ok(Self { labels, timestamp_ms, numbers })
    }
}

/// An exemplar as it stands behind a sample.
fn exemplar(message: &[u8]) -> Result<String, Fault> {
    let (mut labels, mut value, mut time) = (String::new(), 0.0, None);
    let mut fields = Fields::of(message);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => push_label(&mut labels, field.bytes()?)?,
            2 => value = double(&field)?,
            3 => time = seconds(field.bytes()?)?,
            _ => {}
        }
    }
    let mut text = format!(" # {{{labels}}} ");
    push_number(&mut text, value);
    if let Some(time) = time {
        text.push(' ');
        text.push_str(&time);
    }
    Ok(text)
}

/// A `google.protobuf.Timestamp` in seconds; `None` when it is out of its range.
fn seconds(message: &[u8]) -> Result<Option<String>, Fault> {
    let (mut seconds, mut nanos) = (0_i64, 0);
    let mut fields = Fields::of(message);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => seconds = field.varint()?.cast_signed(),
            2 => nanos = field.int32()?,
            _ => {}
        }
    }
    // Years 1970 to 9999, as the type is defined from 1 to 9999.
    let is_time = (0..253_402_300_800).contains(&seconds) && (0..1_000_000_000).contains(&nanos);
    Ok(is_time.then(|| format!("{seconds}.{:03}", nanos / 1_000_000)))
}

fn push_label(labels: &mut String, message: &[u8]) -> Result<(), Fault> {
    let (mut name, mut value) = ("", "");
    let mut fields = Fields::of(message);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => name = text(&field)?,
            2 => value = text(&field)?,
            _ => {}
        }
    }
    if name.is_empty() {
        return Err(Fault::What("a label without a name"));
    }
    if !labels.is_empty() {
        labels.push(',');
    }
    if is_legacy_label_name(name) {
        labels.push_str(name)
    } else {
        push_quoted(labels, name)
    }
    labels.push('=');
    push_quoted(labels, value);
    Ok(())
}

fn text<'a>(field: &Field<'a>) -> Result<&'a str, Fault> {
    std::str::from_utf8(field.bytes()?).map_err(|_| Fault::What("a text that is not UTF-8"))
}

fn double(field: &Field<'_>) -> Result<f64, Fault> {
    Ok(f64::from_bits(field.fixed64()?))
}

// === text ===

struct Writer {
    page: TextPage,
    max_bytes: usize,
}

/// A sample's place in its family.
struct Series<'s> {
    /// Name of the family and what follows it.
    name: &'s str,
    suffix: &'s str,
    labels: &'s str,
    /// `le` or `quantile`, and its value.
    bound: Option<(&'static str, f64)>,
}

impl Writer {
    fn family(&mut self, family: &Family<'_>) -> Result<(), Fault> {
        self.metadata(family)?;
        for message in &family.metrics {
            let metric = Metric::read(message, family.kind)?;
            match family.kind {
                Kind::Counter => self.counter(family.name, &metric)?,
                Kind::Gauge | Kind::Untyped => self.single(family.name, &metric)?,
                Kind::Summary => self.summary(family.name, &metric)?,
                Kind::Histogram | Kind::GaugeHistogram => self.histogram(family.name, &metric)?,
            }
        }
        Ok(())
    }

    fn metadata(&mut self, family: &Family<'_>) -> Result<(), Fault> {
        let kind = family.kind.metric_kind().as_str();
        for (keyword, text) in [("TYPE", kind), ("HELP", family.help), ("UNIT", family.unit)] {
            if text.is_empty() {
                continue;
            }
            let line = &mut self.page.text;
            line.push_str("# ");
            line.push_str(keyword);
            line.push(' ');
            if is_legacy_metric_name(family.name) {
                line.push_str(family.name);
            } else {
                push_quoted(line, family.name);
            }
            line.push(' ');
            push_escaped(line, text, false);
            self.end_line()?;
        }
        Ok(())
    }

    fn single(&mut self, name: &str, metric: &Metric<'_>) -> Result<(), Fault> {
        let mut value = 0.0;
        let mut fields = Fields::of(metric.numbers);
        while let Some(field) = fields.next()? {
            if field.number == 1 {
                value = double(&field)?;
            }
        }
        self.sample(&Series { name, suffix: "", labels: &metric.labels, bound: None }, value, metric, "")
    }

    fn counter(&mut self, name: &str, metric: &Metric<'_>) -> Result<(), Fault> {
        let (mut value, mut example, mut created) = (0.0, String::new(), None);
        let mut fields = Fields::of(metric.numbers);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => value = double(&field)?,
                2 => example = exemplar(field.bytes()?)?,
                3 => created = seconds(field.bytes()?)?,
                _ => {}
            }
        }
        self.sample(&Series { name, suffix: "", labels: &metric.labels, bound: None }, value, metric, &example)?;
        self.created(name.strip_suffix("_total").unwrap_or(name), metric, created.as_deref())
    }

    fn summary(&mut self, name: &str, metric: &Metric<'_>) -> Result<(), Fault> {
        let labels = &*metric.labels;
        let (mut count, mut sum, mut created) = (0, 0.0, None);
        let mut fields = Fields::of(metric.numbers);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => count = field.varint()?,
                2 => sum = double(&field)?,
                3 => {
                    let (quantile, value) = quantile(field.bytes()?)?;
                    let bound = Some(("quantile", quantile));
                    self.sample(&Series { name, suffix: "", labels, bound }, value, metric, "")?;
                }
                4 => created = seconds(field.bytes()?)?,
                _ => {}
            }
        }
        self.totals(name, metric, count as f64, sum)?;
        self.created(name, metric, created.as_deref())
    }

    fn histogram(&mut self, name: &str, metric: &Metric<'_>) -> Result<(), Fault> {
        let histogram = Histogram::read(metric.numbers)?;
        if histogram.is_native {
            self.page.native_histograms += 1;
            if histogram.buckets.is_empty() {
                return Ok(());
            }
        }
        let series = |bound| Series { name, suffix: "_bucket", labels: &metric.labels, bound: Some(("le", bound)) };
        let mut has_last = false;
        for bucket in &histogram.buckets {
            let Bucket { count, upper_bound, exemplar } = Bucket::read(bucket)?;
            has_last |= upper_bound == f64::INFINITY;
            self.sample(&series(upper_bound), count, metric, &exemplar)?;
        }
        if !has_last {
            self.sample(&series(f64::INFINITY), histogram.count, metric, "")?;
        }
        self.totals(name, metric, histogram.count, histogram.sum)?;
        self.created(name, metric, histogram.created.as_deref())
    }

    fn totals(&mut self, name: &str, metric: &Metric<'_>, count: f64, sum: f64) -> Result<(), Fault> {
        let series = |suffix| Series { name, suffix, labels: &metric.labels, bound: None };
        self.sample(&series("_sum"), sum, metric, "")?;
        self.sample(&series("_count"), count, metric, "")
    }

    fn created(&mut self, name: &str, metric: &Metric<'_>, created: Option<&str>) -> Result<(), Fault> {
        let Some(created) = created else { return Ok(()) };
        self.series(&Series { name, suffix: "_created", labels: &metric.labels, bound: None });
        self.page.text.push_str(created);
        self.rest(metric, "")
    }

    fn sample(&mut self, series: &Series<'_>, value: f64, metric: &Metric<'_>, exemplar: &str) -> Result<(), Fault> {
        self.series(series);
        push_number(&mut self.page.text, value);
        self.rest(metric, exemplar)
    }

    /// `name_suffix{labels,le="1"} `
    fn series(&mut self, series: &Series<'_>) {
        let Series { name, suffix, labels, bound } = series;
        let line = &mut self.page.text;
        let is_bare = is_legacy_metric_name(name);
        if is_bare {
            line.push_str(name);
            line.push_str(suffix);
        }
        let has_block = !is_bare || !labels.is_empty() || bound.is_some();
        if has_block {
            line.push('{');
        }
        let mut comma = "";
        if !is_bare {
            line.push('"');
            push_escaped(line, name, true);
            line.push_str(suffix);
            line.push('"');
            comma = ",";
        }
        if !labels.is_empty() {
            line.push_str(comma);
            line.push_str(labels);
            comma = ",";
        }
        if let Some((bound, value)) = bound {
            line.push_str(comma);
            line.push_str(bound);
            line.push_str("=\"");
            push_number(line, *value);
            line.push('"');
        }
        if has_block {
            line.push('}');
        }
        line.push(' ');
    }

    fn rest(&mut self, metric: &Metric<'_>, exemplar: &str) -> Result<(), Fault> {
        if metric.timestamp_ms != 0 {
            // Writing to a string cannot fail.
            let _written = write!(self.page.text, " {}", metric.timestamp_ms);
        }
        self.page.text.push_str(exemplar);
        self.end_line()
    }

    fn end_line(&mut self) -> Result<(), Fault> {
        self.page.text.push('\n');
        if self.page.text.len() > self.max_bytes { Err(Fault::TooLarge(self.max_bytes)) } else { Ok(()) }
    }
}

/// The classic part of a histogram.
#[derive(Default)]
struct Histogram<'a> {
    count: f64,
    sum: f64,
    buckets: Vec<&'a [u8]>,
    created: Option<String>,
    /// There is another part.
    is_native: bool,
}

impl<'a> Histogram<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Fault> {
        let mut histogram = Self::default();
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => histogram.count = histogram.count.max(field.varint()? as f64),
                // Of a float histogram, whose whole count is 0.
                4 => histogram.count = histogram.count.max(double(&field)?),
                2 => histogram.sum = double(&field)?,
                3 => histogram.buckets.push(field.bytes()?),
                15 => histogram.created = seconds(field.bytes()?)?,
                // A schema alone, which may be 0, says nothing: spans and a zero bucket do.
                6 | 8 => histogram.is_native |= double(&field)? > 0.0,
                7 => histogram.is_native |= field.varint()? > 0,
                9 | 12 => histogram.is_native = true,
                _ => {}
            }
        }
        Ok(histogram)
    }
}

struct Bucket {
    count: f64,
    upper_bound: f64,
    exemplar: String,
}

impl Bucket {
    fn read(message: &[u8]) -> Result<Self, Fault> {
        let mut bucket = Self { count: 0.0, upper_bound: 0.0, exemplar: String::new() };
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next()? {
            match (field.number, field.payload) {
                (1, _) => bucket.count = bucket.count.max(field.varint()? as f64),
                (4, Payload::Fixed64(bits)) => bucket.count = bucket.count.max(f64::from_bits(bits)),
                (2, _) => bucket.upper_bound = double(&field)?,
                (3, _) => bucket.exemplar = exemplar(field.bytes()?)?,
                _ => {}
            }
        }
        Ok(bucket)
    }
}

fn quantile(message: &[u8]) -> Result<(f64, f64), Fault> {
    let (mut quantile, mut value) = (0.0, 0.0);
    let mut fields = Fields::of(message);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => quantile = double(&field)?,
            2 => value = double(&field)?,
            _ => {}
        }
    }
    Ok((quantile, value))
}

/// Whole numbers up to here are written without a fraction or an exponent.
const WHOLE_MAX: f64 = 1e15;

fn push_number(line: &mut String, value: f64) {
    // Writing to a string cannot fail.
    let _written = match value {
        f64::INFINITY => line.write_str("+Inf"),
        f64::NEG_INFINITY => line.write_str("-Inf"),
        value if value.is_nan() => line.write_str("NaN"),
        value if value == value.trunc() && value.abs() < WHOLE_MAX && value.to_bits() != (-0.0_f64).to_bits() => {
            write!(line, "{}", value as i64)
        }
        value if value == 0.0 || (1e-5..WHOLE_MAX).contains(&value.abs()) => write!(line, "{value}"),
        value => write!(line, "{value:e}"),
    };
}

fn push_quoted(line: &mut String, text: &str) {
    line.push('"');
    push_escaped(line, text, true);
    line.push('"');
}

/// `\\`, `\n` and, between quotes, `\"`.
fn push_escaped(line: &mut String, text: &str, is_quoted: bool) {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'\\' | b'\n') || byte == b'"' && is_quoted) {
        line.push_str(&rest[..at]);
        line.push_str(match rest.as_bytes()[at] {
            b'\n' => "\\n",
            b'"' => "\\\"",
            _ => "\\\\",
        });
        rest = &rest[at + 1..];
    }
    line.push_str(rest);
}
