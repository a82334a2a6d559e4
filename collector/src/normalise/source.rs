//! Whom a span names as its caller (rules S1, S2).

use std::net::IpAddr;

use windrose_proto::model::{ProxyKind, Rule, Vantage};
use windrose_proto::normal::SourceHint;

use super::attrs::Key;
use super::host::host_of;
use super::reading::Reading;

/// The caller as this span itself names it. Only an entry has one: on attempts the same
/// attributes name the callee.
pub(super) fn source(reading: &Reading<'_>, kind: ProxyKind, vantage: Vantage) -> Option<SourceHint> {
    if kind == ProxyKind::Istio
        && let Some(workload) = reading.view.text(Key::IstioSourceWorkload)
    {
        let service = reading.view.text(Key::IstioSourceService).unwrap_or(workload).clone();
        let namespace = reading.view.text(Key::IstioSourceNamespace).cloned();
        return Some(SourceHint::Workload { service, namespace, rule: Rule("S1") });
    }
    if !matches!(vantage, Vantage::Downstream | Vantage::Single) {
        return None;
    }
    caller_ip(reading).map(|ip| SourceHint::Address { ip, rule: Rule("S2") })
}

fn caller_ip(reading: &Reading<'_>) -> Option<IpAddr> {
    let keys = [
        Key::PeerAddress,
        Key::NetworkPeerAddress,
        Key::NetSockPeerAddr,
        Key::NetPeerIp,
        Key::ClientAddress,
        Key::HttpClientIp,
        Key::ZipkinRemoteIp,
    ];
    keys.iter().find_map(|key| host_of(reading.view.text(*key)?)?.parse().ok())
}

/// Address and port of the peer this span reports: the caller on entries, the chosen endpoint on
/// attempts.
pub(super) fn peer(reading: &Reading<'_>, vantage: Vantage) -> (Option<IpAddr>, Option<u16>) {
    let view = &reading.view;
    if matches!(vantage, Vantage::Downstream | Vantage::Single) {
        return (caller_ip(reading), None);
    }
    let keys = [
        Key::UpstreamAddress,
        Key::PeerAddress,
        Key::NetworkPeerAddress,
        Key::NetPeerIp,
        Key::NetSockPeerAddr,
        Key::ZipkinRemoteIp,
    ];
    let Some(address) = view.first_text(&keys) else { return (None, None) };
    let ip = host_of(address).and_then(|host| host.parse().ok());
    let port_in_address = address.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
    let port = port_in_address.and_then(|(_, port)| port.parse().ok()).or_else(|| {
        let keys = [Key::NetworkPeerPort, Key::NetPeerPort, Key::NetSockPeerPort, Key::ZipkinRemotePort];
        view.number(&keys).and_then(|port| u16::try_from(port).ok())
    });
    (ip, port)
}
