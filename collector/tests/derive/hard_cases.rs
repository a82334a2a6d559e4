//! Cases that naive joins get wrong, each as a few spans and the hops that must come out.
//!
//! A span is a line `id parent kind start..end writer name key=value…`, times in milliseconds; `-`
//! stands for no parent. The writers are described at [`Writer::of`].

use std::fmt::Write as _;
use std::sync::Arc;

use windrose_collector::join::derive::{DeriveOptions, derive};
use windrose_collector::normalise::Normaliser;
use windrose_collector::normalise::overrides::{Alias, Overrides, RoleOverride};
use windrose_proto::attributes::{Attributes, Value};
use windrose_proto::edge::{Sign, SpanStats};
use windrose_proto::hop::{Derived, Entry, Hop};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::model::{Fault, IngestProtocol, NodeRole, SpanKind};
use windrose_proto::normal::NormalSpan;
use windrose_proto::span::{Resource, Scope, Span, StatusCode};
use windrose_proto::time::UnixNanos;

use crate::load::empty_span;

#[track_caller]
fn check(spans: &str, expect: &str) -> Derived {
    check_with(Overrides::default(), spans, expect)
}

#[track_caller]
fn check_with(overrides: Overrides, spans: &str, expect: &str) -> Derived {
    let mut normaliser = Normaliser::new(overrides);
    let normal: Vec<Arc<NormalSpan>> =
        lines(spans).map(|line| Arc::new(normaliser.normalise(&span_of(line)))).collect();
    let derived = derive(&normal, &DeriveOptions::from(&normaliser));
    let mut actual: Vec<String> = derived.hops.iter().map(shown).collect();
    actual.push(match &derived.request.entry {
        Entry::Route(route) => format!("entry {}", route.route),
        Entry::Unknown(gap) => format!("entry unknown: {}", gap.as_str()),
    });
    let expect: Vec<&str> = lines(expect).collect();
    assert_eq!(actual.iter().map(String::as_str).collect::<Vec<_>>(), expect, "\n{}", actual.join("\n"));
    derived
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// `ingress -> orders/v1 north_south D4 both 200`, then what is remarkable.
fn shown(hop: &Hop) -> String {
    let mut out = hop.source.service.to_string();
    if let Some(via) = &hop.via {
        write!(out, " via {via}").unwrap();
    }
    write!(out, " -> {}", hop.destination.service).unwrap();
    if let Some(version) = &hop.destination.version {
        write!(out, "/{version}").unwrap();
    }
    write!(out, " {} {} {}", hop.direction, hop.direction_rule, hop.reporters).unwrap();
    match (hop.http_status, hop.grpc_status) {
        (_, Some(code)) => write!(out, " grpc:{code}").unwrap(),
        (Some(code), None) => write!(out, " {code}").unwrap(),
        (None, None) => out.push_str(" -"),
    }
    if hop.error || hop.fault != Fault::None {
        write!(out, " fault={}", hop.fault).unwrap();
        if let Some(at) = hop.fault_at {
            write!(out, "@{at}").unwrap();
        }
    }
    for reason in &hop.reasons {
        write!(out, " {reason}").unwrap();
    }
    if hop.retry > 0 {
        write!(out, " retry={}", hop.retry).unwrap();
    }
    for (word, is) in [
        ("ERROR", hop.error),
        ("superseded", !hop.is_final),
        ("cause", hop.root_cause),
        ("late", hop.late_server_nanos.is_some()),
        ("skewed", hop.skew_nanos.is_some()),
        ("queued", hop.queue_nanos.is_some()),
        ("stream", hop.is_stream()),
    ] {
        if is {
            write!(out, " {word}").unwrap();
        }
    }
    if let Some(gap) = hop.source_gap {
        write!(out, " ({})", gap.as_str()).unwrap();
    }
    out
}

fn span_of(line: &str) -> Span {
    let mut words = line.split_whitespace();
    let mut next = || words.next().unwrap_or_else(|| panic!("a word is missing in `{line}`"));
    let (id, parent, kind, times, writer) = (next(), next(), next(), next(), next());
    let name = next();
    let (start, end) = times.split_once("..").unwrap();
    let mut span = Writer::of(writer);
    let mut status = StatusCode::Unset;
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or_else(|| panic!("`{word}` in `{line}`"));
        match key {
            "shared" => span.shared = true,
            "logged" => span.logged = true,
            "otel" => status = StatusCode::Error,
            key => span.attributes.push(key.to_owned(), Value::Str(value.to_owned().into())),
        }
    }
    let millis = |text: &str| UnixNanos(1_000_000_000_000 + text.parse::<u64>().unwrap() * 1_000_000);
    Span {
        trace_id: TraceId::new([3; 16]).unwrap(),
        span_id: SpanId::parse(id).unwrap(),
        parent_span_id: SpanId::parse(parent),
        kind: SpanKind::parse(kind).unwrap(),
        name: name.replace('_', " ").into(),
        start: millis(start),
        end: millis(end),
        attributes: span.attributes,
        status,
        resource: Arc::new(Resource { attributes: span.resource, ..Resource::default() }),
        scope: Arc::new(Scope { name: span.scope.into(), ..Scope::default() }),
        shared: span.shared,
        ingest: if span.logged { IngestProtocol::AccessLog } else { IngestProtocol::OtlpGrpc },
        ..empty_span()
    }
}

