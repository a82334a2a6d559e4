//! Reading and committing a table's log in an object store.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};
use serde_json::json;
use windrose_proto::time::UnixNanos;

use super::action::{self, Action, BadLine, Format, Metadata, Protocol, Txn};
use super::checkpoint::{self, CheckpointError};
use super::schema::{column_names, with_new_columns};
use super::state::TableState;

/// Number of a commit, from 0.
pub type Version = u64;

/// Commits between checkpoints. Opening reads one checkpoint and at most this many small files;
/// writing one costs about a millisecond per thousand files of the table.
const CHECKPOINT_EVERY: Version = 20;

/// Commits kept behind the last checkpoint, for readers that look back and for whoever wants to see
/// what happened: half a week of seals every five minutes.
const VERSIONS_KEPT: Version = 1000;

/// How often a commit is tried again after another writer took its version. Every loss means that
/// somebody else made progress; a hundred in a row means something is wrong.
const CONFLICTS_MAX: usize = 100;

const READER_VERSION: i32 = 1;
const WRITER_VERSION: i32 = 2;

/// A table log could not be read or committed to.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The object store failed; trying again may help.
    #[error("object store failed at {path}")]
    Store {
        path: Path,
        #[source]
        source: object_store::Error,
    },
    /// A commit is damaged.
    #[error("commit {path} is damaged: restore it from a backup, the table cannot be read without it")]
    DamagedCommit {
        path: Path,
        #[source]
        source: BadLine,
    },
    /// A checkpoint is damaged and the commits it sums up are gone.
    #[error("checkpoint {path} is damaged and older commits are gone: restore one of them from a backup")]
    DamagedCheckpoint {
        path: Path,
        #[source]
        source: CheckpointError,
    },
    /// A commit between two others is missing.
    #[error("commit {version} of {table} is missing: restore it from a backup")]
    MissingCommit { table: Path, version: Version },
    /// Another writer upgraded the table.
    #[error(
        "table {table} needs Delta reader version {reader} and writer version {writer}, this program knows {READER_VERSION} and {WRITER_VERSION}: do not enable table features on it"
    )]
    Unsupported { table: Path, reader: i32, writer: i32 },
    /// Another writer removed a file this commit builds on.
    #[error("file {file} was removed by another writer")]
    Conflict { file: String },
    /// Every attempt met another writer's commit.
    #[error("commit to {table} lost against other writers {CONFLICTS_MAX} times in a row")]
    Contended { table: Path },
}

impl LogError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Store { .. } | Self::Contended { .. })
    }
}

/// What a table is created with.
#[derive(Clone, Debug)]
pub struct TableDefinition {
    pub name: String,
    pub description: String,
    /// See [`super::delta_schema`].
    pub schema_string: String,
    pub partition_columns: Vec<String>,
    /// Written as `configuration`.
    pub configuration: Vec<(String, String)>,
}

/// A change to a table.
#[derive(Clone, Debug)]
pub struct Commit {
    /// `WRITE`, `OPTIMIZE`, `DELETE`: shown in the table's history.
    pub operation: &'static str,
    pub at: UnixNanos,
    /// Makes the commit idempotent.
    pub txn: Option<Txn>,
    pub actions: Vec<Action>,
}

/// The log of one table.
#[derive(Clone, Debug)]
pub struct TableLog {
    store: Arc<dyn ObjectStore>,
    root: Path,
    version: Version,
    state: TableState,
}

#[derive(Debug, Serialize, Deserialize)]
struct LastCheckpoint {
    version: Version,
    size: usize,
}

