//! How fast records become durable: bodies of 512 spans, as received, by size, senders and policy.
//!
//! `cargo bench -p windrose-store --bench wal [-- DIR]` measures on the file system of `DIR`;
//! `cargo test --benches` runs it once with a tiny input. Always read the figures beside the
//! sync times printed with them: a virtual disk with a volatile cache makes any log look good.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::{SystemClock, UnixNanos};
use windrose_store::disk::OsDisk;
use windrose_store::wal::{
    CommitLog, ContentEncoding, Received, Record, RecordKind, SyncPolicy, Wal, WalConfig, WalPosition, WalReader,
    WalStats,
};

const SPANS_PER_BODY: u64 = 512;

/// Envoy-like spans take 1.1 KB each; zstd makes a tenth of it.
const IDENTITY_BYTES: usize = 570_000;
const ZSTD_BYTES: usize = 57_000;

#[derive(Clone, Copy)]
struct Case {
    encoding: ContentEncoding,
    body_bytes: usize,
    senders: usize,
    sync: SyncPolicy,
    bodies: usize,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_measurement = arguments.iter().any(|argument| argument == "--bench");
    // Without `--bench` this runs as a test, and a word is a filter.
    let dir = arguments.iter().find(|argument| is_measurement && !argument.starts_with('-')).map(PathBuf::from);
    let temp = tempfile::tempdir_in(dir.unwrap_or_else(std::env::temp_dir)).expect("a directory to write to");
    let scale = if is_measurement { 1 } else { 500 };
    print_line(&"encoding  senders  policy     Mspan/s    MB/s  cpu us/span  bodies/sync  sync ms avg/max   lag MB");
    for (encoding, body_bytes, bodies) in
        [(ContentEncoding::Identity, IDENTITY_BYTES, 4_000), (ContentEncoding::Zstd, ZSTD_BYTES, 20_000)]
    {
        for senders in [1, 8, 32] {
            for sync in [SyncPolicy::Always, SyncPolicy::Never] {
                let bodies = (bodies / scale).max(senders);
                run(temp.path(), Case { encoding, body_bytes, senders, sync, bodies });
            }
        }
    }
}

fn run(root: &Path, case: Case) {
    let dir = root.join("wal");
    let config = WalConfig { sync: case.sync, max_bytes: 8 << 30, ..WalConfig::default() };
    let (wal, _) = Wal::open(Arc::new(OsDisk), &dir, config, Arc::new(SystemClock)).expect("an empty log");
    let (log, mut consumer) = CommitLog::<()>::start(wal, WalPosition::START).expect("a thread");
    let log = Arc::new(log);
    let body = Bytes::from((0..case.body_bytes).map(|index| ((index * 31) >> 3) as u8).collect::<Vec<u8>>());
    let cutter = Arc::clone(&log);
    let consuming = std::thread::spawn(move || {
        // As a sealing process would: everything consumed may go.
        while !matches!(consumer.recv(Duration::from_secs(60)).expect("readable"), Received::Closed) {
            cutter.cut_before(consumer.position()).expect("a cut");
        }
    });
    let (started, cpu) = (Instant::now(), cpu_time());
    send_all(&log, case, &body);
    log.close().expect("a last sync");
    let (wall, cpu) = (started.elapsed(), cpu_time().saturating_sub(cpu));
    consuming.join().expect("the consumer");
    report(case, wall, cpu, log.stats());
    if case.senders == 1 {
        read_back(&dir);
    }
    std::fs::remove_dir_all(&dir).expect("the directory is ours");
}

fn send_all(log: &Arc<CommitLog<()>>, case: Case, body: &Bytes) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build();
    runtime.expect("a runtime").block_on(async {
        let senders: Vec<_> = (0..case.senders)
            .map(|_| {
                let (log, body) = (Arc::clone(log), body.clone());
                tokio::spawn(async move {
                    for _ in 0..case.bodies / case.senders {
                        let kind = RecordKind::OtlpTracesProtobuf;
                        let tenant = TenantId::default();
                        let record = Record::new(kind, case.encoding, tenant, UnixNanos(1), [body.clone()]);
                        log.append(record, (), body.len()).await.expect("room on the disk");
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.await.expect("the sender");
        }
    });
}

fn report(case: Case, wall: Duration, cpu: Duration, stats: &WalStats) {
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed) as f64;
    let spans = load(&stats.appended_records) * SPANS_PER_BODY as f64;
    let policy = if case.sync == SyncPolicy::Always { "always" } else { "never" };
    print_line(&format_args!(
        "{:<9} {:>7}  {policy:<8} {:>9.3} {:>7.0} {:>12.3} {:>12.1}   {:>6.2} / {:<6.1} {:>7.1}",
        format!("{:?}", case.encoding).to_lowercase(),
        case.senders,
        spans / wall.as_secs_f64() / 1e6,
        load(&stats.appended_bytes) / wall.as_secs_f64() / 1e6,
        cpu.as_secs_f64() * 1e6 / spans,
        load(&stats.appended_records) / load(&stats.groups),
        load(&stats.fsync_nanos_sum) / load(&stats.fsyncs).max(1.0) / 1e6,
        load(&stats.fsync_nanos_max) / 1e6,
        load(&stats.lag_bytes) / 1e6,
    ));
}

/// How fast a lagging consumer or a restart reads.
fn read_back(dir: &Path) {
    let started = Instant::now();
    let mut reader = WalReader::read_from(Arc::new(OsDisk), dir, WalPosition::START, None);
    let mut bytes = 0;
    while let Some(record) = reader.next_record().expect("readable") {
        bytes += record.after.offset - record.position.offset;
    }
    let seconds = started.elapsed().as_secs_f64();
    print_line(&format_args!(
        "          read back {:.0} MB at {:.0} MB/s",
        bytes as f64 / 1e6,
        bytes as f64 / seconds / 1e6
    ));
}

/// User and system time of this process, from the kernel's ticks of 10 ms.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<u64> = after_name.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    let ticks = fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0);
    Duration::from_millis(ticks * 10)
}

#[expect(clippy::print_stdout, reason = "a bench talks to the terminal")]
fn print_line(line: &dyn fmt::Display) {
    println!("{line}");
}
