//! From sampled spans and unsampled counters to how much traffic there really was.
//!
//! Spans say how an edge's calls divide over routes, counters how many there were: post-stratification
//! multiplies the two. Pure: a graph in, estimates out.
//!
//! | method | the number comes from |
//! |---|---|
//! | `counter` | a counter of this very thing: exact |
//! | `marginal` | the counter of the edge, divided by the spans of the edge, failures apart from successes |
//! | `joint` | no counter of the edge: the requests of the route by the gateway's counters, times calls per request by the spans; right when whole traces are sampled |
//! | `spans` | no counter anywhere: how much was sampled is not known, so neither is the rate |
//!
//! Sampling decides about traces, and a trace may call an edge several times, so an interval is
//! widened by the calls per trace (the design effect).

mod interval;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;
use windrose_proto::edge::CounterStats;
use windrose_proto::hop::EntryRoute;
use windrose_proto::model::NodeRole;
use windrose_store::edge_sums::EntryCalls;

use crate::graph::{EdgeTotals, Graph, NodeId, RouteId};
use interval::{Total, share_of};

/// A stratum with fewer spans than this says nothing about itself: the edge is taken as a whole.
const STRATUM_MIN: i64 = 5;

/// How an estimate was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    Counter,
    Marginal,
    Joint,
    Spans,
}

/// A number of calls, corrected for sampling, with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// `None` when no counter tells how much was sampled.
    pub calls: Option<Total>,
    pub method: Method,
    pub reason: Option<&'static str>,
}

/// An estimate as a rate, in the words of the API.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct CorrectedRate {
    /// Corrected for sampling; `null` when nothing tells how much was sampled.
    pub per_second: Option<f64>,
    /// Bounds of the 95 % confidence interval.
    pub low: Option<f64>,
    pub high: Option<f64>,
    /// `counter`, `marginal`, `joint` or `spans`.
    #[schema(value_type = String)]
    pub method: Method,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

const NO_COUNTER: &str = "no counter of this edge or of the gateway tells how much was sampled";
const COUNTED_LESS: &str = "the counters saw less than the spans: they began later than the window";
const UNOBSERVED: &str = "the counters moved, but no span of this edge was joined";

/// Estimates of a graph.
#[derive(Debug)]
pub struct Correction<'g> {
    graph: &'g Graph,
    /// Requests by route at the gateways: estimated, and by spans.
    entries: BTreeMap<RouteId, (Total, i64)>,
}

impl Estimate {
    const fn unknown(reason: &'static str) -> Self {
        Self { calls: None, method: Method::Spans, reason: Some(reason) }
    }

    const fn known(calls: Total, method: Method) -> Self {
        Self { calls: Some(calls), method, reason: None }
    }

    /// As a rate over a window; what nobody estimated is not known.
    #[must_use]
    pub fn rate_of(estimate: Option<Self>, seconds: f64) -> CorrectedRate {
        estimate.unwrap_or(Self::unknown(NO_COUNTER)).per_second(seconds)
    }

    /// As a rate over a window.
    #[must_use]
    pub fn per_second(self, seconds: f64) -> CorrectedRate {
        let rate = |of: fn(&Total) -> f64| self.calls.as_ref().map(of).filter(|_| seconds > 0.0).map(|n| n / seconds);
        CorrectedRate {
            per_second: rate(|total| total.value),
            low: rate(|total| total.low),
            high: rate(|total| total.high),
            method: self.method,
            reason: self.reason,
        }
    }
}

impl<'g> Correction<'g> {
    /// Prepares the estimates of `graph`, which must hold the entry edges for `joint` ones.
    #[must_use]
    pub fn of(graph: &'g Graph) -> Self {
        let mut entries: BTreeMap<RouteId, (Total, i64)> = BTreeMap::new();
        for ((source, destination), edge) in &graph.edges {
            if !enters(graph, source, destination) {
                continue;
            }
            for (route, totals) in &edge.routes {
                let estimate = marginal(edge, totals.spans, 1.0);
                if let Some(total) = estimate.calls {
                    let entry = entries.entry(*route).or_insert((Total::exact(0.0), 0));
                    *entry = (entry.0.plus(total), entry.1 + totals.spans.calls);
                }
            }
        }
        Self { graph, entries }
    }

    /// Calls of an edge.
    #[must_use]
    pub fn edge(&self, edge: &EdgeTotals) -> Estimate {
        let spans = edge.stats.spans.calls;
        match counted(edge) {
            Ok(counters) => Estimate::known(Total::exact(counters.calls as f64), Method::Counter),
            Err(reason) => {
                // What no counter of its own counts is the sum over its routes, if all of them are known.
                let parts: Vec<Estimate> =
                    edge.routes.iter().map(|(route, totals)| self.joint(*route, totals.spans)).collect();
                let attributed: i64 = edge.routes.values().map(|totals| totals.spans.calls).sum();
                let total = parts.iter().try_fold(Total::exact(0.0), |sum, part| Some(sum.plus(part.calls?)));
                match total.filter(|_| attributed == spans && spans > 0) {
                    Some(total) => Estimate::known(total, Method::Joint),
                    None => Estimate::unknown(reason),
                }
            }
        }
    }

    /// Requests of a public route, where they enter.
    #[must_use]
    pub fn route(&self, route: &EntryRoute) -> Estimate {
        match self.graph.routes.id(route).and_then(|id| self.entries.get(&id)) {
            Some((total, _)) => Estimate::known(*total, Method::Marginal),
            None => Estimate::unknown(NO_COUNTER),
        }
    }

