//! The public routes of a graph, by number: an edge serves dozens of them, and numbers compare faster than texts.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashMap;
use windrose_proto::hop::{Entry, EntryRoute};
use windrose_store::edge_sums::EdgeSums;

/// A route of one graph; its order is that of the routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(u32);

/// All routes of one graph, sorted.
#[derive(Clone, Debug, Default)]
pub struct Routes(Vec<Arc<EntryRoute>>);

/// The numbers of the routes that some sums hold, by address: sums share their routes.
pub(super) struct Numbers(HashMap<usize, RouteId>);

impl Numbers {
    /// The number of a route of the sums that these numbers are of.
    pub(super) fn of(&self, route: &Arc<EntryRoute>) -> RouteId {
        self.0[&address(route)]
    }
}

impl Routes {
    pub(super) fn of(sums: &EdgeSums) -> (Self, Numbers) {
        let mut held: HashMap<usize, &Arc<EntryRoute>> = HashMap::new();
        for (entry, _) in sums.edges().flat_map(|edge| sums.entries_of(edge)) {
            if let Entry::Route(route) = entry {
                held.entry(address(route)).or_insert(route);
            }
        }
        let sorted: BTreeSet<&Arc<EntryRoute>> = held.values().copied().collect();
        let routes = Self(sorted.into_iter().cloned().collect());
        let numbers = held.iter().filter_map(|(address, route)| Some((*address, routes.id(route)?))).collect();
        (routes, Numbers(numbers))
    }

    /// The route with this number.
    #[must_use]
    pub fn route(&self, id: RouteId) -> &EntryRoute {
        &self.0[id.0 as usize]
    }

    /// The number of a route; `None` when the graph does not have it.
    #[must_use]
    pub fn id(&self, route: &EntryRoute) -> Option<RouteId> {
        self.0.binary_search_by(|known| (**known).cmp(route)).ok().map(|place| RouteId(place as u32))
    }
}

fn address(route: &Arc<EntryRoute>) -> usize {
    Arc::as_ptr(route) as usize
}
