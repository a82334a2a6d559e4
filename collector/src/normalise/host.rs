//! Hosts: inside or outside the mesh (rule X), and which service a host names.
//!
//! Pure and without allocation: every answer is a slice of the host it was asked about.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

#[cfg(test)]
mod tests;

/// Suffixes of names that only resolve inside a mesh or a cluster.
const INTERNAL_SUFFIXES: &[&str] =
    &[".svc", ".svc.cluster.local", ".cluster.local", ".internal", ".local", ".consul", ".mesh"];

/// A range of addresses in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix_len: u8,
}

/// Why a text is not a CIDR range.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not a range of addresses such as 10.0.0.0/8 or fd00::/8")]
pub struct CidrError(pub String);

/// What operators say about hosts. Their lists come before the built-in rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRules {
    /// Name endings that are inside, lower case, with or without a leading dot.
    pub internal_suffixes: Vec<String>,
    /// Addresses that are inside.
    pub internal_cidrs: Vec<Cidr>,
    /// Hosts that are outside whatever they look like; a leading `*.` or `.` covers subdomains.
    pub external_hosts: Vec<String>,
}

/// The service (and namespace) a host names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HostService<'a> {
    pub service: Option<&'a str>,
    pub namespace: Option<&'a str>,
}

/// Whether `host` is inside the mesh by the built-in rule X: private addresses, names without a
/// dot and names under mesh DNS. `host` carries neither scheme nor port; see [`host_of`].
#[must_use]
pub fn is_internal_host(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    match host.parse::<IpAddr>() {
        Ok(ip) => is_private_ip(ip),
        Err(_) => {
            !host.contains('.')
                || INTERNAL_SUFFIXES.iter().any(|suffix| ends_with_ignore_case(host, suffix))
                || contains_svc_label(host)
        }
    }
}

/// The service a host names, by the built-in rule.
#[must_use]
pub fn service_of_host(host: &str) -> HostService<'_> {
    HostRules::default().service_of(host)
}

/// The host of a URL, an authority or a `host:port`, without brackets, user and port.
#[must_use]
pub fn host_of(address: &str) -> Option<&str> {
    let rest = match address.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => rest,
        _ => address,
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = if let Some(bracketed) = authority.strip_prefix('[') {
        bracketed.split(']').next().unwrap_or(bracketed)
    } else {
        match authority.rsplit_once(':') {
            // Several colons without brackets are a bare IPv6 address.
            Some((host, port)) if !host.contains(':') && is_port(port) => host,
            _ => authority,
        }
    };
    (!host.is_empty()).then_some(host)
}

// === impl HostRules ===

impl HostRules {
    /// Whether `host` is inside the mesh: operator lists first, then the built-in rule.
    #[must_use]
    pub fn is_internal(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        if self.external_hosts.iter().any(|pattern| matches_host(host, pattern)) {
            return false;
        }
        let listed = match host.parse::<IpAddr>() {
            Ok(ip) => self.internal_cidrs.iter().any(|range| range.contains(ip)),
            Err(_) => self.internal_suffixes.iter().any(|suffix| has_suffix(host, suffix)),
        };
        listed || is_internal_host(host)
    }

    /// The service a host names: `orders.shop.svc…` is `orders` in `shop`, an outside host stands
    /// for itself, an address names nobody.
    #[must_use]
    pub fn service_of<'a>(&self, host: &'a str) -> HostService<'a> {
        let host = host.trim_end_matches('.');
        if host.is_empty() || host.parse::<IpAddr>().is_ok() {
            return HostService::default();
        }
        let mut labels = host.split('.');
        let (first, second, third) = (labels.next(), labels.next(), labels.next());
        if third.is_some_and(|label| label.eq_ignore_ascii_case("svc")) {
            return HostService { service: first, namespace: second };
        }
        // A name with one dot is `service.namespace` only when it is inside.
        match (second, third) {
            (Some(_), None) if self.is_internal(host) => HostService { service: first, namespace: second },
            _ => HostService { service: Some(host), namespace: None },
        }
    }
}

// === impl Cidr ===

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

impl Cidr {
    /// Reads `10.0.0.0/8`, `fd00::/8`, or a single address.
    ///
    /// # Errors
    /// When the text is neither.
    pub fn parse(text: &str) -> Result<Self, CidrError> {
        let error = || CidrError(text.to_owned());
        let (network, prefix) = match text.split_once('/') {
            Some((network, prefix)) => (network, Some(prefix)),
            None => (text, None),
        };
        let network: IpAddr = network.trim().parse().map_err(|_| error())?;
        let longest = if network.is_ipv4() { 32 } else { 128 };
        let prefix_len = match prefix {
            Some(prefix) => prefix.trim().parse::<u8>().map_err(|_| error())?,
            None => longest,
        };
        if prefix_len > longest {
            return Err(error());
        }
        Ok(Self { network, prefix_len })
    }

    /// Whether `ip` lies in the range. An IPv4 address never lies in an IPv6 range.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.network, ip) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => {
                let shift = 32_u32.saturating_sub(u32::from(self.prefix_len));
                u32::from(network).checked_shr(shift) == u32::from(ip).checked_shr(shift)
            }
            (IpAddr::V6(network), IpAddr::V6(ip)) => {
                let shift = 128_u32.saturating_sub(u32::from(self.prefix_len));
                u128::from(network).checked_shr(shift) == u128::from(ip).checked_shr(shift)
            }
            _ => false,
        }
    }
}

// === helpers ===

/// Whether an address is inside: private, loopback, link-local, CGNAT or unique local.
#[must_use]
pub fn is_private_ip(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_private_v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(v4) => is_private_v4(v4),
            None => is_private_v6(ip),
        },
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    let carrier_grade_nat = a == 100 && (64..128).contains(&b);
    ip.is_private() || ip.is_loopback() || ip.is_link_local() || carrier_grade_nat
}

fn is_private_v6(ip: Ipv6Addr) -> bool {
    ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'.' | b'-'))
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn ends_with_ignore_case(host: &str, suffix: &str) -> bool {
    let (host, suffix) = (host.as_bytes(), suffix.as_bytes());
    host.len() >= suffix.len() && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
}

/// `.svc.` inside or `.svc` at the end: mesh DNS with any cluster domain.
fn contains_svc_label(host: &str) -> bool {
    host.split('.').skip(1).any(|label| label.eq_ignore_ascii_case("svc"))
}

fn has_suffix(host: &str, suffix: &str) -> bool {
    let bare = suffix.trim_start_matches("*.").trim_start_matches('.').trim_end_matches('.');
    if bare.is_empty() || !ends_with_ignore_case(host, bare) {
        return false;
    }
    let rest = &host.as_bytes()[..host.len() - bare.len()];
    rest.is_empty() || rest.last() == Some(&b'.')
}

fn matches_host(host: &str, pattern: &str) -> bool {
    if pattern.starts_with("*.") || pattern.starts_with('.') {
        has_suffix(host, pattern)
    } else {
        host.eq_ignore_ascii_case(pattern.trim_end_matches('.'))
    }
}
