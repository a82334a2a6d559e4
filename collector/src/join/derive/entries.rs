//! Where access log entries stand in a trace (rules L).
//!
//! An entry is a span that does not know its parent. Who called it is found by the connection it
//! came over, else by what callers say of their destination, else it began the trace; whose call it
//! is, by the visit of its process that it falls into. Guesses only ever link entries of one trace,
//! and counting does not rest on them: every entry of a caller is a call, linked or not.

use std::net::SocketAddr;

use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;
use windrose_proto::id::SpanId;
use windrose_proto::model::{NodeRole, Rule, SpanKind, Vantage};
use windrose_proto::normal::{NormalSpan, RoleHint};
use windrose_proto::time::UnixNanos;

use super::halves::is_gateway;
use super::rows::{Row, RowId, Rows};
use crate::normalise::node_id::{NodeId, NodeType};

/// Candidates looked at on either side of a place in time; keeps hostile traces linear.
const STEPS_MAX: usize = 64;

/// Entries of gateways that say that the request was sent on, by the id of the span that they confirm.
pub(super) type SentOn<'a> = HashMap<SpanId, &'a NormalSpan>;

/// L0: an entry of a span that was received confirms it and adds nothing but what L5 takes from it. Halves that share one
/// id are told apart by their node, or by their direction where a sender does not name its node.
pub(super) fn without_confirmed(spans: Vec<&NormalSpan>) -> (Vec<&NormalSpan>, SentOn<'_>) {
    if !spans.iter().any(|span| span.logged.is_some()) {
        return (spans, SentOn::new());
    }
    let mut received: HashMap<SpanId, SmallVec<[&NormalSpan; 2]>> = HashMap::new();
    for span in spans.iter().filter(|span| span.logged.is_none()) {
        let halves = received.entry(span.span_id).or_default();
        if halves.len() < STEPS_MAX {
            halves.push(span);
        }
    }
    let is_confirmation = |span: &NormalSpan| {
        let halves = received.get(&span.span_id).map(SmallVec::as_slice).unwrap_or_default();
        span.logged.is_some() && halves.iter().any(|half| is_of(span, half))
    };
    let (confirmations, others): (Vec<_>, Vec<_>) = spans.into_iter().partition(|span| is_confirmation(span));
    let sent_on = confirmations.into_iter().filter(|entry| is_sent_on(entry)).map(|entry| (entry.span_id, entry));
    (others, sent_on.collect())
}

fn is_sent_on(entry: &NormalSpan) -> bool {
    let has_upstream = entry.logged.as_ref().is_some_and(|connections| connections.endpoint.is_some());
    is_of_gateway(entry) && has_upstream && entry.vantage == Vantage::Single
}

/// Whether what the proxy passes on is the request that entered it, whichever kind of gateway it is.
fn is_of_gateway(entry: &NormalSpan) -> bool {
    let node_type = || entry.process.node_id.as_deref().and_then(NodeId::parse).map(|node| node.node_type);
    match entry.role {
        RoleHint::Known(role) => is_gateway(role) || role == NodeRole::Waypoint,
        RoleHint::InContext => matches!(node_type(), Some(NodeType::Router)),
    }
}

fn is_of(entry: &NormalSpan, span: &NormalSpan) -> bool {
    match (&entry.process.node_id, &span.process.node_id) {
        (Some(a), Some(b)) => a == b,
        _ => entry.identity.service == span.identity.service || entry.kind == span.kind,
    }
}

