use std::sync::Arc;
use std::time::Duration;

use smallvec::smallvec;
use windrose_proto::Text;
use windrose_proto::attributes::{Attributes, KeyValue, Value};
use windrose_proto::span::Resource;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::{NANOS_PER_SEC, UnixNanos};

use super::{PushedPages, PushedProxies, Unattached, page_name};
use crate::decode::Stat;
use crate::metrics_map::{Options, TargetIdentity};

/// When the process of these tests began to listen.
const SINCE: u64 = 1_000_000;
const TOTAL: &str = "envoy_cluster_upstream_rq_total";
const CODES: &str = "envoy_cluster_upstream_rq";
const USERS: &str = "outbound|8080||users.shop.svc.cluster.local";

/// One line: family, destination, code, value.
type Line<'a> = (&'a str, &'a str, &'a str, f64);

/// What a proxy pushes at a time.
#[derive(Clone, Copy)]
struct Push<'a> {
    pod: &'a str,
    at: u64,
    /// Since when it counts.
    start: u64,
    is_delta: bool,
    lines: &'a [Line<'a>],
}

/// A server that is pushed to.
struct Server {
    proxies: PushedProxies,
    /// What a scrape configuration holds.
    scraped: Vec<TargetIdentity>,
}

fn seconds(secs: u64) -> UnixNanos {
    UnixNanos(secs * NANOS_PER_SEC)
}

fn resource(pairs: &[(&str, &str)]) -> Arc<Resource> {
    let pair = |(key, value): &(&str, &str)| KeyValue { key: Text::from(*key), value: Value::Str(Text::from(*value)) };
    Arc::new(Resource { attributes: Attributes(pairs.iter().map(pair).collect()), ..Resource::default() })
}

impl Push<'_> {
    fn pages(self) -> PushedPages {
        let name =
            if self.pod.is_empty() { vec![] } else { vec![("service.name", "orders"), ("k8s.pod.name", self.pod)] };
        let resource = resource(&name);
        let mut pages = PushedPages::default();
        for (family, cluster, code, value) in self.lines {
            let mut labels = smallvec![("__name__", *family), ("cluster_name", *cluster), ("response_code", *code)];
            labels.retain(|(_, value): &mut (&str, &str)| !value.is_empty());
            let (time, start) = (seconds(self.at), Some(seconds(self.start)));
            pages.push(&resource, &Stat { labels, value: *value, time, start, is_delta: self.is_delta });
        }
        pages
    }
}

impl Server {
    fn new() -> Self {
        Self { proxies: PushedProxies::new(seconds(SINCE)), scraped: Vec::new() }
    }

    /// The calls and seconds that a push adds to the edge to `users`, or why it adds none.
    fn push(&mut self, push: Push<'_>) -> Result<Option<(i64, u64)>, Unattached> {
        let page = push.pages().into_iter().next().unwrap();
        let (tenant, options) = (TenantId::default(), Options::default());
        let is_scraped = |identity: &TargetIdentity| self.scraped.iter().any(|scraped| scraped.may_be(identity));
        let batch = self.proxies.take(&tenant, &page, &options, is_scraped)?;
        Ok(batch.map(|batch| {
            assert_eq!(batch.edges.len(), 1, "{batch:#?}");
            let edge = &batch.edges[0];
            let named = |node: &Option<windrose_proto::wire::Node>| node.clone().unwrap().service;
            assert_eq!((named(&edge.source), named(&edge.destination)), ("orders".to_owned(), "users".to_owned()));
            (edge.calls, (edge.interval_end_unix_nano - edge.interval_start_unix_nano) / NANOS_PER_SEC)
        }))
    }
}

const OLD: u64 = SINCE - 5_000;

/// Totals of a process that began before this one listened.
fn total(at: u64, lines: &'static [Line<'static>]) -> Push<'static> {
    Push { pod: "orders-1", at: SINCE + at, start: OLD, is_delta: false, lines }
}

