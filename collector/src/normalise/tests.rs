//! What the rules read out of single spans, one line per proxy and rule.

use std::fmt::Write as _;
use std::sync::Arc;

use windrose_proto::Text;
use windrose_proto::attributes::{Attributes, Value};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::model::{IngestProtocol, NodeRole, SpanKind};
use windrose_proto::normal::{NormalSpan, RoleHint, SourceHint};
use windrose_proto::span::{Resource, Scope, Span, StatusCode};
use windrose_proto::time::UnixNanos;

use super::Normaliser;
use super::host::Cidr;
use super::overrides::{Alias, Overrides, RoleOverride};

/// A span `kind scope name # resource attributes # attributes`; `_` in names stands for a space,
/// values that are numbers become numbers, `otel=error` is the span's status.
fn span(text: &str) -> Span {
    let mut parts = text.split('#').map(str::trim);
    let mut head = parts.next().unwrap().split_whitespace();
    let (kind, scope, name) = (head.next().unwrap(), head.next().unwrap(), head.next().unwrap());
    let mut status = StatusCode::Unset;
    let mut attributes = |text: &str| {
        let mut attributes = Attributes::default();
        for (key, value) in text.split_whitespace().map(|word| word.split_once('=').unwrap()) {
            match (key, value.parse::<i64>()) {
                ("otel", _) => status = StatusCode::Error,
                (_, Ok(number)) => attributes.push(key.to_owned(), Value::Int(number)),
                (_, Err(_)) => attributes.push(key.to_owned(), Value::Str(value.to_owned().into())),
            }
        }
        attributes
    };
    let resource = attributes(parts.next().unwrap_or_default());
    let attributes = attributes(parts.next().unwrap_or_default());
    Span {
        trace_id: TraceId::new([1; 16]).unwrap(),
        span_id: SpanId::new([1; 8]).unwrap(),
        parent_span_id: None,
        trace_state: Text::new(),
        flags: 0,
        name: name.replace('_', " ").into(),
        kind: SpanKind::parse(kind).unwrap(),
        start: UnixNanos(1),
        end: UnixNanos(2),
        attributes,
        dropped_attributes_count: 0,
        events: Vec::new(),
        dropped_events_count: 0,
        links: Vec::new(),
        dropped_links_count: 0,
        status,
        status_message: Text::new(),
        resource: Arc::new(Resource { attributes: resource, ..Resource::default() }),
        scope: Arc::new(Scope {
            name: if scope == "-" { "".into() } else { scope.to_owned().into() },
            ..Scope::default()
        }),
        shared: false,
        ingest: IngestProtocol::OtlpGrpc,
    }
}

fn normalised(text: &str) -> NormalSpan {
    Normaliser::default().normalise(&span(text))
}

/// `kind/rule vantage/rule role/rule service[.namespace][@version] [→ destination/rule]`
fn shown(span: &NormalSpan) -> String {
    let role = match span.role {
        RoleHint::Known(role) => role.as_str(),
        RoleHint::InContext => "open",
    };
    let mut out = format!(
        "{}/{} {}/{} {role}/{} {}",
        span.proxy_kind, span.proxy_rule, span.vantage, span.vantage_rule, span.role_rule, span.identity.service
    );
    for (mark, part) in [(".", &span.identity.namespace), ("@", &span.identity.version)] {
        if let Some(part) = part {
            write!(out, "{mark}{part}").unwrap();
        }
    }
    if let Some(destination) = &span.destination {
        let outside = if destination.external { " outside" } else { "" };
        write!(out, " → {}{outside}/{}", destination.service, destination.rule).unwrap();
    }
    out
}

#[track_caller]
fn check(text: &str, expect: &str) {
    assert_eq!(shown(&normalised(text)), expect, "{text}");
}

