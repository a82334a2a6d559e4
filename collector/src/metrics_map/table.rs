//! Which metric family of which proxy means what: constant data, one line per family.
//!
//! A family is matched by its exact name, so that sub-counts of the same requests
//! (`internal_upstream_rq`, `zone_…_upstream_rq`) can never be taken for the whole.

use std::sync::LazyLock;

use hashbrown::HashMap;

use crate::exposition::MetricKind;

/// Whose families these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    Istio,
    Envoy,
    Linkerd,
    Kong,
    Apisix,
    Traefik,
    IngressNginx,
    Nginx,
    Haproxy,
    Caddy,
    SpringCloudGateway,
    Agentgateway,
}

macro_rules! canonical {
    ($($variant:ident => $wire:literal,)+) => {
        /// The one name for what many proxies call differently.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "the wire word is the documentation")]
        pub enum Canonical { $($variant,)+ }

        impl Canonical {
            /// The wire word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $wire,)+ }
            }
        }
    };
}

canonical! {
    Requests => "requests", RequestsReceived => "requests_received", RequestsRoute => "requests_route",
    RequestsUpstream => "requests_upstream", RequestsUpstreamClass => "requests_upstream_class",
    RequestsNginx => "requests_nginx", RequestsHandler => "requests_handler",
    RequestsInflight => "requests_inflight", RequestsPending => "requests_pending",
    RouteRequests => "route_requests", RouteRequestsReceived => "route_requests_received",
    RouteAttempts => "route_attempts", RouteDuration => "route_duration",
    Duration => "duration", DurationUpstream => "duration_upstream", DurationProxy => "duration_proxy",
    DurationByType => "duration_by_type", DurationRoute => "duration_route",
    DurationAvg1024 => "duration_avg1024", DurationMax => "duration_max",
    TotalAvg1024 => "total_avg1024", TotalMax => "total_max",
    Ttfb => "ttfb", TtfbUpstream => "ttfb_upstream", ConnectUpstream => "connect_upstream",
    RequestSize => "request_size", ResponseSize => "response_size", ResponseBytes => "response_bytes",
    MessagesSent => "messages_sent", MessagesReceived => "messages_received",
    Bytes => "bytes", BytesFromClient => "bytes_from_client", BytesToClient => "bytes_to_client",
    BytesRead => "bytes_read", BytesWritten => "bytes_written",
    BytesSentUpstream => "bytes_sent_upstream", BytesReceivedUpstream => "bytes_received_upstream",
    ConnectionsOpened => "connections_opened", ConnectionsClosed => "connections_closed",
    ConnectionsFailed => "connections_failed", ConnectionsActive => "connections_active",
    ConnectionsByState => "connections_by_state", TlsHandshakes => "tls_handshakes",
    Retries => "retries", RetriesSucceeded => "retries_succeeded", RetriesExhausted => "retries_exhausted",
    RetryBudgetOverflow => "retry_budget_overflow", Redispatches => "redispatches",
    Timeouts => "timeouts", PerTryTimeouts => "per_try_timeouts",
    CircuitRejected => "circuit_rejected", CircuitRejectedCx => "circuit_rejected_cx",
    CircuitOpen => "circuit_open", MaintenanceRejected => "maintenance_rejected",
    PendingFailures => "pending_failures",
    UpstreamResets => "upstream_resets", LocalResets => "local_resets", ClientResets => "client_resets",
    ResetsAfterHeaders => "resets_after_headers", Cancelled => "cancelled",
    ConnectFailures => "connect_failures", ConnectTimeouts => "connect_timeouts",
    NoHealthyUpstream => "no_healthy_upstream", Ejections => "ejections",
    UpstreamHosts => "upstream_hosts", UpstreamHostsHealthy => "upstream_hosts_healthy",
    UpstreamHostsEjected => "upstream_hosts_ejected", TargetHealth => "target_health",
    Denied => "denied", NoRoute => "no_route", NoCluster => "no_cluster", HandlerErrors => "handler_errors",
    SpansExported => "spans_exported", SpanReports => "span_reports", TraceDecisions => "trace_decisions",
}

