use super::{SpanId, TraceId};

#[track_caller]
fn check_trace(text: &str, expect: Option<&str>) {
    assert_eq!(TraceId::parse(text).map(|id| id.to_string()).as_deref(), expect, "trace id {text:?}");
}

#[track_caller]
fn check_span(text: &str, expect: Option<&str>) {
    assert_eq!(SpanId::parse(text).map(|id| id.to_string()).as_deref(), expect, "span id {text:?}");
}

#[test]
fn id1_hexadecimal_of_the_right_length() {
    check_trace("0BDC67F287D55CE3FE6EFE738B3C534E", Some("0bdc67f287d55ce3fe6efe738b3c534e"));
    check_span("00f067aa0ba902b7", Some("00f067aa0ba902b7"));
}

#[test]
fn id2_short_hexadecimal_is_padded() {
    check_trace("fe6efe738b3c534e", Some("0000000000000000fe6efe738b3c534e"));
    check_span("1", Some("0000000000000001"));
}

#[test]
fn id3_base64_of_non_conforming_senders() {
    check_trace("C9xn8ofVXOP+bv5zizxTTg==", Some("0bdc67f287d55ce3fe6efe738b3c534e"));
    check_span("APBnqgupArc=", Some("00f067aa0ba902b7"));
}

#[test]
fn id4_xray_and_id5_absent() {
    check_trace("1-58406520-a006649127e371903a2de979", Some("58406520a006649127e371903a2de979"));
    check_trace("00000000000000000000000000000000", None);
    check_trace("", None);
    check_span("0000000000000000", None);
}

#[test]
fn unreadable_is_absent() {
    check_trace("not an id", None);
    check_trace("0bdc67f287d55ce3fe6efe738b3c534e0bdc67f287d55ce3", None);
    check_span("zz", None);
    check_span("é", None);
}
