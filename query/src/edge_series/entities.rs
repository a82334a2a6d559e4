//! Which series a rollup row belongs to.

use hashbrown::HashMap;
use windrose_proto::edge::{EdgeKey, EdgeRow};
use windrose_proto::hop::{CLIENT_NODE, Entry, Node};
use windrose_proto::model::{Direction, NodeRole, Protocol};
use windrose_store::edge_sums::is_entry_edge;

use crate::graph::{NodeId, Resolver};
use crate::topology::edge_id;

/// What a family is about; each has its own labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Group {
    /// One edge of the topology.
    Edge,
    /// A public route where it enters.
    Route,
    /// A public route's calls on an edge behind the gateway.
    RouteEdge,
    /// A host outside × caller × gateway × route.
    Egress,
    /// An edge in the words of Tempo's service graph.
    ServiceGraph,
    /// A service's work for a route in the words of Tempo's span metrics.
    SpanServer,
    /// The same for what a service calls.
    SpanClient,
}

/// Labels by name, in any order.
pub(super) type Pairs = Vec<(&'static str, String)>;

/// The series of one group that the rows of a selection belong to.
#[derive(Debug)]
pub(super) struct Entities<'r> {
    group: Group,
    resolver: &'r Resolver,
    of_key: HashMap<&'r EdgeKey, Option<usize>>,
    index: HashMap<Pairs, usize>,
}

impl<'r> Entities<'r> {
    pub(super) fn new(group: Group, resolver: &'r Resolver) -> Self {
        Self { group, resolver, of_key: HashMap::new(), index: HashMap::new() }
    }

    /// The number of the row's entity; `None` when the group has none for it.
    pub(super) fn of(&mut self, row: &'r EdgeRow) -> Option<usize> {
        let key: &'r EdgeKey = &row.key;
        if let Some(known) = self.of_key.get(key) {
            return *known;
        }
        let entity = labels(self.group, key, self.resolver).map(|pairs| {
            let next = self.index.len();
            *self.index.entry(pairs).or_insert(next)
        });
        self.of_key.insert(key, entity);
        entity
    }

    /// The labels of all entities, by number.
    pub(super) fn into_labels(self) -> Vec<Pairs> {
        let mut labels: Vec<_> = self.index.into_iter().collect();
        labels.sort_unstable_by_key(|(_, number)| *number);
        labels.into_iter().map(|(pairs, _)| pairs).collect()
    }
}

fn labels(group: Group, key: &EdgeKey, resolver: &Resolver) -> Option<Pairs> {
    if key.direction == Direction::Local {
        return None;
    }
    match group {
        Group::Edge => Some(edge(key, resolver)),
        Group::Route => route(key, resolver),
        Group::RouteEdge => route_edge(key, resolver),
        Group::Egress => egress(key, resolver),
        Group::ServiceGraph => Some(service_graph(key, resolver)),
        Group::SpanServer => span(key, resolver, &key.destination, "SPAN_KIND_SERVER"),
        Group::SpanClient => span(key, resolver, &key.source, "SPAN_KIND_CLIENT"),
    }
}

fn namespace(id: &NodeId) -> String {
    id.namespace.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn edge(key: &EdgeKey, resolver: &Resolver) -> Pairs {
    let (source, target) = (resolver.resolve(&key.source), resolver.resolve(&key.destination));
    vec![
        ("edge", edge_id(&source, &target)),
        ("source", source.to_string()),
        ("source_namespace", namespace(&source)),
        ("target", target.to_string()),
        ("target_namespace", namespace(&target)),
        ("direction", key.direction.as_str().to_owned()),
    ]
}

/// Route and host, when the entry is known.
fn entry(key: &EdgeKey) -> Option<[(&'static str, String); 2]> {
    let Some(Entry::Route(route)) = &key.entry else { return None };
    Some([
        ("route", route.route.to_string()),
        ("host", route.host.as_ref().map(ToString::to_string).unwrap_or_default()),
    ])
}

fn route(key: &EdgeKey, resolver: &Resolver) -> Option<Pairs> {
    if !is_entry_edge(key) {
        return None;
    }
    let mut pairs = Vec::from(entry(key)?);
    pairs.push(("gateway", resolver.resolve(&key.destination).to_string()));
    Some(pairs)
}

fn route_edge(key: &EdgeKey, resolver: &Resolver) -> Option<Pairs> {
    if is_entry_edge(key) {
        return None;
    }
    let mut pairs = Vec::from(entry(key)?);
    pairs.push(("source", resolver.resolve(&key.source).to_string()));
    pairs.push(("target", resolver.resolve(&key.destination).to_string()));
    pairs.push(("direction", key.direction.as_str().to_owned()));
    Some(pairs)
}

/// As `/api/v1/egress` tells them apart: the leg to an egress gateway is not yet outside.
fn egress(key: &EdgeKey, resolver: &Resolver) -> Option<Pairs> {
    if key.direction != Direction::Egress || key.destination.role == NodeRole::Egress {
        return None;
    }
    let source = resolver.resolve(&key.source);
    let (caller, gateway) = if key.source.role == NodeRole::Egress {
        (key.origin.as_deref().map(|origin| resolver.resolve(origin).to_string()), source.to_string())
    } else {
        (Some(source.to_string()), String::new())
    };
    let route = match &key.entry {
        Some(Entry::Route(route)) => route.route.to_string(),
        Some(Entry::Unknown(_)) | None => String::new(),
    };
    Some(vec![
        ("host", resolver.resolve(&key.destination).to_string()),
        ("caller", caller.unwrap_or_default()),
        ("gateway", gateway),
        ("route", route),
    ])
}

/// The names that Grafana asks for by heart. What no tracer reports from inside is a `virtual_node`.
fn service_graph(key: &EdgeKey, resolver: &Resolver) -> Pairs {
    let (client, server) = (resolver.resolve(&key.source), resolver.resolve(&key.destination));
    let outside = key.source.role == NodeRole::External || key.destination.role == NodeRole::External;
    let connection = match key.protocol {
        _ if outside => "virtual_node",
        Protocol::Messaging => "messaging_system",
        _ => "",
    };
    vec![
        ("client", tempo_name(&client)),
        ("client_service_namespace", namespace(&client)),
        ("server", tempo_name(&server)),
        ("server_service_namespace", namespace(&server)),
        ("connection_type", connection.to_owned()),
    ]
}

/// Tempo calls whoever sends the first request `user`.
fn tempo_name(id: &NodeId) -> String {
    if &*id.name == CLIENT_NODE { "user".to_owned() } else { id.name.to_string() }
}

fn span(key: &EdgeKey, resolver: &Resolver, node: &Node, kind: &str) -> Option<Pairs> {
    if node.role == NodeRole::External {
        return None;
    }
    let name = match key.entry.as_ref()? {
        Entry::Route(route) => route.route.to_string(),
        Entry::Unknown(gap) => format!("({})", gap.as_str()),
    };
    let id = resolver.resolve(node);
    Some(vec![
        ("service", id.name.to_string()),
        ("service_namespace", namespace(&id)),
        ("span_name", name),
        ("span_kind", kind.to_owned()),
    ])
}
