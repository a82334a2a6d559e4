//! The actions of a commit and their JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A fact that a commit adds to the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    Protocol(Protocol),
    MetaData(Metadata),
    Add(Add),
    Remove(Remove),
    Txn(Txn),
    /// Free-form provenance; readers ignore it.
    CommitInfo(serde_json::Value),
}

/// Which versions of the protocol a reader and a writer must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    pub min_reader_version: i32,
    pub min_writer_version: i32,
}

/// Name, columns and partitioning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub format: Format,
    pub schema_string: String,
    pub partition_columns: Vec<String>,
    #[serde(default)]
    pub configuration: BTreeMap<String, Option<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_time: Option<i64>,
}

/// The format of data files; always Parquet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    pub provider: String,
    #[serde(default)]
    pub options: BTreeMap<String, Option<String>>,
}

impl Default for Format {
    fn default() -> Self {
        Self { provider: "parquet".to_owned(), options: BTreeMap::new() }
    }
}

/// A data file that belongs to the table from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Add {
    /// Relative to the table, percent-encoded.
    pub path: String,
    pub partition_values: BTreeMap<String, Option<String>>,
    pub size: i64,
    /// Milliseconds since the epoch.
    pub modification_time: i64,
    pub data_change: bool,
    /// JSON text: `numRecords`, `minValues`, `maxValues`, `nullCount`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, Option<String>>>,
}

/// A data file that no longer belongs to the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remove {
    pub path: String,
    /// Milliseconds since the epoch.
    #[serde(default)]
    pub deletion_timestamp: Option<i64>,
    pub data_change: bool,
    #[serde(default)]
    pub extended_file_metadata: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_values: Option<BTreeMap<String, Option<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
}

/// How far an application has come: makes its commits idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Txn {
    pub app_id: String,
    pub version: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<i64>,
}

/// A line of a commit that is no action.
#[derive(Debug, thiserror::Error)]
#[error("line {line} is not an action")]
pub struct BadLine {
    pub line: usize,
    #[source]
    source: serde_json::Error,
}

/// One action a line.
pub(super) fn encode(actions: &[Action]) -> Vec<u8> {
    let mut out = Vec::new();
    for action in actions {
        serde_json::to_writer(&mut out, action).expect("actions hold nothing that JSON cannot");
        out.push(b'\n');
    }
    out
}

/// Reads a commit. Kinds of actions that are not known are left out, as the protocol asks.
pub(super) fn decode(commit: &[u8]) -> Result<Vec<Action>, BadLine> {
    let mut actions = Vec::new();
    for (line, text) in
        commit.split(|byte| *byte == b'\n').enumerate().filter(|(_, text)| !text.trim_ascii().is_empty())
    {
        let bad = |source| BadLine { line: line + 1, source };
        let object: BTreeMap<String, serde_json::Value> = serde_json::from_slice(text).map_err(bad)?;
        // In checkpoints every row names all kinds, all but one of them null.
        let Some((kind, body)) = object.into_iter().find(|(_, body)| !body.is_null()) else { continue };
        let action = match kind.as_str() {
            "protocol" => Action::Protocol(serde_json::from_value(body).map_err(bad)?),
            "metaData" => Action::MetaData(serde_json::from_value(body).map_err(bad)?),
            "add" => Action::Add(serde_json::from_value(body).map_err(bad)?),
            "remove" => Action::Remove(serde_json::from_value(body).map_err(bad)?),
            "txn" => Action::Txn(serde_json::from_value(body).map_err(bad)?),
            "commitInfo" => Action::CommitInfo(body),
            _ => continue,
        };
        actions.push(action);
    }
    Ok(actions)
}