/// Gives entries their parents.
pub(super) fn link(rows: &mut Rows<'_>, sent_on: &SentOn<'_>) {
    join_gateways(rows, sent_on);
    if !rows.rows.iter().any(|row| row.is_entry_of_log()) {
        return;
    }
    let calls = Calls::of(rows);
    let visits = Visits::of(rows);
    let mut claimed = vec![false; rows.len()];
    for row in &rows.rows {
        if let Some(parent) = row.parent {
            claimed[parent as usize] = true;
        }
    }
    for id in rows.ids() {
        let row = rows.get(id);
        if !row.is_entry_of_log() || row.parent.is_some() {
            continue;
        }
        let parent = if is_leaving(row) { visits.around(rows, id) } else { calls.to(rows, id, &claimed) };
        if let Some(parent) = parent {
            claimed[parent as usize] = true;
            rows.get_mut(id).parent = Some(parent);
        }
    }
    for id in rows.ids() {
        if is_orphan(rows.get(id))
            && let Some(call) = calls.unanswered(rows, id, &claimed)
        {
            claimed[call as usize] = true;
            rows.get_mut(id).parent = Some(call);
        }
    }
    split_gateways(rows);
}

/// A span that entered its process, and whose parent never came.
fn is_orphan(row: &Row<'_>) -> bool {
    !row.is_entry_of_log() && row.vantage == Vantage::Downstream && row.misses_parent() && !row.is_outbound_sidecar()
}

/// L3: an entry of a gateway whose attempts were received as spans is its way in only.
fn split_gateways(rows: &mut Rows<'_>) {
    for id in rows.ids() {
        let row = rows.get(id);
        let Some(parent) = row.parent.filter(|_| row.vantage == Vantage::Upstream) else { continue };
        let above = rows.get(parent);
        if above.is_entry_of_log() && above.vantage == Vantage::Single && above.node == row.node {
            let above = rows.get_mut(parent);
            (above.vantage, above.vantage_rule) = (Vantage::Downstream, Rule("L3"));
        }
    }
}

/// L5: a gateway's way in whose entry says that the request was sent on, and whose attempts never came, is its way out as
/// well.
fn join_gateways(rows: &mut Rows<'_>, sent_on: &SentOn<'_>) {
    if sent_on.is_empty() {
        return;
    }
    let attempts = rows.rows.iter().filter(|row| row.vantage == Vantage::Upstream);
    let tried: HashSet<RowId> = attempts.filter_map(|row| row.parent).collect();
    for id in rows.ids() {
        let row = rows.get(id);
        let is_way_in = row.vantage == Vantage::Downstream && !tried.contains(&id);
        // A callee may share the id.
        if is_way_in && sent_on.get(&row.span.span_id).is_some_and(|entry| is_of(entry, row.span)) {
            let row = rows.get_mut(id);
            (row.vantage, row.vantage_rule) = (Vantage::Single, Rule("L5"));
        }
    }
}

/// Whether an entry is about a request that its process sent of its own accord: a sidecar's way out.
fn is_leaving(row: &Row<'_>) -> bool {
    row.vantage == Vantage::Single && !is_of_gateway(row.span)
}

impl Row<'_> {
    /// Whether this is no span but an access log entry.
    pub(super) fn is_entry_of_log(&self) -> bool {
        self.span.logged.is_some()
    }
}

/// What leaves processes, by where it goes. Rows are in order of their start, and so are these.
struct Calls<'a> {
    by_connection: HashMap<SocketAddr, Vec<RowId>>,
    by_service: HashMap<&'a str, Vec<RowId>>,
}

impl<'a> Calls<'a> {
    fn of(rows: &Rows<'a>) -> Self {
        let mut calls = Self { by_connection: HashMap::new(), by_service: HashMap::new() };
        for id in rows.ids() {
            let span = rows.get(id).span;
            if !rows.get(id).is_up() || span.upstream_is_own_app {
                continue;
            }
            if let Some(own_end) = span.logged.as_ref().and_then(|connections| connections.outgoing) {
                calls.by_connection.entry(own_end).or_default().push(id);
            }
            if let Some(destination) = &span.destination {
                calls.by_service.entry(&destination.service).or_default().push(id);
            }
        }
        calls
    }

    /// L1: the call that arrives as `id`: over the same connection, else to the same service.
    fn to(&self, rows: &Rows<'a>, id: RowId, claimed: &[bool]) -> Option<RowId> {
        let row = rows.get(id);
        let caller = row.span.logged.as_ref().and_then(|connections| connections.caller);
        let over_connection = caller.and_then(|caller| self.by_connection.get(&caller));
        let to_service = || self.by_service.get(&*row.identity.service);
        over_connection
            .and_then(|calls| best(rows, id, calls, |_| true, |_| false))
            .or_else(|| best(rows, id, to_service()?, |_| true, |call| claimed[call as usize]))
    }

