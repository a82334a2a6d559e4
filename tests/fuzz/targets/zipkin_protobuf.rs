//! Zipkin v2 in protobuf.

#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| windrose_fuzz::spans::check_zipkin_protobuf(body));
