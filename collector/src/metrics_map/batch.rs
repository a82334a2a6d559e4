//! An observation as it is written into the log: ends made nodes, and the direction of each edge
//! (rules D).

use windrose_proto::Text;
use windrose_proto::hop::{CLIENT_NODE, UNKNOWN_NODE};
use windrose_proto::model::{Direction, NodeRole, ProxyKind, Reporters};
use windrose_proto::normal::Identity;
use windrose_proto::wire;

use super::{CounterDelta, Observation, Peer, PeerNode, TargetIdentity};
use crate::normalise::names::names_egress;
use crate::normalise::overrides::Overrides;

/// Turns what a page told into the record of the log. `None` when there is nothing to tell.
#[must_use]
pub fn batch(
    identity: &TargetIdentity,
    observation: &Observation,
    overrides: &Overrides,
) -> Option<wire::CounterBatch> {
    let edges: Vec<wire::EdgeCounters> =
        observation.edges.iter().filter_map(|delta| edge(identity, delta, overrides)).collect();
    let proxy_spans = proxy_spans(identity, observation, overrides);
    let is_empty = edges.is_empty() && proxy_spans.is_none();
    (!is_empty).then(|| wire::CounterBatch { edges, proxy_spans: proxy_spans.into_iter().collect() })
}

fn proxy_spans(
    identity: &TargetIdentity,
    observation: &Observation,
    overrides: &Overrides,
) -> Option<wire::ProxySpans> {
    let proxy = observation.proxy;
    let sent = proxy.spans_sent?;
    let interval = observation.interval?;
    let node = renamed(own_node(identity, observation.proxy_kind), overrides);
    Some(wire::ProxySpans {
        node: Some(node),
        pod: identity.pod.as_deref().unwrap_or_default().to_owned(),
        interval_end_unix_nano: interval.end().0,
        sent,
        dropped: proxy.spans_dropped.unwrap_or(0),
    })
}

fn edge(identity: &TargetIdentity, delta: &CounterDelta, overrides: &Overrides) -> Option<wire::EdgeCounters> {
    let source = overridden(resolve(identity, delta, &delta.source)?, overrides);
    let destination = overridden(resolve(identity, delta, &delta.destination)?, overrides);
    let direction = direction(&source, &destination);
    let counts = &delta.counts;
    let by_code = counts.by_code.iter().map(|(code, count)| (code.to_string(), *count)).collect();
    Some(wire::EdgeCounters {
        direction: direction.as_str().to_owned(),
        protocol: delta.protocol.as_str().to_owned(),
        client_side: delta.reporter == Reporters::Client,
        interval_start_unix_nano: delta.interval.start().0,
        interval_end_unix_nano: delta.interval.end().0,
        calls: counts.calls(),
        attempts: counts.attempts,
        by_code,
        errors: counts.errors,
        retries: counts.retries,
        retries_succeeded: counts.retries_succeeded,
        retries_exhausted: counts.retries_exhausted,
        timeouts: counts.timeouts,
        circuit_rejected: counts.circuit_rejected,
        connect_failures: counts.connect_failures,
        resets: counts.resets,
        ejections: counts.ejections,
        bytes_sent: counts.bytes_sent,
        bytes_received: counts.bytes_received,
        tls_mutual: counts.tls_mutual,
        tls_known: counts.tls_known,
        source: Some(source.node),
        destination: Some(destination.node),
    })
}

/// An end of an edge with what the direction depends on.
struct End {
    node: wire::Node,
    role: Option<NodeRole>,
    is_external: bool,
    is_known: bool,
}

/// `None` where nobody is named and nothing is known of the caller either: the callers' own
/// counters tell of these requests, and an edge from nowhere would tell them twice.
fn resolve(identity: &TargetIdentity, delta: &CounterDelta, peer: &Peer) -> Option<End> {
    let node = match peer {
        Peer::Node(node) => node,
        Peer::Caller => return caller(identity, delta),
    };
    let is_own = is_target(identity, node);
    let own_role = identity.role.or_else(|| natural_role(delta.proxy_kind)).filter(|_| is_own);
    let role = node.role.or(own_role).or_else(|| names_egress(&node.service).then_some(NodeRole::Egress));
    let is_external = node.external == Some(true);
    let role_text = if is_external { Some(NodeRole::External) } else { role };
    let wire_node = wire::Node {
        cluster: text(node.cluster.as_ref()),
        namespace: text(node.namespace.as_ref()),
        service: node.service.to_string(),
        workload: text(node.workload.as_ref()),
        version: text(node.version.as_ref()),
        role: role_text.map(|role| role.as_str().to_owned()).unwrap_or_default(),
        proxy_kind: if is_own { delta.proxy_kind.as_str().to_owned() } else { String::new() },
    };
    Some(End { node: wire_node, role: role_text, is_external, is_known: true })
}