/// HAProxy tells the same story on three levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    Plain,
    Backend,
    Server,
}

/// From which side of a request a family is counted (rule M9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Client,
    Server,
    /// A label says it: Istio's `reporter`, Linkerd's `direction`.
    Labelled,
    Neither,
}

/// One family.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    pub family: Family,
    pub name: &'static str,
    pub canonical: Canonical,
    pub layer: Layer,
    /// Factor to seconds, bytes or ones.
    pub scale: f64,
    /// The type the family has whatever its page declares (rule M4).
    pub forced: Option<MetricKind>,
    pub side: Side,
}

/// A sample's place in its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    Value,
    Bucket,
    Sum,
    Count,
    Created,
}

/// The rule for a sample name, and which part of the family the sample is.
#[must_use]
pub fn find(name: &str) -> Option<(&'static Rule, Part)> {
    let by_name = &*BY_NAME;
    if let Some(rule) = by_name.get(name) {
        return Some((*rule, Part::Value));
    }
    let (stem, part) = split_part(name)?;
    let rule = by_name.get(stem).or_else(|| by_name.get(format!("{stem}_total").as_str()))?;
    Some((*rule, part))
}

/// Every rule.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    TABLES.iter().flat_map(|table| table.iter())
}

fn split_part(name: &str) -> Option<(&str, Part)> {
    [("_bucket", Part::Bucket), ("_sum", Part::Sum), ("_count", Part::Count), ("_created", Part::Created)]
        .into_iter()
        .find_map(|(suffix, part)| name.strip_suffix(suffix).map(|stem| (stem, part)))
}

static BY_NAME: LazyLock<HashMap<&'static str, &'static Rule>> =
    LazyLock::new(|| rules().map(|rule| (rule.name, rule)).collect());

const fn rule(family: Family, name: &'static str, canonical: Canonical) -> Rule {
    Rule { family, name, canonical, layer: Layer::Plain, scale: 1.0, forced: None, side: Side::Neither }
}

impl Rule {
    /// The canonical name with its level, for example `requests_backend`.
    #[must_use]
    pub fn canonical_name(&self) -> String {
        let suffix = match self.layer {
            Layer::Plain => "",
            Layer::Backend => "_backend",
            Layer::Server => "_upstream",
        };
        format!("{}{suffix}", self.canonical.as_str())
    }

    const fn millis(mut self) -> Self {
        self.scale = 0.001;
        self
    }

    const fn counter(mut self) -> Self {
        self.forced = Some(MetricKind::Counter);
        self
    }

    const fn gauge(mut self) -> Self {
        self.forced = Some(MetricKind::Gauge);
        self
    }

    const fn client(mut self) -> Self {
        self.side = Side::Client;
        self
    }

    const fn server(mut self) -> Self {
        self.side = Side::Server;
        self
    }

    const fn labelled(mut self) -> Self {
        self.side = Side::Labelled;
        self
    }
}

type Table = &'static [Rule];

const TABLES: &[Table] = &[
    ISTIO,
    ENVOY_CLUSTER,
    ENVOY_HTTP,
    ENVOY_TRACING,
    LINKERD,
    KONG,
    APISIX,
    TRAEFIK,
    INGRESS_NGINX,
    NGINX,
    HAPROXY_FRONTEND,
    HAPROXY_BACKEND,
    HAPROXY_SERVER,
    CADDY,
    SPRING_CLOUD_GATEWAY,
    AGENTGATEWAY,
];

const fn istio(name: &'static str, canonical: Canonical) -> Rule {
    rule(Family::Istio, name, canonical).labelled()
}

