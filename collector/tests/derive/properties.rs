//! Properties of derivation over generated traces: what must hold whatever arrives.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use windrose_collector::join::derive::{DeriveOptions, derive};
use windrose_collector::normalise::Normaliser;
use windrose_proto::attributes::{Attributes, Value};
use windrose_proto::hop::{Derived, Entry, SpanUse, UNKNOWN_NODE};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::model::{Direction, Fault, NodeRole, SpanKind};
use windrose_proto::normal::NormalSpan;
use windrose_proto::span::{Resource, Scope, Span, StatusCode};
use windrose_proto::time::UnixNanos;

use crate::load::empty_span;

/// Which process wrote a generated span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Gateway,
    Sidecar(u8),
    Egress,
    App(u8),
    Kong,
    Haproxy,
    Waypoint,
}

/// A generated span. Ids are small on purpose: they collide, repeat, point to themselves, to each
/// other and to nothing.
#[derive(Clone, Debug)]
struct Generated {
    id: u8,
    parent: Option<u8>,
    kind: SpanKind,
    writer: Writer,
    target: u8,
    start: u16,
    duration: u16,
    code: u16,
    flag: u8,
    retry: u8,
    shared: bool,
}

fn generated() -> impl Strategy<Value = Generated> {
    let writer = prop_oneof![
        2 => Just(Writer::Gateway),
        6 => (0..4_u8).prop_map(Writer::Sidecar),
        1 => Just(Writer::Egress),
        3 => (0..4_u8).prop_map(Writer::App),
        1 => Just(Writer::Kong),
        1 => Just(Writer::Haproxy),
        1 => Just(Writer::Waypoint),
    ];
    let kind = prop_oneof![
        4 => Just(SpanKind::Server),
        4 => Just(SpanKind::Client),
        1 => Just(SpanKind::Internal),
        1 => Just(SpanKind::Producer),
        1 => Just(SpanKind::Consumer),
        1 => Just(SpanKind::Unspecified),
    ];
    let code =
        prop_oneof![4 => Just(200_u16), 1 => Just(0_u16), 1 => Just(404_u16), 2 => Just(503_u16), 1 => Just(504_u16)];
    let parts = (1..24_u8, prop::option::weighted(0.85, 1..26_u8), kind, writer, 0..6_u8);
    (parts, 0..400_u16, 0..300_u16, code, 0..9_u8, 0..3_u8, prop::bool::weighted(0.1)).prop_map(
        |((id, parent, kind, writer, target), start, duration, code, flag, retry, shared)| Generated {
            id,
            parent,
            kind,
            writer,
            target,
            start,
            duration,
            code,
            flag,
            retry,
            shared,
        },
    )
}

fn normalised(spans: &[Generated]) -> Vec<Arc<NormalSpan>> {
    let mut normaliser = Normaliser::default();
    spans.iter().map(|span| Arc::new(normaliser.normalise(&received(span)))).collect()
}

