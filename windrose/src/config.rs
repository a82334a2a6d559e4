//! The configuration: one YAML file, `WINDROSE_…` variables above it, flags above those.
//!
//! [`Config::load`] reads all layers and either yields a configuration that holds together or every
//! mistake at once. Each default is a constant with the reason for its value; `docs/configuration.md`
//! describes every key, and a test compares the two.
//!
//! Layout: [`value`] how single values are written, `tree` YAML with line numbers, `reader` the
//! layers, `render` the effective configuration as YAML, [`tables`] where and how sealed tables are kept.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use windrose_collector::normalise::host::{Cidr, HostRules};
use windrose_collector::normalise::overrides::{Alias, Overrides as JoinOverrides, RoleOverride};
use windrose_collector::scrape::ScrapeConfig;
use windrose_proto::limits::BODY_MAX_BYTES;
use windrose_proto::model::NodeRole;
use windrose_store::metrics::MetricConfig;

pub use self::environment::{CONFIG_VARIABLE, read as read_environment};
pub use self::reader::{Effective, EffectiveValue, Origin, Overrides, Problem};
pub use self::render::effective_yaml;
pub use self::value::{ByteSize, LogFormat, PromqlFeature, WalSync};

use self::reader::{Notes, Section};
use self::tables::{Compaction, Keep, Storage};
use self::tree::Node;
use self::value::Setting;

mod environment;
mod metrics;
mod reader;
mod render;
pub mod tables;
#[cfg(test)]
mod tests;
mod tree;
pub mod value;

/// Everything below this directory is ours; relative, so that a first try needs no rights.
pub const DEFAULT_DATA_DIR: &str = "./data";

/// The ports the senders' own defaults point to; on loopback, because nothing is authenticated yet.
pub const DEFAULT_OTLP_GRPC: SocketAddr = loopback(4317);
/// See [`DEFAULT_OTLP_GRPC`].
pub const DEFAULT_OTLP_HTTP: SocketAddr = loopback(4318);
/// See [`DEFAULT_OTLP_GRPC`].
pub const DEFAULT_ZIPKIN: SocketAddr = loopback(9411);
/// Our own API; 7070 is free of well-known neighbours.
pub const DEFAULT_HTTP: SocketAddr = loopback(7070);

/// Acknowledged means stored; the group commit makes it affordable.
pub const DEFAULT_WAL_SYNC: WalSync = WalSync::Always;
/// What `interval` may lose: one second, as databases commonly choose.
pub const DEFAULT_WAL_SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Hours of spans of a mid-sized mesh (300 B each), and small enough for any disk. When it is used
/// up senders are told to come back.
pub const DEFAULT_WAL_MAX_BYTES: ByteSize = ByteSize::mib(8 * 1024);
/// Space comes back one segment at a time: small against the whole, large against a group commit.
pub const DEFAULT_WAL_SEGMENT_BYTES: ByteSize = ByteSize::mib(64);
/// The largest request body must fit into one segment, with room for its header.
const WAL_SEGMENT_MIN: ByteSize = ByteSize(BODY_MAX_BYTES as u64 + (1 << 20));
/// The log's own limit: it holds offsets in 32 bits.
const WAL_SEGMENT_MAX: ByteSize = ByteSize(windrose_store::wal::SEGMENT_MAX_BYTES);

/// Twice the 5 s in which Envoy flushes: a trace quiet for that long is complete but for accidents.
pub const DEFAULT_JOIN_SETTLE_AFTER: Duration = Duration::from_secs(10);
/// A trace that never falls quiet must not stay in memory for ever.
pub const DEFAULT_JOIN_MAX_AGE: Duration = Duration::from_secs(60);
/// About 800,000 spans of 600 B in open traces: ten seconds at 80,000 spans per second.
pub const DEFAULT_JOIN_MAX_OPEN_BYTES: ByteSize = ByteSize::mib(512);
/// An edge must show within 2 s of its span.
pub const DEFAULT_JOIN_TICK: Duration = Duration::from_secs(1);

/// Files of a minute would be many and small; an hour would keep an hour in memory.
pub const DEFAULT_SEAL_INTERVAL: Duration = Duration::from_secs(300);
/// As much again may gather while a seal is written. About a hundred thousand spans, 4 MB of Parquet.
pub const DEFAULT_SEAL_MAX_BYTES: ByteSize = ByteSize::mib(256);

