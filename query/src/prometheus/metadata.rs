//! `metadata`: type, help and unit by metric family.

use std::collections::BTreeMap;

use axum::extract::State;
use http::HeaderMap;
use windrose_proto::metric::Metadata;

use super::answer::Answer;
use super::request::Form;
use crate::edge_series;
use crate::http::QueryState;
use crate::http::error::ApiError;

/// `/api/v1/metadata`.
#[utoipa::path(
    get, path = "/api/v1/metadata", tag = "prometheus",
    params(("metric" = Option<String>, Query, description = "one family"), ("limit" = Option<String>, Query), ("limit_per_metric" = Option<String>, Query)),
    responses((status = 200, description = "Type, help and unit by metric family."), (status = 400, body = crate::http::error::ErrorBody)),
)]
pub(super) async fn metadata(
    State(state): State<QueryState>,
    headers: HeaderMap,
    form: Form,
) -> Result<Answer, ApiError> {
    let tenant = state.tenant(&headers)?;
    let number = |name: &str| match form.first(name) {
        "" => Ok(None),
        text => {
            let read = text.parse::<i64>().map_err(|_| ApiError::bad_data(format!("{name} must be a number")));
            // Negative is none, as in Prometheus; zero is zero.
            read.map(|number| usize::try_from(number).ok())
        }
    };
    let (limit, per_metric) = (number("limit")?, number("limit_per_metric")?);
    let metric = form.first("metric");
    let mut families: BTreeMap<String, Vec<Metadata>> = BTreeMap::new();
    for (family, known) in state.metrics.reader(&tenant).metadata() {
        add(&mut families, &family, known);
    }
    for family in edge_series::families() {
        let known = Metadata { kind: family.kind(), help: family.help.to_owned(), unit: String::new() };
        add(&mut families, family.name, known);
    }
    families.retain(|name, _| metric.is_empty() || name == metric);
    families.values_mut().for_each(|known| known.truncate(per_metric.filter(|most| *most > 0).unwrap_or(usize::MAX)));
    let shown: BTreeMap<_, _> = families.into_iter().take(limit.unwrap_or(usize::MAX)).collect();
    Answer::new(&shown)
}

fn add(families: &mut BTreeMap<String, Vec<Metadata>>, name: &str, metadata: Metadata) {
    let known = families.entry(name.to_owned()).or_default();
    if !known.contains(&metadata) {
        known.push(metadata);
    }
}
