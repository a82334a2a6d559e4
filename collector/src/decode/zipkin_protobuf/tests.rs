//! The same spans in JSON and in protobuf read equal; `prost` types after the public definition
//! write the protobuf.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use prost::Message;
use serde_json::json;
use windrose_proto::model::IngestProtocol;
use windrose_proto::reject::RejectReason;
use windrose_proto::time::UnixNanos;

use super::decode_zipkin_protobuf;
use crate::decode::{Origin, decode_zipkin_json};

const ORIGIN: Origin = Origin { ingest: IngestProtocol::Zipkin, arrived: UnixNanos(1_760_000_000_000_000_000) };

#[derive(Clone, PartialEq, Message)]
struct ListOfSpans {
    #[prost(message, repeated, tag = "1")]
    spans: Vec<ZipkinSpan>,
}

#[derive(Clone, PartialEq, Message)]
struct ZipkinSpan {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    parent_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    id: Vec<u8>,
    #[prost(int32, tag = "4")]
    kind: i32,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(fixed64, tag = "6")]
    timestamp: u64,
    #[prost(uint64, tag = "7")]
    duration: u64,
    #[prost(message, optional, tag = "8")]
    local_endpoint: Option<ZipkinEndpoint>,
    #[prost(message, optional, tag = "9")]
    remote_endpoint: Option<ZipkinEndpoint>,
    #[prost(message, repeated, tag = "10")]
    annotations: Vec<Annotation>,
    #[prost(btree_map = "string, string", tag = "11")]
    tags: BTreeMap<String, String>,
    #[prost(bool, tag = "12")]
    debug: bool,
    #[prost(bool, tag = "13")]
    shared: bool,
}

