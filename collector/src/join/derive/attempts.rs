//! Attempts of one request: their numbers, which one counts as the call, and where the trouble
//! began (rules Q1–Q2, A6, RC1).

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use windrose_proto::Text;
use windrose_proto::hop::Node;
use windrose_proto::id::SpanId;
use windrose_proto::model::{Direction, Protocol, Vantage};

use super::hops::Draft;
use super::rows::{Row, RowId, Rows};
use super::tree::Intervals;

/// Calls looked at as those that an entry without a caller goes on with; the bound keeps hostile traces linear.
const OPEN_CALLS_MAX: usize = 16;

/// Q1, Q1b, Q1c, Q2: several callee entries under one span that covers all attempts are the attempts. Each
/// shows its own outcome; the last one shows what the caller got and how long it waited.
pub(super) fn number(rows: &Rows<'_>, drafts: &mut [Draft]) {
    let mut groups: HashMap<Caller, Vec<usize>> = HashMap::new();
    let reporters = reporters(rows);
    for (index, draft) in drafts.iter().enumerate() {
        if let Some(caller) = Caller::of(rows, draft, &reporters) {
            groups.entry(caller).or_default().push(index);
        }
    }
    let came = numbers_that_came(rows, drafts);
    for (caller, mut attempts) in groups {
        attempts.sort_by_key(|index| {
            let pair = &drafts[*index].pair;
            (pair.server.or(pair.client).map(|row| rows.get(row).span.start), *index)
        });
        match caller {
            Caller::Span(client) if drafts[attempts[0]].pair.is_adopted => {
                let taken = came.get(&client).map(Vec::as_slice).unwrap_or_default();
                number_one_call(rows, drafts, &attempts, taken);
            }
            Caller::Span(_) if attempts.len() == 1 => {}
            Caller::Span(_) => number_one_call(rows, drafts, &attempts, &[]),
            Caller::Missing { .. } => number_open_calls(rows, drafts, &attempts),
        }
    }
}

/// All of them are attempts of one call; those `taken` came by spans of their own.
fn number_one_call(rows: &Rows<'_>, drafts: &mut [Draft], attempts: &[usize], taken: &[u8]) {
    let mut free = (0..=u8::MAX).filter(|number| !taken.contains(number));
    for (place, index) in attempts.iter().enumerate() {
        drafts[*index].hop.retry = free.next().unwrap_or(u8::MAX);
        if place + 1 < attempts.len() {
            show_own_outcome(rows, &mut drafts[*index]);
        }
    }
}

/// Q1b, Q1c: the span above them never came: what follows a failure tried the same again.
fn number_open_calls(rows: &Rows<'_>, drafts: &mut [Draft], attempts: &[usize]) {
    // The last attempt of each call.
    let mut calls: Vec<usize> = Vec::new();
    for index in attempts {
        let own = Above::of(rows, &drafts[*index]);
        let is_earlier = |call: &usize| {
            let earlier = &drafts[*call];
            let above = Above::of(rows, earlier);
            if own.is_attempt { own == above } else { earlier.hop.error && own.may_equal(&above) }
        };
        let place = calls.iter().rev().take(OPEN_CALLS_MAX).position(is_earlier).map(|place| calls.len() - 1 - place);
        if !own.is_attempt {
            let number = place.map(|place| drafts[calls[place]].hop.retry.saturating_add(1));
            drafts[*index].hop.retry = number.unwrap_or(0);
        }
        match place {
            Some(place) => {
                if !own.is_attempt && drafts[calls[place]].pair.client.is_none() {
                    show_own_outcome(rows, &mut drafts[calls[place]]);
                }
                calls[place] = *index;
            }
            None => calls.push(*index),
        }
    }
}

/// The span that never came above an attempt.
#[derive(PartialEq, Eq)]
struct Above {
    span: Option<SpanId>,
    /// Whether the attempt came by a span of its own, which says its number.
    is_attempt: bool,
}

impl Above {
    fn of(rows: &Rows<'_>, draft: &Draft) -> Self {
        let lowest = draft.pair.client.or(draft.pair.server);
        let span = lowest.and_then(|row| rows.get(row).span.parent_span_id);
        Self { span, is_attempt: draft.pair.client.is_some() }
    }

    /// An access log entry names nobody, and an entry may name an attempt that was lost as well.
    fn may_equal(&self, other: &Self) -> bool {
        self.span == other.span || self.span.is_none() || other.span.is_none() || self.is_attempt != other.is_attempt
    }
}

/// Numbers of the attempts of each visit that came by spans of their own, where another was adopted.
fn numbers_that_came(rows: &Rows<'_>, drafts: &[Draft]) -> HashMap<RowId, Vec<u8>> {
    let mut numbers: HashMap<RowId, Vec<u8>> = HashMap::new();
    if drafts.iter().any(|draft| draft.pair.is_adopted) {
        for draft in drafts.iter().filter(|draft| !draft.pair.is_adopted) {
            let client = draft.pair.client.map(|client| rows.get(client)).filter(|row| row.is_up());
            if let Some(entry) = client.and_then(|row| row.entry) {
                numbers.entry(entry).or_default().push(draft.hop.retry);
            }
        }
    }
    numbers
}

/// Who made the call of an attempt.
#[derive(PartialEq, Eq, Hash)]
enum Caller {
    /// The span that covers all attempts.
    Span(RowId),
    /// Its span never came.
    Missing { source: Name, destination: Name },
}

type Name = (Text, Option<Text>);

impl Caller {
    /// `None` for what was not tried more than once, as far as can be told.
    fn of(rows: &Rows<'_>, draft: &Draft, reporters: &HashSet<Name>) -> Option<Self> {
        if !may_be_attempt(draft) {
            return None;
        }
        let missing = || {
            let (source, destination) = (name(&draft.hop.source), name(&draft.hop.destination));
            Some(Self::Missing { source, destination })
        };
        let Some(client) = draft.pair.client else {
            let entry = rows.get(draft.pair.server?);
            let is_unreported = entry.is_entry_of_log() && reporters.contains(&name(&draft.hop.source));
            let is_missed = entry.kind.is_envoy_family() && (entry.misses_parent() || is_unreported);
            return is_missed.then(missing).flatten();
        };
        let row = rows.get(client);
        if row.vantage == Vantage::Upstream && row.kind.is_envoy_family() && row.misses_parent() {
            return missing();
        }
        let is_covered = covers_all_attempts(rows, client) || draft.pair.is_adopted;
        (is_covered && draft.pair.server.is_some()).then_some(Self::Span(client))
    }
}

/// Q1c: proxies that an entry's caller may be: what one of these sent and did not report is a report that was lost.
fn reporters(rows: &Rows<'_>) -> HashSet<Name> {
    if !rows.rows.iter().any(Row::is_entry_of_log) {
        return HashSet::new();
    }
    let proxies = rows.rows.iter().filter(|row| row.kind.is_envoy_family());
    proxies.map(|row| (row.identity.service.clone(), row.identity.namespace.clone())).collect()
}

fn name(node: &Node) -> Name {
    (node.service.clone(), node.namespace.clone())
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
