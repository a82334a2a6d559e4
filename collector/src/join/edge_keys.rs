//! Shared keys of edges.
//!
//! Hops of one edge come by the thousand, each with nodes of its own making. Nodes are shared
//! first, so that comparing two keys of one edge compares pointers, and each node of a trace is
//! hashed once however many hops it has.

use std::sync::Arc;

use hashbrown::HashSet;
use windrose_proto::edge::EdgeKey;
use windrose_proto::hop::{Hop, Node};

/// The keys in use.
#[derive(Debug, Default)]
pub(super) struct EdgeKeys {
    keys: HashSet<Arc<EdgeKey>>,
    nodes: HashSet<Arc<Node>>,
    /// The last few nodes and what they are shared as; hops of one trace have few.
    recent: Vec<(Arc<Node>, Arc<Node>)>,
}

/// Nodes of one trace looked through before their names are hashed.
const RECENT_MAX: usize = 16;

impl EdgeKeys {
    /// The shared key of a hop's edge.
    pub(super) fn of_hop(&mut self, hop: &Hop) -> Arc<EdgeKey> {
        let key = EdgeKey {
            source: self.node(&hop.source),
            destination: self.node(&hop.destination),
            origin: hop.origin.as_ref().map(|node| self.node(node)),
            direction: hop.direction,
            protocol: hop.protocol,
            entry: Some(hop.entry.clone()),
        };
        self.shared(key)
    }

    /// The shared form of any key.
    pub(super) fn shared(&mut self, key: EdgeKey) -> Arc<EdgeKey> {
        if let Some(known) = self.keys.get(&key) {
            return Arc::clone(known);
        }
        let shared = Arc::new(key);
        self.keys.insert(Arc::clone(&shared));
        shared
    }

    fn node(&mut self, node: &Arc<Node>) -> Arc<Node> {
        if let Some((_, shared)) = self.recent.iter().rev().find(|(recent, _)| Arc::ptr_eq(recent, node)) {
            return Arc::clone(shared);
        }
        let shared = match self.nodes.get(node) {
            Some(known) => Arc::clone(known),
            None => {
                self.nodes.insert(Arc::clone(node));
                Arc::clone(node)
            }
        };
        if self.recent.len() >= RECENT_MAX {
            self.recent.clear();
        }
        self.recent.push((Arc::clone(node), Arc::clone(&shared)));
        shared
    }

    /// Forgets what nobody else holds.
    pub(super) fn forget_unused(&mut self) {
        self.recent.clear();
        self.keys.retain(|key| Arc::strong_count(key) > 1);
        self.nodes.retain(|node| Arc::strong_count(node) > 1);
    }
}
