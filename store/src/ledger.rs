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
    /// The counts of `reporter`. Spans tell Istio from plain Envoy, counters often do not: the two
    /// are one reporter, under the name that says more.
    pub fn entry(&mut self, reporter: &Reporter) -> &mut ReporterCounts {
        let reporter = if self.reporters.contains_key(reporter) {
            reporter.clone()
        } else if let Some(known) = self.same_proxy(reporter) {
            self.under_better_name(known, reporter)
        } else if self.reporters.len() >= REPORTERS_MAX {
            Reporter { namespace: None, service: Text::from_static("(other)"), proxy_kind: ProxyKind::None }
        } else {
            reporter.clone()
        };
        self.reporters.entry(reporter).or_default()
    }

    /// A reporter of the same name that is an Envoy too, when one of the two says no more than that.
    fn same_proxy(&self, reporter: &Reporter) -> Option<Reporter> {
        let of_kind = |kind| Reporter { proxy_kind: kind, ..reporter.clone() };
        let kinds = ProxyKind::ALL.iter().copied().filter(|kind| kind.is_envoy_family());
        let mut namesakes = kinds.map(of_kind).filter(|namesake| self.reporters.contains_key(namesake));
        let one_is_plain =
            |known: &Reporter| known.proxy_kind == ProxyKind::Envoy || reporter.proxy_kind == ProxyKind::Envoy;
        namesakes.find(|known| reporter.proxy_kind.is_envoy_family() && one_is_plain(known))
    }

    fn under_better_name(&mut self, known: Reporter, other: &Reporter) -> Reporter {
        if known.proxy_kind != ProxyKind::Envoy {
            return known;
        }
        let counts = self.reporters.remove(&known).unwrap_or_default();
        self.reporters.insert(other.clone(), counts);
        other.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reporter(service: &'static str, proxy_kind: ProxyKind) -> Reporter {
        Reporter { namespace: None, service: Text::from_static(service), proxy_kind }
    }

    /// Books one span on each, in this order, and lists what is known then.
    #[track_caller]
    fn check(booked: &[(&'static str, ProxyKind)], expect: &[(&str, ProxyKind, u64)]) {
        let mut ledger = Ledger::default();
        for (service, kind) in booked {
            ledger.entry(&reporter(service, *kind)).received += 1;
        }
        let known: Vec<(&str, ProxyKind, u64)> =
            ledger.reporters.iter().map(|(who, counts)| (&*who.service, who.proxy_kind, counts.received)).collect();
        assert_eq!(known, expect);
    }

    #[test]
    fn counters_and_spans_of_an_envoy_meet_in_either_order() {
        use ProxyKind::{Envoy, Istio, Kong, None};
        check(&[("a", Istio), ("a", Envoy)], &[("a", Istio, 2)]);
        check(&[("a", Envoy), ("a", Istio), ("a", Envoy)], &[("a", Istio, 3)]);
        check(&[("a", Istio), ("b", Envoy)], &[("a", Istio, 1), ("b", Envoy, 1)]);
        check(&[("a", None), ("a", Envoy)], &[("a", Envoy, 1), ("a", None, 1)]);
        check(&[("a", Kong), ("a", Envoy)], &[("a", Envoy, 1), ("a", Kong, 1)]);
    }
}
