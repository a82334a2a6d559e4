//! Recorded spans of real Envoys as request bodies that can be sent again and again under new trace ids.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;

use crate::capture::{Capture, Message};
use crate::places;
use crate::replay::{Plan, shift_to_now};

/// Where a body goes, over gRPC.
pub const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A request whose traces can be made new in place.
#[derive(Debug)]
pub struct Batch {
    pub body: Vec<u8>,
    pub spans: u64,
    /// Where the trace ids stand in the body.
    ids: Vec<usize>,
}

impl Batch {
    fn new(request: &ExportTraceServiceRequest) -> Self {
        let body = request.encode_to_vec();
        let spans =
            request.resource_spans.iter().flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans);
        let mut ids: Vec<usize> = Vec::new();
        let mut count = 0;
        for span in spans {
            count += 1;
            // Field 1, 16 bytes: a span begins with its trace id.
            let needle = [&[0x0a, 16], span.trace_id.as_slice()].concat();
            let places = body.windows(needle.len()).enumerate().filter(|(_, window)| *window == needle);
            ids.extend(places.map(|(place, _)| place + 2));
        }
        ids.sort_unstable();
        ids.dedup();
        Self { body, spans: count, ids }
    }

    /// The body with other trace ids for every round.
    #[must_use]
    pub fn body(&self, round: u64) -> Bytes {
        let mut body = self.body.clone();
        for place in &self.ids {
            // The half that ids of 64 bits have too: two ids are of one trace when it is the same.
            for (byte, mask) in body[*place + 8..].iter_mut().zip(round.to_le_bytes()) {
                *byte ^= mask;
            }
        }
        body.into()
    }
}

/// The recorded spans in requests of about `size` spans.
///
/// # Panics
/// When the recording cannot be read.
#[must_use]
pub fn batches(size: usize) -> Vec<Batch> {
    let capture = Capture::load(&places::capture("full"));
    let mut batches = Vec::new();
    let mut open = ExportTraceServiceRequest::default();
    let mut spans = 0;
    for message in Plan::new(&capture, shift_to_now(&capture)).into_messages() {
        let Message::Otlp(request) = message else { continue };
        spans += request.resource_spans.iter().flat_map(|r| &r.scope_spans).map(|s| s.spans.len()).sum::<usize>();
        open.resource_spans.extend(request.resource_spans);
        if spans >= size {
            batches.push(Batch::new(&std::mem::take(&mut open)));
            spans = 0;
        }
    }
    batches
}
