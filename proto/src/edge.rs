//! Edge rollups: everything a topology answer needs, per window and edge.
//!
//! A rollup is a pure sum, so windows, shards and corrections combine by addition, and a hop can
//! be taken back out when a late span changes it. The one number that cannot be subtracted, the
//! exact maximum, is kept as the few slowest calls with their traces: taking one away promotes the
//! next. When corrections have used them all up, the maximum is unknown rather than wrong.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::Text;
use crate::hop::{Entry, Hop, Node};
use crate::id::TraceId;
use crate::model::{Direction, Fault, Protocol, Reason, Tls};
use crate::sketch::Sketch;
use crate::time::UnixNanos;

#[cfg(test)]
mod tests;

/// Live windows: fine enough that "now" is visible at once.
pub const LIVE_WINDOW_NANOS: u64 = 10_000_000_000;
/// Sealed windows.
pub const SEALED_WINDOW_NANOS: u64 = 60_000_000_000;

/// What one rollup row is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EdgeKey {
    pub source: Arc<Node>,
    pub destination: Arc<Node>,
    pub direction: Direction,
    pub protocol: Protocol,
    /// `None` for rows made from counters, which know no route.
    pub entry: Option<Entry>,
    /// [`Hop::origin`]: on whose behalf an egress gateway called.
    pub origin: Option<Arc<Node>>,
}

/// How a class of failures is told apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorClass {
    /// HTTP status, or `grpc:N`, or `0` when nobody answered.
    pub code: Text,
    pub reason: Option<Reason>,
    pub fault: Fault,
}

/// How many of the slowest calls a rollup remembers. Four: one for the answer, three so that
/// corrections of late spans (rare, and rarely of the slowest) do not exhaust them.
pub const SLOWEST_KEPT: usize = 4;

/// The few largest observations with their traces, largest first: the slowest calls, the latest errors.
///
/// Invariant: beyond `cut` the entries are what was added and not removed, without exception. A correction row takes
/// away an observation that an earlier row holds, so removals that find nothing to remove are kept until the rows are
/// merged, where the pair annihilates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Largest {
    entries: Vec<Observation>,
    /// Removals still waiting for their observation; only corrections of late spans make any.
    removals: Vec<Observation>,
    /// The largest that was cut off the list, here or in a row that was merged: of what is not beyond it nothing is known.
    cut: Option<Observation>,
}

type Observation = (u64, TraceId);

impl Largest {
    /// Remembers an observation.
    pub fn add(&mut self, nanos: u64, trace: TraceId) {
        let observation = (nanos, trace);
        if let Some(place) = self.removals.iter().position(|entry| *entry == observation) {
            self.removals.swap_remove(place);
            return;
        }
        if !self.is_known(observation) {
            return;
        }
        let place = self.entries.partition_point(|entry| *entry >= observation);
        self.entries.insert(place, observation);
        if self.entries.len() > SLOWEST_KEPT {
            self.cut_at(self.entries[SLOWEST_KEPT]);
        }
    }

    /// Forgets an observation, here or in the row this one will be merged with.
    pub fn remove(&mut self, nanos: u64, trace: TraceId) {
        let observation = (nanos, trace);
        match self.entries.iter().position(|entry| *entry == observation) {
            Some(place) => drop(self.entries.remove(place)),
            None if self.is_known(observation) => self.removals.push(observation),
            None => {}
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        if let Some(cut) = other.cut {
            self.cut_at(cut);
        }
        other.removals.iter().for_each(|(nanos, trace)| self.remove(*nanos, *trace));
        other.entries.iter().for_each(|(nanos, trace)| self.add(*nanos, *trace));
    }

    fn is_known(&self, observation: Observation) -> bool {
        self.cut.is_none_or(|cut| observation > cut)
    }

    fn cut_at(&mut self, cut: Observation) {
        let cut = self.cut.map_or(cut, |known| known.max(cut));
        self.cut = Some(cut);
        self.entries.truncate(self.entries.partition_point(|entry| *entry > cut));
        self.removals.retain(|entry| *entry > cut);
    }

    /// The exact maximum. `None` when nothing was observed, or when corrections used up the list.
    #[must_use]
    pub fn max_nanos(&self) -> Option<u64> {
        self.entries.first().map(|(nanos, _)| *nanos)
    }

    /// Largest first.
    #[must_use]
    pub fn entries(&self) -> &[(u64, TraceId)] {
        &self.entries
    }

    /// Removals that found nothing to remove here, for storing a correction row.
    #[must_use]
    pub fn removals(&self) -> &[(u64, TraceId)] {
        &self.removals
    }

    /// The largest observation that was cut off, if any was: then an empty list does not mean "none".
    #[must_use]
    pub const fn cut(&self) -> Option<(u64, TraceId)> {
        self.cut
    }

    /// From stored parts.
    #[must_use]
    pub fn from_parts(
        entries: impl IntoIterator<Item = (u64, TraceId)>,
        removals: impl IntoIterator<Item = (u64, TraceId)>,
        cut: Option<(u64, TraceId)>,
    ) -> Self {
        let mut slowest = Self { entries: Vec::new(), removals: Vec::new(), cut };
        entries.into_iter().for_each(|(nanos, trace)| slowest.add(nanos, trace));
        removals.into_iter().for_each(|(nanos, trace)| slowest.remove(nanos, trace));
        slowest
    }
}

/// Latency of one side of an edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    pub count: i64,
    pub sum_nanos: i128,
    pub sketch: Sketch,
    pub slowest: Largest,
}