const ISTIO: Table = &[
    istio("istio_requests_total", Canonical::Requests),
    istio("istio_request_duration_milliseconds", Canonical::Duration).millis(),
    istio("istio_request_bytes", Canonical::RequestSize),
    istio("istio_response_bytes", Canonical::ResponseSize),
    istio("istio_request_messages_total", Canonical::MessagesSent),
    istio("istio_response_messages_total", Canonical::MessagesReceived),
    istio("istio_tcp_connections_opened_total", Canonical::ConnectionsOpened),
    istio("istio_tcp_connections_closed_total", Canonical::ConnectionsClosed),
    istio("istio_tcp_connections_failed_total", Canonical::ConnectionsFailed),
    istio("istio_tcp_sent_bytes_total", Canonical::BytesToClient),
    istio("istio_tcp_received_bytes_total", Canonical::BytesFromClient),
];

const fn cluster(name: &'static str, canonical: Canonical) -> Rule {
    rule(Family::Envoy, name, canonical).client()
}

const ENVOY_CLUSTER: Table = &[
    cluster("envoy_cluster_upstream_rq", Canonical::RequestsUpstream),
    cluster("envoy_cluster_upstream_rq_total", Canonical::RequestsUpstream),
    cluster("envoy_cluster_upstream_rq_completed", Canonical::RequestsUpstream),
    cluster("envoy_cluster_upstream_rq_xx", Canonical::RequestsUpstreamClass),
    cluster("envoy_cluster_upstream_rq_time", Canonical::DurationUpstream).millis(),
    cluster("envoy_cluster_upstream_rq_timeout", Canonical::Timeouts),
    cluster("envoy_cluster_upstream_rq_per_try_timeout", Canonical::PerTryTimeouts),
    cluster("envoy_cluster_upstream_rq_retry", Canonical::Retries),
    cluster("envoy_cluster_upstream_rq_retry_success", Canonical::RetriesSucceeded),
    cluster("envoy_cluster_upstream_rq_retry_limit_exceeded", Canonical::RetriesExhausted),
    cluster("envoy_cluster_upstream_rq_retry_overflow", Canonical::RetryBudgetOverflow),
    cluster("envoy_cluster_upstream_rq_pending_overflow", Canonical::CircuitRejected),
    cluster("envoy_cluster_upstream_rq_active_overflow", Canonical::CircuitRejected),
    cluster("envoy_cluster_upstream_rq_pending_failure_eject", Canonical::PendingFailures),
    cluster("envoy_cluster_upstream_cx_overflow", Canonical::CircuitRejectedCx),
    cluster("envoy_cluster_upstream_rq_maintenance_mode", Canonical::MaintenanceRejected),
    cluster("envoy_cluster_upstream_rq_rx_reset", Canonical::UpstreamResets),
    cluster("envoy_cluster_upstream_rq_tx_reset", Canonical::LocalResets),
    cluster("envoy_cluster_upstream_rq_cancelled", Canonical::Cancelled),
    cluster("envoy_cluster_upstream_cx_connect_fail", Canonical::ConnectFailures),
    cluster("envoy_cluster_upstream_cx_connect_timeout", Canonical::ConnectTimeouts),
    cluster("envoy_cluster_upstream_cx_total", Canonical::ConnectionsOpened),
    cluster("envoy_cluster_ssl_handshake", Canonical::TlsHandshakes),
    cluster("envoy_cluster_upstream_cx_rx_bytes_total", Canonical::BytesReceivedUpstream),
    cluster("envoy_cluster_upstream_cx_tx_bytes_total", Canonical::BytesSentUpstream),
    cluster("envoy_cluster_upstream_cx_none_healthy", Canonical::NoHealthyUpstream),
    cluster("envoy_cluster_outlier_detection_ejections_total", Canonical::Ejections),
    cluster("envoy_cluster_outlier_detection_ejections_enforced_total", Canonical::Ejections),
    cluster("envoy_cluster_upstream_rq_active", Canonical::RequestsInflight).gauge(),
    cluster("envoy_cluster_upstream_rq_pending_active", Canonical::RequestsPending).gauge(),
    cluster("envoy_cluster_upstream_cx_active", Canonical::ConnectionsActive).gauge(),
    cluster("envoy_cluster_membership_healthy", Canonical::UpstreamHostsHealthy).gauge(),
    cluster("envoy_cluster_membership_total", Canonical::UpstreamHosts).gauge(),
    cluster("envoy_cluster_outlier_detection_ejections_active", Canonical::UpstreamHostsEjected).gauge(),
    cluster("envoy_cluster_circuit_breakers_default_cx_open", Canonical::CircuitOpen).gauge(),
    cluster("envoy_cluster_circuit_breakers_default_rq_open", Canonical::CircuitOpen).gauge(),
    cluster("envoy_cluster_circuit_breakers_default_rq_pending_open", Canonical::CircuitOpen).gauge(),
    cluster("envoy_cluster_circuit_breakers_default_rq_retry_open", Canonical::CircuitOpen).gauge(),
    cluster("envoy_cluster_circuit_breakers_default_cx_pool_open", Canonical::CircuitOpen).gauge(),
    cluster("envoy_cluster_circuit_breakers_high_cx_open", Canonical::CircuitOpen).gauge(),
    cluster("envoy_cluster_circuit_breakers_high_rq_open", Canonical::CircuitOpen).gauge(),
    cluster("envoy_cluster_circuit_breakers_high_rq_pending_open", Canonical::CircuitOpen).gauge(),
    cluster("envoy_cluster_circuit_breakers_high_rq_retry_open", Canonical::CircuitOpen).gauge(),
    cluster("envoy_cluster_circuit_breakers_high_cx_pool_open", Canonical::CircuitOpen).gauge(),
];

