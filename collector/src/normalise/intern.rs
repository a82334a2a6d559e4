//! Shared copies of what recurs: identities, processes, destinations. A mesh has thousands of
//! them, not millions; should an attacker invent more, the table starts over, which only costs
//! sharing.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use windrose_proto::Text;
use windrose_proto::model::NodeRole;
use windrose_proto::normal::{Destination, Identity, Process};

use super::destination::DestinationParts;
use super::identity::IdentityParts;

/// Entries per table; at about 300 bytes each, a full set of tables stays below 60 MB.
const ENTRIES_MAX: usize = 65_536;

/// A shared identity and what the operator says about its role.
#[derive(Debug)]
pub(super) struct KnownIdentity {
    pub(super) identity: Arc<Identity>,
    pub(super) role: Option<NodeRole>,
}

/// The tables.
#[derive(Debug, Default)]
pub(super) struct Interner {
    identities: Table<RawIdentity>,
    processes: Table<Arc<Process>>,
    destinations: Table<KnownDestination>,
    /// Hashes stay in these tables, so they may differ from run to run.
    hasher: DefaultHashBuilder,
}

/// An identity by what it was read from, before aliases.
#[derive(Debug)]
struct RawIdentity {
    raw: Identity,
    known: KnownIdentity,
}

/// A destination by what it was read from, and under the name the operator gave it.
#[derive(Debug)]
struct KnownDestination {
    raw: Arc<Destination>,
    named: Arc<Destination>,
}

#[derive(Debug)]
struct Table<T> {
    entries: HashTable<(u64, T)>,
}

// === impl Table ===

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { entries: HashTable::new() }
    }
}

impl<T> Table<T> {
    fn get_or_insert(&mut self, hash: u64, is: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> &T {
        if self.entries.len() >= ENTRIES_MAX && self.entries.find(hash, |(_, entry)| is(entry)).is_none() {
            self.entries.clear();
        }
        let entry = self.entries.entry(hash, |(_, entry)| is(entry), |(hash, _)| *hash);
        &entry.or_insert_with(|| (hash, make())).into_mut().1
    }
}

// === impl Interner ===

impl Interner {
    /// The identity of `parts`; `finish` applies what the operator says when it is new.
    pub(super) fn identity(
        &mut self,
        parts: IdentityParts<'_>,
        finish: impl FnOnce(Identity) -> KnownIdentity,
    ) -> &KnownIdentity {
        let make = || {
            let raw = parts.to_identity();
            RawIdentity { known: finish(raw.clone()), raw }
        };
        &self.identities.get_or_insert(self.hasher.hash_one(parts), |entry| parts.is(&entry.raw), make).known
    }

    /// The process with this resource and node id.
    pub(super) fn process(&mut self, resource_hash: u64, node_id: Option<&str>) -> Arc<Process> {
        let is =
            |process: &Arc<Process>| process.resource_hash == resource_hash && process.node_id.as_deref() == node_id;
        let make = || Arc::new(Process { resource_hash, node_id: node_id.map(Text::from) });
        Arc::clone(self.processes.get_or_insert(self.hasher.hash_one((resource_hash, node_id)), is, make))
    }

    /// The destination of `parts`; `rename` applies the operator's aliases when it is new.
    pub(super) fn destination(
        &mut self,
        parts: DestinationParts<'_>,
        rename: impl FnOnce(&Destination) -> Option<Destination>,
    ) -> Arc<Destination> {
        let make = || {
            let raw = Arc::new(parts.to_destination());
            KnownDestination { named: rename(&raw).map_or_else(|| Arc::clone(&raw), Arc::new), raw }
        };
        Arc::clone(
            &self.destinations.get_or_insert(self.hasher.hash_one(parts), |known| parts.is(&known.raw), make).named,
        )
    }
}
