//! The HTTP API. One file per resource; every route stands in [`router`].
//!
//! | file | what |
//! |---|---|
//! | `state.rs` | what handlers share; admission, deadline, query runtime |
//! | `params.rs`, `envelope.rs`, `error.rs` | reading requests, wording answers and errors |
//! | `bins.rs` | what happened on some edges, step by step |
//! | `openapi.rs` | the description of the API, built from the handlers |
//! | the rest | one resource each |

use axum::Router;
use axum::routing::{get, post};
use http::Method;

mod bins;
pub mod completeness;
pub mod edges;
pub mod egress;
pub mod envelope;
pub mod error;
pub mod latency;
pub mod openapi;
pub mod params;
pub mod routes;
pub mod services;
pub mod sql;
mod state;
pub mod status;
mod topology;
mod traces;

pub(crate) use state::edge_rows;
pub use state::{DeriveFn, QueryLimits, QueryState, TENANT_HEADER};

use error::ApiError;

/// Largest body of a query request: a statement, not data.
const BODY_MAX_BYTES: usize = 1 << 20;

/// All routes of the query API.
pub fn router(state: QueryState) -> Router {
    Router::new()
        .route("/api/v1/topology", get(topology::topology))
        .route("/api/v1/edges/{id}", get(edges::edge))
        .route("/api/v1/edges/{id}/history", get(edges::history))
        .route("/api/v1/edges/{id}/evidence", get(edges::evidence))
        .route("/api/v1/latency", get(latency::latency))
        .route("/api/v1/routes", get(routes::routes))
        .route("/api/v1/egress", get(egress::egress))
        .route("/api/v1/services", get(services::services))
        .route("/api/v1/services/{*id}", get(services::service))
        .route("/api/v1/traces", get(traces::list))
        .route("/api/v1/traces/{trace_id}", get(traces::trace))
        .route("/api/v1/explain", get(traces::explain))
        .route("/api/v1/completeness", get(completeness::completeness))
        .route("/api/v1/status/tables", get(status::tables))
        .route("/api/v1/sql", post(sql::sql))
        .route("/api/v1/openapi.json", get(openapi::serve))
        .merge(crate::prometheus::routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(tower_http::limit::RequestBodyLimitLayer::new(BODY_MAX_BYTES))
        // Grafana's Prometheus plugin cannot read zstd, which its browser side says it accepts.
        .layer(tower_http::compression::CompressionLayer::new().no_zstd())
        .with_state(state)
}

async fn unknown_path(uri: http::Uri) -> ApiError {
    ApiError::not_found(format!("no such path {:?}: the API is described at /api/v1/openapi.json", uri.path()))
}

async fn unknown_method(method: Method, uri: http::Uri) -> (http::StatusCode, String) {
    (http::StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not allowed on {}\n", uri.path()))
}
