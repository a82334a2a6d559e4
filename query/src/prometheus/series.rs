//! `series`, `labels`, `label/<name>/values`: which series there are.

use std::collections::BTreeSet;

use axum::extract::{Path, State};
use http::HeaderMap;
use windrose_promql::Matcher;
use windrose_promql::api_json::write_labels;
use windrose_proto::metric::Labels;
use windrose_proto::metric::labels::METRIC_NAME;

use super::answer::{Answer, TRUNCATED};
use super::load::{View, read_error};
use super::request::{Form, invalid};
use crate::edge_series::{self, LabelReach};
use crate::http::QueryState;
use crate::http::error::{ApiError, ErrorKind};

/// What a request about labels asks for.
struct Asked {
    view: View,
    sets: Vec<Vec<Matcher>>,
    min_time: i64,
    max_time: i64,
    limit: usize,
}

impl Asked {
    fn read(state: &QueryState, headers: &HeaderMap, form: &Form) -> Result<Self, ApiError> {
        let tenant = state.tenant(headers)?;
        let limit = form.limit()?;
        let (min_time, max_time) = form.span()?;
        let sets = form.matchers()?;
        Ok(Self { view: View::new(state, &tenant, state.engine.lookback), sets, min_time, max_time, limit })
    }

    fn reach(&self) -> LabelReach {
        LabelReach::new(self.min_time, self.max_time, self.view.now)
    }

    /// The label sets of series computed from edges.
    async fn virtual_sets(&self) -> Result<BTreeSet<Labels>, ApiError> {
        let rows = self.view.edge_rows(self.reach().range()).await?;
        Ok(edge_series::label_sets(&rows, &self.sets))
    }

    /// How many items to ask the store for: one more than are shown, to notice that there are more.
    const fn enough(&self) -> usize {
        if self.limit == 0 { usize::MAX } else { self.limit.saturating_add(1) }
    }
}

/// `/api/v1/series`: label sets.
#[utoipa::path(
    get, path = "/api/v1/series", tag = "prometheus",
    params(("match[]" = Option<String>, Query, description = "a selector, may be repeated"), ("start" = Option<String>, Query), ("end" = Option<String>, Query), ("limit" = Option<String>, Query)),
    responses((status = 200, description = "Label sets."), (status = 400, body = crate::http::error::ErrorBody)),
)]
pub(super) async fn series(
    State(state): State<QueryState>,
    headers: HeaderMap,
    form: Form,
) -> Result<Answer, ApiError> {
    if form.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let named = |error: ApiError| match error.kind {
        ErrorKind::BadData if !error.message.starts_with("invalid parameter") => invalid("match[]", &error.message),
        _ => error,
    };
    let asked = Asked::read(&state, &headers, &form).map_err(named)?;
    let answer = state.run(async move {
        let stored = asked.view.metrics.series(&asked.sets, asked.min_time, asked.max_time, asked.enough()).await;
        let mut sets = asked.virtual_sets().await?;
        sets.extend(stored.map_err(read_error)?);
        let cut = asked.limit > 0 && sets.len() > asked.limit;
        let shown = if cut { asked.limit } else { sets.len() };
        let mut data = String::from("[");
        for (index, labels) in sets.iter().take(shown).enumerate() {
            data.push_str(if index > 0 { "," } else { "" });
            write_labels(&mut data, labels);
        }
        data.push(']');
        let warnings = if cut { vec![TRUNCATED.to_owned()] } else { Vec::new() };
        Ok(Answer::written(data, warnings, Vec::new()))
    });
    answer.await
}

/// `/api/v1/labels`: names of labels.
#[utoipa::path(
    get, path = "/api/v1/labels", tag = "prometheus",
    params(("match[]" = Option<String>, Query, description = "a selector, may be repeated"), ("start" = Option<String>, Query), ("end" = Option<String>, Query), ("limit" = Option<String>, Query)),
    responses((status = 200, description = "Names of labels."), (status = 400, body = crate::http::error::ErrorBody)),
)]
pub(super) async fn labels(
    State(state): State<QueryState>,
    headers: HeaderMap,
    form: Form,
) -> Result<Answer, ApiError> {
    let asked = Asked::read(&state, &headers, &form)?;
    let answer = state.run(async move {
        let Asked { view, sets, min_time, max_time, .. } = &asked;
        let stored = view.metrics.label_names(sets, *min_time, *max_time, asked.enough()).await;
        let mut names: BTreeSet<String> = stored.map_err(read_error)?.into_iter().collect();
        let edges = asked.virtual_sets().await?;
        names.extend(edges.iter().flat_map(Labels::iter).map(|label| label.name.to_string()));
        Answer::list(names.into_iter().collect::<Vec<_>>(), asked.limit)
    });
    answer.await
}

/// `/api/v1/label/<name>/values`: values of one label.
#[utoipa::path(
    get, path = "/api/v1/label/{name}/values", tag = "prometheus",
    params(("name" = String, Path), ("match[]" = Option<String>, Query, description = "a selector, may be repeated"), ("start" = Option<String>, Query), ("end" = Option<String>, Query), ("limit" = Option<String>, Query)),
    responses((status = 200, description = "Values of one label."), (status = 400, body = crate::http::error::ErrorBody)),
)]
pub(super) async fn label_values(
    State(state): State<QueryState>,
    Path(name): Path<String>,
    headers: HeaderMap,
    form: Form,
) -> Result<Answer, ApiError> {
    let name = unescape(&name);
    if name.is_empty() {
        return Err(ApiError::bad_data("invalid label name: \"\""));
    }
    let asked = Asked::read(&state, &headers, &form)?;
    let answer = state.run(async move {
        let Asked { view, sets, min_time, max_time, .. } = &asked;
        let stored = view.metrics.label_values(&name, sets, *min_time, *max_time, asked.enough()).await;
        let mut values: BTreeSet<String> = stored.map_err(read_error)?.into_iter().collect();
        let rows = asked.view.edge_rows(asked.reach().range()).await?;
        match (name == METRIC_NAME).then(|| edge_series::names_of(&rows, &asked.sets)).flatten() {
            Some(names) => values.extend(names),
            None => {
                let sets = edge_series::label_sets(&rows, &asked.sets);
                values.extend(sets.iter().map(|labels| labels.get(&name).to_owned()).filter(|value| !value.is_empty()));
            }
        }
        Answer::list(values.into_iter().collect::<Vec<_>>(), asked.limit)
    });
    answer.await
}

/// A name in a path may be escaped, `U__http_2e_method` for `http.method`; what is not well escaped is meant as it
/// stands.
fn unescape(name: &str) -> String {
    name.strip_prefix("U__").and_then(unescape_values).unwrap_or_else(|| name.to_owned())
}

fn unescape_values(mut rest: &str) -> Option<String> {
    let mut plain = String::new();
    while let Some(at) = rest.find('_') {
        plain.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('_') {
            plain.push('_');
            rest = after;
            continue;
        }
        let (code, after) = rest.split_once('_')?;
        let is_code = (1..=6).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.push(is_code.then(|| u32::from_str_radix(code, 16).ok().and_then(char::from_u32)).flatten()?);
        rest = after;
    }
    plain.push_str(rest);
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn escaped_names() {
        let check = |escaped: &str, expect: &str| assert_eq!(unescape(escaped), expect);
        check("job", "job");
        check("U__http_2e_method", "http.method");
        check("U__a__b", "a_b");
        check("U___1f600_x", "😀x");
        check("U__bad_zz_", "U__bad_zz_");
        check("U__cut_2e", "U__cut_2e");
    }
}
