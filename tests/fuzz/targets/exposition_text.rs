//! Prometheus' text format, with the leniencies proxies need.

#![no_main]

libfuzzer_sys::fuzz_target!(|page: &[u8]| windrose_fuzz::pages::check_text(page));
