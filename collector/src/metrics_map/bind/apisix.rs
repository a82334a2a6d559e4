//! APISIX: one series for the entry and the service behind it; `response_source` says who answered.

use std::collections::BTreeMap;

use super::Bound;
use super::reading::Reading;
use crate::exposition::{Dialect, Parser};
use crate::metrics_map::state::Origin;
use crate::metrics_map::table::Canonical;
use crate::metrics_map::{Options, Page, PeerNode};

impl Reading<'_> {
    pub(super) fn apisix(&self) -> Bound {
        let latency = self.label("type");
        match (self.canonical(), latency.as_deref()) {
            (Canonical::Requests, _) => {
                // Before 3.17 nobody says who answered.
                let is_own = self.label("response_source").is_some_and(|source| source != "upstream");
                self.gateway_requests(self.apisix_destination(), self.code("code"), is_own)
            }
            (Canonical::DurationByType, Some("request")) => self.duration_of(&self.incoming(Origin::Primary)),
            (Canonical::DurationByType, Some("upstream")) => match self.apisix_destination() {
                Some(destination) => self.duration_of(&self.outgoing(destination, Origin::Primary)),
                None => Bound::Nothing,
            },
            (Canonical::Bytes, kind) => self.gateway_bytes(kind),
            _ => Bound::Nothing,
        }
    }

    /// The service's name; of an egress gateway the outside host it stands for. An outside address
    /// makes the edge external.
    fn apisix_destination(&self) -> Option<PeerNode> {
        let node = self.label("node");
        let outside =
            node.as_deref().and_then(|node| node.parse().ok()).map(|ip| !crate::normalise::host::is_private_ip(ip));
        let name = self.label("service").or_else(|| self.label("matched_host")).or(node)?;
        let host = self.context.apisix_hosts.get(&*name).map(String::as_str);
        let named = self.node_of_host(host.unwrap_or(&name));
        let external = outside.or(named.external);
        Some(PeerNode { external, ..named })
    }
}

/// The one outside host of each service of an egress gateway, by which its spans call the service
/// too (T5). Latencies name the service only, so the host is looked up rather than read.
pub(super) fn hosts(page: Page<'_>, options: &Options) -> BTreeMap<String, String> {
    let mut hosts: BTreeMap<String, Option<String>> = BTreeMap::new();
    for sample in Parser::new(page.body, Dialect::Text).samples().filter(|sample| sample.name == "apisix_http_status") {
        let (Some(service), Some(host)) = (sample.labels.get("service"), sample.labels.get("matched_host")) else {
            continue;
        };
        if service.is_empty() || host.is_empty() || options.overrides.hosts.is_internal(&host) {
            continue;
        }
        let known = hosts.entry(service.into_owned()).or_insert_with(|| Some(host.clone().into_owned()));
        if known.as_deref() != Some(&*host) {
            *known = None;
        }
    }
    hosts.into_iter().filter_map(|(service, host)| Some((service, host?))).collect()
}
