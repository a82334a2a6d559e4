//! Rollup rows added up per edge, whatever their windows: what an answer about a span of time is made of.
//!
//! Between services an edge is kept once, and of each public route on it only how often it was called: a mesh has
//! a few edges per service but a few hundred public routes, and a row for each pair of them would be most of what
//! there is to add up. The edges by which requests enter and leave keep everything per route, because latency and
//! failures of a route are asked for where it enters and where it leaves. Who needs everything per route on every
//! edge asks for it ([`Detail::Routes`]).
//!
//! Pure: rows in, sums out. Sums of sums are sums of the rows, in any order. Legs between a proxy and its own
//! application are not edges and are left out.

use std::sync::Arc;

use hashbrown::HashMap;
use windrose_proto::edge::{EdgeKey, EdgeRow, EdgeStats, SpanStats};
use windrose_proto::hop::Entry;
use windrose_proto::model::{Direction, NodeRole};

#[cfg(test)]
mod tests;

/// How much is kept per public route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Detail {
    /// Where requests enter and leave everything, elsewhere how often.
    Calls,
    /// Everything everywhere.
    Routes,
}

/// How often an edge was called on behalf of one entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryCalls {
    pub calls: i64,
    /// Of these, answered with an HTTP status of class 5xx.
    pub server_errors: i64,
}

impl EntryCalls {
    /// Read out of what is known of the calls.
    #[must_use]
    pub fn of(spans: &SpanStats) -> Self {
        let failed = spans.by_class.iter().filter(|(class, _)| class.code.starts_with('5'));
        Self { calls: spans.calls, server_errors: failed.map(|(_, count)| count).sum() }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: Self) {
        self.calls += other.calls;
        self.server_errors += other.server_errors;
    }
}

/// All rows of an edge.
#[derive(Clone, Debug)]
pub struct EdgeSum {
    /// Without entry and origin, unless the edge keeps everything per route.
    pub key: Arc<EdgeKey>,
    pub stats: EdgeStats,
    /// By the entry's place in [`EdgeSums::entries`].
    by_entry: Vec<(u32, EntryCalls)>,
}

/// The edges of a span of time, in no order.
#[derive(Clone, Debug, Default)]
pub struct EdgeSums {
    edges: Vec<EdgeSum>,
    entries: Vec<Entry>,
}

impl EdgeSums {
    /// Adds rows up.
    #[must_use]
    pub fn of(rows: &[EdgeRow], detail: Detail) -> Self {
        let mut adder = Adder::new(detail);
        rows.iter().for_each(|row| adder.add_row(row));
        adder.finish()
    }

    /// The edges that exist: what late spans have taken back altogether never happened.
    pub fn edges(&self) -> impl Iterator<Item = &EdgeSum> {
        self.edges.iter().filter(|edge| {
            let EdgeStats { spans, client_counters, server_counters } = &edge.stats;
            !(spans.is_absent() && client_counters.is_absent() && server_counters.is_absent())
        })
    }

    /// The entries on whose behalf an edge was called, and how often each.
    pub fn entries_of<'s>(&'s self, edge: &'s EdgeSum) -> impl Iterator<Item = (&'s Entry, EntryCalls)> {
        let own = edge.key.entry.as_ref().map(|entry| (entry, EntryCalls::of(&edge.stats.spans)));
        own.into_iter().chain(edge.by_entry.iter().map(|(place, calls)| (&self.entries[*place as usize], *calls)))
    }

    /// The keys, for putting shared ones in their places: keys of one address are added up faster.
    pub(crate) fn keys_mut(&mut self) -> impl Iterator<Item = &mut Arc<EdgeKey>> {
        self.edges.iter_mut().map(|edge| &mut edge.key)
    }

    /// Keeps only the edges that `wanted` accepts.
    pub fn retain(&mut self, wanted: impl FnMut(&EdgeSum) -> bool) {
        self.edges.retain(wanted);
    }

    /// Memory, about. Keys are shared between sums and not counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let edges = self.edges.iter().map(|edge| {
            size_of::<EdgeSum>() + stats_bytes(&edge.stats) + edge.by_entry.len() * size_of::<(u32, EntryCalls)>()
        });
        edges.sum::<usize>() + self.entries.len() * size_of::<Entry>()
    }
}

/// Memory that the lists of a rollup cell take besides itself.
pub(crate) fn stats_bytes(stats: &EdgeStats) -> usize {
    let SpanStats { by_class, client, server, .. } = &stats.spans;
    by_class.len() * 96
        + (client.sketch.buckets().len() + server.sketch.buckets().len()) * 16
        + (client.slowest.entries().len() + server.slowest.entries().len()) * 24
        + (stats.client_counters.by_code.len() + stats.server_counters.by_code.len()) * 48
}

