//! What each vendor's families say about edges.

use std::sync::Arc;

use super::mesh::replay;
use super::{Scraped, codes, title, total};
use crate::metrics_map::batch::batch;
use crate::normalise::overrides::{Alias, Overrides, RoleOverride};
use windrose_proto::model::{NodeRole, ProxyKind, Reason};

/// Two pages of a target; every edge as `title calls[codes] and what else is not zero`.
#[track_caller]
fn check(labels: &[(&str, &str)], before: &str, after: &str, expect: &[&str]) {
    let mut target = Scraped::new(labels);
    let _first = target.page(100, before);
    let mut found: Vec<String> = target
        .page(160, after)
        .edges
        .iter()
        .map(|edge| {
            let counts = &edge.counts;
            let mut text = format!("{} {}[{}]", title(edge), counts.calls(), codes(counts));
            for (name, value) in [
                ("errors", counts.errors),
                ("proxy", counts.proxy_faults),
                ("retries", counts.retries),
                ("timeouts", counts.timeouts),
                ("circuit", counts.circuit_rejected),
                ("opened", counts.connections_opened),
                ("sent", counts.bytes_sent),
                ("received", counts.bytes_received),
            ] {
                if value != 0 {
                    text += &format!(" {name}={value}");
                }
            }
            if let Some(duration) = &counts.duration {
                text += &format!(" {}x{:.4}s", duration.count, duration.sum / duration.count as f64);
            }
            text
        })
        .collect();
    found.sort();
    assert_eq!(found, expect);
}

const GATEWAY: &[(&str, &str)] = &[("app", "gw"), ("kind", "gateway")];

#[test]
fn istio_series_name_both_ends() {
    let line = |reporter: &str, code: &str, flags: &str, tls: &str, value: u64| {
        format!(
            "istio_requests_total{{reporter=\"{reporter}\",source_workload=\"orders-v1\",source_canonical_service=\"orders\",\
             source_canonical_revision=\"v1\",source_workload_namespace=\"shop\",destination_workload=\"users-v1\",\
             destination_workload_namespace=\"shop\",destination_service=\"users.shop.svc.cluster.local\",\
             destination_canonical_service=\"users\",destination_canonical_revision=\"latest\",request_protocol=\"http\",\
             response_code=\"{code}\",response_flags=\"{flags}\",connection_security_policy=\"{tls}\"}} {value}\n"
        )
    };
    let page = |value: u64| {
        line("source", "200", "-", "unknown", value)
            + &line("source", "504", "UT", "unknown", 1)
            + &line("destination", "200", "-", "mutual_tls", value)
    };
    let before = line("source", "200", "-", "unknown", 1) + &line("destination", "200", "-", "mutual_tls", 1);
    check(
        &[("app", "orders"), ("namespace", "shop")],
        &before,
        &page(11),
        &[
            "client orders.shop->users.shop 11[200:10 504:1] errors=1 proxy=1 timeouts=1",
            "server orders.shop->users.shop 10[200:10]",
        ],
    );
}

#[test]
fn istio_series_outrank_envoys_on_one_page() {
    let page = |value: u64, retries: u64| {
        format!(
            "istio_requests_total{{reporter=\"source\",source_canonical_service=\"orders\",source_workload_namespace=\"shop\",\
             destination_service=\"users.shop.svc.cluster.local\",destination_canonical_service=\"users\",\
             destination_service_namespace=\"shop\",destination_workload=\"u\",request_protocol=\"http\",response_code=\"200\",response_flags=\"-\"}} {value}\n\
             envoy_cluster_upstream_rq{{response_code=\"200\",cluster_name=\"outbound|80||users.shop.svc.cluster.local\"}} {value}\n\
             envoy_cluster_upstream_rq_retry{{cluster_name=\"outbound|80||users.shop.svc.cluster.local\"}} {retries}\n"
        )
    };
    check(
        &[("app", "orders"), ("namespace", "shop")],
        &page(1, 0),
        &page(6, 2),
        &["client orders.shop->users.shop 0[] retries=2", "client orders.shop->users.shop 5[200:5]"],
    );
}

