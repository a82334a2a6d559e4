//! `windrose inspect`: what lies on disk, in readable form. Only reads, takes no lock, and goes on
//! past damage, so it can be used beside a running server and on what a crash left.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use windrose_proto::time::UnixNanos;
use windrose_store::disk::{Disk, OsDisk};
use windrose_store::sealed::look_at_table;
use windrose_store::segment::{FileReport, inspect_file};
use windrose_store::table_log::{Action, Add};
use windrose_store::wal::{WalPosition, WalReader};

use super::with_causes;
use crate::cli::{Exit, InspectCommand, InspectSegmentArgs, InspectTableArgs, InspectWalArgs};
use crate::output;
use crate::table::{Align, Table};

pub(super) fn run(command: &InspectCommand) -> Exit {
    let shown = match command {
        InspectCommand::Wal(args) => wal(args),
        InspectCommand::Segment(args) => segment(args),
        InspectCommand::Table(args) => table(args),
    };
    match shown {
        Ok(true) => Exit::Ok,
        Ok(false) => Exit::Failed,
        Err(error) => {
            output::error_line(&with_causes(&*error));
            Exit::Failed
        }
    }
}

/// True when everything could be read.
type Shown = Result<bool, Box<dyn Error>>;

fn wal(args: &InspectWalArgs) -> Shown {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    // A directory that is not there would read as an empty log.
    disk.list(&args.directory)?;
    let mut reader = WalReader::read_from(disk, &args.directory, WalPosition::START, None);
    let mut records = Table::new(&[
        ("position", Align::Left),
        ("kind", Align::Left),
        ("encoding", Align::Left),
        ("tenant", Align::Left),
        ("arrived", Align::Left),
        ("bytes", Align::Right),
    ]);
    let mut kinds: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut first = 0;
    while let Some(record) = reader.next_record()? {
        let kind = format!("{:?}", record.kind);
        let (count, bytes) = kinds.entry(kind.clone()).or_default();
        (*count, *bytes) = (*count + 1, *bytes + record.payload.len() as u64);
        if record.position >= args.from.unwrap_or(WalPosition::START) && first < args.records {
            first += 1;
            records.push(vec![
                record.position.to_string(),
                kind,
                format!("{:?}", record.encoding),
                record.tenant.to_string(),
                time(record.arrival),
                record.payload.len().to_string(),
            ]);
        }
    }
    output::line(&records.render());
    let mut sums = Table::new(&[("kind", Align::Left), ("records", Align::Right), ("bytes", Align::Right)]);
    for (kind, (count, bytes)) in kinds {
        sums.push(vec![kind, count.to_string(), bytes.to_string()]);
    }
    output::line(&format!("\n{}", sums.render()));
    output::line(&format!("\nread up to {}", reader.position()));
    for damage in reader.damages() {
        output::line(&format!("{}: {} bytes skipped at {}", damage.reason, damage.bytes, damage.position));
    }
    // A torn end is what a crash leaves, and what a running server is just writing.
    Ok(!reader.damages().iter().any(|damage| damage.reason.is_loss()))
}

fn segment(args: &InspectSegmentArgs) -> Shown {
    let report = inspect_file(&OsDisk, &args.file)?;
    let FileReport { bytes, rows, created_by, columns, row_groups } = &report;
    let per_row = |bytes: u64| if *rows > 0 { format!("{:.2}", bytes as f64 / *rows as f64) } else { String::new() };
    output::line(&format!(
        "{rows} rows, {bytes} bytes, {} bytes a row, {} row groups, written by {}\n",
        per_row(*bytes),
        row_groups.len(),
        created_by.as_deref().unwrap_or("somebody who did not say")
    ));
    let mut table = Table::new(&[
        ("column", Align::Left),
        ("type", Align::Left),
        ("codec", Align::Left),
        ("encodings", Align::Left),
        ("bytes", Align::Right),
        ("a row", Align::Right),
        ("uncompressed", Align::Right),
    ]);
    for column in columns {
        table.push(vec![
            column.name.clone(),
            column.physical_type.clone(),
            column.codec.clone(),
            column.encodings.clone(),
            column.compressed_bytes.to_string(),
            per_row(column.compressed_bytes),
            column.uncompressed_bytes.to_string(),
        ]);
    }
    output::line(&table.render());
    let data: u64 = columns.iter().map(|column| column.compressed_bytes).sum();
    output::line(&format!("\nfooter and page index: {} bytes\n", bytes.saturating_sub(data)));
    let mut groups = Table::new(&[
        ("row group", Align::Right),
        ("rows", Align::Right),
        ("bytes", Align::Right),
        ("readable", Align::Left),
    ]);
    for (place, group) in row_groups.iter().enumerate() {
        let readable = group.damage.clone().unwrap_or_else(|| "yes".to_owned());
        groups.push(vec![place.to_string(), group.rows.to_string(), group.compressed_bytes.to_string(), readable]);
    }
    output::line(&groups.render());
    Ok(row_groups.iter().all(|group| group.damage.is_none()))
}

