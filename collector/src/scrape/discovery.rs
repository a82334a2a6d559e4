//! Where targets come from: one file per kind of discovery.
//!
//! | file | what |
//! |---|---|
//! | `file.rs` | `file_sd_configs`, looked at by the manager |
//! | `http.rs` | `http_sd_configs` |
//! | `dns.rs` | `dns_sd_configs` |
//! | `kubernetes.rs` | `kubernetes_sd_configs` |
//!
//! All but files are tasks of their own, which publish what they [`Found`]. Whatever cannot be asked
//! or understood keeps the targets it had: a name server that is away must not stop the scraping of
//! a mesh.
//!
//! The only place of the scraper that reads files.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::config::{LookupConfig, TargetGroup};

mod dns;
mod file;
mod http;
mod kubernetes;

pub(super) use file::{Files, POLL_INTERVAL};

/// What a task of discovery found last. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    groups: Arc<Vec<TargetGroup>>,
    /// Why the last attempt failed.
    problem: Option<String>,
}

/// A task of discovery.
#[derive(Debug)]
pub(super) struct Lookup {
    found: Found,
    ended: CancellationToken,
}

impl Found {
    /// Nothing yet; `changed` is told of every change.
    pub(super) fn new(changed: Arc<Notify>) -> Self {
        Self { state: Arc::default(), changed }
    }

    fn publish(&self, groups: Vec<TargetGroup>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.problem.take().is_some() {
            tracing::info!("discovery works again");
        }
        if *state.groups != groups {
            state.groups = Arc::new(groups);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// The targets stay as they are. Told when it begins, not at every attempt.
    fn fail(&self, what: &str, problem: String) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.problem.as_ref() != Some(&problem) {
            tracing::warn!(what, error = problem, "discovery failed; targets kept as they were");
        }
        state.problem = Some(problem);
    }
}

impl Lookup {
    /// A lookup, and the task that does it until the lookup is dropped.
    pub(super) fn new(config: &LookupConfig, changed: &Arc<Notify>) -> (Self, impl Future<Output = ()> + use<>) {
        let found = Found::new(Arc::clone(changed));
        let ended = CancellationToken::new();
        let (task_found, task_ended, config) = (found.clone(), ended.clone(), config.clone());
        let task = async move {
            let follow = async {
                match &config {
                    LookupConfig::Http(config) => http::follow(config, &task_found).await,
                    LookupConfig::Dns(config) => dns::follow(config, &task_found).await,
                    LookupConfig::Kubernetes(config) => kubernetes::follow(config, &task_found).await,
                }
            };
            tokio::select! {
                () = task_ended.cancelled() => {}
                () = follow => {}
            }
        };
        (Self { found, ended }, task)
    }

    /// What was found last.
    pub(super) fn groups(&self) -> Arc<Vec<TargetGroup>> {
        Arc::clone(&self.found.state.lock().unwrap_or_else(PoisonError::into_inner).groups)
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

/// Asks again and again.
async fn poll<F>(what: &str, every: Duration, found: &Found, ask: impl Fn() -> F)
where
    F: Future<Output = Result<Vec<TargetGroup>, String>>,
{
    let mut turns = tokio::time::interval(every);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        match ask().await {
            Ok(groups) => found.publish(groups),
            Err(problem) => found.fail(what, problem),
        }
    }
}

/// A secret in a file, without the line end editors add. Blocking.
pub(super) fn read_secret(path: &str) -> std::io::Result<String> {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned())
}
