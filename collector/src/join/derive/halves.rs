//! Which spans are the two halves of a hop (rules W, A1–A5, A7–A9), and which are in none.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use windrose_proto::id::SpanId;
use windrose_proto::model::{Fault, NodeRole, ProxyKind, Reason, Rule, Vantage};
use windrose_proto::normal::{Destination, Leg};
use windrose_proto::time::UnixNanos;

use super::outcomes::spawns_attempts;
use super::rows::{Row, RowId, Rows};
use super::visits::Visits;
use crate::normalise::host::service_of_host;

/// The leg from a proxy to its own application, when the application is silent.
const OWN_APP: &str = "leg to its own application";
/// The waypoint is the `via` of a hop.
const WAYPOINT_LEG: &str = "outgoing leg of a waypoint";
/// A1.
const TRY_IN_CALL: &str = "the call's own span covers this try";
/// A1b.
const CALL_IN_TRIES: &str = "its failed tries stand for this call";
/// L2.
const IN_OTHER_TRACE: &str = "the call that came here is counted in the trace that made it";
/// A proxy's own way out whose attempts are hops.
pub(super) const COVERED: &str = "its attempts are the hops";

/// Free client halves looked at when an entry's context was handed on (A8). Proxies that do so
/// have one client half; the bound keeps hostile traces linear.
const ADOPTION_STEPS_MAX: usize = 64;

/// The spans of one hop.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    /// The caller's side. A client half, or just the span whose context the callee got.
    pub(super) client: Option<RowId>,
    pub(super) server: Option<RowId>,
    pub(super) via: Option<RowId>,
    /// No span shows the hop: a proxy that makes no client spans sent it here (A4).
    pub(super) inferred: Option<Arc<Destination>>,
    /// The span of the attempt between the two never came (A9).
    pub(super) is_adopted: bool,
}

/// All pairs, and why a row is in none.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) pairs: Vec<Pair>,
    pub(super) unlinked: Vec<Option<&'static str>>,
}

struct Pairing<'r, 'a> {
    rows: &'r Rows<'a>,
    visits: &'r Visits,
    /// Rows that are the client half of some pair.
    taken: Vec<bool>,
    /// The pair of which a waypoint's entry is the `via`.
    via: Vec<Option<u32>>,
    plan: Plan,
}

/// Finds the pairs.
pub(super) fn pair(rows: &Rows<'_>, visits: &Visits) -> Plan {
    let plan = Plan { pairs: Vec::new(), unlinked: vec![None; rows.len()] };
    let mut pairing = Pairing { rows, visits, taken: vec![false; rows.len()], via: vec![None; rows.len()], plan };
    pairing.waypoints();
    pairing.entries();
    pairing.single_spans();
    let orphans = Orphans::of(rows, &pairing.plan.pairs);
    pairing.client_halves(&orphans);
    pairing.silent_proxies(&orphans);
    pairing.plan
}

// === impl Pairing ===

