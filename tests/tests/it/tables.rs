//! What lies on disk: read by others, merged in the background, shown by `status` and `inspect`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use windrose_tests::capture::Capture;
use windrose_tests::client::Http;
use windrose_tests::places;
use windrose_tests::replay::{Plan, shift_to_now};
use windrose_tests::senders::Senders;
use windrose_tests::server::{Home, TestServer};
use windrose_tests::truth::{Tracer, Truth};
use windrose_tests::wait::until;

use crate::support::{SHOWN_WITHIN, topology_of, window};

const TABLES: [&str; 4] = ["spans", "hops", "requests", "edges"];

/// Seals every second.
fn sealing_home() -> Home {
    Home::new("join:\n  settle_after: 1s\n  tick: 200ms\nseal:\n  interval: 1s\n")
}

/// A server that holds everything of a capture in files.
async fn sealed_capture(home: &Home) -> TestServer {
    let folder = places::capture("full");
    let capture = Capture::load(&folder);
    let server = home.start().await;
    Plan::new(&capture, shift_to_now(&capture)).send(&server.ports()).await;
    topology_of(&server.http(), window(), &Truth::load(&folder, Tracer::OpenTelemetry).edges()).await;
    until("all rows to be in files", SHOWN_WITHIN, async || {
        let tables = status(&server.http()).await;
        let is_sealed = |table: &Value| table["rows_in_memory"] == 0 && table["rows"].as_u64() > Some(0);
        if tables.len() == TABLES.len() && tables.iter().all(is_sealed) { Ok(()) } else { Err(format!("{tables:?}")) }
    })
    .await;
    server
}

async fn status(http: &Http) -> Vec<Value> {
    http.data("/api/v1/status/tables").await["tables"].as_array().unwrap().clone()
}

/// Rows by table as SQL counts them.
async fn counts(http: &Http) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for table in TABLES {
        // What lies beside the spans in their files.
        let views = if table == "spans" { &[table, "access_logs", "facts"][..] } else { &[table] };
        for view in views {
            let rows = http.sql(&format!("SELECT count(*) AS rows FROM {view}")).await;
            *counts.entry(table).or_default() += rows[0]["rows"].as_u64().unwrap();
        }
    }
    counts
}

fn inspect(arguments: &[&str], place: &Path) -> Output {
    Command::new(places::binary()).arg("inspect").args(arguments).arg(place).output().expect("running the binary")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A data file of a table.
fn data_file(home: &Home, table: &str) -> PathBuf {
    let mut dirs = vec![home.data().join("tables").join(table).join("tenant=default")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "parquet") {
                return path;
            }
            dirs.push(path);
        }
    }
    panic!("{table} has no file");
}

#[tokio::test]
async fn other_programs_count_the_same() {
    let Some(python) = places::python() else {
        places::skip("other programs reading the tables", places::NO_PYTHON);
        return;
    };
    let home = sealing_home();
    let mut server = sealed_capture(&home).await;
    let counts = counts(&server.http()).await;
    let rows: BTreeMap<String, u64> = status(&server.http())
        .await
        .iter()
        .map(|table| (table["table"].as_str().unwrap().to_owned(), table["rows"].as_u64().unwrap()))
        .collect();
    server.terminate();
    assert!(server.ended().await.success());
    let expect = rows.iter().flat_map(|(table, rows)| ["--expect".to_owned(), format!("{table}={rows}")]);
    let script = places::repository().join("tests/readers/read_tables.py");
    let output = Command::new(python).arg(script).arg(home.data().join("tables")).args(expect).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    // Superseded revisions are in files and not in answers; nothing was late here.
    let answered: BTreeMap<String, u64> = counts.into_iter().map(|(table, rows)| (table.to_owned(), rows)).collect();
    assert_eq!(answered, rows, "{}", text(&output));
}

/// Spans by whether they have a parent, and how many find it in SQL.
async fn parents(http: &Http) -> Value {
    let all = "SELECT count(*) AS spans, count(parent_span_id) AS children FROM spans";
    let linked = "SELECT count(*) AS linked, count(DISTINCT child.span_id) AS children FROM spans child \
                  JOIN spans parent ON parent.trace_id = child.trace_id AND parent.span_id = child.parent_span_id \
                  WHERE child.name <> ''";
    Value::from_iter([http.sql(all).await, http.sql(linked).await].concat())
}

