//! Random rows for property tests.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use smallvec::SmallVec;
use windrose_proto::Text;
use windrose_proto::attributes::{Attributes, KeyValue, Value};
use windrose_proto::edge::{CounterStats, EdgeKey, EdgeRow, EdgeStats, ErrorClass, Largest, Latency, SpanStats};
use windrose_proto::hop::{Entry, EntryRoute, Gap, Hop, Node, Request};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::model::{
    Direction, Fault, FaultAt, IngestProtocol, NodeRole, Protocol, ProxyKind, Reason, Reporters, Rule, SpanKind, Tls,
    Vantage,
};
use windrose_proto::normal::{Destination, Identity, NormalSpan, Outcome, Process, RoleHint};
use windrose_proto::sketch::{Bucket, Sketch};
use windrose_proto::span::{Event, Link, Resource, Scope, Span, StatusCode};
use windrose_proto::time::UnixNanos;

use crate::row::{HopRow, RequestRow, SpanRow};

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![
        select(vec!["", "a", "GET", "/users/1", "orders", "x\ny\\z", "ü\u{1F9ED}\0", "-", "#2"])
            .prop_map(Text::from_static),
        ".{0,12}".prop_map(Text::from),
    ]
}

fn key() -> impl Strategy<Value = Text> {
    prop_oneof![
        select(vec![
            "http.method",
            "http.url",
            "http.status_code",
            "peer.address",
            "response_flags",
            "component",
            "node_id",
            "request_size",
            "upstream_cluster",
            "upstream_cluster.name",
            "guid:x-request-id",
            "custom",
            "custom#2",
        ])
        .prop_map(Text::from_static),
        text(),
    ]
}

fn trace_id() -> impl Strategy<Value = TraceId> {
    // Few distinct ones, so that rows share traces.
    (1_u8..=6).prop_map(|n| TraceId::new([n; 16]).expect("not zero"))
}

fn span_id() -> impl Strategy<Value = SpanId> {
    (1_u64..).prop_map(|n| SpanId::new(n.to_be_bytes()).expect("not zero"))
}

fn nanos() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0_u64..1000, Just(u64::MAX)]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Empty),
        text().prop_map(Value::Str),
        text().prop_map(Value::Str),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        select(vec![0.1, -0.0, 1e300, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, 200.0])
            .prop_map(Value::Double),
        proptest::num::f64::NORMAL.prop_map(Value::Double),
        vec(any::<u8>(), 0..9).prop_map(|bytes| Value::Bytes(Bytes::from(bytes))),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::Array),
            vec((key(), inner), 0..3)
                .prop_map(|pairs| Value::Map(pairs.into_iter().map(|(key, value)| KeyValue { key, value }).collect())),
        ]
    })
}

fn attributes() -> impl Strategy<Value = Attributes> {
    vec((key(), value()), 0..10)
        .prop_map(|pairs| Attributes(pairs.into_iter().map(|(key, value)| KeyValue { key, value }).collect()))
}

fn resource() -> impl Strategy<Value = Arc<Resource>> {
    (attributes(), any::<u32>(), text()).prop_map(|(attributes, dropped_attributes_count, schema_url)| {
        Arc::new(Resource { attributes, dropped_attributes_count, schema_url })
    })
}

