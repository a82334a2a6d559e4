//! SkyWalking segments in JSON.

#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| windrose_fuzz::spans::check_skywalking_json(body));