#[test]
fn outside_hosts_keep_their_whole_name() {
    let page = |value: u64| {
        format!(
            "istio_requests_total{{reporter=\"source\",source_canonical_service=\"pay\",source_workload_namespace=\"shop\",\
             destination_workload=\"unknown\",destination_canonical_service=\"unknown\",destination_service=\"api.partner.example\",\
             destination_service_name=\"api.partner.example\",request_protocol=\"http\",response_code=\"503\",response_flags=\"-\"}} {value}\n"
        )
    };
    check(
        &[("app", "pay"), ("namespace", "shop")],
        &page(0),
        &page(2),
        &["client pay.shop->api.partner.example 2[503:2] errors=2"],
    );
}

#[test]
fn ztunnel_counts_connections() {
    let page = |value: u64| {
        let labels = "reporter=\"source\",source_workload=\"a-v1\",source_canonical_service=\"a\",source_workload_namespace=\"n\",\
             destination_workload=\"db\",destination_service=\"db.n.svc.cluster.local\",destination_canonical_service=\"db\",\
             destination_workload_namespace=\"n\",request_protocol=\"tcp\",response_flags=\"-\",connection_security_policy=\"mutual_tls\"";
        format!(
            "istio_tcp_connections_opened_total{{{labels}}} {value}\nistio_tcp_sent_bytes_total{{{labels}}} {value}00\n"
        )
    };
    check(&[("app", "ztunnel")], &page(1), &page(4), &["client a.n->db.n 3[] opened=3 received=300"]);
}

#[test]
fn kong_tells_entry_and_service() {
    let page = |ok: u64, own: u64, refused: u64| {
        format!(
            "kong_http_requests_total{{service=\"orders\",route=\"r\",code=\"200\",source=\"service\"}} {ok}\n\
             kong_http_requests_total{{service=\"orders\",route=\"r\",code=\"503\",source=\"kong\"}} {own}\n\
             kong_http_requests_total{{service=\"orders\",route=\"r\",code=\"401\",source=\"kong\"}} {refused}\n\
             kong_upstream_latency_ms_sum{{service=\"orders\",route=\"r\"}} {ok}0\n\
             kong_upstream_latency_ms_count{{service=\"orders\",route=\"r\"}} {ok}\n\
             kong_bandwidth_bytes{{service=\"orders\",direction=\"egress\"}} {ok}\n"
        )
    };
    check(
        GATEWAY,
        &page(10, 0, 0),
        &page(14, 2, 3),
        &[
            "client gw->orders 6[200:4 503:2] errors=2 proxy=2 4x0.0100s",
            "server (caller)->gw 9[200:4 401:3 503:2] errors=2 proxy=2 received=4",
        ],
    );
}

#[test]
fn apisix_names_who_answered() {
    let page = |up: u64, own: u64| {
        let labels = "route=\"r\",matched_uri=\"/\",matched_host=\"api.partner.example\",service=\"partner\",node=\"198.51.100.20\"";
        format!(
            "apisix_http_status{{code=\"503\",{labels},response_source=\"upstream\"}} {up}\n\
             apisix_http_status{{code=\"502\",{labels},response_source=\"apisix\"}} {own}\n"
        )
    };
    check(
        GATEWAY,
        &page(0, 0),
        &page(2, 1),
        &["client gw->partner 3[502:1 503:2] errors=3 proxy=1", "server (caller)->gw 3[502:1 503:2] errors=3 proxy=1"],
    );
}

/// As its spans do, which know no service but the host they were asked for.
#[test]
fn apisix_as_egress_gateway_names_the_outside_host_of_a_service() {
    let line = |service: &str, host: &str, value: u64| {
        format!(
            "apisix_http_status{{code=\"200\",matched_host=\"{host}\",service=\"{service}\",node=\"198.51.100.20\"}} {value}\n"
        )
    };
    let page = |value: u64| {
        line("partner", "api.partner.example", value)
            // Two hosts, or one inside: the name stays.
            + &line("both", "a.example", value)
            + &line("both", "b.example", value)
            + &line("inside", "orders.shop.svc", value)
            + &format!("apisix_http_latency_sum{{type=\"upstream\",service=\"partner\",node=\"198.51.100.20\"}} {value}\n")
            + &format!("apisix_http_latency_count{{type=\"upstream\",service=\"partner\",node=\"198.51.100.20\"}} {value}\n")
    };
    check(
        &[("app", "apisix-egress"), ("kind", "egress")],
        &page(0),
        &page(2),
        &[
            "client apisix-egress->api.partner.example 2[200:2] 2x0.0010s",
            "client apisix-egress->both 4[200:4]",
            "client apisix-egress->inside 2[200:2]",
            "server (caller)->apisix-egress 8[200:8]",
        ],
    );
}

