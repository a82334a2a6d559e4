//! What a table consists of after a sequence of commits.

use std::collections::BTreeMap;

use super::action::{Action, Add, Metadata, Protocol, Remove, Txn};

/// The sum of all commits up to a version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableState {
    protocol: Option<Protocol>,
    metadata: Option<Metadata>,
    files: BTreeMap<String, Add>,
    /// Removed files that may still lie in the store, for readers of older versions.
    tombstones: BTreeMap<String, Remove>,
    txns: BTreeMap<String, Txn>,
}

impl TableState {
    /// Adds the facts of one commit.
    pub fn apply(&mut self, actions: impl IntoIterator<Item = Action>) {
        for action in actions {
            match action {
                Action::Protocol(protocol) => self.protocol = Some(protocol),
                Action::MetaData(metadata) => self.metadata = Some(metadata),
                Action::Add(add) => {
                    self.tombstones.remove(&add.path);
                    self.files.insert(add.path.clone(), add);
                }
                Action::Remove(remove) => {
                    self.files.remove(&remove.path);
                    self.tombstones.insert(remove.path.clone(), remove);
                }
                Action::Txn(txn) => {
                    self.txns.insert(txn.app_id.clone(), txn);
                }
                Action::CommitInfo(_) => {}
            }
        }
    }

    /// Versions a reader and writer must know.
    #[must_use]
    pub const fn protocol(&self) -> Option<&Protocol> {
        self.protocol.as_ref()
    }

    /// Name, columns and partitioning.
    #[must_use]
    pub const fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// The files of the table by path.
    #[must_use]
    pub const fn files(&self) -> &BTreeMap<String, Add> {
        &self.files
    }

    /// Removed files by path.
    #[must_use]
    pub const fn tombstones(&self) -> &BTreeMap<String, Remove> {
        &self.tombstones
    }

    /// How far the application has come.
    #[must_use]
    pub fn txn(&self, app_id: &str) -> Option<i64> {
        self.txns.get(app_id).map(|txn| txn.version)
    }

    /// Forgets files removed before `before_millis`: nobody reads that far back any more.
    pub fn forget_tombstones(&mut self, before_millis: i64) {
        self.tombstones.retain(|_, remove| remove.deletion_timestamp.unwrap_or(0) >= before_millis);
    }

    /// Actions that amount to this state.
    pub(super) fn to_actions(&self) -> Vec<Action> {
        let head = self.protocol.iter().cloned().map(Action::Protocol);
        head.chain(self.metadata.iter().cloned().map(Action::MetaData))
            .chain(self.txns.values().cloned().map(Action::Txn))
            .chain(self.tombstones.values().cloned().map(|remove| {
                // Checkpoints state facts; only commits change data.
                Action::Remove(Remove { data_change: false, ..remove })
            }))
            .chain(self.files.values().cloned().map(|add| Action::Add(Add { data_change: false, ..add })))
            .collect()
    }
}
