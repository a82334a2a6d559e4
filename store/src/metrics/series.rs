//! The samples of one series in memory: closed chunks, the one being filled, and late samples.
//!
//! Invariants: `open` and the closed chunks that came from it do not overlap; late samples, and the
//! chunks made of them, may overlap anything but hold no time twice that was in memory when they
//! came; chunks of an epoch that is sealed are also in blocks.

use std::sync::Arc;

use super::chunk::{Chunk, OpenChunk, SAMPLES_MAX};

/// Counts seals from 1: what is appended in an epoch becomes a block when the epoch ends.
pub(super) type Epoch = u32;

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Stored,
    /// The same sample is there already.
    Duplicate,
    /// Another value is there for this time, and stays.
    Conflict,
}

/// One series.
#[derive(Debug)]
pub(super) struct MemSeries {
    /// Tells apart series that had the same slot one after the other.
    pub(super) generation: u32,
    /// Epoch whose part of the log defines the series; 0 for none.
    pub(super) defined: Epoch,
    /// Epoch in which somebody last looked it up or appended to it.
    pub(super) touched: Epoch,
    open_epoch: Epoch,
    /// Latest time that was appended in order.
    last_ms: i64,
    open: Option<OpenChunk>,
    closed: Vec<ClosedChunk>,
    late: Option<Box<Late>>,
}

/// A chunk and when it is sealed.
#[derive(Clone, Debug)]
pub(super) struct ClosedChunk {
    pub(super) chunk: Chunk,
    pub(super) epoch: Epoch,
}

/// Samples that came after later ones, sorted by time.
#[derive(Debug)]
struct Late {
    epoch: Epoch,
    samples: Vec<(i64, f64)>,
}

impl MemSeries {
    pub(super) const fn new(generation: u32, epoch: Epoch) -> Self {
        Self {
            generation,
            defined: 0,
            touched: epoch,
            open_epoch: epoch,
            last_ms: i64::MIN,
            open: None,
            closed: Vec::new(),
            late: None,
        }
    }

    /// Appends a sample at any time.
    pub(super) fn append(
        &mut self,
        timestamp_ms: i64,
        value: f64,
        epoch: Epoch,
        share: impl FnOnce(&[u8]) -> Arc<[u8]>,
    ) -> Outcome {
        self.touched = epoch;
        if timestamp_ms > self.last_ms {
            self.last_ms = timestamp_ms;
            match &mut self.open {
                Some(open) if !open.is_full() && self.open_epoch == epoch => open.push(timestamp_ms, value),
                _ => {
                    self.close_open(share);
                    self.open = Some(OpenChunk::new(timestamp_ms, value));
                    self.open_epoch = epoch;
                }
            }
            return Outcome::Stored;
        }
        let known = match &self.open {
            Some(open) if open.last_ms() == timestamp_ms => Some(open.last_value()),
            _ => self.value_at(timestamp_ms),
        };
        match known {
            Some(known) if known.to_bits() == value.to_bits() => Outcome::Duplicate,
            Some(_) => Outcome::Conflict,
            None => {
                self.append_late(timestamp_ms, value, epoch);
                Outcome::Stored
            }
        }
    }

    fn append_late(&mut self, timestamp_ms: i64, value: f64, epoch: Epoch) {
        if self.late.as_ref().is_some_and(|late| late.epoch != epoch || late.samples.len() >= usize::from(SAMPLES_MAX))
        {
            self.close_late();
        }
        let late = self.late.get_or_insert_with(|| Box::new(Late { epoch, samples: Vec::new() }));
        let place = late.samples.partition_point(|(known, _)| *known < timestamp_ms);
        late.samples.insert(place, (timestamp_ms, value));
    }

    /// The value in memory for a time, if there is one.
    fn value_at(&self, timestamp_ms: i64) -> Option<f64> {
        if let Some(late) = &self.late
            && let Ok(place) = late.samples.binary_search_by_key(&timestamp_ms, |(known, _)| *known)
        {
            return Some(late.samples[place].1);
        }
        let is_inside = |first_ms, last_ms| (first_ms..=last_ms).contains(&timestamp_ms);
        let open = self.open.as_ref().filter(|open| is_inside(open.first_ms(), open.last_ms()));
        let closed = self.closed.iter().map(|closed| &closed.chunk);
        let mut inside = closed.filter(|chunk| is_inside(chunk.first_ms, chunk.last_ms)).cloned();
        open.map(OpenChunk::snapshot).into_iter().chain(&mut inside).find_map(|chunk| value_in(&chunk, timestamp_ms))
    }

    fn close_open(&mut self, share: impl FnOnce(&[u8]) -> Arc<[u8]>) {
        if let Some(open) = self.open.take() {
            let closed = ClosedChunk { chunk: open.close(share), epoch: self.open_epoch };
            self.push_closed(closed);
        }
    }