#[derive(Clone, PartialEq, Message)]
struct ZipkinEndpoint {
    #[prost(string, tag = "1")]
    service_name: String,
    #[prost(bytes = "vec", tag = "2")]
    ipv4: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    ipv6: Vec<u8>,
    #[prost(int32, tag = "4")]
    port: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Annotation {
    #[prost(fixed64, tag = "1")]
    timestamp: u64,
    #[prost(string, tag = "2")]
    value: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same span in JSON.
fn to_json(span: &ZipkinSpan) -> serde_json::Value {
    let endpoint = |endpoint: &Option<ZipkinEndpoint>| match endpoint {
        None => json!(null),
        Some(endpoint) => {
            let ipv4 =
                <[u8; 4]>::try_from(&endpoint.ipv4[..]).map(|octets| std::net::Ipv4Addr::from(octets).to_string());
            let ipv6 =
                <[u8; 16]>::try_from(&endpoint.ipv6[..]).map(|octets| std::net::Ipv6Addr::from(octets).to_string());
            json!({"serviceName": endpoint.service_name, "ipv4": ipv4.ok(), "ipv6": ipv6.ok(), "port": endpoint.port})
        }
    };
    json!({
        "traceId": hex(&span.trace_id), "parentId": hex(&span.parent_id), "id": hex(&span.id),
        "kind": (["", "CLIENT", "SERVER", "PRODUCER", "CONSUMER"].get(span.kind as usize)),
        "name": span.name, "timestamp": span.timestamp, "duration": span.duration,
        "localEndpoint": endpoint(&span.local_endpoint), "remoteEndpoint": endpoint(&span.remote_endpoint),
        "annotations": span.annotations.iter()
            .map(|annotation| json!({"timestamp": annotation.timestamp, "value": annotation.value}))
            .collect::<Vec<_>>(),
        "tags": span.tags, "debug": span.debug, "shared": span.shared,
    })
}

fn endpoint() -> impl Strategy<Value = Option<ZipkinEndpoint>> {
    let address = |len: usize| prop_oneof![Just(vec![]), vec(any::<u8>(), len)];
    let endpoint = ("[a-z]{0,4}", address(4), address(16), 0..70_000)
        .prop_map(|(service_name, ipv4, ipv6, port)| ZipkinEndpoint { service_name, ipv4, ipv6, port });
    prop::option::of(endpoint)
}

fn zipkin_span() -> impl Strategy<Value = ZipkinSpan> {
    let ids = (vec(any::<u8>(), 16), vec(any::<u8>(), 8), vec(any::<u8>(), 8), 0..6i32, "\\PC{0,6}");
    let time = prop_oneof![8 => 0..1_700_000_000_000_000u64, 1 => any::<u64>()];
    let annotations = vec(
        (0..1_700_000_000_000_000u64, "[a-z]{0,4}").prop_map(|(timestamp, value)| Annotation { timestamp, value }),
        0..3,
    );
    let tags = btree_map(prop_oneof![Just("error".to_owned()), "[a-z.]{0,6}".boxed()], "\\PC{0,6}", 0..4);
    let flags = (any::<bool>(), any::<bool>());
    (ids, time, 0..1u64 << 40, endpoint(), endpoint(), annotations, tags, flags).prop_map(
        |(ids, timestamp, duration, local_endpoint, remote_endpoint, annotations, tags, (debug, shared))| {
            let (trace_id, parent_id, id, kind, name) = ids;
            ZipkinSpan {
                trace_id,
                parent_id,
                id,
                kind,
                name,
                timestamp,
                duration,
                local_endpoint,
                remote_endpoint,
                annotations,
                tags,
                debug,
                shared,
            }
        },
    )
}

proptest! {
    #[test]
    fn equals_the_json_form(spans in vec(zipkin_span(), 0..4)) {
        let as_json = serde_json::to_vec(&spans.iter().map(to_json).collect::<Vec<_>>()).unwrap();
        let as_protobuf = ListOfSpans { spans }.encode_to_vec();
        let from_json = decode_zipkin_json(&Bytes::from(as_json), ORIGIN).unwrap();
        let from_protobuf = decode_zipkin_protobuf(&Bytes::from(as_protobuf), ORIGIN).unwrap();
        prop_assert_eq!(&from_protobuf.spans, &from_json.spans);
        prop_assert_eq!(from_protobuf.rejected.total(), from_json.rejected.total());
    }

    #[test]
    fn damaged_lists_never_panic(
        spans in vec(zipkin_span(), 1..4),
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut body = ListOfSpans { spans }.encode_to_vec();
        let at = at.index(body.len());
        body[at] = with;
        let is_valid = ListOfSpans::decode(&body[..]).is_ok();
        prop_assert!(!is_valid || decode_zipkin_protobuf(&Bytes::copy_from_slice(&body), ORIGIN).is_ok());
        body.truncate(keep.index(body.len()));
        drop(decode_zipkin_protobuf(&Bytes::from(body), ORIGIN));
    }
}

fn good_span() -> ZipkinSpan {
    ZipkinSpan { trace_id: vec![1; 16], id: vec![2; 8], timestamp: 5, ..ZipkinSpan::default() }
}

#[track_caller]
fn check_refused(bad: ZipkinSpan, reason: RejectReason) {
    let list = ListOfSpans { spans: vec![good_span(), bad, good_span()] };
    let decoded = decode_zipkin_protobuf(&Bytes::from(list.encode_to_vec()), ORIGIN).unwrap();
    assert_eq!(decoded.spans.len(), 2, "the good spans are kept");
    assert_eq!(decoded.rejected.iter().collect::<Vec<_>>(), vec![(reason, 1)]);
}

#[test]
fn a_bad_span_is_refused_alone() {
    check_refused(ZipkinSpan { trace_id: vec![], ..good_span() }, RejectReason::BadTraceId);
    check_refused(ZipkinSpan { trace_id: vec![1; 17], ..good_span() }, RejectReason::BadTraceId);
    check_refused(ZipkinSpan { id: vec![0; 8], ..good_span() }, RejectReason::BadSpanId);
    check_refused(ZipkinSpan { id: vec![1; 9], ..good_span() }, RejectReason::BadSpanId);
    check_refused(ZipkinSpan { parent_id: vec![1; 9], ..good_span() }, RejectReason::BadSpanId);
    check_refused(ZipkinSpan { timestamp: 0, ..good_span() }, RejectReason::BadTime);
    check_refused(ZipkinSpan { timestamp: u64::MAX, ..good_span() }, RejectReason::BadTime);
}

#[test]
fn what_is_not_a_span_list_is_named() {
    let error = decode_zipkin_protobuf(&Bytes::from_static(b"[{}]"), ORIGIN).unwrap_err();
    assert!(error.message.starts_with("not a Zipkin ListOfSpans in protobuf: "), "{}", error.message);
}
