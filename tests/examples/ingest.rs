//! How many spans a server acknowledges per second of its CPU time, each on disk before its acknowledgement.
//!
//!     cargo build --release -p windrose && cargo run --release -p windrose-tests --example ingest -- [SECONDS] [BATCH] [CONNECTIONS]
//!
//! Sends recorded spans of real Envoys over gRPC from a few connections to a fresh server with its default settings, with
//! new trace ids every time around, and prints what the server used: CPU time, memory, bytes on disk.

#![expect(clippy::print_stdout, reason = "a program that reports")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use tokio::task::JoinSet;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use windrose_tests::raw_codec::RawCodec;
use windrose_tests::recorded::{Batch, EXPORT, batches};
use windrose_tests::server::{Home, TestServer};

/// What the kernel counts CPU time in, on every Linux that we know.
const TICKS_PER_SECOND: f64 = 100.0;

async fn send(
    channel: Channel,
    batches: Arc<Vec<Batch>>,
    next: Arc<AtomicU64>,
    acknowledged: Arc<AtomicU64>,
    until: Instant,
) {
    let mut client = Grpc::new(channel);
    while Instant::now() < until {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let batch = &batches[(number % batches.len() as u64) as usize];
        let body = batch.body(number / batches.len() as u64);
        client.ready().await.expect("a connection");
        let sent = client.unary(tonic::Request::new(body), PathAndQuery::from_static(EXPORT), RawCodec).await;
        sent.expect("an acknowledgement");
        acknowledged.fetch_add(batch.spans, Ordering::Relaxed);
    }
}

fn proc_file(server: &TestServer, name: &str) -> String {
    std::fs::read_to_string(format!("/proc/{}/{name}", server.pid())).expect("the server's process")
}

fn cpu_seconds(server: &TestServer) -> f64 {
    let stat = proc_file(server, "stat");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks = |place: usize| fields[place].parse::<f64>().expect("ticks");
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>().expect("a number"));
    let seconds = arguments.next().unwrap_or(20);
    let batches = Arc::new(batches(arguments.next().unwrap_or(512)));
    let connections = arguments.next().unwrap_or(4);
    let bytes: usize = batches.iter().map(|batch| batch.body.len()).sum();
    let spans: u64 = batches.iter().map(|batch| batch.spans).sum();
    println!("{} requests of {} spans, {} B/span", batches.len(), spans / batches.len() as u64, bytes as u64 / spans);
    let server = Home::new("").start().await;
    let (next, acknowledged) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (before, started) = (cpu_seconds(&server), Instant::now());
    let until = started + Duration::from_secs(seconds as u64);
    let mut senders = JoinSet::new();
    for _ in 0..connections {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.ports().otlp_grpc)).expect("a URL");
        let channel = endpoint.connect().await.expect("a connection");
        senders.spawn(send(channel, Arc::clone(&batches), Arc::clone(&next), Arc::clone(&acknowledged), until));
    }
    senders.join_all().await;
    let (elapsed, used) = (started.elapsed().as_secs_f64(), cpu_seconds(&server) - before);
    let spans = acknowledged.load(Ordering::Relaxed) as f64;
    println!(
        "{spans} spans in {elapsed:.1} s: {:.0}/s, {:.0} per CPU second ({used:.1} s)",
        spans / elapsed,
        spans / used
    );
    let peak = proc_file(&server, "status");
    println!("{}", peak.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default());
    let disk = bytes_below(&server.home().data());
    println!("{disk} bytes on disk, {:.0} B/span", disk as f64 / spans);
}
