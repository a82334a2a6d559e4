//! Commits of a table log.

#![no_main]

libfuzzer_sys::fuzz_target!(|commit: &[u8]| windrose_fuzz::tables::check_commit(commit));
