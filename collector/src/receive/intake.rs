//! What receivers hand on, and who takes it.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use windrose_proto::tenant::TenantId;
use windrose_proto::wire::CounterBatch;
use windrose_store::wal::AppendError;

use crate::decode::{BodyFormat, ContentEncoding, Decoded, Origin};

/// One accepted request: the bytes for the log, the spans for the join.
#[derive(Clone, Debug)]
pub struct Submission {
    pub tenant: TenantId,
    pub format: BodyFormat,
    /// The coding of `body`.
    pub encoding: ContentEncoding,
    /// As it came over the wire, still compressed. With `format`, `encoding` and `origin` it
    /// decodes again to the same spans ([`crate::decode::decode`]).
    pub body: Bytes,
    pub origin: Origin,
    /// What `body` decodes to; at least one span.
    pub decoded: Decoded,
}

/// Why a submission was not taken. Nothing of it has been kept then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    #[error("the disk budget is used up")]
    DiskFull { retry_after: Duration },
    #[error("too many requests are waiting for the disk")]
    TooBusy { retry_after: Duration },
    #[error("shutting down")]
    Closed,
    #[error("internal error; see the log")]
    Internal,
}

impl IntakeError {
    /// What a failed append to a log means for the sender.
    pub(crate) fn of_log(error: &AppendError) -> Self {
        match error {
            AppendError::OutOfSpace { retry_after, .. } => Self::DiskFull { retry_after: *retry_after },
            AppendError::Overloaded { retry_after } => Self::TooBusy { retry_after: *retry_after },
            AppendError::Closed => Self::Closed,
            AppendError::TooLarge { .. } | AppendError::Io(_) => {
                tracing::error!(error = %error, source = ?std::error::Error::source(error), "a request could not be logged and was refused");
                Self::Internal
            }
        }
    }
}

/// Takes submissions and makes them durable.
pub trait Intake: Send + Sync + 'static {
    /// Returns once the submission will survive a power cut. The future is dropped when the sender
    /// hangs up; what was submitted may be kept then, it is only not acknowledged.
    fn submit(&self, submission: Submission) -> impl Future<Output = Result<(), IntakeError>> + Send;

    /// Logs what counters say about edges and hands it to the join.
    fn submit_counters(
        &self,
        tenant: TenantId,
        counters: CounterBatch,
    ) -> impl Future<Output = Result<(), IntakeError>> + Send;
}
