//! Requests of gateways by their request id (rules L1, L2).
//!
//! Proxies write the request id they forward into their spans. Where trace context is lost (an
//! application that forwards only some headers, two tracers with two header formats) the id still
//! tells that a trace without a gateway goes on with the request of a trace that has one.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;
use windrose_proto::Text;
use windrose_proto::hop::{Derived, Entry, EntryRoute};
use windrose_proto::id::TraceId;
use windrose_proto::model::Direction;
use windrose_proto::normal::Link;
use windrose_proto::time::UnixNanos;

/// Requests remembered; about 400 bytes each. Ten minutes of 500 requests per second.
const REQUESTS_MAX: usize = 300_000;

/// Requests with one id that are told apart by time. Clients that retry with the id of the first
/// try have a handful; an id that more share identifies nothing.
const PER_ID_MAX: usize = 8;

/// Calls without a callee's span remembered per request; a gateway makes one per attempt.
const CALLS_MAX: usize = 16;

/// How far outside the request's own time a trace may begin that goes on with it: clocks differ,
/// and work goes on after the answer (173 ms were measured).
const SLACK_NANOS: u64 = 5_000_000_000;

/// Several requests that a trace may go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conflict;

#[derive(Debug, PartialEq)]
struct Request {
    trace: TraceId,
    route: Arc<EntryRoute>,
    start: UnixNanos,
    end: UnixNanos,
    /// Calls to which no callee's span belongs: service, start, end.
    open_calls: SmallVec<[(Text, UnixNanos, UnixNanos); 1]>,
}

#[derive(Debug, Default)]
struct SameId {
    requests: SmallVec<[Request; 1]>,
    crowded: bool,
}

#[derive(Debug, Default)]
pub(super) struct RequestBook {
    by_id: HashMap<Text, SameId>,
    /// In the order in which they were first offered.
    offered: VecDeque<(UnixNanos, Text, TraceId)>,
    refused: u64,
}

impl RequestBook {
    /// Learns from a derived trace. The request id, when something about it is new.
    pub(super) fn offer(&mut self, derived: &Derived, now: UnixNanos) -> Option<Text> {
        let request = &derived.request;
        let Entry::Route(route) = &request.entry else { return None };
        // A trace that asks has no gateway of its own, whatever it was told.
        let asks =
            |question: &windrose_proto::hop::Question| matches!(question, windrose_proto::hop::Question::Entry { .. });
        let id = request.request_id.as_ref().filter(|id| !id.is_empty() && !derived.questions.iter().any(asks))?;
        let known = self.by_id.get(id).and_then(|same| same.requests.iter().find(|r| r.trace == request.trace_id));
        let offered = Request {
            trace: request.trace_id,
            route: Arc::clone(route),
            start: request.start,
            end: UnixNanos(request.start.0.saturating_add(request.duration_nanos)),
            open_calls: open_calls(derived),
        };
        if known == Some(&offered) {
            return None;
        }
        // The text is a slice of what was received, which must not be held for minutes.
        let id = Text::from(&**id);
        if known.is_none() {
            if self.offered.len() >= REQUESTS_MAX {
                self.refused += 1;
                self.forget_oldest();
            }
            self.offered.push_back((now, id.clone(), request.trace_id));
        }
        let same = self.by_id.entry(id.clone()).or_default();
        match same.requests.iter().position(|known| known.trace == request.trace_id) {
            Some(place) => same.requests[place] = offered,
            None if same.requests.len() >= PER_ID_MAX => same.crowded = true,
            None => same.requests.push(offered),
        }
        Some(id)
    }

    /// The request with this id that `trace`, which begins at `at` with `service`, goes on with.
    pub(super) fn link(
        &self,
        request_id: &Text,
        trace: TraceId,
        service: &str,
        at: UnixNanos,
    ) -> Option<Result<Arc<Link>, Conflict>> {
        let same = self.by_id.get(request_id)?;
        if same.crowded {
            return Some(Err(Conflict));
        }
        let around = |slack: u64| {
            let fits =
                move |request: &&Request| request.trace != trace && is_within(at, request.start, request.end, slack);
            same.requests.iter().filter(fits).collect::<SmallVec<[&Request; 2]>>()
        };
        let near = around(SLACK_NANOS);
        let found = match near.as_slice() {
            [] => return None,
            [only] => *only,
            _ => match around(0).as_slice() {
                [only] => *only,
                _ => return Some(Err(Conflict)),
            },
        };
        let continues_call = found
            .open_calls
            .iter()
            .any(|(callee, start, end)| &**callee == service && is_within(at, *start, *end, SLACK_NANOS));
        Some(Ok(Arc::new(Link { trace_id: found.trace, route: Arc::clone(&found.route), continues_call })))
    }

    /// Forgets what was offered before `oldest`.
    pub(super) fn sweep(&mut self, oldest: UnixNanos) {
        while self.offered.front().is_some_and(|(offered, ..)| *offered < oldest) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, id, trace)) = self.offered.pop_front() else { return };
        let Some(same) = self.by_id.get_mut(&id) else { return };
        same.requests.retain(|request| request.trace != trace);
        if same.requests.is_empty() {
            self.by_id.remove(&id);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.offered.len()
    }

    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }
}

fn is_within(at: UnixNanos, start: UnixNanos, end: UnixNanos, slack: u64) -> bool {
    start.0.saturating_sub(slack) <= at.0 && at.0 <= end.0.saturating_add(slack)
}

/// Calls that reached a service of which no span came with this trace.
fn open_calls(derived: &Derived) -> SmallVec<[(Text, UnixNanos, UnixNanos); 1]> {
    let open = derived.hops.iter().filter(|hop| hop.server_span.is_none() && hop.direction != Direction::Local);
    let call = |hop: &windrose_proto::hop::Hop| {
        let end = UnixNanos(hop.start.0.saturating_add(hop.client_nanos.unwrap_or(0)));
        (hop.destination.service.clone(), hop.start, end)
    };
    open.take(CALLS_MAX).map(call).collect()
}