/// Under the name and in the role the operator gave it; both come before every rule.
fn overridden(mut end: End, overrides: &Overrides) -> End {
    if let Some(role) = overrides.role_of(&end.node.service) {
        end.role = Some(role);
        end.is_external = role == NodeRole::External;
    }
    end.node = renamed(end.node, overrides);
    end
}

fn renamed(mut node: wire::Node, overrides: &Overrides) -> wire::Node {
    if let Some(role) = overrides.role_of(&node.service) {
        role.as_str().clone_into(&mut node.role);
    }
    let namespace = Some(node.namespace).filter(|namespace| !namespace.is_empty());
    let identity =
        Identity { service: Text::from(node.service), namespace: namespace.map(Text::from), ..Identity::default() };
    let identity = overrides.rename(identity);
    wire::Node { service: identity.service.to_string(), namespace: text(identity.namespace.as_ref()), ..node }
}

/// Whether a named end is the scraped target itself: Istio's series name it like any other.
fn is_target(identity: &TargetIdentity, node: &PeerNode) -> bool {
    let same_namespace = match (&identity.namespace, &node.namespace) {
        (Some(own), Some(named)) => own == named,
        _ => true,
    };
    node.service == identity.service && same_namespace
}

/// Whoever called: the outside for a gateway. Istio's own series say outright that the caller is
/// unknown, and then it is a caller without a sidecar, which belongs into the picture.
fn caller(identity: &TargetIdentity, delta: &CounterDelta) -> Option<End> {
    let role = identity.role.or_else(|| natural_role(delta.proxy_kind));
    let reserved = |name: &str, role: NodeRole, is_external| End {
        node: wire::Node { service: name.to_owned(), role: role.as_str().to_owned(), ..wire::Node::default() },
        role: Some(role),
        is_external,
        is_known: false,
    };
    match role {
        Some(NodeRole::Gateway) => Some(reserved(CLIENT_NODE, NodeRole::External, true)),
        _ if delta.says_unknown_caller => Some(reserved(UNKNOWN_NODE, NodeRole::Unknown, false)),
        _ => None,
    }
}

/// What a proxy that nobody describes usually is.
const fn natural_role(kind: ProxyKind) -> Option<NodeRole> {
    match kind {
        ProxyKind::EnvoyGateway
        | ProxyKind::Kgateway
        | ProxyKind::Contour
        | ProxyKind::Agentgateway
        | ProxyKind::Kong
        | ProxyKind::Apisix
        | ProxyKind::Traefik
        | ProxyKind::Nginx
        | ProxyKind::Haproxy
        | ProxyKind::Caddy
        | ProxyKind::SpringCloudGateway
        | ProxyKind::Zuul => Some(NodeRole::Gateway),
        ProxyKind::Linkerd | ProxyKind::Consul | ProxyKind::AppMesh => Some(NodeRole::Sidecar),
        ProxyKind::Istio | ProxyKind::Envoy | ProxyKind::None => None,
    }
}

/// Rules D1–D9 with the roles that labels and names give.
fn direction(source: &End, destination: &End) -> Direction {
    if source.is_external {
        Direction::NorthSouth
    } else if destination.is_external || [source, destination].iter().any(|end| end.role == Some(NodeRole::Egress)) {
        Direction::Egress
    } else if source.role == Some(NodeRole::Gateway) || destination.role == Some(NodeRole::Gateway) && !source.is_known
    {
        Direction::NorthSouth
    } else if source.is_known && destination.is_known {
        Direction::EastWest
    } else {
        Direction::Unknown
    }
}

fn own_node(identity: &TargetIdentity, kind: ProxyKind) -> wire::Node {
    let role = identity.role.or_else(|| natural_role(kind));
    wire::Node {
        cluster: text(identity.cluster.as_ref()),
        namespace: text(identity.namespace.as_ref()),
        service: identity.service.to_string(),
        workload: text(identity.workload.as_ref()),
        version: text(identity.version.as_ref()),
        role: role.map(|role| role.as_str().to_owned()).unwrap_or_default(),
        proxy_kind: kind.as_str().to_owned(),
    }
}

fn text(text: Option<&Text>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}