#[test]
fn envoys_of_every_control_plane() {
    check(
        "server envoy x # service.name=orders.shop service.version=1.40 # node_id=sidecar~10.0.0.1~orders-v1-6c9f8b7d4-x2x9k.shop~d istio.canonical_revision=latest upstream_cluster=inbound|80||",
        "istio/P1a downstream/V4 sidecar/R2a orders.shop@1.40",
    );
    check(
        "client envoy egress # service.name=unknown_service:envoy # node_id=router~10.0.0.1~edge-6c9f8b7d4-x2x9k.istio-system~d upstream_cluster=outbound|80|v2|orders.shop.svc.cluster.local;",
        "istio/P1a single/V3 open/R3d edge.istio-system → orders/T2",
    );
    check(
        "client - router_x_egress # telemetry.sdk.name=envoy service.name=istio-egressgateway.istio-system # upstream_cluster=outbound|443||api.example.com upstream_address=1.2.3.4:443",
        "istio/P1a upstream/V2 egress/R3a istio-egressgateway.istio-system → api.example.com outside/T2",
    );
    check(
        "client - x # # component=proxy response_flags=- upstream_cluster=PassthroughCluster http.url=https://api.example.com/v1",
        "istio/P1a single/V3 open/R3d istio → api.example.com outside/T2b",
    );
    check(
        "server - x # # component=proxy upstream_cluster=web.default.dc1.internal.0a1b.consul node_id=x",
        "consul/P1c downstream/V4 sidecar/R2g consul → web/T2",
    );
    check(
        "server envoy x # service.name=edge-ingress # upstream_cluster=web.default.dc1.internal.0a1b.consul",
        "consul/P1c downstream/V4 gateway/R3c edge-ingress → web/T2",
    );
    check(
        "server envoy x # service.name=eg.prod # upstream_cluster=httproute/shop/orders/rule/0",
        "envoy_gateway/P1d downstream/V4 open/R3d eg.prod → orders/T2",
    );
    check(
        "server envoy x # service.name=gw # upstream_cluster=kube_shop_orders_8080",
        "kgateway/P1e downstream/V4 open/R3d gw → orders/T2",
    );
    check(
        "server envoy x # service.name=contour # upstream_cluster=shop/orders/80/da39a3ee5e",
        "contour/P1f downstream/V4 open/R3d contour → orders/T2",
    );
    check(
        "server envoy x # service.name=front # node_id=mesh/m/virtualNode/orders upstream_cluster=cds_ingress_m_orders_http_80",
        "appmesh/P1b downstream/V4 sidecar/R2a orders",
    );
    check(
        "server envoy x # service.name=orders # upstream_cluster=local_service",
        "envoy/P1z downstream/V4 sidecar/R2e orders",
    );
    check(
        "client envoy x # service.name=front # upstream_cluster=partner http.url=https://api.example.com/ peer.address=127.0.0.1",
        "envoy/P1z single/V3 sidecar/R2f front → partner outside/T2",
    );
}

#[test]
fn the_other_proxies() {
    check("server kong-internal kong # service.name=kong", "kong/P2 downstream/V5c open/R3d kong");
    check(
        "client kong-internal kong.balancer # service.name=kong # net.peer.name=orders.shop.svc net.peer.ip=10.0.0.9",
        "kong/P2 upstream/V5 open/R3d kong → orders/T3",
    );
    check(
        "client kong-internal kong.balancer # service.name=kong # net.peer.ip=8.8.8.8",
        "kong/P2 upstream/V5 open/R3d kong → 8.8.8.8 outside/T3",
    );
    check("server - GET_/x # service.name=apisix # apisix.route_id=1", "apisix/P3 downstream/V6b open/R3d apisix");
    check(
        "client github.com/traefik/traefik ReverseProxy # service.name=traefik # server.address=10.0.0.9",
        "traefik/P4 upstream/V7 open/R3d traefik → 10.0.0.9/T4",
    );
    check("server nginx / # service.name=edge", "nginx/P5 downstream/V10 open/R3d edge");
    check(
        "client - /x # linkerd.io/proxy-deployment=orders linkerd.io/workload-ns=shop process.start_timestamp=1 version=v1 # direction=outbound server.address=users",
        "linkerd/P6 upstream/V8 sidecar/R2d orders.shop@v1 → users/T4",
    );
    check("server - handler # webengine.name=Caddy service.name=caddy", "caddy/P7 downstream/V10 open/R3d caddy");
    check(
        "client - HTTP_GET # service.name=gw # spring.cloud.gateway.route.id=r spring.cloud.gateway.route.uri=lb://orders",
        "spring_cloud_gateway/P8 upstream/V10b open/R3d gw → orders/T4",
    );
    check("server - get # service.name=my-zuul", "zuul/P8b downstream/V10 open/R3d my-zuul");
    check("server - HAProxy_session # service.name=lb", "haproxy/P9 downstream/V9b open/R3d lb");
    check(
        "server agentgateway x # service.name=agw # endpoint=10.0.0.3:8080",
        "agentgateway/P11 downstream/V10 open/R3d agw → 10.0.0.3/T6",
    );
}

