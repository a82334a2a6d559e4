//! Random OTLP requests for property tests, as `prost` types: well-formed, with every field set at
//! times, and with the ids and times that must be refused mixed in.

use opentelemetry_proto::tonic as otlp;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as ProstValue;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue as ProstKeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::trace::v1::span::{Event as ProstEvent, Link as ProstLink};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as ProstSpan, Status};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use windrose_proto::model::IngestProtocol;
use windrose_proto::time::UnixNanos;

use super::Origin;

/// When random requests arrive.
pub(super) const ORIGIN: Origin =
    Origin { ingest: IngestProtocol::OtlpGrpc, arrived: UnixNanos(1_760_000_000_000_000_000) };

fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        "\\PC{0,12}".prop_map(|text| Some(ProstValue::StringValue(text))),
        any::<bool>().prop_map(|flag| Some(ProstValue::BoolValue(flag))),
        any::<i64>().prop_map(|number| Some(ProstValue::IntValue(number))),
        double().prop_map(|number| Some(ProstValue::DoubleValue(number))),
        vec(any::<u8>(), 0..12).prop_map(|bytes| Some(ProstValue::BytesValue(bytes))),
    ]
    .prop_map(|value| AnyValue { value });
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4)
                .prop_map(|values| AnyValue { value: Some(ProstValue::ArrayValue(ArrayValue { values })) }),
            vec(("[a-z]{0,4}", option::of(inner)), 0..4).prop_map(|entries| {
                let values = entries.into_iter().map(|(key, value)| prost_key_value(key, value)).collect();
                AnyValue { value: Some(ProstValue::KvlistValue(KeyValueList { values })) }
            }),
        ]
    })
}

/// Numbers that `serde_json` reads back exactly, which it does not for all, and what are none.
fn double() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => any::<i32>().prop_map(|number| f64::from(number) / 8.0),
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
    ]
}

pub(super) fn prost_key_value(key: String, value: Option<AnyValue>) -> ProstKeyValue {
    ProstKeyValue { key, value, ..ProstKeyValue::default() }
}

fn prost_attributes() -> impl Strategy<Value = Vec<ProstKeyValue>> {
    vec(("[a-z.]{0,12}", option::of(any_value())), 0..6)
        .prop_map(|list| list.into_iter().map(|(key, value)| prost_key_value(key, value)).collect())
}

/// Ids of the right length mostly, of any other sometimes.
fn id(len: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![8 => vec(any::<u8>(), len), 1 => vec(Just(0u8), len), 1 => vec(any::<u8>(), 0..20)]
}

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 1..ORIGIN.arrived.0, 1 => Just(0), 1 => any::<u64>()]
}

fn prost_event() -> impl Strategy<Value = ProstEvent> {
    (time(), "\\PC{0,8}", prost_attributes(), any::<u32>()).prop_map(|(at, name, attributes, dropped)| ProstEvent {
        time_unix_nano: at,
        name,
        attributes,
        dropped_attributes_count: dropped,
    })
}

fn prost_link() -> impl Strategy<Value = ProstLink> {
    (id(16), id(8), "[a-z=]{0,8}", prost_attributes(), any::<u32>(), any::<u32>()).prop_map(
        |(trace_id, span_id, trace_state, attributes, dropped_attributes_count, flags)| ProstLink {
            trace_id,
            span_id,
            trace_state,
            attributes,
            dropped_attributes_count,
            flags,
        },
    )
}

fn prost_span() -> impl Strategy<Value = ProstSpan> {
    let identity = (id(16), id(8), id(8), "[a-z=]{0,8}", any::<u32>(), "\\PC{0,16}", -1..8i32);
    let lists = (prost_attributes(), vec(prost_event(), 0..3), vec(prost_link(), 0..3));
    let counts = (any::<u32>(), any::<u32>(), any::<u32>());
    let status = option::of((-1..4i32, "\\PC{0,8}").prop_map(|(code, message)| Status { code, message }));
    (identity, time(), time(), lists, counts, status).prop_map(|(identity, start, end, lists, counts, status)| {
        let (trace_id, span_id, parent_span_id, trace_state, flags, name, kind) = identity;
        let (attributes, events, links) = lists;
        ProstSpan {
            trace_id,
            span_id,
            parent_span_id,
            trace_state,
            flags,
            name,
            kind,
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            attributes,
            dropped_attributes_count: counts.0,
            events,
            dropped_events_count: counts.1,
            links,
            dropped_links_count: counts.2,
            status,
        }
    })
}

pub(super) fn request() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let scope = ("[a-z]{0,8}", "[0-9.]{0,4}", prost_attributes(), any::<u32>()).prop_map(
        |(name, version, attributes, dropped_attributes_count)| InstrumentationScope {
            name,
            version,
            attributes,
            dropped_attributes_count,
        },
    );
    let scope_spans = (option::of(scope), vec(prost_span(), 0..4), "[a-z]{0,8}")
        .prop_map(|(scope, spans, schema_url)| ScopeSpans { scope, spans, schema_url });
    let resource = (prost_attributes(), any::<u32>()).prop_map(|(attributes, dropped_attributes_count)| {
        otlp::resource::v1::Resource { attributes, dropped_attributes_count, ..Default::default() }
    });
    let resource_spans = (option::of(resource), vec(scope_spans, 0..3), "[a-z]{0,8}")
        .prop_map(|(resource, scope_spans, schema_url)| ResourceSpans { resource, scope_spans, schema_url });
    vec(resource_spans, 0..3).prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}
