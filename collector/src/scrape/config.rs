//! `scrape_configs` in Prometheus' own shape.
//!
//! A key that is not understood is an error with its name: a configuration that was pasted here
//! either means what it meant there, or says what it cannot mean.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;
use windrose_proto::limits::DECOMPRESSED_MAX_BYTES;
use windrose_proto::tenant::TenantId;

use super::protocol::{DEFAULT_SCRAPE_PROTOCOLS, PageFormat, ScrapeProtocol};
use super::relabel::{RelabelConfig, RelabelError, Rule};
use super::value::{ByteSize, PromDuration, Secret};

mod discovery;
#[cfg(test)]
mod tests;

pub use discovery::{DnsDiscovery, DnsRecord, HttpDiscovery, KubernetesDiscovery, KubernetesRole, LookupConfig};

use discovery::{RawDns, RawHttp, RawKubernetes};

/// Prometheus' defaults.
pub const DEFAULT_SCRAPE_INTERVAL: Duration = Duration::from_secs(60);
/// See [`DEFAULT_SCRAPE_INTERVAL`].
pub const DEFAULT_SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a file of targets is read again even if it does not look changed.
pub const DEFAULT_FILE_REFRESH: Duration = Duration::from_secs(300);

/// Everything that is scraped.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScrapeConfig {
    pub pools: Vec<Arc<PoolConfig>>,
}

/// One job: its targets and how they are scraped.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolConfig {
    pub job_name: String,
    pub interval: Duration,
    pub timeout: Duration,
    pub metrics_path: String,
    pub scheme: Scheme,
    pub params: BTreeMap<String, Vec<String>>,
    pub honor_labels: bool,
    pub honor_timestamps: bool,
    /// Whether series whose page states their times get staleness markers too.
    pub track_timestamps_staleness: bool,
    /// Whether a scrape reports its limits beside its `up`.
    pub extra_scrape_metrics: bool,
    /// Whose its metrics are. Ours, not Prometheus'.
    pub tenant: TenantId,
    pub enable_compression: bool,
    /// Format of pages that do not say theirs.
    pub fallback_format: Option<PageFormat>,
    /// Formats that are asked for, the preferred one first.
    pub scrape_protocols: Vec<ScrapeProtocol>,
    pub static_configs: Vec<TargetGroup>,
    pub file_sd_configs: Vec<FileDiscovery>,
    /// Discovery over the network.
    pub lookups: Vec<LookupConfig>,
    pub relabel: Relabeling,
    pub metric_relabel: Relabeling,
    pub authorization: Option<Authorization>,
    pub tls: TlsConfig,
    pub limits: Limits,
}

/// Rules, compared as they are written.
#[derive(Clone, Debug, Default)]
pub struct Relabeling {
    written: Vec<RelabelConfig>,
    pub rules: Vec<Rule>,
}

/// How a target is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    #[default]
    Http,
    Https,
}

/// Targets with common labels, in a configuration or in a file of targets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetGroup {
    #[serde(default)]
    pub targets: Vec<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Files of target groups.
#[derive(Clone, Debug, PartialEq)]
pub struct FileDiscovery {
    /// Paths; the last part may hold `*`.
    pub files: Vec<String>,
    pub refresh_interval: Duration,
}

/// Who we say we are.
#[derive(Clone, Debug, PartialEq)]
pub enum Authorization {
    Basic { username: String, password: Credential },
    Scheme { scheme: String, credential: Credential },
}

/// A secret, or the file it is read from at every scrape.
#[derive(Clone, Debug, PartialEq)]
pub enum Credential {
    Given(Secret),
    File(String),
}

/// TLS towards targets.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    pub ca: Option<String>,
    pub ca_file: Option<String>,
    pub cert: Option<String>,
    pub cert_file: Option<String>,
    pub key: Option<Secret>,
    pub key_file: Option<String>,
    pub server_name: Option<String>,
    pub insecure_skip_verify: bool,
    pub min_version: Option<TlsVersion>,
    pub max_version: Option<TlsVersion>,
}

/// A version of TLS. Older ones are not spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum TlsVersion {
    #[serde(rename = "TLS12")]
    Tls12,
    #[serde(rename = "TLS13")]
    Tls13,
}

