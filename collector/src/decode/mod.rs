//! Bodies in, spans out. Everything here is pure: no clock, no disk, no channel.
//!
//! | file | what |
//! |---|---|
//! | `compression.rs` | content codings, with a hard cap on what they inflate to |
//! | `wire.rs` | bounded walk over protobuf fields |
//! | `json.rs` | bounded pull reader for JSON |
//! | `json_items.rs` | lists of which single items may be bad, and what can be wrong |
//! | `fnv.rs` | ids that are made rather than sent |
//! | `otlp_protobuf.rs` | OTLP `ExportTraceServiceRequest`, zero-copy |
//! | `otlp_json.rs` | the same in JSON, as senders really write it |
//! | `otlp_protobuf/logs.rs`, `otlp_json/logs.rs` | OTLP `ExportLogsServiceRequest` in both forms |
//! | `otlp_protobuf/metrics.rs`, `otlp_json/metrics.rs` | OTLP `ExportMetricsServiceRequest` in both forms |
//! | `otlp_metrics.rs`, `otlp_metrics/` | OTLP metrics as series of Prometheus |
//! | `access_log.rs`, `access_log/` | an access log entry as the span of its request |
//! | `zipkin.rs` | where each part of a Zipkin span goes |
//! | `zipkin_json.rs`, `zipkin_protobuf.rs` | Zipkin v2 span lists in both forms |
//! | `skywalking_json.rs` | SkyWalking segments |
//! | `remote_write.rs` | Prometheus remote write 1.0, zero-copy |
//! | `sink.rs` | what every decoder feeds: checks of a finished span, limits, rejections |
//! | `text.rs` | bytes of a body as text: lossy where not UTF-8, cut where too long |
//!
//! Invariants: no input panics; memory is at most the body plus [`windrose_proto::limits::DECODED_MAX_BYTES`]; a
//! span is either in [`Decoded::spans`] or counted in [`Decoded::rejected`]; the result depends on
//! the bytes and the [`Origin`] only, so that a replay from the log decodes the same.

use bytes::Bytes;
use windrose_proto::model::IngestProtocol;
use windrose_proto::reject::RejectReason;
use windrose_proto::span::Span;
use windrose_proto::time::UnixNanos;

mod access_log;
#[cfg(test)]
mod arbitrary;
mod compression;
mod fnv;
mod json;
mod json_items;
mod otlp_json;
mod otlp_metrics;
mod otlp_protobuf;
mod rejections;
mod remote_write;
mod sink;
mod skywalking_json;
#[cfg(test)]
mod tests;
mod text;
pub(crate) mod wire;
mod zipkin;
mod zipkin_json;
mod zipkin_protobuf;

pub use compression::{ContentEncoding, decompress};
pub use otlp_json::{decode_otlp_json, decode_otlp_logs_json};
pub use otlp_metrics::{OtlpForm, OtlpSink, PointRefusal, Stat, walk_otlp_metrics};
pub use otlp_protobuf::{decode_otlp_logs_protobuf, decode_otlp_protobuf};
pub use rejections::Rejections;
pub use remote_write::{
    RemoteExemplar, RemoteLabels, RemoteSeries, RemoteSink, unpack as unpack_remote_write, walk as walk_remote_write,
};
pub use skywalking_json::decode_skywalking_json;
pub use zipkin_json::decode_zipkin_json;
pub use zipkin_protobuf::decode_zipkin_protobuf;

/// What a body holds once it is decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyFormat {
    OtlpProtobuf,
    OtlpJson,
    ZipkinJson,
    ZipkinProtobuf,
    SkywalkingJson,
    OtlpLogsProtobuf,
    OtlpLogsJson,
}

impl BodyFormat {
    /// Every format, in the order of [`Self::code`].
    pub const ALL: [Self; 7] = [
        Self::OtlpProtobuf,
        Self::OtlpJson,
        Self::ZipkinJson,
        Self::ZipkinProtobuf,
        Self::SkywalkingJson,
        Self::OtlpLogsProtobuf,
        Self::OtlpLogsJson,
    ];

    /// A stable number for logs on disk.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Back from [`Self::code`].
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// How and when a body came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub ingest: IngestProtocol,
    /// When it arrived: spans that end too long after it are refused.
    pub arrived: UnixNanos,
}

/// The spans of one body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    pub spans: Vec<Span>,
    pub rejected: Rejections,
    /// Bytes of memory the spans occupy beside the body as it was received, for admission.
    pub memory_bytes: usize,
}

/// Why a whole body was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    pub reason: RejectReason,
    /// What is wrong and where, for the sender.
    pub message: String,
}

impl DecodeError {
    fn bad_body(message: impl Into<String>) -> Self {
        Self { reason: RejectReason::BadBody, message: message.into() }
    }
}

/// Decodes a body as it came over the wire. Receivers and the replay of the log both come here.
///
/// # Errors
/// When the body as a whole cannot be read; nothing of it is taken then.
pub fn decode(
    format: BodyFormat,
    encoding: ContentEncoding,
    body: &Bytes,
    origin: Origin,
) -> Result<Decoded, DecodeError> {
    let content = decompress(encoding, body)?;
    let mut decoded = match format {
        BodyFormat::OtlpProtobuf => decode_otlp_protobuf(&content, origin),
        BodyFormat::OtlpJson => decode_otlp_json(&content, origin),
        BodyFormat::ZipkinJson => decode_zipkin_json(&content, origin),
        BodyFormat::ZipkinProtobuf => decode_zipkin_protobuf(&content, origin),
        BodyFormat::SkywalkingJson => decode_skywalking_json(&content, origin),
        BodyFormat::OtlpLogsProtobuf => decode_otlp_logs_protobuf(&content, origin),
        BodyFormat::OtlpLogsJson => decode_otlp_logs_json(&content, origin),
    }?;
    if encoding != ContentEncoding::Identity {
        // The texts of the spans keep it alive.
        decoded.memory_bytes += content.len();
    }
    Ok(decoded)
}
