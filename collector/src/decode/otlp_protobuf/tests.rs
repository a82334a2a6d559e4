//! Equality with `prost` on anything `prost` accepts, tables for what it does not know.

use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as ProstValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue as ProstKeyValue};
use opentelemetry_proto::tonic::trace::v1::span::{Event as ProstEvent, Link as ProstLink};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as ProstSpan};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;
use windrose_proto::Text;
use windrose_proto::attributes::{Attributes, KeyValue, Value};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::limits;
use windrose_proto::model::SpanKind;
use windrose_proto::reject::RejectReason;
use windrose_proto::span::{Event, Link, Resource, Scope, Span, StatusCode};
use windrose_proto::time::UnixNanos;

use super::decode_otlp_protobuf;
use crate::decode::Decoded;
use crate::decode::arbitrary::{ORIGIN, prost_key_value, request};

fn decode(body: &[u8]) -> Result<Decoded, crate::decode::DecodeError> {
    decode_otlp_protobuf(&Bytes::copy_from_slice(body), ORIGIN)
}

// The oracle: the same rules written over prost's types, as plainly as possible.

fn value_of(value: Option<&AnyValue>) -> Value {
    match value.and_then(|any| any.value.as_ref()) {
        None | Some(ProstValue::StringValueStrindex(_)) => Value::Empty,
        Some(ProstValue::StringValue(text)) => Value::Str(Text::from(text.as_str())),
        Some(ProstValue::BoolValue(flag)) => Value::Bool(*flag),
        Some(ProstValue::IntValue(number)) => Value::Int(*number),
        Some(ProstValue::DoubleValue(number)) => Value::Double(*number),
        Some(ProstValue::ArrayValue(list)) => {
            Value::Array(list.values.iter().map(|item| value_of(Some(item))).collect())
        }
        Some(ProstValue::KvlistValue(list)) => Value::Map(attributes_of(&list.values).0),
        Some(ProstValue::BytesValue(bytes)) => Value::Bytes(Bytes::copy_from_slice(bytes)),
    }
}

fn attributes_of(list: &[ProstKeyValue]) -> Attributes {
    let one = |kv: &ProstKeyValue| KeyValue { key: Text::from(kv.key.as_str()), value: value_of(kv.value.as_ref()) };
    Attributes(list.iter().map(one).collect())
}

fn span_of(span: &ProstSpan, resource: &Arc<Resource>, scope: &Arc<Scope>) -> Option<Span> {
    if span.trace_id.len() > 16 || span.span_id.len() > 8 || span.parent_span_id.len() > 8 {
        return None;
    }
    let latest = ORIGIN.arrived.0 + limits::FUTURE_MAX_SECS * 1_000_000_000;
    let times = [span.start_time_unix_nano, span.end_time_unix_nano];
    if times.iter().any(|at| *at == 0 || *at > latest) {
        return None;
    }
    let event = |event: &ProstEvent| Event {
        time: UnixNanos(event.time_unix_nano),
        name: Text::from(event.name.as_str()),
        attributes: attributes_of(&event.attributes),
        dropped_attributes_count: event.dropped_attributes_count,
    };
    let link = |link: &ProstLink| Link {
        trace_id: TraceId::from_slice(&link.trace_id),
        span_id: SpanId::from_slice(&link.span_id),
        trace_state: Text::from(link.trace_state.as_str()),
        attributes: attributes_of(&link.attributes),
        dropped_attributes_count: link.dropped_attributes_count,
        flags: link.flags,
    };
    let status = span.status.clone().unwrap_or_default();
    Some(Span {
        trace_id: TraceId::from_slice(&span.trace_id)?,
        span_id: SpanId::from_slice(&span.span_id)?,
        parent_span_id: SpanId::from_slice(&span.parent_span_id),
        trace_state: Text::from(span.trace_state.as_str()),
        flags: span.flags,
        name: Text::from(span.name.as_str()),
        kind: SpanKind::from_otlp(span.kind),
        start: UnixNanos(span.start_time_unix_nano),
        end: UnixNanos(span.end_time_unix_nano),
        attributes: attributes_of(&span.attributes),
        dropped_attributes_count: span.dropped_attributes_count,
        events: span.events.iter().map(event).collect(),
        dropped_events_count: span.dropped_events_count,
        links: span.links.iter().map(link).collect(),
        dropped_links_count: span.dropped_links_count,
        status: StatusCode::from_otlp(status.code),
        status_message: Text::from(status.message),
        resource: Arc::clone(resource),
        scope: Arc::clone(scope),
        shared: false,
        ingest: ORIGIN.ingest,
    })
}