#[test]
fn applications() {
    check(
        "server sdk GET # service.name=orders service.namespace=shop service.version=v2 # http.route=/orders",
        "none/P10 downstream/V10 app/R6 orders.shop@v2",
    );
    check(
        "client sdk GET # service.name=orders # url.full=https://user:pw@api.example.com:8443/x?key=1",
        "none/P10 upstream/V10b app/R6 orders → api.example.com outside/T4",
    );
    check("internal sdk work # host.name=h1", "none/P10 phase/V10c app/R6 h1");
    check("internal sdk work", "none/P10 phase/V10c app/R6 none");
}

#[test]
fn outcomes() {
    #[track_caller]
    fn check(attributes: &str, expect: &str) {
        let span = normalised(&format!("client envoy x # service.name=a # {attributes}"));
        let outcome = &span.outcome;
        let reasons: Vec<_> = outcome.reasons.iter().map(ToString::to_string).collect();
        let status = outcome.http_status.map_or_else(|| "-".to_owned(), |code| code.to_string());
        let error = if outcome.error { " error" } else { "" };
        let actual = format!("{status}{error} {}/{} {}", outcome.fault, outcome.fault_rule, reasons.join(","));
        assert_eq!(actual.trim_end(), expect, "{attributes}");
    }
    check("http.status_code=200 response_flags=-", "200 none/F0");
    check("http.status_code=200 response_flags=DI", "200 none/F0 delay_injected");
    check("http.status_code=503 response_flags=- error=true", "503 error upstream/F4");
    check("http.status_code=503 response_flags=UF,URX error=true", "503 error proxy/F2 conn_fail,retry_limit");
    check("http.status_code=0 response_flags=DC error=true", "- error client/F1 client_abort");
    check("http.status_code=0 response_flags=- error=true canceled=true", "- error proxy/F5 cancelled");
    check("http.status_code=0 response_flags=- error=true error.reason=overflow", "- error proxy/F2 circuit_open");
    check("http.status_code=503 response_flags=NEW error=true", "503 error unknown/F9 other:NEW");
    check("http.status_code=404 response_flags=- otel=error", "404 upstream/F4");
    check("http.status_code=401 response_flags=- response_code_details=missing_api_key", "401 proxy/F2b");
    check("http.status_code=499", "499 client/F1b client_abort");
    check("grpc.status_code=3 http.status_code=200 response_flags=- otel=error", "200 none/F0");
    check("grpc.status_code=10 http.status_code=200 response_flags=- otel=error", "200 error upstream/F4");
    check("http.status_code=504 apisix.response_source=nginx", "504 error proxy/F3b");
    check("otel=error", "- error unknown/F9");
    check("http.status_code=99999", "- none/F0");
}

