//! What could not be resolved, why, and whom to suspect.

use std::collections::{BTreeMap, BTreeSet};

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
}

/// Lists the holes of a graph, largest first.
pub(super) fn unresolved(graph: &Graph) -> Vec<Unresolved> {
    let mut found: BTreeMap<(&'static str, Option<String>), i64> = BTreeMap::new();
    for gap in [Gap::PropagationLost, Gap::ParentNeverReceived, Gap::NoGateway, Gap::TraceTooLarge] {
        let affected =
            || graph.edges.iter().filter(move |(_, edge)| edge.gaps.get(&gap).is_some_and(|calls| *calls > 0));
        let reached: BTreeSet<&NodeId> = affected().map(|((_, to), _)| to).collect();
        for ((source, _), edge) in affected() {
            // The hops behind the break carry its reason too; only where it begins is worth naming.
            if !reached.contains(source) {
                *found.entry((gap.as_str(), Some(source.to_string()))).or_default() += edge.gaps[&gap];
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
    let mut list: Vec<Unresolved> =
        found.into_iter().map(|((reason, suspect), count)| Unresolved { reason, count, suspect }).collect();
    list.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (a.reason, &a.suspect).cmp(&(b.reason, &b.suspect))));
    list
}
