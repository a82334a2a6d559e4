//! What a log record of spans holds: four bytes that say how to read the body, then the body as it
//! came over the wire.
//!
//! ```text
//! byte 0   layout version, 1
//! byte 1   body format      (BodyFormat::code)
//! byte 2   content coding   (ContentEncoding::code)
//! byte 3   ingest protocol  (place in IngestProtocol::ALL)
//! byte 4…  the body, still compressed
//! ```

use bytes::Bytes;
use windrose_proto::model::IngestProtocol;
use windrose_proto::time::UnixNanos;
use windrose_store::wal::{ContentEncoding as LogEncoding, Record, RecordKind};

use crate::decode::{BodyFormat, ContentEncoding, DecodeError, Decoded, Origin, decode};
use crate::receive::Submission;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 4;

/// A record that will not be understood at replay.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplayError {
    #[error("record header {header:?} is not one this version writes")]
    Header { header: Vec<u8> },
    #[error("a logged body does not decode any more: {0}")]
    Body(#[from] DecodeError),
    #[error("logged counters do not decode: {0}")]
    Counters(#[from] prost::DecodeError),
    #[error("this version writes no such records")]
    Kind,
}

/// The record of a submission.
pub(super) fn record_of(submission: &Submission) -> Record {
    let ingest = IngestProtocol::ALL.iter().position(|protocol| *protocol == submission.origin.ingest);
    let header = [
        VERSION,
        submission.format.code(),
        submission.encoding.code(),
        // There are five protocols.
        ingest.unwrap_or_default() as u8,
    ];
    let kind = match submission.format {
        BodyFormat::OtlpProtobuf => RecordKind::OtlpTracesProtobuf,
        BodyFormat::OtlpJson => RecordKind::OtlpTracesJson,
        BodyFormat::ZipkinJson => RecordKind::ZipkinJson,
        BodyFormat::ZipkinProtobuf => RecordKind::ZipkinProtobuf,
        BodyFormat::SkywalkingJson => RecordKind::SkywalkingJson,
        BodyFormat::OtlpLogsProtobuf => RecordKind::OtlpLogsProtobuf,
        BodyFormat::OtlpLogsJson => RecordKind::OtlpLogsJson,
    };
    let encoding = match submission.encoding {
        ContentEncoding::Gzip => LogEncoding::Gzip,
        ContentEncoding::Zstd => LogEncoding::Zstd,
        ContentEncoding::Identity | ContentEncoding::Deflate => LogEncoding::Identity,
    };
    let payload = [Bytes::copy_from_slice(&header), submission.body.clone()];
    Record::new(kind, encoding, submission.tenant.clone(), submission.origin.arrived, payload)
}

/// Decodes a logged body to the spans it was acknowledged with.
pub(super) fn replay(payload: &Bytes, arrived: UnixNanos) -> Result<Decoded, ReplayError> {
    let unknown = || ReplayError::Header { header: payload.iter().take(HEADER_BYTES).copied().collect() };
    let header: [u8; HEADER_BYTES] =
        payload.get(..HEADER_BYTES).and_then(|bytes| bytes.try_into().ok()).ok_or_else(unknown)?;
    let [VERSION, format, encoding, ingest] = header else { return Err(unknown()) };
    let format = BodyFormat::from_code(format).ok_or_else(unknown)?;
    let encoding = ContentEncoding::from_code(encoding).ok_or_else(unknown)?;
    let ingest = IngestProtocol::ALL.get(usize::from(ingest)).copied().ok_or_else(unknown)?;
    Ok(decode(format, encoding, &payload.slice(HEADER_BYTES..), Origin { ingest, arrived })?)
}
