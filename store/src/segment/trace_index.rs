//! Which rows of a span file belong to a trace.
//!
//! Lies beside the file. The head is held in memory and answers "surely not" for nearly all files;
//! the entries are read a bucket at a time. Traces are known by the low 64 bits of their id, which
//! is what 64-bit and 128-bit senders have in common.
//!
//! # Layout, little-endian
//! ```text
//! head     8  magic "WRTRACE1"
//!          4  entries
//!          4  filter blocks
//!        256 x (4 end of bucket (entry number), 4 crc32c of its entries)
//!     blocks x 32  split-block bloom filter, 12 bits a trace
//!          4  crc32c of the head up to here
//! entries  n x (4 bits 24..56 of the key from the top, 4 first row, 2 rows)
//! ```
//! Entries are sorted by key, bucket = top byte of the key. A trace with more than 65535 rows in
//! sequence, or with rows in several places, has several entries.

use std::ops::Range;
use std::sync::Arc;

use windrose_proto::id::TraceId;

const MAGIC: [u8; 8] = *b"WRTRACE1";
const BUCKETS: usize = 256;
const FIXED_BYTES: usize = 16 + BUCKETS * 8;
const ENTRY_BYTES: usize = 10;
const BLOCK_BYTES: usize = 32;
/// 12 bits a trace let about one absent trace in 250 through, and 100 million spans in 11 million
/// traces cost 17 MB.
const FILTER_BITS_PER_TRACE: usize = 12;

