//! From discovered labels to a target that can be scraped. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use super::config::{PoolConfig, TargetGroup};
use super::relabel::{self, LabelSet};
use super::value::PromDuration;
use crate::metrics_map::TargetIdentity;

#[cfg(test)]
mod tests;

/// One thing to scrape.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The job it belongs to.
    pub pool: Arc<PoolConfig>,
    pub url: Uri,
    /// What its series carry: no name begins with `__`.
    pub labels: LabelSet,
    /// Before relabelling.
    pub discovered: LabelSet,
    pub interval: Duration,
    pub timeout: Duration,
    /// Who it is in the topology.
    pub identity: TargetIdentity,
}

/// What became of a discovered address.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolved {
    Target(Box<Target>),
    /// Relabelling dropped it.
    Dropped(LabelSet),
    /// It cannot be scraped.
    Invalid {
        discovered: LabelSet,
        reason: String,
    },
}

/// Every address of a group.
pub fn resolve_group<'a>(pool: &'a Arc<PoolConfig>, group: &'a TargetGroup) -> impl Iterator<Item = Resolved> + 'a {
    group.targets.iter().map(|address| resolve(pool, address, &group.labels))
}

fn resolve(pool: &Arc<PoolConfig>, address: &str, group_labels: &BTreeMap<String, String>) -> Resolved {
    let discovered = discovered_labels(pool, address, group_labels);
    let mut labels = discovered.clone();
    if !relabel::apply(&pool.relabel.rules, &mut labels) {
        return Resolved::Dropped(discovered);
    }
    match build(pool, labels, &discovered) {
        Ok(target) => Resolved::Target(Box::new(target)),
        Err(reason) => Resolved::Invalid { discovered, reason },
    }
}

/// The labels relabelling sees: the group's own before the job's.
fn discovered_labels(pool: &PoolConfig, address: &str, group_labels: &BTreeMap<String, String>) -> LabelSet {
    let mut labels: LabelSet = group_labels.clone();
    labels.insert("__address__".to_owned(), address.to_owned());
    let defaults = [
        ("job", pool.job_name.clone()),
        ("__scheme__", pool.scheme.as_str().to_owned()),
        ("__metrics_path__", pool.metrics_path.clone()),
        ("__scrape_interval__", PromDuration(pool.interval).to_string()),
        ("__scrape_timeout__", PromDuration(pool.timeout).to_string()),
    ];
    for (name, value) in defaults {
        labels.entry(name.to_owned()).or_insert(value);
    }
    for (name, values) in &pool.params {
        if let Some(first) = values.first() {
            labels.entry(format!("__param_{name}")).or_insert_with(|| first.clone());
        }
    }
    labels.retain(|_, value| !value.is_empty());
    labels
}

fn build(pool: &Arc<PoolConfig>, mut labels: LabelSet, discovered: &LabelSet) -> Result<Target, String> {
    let address = labels.get("__address__").cloned().ok_or("no address")?;
    if address.contains('/') {
        return Err(format!("\"{address}\" is not a valid hostname"));
    }
    let duration = |name: &str, what: &str| {
        let text = labels.get(name).map_or("", String::as_str);
        PromDuration::parse(text)
            .map(|duration| duration.0)
            .ok_or_else(|| format!("error parsing scrape {what}: `{text}`"))
    };
    let interval = duration("__scrape_interval__", "interval")?;
    let timeout = duration("__scrape_timeout__", "timeout")?;
    if interval.is_zero() {
        return Err("scrape interval cannot be 0".to_owned());
    }
    if timeout.is_zero() {
        return Err("scrape timeout cannot be 0".to_owned());
    }
    if timeout > interval {
        let (timeout, interval) = (PromDuration(timeout), PromDuration(interval));
        return Err(format!("scrape timeout cannot be greater than scrape interval (\"{timeout}\" > \"{interval}\")"));
    }
    let url = url(pool, &labels, &address)?;
    labels.entry("instance".to_owned()).or_insert(address);
    // `__meta_` and every other internal label is gone once the target is made.
    labels.retain(|name, _| !name.starts_with("__"));
    let identity = TargetIdentity::from_labels(labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    Ok(Target { pool: Arc::clone(pool), url, labels, discovered: discovered.clone(), interval, timeout, identity })
}

fn url(pool: &PoolConfig, labels: &LabelSet, address: &str) -> Result<Uri, String> {
    let scheme = labels.get("__scheme__").map_or("http", String::as_str);
    if !matches!(scheme, "http" | "https") {
        return Err(format!("invalid scheme `{scheme}`"));
    }
    let path = labels.get("__metrics_path__").map_or("/metrics", String::as_str);
    let slash = if path.starts_with('/') { "" } else { "/" };
    let query = query(pool, labels);
    let joint = match (query.is_empty(), path.contains('?')) {
        (true, _) => "",
        (false, false) => "?",
        (false, true) => "&",
    };
    let text = format!("{scheme}://{address}{slash}{path}{joint}{query}");
    text.parse().map_err(|error| format!("invalid URL `{text}`: {error}"))
}

/// The job's parameters; relabelling may have set the first value of each, or added some.
fn query(pool: &PoolConfig, labels: &LabelSet) -> String {
    let mut params: BTreeMap<&str, Vec<&str>> =
        pool.params.iter().map(|(name, values)| (name.as_str(), values.iter().map(String::as_str).collect())).collect();
    for (label, value) in labels {
        if let Some(name) = label.strip_prefix("__param_") {
            let values = params.entry(name).or_default();
            match values.first_mut() {
                Some(first) => *first = value,
                None => values.push(value),
            }
        }
    }
    let mut query = String::new();
    for (name, values) in params {
        for value in values {
            query.extend([if query.is_empty() { "" } else { "&" }, &encode(name), "=", &encode(value)]);
        }
    }
    query
}

/// Percent-encoding of a query part.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            b' ' => encoded.push('+'),
            _ => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                encoded.push('%');
                encoded.push(char::from(DIGITS[usize::from(byte >> 4)]));
                encoded.push(char::from(DIGITS[usize::from(byte & 15)]));
            }
        }
    }
    encoded
}

impl Target {
    /// What makes it this target: after a reload a target with the same key goes on undisturbed.
    #[must_use]
    pub fn key(&self) -> TargetKey {
        TargetKey {
            url: self.url.to_string(),
            labels: self.labels.clone(),
            interval: self.interval,
            timeout: self.timeout,
        }
    }

    /// Where in its interval it is scraped: spread by what it is, so that the targets of a job do
    /// not come all at once, and the same from start to start.
    #[must_use]
    pub fn offset_nanos(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut feed = |text: &str| {
            for byte in text.bytes().chain([0]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        feed(&self.url.to_string());
        self.labels.iter().for_each(|(name, value)| {
            feed(name);
            feed(value);
        });
        // The low bits of this hash are weak and the interval is a round number.
        let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let interval = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        (mixed >> 8) % interval
    }
}

/// See [`Target::key`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TargetKey {
    url: String,
    labels: LabelSet,
    interval: Duration,
    timeout: Duration,
}