/// What a writer adds to its spans.
#[derive(Default)]
struct Writer {
    scope: &'static str,
    attributes: Attributes,
    resource: Attributes,
    shared: bool,
    logged: bool,
}

impl Writer {
    /// `router:NAME` and `sidecar:NAME[:LAST_OCTET]` are Istio proxies in namespace `shop`,
    /// `waypoint:NAME` too; `attempt:NAME` is their span without a node id; `envoy:NAME` a plain
    /// Envoy, `app:NAME` an SDK, `pod:NAME:POD` one that knows its pod, `kong:NAME` and
    /// `nginx:NAME` what they say, `haproxy:NAME:HOST` with a host, `zipkin:NAME` a Zipkin endpoint.
    fn of(text: &str) -> Self {
        let mut parts = text.split(':');
        let (kind, name) = (parts.next().unwrap(), parts.next().unwrap());
        let octet = parts.next().unwrap_or("1");
        let mut writer = Self::default();
        let resource = |writer: &mut Self, key: &'static str, value: String| {
            writer.resource.push(key, Value::Str(value.into()));
        };
        match kind {
            "router" | "sidecar" | "waypoint" | "attempt" => {
                writer.scope = "envoy";
                resource(&mut writer, "service.name", format!("{name}.shop"));
                if kind != "attempt" {
                    let node_id =
                        format!("{kind}~10.0.0.{octet}~{name}-v1-6c9f8b7d4-x2x9k.shop~shop.svc.cluster.local");
                    writer.attributes.push("node_id", Value::Str(node_id.into()));
                }
                writer.attributes.push("istio.mesh_id", Value::Str("m".into()));
            }
            "envoy" => {
                writer.scope = "envoy";
                resource(&mut writer, "service.name", name.to_owned());
            }
            "app" => resource(&mut writer, "service.name", name.to_owned()),
            "pod" => {
                resource(&mut writer, "service.name", name.to_owned());
                resource(&mut writer, "k8s.pod.name", octet.to_owned());
            }
            "kong" | "nginx" => {
                writer.scope = if kind == "kong" { "kong-internal" } else { "nginx" };
                resource(&mut writer, "service.name", name.to_owned());
            }
            "zipkin" => resource(&mut writer, "service.name", name.to_owned()),
            "haproxy" => {
                writer.scope = "haproxy";
                resource(&mut writer, "service.name", name.to_owned());
                resource(&mut writer, "host.name", octet.to_owned());
            }
            other => panic!("writer {other}"),
        }
        writer
    }
}

#[test]
fn two_server_halves_with_one_id() {
    check(
        "a - server 0..100 zipkin:edge get shared=1 http.status_code=200 http.path=/x
         a - server 10..90 zipkin:orders get shared=1 http.status_code=200 http.path=/x",
        "(unknown) -> edge unknown D9 server 200 (unknown_peer)
         edge -> orders east_west D5 server 200
         entry unknown: no_gateway",
    );
}

/// Zipkin's reporters say `shared` of a server half whose client half they do not send, also at the root.
#[test]
fn a_shared_id_at_the_root_is_no_orphan() {
    let derived = check(
        "a - server 0..100 zipkin:edge get shared=1 http.status_code=200 http.path=/x
         b a client 10..90 zipkin:edge get http.status_code=200
         b a server 11..89 zipkin:orders get shared=1 http.status_code=200 http.path=/x",
        "(unknown) -> edge unknown D9 server 200 (unknown_peer)
         edge -> orders east_west D5 both 200
         entry unknown: no_gateway",
    );
    assert!(derived.request.missing_parents.is_empty());
}

