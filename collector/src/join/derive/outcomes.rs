//! Outcomes that need the rest of the trace (rules O2, O4, F6–F8, F10, F11).

use windrose_proto::model::{Fault, NodeRole, ProxyKind, Reason, Rule, SpanKind, Vantage};

use super::rows::{RowId, Rows};
use super::visits::Visits;
use crate::normalise::outcome::sort_reasons;

/// How far before the end of an attempt the next one may begin and still follow it: Envoy starts
/// the next attempt within the callback that ends the one before.
const FOLLOWS_WITHIN_NANOS: u64 = 1_000_000;

/// Refines the outcomes in place.
pub(super) fn refine(rows: &mut Rows<'_>, visits: &Visits) {
    let entries: Vec<RowId> = rows.ids().filter(|id| rows.get(*id).is_entry).collect();
    for entry in &entries {
        take_status_of_child(rows, *entry, visits.of(*entry));
        refine_cancelled(rows, *entry, visits.of(*entry));
        blame_kong(rows, *entry, visits.of(*entry));
    }
    blame_kong_tries(rows);
    let below = entries_below(rows, &entries);
    for entry in &entries {
        blame_by_callees(rows, *entry, &below[*entry as usize]);
        blame_answering_gateway(rows, *entry, visits.of(*entry), &below[*entry as usize]);
    }
    blame_childless_clients(rows, &entries);
}

/// O2: some proxies (HAProxy, Spring) write the status on a child only. Envoy writes it on the
/// entry, where its absence means that nobody answered; and what an application got from a callee
/// is not what it answered.
fn take_status_of_child(rows: &mut Rows<'_>, entry: RowId, members: &[RowId]) {
    let row = rows.get(entry);
    let has_status = row.outcome.http_status.is_some() || row.outcome.grpc_status.is_some();
    if has_status || row.kind.is_envoy_family() || row.is_app() {
        return;
    }
    let answered =
        members.iter().map(|id| rows.get(*id)).filter(|child| child.outcome.http_status.is_some() && !child.is_phase());
    // The last to end; the first of the rows when several end at once.
    let last = answered.reduce(|a, b| if b.span.end > a.span.end { b } else { a });
    if let Some((status, error)) = last.map(|child| (child.outcome.http_status, child.outcome.error)) {
        let outcome = &mut rows.get_mut(entry).outcome;
        outcome.http_status = status;
        outcome.error |= error;
        if outcome.error && outcome.fault == Fault::None {
            (outcome.fault, outcome.fault_rule) = (Fault::Unknown, Rule("F9"));
        }
    }
}

/// O4, F6: why an attempt was cancelled shows in what its visit did next.
fn refine_cancelled(rows: &mut Rows<'_>, entry: RowId, members: &[RowId]) {
    let attempts: Vec<RowId> =
        members.iter().copied().filter(|id| rows.get(*id).vantage == Vantage::Upstream).collect();
    let Some(last_start) = attempts.iter().map(|id| rows.get(*id).span.start).max() else { return };
    let entry_has = |rows: &Rows<'_>, reason: &Reason| rows.get(entry).outcome.reasons.contains(reason);
    let (timed_out, aborted) = (entry_has(rows, &Reason::Timeout), entry_has(rows, &Reason::ClientAbort));
    for id in &attempts {
        let row = rows.get(*id);
        if !row.outcome.reasons.contains(&Reason::Cancelled) {
            continue;
        }
        let has_later = last_start > row.span.start;
        let followed = has_later && last_start.0.saturating_add(FOLLOWS_WITHIN_NANOS) >= row.span.end.0;
        let was_answered = row.outcome.http_status.is_some();
        let reason = match () {
            // Envoy also marks an answered attempt that it retries.
            () if was_answered => None,
            () if timed_out && !has_later => Some(Reason::Timeout),
            () if aborted && !has_later => Some(Reason::ClientAbort),
            () if followed => Some(Reason::Timeout),
            () if has_later || members.len() > 1 => Some(Reason::HedgeLost),
            () => Some(Reason::Cancelled),
        };
        let outcome = &mut rows.get_mut(*id).outcome;
        outcome.reasons.retain(|reason| *reason != Reason::Cancelled);
        let Some(reason) = reason else { continue };
        (outcome.fault, outcome.fault_rule) = match reason {
            Reason::ClientAbort => (Fault::Client, Rule("F6")),
            Reason::HedgeLost => (Fault::None, Rule("F6")),
            _ => (Fault::Proxy, Rule("F6")),
        };
        outcome.error &= reason != Reason::HedgeLost;
        outcome.reasons.push(reason);
        sort_reasons(&mut outcome.reasons);
    }
}

/// F7: Kong answered itself when it tried nobody or when every try failed.
fn blame_kong(rows: &mut Rows<'_>, entry: RowId, members: &[RowId]) {
    let row = rows.get(entry);
    let is_open = row.kind == ProxyKind::Kong && row.outcome.fault == Fault::Unknown;
    if !is_open || row.outcome.http_status.is_none_or(|code| code < 500) {
        return;
    }
    let mut tries = members.iter().map(|id| rows.get(*id)).filter(|row| row.vantage == Vantage::Upstream);
    let all_failed = tries.all(|row| row.span.status_error || row.outcome.error);
    let outcome = &mut rows.get_mut(entry).outcome;
    (outcome.fault, outcome.fault_rule) =
        if all_failed { (Fault::Proxy, Rule("F7")) } else { (Fault::Upstream, Rule("F7b")) };
}

