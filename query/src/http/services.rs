//! `GET /api/v1/services` and `/api/v1/services/{id}`: the inventory, from any evidence.

use axum::extract::{Path, RawQuery, State};
use http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;

use super::envelope::Success;
use super::error::ApiError;
use super::params::Params;
use super::state::{QueryState, edge_sums};
use super::topology::scrape_statuses;
use crate::graph::{Graph, NodeId, Scope};
use crate::sampling::correct;
use crate::scrape_status::Target;
use crate::topology::{EdgeAnswer, NodeAnswer, WindowAnswer, routes_shown};
use windrose_proto::Text;
use windrose_proto::model::{NodeRole, ProxyKind};
use windrose_store::edge_sums::Detail;

/// The inventory.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServicesAnswer {
    pub window: WindowAnswer,
    pub services: Vec<NodeAnswer>,
}

/// One service with its neighbours.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServiceDetail {
    pub window: WindowAnswer,
    #[serde(flatten)]
    pub service: NodeAnswer,
    pub inbound: Vec<EdgeAnswer>,
    pub outbound: Vec<EdgeAnswer>,
}

/// Every node that any span, counter or scrape target names.
#[utoipa::path(
    get, path = "/api/v1/services", tag = "services",
    params(("start" = Option<String>, Query), ("end" = Option<String>, Query)),
    responses((status = 200, body = Success<ServicesAnswer>), (status = 400, body = super::error::ErrorBody)),
)]
pub(super) async fn services(
    State(state): State<QueryState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Success<ServicesAnswer>, ApiError> {
    let params = Params::parse(query.as_deref(), &["start", "end"])?;
    let tenant = state.tenant(&headers)?;
    let now = state.clock.now();
    let range = params.range(now)?;
    let worker = state.clone();
    let answer = state.run(async move {
        let snapshot = worker.snapshot(&tenant);
        let mut graph = Graph::of(&edge_sums(&snapshot, range, Detail::Calls).await?, Scope::Service);
        let targets = worker.targets.targets();
        add_silent_targets(&mut graph, &targets);
        let scrapes = scrape_statuses(&graph, &targets, now);
        let node = |(id, node)| NodeAnswer::new(id, node, range.seconds(), scrapes.get(id));
        let window = WindowAnswer::new(range, snapshot.complete_until, snapshot.revision_count);
        Ok(ServicesAnswer { window, services: graph.nodes.iter().map(node).collect() })
    });
    Ok(Success::new(answer.await?))
}

/// One service with its inbound and outbound edges.
#[utoipa::path(
    get, path = "/api/v1/services/{id}", tag = "services",
    params(("id" = String, Path, description = "name, namespace/name or id; slashes may be written as they are"),
        ("start" = Option<String>, Query), ("end" = Option<String>, Query)),
    responses((status = 200, body = Success<ServiceDetail>), (status = 404, body = super::error::ErrorBody)),
)]
pub(super) async fn service(
    State(state): State<QueryState>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Success<ServiceDetail>, ApiError> {
    let params = Params::parse(query.as_deref(), &["start", "end"])?;
    let tenant = state.tenant(&headers)?;
    let now = state.clock.now();
    let range = params.range(now)?;
    let worker = state.clone();
    let answer = state.run(async move {
        let snapshot = worker.snapshot(&tenant);
        let mut graph = Graph::of(&edge_sums(&snapshot, range, Detail::Calls).await?, Scope::Service);
        correct(&mut graph);
        let targets = worker.targets.targets();
        add_silent_targets(&mut graph, &targets);
        let scrapes = scrape_statuses(&graph, &targets, now);
        let mut named = graph.nodes.iter().filter(|(node, _)| node.is_named(&id));
        let (node_id, node) = match (named.next(), named.next()) {
            (Some(only), None) => only,
            (Some((first, _)), Some((second, _))) => {
                return Err(ApiError::bad_data(format!(
                    "{id:?} names several services, among them {first} and {second}: use the full id"
                )));
            }
            (None, _) => return Err(ApiError::not_found(format!("no service {id:?} between start and end"))),
        };
        let routes = routes_shown(&graph);
        let edges = |wanted: fn(&(NodeId, NodeId)) -> &NodeId| {
            let of_node = graph.edges.iter().filter(|(ends, _)| wanted(ends) == node_id);
            of_node.map(|(ends, edge)| EdgeAnswer::new(&graph, ends, edge, range.seconds(), routes)).collect()
        };
        Ok(ServiceDetail {
            window: WindowAnswer::new(range, snapshot.complete_until, snapshot.revision_count),
            service: NodeAnswer::new(node_id, node, range.seconds(), scrapes.get(node_id)),
            inbound: edges(|(_, target)| target),
            outbound: edges(|(source, _)| source),
        })
    });
    Ok(Success::new(answer.await?))
}

/// A scrape target without any traffic is a service all the same.
fn add_silent_targets(graph: &mut Graph, targets: &[Target]) {
    for target in targets {
        let Some(service) = target.service.as_deref() else { continue };
        let namespace = target.namespace.as_deref();
        let known = |id: &NodeId| &*id.name == service && (namespace.is_none() || id.namespace.as_deref() == namespace);
        if !graph.nodes.keys().any(known) {
            let id =
                NodeId { cluster: None, namespace: namespace.map(Text::from), name: Text::from(service), part: None };
            graph.add_node(id, NodeRole::Unknown, ProxyKind::None);
        }
    }
}
