//! SIGTERM and SIGINT: the first asks the process to end in good order, the second insists. SIGHUP
//! asks it to read its configuration again.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::reload::Reloader;

/// What asks the process to end.
#[derive(Debug)]
pub(crate) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Takes the signals over. Call it inside a runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Returns when the process is asked to end. From then on a second signal ends it at once.
    pub(crate) async fn requested(mut self) {
        self.next().await;
        tokio::spawn(async move {
            self.next().await;
            tracing::warn!("second signal: ending without waiting");
            insist();
        });
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What asks for the configuration to be read again.
#[derive(Debug)]
pub(crate) struct Reload(Signal);

impl Reload {
    /// Takes the signal over. Call it inside a runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn listen() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Reloads on each signal, for ever. How it went is in the log.
    pub(crate) async fn on_each(mut self, reloader: Arc<Reloader>) {
        while self.0.recv().await.is_some() {
            let reloader = Arc::clone(&reloader);
            let reloading = tokio::task::spawn_blocking(move || drop(reloader.reload()));
            if let Err(error) = reloading.await {
                tracing::error!(%error, "reloading the configuration panicked");
            }
        }
    }
}

#[expect(clippy::exit, reason = "the operator insists; what was acknowledged is in the log")]
fn insist() {
    std::process::exit(1);
}
