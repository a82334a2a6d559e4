//! Sends a capture's messages to a server, moved in time, and disturbed the ways networks disturb: shuffled, doubled, late.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::resource::v1::Resource;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use windrose_proto::time::{Clock as _, SystemClock};

use crate::capture::{Capture, Message};
use crate::client::Http;
use crate::server::Ports;

/// Messages in flight at a time: a mesh of real proxies sends from many connections at once.
const IN_FLIGHT: usize = 16;

/// What to send, in order.
#[derive(Clone, Debug)]
pub struct Plan {
    messages: Vec<Message>,
}

/// The nanoseconds by which a capture must move for its last message to have arrived just now.
#[must_use]
pub fn shift_to_now(capture: &Capture) -> i64 {
    let now = i64::try_from(SystemClock.now().0).expect("a time before 2262");
    now - i64::try_from(capture.last_arrival_nanos).expect("a time before 2262")
}

impl Plan {
    /// All messages in the recorded order, their spans moved by `shift` nanoseconds.
    #[must_use]
    pub fn new(capture: &Capture, shift: i64) -> Self {
        Self { messages: capture.messages.iter().map(|message| shifted(message, shift)).collect() }
    }

    /// In random order.
    #[must_use]
    pub fn shuffled(mut self, seed: u64) -> Self {
        self.messages.shuffle(&mut StdRng::seed_from_u64(seed));
        self
    }

    /// A share of the messages a second time, some messages later.
    #[must_use]
    pub fn doubled(mut self, seed: u64, share: f64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let again: Vec<Message> = self.messages.iter().filter(|_| random.random_bool(share)).cloned().collect();
        for message in again {
            let at = random.random_range(0..=self.messages.len());
            self.messages.insert(at, message);
        }
        self
    }

