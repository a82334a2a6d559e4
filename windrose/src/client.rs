//! A small client of our own HTTP API, for the command line and the demo.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Largest answer read: a topology of ten thousand edges takes about 20 MiB.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// A little longer than the server's own deadline, so that its explanation arrives instead of ours.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);

/// Talks to one server.
#[derive(Clone, Debug)]
pub struct ApiClient {
    base: String,
    tenant: Option<String>,
    http: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address cannot be one.
    #[error("`{url}` is not the address of a server; write one like http://127.0.0.1:7070")]
    BadUrl { url: String },
    /// Nobody answers there.
    #[error("no answer from {url} ({reason}); is `windrose serve` running there?")]
    Unreachable { url: String, reason: String },
    /// The server is starting, stopping or overloaded.
    #[error("{url} is not ready: {reason}")]
    NotReady { url: String, reason: String },
    /// The server did not like the question.
    #[error("{url} answered {status}: {reason}")]
    Refused { url: String, status: StatusCode, reason: String },
    /// The answer is not what the API promises.
    #[error("the answer of {url} is not readable: {reason}")]
    Unreadable { url: String, reason: String },
}

impl ApiClient {
    /// A client of the server at `base`, such as `http://127.0.0.1:7070`.
    ///
    /// # Errors
    /// When `base` is no http or https address.
    pub fn new(base: &str, tenant: Option<String>) -> Result<Self, ApiError> {
        let bad = || ApiError::BadUrl { url: base.to_owned() };
        let uri: Uri = base.parse().map_err(|_| bad())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.authority().is_none() {
            return Err(bad());
        }
        let provider = rustls::crypto::ring::default_provider();
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(provider)
            .map_err(|_| bad())?
            .https_or_http()
            .enable_http1()
            .build();
        let http = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { base: base.trim_end_matches('/').to_owned(), tenant, http })
    }

    /// The `data` of the answer to `path` with `parameters`.
    ///
    /// # Errors
    /// When nobody answers, the server refuses, or the answer is not JSON.
    pub async fn data(&self, path: &str, parameters: &[(&str, String)]) -> Result<Value, ApiError> {
        let mut answer = self.get(path, parameters).await?;
        Ok(answer.get_mut("data").map_or(Value::Null, Value::take))
    }

    /// The whole answer to `path` with `parameters`, envelope included.
    ///
    /// # Errors
    /// As [`Self::data`].
    pub async fn get(&self, path: &str, parameters: &[(&str, String)]) -> Result<Value, ApiError> {
        let url = format!("{}{path}{}", self.base, query_string(parameters));
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(&url)).await;
        let (status, body) = answered.unwrap_or_else(|_| {
            let reason = format!("no answer within {} s", ANSWER_TIMEOUT.as_secs());
            Err(ApiError::Unreachable { url: url.clone(), reason })
        })?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|error| ApiError::Unreadable { url, reason: error.to_string() });
        }
        let reason = reason_of(&body);
        Err(match status {
            StatusCode::SERVICE_UNAVAILABLE => ApiError::NotReady { url, reason },
            _ => ApiError::Refused { url, status, reason },
        })
    }

    async fn exchange(&self, url: &str) -> Result<(StatusCode, Bytes), ApiError> {
        let mut request = Request::get(url).header(http::header::ACCEPT, "application/json");
        if let Some(tenant) = &self.tenant {
            request = request.header("x-scope-orgid", tenant);
        }
        let request = request.body(Empty::new()).map_err(|_| ApiError::BadUrl { url: url.to_owned() })?;
        let response = self
            .http
            .request(request)
            .await
            .map_err(|error| ApiError::Unreachable { url: self.base.clone(), reason: root_cause(&error) })?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect().await;
        let body = body.map_err(|error| ApiError::Unreadable { url: url.to_owned(), reason: error.to_string() })?;
        Ok((status, body.to_bytes()))
    }
}

/// The innermost message: `connection refused` rather than `client error (Connect)`.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The explanation in an error answer; of answers that are not ours, the first characters.
fn reason_of(body: &[u8]) -> String {
    let ours = serde_json::from_slice::<Value>(body).ok();
    let told = ours.as_ref().and_then(|answer| answer.get("error")?.as_str());
    told.map_or_else(|| String::from_utf8_lossy(body).trim().chars().take(200).collect(), str::to_owned)
}

fn query_string(parameters: &[(&str, String)]) -> String {
    let pairs: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{name}={}", percent_encoded(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// Encodes everything but the unreserved characters of RFC 3986; good for path segments too.
pub(crate) fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_encoded() {
        let parameters = [("route", "GET /a?b&c".to_owned()), ("limit", "5".to_owned())];
        assert_eq!(query_string(&parameters), "?route=GET%20%2Fa%3Fb%26c&limit=5");
        assert_eq!(query_string(&[]), "");
    }

    #[test]
    fn an_error_answer_is_explained() {
        assert_eq!(reason_of(br#"{"status":"error","errorType":"bad_data","error":"limit: `x`"}"#), "limit: `x`");
        assert_eq!(reason_of(b"<html>proxy</html>"), "<html>proxy</html>");
    }

    #[test]
    fn addresses_are_checked() {
        for wrong in ["", "127.0.0.1:7070", "ftp://host", "http://"] {
            assert!(matches!(ApiClient::new(wrong, None), Err(ApiError::BadUrl { .. })), "{wrong}");
        }
        assert!(ApiClient::new("http://127.0.0.1:7070/", None).is_ok());
    }
}
