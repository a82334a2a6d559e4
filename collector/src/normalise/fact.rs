//! Facts of other traces as spans, and back again.
//!
//! What the join learns across traces is stored among the spans of the trace it is about, so that
//! deriving the trace again (for a late span, after a restart, for an explanation) needs nothing
//! but its spans. Such a span is told by the name of its scope. Its duration is the number of the
//! decision: of two answers to one question the later one is the longer, and rule W1 keeps that.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use windrose_proto::Text;
use windrose_proto::attributes::{Attributes, Value};
use windrose_proto::hop::{EntryRoute, Node, Question};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::model::{IngestProtocol, NodeRole, ProxyKind, SpanKind};
use windrose_proto::normal::{Fact, Link};
use windrose_proto::span::{FACT_SCOPE, Resource, Scope, Span, StatusCode};
use windrose_proto::time::UnixNanos;

/// Name of a span that says whose an address was.
const ADDRESS: &str = "address";
/// Name of a span that says which request the trace goes on with.
const ENTRY: &str = "entry";

/// The span that stores `fact` as the `decision`-th answer to `question`; the first is 1.
#[must_use]
pub fn to_span(trace: TraceId, question: &Question, fact: &Fact, decision: u64) -> Span {
    let mut attributes = Attributes::default();
    let mut put = |key: &'static str, value: &str| attributes.push(key, Value::Str(Text::from(value)));
    match fact {
        Fact::Address { ip, node } => {
            put("windrose.ip", &ip.to_string());
            if let Some(node) = node {
                put_node(&mut put, node);
            }
        }
        Fact::Entry { link: None } => {}
        Fact::Entry { link: Some(link) } => {
            put("windrose.trace_id", &link.trace_id.to_string());
            put("windrose.route", &link.route.route);
            if let Some(host) = &link.route.host {
                put("windrose.host", host);
            }
            if link.continues_call {
                put("windrose.continues_call", "true");
            }
        }
    }
    let (name, at) = match question {
        Question::Address { at, .. } => (ADDRESS, *at),
        Question::Entry { at, .. } => (ENTRY, *at),
    };
    let mut resource = Attributes::default();
    resource.push("service.name", Value::Str(Text::from_static("windrose")));
    Span {
        trace_id: trace,
        span_id: span_id(question),
        parent_span_id: None,
        trace_state: Text::default(),
        flags: 0,
        name: Text::from_static(name),
        kind: SpanKind::Internal,
        start: at,
        end: UnixNanos(at.0.saturating_add(decision)),
        attributes,
        dropped_attributes_count: 0,
        events: Vec::new(),
        dropped_events_count: 0,
        links: Vec::new(),
        dropped_links_count: 0,
        status: StatusCode::Unset,
        status_message: Text::default(),
        resource: Arc::new(Resource { attributes: resource, ..Resource::default() }),
        scope: Arc::new(Scope { name: Text::from_static(FACT_SCOPE), ..Scope::default() }),
        shared: false,
        ingest: IngestProtocol::OtlpGrpc,
    }
}

/// The fact a span stores; `None` for every span of a trace, and for facts that do not read.
#[must_use]
pub fn read(span: &Span) -> Option<Fact> {
    if !span.is_fact() {
        return None;
    }
    let text = |key: &str| span.attributes.text(key);
    match &*span.name {
        ADDRESS => {
            let ip: IpAddr = text("windrose.ip")?.parse().ok()?;
            Some(Fact::Address { ip, node: node(&span.attributes).map(Arc::new) })
        }
        ENTRY => {
            let link = match (text("windrose.trace_id"), text("windrose.route")) {
                (Some(trace), Some(route)) => Some(Arc::new(Link {
                    trace_id: TraceId::parse(trace)?,
                    route: Arc::new(EntryRoute { route: route.clone(), host: text("windrose.host").cloned() }),
                    continues_call: text("windrose.continues_call").is_some(),
                })),
                _ => None,
            };
            Some(Fact::Entry { link })
        }
        _ => None,
    }
}

/// The span that answers a question has an id of its own, the same whenever it is asked.
#[must_use]
pub fn span_id(question: &Question) -> SpanId {
    let mut hasher = DefaultHasher::new();
    match question {
        Question::Address { ip, .. } => (ADDRESS, ip).hash(&mut hasher),
        Question::Entry { .. } => ENTRY.hash(&mut hasher),
    }
    // An id must not be zero.
    SpanId::new((hasher.finish() | 1).to_be_bytes()).unwrap_or_else(|| unreachable!("the lowest bit is set"))
}

fn put_node(put: &mut impl FnMut(&'static str, &str), node: &Node) {
    put("windrose.service", &node.service);
    let parts = [
        ("windrose.namespace", &node.namespace),
        ("windrose.workload", &node.workload),
        ("windrose.version", &node.version),
        ("windrose.cluster", &node.cluster),
    ];
    for (key, part) in parts {
        if let Some(part) = part {
            put(key, part);
        }
    }
    put("windrose.role", node.role.as_str());
    put("windrose.proxy_kind", node.proxy_kind.as_str());
}

fn node(attributes: &Attributes) -> Option<Node> {
    let text = |key: &str| attributes.text(key).cloned();
    Some(Node {
        cluster: text("windrose.cluster"),
        namespace: text("windrose.namespace"),
        service: text("windrose.service")?,
        workload: text("windrose.workload"),
        version: text("windrose.version"),
        role: text("windrose.role").and_then(|word| NodeRole::parse(&word)).unwrap_or(NodeRole::Unknown),
        proxy_kind: text("windrose.proxy_kind").and_then(|word| ProxyKind::parse(&word)).unwrap_or(ProxyKind::None),
    })
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    use windrose_proto::Text;
    use windrose_proto::hop::{EntryRoute, Node, Question};
    use windrose_proto::id::TraceId;
    use windrose_proto::normal::{Fact, Link};
    use windrose_proto::time::UnixNanos;

    use super::{read, to_span};

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "cases are made where they are checked")]
    fn check(question: &Question, fact: Fact) {
        let trace = TraceId::new([7; 16]).expect("not zero");
        let (first, second) = (to_span(trace, question, &fact, 1), to_span(trace, question, &fact, 2));
        assert_eq!(read(&first).as_ref(), Some(&fact));
        assert_eq!(first.span_id, second.span_id, "one question is one span");
        assert!(first.duration_nanos() < second.duration_nanos(), "the later answer wins");
    }

    #[test]
    fn a_fact_reads_back_from_its_span() {
        let at = UnixNanos(1_000);
        let ip = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));
        let node = Node { namespace: Some(Text::from_static("shop")), ..Node::unknown() };
        let link = Link {
            trace_id: TraceId::new([9; 16]).expect("not zero"),
            route: Arc::new(EntryRoute { route: Text::from_static("GET /a"), host: None }),
            continues_call: true,
        };
        let whose = Question::Address { ip, at };
        check(&whose, Fact::Address { ip, node: Some(Arc::new(node)) });
        check(&whose, Fact::Address { ip, node: None });
        let which = Question::Entry { request_id: Text::from_static("r"), service: Text::from_static("s"), at };
        check(&which, Fact::Entry { link: Some(Arc::new(link)) });
        check(&which, Fact::Entry { link: None });
    }
}