/// What a page may hold; 0 is no limit. A page beyond a limit fails as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub sample: usize,
    pub label: usize,
    pub label_name_bytes: usize,
    pub label_value_bytes: usize,
    pub target: usize,
    /// Never without limit: a page is held in memory.
    pub body_bytes: usize,
}

/// What is wrong with a scrape configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("scrape configuration: {0}")]
    Yaml(String),
    #[error("{place}: `{key}` is not a key of Prometheus' configuration")]
    UnknownKey { place: String, key: String },
    #[error("{place}: `{key}` is not supported yet; remove it, or scrape this job elsewhere")]
    UnsupportedKey { place: String, key: String },
    #[error("{place}: {source}")]
    Relabel { place: String, source: RelabelError },
    #[error("{place}: {reason}")]
    Invalid { place: String, reason: String },
}

impl ScrapeConfig {
    /// Reads `global` and `scrape_configs` out of a file that may hold other keys.
    ///
    /// # Errors
    /// Every mistake that can be told, not just the first.
    pub fn parse(yaml: &str) -> Result<Self, Vec<ConfigError>> {
        let not_yaml = |error: serde_saphyr::Error| vec![ConfigError::Yaml(error.to_string())];
        let keys: RawKeys = serde_saphyr::from_str(yaml).map_err(not_yaml)?;
        let mut problems = keys.problems();
        let raw: RawFile = match serde_saphyr::from_str(yaml) {
            Ok(raw) => raw,
            Err(error) if problems.is_empty() => return Err(not_yaml(error)),
            Err(_) => return Err(problems),
        };
        let mut pools = Vec::new();
        let mut names = BTreeSet::new();
        for job in raw.scrape_configs.unwrap_or_default() {
            let place = format!("job `{}`", job.job_name);
            if !names.insert(job.job_name.clone()) {
                let reason = "a second job of this name".to_owned();
                problems.push(ConfigError::Invalid { place: place.clone(), reason });
            }
            pools.extend(PoolConfig::from_raw(job, &raw.global, &place, &mut problems).map(Arc::new));
        }
        if problems.is_empty() { Ok(Self { pools }) } else { Err(problems) }
    }
}

