//! SIGTERM and SIGINT: the first asks the process to end in good order, the second insists.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

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

#[expect(clippy::exit, reason = "the operator insists; what was acknowledged is in the log")]
fn insist() {
    std::process::exit(1);
}
