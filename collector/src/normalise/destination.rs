//! Where a span says its request went (rules T).

use std::net::IpAddr;

use windrose_proto::model::{ProxyKind, Rule, Vantage};
use windrose_proto::normal::Destination;

use super::attrs::Key;
use super::cluster::{Cluster, ClusterForm, ClusterSide};
use super::host::{HostRules, host_of};
use super::node_id::NodeType;
use super::reading::Reading;

/// A destination in slices of the span it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct DestinationParts<'a> {
    pub(super) service: &'a str,
    pub(super) namespace: Option<&'a str>,
    pub(super) subset: Option<&'a str>,
    pub(super) external: bool,
    pub(super) ip: Option<IpAddr>,
    pub(super) blackhole: bool,
    pub(super) rule: &'static str,
}

/// The destination as this span itself names it.
pub(super) fn destination<'a>(
    reading: &Reading<'a>,
    kind: ProxyKind,
    vantage: Vantage,
) -> Option<DestinationParts<'a>> {
    if vantage == Vantage::Phase {
        return None;
    }
    by_istio_labels(reading, kind)
        .or_else(|| by_waypoint_cluster(reading))
        .or_else(|| by_cluster(reading, kind, vantage))
        .or_else(|| by_kong(reading, kind, vantage))
        .or_else(|| by_agentgateway(reading, kind, vantage))
        .or_else(|| by_peer(reading, vantage))
}

/// T1.
fn by_istio_labels<'a>(reading: &Reading<'a>, kind: ProxyKind) -> Option<DestinationParts<'a>> {
    let text = |key| reading.view.text(key).map(|text| &**text);
    let workload = text(Key::IstioDestinationWorkload).filter(|_| kind == ProxyKind::Istio)?;
    Some(DestinationParts {
        service: text(Key::IstioDestinationService).unwrap_or(workload),
        namespace: text(Key::IstioDestinationNamespace),
        subset: text(Key::IstioDestinationRevision),
        ..DestinationParts::inside("T1")
    })
}

/// T1b: a waypoint's cluster names the service it stands before.
fn by_waypoint_cluster<'a>(reading: &Reading<'a>) -> Option<DestinationParts<'a>> {
    let node = reading.node_id?.node_type;
    if !matches!(node, NodeType::Waypoint | NodeType::Agentgateway) {
        return None;
    }
    let cluster = reading.cluster.filter(|cluster| cluster.form == ClusterForm::C2)?;
    let host = cluster.host?;
    Some(DestinationParts {
        service: cluster.service.unwrap_or(host),
        namespace: cluster.namespace,
        subset: cluster.subset,
        external: !reading.hosts.is_internal(host),
        ..DestinationParts::inside("T1b")
    })
}

/// T2, T2b.
fn by_cluster<'a>(reading: &Reading<'a>, kind: ProxyKind, vantage: Vantage) -> Option<DestinationParts<'a>> {
    let cluster = reading.cluster.filter(|cluster| cluster.side == ClusterSide::Outbound)?;
    let is_routed = matches!(vantage, Vantage::Upstream | Vantage::Single | Vantage::Downstream);
    if kind == ProxyKind::None || !is_routed {
        return None;
    }
    let url_host = reading.view.first_text(&[Key::HttpUrl, Key::UrlFull]).and_then(|url| host_of(url));
    if let (ClusterForm::C1, Some(host)) = (cluster.form, url_host) {
        return Some(DestinationParts {
            service: host,
            external: true,
            blackhole: cluster.is_blackhole,
            ..DestinationParts::inside("T2b")
        });
    }
    let external = cluster.external.unwrap_or_else(|| {
        vantage != Vantage::Downstream && url_host.is_some_and(|host| !reading.hosts.is_internal(host))
    });
    Some(DestinationParts {
        service: cluster_service(&cluster)?,
        namespace: cluster.namespace,
        subset: cluster.subset,
        external,
        ..DestinationParts::inside("T2")
    })
}

fn cluster_service<'a>(cluster: &Cluster<'a>) -> Option<&'a str> {
    cluster.service.or(cluster.host)
}

