//! How sealed tables are kept: compaction, retention.

use std::time::Duration;

use windrose_proto::tenant::TenantId;
use windrose_store::sealed::{CompactionPolicy, Retention, RetentionPolicy};
use windrose_store::tables::Table;

use super::reader::Section;
use super::value::{ByteSize, Setting};

/// A look at the lists of files once a minute costs nothing, and small files do not pile up.
pub const DEFAULT_COMPACTION_INTERVAL: Duration = Duration::from_secs(60);

/// A week of single requests: long enough to look into last weekend's incident on Monday.
pub const DEFAULT_RETENTION_ROWS: Duration = Duration::from_secs(7 * 86_400);
/// A quarter of rollups, to compare with; by the day they are small.
pub const DEFAULT_RETENTION_EDGES: Duration = Duration::from_secs(90 * 86_400);
/// Longer than any query, and than a collector or another reader takes to notice a new version.
pub const DEFAULT_VACUUM_AFTER: Duration = Duration::from_secs(3600);

/// Below this, files would be rewritten that readers have just begun to read.
const VACUUM_AFTER_MIN: Duration = Duration::from_secs(60);

/// The smallest target that still leaves fewer files than seals make.
const TARGET_BYTES_MIN: ByteSize = ByteSize::mib(1);

/// When small files become large ones.
#[derive(Clone, Debug)]
pub struct Compaction {
    pub interval: Duration,
    pub policy: CompactionPolicy,
}

/// What is deleted when.
#[derive(Clone, Debug)]
pub struct Keep {
    pub policy: RetentionPolicy,
    /// How long files stay on disk after they left their table.
    pub vacuum_after: Duration,
}

impl Compaction {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let default = CompactionPolicy::default();
        let compaction = Self {
            interval: section.value("interval", DEFAULT_COMPACTION_INTERVAL),
            policy: CompactionPolicy {
                target_bytes: section.value("target_bytes", ByteSize(default.target_bytes)).0,
                hours_after: section.value("edges_hours_after", default.hours_after),
                days_after: section.value("edges_days_after", default.days_after),
                ..default
            },
        };
        let policy = &compaction.policy;
        section.require(!compaction.interval.is_zero(), "interval", || "must be longer than 0".to_owned());
        section.require(policy.target_bytes >= TARGET_BYTES_MIN.0, "target_bytes", || {
            format!(
                "`{}` is too small; write at least {}",
                ByteSize(policy.target_bytes).write(),
                TARGET_BYTES_MIN.write()
            )
        });
        section.require(policy.days_after >= policy.hours_after, "edges_days_after", || {
            format!(
                "`{}` is shorter than compaction.edges_hours_after ({})",
                policy.days_after.write(),
                policy.hours_after.write()
            )
        });
        compaction
    }
}

/// The keys of a table under `retention`, with the default age.
const TABLES: [(Table, &str, &str, Duration); 4] = [
    (Table::Spans, "spans", "spans_max_bytes", DEFAULT_RETENTION_ROWS),
    (Table::Hops, "hops", "hops_max_bytes", DEFAULT_RETENTION_ROWS),
    (Table::Requests, "requests", "requests_max_bytes", DEFAULT_RETENTION_ROWS),
    (Table::Edges, "edges", "edges_max_bytes", DEFAULT_RETENTION_EDGES),
];

impl Keep {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let mut policy = RetentionPolicy::default();
        for (table, age, bytes, default) in TABLES {
            let max_age = section.value(age, Limit(Some(default))).0;
            let max_bytes = section.value(bytes, Limit::<ByteSize>(None)).0.map(|size| size.0);
            policy.tables.insert(table, Retention { max_age, max_bytes });
        }
        for (name, special) in section.map::<TenantLimits>("tenants") {
            let Ok(tenant) = TenantId::new(&name) else {
                section.require(false, "tenants", || format!("`{name}` is not the name of a tenant"));
                continue;
            };
            for (table, age, bytes, _) in TABLES {
                let mut retention = policy.tables[&table];
                for (key, limit) in &special.0 {
                    match limit {
                        TenantLimit::Age(limit) if key == age => retention.max_age = limit.0,
                        TenantLimit::Bytes(limit) if key == bytes => retention.max_bytes = limit.0.map(|size| size.0),
                        TenantLimit::Age(_) | TenantLimit::Bytes(_) => {}
                    }
                }
                policy.tenants.insert((tenant.clone(), table), retention);
            }
        }
        let vacuum_after = section.value("vacuum_after", DEFAULT_VACUUM_AFTER);
        section.require(vacuum_after >= VACUUM_AFTER_MIN, "vacuum_after", || {
            format!("`{}` is too short; write at least {}", vacuum_after.write(), VACUUM_AFTER_MIN.write())
        });
        let age = |table: Table| policy.tables[&table].max_age.unwrap_or(Duration::MAX);
        let requests_stay = age(Table::Requests) >= age(Table::Hops);
        section.require(requests_stay, "requests", || {
            "must not be shorter than retention.hops: requests tell which hops are superseded".to_owned()
        });
        Self { policy, vacuum_after }
    }
}

