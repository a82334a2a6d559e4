//! Content codings: the first byte chooses one.

#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| windrose_fuzz::spans::check_compressed(body));
