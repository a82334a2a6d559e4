//! Trace indexes: of any bytes, and good ones with damage.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| windrose_fuzz::tables::check_trace_index(input));
