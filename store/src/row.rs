//! The rows of the tables as they travel from the join to the hot tables and into sealed files.
//!
//! Cloning a row clones pointers. Edge rows are [`windrose_proto::edge::EdgeRow`].

use std::sync::Arc;

use windrose_proto::hop::{Hop, Request};
use windrose_proto::normal::NormalSpan;
use windrose_proto::span::Span;
use windrose_proto::time::UnixNanos;

/// A stored span: what was received, what the rules read out of it, and when it came.
#[derive(Clone, Debug)]
pub struct SpanRow {
    pub span: Arc<Span>,
    pub normal: Arc<NormalSpan>,
    pub arrived: UnixNanos,
}

impl SpanRow {
    /// Bytes the row holds in memory.
    #[must_use]
    pub fn heap_estimate_bytes(&self) -> usize {
        size_of::<Self>() + self.span.heap_estimate_bytes() + self.normal.heap_estimate_bytes()
    }
}

/// A hop of a settled trace. Rows of the same trace with a smaller revision are superseded.
#[derive(Clone, Debug, PartialEq)]
pub struct HopRow {
    pub hop: Arc<Hop>,
    /// Counts the derivations of the trace that were written, from 1.
    pub revision: u32,
}

/// The request of a settled trace. Rows of the same trace with a smaller revision are superseded.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestRow {
    pub request: Arc<Request>,
    /// Counts the derivations of the trace that were written, from 1.
    pub revision: u32,
}