/// Nginx counts in milliseconds.
#[test]
fn a_request_that_took_no_time_is_a_request() {
    let derived = check(
        "1 - server 5..5 nginx:edge GET_/ http.status_code=200 url.path=/
         2 1 server 5..5 app:orders get http.response.status_code=200",
        "(client) -> edge north_south D1 server 200
         edge -> orders north_south D4 server 200
         entry /",
    );
    assert_eq!(derived.hops[1].server_nanos, Some(0));
}

/// A WebSocket, a stream of gRPC, a failure that took as long, and a slow answer: two of them are latencies.
#[test]
fn a_connection_that_stays_open_is_a_call_and_no_latency() {
    let derived = check(
        "1 - server 0..600000 app:edge get http.response.status_code=101
         2 1 client 1..90000 app:edge watch rpc.grpc.status_code=0
         3 2 server 2..90000 app:orders watch rpc.grpc.status_code=0
         4 1 client 100000..190000 app:edge list http.response.status_code=504
         5 4 server 100001..189999 app:orders list http.response.status_code=504
         6 1 client 200000..259000 app:edge list http.response.status_code=200
         7 6 server 200001..258999 app:orders list http.response.status_code=200",
        "(unknown) -> edge unknown D9 server 101 stream (unknown_peer)
         edge -> orders east_west D5 both grpc:0 stream
         edge -> orders east_west D5 both 504 fault=unknown ERROR cause
         edge -> orders east_west D5 both 200
         entry unknown: no_gateway",
    );
    let mut stats = SpanStats::default();
    for hop in &derived.hops[1..] {
        stats.apply(hop, Sign::Add, false);
    }
    assert_eq!((stats.calls, stats.client.count, stats.server.count, stats.both_sides), (3, 2, 2, 2));
    for hop in &derived.hops[1..] {
        stats.apply(hop, Sign::Retract, false);
    }
    assert_eq!(stats.client.sum_nanos, 0);
}

/// The retries of one request are one call, also when the span that made them never came.
#[test]
fn attempts_of_a_span_that_never_came_are_one_call() {
    check(
        "1 9 server 0..40 sidecar:users:7 ingress http.status_code=503 response_flags=- upstream_cluster=inbound|80|| error=true
         2 9 server 50..80 sidecar:users:7 ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80||
         3 9 server 90..99 sidecar:users:7 ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80||",
        "(unknown) -> users unknown D9 server 503 fault=upstream ERROR superseded (parent_never_received)
         (unknown) -> users unknown D9 server 200 retry=1 (parent_never_received)
         (unknown) -> users unknown D9 server 200 (parent_never_received)
         entry unknown: parent_never_received",
    );
}

/// The gateway's attempt never came: the callee that lacks its caller is the one it called, and the call is one.
#[test]
fn an_attempt_that_never_came_is_between_the_two() {
    check(
        "1 - server 0..100 router:ingress ingress http.method=GET http.url=http://s/api/orders http.status_code=200 response_flags=- upstream_cluster=outbound|80||orders.shop.svc.cluster.local
         3 9 server 5..95 sidecar:orders:7 ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80||",
        "(client) -> ingress north_south D1 server 200
         ingress -> orders north_south D4 server 200
         entry GET /api/orders",
    );
    // The first of two attempts, with a span per attempt at the sidecar too.
    check(
        "1 - server 0..100 sidecar:orders ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80||
         2 1 server 1..90 sidecar:orders egress http.url=http://users.shop.svc.cluster.local/u http.status_code=200 response_flags=- upstream_cluster=outbound|80||users.shop.svc.cluster.local
         4 2 client 50..89 attempt:orders router_x_egress upstream_address=10.0.0.7:80 http.status_code=200 response_flags=- upstream_cluster=outbound|80||users.shop.svc.cluster.local retry.count=1
         5 9 server 3..40 sidecar:users:7 ingress http.status_code=503 response_flags=- upstream_cluster=inbound|80|| error=true
         6 4 server 51..88 sidecar:users:7 ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80||",
        "(unknown) -> orders unknown D9 server 200 (unknown_peer)
         orders -> users east_west D5 server 503 fault=upstream ERROR superseded
         orders -> users east_west D5 both 200 retry=1
         entry unknown: parent_never_received",
    );
    // The sidecar's span, between an application's and two attempts.
    check(
        "1 - server 0..100 app:orders get http.response.status_code=200
         2 1 client 1..90 app:orders get server.address=users.shop.svc.cluster.local http.response.status_code=200
         5 9 server 3..40 sidecar:users:7 ingress http.status_code=503 response_flags=- upstream_cluster=inbound|80|| error=true
         6 9 server 51..88 sidecar:users:7 ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80||",
        "(unknown) -> orders unknown D9 server 200 (unknown_peer)
         orders -> users east_west D5 both 503 fault=upstream ERROR superseded
         orders -> users east_west D5 both 200 retry=1
         entry unknown: parent_never_received",
    );
}

