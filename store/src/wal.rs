//! The write-ahead log, which is also the queue between receiving and processing.
//!
//! An acknowledgement to a proxy means that its bytes are in here and synced. The processing side
//! gets every record in log order, from memory while it keeps up and from the files when it does
//! not, so that overload becomes bytes on disk and memory stays flat.
//!
//! # Invariants
//! 1. A record is acknowledged only after the sync that covers it succeeded (policy `always`), unless
//!    it was appended lazily: then nobody was told anything.
//! 2. After a failed write or sync nothing is ever appended to that segment again, and its records
//!    that were not yet synced are never taken for valid once a later record is acknowledged: the
//!    next segment's header says where the previous one ends.
//! 3. Positions only grow, over restarts too. No number of a segment is used twice.
//! 4. The consumer sees every acknowledged record exactly once, in log order, from the position it
//!    started at.
//! 5. A segment is removed only by [`CommitLog::cut_before`]; [`cut_point`] is the one decision
//!    about where that may be. The newest segment always stays: it anchors the numbering.
//! 6. No length read from disk is believed before its checksum holds and it fits the file.
//!
//! # On disk
//! ```text
//! <dir>/LOCK                               flock; holds the process id
//! <dir>/wal-00000000000000000007.segment   records; the number grows by one per file
//! <dir>/free-00000000000000000003.segment  a cut segment kept to be overwritten, at most two
//! ```
//! The layout of a segment and of a record is in [`frame`].
//!
//! # Life of a segment
//! *created*: a free file is renamed or a new one preallocated, then its header is written and
//! synced, and the directory too → *active*: groups of records are appended, one write and one
//! sync each → *sealed*: full (synced first), or abandoned after an error (cut to its valid end);
//! the end becomes durable as part of the next segment's header → *cut*: every table has committed
//! past it and no open trace needs it: removed, or renamed to be a free file.
//!
//! On start the newest segment is read to its last good record and the file cut there; what
//! follows was never acknowledged and is counted as torn. New records go to a new segment, which
//! is created by the first append.
//!
//! # Cost
//! Bodies of 512 spans, 570 KB as they are or 57 KB compressed, policy `always`, ext4 on a virtual
//! disk, two busy cores (`benches/wal.rs`; CPU is of the whole process, senders included):
//!
//! | body | senders | million spans/s | CPU µs/span | bodies per sync |
//! |---|---|---|---|---|
//! | identity | 1 | 0.14 | 0.68 | 1 |
//! | identity | 8 | 0.36 | 0.46 | 5.6 |
//! | identity | 32 | 0.67 | 0.35 | 6.6, which is 4 MiB |
//! | compressed | 1 | 0.18 | 0.34 | 1 |
//! | compressed | 8 | 2.1 | 0.09 | 8 |
//! | compressed | 32 | 3.4 | 0.08 | 29 |
//!
//! Hence bodies are logged as they came: a compressed one costs a quarter of the CPU and a tenth of
//! the bytes. Reading back runs at 2 to 4 GB/s from the page cache.
//!
//! # Files
//! | file | what |
//! |---|---|
//! | `position` | where a record is |
//! | `record` | what is logged |
//! | `frame` | bytes of headers and records; pure |
//! | `segments` | which segments exist, their ends, the budget, the cut |
//! | `cut` | how far the log may be cut; pure |
//! | `scan` | the records of one segment, damage skipped |
//! | `reader` | records from a position, segment after segment |
//! | `damage` | what could not be read, and why |
//! | `log` | the writer and recovery; one thread owns it |
//! | `group` | when a group is committed; pure |
//! | `commit` | the commit thread, and `append` for everybody |
//! | `handover` | exact hand-over to the consumer, from memory or from the files |
//! | `stats` | counters |

mod commit;
mod cut;
mod damage;
pub mod frame;
mod group;
mod handover;
mod log;
mod position;
mod reader;
mod record;
mod scan;
mod segments;
mod stats;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use commit::{AppendError, CommitLog, Committer};
pub use cut::cut_point;
pub use damage::{Damage, DamageReason};
pub use handover::{Committed, Consumer, Delivery, Received};
pub use log::{Appended, OpenError, Recovery, Wal, WriteError, WriteFailure};
pub use position::WalPosition;
pub use reader::WalReader;
pub use record::{ContentEncoding, Record, RecordKind, StoredRecord};
pub use stats::{FSYNC_BUCKETS_MICROS, WalStats};

