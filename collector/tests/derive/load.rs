//! Spans out of sample files and recordings, by readers of their own: what is tested here must not
//! depend on the product's decoders.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue as OtlpKeyValue, any_value};
use prost::Message;
use serde_json::Value as Json;
use windrose_collector::decode::{Origin, decode_otlp_logs_protobuf};
use windrose_proto::Text;
use windrose_proto::attributes::{Attributes, Value};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::model::{IngestProtocol, SpanKind};
use windrose_proto::span::{Resource, Scope, Span, StatusCode};
use windrose_proto::time::UnixNanos;

/// Spans grouped by trace, in order of the trace ids.
pub(crate) fn by_trace(spans: Vec<Span>) -> Vec<(TraceId, Vec<Span>)> {
    let mut traces: HashMap<TraceId, Vec<Span>> = HashMap::new();
    for span in spans {
        traces.entry(span.trace_id).or_default().push(span);
    }
    let mut traces: Vec<_> = traces.into_iter().collect();
    traces.sort_by_key(|(trace, _)| *trace);
    traces
}

/// A sample file: OTLP JSON or Zipkin v2 JSON.
pub(crate) fn sample(text: &str) -> Vec<Span> {
    let json: Json = serde_json::from_str(text).unwrap();
    match json.as_array() {
        Some(spans) => spans.iter().map(zipkin_span).collect(),
        None => otlp_json(&json),
    }
}

fn otlp_json(json: &Json) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource_spans in list(json, &["resourceSpans", "batches"]) {
        let resource = Arc::new(Resource {
            attributes: json_attributes(&resource_spans["resource"]["attributes"]),
            ..Resource::default()
        });
        for scope_spans in list(resource_spans, &["scopeSpans", "instrumentationLibrarySpans"]) {
            let scope = ["scope", "instrumentationLibrary"].iter().find_map(|key| scope_spans.get(key));
            let scope = Arc::new(Scope {
                name: scope.and_then(|scope| scope["name"].as_str()).unwrap_or_default().into(),
                ..Scope::default()
            });
            spans.extend(list(scope_spans, &["spans"]).iter().map(|span| otlp_json_span(span, &resource, &scope)));
        }
    }
    spans
}

fn otlp_json_span(json: &Json, resource: &Arc<Resource>, scope: &Arc<Scope>) -> Span {
    let kind = match &json["kind"] {
        Json::String(word) => SpanKind::parse(&word.trim_start_matches("SPAN_KIND_").to_lowercase()).unwrap(),
        number => SpanKind::from_otlp(number.as_i64().unwrap_or(0) as i32),
    };
    let status = match &json["status"]["code"] {
        Json::String(word) if word == "STATUS_CODE_ERROR" => StatusCode::Error,
        number => StatusCode::from_otlp(number.as_i64().unwrap_or(0) as i32),
    };
    Span {
        trace_id: TraceId::parse(json["traceId"].as_str().unwrap()).unwrap(),
        span_id: SpanId::parse(json["spanId"].as_str().unwrap()).unwrap(),
        parent_span_id: json["parentSpanId"].as_str().and_then(SpanId::parse),
        name: text(&json["name"]),
        kind,
        start: UnixNanos(number(&json["startTimeUnixNano"])),
        end: UnixNanos(number(&json["endTimeUnixNano"])),
        attributes: json_attributes(&json["attributes"]),
        flags: json["flags"].as_u64().unwrap_or(0) as u32,
        status,
        resource: Arc::clone(resource),
        scope: Arc::clone(scope),
        ..empty_span()
    }
}

fn json_attributes(json: &Json) -> Attributes {
    let mut attributes = Attributes::default();
    for attribute in json.as_array().into_iter().flatten() {
        attributes.push(attribute["key"].as_str().unwrap().to_owned(), json_value(&attribute["value"]));
    }
    attributes
}

fn json_value(json: &Json) -> Value {
    let Some((kind, value)) = json.as_object().and_then(|object| object.iter().next()) else { return Value::Empty };
    match kind.as_str() {
        "stringValue" => Value::Str(text(value)),
        "boolValue" => Value::Bool(value.as_bool().unwrap()),
        "intValue" => Value::Int(value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap()),
        "doubleValue" => Value::Double(value.as_f64().unwrap()),
        "arrayValue" => Value::Array(list(value, &["values"]).iter().map(json_value).collect()),
        "bytesValue" => {
            Value::Bytes(base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap()).unwrap().into())
        }
        other => panic!("value kind {other}"),
    }
}

