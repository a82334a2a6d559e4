//! Attempts of one request: their numbers, which one counts as the call, and where the trouble
//! began (rules Q1, Q2, A6, RC1).

use std::collections::BTreeMap;

use hashbrown::HashMap;
use windrose_proto::hop::Node;
use windrose_proto::id::SpanId;
use windrose_proto::model::{Direction, Protocol, Vantage};

use super::hops::Draft;
use super::rows::{RowId, Rows};
use super::tree::Intervals;

/// Q1, Q1b, Q2: several callee entries under one span that covers all attempts are the attempts. Each
/// shows its own outcome; the last one shows what the caller got and how long it waited.
pub(super) fn number(rows: &Rows<'_>, drafts: &mut [Draft]) {
    let mut by_call: HashMap<CallKey, Vec<usize>> = HashMap::new();
    for (index, draft) in drafts.iter().enumerate() {
        if let Some(key) = CallKey::of(rows, draft) {
            by_call.entry(key).or_default().push(index);
        }
    }
    for (key, mut attempts) in by_call.into_iter().filter(|(_, attempts)| attempts.len() > 1) {
        attempts.sort_by_key(|index| {
            let server = drafts[*index].pair.server.map(|server| rows.get(server).span.start);
            (server, *index)
        });
        let mut number = 0_u8;
        let mut previous: Option<usize> = None;
        for index in attempts {
            let follows = previous.is_some_and(|previous| key.is_next_attempt(&drafts[previous]));
            number = if follows { number.saturating_add(1) } else { 0 };
            if let Some(previous) = previous.filter(|_| follows) {
                show_own_outcome(rows, &mut drafts[previous]);
            }
            drafts[index].hop.retry = number;
            previous = Some(index);
        }
    }
}

/// What the callee entries of one call have in common.
#[derive(PartialEq, Eq, Hash)]
enum CallKey {
    /// The span that covers all attempts.
    Span(RowId),
    /// Q1b: the span that made them never came; they name it, and went to one service.
    Missing { parent: SpanId, node: u32 },
}

impl CallKey {
    /// `None` for what was not tried more than once, as far as can be told.
    fn of(rows: &Rows<'_>, draft: &Draft) -> Option<Self> {
        let server = draft.pair.server.filter(|_| may_be_attempt(draft))?;
        let Some(client) = draft.pair.client else {
            let entry = rows.get(server);
            let parent = entry.span.parent_span_id.filter(|_| entry.misses_parent())?;
            return entry.kind.is_envoy_family().then_some(Self::Missing { parent, node: entry.node });
        };
        (covers_all_attempts(rows, client) || draft.pair.is_adopted).then_some(Self::Span(client))
    }

    /// Whether what follows `earlier` tried the same again. A span that makes one call says so by itself; of one that
    /// never came only a failure does.
    fn is_next_attempt(&self, earlier: &Draft) -> bool {
        match self {
            Self::Span(_) => true,
            Self::Missing { .. } => earlier.hop.error,
        }
    }
}

/// Copies, legs within a pod and messages are not tried again, though they may share the caller's span.
fn may_be_attempt(draft: &Draft) -> bool {
    !draft.hop.mirror && draft.hop.direction != Direction::Local && draft.hop.protocol != Protocol::Messaging
}

fn show_own_outcome(rows: &Rows<'_>, draft: &mut Draft) {
    let Some(server) = draft.pair.server.map(|server| rows.get(server)) else { return };
    let outcome = &server.outcome;
    let hop = &mut draft.hop;
    hop.http_status = outcome.http_status;
    hop.grpc_status = outcome.grpc_status;
    hop.error = outcome.error;
    hop.fault = outcome.fault;
    hop.fault_at = None;
    hop.reasons = outcome.reasons.clone();
    hop.client_nanos = None;
    hop.skew_nanos = None;
    hop.late_server_nanos = None;
}

/// A6: an attempt is superseded by the next of the same request.
pub(super) fn mark_final(rows: &Rows<'_>, drafts: &mut [Draft]) {
    if drafts.iter().all(|draft| draft.hop.retry == 0) {
        return;
    }
    let superseded = superseded(rows, drafts);
    drafts.iter_mut().zip(superseded).for_each(|(draft, superseded)| draft.hop.is_final = !superseded);
}