fn scope() -> impl Strategy<Value = Arc<Scope>> {
    (text(), text(), attributes(), any::<u32>(), text()).prop_map(
        |(name, version, attributes, dropped_attributes_count, schema_url)| {
            Arc::new(Scope { name, version, attributes, dropped_attributes_count, schema_url })
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    (nanos(), text(), attributes(), any::<u32>()).prop_map(|(time, name, attributes, dropped_attributes_count)| Event {
        time: UnixNanos(time),
        name,
        attributes,
        dropped_attributes_count,
    })
}

fn link() -> impl Strategy<Value = Link> {
    (option::of(trace_id()), option::of(span_id()), text(), attributes(), any::<u32>(), any::<u32>()).prop_map(
        |(trace_id, span_id, trace_state, attributes, dropped_attributes_count, flags)| Link {
            trace_id,
            span_id,
            trace_state,
            attributes,
            dropped_attributes_count,
            flags,
        },
    )
}

fn span() -> impl Strategy<Value = Span> {
    let ids = (trace_id(), span_id(), option::of(span_id()), text(), any::<u32>(), text());
    let times = (select(SpanKind::ALL), nanos(), nanos());
    let body = (attributes(), any::<u32>(), vec(event(), 0..2), any::<u32>(), vec(link(), 0..2), any::<u32>());
    let rest = (
        select(vec![StatusCode::Unset, StatusCode::Ok, StatusCode::Error]),
        text(),
        resource(),
        scope(),
        any::<bool>(),
        select(IngestProtocol::ALL),
    );
    (ids, times, body, rest).prop_map(|(ids, times, body, rest)| Span {
        trace_id: ids.0,
        span_id: ids.1,
        parent_span_id: ids.2,
        trace_state: ids.3,
        flags: ids.4,
        name: ids.5,
        kind: times.0,
        start: UnixNanos(times.1),
        end: UnixNanos(times.2),
        attributes: body.0,
        dropped_attributes_count: body.1,
        events: body.2,
        dropped_events_count: body.3,
        links: body.4,
        dropped_links_count: body.5,
        status: rest.0,
        status_message: rest.1,
        resource: rest.2,
        scope: rest.3,
        shared: rest.4,
        ingest: rest.5,
    })
}

/// What the rules might have read out of `span`: sometimes what its attributes say, sometimes not.
pub(crate) fn normal_of(span: &Span) -> NormalSpan {
    let text = |key: &str| span.attributes.text(key).cloned();
    let peer = text("peer.address").and_then(|peer| peer.parse::<IpAddr>().ok());
    NormalSpan {
        trace_id: span.trace_id,
        span_id: span.span_id,
        parent_span_id: span.parent_span_id,
        start: span.start,
        end: span.end,
        kind: span.kind,
        name: span.name.clone(),
        status_error: span.status == StatusCode::Error,
        shared: span.shared,
        parent_is_remote: span.parent_is_remote(),
        process: Arc::new(Process { resource_hash: 7, node_id: text("node_id") }),
        identity: Arc::new(Identity {
            service: span.resource.attributes.text("service.name").cloned().unwrap_or_default(),
            ip: Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))),
            ..Identity::default()
        }),
        identity_rule: Rule("I4"),
        proxy_kind: ProxyKind::Istio,
        proxy_rule: Rule("P1a"),
        vantage: Vantage::Downstream,
        vantage_rule: Rule("V4"),
        role: if span.shared { RoleHint::InContext } else { RoleHint::Known(NodeRole::Sidecar) },
        role_rule: Rule("R2a"),
        destination: text("upstream_cluster").map(|service| {
            Arc::new(Destination {
                service,
                namespace: None,
                subset: None,
                external: false,
                ip: None,
                blackhole: false,
                rule: Rule("T2"),
            })
        }),
        source: None,
        outcome: Outcome {
            http_status: span.attributes.get("http.status_code").and_then(Value::as_i64).map(|code| code as u16),
            grpc_status: None,
            flags: text("response_flags").map(|flags| flags.split(',').map(Text::from).collect()).unwrap_or_default(),
            reasons: SmallVec::from_iter([Reason::Timeout, Reason::OtherFlag(Text::from_static("XX"))]),
            error: false,
            fault: Fault::None,
            fault_rule: Rule("F0"),
            retry: 1,
            try_number: None,
        },
        protocol: Protocol::Http1,
        tls: Tls::Unknown,
        method: text("http.method"),
        host: None,
        path: Some(Text::from_static("/users/1")),
        route: None,
        request_id: text("guid:x-request-id"),
        request_bytes: span.attributes.get("request_size").and_then(Value::as_i64).map(|size| size as u64),
        response_bytes: None,
        upstream_cluster: text("upstream_cluster"),
        upstream_is_own_app: false,
        peer_ip: peer,
        peer_port: None,
        leg: None,
        kong_next: false,
        hints: None,
        local_reply: None,
        logged: None,
        mirror: false,
        fact: None,
    }
}

pub(crate) fn span_row() -> impl Strategy<Value = SpanRow> {
    (span(), nanos()).prop_map(|(span, arrived)| {
        let normal = Arc::new(normal_of(&span));
        SpanRow { span: Arc::new(span), normal, arrived: UnixNanos(arrived) }
    })
}

