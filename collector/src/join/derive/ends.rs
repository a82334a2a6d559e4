//! The two nodes a hop joins (rules T0, T2v, S0–S3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;
use windrose_proto::Text;
use windrose_proto::hop::{Gap, Node, Question};
use windrose_proto::model::{NodeRole, ProxyKind, Vantage};
use windrose_proto::normal::{Destination, Identity, SourceHint};
use windrose_proto::time::UnixNanos;

use super::halves::Pair;
use super::rows::{RowId, Rows};
use crate::normalise::host::HostRules;
use crate::normalise::names::{names_egress, names_ingress};

/// Addresses asked about per trace; one that names more is a scan of the network, not a request.
const QUESTIONS_MAX: usize = 16;

/// Makes nodes, shared within the trace.
#[derive(Debug)]
pub(super) struct Ends<'r, 'a> {
    rows: &'r Rows<'a>,
    hosts: &'r HostRules,
    /// First row of every address that proxies of the trace are known by.
    by_ip: HashMap<IpAddr, RowId>,
    nodes: HashMap<(*const Identity, NodeRole, ProxyKind), Arc<Node>>,
    /// Nodes whose sidecar stands before a gateway (rule R4e).
    fronted: HashSet<u32>,
    /// The nearest row at or above each that is not an egress gateway; empty without one.
    beyond_egress: Vec<Option<RowId>>,
    /// Addresses that only other traces can resolve.
    pub(super) questions: SmallVec<[Question; 1]>,
}

/// The caller's end.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) node: Arc<Node>,
    pub(super) gap: Option<Gap>,
}

// === impl Ends ===

impl<'r, 'a> Ends<'r, 'a> {
    pub(super) fn new(rows: &'r Rows<'a>, hosts: &'r HostRules, fronted: HashSet<u32>) -> Self {
        let mut by_ip = HashMap::new();
        for id in rows.ids() {
            let row = rows.get(id);
            if let Some(ip) = row.identity.ip.filter(|_| matches!(row.kind, ProxyKind::Istio | ProxyKind::Linkerd)) {
                by_ip.entry(ip).or_insert(id);
            }
        }
        Self {
            rows,
            hosts,
            by_ip,
            nodes: HashMap::new(),
            fronted,
            beyond_egress: beyond_egress(rows),
            questions: SmallVec::new(),
        }
    }

    /// The role of the node a row belongs to.
    fn role_of(&self, id: RowId) -> NodeRole {
        let row = self.rows.get(id);
        if row.is_sidecar() && self.fronted.contains(&row.node) { NodeRole::Gateway } else { row.role }
    }

    /// The node a row is.
    pub(super) fn node_of(&mut self, id: RowId) -> Arc<Node> {
        let row = self.rows.get(id);
        let role = self.role_of(id);
        let key = (Arc::as_ptr(&row.identity), role, row.kind);
        let node = self.nodes.entry(key).or_insert_with(|| {
            let identity = &row.identity;
            Arc::new(Node {
                cluster: identity.cluster.clone(),
                namespace: identity.namespace.clone(),
                service: identity.service.clone(),
                workload: identity.workload.clone(),
                version: identity.version.clone(),
                role,
                proxy_kind: row.kind,
            })
        });
        Arc::clone(node)
    }

    /// S0–S3.
    pub(super) fn source(&mut self, pair: &Pair) -> Source {
        let known = |node| Source { node, gap: None };
        if let Some(client) = pair.client.filter(|client| self.rows.get(*client).role != NodeRole::Waypoint) {
            return known(self.node_of(client));
        }
        let Some(entry) = pair.server.or(pair.via) else { return known(Arc::new(Node::unknown())) };
        let row = self.rows.get(entry);
        // What the waypoint says of the source beats what the callee says.
        let hints = [pair.via, pair.server].into_iter().flatten().map(|id| &self.rows.get(id).span.source);
        let mut hints = hints.flatten();
        if let Some(SourceHint::Workload { service, namespace, .. }) =
            hints.clone().find(|hint| matches!(hint, SourceHint::Workload { .. }))
        {
            return known(Arc::new(named_node(service.clone(), namespace.clone(), NodeRole::App)));
        }
        let caller_ip = hints.find_map(|hint| match hint {
            SourceHint::Address { ip, .. } => Some(*ip),
            SourceHint::Workload { .. } => None,
        });
        let by_ip = caller_ip.and_then(|ip| self.by_ip.get(&ip).copied());
        if let Some(caller) = by_ip.filter(|caller| !self.rows.same_node(*caller, entry)) {
            return known(self.node_of(caller));
        }
        if let Some(owner) = caller_ip.and_then(|ip| self.owner(ip, row.span.start)) {
            let is_own = owner.service == row.identity.service && owner.namespace == row.identity.namespace;
            if !is_own {
                return known(owner);
            }
        }
        let is_public = caller_ip.is_some_and(|ip| !self.is_internal_ip(ip));
        if (row.role != NodeRole::Egress && is_public) || self.role_of(entry) == NodeRole::Gateway {
            return known(Arc::new(Node::client()));
        }
        if let Some(node) = self.announced(entry) {
            return known(Arc::new(node));
        }
        let gap = if row.misses_parent() { Gap::ParentNeverReceived } else { Gap::UnknownPeer };
        Source { node: Arc::new(Node::unknown()), gap: Some(gap) }
    }

