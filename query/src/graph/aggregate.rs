//! Sums of rollup rows → graph.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};

use windrose_proto::Text;
use windrose_proto::edge::{CounterStats, EdgeKey, EdgeRow, EdgeStats};
use windrose_proto::hop::{Entry, Gap, Node, UNKNOWN_NODE};
use windrose_proto::model::{Direction, NodeRole, Protocol, ProxyKind};
use windrose_store::edge_sums::{Detail, EdgeSum, EdgeSums, EntryCalls, is_entry_edge};

use super::names::{Names, NodeId, Scope};
use super::routes::{RouteId, Routes};
use super::unsplit;
use crate::sampling::Estimate;

/// Where a number of calls comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeSource {
    /// Unsampled counters of the proxies.
    Counter,
    /// Joined spans.
    Spans,
}

/// How many calls, and according to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    pub calls: i64,
    pub source: VolumeSource,
}

/// One node with what was learned about it.
#[derive(Clone, Debug)]
pub struct NodeTotals {
    pub role: NodeRole,
    pub proxy_kind: ProxyKind,
    pub versions: BTreeMap<Text, i64>,
    pub workloads: BTreeMap<Text, i64>,
    /// Over all edges of the window, also those a selection leaves out.
    pub received: Traffic,
    pub sent: Traffic,
}

/// Calls in one direction of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    pub calls: i64,
    pub errors: f64,
}

/// One route's part of an edge.
#[derive(Clone, Debug, Default)]
pub struct RouteTotals {
    pub spans: EntryCalls,
    /// How many calls that makes without sampling; see [`crate::sampling`].
    pub corrected: Option<Estimate>,
}

/// One edge: all its rows merged.
#[derive(Clone, Debug, Default)]
pub struct EdgeTotals {
    pub stats: EdgeStats,
    pub directions: BTreeMap<Direction, i64>,
    pub protocols: BTreeMap<Protocol, i64>,
    /// Calls by version of the destination, by spans.
    pub versions: BTreeMap<Text, i64>,
    /// The same by counters.
    pub counted_versions: CountedVersions,
    pub routes: BTreeMap<RouteId, RouteTotals>,
    /// Calls whose entry is unknown, by reason.
    pub gaps: BTreeMap<Gap, i64>,
    /// How many calls there were without sampling; see [`crate::sampling`].
    pub corrected: Option<Estimate>,
}

/// Calls by version of the destination, apart for the two proxies that count them.
#[derive(Clone, Debug, Default)]
pub struct CountedVersions {
    client: BTreeMap<Text, i64>,
    server: BTreeMap<Text, i64>,
}

impl CountedVersions {
    fn add(&mut self, version: &Text, stats: &EdgeStats) {
        for (side, counters) in [(&mut self.client, &stats.client_counters), (&mut self.server, &stats.server_counters)]
        {
            if counters.calls > 0 {
                *side.entry(version.clone()).or_default() += counters.calls;
            }
        }
    }

    fn merge(&mut self, other: Self) {
        for (side, other) in [(&mut self.client, other.client), (&mut self.server, other.server)] {
            for (version, calls) in other {
                *side.entry(version).or_default() += calls;
            }
        }
    }
}

/// Nodes and edges of one scope.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub nodes: BTreeMap<NodeId, NodeTotals>,
    pub edges: BTreeMap<(NodeId, NodeId), EdgeTotals>,
    /// The public routes of all edges.
    pub routes: Routes,
    /// Requests by public route, counted where they entered.
    pub requests: BTreeMap<RouteId, i64>,
}

impl Graph {
    /// The graph of some rollup rows.
    #[must_use]
    pub fn build(rows: &[EdgeRow], scope: Scope) -> Self {
        Self::of(&EdgeSums::of(rows, Detail::Calls), scope)
    }

    /// The graph of what was added up.
    #[must_use]
    pub fn of(sums: &EdgeSums, scope: Scope) -> Self {
        let mut edges: Vec<&EdgeSum> = sums.edges().collect();
        edges.sort_unstable_by(|left, right| left.key.cmp(&right.key));
        let names = Names::of_keys(edges.iter().map(|edge| &*edge.key));
        let (routes, numbers) = Routes::of(sums);
        let mut graph = Self { routes, ..Self::default() };
        let mut roles = Roles::new();
        for edge in edges {
            let EdgeSum { key, stats, .. } = edge;
            let source = names.resolve(&key.source, scope);
            let destination = names.resolve(&key.destination, scope);
            graph.note_node(&source, &key.source, 0, &mut roles);
            graph.note_node(&destination, &key.destination, stats.spans.calls, &mut roles);
            let totals = graph.edges.entry((source, destination)).or_default();
            totals.add(key, stats);
            for (entry, calls) in sums.entries_of(edge) {
                match entry {
                    Entry::Unknown(gap) => *totals.gaps.entry(*gap).or_default() += calls.calls,
                    Entry::Route(route) => {
                        let id = numbers.of(route);
                        totals.routes.entry(id).or_default().spans.merge(calls);
                        if is_entry_edge(key) {
                            *graph.requests.entry(id).or_default() += calls.calls;
                        }
                    }
                }
            }
        }
        graph.settle_roles(roles);
        graph.name_unknown_callers();
        if scope != Scope::Service {
            unsplit::take_out_parts(&mut graph.edges);
            graph.drop_nodes_without_edges();
        }
        graph.sum_traffic();
        graph
    }