#[test]
fn traefik_entry_and_service_are_two_edges() {
    let page = |value: u64| {
        format!(
            "traefik_entrypoint_requests_total{{code=\"200\",method=\"GET\",protocol=\"http\",entrypoint=\"web\"}} {value}\n\
             traefik_router_requests_total{{code=\"200\",router=\"r\",service=\"shop-orders-8080@kubernetes\"}} {value}\n\
             traefik_service_requests_total{{code=\"200\",service=\"shop-orders-8080@kubernetes\"}} {value}\n\
             traefik_service_retries_total{{service=\"shop-orders-8080@kubernetes\"}} {value}\n"
        )
    };
    check(GATEWAY, &page(1), &page(3), &["client gw->shop-orders 2[200:2] retries=2", "server (caller)->gw 2[200:2]"]);
}

#[test]
fn haproxy_failures_no_server_made_are_its_own() {
    let page = |backend: u64, server: u64| {
        format!(
            "haproxy_frontend_http_responses_total{{proxy=\"gateway\",code=\"5xx\"}} {backend}\n\
             haproxy_frontend_http_responses_total{{proxy=\"stats\",code=\"2xx\"}} {backend}\n\
             haproxy_backend_http_responses_total{{proxy=\"orders\",code=\"5xx\"}} {backend}\n\
             haproxy_server_http_responses_total{{proxy=\"orders\",server=\"s1\",code=\"5xx\"}} {server}\n"
        )
    };
    check(
        GATEWAY,
        &page(1, 0),
        &page(6, 3),
        &["client gw->orders 5[5xx:5] errors=5 proxy=2", "server (caller)->gw 5[5xx:5] errors=5"],
    );
}

#[test]
fn caddy_handlers_count_a_request_once() {
    let page = |value: u64| {
        let line = |handler: &str| {
            format!(
                "caddy_http_request_duration_seconds_count{{code=\"200\",handler=\"{handler}\",server=\"s\"}} {value}\n"
            )
        };
        line("reverse_proxy") + &line("subroute") + &line("encode")
    };
    let mut target = Scraped::new(GATEWAY);
    let _first = target.page(1, &page(1));
    let seen = target.page(2, &page(4));
    assert_eq!(seen.edges.len(), 1);
    assert_eq!(seen.edges[0].counts.calls(), 3);
}

#[test]
fn spring_cloud_gateway_names_the_route() {
    let page = |value: u64| {
        format!(
            "spring_cloud_gateway_requests_seconds_count{{httpStatusCode=\"200\",routeId=\"o\",routeUri=\"lb://orders\"}} {value}\n\
             spring_cloud_gateway_requests_seconds_sum{{httpStatusCode=\"200\",routeId=\"o\",routeUri=\"lb://orders\"}} {value}\n"
        )
    };
    check(GATEWAY, &page(0), &page(2), &["client gw->orders 2[200:2] 2x1.0000s"]);
}

#[test]
fn linkerd_tells_both_directions() {
    let page = |value: u64| {
        format!(
            "response_total{{direction=\"outbound\",dst_deployment=\"emoji\",dst_namespace=\"ev\",tls=\"true\",status_code=\"200\",classification=\"success\",error=\"\"}} {value}\n\
             response_total{{direction=\"inbound\",client_id=\"web.ev.serviceaccount.identity.linkerd.cluster.local\",tls=\"true\",status_code=\"200\",target_port=\"8080\"}} {value}\n\
             response_total{{direction=\"inbound\",tls=\"no_identity\",status_code=\"200\",target_port=\"4191\"}} {value}\n\
             outbound_http_route_request_statuses_total{{parent_name=\"emoji\",parent_namespace=\"ev\",http_status=\"200\",error=\"\"}} {value}\n"
        )
    };
    check(
        &[("deployment", "voting"), ("namespace", "ev")],
        &page(1),
        &page(3),
        &["client voting.ev->emoji.ev 2[200:2]", "server web.ev->voting.ev 2[200:2]"],
    );
}

