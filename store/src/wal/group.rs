//! When a group of waiting records is committed. Pure: values in, decision out.
//!
//! While the disk syncs one group the next one gathers by itself, so under load no waiting is
//! needed. Waiting pays only where several senders take turns: then the group waits until it is as
//! large as the one before, at most for the window. A single sender never waits.

use std::time::Duration;

/// What waits, and what the last group was like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gathering {
    /// Records that wait; at least one.
    pub(crate) records: usize,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// How long the oldest has been waiting.
    pub(crate) oldest_waited: Duration,
    /// Records in the group before.
    pub(crate) previous_records: usize,
}

/// What to do with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Write and sync them now.
    Commit,
    /// See again when more have come, at the latest after this.
    Wait(Duration),
}

/// Decides.
pub(crate) fn decide(gathering: Gathering, window: Duration, max_bytes: u64) -> Decision {
    let enough = gathering.previous_records <= 1
        || gathering.records >= gathering.previous_records
        || gathering.bytes >= max_bytes;
    match window.checked_sub(gathering.oldest_waited) {
        Some(left) if !enough && !left.is_zero() => Decision::Wait(left),
        _ => Decision::Commit,
    }
}
