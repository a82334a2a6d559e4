//! Prometheus remote write 1.0: a snappy block of one `prometheus.WriteRequest`, walked without
//! copying.

use smallvec::SmallVec;
use windrose_proto::limits;
use windrose_proto::metric::{Metadata, MetricKind};
use windrose_proto::reject::RejectReason;

use super::DecodeError;
use super::wire::{Field, Fields, WireError};

/// Most labels of a series or exemplar that are looked at: series have a few dozen, and what has more
/// is refused by the store anyway.
const LABELS_MAX: usize = 1024;

/// Labels as a request has them.
pub type RemoteLabels<'a> = SmallVec<[(&'a str, &'a str); 32]>;

/// One series of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteSeries<'a> {
    /// Sorted by name, none empty; or why they name no series.
    pub labels: Result<RemoteLabels<'a>, &'static str>,
    /// Time in milliseconds, and value.
    pub samples: SmallVec<[(i64, f64); 4]>,
    pub exemplars: SmallVec<[RemoteExemplar<'a>; 1]>,
    /// Native histograms, which are not looked into.
    pub histograms: u64,
}

/// One exemplar of a series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RemoteExemplar<'a> {
    pub labels: RemoteLabels<'a>,
    pub value: f64,
    pub timestamp_ms: i64,
}

/// Takes the elements of a request one by one.
pub trait RemoteSink {
    fn series(&mut self, series: &RemoteSeries<'_>);
    fn metadata(&mut self, family: &str, metadata: Metadata);
}

/// The message of a snappy block.
///
/// # Errors
/// `too_large` when it inflates beyond the limit, which is seen before memory is taken; `bad_body`
/// when it is no snappy block.
pub fn unpack(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let broken = |error: snap::Error| DecodeError::bad_body(format!("body is not a snappy block: {error}"));
    let length = snap::raw::decompress_len(body).map_err(broken)?;
    if length > limits::DECOMPRESSED_MAX_BYTES {
        return Err(DecodeError {
            reason: RejectReason::TooLarge,
            message: format!(
                "body inflates to {length} bytes, more than the {} allowed: send smaller batches",
                limits::DECOMPRESSED_MAX_BYTES
            ),
        });
    }
    snap::raw::Decoder::new().decompress_vec(body).map_err(broken)
}

/// Walks a `prometheus.WriteRequest`.
///
/// # Errors
/// `bad_body` at the first byte that is no protobuf; what came before has been handed on.
pub fn walk(message: &[u8], sink: &mut impl RemoteSink) -> Result<(), DecodeError> {
    walk_request(message, sink).map_err(|error| DecodeError::bad_body(format!("body is not a WriteRequest: {error}")))
}

fn walk_request(message: &[u8], sink: &mut impl RemoteSink) -> Result<(), WireError> {
    let mut fields = Fields::of(message);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => sink.series(&series(field.bytes()?)?),
            3 => {
                let (family, metadata) = metadata(field.bytes()?)?;
                if !family.is_empty() {
                    sink.metadata(family, metadata);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn series(message: &[u8]) -> Result<RemoteSeries<'_>, WireError> {
    let (mut samples, mut exemplars, mut histograms) = (SmallVec::new(), SmallVec::new(), 0);
    let mut labels = RemoteLabels::new();
    let mut problem = None;
    let mut fields = Fields::of(message);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => problem = problem.or(push_label(&mut labels, &field)?),
            2 => samples.push(sample(field.bytes()?)?),
            3 => exemplars.push(exemplar(field.bytes()?)?),
            4 => {
                field.bytes()?;
                histograms += 1;
            }
            _ => {}
        }
    }
    let problem = problem.or_else(|| sort(&mut labels));
    let labels = problem.map_or(Ok(labels), Err);
    Ok(RemoteSeries { labels, samples, exemplars, histograms })
}

/// Adds a label; returns what is wrong with it.
fn push_label<'a>(labels: &mut RemoteLabels<'a>, field: &Field<'a>) -> Result<Option<&'static str>, WireError> {
    let (mut name, mut value) = (&b""[..], &b""[..]);
    let mut fields = Fields::of(field.bytes()?);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => name = field.bytes()?,
            2 => value = field.bytes()?,
            _ => {}
        }
    }
    if labels.len() >= LABELS_MAX {
        return Ok(Some("too many labels"));
    }
    let (Ok(name), Ok(value)) = (str::from_utf8(name), str::from_utf8(value)) else {
        return Ok(Some("a label is not UTF-8"));
    };
    if name.is_empty() {
        return Ok(Some("a label has no name"));
    }
    // No value is no label.
    if !value.is_empty() {
        labels.push((name, value));
    }
    Ok(None)
}