fn received(generated: &Generated) -> Span {
    let mut attributes = Attributes::default();
    let mut put = |key: &'static str, value: String| attributes.push(key, Value::Str(value.into()));
    put("http.status_code", generated.code.to_string());
    put("http.method", "GET".to_owned());
    put("http.url", format!("http://s{}.shop/items/{}", generated.target, generated.id));
    if generated.retry > 0 {
        put("retry.count", generated.retry.to_string());
    }
    let node =
        |kind: &str, name: &str| format!("{kind}~10.0.0.{}~{name}-v1-abc12.shop~shop.svc.cluster.local", name.len());
    let is_up = generated.kind == SpanKind::Client;
    let (service, scope) = match generated.writer {
        Writer::Gateway => ("ingress".to_owned(), "envoy"),
        Writer::Egress => ("egress".to_owned(), "envoy"),
        Writer::Waypoint => ("waypoint".to_owned(), "envoy"),
        Writer::Sidecar(n) => (format!("s{n}"), "envoy"),
        Writer::App(n) => (format!("s{n}"), "sdk"),
        Writer::Kong => ("kong".to_owned(), "kong-internal"),
        Writer::Haproxy => ("haproxy".to_owned(), "haproxy"),
    };
    if scope == "envoy" {
        let kind = match generated.writer {
            Writer::Sidecar(_) => "sidecar",
            Writer::Waypoint => "waypoint",
            _ => "router",
        };
        let flag = ["-", "UO", "UF", "UT", "DC", "NR", "URX", "FI", "DI,UC"][usize::from(generated.flag)];
        put("response_flags", flag.to_owned());
        let cluster = match (is_up, generated.target) {
            (_, 5) => "outbound|443||api.partner.example".to_owned(),
            (true, target) => format!("outbound|80||s{target}.shop.svc.cluster.local"),
            (false, _) => "inbound|80||".to_owned(),
        };
        put("upstream_cluster", cluster);
        if generated.retry == 2 && is_up {
            put("upstream_address", "10.0.0.9:80".to_owned());
            put("canceled", "true".to_owned());
        } else {
            put("node_id", node(kind, &service));
            put("peer.address", "10.0.0.2".to_owned());
        }
    }
    let mut resource = Attributes::default();
    resource.push("service.name", Value::Str(service.into()));
    Span {
        trace_id: TraceId::new([7; 16]).unwrap(),
        span_id: span_id(generated.id),
        parent_span_id: generated.parent.map(span_id),
        name: if generated.writer == Writer::Kong && is_up { "kong.balancer".into() } else { "call".into() },
        kind: generated.kind,
        start: UnixNanos(1_000_000_000 + u64::from(generated.start) * 1_000_000),
        end: UnixNanos(1_000_000_000 + u64::from(generated.start + generated.duration) * 1_000_000),
        attributes,
        status: if generated.code >= 500 { StatusCode::Error } else { StatusCode::Unset },
        shared: generated.shared,
        resource: Arc::new(Resource { attributes: resource, ..Resource::default() }),
        scope: Arc::new(Scope { name: scope.into(), ..Scope::default() }),
        ..empty_span()
    }
}

fn span_id(n: u8) -> SpanId {
    SpanId::new([0, 0, 0, 0, 0, 0, 0, n]).unwrap()
}

fn derived(spans: &[Arc<NormalSpan>]) -> Derived {
    derive(spans, &DeriveOptions::default())
}

proptest! {
    #[test]
    fn neither_order_nor_duplicates_matter(
        (spans, shuffled) in prop::collection::vec(generated(), 1..30).prop_flat_map(|spans| {
            let twice: Vec<usize> = (0..spans.len()).chain(0..spans.len() / 2).collect();
            (Just(spans), Just(twice).prop_shuffle())
        })
    ) {
        let normal = normalised(&spans);
        let again: Vec<_> = shuffled.iter().map(|place| Arc::new((*normal[*place]).clone())).collect();
        prop_assert_eq!(derived(&normal), derived(&again));
    }

    #[test]
    fn every_span_is_accounted_for(spans in prop::collection::vec(generated(), 1..30)) {
        let normal = normalised(&spans);
        let result = derived(&normal);
        let distinct: std::collections::BTreeSet<_> =
            normal.iter().map(|span| windrose_collector::join::derive::distinct_key(span)).collect();
        prop_assert_eq!(result.verdicts.len(), distinct.len());
        prop_assert_eq!(result.request.span_count as usize, distinct.len());
        for verdict in &result.verdicts {
            match &verdict.usage {
                SpanUse::Hop { hops } => {
                    prop_assert!(!hops.is_empty());
                    for hop in hops {
                        let hop = &result.hops[*hop as usize];
                        let named = [hop.client_span, hop.server_span].contains(&Some(verdict.span_id));
                        prop_assert!(named || hop.via.is_some(), "{:?} {:?}", verdict, hop);
                    }
                }
                SpanUse::Phase => {}
                SpanUse::Unlinked { why } => prop_assert!(!why.is_empty()),
            }
            prop_assert_ne!(verdict.role, NodeRole::Unknown, "every node has a role");
        }
    }

    #[test]
    fn hops_are_consistent(spans in prop::collection::vec(generated(), 1..40)) {
        let result = derived(&normalised(&spans));
        let mut causes = 0;
        for hop in &result.hops {
            prop_assert!(hop.client_span.is_some() || hop.server_span.is_some());
            prop_assert_eq!(&hop.entry, &result.request.entry);
            prop_assert_eq!(hop.source_gap.is_some(), &*hop.source.service == UNKNOWN_NODE);
            prop_assert!(hop.reasons.is_sorted());
            prop_assert!(hop.is_final || hop.retry < u8::MAX);
            prop_assert!(!hop.root_cause || (hop.error && hop.is_final && hop.direction != Direction::Local));
            let is_blameless = hop.error && hop.fault == Fault::None && hop.http_status.is_some_and(|code| code >= 500);
            prop_assert!(!is_blameless, "{hop:?}");
            causes += u32::from(hop.root_cause);
        }
        prop_assert!(causes <= 1);
        prop_assert!(result.hops.is_sorted_by_key(|hop| (hop.start, hop.retry, hop.client_span, hop.server_span)));
        let has_gateway = result.verdicts.iter().any(|verdict| verdict.role == NodeRole::Gateway);
        prop_assert_eq!(matches!(result.request.entry, Entry::Route(_)), has_gateway);
    }
}

