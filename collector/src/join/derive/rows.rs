//! The distinct spans of a trace in their order, and who is whose parent (rules W1, W2, J1–J3,
//! P9b).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;
use windrose_proto::hop::Node;
use windrose_proto::id::SpanId;
use windrose_proto::limits::SPANS_PER_TRACE_MAX;
use windrose_proto::model::{NodeRole, ProxyKind, Rule, SpanKind, Vantage};
use windrose_proto::normal::{Destination, Fact, Identity, Link, NormalSpan, Outcome, RoleHint};
use windrose_proto::time::UnixNanos;

use super::{entries, tree};
use crate::normalise::overrides::Overrides;
use crate::normalise::role::role_by_name;
use crate::normalise::vantage::vantage_by_name;

/// Index of a row.
pub(super) type RowId = u32;

/// Spans with one id that are looked at as possible parents. A shared id has two halves; more is
/// damage, and looking at all of them would make hostile traces quadratic.
const HALVES_MAX: usize = 16;

/// One distinct span and what the trace makes of it.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) span: &'a NormalSpan,
    pub(super) identity: Arc<Identity>,
    pub(super) kind: ProxyKind,
    pub(super) kind_rule: Rule,
    pub(super) vantage: Vantage,
    pub(super) vantage_rule: Rule,
    /// `Unknown` while it is open.
    pub(super) role: NodeRole,
    pub(super) role_rule: Rule,
    pub(super) role_is_open: bool,
    pub(super) outcome: Outcome,
    pub(super) destination: Option<Arc<Destination>>,
    /// Equal for equal service and namespace.
    pub(super) node: u32,
    pub(super) parent: Option<RowId>,
    /// The server half of a shared span id.
    pub(super) shared: bool,
    /// The parent, work inside its process skipped.
    pub(super) carrier: Option<RowId>,
    /// The entry of its process at or above it.
    pub(super) entry: Option<RowId>,
    pub(super) is_entry: bool,
    /// Part of a mirrored request, or done on behalf of one.
    pub(super) mirror: bool,
}

/// All rows of a trace.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    /// By start, longer first, then id and kind.
    pub(super) rows: Vec<Row<'a>>,
    /// Parents before children.
    pub(super) order: Vec<RowId>,
    pub(super) was_cut: bool,
    /// Access log entries left out because their spans are here (L0).
    pub(super) confirmations: u32,
    /// What other traces say about this one; by the order of their span ids.
    pub(super) facts: Vec<&'a NormalSpan>,
}

// === impl Row ===

impl Row<'_> {
    pub(super) fn is_phase(&self) -> bool {
        self.vantage == Vantage::Phase
    }

    /// Whether the span is a client half by its vantage.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.vantage, Vantage::Upstream | Vantage::UpstreamLogical | Vantage::Single)
    }

    /// Whether the span's kind says that it was sent rather than received.
    pub(super) fn is_client_kind(&self) -> bool {
        matches!(self.span.kind, SpanKind::Client | SpanKind::Producer)
    }

    pub(super) fn is_app(&self) -> bool {
        self.kind == ProxyKind::None
    }

    pub(super) fn is_sidecar(&self) -> bool {
        self.role == NodeRole::Sidecar
    }

    /// Whether the role is certain, rather than guessed from the neighbours.
    pub(super) fn is_certain_sidecar(&self) -> bool {
        self.is_sidecar() && !matches!(self.role_rule.0, "R4d" | "R2f")
    }

    /// Whether the parent is named but was not received.
    pub(super) fn misses_parent(&self) -> bool {
        self.parent.is_none() && self.span.parent_span_id.is_some_and(|parent| parent != self.span.span_id)
    }

    /// Whether the span begins the trace.
    pub(super) fn is_root(&self) -> bool {
        self.parent.is_none() && !self.misses_parent()
    }

    /// Whether this is a sidecar on the way out: what called it is its own application. A proxy
    /// whose upstream cluster is its own application is on the way in. A plain Envoy may call its
    /// own application anything, so its SERVER spans count as the way in.
    pub(super) fn is_outbound_sidecar(&self) -> bool {
        let goes_out = !self.span.upstream_is_own_app && self.span.upstream_cluster.is_some();
        self.is_sidecar()
            && match self.vantage {
                Vantage::Single => !self.span.upstream_is_own_app,
                Vantage::Downstream => goes_out && self.destination.is_some() && self.is_certain_sidecar(),
                Vantage::Upstream | Vantage::UpstreamLogical | Vantage::Phase => false,
            }
    }

    /// Whether the span can stand for the caller's side of a hop.
    pub(super) fn is_client_half(&self) -> bool {
        self.is_up() || (self.vantage == Vantage::Downstream && self.is_outbound_sidecar())
    }
}