/// Puts labels in order; returns what is wrong with them.
fn sort(labels: &mut RemoteLabels<'_>) -> Option<&'static str> {
    if !labels.is_sorted_by(|one, other| one.0 < other.0) {
        labels.sort_unstable_by_key(|(name, _)| *name);
        if labels.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Some("a label occurs twice");
        }
    }
    let has_name = labels.iter().any(|(name, _)| *name == "__name__");
    (!has_name).then_some("no metric name")
}

fn sample(message: &[u8]) -> Result<(i64, f64), WireError> {
    let (mut timestamp_ms, mut value) = (0, 0.0);
    let mut fields = Fields::of(message);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => value = f64::from_bits(field.fixed64()?),
            2 => timestamp_ms = field.varint()?.cast_signed(),
            _ => {}
        }
    }
    Ok((timestamp_ms, value))
}

fn exemplar(message: &[u8]) -> Result<RemoteExemplar<'_>, WireError> {
    let mut exemplar = RemoteExemplar::default();
    let mut fields = Fields::of(message);
    while let Some(field) = fields.next()? {
        match field.number {
            // A bad label of an exemplar costs that label.
            1 => drop(push_label(&mut exemplar.labels, &field)?),
            2 => exemplar.value = f64::from_bits(field.fixed64()?),
            3 => exemplar.timestamp_ms = field.varint()?.cast_signed(),
            _ => {}
        }
    }
    exemplar.labels.sort_unstable_by_key(|(name, _)| *name);
    exemplar.labels.dedup_by_key(|(name, _)| *name);
    Ok(exemplar)
}

fn metadata(message: &[u8]) -> Result<(&str, Metadata), WireError> {
    let mut family = "";
    let mut metadata = Metadata::default();
    let mut fields = Fields::of(message);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => metadata.kind = kind(field.varint()?),
            2 => family = str::from_utf8(field.bytes()?).unwrap_or_default(),
            4 => metadata.help = text(field.bytes()?),
            5 => metadata.unit = text(field.bytes()?),
            _ => {}
        }
    }
    Ok((family, metadata))
}

fn text(bytes: &[u8]) -> String {
    let text = str::from_utf8(bytes).unwrap_or_default();
    text[..text.floor_char_boundary(limits::NAME_MAX_BYTES)].to_owned()
}

