//! Every limit on input, in one place, each with the reason for its value.

/// Largest request body as it comes over the wire, before decompression. OTLP exporters send
/// batches of at most a few MiB; 16 MiB leaves room for badly tuned ones.
pub const BODY_MAX_BYTES: usize = 16 << 20;

/// Largest body after decompression: a bomb costs at most this much memory per request.
pub const DECOMPRESSED_MAX_BYTES: usize = 64 << 20;

/// Most spans in one request; a 64 MiB body of minimal spans would hold about 2 million.
pub const SPANS_PER_REQUEST_MAX: usize = 1_000_000;

/// Most samples in one request with metrics, 96 MB of memory. A 64 MiB body of remote write holds about as
/// many; a bucket of OTLP/JSON may take four bytes, so there the body's limit does not bound them.
pub const SAMPLES_PER_REQUEST_MAX: usize = 4_000_000;

/// Memory the decoded spans of one request may take beside the body they share: an Envoy span of
/// 1.1 KiB takes 2.5 KiB decoded, so a full body of real spans fits with room to spare.
pub const DECODED_MAX_BYTES: usize = 256 << 20;

/// Most attributes kept of one span; the rest is counted as dropped. The SDK default is 128.
pub const ATTRIBUTES_PER_SPAN_MAX: usize = 1024;

/// Most events kept of one span; the rest is counted as dropped. The SDK default is 128.
pub const EVENTS_PER_SPAN_MAX: usize = 1024;

/// Most links kept of one span; the rest is counted as dropped. The SDK default is 128.
pub const LINKS_PER_SPAN_MAX: usize = 1024;

/// Longest attribute value kept; longer ones are cut at a character boundary.
pub const ATTRIBUTE_VALUE_MAX_BYTES: usize = 64 << 10;

/// Deepest nesting of arrays and maps in attribute values: hostile input must not exhaust the stack.
pub const VALUE_DEPTH_MAX: usize = 16;

/// Longest span or scope name kept.
pub const NAME_MAX_BYTES: usize = 4 << 10;

/// Spans of one trace the join looks at; a trace beyond it is cut and says so.
pub const SPANS_PER_TRACE_MAX: usize = 50_000;

/// Longest chain of parents followed before it is taken for a cycle.
pub const PARENT_DEPTH_MAX: usize = 4_096;

/// How far in the future a span may end: clocks drift, but a span from next week is a wrong clock.
pub const FUTURE_MAX_SECS: u64 = 24 * 3600;

const _: () = assert!(BODY_MAX_BYTES <= DECOMPRESSED_MAX_BYTES, "an uncompressed body must be acceptable");
const _: () = assert!(DECOMPRESSED_MAX_BYTES < DECODED_MAX_BYTES, "real spans must fit when decoded");
const _: () = assert!(ATTRIBUTE_VALUE_MAX_BYTES < BODY_MAX_BYTES, "a value must fit into a body");