fn table(args: &InspectTableArgs) -> Shown {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let log = look_at_table(Arc::new(OsDisk), &args.directory).await?;
        let log = log.ok_or_else(|| no_table(&args.directory))?;
        let name = log.state().metadata().and_then(|metadata| metadata.name.clone()).unwrap_or_default();
        let files = log.state().files();
        let bytes: i64 = files.values().map(|add| add.size).sum();
        let rows: u64 = files.values().filter_map(|add| stats(add)["numRecords"].as_u64()).sum();
        output::line(&format!(
            "table {name}: version {}, {rows} rows, {} files, {bytes} bytes; {} removed files await vacuum\n",
            log.version(),
            files.len(),
            log.state().tombstones().len()
        ));
        output::line(&file_list(files.values()).render());
        let mut commits = Table::new(&[
            ("version", Align::Right),
            ("at", Align::Left),
            ("operation", Align::Left),
            ("added", Align::Right),
            ("removed", Align::Right),
            ("transaction", Align::Left),
        ]);
        for (version, actions) in log.history(args.commits).await? {
            commits.push(commit(version, &actions));
        }
        output::line(&format!("\n{}", commits.render()));
        Ok(true)
    })
}

fn no_table(directory: &Path) -> Box<dyn Error> {
    format!("{} holds no table: name the directory of one table, for example ./data/tables/spans", directory.display())
        .into()
}

fn file_list<'a>(files: impl Iterator<Item = &'a Add>) -> Table {
    let mut table = Table::new(&[
        ("rows", Align::Right),
        ("bytes", Align::Right),
        ("first", Align::Left),
        ("last", Align::Left),
        ("tenant", Align::Left),
        ("date", Align::Left),
        ("file", Align::Left),
    ]);
    for add in files {
        let partition = |name: &str| add.partition_values.get(name).cloned().flatten().unwrap_or_default();
        let stats = stats(add);
        let bound = |bounds: &str| {
            let nanos = stats[bounds].as_object().and_then(|bounds| bounds.values().find_map(Value::as_i64));
            nanos.map(|nanos| time(UnixNanos(nanos.unsigned_abs()))).unwrap_or_default()
        };
        table.push(vec![
            stats["numRecords"].to_string(),
            add.size.to_string(),
            bound("minValues"),
            bound("maxValues"),
            partition("tenant"),
            partition("date"),
            add.path.rsplit('/').next().unwrap_or_default().to_owned(),
        ]);
    }
    table
}

fn stats(add: &Add) -> Value {
    add.stats.as_deref().and_then(|stats| serde_json::from_str(stats).ok()).unwrap_or_default()
}

fn commit(version: u64, actions: &[Action]) -> Vec<String> {
    let mut info = Value::Null;
    let (mut added, mut removed) = (0, 0);
    let mut transaction = String::new();
    for action in actions {
        match action {
            Action::CommitInfo(body) => info = body.clone(),
            Action::Add(_) => added += 1,
            Action::Remove(_) => removed += 1,
            Action::Txn(txn) => transaction = format!("{} {}", txn.app_id, txn.version),
            Action::Protocol(_) | Action::MetaData(_) => {}
        }
    }
    let at = info["timestamp"].as_u64().map(|millis| time(UnixNanos(millis.saturating_mul(1_000_000))));
    vec![
        version.to_string(),
        at.unwrap_or_default(),
        info["operation"].as_str().unwrap_or_default().to_owned(),
        added.to_string(),
        removed.to_string(),
        transaction,
    ]
}

/// RFC 3339, to the millisecond.
fn time(at: UnixNanos) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(at.0)).map_or_else(|_| at.0.to_string(), |time| format!("{time:.3}"))
}