/// `c` shares the id of its caller, which never came; `b` called that caller.
#[test]
fn a_shared_id_whose_caller_never_came_has_an_unknown_caller() {
    check(
        "a - server 0..100 zipkin:edge get http.status_code=200 http.path=/x
         b a client 10..90 zipkin:edge get http.status_code=200
         c b server 30..60 zipkin:users get shared=1 http.status_code=200 http.path=/u",
        "(unknown) -> edge unknown D9 server 200 (unknown_peer)
         edge -> (unknown) unknown D9 client 200
         (unknown) -> users unknown D9 server 200 (parent_never_received)
         entry unknown: parent_never_received",
    );
}

/// A gateway's entry says where its request went (L5): for its own way in, not for whoever shares its span's id.
#[test]
fn an_entry_makes_a_way_out_of_the_gateways_own_span() {
    let upstream = "upstream_cluster=outbound|80||orders.shop.svc.cluster.local";
    let entry = format!(
        "1 - client 0..99 router:ingress GET http.status_code=200 response_flags=- upstream_host=10.0.0.7:80 logged=1 {upstream}"
    );
    check(
        &format!(
            "1 - server 0..100 router:ingress ingress http.url=http://s/x http.status_code=200 response_flags=- {upstream}
             {entry}
             3 2 server 2..99 sidecar:orders:7 ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80||"
        ),
        "(client) -> ingress north_south D1 server 200
         ingress -> orders north_south D4 both 200
         entry /x",
    );
    check(
        &format!(
            "1 - client 0..100 router:ingress egress http.url=http://s/x http.status_code=200 response_flags=- {upstream}
             {entry}
             1 - server 2..99 sidecar:orders:7 ingress shared=1 http.status_code=200 response_flags=- upstream_cluster=inbound|80||"
        ),
        "(client) -> ingress north_south D1 server 200
         ingress -> orders north_south D4 both 200
         entry /x",
    );
}

#[test]
fn a_gateway_retries_and_times_out() {
    check(
        "1 - server 0..3000 router:ingress ingress http.method=GET http.url=http://s/api/orders/7?k=v http.status_code=504 response_flags=UT upstream_cluster=outbound|80||orders.shop.svc.cluster.local
         2 1 client 1..1000 attempt:ingress router_x_egress upstream_address=10.0.0.7:80 http.status_code=503 response_flags=- upstream_cluster=outbound|80||orders.shop.svc.cluster.local error=true canceled=true
         3 1 client 1001..3000 attempt:ingress router_x_egress upstream_address=10.0.0.7:80 http.status_code=0 response_flags=- upstream_cluster=outbound|80||orders.shop.svc.cluster.local error=true canceled=true retry.count=1
         4 2 server 2..999 sidecar:orders:7 ingress http.status_code=503 response_flags=- upstream_cluster=inbound|80|| error=true
         5 3 server 1002..9000 sidecar:orders:7 ingress http.status_code=0 response_flags=DC upstream_cluster=inbound|80|| error=true",
        "(client) -> ingress north_south D1 server 504 fault=proxy@server_proxy timeout ERROR
         ingress -> orders north_south D4 both 503 fault=upstream ERROR superseded
         ingress -> orders north_south D4 both - fault=proxy@client_proxy timeout retry=1 ERROR cause late
         entry GET /api/orders/{id}",
    );
}

