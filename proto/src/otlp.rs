//! Spans written as OTLP: the protobuf of an `ExportTraceServiceRequest` and its JSON form. Both
//! are also what the OTLP specification calls `TracesData`.
//!
//! Spans are grouped by resource and scope in the order these are first met. What OTLP has no field
//! for is written as an attribute: Zipkin's `shared` as [`SHARED_ATTRIBUTE`]; readers take it back.

use std::collections::HashMap;
use std::sync::Arc;

use crate::span::{Resource, Scope, Span};

mod json;
mod protobuf;
#[cfg(test)]
mod tests;

/// Boolean attribute that carries [`Span::shared`].
pub const SHARED_ATTRIBUTE: &str = "zipkin.shared";

/// The spans as an OTLP/JSON document `{"resourceSpans":[…]}`: lower camel case, hexadecimal ids,
/// 64-bit numbers as strings, enums as numbers.
#[must_use]
pub fn to_json<'a>(spans: impl IntoIterator<Item = &'a Span>) -> String {
    json::write(&group(spans))
}

/// The spans as an OTLP `ExportTraceServiceRequest` in protobuf.
#[must_use]
pub fn to_protobuf<'a>(spans: impl IntoIterator<Item = &'a Span>) -> Vec<u8> {
    protobuf::write(&group(spans))
}

/// Spans of one resource.
struct ResourceGroup<'a> {
    resource: &'a Resource,
    scopes: Vec<ScopeGroup<'a>>,
}

/// Spans of one scope within a resource.
struct ScopeGroup<'a> {
    scope: &'a Scope,
    spans: Vec<&'a Span>,
}

/// Groups in order of first appearance. Spans of one request share their resource, which is
/// recognised by address; only resources not met yet are compared by value.
fn group<'a>(spans: impl IntoIterator<Item = &'a Span>) -> Vec<ResourceGroup<'a>> {
    let mut groups: Vec<ResourceGroup<'a>> = Vec::new();
    let mut places: HashMap<(*const Resource, *const Scope), (usize, usize)> = HashMap::new();
    for span in spans {
        let key = (Arc::as_ptr(&span.resource), Arc::as_ptr(&span.scope));
        let (resource, scope) = *places.entry(key).or_insert_with(|| place(&mut groups, span));
        groups[resource].scopes[scope].spans.push(span);
    }
    groups
}

/// Where the span belongs; makes the place when there is none.
fn place<'a>(groups: &mut Vec<ResourceGroup<'a>>, span: &'a Span) -> (usize, usize) {
    let resource = groups.iter().position(|group| *group.resource == *span.resource).unwrap_or_else(|| {
        groups.push(ResourceGroup { resource: &span.resource, scopes: Vec::new() });
        groups.len() - 1
    });
    let scopes = &mut groups[resource].scopes;
    let scope = scopes.iter().position(|group| *group.scope == *span.scope).unwrap_or_else(|| {
        scopes.push(ScopeGroup { scope: &span.scope, spans: Vec::new() });
        scopes.len() - 1
    });
    (resource, scope)
}