    /// A callee that counts an unknown caller was called by somebody without a sidecar. When there
    /// is exactly one caller whom the callee counts by no name, it is that one; with two it would be
    /// a guess.
    fn name_unknown_callers(&mut self) {
        let is_counted_only =
            |edge: &EdgeTotals| edge.stats.spans.is_absent() && edge.stats.client_counters.is_absent();
        let is_nameless = |edge: &EdgeTotals| edge.stats.server_counters.is_absent();
        let unknown: Vec<(NodeId, NodeId)> = self
            .edges
            .iter()
            .filter(|((source, _), edge)| &*source.name == UNKNOWN_NODE && is_counted_only(edge))
            .map(|(ends, _)| ends.clone())
            .collect();
        for ends in unknown {
            let known = |(source, target): &(NodeId, NodeId)| &*source.name != UNKNOWN_NODE && *target == ends.1;
            let mut callers = self.edges.iter().filter(|(other, edge)| known(other) && is_nameless(edge));
            let (Some((caller, _)), None) = (callers.next(), callers.next()) else { continue };
            let caller = caller.clone();
            let Some(counted) = self.edges.remove(&ends) else { continue };
            let edge = self.edges.entry(caller).or_default();
            edge.stats.merge(&counted.stats);
            edge.counted_versions.merge(counted.counted_versions);
        }
        self.drop_nodes_without_edges();
    }

    fn drop_nodes_without_edges(&mut self) {
        let ends: HashSet<&NodeId> = self.edges.keys().flat_map(|(source, target)| [source, target]).collect();
        self.nodes.retain(|id, _| ends.contains(id));
    }

    fn sum_traffic(&mut self) {
        for ((source, destination), edge) in &self.edges {
            let calls = edge.volume().calls;
            let errors = edge.error_ratio().map_or(0.0, |(ratio, _)| ratio * calls as f64);
            let mut book = |id: &NodeId, of: fn(&mut NodeTotals) -> &mut Traffic| {
                if let Some(node) = self.nodes.get_mut(id) {
                    let traffic = of(node);
                    traffic.calls += calls;
                    traffic.errors += errors;
                }
            };
            book(source, |node| &mut node.sent);
            book(destination, |node| &mut node.received);
        }
    }

    /// Makes sure that a node is there, with or without traffic.
    pub fn add_node(&mut self, id: NodeId, role: NodeRole, proxy_kind: ProxyKind) -> &mut NodeTotals {
        let fresh = || NodeTotals {
            role,
            proxy_kind,
            versions: BTreeMap::new(),
            workloads: BTreeMap::new(),
            received: Traffic::default(),
            sent: Traffic::default(),
        };
        self.nodes.entry(id).or_insert_with(fresh)
    }

    fn note_node(&mut self, id: &NodeId, node: &Node, calls: i64, roles: &mut Roles) {
        let totals = self.add_node(id.clone(), node.role, node.proxy_kind);
        // A row counts even when only counters or callers name the node.
        *roles.entry(id.clone()).or_default().entry(node.role).or_default() += calls.max(0) + 1;
        if totals.proxy_kind == ProxyKind::None {
            totals.proxy_kind = node.proxy_kind;
        }
        for (counts, part) in [(&mut totals.versions, &node.version), (&mut totals.workloads, &node.workload)] {
            if let Some(part) = part {
                *counts.entry(part.clone()).or_default() += calls;
            }
        }
    }

    /// The role of a node is what most of its traffic says: a single odd trace must not turn a
    /// sidecar into a gateway.
    fn settle_roles(&mut self, roles: Roles) {
        for (id, weights) in roles {
            let best = weights
                .into_iter()
                .min_by_key(|(role, weight)| (role_class(*role), std::cmp::Reverse(*weight), role_rank(*role)));
            if let (Some(node), Some((role, _))) = (self.nodes.get_mut(&id), best) {
                node.role = role;
            }
        }
    }
}

/// How much traffic says that a node has a role.
type Roles = HashMap<NodeId, BTreeMap<NodeRole, i64>>;

