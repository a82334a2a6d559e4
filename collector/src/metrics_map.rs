//! Counters of proxies, attached to edges: many vendors' families in, one model out.
//!
//! An [`Observer`] takes the lines of one page of one target against what was remembered of the
//! previous page and tells what happened in between, per edge. Which family means what is constant data
//! ([`table`]); how labels name the two ends is one file per vendor ([`bind`]); differences of
//! counters are taken in one place ([`state`]).
//!
//! Invariants:
//! - the first page of a target never yields a difference, because nobody knows since when its
//!   counters run;
//! - a counter that went down was reset and counts from zero, and a series that appears after the
//!   first page was born in between and counts from zero too;
//! - a restarted process is recognised by its start time, so that counters which happen to be
//!   higher than before the restart count in full;
//! - requests are counted once: sub-counts (`internal_`, `external_`, `zone_…`) are no families
//!   here, of code and class series of the same requests only one is used, and where a page tells
//!   the same traffic twice (Istio's own series beside Envoy's) the richer family wins;
//! - memory per target is bounded by [`Options::series_max`]; what is beyond is counted.
//!
//! What Envoy's statistics of an upstream cluster reproduce of the calling proxy's access log was
//! checked, number by number, on captured pages of a real mesh (`tests/mesh.rs`):
//!
//! | access log | counters |
//! |---|---|
//! | requests with an answer | `upstream_rq{code}` = `upstream_rq_completed`, answers the proxy made itself included |
//! | requests without (`DC`, code 0) | `upstream_rq_total` − `upstream_rq_retry` + refused − answered − `upstream_rq_active` |
//! | 5xx, and each code | `upstream_rq{code}` |
//! | `UT` | `upstream_rq_timeout` |
//! | `UO` | `upstream_rq_pending_overflow` |
//! | `UF` | `upstream_rq_pending_failure_eject`; `upstream_cx_connect_fail` counts connections |
//! | `URX` | `upstream_rq_retry_limit_exceeded` |
//! | attempts | `upstream_rq_total` |
//!
//! where refused is `pending_overflow` + `pending_failure_eject` + `cx_none_healthy` +
//! `maintenance_mode`. Not counted for any cluster, though its access log names the cluster: injected
//! aborts (`FI`), and what the gateway's own filters refuse (`RL`, 401).

use std::collections::BTreeMap;
use std::sync::Arc;

use windrose_proto::Text;
use windrose_proto::model::{NodeRole, Protocol, ProxyKind, Reason, Reporters};
use windrose_proto::time::{TimeRange, UnixNanos};

use crate::exposition::{Dialect, Series};
use crate::normalise::overrides::Overrides;

pub mod batch;
pub mod bind;
mod envoy_names;
mod flags;
mod identity;
pub mod pushed;
pub mod state;
mod sums;
pub mod table;
#[cfg(test)]
mod tests;

pub use identity::TargetIdentity;
use state::{Advance, Readings};
pub use state::{Renumbering, TargetState, Use};

/// A page to be read.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    pub body: &'a [u8],
    pub dialect: Dialect,
    pub scraped_at: UnixNanos,
}

/// What operators and limits say.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names, roles, and which hosts are inside.
    pub overrides: Arc<Overrides>,
    /// Most series remembered per target. One costs about 300 bytes, so the default bounds a target
    /// at 60 MB; an Envoy with 2 000 upstream clusters needs about 90 000.
    pub series_max: usize,
    /// Further upstream clusters that are not part of the mesh's traffic.
    pub internal_clusters: Vec<String>,
}

/// One end of an edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    Node(PeerNode),
    /// Whoever called: counters at the entry of a proxy do not say who sent the request. For a
    /// gateway that is the outside, for anything else it is unknown.
    Caller,
}

/// A named end of an edge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PeerNode {
    pub service: Text,
    pub namespace: Option<Text>,
    pub workload: Option<Text>,
    pub version: Option<Text>,
    pub cluster: Option<Text>,
    pub role: Option<NodeRole>,
    /// `None` when nothing decides between inside and outside.
    pub external: Option<bool>,
}

/// What the counters of one target say about one edge since the previous scrape.
#[derive(Clone, Debug, PartialEq)]
pub struct CounterDelta {
    pub source: Peer,
    pub destination: Peer,
    /// The side that counted: `client`, `server` or `waypoint`. Both sides describe the same
    /// traffic and are never added.
    pub reporter: Reporters,
    pub protocol: Protocol,
    /// Of the proxy that counted.
    pub proxy_kind: ProxyKind,
    /// The series name their callers and say that this one is unknown, as opposed to counters at
    /// an entry, which name none.
    pub says_unknown_caller: bool,
    /// From the previous scrape to this one.
    pub interval: TimeRange,
    pub counts: EdgeCounts,
}

/// Additive facts about an edge.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EdgeCounts {
    /// Requests that got an answer, be it one the proxy made itself.
    pub answered: i64,
    /// Requests that ended without an answer, because the caller went away; code `0`.
    pub aborted: i64,
    /// By HTTP status, `grpc:N`, class (`5xx`, where the proxy tells no more) or `0`.
    pub by_code: BTreeMap<Text, i64>,
    /// Server errors: status or class 5xx and gRPC's server codes. Aborted requests are not in it.
    pub errors: i64,
    /// Failures whose answer a proxy wrote itself.
    pub proxy_faults: i64,
    /// Why requests did not go the plain way, where the proxy counts that per edge.
    pub reasons: BTreeMap<Reason, i64>,
    /// Attempts that got a stream, retries included.
    pub attempts: i64,
    pub retries: i64,
    pub retries_succeeded: i64,
    pub retries_exhausted: i64,
    pub timeouts: i64,
    pub circuit_rejected: i64,
    /// Requests that failed because no connection could be made.
    pub connect_failures: i64,
    pub no_healthy_upstream: i64,
    pub resets: i64,
    pub ejections: i64,
    pub denied: i64,
    pub connections_opened: i64,
    pub connections_failed: i64,
    /// Connections that completed a TLS handshake; whether it was mutual is not counted.
    pub tls_handshakes: i64,
    /// From the source to the destination.
    pub bytes_sent: i64,
    /// From the destination to the source.
    pub bytes_received: i64,
    /// Requests for which it is known whether they came over mutual TLS, and those that did.
    pub tls_known: i64,
    pub tls_mutual: i64,
    pub duration: Option<HistogramDelta>,
}

