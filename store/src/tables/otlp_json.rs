//! Resources, scopes, events and links as OTLP/JSON text, without loss.
//!
//! Text rather than nested columns: a file holds few distinct resources and scopes, so that the
//! dictionary makes a row's share nearly nothing, and any tool can pick it apart with its JSON
//! functions. Integers and doubles are strings (OTLP/JSON allows it): JSON numbers lose digits.
//! The one thing not kept is the payload of a NaN.

use bytes::Bytes;
use serde_json::{Map, Value as Json, json};
use windrose_proto::Text;
use windrose_proto::attributes::{Attributes, KeyValue, Value};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::span::{Event, Link, Resource, Scope};
use windrose_proto::time::UnixNanos;

/// Text that is not what this module writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

// Writing.

pub(super) fn resource_to_text(resource: &Resource) -> String {
    let mut object = Map::new();
    put_attributes(&mut object, &resource.attributes, resource.dropped_attributes_count);
    put_text(&mut object, "schemaUrl", &resource.schema_url);
    Json::Object(object).to_string()
}

pub(super) fn scope_to_text(scope: &Scope) -> String {
    let mut object = Map::new();
    put_text(&mut object, "name", &scope.name);
    put_text(&mut object, "version", &scope.version);
    put_attributes(&mut object, &scope.attributes, scope.dropped_attributes_count);
    put_text(&mut object, "schemaUrl", &scope.schema_url);
    Json::Object(object).to_string()
}

pub(super) fn events_to_text(events: &[Event]) -> String {
    let list = events.iter().map(|event| {
        let mut object = Map::new();
        object.insert("timeUnixNano".to_owned(), Json::String(event.time.0.to_string()));
        put_text(&mut object, "name", &event.name);
        put_attributes(&mut object, &event.attributes, event.dropped_attributes_count);
        Json::Object(object)
    });
    Json::Array(list.collect()).to_string()
}

pub(super) fn links_to_text(links: &[Link]) -> String {
    let list = links.iter().map(|link| {
        let mut object = Map::new();
        if let Some(id) = link.trace_id {
            object.insert("traceId".to_owned(), Json::String(id.to_string()));
        }
        if let Some(id) = link.span_id {
            object.insert("spanId".to_owned(), Json::String(id.to_string()));
        }
        put_text(&mut object, "traceState", &link.trace_state);
        put_attributes(&mut object, &link.attributes, link.dropped_attributes_count);
        if link.flags != 0 {
            object.insert("flags".to_owned(), json!(link.flags));
        }
        Json::Object(object)
    });
    Json::Array(list.collect()).to_string()
}

pub(super) fn value_to_text(value: &Value) -> String {
    value_to_json(value).to_string()
}

fn put_text(object: &mut Map<String, Json>, key: &str, text: &Text) {
    if !text.is_empty() {
        object.insert(key.to_owned(), Json::String(text.to_string()));
    }
}

fn put_attributes(object: &mut Map<String, Json>, attributes: &Attributes, dropped: u32) {
    if !attributes.is_empty() {
        object.insert("attributes".to_owned(), pairs_to_json(&attributes.0));
    }
    if dropped != 0 {
        object.insert("droppedAttributesCount".to_owned(), json!(dropped));
    }
}

fn pairs_to_json(pairs: &[KeyValue]) -> Json {
    pairs.iter().map(|pair| json!({ "key": &*pair.key, "value": value_to_json(&pair.value) })).collect()
}

fn value_to_json(value: &Value) -> Json {
    match value {
        Value::Empty => json!({}),
        Value::Str(text) => json!({ "stringValue": &**text }),
        Value::Bool(flag) => json!({ "boolValue": flag }),
        Value::Int(number) => json!({ "intValue": number.to_string() }),
        Value::Double(number) => json!({ "doubleValue": number.to_string() }),
        Value::Bytes(bytes) => json!({ "bytesValue": base64::encode(bytes) }),
        Value::Array(items) => {
            json!({ "arrayValue": { "values": items.iter().map(value_to_json).collect::<Json>() } })
        }
        Value::Map(pairs) => json!({ "kvlistValue": { "values": pairs_to_json(pairs) } }),
    }
}

// Reading.

pub(super) fn resource_from_text(text: &str) -> Result<Resource, Malformed> {
    let object = parse(text)?;
    Ok(Resource {
        attributes: attributes_of(&object)?,
        dropped_attributes_count: count_of(&object, "droppedAttributesCount"),
        schema_url: text_of(&object, "schemaUrl"),
    })
}

