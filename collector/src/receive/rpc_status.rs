//! The few protobuf messages that answers are made of: `google.rpc.Status` and what OTLP returns.
//! Field numbers are those of the public definitions.

use std::time::Duration;

use prost::Message;
use serde_json::json;
use windrose_proto::reject::RejectReason;

use super::failure::{Failure, FailureKind};
use super::metric_batch::Rejected;
use crate::decode::Rejections;

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Status {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(super) retry_delay: Option<ProtoDuration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct ProtoDuration {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

/// OTLP `ExportTraceServiceResponse` and those of logs and metrics, which look alike.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

/// OTLP `ExportTracePartialSuccess` and those of logs and metrics.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

impl From<Duration> for ProtoDuration {
    fn from(duration: Duration) -> Self {
        Self {
            seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            // Below a billion.
            nanos: duration.subsec_nanos() as i32,
        }
    }
}

impl ExportResponse {
    /// The answer to a request of which `rejections` were not kept. Log records that are no access
    /// log entries are not wanted rather than rejected: the sender has nothing to mend.
    pub(super) fn of(rejections: &Rejections) -> Self {
        let rejected = rejections.total() - rejections.count(RejectReason::NotAccessLog);
        Self::without(rejected, || rejections.summary())
    }

    /// The answer to a request of which samples were not stored. Points are what OTLP counts; a point
    /// that was refused as a whole counts once, one of which some samples were counts as many times.
    pub(super) fn of_samples(rejected: &Rejected) -> Self {
        Self::without(rejected.total(), || rejected.summary())
    }

    fn without(rejected: u64, summary: impl FnOnce() -> String) -> Self {
        if rejected == 0 {
            return Self { partial_success: None };
        }
        let rejected = i64::try_from(rejected).unwrap_or(i64::MAX);
        Self { partial_success: Some(PartialSuccess { rejected, error_message: summary() }) }
    }

    /// As OTLP/JSON, which names what was rejected.
    pub(super) fn to_json(&self, rejected_name: &str) -> String {
        match &self.partial_success {
            None => "{}".to_owned(),
            Some(partial) => json!({
                "partialSuccess": {
                    // 64-bit numbers are strings.
                    rejected_name: partial.rejected.to_string(),
                    "errorMessage": partial.error_message,
                }
            })
            .to_string(),
        }
    }
}

impl Status {
    /// As protobuf JSON; the details are for gRPC, HTTP has `Retry-After`.
    pub(super) fn to_json(&self) -> String {
        json!({ "code": self.code, "message": self.message }).to_string()
    }
}

/// The gRPC code of a failure. OTLP senders retry `RESOURCE_EXHAUSTED` with a `RetryInfo`,
/// `UNAVAILABLE` and `DEADLINE_EXCEEDED`, so what cannot be helped by that is none of them.
pub(super) const fn grpc_code(kind: FailureKind) -> tonic::Code {
    match kind {
        FailureKind::Malformed | FailureKind::TooLarge => tonic::Code::InvalidArgument,
        FailureKind::Unsupported | FailureKind::Method => tonic::Code::Unimplemented,
        FailureKind::Slow => tonic::Code::DeadlineExceeded,
        FailureKind::Busy { .. } | FailureKind::Full { .. } => tonic::Code::ResourceExhausted,
        FailureKind::Unavailable => tonic::Code::Unavailable,
    }
}

/// A failure as `google.rpc.Status`, with a `RetryInfo` when the sender should come back.
pub(super) fn status_of(failure: &Failure) -> Status {
    let retry_info = |delay: Duration| Any {
        type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
        value: RetryInfo { retry_delay: Some(delay.into()) }.encode_to_vec(),
    };
    Status {
        code: grpc_code(failure.kind) as i32,
        message: failure.message.clone(),
        details: failure.retry_after().map(retry_info).into_iter().collect(),
    }
}