/// Observations of a histogram since the previous scrape, in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramDelta {
    /// Finite upper bounds, ascending.
    pub bounds: Vec<f64>,
    /// Observations per bucket, one more than bounds: the last is above the highest bound. Empty
    /// when the proxy tells only sum and count.
    pub counts: Vec<u64>,
    pub sum: f64,
    pub count: u64,
}

/// What a proxy did as a whole since the previous scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyDelta {
    /// Spans the proxy says it sent; `None` when it does not count them.
    pub spans_sent: Option<i64>,
    pub spans_dropped: Option<i64>,
    /// The process was restarted since the previous scrape.
    pub restarted: bool,
}

/// How reading the page went. `samples` are all samples, the other counts are parts of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageStats {
    pub samples: usize,
    /// Of a known family.
    pub mapped: usize,
    /// Of the proxy's own dealings: control plane, telemetry, admin.
    pub internal: usize,
    /// A second sample of a series of the same page.
    pub duplicate: usize,
    /// Series not remembered because the target has too many.
    pub over_limit: usize,
}

/// What a page told.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Between the previous page and this one; `None` for the first.
    pub interval: Option<TimeRange>,
    pub edges: Vec<CounterDelta>,
    pub proxy: ProxyDelta,
    pub proxy_kind: ProxyKind,
    pub stats: PageStats,
}

/// Takes the lines of one page; [`Self::finish`] or [`Self::abandon`] must follow. Pages must come in
/// the order of their scrapes.
#[derive(Debug)]
pub struct Observer<'a> {
    identity: &'a TargetIdentity,
    state: &'a mut TargetState,
    page: Page<'a>,
    options: &'a Options,
    /// Made when a line is seen for the first time.
    context: Option<bind::Context<'a>>,
    readings: Readings,
    stats: PageStats,
    series_before: usize,
}

impl<'a> Observer<'a> {
    /// Begins a page of `identity` against the `state` left by its previous page.
    #[must_use]
    pub fn new(identity: &'a TargetIdentity, state: &'a mut TargetState, page: Page<'a>, options: &'a Options) -> Self {
        state.begin();
        let series_before = state.series_len();
        let (readings, stats) = (Readings::default(), PageStats::default());
        Self { identity, state, page, options, context: None, readings, stats, series_before }
    }

    /// What a line is good for that was not seen before. To be remembered by the caller.
    pub fn admit(&mut self, sample: &Series<'_>) -> Use {
        let Self { identity, page, options, .. } = self;
        let context = self.context.get_or_insert_with(|| bind::Context::of(identity, *page, options));
        self.state.admit(sample, context, self.options.series_max)
    }

    /// Works out anew what a line is good for that was seen before hosts were told apart as they are
    /// now. It goes on under the number it has.
    pub fn admit_again(&mut self, line: Use, sample: &Series<'_>) {
        let Self { identity, page, options, .. } = self;
        let context = self.context.get_or_insert_with(|| bind::Context::of(identity, *page, options));
        self.state.admit_again(line, sample, context);
    }

    /// Takes the value of a line.
    #[inline]
    pub fn take(&mut self, line: Use, value: f64) {
        self.state.take(line, value, &mut self.readings, &mut self.stats);
    }

    /// The page has never been there. Returns how the uses of lines are to be renumbered, if they are.
    #[must_use]
    pub fn abandon(self) -> Option<Renumbering> {
        let is_any = self.state.forget_since(self.series_before);
        is_any.then(|| Renumbering::cut(self.series_before))
    }

    /// What the page told, and how the uses of lines are to be renumbered, if they are.
    #[must_use]
    pub fn finish(self) -> (Observation, Option<Renumbering>) {
        let Self { state, page, context, readings, stats, .. } = self;
        if let Some(context) = context {
            state.proxy_kind = Some(context.proxy_kind);
        }
        let proxy_kind = state.proxy_kind.unwrap_or(ProxyKind::None);
        let Advance { interval, edges, proxy, renumbering } = state.advance(&readings, page.scraped_at);
        (Observation { interval, edges, proxy, proxy_kind, stats }, renumbering)
    }
}

// === impl Options ===

/// See [`Options::series_max`].
pub const SERIES_PER_TARGET_MAX: usize = 200_000;

impl Default for Options {
    fn default() -> Self {
        Self { overrides: Arc::default(), series_max: SERIES_PER_TARGET_MAX, internal_clusters: Vec::new() }
    }
}

// === impl EdgeCounts ===

impl EdgeCounts {
    /// All requests: answered and aborted.
    #[must_use]
    pub const fn calls(&self) -> i64 {
        self.answered + self.aborted
    }

    /// Whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

// === impl PeerNode ===

impl PeerNode {
    /// The target itself as an end of an edge.
    #[must_use]
    pub fn of_target(identity: &TargetIdentity) -> Self {
        Self {
            service: identity.service.clone(),
            namespace: identity.namespace.clone(),
            workload: identity.workload.clone(),
            version: identity.version.clone(),
            cluster: identity.cluster.clone(),
            role: identity.role,
            external: Some(false),
        }
    }
}
