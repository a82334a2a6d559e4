use proptest::prelude::*;

use super::{Cluster, ClusterForm, ClusterSide, parse_cluster, parse_cluster_with};
use crate::normalise::host::HostRules;

/// `form side service/namespace:port subset external`, with `-` for what is absent.
fn text_of(cluster: Cluster<'_>) -> String {
    let side = match cluster.side {
        ClusterSide::Inbound => "in",
        ClusterSide::Outbound => "out",
    };
    let port = cluster.port.map_or_else(|| "-".to_owned(), |port| port.to_string());
    let external = match cluster.external {
        Some(true) => "external",
        Some(false) => "internal",
        None => "undecided",
    };
    format!(
        "{} {side} {}/{}:{port} {} {external}",
        cluster.form.as_str(),
        cluster.service.unwrap_or("-"),
        cluster.namespace.unwrap_or("-"),
        cluster.subset.unwrap_or("-"),
    )
}

#[track_caller]
fn check(name: &str, expect: &str) {
    assert_eq!(parse_cluster(name).map(text_of).as_deref(), Some(expect), "{name}");
}

#[test]
fn every_form_is_read() {
    check("BlackHoleCluster", "C1 out BlackHoleCluster/-:- - external");
    check("block_all", "C1 out BlackHoleCluster/-:- - external");
    check("PassthroughCluster", "C1 out PassthroughCluster/-:- - external");
    check("allow_any", "C1 out PassthroughCluster/-:- - external");
    check("InboundPassthroughClusterIpv4", "C1 in -/-:- - internal");
    check("outbound|8080|v1|orders.shop.svc.cluster.local", "C2 out orders/shop:8080 v1 internal");
    check("outbound|8080||users.shop.svc.cluster.local;", "C2 out users/shop:8080 - internal");
    check("outbound|443||partner-pay.example.com", "C2 out partner-pay.example.com/-:443 - external");
    check("outbound_.8080_.v1_.orders.shop.svc.cluster.local", "C2 out orders/shop:8080 v1 internal");
    check("inbound|8080||", "C2 in -/-:8080 - internal");
    check("inbound-vip|9080|http|reviews.bookinfo.svc.cluster.local", "C2 in reviews/bookinfo:9080 - internal");
    check("orders.default.dc1.internal.11111111-2222-3333.consul", "C3 out orders/default:- - internal");
    check("v2.orders.default.dc1.internal.11111111-2222.consul", "C3 out orders/default:- v2 internal");
    check("abc123~v2.orders.default.dc1.internal.11111111.consul", "C3 out orders/default:- v2 internal");
    check("orders.team.part1.dc1.internal-v1.11111111.consul", "C3 out orders/team:- - internal");
    check("orders.default.peer-b.external.11111111.consul", "C3 out orders/default:- - internal");
    check("cds_egress_shopmesh_orders_http_8080", "C4 out orders/-:8080 - internal");
    check("cds_ingress_my_mesh_orders_http2_9080", "C4 in orders/-:9080 - internal");
    check("httproute/shop/orders/rule/0", "C5 out orders/shop:- - internal");
    check("httproute/shop/orders/rule/-1", "C5 out orders/shop:- - internal");
    check("service/shop/orders/8080", "C5 out orders/shop:8080 - internal");
    check("kube_shop_orders_8080", "C6 out orders/shop:8080 - internal");
    check("istio-se_shop_api.partner.example_443", "C6 out api.partner.example/shop:443 - external");
    check("shop-orders-8080_gloo-system", "C6 out shop-orders-8080/-:- - internal");
    check("shop/orders/8080/da39a3ee5e", "C7 out orders/shop:8080 - internal");
    check("shop/orders/http/da39a3ee5e", "C7 out orders/shop:- - internal");
    check("local_app", "C8 in -/-:- - internal");
    check("payments", "C9 out payments/-:- - undecided");
    check("service_envoyproxy_io", "C9 out service_envoyproxy_io/-:- - undecided");
}

#[test]
fn what_only_resembles_a_form_is_a_plain_name() {
    for name in [
        "outbound|x||host",
        "outbound|99999||host",
        "outbound|8080",
        "a.b.consul",
        "orders.default.dc1.other.11111111.consul",
        "cds_egress_x",
        "httproute/shop/orders/rule/x",
        "kube_shop_orders_x",
        "shop/orders/8080/NOTHEX",
    ] {
        let cluster = parse_cluster(name).unwrap();
        assert_eq!((cluster.form, cluster.service), (ClusterForm::C9, Some(name)));
    }
    for name in ["", "  ", ";"] {
        assert_eq!(parse_cluster(name), None);
    }
}

#[test]
fn operators_decide_what_is_inside() {
    let hosts = HostRules { internal_suffixes: vec!["corp.example".to_owned()], ..HostRules::default() };
    let cluster = parse_cluster_with("outbound|443||billing.corp.example", &hosts).unwrap();
    assert_eq!(cluster.external, Some(false));
}

#[test]
fn only_the_blackhole_is_one() {
    assert!(parse_cluster("BlackHoleCluster").unwrap().is_blackhole);
    let passthrough = parse_cluster("PassthroughCluster").unwrap();
    assert!(passthrough.is_passthrough && !passthrough.is_blackhole);
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(name in "\\PC{0,60}") {
        let blank = name.trim().trim_end_matches(';').is_empty();
        prop_assert_eq!(parse_cluster(&name).is_none(), blank);
    }

    #[test]
    fn istio_names_read_back(port in 1_u16.., subset in "[a-z][a-z0-9_-]{0,8}", service in "[a-z]{1,8}", namespace in "[a-z]{1,8}") {
        let name = format!("outbound|{port}|{subset}|{service}.{namespace}.svc.cluster.local");
        let cluster = parse_cluster(&name).unwrap();
        prop_assert_eq!(cluster.port, Some(port));
        prop_assert_eq!(cluster.subset, Some(subset.as_str()));
        prop_assert_eq!(cluster.service, Some(service.as_str()));
        prop_assert_eq!(cluster.namespace, Some(namespace.as_str()));
    }
}
