//! The proxies at work: they push what the generator makes of them over gRPC, and each shows its
//! counters on a port of its own.
//!
//! One task drives all proxies ([`Driver`]), one serves each page. Spans are batched as Envoy does
//! it: a message per five spans of a proxy, or what there is after five seconds.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use windrose_proto::time::{Clock, NANOS_PER_SEC};

use super::counters::{self, Counters};
use super::mesh::{Proxy, proxies};
use super::span::message;
use super::traffic::{Event, Traffic};
use super::truth::Truth;
use crate::ports::Port;
use crate::tasks::Tasks;

/// Envoy's `tracing.opentelemetry.min_flush_spans`.
const BATCH_SPANS: usize = 5;
/// Envoy's `tracing.opentelemetry.flush_interval_ms`.
const FLUSH_INTERVAL_NANOS: u64 = 5 * NANOS_PER_SEC;
/// How often the driver looks at the clock.
const STEP: Duration = Duration::from_millis(50);
/// Envoy's deadline for an export.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages on their way at once; like Envoy, the demo drops what a slow collector cannot take.
const IN_FLIGHT_MAX: usize = 512;
/// A page takes no time; only a scrape that has just begun is waited for.
const PAGE_DRAIN: Duration = Duration::from_secs(1);
/// What Envoy says of its page.
const PAGE_TYPE: &str = "text/plain; charset=UTF-8";

/// What the proxies have in common while they run. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Fleet(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    started: u64,
    proxies: Vec<Proxy>,
    pages: Vec<SocketAddr>,
    counters: Vec<Mutex<Counters>>,
    /// Pages shown, per proxy.
    shown: Vec<AtomicU64>,
    progress: Mutex<Progress>,
}

/// What has been done so far.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    pub truth: Truth,
    pub spans_sent: u64,
    /// Spans whose message was not acknowledged.
    pub spans_lost: u64,
    pub last_error: Option<String>,
}

impl Fleet {
    /// Starts the page of every proxy.
    ///
    /// # Errors
    /// When there is no port to be had.
    pub fn start(clock: Arc<dyn Clock>, tasks: &Tasks) -> io::Result<Self> {
        let proxies = proxies();
        let mut ports = Vec::with_capacity(proxies.len());
        for _ in &proxies {
            ports.push(Port::bind("demo_proxy", SocketAddr::from(([127, 0, 0, 1], 0)))?);
        }
        let fleet = Self(Arc::new(Shared {
            started: clock.now().0,
            clock,
            counters: proxies.iter().map(|_| Mutex::default()).collect(),
            shown: proxies.iter().map(|_| AtomicU64::default()).collect(),
            proxies,
            pages: ports.iter().map(|port| port.address).collect(),
            progress: Mutex::default(),
        }));
        for (place, port) in ports.into_iter().enumerate() {
            let page = fleet.clone();
            let show = move || async move { ([(http::header::CONTENT_TYPE, PAGE_TYPE)], page.page(place)) };
            let router = Router::new().route("/stats/prometheus", get(show));
            port.serve(router, Arc::default(), PAGE_DRAIN, tasks)?;
        }
        Ok(fleet)
    }

    /// The proxies as a scrape configuration in Prometheus' shape.
    #[must_use]
    pub fn scrape_yaml(&self) -> String {
        let mut yaml = "scrape_configs:\n  - job_name: demo\n    metrics_path: /stats/prometheus\n    \
                        scrape_interval: 2s\n    scrape_timeout: 1s\n    static_configs:\n"
            .to_owned();
        for (proxy, page) in self.0.proxies.iter().zip(&self.0.pages) {
            let Proxy { pod, app, namespace, version, ip, is_gateway } = proxy;
            let kind = if *is_gateway { "gateway" } else { "sidecar" };
            yaml.push_str(&format!(
                "      - targets: [\"{page}\"]\n        labels: {{pod: {pod}, app: {app}, version: {version}, \
                 namespace: {namespace}, kind: {kind}, pod_ip: {ip}}}\n"
            ));
        }
        yaml
    }

    /// What has been done so far.
    #[must_use]
    pub fn progress(&self) -> Progress {
        lock(&self.0.progress).clone()
    }

    /// Whether every page has been fetched. What a counter held at its first scrape cannot be told
    /// from what happened long before, so traffic that begins earlier is counted incompletely.
    #[must_use]
    pub fn is_scraped(&self) -> bool {
        self.0.shown.iter().all(|shown| shown.load(Ordering::Relaxed) > 0)
    }

    fn page(&self, place: usize) -> String {
        self.0.shown[place].fetch_add(1, Ordering::Relaxed);
        let uptime_nanos = self.0.clock.now().0.saturating_sub(self.0.started);
        lock(&self.0.counters[place]).page(uptime_nanos / NANOS_PER_SEC)
    }
}

/// A panic while counting leaves counts that are still counts.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the traffic happen.
#[derive(Debug)]
pub struct Driver {
    fleet: Fleet,
    traffic: Traffic,
    client: TraceServiceClient<Channel>,
    upcoming: BinaryHeap<Reverse<Upcoming>>,
    buffers: Vec<Buffer>,
    in_flight: JoinSet<Result<u64, (u64, String)>>,
}

