//! Which proxy wrote a span (rules P). Names can be switched off in most proxies, so every rule
//! has more than one witness.

use windrose_proto::model::{ProxyKind, Rule};

use super::attrs::Key;
use super::cluster::ClusterForm;
use super::node_id::NodeForm;
use super::reading::Reading;

/// The kind of proxy, `None` for an application, and the rule that decided.
pub(super) fn proxy_kind(reading: &Reading<'_>) -> (ProxyKind, Rule) {
    let (kind, rule) = envoy(reading).or_else(|| other(reading)).unwrap_or((ProxyKind::None, "P10"));
    (kind, Rule(rule))
}

/// P1: Envoy, then whose control plane.
fn envoy(reading: &Reading<'_>) -> Option<(ProxyKind, &'static str)> {
    let view = &reading.view;
    let is_envoy = &*reading.span.scope.name == "envoy"
        || reading.facts.sdk_is_envoy
        || (is_text(reading, Key::Component, "proxy")
            && (view.has(Key::ResponseFlags) || view.has(Key::UpstreamCluster)));
    if !is_envoy {
        return None;
    }
    let node = reading.node_id.map(|id| id.form);
    Some(match (node, reading.cluster.map(|cluster| cluster.form)) {
        (Some(NodeForm::Istio), _) | (_, Some(ClusterForm::C1 | ClusterForm::C2)) => (ProxyKind::Istio, "P1a"),
        _ if view.has_istio => (ProxyKind::Istio, "P1a"),
        (Some(NodeForm::AppMesh), _) | (_, Some(ClusterForm::C4)) => (ProxyKind::AppMesh, "P1b"),
        (None, Some(ClusterForm::C3)) => (ProxyKind::Consul, "P1c"),
        (None, Some(ClusterForm::C5)) => (ProxyKind::EnvoyGateway, "P1d"),
        (None, Some(ClusterForm::C6)) => (ProxyKind::Kgateway, "P1e"),
        (None, Some(ClusterForm::C7)) => (ProxyKind::Contour, "P1f"),
        (None, Some(ClusterForm::C8 | ClusterForm::C9) | None) => (ProxyKind::Envoy, "P1z"),
    })
}

/// P11, P2–P9.
fn other(reading: &Reading<'_>) -> Option<(ProxyKind, &'static str)> {
    let (view, facts) = (&reading.view, reading.facts);
    let (scope, name): (&str, &str) = (&reading.span.scope.name, &reading.span.name);
    if scope == "agentgateway" {
        return Some((ProxyKind::Agentgateway, "P11"));
    }
    if scope == "kong-internal" || is_text(reading, Key::Lc, "kong") || name.starts_with("kong.") || view.has_kong {
        return Some((ProxyKind::Kong, "P2"));
    }
    let names_apisix = is_text(reading, Key::Component, "apisix") || view.has_apisix || name.starts_with("apisix.");
    if scope == "opentelemetry-lua" || names_apisix {
        return Some((ProxyKind::Apisix, "P3"));
    }
    if scope == "github.com/traefik/traefik" {
        return Some((ProxyKind::Traefik, "P4"));
    }
    if scope == "nginx" {
        return Some((ProxyKind::Nginx, "P5"));
    }
    let has_direction =
        is_text(reading, Key::LinkerdDirection, "inbound") || is_text(reading, Key::LinkerdDirection, "outbound");
    let is_linkerd_scope = scope.is_empty() || scope.contains("linkerd");
    if has_direction && is_linkerd_scope && (facts.has_process_start || facts.names_linkerd) {
        return Some((ProxyKind::Linkerd, "P6"));
    }
    if facts.is_caddy {
        return Some((ProxyKind::Caddy, "P7"));
    }
    if view.has_spring_gateway {
        return Some((ProxyKind::SpringCloudGateway, "P8"));
    }
    if facts.names_zuul || view.any_key_contains("zuul") {
        return Some((ProxyKind::Zuul, "P8b"));
    }
    let scope_names_haproxy = scope.len() >= 7 && scope.to_ascii_lowercase().contains("haproxy");
    if facts.names_haproxy || scope_names_haproxy || name.starts_with("HAProxy") {
        return Some((ProxyKind::Haproxy, "P9"));
    }
    None
}

fn is_text(reading: &Reading<'_>, key: Key, word: &str) -> bool {
    reading.view.get(key).and_then(|value| value.as_str()) == Some(word)
}
