//! OTLP `ExportMetricsServiceRequest` in JSON.

#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| windrose_fuzz::metrics::check_otlp_json(body));