fn node() -> impl Strategy<Value = Arc<Node>> {
    let texts = (option::of(text()), option::of(text()), text(), option::of(text()), option::of(text()));
    (texts, select(NodeRole::ALL), select(ProxyKind::ALL)).prop_map(|(texts, role, proxy_kind)| {
        let (cluster, namespace, service, workload, version) = texts;
        Arc::new(Node { cluster, namespace, service, workload, version, role, proxy_kind })
    })
}

fn gap() -> impl Strategy<Value = Gap> {
    select(vec![Gap::ParentNeverReceived, Gap::PropagationLost, Gap::NoGateway, Gap::UnknownPeer, Gap::TraceTooLarge])
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        (text(), option::of(text())).prop_map(|(route, host)| Entry::Route(Arc::new(EntryRoute { route, host }))),
        gap().prop_map(Entry::Unknown),
    ]
}

fn reason() -> impl Strategy<Value = Reason> {
    prop_oneof![Just(Reason::Timeout), Just(Reason::ConnFail), text().prop_map(Reason::OtherFlag)]
}

pub(crate) fn hop_row() -> impl Strategy<Value = HopRow> {
    let ends = (trace_id(), option::of(span_id()), option::of(span_id()), node(), node(), option::of(node()));
    let words = (
        option::of(text()),
        option::of(text()),
        select(Direction::ALL),
        select(Reporters::ALL),
        select(Protocol::ALL),
        option::of(text()),
    );
    let outcome = (
        option::of(any::<u16>()),
        option::of(any::<u8>()),
        any::<[bool; 4]>(),
        select(Fault::ALL),
        option::of(select(FaultAt::ALL)),
        vec(reason(), 0..3),
        any::<u8>(),
        select(Tls::ALL),
    );
    let numbers = (
        option::of(nanos()),
        option::of(nanos()),
        option::of(any::<i64>()),
        option::of(nanos()),
        option::of(nanos()),
        option::of(nanos()),
        option::of(nanos()),
        nanos(),
    );
    (ends, words, outcome, numbers, entry(), option::of(gap()), any::<u32>()).prop_map(
        |(ends, words, outcome, numbers, entry, source_gap, revision)| HopRow {
            hop: Arc::new(Hop {
                trace_id: ends.0,
                client_span: ends.1,
                server_span: ends.2,
                source: ends.3,
                destination: ends.4,
                origin: ends.5,
                endpoint: words.0,
                via: words.1,
                direction: words.2,
                direction_rule: Rule("D4"),
                reporters: words.3,
                protocol: words.4,
                method: words.5,
                http_status: outcome.0,
                grpc_status: outcome.1,
                error: outcome.2[0],
                is_final: outcome.2[1],
                root_cause: outcome.2[2],
                mirror: outcome.2[3],
                fault: outcome.3,
                fault_at: outcome.4,
                reasons: outcome.5.into(),
                retry: outcome.6,
                tls: outcome.7,
                client_nanos: numbers.0,
                server_nanos: numbers.1,
                skew_nanos: numbers.2,
                late_server_nanos: numbers.3,
                queue_nanos: numbers.4,
                request_bytes: numbers.5,
                response_bytes: numbers.6,
                start: UnixNanos(numbers.7),
                entry,
                source_gap,
                logged: outcome.2[3],
            }),
            revision,
        },
    )
}

pub(crate) fn request_row() -> impl Strategy<Value = RequestRow> {
    let head = (trace_id(), option::of(span_id()), node(), entry());
    let texts = (option::of(text()), option::of(text()), option::of(text()), option::of(text()), option::of(text()));
    let outcome =
        (option::of(any::<u16>()), option::of(any::<u8>()), any::<bool>(), select(Fault::ALL), vec(reason(), 0..3));
    let numbers = (nanos(), nanos(), any::<[u32; 4]>(), vec(span_id(), 0..3), vec(gap(), 0..3));
    (head, texts, outcome, numbers).prop_map(|(head, texts, outcome, numbers)| RequestRow {
        request: Arc::new(Request {
            trace_id: head.0,
            entry_span: head.1,
            entry_node: head.2,
            entry: head.3,
            method: texts.0,
            host: texts.1,
            path: texts.2,
            consumer: texts.3,
            request_id: texts.4,
            http_status: outcome.0,
            grpc_status: outcome.1,
            error: outcome.2,
            fault: outcome.3,
            reasons: outcome.4.into(),
            start: UnixNanos(numbers.0),
            duration_nanos: numbers.1,
            span_count: numbers.2[0],
            hop_count: numbers.2[1],
            service_count: numbers.2[2],
            missing_parents: numbers.3.into(),
            gaps: numbers.4.into(),
        }),
        revision: numbers.2[3],
    })
}