#[test]
fn the_loser_of_a_hedge_is_no_error() {
    check(
        "1 - server 0..100 router:ingress ingress http.status_code=200 response_flags=- upstream_cluster=outbound|80||orders.shop.svc.cluster.local http.url=http://s/
         2 1 client 1..99 attempt:ingress router_x_egress upstream_address=10.0.0.7:80 http.status_code=0 response_flags=- upstream_cluster=outbound|80||orders.shop.svc.cluster.local error=true canceled=true
         3 1 client 50..99 attempt:ingress router_x_egress upstream_address=10.0.0.8:80 http.status_code=200 response_flags=- upstream_cluster=outbound|80||orders.shop.svc.cluster.local retry.count=1",
        "(client) -> ingress north_south D1 server 200
         ingress -> orders north_south D4 client - hedge_lost superseded
         ingress -> orders north_south D4 client 200 retry=1
         entry /",
    );
}

/// The sidecar made two attempts under one span and sent a copy between them.
#[test]
fn a_mirrored_copy_is_no_attempt_of_the_request_it_copies() {
    check(
        "1 - client 0..100 sidecar:orders egress http.url=http://users.shop.svc.cluster.local/u http.method=GET http.status_code=200 response_flags=- upstream_cluster=outbound|80||users.shop.svc.cluster.local
         2 1 server 1..40 sidecar:users:7 ingress http.status_code=503 response_flags=- upstream_cluster=inbound|80|| error=true
         3 1 server 20..30 sidecar:copycat:8 ingress http.url=http://users.shop.svc.cluster.local-shadow/u http.status_code=500 response_flags=- upstream_cluster=inbound|80|| error=true
         4 1 server 50..99 sidecar:users:7 ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80||",
        "orders -> users east_west D5 both 503 fault=upstream ERROR superseded
         orders -> copycat east_west D5 server 500 fault=upstream ERROR
         orders -> users east_west D5 both 200 retry=1
         entry unknown: propagation_lost",
    );
}

#[test]
fn an_egress_gateway_that_cannot_connect() {
    check(
        "1 - client 0..20 sidecar:payments egress http.url=http://api.partner.example/pay http.method=POST http.status_code=503 response_flags=- error=true upstream_cluster=outbound|80||istio-egressgateway.istio-system.svc.cluster.local
         2 1 server 2..18 router:istio-egressgateway ingress http.status_code=503 response_flags=UF error=true upstream_cluster=outbound|443||api.partner.example
         3 2 client 3..17 attempt:istio-egressgateway router_x_egress upstream_address=1.2.3.4:443 http.status_code=0 response_flags=UF error=true upstream_cluster=outbound|443||api.partner.example",
        "payments -> istio-egressgateway egress D3 both 503 fault=proxy@server_proxy conn_fail ERROR
         istio-egressgateway -> api.partner.example egress D2 client - fault=proxy@client_proxy conn_fail ERROR cause
         entry unknown: propagation_lost",
    );
}

#[test]
fn a_callee_without_sidecar() {
    check(
        "1 - server 0..50 sidecar:orders ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80|| peer.address=10.0.0.99
         2 1 client 5..40 sidecar:orders egress http.status_code=200 response_flags=- upstream_cluster=outbound|80|v2|legacy.shop.svc.cluster.local",
        "(unknown) -> orders unknown D9 server 200 (unknown_peer)
         orders -> legacy/v2 east_west D5 client 200
         entry unknown: no_gateway",
    );
}

#[test]
fn a_missing_parent_is_found_by_the_callers_address_or_named() {
    check(
        "1 - server 0..50 sidecar:orders:7 ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80|| peer.address=203.0.113.9
         3 ff server 5..40 sidecar:users:8 ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80|| peer.address=10.0.0.7
         4 fe server 6..40 sidecar:stock:9 ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80|| peer.address=10.0.0.50
         5 fd server 7..40 sidecar:mail:10 ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80|| peer.address=10.0.0.51 downstream_cluster=stock.shop",
        "(client) -> orders north_south D1 server 200
         orders -> users east_west D5 server 200
         (unknown) -> stock unknown D9 server 200 (parent_never_received)
         stock -> mail east_west D5 server 200
         entry unknown: parent_never_received",
    );
}

#[test]
fn only_the_attempt_of_the_gateway_came() {
    check(
        "2 1 client 1..99 attempt:ingress router_x_egress upstream_address=10.0.0.7:80 http.status_code=200 response_flags=- upstream_cluster=outbound|80||orders.shop.svc.cluster.local",
        "ingress -> orders north_south D4 client 200
         entry unknown: parent_never_received",
    );
}

