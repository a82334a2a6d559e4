//! The envelope: `{"status":"success","data":…,"warnings":[…],"infos":[…]}`.

use axum::response::{IntoResponse, Response};
use http::header;
use serde::Serialize;
use windrose_promql::api_json::write_list;

use crate::http::error::ApiError;

/// What is said when `limit` cut an answer.
pub(super) const TRUNCATED: &str = "results truncated due to limit";

/// A good answer; its data is JSON already.
#[derive(Debug)]
pub(super) struct Answer {
    data: String,
    warnings: Vec<String>,
    infos: Vec<String>,
}

impl Answer {
    /// Data that can be written as JSON.
    pub(super) fn new<T: Serialize>(data: &T) -> Result<Self, ApiError> {
        let data = serde_json::to_string(data);
        let data = data.map_err(|error| ApiError::internal(format!("writing the answer: {error}")))?;
        Ok(Self::written(data, Vec::new(), Vec::new()))
    }

    /// Data that was written as JSON.
    pub(super) const fn written(data: String, warnings: Vec<String>, infos: Vec<String>) -> Self {
        Self { data, warnings, infos }
    }

    /// A list of which at most `limit` are shown (0: all).
    pub(super) fn list<T: Serialize>(mut items: Vec<T>, limit: usize) -> Result<Self, ApiError> {
        let cut = limit > 0 && items.len() > limit;
        if cut {
            items.truncate(limit);
        }
        let mut answer = Self::new(&items)?;
        if cut {
            answer.warnings.push(TRUNCATED.to_owned());
        }
        Ok(answer)
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut body = String::with_capacity(self.data.len() + 64);
        body.push_str("{\"status\":\"success\",\"data\":");
        body.push_str(&self.data);
        write_list(&mut body, "warnings", &self.warnings);
        write_list(&mut body, "infos", &self.infos);
        body.push('}');
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}