const fn http(name: &'static str, canonical: Canonical) -> Rule {
    rule(Family::Envoy, name, canonical).server()
}

const ENVOY_HTTP: Table = &[
    http("envoy_http_downstream_rq_total", Canonical::RequestsReceived),
    http("envoy_http_downstream_rq_xx", Canonical::Requests),
    // With Istio's tags the class is a label of this family.
    http("envoy_http_downstream_rq", Canonical::Requests),
    http("envoy_http_downstream_rq_time", Canonical::Duration).millis(),
    http("envoy_http_downstream_rq_timeout", Canonical::Timeouts),
    http("envoy_http_downstream_rq_rx_reset", Canonical::ClientResets),
    http("envoy_http_downstream_rq_tx_reset", Canonical::LocalResets),
    http("envoy_http_downstream_cx_total", Canonical::ConnectionsOpened),
    http("envoy_http_downstream_cx_ssl_total", Canonical::TlsHandshakes),
    http("envoy_http_downstream_cx_rx_bytes_total", Canonical::BytesFromClient),
    http("envoy_http_downstream_cx_tx_bytes_total", Canonical::BytesToClient),
    http("envoy_http_no_route", Canonical::NoRoute),
    http("envoy_http_no_cluster", Canonical::NoCluster),
    http("envoy_http_rq_reset_after_downstream_response_started", Canonical::ResetsAfterHeaders),
    http("envoy_http_downstream_rq_active", Canonical::RequestsInflight).gauge(),
    http("envoy_http_downstream_cx_active", Canonical::ConnectionsActive).gauge(),
];

const fn tracing(name: &'static str, canonical: Canonical) -> Rule {
    rule(Family::Envoy, name, canonical)
}

const ENVOY_TRACING: Table = &[
    tracing("envoy_tracing_opentelemetry_spans_sent", Canonical::SpansExported),
    tracing("envoy_tracing_opentelemetry_spans_dropped", Canonical::SpansExported),
    tracing("envoy_tracing_zipkin_spans_sent", Canonical::SpansExported),
    tracing("envoy_tracing_zipkin_spans_dropped", Canonical::SpansExported),
    tracing("envoy_tracing_zipkin_reports_sent", Canonical::SpanReports),
    tracing("envoy_tracing_zipkin_reports_dropped", Canonical::SpanReports),
    tracing("envoy_tracing_zipkin_reports_failed", Canonical::SpanReports),
    tracing("envoy_tracing_zipkin_reports_skipped_no_cluster", Canonical::SpanReports),
    tracing("envoy_http_tracing_random_sampling", Canonical::TraceDecisions),
    tracing("envoy_http_tracing_service_forced", Canonical::TraceDecisions),
    tracing("envoy_http_tracing_client_enabled", Canonical::TraceDecisions),
    tracing("envoy_http_tracing_not_traceable", Canonical::TraceDecisions),
    tracing("envoy_http_tracing_health_check", Canonical::TraceDecisions),
];