impl<'a> Pairing<'_, 'a> {
    fn row(&self, id: RowId) -> &Row<'a> {
        self.rows.get(id)
    }

    fn push(&mut self, client: Option<RowId>, server: Option<RowId>, via: Option<RowId>) {
        if let Some(client) = client {
            // Whoever got a copy of the request is not the callee its sender waited for.
            let got_copy = !self.row(client).mirror && server.is_some_and(|server| self.row(server).mirror);
            self.taken[client as usize] |= !got_copy;
        }
        self.plan.pairs.push(Pair { client, server, via, inferred: None, is_adopted: false });
    }

    /// A5: one hop from source to destination; the waypoint is between them.
    fn waypoints(&mut self) {
        for id in self.rows.ids() {
            if !self.row(id).is_entry || self.row(id).role != NodeRole::Waypoint {
                continue;
            }
            let client = self.row(id).carrier.filter(|carrier| self.row(*carrier).is_client_half());
            self.via[id as usize] = Some(self.plan.pairs.len() as u32);
            self.push(client, None, Some(id));
        }
    }

    /// Every entry into a process is the server half of a hop.
    fn entries(&mut self) {
        for id in self.rows.ids() {
            let row = self.row(id);
            if !row.is_entry || row.role == NodeRole::Waypoint {
                continue;
            }
            let caller = row.carrier;
            if row.is_outbound_sidecar() {
                self.link_own_app(caller, id);
            } else if row.is_root() && self.rows.continues_call() {
                self.plan.unlinked[id as usize] = Some(IN_OTHER_TRACE);
            } else if !self.complete_waypoint(caller, id) {
                let client = self.adopted(caller, id).or(caller);
                self.push(client, Some(id), None);
            }
        }
    }

    /// The caller of a sidecar on its way out is the process behind it: a local leg when that has
    /// a span for it, else nothing.
    fn link_own_app(&mut self, caller: Option<RowId>, id: RowId) {
        if let Some(caller) = caller.filter(|caller| self.rows.is_called_by_own(*caller, id)) {
            self.push(Some(caller), Some(id), None);
        }
    }

    fn complete_waypoint(&mut self, caller: Option<RowId>, id: RowId) -> bool {
        let waypoint = caller.filter(|caller| self.row(*caller).role == NodeRole::Waypoint);
        let Some(entry) = waypoint.and_then(|waypoint| self.row(waypoint).entry) else { return false };
        let Some(place) = self.via[entry as usize] else { return false };
        let pair = &mut self.plan.pairs[place as usize];
        if pair.server.is_none() {
            pair.server = Some(id);
        } else {
            let client = pair.client;
            self.push(client, Some(id), Some(entry));
        }
        true
    }

    /// A8: the proxy handed on the context of its entry span; the free client half of that visit
    /// which covers the callee's start is the other side. Envoy hands on the right one.
    fn adopted(&self, caller: Option<RowId>, id: RowId) -> Option<RowId> {
        let caller = caller.filter(|caller| self.row(*caller).is_entry && !self.row(*caller).is_app())?;
        if self.row(caller).kind.is_envoy_family() {
            return None;
        }
        let start = self.row(id).span.start;
        let members = self.visits.of(caller);
        // Members are in order of their start.
        let begun = members.partition_point(|member| self.row(*member).span.start <= start);
        members[..begun].iter().rev().take(ADOPTION_STEPS_MAX).copied().find(|member| {
            let row = self.row(*member);
            row.is_up() && !self.taken[*member as usize] && start <= row.span.end
        })
    }

    /// A7: a span for entry and exit at once is also the server half of the hop into its proxy.
    fn single_spans(&mut self) {
        for id in self.rows.ids() {
            let row = self.row(id);
            if row.vantage != Vantage::Single {
                continue;
            }
            if row.is_outbound_sidecar() {
                // An application's entry is no word about its calls; a gateway's is.
                let says_so = |carrier: &RowId| self.row(*carrier).is_up() || !self.row(*carrier).is_app();
                self.link_own_app(row.carrier.filter(says_so), id);
                continue;
            }
            if !is_gateway(row.role) {
                continue;
            }
            let caller = row.carrier;
            if caller.is_some_and(|caller| self.rows.same_process(caller, id)) {
                continue;
            }
            let client = caller.filter(|caller| self.row(*caller).is_client_half());
            self.push(client, Some(id), None);
        }
    }

    /// Client halves without a server half: the callee is silent, or nobody was reached.
    fn client_halves(&mut self, orphans: &Orphans<'a>) {
        let tries = Tries::of(self.rows);
        for id in self.rows.ids() {
            if !self.row(id).is_up() || self.taken[id as usize] {
                continue;
            }
            match self.why_no_hop(id, &tries) {
                None if self.adopts_orphans(id, orphans, usize::MAX) => {}
                Some(why) => self.plan.unlinked[id as usize] = Some(why),
                None => self.push(Some(id), None, None),
            }
        }
    }

    fn why_no_hop(&self, id: RowId, tries: &Tries) -> Option<&'static str> {
        let row = self.row(id);
        let is_inbound_leg = row.kind == ProxyKind::Linkerd && row.span.leg == Some(Leg::Inbound);
        if row.span.upstream_is_own_app || is_inbound_leg {
            return Some(OWN_APP);
        }
        if row.role == NodeRole::Waypoint {
            return Some(WAYPOINT_LEG);
        }
        let is_good_try = row.kind == ProxyKind::Kong && row.span.outcome.try_number.is_some() && !row.outcome.error;
        if is_good_try && row.vantage == Vantage::Upstream && tries.calls.contains(&row.parent) {
            return Some(TRY_IN_CALL);
        }
        if row.vantage == Vantage::UpstreamLogical && row.outcome.error && tries.failed.contains(&row.parent) {
            return Some(CALL_IN_TRIES);
        }
        if row.vantage == Vantage::Single && is_gateway(row.role) && answered_itself(row) {
            return Some(COVERED);
        }
        None
    }

    /// A9: whoever sent a request to a service, and whose proxy's span or own attempt never came, while that service was
    /// called by somebody who never came either: the missing one is between the two. Returns whether there is such a
    /// callee; at most `limit` are.
    fn adopts_orphans(&mut self, id: RowId, orphans: &Orphans<'a>, limit: usize) -> bool {
        let row = self.rows.get(id);
        let hands_on = row.is_app() || row.kind.is_envoy_family();
        let Some(destination) = row.destination.as_ref().filter(|_| hands_on) else { return false };
        // Whom an attempt itself calls names it: the callee's proxy, if it came, was called by another.
        let is_attempt = row.is_up() && !row.is_app() && row.vantage_rule != Rule("L5");
        let (mut missing, mut adopted) = (None, 0);
        for orphan in orphans.called_within(self.rows, destination, id) {
            let pair = &mut self.plan.pairs[orphan.place];
            // An application's span is one call, which its sidecar may have tried more than once.
            let is_of_call = !row.is_app() || missing.is_none_or(|missing| missing == orphan.parent);
            if adopted < limit && pair.client.is_none() && is_of_call && !(is_attempt && orphan.is_sidecar) {
                (pair.client, pair.is_adopted, missing) = (Some(id), true, Some(orphan.parent));
                adopted += 1;
            }
        }
        self.taken[id as usize] |= missing.is_some();
        missing.is_some()
    }

    /// A4: proxies that make no client span, and sidecars that made no attempt.
    fn silent_proxies(&mut self, orphans: &Orphans<'a>) {
        for id in self.rows.ids() {
            let row = self.rows.get(id);
            if !row.is_entry || self.taken[id as usize] {
                continue;
            }
            let attempts = Attempts::of(self.visits.of(id).iter().map(|member| self.row(*member)));
            if self.adopts_orphans(id, orphans, attempts.lacking()) || attempts.came > 0 {
                continue;
            }
            if row.is_outbound_sidecar() {
                // A4s: the application called, the sidecar sent nothing (no healthy endpoint, an
                // injected abort): a call of the application all the same.
                self.push(Some(id), None, None);
                continue;
            }
            if !is_gateway(row.role) {
                continue;
            }
            if row.kind.is_envoy_family() && row.destination.is_some() && failed_towards_upstream(row) {
                // A4u: so does a gateway that found nobody to send to.
                self.push(Some(id), None, None);
                continue;
            }
            let answered =
                matches!(row.outcome.fault, Fault::Proxy | Fault::Client) || row.span.local_reply == Some(true);
            if answered || spawns_attempts(self.rows, id) {
                continue;
            }
            if let Some(destination) = row.destination.clone().or_else(|| inferred_destination(row)) {
                self.taken[id as usize] = true;
                let inferred = Some(destination);
                self.plan.pairs.push(Pair { client: Some(id), server: None, via: None, inferred, is_adopted: false });
            }
        }
    }
}