/// Shapes that make naive rules loop or grow with the square of the trace.
#[test]
fn hostile_shapes_end_soon() {
    const SPANS: u32 = 10_000;
    let id = |n: u32| SpanId::new(u64::from(n + 1).to_be_bytes()).unwrap();
    type Parent = fn(u32) -> u32;
    let shapes: [(&str, Parent); 6] = [
        ("a chain", |n| n.saturating_sub(1)),
        ("a ring", |n| (n + 1) % SPANS),
        ("pairs that are each other's parents", |n| n ^ 1),
        ("self-parents", |n| n),
        ("a star", |_| 0),
        ("two rings with tails", |n| if n < 10 { (n + 1) % 10 } else { n / 2 }),
    ];
    for (name, parent) in shapes {
        for kind in [SpanKind::Client, SpanKind::Server] {
            for writer in [Writer::Sidecar(1), Writer::App(1), Writer::Haproxy, Writer::Kong] {
                let mut normaliser = Normaliser::default();
                let spans: Vec<Arc<NormalSpan>> = (0..SPANS)
                    .map(|n| {
                        let generated = Generated {
                            id: 1,
                            parent: None,
                            kind,
                            writer,
                            target: 1,
                            start: (n % 300) as u16,
                            duration: 200,
                            code: 503,
                            flag: 0,
                            retry: (n % 3) as u8,
                            shared: false,
                        };
                        let mut span = received(&generated);
                        (span.span_id, span.parent_span_id) = (id(n), Some(id(parent(n))));
                        Arc::new(normaliser.normalise(&span))
                    })
                    .collect();
                let (sender, receiver) = std::sync::mpsc::channel();
                std::thread::spawn(move || sender.send(derived(&spans).verdicts.len()));
                // Takes about 100 ms unoptimised; a quadratic pass would take minutes.
                let done = receiver.recv_timeout(Duration::from_secs(20));
                assert_eq!(done, Ok(SPANS as usize), "{name} of {kind} by {writer:?}");
            }
        }
    }
}

/// One id shared by everything.
#[test]
fn one_id_for_all_spans_ends_soon() {
    let spans: Vec<Generated> = (0..5_000_u16)
        .map(|n| Generated {
            id: 1,
            parent: Some(1),
            kind: if n % 2 == 0 { SpanKind::Server } else { SpanKind::Client },
            writer: Writer::Sidecar((n % 4) as u8),
            target: (n % 5) as u8,
            start: n,
            duration: 5,
            code: 503,
            flag: 0,
            retry: 0,
            shared: true,
        })
        .collect();
    let result = derived(&normalised(&spans));
    assert_eq!(result.verdicts.len(), 5_000);
}