#[tokio::test]
async fn files_know_parents_by_distance_and_sql_by_id() {
    let live = Home::new("join:\n  settle_after: 1s\n  tick: 200ms\nseal:\n  interval: 1h\n");
    let capture = Capture::load(&places::capture("full"));
    let server = live.start().await;
    Plan::new(&capture, shift_to_now(&capture)).send(&server.ports()).await;
    let truth = Truth::load(&places::capture("full"), Tracer::OpenTelemetry).edges();
    topology_of(&server.http(), window(), &truth).await;
    let in_memory = parents(&server.http()).await;
    assert!(in_memory[1]["linked"].as_u64() > Some(1_000), "{in_memory}");

    let home = sealing_home();
    let server = sealed_capture(&home).await;
    assert_eq!(parents(&server.http()).await, in_memory);
    let shown = text(&inspect(&["segment"], &data_file(&home, "spans")));
    assert!(shown.contains("parent_back"), "{shown}");
}

#[tokio::test]
async fn small_files_are_merged_and_no_answer_changes() {
    let home = Home::new(
        "join:\n  settle_after: 300ms\n  tick: 100ms\nseal:\n  interval: 200ms\ncompaction:\n  interval: 300ms\n",
    );
    let load = Senders::default();
    let server = home.start().await;
    let mut senders = load.start(&server);
    until("files to be merged", SHOWN_WITHIN * 2, async || {
        let merged = server.metric("windrose_compaction_files_total").await;
        if merged >= 64.0 { Ok(()) } else { Err(format!("{merged} files merged")) }
    })
    .await;
    server.kill().await;
    while senders.join_next().await.is_some() {}
    let server = home.start().await;
    let requests = load.sent().await.all_stored_once(&server.http()).await;
    load.sent().await.edges_count_once(&server.http(), requests).await;
    assert_eq!(server.metric("windrose_maintenance_failures_total{step=\"compaction\"}").await, 0.0);
}

#[tokio::test]
async fn what_lies_on_disk_is_shown_beside_a_running_server() {
    let home = sealing_home();
    let server = sealed_capture(&home).await;
    let spans = status(&server.http()).await.into_iter().find(|table| table["table"] == "spans").unwrap();
    assert!(spans["bytes"].as_u64() > Some(0) && spans["version"].as_u64() > Some(0), "{spans}");
    assert!(spans["oldest"].as_str() <= spans["newest"].as_str(), "{spans}");

    let table = inspect(&["table"], &home.data().join("tables/spans"));
    let shown = text(&table);
    assert!(table.status.success(), "{shown}");
    assert!(
        shown.contains(&format!("{} rows, {} files, {} bytes", spans["rows"], spans["files"], spans["bytes"])),
        "{shown}"
    );
    assert!(shown.contains("WRITE") && shown.contains("windrose-local"), "{shown}");

    let segment = inspect(&["segment"], &data_file(&home, "spans"));
    let shown = text(&segment);
    assert!(segment.status.success(), "{shown}");
    assert!(shown.contains("trace_id") && shown.contains("ZSTD") && shown.contains("footer and page index"), "{shown}");

    let wal = inspect(&["wal"], &home.data().join("wal"));
    let shown = text(&wal);
    assert!(wal.status.success(), "{shown}");
    assert!(shown.contains("OtlpTracesProtobuf") && shown.contains("default"), "{shown}");
    assert_eq!(server.http().get("/readyz").await.status, 200);
}

#[tokio::test]
async fn damage_is_named() {
    let home = sealing_home();
    let mut server = sealed_capture(&home).await;
    server.terminate();
    assert!(server.ended().await.success());
    let file = data_file(&home, "requests");
    let mut content = std::fs::read(&file).unwrap();
    // Half of what lies before the footer, which the last eight bytes say the length of: whole pages, because a few bytes
    // inside a page may still decode to something.
    let (rest, _magic) = content.split_last_chunk::<4>().unwrap();
    let (data, length) = rest.split_last_chunk::<4>().unwrap();
    let pages = data.len() - u32::from_le_bytes(*length) as usize;
    content[4..pages / 2].fill(0xa5);
    std::fs::write(&file, content).unwrap();

    let shown = inspect(&["segment"], &file);
    assert_eq!(shown.status.code(), Some(1), "{}", text(&shown));
    assert!(text(&shown).contains("start_ns"), "columns are shown all the same: {}", text(&shown));

    let server = home.start().await;
    let answer = server.http().get("/api/v1/traces").await;
    assert_eq!(answer.status, 200, "the rest is answered: {}", answer.text());
    let tables = status(&server.http()).await;
    let damaged: Vec<&Value> = tables.iter().flat_map(|table| table["quarantined"].as_array().unwrap()).collect();
    let [damaged] = damaged[..] else { panic!("{tables:?}") };
    assert!(file.ends_with(damaged["path"].as_str().unwrap()), "{damaged} names {}", file.display());
    assert!(damaged["reason"].as_str().unwrap().contains("checksum"), "{damaged}");
}