impl TableLog {
    /// Opens the table at `root`, creating it or adding columns to it as needed.
    ///
    /// # Errors
    /// When the log cannot be read or written, or was upgraded beyond what we know.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        root: Path,
        definition: &TableDefinition,
        now: UnixNanos,
    ) -> Result<Self, LogError> {
        let mut log = match Self::load(Arc::clone(&store), root.clone()).await? {
            Some(log) => log,
            None => Self::create(store, root, definition, now).await?,
        };
        log.add_columns(definition, now).await?;
        Ok(log)
    }

    /// Reads the table at `root`; `None` when there is none.
    ///
    /// # Errors
    /// When the log cannot be read, or was upgraded beyond what we know.
    pub async fn load(store: Arc<dyn ObjectStore>, root: Path) -> Result<Option<Self>, LogError> {
        let mut log = Self { store, root, version: 0, state: TableState::default() };
        let next = log.read_checkpoint().await?;
        let Some(last) = log.read_commits(next).await?.or(next.checked_sub(1)) else { return Ok(None) };
        log.version = last;
        log.check_protocol()?;
        Ok(Some(log))
    }

    async fn create(
        store: Arc<dyn ObjectStore>,
        root: Path,
        definition: &TableDefinition,
        now: UnixNanos,
    ) -> Result<Self, LogError> {
        let protocol = Protocol { min_reader_version: READER_VERSION, min_writer_version: WRITER_VERSION };
        let metadata = Metadata {
            id: table_id(&root, now),
            name: Some(definition.name.clone()),
            description: Some(definition.description.clone()),
            format: Format::default(),
            schema_string: definition.schema_string.clone(),
            partition_columns: definition.partition_columns.clone(),
            configuration: definition
                .configuration
                .iter()
                .map(|(key, value)| (key.clone(), Some(value.clone())))
                .collect(),
            created_time: Some(now.as_millis() as i64),
        };
        let actions = vec![commit_info("CREATE TABLE", now), Action::Protocol(protocol), Action::MetaData(metadata)];
        let mut log = Self { store, root, version: 0, state: TableState::default() };
        if log.put_commit(0, &actions).await? {
            log.state.apply(actions);
            return Ok(log);
        }
        // Another writer was faster.
        let missing = LogError::MissingCommit { table: log.root.clone(), version: 0 };
        Self::load(log.store, log.root).await?.ok_or(missing)
    }

    async fn add_columns(&mut self, definition: &TableDefinition, now: UnixNanos) -> Result<(), LogError> {
        let Some(metadata) = self.state.metadata() else { return Ok(()) };
        let Some(schema_string) = with_new_columns(&metadata.schema_string, &definition.schema_string) else {
            return Ok(());
        };
        let added = column_names(&schema_string).len() - column_names(&metadata.schema_string).len();
        tracing::info!(table = %self.root, columns = added, "adding columns to the table");
        let metadata = Metadata { schema_string, ..metadata.clone() };
        let actions = vec![Action::MetaData(metadata)];
        self.commit(Commit { operation: "ADD COLUMNS", at: now, txn: None, actions }).await.map(drop)
    }

    /// Where the table lies.
    #[must_use]
    pub const fn root(&self) -> &Path {
        &self.root
    }

    /// The latest version read or committed.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The table at that version.
    #[must_use]
    pub const fn state(&self) -> &TableState {
        &self.state
    }

    /// The actions of the last commits, oldest first, as far as they are still there.
    ///
    /// # Errors
    /// When one cannot be read.
    pub async fn history(&self, commits: u64) -> Result<Vec<(Version, Vec<Action>)>, LogError> {
        let mut history = Vec::new();
        for version in self.version.saturating_sub(commits.saturating_sub(1))..=self.version {
            let path = self.log_file(&format!("{version:020}.json"));
            let Some(commit) = self.get(&path).await? else { continue };
            let actions = action::decode(&commit).map_err(|source| LogError::DamagedCommit { path, source })?;
            history.push((version, actions));
        }
        Ok(history)
    }

    /// Forgets files that were removed before this time: their content is gone.
    pub fn forget_removed_before(&mut self, millis: i64) {
        self.state.forget_tombstones(millis);
    }

    /// Reads what others have committed since. Returns whether there was anything.
    ///
    /// # Errors
    /// When the log cannot be read, or was upgraded beyond what we know.
    pub async fn refresh(&mut self) -> Result<bool, LogError> {
        match self.read_commits(self.version + 1).await? {
            None => Ok(false),
            Some(last) => {
                self.version = last;
                self.check_protocol()?;
                Ok(true)
            }
        }
    }

    /// Makes a change visible, after whatever others committed meanwhile. Returns `None` when the
    /// table had already seen the transaction.
    ///
    /// # Errors
    /// When the store fails: then the commit may or may not have happened, and repeating it with
    /// its transaction is safe. When a file to remove is gone.
    pub async fn commit(&mut self, commit: Commit) -> Result<Option<Version>, LogError> {
        let Commit { operation, at, txn, actions: changes } = commit;
        let mut actions = vec![commit_info(operation, at)];
        actions.extend(txn.clone().map(Action::Txn));
        actions.extend(changes);
        for _ in 0..CONFLICTS_MAX {
            if txn.as_ref().is_some_and(|txn| self.state.txn(&txn.app_id) >= Some(txn.version)) {
                return Ok(None);
            }
            self.check_removals(&actions)?;
            let version = self.version + 1;
            if self.put_commit(version, &actions).await? {
                self.version = version;
                self.state.apply(actions);
                self.checkpoint_if_due().await;
                return Ok(Some(version));
            }
            self.refresh().await?;
        }
        Err(LogError::Contended { table: self.root.clone() })
    }

    fn check_removals(&self, actions: &[Action]) -> Result<(), LogError> {
        for action in actions {
            if let Action::Remove(remove) = action
                && !self.state.files().contains_key(&remove.path)
            {
                return Err(LogError::Conflict { file: remove.path.clone() });
            }
        }
        Ok(())
    }

    fn check_protocol(&self) -> Result<(), LogError> {
        match self.state.protocol() {
            Some(protocol)
                if protocol.min_reader_version > READER_VERSION || protocol.min_writer_version > WRITER_VERSION =>
            {
                Err(LogError::Unsupported {
                    table: self.root.clone(),
                    reader: protocol.min_reader_version,
                    writer: protocol.min_writer_version,
                })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Writes a checkpoint now. Readers do not need it; it only shortens their way.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn checkpoint(&self) -> Result<(), LogError> {
        let path = self.log_file(&format!("{:020}.checkpoint.parquet", self.version));
        let actions = self.state.to_actions();
        let file = checkpoint::encode(&actions)
            .map_err(|source| LogError::DamagedCheckpoint { path: path.clone(), source })?;
        self.put(&path, file.into(), PutMode::Overwrite).await?;
        let pointer = serde_json::to_vec(&LastCheckpoint { version: self.version, size: actions.len() })
            .expect("two numbers are JSON");
        self.put(&self.log_file("_last_checkpoint"), pointer.into(), PutMode::Overwrite).await
    }

    /// Deletes commits and checkpoints that nobody needs to open the table. Returns how many.
    ///
    /// # Errors
    /// When the store fails; the rest is deleted next time.
    pub async fn drop_old_versions(&self) -> Result<u64, LogError> {
        let Some(pointer) = self.get(&self.log_file("_last_checkpoint")).await? else { return Ok(0) };
        let Ok(LastCheckpoint { version, .. }) = serde_json::from_slice(&pointer) else { return Ok(0) };
        let Some(oldest) = version.checked_sub(VERSIONS_KEPT) else { return Ok(0) };
        let checkpoint = self.log_file(&format!("{version:020}.checkpoint.parquet"));
        let directory = self.root.clone().join("_delta_log");
        let failed = |path: &Path| {
            let path = path.clone();
            move |source| LogError::Store { path, source }
        };
        let listed = self.store.list(Some(&directory)).map_ok(|object| object.location).try_collect().await;
        let files: Vec<Path> = listed.map_err(failed(&directory))?;
        if !files.contains(&checkpoint) {
            return Ok(0);
        }
        let number = |path: &Path| path.filename()?.split_once('.')?.0.parse::<Version>().ok();
        let mut old: Vec<Path> = files.into_iter().filter(|path| number(path) < Some(oldest)).collect();
        old.retain(|path| number(path).is_some());
        // Oldest first, so that what is left after an error has no gap.
        old.sort_unstable();
        for path in &old {
            self.store.delete(path).await.map_err(failed(path))?;
        }
        Ok(old.len() as u64)
    }

    async fn checkpoint_if_due(&self) {
        if !self.version.is_multiple_of(CHECKPOINT_EVERY) {
            return;
        }
        if let Err(error) = self.checkpoint().await {
            tracing::warn!(table = %self.root, error = &error as &dyn std::error::Error, "checkpoint not written, reading the table takes longer until the next one");
        }
    }

    // Reading.

    /// Applies the latest checkpoint. Returns the version from which to read commits.
    async fn read_checkpoint(&mut self) -> Result<Version, LogError> {
        let Some(pointer) = self.get(&self.log_file("_last_checkpoint")).await? else { return Ok(0) };
        let Ok(LastCheckpoint { version, .. }) = serde_json::from_slice(&pointer) else { return Ok(0) };
        let path = self.log_file(&format!("{version:020}.checkpoint.parquet"));
        let Some(file) = self.get(&path).await? else { return Ok(0) };
        match checkpoint::decode(file) {
            Ok(actions) => {
                self.state.apply(actions);
                Ok(version + 1)
            }
            Err(source) => {
                let first = self.log_file(&format!("{:020}.json", 0));
                if self.get(&first).await?.is_none() {
                    return Err(LogError::DamagedCheckpoint { path, source });
                }
                tracing::warn!(%path, error = &source as &dyn std::error::Error, "checkpoint is damaged, reading all commits instead");
                Ok(0)
            }
        }
    }

    /// Applies the commits from `first` on. Returns the last one.
    async fn read_commits(&mut self, first: Version) -> Result<Option<Version>, LogError> {
        let mut versions = self.list_commits(first).await?;
        versions.sort_unstable();
        let mut last = None;
        for (version, expected) in versions.into_iter().zip(first..) {
            if version != expected {
                return Err(LogError::MissingCommit { table: self.root.clone(), version: expected });
            }
            let path = self.log_file(&format!("{version:020}.json"));
            let missing = LogError::MissingCommit { table: self.root.clone(), version };
            let commit = self.get(&path).await?.ok_or(missing)?;
            let actions = action::decode(&commit).map_err(|source| LogError::DamagedCommit { path, source })?;
            self.state.apply(actions);
            last = Some(version);
        }
        Ok(last)
    }

    async fn list_commits(&self, first: Version) -> Result<Vec<Version>, LogError> {
        let directory = self.root.clone().join("_delta_log");
        let failed = |source| LogError::Store { path: directory.clone(), source };
        let number = |path: &Path| path.filename()?.strip_suffix(".json")?.parse::<Version>().ok();
        // "Greater than" in the store's order: the name just before the first commit.
        let before = self.log_file(&format!("{first:020}."));
        self.store
            .list_with_offset(Some(&directory), &before)
            .try_filter_map(|object| std::future::ready(Ok(number(&object.location))))
            .try_filter(|version| std::future::ready(*version >= first))
            .try_collect()
            .await
            .map_err(failed)
    }

    fn log_file(&self, name: &str) -> Path {
        self.root.clone().join("_delta_log").join(name)
    }

    async fn get(&self, path: &Path) -> Result<Option<bytes::Bytes>, LogError> {
        let failed = |source| LogError::Store { path: path.clone(), source };
        match self.store.get(path).await {
            Ok(found) => found.bytes().await.map(Some).map_err(failed),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(failed(source)),
        }
    }

    // Writing.

    /// False when the version is taken.
    async fn put_commit(&self, version: Version, actions: &[Action]) -> Result<bool, LogError> {
        let path = self.log_file(&format!("{version:020}.json"));
        match self.put(&path, action::encode(actions).into(), PutMode::Create).await {
            Ok(()) => Ok(true),
            Err(LogError::Store { source: object_store::Error::AlreadyExists { .. }, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn put(&self, path: &Path, payload: PutPayload, mode: PutMode) -> Result<(), LogError> {
        let options = PutOptions { mode, ..PutOptions::default() };
        let put = self.store.put_opts(path, payload, options).await;
        put.map(drop).map_err(|source| LogError::Store { path: path.clone(), source })
    }
}

fn commit_info(operation: &str, at: UnixNanos) -> Action {
    Action::CommitInfo(json!({
        "timestamp": at.as_millis(),
        "operation": operation,
        "operationParameters": {},
        "engineInfo": concat!("windrose/", env!("CARGO_PKG_VERSION")),
    }))
}

/// An id in the form of a UUID, from where and when the table was created.
fn table_id(root: &Path, now: UnixNanos) -> String {
    let place = u64::from(crc32c::crc32c(root.as_ref().as_bytes()));
    let high = now.0;
    let low = place << 32 | u64::from(crc32c::crc32c(&now.0.to_be_bytes()));
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        low >> 52,
        low & 0xffff_ffff_ffff
    )
}
