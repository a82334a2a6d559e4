//! Requests of made-up proxies: gateway → orders → users, five spans in three parts, each part sent
//! by its proxy when it likes: late, in any order, sometimes twice.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use windrose_collector::decode::ContentEncoding;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;

use crate::random::Random;

/// One request body, not yet sent.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) tenant: TenantId,
    pub(crate) encoding: ContentEncoding,
    pub(crate) body: Bytes,
    /// Not to be sent before.
    pub(crate) due: UnixNanos,
}

/// Makes traces with numbers of their own.
#[derive(Debug, Default)]
pub(crate) struct Load {
    traces: u64,
}

impl Load {
    /// The messages of a new trace.
    pub(crate) fn trace(&mut self, random: &mut Random, now: UnixNanos) -> Vec<Message> {
        self.traces += 1;
        let trace = Trace {
            number: self.traces,
            start: now,
            millis: 1 + random.below(400),
            status: random.pick(&[200, 200, 200, 404, 503]),
        };
        let tenant = TenantId::new(random.pick(&["default", "other"])).unwrap();
        let mut messages = Vec::new();
        for part in [trace.gateway(), trace.orders(), trace.users()] {
            // One part in twelve is lost by its proxy, one comes long after the trace has settled.
            if random.chance(8) {
                continue;
            }
            let delay = if random.chance(8) { 5_000 + random.below(30_000) } else { random.below(2_000) };
            let due = UnixNanos(now.0 + delay * 1_000_000);
            let message = message(random, &tenant, part, due);
            if random.chance(10) {
                messages.push(message.clone());
            }
            messages.push(message);
        }
        messages
    }
}

/// All spans of one trace in one message.
pub(crate) fn whole_trace(tenant: TenantId, number: u64, start: UnixNanos) -> Message {
    let trace = Trace { number, start, millis: 20, status: 200 };
    let request = ExportTraceServiceRequest { resource_spans: vec![trace.gateway(), trace.orders(), trace.users()] };
    Message { tenant, encoding: ContentEncoding::Identity, body: request.encode_to_vec().into(), due: start }
}

fn message(random: &mut Random, tenant: &TenantId, part: ResourceSpans, due: UnixNanos) -> Message {
    let bytes = ExportTraceServiceRequest { resource_spans: vec![part] }.encode_to_vec();
    let (encoding, body) = if random.chance(30) {
        (ContentEncoding::Zstd, zstd::encode_all(bytes.as_slice(), 1).unwrap())
    } else {
        (ContentEncoding::Identity, bytes)
    };
    Message { tenant: tenant.clone(), encoding, body: body.into(), due }
}

struct Trace {
    number: u64,
    start: UnixNanos,
    millis: u64,
    status: u16,
}

struct Half {
    place: u8,
    parent: Option<u8>,
    kind: i32,
    cluster: String,
}

const SERVER: i32 = 2;
const CLIENT: i32 = 3;

fn inbound(place: u8, parent: Option<u8>) -> Half {
    Half { place, parent, kind: SERVER, cluster: "inbound|8080||".to_owned() }
}

fn outbound(place: u8, parent: u8, service: &str) -> Half {
    let cluster = format!("outbound|8080||{service}.shop.svc.cluster.local");
    Half { place, parent: Some(parent), kind: CLIENT, cluster }
}

impl Trace {
    fn gateway(&self) -> ResourceSpans {
        let entry = Half { kind: SERVER, parent: None, ..outbound(1, 0, "orders") };
        self.part("gateway", "router", &[entry, outbound(2, 1, "orders")])
    }

    fn orders(&self) -> ResourceSpans {
        self.part("orders", "sidecar", &[inbound(3, Some(2)), outbound(4, 3, "users")])
    }

    fn users(&self) -> ResourceSpans {
        self.part("users", "sidecar", &[inbound(5, Some(4))])
    }

    fn part(&self, service: &str, node: &str, halves: &[Half]) -> ResourceSpans {
        let spans = halves.iter().map(|half| self.span(service, node, half)).collect();
        let scope = InstrumentationScope { name: "envoy".to_owned(), ..InstrumentationScope::default() };
        ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", &format!("{service}.shop")), text("telemetry.sdk.name", "envoy")],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }],
            schema_url: String::new(),
        }
    }

    fn span(&self, service: &str, node: &str, half: &Half) -> Span {
        let id = |place: u8| (self.number << 8 | u64::from(place)).to_be_bytes().to_vec();
        let inset = u64::from(half.place) * 1_000;
        let node_id = format!("{node}~10.0.0.1~{service}-v1-abcde.shop~shop.svc.cluster.local");
        Span {
            trace_id: u128::from(self.number).to_be_bytes().to_vec(),
            span_id: id(half.place),
            parent_span_id: half.parent.map(id).unwrap_or_default(),
            name: "shop".to_owned(),
            kind: half.kind,
            start_time_unix_nano: self.start.0 + inset,
            end_time_unix_nano: self.start.0 + self.millis * 1_000_000 - inset,
            attributes: vec![
                text("component", "proxy"),
                text("node_id", &node_id),
                text("http.method", "GET"),
                text("http.url", "http://api.example.com/api/orders/17"),
                text("http.status_code", &self.status.to_string()),
                text("response_flags", "-"),
                text("upstream_cluster", &half.cluster),
            ],
            ..Span::default()
        }
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}
