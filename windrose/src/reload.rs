//! Reading the configuration again while the process runs: on SIGHUP and on `POST /-/reload`.
//!
//! Scrape configurations take effect; targets that are the same before and after go on undisturbed.
//! Overrides of names, roles and hosts take effect for what is joined and counted from then on. Every
//! other key that changed is named as needing a restart. A file that cannot be read or does
//! not hold together leaves everything as it was, and the answer says why.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use windrose_collector::in_force::InForce;
use windrose_collector::scrape::ScrapeHandle;

use crate::config::{Effective, Loaded};

/// Loads the configuration as it is now; the error is for the operator.
pub type ConfigSource = Arc<dyn Fn() -> Result<Loaded, String> + Send + Sync>;

/// Brings changes of the configuration into force.
pub struct Reloader {
    source: ConfigSource,
    scrape: ScrapeHandle,
    overrides: InForce,
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
    pub(crate) fn new(source: ConfigSource, scrape: ScrapeHandle, overrides: InForce, current: Loaded) -> Self {
        Self { source, scrape, overrides, current: Mutex::new(current) }
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
        let (taken, need_restart): (Vec<String>, Vec<String>) =
            changed(&current.effective, &loaded.effective).into_iter().partition(|path| takes_effect(path));
        if !taken.is_empty() {
            self.overrides.replace(loaded.config.join.overrides.clone());
            tracing::info!(keys = taken.join(", "), "overrides are in force");
        }
        if need_restart.is_empty() {
            tracing::info!("configuration reloaded");
        } else {
            tracing::warn!(keys = need_restart.join(", "), "configuration reloaded; these keys need a restart");
        }
        // The keys that need a restart stay different until there is one, so they are told each time.
        current.scrape_yaml = loaded.scrape_yaml;
        current.config.scrape = loaded.config.scrape;
        current.config.join.overrides = loaded.config.join.overrides;
        take_over(&mut current.effective, loaded.effective);
        Ok(Reloaded { need_restart })
    }

    /// The configuration in force as YAML, secrets blanked.
    #[must_use]
    pub fn effective_yaml(&self) -> String {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        crate::config::effective_yaml(&current.effective, &current.scrape_yaml)
    }
}

/// Keys, besides the scraper's, that a reload puts into force.
const TAKES_EFFECT: &str = "join.overrides.";

fn takes_effect(path: &str) -> bool {
    path.starts_with(TAKES_EFFECT)
}

/// Makes what a reload put into force part of the effective configuration; the rest stays as it was at the start.
fn take_over(current: &mut [Effective], loaded: Vec<Effective>) {
    let mut taken: Vec<Effective> = loaded.into_iter().filter(|one| takes_effect(&one.path)).collect();
    for old in current.iter_mut().filter(|one| takes_effect(&one.path)) {
        if let Some(at) = taken.iter().position(|new| new.path == old.path) {
            *old = taken.swap_remove(at);
        }
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
    use super::{changed, take_over, takes_effect};
    use crate::config::{Config, Overrides};

    #[track_caller]
    fn check(before: &str, after: &str, expect: &[&str]) {
        let effective = |yaml| Config::load(Some(("test", yaml)), &Overrides::default()).unwrap().effective;
        assert_eq!(changed(&effective(before), &effective(after)), expect, "{before} -> {after}");
    }

    #[test]
    fn overrides_are_taken_over_and_nothing_else() {
        let effective = |yaml| Config::load(Some(("test", yaml)), &Overrides::default()).unwrap().effective;
        let mut current = effective("query: {timeout: 5s}");
        let loaded = effective("query: {timeout: 6s}\njoin: {overrides: {aliases: {a: b}, internal_suffixes: [x]}}");
        let paths = changed(&current, &loaded);
        assert_eq!(paths, ["join.overrides.aliases", "join.overrides.internal_suffixes", "query.timeout"]);
        assert_eq!(paths.iter().filter(|path| takes_effect(path)).count(), 2);
        take_over(&mut current, loaded.clone());
        assert_eq!(changed(&current, &loaded), ["query.timeout"]);
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
