use super::{Cidr, HostRules, HostService, host_of, is_internal_host, service_of_host};

#[test]
fn hosts_are_inside_or_outside() {
    for (host, inside) in [
        ("orders", true),
        ("orders.shop.svc.cluster.local", true),
        ("orders.shop.svc.cluster.local.", true),
        ("orders.shop.svc.prod.example.com", true),
        ("orders.shop.svc", true),
        ("ORDERS.SHOP.SVC.CLUSTER.LOCAL", true),
        ("db.internal", true),
        ("orders.default.dc1.internal.11111111-2222.consul", true),
        ("api.partner.example", false),
        ("partner-pay.example.com", false),
        ("svc.example.com", false),
        ("10.1.2.3", true),
        ("100.64.0.1", true),
        ("100.128.0.1", false),
        ("172.31.255.255", true),
        ("172.32.0.1", false),
        ("8.8.8.8", false),
        ("::1", true),
        ("fd12::1", true),
        ("fe80::1", true),
        ("::ffff:10.0.0.1", true),
        ("2001:db8::1", false),
    ] {
        assert_eq!(is_internal_host(host), inside, "{host}");
    }
}

#[test]
fn operator_lists_come_first() {
    let rules = HostRules {
        internal_suffixes: vec!["corp.example".into(), ".mesh.example.com".into()],
        internal_cidrs: vec![Cidr::parse("203.0.113.0/24").unwrap()],
        external_hosts: vec!["legacy.shop.svc.cluster.local".into(), "*.vendor.local".into(), "10.9.9.9".into()],
    };
    for (host, inside) in [
        ("billing.corp.example", true),
        ("notcorp.example", false),
        ("corp.example", true),
        ("a.mesh.example.com", true),
        ("203.0.113.9", true),
        ("203.0.114.9", false),
        ("legacy.shop.svc.cluster.local", false),
        ("orders.shop.svc.cluster.local", true),
        ("x.vendor.local", false),
        ("10.9.9.9", false),
        ("10.9.9.8", true),
    ] {
        assert_eq!(rules.is_internal(host), inside, "{host}");
    }
}

#[test]
fn hosts_name_services() {
    for (host, service, namespace) in [
        ("orders.shop.svc.cluster.local", Some("orders"), Some("shop")),
        ("orders.shop.svc", Some("orders"), Some("shop")),
        ("orders", Some("orders"), None),
        ("api.partner.example", Some("api.partner.example"), None),
        ("partner-pay.example.com", Some("partner-pay.example.com"), None),
        ("10.0.0.1", None, None),
        ("", None, None),
    ] {
        assert_eq!(service_of_host(host), HostService { service, namespace }, "{host}");
    }
}

#[test]
fn hosts_are_cut_out_of_addresses() {
    for (address, host) in [
        ("http://users.shop.svc.cluster.local:8080/users/524?x=http://other/", Some("users.shop.svc.cluster.local")),
        ("https://user:secret@api.example.com/", Some("api.example.com")),
        ("orders:8080", Some("orders")),
        ("[::1]:9901", Some("::1")),
        ("http://[fd00::2]:80/", Some("fd00::2")),
        ("fd00::2", Some("fd00::2")),
        ("10.0.0.1:15006", Some("10.0.0.1")),
        ("", None),
        ("http://", None),
    ] {
        assert_eq!(host_of(address), host, "{address}");
    }
}

#[test]
fn ranges_contain_their_addresses() {
    for (range, ip, inside) in [
        ("0.0.0.0/0", "8.8.8.8", true),
        ("10.0.0.0/8", "11.0.0.1", false),
        ("10.0.0.1", "10.0.0.1", true),
        ("::/0", "2001:db8::1", true),
        ("fd00::/8", "fd12::1", true),
        ("fd00::/8", "10.0.0.1", false),
    ] {
        assert_eq!(Cidr::parse(range).unwrap().contains(ip.parse().unwrap()), inside, "{range} {ip}");
    }
    for bad in ["", "10.0.0.0/33", "fd00::/129", "host/8", "10.0.0.0/x"] {
        assert!(Cidr::parse(bad).is_err(), "{bad}");
    }
}
