//! A pair of spans to a hop: status, fault and direction (rules H, FH, D).

use hashbrown::HashSet;
use smallvec::SmallVec;
use windrose_proto::Text;
use windrose_proto::hop::{Entry, Gap, Hop, Node, Question};
use windrose_proto::id::SpanId;
use windrose_proto::model::{Direction, Fault, FaultAt, NodeRole, Protocol, ProxyKind, Reporters, Rule, Tls, Vantage};
use windrose_proto::normal::{Leg, Outcome};
use windrose_proto::time::UnixNanos;

use super::ends::Ends;
use super::halves::{Pair, Plan};
use super::rows::{Row, RowId, Rows};
use super::timing;
use crate::normalise::host::HostRules;
use crate::normalise::outcome::is_grpc_server_error;

/// A hop under construction.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) pair: Pair,
    pub(super) hop: Hop,
}

/// The halves of a pair.
#[derive(Clone, Copy, Debug)]
pub(super) struct Halves<'r, 'a> {
    /// The caller's span, whatever it is.
    pub(super) caller: Option<&'r Row<'a>>,
    /// The caller's span, when it reports this hop.
    pub(super) client: Option<&'r Row<'a>>,
    /// The callee's entry, else the waypoint's.
    pub(super) server: Option<&'r Row<'a>>,
    pub(super) is_inferred: bool,
}

// === impl Draft ===

impl Draft {
    /// Hops are listed by start, then attempt; the ids make the order total.
    pub(super) fn order(&self) -> (UnixNanos, u8, Option<SpanId>, Option<SpanId>) {
        (self.hop.start, self.hop.retry, self.hop.client_span, self.hop.server_span)
    }
}

/// All hops, in the order of the pairs, and what they leave open.
pub(super) fn build(rows: &Rows<'_>, plan: &Plan, hosts: &HostRules) -> (Vec<Draft>, SmallVec<[Question; 1]>) {
    let mut ends = Ends::new(rows, hosts, fronted_gateways(rows, plan));
    let retries = FailedTries::of(rows);
    let draft = |pair: &Pair| Draft { pair: pair.clone(), hop: hop(rows, pair, &mut ends, &retries) };
    let drafts = plan.pairs.iter().map(draft).collect();
    (drafts, ends.questions)
}

fn hop(rows: &Rows<'_>, pair: &Pair, ends: &mut Ends<'_, '_>, retries: &FailedTries) -> Hop {
    let halves = Halves::of(rows, pair);
    let source = ends.source(pair);
    let destination = ends.destination(pair);
    let (direction, direction_rule) = direction(rows, pair, &source.node, &destination);
    let client = halves.client.map(|row| &row.outcome);
    let server = halves.server.map(|row| &row.outcome);
    let (fault, fault_at) = fault(client, server);
    let via = pair.via.map(|via| rows.get(via));
    let server_only = pair.server.map(|server| rows.get(server));
    let timing = timing::timing(&halves);
    let spans = || [halves.caller, server_only, via].into_iter().flatten();
    let is_outgoing_egress = source.node.role == NodeRole::Egress;
    Hop {
        trace_id: spans().map(|row| row.span.trace_id).max().unwrap_or(rows.get(0).span.trace_id),
        client_span: halves.caller.map(|row| row.span.span_id),
        server_span: halves.server.map(|row| row.span.span_id),
        origin: pair.client.filter(|_| is_outgoing_egress).and_then(|client| ends.origin(client)),
        endpoint: endpoint(&halves),
        via: via.map(|row| row.identity.service.clone()),
        direction,
        direction_rule,
        reporters: reporters(pair, &halves),
        protocol: first_protocol([server_only, via, halves.caller]),
        method: spans().find_map(|row| row.span.method.clone()),
        http_status: http_status(rows, pair, &halves),
        grpc_status: client.and_then(|o| o.grpc_status).or(server.and_then(|o| o.grpc_status)),
        error: is_error(client, server),
        fault,
        fault_at,
        reasons: match (client, server) {
            // FH4: the client half's reason wins: a timeout, not the abort it caused.
            (Some(client), _) if !client.reasons.is_empty() => client.reasons.clone(),
            (_, Some(server)) => server.reasons.clone(),
            (_, None) => Default::default(),
        },
        retry: retry(pair, &halves, retries),
        is_final: true,
        root_cause: false,
        mirror: spans().any(|row| row.mirror),
        tls: tls(&halves),
        client_nanos: halves.client.map(|row| row.span.duration_nanos()),
        server_nanos: halves.server.map(|row| row.span.duration_nanos()),
        skew_nanos: timing.skew_nanos,
        late_server_nanos: timing.late_server_nanos,
        queue_nanos: timing.queue_nanos,
        request_bytes: bytes(&halves, |row| row.span.request_bytes),
        response_bytes: bytes(&halves, |row| row.span.response_bytes),
        // A9: the span above all attempts says nothing of when one began that never came.
        start: match server_only.filter(|_| pair.is_adopted && halves.client.is_none()) {
            Some(server) => server.span.start,
            None => spans().map(|row| row.span.start).min().unwrap_or_default(),
        },
        // Filled in once the request is known.
        entry: Entry::Unknown(Gap::NoGateway),
        source_gap: source.gap,
        logged: spans().all(Row::is_entry_of_log),
        source: source.node,
        destination,
    }
}