// === impl Rows ===

impl<'a> Rows<'a> {
    /// Distinct rows with their parents.
    pub(super) fn collect(spans: &'a [Arc<NormalSpan>], overrides: &Overrides) -> Self {
        let mut distinct = distinct(spans);
        let facts = distinct.extract_if(.., |span| span.fact.is_some()).collect();
        let received = distinct.len();
        let (mut distinct, sent_on) = entries::without_confirmed(distinct);
        let confirmations = (received - distinct.len()) as u32;
        let was_cut = distinct.len() > SPANS_PER_TRACE_MAX;
        distinct.truncate(SPANS_PER_TRACE_MAX);
        let rows = distinct.into_iter().map(row).collect();
        let mut rows = Rows { rows, order: Vec::new(), was_cut, confirmations, facts };
        rows.stick_kinds(overrides);
        rows.number_nodes();
        rows.find_parents();
        entries::link(&mut rows, &sent_on);
        rows.order = tree::cut_cycles_and_order(&mut rows.rows);
        rows.inherit_mirroring();
        rows
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn get(&self, id: RowId) -> &Row<'a> {
        &self.rows[id as usize]
    }

    pub(super) fn get_mut(&mut self, id: RowId) -> &mut Row<'a> {
        &mut self.rows[id as usize]
    }

    /// Every id, in the order of the rows.
    pub(super) fn ids(&self) -> std::ops::Range<RowId> {
        0..self.rows.len() as RowId
    }

    pub(super) fn same_node(&self, a: RowId, b: RowId) -> bool {
        self.get(a).node == self.get(b).node
    }

    /// Equal resource, kind, node and role, and not two different node ids.
    pub(super) fn same_process(&self, a: RowId, b: RowId) -> bool {
        let (a, b) = (self.get(a), self.get(b));
        let (pa, pb) = (&a.span.process, &b.span.process);
        // What a proxy sends its log with is not what it sends its spans with.
        let same_sender = pa.resource_hash == pb.resource_hash || a.is_entry_of_log() != b.is_entry_of_log();
        same_sender
            && a.kind == b.kind
            && a.node == b.node
            && a.role == b.role
            && (pa.node_id.is_none() || pb.node_id.is_none() || pa.node_id == pb.node_id)
    }

    /// P9b: a span of a process that another span of the same trace shows to be a proxy.
    fn stick_kinds(&mut self, overrides: &Overrides) {
        let mut kinds: SmallVec<[(u64, ProxyKind); 4]> = SmallVec::new();
        for row in &self.rows {
            let is_in_process = matches!(
                row.kind,
                ProxyKind::Kong
                    | ProxyKind::Apisix
                    | ProxyKind::SpringCloudGateway
                    | ProxyKind::Zuul
                    | ProxyKind::Haproxy
            );
            let resource = row.span.process.resource_hash;
            if is_in_process && resource != 0 && kinds.last() != Some(&(resource, row.kind)) {
                kinds.push((resource, row.kind));
            }
        }
        if kinds.is_empty() {
            return;
        }
        let kinds: HashMap<u64, ProxyKind> = kinds.into_iter().collect();
        for row in self.rows.iter_mut().filter(|row| row.is_app()) {
            if let Some(kind) = kinds.get(&row.span.process.resource_hash) {
                stick(row, *kind, overrides);
            }
        }
    }

    /// S4: whose address this was, as other traces know.
    pub(super) fn owner_of(&self, ip: IpAddr) -> Option<&Arc<Node>> {
        self.facts.iter().find_map(|span| match span.fact.as_deref() {
            Some(Fact::Address { ip: known, node: Some(node) }) if *known == ip => Some(node),
            _ => None,
        })
    }

    /// L1: the request of another trace that this one goes on with.
    pub(super) fn link(&self) -> Option<&Arc<Link>> {
        // Told before its own gateway's span came: what the trace itself says counts.
        if self.facts.is_empty() || self.rows.iter().any(|row| row.role == NodeRole::Gateway) {
            return None;
        }
        self.facts.iter().find_map(|span| match span.fact.as_deref() {
            Some(Fact::Entry { link }) => link.as_ref(),
            _ => None,
        })
    }

    /// L2: whether the call that this trace begins with stands in another trace.
    pub(super) fn continues_call(&self) -> bool {
        self.link().is_some_and(|link| link.continues_call)
    }

    /// M1: what happens on behalf of a mirrored request is mirrored as well.
    fn inherit_mirroring(&mut self) {
        if !self.rows.iter().any(|row| row.mirror) {
            return;
        }
        for place in 0..self.order.len() {
            let id = self.order[place];
            if let Some(parent) = self.get(id).parent {
                let inherited = self.get(parent).mirror;
                self.get_mut(id).mirror |= inherited;
            }
        }
    }

    /// Whether the two are known to be in different pods.
    pub(super) fn pods_differ(&self, a: RowId, b: RowId) -> bool {
        match (&self.get(a).identity.pod, &self.get(b).identity.pod) {
            (Some(a), Some(b)) => a != b,
            _ => false,
        }
    }

    /// Whether `proxy` is a sidecar on its way out and `caller` the process behind it: nobody else
    /// can call there, whatever that process calls itself.
    pub(super) fn is_called_by_own(&self, caller: RowId, proxy: RowId) -> bool {
        let (process, sidecar) = (self.get(caller), self.get(proxy));
        let is_sure = sidecar.is_certain_sidecar() || process.identity.service == sidecar.identity.service;
        sidecar.is_outbound_sidecar() && !process.is_sidecar() && is_sure && !self.pods_differ(caller, proxy)
    }

    /// Whether `proxy` is a sidecar on its way in and `callee` the process behind it.
    pub(super) fn hands_to_own(&self, proxy: RowId, callee: RowId) -> bool {
        let (sidecar, process) = (self.get(proxy), self.get(callee));
        let is_inbound = sidecar.is_certain_sidecar() && sidecar.span.upstream_is_own_app;
        is_inbound && !process.is_sidecar() && !self.pods_differ(proxy, callee)
    }

    /// Numbers the distinct pairs of service and namespace.
    pub(super) fn number_nodes(&mut self) {
        let mut numbers: HashMap<(&str, Option<&str>), u32> = HashMap::with_capacity(8);
        let mut nodes = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let next = numbers.len() as u32;
            let name = (&*row.identity.service, row.identity.namespace.as_deref());
            nodes.push(*numbers.entry(name).or_insert(next));
        }
        drop(numbers);
        self.rows.iter_mut().zip(nodes).for_each(|(row, node)| row.node = node);
    }

    /// W2, J1, J2.
    fn find_parents(&mut self) {
        let mut halves: HashMap<SpanId, SmallVec<[RowId; 2]>> = HashMap::with_capacity(self.rows.len());
        for id in self.ids() {
            halves.entry(self.get(id).span.span_id).or_default().push(id);
        }
        for group in halves.values_mut().filter(|group| group.len() > 1) {
            // W2: the client half first; rows are in order of start already.
            group.sort_by_key(|id| !(self.get(*id).is_up() || self.get(*id).is_client_kind()));
        }
        for id in self.ids() {
            let (parent, shared) = self.parent_of(id, &halves);
            let row = self.get_mut(id);
            (row.parent, row.shared) = (parent, shared);
        }
    }

    fn parent_of(&self, id: RowId, halves: &HashMap<SpanId, SmallVec<[RowId; 2]>>) -> (Option<RowId>, bool) {
        let row = self.get(id);
        if let Some([first, _, ..]) = halves.get(&row.span.span_id).map(SmallVec::as_slice)
            && *first != id
        {
            return (Some(*first), true);
        }
        let Some(named) = row.span.parent_span_id.and_then(|parent| halves.get(&parent)) else { return (None, false) };
        let others = || named.iter().copied().rev().filter(|other| *other != id).take(HALVES_MAX);
        let of_same_node = || others().filter(|other| self.same_node(*other, id));
        // Retried attempts share the id as well: time tells which of them a child belongs to.
        let covers = |other: &RowId| {
            let half = self.get(*other).span;
            half.start <= row.span.start && row.span.start <= half.end
        };
        let parent = of_same_node().find(covers).or_else(|| of_same_node().next()).or_else(|| others().next());
        // J3: whoever shares its caller's id names its caller's parent. Where the caller's own half never came and the
        // parent is what called the caller's process, the caller is missing, and not the process above it.
        let calls_another = |parent: &RowId| self.get(*parent).is_up() && !self.same_node(*parent, id);
        (parent.filter(|parent| !(row.span.shared && calls_another(parent))), false)
    }
}

