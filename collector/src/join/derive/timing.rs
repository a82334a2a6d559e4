//! Clocks of the two halves of a hop (rules K). Stored times are never rewritten.

use windrose_proto::model::{Protocol, SpanKind};

use super::hops::Halves;

/// Below this, halves that do not nest are scheduling and rounding, not clocks: on one host with
/// one clock, callees were measured to end up to 1.66 ms after their caller.
const TOLERANCE_NANOS: i128 = 2_000_000;

/// What the clocks say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Timing {
    /// To be added to the callee's clock.
    pub(super) skew_nanos: Option<i64>,
    pub(super) late_server_nanos: Option<u64>,
    pub(super) queue_nanos: Option<u64>,
}

/// K0–K4; nothing unless both halves were seen.
pub(super) fn timing(halves: &Halves<'_, '_>) -> Timing {
    let (Some(client), Some(server)) = (halves.client, halves.server) else { return Timing::default() };
    if halves.is_inferred {
        return Timing::default();
    }
    let is_messaging = server.span.protocol == Protocol::Messaging || client.span.kind == SpanKind::Producer;
    let client_times = (i128::from(client.span.start.0), i128::from(client.span.end.0));
    let server_times = (i128::from(server.span.start.0), i128::from(server.span.end.0));
    if is_messaging {
        // K0: the consumer starts after the producer ended.
        let queued = server_times.0 - client_times.1;
        return Timing { queue_nanos: u64::try_from(queued).ok(), ..Timing::default() };
    }
    request_timing(client_times, server_times)
}

/// K1–K4 for start and end of either half.
fn request_timing((client_start, client_end): (i128, i128), (server_start, server_end): (i128, i128)) -> Timing {
    let (waited, worked) = (client_end - client_start, server_end - server_start);
    let starts_inside = server_start >= client_start - TOLERANCE_NANOS;
    let ends_inside = server_end <= client_end + TOLERANCE_NANOS;
    let skew = |nanos: i128| Timing { skew_nanos: i64::try_from(nanos).ok(), ..Timing::default() };
    match () {
        // K1
        () if starts_inside && ends_inside => Timing::default(),
        // K2: it would fit: put it in the middle.
        () if worked <= waited => skew(client_start + (waited - worked) / 2 - server_start),
        // K3
        () if server_start < client_start => skew(client_start - server_start),
        // K4: the callee went on after the caller had given up.
        () => Timing { late_server_nanos: u64::try_from(server_end - client_end).ok(), ..Timing::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::{Timing, request_timing};

    const MS: i128 = 1_000_000;

    #[track_caller]
    fn check(client: (i128, i128), server: (i128, i128), expect: Timing) {
        let scale = |(start, end)| (start * MS, end * MS);
        assert_eq!(request_timing(scale(client), scale(server)), expect);
    }

    #[test]
    fn clocks() {
        let skew = |ms: i64| Timing { skew_nanos: Some(ms * 1_000_000), ..Timing::default() };
        check((0, 100), (10, 90), Timing::default());
        check((0, 100), (-1, 101), Timing::default());
        check((0, 100), (200, 280), skew(-190));
        check((0, 100), (-50, 30), skew(60));
        check((0, 100), (-50, 150), skew(50));
        check((0, 100), (10, 300), Timing { late_server_nanos: Some(200_000_000), ..Timing::default() });
    }
}