    /// Calls of an edge on behalf of a route.
    #[must_use]
    pub fn route_on_edge(&self, edge: &EdgeTotals, route: RouteId) -> Estimate {
        let Some(totals) = edge.routes.get(&route) else { return Estimate::unknown(UNOBSERVED) };
        let per_request = self.per_request(route, totals.spans);
        let marginal = marginal(edge, totals.spans, per_request);
        if marginal.calls.is_some() { marginal } else { self.joint(route, totals.spans) }
    }

    /// The route's requests by the gateway's counters, times calls per request by the spans.
    fn joint(&self, route: RouteId, spans: EntryCalls) -> Estimate {
        let Some((requests, sampled)) = self.entries.get(&route).filter(|(_, sampled)| *sampled > 0) else {
            return Estimate::unknown(NO_COUNTER);
        };
        let per_request = self.per_request(route, spans);
        Estimate::known(requests.times_mean(spans.calls, *sampled, per_request), Method::Joint)
    }

    /// Calls of one request of the route: how many come with one sampling decision, at least.
    fn per_request(&self, route: RouteId, spans: EntryCalls) -> f64 {
        let requests = self.graph.requests.get(&route).copied().unwrap_or(0);
        if requests > 0 { (spans.calls as f64 / requests as f64).max(1.0) } else { 1.0 }
    }
}

/// Writes the estimates of every edge and route into the graph.
pub fn correct(graph: &mut Graph) {
    let full = std::mem::take(graph);
    let correction = Correction::of(&full);
    let estimates: Vec<(Estimate, Vec<Estimate>)> = full
        .edges
        .values()
        .map(|edge| {
            let routes = edge.routes.keys().map(|route| correction.route_on_edge(edge, *route));
            (correction.edge(edge), routes.collect())
        })
        .collect();
    *graph = full;
    for (edge, (estimate, routes)) in graph.edges.values_mut().zip(estimates) {
        edge.corrected = Some(estimate);
        edge.routes.values_mut().zip(routes).for_each(|(totals, estimate)| totals.corrected = Some(estimate));
    }
}

/// Writes the estimates into `graph`, which holds a part of the traffic of `full`: an edge's
/// estimate is the sum over the routes that are left of it.
pub fn correct_part(graph: &mut Graph, full: &Graph) {
    let correction = Correction::of(full);
    for (ends, part) in &mut graph.edges {
        let Some(whole) = full.edges.get(ends) else { continue };
        let mut sum = Some(Estimate::known(Total::exact(0.0), Method::Marginal));
        for (route, totals) in &mut part.routes {
            let known = full.routes.id(graph.routes.route(*route));
            let estimate = known.map_or(Estimate::unknown(UNOBSERVED), |route| correction.route_on_edge(whole, route));
            totals.corrected = Some(estimate);
            sum = match (sum.and_then(|sum| sum.calls), estimate.calls) {
                (Some(sum), Some(total)) => Some(Estimate::known(sum.plus(total), estimate.method)),
                _ => None,
            };
        }
        part.corrected = Some(sum.unwrap_or(Estimate::unknown(NO_COUNTER)));
    }
}

/// Whether requests enter by an edge between these nodes.
fn enters(graph: &Graph, source: &NodeId, destination: &NodeId) -> bool {
    let role = |id: &NodeId| graph.nodes.get(id).map(|node| node.role);
    role(destination) == Some(NodeRole::Gateway) && role(source) != Some(NodeRole::Gateway)
}

/// The counters of an edge, when they count all of it.
fn counted(edge: &EdgeTotals) -> Result<&CounterStats, &'static str> {
    let counters = edge.counters().filter(|counters| counters.calls > 0).ok_or(NO_COUNTER)?;
    if counters.calls < edge.stats.spans.calls { Err(COUNTED_LESS) } else { Ok(counters) }
}

/// Calls and spans of one stratum.
struct Stratum {
    counted: i64,
    sampled: i64,
    of_part: i64,
}

/// A part of an edge's calls: the edge's counters, divided as its spans are.
fn marginal(edge: &EdgeTotals, part: EntryCalls, design_effect: f64) -> Estimate {
    let counters = match counted(edge) {
        Ok(counters) => counters,
        Err(reason) => return Estimate::unknown(reason),
    };
    let all = EntryCalls::of(&edge.stats.spans);
    if all.calls <= 0 {
        return Estimate::unknown(UNOBSERVED);
    }
    // What a counter of HTTP codes puts into class 5xx.
    let failed =
        Stratum { counted: failures_counted(counters), sampled: all.server_errors, of_part: part.server_errors };
    let good = Stratum {
        counted: counters.calls - failed.counted,
        sampled: all.calls - failed.sampled,
        of_part: part.calls - failed.of_part,
    };
    let stands = |stratum: &Stratum| {
        stratum.sampled <= stratum.counted && (stratum.sampled >= STRATUM_MIN || stratum.counted == 0)
    };
    let strata = if stands(&failed) && stands(&good) {
        vec![failed, good]
    } else {
        vec![Stratum { counted: counters.calls, sampled: all.calls, of_part: part.calls }]
    };
    let parts = strata.iter().filter(|stratum| stratum.counted > 0);
    let total = parts.fold(Total::exact(0.0), |sum, stratum| {
        sum.plus(share_of(stratum.counted, stratum.sampled, stratum.of_part, design_effect))
    });
    // What was seen did happen.
    let total = Total { low: total.low.max(part.calls as f64).min(total.value), ..total };
    Estimate::known(total, Method::Marginal)
}

/// Answers of class 5xx.
fn failures_counted(counters: &CounterStats) -> i64 {
    counters.by_code.iter().filter(|(code, _)| code.starts_with('5')).map(|(_, count)| count).sum()
}