impl PartialEq for Relabeling {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Relabeling {
    fn compile(written: Vec<RelabelConfig>, place: &str, problems: &mut Vec<ConfigError>) -> Self {
        let mut rules = Vec::with_capacity(written.len());
        for rule in &written {
            match Rule::compile(rule) {
                Ok(rule) => rules.push(rule),
                Err(source) => problems.push(ConfigError::Relabel { place: place.to_owned(), source }),
            }
        }
        Self { written, rules }
    }
}

impl Scheme {
    /// As in a URL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl PoolConfig {
    fn from_raw(raw: RawJob, global: &RawGlobal, place: &str, problems: &mut Vec<ConfigError>) -> Option<Self> {
        let mut invalid = |reason: String| problems.push(ConfigError::Invalid { place: place.to_owned(), reason });
        if raw.job_name.is_empty() {
            invalid("job_name is empty".to_owned());
        }
        let interval =
            raw.scrape_interval.or(global.scrape_interval).map_or(DEFAULT_SCRAPE_INTERVAL, |interval| interval.0);
        let asked = raw.scrape_timeout.map(|timeout| timeout.0);
        // A default that is longer than the interval shrinks to it; a timeout that was asked for is an error.
        let default = global.scrape_timeout.map_or(DEFAULT_SCRAPE_TIMEOUT, |timeout| timeout.0).min(interval);
        let timeout = asked.unwrap_or(default);
        if interval.is_zero() {
            invalid("scrape_interval is zero".to_owned());
        }
        if timeout > interval {
            let (timeout, interval) = (PromDuration(timeout), PromDuration(interval));
            invalid(format!("scrape timeout cannot be greater than scrape interval ({timeout} > {interval})"));
        }
        if raw.follow_redirects == Some(true) {
            invalid("follow_redirects is not supported yet; a redirected scrape fails".to_owned());
        }
        let authorization = authorization(raw.basic_auth, raw.authorization).unwrap_or_else(|reason| {
            invalid(reason);
            None
        });
        let tenant = raw.tenant.as_deref().map_or_else(|| Ok(TenantId::default()), TenantId::new);
        let tenant = tenant.unwrap_or_else(|error| {
            invalid(format!("tenant: {error}"));
            TenantId::default()
        });
        let fallback_format = raw.fallback_scrape_protocol.as_deref().and_then(|protocol| {
            let format = ScrapeProtocol::parse(protocol).map(ScrapeProtocol::format);
            if format.is_none() {
                invalid(format!("fallback_scrape_protocol `{protocol}` is not supported"));
            }
            format
        });
        let asked = raw.scrape_protocols.as_deref().or(global.scrape_protocols.as_deref()).unwrap_or_default();
        let scrape_protocols = scrape_protocols(asked).unwrap_or_else(|reason| {
            invalid(reason);
            Vec::new()
        });
        if raw.tls_config.cert.is_some() && raw.tls_config.cert_file.is_some()
            || raw.tls_config.key.is_some() && raw.tls_config.key_file.is_some()
            || raw.tls_config.ca.is_some() && raw.tls_config.ca_file.is_some()
        {
            invalid("tls_config: give a text or its file, not both".to_owned());
        }
        let http = raw.http_sd_configs.into_iter().map(RawHttp::read);
        let dns = raw.dns_sd_configs.into_iter().map(RawDns::read);
        let kubernetes = raw.kubernetes_sd_configs.into_iter().map(RawKubernetes::read);
        let mut lookups = Vec::new();
        for lookup in http.chain(dns).chain(kubernetes) {
            match lookup {
                Ok(lookup) => lookups.push(lookup),
                Err(reason) => invalid(reason),
            }
        }
        let body = raw.body_size_limit.or(global.body_size_limit).map_or(0, |size| size.0);
        let pick = |own: Option<usize>, of_all: Option<usize>| own.or(of_all).unwrap_or(0);
        let limits = Limits {
            sample: pick(raw.sample_limit, global.sample_limit),
            label: pick(raw.label_limit, global.label_limit),
            label_name_bytes: pick(raw.label_name_length_limit, global.label_name_length_limit),
            label_value_bytes: pick(raw.label_value_length_limit, global.label_value_length_limit),
            target: pick(raw.target_limit, global.target_limit),
            body_bytes: match usize::try_from(body) {
                Ok(0) | Err(_) => DECOMPRESSED_MAX_BYTES,
                Ok(bytes) => bytes.min(DECOMPRESSED_MAX_BYTES),
            },
        };
        Some(Self {
            interval,
            timeout,
            metrics_path: raw.metrics_path.unwrap_or_else(|| "/metrics".to_owned()),
            scheme: raw.scheme,
            params: raw.params,
            honor_labels: raw.honor_labels,
            honor_timestamps: raw.honor_timestamps.unwrap_or(true),
            track_timestamps_staleness: raw.track_timestamps_staleness,
            extra_scrape_metrics: raw.extra_scrape_metrics.or(global.extra_scrape_metrics).unwrap_or(false),
            tenant,
            enable_compression: raw.enable_compression.unwrap_or(true),
            fallback_format,
            scrape_protocols,
            static_configs: raw.static_configs,
            lookups,
            file_sd_configs: raw
                .file_sd_configs
                .into_iter()
                .map(|sd| FileDiscovery {
                    files: sd.files,
                    refresh_interval: sd.refresh_interval.map_or(DEFAULT_FILE_REFRESH, |interval| interval.0),
                })
                .collect(),
            relabel: Relabeling::compile(raw.relabel_configs, place, problems),
            metric_relabel: Relabeling::compile(raw.metric_relabel_configs, place, problems),
            authorization,
            tls: raw.tls_config,
            limits,
            job_name: raw.job_name,
        })
    }
}

/// The formats of these names; Prometheus' default when there are none.
fn scrape_protocols(names: &[String]) -> Result<Vec<ScrapeProtocol>, String> {
    if names.is_empty() {
        return Ok(DEFAULT_SCRAPE_PROTOCOLS.to_vec());
    }
    let mut protocols = Vec::with_capacity(names.len());
    for name in names {
        let protocol = ScrapeProtocol::parse(name).ok_or_else(|| {
            let known = ScrapeProtocol::ALL.map(ScrapeProtocol::as_str).join(", ");
            format!("scrape_protocols: `{name}` is not supported, {known} are")
        })?;
        if protocols.contains(&protocol) {
            return Err(format!("scrape_protocols: `{name}` is there twice"));
        }
        protocols.push(protocol);
    }
    Ok(protocols)
}

fn authorization(basic: Option<RawBasic>, other: Option<RawAuthorization>) -> Result<Option<Authorization>, String> {
    let credential = |given: Option<Secret>, file: Option<String>, key: &str| match (given, file) {
        (Some(_), Some(_)) => Err(format!("give {key} or {key}_file, not both")),
        (Some(given), None) => Ok(Credential::Given(given)),
        (None, Some(file)) => Ok(Credential::File(file)),
        (None, None) => Ok(Credential::Given(Secret(String::new()))),
    };
    match (basic, other) {
        (Some(_), Some(_)) => Err("give basic_auth or authorization, not both".to_owned()),
        (Some(basic), None) => {
            let password = credential(basic.password, basic.password_file, "password")?;
            Ok(Some(Authorization::Basic { username: basic.username, password }))
        }
        (None, Some(other)) => {
            let scheme = other.r#type.unwrap_or_else(|| "Bearer".to_owned());
            let credential = credential(other.credentials, other.credentials_file, "credentials")?;
            Ok(Some(Authorization::Scheme { scheme, credential }))
        }
        (None, None) => Ok(None),
    }
}

// === as written ===

/// Only the names of keys, to tell all that are not understood at once.
#[derive(Deserialize)]
struct RawKeys {
    global: Option<BTreeMap<String, IgnoredAny>>,
    scrape_configs: Option<Vec<BTreeMap<String, IgnoredAny>>>,
}

const GLOBAL_KEYS: &[&str] = &[
    "scrape_interval",
    "scrape_timeout",
    "body_size_limit",
    "sample_limit",
    "label_limit",
    "label_name_length_limit",
    "label_value_length_limit",
    "target_limit",
    "extra_scrape_metrics",
    "scrape_protocols",
];

const JOB_KEYS: &[&str] = &[
    "job_name",
    "scrape_interval",
    "scrape_timeout",
    "metrics_path",
    "scheme",
    "params",
    "honor_labels",
    "honor_timestamps",
    "track_timestamps_staleness",
    "extra_scrape_metrics",
    "tenant",
    "enable_compression",
    "fallback_scrape_protocol",
    "scrape_protocols",
    "follow_redirects",
    "static_configs",
    "file_sd_configs",
    "http_sd_configs",
    "dns_sd_configs",
    "kubernetes_sd_configs",
    "relabel_configs",
    "metric_relabel_configs",
    "basic_auth",
    "authorization",
    "tls_config",
    "sample_limit",
    "label_limit",
    "label_name_length_limit",
    "label_value_length_limit",
    "target_limit",
    "body_size_limit",
];

/// Keys of Prometheus that do not work here yet, of `global` and of jobs.
const UNSUPPORTED_KEYS: &[&str] = &[
    "evaluation_interval",
    "rule_query_offset",
    "external_labels",
    "query_log_file",
    "scrape_failure_log_file",
    "keep_dropped_targets",
    "runtime",
    "metric_name_validation_scheme",
    "metric_name_escaping_scheme",
    "scrape_native_histograms",
    "always_scrape_classic_histograms",
    "scrape_classic_histograms",
    "convert_classic_histograms_to_nhcb",
    "native_histogram_bucket_limit",
    "native_histogram_min_bucket_factor",
    "oauth2",
    "bearer_token",
    "bearer_token_file",
    "enable_http2",
    "http_headers",
    "proxy_url",
    "proxy_connect_header",
    "proxy_from_environment",
    "no_proxy",
    "aws_sd_configs",
    "azure_sd_configs",
    "consul_sd_configs",
    "digitalocean_sd_configs",
    "docker_sd_configs",
    "dockerswarm_sd_configs",
    "ec2_sd_configs",
    "eureka_sd_configs",
    "gce_sd_configs",
    "hetzner_sd_configs",
    "ionos_sd_configs",
    "kuma_sd_configs",
    "lightsail_sd_configs",
    "linode_sd_configs",
    "marathon_sd_configs",
    "nerve_sd_configs",
    "nomad_sd_configs",
    "openstack_sd_configs",
    "ovhcloud_sd_configs",
    "puppetdb_sd_configs",
    "scaleway_sd_configs",
    "serverset_sd_configs",
    "stackit_sd_configs",
    "triton_sd_configs",
    "uyuni_sd_configs",
    "vultr_sd_configs",
];

impl RawKeys {
    fn problems(&self) -> Vec<ConfigError> {
        let mut problems = Vec::new();
        let mut check = |place: String, keys: &BTreeMap<String, IgnoredAny>, known: &[&str]| {
            for key in keys.keys().filter(|key| !known.contains(&key.as_str())) {
                let (place, key) = (place.clone(), key.clone());
                problems.push(if UNSUPPORTED_KEYS.contains(&key.as_str()) {
                    ConfigError::UnsupportedKey { place, key }
                } else {
                    ConfigError::UnknownKey { place, key }
                });
            }
        };
        if let Some(keys) = &self.global {
            check("global".to_owned(), keys, GLOBAL_KEYS);
        }
        for (number, keys) in self.scrape_configs.iter().flatten().enumerate() {
            check(format!("scrape_configs[{number}]"), keys, JOB_KEYS);
        }
        problems
    }
}

#[derive(Deserialize)]
struct RawFile {
    #[serde(default)]
    global: RawGlobal,
    scrape_configs: Option<Vec<RawJob>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawGlobal {
    scrape_interval: Option<PromDuration>,
    scrape_timeout: Option<PromDuration>,
    body_size_limit: Option<ByteSize>,
    sample_limit: Option<usize>,
    label_limit: Option<usize>,
    label_name_length_limit: Option<usize>,
    label_value_length_limit: Option<usize>,
    target_limit: Option<usize>,
    extra_scrape_metrics: Option<bool>,
    scrape_protocols: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct RawJob {
    job_name: String,
    scrape_interval: Option<PromDuration>,
    scrape_timeout: Option<PromDuration>,
    metrics_path: Option<String>,
    #[serde(default)]
    scheme: Scheme,
    #[serde(default)]
    params: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    honor_labels: bool,
    honor_timestamps: Option<bool>,
    #[serde(default)]
    track_timestamps_staleness: bool,
    extra_scrape_metrics: Option<bool>,
    tenant: Option<String>,
    enable_compression: Option<bool>,
    fallback_scrape_protocol: Option<String>,
    scrape_protocols: Option<Vec<String>>,
    follow_redirects: Option<bool>,
    #[serde(default)]
    static_configs: Vec<TargetGroup>,
    #[serde(default)]
    file_sd_configs: Vec<RawFileDiscovery>,
    #[serde(default)]
    http_sd_configs: Vec<RawHttp>,
    #[serde(default)]
    dns_sd_configs: Vec<RawDns>,
    #[serde(default)]
    kubernetes_sd_configs: Vec<RawKubernetes>,
    #[serde(default)]
    relabel_configs: Vec<RelabelConfig>,
    #[serde(default)]
    metric_relabel_configs: Vec<RelabelConfig>,
    basic_auth: Option<RawBasic>,
    authorization: Option<RawAuthorization>,
    #[serde(default)]
    tls_config: TlsConfig,
    sample_limit: Option<usize>,
    label_limit: Option<usize>,
    label_name_length_limit: Option<usize>,
    label_value_length_limit: Option<usize>,
    target_limit: Option<usize>,
    body_size_limit: Option<ByteSize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFileDiscovery {
    files: Vec<String>,
    refresh_interval: Option<PromDuration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBasic {
    #[serde(default)]
    username: String,
    password: Option<Secret>,
    password_file: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAuthorization {
    r#type: Option<String>,
    credentials: Option<Secret>,
    credentials_file: Option<String>,
}