/// Bytes that are not a trace index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("trace index is damaged: {0}")]
pub struct DamagedIndex(&'static str);

/// An encoded index.
#[derive(Clone, Debug)]
pub struct EncodedIndex {
    /// Head and entries.
    pub bytes: Vec<u8>,
    /// Length of the head.
    pub head_bytes: usize,
}

/// The part that is held in memory.
#[derive(Clone, Debug)]
pub struct TraceIndexHead {
    /// End of each bucket and the checksum of its entries.
    buckets: Arc<[(u32, u32)]>,
    filter: Arc<[[u32; 8]]>,
    head_bytes: usize,
}

/// Builds the index of a file from the trace id of each row in order.
#[must_use]
pub(super) fn encode(rows: impl IntoIterator<Item = TraceId>) -> EncodedIndex {
    let runs = runs(rows);
    let mut keys: Vec<u64> = runs.iter().map(|(key, ..)| *key).collect();
    keys.dedup();
    let filter = build_filter(&keys);
    let entries: Vec<[u8; ENTRY_BYTES]> = runs.iter().map(encode_entry).collect();

    let mut bytes = Vec::with_capacity(FIXED_BYTES + filter.len() * BLOCK_BYTES + entries.len() * ENTRY_BYTES + 4);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(filter.len() as u32).to_le_bytes());
    let mut start = 0;
    for bucket in 0..BUCKETS {
        let end = runs.partition_point(|(key, ..)| bucket_of(*key) <= bucket);
        bytes.extend_from_slice(&(end as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(entries[start..end].as_flattened()).to_le_bytes());
        start = end;
    }
    bytes.extend(filter.iter().flatten().flat_map(|word| word.to_le_bytes()));
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    let head_bytes = bytes.len();
    bytes.extend_from_slice(entries.as_flattened());
    EncodedIndex { bytes, head_bytes }
}

/// Runs of rows of one trace as (key, first row, rows), sorted.
fn runs(rows: impl IntoIterator<Item = TraceId>) -> Vec<(u64, u32, u16)> {
    let mut runs: Vec<(u64, u32, u16)> = Vec::new();
    for (row, trace) in rows.into_iter().enumerate() {
        let key = key_of(trace);
        match runs.last_mut() {
            Some((last, _, count)) if *last == key && *count < u16::MAX => *count += 1,
            Some(_) | None => runs.push((key, row as u32, 1)),
        }
    }
    runs.sort_unstable();
    runs
}

fn encode_entry((key, first, rows): &(u64, u32, u16)) -> [u8; ENTRY_BYTES] {
    let mut entry = [0; ENTRY_BYTES];
    entry[..4].copy_from_slice(&short_key(*key).to_le_bytes());
    entry[4..8].copy_from_slice(&first.to_le_bytes());
    entry[8..].copy_from_slice(&rows.to_le_bytes());
    entry
}

impl TraceIndexHead {
    /// Reads the head of an index.
    ///
    /// # Errors
    /// When it is not one, or a checksum is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, DamagedIndex> {
        let fixed = bytes.first_chunk::<FIXED_BYTES>().ok_or(DamagedIndex("too short"))?;
        if fixed[..8] != MAGIC {
            return Err(DamagedIndex("wrong magic"));
        }
        let blocks = word(fixed, 12) as usize;
        let filter_end = FIXED_BYTES + blocks.saturating_mul(BLOCK_BYTES);
        let filter = bytes.get(FIXED_BYTES..filter_end).ok_or(DamagedIndex("filter is cut off"))?;
        let checksum = bytes.get(filter_end..filter_end + 4).ok_or(DamagedIndex("checksum is cut off"))?;
        if word(checksum, 0) != crc32c::crc32c(&bytes[..filter_end]) || blocks == 0 {
            return Err(DamagedIndex("wrong checksum of the head"));
        }
        let buckets = (0..BUCKETS).map(|bucket| (word(fixed, 16 + bucket * 8), word(fixed, 20 + bucket * 8)));
        let block = |bytes: &[u8]| std::array::from_fn(|place| word(bytes, place * 4));
        Ok(Self {
            buckets: buckets.collect(),
            filter: filter.chunks_exact(BLOCK_BYTES).map(block).collect(),
            head_bytes: filter_end + 4,
        })
    }

    /// False when the file surely has no row of `trace`.
    #[must_use]
    pub fn may_contain(&self, trace: TraceId) -> bool {
        let key = key_of(trace);
        let block = &self.filter[block_of(key, self.filter.len())];
        mask_of(key).iter().zip(block).all(|(mask, word)| mask & word != 0)
    }

    /// Bytes of memory it holds.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.buckets.len() * 8 + self.filter.len() * BLOCK_BYTES
    }

    /// Which bytes of the index file list the rows of `trace`.
    #[must_use]
    pub fn bucket_bytes(&self, trace: TraceId) -> Range<u64> {
        let bucket = bucket_of(key_of(trace));
        let start = bucket.checked_sub(1).map_or(0, |before| self.buckets[before].0 as usize);
        let at = |entry: usize| (self.head_bytes + entry * ENTRY_BYTES) as u64;
        at(start)..at(self.buckets[bucket].0 as usize)
    }

    /// The rows that may be of `trace`, ascending, given the bytes of its bucket.
    ///
    /// # Errors
    /// When the checksum is wrong.
    pub fn rows_in_bucket(&self, trace: TraceId, bucket: &[u8]) -> Result<Vec<Range<usize>>, DamagedIndex> {
        let key = key_of(trace);
        if crc32c::crc32c(bucket) != self.buckets[bucket_of(key)].1 {
            return Err(DamagedIndex("wrong checksum of a bucket"));
        }
        let wanted = short_key(key);
        let entries = bucket.as_chunks::<ENTRY_BYTES>().0;
        let first = entries.partition_point(|entry| word(entry, 0) < wanted);
        let mut rows: Vec<Range<usize>> = entries[first..]
            .iter()
            .take_while(|entry| word(*entry, 0) == wanted)
            .map(|entry| {
                let first = word(entry, 4) as usize;
                first..first + usize::from(u16::from_le_bytes([entry[8], entry[9]]))
            })
            .collect();
        rows.sort_unstable_by_key(|range| range.start);
        Ok(rows)
    }
}

/// Trace ids need not be random, so the key is mixed (splitmix64).
fn key_of(trace: TraceId) -> u64 {
    let mut key = trace.low64().wrapping_add(0x9e37_79b9_7f4a_7c15);
    key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}

const fn bucket_of(key: u64) -> usize {
    (key >> 56) as usize
}

