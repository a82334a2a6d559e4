use std::net::{IpAddr, Ipv4Addr};

use windrose_proto::model::{ProxyKind, SpanKind};
use windrose_proto::normal::NormalSpan;
use windrose_proto::time::UnixNanos;

use super::addresses::AddressBook;
use crate::join::tests::{Half, START, span};
use crate::normalise::Normaliser;

const SECOND: u64 = 1_000_000_000;

/// A span of `service` at the address all spans of the helper have, from `second` for one second.
fn seen(service: &str, second: u64) -> NormalSpan {
    let half = Half {
        service,
        node: "sidecar",
        kind: SpanKind::Server,
        cluster: "inbound|8080||".to_owned(),
        id: 1,
        parent: None,
        start: START + second * SECOND,
        millis: 1_000,
        status: 200,
    };
    Normaliser::default().normalise(&span(1, half))
}

/// Who has the address at `second`, whatever the order in which `spans` were seen.
#[track_caller]
fn check(spans: &[(&str, u64)], second: u64, expect: &str) {
    for forward in [true, false] {
        let mut book = AddressBook::default();
        let mut seen: Vec<NormalSpan> = spans.iter().map(|(service, second)| seen(service, *second)).collect();
        if !forward {
            seen.reverse();
        }
        for span in &seen {
            book.see(span);
        }
        let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        let found = match book.owner(ip, UnixNanos(START + second * SECOND)) {
            None => "unknown".to_owned(),
            Some(Err(_)) => "conflict".to_owned(),
            Some(Ok(node)) => node.service.to_string(),
        };
        assert_eq!(found, expect, "{spans:?} at {second}, forward: {forward}");
    }
}

#[test]
fn an_address_belongs_to_who_had_it_at_the_time() {
    check(&[("orders", 0)], 0, "orders");
    check(&[("orders", 0)], 200, "orders");
    check(&[("orders", 0)], 400, "unknown");
    check(&[("orders", 0), ("orders", 600)], 300, "orders");
    // The address was given to another pod.
    check(&[("orders", 0), ("users", 100)], 20, "orders");
    check(&[("orders", 0), ("users", 100)], 90, "users");
    // Two at once, as on a node's own network: nobody is named.
    check(&[("orders", 0), ("orders", 100), ("users", 50)], 50, "conflict");
    check(&[("orders", 0), ("orders", 100), ("users", 50)], 20, "orders");
}

#[test]
fn an_application_and_its_sidecar_are_one_owner() {
    let mut book = AddressBook::default();
    let sidecar = seen("orders", 0);
    let mut app = seen("orders", 0);
    app.proxy_kind = ProxyKind::None;
    let mut identity = (*app.identity).clone();
    identity.namespace = None;
    app.identity = std::sync::Arc::new(identity);
    book.see(&app);
    book.see(&sidecar);
    let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let owner = book.owner(ip, UnixNanos(START)).expect("known").expect("one owner");
    assert_eq!(owner.namespace.as_deref(), Some("shop"));
    assert_eq!(owner.proxy_kind, ProxyKind::Istio);
}

#[test]
fn a_crowd_behind_one_address_is_a_conflict() {
    let mut book = AddressBook::default();
    for n in 0..20 {
        book.see(&seen(&format!("s{n}"), n * 30));
    }
    let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    assert!(matches!(book.owner(ip, UnixNanos(START)), Some(Err(_))));
}

#[test]
fn owners_are_forgotten_an_hour_after_their_last_span() {
    let mut book = AddressBook::default();
    book.see(&seen("orders", 0));
    book.sweep(UnixNanos(START + 3_000 * SECOND));
    assert_eq!(book.len(), 1);
    book.sweep(UnixNanos(START + 4_000 * SECOND));
    assert_eq!(book.len(), 0);
}
