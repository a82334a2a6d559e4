//! Envoy's spans, as a proxy under Istio's defaults writes them: gateways write a SERVER span and a
//! CLIENT span per attempt, sidecars one span per request, all attributes are strings.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::mesh::Proxy;

/// What the proxies say of themselves.
const ENVOY_BUILD: &str = "9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/BoringSSL";

/// Sampled, and "is remote" known: false.
const FLAGS_LOCAL_PARENT: u32 = 0x101;
/// Sampled, and the parent came from another process.
const FLAGS_REMOTE_PARENT: u32 = 0x301;

/// The trace a span belongs to and its parent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) trace_id: [u8; 16],
    /// `None` at the root.
    pub(crate) parent: Option<[u8; 8]>,
    pub(crate) parent_is_remote: bool,
}

/// From and to, in nanoseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interval {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// How a request ended, in Envoy's words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    /// 0 when there was no answer.
    pub(crate) code: u16,
    pub(crate) flags: &'static str,
    pub(crate) canceled: bool,
}

/// What the connection manager knows of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestFacts<'a> {
    pub(crate) method: &'a str,
    pub(crate) url: &'a str,
    pub(crate) user_agent: &'a str,
    pub(crate) request_id: &'a str,
    /// The downstream's address, without port.
    pub(crate) peer: &'a str,
    /// Absent when no route matched.
    pub(crate) upstream_cluster: Option<&'a str>,
}

impl Ending {
    pub(crate) const fn of(code: u16) -> Self {
        Self { code, flags: "-", canceled: false }
    }

    const fn is_error(self) -> bool {
        self.code == 0 || self.code >= 500
    }

    /// Measured: 4xx is an error on CLIENT spans only, and no answer leaves the status unset.
    fn status(self, kind: SpanKind) -> Option<Status> {
        let failed = self.code >= 500 || (self.code >= 400 && kind == SpanKind::Client);
        Some(Status { code: if failed { 2 } else { 0 }, message: String::new() })
    }
}

/// The span of the connection manager: `kind` SERVER for what arrives, CLIENT for what a sidecar
/// sends.
#[expect(clippy::too_many_arguments, reason = "one argument per part of the span; a struct would only rename them")]
pub(crate) fn request_span(
    proxy: &Proxy,
    kind: SpanKind,
    name: &str,
    span_id: [u8; 8],
    context: Context,
    interval: Interval,
    ending: Ending,
    facts: RequestFacts<'_>,
) -> Span {
    let mut attributes = vec![
        text("node_id", proxy.node_id()),
        text("zone", "z1"),
        text("guid:x-request-id", facts.request_id),
        text("http.url", facts.url),
        text("http.method", facts.method),
        text("downstream_cluster", "-"),
        text("user_agent", facts.user_agent),
        text("http.protocol", "HTTP/1.1"),
        text("peer.address", facts.peer),
        text("request_size", if facts.method == "POST" { "214" } else { "0" }),
        text("response_size", if ending.code == 200 { "1024" } else { "24" }),
        text("component", "proxy"),
    ];
    attributes.extend(facts.upstream_cluster.into_iter().flat_map(cluster_attributes));
    attributes.extend([text("http.status_code", ending.code.to_string()), text("response_flags", ending.flags)]);
    finish(proxy, kind, name, span_id, context, interval, ending, attributes)
}

/// The span of one attempt at a gateway.
pub(crate) fn router_span(
    proxy: &Proxy,
    cluster: &str,
    upstream_address: &str,
    span_id: [u8; 8],
    context: Context,
    interval: Interval,
    ending: Ending,
) -> Span {
    let mut attributes = vec![
        text("http.protocol", "HTTP/1.1"),
        text("upstream_address", upstream_address),
        text("peer.address", upstream_address),
        text("component", "proxy"),
    ];
    attributes.extend(cluster_attributes(cluster));
    attributes.extend([text("http.status_code", ending.code.to_string()), text("response_flags", ending.flags)]);
    let name = format!("router {cluster}; egress");
    finish(proxy, SpanKind::Client, &name, span_id, context, interval, ending, attributes)
}

#[expect(clippy::too_many_arguments, reason = "the parts of a span, each of its own type")]
fn finish(
    proxy: &Proxy,
    kind: SpanKind,
    name: &str,
    span_id: [u8; 8],
    context: Context,
    interval: Interval,
    ending: Ending,
    mut attributes: Vec<KeyValue>,
) -> Span {
    if ending.is_error() {
        attributes.push(text("error", "true"));
    }
    if ending.canceled {
        attributes.push(text("canceled", "true"));
    }
    attributes.extend([
        text("istio.namespace", proxy.namespace),
        text("istio.cluster_id", "Kubernetes"),
        text("istio.canonical_revision", proxy.version),
        text("istio.canonical_service", proxy.app),
        text("istio.mesh_id", "cluster.local"),
    ]);
    Span {
        trace_id: context.trace_id.to_vec(),
        span_id: span_id.to_vec(),
        parent_span_id: context.parent.map(Vec::from).unwrap_or_default(),
        flags: if context.parent_is_remote { FLAGS_REMOTE_PARENT } else { FLAGS_LOCAL_PARENT },
        name: name.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: interval.start,
        end_time_unix_nano: interval.end,
        attributes,
        status: ending.status(kind),
        ..Span::default()
    }
}

/// The spans of one message: one resource, one scope, as Envoy writes it.
pub(crate) fn message(proxy: &Proxy, spans: Vec<Span>) -> ResourceSpans {
    let attributes = vec![
        text("service.name", format!("{}.{}", proxy.app, proxy.namespace)),
        text("telemetry.sdk.language", "cpp"),
        text("telemetry.sdk.name", "envoy"),
        text("telemetry.sdk.version", ENVOY_BUILD),
    ];
    let scope = InstrumentationScope {
        name: "envoy".to_owned(),
        version: ENVOY_BUILD.to_owned(),
        ..InstrumentationScope::default()
    };
    ResourceSpans {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_spans: vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    }
}

/// The raw name and, with a trailing semicolon, the name for statistics.
fn cluster_attributes(cluster: &str) -> [KeyValue; 2] {
    [text("upstream_cluster", cluster), text("upstream_cluster.name", format!("{cluster};"))]
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.into())) }),
        ..KeyValue::default()
    }
}
