//! What came in and what became of it, as plain counters that the process exports.

use std::sync::atomic::{AtomicU64, Ordering};

use windrose_proto::model::IngestProtocol;
use windrose_proto::reject::RejectReason;

use crate::decode::Rejections;

/// Requests of one protocol, whatever they carry. All counters only grow.
#[derive(Debug, Default)]
pub struct RequestStats {
    count: AtomicU64,
    body_bytes: AtomicU64,
    refused: [AtomicU64; RejectReason::ALL.len()],
}

/// Counters of one protocol. All only grow.
#[derive(Debug, Default)]
pub struct ProtocolStats {
    /// Its requests.
    pub requests: RequestStats,
    spans: AtomicU64,
    rejected_spans: [AtomicU64; RejectReason::ALL.len()],
}

impl RequestStats {
    /// Requests, whatever became of them.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Bytes of request bodies as they came over the wire.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes.load(Ordering::Relaxed)
    }

    /// Requests refused as a whole for `reason`.
    #[must_use]
    pub fn refused(&self, reason: RejectReason) -> u64 {
        self.refused[reason as usize].load(Ordering::Relaxed)
    }

    pub(super) fn count_request(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_body(&self, bytes: usize) {
        self.body_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_refused(&self, reason: RejectReason) {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl ProtocolStats {
    /// Spans acknowledged: they are in the log.
    #[must_use]
    pub fn spans(&self) -> u64 {
        self.spans.load(Ordering::Relaxed)
    }

    /// Spans known to be lost for `reason`: bad ones in accepted requests, and the good ones of
    /// requests that were decoded but not taken.
    #[must_use]
    pub fn rejected_spans(&self, reason: RejectReason) -> u64 {
        self.rejected_spans[reason as usize].load(Ordering::Relaxed)
    }

    pub(super) fn count_spans(&self, spans: u64) {
        self.spans.fetch_add(spans, Ordering::Relaxed);
    }

    pub(super) fn count_rejected_spans(&self, reason: RejectReason, spans: u64) {
        self.rejected_spans[reason as usize].fetch_add(spans, Ordering::Relaxed);
    }

    pub(super) fn count_rejections(&self, rejections: &Rejections) {
        for (reason, spans) in rejections.iter() {
            self.count_rejected_spans(reason, spans);
        }
    }
}

/// Counters of all protocols.
#[derive(Debug, Default)]
pub struct ReceiveStats {
    protocols: [ProtocolStats; IngestProtocol::ALL.len()],
    in_flight_requests: AtomicU64,
}

impl ReceiveStats {
    /// The counters of one protocol.
    #[must_use]
    pub fn protocol(&self, protocol: IngestProtocol) -> &ProtocolStats {
        &self.protocols[protocol as usize]
    }

    /// Requests being read, decoded or waiting for the disk right now.
    #[must_use]
    pub fn in_flight_requests(&self) -> u64 {
        self.in_flight_requests.load(Ordering::Relaxed)
    }

    /// Counts a request as in flight until the guard is dropped, also when the sender hangs up.
    pub(super) fn enter(&self) -> InFlight<'_> {
        self.in_flight_requests.fetch_add(1, Ordering::Relaxed);
        InFlight(&self.in_flight_requests)
    }
}

/// One request in flight.
pub(super) struct InFlight<'a>(&'a AtomicU64);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