/// What a proxy says of itself beats what its callers can see, however many they are. Lower wins.
const fn role_class(role: NodeRole) -> u8 {
    match role {
        NodeRole::App => 1,
        NodeRole::External => 2,
        NodeRole::Unknown => 3,
        _ => 0,
    }
}

/// Which of two roles with the same weight describes a node best. Lower wins.
const fn role_rank(role: NodeRole) -> u8 {
    match role {
        NodeRole::Gateway => 0,
        NodeRole::Egress => 1,
        NodeRole::Eastwest => 2,
        NodeRole::Waypoint => 3,
        NodeRole::NodeProxy => 4,
        NodeRole::Sidecar => 5,
        NodeRole::App => 6,
        NodeRole::External => 7,
        NodeRole::Unknown => 8,
    }
}

impl EdgeTotals {
    fn add(&mut self, key: &EdgeKey, stats: &EdgeStats) {
        self.stats.merge(stats);
        // Attempts weigh more than counters: what spans say about direction and protocol is
        // observed, what a counter's key says is inferred from names.
        let weight = stats.spans.attempts.saturating_mul(1_000) + stats.client_counters.calls.min(1);
        *self.directions.entry(key.direction).or_default() += weight;
        if key.protocol != Protocol::Unknown {
            *self.protocols.entry(key.protocol).or_default() += weight;
        }
        if let Some(version) = &key.destination.version {
            *self.versions.entry(version.clone()).or_default() += stats.spans.calls;
            self.counted_versions.add(version, stats);
        }
    }

    /// The direction most of the edge's traffic was seen in.
    #[must_use]
    pub fn direction(&self) -> Direction {
        heaviest(&self.directions).unwrap_or(Direction::Unknown)
    }

    /// The protocol most of the edge's traffic was seen with.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        heaviest(&self.protocols).unwrap_or(Protocol::Unknown)
    }

    /// Counters of the caller's proxy, or of the callee's when the caller is not scraped. Never the
    /// sum: both describe the same traffic.
    #[must_use]
    pub fn counters(&self) -> Option<&CounterStats> {
        [&self.stats.client_counters, &self.stats.server_counters].into_iter().find(|side| !side.is_absent())
    }

    /// Calls by version of the destination: of counters where they count by version, because spans
    /// are sampled. A caller's counters know the version only where routes name subsets.
    #[must_use]
    pub fn versions(&self) -> &BTreeMap<Text, i64> {
        let CountedVersions { client, server } = &self.counted_versions;
        let is_told = |side: &BTreeMap<Text, i64>, counters: &CounterStats| {
            !side.is_empty() && side.values().sum::<i64>() == counters.calls
        };
        if is_told(server, &self.stats.server_counters) {
            server
        } else if is_told(client, &self.stats.client_counters) {
            client
        } else {
            &self.versions
        }
    }

    /// Number of calls: from counters where there are any, because spans are sampled. Counters that
    /// saw less than the spans began later than the window, so they do not count all of it.
    #[must_use]
    pub fn volume(&self) -> Volume {
        let spans = self.stats.spans.calls;
        match self.counters() {
            Some(counters) if counters.calls >= spans => {
                Volume { calls: counters.calls, source: VolumeSource::Counter }
            }
            _ => Volume { calls: spans, source: VolumeSource::Spans },
        }
    }

    /// Share of calls that failed, and according to whom. Spans know gRPC errors and connection
    /// failures that counters do not show, so counters are asked only when spans are few.
    #[must_use]
    pub fn error_ratio(&self) -> Option<(f64, VolumeSource)> {
        /// Below this many joined calls a ratio of spans says little.
        const SPANS_ENOUGH: i64 = 30;
        let spans = &self.stats.spans;
        let by_spans = (spans.calls > 0).then(|| (ratio(spans.errors, spans.calls), VolumeSource::Spans));
        let by_counters = self
            .counters()
            .filter(|counters| counters.calls > 0)
            .map(|counters| (ratio(counters.errors, counters.calls), VolumeSource::Counter));
        match (by_spans, by_counters) {
            (Some(spans_ratio), _) if spans.calls >= SPANS_ENOUGH => Some(spans_ratio),
            (by_spans, by_counters) => by_counters.or(by_spans),
        }
    }
}

/// `part / whole`; the caller makes sure that `whole` is positive.
pub(crate) fn ratio(part: i64, whole: i64) -> f64 {
    part as f64 / whole as f64
}

fn heaviest<K: Copy + Ord>(weights: &BTreeMap<K, i64>) -> Option<K> {
    weights.iter().max_by_key(|(key, weight)| (**weight, std::cmp::Reverse(**key))).map(|(key, _)| *key)
}
