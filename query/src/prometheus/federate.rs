//! `/federate`: the latest samples of what matches, as a page that another Prometheus scrapes.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use windrose_promql::number::write_fixed;
use windrose_promql::value::is_absent;
use windrose_promql::{Storage as _, StorageError};
use windrose_proto::metric::Labels;
use windrose_proto::metric::labels::{METRIC_NAME, is_legacy_label_name, is_legacy_metric_name};

use super::load::{Loaded, View, as_select, instant_select};
use super::request::Form;
use crate::http::QueryState;
use crate::http::error::ApiError;

/// How names that need quotes are written: as asked in `Accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escaping {
    Quotes,
    Underscores,
}

/// `/federate?match[]=…`.
#[utoipa::path(
    get, path = "/federate", tag = "prometheus",
    params(("match[]" = Option<String>, Query, description = "a selector, may be repeated")),
    responses((status = 200, description = "The latest samples of what matches, as a page to be scraped."), (status = 400, body = crate::http::error::ErrorBody)),
)]
pub(super) async fn federate(
    State(state): State<QueryState>,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, ApiError> {
    let tenant = state.tenant(&headers)?;
    let sets = form.matchers()?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let escaping = if accept.contains("escaping=allow-utf-8") { Escaping::Quotes } else { Escaping::Underscores };
    let lookback = state.engine.lookback;
    let worker = state.clone();
    let page = state.run(async move {
        let view = View::new(&worker, &tenant, lookback);
        let now = view.now;
        let plan: Vec<_> = sets.into_iter().map(|set| instant_select(set, now, lookback)).collect();
        let loaded = Loaded::load(view, plan.clone()).await?;
        let writing = tokio::task::spawn_blocking(move || {
            let mut latest: BTreeMap<Labels, (i64, f64)> = BTreeMap::new();
            for planned in &plan {
                collect(&loaded, planned, &mut latest).map_err(|error| ApiError::execution(error.0))?;
            }
            Ok(page(&latest, escaping))
        });
        writing.await.unwrap_or_else(|_| Err(ApiError::internal("the query panicked")))
    });
    let content_type = match escaping {
        Escaping::Quotes => "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
        Escaping::Underscores => "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
    };
    Ok(([(header::CONTENT_TYPE, content_type)], page.await?).into_response())
}

fn collect(
    loaded: &Loaded,
    planned: &windrose_promql::PlannedSelect,
    latest: &mut BTreeMap<Labels, (i64, f64)>,
) -> Result<(), StorageError> {
    let mut series_set = loaded.select(&as_select(planned))?;
    while let Some(series) = series_set.next()? {
        let (Some(at), Some(value)) = (series.timestamps.last(), series.values.last()) else { continue };
        if !is_absent(*value) {
            latest.insert(series.labels.clone(), (*at, *value));
        }
    }
    Ok(())
}

fn page(latest: &BTreeMap<Labels, (i64, f64)>, escaping: Escaping) -> String {
    /// Labels with time and value.
    type Latest<'a> = (&'a Labels, (i64, f64));
    let mut by_name: BTreeMap<&str, Vec<Latest<'_>>> = BTreeMap::new();
    for (labels, sample) in latest {
        by_name.entry(labels.metric_name()).or_default().push((labels, *sample));
    }
    let mut page = String::new();
    for (name, series) in by_name {
        page.push_str("# TYPE ");
        page.push_str(&metric_name(name, escaping));
        page.push_str(" untyped\n");
        for (labels, (at, value)) in series {
            write_line(&mut page, name, labels, escaping);
            page.push(' ');
            write_fixed(&mut page, value);
            page.push_str(&format!(" {at}\n"));
        }
    }
    page
}

/// `name{label="value"}`. A series without `instance` says so, or whoever scrapes the page would put its own there.
fn write_line(page: &mut String, name: &str, labels: &Labels, escaping: Escaping) {
    let quoted = escaping == Escaping::Quotes && !is_legacy_metric_name(name);
    if quoted {
        page.push_str("{\"");
        page.push_str(&escape(name));
        page.push('"');
    } else {
        page.push_str(&metric_name(name, escaping));
        page.push('{');
    }
    let mut first = !quoted;
    let own = labels.iter().filter(|label| &*label.name != METRIC_NAME).map(|label| (&*label.name, &*label.value));
    let missing = labels.get("instance").is_empty().then_some(("instance", ""));
    for (name, value) in own.chain(missing) {
        page.push_str(if first { "" } else { "," });
        first = false;
        page.push_str(&label_name(name, escaping));
        page.push_str("=\"");
        page.push_str(&escape(value));
        page.push('"');
    }
    page.push('}');
}

fn metric_name(name: &str, escaping: Escaping) -> String {
    match escaping {
        _ if is_legacy_metric_name(name) => name.to_owned(),
        Escaping::Quotes => format!("\"{}\"", escape(name)),
        Escaping::Underscores => underscores(name, |c| c == ':' || c == '_' || c.is_ascii_alphanumeric()),
    }
}

fn label_name(name: &str, escaping: Escaping) -> String {
    match escaping {
        _ if is_legacy_label_name(name) => name.to_owned(),
        Escaping::Quotes => format!("\"{}\"", escape(name)),
        Escaping::Underscores => underscores(name, |c| c == '_' || c.is_ascii_alphanumeric()),
    }
}

fn underscores(name: &str, legal: impl Fn(char) -> bool) -> String {
    let mut text: String = name.chars().map(|c| if legal(c) { c } else { '_' }).collect();
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        text.insert(0, '_');
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_grouped_by_name_and_every_series_has_an_instance() {
        let series = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied());
        let latest = BTreeMap::from([
            (series(&[("__name__", "up"), ("instance", "a:1")]), (1_000, 1.0)),
            (series(&[("__name__", "http.calls"), ("peer.service", "a\"b")]), (2_500, 0.5)),
        ]);
        assert_eq!(
            page(&latest, Escaping::Underscores),
            "# TYPE http_calls untyped\nhttp_calls{peer_service=\"a\\\"b\",instance=\"\"} 0.5 2500\n\
             # TYPE up untyped\nup{instance=\"a:1\"} 1 1000\n"
        );
        assert_eq!(
            page(&latest, Escaping::Quotes),
            "# TYPE \"http.calls\" untyped\n{\"http.calls\",\"peer.service\"=\"a\\\"b\",instance=\"\"} 0.5 2500\n\
             # TYPE up untyped\nup{instance=\"a:1\"} 1 1000\n"
        );
    }
}
