//! From where in the path a span was observed (rules V1–V10; V11 needs the trace).

use windrose_proto::model::{ProxyKind, Rule, SpanKind, Vantage};

use super::attrs::Key;
use super::reading::Reading;

/// The vantage and the rule that decided.
pub(super) fn vantage(reading: &Reading<'_>, kind: ProxyKind) -> (Vantage, Rule) {
    let view = &reading.view;
    let span = reading.span;
    if view.has(Key::AgentgatewayOutboundKind) {
        return (Vantage::Phase, Rule("V1"));
    }
    if kind.is_envoy_family() && !is_phase_name(&span.name) {
        let is_attempt = view.has(Key::UpstreamAddress) && !view.has(Key::DownstreamCluster);
        let is_router = span.name.starts_with("router ") && span.name.ends_with(" egress");
        let (vantage, rule) = match span.kind {
            _ if is_attempt || is_router => (Vantage::Upstream, "V2"),
            SpanKind::Client => (Vantage::Single, "V3"),
            _ => (Vantage::Downstream, "V4"),
        };
        return (vantage, Rule(rule));
    }
    let has_try = kind == ProxyKind::Kong && view.has(Key::KongBalancerTry);
    vantage_by_name(kind, span.kind, &span.name, has_try)
}

/// The rules that need no attributes, so that they can be asked again when the trace reveals the
/// kind of proxy (rule P9b).
pub(crate) fn vantage_by_name(kind: ProxyKind, span_kind: SpanKind, name: &str, has_try: bool) -> (Vantage, Rule) {
    use Vantage::{Downstream, Phase, Upstream, UpstreamLogical};
    if is_phase_name(name) {
        return (Phase, Rule("V1"));
    }
    let is_client = span_kind == SpanKind::Client;
    let is_server = span_kind == SpanKind::Server;
    let (vantage, rule) = match kind {
        ProxyKind::Kong if name == "kong.balancer" || has_try => (Upstream, "V5"),
        ProxyKind::Kong if name.ends_with("(proxy)") => (UpstreamLogical, "V5b"),
        ProxyKind::Kong if is_server => (Downstream, "V5c"),
        ProxyKind::Kong => (Phase, "V5d"),
        ProxyKind::Apisix if name == "apisix.proxy" => (UpstreamLogical, "V6"),
        ProxyKind::Apisix => (Downstream, "V6b"),
        ProxyKind::Traefik if name == "ReverseProxy" || is_client => (Upstream, "V7"),
        ProxyKind::Traefik if is_server => (Downstream, "V7b"),
        ProxyKind::Traefik => (Phase, "V7c"),
        ProxyKind::Linkerd if is_client => (Upstream, "V8"),
        ProxyKind::Linkerd => (Downstream, "V8b"),
        // Every span of HAProxy has kind SERVER; V11 makes phases of the nested ones.
        ProxyKind::Haproxy if is_client || is_haproxy_server_side(name) => (UpstreamLogical, "V9"),
        ProxyKind::Haproxy => (Downstream, "V9b"),
        _ => match span_kind {
            SpanKind::Server | SpanKind::Consumer => (Downstream, "V10"),
            SpanKind::Client | SpanKind::Producer => (Upstream, "V10b"),
            SpanKind::Internal | SpanKind::Unspecified => (Phase, "V10c"),
        },
    };
    (vantage, Rule(rule))
}

fn is_haproxy_server_side(name: &str) -> bool {
    name.eq_ignore_ascii_case("server session") || name.eq_ignore_ascii_case("upstream")
}

/// Names of spans that are work inside a proxy whatever their kind says.
fn is_phase_name(name: &str) -> bool {
    if let Some(rest) = name.strip_prefix("kong.") {
        let plugin = ["rewrite", "access", "header_filter"]
            .iter()
            .any(|phase| rest.strip_prefix(phase).is_some_and(|rest| rest.starts_with(".plugin.")));
        return plugin || matches!(rest, "router" | "dns" | "internal.request" | "database.query");
    }
    if let Some(rest) = name.strip_prefix("apisix.") {
        return rest.starts_with("phase.") || matches!(rest, "rewrite" | "access" | "body_filter" | "response_span");
    }
    matches!(
        name,
        "http_router_match"
            | "sni_radixtree_match"
            | "resolve_dns"
            | "fetch_secret"
            | "ssl_client_hello_phase"
            | "AuthRequest"
    )
}

#[cfg(test)]
mod tests {
    use windrose_proto::model::{ProxyKind, SpanKind, Vantage};

    use super::vantage_by_name;

    #[track_caller]
    fn check(kind: ProxyKind, span_kind: SpanKind, name: &str, expect: (Vantage, &str)) {
        let (vantage, rule) = vantage_by_name(kind, span_kind, name, false);
        assert_eq!((vantage, rule.0), expect, "{kind} {span_kind} {name}");
    }

    #[test]
    fn spans_without_telling_attributes() {
        check(ProxyKind::Kong, SpanKind::Client, "kong.dns", (Vantage::Phase, "V1"));
        check(ProxyKind::Kong, SpanKind::Client, "kong.balancer", (Vantage::Upstream, "V5"));
        check(ProxyKind::Kong, SpanKind::Client, "get (proxy)", (Vantage::UpstreamLogical, "V5b"));
        check(ProxyKind::Kong, SpanKind::Internal, "kong.access.plugin.key-auth", (Vantage::Phase, "V1"));
        check(ProxyKind::Apisix, SpanKind::Server, "apisix.phase.access", (Vantage::Phase, "V1"));
        check(ProxyKind::Apisix, SpanKind::Server, "GET /x", (Vantage::Downstream, "V6b"));
        check(ProxyKind::Traefik, SpanKind::Internal, "Router", (Vantage::Phase, "V7c"));
        check(ProxyKind::Haproxy, SpanKind::Server, "Server session", (Vantage::UpstreamLogical, "V9"));
        check(ProxyKind::None, SpanKind::Producer, "send", (Vantage::Upstream, "V10b"));
        check(ProxyKind::None, SpanKind::Internal, "work", (Vantage::Phase, "V10c"));
    }
}
