//! Access logs in OTLP's protobuf, beside the reference implementation.

#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| windrose_fuzz::spans::check_otlp_logs_protobuf(body));
