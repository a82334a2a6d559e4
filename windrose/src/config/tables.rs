//! Where sealed tables lie and how they are kept: storage, compaction, retention.

use std::path::Path;
use std::time::Duration;

use windrose_collector::pipeline::{LOCAL_WRITER, TablesConfig};
use windrose_proto::tenant::TenantId;
use windrose_store::sealed::{Bucket, CompactionPolicy, Location, Retention, RetentionPolicy, WriterName};
use windrose_store::tables::Table;

use super::environment::AWS_PREFIX;
use super::reader::Section;
use super::value::{ByteSize, Setting};

/// One request per table: seconds after another collector's seal its files are in the answers.
pub const DEFAULT_STORAGE_REFRESH: Duration = Duration::from_secs(15);

/// The region that S3-compatible stores without regions take.
const DEFAULT_REGION: &str = "us-east-1";

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

/// Where sealed tables lie.
#[derive(Clone, Debug)]
pub struct Storage {
    pub tables: TablesConfig,
    /// How often it is looked for what other collectors have written; only of a bucket.
    pub refresh: Duration,
}

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

impl Storage {
    pub(super) fn read(section: &mut Section<'_>, data_dir: &Path) -> Self {
        let aws = section.variables(AWS_PREFIX);
        let of_environment = |names: &[&str]| {
            let value = |name: &&str| aws.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
            names.iter().find_map(value)
        };
        let endpoint = Endpoint(of_environment(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]));
        let region = of_environment(&["AWS_REGION", "AWS_DEFAULT_REGION"]).unwrap_or_else(|| DEFAULT_REGION.to_owned());
        let local = WriterName::new(LOCAL_WRITER).expect("the name keeps to the rules for names");

        let url = section.value("url", TablesUrl(None)).0;
        let endpoint = section.value("s3_endpoint", endpoint).0;
        let region = section.value("s3_region", region);
        let writer = section.value("writer", local.clone());
        let refresh = section.value("refresh", DEFAULT_STORAGE_REFRESH);
        section.require(!refresh.is_zero(), "refresh", || "must be longer than 0".to_owned());
        section.require(url.is_none() || writer != local, "writer", || {
            "is needed with storage.url: every collector on one bucket has a name of its own, which it keeps over restarts"
                .to_owned()
        });
        let mut options: Vec<(String, String)> =
            aws.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        options.push(("aws_region".to_owned(), region));
        if let Some(endpoint) = endpoint {
            options.push(("aws_allow_http".to_owned(), endpoint.starts_with("http://").to_string()));
            options.push(("aws_endpoint".to_owned(), endpoint));
        }
        let bucket = url.and_then(|url| Bucket::parse(&url, options).ok());
        let location = bucket.map_or_else(|| Location::Directory(data_dir.join("tables")), Location::Bucket);
        Self { tables: TablesConfig { location, writer }, refresh }
    }
}

/// A bucket, or the directory below `data_dir`.
struct TablesUrl(Option<String>);

impl Setting for TablesUrl {
    const ACCEPTED: &'static str = "s3://BUCKET/PREFIX, or local for a directory below data_dir";

    fn read(text: &str) -> Option<Self> {
        if text == "local" {
            return Some(Self(None));
        }
        Bucket::parse(text, Vec::new()).is_ok().then(|| Self(Some(text.to_owned())))
    }

    fn write(&self) -> String {
        self.0.clone().unwrap_or_else(|| "local".to_owned())
    }
}

/// Where the object store answers, unless it is Amazon's own.
struct Endpoint(Option<String>);

impl Setting for Endpoint {
    const ACCEPTED: &'static str = "a URL (http://127.0.0.1:9000, https://s3.example.com), or aws";

    fn read(text: &str) -> Option<Self> {
        if text == "aws" {
            return Some(Self(None));
        }
        let is_url = ["http://", "https://"].iter().any(|scheme| text.len() > scheme.len() && text.starts_with(scheme));
        is_url.then(|| Self(Some(text.to_owned())))
    }

    fn write(&self) -> String {
        self.0.clone().unwrap_or_else(|| "aws".to_owned())
    }
}

impl Setting for WriterName {
    const ACCEPTED: &'static str = "a name of 1-64 characters of A-Z a-z 0-9 _ . - that does not start with a dot";

    fn read(text: &str) -> Option<Self> {
        Self::new(text).ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
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
    use windrose_store::sealed::{Bucket, Location, Retention};
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

    #[test]
    fn tables_lie_below_the_data_or_in_a_bucket() {
        let config = load("data_dir: /var/lib/windrose\n").unwrap();
        assert_eq!(config.storage.tables.location, Location::Directory("/var/lib/windrose/tables".into()));
        let yaml = "storage: {url: 's3://tables/mesh', writer: one, s3_endpoint: 'http://127.0.0.1:9000'}\n";
        let environment = [("AWS_ACCESS_KEY_ID", "me"), ("AWS_SECRET_ACCESS_KEY", "hunter2"), ("AWS_REGION", "eu-1")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let loaded =
            Config::load(Some(("test.yaml", yaml)), &Overrides { environment, ..Overrides::default() }).unwrap();
        let expect = [
            ("aws_access_key_id", "me"),
            ("aws_region", "eu-1"),
            ("aws_secret_access_key", "hunter2"),
            ("aws_region", "eu-1"),
            ("aws_allow_http", "true"),
            ("aws_endpoint", "http://127.0.0.1:9000"),
        ];
        let expect = expect.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let bucket = Bucket::parse("s3://tables/mesh", expect).unwrap();
        assert_eq!(loaded.config.storage.tables.location, Location::Bucket(bucket));
        assert_eq!(loaded.config.storage.tables.writer.to_string(), "one");
        let shown = crate::config::effective_yaml(&loaded.effective, "");
        assert!(!shown.contains("hunter2"), "{shown}");
        check_refused("storage: {url: 's3://tables'}", "storage.writer: is needed with storage.url");
        check_refused("storage: {url: /data}", "write s3://BUCKET/PREFIX, or local");
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