#[test]
fn a_service_that_forwards_no_context() {
    check(
        "1 - client 0..20 sidecar:notify egress http.status_code=200 response_flags=- upstream_cluster=outbound|80||mail.shop.svc.cluster.local
         2 1 server 1..19 sidecar:mail ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80||",
        "notify -> mail east_west D5 both 200
         entry unknown: propagation_lost",
    );
}

#[test]
fn calls_that_never_left_the_sidecar() {
    check(
        "1 - client 0..2 sidecar:orders egress http.url=http://users:8080/ http.status_code=503 response_flags=UO error=true upstream_cluster=outbound|80||users.shop.svc.cluster.local
         2 - client 10..12 sidecar:orders egress http.url=http://nowhere.example/ http.status_code=404 response_flags=NR
         3 - client 20..22 sidecar:orders egress http.url=http://blocked.example/ http.status_code=502 response_flags=NR error=true upstream_cluster=BlackHoleCluster
         4 - server 30..32 sidecar:orders egress http.url=http://users:8080/ http.status_code=503 response_flags=FI error=true upstream_cluster=outbound|80||users.shop.svc.cluster.local",
        "orders -> users east_west D5 client 503 fault=proxy@client_proxy circuit_open ERROR
         orders -> nowhere.example egress D2 client 404 fault=proxy@client_proxy no_route
         orders -> blocked.example egress D2 client 502 fault=proxy@client_proxy no_route ERROR
         orders -> users east_west D5 client 503 fault=proxy@client_proxy fault_injected ERROR cause
         entry unknown: propagation_lost",
    );
}

#[test]
fn what_a_gateway_answers_itself_is_no_call() {
    let refused = "1 - server 0..1 router:ingress ingress http.method=POST http.url=http://s/pay http.status_code=401 response_flags=- upstream_cluster=outbound|80||pay.shop.svc.cluster.local";
    let derived = check(
        refused,
        "(client) -> ingress north_south D1 server 401 fault=proxy@server_proxy
         entry POST /pay",
    );
    assert_eq!(derived.verdicts[0].outcome.fault_rule.0, "F11");
    check(
        "1 - client 0..1 router:ingress egress http.url=http://s/pay http.status_code=429 response_flags=RL upstream_cluster=outbound|80||pay.shop.svc.cluster.local",
        "(client) -> ingress north_south D1 server 429 fault=proxy@server_proxy rate_limited
         entry /pay",
    );
    // Two that are calls: nobody to send to, and an answer of the upstream.
    check(
        "1 - server 0..1 router:ingress ingress http.url=http://s/pay http.status_code=503 response_flags=UH error=true upstream_cluster=outbound|80||pay.shop.svc.cluster.local",
        "(client) -> ingress north_south D1 server 503 fault=proxy@server_proxy no_healthy_upstream ERROR
         ingress -> pay north_south D4 client 503 fault=proxy@client_proxy no_healthy_upstream ERROR cause
         entry /pay",
    );
    check(
        "1 - client 0..9 router:ingress egress http.url=http://s/pay http.status_code=401 response_flags=- response_code_details=via_upstream upstream_cluster=outbound|80||pay.shop.svc.cluster.local",
        "(client) -> ingress north_south D1 server 401 fault=upstream
         ingress -> pay north_south D4 client 401 fault=upstream
         entry /pay",
    );
}

#[test]
fn a_waypoint_is_between_not_an_end() {
    check(
        "1 - server 0..90 router:ingress ingress http.url=http://s/ http.status_code=200 response_flags=- upstream_cluster=outbound|80||orders.shop.svc.cluster.local
         2 1 client 1..89 attempt:ingress router_x_egress upstream_address=10.0.0.5:80 http.status_code=200 response_flags=- upstream_cluster=outbound|80||orders.shop.svc.cluster.local
         3 2 server 2..80 waypoint:waypoint:5 ingress http.status_code=200 response_flags=- upstream_cluster=inbound-vip|80|http|orders.shop.svc.cluster.local
         4 3 client 3..79 attempt:waypoint router_x_egress upstream_address=10.0.0.7:80 http.status_code=200 response_flags=- upstream_cluster=inbound-vip|80|http|orders.shop.svc.cluster.local
         5 4 server 4..78 app:orders GET_/ http.response.status_code=200",
        "(client) -> ingress north_south D1 server 200
         ingress via waypoint -> orders north_south D4 both 200
         entry /",
    );
}