/// A hash join over 600,000 spans needs 256 MiB; twice that for comfort.
pub const DEFAULT_QUERY_MEMORY_LIMIT: ByteSize = ByteSize::mib(512);
/// Grafana gives up after 30 s too.
pub const DEFAULT_QUERY_TIMEOUT: Duration = Duration::from_secs(30);
/// A dashboard opens about twenty panels; more would only slow each other down.
pub const DEFAULT_QUERY_MAX_CONCURRENT: usize = 16;

/// Longest time between SIGTERM and the ports' requests being cut off: half of Kubernetes' 30 s,
/// so that the other half is left for the disk.
pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(15);

/// What our own log says when nobody asks for more.
pub const DEFAULT_LOG_LEVEL: &str = "info";

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// A configuration that holds together.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    pub listen: Listen,
    pub drain_timeout: Duration,
    pub wal: Wal,
    pub join: Join,
    pub seal: Seal,
    pub storage: Storage,
    pub compaction: Compaction,
    pub retention: Keep,
    /// The metric store.
    pub metrics: MetricConfig,
    pub query: Query,
    pub tenancy: Tenancy,
    pub log: Log,
    /// `global` and `scrape_configs`, in Prometheus' own shape.
    pub scrape: ScrapeConfig,
}

/// Which ports are served.
#[derive(Clone, Debug)]
pub struct Listen {
    pub otlp_grpc: SocketAddr,
    pub otlp_http: SocketAddr,
    pub zipkin: SocketAddr,
    pub http: SocketAddr,
}

/// The write-ahead log.
#[derive(Clone, Debug)]
pub struct Wal {
    pub sync: WalSync,
    pub sync_interval: Duration,
    pub max_bytes: ByteSize,
    pub segment_bytes: ByteSize,
}

/// How spans become hops.
#[derive(Clone, Debug)]
pub struct Join {
    pub settle_after: Duration,
    pub max_age: Duration,
    pub max_open_bytes: ByteSize,
    pub tick: Duration,
    /// What the operator knows better than the telemetry.
    pub overrides: JoinOverrides,
}

/// When rows become files.
#[derive(Clone, Debug)]
pub struct Seal {
    pub interval: Duration,
    pub max_bytes: ByteSize,
}

/// What one query, and all of them together, may use.
#[derive(Clone, Debug)]
pub struct Query {
    pub memory_limit: ByteSize,
    pub timeout: Duration,
    pub max_concurrent: usize,
    pub promql_features: Vec<PromqlFeature>,
}

/// Whose data it is.
#[derive(Clone, Debug)]
pub struct Tenancy {
    /// Refuse requests without `X-Scope-OrgID` instead of using the default tenant.
    pub require_header: bool,
}

/// Our own log.
#[derive(Clone, Debug)]
pub struct Log {
    /// A level, or directives per module as `tracing` knows them.
    pub level: String,
    pub format: LogFormat,
}

/// A configuration and where each of its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub effective: Vec<Effective>,
    /// `global` and `scrape_configs` as YAML with secrets blanked; empty when there are none.
    pub scrape_yaml: String,
}

/// Every mistake of a configuration.
#[derive(Debug, thiserror::Error)]
#[error("{}", render_problems(.name.as_deref(), .problems))]
pub struct ConfigError {
    /// Name of the file, when there is one.
    pub name: Option<String>,
    pub problems: Vec<Problem>,
}

fn render_problems(name: Option<&str>, problems: &[Problem]) -> String {
    let count = match problems.len() {
        1 => "1 mistake".to_owned(),
        many => format!("{many} mistakes"),
    };
    let mut text = format!("{count} in the configuration{}", name.map(|name| format!(" ({name})")).unwrap_or_default());
    for problem in problems {
        text.push_str(&format!("\n  {problem}"));
    }
    text
}

impl Setting for Cidr {
    const ACCEPTED: &'static str = "a network in CIDR notation (10.0.0.0/8, fd00::/8)";