pub(super) fn scope_from_text(text: &str) -> Result<Scope, Malformed> {
    let object = parse(text)?;
    Ok(Scope {
        name: text_of(&object, "name"),
        version: text_of(&object, "version"),
        attributes: attributes_of(&object)?,
        dropped_attributes_count: count_of(&object, "droppedAttributesCount"),
        schema_url: text_of(&object, "schemaUrl"),
    })
}

pub(super) fn events_from_text(text: &str) -> Result<Vec<Event>, Malformed> {
    parse(text)?.as_array().ok_or(Malformed)?.iter().map(event_from_json).collect()
}

pub(super) fn links_from_text(text: &str) -> Result<Vec<Link>, Malformed> {
    parse(text)?.as_array().ok_or(Malformed)?.iter().map(link_from_json).collect()
}

pub(super) fn value_from_text(text: &str) -> Result<Value, Malformed> {
    value_from_json(&parse(text)?)
}

fn parse(text: &str) -> Result<Json, Malformed> {
    serde_json::from_str(text).map_err(|_| Malformed)
}

fn event_from_json(object: &Json) -> Result<Event, Malformed> {
    Ok(Event {
        time: UnixNanos(object["timeUnixNano"].as_str().and_then(|time| time.parse().ok()).ok_or(Malformed)?),
        name: text_of(object, "name"),
        attributes: attributes_of(object)?,
        dropped_attributes_count: count_of(object, "droppedAttributesCount"),
    })
}

fn link_from_json(object: &Json) -> Result<Link, Malformed> {
    Ok(Link {
        trace_id: object["traceId"].as_str().and_then(TraceId::parse),
        span_id: object["spanId"].as_str().and_then(SpanId::parse),
        trace_state: text_of(object, "traceState"),
        attributes: attributes_of(object)?,
        dropped_attributes_count: count_of(object, "droppedAttributesCount"),
        flags: count_of(object, "flags"),
    })
}

fn text_of(object: &Json, key: &str) -> Text {
    Text::from(object[key].as_str().unwrap_or_default())
}

fn count_of(object: &Json, key: &str) -> u32 {
    object[key].as_u64().and_then(|count| u32::try_from(count).ok()).unwrap_or_default()
}

fn attributes_of(object: &Json) -> Result<Attributes, Malformed> {
    match &object["attributes"] {
        Json::Null => Ok(Attributes::default()),
        pairs => pairs_from_json(pairs).map(Attributes),
    }
}

fn pairs_from_json(pairs: &Json) -> Result<Vec<KeyValue>, Malformed> {
    let pairs = pairs.as_array().ok_or(Malformed)?;
    pairs
        .iter()
        .map(|pair| Ok(KeyValue { key: text_of(pair, "key"), value: value_from_json(&pair["value"])? }))
        .collect()
}

fn value_from_json(value: &Json) -> Result<Value, Malformed> {
    let object = value.as_object().ok_or(Malformed)?;
    let Some((kind, value)) = object.iter().next() else { return Ok(Value::Empty) };
    let text = || value.as_str().ok_or(Malformed);
    Ok(match kind.as_str() {
        "stringValue" => Value::Str(Text::from(text()?)),
        "boolValue" => Value::Bool(value.as_bool().ok_or(Malformed)?),
        "intValue" => Value::Int(text()?.parse().map_err(|_| Malformed)?),
        "doubleValue" => Value::Double(text()?.parse().map_err(|_| Malformed)?),
        "bytesValue" => Value::Bytes(base64::decode(text()?).ok_or(Malformed)?),
        "arrayValue" => {
            let items = value["values"].as_array().ok_or(Malformed)?;
            Value::Array(items.iter().map(value_from_json).collect::<Result<_, _>>()?)
        }
        "kvlistValue" => Value::Map(pairs_from_json(&value["values"])?),
        _ => return Err(Malformed),
    })
}

/// Standard base64 with padding.
pub(super) mod base64 {
    use super::Bytes;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    pub(in super::super) fn encode(bytes: &[u8]) -> String {
        STANDARD.encode(bytes)
    }

    pub(in super::super) fn decode(text: &str) -> Option<Bytes> {
        STANDARD.decode(text).ok().map(Bytes::from)
    }
}
