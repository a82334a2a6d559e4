//! PromQL.

#![no_main]

libfuzzer_sys::fuzz_target!(|query: &str| windrose_fuzz::queries::check(query));
