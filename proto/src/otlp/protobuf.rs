//! OTLP protobuf by hand: the layout is small and stable, and generated types would have to be
//! filled before they could be written.

use super::{ResourceGroup, SHARED_ATTRIBUTE, ScopeGroup};
use crate::attributes::{Attributes, KeyValue, Value};
use crate::span::{Event, Link, Resource, Scope, Span};

pub(super) fn write(groups: &[ResourceGroup<'_>]) -> Vec<u8> {
    let mut out = Writer::default();
    for group in groups {
        out.message(1, |out| resource_spans(out, group));
    }
    out.bytes
}

fn resource_spans(out: &mut Writer, group: &ResourceGroup<'_>) {
    out.message(1, |out| resource(out, group.resource));
    for scope in &group.scopes {
        out.message(2, |out| scope_spans(out, scope));
    }
    out.text(3, &group.resource.schema_url);
}

fn resource(out: &mut Writer, resource: &Resource) {
    attributes(out, 1, &resource.attributes);
    out.varint(2, u64::from(resource.dropped_attributes_count));
}

fn scope_spans(out: &mut Writer, group: &ScopeGroup<'_>) {
    out.message(1, |out| scope(out, group.scope));
    for item in &group.spans {
        out.message(2, |out| span(out, item));
    }
    out.text(3, &group.scope.schema_url);
}

fn scope(out: &mut Writer, scope: &Scope) {
    out.text(1, &scope.name);
    out.text(2, &scope.version);
    attributes(out, 3, &scope.attributes);
    out.varint(4, u64::from(scope.dropped_attributes_count));
}

fn span(out: &mut Writer, span: &Span) {
    out.text_bytes(1, span.trace_id.as_bytes());
    out.text_bytes(2, span.span_id.as_bytes());
    out.text(3, &span.trace_state);
    if let Some(parent) = &span.parent_span_id {
        out.text_bytes(4, parent.as_bytes());
    }
    out.text(5, &span.name);
    out.varint(6, span.kind.to_otlp() as u64);
    out.fixed64(7, span.start.0);
    out.fixed64(8, span.end.0);
    attributes(out, 9, &span.attributes);
    if span.shared {
        out.message(9, |out| {
            out.text(1, SHARED_ATTRIBUTE);
            out.message(2, |out| value(out, &Value::Bool(true)));
        });
    }
    out.varint(10, u64::from(span.dropped_attributes_count));
    for item in &span.events {
        out.message(11, |out| event(out, item));
    }
    out.varint(12, u64::from(span.dropped_events_count));
    for item in &span.links {
        out.message(13, |out| link(out, item));
    }
    out.varint(14, u64::from(span.dropped_links_count));
    out.message(15, |out| {
        out.text(2, &span.status_message);
        out.varint(3, span.status.to_otlp() as u64);
    });
    out.fixed32(16, span.flags);
}

fn event(out: &mut Writer, event: &Event) {
    out.fixed64(1, event.time.0);
    out.text(2, &event.name);
    attributes(out, 3, &event.attributes);
    out.varint(4, u64::from(event.dropped_attributes_count));
}

fn link(out: &mut Writer, link: &Link) {
    if let Some(id) = &link.trace_id {
        out.text_bytes(1, id.as_bytes());
    }
    if let Some(id) = &link.span_id {
        out.text_bytes(2, id.as_bytes());
    }
    out.text(3, &link.trace_state);
    attributes(out, 4, &link.attributes);
    out.varint(5, u64::from(link.dropped_attributes_count));
    out.fixed32(6, link.flags);
}

fn attributes(out: &mut Writer, field: u32, attributes: &Attributes) {
    for attribute in attributes {
        out.message(field, |out| key_value(out, attribute));
    }
}

fn key_value(out: &mut Writer, attribute: &KeyValue) {
    out.text(1, &attribute.key);
    out.message(2, |out| value(out, &attribute.value));
}

/// The variants are a oneof: they are written even when they hold their default.
fn value(out: &mut Writer, value: &Value) {
    match value {
        Value::Empty => {}
        Value::Str(text) => out.present_bytes(1, text.as_bytes()),
        Value::Bool(flag) => out.present_varint(2, u64::from(*flag)),
        Value::Int(number) => out.present_varint(3, *number as u64),
        Value::Double(number) => out.present_fixed64(4, number.to_bits()),
        Value::Array(items) => out.message(5, |out| {
            for item in items {
                out.message(1, |out| self::value(out, item));
            }
        }),
        Value::Map(entries) => out.message(6, |out| {
            for entry in entries {
                out.message(1, |out| key_value(out, entry));
            }
        }),
        Value::Bytes(bytes) => out.present_bytes(7, bytes),
    }
}

/// Wire types of protobuf.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH_DELIMITED: u32 = 2;
const FIXED32: u32 = 5;

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn raw_varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    fn key(&mut self, field: u32, wire_type: u32) {
        self.raw_varint(u64::from(field << 3 | wire_type));
    }

    /// A nested message. Its length is known only afterwards; it is then moved up by the one to
    /// three bytes the length takes, which is cheaper than measuring everything twice.
    fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.key(field, LENGTH_DELIMITED);
        let start = self.bytes.len();
        write(self);
        let end = self.bytes.len();
        self.raw_varint((end - start) as u64);
        let length_len = self.bytes.len() - end;
        self.bytes[start..].rotate_right(length_len);
    }

    fn present_bytes(&mut self, field: u32, bytes: &[u8]) {
        self.key(field, LENGTH_DELIMITED);
        self.raw_varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    fn present_varint(&mut self, field: u32, number: u64) {
        self.key(field, VARINT);
        self.raw_varint(number);
    }

    fn present_fixed64(&mut self, field: u32, number: u64) {
        self.key(field, FIXED64);
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    // Plain fields are left out when they hold their default.

    fn text_bytes(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.present_bytes(field, bytes);
        }
    }

    fn text(&mut self, field: u32, text: &str) {
        self.text_bytes(field, text.as_bytes());
    }

    fn varint(&mut self, field: u32, number: u64) {
        if number != 0 {
            self.present_varint(field, number);
        }
    }

    fn fixed64(&mut self, field: u32, number: u64) {
        if number != 0 {
            self.present_fixed64(field, number);
        }
    }

    fn fixed32(&mut self, field: u32, number: u32) {
        if number != 0 {
            self.key(field, FIXED32);
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
    }
}
