//! Two segments of one trace as APISIX and an agent behind it send them, and what is tolerated.

use bytes::Bytes;
use proptest::prelude::*;
use windrose_proto::attributes::Value;
use windrose_proto::model::{IngestProtocol, SpanKind};
use windrose_proto::reject::RejectReason;
use windrose_proto::span::StatusCode;
use windrose_proto::time::UnixNanos;

use super::decode_skywalking_json;
use crate::decode::{DecodeError, Decoded, Origin};

const ORIGIN: Origin = Origin { ingest: IngestProtocol::Skywalking, arrived: UnixNanos(1_760_000_000_000_000_000) };

fn decode(document: &str) -> Result<Decoded, DecodeError> {
    decode_skywalking_json(&Bytes::copy_from_slice(document.as_bytes()), ORIGIN)
}

const SEGMENTS: &str = r#"[
 {"traceId":"70c51b4e-6af1-11ee-8c99-0242ac120002.17.16971","serviceInstance":"gw-1","service":"APISIX",
  "traceSegmentId":"seg-gateway","spans":[
   {"operationName":"/orders","startTime":1697166000100,"endTime":1697166000200,"spanType":"Exit","spanId":1,
    "isError":true,"parentSpanId":0,"componentId":6002,"peer":"orders:8080","spanLayer":"Http"},
   {"operationName":"/orders","startTime":1697166000095,"endTime":1697166000201,"spanType":"Entry","spanId":0,
    "isError":false,"parentSpanId":-1,"componentId":6002,"peer":"10.0.0.9","spanLayer":"Http",
    "tags":[{"key":"http.method","value":"GET"},{"key":"url","value":"http://shop/orders"},{"key":"status_code","value":"502"}],
    "logs":[{"time":1697166000150,"data":[{"key":"event","value":"error"},{"key":"message","value":"reset"}]}]}]},
 {"traceSegmentId":"seg-orders","service":"orders","traceId":"70c51b4e-6af1-11ee-8c99-0242ac120002.17.16971","spans":[
   {"operationName":"GET:/orders","startTime":1697166000110,"endTime":1697166000190,"spanType":"Entry","spanId":0,
    "parentSpanId":-1,"refs":[{"traceId":"70c51b4e-6af1-11ee-8c99-0242ac120002.17.16971",
    "parentTraceSegmentId":"seg-gateway","parentSpanId":1,"refType":"CrossProcess"}]}]}]"#;

#[test]
fn segments_become_spans_that_find_each_other() {
    let decoded = decode(SEGMENTS).unwrap();
    let [exit, entry, orders] = &decoded.spans[..] else { panic!("{} spans", decoded.spans.len()) };
    assert_eq!(exit.parent_span_id, Some(entry.span_id));
    assert_eq!(entry.parent_span_id, None);
    assert_eq!(orders.parent_span_id, Some(exit.span_id), "across segments");
    assert!(exit.trace_id == entry.trace_id && entry.trace_id == orders.trace_id);

    assert_eq!((entry.kind, exit.kind, orders.kind), (SpanKind::Server, SpanKind::Client, SpanKind::Server));
    assert_eq!((entry.start.0, entry.end.0), (1_697_166_000_095_000_000, 1_697_166_000_201_000_000));
    assert_eq!((entry.status, exit.status), (StatusCode::Unset, StatusCode::Error));
    let resource = &entry.resource.attributes;
    assert_eq!(&**resource.text("service.name").unwrap(), "APISIX");
    assert_eq!(&**resource.text("service.instance.id").unwrap(), "gw-1");
    for (key, value) in [
        ("component", "apisix"),
        ("http.method", "GET"),
        ("http.url", "http://shop/orders"),
        ("http.status_code", "502"),
        ("peer.address", "10.0.0.9"),
    ] {
        assert_eq!(&**entry.attributes.text(key).unwrap(), value, "{key}");
    }
    assert_eq!(&**exit.attributes.text("server.address").unwrap(), "orders:8080");
    assert_eq!(orders.attributes.get("component"), None);
    let event = &entry.events[0];
    assert_eq!((event.time.0, &*event.name), (1_697_166_000_150_000_000, "error"));
    assert_eq!(event.attributes.get("message").and_then(Value::as_str), Some("reset"));
}

#[test]
fn trace_ids_that_are_uuids_stay_what_they_are() {
    for (spelling, expect) in [
        ("70c51b4e-6af1-11ee-8c99-0242ac120002", "70c51b4e6af111ee8c990242ac120002"),
        ("70c51b4e6af111ee8c990242ac120002", "70c51b4e6af111ee8c990242ac120002"),
    ] {
        let document = format!(
            r#"{{"traceId":"{spelling}","traceSegmentId":"s","spans":[{{"spanId":0,"startTime":1,"endTime":2}}]}}"#
        );
        assert_eq!(decode(&document).unwrap().spans[0].trace_id.to_string(), expect);
    }
}

#[track_caller]
fn check_refused(segment: &str, span: &str, reason: RejectReason) {
    let good = r#"{"spanId":7,"startTime":1,"endTime":2}"#;
    let document =
        format!(r#"[{{{segment},"spans":[{span}]}},{{"traceId":"t","traceSegmentId":"s","spans":[{good},{good}]}}]"#);
    let decoded = decode(&document).unwrap();
    assert_eq!(decoded.spans.len(), 2, "the good spans are kept");
    assert_eq!(decoded.rejected.iter().collect::<Vec<_>>(), vec![(reason, 1)]);
}

#[test]
fn a_bad_span_is_refused_alone() {
    let segment = r#""traceId":"t","traceSegmentId":"s""#;
    check_refused(r#""traceSegmentId":"s""#, r#"{"spanId":0,"startTime":1,"endTime":2}"#, RejectReason::BadTraceId);
    check_refused(r#""traceId":"t""#, r#"{"spanId":0,"startTime":1,"endTime":2}"#, RejectReason::BadSpanId);
    check_refused(segment, r#"{"startTime":1,"endTime":2}"#, RejectReason::BadSpanId);
    check_refused(segment, r#"{"spanId":0,"endTime":2}"#, RejectReason::BadTime);
    check_refused(segment, r#"{"spanId":[0],"startTime":1,"endTime":2}"#, RejectReason::BadSpan);
    check_refused(segment, "[[{}]]", RejectReason::BadSpan);
}

#[test]
fn what_is_not_a_segment_list_is_named() {
    let error = decode("[{]").unwrap_err();
    assert_eq!(error.message, "not a list of SkyWalking segments in JSON: a name expected at byte 2");
    assert_eq!(decode("[]").unwrap().spans.len(), 0);
}

proptest! {
    #[test]
    fn damaged_documents_never_panic(
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut document = SEGMENTS.as_bytes().to_vec();
        let at = at.index(document.len());
        document[at] = with;
        let cut = document[..keep.index(document.len())].to_vec();
        for document in [document, cut] {
            drop(decode_skywalking_json(&Bytes::from(document), ORIGIN));
        }
    }
}
