//! What a node is on the path (rules R1–R3 and R6; R4 needs the trace).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use windrose_proto::model::{NodeRole, ProxyKind, Rule, SpanKind};
use windrose_proto::normal::RoleHint;

use super::attrs::Key;
use super::cluster::{ClusterForm, ClusterSide};
use super::host::host_of;
use super::names::{names_eastwest, names_egress, names_ingress};
use super::node_id::NodeType;
use super::reading::Reading;

/// The address from which Istio's sidecar calls its application.
const ISTIO_INBOUND_PASSTHROUGH: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));

/// The role as far as the span alone says, and the rule that decided. `overridden` is what the
/// operator says about this service.
pub(super) fn role(
    reading: &Reading<'_>,
    kind: ProxyKind,
    service: &str,
    ip: Option<IpAddr>,
    overridden: Option<NodeRole>,
) -> (RoleHint, Rule) {
    if let Some(role) = overridden {
        return (RoleHint::Known(role), Rule("R1"));
    }
    let by_node_id = match reading.node_id.map(|id| id.node_type) {
        Some(NodeType::Sidecar) => Some((NodeRole::Sidecar, "R2a")),
        Some(NodeType::Waypoint | NodeType::Agentgateway) => Some((NodeRole::Waypoint, "R2b")),
        Some(NodeType::Ztunnel) => Some((NodeRole::NodeProxy, "R2c")),
        Some(NodeType::Router) | None => None,
    };
    if let Some((role, rule)) = by_node_id {
        return (RoleHint::Known(role), Rule(rule));
    }
    if kind == ProxyKind::Linkerd {
        return (RoleHint::Known(NodeRole::Sidecar), Rule("R2d"));
    }
    let is_router = reading.node_id.is_some();
    if kind == ProxyKind::None && !is_router {
        return (RoleHint::Known(NodeRole::App), Rule("R6"));
    }
    if let Some(by_name) = role_by_name(kind, service) {
        return by_name;
    }
    if is_router {
        return (RoleHint::InContext, Rule("R3d"));
    }
    if serves_own_app(reading, kind) {
        return (RoleHint::Known(NodeRole::Sidecar), Rule("R2e"));
    }
    if calls_from_own_host(reading, kind, ip) {
        return (RoleHint::Known(NodeRole::Sidecar), Rule("R2f"));
    }
    (RoleHint::InContext, Rule("R3d"))
}

/// R3a–R3c and R2g: what a proxy's name decides. Also asked when the trace reveals the kind of
/// proxy (rule P9b).
pub(crate) fn role_by_name(kind: ProxyKind, service: &str) -> Option<(RoleHint, Rule)> {
    if names_egress(service) {
        return Some((RoleHint::Known(NodeRole::Egress), Rule("R3a")));
    }
    if names_eastwest(service) {
        return Some((RoleHint::Known(NodeRole::Eastwest), Rule("R3b")));
    }
    if kind == ProxyKind::Consul {
        let known = if names_ingress(service) { (NodeRole::Gateway, "R3c") } else { (NodeRole::Sidecar, "R2g") };
        return Some((RoleHint::Known(known.0), Rule(known.1)));
    }
    None
}

/// R2e: an Envoy whose upstream is its own application.
fn serves_own_app(reading: &Reading<'_>, kind: ProxyKind) -> bool {
    let cluster_is_own_app = reading.cluster.is_some_and(|cluster| match cluster.form {
        ClusterForm::C8 => true,
        ClusterForm::C4 | ClusterForm::C2 | ClusterForm::C1 => cluster.side == ClusterSide::Inbound,
        ClusterForm::C3 | ClusterForm::C5 | ClusterForm::C6 | ClusterForm::C7 | ClusterForm::C9 => false,
    });
    let is_candidate = matches!(kind, ProxyKind::Envoy | ProxyKind::Consul | ProxyKind::AppMesh | ProxyKind::Istio);
    is_candidate && (cluster_is_own_app || address(reading, &[Key::UpstreamAddress]).is_some_and(is_own_host))
}

/// R2f: a single CLIENT span whose caller is on the same host.
fn calls_from_own_host(reading: &Reading<'_>, kind: ProxyKind, ip: Option<IpAddr>) -> bool {
    let is_single = reading.span.kind == SpanKind::Client && !reading.view.has(Key::UpstreamAddress);
    matches!(kind, ProxyKind::Envoy | ProxyKind::AppMesh)
        && is_single
        && address(reading, &[Key::PeerAddress, Key::NetworkPeerAddress])
            .is_some_and(|peer| is_loopback_one(peer) || Some(peer) == ip)
}

fn address(reading: &Reading<'_>, keys: &[Key]) -> Option<IpAddr> {
    host_of(reading.view.first_text(keys)?)?.parse().ok()
}

fn is_own_host(ip: IpAddr) -> bool {
    is_loopback_one(ip) || ip == ISTIO_INBOUND_PASSTHROUGH
}

fn is_loopback_one(ip: IpAddr) -> bool {
    ip == IpAddr::V4(Ipv4Addr::LOCALHOST) || ip == IpAddr::V6(Ipv6Addr::LOCALHOST)
}
