//! Every family of the table counts for something, or it is said here why not.

use super::{Options, Page, Scraped};
use crate::exposition::{Dialect, Series};
use crate::metrics_map::bind::{self, Bound, Context};
use crate::metrics_map::table::{self, Family, Rule};
use crate::tests::{shared, skip};
use windrose_proto::time::UnixNanos;

/// Families that count for no edge and not for the proxy as a whole, and why; `*` stands for anything.
const NO_FACT_OF_AN_EDGE: &[(&str, &str)] = &[
    ("istio_*_messages_total", "messages within a request or stream, not requests"),
    ("istio_tcp_connections_closed_total", "the end of what was counted when it began"),
    ("envoy_cluster_circuit_breakers_*_open", "a state of now, to be read from the scraped series"),
    ("envoy_cluster_membership_*", "a state of now"),
    ("envoy_cluster_outlier_detection_ejections_active", "a state of now"),
    ("envoy_cluster_outlier_detection_ejections_total", "also counts ejections that were not carried out"),
    ("envoy_cluster_upstream_cx_active", "a state of now"),
    ("envoy_cluster_upstream_cx_connect_timeout", "a part of the connections that failed"),
    ("envoy_cluster_upstream_cx_overflow", "the request waits for another connection; refused is what overflows then"),
    ("envoy_cluster_upstream_rq_cancelled", "among the requests begun and never answered"),
    ("envoy_cluster_upstream_rq_pending_active", "a state of now"),
    ("envoy_cluster_upstream_rq_per_try_timeout", "attempts; whether a retry saved the request is not told"),
    (
        "envoy_cluster_upstream_rq_retry_overflow",
        "a retry that was not made; the request got its last attempt's answer",
    ),
    ("envoy_http_downstream_cx_active", "a state of now"),
    ("envoy_http_downstream_rq_rx_reset", "among the requests begun and never answered"),
    ("envoy_http_downstream_rq_tx_reset", "answered with a code or never, and counted as that"),
    ("envoy_http_rq_reset_after_downstream_response_started", "answered with a code, and counted as that"),
    ("envoy_http_tracing_*", "why a trace was sampled, not how many requests there were"),
    ("envoy_tracing_zipkin_reports_*", "batches of spans; the spans are counted beside them"),
    ("request_total", "the same requests as `response_total`, which has their outcome"),
    ("route_*", "the same requests once more, by route of a service profile"),
    ("tcp_close_total", "the end of what was counted when it began"),
    ("tcp_open_connections", "a state of now"),
    ("outbound_http_route_backend_response_*", "the same requests once more, by backend"),
    ("kong_kong_latency_ms", "time inside the proxy, on no edge"),
    ("kong_nginx_*", "all of the Nginx, its own ports included"),
    ("kong_upstream_target_health", "a state of now"),
    ("apisix_http_requests_total", "all of the Nginx, its own ports included"),
    ("apisix_nginx_http_current_connections", "a state of now"),
    ("apisix_upstream_status", "a state of now"),
    ("traefik_router_*", "the entry's requests once more"),
    ("traefik_*open_connections", "a state of now"),
    ("traefik_service_server_up", "a state of now"),
    ("nginx_ingress_controller_connect_duration_seconds", "a part of the response's duration"),
    ("nginx_ingress_controller_header_duration_seconds", "a part of the response's duration"),
    ("nginx_ingress_controller_response_size", "the bytes that `bytes_sent` counts with their headers"),
    ("nginx_connections_handled", "the accepted connections once more, without the dropped ones"),
    ("nginx_connections_active", "a state of now"),
    ("nginx_connections_reading", "a state of now"),
    ("nginx_connections_waiting", "a state of now"),
    ("nginx_connections_writing", "a state of now"),
    ("nginx_http_connections", "a state of now"),
    ("haproxy_*_response_time_average_seconds", "a mean of the last 1024, of which no window can be made"),
    ("haproxy_*_total_time_average_seconds", "a mean of the last 1024, of which no window can be made"),
    ("haproxy_*_max_*_time_seconds", "a maximum since the start, of which no window can be made"),
    ("haproxy_*_current_sessions", "a state of now"),
    ("haproxy_*_http_requests_total", "the same requests as the responses, which have their outcome"),
    ("haproxy_*_redispatch_warnings_total", "among the retries: those at another server"),
    ("haproxy_*_status", "a state of now"),
    ("haproxy_*_up", "a state of now"),
    ("haproxy_server_bytes_*", "the backend counts it for all of its servers"),
    ("haproxy_server_connection_errors_total", "the backend counts it for all of its servers"),
    ("haproxy_server_requests_denied_total", "the backend counts it for all of its servers"),
    ("haproxy_server_response_errors_total", "the backend counts it for all of its servers"),
    ("haproxy_server_retry_warnings_total", "the backend counts it for all of its servers"),
    ("caddy_http_requests_total", "the count of durations, which has their outcome"),
    ("caddy_http_request_errors_total", "errors between handlers; the answer made of them has a code"),
    ("caddy_http_requests_in_flight", "a state of now"),
    ("caddy_http_response_duration_seconds", "a part of the request's duration"),
    ("caddy_reverse_proxy_upstreams_healthy", "a state of now"),
];