fn zipkin_span(json: &Json) -> Span {
    let mut attributes = Attributes::default();
    for (key, value) in json["tags"].as_object().into_iter().flatten() {
        attributes.push(key.clone(), Value::Str(text(value)));
    }
    let is_error = attributes.get("error").is_some();
    let remote = &json["remoteEndpoint"];
    for (key, value) in [
        ("zipkin.remote.name", &remote["serviceName"]),
        ("zipkin.remote.ip", if remote["ipv4"].is_null() { &remote["ipv6"] } else { &remote["ipv4"] }),
    ] {
        if value.is_string() {
            attributes.push(key, Value::Str(text(value)));
        }
    }
    if let Some(port) = remote["port"].as_i64() {
        attributes.push("zipkin.remote.port", Value::Int(port));
    }
    let local = &json["localEndpoint"];
    let mut resource = Attributes::default();
    let address = if local["ipv4"].is_null() { &local["ipv6"] } else { &local["ipv4"] };
    for (key, value) in [("service.name", &local["serviceName"]), ("host.ip", address)] {
        if value.as_str().is_some_and(|text| !text.is_empty()) {
            resource.push(key, Value::Str(text(value)));
        }
    }
    let start = number(&json["timestamp"]) * 1000;
    Span {
        trace_id: TraceId::parse(json["traceId"].as_str().unwrap()).unwrap(),
        span_id: SpanId::parse(json["id"].as_str().unwrap()).unwrap(),
        parent_span_id: json["parentId"].as_str().and_then(SpanId::parse),
        name: text(&json["name"]),
        kind: json["kind"]
            .as_str()
            .and_then(|word| SpanKind::parse(&word.to_lowercase()))
            .unwrap_or(SpanKind::Unspecified),
        start: UnixNanos(start),
        end: UnixNanos(start + number(&json["duration"]) * 1000),
        attributes,
        status: if is_error { StatusCode::Error } else { StatusCode::Unset },
        shared: json["shared"].as_bool().unwrap_or(false),
        resource: Arc::new(Resource { attributes: resource, ..Resource::default() }),
        ingest: IngestProtocol::Zipkin,
        ..empty_span()
    }
}

/// A message as an exporter sends it: kind 1 and 5 of a recording are OTLP protobuf, 4 is Zipkin.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<Span> {
    match kind {
        1 | 5 => otlp_protobuf(body),
        4 => sample(std::str::from_utf8(body).unwrap()),
        _ => Vec::new(),
    }
}

/// The access log entries of a message. What a line says is the decoder's to find out, so this one is the product's.
pub(crate) fn logged(kind: u8, body: &[u8]) -> Vec<Span> {
    if kind != 2 {
        return Vec::new();
    }
    let origin = Origin { ingest: IngestProtocol::AccessLog, arrived: UnixNanos(u64::MAX) };
    decode_otlp_logs_protobuf(&Bytes::copy_from_slice(body), origin).unwrap().spans
}

fn otlp_protobuf(body: &[u8]) -> Vec<Span> {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let mut spans = Vec::new();
    for resource_spans in request.resource_spans {
        let attributes = resource_spans.resource.map(|resource| protobuf_attributes(resource.attributes));
        let resource = Arc::new(Resource { attributes: attributes.unwrap_or_default(), ..Resource::default() });
        for scope_spans in resource_spans.scope_spans {
            let name = scope_spans.scope.map(|scope| scope.name).unwrap_or_default();
            let scope = Arc::new(Scope { name: name.into(), ..Scope::default() });
            spans.extend(scope_spans.spans.into_iter().map(|span| Span {
                trace_id: TraceId::from_slice(&span.trace_id).unwrap(),
                span_id: SpanId::from_slice(&span.span_id).unwrap(),
                parent_span_id: SpanId::from_slice(&span.parent_span_id),
                name: span.name.into(),
                kind: SpanKind::from_otlp(span.kind),
                start: UnixNanos(span.start_time_unix_nano),
                end: UnixNanos(span.end_time_unix_nano),
                attributes: protobuf_attributes(span.attributes),
                flags: span.flags,
                status: StatusCode::from_otlp(span.status.map_or(0, |status| status.code)),
                resource: Arc::clone(&resource),
                scope: Arc::clone(&scope),
                ..empty_span()
            }));
        }
    }
    spans
}

fn protobuf_attributes(list: Vec<OtlpKeyValue>) -> Attributes {
    let mut attributes = Attributes::default();
    for attribute in list {
        attributes.push(attribute.key, protobuf_value(attribute.value));
    }
    attributes
}

fn protobuf_value(value: Option<AnyValue>) -> Value {
    match value.and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => Value::Str(text.into()),
        Some(any_value::Value::BoolValue(flag)) => Value::Bool(flag),
        Some(any_value::Value::IntValue(number)) => Value::Int(number),
        Some(any_value::Value::DoubleValue(number)) => Value::Double(number),
        Some(any_value::Value::BytesValue(bytes)) => Value::Bytes(bytes.into()),
        Some(any_value::Value::ArrayValue(array)) => {
            Value::Array(array.values.into_iter().map(|value| protobuf_value(Some(value))).collect())
        }
        _ => Value::Empty,
    }
}

/// A span with nothing in it.
pub(crate) fn empty_span() -> Span {
    Span {
        trace_id: TraceId::new([1; 16]).unwrap(),
        span_id: SpanId::new([1; 8]).unwrap(),
        parent_span_id: None,
        trace_state: Text::new(),
        flags: 0,
        name: Text::new(),
        kind: SpanKind::Unspecified,
        start: UnixNanos::ZERO,
        end: UnixNanos::ZERO,
        attributes: Attributes::default(),
        dropped_attributes_count: 0,
        events: Vec::new(),
        dropped_events_count: 0,
        links: Vec::new(),
        dropped_links_count: 0,
        status: StatusCode::Unset,
        status_message: Text::new(),
        resource: Arc::default(),
        scope: Arc::default(),
        shared: false,
        ingest: IngestProtocol::OtlpGrpc,
    }
}

fn list<'a>(json: &'a Json, keys: &[&str]) -> &'a [Json] {
    keys.iter().find_map(|key| json.get(key)?.as_array()).map(Vec::as_slice).unwrap_or_default()
}

fn text(json: &Json) -> Text {
    Text::from(json.as_str().unwrap_or_default())
}

fn number(json: &Json) -> u64 {
    let whole = json.as_u64().or_else(|| json.as_str()?.parse().ok());
    whole.or_else(|| json.as_f64().map(|number| number as u64)).unwrap_or(0)
}
