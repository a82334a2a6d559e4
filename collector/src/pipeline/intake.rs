//! The receivers' way into the log.

use std::fmt;
use std::sync::Arc;

use prost::Message;
use windrose_proto::span::Span;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::Clock;
use windrose_proto::wire::CounterBatch;
use windrose_store::wal::{CommitLog, ContentEncoding, Record, RecordKind};

use super::logged::record_of;
use crate::receive::{Intake, IntakeError, Submission};

/// What travels with a log record to the joiner, so that it need not be decoded again.
#[derive(Debug)]
pub(super) enum Batch {
    Spans(Vec<Span>),
    Counters(CounterBatch),
}

/// Rough memory of one edge's counters in flight.
const COUNTERS_BYTES: usize = 512;

/// Appends submissions to the log.
pub struct LogIntake {
    log: Arc<CommitLog<Batch>>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for LogIntake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogIntake").finish_non_exhaustive()
    }
}

impl LogIntake {
    pub(super) const fn new(log: Arc<CommitLog<Batch>>, clock: Arc<dyn Clock>) -> Self {
        Self { log, clock }
    }
}

impl Intake for LogIntake {
    async fn submit(&self, submission: Submission) -> Result<(), IntakeError> {
        let record = record_of(&submission);
        let Submission { body, decoded, .. } = submission;
        // Spans share the body's buffer, so it stays in memory as long as they do.
        let bytes = decoded.memory_bytes.saturating_add(body.len());
        self.log
            .append(record, Batch::Spans(decoded.spans), bytes)
            .await
            .map(drop)
            .map_err(|error| IntakeError::of_log(&error))
    }

    /// Nobody is told of it, so it need not wait for the disk.
    async fn submit_counters(&self, tenant: TenantId, batch: CounterBatch) -> Result<(), IntakeError> {
        let payload = batch.encode_to_vec();
        let arrived = self.clock.now();
        let record = Record::new(
            RecordKind::CounterDeltas,
            ContentEncoding::Identity,
            tenant,
            arrived,
            [bytes::Bytes::from(payload)],
        );
        let bytes = (batch.edges.len() + batch.proxy_spans.len()) * COUNTERS_BYTES;
        self.log
            .append_lazily(record, Batch::Counters(batch), bytes)
            .await
            .map(drop)
            .map_err(|error| IntakeError::of_log(&error))
    }
}
