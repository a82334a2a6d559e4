//! The joined view of one trace: its request, its hops, its spans, and what is missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use windrose_proto::attributes::{Attributes, Value};
use windrose_proto::hop::{Derived, Entry, Hop, Node};
use windrose_proto::id::TraceId;
use windrose_proto::span::Span;

use super::summary::TraceSummary;
use crate::topology::{millis, rfc3339};
use windrose_store::row::RequestRow;

/// One attempt over one edge.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HopView {
    pub source: String,
    pub target: String,
    pub target_version: Option<String>,
    pub endpoint: Option<String>,
    pub via: Option<String>,
    pub direction: &'static str,
    pub direction_rule: &'static str,
    pub reporters: &'static str,
    pub protocol: &'static str,
    pub start: String,
    pub client_span: Option<String>,
    pub server_span: Option<String>,
    /// What the caller waited.
    pub client_ms: Option<f64>,
    /// What the callee worked.
    pub server_ms: Option<f64>,
    /// To be added to the callee's clock.
    pub skew_ms: Option<f64>,
    /// How long the callee went on after the caller had given up.
    pub late_server_ms: Option<f64>,
    pub queue_ms: Option<f64>,
    pub http_status: Option<u16>,
    pub grpc_status: Option<u8>,
    pub error: bool,
    pub fault: &'static str,
    pub fault_at: Option<&'static str>,
    pub reasons: Vec<String>,
    pub retry: u8,
    #[serde(rename = "final")]
    pub is_final: bool,
    pub root_cause: bool,
    /// Traffic mirroring made it; it is in no count of calls.
    pub mirror: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_reason: Option<&'static str>,
}

/// One span as received.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SpanView {
    pub span_id: String,
    pub parent_span_id: Option<String>,
    pub name: String,
    pub kind: &'static str,
    pub start: String,
    pub duration_ms: f64,
    pub service: Option<String>,
    pub scope: String,
    pub status: &'static str,
    #[schema(value_type = Object)]
    pub attributes: BTreeMap<String, serde_json::Value>,
    #[schema(value_type = Object)]
    pub resource: BTreeMap<String, serde_json::Value>,
    pub events: Vec<EventView>,
}

/// An event inside a span.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EventView {
    pub name: String,
    pub time: String,
}

/// A trace.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TraceView {
    pub trace_id: String,
    pub request: TraceSummary,
    pub hops: Vec<HopView>,
    pub spans: Vec<SpanView>,
    /// Parents that were named but never received.
    pub missing_parents: Vec<String>,
    pub gaps: Vec<&'static str>,
}

impl TraceView {
    /// Words a derived trace.
    #[must_use]
    pub fn new(trace: TraceId, spans: &[Arc<Span>], derived: &Derived) -> Self {
        let request = RequestRow { request: Arc::new(derived.request.clone()), revision: 1 };
        Self {
            trace_id: trace.to_string(),
            request: TraceSummary::new(&request),
            hops: derived.hops.iter().map(HopView::new).collect(),
            spans: spans.iter().filter(|span| !span.is_fact()).map(|span| SpanView::new(span)).collect(),
            missing_parents: derived.request.missing_parents.iter().map(ToString::to_string).collect(),
            gaps: derived.request.gaps.iter().map(|gap| gap.as_str()).collect(),
        }
    }
}

/// `namespace/service`.
pub(super) fn node_name(node: &Node) -> String {
    match &node.namespace {
        Some(namespace) => format!("{namespace}/{}", node.service),
        None => node.service.to_string(),
    }
}

impl HopView {
    /// Words a hop.
    #[must_use]
    pub fn new(hop: &Hop) -> Self {
        let ms = |nanos: Option<u64>| nanos.map(|nanos| millis(nanos as f64));
        Self {
            source: node_name(&hop.source),
            target: node_name(&hop.destination),
            target_version: hop.destination.version.as_ref().map(ToString::to_string),
            endpoint: hop.endpoint.as_ref().map(ToString::to_string),
            via: hop.via.as_ref().map(ToString::to_string),
            direction: hop.direction.as_str(),
            direction_rule: hop.direction_rule.0,
            reporters: hop.reporters.as_str(),
            protocol: hop.protocol.as_str(),
            start: rfc3339(hop.start),
            client_span: hop.client_span.map(|id| id.to_string()),
            server_span: hop.server_span.map(|id| id.to_string()),
            client_ms: ms(hop.client_nanos),
            server_ms: ms(hop.server_nanos),
            skew_ms: hop.skew_nanos.map(|nanos| millis(nanos as f64)),
            late_server_ms: ms(hop.late_server_nanos),
            queue_ms: ms(hop.queue_nanos),
            http_status: hop.http_status,
            grpc_status: hop.grpc_status,
            error: hop.error,
            fault: hop.fault.as_str(),
            fault_at: hop.fault_at.map(windrose_proto::model::FaultAt::as_str),
            reasons: hop.reasons.iter().map(ToString::to_string).collect(),
            retry: hop.retry,
            is_final: hop.is_final,
            root_cause: hop.root_cause,
            mirror: hop.mirror,
            source_reason: hop.source_gap.map(windrose_proto::hop::Gap::as_str),
        }
    }
}

impl SpanView {
    fn new(span: &Span) -> Self {
        Self {
            span_id: span.span_id.to_string(),
            parent_span_id: span.parent_span_id.map(|id| id.to_string()),
            name: span.name.to_string(),
            kind: span.kind.as_str(),
            start: rfc3339(span.start),
            duration_ms: millis(span.duration_nanos() as f64),
            service: span.resource.attributes.text("service.name").map(ToString::to_string),
            scope: span.scope.name.to_string(),
            status: match span.status {
                windrose_proto::span::StatusCode::Unset => "unset",
                windrose_proto::span::StatusCode::Ok => "ok",
                windrose_proto::span::StatusCode::Error => "error",
            },
            attributes: attributes_json(&span.attributes),
            resource: attributes_json(&span.resource.attributes),
            events: span
                .events
                .iter()
                .map(|event| EventView { name: event.name.to_string(), time: rfc3339(event.time) })
                .collect(),
        }
    }
}

fn attributes_json(attributes: &Attributes) -> BTreeMap<String, serde_json::Value> {
    attributes.iter().map(|kv| (kv.key.to_string(), value_json(&kv.value))).collect()
}

fn value_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Empty => serde_json::Value::Null,
        Value::Str(text) => text.to_string().into(),
        Value::Bool(flag) => (*flag).into(),
        Value::Int(number) => (*number).into(),
        Value::Double(number) => {
            serde_json::Number::from_f64(*number).map_or_else(|| number.to_string().into(), serde_json::Value::Number)
        }
        Value::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
        Value::Array(values) => values.iter().map(value_json).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|kv| (kv.key.to_string(), value_json(&kv.value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

/// The route of an entry, or the reason why it is not known.
pub(super) fn entry_words(entry: &Entry) -> (Option<String>, Option<&'static str>) {
    match entry {
        Entry::Route(route) => (Some(route.route.to_string()), None),
        Entry::Unknown(gap) => (None, Some(gap.as_str())),
    }
}