/// F8: a failed try is an error that Kong's balancer made itself.
fn blame_kong_tries(rows: &mut Rows<'_>) {
    for row in &mut rows.rows {
        let is_try = row.kind == ProxyKind::Kong && row.vantage == Vantage::Upstream;
        let outcome = &mut row.outcome;
        if is_try && outcome.error && outcome.fault == Fault::Unknown && !row.span.kong_next {
            (outcome.fault, outcome.fault_rule) = (Fault::Proxy, Rule("F8"));
            if outcome.reasons.is_empty() {
                outcome.reasons.push(if outcome.http_status == Some(504) { Reason::Timeout } else { Reason::ConnFail });
            }
        }
    }
}

/// For every entry, the entries of the processes it called.
fn entries_below(rows: &Rows<'_>, entries: &[RowId]) -> Vec<Vec<RowId>> {
    let above = super::roles::remote_ancestors(rows);
    let mut below = vec![Vec::new(); rows.len()];
    for entry in entries.iter().filter(|entry| above[**entry as usize].is_some()) {
        if let Some(caller) = rows.get(*entry).parent.and_then(|parent| rows.get(parent).entry) {
            below[caller as usize].push(*entry);
        }
    }
    below
}

/// F10a, F10b: a proxy without a fault signal of its own said what a callee said, or there was no
/// callee who could have said it.
fn blame_by_callees(rows: &mut Rows<'_>, entry: RowId, below: &[RowId]) {
    let row = rows.get(entry);
    let Some(status) = row.outcome.http_status.filter(|_| !row.is_app() && row.outcome.fault == Fault::Unknown) else {
        return;
    };
    let was_said_below = below.iter().any(|id| *id != entry && rows.get(*id).outcome.http_status == Some(status));
    let is_lonely = below.iter().all(|id| *id == entry);
    let outcome = &mut rows.get_mut(entry).outcome;
    if was_said_below {
        (outcome.fault, outcome.fault_rule) = (Fault::Upstream, Rule("F10a"));
    } else if is_lonely && let Some(reason) = gateway_error(status) {
        (outcome.fault, outcome.fault_rule) = (Fault::Proxy, Rule("F10b"));
        if outcome.reasons.is_empty() {
            outcome.reasons.push(reason);
        }
    }
}

/// F10c: a proxy without a callee's answer wrote 502 or 504 on its own CLIENT span.
fn blame_childless_clients(rows: &mut Rows<'_>, entries: &[RowId]) {
    let mut has_entry_below = vec![false; rows.len()];
    for parent in entries.iter().filter_map(|entry| rows.get(*entry).parent) {
        has_entry_below[parent as usize] = true;
    }
    for (row, has_entry_below) in rows.rows.iter_mut().zip(has_entry_below) {
        let is_candidate = !matches!(row.kind, ProxyKind::None | ProxyKind::Kong)
            && matches!(row.vantage, Vantage::Upstream | Vantage::UpstreamLogical)
            && row.outcome.fault == Fault::Unknown
            && !has_entry_below;
        if let Some(reason) = row.outcome.http_status.filter(|_| is_candidate).and_then(gateway_error) {
            (row.outcome.fault, row.outcome.fault_rule) = (Fault::Proxy, Rule("F10c"));
            if row.outcome.reasons.is_empty() {
                row.outcome.reasons.push(reason);
            }
        }
    }
}

/// F11: an Istio gateway that made no attempt answered itself, whatever its flags say: the filters
/// for authentication set none.
fn blame_answering_gateway(rows: &mut Rows<'_>, entry: RowId, members: &[RowId], below: &[RowId]) {
    let is_silent = !members.iter().any(|id| rows.get(*id).is_up()) && below.is_empty();
    let row = rows.get(entry);
    if is_silent && spawns_attempts(rows, entry) && row.outcome.fault == Fault::Upstream {
        let outcome = &mut rows.get_mut(entry).outcome;
        (outcome.fault, outcome.fault_rule) = (Fault::Proxy, Rule("F11"));
    }
}

/// Whether this entry makes a span per attempt: a gateway of Istio writes a SERVER span only when
/// it does, since its listeners are outbound ones, whose single span would be a CLIENT span.
pub(super) fn spawns_attempts(rows: &Rows<'_>, entry: RowId) -> bool {
    let row = rows.get(entry);
    row.kind == ProxyKind::Istio
        && row.span.kind == SpanKind::Server
        && matches!(row.role, NodeRole::Gateway | NodeRole::Egress | NodeRole::Eastwest)
        && row.span.process.node_id.as_ref().is_some_and(|id| id.starts_with("router~"))
        && row.span.local_reply != Some(false)
}

fn gateway_error(status: u16) -> Option<Reason> {
    match status {
        502 => Some(Reason::ConnFail),
        504 => Some(Reason::Timeout),
        _ => None,
    }
}