/// W1: what makes a span distinct within its trace. Retried attempts that share their caller's id
/// also share kind, resource and name; only their start tells them apart.
#[must_use]
pub fn distinct_key(span: &NormalSpan) -> (SpanId, u8, u64, Option<UnixNanos>, &str) {
    let attempt_start = span.shared.then_some(span.start);
    (span.span_id, kind_order(span.kind), span.process.resource_hash, attempt_start, &span.name)
}

/// W1: of spans equal in id, kind, resource and name the longest stays. Sorted.
fn distinct<'s>(spans: &'s [Arc<NormalSpan>]) -> Vec<&'s NormalSpan> {
    // What decides nearly always stands beside the pointer: spans of large traces are not in the cache.
    let mut by_id: Vec<(SpanId, &NormalSpan)> = spans.iter().map(|span| (span.span_id, &**span)).collect();
    by_id.sort_unstable_by(|(a_id, a), (b_id, b)| {
        a_id.cmp(b_id)
            .then_with(|| distinct_key(a).cmp(&distinct_key(b)))
            .then_with(|| b.duration_nanos().cmp(&a.duration_nanos()))
            .then_with(|| by_content(a, b))
    });
    by_id.dedup_by(|(later_id, later), (kept_id, kept)| {
        later_id == kept_id && distinct_key(later) == distinct_key(kept)
    });
    let by_time = |(_, span): (SpanId, &'s NormalSpan)| (span.start, std::cmp::Reverse(span.end), span);
    let mut by_time: Vec<_> = by_id.into_iter().map(by_time).collect();
    by_time.sort_unstable_by(|(a_start, a_end, a), (b_start, b_end, b)| {
        (a_start, a_end).cmp(&(b_start, b_end)).then_with(|| distinct_key(a).cmp(&distinct_key(b)))
    });
    by_time.into_iter().map(|(.., span)| span).collect()
}