impl Latency {
    /// Adds (`sign` 1) or takes away (`sign` -1) one observation.
    fn apply(&mut self, nanos: u64, trace: TraceId, sign: i64) {
        self.count += sign;
        self.sum_nanos += i128::from(nanos) * i128::from(sign);
        self.sketch.add(nanos, sign);
        if sign > 0 { self.slowest.add(nanos, trace) } else { self.slowest.remove(nanos, trace) }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_nanos += other.sum_nanos;
        self.sketch.merge(&other.sketch);
        self.slowest.merge(&other.slowest);
    }

    /// Mean in nanoseconds; `None` when nothing was observed.
    #[must_use]
    pub fn mean_nanos(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum_nanos as f64 / self.count as f64)
    }
}

/// What spans say about an edge in a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpanStats {
    /// Requests: final attempts.
    pub calls: i64,
    /// All attempts.
    pub attempts: i64,
    /// Calls that failed.
    pub errors: i64,
    /// Failed attempts, retried ones included.
    pub attempt_errors: i64,
    pub by_class: BTreeMap<ErrorClass, i64>,
    pub client: Latency,
    pub server: Latency,
    /// Hops seen from both sides: sum of client minus server time, and how many.
    pub both_sides: i64,
    pub overhead_sum_nanos: i128,
    pub tls_mutual: i64,
    pub tls_known: i64,
    pub request_bytes: i64,
    pub response_bytes: i64,
    /// Spans consumed by these hops.
    pub spans: i64,
    pub inferred: i64,
    /// Calls known from access logs alone, within [`Self::calls`].
    pub logged: i64,
    /// Hops that came into being after their trace had been settled.
    pub late: i64,
    pub duplicate: i64,
    /// The callee went on working after the caller had given up.
    pub late_server: i64,
    /// Mirrored requests: in no other number but `spans`.
    pub mirrored: i64,
    /// The latest failed calls: start of the hop in unix nanoseconds, and its trace.
    pub latest_errors: Largest,
}

/// What unsampled proxy counters say about an edge in a window. All are differences of cumulative
/// counters; `None`-able facts are absent keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterStats {
    /// Requests answered to the caller.
    pub calls: i64,
    /// Attempts that got a stream.
    pub attempts: i64,
    pub by_code: BTreeMap<Text, i64>,
    pub errors: i64,
    pub retries: i64,
    pub retries_succeeded: i64,
    pub retries_exhausted: i64,
    pub timeouts: i64,
    pub circuit_rejected: i64,
    pub connect_failures: i64,
    pub resets: i64,
    pub ejections: i64,
    pub bytes_sent: i64,
    pub bytes_received: i64,
    pub tls_mutual: i64,
    pub tls_known: i64,
    /// Scrape intervals that contributed.
    pub scrapes: i64,
}

/// One rollup cell: spans and counters side by side, never added to each other. Counters of the
/// calling proxy and of the called proxy describe the same traffic, so they are kept apart too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EdgeStats {
    pub spans: SpanStats,
    pub client_counters: CounterStats,
    pub server_counters: CounterStats,
}

/// Whether a hop is added or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    Add,
    Retract,
}

impl Sign {
    const fn factor(self) -> i64 {
        match self {
            Self::Add => 1,
            Self::Retract => -1,
        }
    }
}

/// By what tells keys apart: hashing every part of three nodes for every hop took longer than the
/// rest of counting it.
impl Hash for EdgeKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let nodes = [Some(&self.source), Some(&self.destination), self.origin.as_ref()];
        for node in nodes.into_iter().flatten() {
            (&node.service, &node.namespace, &node.version).hash(state);
        }
        (self.direction, self.protocol, &self.entry).hash(state);
    }
}

impl EdgeKey {
    /// The edge a hop belongs to.
    #[must_use]
    pub fn of(hop: &Hop) -> Self {
        Self {
            source: Arc::clone(&hop.source),
            destination: Arc::clone(&hop.destination),
            direction: hop.direction,
            protocol: hop.protocol,
            entry: Some(hop.entry.clone()),
            origin: hop.origin.clone(),
        }
    }
}

impl ErrorClass {
    /// The class of a failed hop.
    #[must_use]
    pub fn of(hop: &Hop) -> Self {
        let code = match (hop.grpc_status, hop.http_status) {
            (Some(grpc), _) if grpc != 0 => Text::from(format!("grpc:{grpc}")),
            (_, Some(status)) => Text::from(status.to_string()),
            (_, None) => Text::from_static("0"),
        };
        Self { code, reason: hop.reasons.first().cloned(), fault: hop.fault }
    }
}