const fn kind(number: u64) -> MetricKind {
    match number {
        1 => MetricKind::Counter,
        2 => MetricKind::Gauge,
        3 => MetricKind::Histogram,
        4 => MetricKind::GaugeHistogram,
        5 => MetricKind::Summary,
        6 => MetricKind::Info,
        7 => MetricKind::StateSet,
        _ => MetricKind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use windrose_proto::metric::{Metadata, MetricKind};
    use windrose_proto::reject::RejectReason;

    use super::{RemoteSeries, RemoteSink, unpack, walk};

    #[derive(Clone, PartialEq, Message)]
    struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        timeseries: Vec<TimeSeries>,
        #[prost(message, repeated, tag = "3")]
        metadata: Vec<MetricMetadata>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        exemplars: Vec<Exemplar>,
        #[prost(bytes, repeated, tag = "4")]
        histograms: Vec<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Label {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        value: String,
    }

    #[derive(Clone, Copy, PartialEq, Message)]
    struct Sample {
        #[prost(double, tag = "1")]
        value: f64,
        #[prost(int64, tag = "2")]
        timestamp: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Exemplar {
        #[prost(message, repeated, tag = "1")]
        labels: Vec<Label>,
        #[prost(double, tag = "2")]
        value: f64,
        #[prost(int64, tag = "3")]
        timestamp: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    struct MetricMetadata {
        #[prost(int32, tag = "1")]
        kind: i32,
        #[prost(string, tag = "2")]
        family: String,
        #[prost(string, tag = "4")]
        help: String,
        #[prost(string, tag = "5")]
        unit: String,
    }

    #[derive(Default)]
    struct Seen(Vec<String>);

    impl RemoteSink for Seen {
        fn series(&mut self, series: &RemoteSeries<'_>) {
            let labels = match &series.labels {
                Ok(labels) => {
                    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
                }
                Err(problem) => (*problem).to_owned(),
            };
            let exemplars = series.exemplars.iter().map(|one| format!("{:?}@{}", one.labels, one.timestamp_ms));
            let exemplars: String = exemplars.collect();
            self.0.push(format!("{labels} {:?} {exemplars} {}", series.samples, series.histograms));
        }

        fn metadata(&mut self, family: &str, metadata: Metadata) {
            self.0.push(format!("{family} {metadata:?}"));
        }
    }

    fn labels(text: &str) -> Vec<Label> {
        text.split_terminator(',')
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(name, value)| Label { name: name.to_owned(), value: value.to_owned() })
            .collect()
    }

    fn seen(request: &WriteRequest) -> Vec<String> {
        let packed = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap();
        let mut seen = Seen::default();
        walk(&unpack(&packed).unwrap(), &mut seen).unwrap();
        seen.0
    }

    #[track_caller]
    fn check_labels(given: &str, expect: &str) {
        let series = TimeSeries { labels: labels(given), ..TimeSeries::default() };
        let request = WriteRequest { timeseries: vec![series], metadata: vec![] };
        assert_eq!(seen(&request), [format!("{expect} []  0")], "{given}");
    }

    #[test]
    fn labels_are_put_in_order_or_refused() {
        check_labels("__name__=up,a=1", "__name__=up,a=1");
        check_labels("a=1,__name__=up,empty=", "__name__=up,a=1");
        check_labels("a=1", "no metric name");
        check_labels("__name__=", "no metric name");
        check_labels("__name__=up,a=1,a=2", "a label occurs twice");
        check_labels("__name__=up,a=1,b=2,a=3", "a label occurs twice");
        check_labels("__name__=up,=1", "a label has no name");
        check_labels(&format!("__name__=up,{}", "a=1,".repeat(1024)), "too many labels");
    }

    #[test]
    fn everything_of_a_request_is_seen() {
        let series = TimeSeries {
            labels: labels("__name__=up"),
            samples: vec![Sample { value: 1.5, timestamp: -7 }, Sample { value: 0.0, timestamp: 1_700_000_000_000 }],
            exemplars: vec![Exemplar { labels: labels("trace_id=x"), value: 1.0, timestamp: 5 }],
            histograms: vec![vec![1, 2, 3]],
        };
        let metadata =
            MetricMetadata { kind: 1, family: "up".to_owned(), help: "is it".to_owned(), unit: "s".to_owned() };
        let request = WriteRequest { timeseries: vec![series], metadata: vec![metadata] };
        let told = Metadata { kind: MetricKind::Counter, help: "is it".to_owned(), unit: "s".to_owned() };
        assert_eq!(
            seen(&request),
            [
                "__name__=up [(-7, 1.5), (1700000000000, 0.0)] [(\"trace_id\", \"x\")]@5 1".to_owned(),
                format!("up {told:?}"),
            ]
        );
    }

    #[test]
    fn what_is_no_request_is_refused() {
        assert_eq!(unpack(b"no snappy").unwrap_err().reason, RejectReason::BadBody);
        // A block that says it inflates to 4 GiB.
        assert_eq!(unpack(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]).unwrap_err().reason, RejectReason::TooLarge);
        assert_eq!(walk(&[0x0a, 0x05, 1], &mut Seen::default()).unwrap_err().reason, RejectReason::BadBody);
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(walk(&bytes, &mut Seen::default()));
            drop(unpack(&bytes));
        }
    }
}
