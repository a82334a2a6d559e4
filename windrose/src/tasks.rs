//! Tasks and channels: the one place of the process where they are made.
//!
//! Every task has a name and an owner, is told to stop by a token, and is awaited at the end.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A group of tasks that end together.
#[derive(Clone, Debug)]
pub struct Tasks {
    runtime: Handle,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// A group on `runtime`.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Self { runtime, tracker: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// Starts a task. It must end soon after [`Self::stopping`] fires.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn_on(
            async move {
                task.await;
                tracing::debug!(task = name, "task ended");
            },
            &self.runtime,
        );
    }

    /// Fires when the group is to end.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Asks all tasks to end and waits until they have.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Where the tasks run.
    #[must_use]
    pub const fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

/// A channel whose sender waits while `capacity` messages are not taken yet.
pub(crate) fn channel<T>(capacity: usize) -> (mpsc::Sender<T>, mpsc::Receiver<T>) {
    mpsc::channel(capacity)
}