    /// L4: the call to the service of the span `id` that is known from its entry alone and that nobody has answered: the
    /// span between the two never came.
    fn unanswered(&self, rows: &Rows<'a>, id: RowId, claimed: &[bool]) -> Option<RowId> {
        let start = rows.get(id).span.start;
        let is_open = |call: RowId| {
            let row = rows.get(call);
            row.is_entry_of_log() && !claimed[call as usize] && covers(row.span, start)
        };
        best(rows, id, self.by_service.get(&*rows.get(id).identity.service)?, is_open, |_| false)
    }
}

/// The call that fits best: one that nobody has answered yet, that covers the start of `id`, and
/// that began last; clocks of two nodes may disagree, so one that does not cover it fits as well.
fn best(
    rows: &Rows<'_>,
    id: RowId,
    calls: &[RowId],
    is_candidate: impl Fn(RowId) -> bool,
    is_claimed: impl Fn(RowId) -> bool,
) -> Option<RowId> {
    let row = rows.get(id);
    let fits = |call: &RowId| {
        let other = rows.get(*call);
        let endpoint = other.span.logged.as_ref().and_then(|connections| connections.endpoint);
        let same_address = match (endpoint, row.identity.ip) {
            (Some(endpoint), Some(ip)) => endpoint.ip() == ip,
            _ => true,
        };
        *call != id && other.node != row.node && same_address && is_candidate(*call)
    };
    let begun = calls.partition_point(|call| rows.get(*call).span.start <= row.span.start);
    let earlier = calls[..begun].iter().rev().take(STEPS_MAX);
    let later = calls[begun..].iter().take(STEPS_MAX);
    let rank = |call: &RowId| {
        let other = rows.get(*call).span;
        (is_claimed(*call), !covers(other, row.span.start), other.start.0.abs_diff(row.span.start.0), *call)
    };
    earlier.chain(later).copied().filter(fits).min_by_key(rank)
}

/// Entries log whole milliseconds of duration, cut off.
const DURATION_STEP_NANOS: u64 = 1_000_000;

fn covers(span: &NormalSpan, at: UnixNanos) -> bool {
    let cut_off = if span.logged.is_some() { DURATION_STEP_NANOS } else { 0 };
    span.start <= at && at.0 <= span.end.0.saturating_add(cut_off)
}

/// What enters processes, by node and pod.
struct Visits<'a> {
    by_process: HashMap<(u32, Option<&'a str>), Vec<RowId>>,
}

impl<'a> Visits<'a> {
    fn of(rows: &Rows<'a>) -> Self {
        let mut by_process: HashMap<_, Vec<RowId>> = HashMap::new();
        for id in rows.ids() {
            let row = rows.get(id);
            if row.vantage == Vantage::Downstream || row.span.kind == SpanKind::Server {
                by_process.entry(process(rows, id)).or_default().push(id);
            }
        }
        Self { by_process }
    }

    /// L2: the visit that `id` was sent in: the last one begun that covers its start, else the last
    /// one begun, whose work went on after it had answered.
    fn around(&self, rows: &Rows<'a>, id: RowId) -> Option<RowId> {
        let visits = self.by_process.get(&process(rows, id))?;
        let start = rows.get(id).span.start;
        let begun = visits.partition_point(|visit| rows.get(*visit).span.start <= start);
        let earlier = || visits[..begun].iter().rev().take(STEPS_MAX).copied();
        earlier().find(|visit| covers(rows.get(*visit).span, start)).or_else(|| earlier().next())
    }
}

fn process<'a>(rows: &Rows<'a>, id: RowId) -> (u32, Option<&'a str>) {
    let row = rows.get(id);
    (row.node, row.span.identity.pod.as_deref())
}
