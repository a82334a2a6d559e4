//! Retention: which files have been kept long enough, and taking them out of their tables.
//!
//! Age counts from when rows were sealed, not from the times in them: senders with wrong clocks must
//! neither keep rows for ever nor lose them at once. Whole files go, so a row may stay until the
//! newest row of its file is old enough: a day at most, because files hold one day.

use std::collections::BTreeMap;
use std::time::Duration;

use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;

use super::compaction::remove;
use super::layout;
use super::{SealError, Sealed};
use crate::table_log::{Action, Add};
use crate::tables::Table;

/// How long and how much is kept. The default keeps everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    pub max_age: Option<Duration>,
    /// Of one tenant in one table, compressed; the oldest files go first.
    pub max_bytes: Option<u64>,
}

/// Retention by table and tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// Tables that are not named keep everything.
    pub tables: BTreeMap<Table, Retention>,
    /// What holds for single tenants instead.
    pub tenants: BTreeMap<(TenantId, Table), Retention>,
}

impl RetentionPolicy {
    fn of(&self, tenant: &TenantId, table: Table) -> Retention {
        let special = self.tenants.get(&(tenant.clone(), table));
        special.or_else(|| self.tables.get(&table)).copied().unwrap_or_default()
    }
}

/// What a round of retention did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpiryReport {
    pub files: u64,
    pub bytes: u64,
}

/// A file of one tenant in one table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    sealed_millis: i64,
    bytes: u64,
    path: String,
}

/// Which files are not to be kept, oldest first.
fn expired(mut files: Vec<Kept>, retention: Retention, now: UnixNanos) -> Vec<Kept> {
    files.sort_by(|a, b| (a.sealed_millis, &a.path).cmp(&(b.sealed_millis, &b.path)));
    let before = retention.max_age.map(|age| now.minus(age).as_millis() as i64);
    let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let is_gone = |file: &Kept| {
        let is_old = before.is_some_and(|before| file.sealed_millis < before);
        let is_too_much = retention.max_bytes.is_some_and(|max_bytes| bytes > max_bytes);
        // What comes after a file that stays is younger and stays too.
        bytes -= file.bytes;
        is_old || is_too_much
    };
    files.into_iter().take_while(is_gone).collect()
}

impl Sealed {
    /// Takes files out of the tables that need not be kept any longer. Readers of older catalogs
    /// still have them until [`Sealed::vacuum`].
    ///
    /// # Errors
    /// When the object store fails.
    pub async fn expire(&self, policy: &RetentionPolicy, now: UnixNanos) -> Result<ExpiryReport, SealError> {
        let mut report = ExpiryReport::default();
        for table in Table::ALL {
            let adds = self.files(table).await;
            let mut tenants: BTreeMap<TenantId, Vec<Kept>> = BTreeMap::new();
            for add in &adds {
                let Some(tenant) = layout::tenant(add) else { continue };
                tenants.entry(tenant).or_default().push(Kept {
                    sealed_millis: add.modification_time,
                    bytes: add.size.unsigned_abs(),
                    path: add.path.clone(),
                });
            }
            let mut gone: BTreeMap<String, u64> = BTreeMap::new();
            for (tenant, files) in tenants {
                let files = expired(files, policy.of(&tenant, table), now);
                gone.extend(files.into_iter().map(|file| (file.path, file.bytes)));
            }
            let is_gone = |add: &&Add| gone.contains_key(&add.path);
            let removes: Vec<Action> =
                adds.iter().filter(is_gone).map(|add| Action::Remove(remove(add, true, now))).collect();
            if !removes.is_empty() && self.commit_change(table, "DELETE", removes, now, BTreeMap::new()).await? {
                report.files += gone.len() as u64;
                report.bytes += gone.values().sum::<u64>();
            }
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use windrose_proto::time::UnixNanos;

    use super::{Kept, Retention, expired};

    /// Files as (day of seal, bytes), looked at on day 10.
    #[track_caller]
    fn check(max_days: Option<u64>, max_bytes: Option<u64>, files: &[(i64, u64)], expect: &[usize]) {
        let files = files.iter().enumerate().map(|(place, (day, bytes))| Kept {
            sealed_millis: day * 86_400_000,
            bytes: *bytes,
            path: place.to_string(),
        });
        let max_age = max_days.map(|days| Duration::from_secs(days * 86_400));
        let now = UnixNanos::from_secs(10 * 86_400);
        let gone = expired(files.collect(), Retention { max_age, max_bytes }, now);
        let gone: Vec<usize> = gone.iter().map(|file| file.path.parse().unwrap()).collect();
        assert_eq!(gone, expect);
    }

    #[test]
    fn the_old_and_what_is_too_much_goes_oldest_first() {
        let files = [(9, 10), (2, 10), (5, 10), (7, 10)];
        check(None, None, &files, &[]);
        check(Some(7), None, &files, &[1]);
        check(Some(8), None, &files, &[]);
        check(Some(3), None, &files, &[1, 2]);
        check(None, Some(40), &files, &[]);
        check(None, Some(39), &files, &[1]);
        check(None, Some(10), &files, &[1, 2, 3]);
        check(Some(7), Some(20), &files, &[1, 2]);
        check(Some(0), Some(0), &files, &[1, 2, 3, 0]);
        check(None, Some(5), &[(1, 0), (2, 9)], &[0, 1]);
    }
}
