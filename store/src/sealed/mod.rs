//! Sealed tables: what is in files. Nothing is sealed yet, so every catalog is empty and the log
//! keeps everything.

use windrose_proto::edge::EdgeRow;
use windrose_proto::id::TraceId;
use windrose_proto::span::Span;
use windrose_proto::time::TimeRange;

use crate::row::RequestRow;

/// The sealed segments of one tenant at one instant.
#[derive(Debug, Default)]
pub struct TenantCatalog {}

/// A sealed file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("reading sealed segment {path}")]
pub struct SegmentError {
    pub path: String,
}

impl TenantCatalog {
    /// Rollup rows whose window starts inside `range`.
    ///
    /// # Errors
    /// When a file cannot be read.
    #[expect(clippy::unused_async, reason = "reads files")]
    pub async fn read_edges(&self, _range: TimeRange) -> Result<Vec<EdgeRow>, SegmentError> {
        Ok(Vec::new())
    }

    /// Request rows that start inside `range`, superseded ones too.
    ///
    /// # Errors
    /// When a file cannot be read.
    #[expect(clippy::unused_async, reason = "reads files")]
    pub async fn read_requests(&self, _range: TimeRange) -> Result<Vec<RequestRow>, SegmentError> {
        Ok(Vec::new())
    }

    /// Whether sealed files may hold spans of `trace`.
    #[must_use]
    pub fn may_contain(&self, _trace: TraceId) -> bool {
        false
    }

    /// The sealed spans of one trace.
    ///
    /// # Errors
    /// When a file cannot be read.
    #[expect(clippy::unused_async, reason = "reads files")]
    pub async fn read_trace(&self, _trace: TraceId) -> Result<Vec<Span>, SegmentError> {
        Ok(Vec::new())
    }
}
