//! Counters that know a service but not which part of it answered, beside edges to its parts.
//!
//! A gateway outside the mesh counts its calls of a service as a whole, the service's own proxies
//! count them by version and workload: both tell of the same requests. In a graph of parts the
//! whole stays only as far as the parts do not tell of it, or those requests would be there twice.

use std::collections::BTreeMap;

use windrose_proto::edge::CounterStats;

use super::aggregate::EdgeTotals;
use super::names::NodeId;

/// Two proxies that count the same requests at different moments differ by about so much (rule
/// M10); what is left of a whole means something only above this share of it.
const MISMATCH_MAX_PERCENT: i64 = 1;

/// Takes from every edge to a service as a whole what the counters of its parts tell. Edges of which
/// nothing is left go.
pub(super) fn take_out_parts(edges: &mut BTreeMap<(NodeId, NodeId), EdgeTotals>) {
    let mut told: BTreeMap<(NodeId, NodeId), CounterStats> = BTreeMap::new();
    for ((source, target), edge) in edges.iter() {
        let has_part = target.part.is_some();
        // A caller that knows the parts counts nothing twice.
        if has_part && edge.stats.client_counters.is_absent() && !edge.stats.server_counters.is_absent() {
            let whole = NodeId { part: None, ..target.clone() };
            told.entry((source.clone(), whole)).or_default().merge(&edge.stats.server_counters);
        }
    }
    for (ends, told) in told {
        let Some(edge) = edges.get_mut(&ends) else { continue };
        let rest = rest_of(&edge.stats.client_counters, &told);
        edge.stats.client_counters = rest.unwrap_or_default();
        let stats = &edge.stats;
        if stats.spans.is_absent() && stats.client_counters.is_absent() && stats.server_counters.is_absent() {
            edges.remove(&ends);
        }
    }
}

/// The requests of `whole` that are not among `told`; `None` when there are none to speak of.
fn rest_of(whole: &CounterStats, told: &CounterStats) -> Option<CounterStats> {
    let calls = whole.calls.saturating_sub(told.calls);
    if calls.saturating_mul(100) <= whole.calls.saturating_mul(MISMATCH_MAX_PERCENT) {
        return None;
    }
    let mut rest = CounterStats { calls, errors: (whole.errors - told.errors).clamp(0, calls), ..whole.clone() };
    for (code, count) in &mut rest.by_code {
        *count = (*count - told.by_code.get(code).copied().unwrap_or(0)).max(0);
    }
    rest.by_code.retain(|_, count| *count > 0);
    Some(rest)
}