    /// The spans of one trace in ten, as proxies that sample send them; access logs stay whole. Which traces is decided by
    /// their ids.
    #[must_use]
    pub fn sampled(mut self) -> Self {
        for message in &mut self.messages {
            let Message::Otlp(request) = message else { continue };
            for scope in request.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans) {
                scope.spans.retain(|span| span.trace_id.iter().map(|byte| u32::from(*byte)).sum::<u32>() % 10 == 0);
            }
        }
        self
    }

    /// Only what proxies push of their metrics, in the recorded order.
    #[must_use]
    pub fn metrics(mut self) -> Self {
        self.messages.retain(|message| matches!(message, Message::Metrics(_)));
        self
    }

    /// Everything but that.
    #[must_use]
    pub fn without_metrics(mut self) -> Self {
        self.messages.retain(|message| !matches!(message, Message::Metrics(_)));
        self
    }

    /// From a service whose clock is ahead by so much, or behind.
    #[must_use]
    pub fn skewed(mut self, service: &str, millis: i64) -> Self {
        for message in &mut self.messages {
            let is_whole = match message {
                Message::Otlp(request) => {
                    let groups = request.resource_spans.iter_mut();
                    groups.filter(|group| named(group.resource.as_ref()) == Some(service)).for_each(|group| {
                        group.scope_spans.iter_mut().flat_map(|scope| &mut scope.spans).for_each(|span| {
                            span.start_time_unix_nano =
                                span.start_time_unix_nano.saturating_add_signed(millis * 1_000_000);
                            span.end_time_unix_nano = span.end_time_unix_nano.saturating_add_signed(millis * 1_000_000);
                        });
                    });
                    continue;
                }
                Message::Zipkin(spans) => spans.iter().any(|span| span["localEndpoint"]["serviceName"] == service),
                Message::Logs(_) | Message::Metrics(_) => false,
            };
            // A Zipkin message is of one proxy.
            if is_whole {
                *message = shifted(message, millis * 1_000_000);
            }
        }
        self
    }

    /// Without a share of the messages: they never come.
    #[must_use]
    pub fn dropped(mut self, seed: u64, share: f64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        self.messages.retain(|_| !random.random_bool(share));
        self
    }

    /// Without a share of the messages with spans.
    #[must_use]
    pub fn without_some_spans(mut self, seed: u64, share: f64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        self.messages.retain(|message| !matches!(message, Message::Otlp(_)) || !random.random_bool(share));
        self
    }

    /// Splits off a share of the messages, to be sent after the rest was settled.
    #[must_use]
    pub fn split_late(self, seed: u64, share: f64) -> (Self, Self) {
        let mut random = StdRng::seed_from_u64(seed);
        let (late, punctual) = self.messages.into_iter().partition(|_| random.random_bool(share));
        (Self { messages: punctual }, Self { messages: late })
    }

    /// The messages themselves.
    #[must_use]
    pub fn into_messages(self) -> Vec<Message> {
        self.messages
    }

    /// How many messages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many spans there are, each as often as it is sent.
    #[must_use]
    pub fn spans(&self) -> usize {
        self.messages.iter().map(spans_of).sum()
    }

    /// The traces that the OTLP messages touch.
    #[must_use]
    pub fn traces(&self) -> BTreeSet<Vec<u8>> {
        let requests = self.messages.iter().filter_map(|message| match message {
            Message::Otlp(request) => Some(request),
            Message::Logs(_) | Message::Metrics(_) | Message::Zipkin(_) => None,
        });
        let scopes = requests.flat_map(|request| &request.resource_spans).flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| &scope.spans).map(|span| span.trace_id.clone()).collect()
    }

    /// Sends everything and waits for every acknowledgement.
    ///
    /// # Panics
    /// When a message is refused, in whole or in part.
    pub async fn send(self, ports: &Ports) {
        self.send_at_once(ports, IN_FLIGHT).await;
    }

    /// Sends one message after the other: the pushes of one proxy are in order.
    ///
    /// # Panics
    /// As [`Self::send`].
    pub async fn send_in_order(self, ports: &Ports) {
        self.send_at_once(ports, 1).await;
    }

    async fn send_at_once(self, ports: &Ports, in_flight: usize) {
        let channel = channel(ports.otlp_grpc);
        let otlp = Clients {
            traces: connect(ports.otlp_grpc),
            logs: LogsServiceClient::new(channel.clone()),
            metrics: MetricsServiceClient::new(channel),
        };
        let zipkin = Http::new(ports.zipkin);
        let slots = Arc::new(Semaphore::new(in_flight));
        let mut tasks = JoinSet::new();
        for message in self.messages {
            let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore stays open");
            let (otlp, zipkin) = (otlp.clone(), zipkin.clone());
            tasks.spawn(async move {
                let sent = send(message, otlp, &zipkin).await;
                drop(slot);
                sent
            });
        }
        while let Some(sent) = tasks.join_next().await {
            sent.expect("a sender does not panic").unwrap_or_else(|error| panic!("a message was refused: {error}"));
        }
    }
}

/// A client of the OTLP/gRPC port; connects when first used.
///
/// # Panics
/// When the address makes no URL.
#[must_use]
pub fn connect(address: SocketAddr) -> TraceServiceClient<Channel> {
    TraceServiceClient::new(channel(address))
}

/// A connection to the OTLP/gRPC port, made when first used.
///
/// # Panics
/// When the address makes no URL.
#[must_use]
pub fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).expect("an address makes a URL").connect_lazy()
}

/// Exports over gRPC.
///
/// # Errors
/// What the server said when it refused the request, or spans of it.
pub async fn export(
    mut client: TraceServiceClient<Channel>,
    request: impl tonic::IntoRequest<ExportTraceServiceRequest>,
) -> Result<(), String> {
    let response = client.export(request).await.map_err(|status| status.to_string())?;
    match response.into_inner().partial_success {
        Some(partial) if partial.rejected_spans != 0 => {
            Err(format!("{} rejected: {}", partial.rejected_spans, partial.error_message))
        }
        _ => Ok(()),
    }
}

/// Clients of the OTLP/gRPC port.
#[derive(Clone, Debug)]
struct Clients {
    traces: TraceServiceClient<Channel>,
    logs: LogsServiceClient<Channel>,
    metrics: MetricsServiceClient<Channel>,
}

async fn export_logs(mut client: LogsServiceClient<Channel>, request: ExportLogsServiceRequest) -> Result<(), String> {
    let response = client.export(request).await.map_err(|status| status.to_string())?;
    match response.into_inner().partial_success {
        Some(partial) if partial.rejected_log_records != 0 => {
            Err(format!("{} rejected: {}", partial.rejected_log_records, partial.error_message))
        }
        _ => Ok(()),
    }
}

