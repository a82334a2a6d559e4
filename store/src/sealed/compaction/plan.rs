//! Which files to rewrite as one: pure, files and a time in, groups out.
//!
//! A file belongs to the hour in which its newest rows were sealed.
//!
//! | when | what is merged |
//! |---|---|
//! | the hour goes on | files of one size, as soon as there are [`CompactionPolicy::files_min`] of them |
//! | the hour is over | all files of the hour |
//! | the day is over | all files of the partition |
//! | rows of `edges` are old enough | the files they are in, with wider windows |
//!
//! So a row is rewritten about twice, whatever the cadence of seals: with its hour and with its day.
//!
//! Invariants: a group lies in one partition (tenant and date) and, rollups apart, holds two files or
//! more; a file is in one group at most; windows only get wider. Every group therefore leaves fewer
//! files or wider windows behind, and planning comes to an end.

use std::collections::BTreeMap;
use std::time::Duration;

use windrose_proto::edge::SEALED_WINDOW_NANOS;
use windrose_proto::time::UnixNanos;

use super::super::layout::date_of;
use crate::tables::Table;

/// When files are rewritten, and how wide the windows of old rollup rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionPolicy {
    /// Groups are filled up to this; it also bounds the memory of a merge, which holds its input and
    /// its output. Files of half of it and more are left alone.
    pub target_bytes: u64,
    /// Files of one size that are merged before their hour is over.
    pub files_min: usize,
    /// Age from which rows of `edges` are kept by the hour.
    pub hours_after: Duration,
    /// Age from which rows of `edges` are kept by the day.
    pub days_after: Duration,
}

impl Default for CompactionPolicy {
    /// 64 MiB hold about 1.7 million spans. A graph of 1200 edges has 1.7 million rows a day by the
    /// minute: two days of them are for looking closely at what just happened; an hour's resolution
    /// for another two weeks lets one week be compared with the next.
    fn default() -> Self {
        Self {
            target_bytes: 64 << 20,
            files_min: 16,
            hours_after: Duration::from_secs(2 * 24 * 3600),
            days_after: Duration::from_secs(14 * 24 * 3600),
        }
    }
}

/// How long after its end an hour or a day is over: seals under way then have come through.
const GRACE: Duration = Duration::from_secs(10 * 60);

/// Files of one group: each is open while it is merged.
const GROUP_FILES_MAX: usize = 64;

const HOUR_MILLIS: i64 = 3_600_000;
const HOUR_NANOS: u64 = 3_600_000_000_000;
const DAY_NANOS: u64 = 24 * HOUR_NANOS;

/// Smallest tier of an open hour: below this all sizes are alike.
const SMALLEST_TIER_BYTES: u64 = 64 << 10;

/// Factor between tiers.
const TIER_FACTOR: u64 = 8;

/// A file that might be rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) tenant: String,
    /// Of its partition, `YYYY-MM-DD`.
    pub(super) date: String,
    pub(super) path: String,
    pub(super) bytes: u64,
    /// When its newest rows were sealed.
    pub(super) sealed_millis: i64,
    /// Narrowest window of its rows; only of `edges`.
    pub(super) window_nanos: Option<u64>,
}

/// Files that become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Places in the list of candidates, oldest first.
    pub(super) files: Vec<usize>,
    /// Rows of `edges` are added up over at least this.
    pub(super) window_nanos: u64,
}

/// What is merged with what: groups never mix buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bucket {
    /// The whole partition, rows of `edges` by this window.
    Day {
        window_nanos: u64,
    },
    Hour(i64),
    OpenHour {
        tier: u32,
    },
}

/// Groups to rewrite, each as one file.
pub(super) fn plan(table: Table, files: &[Candidate], now: UnixNanos, policy: &CompactionPolicy) -> Vec<Group> {
    let mut buckets: BTreeMap<(&str, &str, Bucket), Vec<usize>> = BTreeMap::new();
    for (place, file) in files.iter().enumerate() {
        let bucket = bucket_of(table, file, now, policy);
        if file.bytes < policy.target_bytes / 2 || is_to_be_widened(file, bucket) {
            buckets.entry((&file.tenant, &file.date, bucket)).or_default().push(place);
        }
    }
    let mut groups = Vec::new();
    for ((.., bucket), mut places) in buckets {
        places.sort_by_key(|place| (files[*place].sealed_millis, &files[*place].path));
        fill(files, &places, bucket, policy, &mut groups);
    }
    groups
}

fn bucket_of(table: Table, file: &Candidate, now: UnixNanos, policy: &CompactionPolicy) -> Bucket {
    let settled = now.minus(GRACE);
    if file.date < date_of(settled) {
        let window_nanos = if table == Table::Edges { window_at(file.sealed_millis, now, policy) } else { 0 };
        return Bucket::Day { window_nanos };
    }
    let hour = file.sealed_millis.div_euclid(HOUR_MILLIS);
    if (hour + 1) * HOUR_MILLIS <= settled.as_millis() as i64 {
        Bucket::Hour(hour)
    } else {
        Bucket::OpenHour { tier: (file.bytes / SMALLEST_TIER_BYTES).max(1).ilog(TIER_FACTOR) }
    }
}

/// How wide the windows of rows should be that were sealed then.
fn window_at(sealed_millis: i64, now: UnixNanos, policy: &CompactionPolicy) -> u64 {
    let is_older = |age: Duration| sealed_millis <= now.minus(age).as_millis() as i64;
    if is_older(policy.days_after) {
        DAY_NANOS
    } else if is_older(policy.hours_after) {
        HOUR_NANOS
    } else {
        SEALED_WINDOW_NANOS
    }
}

fn is_to_be_widened(file: &Candidate, bucket: Bucket) -> bool {
    match bucket {
        Bucket::Day { window_nanos } => file.window_nanos.is_some_and(|window| window < window_nanos),
        Bucket::Hour(_) | Bucket::OpenHour { .. } => false,
    }
}

/// Cuts the files of one bucket into groups.
fn fill(files: &[Candidate], places: &[usize], bucket: Bucket, policy: &CompactionPolicy, groups: &mut Vec<Group>) {
    let (files_min, window_nanos) = match bucket {
        Bucket::Day { window_nanos } => (2, window_nanos),
        Bucket::Hour(_) => (2, SEALED_WINDOW_NANOS),
        Bucket::OpenHour { .. } => (policy.files_min.max(2), SEALED_WINDOW_NANOS),
    };
    let mut finish = |group: Vec<usize>, files_min: usize| {
        let widens = group.iter().any(|place| is_to_be_widened(&files[*place], bucket));
        if group.len() >= files_min || (widens && !group.is_empty()) {
            groups.push(Group { files: group, window_nanos });
        }
    };
    let mut group: Vec<usize> = Vec::new();
    let mut bytes = 0_u64;
    for place in places {
        let size = files[*place].bytes;
        if bytes.saturating_add(size) > policy.target_bytes || group.len() == GROUP_FILES_MAX {
            // A full group waits for nothing more.
            finish(std::mem::take(&mut group), 2);
            bytes = 0;
        }
        group.push(*place);
        bytes = bytes.saturating_add(size);
    }
    finish(group, files_min);
}

#[cfg(test)]
mod tests;