/// A bound, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit<T>(Option<T>);

impl Setting for Limit<Duration> {
    const ACCEPTED: &'static str = "a duration (7d, 12h) or forever";

    fn read(text: &str) -> Option<Self> {
        if text == "forever" { Some(Self(None)) } else { Duration::read(text).map(|age| Self(Some(age))) }
    }

    fn write(&self) -> String {
        self.0.map_or_else(|| "forever".to_owned(), |age| age.write())
    }
}

impl Setting for Limit<ByteSize> {
    const ACCEPTED: &'static str = "a size (500GiB) or unlimited";

    fn read(text: &str) -> Option<Self> {
        if text == "unlimited" { Some(Self(None)) } else { ByteSize::read(text).map(|size| Self(Some(size))) }
    }

    fn write(&self) -> String {
        self.0.map_or_else(|| "unlimited".to_owned(), |size| size.write())
    }
}

/// What holds for one tenant instead: `spans=30d, spans_max_bytes=1TiB`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TenantLimits(Vec<(String, TenantLimit)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TenantLimit {
    Age(Limit<Duration>),
    Bytes(Limit<ByteSize>),
}

impl Setting for TenantLimits {
    const ACCEPTED: &'static str = "keys of retention with their values, for example `spans=30d, spans_max_bytes=1TiB`";

    fn read(text: &str) -> Option<Self> {
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=')?;
            let (key, value) = (key.trim(), value.trim());
            let limit = if TABLES.iter().any(|(_, age, ..)| *age == key) {
                TenantLimit::Age(Limit::read(value)?)
            } else if TABLES.iter().any(|(_, _, bytes, _)| *bytes == key) {
                TenantLimit::Bytes(Limit::read(value)?)
            } else {
                return None;
            };
            Some((key.to_owned(), limit))
        };
        text.split(',').map(pair).collect::<Option<_>>().map(Self)
    }

    fn write(&self) -> String {
        let pair = |(key, limit): &(String, TenantLimit)| match limit {
            TenantLimit::Age(limit) => format!("{key}={}", limit.write()),
            TenantLimit::Bytes(limit) => format!("{key}={}", limit.write()),
        };
        self.0.iter().map(pair).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use windrose_proto::tenant::TenantId;
    use windrose_store::sealed::Retention;
    use windrose_store::tables::Table;

    use crate::config::{Config, Overrides};

    const DAY: Duration = Duration::from_secs(86_400);

    fn load(yaml: &str) -> Result<Config, String> {
        let loaded = Config::load(Some(("test.yaml", yaml)), &Overrides::default());
        loaded.map(|loaded| loaded.config).map_err(|error| error.to_string())
    }

    #[test]
    fn retention_is_read_by_table_and_tenant() {
        let config = load(
            "retention:\n  spans: 3d\n  edges: forever\n  spans_max_bytes: 1GiB\n  tenants:\n    acme: spans=30d, edges_max_bytes=5MiB\n",
        );
        let policy = config.unwrap().retention.policy;
        let kept = |days: Option<u32>, max_bytes| Retention { max_age: days.map(|days| DAY * days), max_bytes };
        assert_eq!(policy.tables[&Table::Spans], kept(Some(3), Some(1 << 30)));
        assert_eq!(policy.tables[&Table::Hops], kept(Some(7), None));
        assert_eq!(policy.tables[&Table::Edges], kept(None, None));
        let acme = |table| policy.tenants[&(TenantId::new("acme").unwrap(), table)];
        assert_eq!(acme(Table::Spans), kept(Some(30), Some(1 << 30)));
        assert_eq!(acme(Table::Edges), kept(None, Some(5 << 20)));
        assert_eq!(acme(Table::Hops), kept(Some(7), None));
    }

    #[track_caller]
    fn check_refused(yaml: &str, what: &str) {
        let error = load(yaml).expect_err("a mistake");
        assert!(error.contains(what), "{error}");
    }

    #[test]
    fn what_would_lose_data_by_mistake_is_refused() {
        check_refused("retention: {spans: 7}", "retention.spans: `7` is not accepted");
        check_refused("retention: {hops: 9d}", "must not be shorter than retention.hops");
        check_refused("retention: {vacuum_after: 1s}", "write at least 1m");
        check_refused("retention: {tenants: {a: span=1d}}", "retention.tenants.a");
        check_refused("retention: {tenants: {a/b: spans=1d}}", "`a/b` is not the name of a tenant");
        check_refused("compaction: {target_bytes: 1kB}", "write at least 1MiB");
        check_refused("compaction: {edges_days_after: 1d}", "is shorter than compaction.edges_hours_after (2d)");
    }
}