    /// S4: whose address another trace says this was.
    fn owner(&mut self, ip: IpAddr, at: UnixNanos) -> Option<Arc<Node>> {
        // Nobody in the mesh has a public address, and every process has the loopback one.
        if !self.is_internal_ip(ip) || ip == IpAddr::V4(Ipv4Addr::LOCALHOST) || ip == IpAddr::V6(Ipv6Addr::LOCALHOST) {
            return None;
        }
        let is_asked = |question: &Question| matches!(question, Question::Address { ip: known, .. } if *known == ip);
        match self.questions.iter().position(is_asked) {
            Some(place) => {
                if let Question::Address { at: earliest, .. } = &mut self.questions[place] {
                    *earliest = at.min(*earliest);
                }
            }
            None if self.questions.len() < QUESTIONS_MAX => self.questions.push(Question::Address { ip, at }),
            None => {}
        }
        self.rows.owner_of(ip).map(Arc::clone)
    }

    /// S1b: the caller's Envoy announces its own service.
    fn announced(&self, entry: RowId) -> Option<Node> {
        let row = self.rows.get(entry);
        let name = row.span.hints.as_ref()?.downstream_cluster.as_ref()?;
        let (service, namespace) = match name.rsplit_once('.') {
            Some((service, namespace)) => (service, Some(namespace.into())),
            None => (&**name, None),
        };
        if service == &*row.identity.service {
            return None;
        }
        let role = match () {
            () if names_egress(service) => NodeRole::Egress,
            () if names_ingress(service) => NodeRole::Gateway,
            () => NodeRole::App,
        };
        Some(named_node(service.into(), namespace, role))
    }

    /// T0: the callee's own word, else what the caller calls it.
    pub(super) fn destination(&mut self, pair: &Pair) -> Arc<Node> {
        let subset = [pair.via, pair.client].into_iter().flatten().find_map(|id| {
            let row = self.rows.get(id);
            row.destination.as_ref().and_then(|destination| destination.subset.clone())
        });
        if let Some(server) = pair.server {
            let node = self.node_of(server);
            // T2v: the subset stands in for the version of a silent application, never of a proxy
            // in between.
            let stands_in = node.version.is_none() && matches!(node.role, NodeRole::App | NodeRole::Sidecar);
            return match subset.filter(|_| stands_in) {
                Some(version) => Arc::new(Node { version: Some(version), ..(*node).clone() }),
                None => node,
            };
        }
        let named = pair
            .inferred
            .clone()
            .or_else(|| pair.via.and_then(|via| self.rows.get(via).destination.clone()))
            .or_else(|| pair.client.and_then(|client| self.rows.get(client).destination.clone()));
        match named {
            Some(destination) => Arc::new(self.silent_node(pair, &destination)),
            None => pair
                .client
                .and_then(|client| self.asked_host(client))
                .map_or_else(|| Arc::new(Node::unknown()), Arc::new),
        }
    }

    /// A node known only by what its caller calls it.
    fn silent_node(&mut self, pair: &Pair, destination: &Destination) -> Node {
        let is_nameless = !destination.external && destination.service.parse::<IpAddr>().is_ok();
        if let Some(ip) = destination.ip.filter(|_| is_nameless) {
            // T8: only its address is known here; elsewhere it says whose that is.
            let at = pair.client.map_or(UnixNanos(0), |client| self.rows.get(client).span.start);
            if let Some(owner) = self.owner(ip, at) {
                return Node::clone(&owner);
            }
        }
        let is_egress = !destination.external && pair.client.is_some() && names_egress(&destination.service);
        let role = match () {
            () if destination.external => NodeRole::External,
            () if is_egress => NodeRole::Egress,
            () => NodeRole::App,
        };
        let caller_cluster = pair.client.and_then(|client| self.rows.get(client).identity.cluster.clone());
        Node {
            cluster: caller_cluster.filter(|_| !destination.external),
            version: destination.subset.clone().filter(|_| role == NodeRole::App),
            ..named_node(destination.service.clone(), destination.namespace.clone(), role)
        }
    }

    /// T7: a sidecar without a route knows at least which host its application asked for.
    fn asked_host(&self, client: RowId) -> Option<Node> {
        let row = self.rows.get(client);
        let host = row.span.host.as_ref().filter(|_| row.is_sidecar() && row.vantage != Vantage::Upstream)?;
        let named = self.hosts.service_of(host);
        let role = if self.hosts.is_internal(host) { NodeRole::App } else { NodeRole::External };
        Some(named_node(named.service.map_or_else(|| host.clone(), Into::into), named.namespace.map(Into::into), role))
    }

    /// On whose behalf an egress gateway called.
    pub(super) fn origin(&mut self, client: RowId) -> Option<Arc<Node>> {
        let origin = (*self.beyond_egress.get(client as usize)?)?;
        Some(self.node_of(origin))
    }

    fn is_internal_ip(&self, ip: IpAddr) -> bool {
        self.hosts.internal_cidrs.iter().any(|range| range.contains(ip)) || crate::normalise::host::is_private_ip(ip)
    }
}

fn named_node(service: Text, namespace: Option<Text>, role: NodeRole) -> Node {
    Node { cluster: None, namespace, service, workload: None, version: None, role, proxy_kind: ProxyKind::None }
}

fn beyond_egress(rows: &Rows<'_>) -> Vec<Option<RowId>> {
    if !rows.rows.iter().any(|row| row.role == NodeRole::Egress) {
        return Vec::new();
    }
    let mut beyond: Vec<Option<RowId>> = vec![None; rows.len()];
    for id in &rows.order {
        let row = rows.get(*id);
        beyond[*id as usize] = if row.role == NodeRole::Egress {
            row.parent.and_then(|parent| beyond[parent as usize])
        } else {
            Some(*id)
        };
    }
    beyond
}
