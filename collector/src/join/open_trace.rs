//! One trace that may still grow: its distinct spans, and what it has emitted so far.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::HashMap;
use windrose_proto::attributes::Value;
use windrose_proto::hop::{Hop, Question, Request};
use windrose_proto::id::SpanId;
use windrose_proto::limits::SPANS_PER_TRACE_MAX;
use windrose_proto::normal::{Fact, NormalSpan};
use windrose_proto::time::UnixNanos;
use windrose_store::row::SpanRow;

use super::derive::distinct_key;
use super::editions::Edition;
use super::uses::SpanUses;
use crate::normalise::fact::span_id;

/// What became of a span that was offered to a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// New; to be stored.
    New,
    /// Known already (rule W1).
    Duplicate,
    /// Known, but this copy is longer and replaces the kept one; to be stored.
    Longer,
    /// The trace is at its size limit; stored, but not looked at by the join.
    BeyondLimit,
}

/// A span as an open trace keeps it: what was received stands in the tables already.
#[derive(Debug)]
struct Kept {
    normal: Arc<NormalSpan>,
    rank: (u64, u64),
}

/// The spans of one trace and their consequences.
#[derive(Debug)]
pub(super) struct OpenTrace {
    spans: Vec<Kept>,
    /// Place of every distinct span, by the hash of what makes it distinct.
    places: HashMap<u64, u32, foldhash_fixed::Fixed>,
    /// Hops counted in the rollups at present.
    pub(super) emitted: Vec<Hop>,
    /// The request row as last derived.
    pub(super) request: Option<Arc<Request>>,
    /// Revision of the rows written last; 0 while none have been.
    pub(super) written_revision: u32,
    /// Whether the rows differ from those written last.
    pub(super) changed: bool,
    /// Whether spans came since the last derivation.
    pub(super) dirty: bool,
    pub(super) first_arrival: UnixNanos,
    pub(super) last_arrival: UnixNanos,
    /// Spans that came again since the last derivation.
    pub(super) duplicates: Vec<SpanId>,
    /// How its spans are used as last derived.
    pub(super) uses: SpanUses,
    /// Of the overrides that its spans are read with.
    pub(super) edition: Edition,
    bytes: usize,
}

/// A hasher that is the same in every run, so that a simulation can be repeated.
mod foldhash_fixed {
    use std::hash::{BuildHasher, DefaultHasher};

    #[derive(Clone, Copy, Debug, Default)]
    pub(super) struct Fixed;

    impl BuildHasher for Fixed {
        type Hasher = DefaultHasher;

        fn build_hasher(&self) -> DefaultHasher {
            DefaultHasher::new()
        }
    }
}

/// Duplicates remembered per tick for the evidence of edges; a flood of them only needs counting.
const DUPLICATES_KEPT: usize = 1_000;

impl OpenTrace {
    pub(super) fn new(edition: Edition, now: UnixNanos) -> Self {
        Self {
            spans: Vec::new(),
            places: HashMap::with_hasher(foldhash_fixed::Fixed),
            emitted: Vec::new(),
            request: None,
            written_revision: 0,
            changed: false,
            dirty: false,
            first_arrival: now,
            last_arrival: now,
            duplicates: Vec::new(),
            uses: SpanUses::default(),
            edition,
            bytes: size_of::<Self>(),
        }
    }

    /// Offers a span. Rule W1: of spans equal in id, kind, resource and name the longest is kept;
    /// among equally long ones the choice does not depend on the order of arrival.
    pub(super) fn take(&mut self, row: &SpanRow) -> Taken {
        let mut hash = distinct_hash(&row.normal);
        while let Some(place) = self.places.get(&hash) {
            let kept = &mut self.spans[*place as usize];
            if distinct_key(&kept.normal) != distinct_key(&row.normal) {
                hash = hash.wrapping_add(1);
                continue;
            }
            if self.duplicates.len() < DUPLICATES_KEPT {
                self.duplicates.push(row.normal.span_id);
            }
            let rank = rank(row);
            if rank <= kept.rank {
                return Taken::Duplicate;
            }
            *kept = Kept { normal: Arc::clone(&row.normal), rank };
            self.dirty = true;
            return Taken::Longer;
        }
        if self.spans.len() >= SPANS_PER_TRACE_MAX {
            return Taken::BeyondLimit;
        }
        self.places.insert(hash, self.spans.len() as u32);
        // The texts of a normalised span are parts of the body it came in, and keep it.
        let body = row.span.attributes.text_bytes();
        self.bytes += row.normal.heap_estimate_bytes() + size_of::<Kept>() + body;
        self.spans.push(Kept { normal: Arc::clone(&row.normal), rank: rank(row) });
        self.dirty = true;
        Taken::New
    }

    /// The normalised spans, for derivation.
    pub(super) fn normalised(&self) -> Vec<Arc<NormalSpan>> {
        self.spans.iter().map(|row| Arc::clone(&row.normal)).collect()
    }

    /// Estimated memory held.
    pub(super) fn bytes(&self) -> usize {
        // Each place of the table takes its entry and a byte of control, at most 7 of 8 are taken.
        let places = self.places.capacity() * (size_of::<(u64, u32)>() + 1) * 8 / 7;
        self.bytes + places + self.emitted.capacity() * size_of::<Hop>() + size_of::<Request>()
    }

    /// Whether anything but facts of other traces came.
    pub(super) fn has_spans(&self) -> bool {
        self.spans.iter().any(|row| row.normal.fact.is_none())
    }

    /// What the trace was told when it asked: the fact, and how many answers there were before.
    pub(super) fn told(&self, question: &Question) -> Option<(&Fact, u64)> {
        let id = span_id(question);
        self.spans.iter().find_map(|row| {
            let fact = row.normal.fact.as_deref().filter(|_| row.normal.span_id == id)?;
            Some((fact, row.normal.duration_nanos()))
        })
    }
}

fn distinct_hash(span: &NormalSpan) -> u64 {
    foldhash_fixed::Fixed.hash_one(distinct_key(span))
}

/// Orders copies of one span: longer first, then by content.
fn rank(row: &SpanRow) -> (u64, u64) {
    let state = foldhash_fixed::Fixed;
    let mut hasher = state.build_hasher();
    let span = &row.span;
    (span.start, span.end, span.status.to_otlp(), &*span.status_message, span.attributes.len(), span.events.len())
        .hash(&mut hasher);
    for attribute in &span.attributes {
        attribute.key.hash(&mut hasher);
        match &attribute.value {
            Value::Str(text) => text.hash(&mut hasher),
            other => other.to_text().hash(&mut hasher),
        }
    }
    (span.duration_nanos(), std::hash::Hasher::finish(&hasher))
}