fn superseded(rows: &Rows<'_>, drafts: &[Draft]) -> Vec<bool> {
    let mut order: Vec<usize> = (0..drafts.len()).filter(|index| may_be_attempt(&drafts[*index])).collect();
    order.sort_by_key(|index| (drafts[*index].order(), *index));
    // Per request and attempt number, the attempts not superseded yet with their places in the order.
    let mut standing: HashMap<_, BTreeMap<u8, Vec<(usize, usize)>>> = HashMap::new();
    let mut superseded = vec![false; drafts.len()];
    for (place, index) in order.into_iter().enumerate() {
        let draft = &drafts[index];
        let before = standing.entry(request_of(rows, draft)).or_default();
        // A higher number ends the latest attempt with a lower one.
        let lower = before.range_mut(..draft.hop.retry).map(|(_, attempts)| attempts);
        if let Some((_, ended)) = lower.max_by_key(|attempts| attempts.last().copied()).and_then(Vec::pop) {
            superseded[ended] = true;
        }
        before.entry(draft.hop.retry).or_default().push((place, index));
    }
    superseded
}

/// What makes attempts those of one request.
#[derive(PartialEq, Eq, Hash)]
enum RequestKey<'d> {
    /// The span that covers them all.
    Span(RowId),
    /// The visit they were made in and the nodes they join.
    Visit { entry: Option<RowId>, source: (&'d str, Option<&'d str>), destination: (&'d str, Option<&'d str>) },
}

fn request_of<'d>(rows: &Rows<'_>, draft: &'d Draft) -> RequestKey<'d> {
    // One adopted is an attempt beside those that came.
    let is_one = |client: &RowId| !draft.pair.is_adopted && covers_all_attempts(rows, *client);
    if let Some(client) = draft.pair.client.filter(is_one) {
        return RequestKey::Span(client);
    }
    let name = |node: &'d Node| (&*node.service, node.namespace.as_deref());
    RequestKey::Visit {
        entry: draft.pair.client.and_then(|client| rows.get(client).entry),
        source: name(&draft.hop.source),
        destination: name(&draft.hop.destination),
    }
}

/// Whether one span stands for all attempts of its request.
fn covers_all_attempts(rows: &Rows<'_>, client: RowId) -> bool {
    let row = rows.get(client);
    row.vantage == Vantage::Single || (row.vantage == Vantage::Downstream && row.is_client_half())
}

/// Nobody waits for a copy, and a leg within a pod is no call.
fn may_be_cause(draft: &Draft) -> bool {
    !draft.hop.mirror && draft.hop.direction != Direction::Local
}

/// RC1: the root cause is the failed call below whose callee no call failed; the latest of them.
pub(super) fn mark_root_cause(rows: &Rows<'_>, drafts: &mut [Draft]) {
    let failed: Vec<usize> =
        (0..drafts.len()).filter(|index| drafts[*index].hop.error && may_be_cause(&drafts[*index])).collect();
    if failed.is_empty() {
        return;
    }
    let intervals = Intervals::of(&rows.rows);
    // How many failed calls were made by rows entered before each point of the walk.
    let mut made_before = vec![0_u32; rows.len() + 1];
    for client in failed.iter().filter_map(|index| drafts[*index].pair.client) {
        made_before[intervals.enter[client as usize] as usize + 1] += 1;
    }
    for place in 1..made_before.len() {
        made_before[place] += made_before[place - 1];
    }
    let fails_below = |draft: &Draft| {
        let Some(server) = draft.pair.server.or(draft.pair.via) else { return false };
        let (enter, leave) = (intervals.enter[server as usize], intervals.leave[server as usize]);
        let below = made_before[leave as usize] - made_before[enter as usize];
        let own = draft.pair.client.is_some_and(|client| intervals.contains(server, client));
        below > u32::from(own)
    };
    let cause = failed
        .into_iter()
        .filter(|index| drafts[*index].hop.is_final && !fails_below(&drafts[*index]))
        .max_by_key(|index| (drafts[*index].hop.start, std::cmp::Reverse(*index)));
    if let Some(index) = cause {
        drafts[index].hop.root_cause = true;
    }
}
