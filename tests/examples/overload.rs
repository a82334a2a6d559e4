//! What a server does with four times the spans that it can join.
//!
//!     cargo build --release -p windrose && cargo run --release -p windrose-tests --example overload -- [SECONDS] [FACTOR]
//!
//! Pushes as much as it can and looks how fast that is joined afterwards, then pushes nearly that much, then FACTOR times
//! as much, each for SECONDS, to fresh servers. Prints rates, refusals, memory and lag, and compares what was acknowledged with what is stored in the
//! end. Ends with an error when a request was refused or a span is missing.

#![expect(clippy::print_stdout, reason = "a program that reports")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use tokio::task::JoinSet;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use windrose_tests::raw_codec::RawCodec;
use windrose_tests::recorded::{Batch, EXPORT, batches};
use windrose_tests::server::{Home, TestServer};
use windrose_tests::wait::until;

const SPANS_PER_REQUEST: usize = 512;
const SENDERS: usize = 8;
/// Room for a minute of overload; everything else as it comes.
const CONFIG: &str = "wal:\n  max_bytes: 40GiB\nquery:\n  timeout: 60s\n";
/// How much of what the joiner takes by itself counts as normal: senders and receivers want some of the machine too.
const NORMAL: f64 = 0.6;
/// How long as much as possible is pushed, and how long what that left is watched.
const FLAT_OUT_SECONDS: u64 = 20;
/// A minute of overload takes minutes to be joined.
const JOINED_WITHIN: Duration = Duration::from_secs(1_800);

/// What a phase saw.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    acknowledged: u64,
    refused: u64,
    joined: f64,
    seconds: f64,
    lag_bytes: f64,
    peak_bytes: u64,
}

impl Outcome {
    fn print(&self, name: &str) {
        println!(
            "{name}: {:.0} spans/s acknowledged, {:.0} spans/s joined meanwhile, {} requests refused, {:.0} MiB peak memory, {:.0} MiB lag",
            self.acknowledged as f64 / self.seconds,
            self.joined / self.seconds,
            self.refused,
            self.peak_bytes as f64 / f64::from(1 << 20),
            self.lag_bytes / f64::from(1 << 20),
        );
    }
}

/// Pushes at `rate` spans per second, or as much as is taken.
async fn push(server: &TestServer, batches: &Arc<Vec<Batch>>, seconds: u64, rate: Option<f64>) -> Outcome {
    let (next, acknowledged) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let refused = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let until = started + Duration::from_secs(seconds);
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.ports().otlp_grpc)).expect("a URL");
        let mut client = Grpc::new(endpoint.connect().await.expect("a connection"));
        let (batches, next) = (Arc::clone(batches), Arc::clone(&next));
        let (acknowledged, refused) = (Arc::clone(&acknowledged), Arc::clone(&refused));
        senders.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let batch = &batches[(number % batches.len() as u64) as usize];
                let due = rate.map_or(started, |rate| {
                    started + Duration::from_secs_f64(number as f64 * batch.spans as f64 / rate)
                });
                if due.max(Instant::now()) >= until {
                    return;
                }
                tokio::time::sleep_until(due.into()).await;
                let body = batch.body(number / batches.len() as u64);
                client.ready().await.expect("a connection");
                match client.unary(tonic::Request::new(body), PathAndQuery::from_static(EXPORT), RawCodec).await {
                    Ok(_) => acknowledged.fetch_add(batch.spans, Ordering::Relaxed),
                    Err(_) => refused.fetch_add(1, Ordering::Relaxed),
                };
            }
        });
    }
    senders.join_all().await;
    Outcome {
        acknowledged: acknowledged.load(Ordering::Relaxed),
        refused: refused.load(Ordering::Relaxed),
        joined: server.metric("windrose_join_stored_spans_total").await,
        seconds: started.elapsed().as_secs_f64(),
        lag_bytes: server.metric("windrose_wal_lag_bytes").await,
        peak_bytes: peak_bytes(server),
    }
}

fn peak_bytes(server: &TestServer) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the server's process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak memory");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}

/// Waits until everything is joined, and counts.
async fn all_queryable(server: &TestServer, acknowledged: u64) -> Duration {
    let started = Instant::now();
    until("everything acknowledged to be joined", JOINED_WITHIN, async || {
        let joined = server.metric("windrose_join_stored_spans_total").await;
        if joined as u64 == acknowledged { Ok(()) } else { Err(format!("{joined} of {acknowledged} joined")) }
    })
    .await;
    // What the join remembers of other traces lies among the spans and was sent by nobody.
    let query = "SELECT count(*) AS spans FROM spans WHERE scope IS NULL OR scope NOT LIKE '%windrose.join%'";
    let rows = server.http().sql(query).await;
    assert_eq!(rows[0]["spans"], acknowledged, "spans that can be queried");
    started.elapsed()
}

#[tokio::main]
async fn main() {
    let arguments: Vec<f64> = std::env::args().skip(1).map(|text| text.parse().expect("a number")).collect();
    let seconds = arguments.first().copied().unwrap_or(60.0) as u64;
    let factor = arguments.get(1).copied().unwrap_or(4.0);
    let batches = Arc::new(batches(SPANS_PER_REQUEST));

    let server = Home::new(CONFIG).start().await;
    let flat_out = push(&server, &batches, FLAT_OUT_SECONDS, None).await;
    flat_out.print("flat out");
    let watched = Instant::now();
    tokio::time::sleep(Duration::from_secs(FLAT_OUT_SECONDS)).await;
    let joined = server.metric("windrose_join_stored_spans_total").await - flat_out.joined;
    let capacity = joined / watched.elapsed().as_secs_f64();
    println!("by itself it joins {capacity:.0} spans/s");
    drop(server);
    let rate = capacity * NORMAL;

    let server = Home::new(CONFIG).start().await;
    let normal = push(&server, &batches, seconds, Some(rate)).await;
    normal.print("normal");
    all_queryable(&server, normal.acknowledged).await;
    drop(server);

    let server = Home::new(CONFIG).start().await;
    let overload = push(&server, &batches, seconds, Some(rate * factor)).await;
    overload.print("overload");
    let caught_up = all_queryable(&server, overload.acknowledged).await;
    let (peak, allowed) = (peak_bytes(&server), normal.peak_bytes);
    println!(
        "{} spans acknowledged and queryable, caught up after {:.0} s more; memory {:.2} of normal, {:.2} with catching up",
        overload.acknowledged,
        caught_up.as_secs_f64(),
        overload.peak_bytes as f64 / allowed as f64,
        peak as f64 / allowed as f64,
    );
    assert_eq!(overload.refused, 0, "requests refused while the disk budget lasted");
}
