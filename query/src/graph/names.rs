//! Which rollup nodes are one node.
//!
//! Reporters know different amounts about the same service: a sidecar names cluster, namespace,
//! workload and version, a caller's cluster name only namespace and service, an application often
//! just the service. A part that is missing is taken from the only other node that has it; when two
//! candidates exist the node stays apart, because merging would be a guess.

use std::collections::BTreeMap;
use std::fmt;

use windrose_proto::Text;
use windrose_proto::edge::{EdgeKey, EdgeRow};
use windrose_proto::hop::{CLIENT_NODE, Node, UNKNOWN_NODE};
use windrose_proto::model::NodeRole;
use windrose_store::edge_sums::{Detail, EdgeSums};

/// What a node of the answer stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    #[default]
    Service,
    Workload,
    Version,
}

impl Scope {
    /// From the parameter's words.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "service" => Some(Self::Service),
            "workload" => Some(Self::Workload),
            "version" => Some(Self::Version),
            _ => None,
        }
    }
}

/// A node of an answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    pub cluster: Option<Text>,
    pub namespace: Option<Text>,
    pub name: Text,
    /// Workload or version, by scope.
    pub part: Option<Text>,
}

impl fmt::Display for NodeId {
    /// `cluster/namespace/name@part`, leaving out what is not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cluster) = &self.cluster {
            write!(f, "{cluster}/")?;
        }
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)?;
        self.part.as_ref().map_or(Ok(()), |part| write!(f, "@{part}"))
    }
}

impl NodeId {
    /// Whether `text` names this node: its full id, `namespace/name`, or just its name.
    #[must_use]
    pub fn is_named(&self, text: &str) -> bool {
        if text == &*self.name || text == self.to_string() {
            return true;
        }
        let Some((namespace, name)) = text.rsplit_once('/') else { return false };
        name == &*self.name && self.namespace.as_deref() == Some(namespace)
    }
}

/// Resolves rollup nodes to nodes of the answer.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// For each service: the (cluster, namespace) pairs it was seen with.
    known: BTreeMap<Text, Vec<Place>>,
}

/// Cluster and namespace.
type Place = (Option<Text>, Option<Text>);

impl Names {
    /// Learns from both ends of all edges.
    pub(super) fn of_keys<'a>(keys: impl Iterator<Item = &'a EdgeKey>) -> Self {
        let mut known: BTreeMap<Text, Vec<Place>> = BTreeMap::new();
        for node in keys.flat_map(|key| [key.source.as_ref(), key.destination.as_ref()]) {
            let places = known.entry(node.service.clone()).or_default();
            let place = (node.cluster.clone(), node.namespace.clone());
            if !places.contains(&place) {
                places.push(place);
            }
        }
        Self { known }
    }

    /// The node of the answer that `node` belongs to.
    pub(super) fn resolve(&self, node: &Node, scope: Scope) -> NodeId {
        let (cluster, namespace) = self.place(node);
        let part = match scope {
            Scope::Service => None,
            Scope::Workload => node.workload.clone(),
            Scope::Version => node.version.clone(),
        };
        NodeId { cluster, namespace, name: node.service.clone(), part }
    }

    fn place(&self, node: &Node) -> Place {
        let own = (node.cluster.clone(), node.namespace.clone());
        let reserved = &*node.service == CLIENT_NODE || &*node.service == UNKNOWN_NODE;
        if reserved || node.role == NodeRole::External {
            return own;
        }
        let places = self.known.get(&node.service).map_or(&[][..], Vec::as_slice);
        let fits = |place: &&Place| (own.0.is_none() || own.0 == place.0) && (own.1.is_none() || own.1 == place.1);
        let fullness = |place: &Place| u8::from(place.0.is_some()) + u8::from(place.1.is_some());
        let fullest = places.iter().filter(fits).map(fullness).max().unwrap_or(0);
        let mut candidates = places.iter().filter(fits).filter(|place| fullness(place) == fullest);
        match (candidates.next(), candidates.next()) {
            (Some(only), None) => only.clone(),
            _ => own,
        }
    }
}

/// Resolves the nodes of single rows to nodes of the service graph.
#[derive(Debug)]
pub struct Resolver(Names);

impl Resolver {
    /// Learns from all rows of the window, so that it resolves as [`super::Graph::build`] does.
    #[must_use]
    pub fn learn(rows: &[EdgeRow]) -> Self {
        Self::of(&EdgeSums::of(rows, Detail::Calls))
    }

    /// Learns from what was added up, so that it resolves as [`super::Graph::of`] does.
    #[must_use]
    pub fn of(sums: &EdgeSums) -> Self {
        Self::of_keys(sums.edges().map(|edge| &*edge.key))
    }

    /// Learns from the edges that there are.
    pub fn of_keys<'k>(keys: impl Iterator<Item = &'k EdgeKey>) -> Self {
        Self(Names::of_keys(keys))
    }

    /// The node of the service graph.
    #[must_use]
    pub fn resolve(&self, node: &Node) -> NodeId {
        self.0.resolve(node, Scope::Service)
    }
}