/// T3.
fn by_kong<'a>(reading: &Reading<'a>, kind: ProxyKind, vantage: Vantage) -> Option<DestinationParts<'a>> {
    let is_upstream = matches!(vantage, Vantage::Upstream | Vantage::UpstreamLogical);
    if kind != ProxyKind::Kong || !is_upstream {
        return None;
    }
    let keys = [Key::KongServiceName, Key::ZipkinRemoteName, Key::NetPeerName, Key::PeerHostname];
    let name = reading.view.first_text(&keys).map(|text| &**text);
    let address = reading.view.first_text(&[Key::NetPeerIp, Key::ZipkinRemoteIp]).map(|text| &**text);
    kong_destination(name, address, reading.hosts)
}

/// Kong knows the host it resolved, and the address it chose.
fn kong_destination<'a>(
    name: Option<&'a str>,
    address: Option<&'a str>,
    hosts: &HostRules,
) -> Option<DestinationParts<'a>> {
    let named = name.map(|name| hosts.service_of(name)).unwrap_or_default();
    let external = match name.filter(|name| name.contains('.')) {
        Some(name) => !hosts.is_internal(name),
        None => address.is_some_and(|ip| !hosts.is_internal(ip)),
    };
    Some(DestinationParts {
        service: named.service.or(address)?,
        namespace: named.namespace,
        external,
        ip: address.and_then(|ip| ip.parse().ok()),
        ..DestinationParts::inside("T3")
    })
}

/// T6.
fn by_agentgateway<'a>(reading: &Reading<'a>, kind: ProxyKind, vantage: Vantage) -> Option<DestinationParts<'a>> {
    if kind != ProxyKind::Agentgateway || vantage != Vantage::Downstream {
        return None;
    }
    host_destination(host_of(reading.view.text(Key::Endpoint)?)?, reading.hosts, "T6")
}

/// T4.
fn by_peer<'a>(reading: &Reading<'a>, vantage: Vantage) -> Option<DestinationParts<'a>> {
    if !matches!(vantage, Vantage::Upstream | Vantage::UpstreamLogical) {
        return None;
    }
    if reading.cluster.is_some_and(|cluster| cluster.side == ClusterSide::Inbound) {
        return None;
    }
    let view = &reading.view;
    let named = view.first_text(&[Key::ServerAddress, Key::NetPeerName, Key::PeerHostname, Key::ZipkinRemoteName]);
    let url = || view.first_text(&[Key::UrlFull, Key::HttpUrl, Key::HttpUri, Key::GatewayRouteUri]);
    let peer = || view.first_text(&[Key::NetworkPeerAddress, Key::NetPeerIp, Key::ZipkinRemoteIp]);
    let address = named.or_else(url).or_else(peer)?;
    host_destination(host_of(address)?, reading.hosts, "T4")
}

fn host_destination<'a>(host: &'a str, hosts: &HostRules, rule: &'static str) -> Option<DestinationParts<'a>> {
    let named = hosts.service_of(host);
    Some(DestinationParts {
        service: named.service.unwrap_or(host),
        namespace: named.namespace,
        external: !hosts.is_internal(host),
        ip: host.parse().ok(),
        ..DestinationParts::inside(rule)
    })
}

// === impl DestinationParts ===

impl DestinationParts<'_> {
    const fn inside(rule: &'static str) -> Self {
        DestinationParts {
            service: "",
            namespace: None,
            subset: None,
            external: false,
            ip: None,
            blackhole: false,
            rule,
        }
    }

    /// Whether `known` is the same.
    pub(super) fn is(&self, known: &Destination) -> bool {
        self.service == &*known.service
            && self.namespace == known.namespace.as_deref()
            && self.subset == known.subset.as_deref()
            && self.external == known.external
            && self.ip == known.ip
            && self.blackhole == known.blackhole
            && self.rule == known.rule.0
    }

    /// A destination of its own.
    pub(super) fn to_destination(self) -> Destination {
        Destination {
            service: self.service.into(),
            namespace: self.namespace.map(Into::into),
            subset: self.subset.map(Into::into),
            external: self.external,
            ip: self.ip,
            blackhole: self.blackhole,
            rule: Rule(self.rule),
        }
    }
}
