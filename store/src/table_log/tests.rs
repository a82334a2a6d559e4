use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use windrose_proto::time::UnixNanos;

use super::{Action, Add, Commit, LogError, Remove, TableDefinition, TableLog, Txn, delta_schema};
use crate::tables::Table;

const NOW: UnixNanos = UnixNanos(1_790_000_000_000_000_000);

fn definition() -> TableDefinition {
    TableDefinition {
        name: "hops".to_owned(),
        description: "test".to_owned(),
        schema_string: delta_schema(&Table::Hops.schema(), &[("tenant", "string"), ("date", "date")]).unwrap(),
        partition_columns: vec!["tenant".to_owned(), "date".to_owned()],
        configuration: Vec::new(),
    }
}

async fn open(store: &Arc<dyn ObjectStore>) -> Result<TableLog, LogError> {
    TableLog::open(Arc::clone(store), Path::from("hops"), &definition(), NOW).await
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn add(path: &str) -> Action {
    Action::Add(Add {
        path: path.to_owned(),
        partition_values: BTreeMap::from([
            ("tenant".to_owned(), Some("default".to_owned())),
            ("date".to_owned(), Some("2026-11-21".to_owned())),
        ]),
        size: 10,
        modification_time: 1,
        data_change: true,
        stats: Some(r#"{"numRecords":3}"#.to_owned()),
        tags: Some(BTreeMap::from([("windrose.revision".to_owned(), Some("1".to_owned()))])),
    })
}

fn remove(path: &str) -> Action {
    Action::Remove(Remove {
        path: path.to_owned(),
        deletion_timestamp: Some(5),
        data_change: false,
        extended_file_metadata: None,
        partition_values: None,
        size: Some(10),
    })
}

fn write(txn: Option<i64>, actions: Vec<Action>) -> Commit {
    let txn = txn.map(|version| Txn { app_id: "windrose-a".to_owned(), version, last_updated: Some(1) });
    Commit { operation: "WRITE", at: NOW, txn, actions }
}

#[tokio::test]
async fn a_reopened_table_is_the_same() {
    let store = memory();
    let mut log = open(&store).await.unwrap();
    assert_eq!(log.version(), 0);
    log.commit(write(Some(1), vec![add("a.parquet"), add("b.parquet")])).await.unwrap();
    log.commit(write(Some(2), vec![remove("a.parquet"), add("c.parquet")])).await.unwrap();
    let again = open(&store).await.unwrap();
    assert_eq!(again.version(), 2);
    assert_eq!(again.state(), log.state());
    assert_eq!(again.state().files().keys().collect::<Vec<_>>(), ["b.parquet", "c.parquet"]);
    assert_eq!(again.state().txn("windrose-a"), Some(2));
}

#[tokio::test]
async fn a_checkpoint_stands_for_the_commits_before_it() {
    let store = memory();
    let mut log = open(&store).await.unwrap();
    for number in 0..45 {
        log.commit(write(Some(number), vec![add(&format!("{number}.parquet"))])).await.unwrap();
    }
    log.commit(write(None, vec![remove("7.parquet")])).await.unwrap();
    for version in 0..40 {
        store.delete(&Path::from(format!("hops/_delta_log/{version:020}.json"))).await.unwrap();
    }
    let again = open(&store).await.unwrap();
    assert_eq!(again.version(), 46);
    assert_eq!(again.state().files().len(), 44);
    assert_eq!(again.state().metadata(), log.state().metadata());
    assert_eq!(again.state().txn("windrose-a"), Some(44));
    let (Some(Action::Add(expect)), Some(found)) = (Some(add("3.parquet")), again.state().files().get("3.parquet"))
    else {
        panic!("file 3 is in the checkpoint")
    };
    assert_eq!(
        (&found.stats, &found.tags, &found.partition_values),
        (&expect.stats, &expect.tags, &expect.partition_values)
    );
}

#[tokio::test]
async fn a_transaction_is_committed_once() {
    let store = memory();
    let mut log = open(&store).await.unwrap();
    assert_eq!(log.commit(write(Some(7), vec![add("a.parquet")])).await.unwrap(), Some(1));
    assert_eq!(log.commit(write(Some(7), vec![add("a.parquet")])).await.unwrap(), None);
    let mut stale = open(&store).await.unwrap();
    assert_eq!(stale.commit(write(Some(6), vec![add("z.parquet")])).await.unwrap(), None);
    assert_eq!(stale.state().files().len(), 1);
}

#[tokio::test]
async fn two_writers_lose_nothing() {
    let store = memory();
    let mut one = open(&store).await.unwrap();
    let mut two = open(&store).await.unwrap();
    for number in 0..10 {
        one.commit(write(None, vec![add(&format!("one-{number}"))])).await.unwrap();
        two.commit(write(None, vec![add(&format!("two-{number}"))])).await.unwrap();
    }
    assert!(one.refresh().await.unwrap());
    assert_eq!(one.state(), two.state());
    assert_eq!(one.state().files().len(), 20);
    two.commit(write(None, vec![remove("one-0")])).await.unwrap();
    let conflict = one.commit(write(None, vec![remove("one-0"), add("merged")])).await;
    assert!(matches!(conflict, Err(LogError::Conflict { file }) if file == "one-0"));
}

#[tokio::test]
async fn a_damaged_checkpoint_is_no_loss_while_the_commits_are_there() {
    let store = memory();
    let mut log = open(&store).await.unwrap();
    for number in 0..25 {
        log.commit(write(None, vec![add(&format!("{number}"))])).await.unwrap();
    }
    let checkpoint = Path::from(format!("hops/_delta_log/{:020}.checkpoint.parquet", 20));
    store.put(&checkpoint, PutPayload::from_static(b"PAR1 nonsense")).await.unwrap();
    assert_eq!(open(&store).await.unwrap().state(), log.state());
    store.delete(&Path::from(format!("hops/_delta_log/{:020}.json", 0))).await.unwrap();
    assert!(matches!(open(&store).await, Err(LogError::DamagedCheckpoint { .. })));
}

#[tokio::test]
async fn damage_is_named() {
    let store = memory();
    let mut log = open(&store).await.unwrap();
    for number in 0..3 {
        log.commit(write(None, vec![add(&format!("{number}"))])).await.unwrap();
    }
    let commit = Path::from(format!("hops/_delta_log/{:020}.json", 2));
    store.put(&commit, PutPayload::from_static(b"{\"add\":")).await.unwrap();
    assert!(matches!(open(&store).await, Err(LogError::DamagedCommit { path, .. }) if path == commit));
    store.delete(&commit).await.unwrap();
    assert!(matches!(open(&store).await, Err(LogError::MissingCommit { version: 2, .. })));
}

#[tokio::test]
async fn a_table_with_unknown_features_is_refused() {
    let store = memory();
    open(&store).await.unwrap();
    let upgrade = br#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"]}}"#;
    store.put(&Path::from(format!("hops/_delta_log/{:020}.json", 1)), PutPayload::from_static(upgrade)).await.unwrap();
    assert!(matches!(open(&store).await, Err(LogError::Unsupported { reader: 3, writer: 7, .. })));
}

#[tokio::test]
async fn new_columns_are_added_to_an_older_table() {
    let store = memory();
    let older = TableDefinition {
        schema_string:
            r#"{"type":"struct","fields":[{"name":"tenant","type":"string","nullable":true,"metadata":{}}]}"#.to_owned(),
        ..definition()
    };
    TableLog::open(Arc::clone(&store), Path::from("hops"), &older, NOW).await.unwrap();
    let log = open(&store).await.unwrap();
    let schema: serde_json::Value = serde_json::from_str(&log.state().metadata().unwrap().schema_string).unwrap();
    let fields = schema["fields"].as_array().unwrap();
    let added = fields.iter().find(|field| field["name"] == "trace_id").expect("the new column");
    assert_eq!(added["nullable"], true, "older files have no values for it");
    assert_eq!(open(&store).await.unwrap().version(), log.version());
}