/// Adds up.
#[derive(Debug)]
pub struct Adder {
    detail: Detail,
    edges: Vec<Building>,
    places: HashMap<Arc<EdgeKey>, usize>,
    entries: Vec<Entry>,
    entry_places: HashMap<Entry, u32>,
    /// Rows share their keys: the address of one answers for its many parts. The key stays alive beside it, so that
    /// an address is never that of another key.
    by_address: HashMap<usize, (Place, Arc<EdgeKey>)>,
}

/// Where a row is added.
#[derive(Clone, Copy, Debug)]
struct Place {
    edge: usize,
    /// When the edge is kept without it.
    entry: Option<u32>,
}

#[derive(Debug)]
struct Building {
    key: Arc<EdgeKey>,
    stats: EdgeStats,
    by_entry: HashMap<u32, EntryCalls>,
}

impl Adder {
    /// Nothing yet.
    #[must_use]
    pub fn new(detail: Detail) -> Self {
        Self {
            detail,
            edges: Vec::new(),
            places: HashMap::new(),
            entries: Vec::new(),
            entry_places: HashMap::new(),
            by_address: HashMap::new(),
        }
    }

    /// Adds a row.
    pub fn add_row(&mut self, row: &EdgeRow) {
        if row.key.direction == Direction::Local {
            return;
        }
        let place = self.place(&row.key, Self::place_of_row);
        let edge = &mut self.edges[place.edge];
        edge.stats.merge(&row.stats);
        if let Some(entry) = place.entry {
            edge.by_entry.entry(entry).or_default().merge(EntryCalls::of(&row.stats.spans));
        }
    }

    /// Adds sums of the same detail.
    pub fn add(&mut self, sums: &EdgeSums) {
        let entries: Vec<u32> = sums.entries.iter().map(|entry| self.entry_place(entry)).collect();
        for edge in &sums.edges {
            let place = self.place(&edge.key, |adder, key| Place { edge: adder.edge_place(key), entry: None });
            let into = &mut self.edges[place.edge];
            into.stats.merge(&edge.stats);
            for (entry, calls) in &edge.by_entry {
                into.by_entry.entry(entries[*entry as usize]).or_default().merge(*calls);
            }
        }
    }

    fn place(&mut self, key: &Arc<EdgeKey>, find: fn(&mut Self, &Arc<EdgeKey>) -> Place) -> Place {
        let address = Arc::as_ptr(key) as usize;
        if let Some((place, _)) = self.by_address.get(&address) {
            return *place;
        }
        let place = find(self, key);
        self.by_address.insert(address, (place, Arc::clone(key)));
        place
    }

    fn place_of_row(&mut self, key: &Arc<EdgeKey>) -> Place {
        if self.keeps_routes(key) {
            return Place { edge: self.edge_place(key), entry: None };
        }
        let plain = Arc::new(EdgeKey { entry: None, origin: None, ..EdgeKey::clone(key) });
        let entry = key.entry.as_ref().map(|entry| self.entry_place(entry));
        Place { edge: self.edge_place(&plain), entry }
    }

    fn keeps_routes(&self, key: &EdgeKey) -> bool {
        self.detail == Detail::Routes || is_entry_edge(key) || key.direction == Direction::Egress
    }

    fn edge_place(&mut self, key: &Arc<EdgeKey>) -> usize {
        *self.places.entry(Arc::clone(key)).or_insert_with(|| {
            let fresh = Building { key: Arc::clone(key), stats: EdgeStats::default(), by_entry: HashMap::default() };
            self.edges.push(fresh);
            self.edges.len() - 1
        })
    }

    fn entry_place(&mut self, entry: &Entry) -> u32 {
        *self.entry_places.entry(entry.clone()).or_insert_with(|| {
            self.entries.push(entry.clone());
            (self.entries.len() - 1) as u32
        })
    }

    /// What was added.
    #[must_use]
    pub fn finish(self) -> EdgeSums {
        let edge = |edge: Building| EdgeSum {
            key: edge.key,
            stats: edge.stats,
            by_entry: edge.by_entry.into_iter().collect(),
        };
        EdgeSums { edges: self.edges.into_iter().map(edge).collect(), entries: self.entries }
    }
}

/// Whether requests enter by this edge: it arrives at a gateway from anything but a gateway.
#[must_use]
pub fn is_entry_edge(key: &EdgeKey) -> bool {
    key.destination.role == NodeRole::Gateway && key.source.role != NodeRole::Gateway
}
