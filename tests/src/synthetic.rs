//! Spans made up for a test: one request through a gateway to a sidecar, as Istio's Envoys report it.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use windrose_proto::time::UnixNanos;

/// Spans of one request: the gateway's two, the called sidecar's one.
pub const SPANS_PER_REQUEST: usize = 3;

/// One request. `number` makes its ids, so that the same number is the same trace.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub number: u64,
    pub start: UnixNanos,
    pub duration: Duration,
    pub status: u16,
}

impl Request {
    /// A request that took 20 ms and went well.
    #[must_use]
    pub const fn new(number: u64, start: UnixNanos) -> Self {
        Self { number, start, duration: Duration::from_millis(20), status: 200 }
    }

    /// Its trace id.
    #[must_use]
    pub fn trace_id(&self) -> Vec<u8> {
        let mut id = b"windrose".to_vec();
        id.extend(self.number.to_be_bytes());
        id
    }

    /// Its trace id in hex.
    #[must_use]
    pub fn trace_hex(&self) -> String {
        crate::oracle::hex(&self.trace_id())
    }

    /// Its three spans, as the two proxies would send them.
    #[must_use]
    pub fn export(&self) -> ExportTraceServiceRequest {
        ExportTraceServiceRequest { resource_spans: vec![self.gateway(), self.sidecar()] }
    }

    /// The part of the gateway.
    #[must_use]
    pub fn gateway(&self) -> ResourceSpans {
        let entry = self.span(
            1,
            None,
            2,
            "orders.shop.svc.cluster.local:8080/*",
            &[
                ("node_id", "router~10.0.0.1~ingress-6c9f8b7d4-x2x9k.edge~edge.svc.cluster.local"),
                ("upstream_cluster", "outbound|8080||orders.shop.svc.cluster.local"),
                ("http.url", "http://shop.example.com/api/orders/7"),
                ("http.method", "GET"),
                ("peer.address", "203.0.113.7"),
            ],
        );
        let router = self.span(
            2,
            Some(1),
            3,
            "router outbound|8080||orders.shop.svc.cluster.local; egress",
            &[
                ("upstream_cluster", "outbound|8080||orders.shop.svc.cluster.local"),
                ("upstream_address", "10.0.0.2:15006"),
                ("peer.address", "10.0.0.2:15006"),
            ],
        );
        resource("ingress.edge", vec![entry, router], "ingress", "edge")
    }

    /// The part of the sidecar.
    #[must_use]
    pub fn sidecar(&self) -> ResourceSpans {
        let inbound = self.span(
            3,
            Some(2),
            2,
            "orders.shop.svc.cluster.local:8080/*",
            &[
                ("node_id", "sidecar~10.0.0.2~orders-v1-5f7c8bd9c4-abcde.shop~shop.svc.cluster.local"),
                ("upstream_cluster", "inbound|8080||"),
                ("http.url", "http://orders.shop.svc.cluster.local:8080/orders/7"),
                ("http.method", "GET"),
                ("peer.address", "10.0.0.1"),
            ],
        );
        resource("orders.shop", vec![inbound], "orders", "shop")
    }

    fn span(&self, place: u8, parent: Option<u8>, kind: i32, name: &str, attributes: &[(&str, &str)]) -> Span {
        let id = |place: u8| [self.number.to_be_bytes()[1..].as_ref(), &[place]].concat();
        // Each hop starts a little later and ends a little earlier than the one above it.
        let inset = Duration::from_micros(200 * u64::from(place - 1));
        let status = self.status.to_string();
        let always = [
            ("component", "proxy"),
            ("http.status_code", status.as_str()),
            ("response_flags", "-"),
            ("http.protocol", "HTTP/1.1"),
        ];
        Span {
            trace_id: self.trace_id(),
            span_id: id(place),
            parent_span_id: parent.map(id).unwrap_or_default(),
            name: name.to_owned(),
            kind,
            start_time_unix_nano: self.start.plus(inset).0,
            end_time_unix_nano: self.start.plus(self.duration).minus(inset).0,
            attributes: always.iter().chain(attributes).map(|(key, value)| text(key, value)).collect(),
            status: Some(Status { code: if self.status >= 500 { 2 } else { 0 }, message: String::new() }),
            ..Span::default()
        }
    }
}

fn resource(service: &str, mut spans: Vec<Span>, name: &str, namespace: &str) -> ResourceSpans {
    for span in &mut spans {
        span.attributes.push(text("istio.canonical_service", name));
        span.attributes.push(text("istio.canonical_revision", "v1"));
        span.attributes.push(text("istio.namespace", namespace));
    }
    let scope = InstrumentationScope { name: "envoy".to_owned(), ..InstrumentationScope::default() };
    ResourceSpans {
        resource: Some(Resource {
            attributes: vec![text("service.name", service), text("telemetry.sdk.name", "envoy")],
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }],
        schema_url: String::new(),
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) }),
        ..KeyValue::default()
    }
}
