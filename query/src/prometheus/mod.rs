//! The HTTP API of Prometheus 3.x over everything Windrose knows: what was scraped or written, and the edges as series.
//!
//! Unlike the rest of the API it answers exactly as Prometheus does, so that Grafana, `promtool` and scripts need not
//! know the difference: parameters in URL and form body together, unknown ones ignored, its words for errors.
//!
//! | file | what |
//! |---|---|
//! | `request.rs`, `answer.rs` | parameters and the envelope |
//! | `load.rs` | a plan's selections, loaded ahead of an evaluation that never waits |
//! | `query.rs` | `query`, `query_range` |
//! | `series.rs` | `series`, `labels`, `label/<name>/values` |
//! | `exemplars.rs`, `proxy_series.rs` | `query_exemplars`; which edge a proxy's series is about |
//! | `metadata.rs`, `targets.rs`, `rules.rs`, `status.rs` | the resources of those names |
//! | `syntax.rs` | `format_query`, `parse_query` |
//! | `federate.rs` | `/federate` |

mod answer;
mod exemplars;
mod federate;
mod load;
mod metadata;
mod proxy_series;
mod query;
mod request;
mod rules;
mod series;
mod status;
mod syntax;
mod targets;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::routing::{MethodRouter, get};

use crate::http::QueryState;

pub(crate) use query::engine;

/// Their part of the description of the API.
#[derive(utoipa::OpenApi)]
#[openapi(paths(
    query::instant,
    query::range,
    exemplars::query_exemplars,
    syntax::format_query,
    syntax::parse_query,
    series::series,
    series::labels,
    series::label_values,
    metadata::metadata,
    targets::targets,
    targets::scrape_pools,
    rules::rules,
    rules::alerts,
    rules::alertmanagers,
    status::flags,
    status::tsdb,
    federate::federate,
))]
pub(crate) struct Described;

/// All routes of Prometheus that the query side answers.
pub(crate) fn routes() -> Router<QueryState> {
    /// Grafana asks with POST and a form; people with GET.
    fn form<H, T>(handler: H) -> MethodRouter<QueryState>
    where
        H: axum::handler::Handler<T, QueryState>,
        T: 'static,
    {
        get(handler.clone()).post(handler)
    }
    Router::new()
        .route("/api/v1/query", form(query::instant))
        .route("/api/v1/query_range", form(query::range))
        .route("/api/v1/query_exemplars", form(exemplars::query_exemplars))
        .route("/api/v1/format_query", form(syntax::format_query))
        .route("/api/v1/parse_query", form(syntax::parse_query))
        .route("/api/v1/labels", form(series::labels))
        .route("/api/v1/label/{name}/values", get(series::label_values))
        .route("/api/v1/series", form(series::series))
        .route("/api/v1/metadata", get(metadata::metadata))
        .route("/api/v1/targets", get(targets::targets))
        .route("/api/v1/scrape_pools", get(targets::scrape_pools))
        .route("/api/v1/rules", get(rules::rules))
        .route("/api/v1/alerts", get(rules::alerts))
        .route("/api/v1/alertmanagers", get(rules::alertmanagers))
        .route("/api/v1/status/flags", get(status::flags))
        .route("/api/v1/status/tsdb", get(status::tsdb))
        .route("/federate", get(federate::federate))
}