/// The attempts of a visit that came.
#[derive(Default)]
struct Attempts {
    came: usize,
    /// The highest number of one.
    last: u8,
    /// Whether one of them got an answer that ends the trying.
    is_answered: bool,
}

impl Attempts {
    fn of<'r, 'a: 'r>(members: impl Iterator<Item = &'r Row<'a>>) -> Self {
        let mut attempts = Self::default();
        for row in members.filter(|row| row.is_up()) {
            attempts.came += 1;
            attempts.last = attempts.last.max(row.outcome.retry);
            attempts.is_answered |= !row.outcome.error && !row.outcome.reasons.contains(&Reason::Cancelled);
        }
        attempts
    }

    /// How many others there may have been.
    fn lacking(&self) -> usize {
        if self.is_answered { (usize::from(self.last) + 1).saturating_sub(self.came) } else { usize::MAX }
    }
}

/// Callees whose caller never came.
struct Orphans<'a> {
    /// By service, in the order of their starts.
    by_service: HashMap<&'a str, Vec<Orphan<'a>>>,
}

#[derive(Clone, Copy)]
struct Orphan<'a> {
    start: UnixNanos,
    /// Of its pair.
    place: usize,
    namespace: Option<&'a str>,
    /// The span that never came.
    parent: Option<SpanId>,
    is_sidecar: bool,
}

impl<'a> Orphans<'a> {
    fn of(rows: &Rows<'a>, pairs: &[Pair]) -> Self {
        let mut by_service: HashMap<_, Vec<_>> = HashMap::new();
        for (place, pair) in pairs.iter().enumerate() {
            let Some(server) = pair.server.filter(|_| pair.client.is_none() && pair.via.is_none()) else { continue };
            let callee = rows.get(server);
            if callee.misses_parent() {
                let identity = &callee.span.identity;
                let (start, namespace) = (callee.span.start, identity.namespace.as_deref());
                let (parent, is_sidecar) = (callee.span.parent_span_id, callee.is_sidecar());
                let orphan = Orphan { start, place, namespace, parent, is_sidecar };
                by_service.entry(&*identity.service).or_default().push(orphan);
                // Whoever calls the outside may do so through an egress gateway without knowing.
                let outside = callee.span.destination.as_ref().filter(|_| callee.role == NodeRole::Egress);
                if let Some(outside) = outside {
                    by_service.entry(&*outside.service).or_default().push(Orphan { namespace: None, ..orphan });
                }
            }
        }
        by_service.values_mut().for_each(|callees| callees.sort_unstable_by_key(|orphan| (orphan.start, orphan.place)));
        Self { by_service }
    }