async fn send(message: Message, otlp: Clients, zipkin: &Http) -> Result<(), String> {
    match message {
        Message::Otlp(request) => export(otlp.traces, request).await,
        Message::Logs(request) => export_logs(otlp.logs, request).await,
        Message::Metrics(request) => {
            // Differences are attached to edges and refused as series, which the answer says.
            let sent = otlp.metrics.clone().export(request).await;
            sent.map(drop).map_err(|status| status.to_string())
        }
        Message::Zipkin(spans) => {
            let body = Bytes::from(Value::Array(spans).to_string());
            let answer = zipkin.try_post("/api/v2/spans", &[("content-type", "application/json")], body).await?;
            if answer.status == 202 { Ok(()) } else { Err(format!("{}: {}", answer.status, answer.text())) }
        }
    }
}

fn named(resource: Option<&Resource>) -> Option<&str> {
    let name = resource?.attributes.iter().find(|attribute| attribute.key == "service.name")?;
    match name.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(name) => Some(name),
        _ => None,
    }
}

fn spans_of(message: &Message) -> usize {
    match message {
        Message::Otlp(request) => {
            let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
            scopes.map(|scope| scope.spans.len()).sum()
        }
        Message::Logs(_) | Message::Metrics(_) => 0,
        Message::Zipkin(spans) => spans.len(),
    }
}

fn shifted(message: &Message, shift: i64) -> Message {
    let mut message = message.clone();
    match &mut message {
        Message::Otlp(request) => {
            let scopes = request.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans);
            for span in scopes.flat_map(|scope| &mut scope.spans) {
                span.start_time_unix_nano = span.start_time_unix_nano.saturating_add_signed(shift);
                span.end_time_unix_nano = span.end_time_unix_nano.saturating_add_signed(shift);
                for event in &mut span.events {
                    event.time_unix_nano = event.time_unix_nano.saturating_add_signed(shift);
                }
            }
        }
        Message::Logs(request) => {
            let scopes = request.resource_logs.iter_mut().flat_map(|resource| &mut resource.scope_logs);
            for record in scopes.flat_map(|scope| &mut scope.log_records) {
                record.time_unix_nano = record.time_unix_nano.saturating_add_signed(shift);
            }
        }
        Message::Metrics(request) => {
            let scopes = request.resource_metrics.iter_mut().flat_map(|resource| &mut resource.scope_metrics);
            for metric in scopes.flat_map(|scope| &mut scope.metrics) {
                shift_points(metric, shift);
            }
        }
        Message::Zipkin(spans) => {
            for span in spans {
                shift_micros(&mut span["timestamp"], shift / 1000);
                for annotation in span["annotations"].as_array_mut().into_iter().flatten() {
                    shift_micros(&mut annotation["timestamp"], shift / 1000);
                }
            }
        }
    }
    message
}

fn shift_points(metric: &mut Metric, shift: i64) {
    let mut times: Vec<(&mut u64, &mut u64)> = Vec::new();
    match &mut metric.data {
        Some(Data::Sum(sum)) => {
            let points = sum.data_points.iter_mut();
            times.extend(points.map(|point| (&mut point.start_time_unix_nano, &mut point.time_unix_nano)));
        }
        Some(Data::Gauge(gauge)) => {
            let points = gauge.data_points.iter_mut();
            times.extend(points.map(|point| (&mut point.start_time_unix_nano, &mut point.time_unix_nano)));
        }
        Some(Data::Histogram(histogram)) => {
            let points = histogram.data_points.iter_mut();
            times.extend(points.map(|point| (&mut point.start_time_unix_nano, &mut point.time_unix_nano)));
        }
        other => assert!(other.is_none(), "Envoy sends no such metrics: {other:?}"),
    }
    for (start, time) in times {
        // Envoy's sink states some start times in microseconds; they stay what they are.
        let unit = if *start < *time / 500 { 1000 } else { 1 };
        *start = if *start == 0 { 0 } else { start.saturating_add_signed(shift / unit) };
        *time = time.saturating_add_signed(shift);
    }
}

fn shift_micros(value: &mut Value, shift: i64) {
    if let Some(micros) = value.as_u64() {
        *value = micros.saturating_add_signed(shift).into();
    }
}
