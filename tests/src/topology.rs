//! Reads a topology answer the way a person does: nodes and edges by name.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use windrose_proto::time::UnixNanos;

use crate::client::Http;
use crate::truth::{Pair, public_path};

/// One answer of `/api/v1/topology`.
#[derive(Clone, Debug)]
pub struct Topology {
    pub raw: Value,
    names: BTreeMap<String, String>,
}

/// An edge of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Edge<'a>(pub &'a Value);

/// A window of time to ask for, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub start: UnixNanos,
    pub end: UnixNanos,
}

impl Window {
    /// From `before` until now and somewhat more, so that nothing is cut off at the edge.
    #[must_use]
    pub fn around(now: UnixNanos, before: Duration) -> Self {
        Self { start: now.minus(before), end: now.plus(Duration::from_secs(60)) }
    }

    /// As query parameters.
    #[must_use]
    pub fn parameters(&self) -> String {
        format!("start={}&end={}", self.start.as_secs_f64(), self.end.as_secs_f64())
    }
}

impl Topology {
    /// Asks a server.
    ///
    /// # Errors
    /// When the answer is not a topology yet.
    pub async fn fetch(http: &Http, parameters: &str) -> Result<Self, String> {
        let answer = http.try_get(&format!("/api/v1/topology?{parameters}")).await?;
        if answer.status != 200 {
            return Err(format!("{}: {}", answer.status, answer.text()));
        }
        Ok(Self::new(answer.json()["data"].take()))
    }

    /// From the `data` of an answer.
    ///
    /// # Panics
    /// When a node has no id or no name.
    #[must_use]
    pub fn new(raw: Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned();
        let nodes = raw["nodes"].as_array().cloned().unwrap_or_default();
        let names = nodes.iter().map(|node| (text(&node["id"]), text(&node["name"]))).collect();
        Self { raw, names }
    }

    /// Nodes by name.
    ///
    /// # Panics
    /// When two nodes have one name: the recorded meshes have no such pair.
    #[must_use]
    pub fn nodes(&self) -> BTreeMap<&str, &Value> {
        let mut nodes = BTreeMap::new();
        for node in self.raw["nodes"].as_array().into_iter().flatten() {
            let name = node["name"].as_str().expect("a node has a name");
            let twin = nodes.insert(name, node);
            assert!(twin.is_none(), "two nodes are called {name}: {node} and {twin:?}");
        }
        nodes
    }

    /// Edges by the names of their ends.
    ///
    /// # Panics
    /// When two edges have the same ends: the recorded meshes have no such pair.
    #[must_use]
    pub fn edges(&self) -> BTreeMap<Pair, Edge<'_>> {
        let mut edges = BTreeMap::new();
        for edge in self.raw["edges"].as_array().into_iter().flatten() {
            let pair = (self.name(&edge["source"]), self.name(&edge["target"]));
            let twin = edges.insert(pair.clone(), Edge(edge));
            assert!(twin.is_none(), "two edges go {pair:?}: {edge:#} and {twin:#?}");
        }
        edges
    }

    fn name(&self, id: &Value) -> String {
        let id = id.as_str().expect("an edge names its ends");
        self.names.get(id).cloned().unwrap_or_else(|| panic!("{id} is the end of an edge and no node"))
    }

    /// The answer without what tells how the spans came: duplicates and late ones are evidence, not topology.
    #[must_use]
    pub fn without_arrival(&self) -> Value {
        let mut value = self.raw.clone();
        let window = value["window"].as_object_mut().expect("an answer has a window");
        window.remove("revision");
        window.remove("complete_until");
        for edge in value["edges"].as_array_mut().into_iter().flatten() {
            if let Some(evidence) = edge["evidence"].as_object_mut() {
                evidence.remove("late");
                evidence.remove("duplicate");
            }
        }
        value
    }
}

impl Edge<'_> {
    /// A number somewhere in the edge, as a JSON pointer.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn number(&self, pointer: &str) -> f64 {
        let value = self.0.pointer(pointer).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("no number at {pointer}: {:#}", self.0))
    }

    /// A text somewhere in the edge.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn text(&self, pointer: &str) -> &str {
        let value = self.0.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_else(|| panic!("no text at {pointer}: {:#}", self.0))
    }

    /// Calls joined from spans.
    #[must_use]
    pub fn calls(&self) -> u64 {
        whole(self.number("/evidence/calls"))
    }

    /// Failed calls by spans.
    #[must_use]
    pub fn errors(&self) -> u64 {
        whole(self.number("/errors/total"))
    }

    /// The share of the edge's calls per public path, as [`public_path`] names it.
    #[must_use]
    pub fn route_shares(&self) -> BTreeMap<String, f64> {
        let mut shares = BTreeMap::new();
        for route in self.0["routes"].as_array().into_iter().flatten() {
            let name = route["route"].as_str().expect("a route has a name");
            let path = name.split_once(' ').map_or(name, |(_, path)| path);
            *shares.entry(public_path(path)).or_default() += route["share"].as_f64().expect("a route has a share");
        }
        shares
    }
}

/// The whole number that a computed one stands for.
///
/// # Panics
/// When it is not whole.
fn whole(value: f64) -> u64 {
    let rounded = value.round();
    assert!((value - rounded).abs() < 1e-6 * rounded.max(1.0), "{value} is not a whole number");
    rounded as u64
}
