//! What is logged: a body as it was received, and who sent it when.

use bytes::Bytes;
use smallvec::SmallVec;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;

use super::WalPosition;

/// What the bytes of a record are. The numbers are on disk: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// `ExportTraceServiceRequest`, protobuf.
    OtlpTracesProtobuf = 1,
    /// `ExportTraceServiceRequest`, OTLP/JSON.
    OtlpTracesJson = 2,
    /// A list of Zipkin v2 spans.
    ZipkinJson = 3,
    /// Increments of proxy counters, from one scrape.
    CounterDeltas = 4,
    /// The files one seal has written and is about to commit.
    SealIntent = 5,
    /// `ExportLogsServiceRequest`, protobuf.
    OtlpLogsProtobuf = 6,
    /// `ExportMetricsServiceRequest`, protobuf.
    OtlpMetricsProtobuf = 7,
    /// A Zipkin `ListOfSpans`, protobuf.
    ZipkinProtobuf = 8,
    /// A list of SkyWalking segments.
    SkywalkingJson = 9,
    /// `ExportLogsServiceRequest`, OTLP/JSON.
    OtlpLogsJson = 10,
    /// Samples and the series they are of, in the metric store's own log.
    MetricBatch = 11,
}

impl RecordKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::OtlpTracesProtobuf,
        Self::OtlpTracesJson,
        Self::ZipkinJson,
        Self::CounterDeltas,
        Self::SealIntent,
        Self::OtlpLogsProtobuf,
        Self::OtlpMetricsProtobuf,
        Self::ZipkinProtobuf,
        Self::SkywalkingJson,
        Self::OtlpLogsJson,
        Self::MetricBatch,
    ];

    /// The kind with this number on disk.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// How the bytes of a record are compressed. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ContentEncoding {
    /// Not at all.
    Identity = 0,
    /// gzip.
    Gzip = 1,
    /// zstd.
    Zstd = 2,
}

impl ContentEncoding {
    /// The encoding with this number on disk.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Identity, Self::Gzip, Self::Zstd].into_iter().find(|encoding| *encoding as u8 == byte)
    }
}

/// A record to be logged. Its checksum is computed when it is made, on the caller's thread.
#[derive(Clone, Debug)]
pub struct Record {
    pub(crate) kind: RecordKind,
    pub(crate) encoding: ContentEncoding,
    pub(crate) tenant: TenantId,
    pub(crate) arrival: UnixNanos,
    pub(crate) payload: SmallVec<[Bytes; 2]>,
    pub(crate) body_bytes: u64,
    pub(crate) body_crc: u32,
}

impl Record {
    /// A record whose payload is the concatenation of `payload`. The buffers are shared, never
    /// copied: they go to the disk from where they are.
    #[must_use]
    pub fn new(
        kind: RecordKind,
        encoding: ContentEncoding,
        tenant: TenantId,
        arrival: UnixNanos,
        payload: impl IntoIterator<Item = Bytes>,
    ) -> Self {
        let payload: SmallVec<[Bytes; 2]> = payload.into_iter().collect();
        let mut body_bytes = tenant.as_str().len() as u64;
        let mut body_crc = crc32c::crc32c(tenant.as_str().as_bytes());
        for part in &payload {
            body_bytes += part.len() as u64;
            body_crc = crc32c::crc32c_append(body_crc, part);
        }
        Self { kind, encoding, tenant, arrival, payload, body_bytes, body_crc }
    }

    /// What it takes in the log, its header and padding included.
    #[must_use]
    pub fn frame_bytes(&self) -> u64 {
        super::frame::frame_bytes(self.body_bytes)
    }
}

/// A record read back from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Where it starts.
    pub position: WalPosition,
    /// Where what follows it starts.
    pub after: WalPosition,
    /// What its bytes are.
    pub kind: RecordKind,
    /// How they are compressed.
    pub encoding: ContentEncoding,
    /// Whose they are.
    pub tenant: TenantId,
    /// When they arrived.
    pub arrival: UnixNanos,
    /// The bytes.
    pub payload: Bytes,
}