#[test]
fn linkerd_routes_tell_timeouts() {
    let page = |ok: u64, late: u64| {
        let parent = "parent_kind=\"Service\",parent_name=\"emoji-svc\",parent_namespace=\"ev\"";
        format!(
            "outbound_http_route_request_statuses_total{{{parent},http_status=\"200\",error=\"\"}} {ok}\n\
             outbound_http_route_request_statuses_total{{{parent},http_status=\"\",error=\"RESPONSE_HEADERS_TIMEOUT\"}} {late}\n"
        )
    };
    check(
        &[("deployment", "web"), ("namespace", "ev")],
        &page(1, 0),
        &page(3, 2),
        &["client web.ev->emoji-svc.ev 4[0:2 200:2] proxy=2 timeouts=2"],
    );
}

#[test]
fn linkerd_policies_deny_without_naming_a_direction() {
    let page = |value: u64| {
        format!(
            "inbound_http_authz_deny_total{{target_addr=\"10.42.0.63:8080\",target_ip=\"10.42.0.63\",target_port=\"8080\",\
             srv_name=\"default:all-unauthenticated\",tls=\"true\",client_id=\"web.ev.serviceaccount.identity.linkerd.cluster.local\"}} {value}\n"
        )
    };
    let mut target = Scraped::new(&[("deployment", "voting"), ("namespace", "ev")]);
    let _first = target.page(1, &page(1));
    let seen = target.page(2, &page(4));
    assert_eq!(seen.edges.iter().map(title).collect::<Vec<_>>(), ["server web.ev->voting.ev"]);
    assert_eq!(seen.edges[0].counts.denied, 3);
}

#[test]
fn envoys_without_a_cluster_have_no_route() {
    let page = |value: u64| format!("envoy_http_no_cluster{{envoy_http_conn_manager_prefix=\"ingress\"}} {value}\n");
    let mut target = Scraped::new(GATEWAY);
    let _first = target.page(1, &page(1));
    let seen = target.page(2, &page(3));
    assert_eq!(seen.edges[0].counts.reasons, [(Reason::NoRoute, 2)].into());
}

#[test]
fn nginx_counts_accepted_connections_once() {
    let page = |value: u64| format!("nginx_connections_accepted {value}\nnginx_connections_handled {value}\n");
    check(GATEWAY, &page(1), &page(5), &["server (caller)->gw 0[] opened=4"]);
}

#[test]
fn ingress_nginx_names_the_service() {
    let page = |value: u64| {
        format!(
            "nginx_ingress_controller_requests{{status=\"200\",namespace=\"shop\",service=\"orders\",ingress=\"i\",canary=\"\"}} {value}\n\
             nginx_ingress_controller_response_duration_seconds_sum{{status=\"200\",namespace=\"shop\",service=\"orders\"}} {value}\n\
             nginx_ingress_controller_response_duration_seconds_count{{status=\"200\",namespace=\"shop\",service=\"orders\"}} {value}\n"
        )
    };
    check(GATEWAY, &page(1), &page(3), &["client gw->orders.shop 2[200:2] 2x1.0000s", "server (caller)->gw 2[200:2]"]);
}

#[test]
fn consul_labels_outrank_the_cluster_name() {
    let page = |value: u64| {
        format!(
            "envoy_cluster_upstream_rq{{envoy_response_code=\"200\",local_cluster=\"web\",consul_destination_service=\"orders\",\
             consul_destination_namespace=\"default\",consul_destination_datacenter=\"dc1\",envoy_cluster_name=\"orders\"}} {value}\n"
        )
    };
    check(&[("job", "consul")], &page(1), &page(2), &["client web->orders.default 1[200:1]"]);
}