/// Spans of one proxy that wait for company.
#[derive(Debug, Default)]
struct Buffer {
    spans: Vec<Span>,
    oldest: u64,
}

/// Ordered by time alone.
#[derive(Debug)]
struct Upcoming(Event);

impl PartialEq for Upcoming {
    fn eq(&self, other: &Self) -> bool {
        self.0.at == other.0.at
    }
}

impl Eq for Upcoming {}

impl PartialOrd for Upcoming {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Upcoming {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.at.cmp(&other.0.at)
    }
}

impl Driver {
    /// A driver that pushes to the collector at `otlp` (`http://127.0.0.1:4317`).
    ///
    /// # Errors
    /// When `otlp` is no address.
    pub fn new(fleet: Fleet, otlp: &str, seed: u64, requests_per_second: f64) -> Result<Self, tonic::transport::Error> {
        // Lazy: the collector need not be there yet.
        let channel = Endpoint::from_shared(otlp.to_owned())?.timeout(EXPORT_TIMEOUT).connect_lazy();
        let buffers = fleet.0.proxies.iter().map(|_| Buffer::default()).collect();
        let traffic = Traffic::new(seed, requests_per_second, fleet.0.clock.now().0);
        Ok(Self {
            fleet,
            traffic,
            client: TraceServiceClient::new(channel),
            upcoming: BinaryHeap::new(),
            buffers,
            in_flight: JoinSet::new(),
        })
    }

    /// Runs until `stop`, then lets what has begun come to its end, so that truth, spans and
    /// counters agree to the last request.
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send) {
        let mut ticks = tokio::time::interval(STEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                _ = ticks.tick() => {}
            }
            let now = self.fleet.0.clock.now().0;
            let begun = self.traffic.until(now);
            self.upcoming.extend(begun.into_iter().map(|event| Reverse(Upcoming(event))));
            self.step(now);
        }
        while !self.upcoming.is_empty() {
            ticks.tick().await;
            self.step(self.fleet.0.clock.now().0);
        }
        for place in 0..self.buffers.len() {
            self.flush(place);
        }
        while let Some(ended) = self.in_flight.join_next().await {
            self.settle(ended);
        }
    }

    /// Lets everything happen that is due.
    fn step(&mut self, now: u64) {
        while let Some(Reverse(next)) = self.upcoming.peek() {
            if next.0.at > now {
                break;
            }
            if let Some(Reverse(Upcoming(event))) = self.upcoming.pop() {
                self.happen(event, now);
            }
        }
        for place in 0..self.buffers.len() {
            let buffer = &self.buffers[place];
            if !buffer.spans.is_empty() && now.saturating_sub(buffer.oldest) >= FLUSH_INTERVAL_NANOS {
                self.flush(place);
            }
        }
        while let Some(ended) = self.in_flight.try_join_next() {
            self.settle(ended);
        }
    }

    fn happen(&mut self, event: Event, now: u64) {
        let Event { proxy, span, counted, truth, .. } = event;
        {
            let mut counters = lock(&self.fleet.0.counters[proxy]);
            counted.into_iter().for_each(|(series, count)| counters.add(series, count));
        }
        if let Some(call) = truth {
            lock(&self.fleet.0.progress).truth.add(call);
        }
        let Some(span) = span else { return };
        let buffer = &mut self.buffers[proxy];
        if buffer.spans.is_empty() {
            buffer.oldest = now;
        }
        buffer.spans.push(span);
        if buffer.spans.len() >= BATCH_SPANS {
            self.flush(proxy);
        }
    }

    /// Sends what a proxy has gathered.
    fn flush(&mut self, place: usize) {
        let spans = std::mem::take(&mut self.buffers[place].spans);
        if spans.is_empty() {
            return;
        }
        let count = spans.len();
        {
            let mut counters = lock(&self.fleet.0.counters[place]);
            counters::exported(count).into_iter().for_each(|(series, times)| counters.add(series, times));
        }
        let count = count as u64;
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            let reason = format!("more than {IN_FLIGHT_MAX} messages were not answered yet");
            return self.note(Err((count, reason)));
        }
        let request = ExportTraceServiceRequest { resource_spans: vec![message(&self.fleet.0.proxies[place], spans)] };
        let mut client = self.client.clone();
        self.in_flight.spawn(async move {
            let answer = client.export(request).await.map_err(|status| (count, status.to_string()))?;
            let refused = answer.into_inner().partial_success.filter(|partial| partial.rejected_spans > 0);
            refused.map_or(Ok(count), |partial| Err((count, partial.error_message)))
        });
    }

    fn settle(&self, ended: Result<Result<u64, (u64, String)>, tokio::task::JoinError>) {
        // A task can only fail to join by panicking; its spans are then unknown.
        self.note(ended.unwrap_or_else(|error| Err((0, error.to_string()))));
    }

    fn note(&self, sent: Result<u64, (u64, String)>) {
        let mut progress = lock(&self.fleet.0.progress);
        match sent {
            Ok(count) => progress.spans_sent += count,
            Err((count, reason)) => {
                progress.spans_sent += count;
                progress.spans_lost += count;
                progress.last_error = Some(reason);
            }
        }
    }
}