/// The 32 bits below the bucket's.
const fn short_key(key: u64) -> u32 {
    (key >> 24) as u32
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

// The filter: one bit in each of the eight words of one block.

fn build_filter(keys: &[u64]) -> Vec<[u32; 8]> {
    let blocks = (keys.len() * FILTER_BITS_PER_TRACE).div_ceil(BLOCK_BYTES * 8).max(1);
    let mut filter = vec![[0; 8]; blocks];
    for key in keys {
        let block = &mut filter[block_of(*key, blocks)];
        for (word, mask) in block.iter_mut().zip(mask_of(*key)) {
            *word |= mask;
        }
    }
    filter
}

/// The high half picks the block.
const fn block_of(key: u64, blocks: usize) -> usize {
    (((key >> 32) * blocks as u64) >> 32) as usize
}

/// The low half picks the bits, by the odd multipliers of Parquet's split-block filter.
fn mask_of(key: u64) -> [u32; 8] {
    const SALT: [u32; 8] =
        [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];
    SALT.map(|salt| 1 << ((key as u32).wrapping_mul(salt) >> 27))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::{DamagedIndex, TraceIndexHead, encode};
    use windrose_proto::id::TraceId;

    fn trace(number: u64) -> TraceId {
        TraceId::new((u128::from(number) + 1).to_be_bytes()).unwrap()
    }

    fn rows_of(bytes: &[u8], head: &TraceIndexHead, id: TraceId) -> Vec<usize> {
        let range = head.bucket_bytes(id);
        let bucket = &bytes[range.start as usize..range.end as usize];
        head.rows_in_bucket(id, bucket).unwrap().into_iter().flatten().collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_row_is_found(ids in vec(0_u64..40, 0..200)) {
            let index = encode(ids.iter().copied().map(trace));
            let head = TraceIndexHead::decode(&index.bytes[..index.head_bytes]).unwrap();
            for id in 0..40 {
                let expect: Vec<usize> = (0..ids.len()).filter(|row| ids[*row] == id).collect();
                prop_assert!(expect.is_empty() || head.may_contain(trace(id)));
                prop_assert_eq!(rows_of(&index.bytes, &head, trace(id)), expect);
            }
        }
    }

    #[test]
    fn a_trace_longer_than_an_entry_is_found_whole() {
        let index = encode((0..200_000).map(|_| trace(1)));
        let head = TraceIndexHead::decode(&index.bytes).unwrap();
        assert_eq!(rows_of(&index.bytes, &head, trace(1)), (0..200_000).collect::<Vec<_>>());
    }

    #[test]
    fn absent_traces_rarely_pass_and_the_filter_is_small() {
        let index = encode((0..20_000).map(trace));
        let head = TraceIndexHead::decode(&index.bytes).unwrap();
        let passed = (20_000..120_000).filter(|id| head.may_contain(trace(*id))).count();
        assert!(passed < 700, "{passed} of 100000 absent traces pass, expected about 400");
        assert!(head.memory_bytes() < 20_000 * 12 / 8 + 2_100);
    }

    #[test]
    fn any_flipped_bit_of_the_head_is_noticed() {
        let index = encode((0..50).map(trace));
        for place in 0..index.head_bytes {
            let mut damaged = index.bytes.clone();
            damaged[place] ^= 0x10;
            assert!(TraceIndexHead::decode(&damaged).is_err(), "byte {place}");
        }
        assert_eq!(TraceIndexHead::decode(&[]).unwrap_err(), DamagedIndex("too short"));
    }

    #[test]
    fn a_flipped_bit_of_the_entries_is_noticed() {
        let mut index = encode((0..50).map(trace));
        let head = TraceIndexHead::decode(&index.bytes).unwrap();
        for byte in &mut index.bytes[index.head_bytes..] {
            *byte ^= 1;
        }
        let range = head.bucket_bytes(trace(3));
        let bucket = &index.bytes[range.start as usize..range.end as usize];
        assert!(head.rows_in_bucket(trace(3), bucket).is_err());
    }
}