#[test]
fn agentgateway_reasons_tell_who_answered() {
    let page = |value: u64| {
        format!(
            "agentgateway_requests_total{{backend=\"shop/orders:8080\",status=\"503\",reason=\"NoHealthyBackend\"}} {value}\n\
             agentgateway_requests_total{{backend=\"orders\",status=\"200\",reason=\"Upstream\"}} {value}\n"
        )
    };
    let mut target = Scraped::new(GATEWAY);
    let _first = target.page(1, &page(1));
    let seen = target.page(2, &page(2));
    let entry = seen.edges.iter().find(|edge| title(edge) == "server (caller)->gw").unwrap();
    assert_eq!((entry.counts.calls(), entry.counts.proxy_faults), (2, 1));
}

/// Kong in front of an Istio canary with an APISIX egress: 1000 requests in a minute.
#[test]
fn the_seed_mesh_gives_its_edges() {
    let pages = zstd::decode_all(&include_bytes!("../testdata/kong-istio-apisix.prom.zst")[..]).unwrap();
    let deltas = replay(&String::from_utf8(pages).unwrap());
    for (proxy, edge, calls, errors, mean_millis) in [
        ("kong", "server (caller)->kong", 1000, 10, 79.71),
        ("orders-v1", "server (caller)->orders.shop", 900, 10, 71.889),
        ("orders-v2", "server (caller)->orders.shop", 100, 0, 50.0),
        ("orders-v1", "client orders.shop->payments.shop", 900, 10, 42.0),
        ("orders-v2", "client orders.shop->payments.shop", 100, 0, 20.0),
        ("payments", "client payments.shop->apisix-egress", 990, 5, 12.0),
        ("apisix-egress", "client apisix-egress->api.partner.example", 990, 5, 8.0),
    ] {
        let totals = total(&deltas[proxy]);
        let key = totals
            .keys()
            .find(|title| title.starts_with(edge))
            .unwrap_or_else(|| panic!("{edge} not in {:?}", totals.keys()));
        let counts = &totals[key];
        assert_eq!((counts.calls(), counts.errors), (calls, errors), "{edge}");
        let duration = counts.duration.as_ref().unwrap();
        let mean = 1000.0 * duration.sum / duration.count as f64;
        assert!((mean - mean_millis).abs() < 0.0006, "{edge}: {mean} ms");
    }
    let both_sides = total(&deltas["payments"]);
    let served: i64 = both_sides
        .iter()
        .filter(|(title, _)| title.starts_with("server orders"))
        .map(|(_, counts)| counts.calls())
        .sum();
    assert_eq!(served, 1000, "the callee counts the same requests, and they are kept apart");
    assert_eq!(total(&deltas["orders-v1"])["client orders.shop->payments.shop"].timeouts, 10);
}

/// `direction source->destination calls`, ends as `service(role)`.
#[track_caller]
fn check_batch(labels: &[(&str, &str)], before: &str, after: &str, expect: &[&str]) {
    let mut target = Scraped::new(labels);
    let _first = target.page(100, before);
    let seen = target.page(160, after);
    let edges = batch(&target.identity, &seen, &target.options.overrides).map(|batch| batch.edges).unwrap_or_default();
    let end =
        |node: Option<windrose_proto::wire::Node>| node.map(|node| format!("{}({})", node.service, node.role)).unwrap();
    let mut found: Vec<String> = edges
        .into_iter()
        .map(|edge| format!("{} {}->{} {}", edge.direction, end(edge.source), end(edge.destination), edge.calls))
        .collect();
    found.sort();
    assert_eq!(found, expect);
}

#[test]
fn batches_name_direction_and_roles() {
    let cluster = |name: &str, value: u64| {
        format!("envoy_cluster_upstream_rq{{response_code=\"200\",cluster_name=\"{name}\"}} {value}\n")
    };
    let entry = |value: u64| {
        format!(
            "envoy_http_downstream_rq{{response_code_class=\"2xx\",http_conn_manager_prefix=\"inbound_0.0.0.0_80\"}} {value}\n"
        )
    };
    let page = |value: u64| {
        cluster("outbound|80||users.shop.svc.cluster.local", value)
            + &cluster("outbound|443||api.partner.example", value)
            + &cluster("outbound|80||istio-egressgateway.istio-system.svc.cluster.local", value)
            + &entry(value)
    };
    check_batch(
        &[("app", "orders"), ("namespace", "shop"), ("kind", "sidecar")],
        &page(0),
        &page(1),
        &[
            "east_west orders(sidecar)->users() 1",
            "egress orders(sidecar)->api.partner.example(external) 1",
            "egress orders(sidecar)->istio-egressgateway(egress) 1",
        ],
    );
    check_batch(
        &[("app", "istio-ingressgateway"), ("kind", "gateway")],
        &page(0),
        &page(1),
        &[
            "egress istio-ingressgateway(gateway)->api.partner.example(external) 1",
            "egress istio-ingressgateway(gateway)->istio-egressgateway(egress) 1",
            "north_south (client)(external)->istio-ingressgateway(gateway) 1",
            "north_south istio-ingressgateway(gateway)->users() 1",
        ],
    );
}

