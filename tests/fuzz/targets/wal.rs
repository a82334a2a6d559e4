//! The write-ahead log: segments of any bytes, and good segments with damage.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| windrose_fuzz::log::check(input));