const fn linkerd(name: &'static str, canonical: Canonical) -> Rule {
    rule(Family::Linkerd, name, canonical).labelled()
}

const LINKERD: Table = &[
    linkerd("request_total", Canonical::RequestsReceived),
    linkerd("response_total", Canonical::Requests),
    linkerd("response_latency_ms", Canonical::Duration).millis(),
    linkerd("route_request_total", Canonical::RouteRequestsReceived),
    linkerd("route_response_total", Canonical::RouteRequests),
    linkerd("route_response_latency_ms", Canonical::RouteDuration).millis(),
    linkerd("route_actual_response_total", Canonical::RouteAttempts),
    linkerd("tcp_open_total", Canonical::ConnectionsOpened),
    linkerd("tcp_close_total", Canonical::ConnectionsClosed),
    linkerd("tcp_read_bytes_total", Canonical::BytesRead),
    linkerd("tcp_write_bytes_total", Canonical::BytesWritten),
    linkerd("inbound_http_authz_deny_total", Canonical::Denied),
    linkerd("outbound_http_route_request_statuses", Canonical::RouteRequests),
    linkerd("outbound_http_route_request_statuses_total", Canonical::RouteRequests),
    linkerd("outbound_http_route_backend_response_statuses", Canonical::Requests),
    linkerd("outbound_http_route_backend_response_statuses_total", Canonical::Requests),
    linkerd("outbound_http_route_request_duration_seconds", Canonical::RouteDuration),
    linkerd("outbound_http_route_backend_response_duration_seconds", Canonical::DurationUpstream),
    linkerd("outbound_http_route_backend_requests_total", Canonical::RequestsUpstream),
    linkerd("outbound_http_route_retry_requests_total", Canonical::Retries),
    linkerd("outbound_http_route_retry_limit_exceeded_total", Canonical::RetriesExhausted),
    rule(Family::Linkerd, "tcp_open_connections", Canonical::ConnectionsActive).gauge(),
];

const fn kong(name: &'static str, canonical: Canonical) -> Rule {
    rule(Family::Kong, name, canonical).server()
}

const KONG: Table = &[
    kong("kong_http_requests_total", Canonical::Requests),
    kong("kong_http_status", Canonical::Requests).counter(),
    kong("kong_request_latency_ms", Canonical::Duration).millis(),
    kong("kong_upstream_latency_ms", Canonical::DurationUpstream).millis(),
    kong("kong_kong_latency_ms", Canonical::DurationProxy).millis(),
    kong("kong_latency", Canonical::DurationByType).millis(),
    kong("kong_bandwidth_bytes", Canonical::Bytes),
    kong("kong_bandwidth", Canonical::Bytes).counter(),
    kong("kong_nginx_requests_total", Canonical::RequestsNginx).counter(),
    kong("kong_nginx_http_current_connections", Canonical::ConnectionsByState).gauge(),
    kong("kong_nginx_connections_total", Canonical::ConnectionsByState).gauge(),
    kong("kong_upstream_target_health", Canonical::TargetHealth).gauge(),
];

const fn apisix(name: &'static str, canonical: Canonical) -> Rule {
    rule(Family::Apisix, name, canonical).server()
}

const APISIX: Table = &[
    apisix("apisix_http_status", Canonical::Requests),
    apisix("apisix_http_latency", Canonical::DurationByType).millis(),
    apisix("apisix_bandwidth", Canonical::Bytes),
    apisix("apisix_http_requests_total", Canonical::RequestsNginx).counter(),
    apisix("apisix_nginx_http_current_connections", Canonical::ConnectionsByState).gauge(),
    apisix("apisix_upstream_status", Canonical::TargetHealth).gauge(),
];

