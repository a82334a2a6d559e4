//! Discovery in Prometheus' own shape: `http_sd_configs`, `dns_sd_configs`, `kubernetes_sd_configs`.

use std::time::Duration;

use serde::Deserialize;

use super::{Authorization, RawAuthorization, RawBasic, TlsConfig, authorization};
use crate::scrape::value::PromDuration;

/// Prometheus' defaults.
const DEFAULT_HTTP_REFRESH: Duration = Duration::from_secs(60);
const DEFAULT_DNS_REFRESH: Duration = Duration::from_secs(30);

/// Where a task looks for targets.
#[derive(Clone, Debug, PartialEq)]
pub enum LookupConfig {
    Http(HttpDiscovery),
    Dns(DnsDiscovery),
    Kubernetes(KubernetesDiscovery),
}

/// A web service that lists targets.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpDiscovery {
    pub url: String,
    pub refresh_interval: Duration,
    pub authorization: Option<Authorization>,
    pub tls: TlsConfig,
}

/// Names whose records are targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsDiscovery {
    pub names: Vec<String>,
    pub record: DnsRecord,
    /// SRV records have their own.
    pub port: Option<u16>,
    pub refresh_interval: Duration,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DnsRecord {
    #[default]
    Srv,
    A,
    Aaaa,
    Mx,
    Ns,
}

/// A cluster of Kubernetes.
#[derive(Clone, Debug, PartialEq)]
pub struct KubernetesDiscovery {
    pub role: KubernetesRole,
    /// `None`: the cluster this process runs in.
    pub api_server: Option<String>,
    /// None: all.
    pub namespaces: Vec<String>,
    pub own_namespace: bool,
    /// As a query of a URL.
    pub selectors: String,
    pub authorization: Option<Authorization>,
    pub tls: TlsConfig,
}

/// Which objects are targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KubernetesRole {
    Pod,
    Service,
    Node,
    Endpoints,
    EndpointSlice,
}

/// `http_sd_configs` as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHttp {
    url: String,
    refresh_interval: Option<PromDuration>,
    basic_auth: Option<RawBasic>,
    authorization: Option<RawAuthorization>,
    #[serde(default)]
    tls_config: TlsConfig,
}

/// `dns_sd_configs` as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDns {
    names: Vec<String>,
    #[serde(default)]
    r#type: DnsRecord,
    port: Option<u16>,
    refresh_interval: Option<PromDuration>,
}

/// `kubernetes_sd_configs` as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKubernetes {
    role: KubernetesRole,
    api_server: Option<String>,
    #[serde(default)]
    namespaces: RawNamespaces,
    #[serde(default)]
    selectors: Vec<RawSelector>,
    basic_auth: Option<RawBasic>,
    authorization: Option<RawAuthorization>,
    #[serde(default)]
    tls_config: TlsConfig,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawNamespaces {
    own_namespace: bool,
    names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSelector {
    role: KubernetesRole,
    label: Option<String>,
    field: Option<String>,
}

impl RawHttp {
    pub(super) fn read(self) -> Result<LookupConfig, String> {
        if !self.url.starts_with("http://") && !self.url.starts_with("https://") {
            return Err(format!("http_sd_configs: `{}` is no URL of HTTP", self.url));
        }
        Ok(LookupConfig::Http(HttpDiscovery {
            url: self.url,
            refresh_interval: period(self.refresh_interval, DEFAULT_HTTP_REFRESH)?,
            authorization: authorization(self.basic_auth, self.authorization)?,
            tls: self.tls_config,
        }))
    }
}

impl RawDns {
    pub(super) fn read(self) -> Result<LookupConfig, String> {
        if self.names.is_empty() {
            return Err("dns_sd_configs: names is empty".to_owned());
        }
        if self.port.is_none() && self.r#type != DnsRecord::Srv {
            return Err("dns_sd_configs: a port is required for record types other than SRV".to_owned());
        }
        Ok(LookupConfig::Dns(DnsDiscovery {
            names: self.names,
            record: self.r#type,
            port: self.port,
            refresh_interval: period(self.refresh_interval, DEFAULT_DNS_REFRESH)?,
        }))
    }
}

impl RawKubernetes {
    pub(super) fn read(self) -> Result<LookupConfig, String> {
        let authorization = authorization(self.basic_auth, self.authorization)?;
        if self.api_server.is_none() && (authorization.is_some() || self.tls_config != TlsConfig::default()) {
            return Err(
                "kubernetes_sd_configs: name the api_server to use other than this pod's credentials".to_owned()
            );
        }
        let mut selectors = form_urlencoded(&[]);
        for selector in self.selectors {
            if selector.role != self.role {
                return Err("kubernetes_sd_configs: a selector of another role".to_owned());
            }
            let of = [("labelSelector", selector.label), ("fieldSelector", selector.field)];
            let given: Vec<(&str, String)> = of.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            if !selectors.is_empty() && !given.is_empty() {
                selectors.push('&');
            }
            selectors.push_str(&form_urlencoded(&given));
        }
        Ok(LookupConfig::Kubernetes(KubernetesDiscovery {
            role: self.role,
            api_server: self.api_server,
            namespaces: self.namespaces.names,
            own_namespace: self.namespaces.own_namespace,
            selectors,
            authorization,
            tls: self.tls_config,
        }))
    }
}

fn form_urlencoded(pairs: &[(&str, String)]) -> String {
    let pairs = pairs.iter().map(|(name, value)| format!("{name}={}", crate::scrape::target::encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

fn period(asked: Option<PromDuration>, default: Duration) -> Result<Duration, String> {
    let period = asked.map_or(default, |period| period.0);
    if period.is_zero() { Err("refresh_interval is zero".to_owned()) } else { Ok(period) }
}