// === impl Halves ===

impl<'r, 'a> Halves<'r, 'a> {
    pub(super) fn of(rows: &'r Rows<'a>, pair: &Pair) -> Self {
        let caller = pair.client.map(|id| rows.get(id));
        // A proxy's entry that failed before any attempt reports its way out as well.
        let is_lone_entry = pair.server.is_none() && pair.via.is_none();
        let server = pair.server.or(pair.via).map(|id| rows.get(id));
        // The caller's span is about the answer it waited for, not about that of a mirrored copy.
        // An entry says how the request ended, not how the attempt did that never came.
        let is_own = |row: &&Row<'_>| row.is_up() || !pair.is_adopted;
        let is_about_it = |row: &&Row<'_>| (row.mirror || !server.is_some_and(|server| server.mirror)) && is_own(row);
        Self {
            caller,
            client: caller.filter(|row| row.is_client_half() || is_lone_entry).filter(is_about_it),
            server,
            is_inferred: pair.inferred.is_some(),
        }
    }
}

/// H1, H2.
fn http_status(rows: &Rows<'_>, pair: &Pair, halves: &Halves<'_, '_>) -> Option<u16> {
    let client = halves.client.map(|row| &row.outcome);
    let has_reason = client.is_some_and(|outcome| !outcome.reasons.is_empty());
    let server = || halves.server.filter(|_| !has_reason).and_then(|row| row.outcome.http_status);
    let told = client.and_then(|outcome| outcome.http_status).or_else(server);
    if told.is_some() || has_reason || client.is_none_or(|outcome| outcome.error) {
        return told;
    }
    // H2: the last attempt got what the proxy answered. What an application answered says nothing
    // of the calls it made.
    let client = pair.client.filter(|client| !rows.get(*client).is_app())?;
    let entry = rows.get(client).entry.filter(|entry| rows.same_process(*entry, client))?;
    rows.get(entry).outcome.http_status
}

/// What the caller got decides; the callee's word counts where the caller has none.
fn is_error(client: Option<&Outcome>, server: Option<&Outcome>) -> bool {
    let server_failed = server.is_some_and(|outcome| outcome.error);
    match client {
        Some(client) if client.error => true,
        Some(client) if client.grpc_status.is_some() => false,
        Some(client) if client.http_status.is_some() => {
            // A status of 200 says nothing of a gRPC call.
            server.is_some_and(|outcome| outcome.grpc_status.is_some_and(is_grpc_server_error))
        }
        Some(_) | None => server_failed,
    }
}

/// FH1–FH3.
fn fault(client: Option<&Outcome>, server: Option<&Outcome>) -> (Fault, Option<FaultAt>) {
    if let Some(client) = client.filter(|outcome| matches!(outcome.fault, Fault::Proxy | Fault::Client)) {
        return (client.fault, Some(FaultAt::ClientProxy));
    }
    if let Some(server) = server.filter(|outcome| !matches!(outcome.fault, Fault::None | Fault::Unknown)) {
        return (server.fault, (server.fault == Fault::Proxy).then_some(FaultAt::ServerProxy));
    }
    if let Some(client) = client.filter(|outcome| outcome.fault != Fault::None) {
        return (client.fault, None);
    }
    (server.map_or(Fault::None, |outcome| outcome.fault), None)
}

/// D0–D9.
fn direction(rows: &Rows<'_>, pair: &Pair, source: &Node, destination: &Node) -> (Direction, Rule) {
    use NodeRole::{Egress, External, Gateway, Unknown};
    let (direction, rule) = match (source.role, destination.role) {
        _ if is_local(rows, pair) => (Direction::Local, "D0"),
        (External, _) => (Direction::NorthSouth, "D1"),
        (_, External) => (Direction::Egress, "D2"),
        (Egress, _) | (_, Egress) => (Direction::Egress, "D3"),
        (Gateway, _) => (Direction::NorthSouth, "D4"),
        (Unknown, Gateway) if pair.server.is_some() => (Direction::NorthSouth, "D4b"),
        (Unknown, _) | (_, Unknown) => (Direction::Unknown, "D9"),
        _ => (Direction::EastWest, "D5"),
    };
    (direction, Rule(rule))
}