const fn traefik(name: &'static str, canonical: Canonical) -> Rule {
    rule(Family::Traefik, name, canonical)
}

const TRAEFIK: Table = &[
    traefik("traefik_entrypoint_requests_total", Canonical::Requests).server(),
    traefik("traefik_entrypoint_request_duration_seconds", Canonical::Duration).server(),
    traefik("traefik_router_requests_total", Canonical::RequestsRoute).server(),
    traefik("traefik_router_request_duration_seconds", Canonical::DurationRoute).server(),
    traefik("traefik_service_requests_total", Canonical::RequestsUpstream).client(),
    traefik("traefik_service_request_duration_seconds", Canonical::DurationUpstream).client(),
    traefik("traefik_service_retries_total", Canonical::Retries).client(),
    traefik("traefik_entrypoint_requests_bytes_total", Canonical::BytesFromClient).server(),
    traefik("traefik_router_requests_bytes_total", Canonical::BytesFromClient).server(),
    traefik("traefik_entrypoint_responses_bytes_total", Canonical::BytesToClient).server(),
    traefik("traefik_router_responses_bytes_total", Canonical::BytesToClient).server(),
    traefik("traefik_service_requests_bytes_total", Canonical::BytesSentUpstream).client(),
    traefik("traefik_service_responses_bytes_total", Canonical::BytesReceivedUpstream).client(),
    traefik("traefik_service_server_up", Canonical::TargetHealth).gauge(),
    traefik("traefik_open_connections", Canonical::ConnectionsActive).gauge(),
    traefik("traefik_entrypoint_open_connections", Canonical::ConnectionsActive).gauge(),
    traefik("traefik_service_open_connections", Canonical::ConnectionsActive).gauge(),
];

const fn ingress(name: &'static str, canonical: Canonical) -> Rule {
    rule(Family::IngressNginx, name, canonical)
}

const INGRESS_NGINX: Table = &[
    ingress("nginx_ingress_controller_requests", Canonical::Requests).server().counter(),
    ingress("nginx_ingress_controller_request_duration_seconds", Canonical::Duration).server(),
    ingress("nginx_ingress_controller_response_duration_seconds", Canonical::DurationUpstream).client(),
    ingress("nginx_ingress_controller_header_duration_seconds", Canonical::TtfbUpstream).client(),
    ingress("nginx_ingress_controller_connect_duration_seconds", Canonical::ConnectUpstream).client(),
    ingress("nginx_ingress_controller_request_size", Canonical::RequestSize).server(),
    ingress("nginx_ingress_controller_response_size", Canonical::ResponseSize).server(),
    ingress("nginx_ingress_controller_bytes_sent", Canonical::ResponseBytes).server(),
];

const fn nginx(name: &'static str, canonical: Canonical) -> Rule {
    rule(Family::Nginx, name, canonical)
}

const NGINX: Table = &[
    nginx("nginx_http_requests_total", Canonical::RequestsNginx).counter(),
    nginx("nginx_http_requests", Canonical::RequestsNginx).counter(),
    nginx("nginx_http_request_duration_seconds", Canonical::Duration).server(),
    nginx("nginx_connections_accepted", Canonical::ConnectionsOpened).counter(),
    nginx("nginx_connections_handled", Canonical::ConnectionsOpened).counter(),
    nginx("nginx_connections_active", Canonical::ConnectionsByState).gauge(),
    nginx("nginx_connections_reading", Canonical::ConnectionsByState).gauge(),
    nginx("nginx_connections_writing", Canonical::ConnectionsByState).gauge(),
    nginx("nginx_connections_waiting", Canonical::ConnectionsByState).gauge(),
    nginx("nginx_http_connections", Canonical::ConnectionsByState).gauge(),
];

const fn haproxy(name: &'static str, canonical: Canonical, layer: Layer) -> Rule {
    let plain = rule(Family::Haproxy, name, canonical);
    let side = match layer {
        Layer::Plain => Side::Server,
        Layer::Backend | Layer::Server => Side::Client,
    };
    Rule { layer, side, ..plain }
}