fn slowest() -> impl Strategy<Value = Largest> {
    let cut = option::of((nanos(), trace_id()));
    (vec((nanos(), trace_id()), 0..6), vec((nanos(), trace_id()), 0..3), cut)
        .prop_map(|(entries, removals, cut)| Largest::from_parts(entries, removals, cut))
}

/// A number of which a thousand can be added up.
fn summand() -> impl Strategy<Value = i64> {
    i64::MIN / 1024..i64::MAX / 1024
}

fn latency() -> impl Strategy<Value = Latency> {
    let big = 10_i128.pow(34);
    (summand(), -big..big, vec((0_u16..1024, -5_i64..5), 0..8), slowest()).prop_map(
        |(count, sum_nanos, buckets, slowest)| Latency {
            count,
            sum_nanos,
            sketch: Sketch::from_buckets(buckets.into_iter().map(|(bucket, count)| (Bucket(bucket), count))),
            slowest,
        },
    )
}

fn counters() -> impl Strategy<Value = CounterStats> {
    (proptest::array::uniform16(summand()), btree_map(text(), summand(), 0..3)).prop_map(|(n, by_code)| CounterStats {
        calls: n[0],
        attempts: n[1],
        by_code,
        errors: n[2],
        retries: n[3],
        retries_succeeded: n[4],
        retries_exhausted: n[5],
        timeouts: n[6],
        circuit_rejected: n[7],
        connect_failures: n[8],
        resets: n[9],
        ejections: n[10],
        bytes_sent: n[11],
        bytes_received: n[12],
        tls_mutual: n[13],
        tls_known: n[14],
        scrapes: n[15],
    })
}

fn span_stats() -> impl Strategy<Value = SpanStats> {
    let class = (text(), option::of(reason()), select(Fault::ALL)).prop_map(|(code, reason, fault)| ErrorClass {
        code,
        reason,
        fault,
    });
    let big = 10_i128.pow(34);
    (
        proptest::array::uniform16(summand()),
        btree_map(class, summand(), 0..3),
        latency(),
        latency(),
        -big..big,
        slowest(),
    )
        .prop_map(|(n, by_class, client, server, overhead_sum_nanos, latest_errors)| SpanStats {
            calls: n[0],
            attempts: n[1],
            errors: n[2],
            attempt_errors: n[3],
            by_class,
            client,
            server,
            both_sides: n[4],
            overhead_sum_nanos,
            tls_mutual: n[5],
            tls_known: n[6],
            request_bytes: n[7],
            response_bytes: n[8],
            spans: n[9],
            inferred: n[10],
            logged: n[14],
            late: n[11],
            duplicate: n[12],
            late_server: n[13],
            mirrored: n[15],
            latest_errors,
        })
}

pub(crate) fn edge_row() -> impl Strategy<Value = EdgeRow> {
    let key = (node(), node(), option::of(node()), select(Direction::ALL), select(Protocol::ALL), option::of(entry()))
        .prop_map(|(source, destination, origin, direction, protocol, entry)| {
            Arc::new(EdgeKey { source, destination, direction, protocol, entry, origin })
        });
    let stats = (span_stats(), counters(), counters()).prop_map(|(spans, client_counters, server_counters)| {
        Arc::new(EdgeStats { spans, client_counters, server_counters })
    });
    (nanos(), nanos(), key, stats).prop_map(|(window_start, window_nanos, key, stats)| EdgeRow {
        window_start: UnixNanos(window_start),
        window_nanos,
        key,
        stats,
    })
}
