//! The request a trace stands for, and the entry of every hop.

use std::sync::Arc;

use hashbrown::HashSet;
use smallvec::SmallVec;
use windrose_proto::Text;
use windrose_proto::hop::{Entry, EntryRoute, Gap, Node, Question, Request};
use windrose_proto::id::SpanId;
use windrose_proto::model::{Direction, NodeRole, Protocol, Reason, Vantage};

use super::hops::Draft;
use super::rows::{Row, RowId, Rows};
use crate::normalise::route::{grpc_route, named_route, no_route, route_of};

/// Missing parents listed; a trace that misses more is damaged enough to know.
const MISSING_PARENTS_MAX: usize = 256;

/// The request row. Attaches the entry to every hop.
pub(super) fn build(rows: &Rows<'_>, drafts: &mut [Draft]) -> Request {
    let gateway = entry_gateway(rows);
    let at = gateway.or_else(|| first_root(rows)).unwrap_or(0);
    let row = rows.get(at);
    let missing = missing_parents(rows);
    let entry = match gateway {
        // Only an attempt of the gateway came: the entry that names the route is its parent.
        Some(_) if !row.is_entry && names_no_route(row) && row.misses_parent() => {
            Entry::Unknown(Gap::ParentNeverReceived)
        }
        Some(_) => Entry::Route(Arc::new(entry_route(row))),
        // L1: the request entered by the gateway of another trace.
        None => match rows.link() {
            Some(link) => Entry::Route(Arc::clone(&link.route)),
            None => Entry::Unknown(why_no_gateway(rows, !missing.is_empty())),
        },
    };
    // Why the trace itself does not know stays said when another one does.
    let entry_gap = gateway.is_none().then(|| why_no_gateway(rows, !missing.is_empty()));
    for draft in drafts.iter_mut() {
        draft.hop.entry = entry.clone();
    }
    let span = row.span;
    let told = |of: fn(&Row<'_>) -> Option<Text>| of(row);
    Request {
        trace_id: rows.rows.iter().map(|row| row.span.trace_id).max().unwrap_or(span.trace_id),
        entry_span: Some(span.span_id),
        entry_node: node_of(rows, at, drafts),
        gaps: gaps(rows, &entry, entry_gap, drafts),
        entry,
        method: told(|row| row.span.method.clone()),
        host: told(|row| row.span.host.clone()),
        path: told(|row| row.span.path.clone()),
        consumer: rows.rows.iter().filter(|other| other.node == row.node).find_map(|row| row.span.consumer().cloned()),
        request_id: told(|row| row.span.request_id.clone()),
        http_status: row.outcome.http_status,
        grpc_status: row.outcome.grpc_status,
        error: row.outcome.error,
        fault: row.outcome.fault,
        reasons: row.outcome.reasons.clone(),
        start: span.start,
        duration_nanos: span.duration_nanos(),
        span_count: rows.len() as u32,
        hop_count: drafts.len() as u32,
        service_count: rows.rows.iter().map(|row| row.node).collect::<HashSet<_>>().len() as u32,
        missing_parents: missing,
    }
}

/// L1: a trace without a gateway may go on with a request that has one.
pub(super) fn question(rows: &Rows<'_>) -> Option<Question> {
    if rows.rows.iter().any(|row| row.role == NodeRole::Gateway) {
        return None;
    }
    let row = rows.get(first_root(rows)?);
    // A copy: the span's own is a slice of what was received, and questions are kept for minutes.
    let request_id = row.span.request_id.as_ref().filter(|id| !id.is_empty()).map(|id| Text::from(&**id))?;
    let service = row.identity.service.clone();
    Some(Question::Entry { request_id, service, at: row.span.start })
}

/// The gateway's span by which the request entered: the first one that is not below another
/// gateway, whatever its kind; an entry if there is one.
fn entry_gateway(rows: &Rows<'_>) -> Option<RowId> {
    if !rows.rows.iter().any(|row| row.role == NodeRole::Gateway) {
        return None;
    }
    let mut is_below = vec![false; rows.len()];
    for id in &rows.order {
        if let Some(parent) = rows.get(*id).parent {
            is_below[*id as usize] = is_below[parent as usize] || rows.get(parent).role == NodeRole::Gateway;
        }
    }
    let first = |is: fn(&Row<'_>) -> bool| {
        rows.ids().find(|id| {
            let row = rows.get(*id);
            row.role == NodeRole::Gateway && !is_below[*id as usize] && is(row)
        })
    };
    first(|row| row.is_entry || row.vantage == Vantage::Single)
        .or_else(|| first(|row| !row.is_phase()))
        .or_else(|| first(|_| true))
}

/// Without a gateway: where the trace begins.
fn first_root(rows: &Rows<'_>) -> Option<RowId> {
    let root = |is: fn(&Row<'_>) -> bool| rows.ids().find(|id| rows.get(*id).parent.is_none() && is(rows.get(*id)));
    root(|row| row.is_root() && !row.is_phase()).or_else(|| root(|row| !row.is_phase())).or_else(|| root(|_| true))
}

/// Rule PB: a trace that begins on the way out of a sidecar was begun anew by an application that
/// did not forward its context.
fn why_no_gateway(rows: &Rows<'_>, misses_parents: bool) -> Gap {
    let begins_outbound = |row: &Row<'_>| row.is_root() && row.is_outbound_sidecar();
    match () {
        () if rows.rows.iter().any(begins_outbound) => Gap::PropagationLost,
        () if misses_parents => Gap::ParentNeverReceived,
        () => Gap::NoGateway,
    }
}

fn missing_parents(rows: &Rows<'_>) -> SmallVec<[SpanId; 1]> {
    let missing = rows.rows.iter().filter(|row| row.misses_parent()).filter_map(|row| row.span.parent_span_id);
    let mut missing: SmallVec<[SpanId; 1]> = missing.collect();
    missing.sort_unstable();
    missing.dedup();
    missing.truncate(MISSING_PARENTS_MAX);
    missing
}

/// What is not known about the trace. The parent of a gateway's entry is the client's own span,
/// which nobody expects.
fn gaps(rows: &Rows<'_>, entry: &Entry, entry_gap: Option<Gap>, drafts: &[Draft]) -> SmallVec<[Gap; 1]> {
    let mut gaps: SmallVec<[Gap; 1]> = drafts.iter().filter_map(|draft| draft.hop.source_gap).collect();
    if let Entry::Unknown(gap) = entry {
        gaps.push(*gap);
    }
    gaps.extend(entry_gap);
    if rows.rows.iter().any(|row| row.misses_parent() && row.role != NodeRole::Gateway) {
        gaps.push(Gap::ParentNeverReceived);
    }
    if rows.was_cut {
        gaps.push(Gap::TraceTooLarge);
    }
    gaps.sort_unstable();
    gaps.dedup();
    gaps
}

fn names_no_route(row: &Row<'_>) -> bool {
    row.span.route.is_none() && row.span.path.is_none()
}

fn entry_route(row: &Row<'_>) -> EntryRoute {
    let span = row.span;
    let method = span.method.as_deref();
    let route = match (&span.route, &span.path) {
        (None, _) if row.outcome.reasons.contains(&Reason::NoRoute) => no_route(method),
        (Some(route), _) => named_route(method, route),
        (None, Some(path)) if span.protocol == Protocol::Grpc => grpc_route(path),
        (None, Some(path)) => route_of(method, path),
        // A gateway that names no path: all its requests are one route.
        (None, None) => named_route(method, "/*"),
    };
    EntryRoute { route, host: span.host.as_deref().map(Text::from) }
}

/// The node of a row, shared with a hop that has the same one. A gateway behind a sidecar goes by
/// its sidecar's, as everybody who calls it sees it.
fn node_of(rows: &Rows<'_>, id: RowId, drafts: &[Draft]) -> Arc<Node> {
    let as_server = drafts.iter().find(|draft| draft.pair.server == Some(id));
    let as_client = || drafts.iter().find(|draft| draft.pair.client == Some(id)).map(|draft| &draft.hop.source);
    let is_behind_sidecar = |draft: &&Draft| draft.hop.direction == Direction::Local && draft.pair.client.is_some();
    let node = match as_server {
        Some(draft) if is_behind_sidecar(&draft) => Some(&draft.hop.source),
        Some(draft) => Some(&draft.hop.destination),
        None => as_client(),
    };
    if let Some(node) = node {
        return Arc::clone(node);
    }
    let row = rows.get(id);
    Arc::new(Node {
        cluster: row.identity.cluster.clone(),
        namespace: row.identity.namespace.clone(),
        service: row.identity.service.clone(),
        workload: row.identity.workload.clone(),
        version: row.identity.version.clone(),
        role: row.role,
        proxy_kind: row.kind,
    })
}
