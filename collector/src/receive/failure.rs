//! Why a request was not acknowledged, in terms that each protocol can put into its own words.

use std::time::Duration;

use windrose_proto::reject::RejectReason;
use windrose_proto::tenant::InvalidTenant;

use super::IntakeError;
use crate::decode::DecodeError;

/// A request that was refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    pub(super) reason: RejectReason,
    /// What is wrong and what to do, for whoever operates the sender.
    pub(super) message: String,
}

/// What the sender should do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// Fix the request; sending it again will not help.
    Malformed,
    /// The same, and it is the size.
    TooLarge,
    /// The same, and it is the content type or coding.
    Unsupported,
    /// The same, and it is the HTTP method.
    Method,
    /// The body did not arrive in time.
    Slow,
    /// Come back later: too many requests at once.
    Busy { retry_after: Duration },
    /// Come back later: no room on disk.
    Full { retry_after: Duration },
    /// Come back later, somewhere else: this process is ending or broken.
    Unavailable,
}

impl Failure {
    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Malformed, reason: RejectReason::BadBody, message: message.into() }
    }

    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Unsupported, reason: RejectReason::Unsupported, message: message.into() }
    }

    pub(super) fn too_large(max_bytes: usize) -> Self {
        Self {
            kind: FailureKind::TooLarge,
            reason: RejectReason::TooLarge,
            message: format!("body is larger than {} MiB: send smaller batches", max_bytes >> 20),
        }
    }

    pub(super) fn busy(retry_after: Duration) -> Self {
        Self {
            kind: FailureKind::Busy { retry_after },
            reason: RejectReason::Overloaded,
            message: "too many requests in flight: retry later".to_owned(),
        }
    }

    pub(super) fn unavailable() -> Self {
        Self { kind: FailureKind::Unavailable, reason: RejectReason::Unavailable, message: "shutting down".to_owned() }
    }

    pub(super) fn slow() -> Self {
        Self {
            kind: FailureKind::Slow,
            reason: RejectReason::BadBody,
            message: "the body did not arrive in time".to_owned(),
        }
    }

    pub(super) fn method(allowed: &str) -> Self {
        Self {
            kind: FailureKind::Method,
            reason: RejectReason::Unsupported,
            message: format!("method not allowed: use {allowed}"),
        }
    }

    /// When to come back, where that is known.
    pub(super) const fn retry_after(&self) -> Option<Duration> {
        match self.kind {
            FailureKind::Busy { retry_after } | FailureKind::Full { retry_after } => Some(retry_after),
            FailureKind::Malformed
            | FailureKind::TooLarge
            | FailureKind::Unsupported
            | FailureKind::Method
            | FailureKind::Slow
            | FailureKind::Unavailable => None,
        }
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        let kind = if error.reason == RejectReason::TooLarge { FailureKind::TooLarge } else { FailureKind::Malformed };
        Self { kind, reason: error.reason, message: error.message }
    }
}

impl From<InvalidTenant> for Failure {
    fn from(error: InvalidTenant) -> Self {
        Self { kind: FailureKind::Malformed, reason: RejectReason::BadTenant, message: error.to_string() }
    }
}

impl From<IntakeError> for Failure {
    fn from(error: IntakeError) -> Self {
        let (kind, reason) = match error {
            IntakeError::DiskFull { retry_after } => (FailureKind::Full { retry_after }, RejectReason::DiskFull),
            IntakeError::TooBusy { retry_after } => (FailureKind::Busy { retry_after }, RejectReason::Overloaded),
            // Nothing has been kept, so that another attempt, perhaps elsewhere, is what saves the spans.
            IntakeError::Closed | IntakeError::Internal => (FailureKind::Unavailable, RejectReason::Unavailable),
        };
        Self { kind, reason, message: error.to_string() }
    }
}