#[test]
fn an_egress_gateway_is_called_by_those_who_say_so() {
    let page =
        |value: u64| format!("apisix_http_status{{code=\"200\",service=\"partner\",node=\"198.51.100.20\"}} {value}\n");
    let labels = [("app", "apisix-egress"), ("kind", "egress")];
    check_batch(&labels, &page(0), &page(2), &["egress apisix-egress(egress)->partner(external) 2"]);
}

#[test]
fn operators_rename_ends_and_give_roles() {
    let page = |value: u64| {
        format!(
            "envoy_cluster_upstream_rq{{response_code=\"200\",cluster_name=\"outbound|80||users.shop.svc.cluster.local\"}} {value}\n"
        )
    };
    let mut target = Scraped::new(&[("app", "orders"), ("namespace", "shop"), ("kind", "sidecar")]);
    target.options.overrides = Arc::new(Overrides {
        aliases: [("shop/users".to_owned(), Alias::parse("accounts/people"))].into(),
        roles: vec![RoleOverride::new("^orders$", NodeRole::Egress).unwrap()],
        ..Overrides::default()
    });
    let _first = target.page(1, &page(0));
    let seen = target.page(2, &page(1));
    let edge = batch(&target.identity, &seen, &target.options.overrides).unwrap().edges.remove(0);
    let (source, destination) = (edge.source.unwrap(), edge.destination.unwrap());
    assert_eq!((source.role.as_str(), edge.direction.as_str()), ("egress", "egress"));
    assert_eq!((destination.service.as_str(), destination.namespace.as_str()), ("people", "accounts"));
}

#[test]
fn an_envoy_is_of_the_kind_its_clusters_are() {
    for (page, kind) in [
        ("envoy_cluster_upstream_rq_total{cluster_name=\"outbound|80||a.b.svc.cluster.local\"} 1\n", ProxyKind::Istio),
        ("envoy_cluster_upstream_rq_total{envoy_cluster_name=\"inbound|80||\"} 1\n", ProxyKind::Istio),
        ("envoy_cluster_upstream_rq_total{envoy_cluster_name=\"kube_shop_orders_80\"} 1\n", ProxyKind::Kgateway),
        (
            "envoy_cluster_upstream_rq_total{envoy_cluster_name=\"httproute/shop/orders/rule/0\"} 1\n",
            ProxyKind::EnvoyGateway,
        ),
        ("envoy_cluster_upstream_rq_total{envoy_cluster_name=\"payments\"} 1\n", ProxyKind::Envoy),
        ("# TYPE kong_http_requests_total counter\nkong_http_requests_total 1\n", ProxyKind::Kong),
        ("up 1\n", ProxyKind::None),
    ] {
        assert_eq!(Scraped::new(GATEWAY).page(1, page).proxy_kind, kind, "{page}");
    }
}

#[test]
fn a_caller_that_istio_does_not_know_is_an_edge() {
    let page = |value: u64| {
        format!(
            "istio_requests_total{{reporter=\"destination\",source_workload=\"unknown\",source_canonical_service=\"unknown\",\
             destination_canonical_service=\"orders\",destination_workload=\"orders\",destination_workload_namespace=\"shop\",\
             destination_service=\"orders.shop.svc.cluster.local\",request_protocol=\"http\",response_code=\"200\",response_flags=\"-\"}} {value}\n"
        )
    };
    let labels = [("app", "orders"), ("namespace", "shop"), ("kind", "sidecar")];
    check_batch(&labels, &page(0), &page(2), &["unknown (unknown)(unknown)->orders(sidecar) 2"]);
}
