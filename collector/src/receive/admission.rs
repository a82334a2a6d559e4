//! Memory of requests in flight, bounded over all protocols and connections.
//!
//! A request pays for its body as it arrives and for what it decodes to; what it has paid comes
//! back when it is answered. Who finds nothing left waits a moment (HTTP/2 and TCP then hold the
//! sender back) and is refused after that: Envoy drops what takes too long anyway.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failure::Failure;

/// Bytes behind one permit: a semaphore counts to `u32` per request, and small requests are many.
const PERMIT_BYTES: usize = 1024;

/// When a refused sender should try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The memory all requests share.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    permits: Arc<Semaphore>,
    permits_max: usize,
    wait: Duration,
}

impl Admission {
    pub(super) fn new(in_flight_max_bytes: usize, wait: Duration) -> Self {
        let permits_max = (in_flight_max_bytes / PERMIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(permits_max)), permits_max, wait }
    }

    /// An account of one request with nothing on it.
    pub(super) fn open(&self) -> Account {
        Account { admission: self.clone(), paid: None, paid_permits: 0, bytes: 0 }
    }

    #[cfg(test)]
    pub(super) fn free_bytes(&self) -> usize {
        self.permits.available_permits() * PERMIT_BYTES
    }
}

/// What one request has paid; dropping it pays back.
#[derive(Debug)]
pub(super) struct Account {
    admission: Admission,
    paid: Option<OwnedSemaphorePermit>,
    paid_permits: usize,
    bytes: usize,
}

impl Account {
    /// Pays for `bytes` more. A request that needs more than there is at all gets everything, so
    /// that the largest allowed request can always pass, alone.
    pub(super) async fn pay(&mut self, bytes: usize) -> Result<(), Failure> {
        self.bytes = self.bytes.saturating_add(bytes);
        let due = self.bytes.div_ceil(PERMIT_BYTES).min(self.admission.permits_max) - self.paid_permits;
        if due == 0 {
            return Ok(());
        }
        let count = u32::try_from(due).map_err(|_| Failure::busy(RETRY_AFTER))?;
        let acquire = Arc::clone(&self.admission.permits).acquire_many_owned(count);
        // The semaphore is never closed; either failure means that there is no room.
        let Ok(Ok(permit)) = tokio::time::timeout(self.admission.wait, acquire).await else {
            return Err(Failure::busy(RETRY_AFTER));
        };
        self.paid_permits += due;
        match &mut self.paid {
            Some(paid) => paid.merge(permit),
            None => self.paid = Some(permit),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Admission, PERMIT_BYTES};
    use crate::receive::failure::FailureKind;

    /// Longer than any test takes.
    const WAIT: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn what_is_paid_comes_back() {
        let admission = Admission::new(10 * PERMIT_BYTES, Duration::ZERO);
        let mut first = admission.open();
        first.pay(1).await.unwrap();
        first.pay(PERMIT_BYTES - 1).await.unwrap();
        assert_eq!(admission.free_bytes(), 9 * PERMIT_BYTES, "one permit covers a whole KiB");
        first.pay(5 * PERMIT_BYTES).await.unwrap();
        assert_eq!(admission.free_bytes(), 4 * PERMIT_BYTES);

        let mut second = admission.open();
        let refused = second.pay(5 * PERMIT_BYTES).await.unwrap_err();
        assert!(matches!(refused.kind, FailureKind::Busy { .. }));
        drop(first);
        let mut third = admission.open();
        third.pay(10 * PERMIT_BYTES).await.unwrap();
        drop((second, third));
        assert_eq!(admission.free_bytes(), 10 * PERMIT_BYTES);
    }

    #[tokio::test]
    async fn the_waiting_is_served_when_room_comes() {
        let admission = Admission::new(2 * PERMIT_BYTES, WAIT);
        let mut first = admission.open();
        first.pay(2 * PERMIT_BYTES).await.unwrap();
        let mut second = admission.open();
        let waiting = second.pay(PERMIT_BYTES);
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(first);
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn a_request_larger_than_everything_passes_alone() {
        let admission = Admission::new(4 * PERMIT_BYTES, WAIT);
        let mut account = admission.open();
        account.pay(100 * PERMIT_BYTES).await.unwrap();
        assert_eq!(admission.free_bytes(), 0);
        drop(account);
        assert_eq!(admission.free_bytes(), 4 * PERMIT_BYTES);
    }
}
