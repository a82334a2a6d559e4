//! What could not be resolved, why, and whom to suspect.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use serde::Serialize;
use utoipa::ToSchema;
use windrose_proto::hop::{Gap, UNKNOWN_NODE};

use crate::graph::{Graph, NodeId};

/// A kind of hole in the graph.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Unresolved {
    /// `propagation_lost`, `parent_never_received`, `no_gateway`, `unknown_peer` or `trace_too_large`.
    pub reason: &'static str,
    /// Calls affected.
    pub count: i64,
    /// The node to look at first; `null` when several are equally likely.
    pub suspect: Option<String>,
    /// `propagation_lost`: share of the suspect's calls that begin a trace of their own.
    pub share: Option<f64>,
}

/// Rule PB: a service that begins nearly all its calls anew although it is called itself forwards
/// no context. One that does so now and then has work of its own: a timer, a queue.
const BREAKS_FROM: f64 = 0.8;

/// Calls of a node: made, of these begun as traces of their own, and received.
#[derive(Clone, Copy, Default)]
struct Calls {
    made: i64,
    begun: i64,
    received: i64,
}

impl Calls {
    fn by_node(graph: &Graph) -> HashMap<&NodeId, Self> {
        let mut calls: HashMap<&NodeId, Self> = HashMap::new();
        for ((source, destination), edge) in &graph.edges {
            let source = calls.entry(source).or_default();
            source.made += edge.stats.spans.calls;
            source.begun += edge.gaps.get(&Gap::PropagationLost).copied().unwrap_or(0);
            calls.entry(destination).or_default().received += edge.stats.spans.calls;
        }
        calls
    }

    fn begun_share(self) -> f64 {
        if self.made > 0 { crate::graph::ratio(self.begun, self.made) } else { 0.0 }
    }

    /// Whether the node is called and does not forward the context it is called with.
    fn break_context(self) -> bool {
        self.received > 0 && self.begun_share() >= BREAKS_FROM
    }
}

/// Lists the holes of a graph, largest first.
pub(super) fn unresolved(graph: &Graph) -> Vec<Unresolved> {
    let calls = Calls::by_node(graph);
    let mut shares: BTreeMap<String, f64> = BTreeMap::new();
    let mut found: BTreeMap<(&'static str, Option<String>), i64> = BTreeMap::new();
    for gap in [Gap::PropagationLost, Gap::ParentNeverReceived, Gap::NoGateway, Gap::TraceTooLarge] {
        let affected =
            || graph.edges.iter().filter(move |(_, edge)| edge.gaps.get(&gap).is_some_and(|calls| *calls > 0));
        let reached: BTreeSet<&NodeId> = affected().map(|((_, to), _)| to).collect();
        for ((source, _), edge) in affected() {
            // The hops behind the break carry its reason too; only where it begins is worth naming.
            if !reached.contains(source) {
                let of_source = calls.get(source).copied().unwrap_or_default();
                let is_own_work = gap == Gap::PropagationLost && !of_source.break_context();
                let word = if is_own_work { Gap::NoGateway } else { gap }.as_str();
                shares.insert(source.to_string(), of_source.begun_share());
                *found.entry((word, Some(source.to_string()))).or_default() += edge.gaps[&gap];
            }
        }
    }
    for ((source, destination), edge) in &graph.edges {
        let calls = edge.stats.spans.calls;
        if &*source.name == UNKNOWN_NODE && calls > 0 {
            *found.entry((Gap::UnknownPeer.as_str(), Some(destination.to_string()))).or_default() += calls;
        }
        if &*destination.name == UNKNOWN_NODE && calls > 0 {
            *found.entry((Gap::UnknownPeer.as_str(), Some(source.to_string()))).or_default() += calls;
        }
    }
    let mut list: Vec<Unresolved> = found
        .into_iter()
        .map(|((reason, suspect), count)| {
            let is_break = reason == Gap::PropagationLost.as_str();
            let share = suspect.as_ref().filter(|_| is_break).and_then(|name| shares.get(name).copied());
            Unresolved { reason, count, suspect, share }
        })
        .collect();
    list.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (a.reason, &a.suspect).cmp(&(b.reason, &b.suspect))));
    list
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use windrose_proto::Text;
    use windrose_proto::edge::{EdgeKey, EdgeRow, EdgeStats, LIVE_WINDOW_NANOS, SpanStats};
    use windrose_proto::hop::{Entry, EntryRoute, Gap, Node};
    use windrose_proto::model::{Direction, NodeRole, Protocol};
    use windrose_proto::time::UnixNanos;

    use super::unresolved;
    use crate::graph::{Graph, Scope};

    fn calls(source: &str, destination: &str, entry: Entry, calls: i64) -> EdgeRow {
        let node =
            |name: &str| Arc::new(Node { service: Text::from(name), role: NodeRole::Sidecar, ..Node::unknown() });
        let key = EdgeKey {
            source: node(source),
            destination: node(destination),
            direction: Direction::EastWest,
            protocol: Protocol::Http1,
            entry: Some(entry),
            origin: None,
        };
        let stats =
            EdgeStats { spans: SpanStats { calls, attempts: calls, ..SpanStats::default() }, ..EdgeStats::default() };
        EdgeRow {
            window_start: UnixNanos(0),
            window_nanos: LIVE_WINDOW_NANOS,
            key: Arc::new(key),
            stats: Arc::new(stats),
        }
    }

    #[track_caller]
    fn check(begun: i64, forwarded: i64, called: i64, expect: &[(&str, i64, Option<&str>, Option<f64>)]) {
        let route = || Entry::Route(Arc::new(EntryRoute { route: Text::from_static("GET /a"), host: None }));
        let graph = Graph::build(
            &[
                calls("notify", "sms", Entry::Unknown(Gap::PropagationLost), begun),
                calls("notify", "sms", route(), forwarded),
                calls("orders", "notify", route(), called),
            ],
            Scope::Service,
        );
        let found = unresolved(&graph);
        let found: Vec<_> =
            found.iter().map(|hole| (hole.reason, hole.count, hole.suspect.as_deref(), hole.share)).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn who_begins_nearly_all_its_calls_anew_breaks_the_context() {
        check(100, 0, 90, &[("propagation_lost", 100, Some("notify"), Some(1.0))]);
        check(80, 20, 90, &[("propagation_lost", 80, Some("notify"), Some(0.8))]);
        // A timer now and then, or a service that nobody calls.
        check(5, 95, 90, &[("no_gateway", 5, Some("notify"), None)]);
        check(100, 0, 0, &[("no_gateway", 100, Some("notify"), None)]);
    }
}
