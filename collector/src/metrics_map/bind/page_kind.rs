//! Which proxy a page is of.

use windrose_proto::model::ProxyKind;

/// Rule M1, the most telling family first. A page may hold several kinds; the kind of the proxy is
/// that of its data plane.
pub(super) fn proxy_kind_of(page: &[u8]) -> ProxyKind {
    let has_line = |prefix: &str| {
        page.starts_with(prefix.as_bytes())
            || memchr::memmem::find(page, [b"\n", prefix.as_bytes()].concat().as_slice()).is_some()
    };
    [
        ("istio_", ProxyKind::Istio),
        ("envoy_", ProxyKind::Envoy),
        ("kong_", ProxyKind::Kong),
        ("apisix_", ProxyKind::Apisix),
        ("traefik_", ProxyKind::Traefik),
        ("nginx_", ProxyKind::Nginx),
        ("haproxy_", ProxyKind::Haproxy),
        ("caddy_", ProxyKind::Caddy),
        ("spring_cloud_gateway", ProxyKind::SpringCloudGateway),
        ("agentgateway_", ProxyKind::Agentgateway),
        ("response_latency_ms_bucket", ProxyKind::Linkerd),
        ("inbound_http_", ProxyKind::Linkerd),
        ("outbound_http_", ProxyKind::Linkerd),
    ]
    .into_iter()
    .find_map(|(prefix, kind)| has_line(prefix).then_some(kind))
    .map_or(ProxyKind::None, |kind| if kind == ProxyKind::Envoy { envoy_kind_of(page) } else { kind })
}

/// Which control plane an Envoy belongs to, by the clusters it names (rules P1a–P1z), so that its
/// counters and its spans are the same reporter's.
fn envoy_kind_of(page: &[u8]) -> ProxyKind {
    let has = |text: &str| memchr::memmem::find(page, text.as_bytes()).is_some();
    [
        ("name=\"outbound|", ProxyKind::Istio),
        ("name=\"inbound|", ProxyKind::Istio),
        ("name=\"InboundPassthroughCluster", ProxyKind::Istio),
        ("name=\"cds_egress_", ProxyKind::AppMesh),
        ("name=\"cds_ingress_", ProxyKind::AppMesh),
        ("consul_destination_service", ProxyKind::Consul),
        ("name=\"httproute/", ProxyKind::EnvoyGateway),
        ("name=\"grpcroute/", ProxyKind::EnvoyGateway),
        ("name=\"kube_", ProxyKind::Kgateway),
        ("gloo-system\"", ProxyKind::Kgateway),
    ]
    .into_iter()
    .find_map(|(text, kind)| has(text).then_some(kind))
    .unwrap_or(ProxyKind::Envoy)
}