    /// Callees of that name which were called while `id` lasted.
    fn called_within(&self, rows: &Rows<'_>, destination: &Destination, id: RowId) -> Vec<Orphan<'a>> {
        let span = rows.get(id).span;
        let callees = self.by_service.get(&*destination.service).map(Vec::as_slice).unwrap_or_default();
        let first = callees.partition_point(|orphan| orphan.start < span.start);
        let within = callees[first..].iter().take(ADOPTION_STEPS_MAX).take_while(|orphan| orphan.start <= span.end);
        let is_named = |orphan: &&Orphan<'_>| match (&destination.namespace, orphan.namespace) {
            (Some(called), Some(own)) => **called == *own,
            _ => true,
        };
        within.filter(is_named).copied().collect()
    }
}

/// Parents below which there are calls over all tries, and failed tries.
struct Tries {
    calls: HashSet<Option<RowId>>,
    failed: HashSet<Option<RowId>>,
}

impl Tries {
    fn of(rows: &Rows<'_>) -> Self {
        let parents = |is: fn(&Row<'_>) -> bool| rows.rows.iter().filter(|row| is(row)).map(|row| row.parent).collect();
        Self {
            calls: parents(|row| row.vantage == Vantage::UpstreamLogical),
            failed: parents(|row| row.vantage == Vantage::Upstream && row.outcome.error),
        }
    }
}

pub(super) const fn is_gateway(role: NodeRole) -> bool {
    matches!(role, NodeRole::Gateway | NodeRole::Egress | NodeRole::Eastwest)
}

/// Whether the gateway wanted to send the request on and could not.
fn failed_towards_upstream(row: &Row<'_>) -> bool {
    row.outcome.error
        && row.outcome.reasons.iter().any(|reason| {
            matches!(
                reason,
                Reason::NoHealthyUpstream
                    | Reason::ConnFail
                    | Reason::ConnTimeout
                    | Reason::TlsFail
                    | Reason::DnsFail
                    | Reason::CircuitOpen
                    | Reason::Overload
                    | Reason::UpstreamReset
                    | Reason::UpstreamProtocol
                    | Reason::Timeout
                    | Reason::RetryLimit
                    | Reason::FaultInjected
            )
        })
}

/// A4c: whether a gateway with one span for entry and exit answered without sending the request
/// on. Nothing but the details says so for certain; refusals by filters and requests without a
/// route are never sent, and in an Istio mesh an authentication answer without a span of the
/// callee comes from the gateway's own filters.
fn answered_itself(row: &Row<'_>) -> bool {
    if failed_towards_upstream(row) {
        return false;
    }
    if let Some(local) = row.span.local_reply {
        return local;
    }
    let is_refusal = |reason: &Reason| {
        matches!(
            reason,
            Reason::RateLimited
                | Reason::RateLimitError
                | Reason::Denied
                | Reason::NoRoute
                | Reason::Cache
                | Reason::ClientProtocol
        )
    };
    let is_auth_answer = matches!(row.outcome.http_status, Some(401 | 403 | 407)) && row.kind == ProxyKind::Istio;
    let has_no_route = row.destination.is_none() && row.span.upstream_cluster.is_none() && row.kind.is_envoy_family();
    row.outcome.reasons.iter().any(is_refusal) || is_auth_answer || has_no_route
}

/// T5: the service an APISIX route names; the host an egress proxy was asked for.
fn inferred_destination(row: &Row<'_>) -> Option<Arc<Destination>> {
    let is_egress = row.role == NodeRole::Egress;
    let named = || row.span.hints.as_ref()?.inferred_service.as_ref();
    let host = if is_egress { row.span.host.as_ref() } else { named() }?;
    let named = service_of_host(host);
    Some(Arc::new(Destination {
        service: named.service.map_or_else(|| host.clone(), Into::into),
        namespace: named.namespace.map(Into::into),
        subset: None,
        external: is_egress,
        ip: host.parse().ok(),
        blackhole: false,
        rule: Rule("T5"),
    }))
}
