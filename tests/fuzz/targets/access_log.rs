//! Lines of access logs.

#![no_main]

libfuzzer_sys::fuzz_target!(|line: &str| windrose_fuzz::spans::check_access_log_line(line));
