//! OTLP/JSON by hand, after the protobuf JSON mapping with OTLP's exceptions (hexadecimal ids,
//! enums as numbers).

use std::fmt::Write as _;

use super::{ResourceGroup, SHARED_ATTRIBUTE, ScopeGroup};
use crate::attributes::{Attributes, KeyValue, Value};
use crate::span::{Event, Link, Resource, Scope, Span};

pub(super) fn write(groups: &[ResourceGroup<'_>]) -> String {
    let mut out = Writer::default();
    out.object(|out| {
        if groups.is_empty() {
            // Readers that expect the list should find it.
            out.name("resourceSpans");
            out.text.push_str("[]");
        }
        out.array("resourceSpans", groups, |out, group| {
            out.member("resource", |out| resource(out, group.resource));
            out.array("scopeSpans", &group.scopes, scope_spans);
            out.text("schemaUrl", &group.resource.schema_url);
        });
    });
    out.text
}

fn resource(out: &mut Writer, resource: &Resource) {
    attributes(out, &resource.attributes);
    out.count("droppedAttributesCount", resource.dropped_attributes_count);
}

fn scope_spans(out: &mut Writer, group: &ScopeGroup<'_>) {
    out.member("scope", |out| scope(out, group.scope));
    out.array("spans", &group.spans, |out, item| span(out, item));
    out.text("schemaUrl", &group.scope.schema_url);
}

fn scope(out: &mut Writer, scope: &Scope) {
    out.text("name", &scope.name);
    out.text("version", &scope.version);
    attributes(out, &scope.attributes);
    out.count("droppedAttributesCount", scope.dropped_attributes_count);
}

fn span(out: &mut Writer, span: &Span) {
    out.quoted("traceId", span.trace_id);
    out.quoted("spanId", span.span_id);
    if let Some(parent) = span.parent_span_id {
        out.quoted("parentSpanId", parent);
    }
    out.text("traceState", &span.trace_state);
    out.count("flags", span.flags);
    out.text("name", &span.name);
    out.number("kind", span.kind.to_otlp());
    out.quoted("startTimeUnixNano", span.start.0);
    out.quoted("endTimeUnixNano", span.end.0);
    if span.shared {
        let shared = KeyValue { key: crate::Text::from_static(SHARED_ATTRIBUTE), value: Value::Bool(true) };
        out.array("attributes", span.attributes.iter().chain(std::iter::once(&shared)), key_value);
    } else {
        attributes(out, &span.attributes);
    }
    out.count("droppedAttributesCount", span.dropped_attributes_count);
    out.array("events", &span.events, event);
    out.count("droppedEventsCount", span.dropped_events_count);
    out.array("links", &span.links, link);
    out.count("droppedLinksCount", span.dropped_links_count);
    out.member("status", |out| {
        out.text("message", &span.status_message);
        if span.status != crate::span::StatusCode::Unset {
            out.number("code", span.status.to_otlp());
        }
    });
}

fn event(out: &mut Writer, event: &Event) {
    out.quoted("timeUnixNano", event.time.0);
    out.text("name", &event.name);
    attributes(out, &event.attributes);
    out.count("droppedAttributesCount", event.dropped_attributes_count);
}

fn link(out: &mut Writer, link: &Link) {
    if let Some(id) = link.trace_id {
        out.quoted("traceId", id);
    }
    if let Some(id) = link.span_id {
        out.quoted("spanId", id);
    }
    out.text("traceState", &link.trace_state);
    attributes(out, &link.attributes);
    out.count("droppedAttributesCount", link.dropped_attributes_count);
    out.count("flags", link.flags);
}

fn attributes(out: &mut Writer, attributes: &Attributes) {
    out.array("attributes", attributes, key_value);
}

fn key_value(out: &mut Writer, attribute: &KeyValue) {
    out.name("key");
    out.string(&attribute.key);
    out.member("value", |out| value(out, &attribute.value));
}

fn value(out: &mut Writer, value: &Value) {
    match value {
        Value::Empty => {}
        Value::Str(text) => {
            out.name("stringValue");
            out.string(text);
        }
        Value::Bool(flag) => out.number("boolValue", flag),
        Value::Int(number) => out.quoted("intValue", number),
        Value::Double(number) => {
            out.name("doubleValue");
            out.double(*number);
        }
        Value::Array(items) => out.member("arrayValue", |out| out.whole_array("values", items, self::value)),
        Value::Map(entries) => out.member("kvlistValue", |out| out.whole_array("values", entries, key_value)),
        Value::Bytes(bytes) => {
            out.name("bytesValue");
            out.base64(bytes);
        }
    }
}

/// Writes JSON; commas take care of themselves.
#[derive(Default)]
struct Writer {
    text: String,
}

impl Writer {
    /// A comma unless this is the first thing inside a bracket.
    fn separate(&mut self) {
        if !matches!(self.text.as_bytes().last(), None | Some(b'{' | b'[')) {
            self.text.push(',');
        }
    }

    /// The name of a member whose value follows.
    fn name(&mut self, name: &str) {
        self.separate();
        self.text.push('"');
        self.text.push_str(name);
        self.text.push_str("\":");
    }

    fn object(&mut self, write: impl FnOnce(&mut Self)) {
        self.text.push('{');
        write(self);
        self.text.push('}');
    }

    fn member(&mut self, name: &str, write: impl FnOnce(&mut Self)) {
        self.name(name);
        self.object(write);
    }

    /// A member that is a list of objects; left out when empty, as protobuf JSON does.
    fn array<T>(&mut self, name: &str, items: impl IntoIterator<Item = T>, write: impl FnMut(&mut Self, T)) {
        let mut items = items.into_iter().peekable();
        if items.peek().is_some() {
            self.whole_array(name, items, write);
        }
    }

    /// The list even when it is empty: readers of array and map values insist on it.
    fn whole_array<T>(&mut self, name: &str, items: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Self, T)) {
        self.name(name);
        self.text.push('[');
        for item in items {
            self.separate();
            self.object(|out| write(out, item));
        }
        self.text.push(']');
    }

    fn number(&mut self, name: &str, number: impl std::fmt::Display) {
        self.name(name);
        self.display(number);
    }

    fn display(&mut self, what: impl std::fmt::Display) {
        write!(self.text, "{what}").expect("writing to a string cannot fail");
    }

    /// A member left out when zero.
    fn count(&mut self, name: &str, count: u32) {
        if count != 0 {
            self.number(name, count);
        }
    }

    /// An id or a 64-bit number: a string without anything to escape.
    fn quoted(&mut self, name: &str, what: impl std::fmt::Display) {
        self.name(name);
        self.text.push('"');
        self.display(what);
        self.text.push('"');
    }

    /// A member left out when empty.
    fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.name(name);
            self.string(text);
        }
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        let mut plain_from = 0;
        for (at, byte) in text.bytes().enumerate() {
            if byte >= 0x20 && byte != b'"' && byte != b'\\' {
                continue;
            }
            self.text.push_str(&text[plain_from..at]);
            match byte {
                b'"' => self.text.push_str("\\\""),
                b'\\' => self.text.push_str("\\\\"),
                b'\n' => self.text.push_str("\\n"),
                b'\r' => self.text.push_str("\\r"),
                b'\t' => self.text.push_str("\\t"),
                control => write!(self.text, "\\u{control:04x}").expect("writing to a string cannot fail"),
            }
            plain_from = at + 1;
        }
        self.text.push_str(&text[plain_from..]);
        self.text.push('"');
    }

    /// What JSON numbers cannot say is a string, as protobuf JSON has it.
    fn double(&mut self, number: f64) {
        if number.is_nan() {
            self.text.push_str("\"NaN\"");
        } else if number.is_infinite() {
            self.text.push_str(if number > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" });
        } else {
            // Debug, unlike Display, writes large and small numbers with an exponent.
            write!(self.text, "{number:?}").expect("writing to a string cannot fail");
        }
    }

    fn base64(&mut self, bytes: &[u8]) {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        self.text.push('"');
        for chunk in bytes.chunks(3) {
            let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            for place in 0..4 {
                let digit = ALPHABET[(group >> (18 - 6 * place) & 63) as usize];
                self.text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
            }
        }
        self.text.push('"');
    }
}
