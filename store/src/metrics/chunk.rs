//! Samples of one series, compressed: an [`OpenChunk`] grows, a [`Chunk`] never changes again.
//!
//! Times of scraped series are regular: a first time, a step and a count say them all. When a
//! scrape was late or left out, the times become a stream of their own, which chunks of series that
//! were scraped together share once they are closed.
//!
//! Values are differences of integers. Proxies mostly count, so a value is stored as the integer
//! `value * 10^exponent`, with the smallest exponent that gives every value of the chunk back bit
//! for bit; what is no short decimal number is either a raw exception or, when these are many,
//! makes the chunk one of XORed floats. The tokens of both streams are in [`super::tokens`].
//!
//! # Cost
//! An idle series costs two bytes per 255 samples, a counter that grows by up to 61 between scrapes
//! one byte a sample, by up to 8 000 two. Decoding is to stay below 2 ns a sample; `benches/metrics.rs`
//! says what it takes.
//!
//! Invariants: times grow strictly within a chunk; decoding gives back exactly the bits that were
//! appended; a chunk has 1 to [`SAMPLES_MAX`] samples.

#[cfg(test)]
mod tests;
mod values;

use std::sync::Arc;

pub(super) use self::values::{EXPONENT_MAX, POWERS, to_integer};

use self::values::ValueStream;
use super::tokens::{self, Reader};

/// Samples in a chunk: an hour at 15 s. Longer ones save little and make a query for the last five
/// minutes decode more.
pub(super) const SAMPLES_MAX: u16 = 240;

/// Room the streams grow by: a chunk of a busy counter grows to 240 bytes, and doubling would
/// waste a quarter of all memory of the head.
const GROWTH_BYTES: usize = 24;

/// The chunk that is being filled.
#[derive(Clone, Debug)]
pub(super) struct OpenChunk {
    first_ms: i64,
    last_ms: i64,
    /// Difference of the last two times.
    step_ms: i64,
    /// Once times are no longer regular.
    times: Option<Box<TimeStream>>,
    values: ValueStream,
    count: u16,
}

/// Steps between times, as differences of one to the one before; before the first is 0.
#[derive(Clone, Debug, Default)]
struct TimeStream {
    bytes: Vec<u8>,
    run: u8,
}

/// Samples that do not change any more.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) first_ms: i64,
    pub(super) last_ms: i64,
    /// All steps, when they are not all the same. Shared with other series.
    times: Option<Arc<[u8]>>,
    values: Arc<[u8]>,
    mode: values::Mode,
    count: u16,
}

impl OpenChunk {
    pub(super) fn new(timestamp_ms: i64, value: f64) -> Self {
        let values = ValueStream::new(value);
        Self { first_ms: timestamp_ms, last_ms: timestamp_ms, step_ms: 0, times: None, values, count: 1 }
    }

    pub(super) const fn first_ms(&self) -> i64 {
        self.first_ms
    }

    pub(super) const fn last_ms(&self) -> i64 {
        self.last_ms
    }

    pub(super) const fn is_full(&self) -> bool {
        self.count == SAMPLES_MAX
    }

    pub(super) fn last_value(&self) -> f64 {
        self.values.last()
    }

    /// Appends a sample later than all before to a chunk that is not full.
    pub(super) fn push(&mut self, timestamp_ms: i64, value: f64) {
        debug_assert!(timestamp_ms > self.last_ms && !self.is_full(), "times grow, chunks are bounded");
        let step_ms = timestamp_ms - self.last_ms;
        if let Some(times) = &mut self.times {
            times.push(step_ms - self.step_ms);
        } else if self.count > 1 && step_ms != self.step_ms {
            let mut times = TimeStream::default();
            times.push(self.step_ms);
            (2..self.count).for_each(|_| times.push(0));
            times.push(step_ms - self.step_ms);
            self.times = Some(Box::new(times));
        }
        self.step_ms = step_ms;
        self.last_ms = timestamp_ms;
        self.count += 1;
        self.values.push(value, self.count);
    }

    /// Ends the chunk. `share` returns an equal time stream that is already there, or keeps this one.
    pub(super) fn close(mut self, share: impl FnOnce(&[u8]) -> Arc<[u8]>) -> Chunk {
        self.values.shrink(self.count);
        Chunk {
            first_ms: self.first_ms,
            last_ms: self.last_ms,
            times: self.times.map(|times| share(&times.bytes)),
            values: self.values.bytes().into(),
            mode: self.values.mode(),
            count: self.count,
        }
    }

    /// A copy of what is there now.
    pub(super) fn snapshot(&self) -> Chunk {
        Chunk {
            first_ms: self.first_ms,
            last_ms: self.last_ms,
            times: self.times.as_ref().map(|times| times.bytes.as_slice().into()),
            values: self.values.bytes().into(),
            mode: self.values.mode(),
            count: self.count,
        }
    }