/// The accepted spans and the number of refused ones.
fn expected(request: &ExportTraceServiceRequest) -> (Vec<Span>, u64) {
    let mut spans = Vec::new();
    let mut refused = 0;
    for group in &request.resource_spans {
        let sent = group.resource.clone().unwrap_or_default();
        let resource = Arc::new(Resource {
            attributes: attributes_of(&sent.attributes),
            dropped_attributes_count: sent.dropped_attributes_count,
            schema_url: Text::from(group.schema_url.as_str()),
        });
        for inner in &group.scope_spans {
            let sent = inner.scope.clone().unwrap_or_default();
            let scope = Arc::new(Scope {
                name: Text::from(sent.name),
                version: Text::from(sent.version),
                attributes: attributes_of(&sent.attributes),
                dropped_attributes_count: sent.dropped_attributes_count,
                schema_url: Text::from(inner.schema_url.as_str()),
            });
            for span in &inner.spans {
                match span_of(span, &resource, &scope) {
                    Some(span) => spans.push(span),
                    None => refused += 1,
                }
            }
        }
    }
    (spans, refused)
}

/// NaN is not equal to itself, but must arrive as NaN all the same.
fn comparable(spans: &[Span]) -> String {
    format!("{spans:?}")
}

#[track_caller]
fn agrees_with_prost(body: &[u8]) {
    let ours = decode(body);
    // Where prost refuses (one bad span, text that is not UTF-8) ours may keep what is good.
    if let Ok(request) = ExportTraceServiceRequest::decode(body) {
        let ours = ours.expect("prost accepts it");
        let (spans, refused) = expected(&request);
        assert_eq!(comparable(&ours.spans), comparable(&spans));
        assert_eq!(ours.rejected.total(), refused);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn equals_prost_on_random_messages(request in request()) {
        agrees_with_prost(&request.encode_to_vec());
    }

    #[test]
    fn equals_prost_on_damaged_messages(
        request in request(),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        keep in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        let mut body = request.encode_to_vec();
        if !body.is_empty() {
            for (at, byte) in flips {
                let at = at.index(body.len());
                body[at] = byte;
            }
            if truncate {
                body.truncate(keep.index(body.len()));
            }
        }
        agrees_with_prost(&body);
    }

    #[test]
    fn equals_prost_on_random_bytes(body in vec(any::<u8>(), 0..256)) {
        agrees_with_prost(&body);
    }

    #[test]
    fn equals_prost_on_messages_written_in_pieces(first in request(), second in request()) {
        // Concatenation is merging.
        let mut body = first.encode_to_vec();
        body.extend(second.encode_to_vec());
        agrees_with_prost(&body);
    }
}

proptest! {
    #[test]
    fn written_spans_read_back_equal(request in request(), shared in any::<bool>()) {
        let mut spans = decode(&request.encode_to_vec()).unwrap().spans;
        spans.iter_mut().for_each(|span| span.shared = shared);
        let written = windrose_proto::otlp::to_protobuf(&spans);
        let again = decode(&written).unwrap();
        prop_assert!(again.rejected.is_empty());
        prop_assert_eq!(sorted(&again.spans), sorted(&spans));
        // The oracle reads the same from it.
        let read_by_prost = ExportTraceServiceRequest::decode(&written[..]).expect("valid protobuf");
        prop_assert_eq!(read_by_prost.encode_to_vec().len(), written.len());
    }
}

/// Grouping by resource may change the order.
fn sorted(spans: &[Span]) -> Vec<String> {
    let mut spans: Vec<String> = spans.iter().map(|span| format!("{span:?}")).collect();
    spans.sort();
    spans
}

// Tables.

fn good_span() -> ProstSpan {
    ProstSpan {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: "GET /".into(),
        start_time_unix_nano: 1_000,
        end_time_unix_nano: 2_000,
        ..ProstSpan::default()
    }
}

fn body_of(spans: Vec<ProstSpan>) -> Vec<u8> {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
        .encode_to_vec()
}

#[track_caller]
fn check_refused(bad: ProstSpan, reason: RejectReason) {
    let decoded = decode(&body_of(vec![good_span(), bad, good_span()])).expect("body is well-formed");
    assert_eq!(decoded.spans.len(), 2, "the good spans are kept");
    assert_eq!(decoded.rejected.iter().collect::<Vec<_>>(), vec![(reason, 1)]);
    assert!(decoded.rejected.summary().contains(reason.as_str()));
}

#[test]
fn a_bad_span_is_refused_alone() {
    check_refused(ProstSpan { trace_id: vec![], ..good_span() }, RejectReason::BadTraceId);
    check_refused(ProstSpan { trace_id: vec![0; 16], ..good_span() }, RejectReason::BadTraceId);
    check_refused(ProstSpan { trace_id: vec![1; 17], ..good_span() }, RejectReason::BadTraceId);
    check_refused(ProstSpan { span_id: vec![0; 8], ..good_span() }, RejectReason::BadSpanId);
    check_refused(ProstSpan { span_id: vec![1; 9], ..good_span() }, RejectReason::BadSpanId);
    check_refused(ProstSpan { parent_span_id: vec![1; 9], ..good_span() }, RejectReason::BadSpanId);
    check_refused(ProstSpan { start_time_unix_nano: 0, ..good_span() }, RejectReason::BadTime);
    check_refused(ProstSpan { end_time_unix_nano: 0, ..good_span() }, RejectReason::BadTime);
    check_refused(ProstSpan { end_time_unix_nano: u64::MAX, ..good_span() }, RejectReason::BadTime);
    let deep = (0..=limits::VALUE_DEPTH_MAX).fold(AnyValue::default(), |value, _| AnyValue {
        value: Some(ProstValue::ArrayValue(ArrayValue { values: vec![value] })),
    });
    let attributes = vec![prost_key_value("deep".into(), Some(deep))];
    check_refused(ProstSpan { attributes, ..good_span() }, RejectReason::BadSpan);
}

#[test]
fn short_ids_are_padded_and_zero_parents_are_absent() {
    let span = ProstSpan { trace_id: vec![7; 8], parent_span_id: vec![0; 8], ..good_span() };
    let decoded = decode(&body_of(vec![span])).unwrap();
    assert_eq!(decoded.spans[0].trace_id.to_string(), "00000000000000000707070707070707");
    assert_eq!(decoded.spans[0].parent_span_id, None);
}

#[test]
fn a_span_of_garbage_between_good_ones_is_refused_alone() {
    // Span messages are written by hand: field 2 of ScopeSpans, two bytes of garbage.
    let good = good_span().encode_to_vec();
    let mut scope_spans = Vec::new();
    for span in [&good[..], &[0xff, 0xff], &good[..]] {
        scope_spans.extend([0x12, span.len() as u8]);
        scope_spans.extend(span);
    }
    for field in [vec![0x12], vec![0xc2, 0x3e]] {
        // Field 2 is scope_spans, field 1000 what it was called before.
        let mut resource_spans = field;
        resource_spans.push(scope_spans.len() as u8);
        resource_spans.extend(&scope_spans);
        let mut body = vec![0x0a, resource_spans.len() as u8];
        body.extend(resource_spans);
        let decoded = decode(&body).unwrap();
        assert_eq!(decoded.spans.len(), 2);
        assert_eq!(decoded.rejected.count(RejectReason::BadSpan), 1);
    }
}

#[test]
fn text_that_is_not_utf8_is_repaired() {
    let mut body = body_of(vec![ProstSpan { name: "GET".into(), ..good_span() }]);
    let at = body.windows(3).position(|window| window == b"GET").unwrap();
    body[at + 1] = 0xff;
    let decoded = decode(&body).unwrap();
    assert_eq!(&*decoded.spans[0].name, "G\u{fffd}T");
}

#[test]
fn limits_cut_and_count() {
    let attributes = (0..limits::ATTRIBUTES_PER_SPAN_MAX + 5).map(|n| prost_key_value(format!("k{n}"), None)).collect();
    let events = vec![ProstEvent::default(); limits::EVENTS_PER_SPAN_MAX + 2];
    let links = vec![ProstLink::default(); limits::LINKS_PER_SPAN_MAX + 1];
    let long = AnyValue { value: Some(ProstValue::StringValue("x".repeat(limits::ATTRIBUTE_VALUE_MAX_BYTES + 9))) };
    let big = ProstSpan { attributes, dropped_attributes_count: 10, events, links, ..good_span() };
    let wide = ProstSpan {
        attributes: vec![prost_key_value("long".into(), Some(long))],
        name: "n".repeat(limits::NAME_MAX_BYTES + 1),
        ..good_span()
    };
    let decoded = decode(&body_of(vec![big, wide])).unwrap();
    let span = &decoded.spans[0];
    assert_eq!((span.attributes.len(), span.dropped_attributes_count), (limits::ATTRIBUTES_PER_SPAN_MAX, 15));
    assert_eq!((span.events.len(), span.dropped_events_count), (limits::EVENTS_PER_SPAN_MAX, 2));
    assert_eq!((span.links.len(), span.dropped_links_count), (limits::LINKS_PER_SPAN_MAX, 1));
    let span = &decoded.spans[1];
    assert_eq!(span.attributes.text("long").unwrap().len(), limits::ATTRIBUTE_VALUE_MAX_BYTES);
    assert_eq!(span.name.len(), limits::NAME_MAX_BYTES);
}

#[test]
fn more_spans_than_allowed_are_counted() {
    let minimal = ProstSpan { name: String::new(), ..good_span() };
    let mut spans = vec![minimal; 1000];
    spans.push(ProstSpan { name: "last".into(), ..good_span() });
    let one = body_of(spans);
    let mut body = Vec::new();
    for _ in 0..=limits::SPANS_PER_REQUEST_MAX / 1001 {
        body.extend(&one);
    }
    let sent = 1001 * (limits::SPANS_PER_REQUEST_MAX as u64 / 1001 + 1);
    let decoded = decode(&body).unwrap();
    // A million of spans fits the count but not the memory: whichever limit is met, all are accounted for.
    assert_eq!(decoded.spans.len() as u64 + decoded.rejected.total(), sent);
    assert!(decoded.rejected.total() > 0);
    assert!(decoded.memory_bytes <= limits::DECODED_MAX_BYTES);
}

#[test]
fn amplification_is_bounded() {
    // Two bytes of body for each empty attribute, which costs far more in memory.
    let mut span = good_span().encode_to_vec();
    for _ in 0..4 << 20 {
        span.extend([0x4a, 0x00]);
    }
    let mut scope_spans = vec![0x12];
    prost::encode_length_delimiter(span.len(), &mut scope_spans).unwrap();
    scope_spans.extend(span);
    let mut resource_spans = vec![0x12];
    prost::encode_length_delimiter(scope_spans.len(), &mut resource_spans).unwrap();
    resource_spans.extend(scope_spans);
    let mut body = vec![0x0a];
    prost::encode_length_delimiter(resource_spans.len(), &mut body).unwrap();
    body.extend(resource_spans);
    let decoded = decode(&body).unwrap();
    assert_eq!(decoded.spans.len(), 0);
    assert_eq!(decoded.rejected.count(RejectReason::TooLarge), 1);
}

#[test]
fn what_is_not_otlp_is_named() {
    for body in [&b"{\"resourceSpans\":[]}"[..], b"\x0a\x05ab", b"\x08\x01\xff", b"<html>"] {
        let error = decode(body).unwrap_err();
        assert_eq!(error.reason, RejectReason::BadBody);
        assert!(error.message.starts_with("not an OTLP ExportTraceServiceRequest"), "{}", error.message);
    }
    assert_eq!(decode(b"").unwrap().spans.len(), 0);
}

#[test]
fn texts_share_the_body() {
    let body = Bytes::from(body_of(vec![good_span()]));
    let decoded = decode_otlp_protobuf(&body, ORIGIN).unwrap();
    assert!(body.as_ptr_range().contains(&decoded.spans[0].name.as_bytes().as_ptr()));
}
