//! What the process counts about itself.

use std::sync::atomic::{AtomicU64, Ordering};

/// What one port counts.
#[derive(Debug, Default)]
pub struct PortStats {
    opened: AtomicU64,
    closed: AtomicU64,
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct OpenConnection<'a>(&'a PortStats);

impl PortStats {
    /// Counts a connection as open until the guard is dropped.
    pub(crate) fn connection(&self) -> OpenConnection<'_> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        OpenConnection(self)
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.closed.fetch_add(1, Ordering::Relaxed);
    }
}