    /// Memory beyond the struct itself.
    pub(super) fn heap_bytes(&self) -> usize {
        let times = self.times.as_ref().map_or(0, |times| size_of::<TimeStream>() + times.bytes.capacity());
        self.values.capacity() + times
    }
}

impl TimeStream {
    fn push(&mut self, difference: i64) {
        push_difference(&mut self.bytes, &mut self.run, difference);
    }
}

impl Chunk {
    /// The chunk of at least one sample and at most [`SAMPLES_MAX`], times growing.
    pub(super) fn new(timestamps: &[i64], values: &[f64]) -> Self {
        let mut open = OpenChunk::new(timestamps[0], values[0]);
        for (timestamp_ms, value) in timestamps.iter().zip(values).skip(1) {
            open.push(*timestamp_ms, *value);
        }
        open.close(|bytes| bytes.into())
    }

    pub(super) const fn count(&self) -> usize {
        self.count as usize
    }

    /// Whether a sample may lie in `[min_ms, max_ms]`.
    pub(super) const fn overlaps(&self, min_ms: i64, max_ms: i64) -> bool {
        self.first_ms <= max_ms && self.last_ms >= min_ms
    }

    /// Memory beyond the struct itself; a shared time stream is not counted.
    pub(super) fn heap_bytes(&self) -> usize {
        self.values.len() + 2 * size_of::<usize>()
    }

    /// Appends all times and values.
    pub(super) fn decode(&self, timestamps: &mut Vec<i64>, values: &mut Vec<f64>) {
        self.decode_times(timestamps);
        values::decode(self.mode, &self.values, self.count(), values);
    }

    pub(super) fn decode_times(&self, timestamps: &mut Vec<i64>) {
        let Some(times) = &self.times else {
            let steps = (self.count() as i64 - 1).max(1);
            let step_ms = (self.last_ms - self.first_ms) / steps;
            timestamps.extend((0..self.count() as i64).map(|index| self.first_ms + index * step_ms));
            return;
        };
        let end = timestamps.len() + self.count();
        let (mut at, mut step_ms) = (self.first_ms, 0_i64);
        timestamps.push(at);
        let mut reader = Reader::new(times);
        while timestamps.len() < end {
            let Some(token) = reader.varint() else { break };
            if token == tokens::RUN {
                let run = usize::from(reader.byte().unwrap_or(0)).min(end - timestamps.len());
                timestamps.extend((0..run).map(|_| {
                    at += step_ms;
                    at
                }));
                continue;
            }
            step_ms += tokens::difference(token);
            at += step_ms;
            timestamps.push(at);
        }
        debug_assert_eq!(timestamps.len(), end, "a chunk holds what was appended");
    }
}

/// Decodes chunks, in the order in which they were stored, into samples with strictly growing
/// times. Of samples of the same time the one stored first stays.
pub(super) fn decode_all(chunks: &[Chunk], timestamps: &mut Vec<i64>, values: &mut Vec<f64>) {
    let mut by_time: Vec<&Chunk> = chunks.iter().collect();
    by_time.sort_by_key(|chunk| chunk.first_ms);
    if by_time.windows(2).all(|pair| pair[0].last_ms < pair[1].first_ms) {
        by_time.into_iter().for_each(|chunk| chunk.decode(timestamps, values));
        return;
    }
    chunks.iter().for_each(|chunk| chunk.decode(timestamps, values));
    let mut samples: Vec<(i64, f64)> = timestamps.drain(..).zip(values.drain(..)).collect();
    // A stable sort: what was stored first comes first.
    samples.sort_by_key(|(timestamp, _)| *timestamp);
    samples.dedup_by_key(|(timestamp, _)| *timestamp);
    timestamps.extend(samples.iter().map(|(timestamp, _)| *timestamp));
    values.extend(samples.iter().map(|(_, value)| *value));
}

/// Appends a difference to a stream whose last token is a run of length `run`, or none when 0.
fn push_difference(bytes: &mut Vec<u8>, run: &mut u8, difference: i64) {
    make_room(bytes);
    if difference != 0 {
        *run = 0;
        tokens::put_difference(bytes, difference);
    } else if *run == 0 || *run == u8::MAX {
        *run = 1;
        bytes.extend([tokens::RUN as u8, 1]);
    } else if let Some(length) = bytes.last_mut() {
        *run += 1;
        *length = *run;
    }
}

fn make_room(bytes: &mut Vec<u8>) {
    // The longest token is ten bytes.
    if bytes.capacity() - bytes.len() < 10 {
        bytes.reserve_exact(GROWTH_BYTES);
    }
}
