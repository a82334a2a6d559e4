//! Which part of a graph is wanted.

use std::collections::BTreeSet;

use windrose_proto::model::Direction;

use super::aggregate::Graph;
use super::names::NodeId;

/// Which way to walk from the focused node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FocusDirection {
    Up,
    Down,
    #[default]
    Both,
}

impl FocusDirection {
    /// From the parameter's words.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "up" => Some(Self::Up),
            "down" => Some(Self::Down),
            "both" => Some(Self::Both),
            _ => None,
        }
    }
}

/// Filters of a topology request. The default keeps everything.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub namespace: Option<String>,
    pub direction: Option<Direction>,
    /// Node to start from, `namespace/name` or its id.
    pub focus: Option<String>,
    pub focus_direction: FocusDirection,
    pub depth: usize,
    pub min_rps: f64,
}

impl Selection {
    /// Removes what is not wanted; nodes without any edge left go too.
    pub fn apply(&self, graph: &mut Graph, seconds: f64) {
        if let Some(namespace) = &self.namespace {
            let inside = |id: &NodeId| id.namespace.as_deref() == Some(namespace.as_str());
            graph.edges.retain(|(source, destination), _| inside(source) || inside(destination));
        }
        if let Some(direction) = self.direction {
            graph.edges.retain(|_, edge| edge.direction() == direction);
        }
        if self.min_rps > 0.0 && seconds > 0.0 {
            graph.edges.retain(|_, edge| edge.volume().calls as f64 / seconds >= self.min_rps);
        }
        if let Some(focus) = &self.focus {
            let near = self.neighbourhood(graph, focus);
            graph.edges.retain(|(source, destination), _| near.contains(source) && near.contains(destination));
            graph.nodes.retain(|id, _| near.contains(id));
        }
        let linked: BTreeSet<&NodeId> = graph.edges.keys().flat_map(|(source, to)| [source, to]).collect();
        let keep: BTreeSet<NodeId> = linked.into_iter().cloned().collect();
        let focused = self.focus.as_deref();
        graph.nodes.retain(|id, _| keep.contains(id) || focused.is_some_and(|focus| id.is_named(focus)));
    }

    fn neighbourhood(&self, graph: &Graph, focus: &str) -> BTreeSet<NodeId> {
        let mut near: BTreeSet<NodeId> = graph.nodes.keys().filter(|id| id.is_named(focus)).cloned().collect();
        let mut up = near.clone();
        let mut down = near.clone();
        for _ in 0..self.depth {
            if self.focus_direction != FocusDirection::Down {
                up = graph.edges.keys().filter(|(_, to)| up.contains(to)).map(|(from, _)| from.clone()).collect();
                near.extend(up.iter().cloned());
            }
            if self.focus_direction != FocusDirection::Up {
                down = graph.edges.keys().filter(|(from, _)| down.contains(from)).map(|(_, to)| to.clone()).collect();
                near.extend(down.iter().cloned());
            }
        }
        near
    }
}
