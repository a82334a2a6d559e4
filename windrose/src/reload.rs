//! Reading the configuration again while the process runs: on SIGHUP and on `POST /-/reload`.
//!
//! Scrape configurations take effect; targets that are the same before and after go on undisturbed.
//! Every other key that changed is named as needing a restart. A file that cannot be read or does
//! not hold together leaves everything as it was, and the answer says why.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use windrose_collector::scrape::ScrapeHandle;

use crate::config::{Effective, Loaded};

/// Loads the configuration as it is now; the error is for the operator.
pub type ConfigSource = Arc<dyn Fn() -> Result<Loaded, String> + Send + Sync>;

/// Brings changes of the configuration into force.
pub struct Reloader {
    source: ConfigSource,
    scrape: ScrapeHandle,
    /// What is in force; held while reloading, so that two reloads come one after the other.
    current: Mutex<Loaded>,
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys whose change takes effect at the next start.
    pub need_restart: Vec<String>,
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").finish_non_exhaustive()
    }
}

impl Reloader {
    pub(crate) fn new(source: ConfigSource, scrape: ScrapeHandle, current: Loaded) -> Self {
        Self { source, scrape, current: Mutex::new(current) }
    }

    /// Reads the configuration again. Reads files; not for a runtime's own thread.
    ///
    /// # Errors
    /// When the configuration cannot be read; nothing has changed then.
    pub fn reload(&self) -> Result<Reloaded, String> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = (self.source)().inspect_err(|error| {
            tracing::error!(error, "the configuration was not reloaded; everything goes on as it was");
        })?;
        self.scrape.reload(loaded.config.scrape.clone());
        let need_restart = changed(&current.effective, &loaded.effective);
        if need_restart.is_empty() {
            tracing::info!("configuration reloaded");
        } else {
            tracing::warn!(keys = need_restart.join(", "), "configuration reloaded; these keys need a restart");
        }
        // The keys that need a restart stay different until there is one, so they are told each time.
        current.scrape_yaml = loaded.scrape_yaml;
        current.config.scrape = loaded.config.scrape;
        Ok(Reloaded { need_restart })
    }

    /// The configuration in force as YAML, secrets blanked.
    #[must_use]
    pub fn effective_yaml(&self) -> String {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        crate::config::effective_yaml(&current.effective, &current.scrape_yaml)
    }
}

/// Keys whose values differ, by name.
fn changed(before: &[Effective], after: &[Effective]) -> Vec<String> {
    let differs = |one: &Effective, others: &[Effective]| {
        !others.iter().any(|other| other.path == one.path && other.value == one.value)
    };
    let mut paths: Vec<String> = before.iter().filter(|one| differs(one, after)).map(|one| one.path.clone()).collect();
    paths.extend(after.iter().filter(|one| differs(one, before)).map(|one| one.path.clone()));
    paths.sort_unstable();
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests {
    use super::changed;
    use crate::config::{Config, Overrides};

    #[track_caller]
    fn check(before: &str, after: &str, expect: &[&str]) {
        let effective = |yaml| Config::load(Some(("test", yaml)), &Overrides::default()).unwrap().effective;
        assert_eq!(changed(&effective(before), &effective(after)), expect, "{before} -> {after}");
    }

    #[test]
    fn changed_keys_are_named() {
        check("", "", &[]);
        check("", "scrape_configs: [{job_name: a}]", &[]);
        check("query: {timeout: 5s}", "query: {timeout: 6s}", &["query.timeout"]);
        check("query: {timeout: 5s}", "", &["query.timeout"]);
        check("wal: {sync: never}", "log: {level: debug}", &["log.level", "wal.sync"]);
    }
}
