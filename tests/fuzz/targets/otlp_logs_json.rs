//! Access logs in OTLP's JSON.

#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| windrose_fuzz::spans::check_otlp_logs_json(body));
