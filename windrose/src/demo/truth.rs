//! What really happened: the generator counts the calls it made, so that a test can compare the
//! server's answers with it.

use std::collections::BTreeMap;

/// From whom to whom, as `namespace/app@version` of the proxies, `(client)` for the public, a host
/// name for what is outside, and `namespace/app` for services without a sidecar.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TruthEdge {
    pub source: String,
    pub target: String,
}

/// What happened on an edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TruthCounts {
    /// Requests as the caller made them, retries not counted.
    pub calls: u64,
    /// Requests that arrived at the target, retries counted.
    pub attempts: u64,
    /// Calls that the caller saw fail: 5xx or no answer.
    pub errors: u64,
}

impl TruthCounts {
    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.attempts += other.attempts;
        self.errors += other.errors;
    }
}

/// All edges: every call, and those of sampled traces, which alone made spans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    pub all: BTreeMap<TruthEdge, TruthCounts>,
    pub sampled: BTreeMap<TruthEdge, TruthCounts>,
}

/// One call that has ended.
#[derive(Clone, Debug)]
pub(crate) struct TruthCall {
    pub(crate) edge: TruthEdge,
    pub(crate) counts: TruthCounts,
    pub(crate) is_sampled: bool,
}

impl Truth {
    pub(crate) fn add(&mut self, call: TruthCall) {
        if call.is_sampled {
            self.sampled.entry(call.edge.clone()).or_default().add(call.counts);
        }
        self.all.entry(call.edge).or_default().add(call.counts);
    }
}
