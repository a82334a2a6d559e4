//! `GET /api/v1/topology`.

use std::collections::BTreeMap;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use windrose_proto::hop::Entry;
use windrose_proto::time::UnixNanos;
use windrose_store::edge_sums::{Detail, EdgeSum};

use super::envelope::Success;
use super::error::ApiError;
use super::params::Params;
use super::state::{QueryState, edge_sums};
use crate::graph::{FocusDirection, Graph, NodeId, Scope, Selection};
use crate::sampling::{correct, correct_part};
use crate::scrape_status::{ScrapeStatus, Target};
use crate::topology::{TopologyAnswer, WindowAnswer, format, routes_shown};

const PARAMS: &[&str] = &[
    "start",
    "end",
    "scope",
    "namespace",
    "focus",
    "depth",
    "direction_of",
    "direction",
    "route",
    "routes",
    "min_rps",
    "format",
];

/// Hops walked from the focus when `depth` is not given.
const DEFAULT_DEPTH: usize = 2;
/// More routes than an edge has.
const MAX_ROUTES: usize = 100_000;
/// Deeper than any real call chain.
const MAX_DEPTH: usize = 64;

#[derive(Clone, Copy)]
enum Format {
    Json,
    Dot,
    Mermaid,
    Csv,
}

impl Format {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "json" => Some(Self::Json),
            "dot" => Some(Self::Dot),
            "mermaid" => Some(Self::Mermaid),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

/// Who calls whom, how often, how fast and how often wrong.
#[utoipa::path(
    get, path = "/api/v1/topology", tag = "topology",
    params(
        ("start" = Option<String>, Query, description = "unix seconds, RFC 3339 or relative (now-1h); default one hour before end"),
        ("end" = Option<String>, Query, description = "default now"),
        ("scope" = Option<String>, Query, description = "service (default), workload or version"),
        ("namespace" = Option<String>, Query, description = "edges with an end in this namespace"),
        ("focus" = Option<String>, Query, description = "only what lies around this node: name, namespace/name or id"),
        ("depth" = Option<usize>, Query, description = "hops around the focus, default 2"),
        ("direction_of" = Option<String>, Query, description = "up, down or both (default) from the focus"),
        ("direction" = Option<String>, Query, description = "north_south, east_west or egress"),
        ("route" = Option<String>, Query, description = "only traffic of this public route, for example GET /api/orders/{id}"),
        ("routes" = Option<usize>, Query, description = "most routes listed per edge; default all, of a large mesh the busiest five"),
        ("min_rps" = Option<f64>, Query, description = "leaves out quieter edges"),
        ("format" = Option<String>, Query, description = "json (default), dot, mermaid or csv"),
    ),
    responses((status = 200, body = Success<TopologyAnswer>), (status = 400, body = super::error::ErrorBody)),
)]
pub(super) async fn topology(
    State(state): State<QueryState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let params = Params::parse(query.as_deref(), PARAMS)?;
    let tenant = state.tenant(&headers)?;
    let now = state.clock.now();
    let range = params.range(now)?;
    let scope = params.read("scope", "service, workload or version", Scope::parse)?.unwrap_or_default();
    let output = params.read("format", "json, dot, mermaid or csv", Format::parse)?.unwrap_or(Format::Json);
    let route = params.text("route").map(str::to_owned);
    let routes = params.text("routes").map(|_| params.number("routes", 0, MAX_ROUTES)).transpose()?;
    let selection = selection(&params)?;
    let worker = state.clone();
    let answer = state.run(async move {
        let snapshot = worker.snapshot(&tenant);
        let detail = if route.is_some() { Detail::Routes } else { Detail::Calls };
        let mut sums = edge_sums(&snapshot, range, detail).await?;
        let mut graph = Graph::of(&sums, scope);
        if let Some(route) = route {
            sums.retain(|edge| serves(edge, &route));
            let full = std::mem::replace(&mut graph, Graph::of(&sums, scope));
            correct_part(&mut graph, &full);
        } else {
            correct(&mut graph);
        }
        selection.apply(&mut graph, range.seconds());
        let scrapes = scrape_statuses(&graph, &worker.targets.targets(), now);
        let window = WindowAnswer::new(range, snapshot.complete_until, snapshot.revision_count);
        let routes = routes.unwrap_or_else(|| routes_shown(&graph));
        Ok(TopologyAnswer::new(&graph, window, range.seconds(), &scrapes, routes))
    });
    let answer = answer.await?;
    Ok(match output {
        Format::Json => Success::new(answer).into_response(),
        Format::Dot => text("text/vnd.graphviz; charset=utf-8", format::dot(&answer)),
        Format::Mermaid => text("text/vnd.mermaid; charset=utf-8", format::mermaid(&answer)),
        Format::Csv => text("text/csv; charset=utf-8", format::csv(&answer)),
    })
}

fn selection(params: &Params) -> Result<Selection, ApiError> {
    let rps = |text: &str| text.parse().ok().filter(|rps: &f64| rps.is_finite() && *rps >= 0.0);
    Ok(Selection {
        namespace: params.text("namespace").map(str::to_owned),
        direction: params.direction("direction")?,
        focus: params.text("focus").map(str::to_owned),
        focus_direction: params.read("direction_of", "up, down or both", FocusDirection::parse)?.unwrap_or_default(),
        depth: params.number("depth", DEFAULT_DEPTH, MAX_DEPTH)?,
        min_rps: params.read("min_rps", "a number of calls per second, 0 or more", rps)?.unwrap_or(0.0),
    })
}

fn serves(edge: &EdgeSum, route: &str) -> bool {
    matches!(&edge.key.entry, Some(Entry::Route(entry)) if &*entry.route == route)
}

fn text(content_type: &'static str, body: String) -> Response {
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

/// Which targets belong to which node.
pub(super) fn scrape_statuses(graph: &Graph, targets: &[Target], now: UnixNanos) -> BTreeMap<NodeId, ScrapeStatus> {
    let mut statuses: BTreeMap<NodeId, ScrapeStatus> = BTreeMap::new();
    for target in targets {
        let Some(service) = target.service.as_deref() else { continue };
        let belongs = |id: &&NodeId| {
            &*id.name == service
                && (target.namespace.is_none() || id.namespace.as_deref() == target.namespace.as_deref())
        };
        for id in graph.nodes.keys().filter(belongs) {
            let status = statuses.entry(id.clone()).or_default();
            status.targets += 1;
            status.up += usize::from(target.up == Some(true));
            let waited = target.last_success.map(|at| now.since(at) as f64 / 1e9);
            status.stale_seconds = match (status.stale_seconds, waited) {
                (Some(a), Some(b)) => Some(a.max(b)),
                (a, b) => a.or(b),
            };
        }
    }
    statuses
}