impl SpanStats {
    /// Adds or takes back one hop. `late` marks hops of traces that had been settled before.
    pub fn apply(&mut self, hop: &Hop, sign: Sign, late: bool) {
        let n = sign.factor();
        if !hop.logged {
            self.spans += (i64::from(hop.client_span.is_some()) + i64::from(hop.server_span.is_some())) * n;
        }
        if hop.mirror {
            self.mirrored += n;
            return;
        }
        self.attempts += n;
        if hop.error {
            self.attempt_errors += n;
        }
        if hop.is_call() {
            self.calls += n;
            self.logged += if hop.logged { n } else { 0 };
            if hop.error {
                self.errors += n;
                self.count_error(hop, sign);
            }
        }
        if !hop.is_stream() {
            self.apply_times(hop, n);
        }
        if hop.tls != Tls::Unknown {
            self.tls_known += n;
            self.tls_mutual += if hop.tls == Tls::Mutual { n } else { 0 };
        }
        self.request_bytes += hop.request_bytes.map_or(0, |bytes| bytes as i64) * n;
        self.response_bytes += hop.response_bytes.map_or(0, |bytes| bytes as i64) * n;
        self.inferred += i64::from(hop.reporters == crate::model::Reporters::Inferred) * n;
        self.late_server += i64::from(hop.late_server_nanos.is_some()) * n;
        // A hop is only ever retracted from the rollup by a revision, so what stays is late.
        self.late += i64::from(late && sign == Sign::Add);
    }

    fn apply_times(&mut self, hop: &Hop, n: i64) {
        if let Some(nanos) = hop.client_nanos {
            self.client.apply(nanos, hop.trace_id, n);
        }
        if let Some(nanos) = hop.server_nanos {
            self.server.apply(nanos, hop.trace_id, n);
        }
        if let (Some(client), Some(server)) = (hop.client_nanos, hop.server_nanos) {
            self.both_sides += n;
            self.overhead_sum_nanos += (i128::from(client) - i128::from(server)) * i128::from(n);
        }
    }

    fn count_error(&mut self, hop: &Hop, sign: Sign) {
        let count = self.by_class.entry(ErrorClass::of(hop)).or_default();
        *count += sign.factor();
        if *count == 0 {
            self.by_class.remove(&ErrorClass::of(hop));
        }
        match sign {
            Sign::Add => self.latest_errors.add(hop.start.0, hop.trace_id),
            Sign::Retract => self.latest_errors.remove(hop.start.0, hop.trace_id),
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.attempts += other.attempts;
        self.errors += other.errors;
        self.attempt_errors += other.attempt_errors;
        merge_counts(&mut self.by_class, &other.by_class);
        self.client.merge(&other.client);
        self.server.merge(&other.server);
        self.both_sides += other.both_sides;
        self.overhead_sum_nanos += other.overhead_sum_nanos;
        self.tls_mutual += other.tls_mutual;
        self.tls_known += other.tls_known;
        self.request_bytes += other.request_bytes;
        self.response_bytes += other.response_bytes;
        self.spans += other.spans;
        self.inferred += other.inferred;
        self.logged += other.logged;
        self.late += other.late;
        self.duplicate += other.duplicate;
        self.late_server += other.late_server;
        self.mirrored += other.mirrored;
        self.latest_errors.merge(&other.latest_errors);
    }
}

impl CounterStats {
    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.attempts += other.attempts;
        merge_counts(&mut self.by_code, &other.by_code);
        self.errors += other.errors;
        self.retries += other.retries;
        self.retries_succeeded += other.retries_succeeded;
        self.retries_exhausted += other.retries_exhausted;
        self.timeouts += other.timeouts;
        self.circuit_rejected += other.circuit_rejected;
        self.connect_failures += other.connect_failures;
        self.resets += other.resets;
        self.ejections += other.ejections;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.tls_mutual += other.tls_mutual;
        self.tls_known += other.tls_known;
        self.scrapes += other.scrapes;
    }

    /// Whether no scrape contributed.
    #[must_use]
    pub const fn is_absent(&self) -> bool {
        self.scrapes == 0
    }
}

impl SpanStats {
    /// Whether all that was ever added has been taken back: the edge does not exist.
    #[must_use]
    pub const fn is_absent(&self) -> bool {
        self.attempts == 0 && self.mirrored == 0
    }
}

impl EdgeStats {
    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.spans.merge(&other.spans);
        self.client_counters.merge(&other.client_counters);
        self.server_counters.merge(&other.server_counters);
    }
}

fn merge_counts<K: Ord + Clone>(into: &mut BTreeMap<K, i64>, from: &BTreeMap<K, i64>) {
    for (key, count) in from {
        let sum = into.entry(key.clone()).or_default();
        *sum += count;
        if *sum == 0 {
            into.remove(key);
        }
    }
}

/// The rollup rows of one window.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgeRow {
    pub window_start: UnixNanos,
    pub window_nanos: u64,
    pub key: Arc<EdgeKey>,
    pub stats: Arc<EdgeStats>,
}
