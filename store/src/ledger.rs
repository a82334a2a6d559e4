//! The span ledger: for every reporting proxy, what it says it sent and what came of it.
//!
//! Accounting identity, exact at any published instant: `received = stored + duplicate`, where
//! refused spans never became "received" but are counted by reason where they were refused.

use std::collections::BTreeMap;

use windrose_proto::Text;
use windrose_proto::model::ProxyKind;
use windrose_proto::time::UnixNanos;

/// A reporting process, as coarse as every one of its spans can name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reporter {
    pub namespace: Option<Text>,
    pub service: Text,
    pub proxy_kind: ProxyKind,
}

/// What is known of one reporter since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReporterCounts {
    pub received: u64,
    pub stored: u64,
    pub duplicate: u64,
    /// Spans that came after their trace had been settled.
    pub late: u64,
    pub last_span: UnixNanos,
    /// What the proxy's own counters say, when it is scraped.
    pub reported_sent: Option<u64>,
    pub reported_dropped: Option<u64>,
}

/// All reporters of a tenant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    pub since: UnixNanos,
    pub reporters: BTreeMap<Reporter, ReporterCounts>,
}

/// Reporters remembered per tenant. A sender that invents names must not exhaust memory; beyond
/// this everything is booked on one reporter named `(other)`.
pub const REPORTERS_MAX: usize = 10_000;

impl Ledger {
    /// The counts of `reporter`.
    pub fn entry(&mut self, reporter: &Reporter) -> &mut ReporterCounts {
        if self.reporters.len() >= REPORTERS_MAX && !self.reporters.contains_key(reporter) {
            let other =
                Reporter { namespace: None, service: Text::from_static("(other)"), proxy_kind: ProxyKind::None };
            return self.reporters.entry(other).or_default();
        }
        self.reporters.entry(reporter.clone()).or_default()
    }
}
