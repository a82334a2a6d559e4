//! The OpenAPI description of the API, built from the handlers, so that it cannot drift.

use axum::Json;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Windrose",
        description = "Topology and latency of a service mesh, joined from spans and proxy counters."
    ),
    paths(
        super::topology::topology,
        super::edges::edge,
        super::edges::history,
        super::edges::evidence,
        super::latency::latency,
        super::routes::routes,
        super::egress::egress,
        super::services::services,
        super::services::service,
        super::traces::list,
        super::traces::trace,
        super::traces::explain,
        super::completeness::completeness,
        super::status::tables,
        super::sql::sql,
    )
)]
struct Api;

/// The description.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    let mut described = Api::openapi();
    described.merge(crate::prometheus::Described::openapi());
    described
}

pub(super) async fn serve() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}