/// A3: between a proxy and its own application.
fn is_local(rows: &Rows<'_>, pair: &Pair) -> bool {
    let (Some(client), Some(server)) = (pair.client, pair.server) else { return false };
    if rows.same_process(client, server) {
        return true;
    }
    let (c, s) = (rows.get(client), rows.get(server));
    let is_leg = |row: &Row<'_>, leg| row.kind == ProxyKind::Linkerd && row.span.leg == Some(leg);
    if is_leg(c, Leg::Inbound) || is_leg(s, Leg::Outbound) {
        return true;
    }
    let is_proxy_and_app = (c.is_sidecar() && s.role == NodeRole::App) || (c.role == NodeRole::App && s.is_sidecar());
    if is_proxy_and_app && c.identity.service == s.identity.service {
        return true;
    }
    rows.hands_to_own(client, server) || rows.is_called_by_own(client, server)
}

/// Nodes of sidecars with a gateway behind them: Kong or nginx in a pod of the mesh is one node
/// with its sidecar, and that node is a gateway (rule R4e).
fn fronted_gateways(rows: &Rows<'_>, plan: &Plan) -> HashSet<u32> {
    let mut fronted = HashSet::new();
    for pair in plan.pairs.iter().filter(|pair| is_local(rows, pair)) {
        let ends = [(pair.client, pair.server), (pair.server, pair.client)];
        for (sidecar, other) in ends.into_iter().filter_map(|(a, b)| Some((rows.get(a?), rows.get(b?)))) {
            if sidecar.is_sidecar() && other.role == NodeRole::Gateway {
                fronted.insert(sidecar.node);
            }
        }
    }
    fronted
}

fn reporters(pair: &Pair, halves: &Halves<'_, '_>) -> Reporters {
    match (halves.client.is_some(), halves.server.is_some()) {
        _ if halves.is_inferred => Reporters::Inferred,
        (is_client, _) if pair.via.is_some() && pair.server.is_none() => {
            if is_client {
                Reporters::Both
            } else {
                Reporters::Waypoint
            }
        }
        (true, true) => Reporters::Both,
        (true, false) => Reporters::Client,
        (false, _) => Reporters::Server,
    }
}

fn first_protocol(rows: [Option<&Row<'_>>; 3]) -> Protocol {
    let known = rows.into_iter().flatten().map(|row| row.span.protocol).find(|protocol| *protocol != Protocol::Unknown);
    known.unwrap_or(Protocol::Unknown)
}

/// Mutual TLS when either side says so; each side reports this leg only at the right vantage.
fn tls(halves: &Halves<'_, '_>) -> Tls {
    let client = halves.client.filter(|row| row.is_up()).map_or(Tls::Unknown, |row| row.span.tls);
    let server =
        halves.server.filter(|row| row.vantage == Vantage::Downstream).map_or(Tls::Unknown, |row| row.span.tls);
    match (client, server) {
        (Tls::Mutual, _) | (_, Tls::Mutual) => Tls::Mutual,
        (Tls::Unknown, other) => other,
        (known, _) => known,
    }
}

/// The address an attempt chose, else the callee's own.
fn endpoint(halves: &Halves<'_, '_>) -> Option<Text> {
    let chosen = halves.client.filter(|row| matches!(row.vantage, Vantage::Upstream | Vantage::UpstreamLogical));
    if let Some((ip, port)) = chosen.and_then(|row| row.span.peer_ip.map(|ip| (ip, row.span.peer_port))) {
        return Some(Text::from(match port {
            Some(port) => std::net::SocketAddr::new(ip, port).to_string(),
            None => ip.to_string(),
        }));
    }
    halves.server.and_then(|row| row.identity.ip).map(|ip| Text::from(ip.to_string()))
}

fn bytes(halves: &Halves<'_, '_>, of: impl Fn(&Row<'_>) -> Option<u64>) -> Option<u64> {
    halves.client.and_then(&of).or_else(|| halves.server.and_then(&of))
}

/// Failed tries below each parent, per kind of proxy.
struct FailedTries(hashbrown::HashMap<(Option<RowId>, ProxyKind), u8>);

impl FailedTries {
    fn of(rows: &Rows<'_>) -> Self {
        let mut counts = hashbrown::HashMap::new();
        for row in rows.rows.iter().filter(|row| row.vantage == Vantage::Upstream && row.outcome.error) {
            let count: &mut u8 = counts.entry((row.parent, row.kind)).or_default();
            *count = count.saturating_add(1);
        }
        Self(counts)
    }
}

/// The number of this attempt: as written, by Kong's 1-based try, or after the tries that failed.
fn retry(pair: &Pair, halves: &Halves<'_, '_>, tries: &FailedTries) -> u8 {
    let Some(caller) = halves.caller.filter(|_| pair.inferred.is_none()) else { return 0 };
    let written = halves.client.map_or(0, |row| {
        let by_try = row.outcome.try_number.unwrap_or(1).saturating_sub(1);
        row.outcome.retry.max(by_try)
    });
    let failed_before = match caller.vantage {
        Vantage::UpstreamLogical => tries.0.get(&(caller.parent, caller.kind)).copied().unwrap_or(0),
        _ => 0,
    };
    written.max(failed_before)
}
