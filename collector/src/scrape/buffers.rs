//! Memory that pages are read into, used again by the next page.
//!
//! Targets are scraped one after the other, spread over their interval, and their pages are of
//! similar length. A page of Istio's is 630 KB; without this, each would be grown by doubling in
//! memory that the operating system has to zero first, which cost as much as reading the lines.
//!
//! Memory: at most [`KEPT_MAX`] buffers of [`KEPT_BYTES_MAX`] wait; those in use are bounded by
//! the limits on pages.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Buffers that wait: pages in flight at one time, while targets do not stall.
const KEPT_MAX: usize = 4;

/// A longer page was an exception; its buffer goes.
const KEPT_BYTES_MAX: usize = 2 << 20;

/// Buffers that wait for the next page.
#[derive(Debug, Default)]
pub(super) struct PageBuffers(Mutex<Vec<Vec<u8>>>);

/// A buffer in use; it goes back when it is dropped.
#[derive(Debug)]
pub(super) struct PageBuffer {
    bytes: Vec<u8>,
    home: Arc<PageBuffers>,
}

impl PageBuffers {
    /// An empty buffer with room for `expected` bytes.
    pub(super) fn take(self: &Arc<Self>, expected: usize) -> PageBuffer {
        let mut bytes = self.waiting().pop().unwrap_or_default();
        bytes.reserve(expected);
        PageBuffer { bytes, home: Arc::clone(self) }
    }

    fn give_back(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        let mut waiting = self.waiting();
        if waiting.len() < KEPT_MAX && (1..=KEPT_BYTES_MAX).contains(&bytes.capacity()) {
            waiting.push(bytes);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PageBuffer {
    /// What it holds, to write to.
    pub(super) const fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What it holds, to keep; the buffer goes back with the last copy.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for PageBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for PageBuffer {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{KEPT_BYTES_MAX, KEPT_MAX, PageBuffers};

    #[test]
    fn a_buffer_is_used_again_and_starts_empty() {
        let buffers = Arc::new(PageBuffers::default());
        let mut buffer = buffers.take(100);
        buffer.bytes_mut().extend_from_slice(b"up 1\n");
        let place = buffer.as_ref().as_ptr();
        let page = buffer.freeze();
        let copy = page.slice(..2);
        drop(page);
        assert_eq!((&copy[..], buffers.waiting().len()), (&b"up"[..], 0), "a page in use keeps its buffer");
        drop(copy);
        let again = buffers.take(50);
        assert_eq!((again.as_ref(), again.as_ref().as_ptr()), (&b""[..], place));
    }

    #[test]
    fn what_waits_is_bounded() {
        let buffers = Arc::new(PageBuffers::default());
        let many: Vec<_> = (0..KEPT_MAX + 3).map(|_| buffers.take(10)).collect();
        drop(many);
        assert_eq!(buffers.waiting().len(), KEPT_MAX);
        buffers.waiting().clear();
        drop(buffers.take(KEPT_BYTES_MAX + 1));
        assert!(buffers.waiting().is_empty(), "a very long page was an exception");
    }
}