/// Some order among copies that differ; only reached by copies of one span of equal length.
fn by_content(a: &NormalSpan, b: &NormalSpan) -> std::cmp::Ordering {
    if std::ptr::eq(a, b) {
        return std::cmp::Ordering::Equal;
    }
    let rank = |span: &NormalSpan| {
        let mut hasher = DefaultHasher::new();
        format!("{span:?}").hash(&mut hasher);
        hasher.finish()
    };
    b.start.cmp(&a.start).then_with(|| rank(a).cmp(&rank(b)))
}

/// Alphabetical, so that the order of rows is that of the words in the documentation.
const fn kind_order(kind: SpanKind) -> u8 {
    match kind {
        SpanKind::Client => 0,
        SpanKind::Consumer => 1,
        SpanKind::Internal => 2,
        SpanKind::Producer => 3,
        SpanKind::Server => 4,
        SpanKind::Unspecified => 5,
    }
}

fn row(span: &NormalSpan) -> Row<'_> {
    let (role, role_is_open) = match span.role {
        RoleHint::Known(role) => (role, false),
        RoleHint::InContext => (NodeRole::Unknown, true),
    };
    Row {
        span,
        identity: Arc::clone(&span.identity),
        kind: span.proxy_kind,
        kind_rule: span.proxy_rule,
        vantage: span.vantage,
        vantage_rule: span.vantage_rule,
        role,
        role_rule: span.role_rule,
        role_is_open,
        outcome: span.outcome.clone(),
        destination: span.destination.clone(),
        node: 0,
        parent: None,
        shared: false,
        carrier: None,
        entry: None,
        is_entry: false,
        mirror: span.mirror,
    }
}

/// Reads a span again as one of `kind`.
fn stick(row: &mut Row<'_>, kind: ProxyKind, overrides: &Overrides) {
    (row.kind, row.kind_rule) = (kind, Rule("P9b"));
    let has_try = kind == ProxyKind::Kong && row.span.outcome.try_number.is_some();
    (row.vantage, row.vantage_rule) = vantage_by_name(kind, row.span.kind, &row.span.name, has_try);
    if row.identity.version.is_some() {
        // A proxy's service.version is the version of the proxy.
        row.identity = Arc::new(Identity { version: None, ..(*row.identity).clone() });
    }
    if row.is_phase() {
        row.destination = None;
    }
    if overrides.role_of(&row.identity.service).is_some() {
        return;
    }
    let (hint, rule) = role_by_name(kind, &row.identity.service).unwrap_or((RoleHint::InContext, Rule("R3d")));
    row.role_rule = rule;
    (row.role, row.role_is_open) = match hint {
        RoleHint::Known(role) => (role, false),
        RoleHint::InContext => (NodeRole::Unknown, true),
    };
}