/// When bytes are forced to the disk, which is what an acknowledgement is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before each acknowledgement: a power cut loses nothing acknowledged.
    Always,
    /// At this interval: a power cut loses at most what was acknowledged since the last sync; a
    /// killed process loses nothing.
    Interval(Duration),
    /// When the operating system likes, and when a segment is sealed: a power cut may lose up to a
    /// segment; a killed process loses nothing.
    Never,
}

/// Settings of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalConfig {
    /// When acknowledgements are given.
    pub sync: SyncPolicy,
    /// How long what is appended lazily may wait for a sync under the policy `always`.
    pub lazy_sync: Duration,
    /// Length of a segment file; also bounds a single record. Smaller files are cut sooner, larger
    /// ones cost fewer creations.
    pub segment_bytes: u64,
    /// Disk budget: all segment files together. Appends are refused while it is used up.
    pub max_bytes: u64,
    /// What must stay free on the file system, so that sealing, which frees the log, can still
    /// write its files when the disk is nearly full.
    pub keep_free_bytes: u64,
    /// Longest time a record waits for others to share its sync with.
    pub group_window: Duration,
    /// Bytes after which a group is committed at once.
    pub group_max_bytes: u64,
    /// Bytes of records and attachments that may wait for the commit thread; further appends wait.
    pub queue_max_bytes: usize,
    /// Longest time an append waits for room in that queue before it is refused.
    pub queue_wait: Duration,
    /// Bytes of committed records held in memory for the consumer; beyond it the consumer is
    /// lagging and reads from the files.
    pub handover_max_bytes: usize,
    /// What refused senders are told to wait.
    pub retry_after: Duration,
}

impl Default for WalConfig {
    fn default() -> Self {
        Self {
            sync: SyncPolicy::Always,
            // What a power cut may take of what nobody was told of: less than a scrape interval.
            lazy_sync: Duration::from_secs(1),
            // About 0.2 s of input at full speed of one core, 120 bodies of 512 spans.
            segment_bytes: 64 << 20,
            max_bytes: 4 << 30,
            keep_free_bytes: 256 << 20,
            group_window: Duration::from_millis(5),
            // A 4 MiB write and sync takes a few milliseconds on an SSD: larger groups only add
            // latency, no throughput.
            group_max_bytes: 4 << 20,
            queue_max_bytes: 32 << 20,
            // Envoy's exporters give up after 5 s by default; an answer must come before.
            queue_wait: Duration::from_secs(2),
            handover_max_bytes: 64 << 20,
            retry_after: Duration::from_secs(5),
        }
    }
}

/// Largest segment: record headers hold offsets in 32 bits.
pub const SEGMENT_MAX_BYTES: u64 = 1 << 30;

/// Smallest segment; tests use it to rotate often.
pub const SEGMENT_MIN_BYTES: u64 = 1 << 10;

const _: () = assert!(SEGMENT_MAX_BYTES <= u32::MAX as u64, "offsets must fit into 32 bits");

impl WalConfig {
    /// The largest record this configuration can hold, its header included.
    #[must_use]
    pub const fn record_max_bytes(&self) -> u64 {
        self.segment_bytes - frame::SEGMENT_HEADER_BYTES - frame::TERMINATOR_BYTES
    }

    /// What is wrong with these settings, in words for the operator.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), String> {
        if !(SEGMENT_MIN_BYTES..=SEGMENT_MAX_BYTES).contains(&self.segment_bytes) {
            let given = self.segment_bytes;
            return Err(format!("segment_bytes is {given}; use {SEGMENT_MIN_BYTES} to {SEGMENT_MAX_BYTES}"));
        }
        if self.max_bytes < 2 * self.segment_bytes {
            let (max_bytes, segment_bytes) = (self.max_bytes, self.segment_bytes);
            return Err(format!("max_bytes is {max_bytes}; use at least two segments of {segment_bytes} bytes"));
        }
        if self.queue_max_bytes == 0 || self.group_max_bytes == 0 {
            return Err("queue_max_bytes and group_max_bytes must not be 0".to_owned());
        }
        Ok(())
    }
}