    fn read(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Setting for NodeRole {
    const ACCEPTED: &'static str =
        "one of gateway, egress, eastwest, sidecar, waypoint, node_proxy, app, external, unknown";

    fn read(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    fn write(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Config {
    /// Reads a file's text (none: all defaults) and the layers above it.
    ///
    /// # Errors
    /// Every mistake found, each with key, place, value and what is accepted.
    pub fn load(file: Option<(&str, &str)>, overrides: &Overrides) -> Result<Loaded, ConfigError> {
        let (name, yaml) = file.map_or((None, ""), |(name, yaml)| (Some(name.to_owned()), yaml));
        let refuse = |problems| ConfigError { name: name.clone(), problems };
        let root = Node::parse(yaml).map_err(|error| refuse(vec![not_yaml(&error)]))?;
        let mut notes = Notes::default();
        let mut section = Section::root(&root, overrides, &mut notes);
        let config = Self::read(&mut section, yaml);
        let scrape_yaml = render::foreign_yaml(&root, &["global", "scrape_configs"]);
        section.finish();
        environment::check(overrides, &mut notes);
        if notes.problems.is_empty() {
            Ok(Loaded { config, effective: notes.effective, scrape_yaml })
        } else {
            notes.problems.sort_by_key(|problem| problem.origin.order());
            Err(refuse(notes.problems))
        }
    }

    fn read(root: &mut Section<'_>, yaml: &str) -> Self {
        let scrape = read_scrape(root, yaml);
        let data_dir = root.value("data_dir", PathBuf::from(DEFAULT_DATA_DIR));
        Self {
            storage: root.section("storage", |section| Storage::read(section, &data_dir)),
            data_dir,
            listen: root.section("listen", Listen::read),
            drain_timeout: root.value("drain_timeout", DEFAULT_DRAIN_TIMEOUT),
            wal: root.section("wal", Wal::read),
            join: root.section("join", Join::read),
            seal: root.section("seal", Seal::read),
            compaction: root.section("compaction", Compaction::read),
            retention: root.section("retention", Keep::read),
            metrics: root.section("metrics", metrics::read),
            query: root.section("query", Query::read),
            tenancy: root
                .section("tenancy", |section| Tenancy { require_header: section.value("require_header", false) }),
            log: root.section("log", Log::read),
            scrape,
        }
    }
}

/// The scraper reads its part of the file by itself, in Prometheus' own shape.
fn read_scrape(root: &mut Section<'_>, yaml: &str) -> ScrapeConfig {
    let keys = ["global", "scrape_configs"];
    if keys.map(|key| root.foreign(key)).iter().all(Option::is_none) {
        return ScrapeConfig::default();
    }
    ScrapeConfig::parse(yaml).unwrap_or_else(|problems| {
        for problem in problems {
            root.require(false, "scrape_configs", || problem.to_string());
        }
        ScrapeConfig::default()
    })
}

impl Listen {
    fn read(section: &mut Section<'_>) -> Self {
        let listen = Self {
            otlp_grpc: section.value("otlp_grpc", DEFAULT_OTLP_GRPC),
            otlp_http: section.value("otlp_http", DEFAULT_OTLP_HTTP),
            zipkin: section.value("zipkin", DEFAULT_ZIPKIN),
            http: section.value("http", DEFAULT_HTTP),
        };
        let named = listen.named();
        for (place, (name, address)) in named.iter().enumerate() {
            let twin = named[..place].iter().find(|(_, other)| other == address && address.port() != 0);
            section.require(twin.is_none(), name, || {
                format!("`{address}` is taken by listen.{}", twin.map_or("", |(other, _)| other))
            });
        }
        listen
    }

    /// The addresses with the names of their keys.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, SocketAddr); 4] {
        [("otlp_grpc", self.otlp_grpc), ("otlp_http", self.otlp_http), ("zipkin", self.zipkin), ("http", self.http)]
    }
}

impl Wal {
    fn read(section: &mut Section<'_>) -> Self {
        let wal = Self {
            sync: section.value("sync", DEFAULT_WAL_SYNC),
            sync_interval: section.value("sync_interval", DEFAULT_WAL_SYNC_INTERVAL),
            max_bytes: section.value("max_bytes", DEFAULT_WAL_MAX_BYTES),
            segment_bytes: section.value("segment_bytes", DEFAULT_WAL_SEGMENT_BYTES),
        };
        section.require(!wal.sync_interval.is_zero(), "sync_interval", || "must be longer than 0".to_owned());
        section.require((WAL_SEGMENT_MIN..=WAL_SEGMENT_MAX).contains(&wal.segment_bytes), "segment_bytes", || {
            let (min, max) = (WAL_SEGMENT_MIN.write(), WAL_SEGMENT_MAX.write());
            format!("`{}` is not accepted; write {min} to {max}", wal.segment_bytes.write())
        });
        section.require(wal.max_bytes.0 >= wal.segment_bytes.0.saturating_mul(2), "max_bytes", || {
            format!(
                "`{}` is too small for segments of {}; write at least twice wal.segment_bytes, because space comes back \
                 one whole segment at a time",
                wal.max_bytes.write(),
                wal.segment_bytes.write()
            )
        });
        wal
    }
}

impl Join {
    fn read(section: &mut Section<'_>) -> Self {
        let join = Self {
            settle_after: section.value("settle_after", DEFAULT_JOIN_SETTLE_AFTER),
            max_age: section.value("max_age", DEFAULT_JOIN_MAX_AGE),
            max_open_bytes: section.value("max_open_bytes", DEFAULT_JOIN_MAX_OPEN_BYTES),
            tick: section.value("tick", DEFAULT_JOIN_TICK),
            overrides: section.section("overrides", read_overrides),
        };
        section.require(!join.tick.is_zero(), "tick", || "must be longer than 0".to_owned());
        section.require(join.settle_after >= join.tick, "settle_after", || {
            format!("`{}` is shorter than join.tick ({})", join.settle_after.write(), join.tick.write())
        });
        section.require(join.max_age >= join.settle_after, "max_age", || {
            format!("`{}` is shorter than join.settle_after ({})", join.max_age.write(), join.settle_after.write())
        });
        section.require(join.max_open_bytes >= ByteSize::mib(1), "max_open_bytes", || {
            format!("`{}` is too small; write at least 1MiB", join.max_open_bytes.write())
        });
        join
    }
}

fn read_overrides(section: &mut Section<'_>) -> JoinOverrides {
    let aliases = section.map::<String>("aliases");
    let roles = section.map::<NodeRole>("roles").into_iter().filter_map(|(pattern, role)| {
        let role = RoleOverride::new(&pattern, role);
        section.require(role.is_ok(), "roles", || format!("`{pattern}` is not a regular expression"));
        role.ok()
    });
    JoinOverrides {
        roles: roles.collect(),
        aliases: aliases.into_iter().map(|(name, alias)| (name, Alias::parse(&alias))).collect(),
        hosts: HostRules {
            internal_suffixes: section.list("internal_suffixes"),
            external_hosts: section.list("external_hosts"),
            internal_cidrs: section.list("internal_cidrs"),
        },
    }
}

impl Seal {
    fn read(section: &mut Section<'_>) -> Self {
        let seal = Self {
            interval: section.value("interval", DEFAULT_SEAL_INTERVAL),
            max_bytes: section.value("max_bytes", DEFAULT_SEAL_MAX_BYTES),
        };
        section.require(!seal.interval.is_zero(), "interval", || "must be longer than 0".to_owned());
        section.require(seal.max_bytes >= ByteSize::mib(1), "max_bytes", || {
            format!("`{}` is too small; write at least 1MiB", seal.max_bytes.write())
        });
        seal
    }
}

impl Query {
    fn read(section: &mut Section<'_>) -> Self {
        let query = Self {
            memory_limit: section.value("memory_limit", DEFAULT_QUERY_MEMORY_LIMIT),
            timeout: section.value("timeout", DEFAULT_QUERY_TIMEOUT),
            max_concurrent: section.value("max_concurrent", DEFAULT_QUERY_MAX_CONCURRENT),
            promql_features: section.list("promql_features"),
        };
        section.require(query.memory_limit >= ByteSize::mib(1), "memory_limit", || {
            format!("`{}` is too small; write at least 1MiB", query.memory_limit.write())
        });
        section.require(!query.timeout.is_zero(), "timeout", || "must be longer than 0".to_owned());
        section.require(query.max_concurrent > 0, "max_concurrent", || "must be at least 1".to_owned());
        query
    }
}

impl Log {
    fn read(section: &mut Section<'_>) -> Self {
        let log = Self {
            level: section.value("level", DEFAULT_LOG_LEVEL.to_owned()),
            format: section.value("format", LogFormat::Text),
        };
        let readable = tracing_subscriber::EnvFilter::try_new(&log.level);
        section.require(readable.is_ok(), "level", || {
            format!(
                "`{}` is not accepted; write error, warn, info, debug, trace, or directives such as info,windrose_store=debug",
                log.level
            )
        });
        log
    }
}

fn not_yaml(error: &serde_saphyr::Error) -> Problem {
    let line = error.location().map_or(0, |location| location.line());
    Problem { path: String::new(), origin: Origin::File { line }, what: format!("not readable as YAML: {error}") }
}
