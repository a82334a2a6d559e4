//! Exposition in protobuf.

#![no_main]

libfuzzer_sys::fuzz_target!(|page: &[u8]| windrose_fuzz::pages::check_protobuf(page));