const TEN: &[Line<'static>] = &[(TOTAL, USERS, "", 10.0), (CODES, USERS, "200", 10.0)];
const TWELVE: &[Line<'static>] = &[(TOTAL, USERS, "", 12.0), (CODES, USERS, "200", 12.0)];
const TWO: &[Line<'static>] = &[(TOTAL, USERS, "", 2.0), (CODES, USERS, "200", 2.0)];

#[test]
fn totals_count_from_the_second_push_on() {
    let mut server = Server::new();
    assert_eq!(server.push(total(100, TEN)), Ok(None));
    assert_eq!(server.push(total(105, TWELVE)), Ok(Some((2, 5))));
    assert_eq!(server.push(total(110, TWELVE)), Ok(None));
}

#[test]
fn what_comes_again_or_late_counts_once() {
    let mut server = Server::new();
    assert_eq!(server.push(total(100, TEN)), Ok(None));
    assert_eq!(server.push(total(100, TEN)), Err(Unattached::Late));
    assert_eq!(server.push(total(105, TWELVE)), Ok(Some((2, 5))));
    assert_eq!(server.push(total(105, TWELVE)), Err(Unattached::Late));
    assert_eq!(server.push(total(100, TEN)), Err(Unattached::Late));
    assert_eq!(server.push(total(110, TWELVE)), Ok(None));
}

#[test]
fn a_push_may_come_in_parts() {
    let mut server = Server::new();
    assert_eq!(server.push(total(100, &TEN[..1])), Ok(None));
    assert_eq!(server.push(total(100, &TEN[1..])), Ok(None), "a part of the first push, not born since");
    assert_eq!(server.push(total(105, &TWELVE[1..])), Ok(Some((2, 5))));
    let rest = server.push(total(105, &TWELVE[..1]));
    assert_eq!(rest, Ok(Some((0, 5))), "attempts alone");
}

#[test]
fn a_process_that_began_later_than_this_one_counts_from_its_start() {
    let mut server = Server::new();
    let push = Push { start: SINCE + 90, ..total(100, TEN) };
    assert_eq!(server.push(push), Ok(Some((10, 10))));
    assert_eq!(server.push(Push { at: SINCE + 105, lines: TWELVE, ..push }), Ok(Some((2, 5))));
}

/// Its clock may be ahead, and then it was counted by the process before.
#[test]
fn a_process_that_began_about_when_this_one_did_counts_from_the_second_push_on() {
    let mut server = Server::new();
    assert_eq!(server.push(Push { start: SINCE + 20, ..total(100, TEN) }), Ok(None));
}

#[test]
fn differences_count_at_once_and_add_up() {
    let mut server = Server::new();
    let push = |at, lines| Push { start: SINCE + at - 5, is_delta: true, ..total(at, lines) };
    assert_eq!(server.push(push(5, TEN)), Ok(Some((10, 5))));
    assert_eq!(server.push(push(10, TWO)), Ok(Some((2, 5))));
    assert_eq!(server.push(push(10, TWO)), Err(Unattached::Late));
    // What did not happen is not told.
    assert_eq!(server.push(push(20, TWO)), Ok(Some((2, 10))));
}

#[test]
fn a_restart_is_known_by_the_start_time() {
    let mut server = Server::new();
    assert_eq!(server.push(total(100, TEN)), Ok(None));
    let push = Push { start: SINCE + 101, ..total(105, TWELVE) };
    assert_eq!(server.push(push), Ok(Some((12, 5))), "higher than before, and yet all of it is new");
}

#[test]
fn replicas_are_kept_apart() {
    let mut server = Server::new();
    let other = Push { pod: "orders-2", ..total(100, TWELVE) };
    assert_eq!(server.push(total(100, TEN)), Ok(None));
    assert_eq!(server.push(other), Ok(None));
    assert_eq!(server.push(total(105, TWELVE)), Ok(Some((2, 5))));
    assert_eq!(server.push(Push { at: SINCE + 105, ..other }), Ok(None));
    assert_eq!(server.push(Push { pod: "", ..other }), Err(Unattached::Unnamed));
}

/// Whatever the order of scraping and pushing, no call is told by both.
#[test]
fn a_scraped_proxy_is_not_told_twice() {
    let mut server = Server::new();
    assert_eq!(server.push(total(100, TEN)), Ok(None));
    server.scraped = vec![TargetIdentity::from_labels([("app", "orders"), ("pod", "orders-1")])];
    assert_eq!(server.push(total(105, TWELVE)), Err(Unattached::Scraped));
    server.scraped.clear();
    // The page counted up to somewhere in this interval.
    assert_eq!(server.push(total(110, &[(CODES, USERS, "200", 15.0)])), Err(Unattached::Scraped));
    assert_eq!(server.push(total(115, &[(CODES, USERS, "200", 18.0)])), Ok(Some((3, 5))));
}

#[test]
fn senders_are_bounded_and_the_silent_make_room() {
    let mut server = Server::new();
    for pod in 0..super::PROXIES_MAX {
        let push = Push { pod: &format!("orders-{pod}x"), ..total(100, &TEN[..1]) };
        assert_eq!(server.push(push), Ok(None));
    }
    let one_more = Push { pod: "one-more", ..total(101, &TEN[..1]) };
    assert_eq!(server.push(one_more), Err(Unattached::TooMany));
    let later = SINCE + 100 + super::FORGOTTEN_AFTER.as_secs() + 1;
    assert_eq!(server.push(Push { at: later, ..one_more }), Ok(None));
    assert_eq!(server.proxies.proxies.len(), 1);
    assert_eq!(server.proxies.series, 1);
}

#[test]
fn names_are_those_of_pages() {
    for (metric, is_counter, expect) in [
        ("envoy.cluster.upstream_rq_total", true, Some("envoy_cluster_upstream_rq_total")),
        ("envoy.cluster.upstream_rq", true, Some("envoy_cluster_upstream_rq")),
        ("envoy.cluster.upstream_rq_time", false, Some("envoy_cluster_upstream_rq_time")),
        ("cluster.upstream_rq_timeout", true, Some("envoy_cluster_upstream_rq_timeout")),
        ("server.uptime", false, Some("envoy_server_uptime")),
        ("envoy.cluster.external.upstream_rq", true, None),
        ("kong_http_requests", true, Some("kong_http_requests_total")),
        ("http.server.request.duration", false, None),
        ("jvm.memory.used", false, None),
    ] {
        assert_eq!(page_name(metric, is_counter).as_deref(), expect, "{metric}");
    }
}

/// Texts of labels come from whoever sends.
#[test]
fn labels_are_escaped() {
    let mut pages = PushedPages::default();
    let labels = smallvec![("__name__", TOTAL), ("cluster_name", "a\"b\\c\nd")];
    let stat = Stat { labels, value: 1.5, time: seconds(SINCE), start: None, is_delta: false };
    pages.push(&resource(&[]), &stat);
    assert_eq!(pages.0[0].text, "envoy_cluster_upstream_rq_total{cluster_name=\"a\\\"b\\\\c\\nd\"} 1.5\n");
    assert_eq!(pages.0[0].at.minus(Duration::ZERO), seconds(SINCE));
}
