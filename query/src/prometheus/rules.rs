//! `rules`, `alerts`, `alertmanagers`. Windrose evaluates no rules, so there are none; Grafana asks for them whenever a
//! data source is loaded and takes an error for a broken one.

use serde_json::json;

use super::answer::Answer;
use super::request::{Form, invalid};
use crate::http::error::ApiError;

/// `/api/v1/rules`: no groups.
#[utoipa::path(
    get, path = "/api/v1/rules", tag = "prometheus",
    params(("type" = Option<String>, Query, description = "alert or record")),
    responses((status = 200, description = "Rule groups: none."), (status = 400, body = crate::http::error::ErrorBody)),
)]
pub(super) async fn rules(form: Form) -> Result<Answer, ApiError> {
    match form.first("type") {
        "" | "alert" | "record" => {}
        other => {
            let quoted = windrose_proto::metric::quote::quote(other);
            return Err(invalid("type", &format!("not supported value {quoted}")));
        }
    }
    form.matchers()?;
    Answer::new(&json!({"groups": []}))
}

/// `/api/v1/alerts`: none.
#[utoipa::path(
    get, path = "/api/v1/alerts", tag = "prometheus",
    responses((status = 200, description = "Alerts: none."), (status = 400, body = crate::http::error::ErrorBody)),
)]
pub(super) async fn alerts() -> Result<Answer, ApiError> {
    Answer::new(&json!({"alerts": []}))
}

/// `/api/v1/alertmanagers`: none.
#[utoipa::path(
    get, path = "/api/v1/alertmanagers", tag = "prometheus",
    responses((status = 200, description = "Alertmanagers: none."), (status = 400, body = crate::http::error::ErrorBody)),
)]
pub(super) async fn alertmanagers() -> Result<Answer, ApiError> {
    Answer::new(&json!({"activeAlertmanagers": [], "droppedAlertmanagers": []}))
}