#[test]
fn two_tiers_of_one_name_are_two_processes() {
    check(
        "1 - server 0..90 haproxy:lb:a Client_session http.status_code=200 http.url=http://s/
         2 1 server 1..89 haproxy:lb:a HTTP_request
         3 1 server 2..88 haproxy:lb:a Server_session
         4 1 server 5..80 haproxy:lb:b Client_session http.status_code=200
         5 4 server 6..79 haproxy:lb:b Server_session",
        "(client) -> lb north_south D1 server 200
         lb -> lb north_south D4 both 200
         lb -> (unknown) north_south D4 client 200
         entry /",
    );
}

#[test]
fn an_application_of_another_name_behind_its_sidecar() {
    check(
        "1 - server 0..90 router:ingress ingress http.method=GET http.url=http://s/ http.status_code=200 response_flags=- upstream_cluster=outbound|80||orders.shop.svc.cluster.local
         2 1 client 1..89 attempt:ingress router_x_egress upstream_address=10.0.0.7:80 http.status_code=200 response_flags=- upstream_cluster=outbound|80||orders.shop.svc.cluster.local
         3 2 server 2..88 sidecar:orders:7 ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80||
         4 3 server 3..87 app:order-api GET_/ http.response.status_code=200
         5 4 client 5..50 app:order-api GET server.address=users http.response.status_code=200
         6 5 client 6..49 sidecar:orders:7 egress http.status_code=200 response_flags=- upstream_cluster=outbound|80||users.shop.svc.cluster.local
         7 6 server 7..48 sidecar:users:8 ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80||
         8 4 client 60..70 app:order-api SELECT server.address=db.shop.svc",
        "(client) -> ingress north_south D1 server 200
         ingress -> orders north_south D4 both 200
         orders -> order-api local D0 server 200
         order-api -> orders local D0 both 200
         orders -> users east_west D5 both 200
         order-api -> db east_west D5 client -
         entry GET /",
    );
}

#[test]
fn a_gateway_in_a_pod_of_the_mesh_is_one_node_with_its_sidecar() {
    check(
        "1 - server 0..90 sidecar:kong:3 ingress http.url=http://shop/api/orders/5 http.status_code=200 response_flags=- upstream_cluster=inbound|8000|| peer.address=10.9.9.9
         2 1 server 1..89 kong:kong kong http.method=GET http.url=http://shop/api/orders/5 http.status_code=200
         3 2 client 2..88 kong:kong kong.balancer net.peer.name=orders.shop.svc try_count=1
         4 3 client 3..87 sidecar:kong:3 egress http.status_code=200 response_flags=- upstream_cluster=outbound|80||orders.shop.svc.cluster.local
         5 4 server 4..86 sidecar:orders:7 ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80||",
        "(client) -> kong north_south D1 server 200
         kong -> kong local D0 server 200
         kong -> kong local D0 both 200
         kong -> orders north_south D4 both 200
         entry GET /api/orders/{id}",
    );
    let derived = check(
        "1 - server 0..90 sidecar:edge:3 ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80||
         2 1 server 1..89 nginx:edge-nginx / http.method=GET http.target=/api/orders/5 http.status_code=200
         4 2 client 3..87 sidecar:edge:3 egress http.status_code=200 response_flags=- upstream_cluster=outbound|80||orders.shop.svc.cluster.local",
        "(client) -> edge north_south D1 server 200
         edge -> edge-nginx local D0 server 200
         edge-nginx -> edge local D0 server 200
         edge -> orders north_south D4 client 200
         entry GET /api/orders/{id}",
    );
    assert_eq!(&*derived.request.entry_node.service, "edge", "the node the topology shows");
}

#[test]
fn a_call_past_the_sidecar_is_no_local_leg() {
    check(
        "1 - client 0..99 sidecar:web egress http.status_code=200 response_flags=- upstream_cluster=outbound|80||orders.shop.svc.cluster.local
         2 1 server 1..90 sidecar:orders:7 ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80||
         3 2 server 3..80 pod:legacy:legacy-0 GET_/ http.response.status_code=200",
        "web -> orders east_west D5 both 200
         orders -> legacy east_west D5 server 200
         entry unknown: propagation_lost",
    );
}