macro_rules! haproxy_level {
    ($prefix:literal, $layer:expr) => {
        &[
            haproxy(concat!($prefix, "_http_responses_total"), Canonical::Requests, $layer).counter(),
            haproxy(concat!($prefix, "_http_requests_total"), Canonical::RequestsReceived, $layer).counter(),
            haproxy(concat!($prefix, "_bytes_in_total"), Canonical::BytesFromClient, $layer).counter(),
            haproxy(concat!($prefix, "_bytes_out_total"), Canonical::BytesToClient, $layer).counter(),
            haproxy(concat!($prefix, "_response_time_average_seconds"), Canonical::DurationAvg1024, $layer).gauge(),
            haproxy(concat!($prefix, "_total_time_average_seconds"), Canonical::TotalAvg1024, $layer).gauge(),
            haproxy(concat!($prefix, "_max_total_time_seconds"), Canonical::TotalMax, $layer).gauge(),
            haproxy(concat!($prefix, "_max_response_time_seconds"), Canonical::DurationMax, $layer).gauge(),
            haproxy(concat!($prefix, "_retry_warnings_total"), Canonical::Retries, $layer).counter(),
            haproxy(concat!($prefix, "_redispatch_warnings_total"), Canonical::Redispatches, $layer).counter(),
            haproxy(concat!($prefix, "_connection_errors_total"), Canonical::ConnectFailures, $layer).counter(),
            haproxy(concat!($prefix, "_response_errors_total"), Canonical::UpstreamResets, $layer).counter(),
            haproxy(concat!($prefix, "_requests_denied_total"), Canonical::Denied, $layer).counter(),
            haproxy(concat!($prefix, "_current_sessions"), Canonical::RequestsInflight, $layer).gauge(),
            haproxy(concat!($prefix, "_status"), Canonical::TargetHealth, $layer).gauge(),
            haproxy(concat!($prefix, "_up"), Canonical::TargetHealth, $layer).gauge(),
        ]
    };
}

const HAPROXY_FRONTEND: Table = haproxy_level!("haproxy_frontend", Layer::Plain);
const HAPROXY_BACKEND: Table = haproxy_level!("haproxy_backend", Layer::Backend);
const HAPROXY_SERVER: Table = haproxy_level!("haproxy_server", Layer::Server);

const fn caddy(name: &'static str, canonical: Canonical) -> Rule {
    rule(Family::Caddy, name, canonical)
}

const CADDY: Table = &[
    caddy("caddy_http_request_duration_seconds", Canonical::Duration).server(),
    caddy("caddy_http_requests_total", Canonical::RequestsHandler).server(),
    caddy("caddy_http_request_errors_total", Canonical::HandlerErrors).server(),
    caddy("caddy_http_request_size_bytes", Canonical::RequestSize).server(),
    caddy("caddy_http_response_size_bytes", Canonical::ResponseSize).server(),
    caddy("caddy_http_response_duration_seconds", Canonical::Ttfb).server(),
    caddy("caddy_reverse_proxy_upstreams_healthy", Canonical::TargetHealth).gauge(),
    caddy("caddy_http_requests_in_flight", Canonical::RequestsInflight).gauge(),
];

const fn spring(name: &'static str, canonical: Canonical) -> Rule {
    rule(Family::SpringCloudGateway, name, canonical)
}

const SPRING_CLOUD_GATEWAY: Table = &[
    spring("spring_cloud_gateway_requests_seconds", Canonical::Duration).server(),
    spring("http_client_requests_seconds", Canonical::DurationUpstream).client(),
    spring("http_server_requests_seconds", Canonical::Duration).server(),
];

const AGENTGATEWAY: Table = &[
    rule(Family::Agentgateway, "agentgateway_requests_total", Canonical::Requests).server(),
    rule(Family::Agentgateway, "agentgateway_request_duration_seconds", Canonical::Duration).server(),
];