#[test]
fn a_peer_is_the_caller_on_entries_and_the_callee_on_attempts() {
    let entry = normalised("server envoy x # # peer.address=10.0.0.7");
    assert!(matches!(entry.source, Some(SourceHint::Address { ip, .. }) if ip.to_string() == "10.0.0.7"));
    let attempt = normalised("client envoy x # # peer.address=10.0.0.9:8080 upstream_address=10.0.0.9:8080");
    assert_eq!(attempt.source, None);
    assert_eq!(
        (attempt.peer_ip.map(|ip| ip.to_string()), attempt.peer_port),
        (Some("10.0.0.9".to_owned()), Some(8080))
    );
    let attempt = normalised("client sdk x # # network.peer.address=fd00::9 network.peer.port=443");
    assert_eq!((attempt.peer_ip.map(|ip| ip.to_string()), attempt.peer_port), (Some("fd00::9".to_owned()), Some(443)));
}

#[test]
fn what_was_asked_for_carries_no_query() {
    let span =
        normalised("server envoy x # # http.url=http://shop.example.com:80/api/orders/5?token=secret http.method=GET");
    assert_eq!(span.host.as_deref(), Some("shop.example.com"));
    assert_eq!(span.path.as_deref(), Some("/api/orders/5"));
    assert_eq!(normalised("server envoy x # # http.url=http://h?token=secret").path.as_deref(), Some("/"));
    let grpc = normalised("client sdk x # # rpc.system=grpc rpc.service=shop.Stock rpc.method=Reserve");
    assert_eq!(grpc.path.as_deref(), Some("/shop.Stock/Reserve"));
}

#[test]
fn overrides_come_first() {
    let overrides = Overrides {
        aliases: [("orders-svc".to_owned(), Alias::parse("shop/orders")), ("a/x".to_owned(), Alias::parse("y"))].into(),
        roles: vec![RoleOverride::new("^edge", NodeRole::Egress).unwrap()],
        hosts: super::host::HostRules {
            internal_suffixes: vec!["corp.example".to_owned()],
            internal_cidrs: vec![Cidr::parse("203.0.113.0/24").unwrap()],
            external_hosts: vec!["db.shop.svc".to_owned()],
        },
    };
    let mut normaliser = Normaliser::new(overrides);
    let mut check = |text: &str, expect: &str| assert_eq!(shown(&normaliser.normalise(&span(text))), expect, "{text}");
    check("server sdk x # service.name=orders-svc", "none/P10 downstream/V10 app/R6 orders.shop");
    check("server sdk x # service.name=x service.namespace=a", "none/P10 downstream/V10 app/R6 y.a");
    check("server nginx x # service.name=edge-1", "nginx/P5 downstream/V10 egress/R1 edge-1");
    check("client sdk x # service.name=b # server.address=orders-svc", "none/P10 upstream/V10b app/R6 b → orders/T4");
    check(
        "client sdk x # service.name=b # server.address=crm.corp.example",
        "none/P10 upstream/V10b app/R6 b → crm.corp.example/T4",
    );
    check(
        "client sdk x # service.name=b # server.address=203.0.113.7",
        "none/P10 upstream/V10b app/R6 b → 203.0.113.7/T4",
    );
    check(
        "client sdk x # service.name=b # server.address=db.shop.svc",
        "none/P10 upstream/V10b app/R6 b → db outside/T4",
    );
    let plain =
        Normaliser::default().normalise(&span("client sdk x # service.name=orders-svc # server.address=orders-svc"));
    assert_eq!(shown(&plain), "none/P10 upstream/V10b app/R6 orders-svc → orders-svc/T4");
}

#[test]
fn equal_processes_share_their_identity_whatever_the_order_of_attributes() {
    let mut normaliser = Normaliser::default();
    let a = normaliser.normalise(&span("server sdk x # service.name=a host.name=h"));
    let b = normaliser.normalise(&span("server sdk x # host.name=h service.name=a"));
    assert!(Arc::ptr_eq(&a.identity, &b.identity));
    assert!(Arc::ptr_eq(&a.process, &b.process));
    let c = normaliser.normalise(&span("server sdk x # host.name=g service.name=a"));
    assert!(!Arc::ptr_eq(&a.process, &c.process));
    assert_eq!(normaliser.normalise(&span("server sdk x")).process.resource_hash, 0, "no resource is no process");
}