    fn close_late(&mut self) {
        if let Some(late) = self.late.take() {
            let closed = ClosedChunk { chunk: late.to_chunk(), epoch: late.epoch };
            self.push_closed(closed);
        }
    }

    fn push_closed(&mut self, closed: ClosedChunk) {
        // Most series have two or three; doubling would waste as much as they hold.
        if self.closed.len() == self.closed.capacity() {
            self.closed.reserve_exact(1 + self.closed.len() / 4);
        }
        self.closed.push(closed);
    }

    /// Closes what belongs to `epoch` or earlier ones and returns the chunks that are in no block
    /// yet, when all epochs up to `sealed` are.
    pub(super) fn chunks_to_seal(
        &mut self,
        sealed: Epoch,
        epoch: Epoch,
        share: impl FnOnce(&[u8]) -> Arc<[u8]>,
    ) -> impl Iterator<Item = &Chunk> {
        if self.open_epoch <= epoch {
            self.close_open(share);
        }
        if self.late.as_ref().is_some_and(|late| late.epoch <= epoch) {
            self.close_late();
        }
        let is_due = move |closed: &&ClosedChunk| closed.epoch > sealed && closed.epoch <= epoch;
        self.closed.iter().filter(is_due).map(|closed| &closed.chunk)
    }

    /// Drops chunks that are in blocks and older than `keep_from_ms`; returns the latest time
    /// dropped.
    pub(super) fn drop_sealed(&mut self, sealed: Epoch, keep_from_ms: i64) -> Option<i64> {
        let mut dropped = None;
        self.closed.retain(|closed| {
            let keep = closed.epoch > sealed || closed.chunk.last_ms >= keep_from_ms;
            if !keep {
                dropped = dropped.max(Some(closed.chunk.last_ms));
            }
            keep
        });
        self.closed.shrink_to_fit();
        dropped
    }

    /// Whether nothing of it is in memory.
    pub(super) const fn is_empty(&self) -> bool {
        self.open.is_none() && self.closed.is_empty() && self.late.is_none()
    }

    /// Copies of the chunks that may have samples in `[min_ms, max_ms]`.
    pub(super) fn chunks(&self, min_ms: i64, max_ms: i64) -> impl Iterator<Item = Chunk> {
        let closed = self.closed.iter().map(|closed| &closed.chunk);
        let closed = closed.filter(move |chunk| chunk.overlaps(min_ms, max_ms)).cloned();
        let open = self.open.iter().filter(move |open| open.first_ms() <= max_ms && open.last_ms() >= min_ms);
        let late = self.late.iter().map(|late| late.to_chunk()).filter(move |chunk| chunk.overlaps(min_ms, max_ms));
        closed.chain(open.map(OpenChunk::snapshot)).chain(late)
    }

    /// Whether a sample may lie in `[min_ms, max_ms]`.
    pub(super) fn overlaps(&self, min_ms: i64, max_ms: i64) -> bool {
        let late = || self.late.as_ref().is_some_and(|late| late.overlaps(min_ms, max_ms));
        self.open.as_ref().is_some_and(|open| open.first_ms() <= max_ms && open.last_ms() >= min_ms)
            || self.closed.iter().any(|closed| closed.chunk.overlaps(min_ms, max_ms))
            || late()
    }

    /// Chunks in memory.
    pub(super) fn chunk_count(&self) -> usize {
        self.closed.len() + usize::from(self.open.is_some()) + usize::from(self.late.is_some())
    }

    /// Memory, that of the struct included.
    pub(super) fn bytes(&self) -> usize {
        let closed: usize = self.closed.iter().map(|closed| closed.chunk.heap_bytes()).sum();
        let late = self.late.as_ref().map_or(0, |late| size_of::<Late>() + late.samples.capacity() * 16);
        size_of::<Self>()
            + self.closed.capacity() * size_of::<ClosedChunk>()
            + closed
            + self.open.as_ref().map_or(0, OpenChunk::heap_bytes)
            + late
    }
}

impl Late {
    fn to_chunk(&self) -> Chunk {
        let (first, rest) = self.samples.split_first().expect("a sample is inserted when the buffer is made");
        let mut open = OpenChunk::new(first.0, first.1);
        rest.iter().for_each(|(timestamp_ms, value)| open.push(*timestamp_ms, *value));
        open.close(|bytes| bytes.into())
    }

    fn overlaps(&self, min_ms: i64, max_ms: i64) -> bool {
        let (first, last) = (self.samples.first(), self.samples.last());
        first.is_some_and(|first| first.0 <= max_ms) && last.is_some_and(|last| last.0 >= min_ms)
    }
}

fn value_in(chunk: &Chunk, timestamp_ms: i64) -> Option<f64> {
    let mut timestamps = Vec::with_capacity(chunk.count());
    chunk.decode_times(&mut timestamps);
    let place = timestamps.binary_search(&timestamp_ms).ok()?;
    let mut values = Vec::with_capacity(chunk.count());
    chunk.decode(&mut Vec::new(), &mut values);
    values.get(place).copied()
}
