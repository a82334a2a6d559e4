//! Sends a large mesh's spans to a running server, as fast as it acknowledges them or at a given rate.
//!
//!     cargo run --release -p windrose-tests --example mesh_load -- http://127.0.0.1:4317 [SPANS] [PER_SECOND] [SEED] [CONNECTIONS] [DAYS]
//!
//! `PER_SECOND` 0 means as fast as it goes. The requests are dated as if there had been a thousand a second, up to now, or
//! over so many DAYS. Prints what was acknowledged and refused every few seconds, at the end
//! the ids of some traces that were sent.

#![expect(clippy::print_stdout, reason = "a program that reports")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message as _;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinSet;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use windrose_tests::load::MeshLoad;
use windrose_tests::raw_codec::RawCodec;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Spans of a request: what a collector in between sends.
const BATCH: usize = 512;
/// Requests that wait for a free connection.
const REQUESTS_WAITING: usize = 64;
/// A trace that starts this many nanoseconds after the one before it: a thousand requests a second.
const TRACE_EVERY: u64 = 1_000_000;
/// Of a day.
const DAY_NANOS: u64 = 86_400_000_000_000;
/// Spans of an average trace.
const SPANS_PER_TRACE: u64 = 8;
/// One trace id in so many requests is printed.
const PRINT_EVERY: u64 = 500;

#[derive(Default)]
struct Tally {
    acknowledged: AtomicU64,
    refused: AtomicU64,
}

async fn send(channel: Channel, bodies: Arc<Mutex<Receiver<Bytes>>>, tally: Arc<Tally>) {
    let mut client = Grpc::new(channel);
    loop {
        let Some(body) = bodies.lock().await.recv().await else { return };
        client.ready().await.expect("a connection");
        let sent = client.unary(tonic::Request::new(body), PathAndQuery::from_static(EXPORT), RawCodec).await;
        let count = if sent.is_ok() { &tally.acknowledged } else { &tally.refused };
        count.fetch_add(BATCH as u64, Ordering::Relaxed);
    }
}

/// Nanoseconds since 1970, `ago` nanoseconds before now.
#[expect(clippy::disallowed_methods, reason = "a load generator sends spans of now")]
fn before_now(ago: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    now.as_nanos() as u64 - ago
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let endpoint = arguments.next().unwrap_or_else(|| "http://127.0.0.1:4317".to_owned());
    let mut numbers = arguments.map(|argument| argument.parse::<u64>().expect("a number"));
    let spans = numbers.next().unwrap_or(1_000_000);
    let per_second = numbers.next().unwrap_or(0);
    let seed = numbers.next().unwrap_or(1);
    let connections = numbers.next().unwrap_or(4);
    let traces = (spans / SPANS_PER_TRACE).max(1);
    let trace_every = numbers.next().map_or(TRACE_EVERY, |days| days * DAY_NANOS / traces);
    let mut load = MeshLoad::new(seed, before_now(traces * trace_every), trace_every);

    let tally = Arc::new(Tally::default());
    let (queue, bodies) = channel(REQUESTS_WAITING);
    let bodies = Arc::new(Mutex::new(bodies));
    let mut senders = JoinSet::new();
    for _ in 0..connections {
        let endpoint = Endpoint::from_shared(endpoint.clone()).expect("a URL");
        let channel = endpoint.connect().await.expect("a server");
        senders.spawn(send(channel, Arc::clone(&bodies), Arc::clone(&tally)));
    }
    let started = Instant::now();
    let mut traces = BTreeMap::new();
    let mut reported = started;
    for number in 0..spans.div_ceil(BATCH as u64) {
        if per_second > 0 {
            let due = started + Duration::from_secs_f64((number * BATCH as u64) as f64 / per_second as f64);
            tokio::time::sleep_until(due.into()).await;
        }
        let request = load.next_request(BATCH);
        if number % PRINT_EVERY == 0 {
            traces.insert(number, request.resource_spans[0].scope_spans[0].spans[0].trace_id.clone());
        }
        queue.send(request.encode_to_vec().into()).await.expect("a sender");
        if reported.elapsed() > Duration::from_secs(5) {
            reported = Instant::now();
            report(&tally, started);
        }
    }
    drop(queue);
    senders.join_all().await;
    report(&tally, started);
    for id in traces.values() {
        println!("trace {}", id.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }
}

fn report(tally: &Tally, started: Instant) {
    let (acknowledged, refused) = (tally.acknowledged.load(Ordering::Relaxed), tally.refused.load(Ordering::Relaxed));
    let seconds = started.elapsed().as_secs_f64();
    let rate = acknowledged as f64 / seconds;
    println!("{seconds:.1} s: {acknowledged} acknowledged ({rate:.0}/s), {refused} refused");
}