#[test]
fn every_proxy_with_a_span_per_attempt() {
    check(
        "1 - server 0..90 sidecar:orders:7 ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80||
         2 1 client 1..89 attempt:orders router_inbound_egress upstream_address=10.0.0.7:80 http.status_code=200 response_flags=- upstream_cluster=inbound|80||
         3 2 server 5..50 sidecar:orders:7 egress http.status_code=200 response_flags=- upstream_cluster=outbound|80||users.shop.svc.cluster.local
         4 3 client 6..49 attempt:orders router_x_egress upstream_address=10.0.0.8:80 http.status_code=200 response_flags=- upstream_cluster=outbound|80||users.shop.svc.cluster.local
         5 4 server 7..48 sidecar:users:8 ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80||",
        "(unknown) -> orders unknown D9 server 200 (unknown_peer)
         orders -> users east_west D5 both 200
         entry unknown: no_gateway",
    );
}

#[test]
fn grpc_failures_count_by_their_code_not_by_the_spans_status() {
    check(
        "1 - client 0..9 sidecar:checkout egress otel=error grpc.path=/stock.Stock/Reserve grpc.status_code=3 http.status_code=200 response_flags=- upstream_cluster=outbound|90||stock.shop.svc.cluster.local
         2 - client 10..19 sidecar:checkout egress otel=error grpc.path=/stock.Stock/Reserve grpc.status_code=14 http.status_code=200 response_flags=- upstream_cluster=outbound|90||stock.shop.svc.cluster.local
         3 - client 20..29 sidecar:checkout egress otel=error http.status_code=404 response_flags=- upstream_cluster=outbound|90||stock.shop.svc.cluster.local",
        "checkout -> stock east_west D5 client grpc:3
         checkout -> stock east_west D5 client grpc:14 fault=upstream ERROR cause
         checkout -> stock east_west D5 client 404 fault=upstream
         entry unknown: propagation_lost",
    );
}

#[test]
fn plain_envoys_of_consul() {
    check(
        "1 - server 0..90 envoy:edge-ingress ingress http.status_code=200 response_flags=- upstream_cluster=web.default.dc1.internal.0a1b.consul http.url=http://s/buy/12 http.method=GET
         2 1 client 1..89 envoy:edge-ingress router_x_egress upstream_address=10.0.0.7:80 http.status_code=200 response_flags=- upstream_cluster=web.default.dc1.internal.0a1b.consul
         3 2 server 2..88 envoy:web ingress http.status_code=200 response_flags=- upstream_cluster=local_app
         4 3 client 9..50 envoy:web egress http.status_code=200 response_flags=- upstream_cluster=v2.api.default.dc1.internal.0a1b.consul",
        "(client) -> edge-ingress north_south D1 server 200
         edge-ingress -> web north_south D4 both 200
         web -> api/v2 east_west D5 client 200
         entry GET /buy/{id}",
    );
}

#[test]
fn work_that_outlives_its_parent_and_clocks_that_differ() {
    check(
        "1 - client 0..100 sidecar:a egress http.status_code=200 response_flags=- upstream_cluster=outbound|80||b.shop.svc.cluster.local
         2 1 server 500..580 sidecar:b:2 ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80||
         3 2 producer 560..570 app:b send messaging.system=kafka server.address=kafka
         4 3 consumer 900..950 app:c receive messaging.system=kafka",
        "a -> b east_west D5 both 200 skewed
         b -> c east_west D5 both - queued
         entry unknown: propagation_lost",
    );
}

#[test]
fn operators_know_better() {
    let overrides = Overrides {
        aliases: [("shop/orders-svc".to_owned(), Alias::parse("shop/orders"))].into(),
        roles: vec![RoleOverride::new("^lb$", NodeRole::Gateway).unwrap()],
        ..Overrides::default()
    };
    check_with(
        overrides,
        "1 - server 0..90 app:lb GET_/ http.request.method=GET http.route=/shop/:id http.response.status_code=200
         2 1 client 1..89 app:lb GET server.address=orders-svc.shop.svc
         3 2 server 2..88 sidecar:orders-svc:7 ingress http.status_code=200 response_flags=- upstream_cluster=inbound|80||",
        "(client) -> lb north_south D1 server 200
         lb -> orders north_south D4 both 200
         entry GET /shop/:id",
    );
}
