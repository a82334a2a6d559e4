//! A "now" for deadlines: follows the wall clock forward, never goes back with it.
//!
//! A wall clock that is set back by an hour must not keep traces open for an hour; while it is
//! behind, time goes on by what really passed.

use std::sync::Arc;
use std::time::Duration;

use windrose_proto::time::{Clock, UnixNanos};

/// The joiner's time.
#[derive(Debug)]
pub(super) struct SteadyClock {
    wall: Arc<dyn Clock>,
    last: UnixNanos,
    /// On the clock that never goes back.
    read_at: Duration,
}

impl SteadyClock {
    pub(super) fn new(wall: Arc<dyn Clock>) -> Self {
        let (last, read_at) = (wall.now(), wall.monotonic());
        Self { wall, last, read_at }
    }

    /// The time, never before what was returned earlier.
    pub(super) fn now(&mut self) -> UnixNanos {
        let read_at = self.wall.monotonic();
        self.last = later(self.last, read_at.saturating_sub(self.read_at), self.wall.now());
        self.read_at = read_at;
        self.last
    }
}

fn later(last: UnixNanos, passed: Duration, wall: UnixNanos) -> UnixNanos {
    last.plus(passed).max(wall)
}

#[cfg(test)]
mod tests {
    use super::later;
    use std::time::Duration;
    use windrose_proto::time::UnixNanos;

    #[test]
    fn time_goes_on_while_the_wall_clock_is_behind_and_jumps_with_it() {
        let check = |wall, expect| {
            let now = later(UnixNanos::from_secs(1_000), Duration::from_secs(1), UnixNanos::from_secs(wall));
            assert_eq!(now, UnixNanos::from_secs(expect), "wall clock at {wall}");
        };
        check(1_001, 1_001);
        check(400, 1_001);
        check(5_000, 5_000);
    }
}
