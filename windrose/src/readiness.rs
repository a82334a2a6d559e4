//! Readiness: the process is ready when every part that said it would become ready has.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is still being waited for. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    pending: BTreeSet<&'static str>,
    draining: bool,
}

/// Held by a part that is not ready yet; dropping it says "ready". A part that fails to start keeps
/// it or ends the process.
#[derive(Debug)]
pub struct NotReadyYet {
    readiness: Readiness,
    part: &'static str,
}

impl Readiness {
    /// Registers a part that will become ready later.
    #[must_use]
    pub fn expect(&self, part: &'static str) -> NotReadyYet {
        self.lock().pending.insert(part);
        NotReadyYet { readiness: self.clone(), part }
    }

    /// From now on the process is not ready any more: it is going away.
    pub fn drain(&self) {
        self.lock().draining = true;
    }

    /// `Ok` when everything is ready, else what is missing.
    ///
    /// # Errors
    /// With the reasons, for people.
    pub fn check(&self) -> Result<(), String> {
        let state = self.lock();
        if state.draining {
            return Err("draining".to_owned());
        }
        if state.pending.is_empty() {
            return Ok(());
        }
        Err(format!("waiting for {}", state.pending.iter().copied().collect::<Vec<_>>().join(", ")))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A set of names is whole even after a panic elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for NotReadyYet {
    fn drop(&mut self) {
        self.readiness.lock().pending.remove(self.part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_nobody_is_waited_for() {
        let readiness = Readiness::default();
        let recovery = readiness.expect("recovery");
        let ports = readiness.expect("ports");
        assert_eq!(readiness.check(), Err("waiting for ports, recovery".to_owned()));
        drop(recovery);
        assert_eq!(readiness.check(), Err("waiting for ports".to_owned()));
        drop(ports);
        assert_eq!(readiness.check(), Ok(()));
        readiness.drain();
        assert_eq!(readiness.check(), Err("draining".to_owned()));
    }
}
