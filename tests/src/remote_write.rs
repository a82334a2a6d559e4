//! Prometheus remote write 1.0, as a sender speaks it.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use windrose_proto::time::UnixNanos;

use crate::client::Http;

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// Longest literal of a snappy block that is written with a length of two bytes.
const LITERAL_MAX_BYTES: usize = 1 << 16;

/// Counters that grow by one a millisecond, one of each writer.
#[derive(Clone, Debug)]
pub struct Counter {
    writer: usize,
    first: UnixNanos,
    /// Samples acknowledged, hence the value of the last one.
    pub acknowledged: u64,
}

impl Counter {
    /// A counter that starts at `first`.
    #[must_use]
    pub const fn new(writer: usize, first: UnixNanos) -> Self {
        Self { writer, first, acknowledged: 0 }
    }

    /// The query for all of its samples.
    #[must_use]
    pub fn selector(&self) -> String {
        format!("acknowledged_total{{writer=\"{}\"}}", self.writer)
    }

    /// Sends the next samples; whether they were acknowledged.
    ///
    /// # Panics
    /// When they are refused.
    pub async fn send(&mut self, http: &Http, samples: u64) -> bool {
        let label = |name: &str, value: String| Label { name: name.to_owned(), value };
        let labels = vec![label("__name__", "acknowledged_total".to_owned()), label("writer", self.writer.to_string())];
        let sample = |number: u64| {
            let at = self.first.plus(Duration::from_millis(number));
            Sample { value: number as f64, timestamp: at.as_millis() as i64 }
        };
        let samples = (self.acknowledged + 1..=self.acknowledged + samples).map(sample).collect::<Vec<_>>();
        let last = self.acknowledged + samples.len() as u64;
        let body = block(&WriteRequest { timeseries: vec![TimeSeries { labels, samples }] }.encode_to_vec());
        let headers = [("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];
        let Ok(answer) = http.try_post("/api/v1/write", &headers, body).await else { return false };
        assert_eq!(answer.status, 204, "{}", answer.text());
        self.acknowledged = last;
        true
    }
}

/// A snappy block without anything repeated.
fn block(content: &[u8]) -> Bytes {
    let mut block = Vec::with_capacity(content.len() + 16);
    prost::encoding::encode_varint(content.len() as u64, &mut block);
    for literal in content.chunks(LITERAL_MAX_BYTES) {
        block.push(61 << 2);
        block.extend((literal.len() as u16).wrapping_sub(1).to_le_bytes());
        block.extend_from_slice(literal);
    }
    block.into()
}
