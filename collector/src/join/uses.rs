//! How spans are used: no span disappears, so what was stored is what was used.

use windrose_proto::hop::{Derived, SpanUse};
use windrose_proto::model::Direction;

/// Spans by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanUses {
    /// Half of a hop between two nodes, or between them.
    pub hop: i64,
    /// Only of a leg between a proxy and its own application.
    pub local: i64,
    /// Work inside a process.
    pub phase: i64,
    /// In no hop, with a reason that `/api/v1/explain` tells.
    pub unlinked: i64,
    /// Access log entries of spans that were received.
    pub confirmed: i64,
}

impl SpanUses {
    /// The uses of a derived trace; facts of other traces are no spans and are left out.
    #[must_use]
    pub fn of(derived: &Derived) -> Self {
        let mut uses = Self { confirmed: derived.confirmations.into(), ..Self::default() };
        for verdict in derived.verdicts.iter().filter(|verdict| !verdict.is_fact) {
            let is_local = |hop: &u32| derived.hops[*hop as usize].direction == Direction::Local;
            match &verdict.usage {
                SpanUse::Hop { hops } if hops.iter().all(is_local) => uses.local += 1,
                SpanUse::Hop { .. } => uses.hop += 1,
                SpanUse::Phase => uses.phase += 1,
                SpanUse::Unlinked { .. } => uses.unlinked += 1,
            }
        }
        uses
    }

    /// All spans.
    #[must_use]
    pub const fn sum(self) -> i64 {
        self.hop + self.local + self.phase + self.unlinked + self.confirmed
    }

    /// Adds `new` in the place of `old`.
    pub(super) const fn replace(&mut self, old: Self, new: Self) {
        self.hop += new.hop - old.hop;
        self.local += new.local - old.local;
        self.phase += new.phase - old.phase;
        self.unlinked += new.unlinked - old.unlinked;
        self.confirmed += new.confirmed - old.confirmed;
    }
}