/// Why a family of the table counts for nothing.
pub(super) fn reason_not_to_count(name: &str) -> Option<&'static str> {
    let is_meant = |pattern: &str| match pattern.split_once('*') {
        Some((start, end)) => {
            // One more `*` may follow.
            let (middle, end) = end.rsplit_once('*').unwrap_or(("", end));
            name.strip_prefix(start).and_then(|rest| rest.strip_suffix(end)).is_some_and(|rest| rest.contains(middle))
        }
        None => name == pattern,
    };
    NO_FACT_OF_AN_EDGE.iter().find(|(pattern, _)| is_meant(pattern)).map(|(_, reason)| *reason)
}

/// What a family's series say of themselves, in each of the ways that matter.
const fn labels_of(family: Family) -> &'static [&'static str] {
    match family {
        Family::Istio => &[
            r#"reporter="source",source_canonical_service="a",destination_service="b.n.svc.cluster.local",destination_canonical_service="b",request_protocol="http",response_code="200",response_flags="-""#,
        ],
        Family::Envoy => &[
            r#"envoy_cluster_name="orders",envoy_response_code="200""#,
            r#"envoy_cluster_name="orders",envoy_response_code_class="2""#,
            r#"envoy_http_conn_manager_prefix="ingress",envoy_response_code_class="2""#,
        ],
        Family::Linkerd => &[
            r#"direction="outbound",peer="dst",dst_deployment="b",status_code="200""#,
            r#"direction="inbound",peer="src",target_port="8080",status_code="200""#,
            r#"srv_name="s",target_port="8080",tls="true""#,
            r#"parent_name="b",parent_namespace="n",backend_name="b",http_status="200""#,
        ],
        Family::Kong => {
            &[r#"service="orders",route="r",code="200",source="service",direction="egress",type="upstream""#]
        }
        Family::Apisix => &[
            r#"service="orders",route="r",code="200",response_source="upstream",type="upstream""#,
            r#"service="orders",type="egress""#,
        ],
        Family::Traefik => &[r#"code="200",entrypoint="web",router="r",service="orders@docker""#],
        Family::IngressNginx => &[r#"status="200",namespace="shop",ingress="i",service="orders""#],
        Family::Nginx => &[r#"host="h",status="200""#],
        Family::Haproxy => &[r#"proxy="orders",server="s1",code="5xx""#],
        Family::Caddy => &[r#"server="srv0",handler="subroute",code="200""#],
        Family::SpringCloudGateway => {
            &[r#"routeId="o",routeUri="lb://orders",httpStatusCode="200",client_name="orders",status="200""#]
        }
        Family::Agentgateway => &[r#"backend="orders",status="200",reason="Upstream""#],
    }
}

/// Whether any series of the family counts for an edge or the proxy.
fn counts(rule: &Rule) -> bool {
    let target = Scraped::new(&[("app", "gw"), ("kind", "gateway")]);
    let options = Options::default();
    let body = b"caddy_http_request_duration_seconds_count{handler=\"subroute\"} 1\n";
    let page = Page { body, dialect: Dialect::Text, scraped_at: UnixNanos(1) };
    let context = Context::of(&target.identity, page, &options);
    let suffixes = ["", "_bucket", "_sum", "_count"];
    labels_of(rule.family).iter().flat_map(|labels| suffixes.map(|suffix| (labels, suffix))).any(|(labels, suffix)| {
        let text = format!("{}{suffix}{{{labels},le=\"1\"}}", rule.name);
        let series = Series::parse(&text, Dialect::Text).unwrap();
        let shape = bind::shape_of(&series.name).unwrap();
        assert_eq!(shape.rule.name, rule.name);
        matches!(bind::bind(&context, shape, series.labels), Bound::Fields(fields) if !fields.is_empty())
    })
}

#[test]
fn every_family_counts_or_is_known_not_to() {
    let (mut unlisted, mut listed) = (Vec::new(), Vec::new());
    for rule in table::rules() {
        match (counts(rule), reason_not_to_count(rule.name)) {
            (false, None) => unlisted.push(rule.name),
            (true, Some(reason)) => listed.push((rule.name, reason)),
            (true, None) | (false, Some(_)) => {}
        }
    }
    assert_eq!(unlisted, Vec::<&str>::new(), "count for nothing, and nobody says why");
    assert_eq!(listed, Vec::<(&str, &str)>::new(), "said not to count, and do");
}

/// A family, or several of one pattern, in the model's table.
#[derive(serde::Deserialize)]
pub(super) struct ModelRow {
    pub(super) proxy: String,
    family: String,
    pub(super) canonical: String,
    scale: f64,
    r#type: Option<String>,
}

/// The model's table, by pattern, where it is at hand.
pub(super) fn model() -> Option<Vec<(regex::Regex, ModelRow)>> {
    let text = std::fs::read_to_string(shared("model/metric_map.json")?).unwrap();
    let rows: Vec<ModelRow> = serde_json::from_str(&text).unwrap();
    Some(rows.into_iter().map(|row| (regex::Regex::new(&row.family).unwrap(), row)).collect())
}

/// Families mapped here and not there.
const OURS_ALONE: &[&str] = &[
    "envoy_cluster_upstream_rq_pending_failure_eject",
    "envoy_cluster_ssl_handshake",
    "envoy_http_downstream_cx_ssl_total",
    "envoy_http_downstream_rq",
    "nginx_http_request_duration_seconds",
    "agentgateway_requests_total",
    "agentgateway_request_duration_seconds",
];

#[test]
fn the_table_agrees_with_the_model() {
    let Some(patterns) = model() else {
        return skip("the model's families", "TESTS_SHARED names no folder with model/metric_map.json");
    };
    for rule in table::rules().filter(|rule| !OURS_ALONE.contains(&rule.name)) {
        let (_, row) =
            patterns.iter().find(|(pattern, _)| pattern.is_match(rule.name)).unwrap_or_else(|| panic!("{}", rule.name));
        assert_eq!(rule.canonical_name(), row.canonical, "{}", rule.name);
        assert!((rule.scale - row.scale).abs() < 1e-12, "{}", rule.name);
        assert_eq!(rule.forced.map(|kind| kind.as_str()), row.r#type.as_deref(), "{}", rule.name);
    }
    // Sub-counts are left out here by construction instead of being mapped to be ignored.
    for (pattern, row) in patterns.iter().filter(|(_, row)| row.canonical != "ignore_subcount") {
        assert!(table::rules().any(|rule| pattern.is_match(rule.name)), "{} ({})", row.family, row.canonical);
    }
}
