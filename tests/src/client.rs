//! A small HTTP client for the product's ports.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Longer than any answer of a healthy server, also on a loaded machine; then the test fails instead of hanging.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Speaks to one port.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    headers: Vec<(String, String)>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Http {
    /// For one address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), address, headers: Vec::new() }
    }

    /// The same, sending a header with every request.
    #[must_use]
    pub fn with_header(&self, name: &str, value: &str) -> Self {
        let mut other = self.clone();
        other.headers.push((name.to_owned(), value.to_owned()));
        other
    }

    /// The same, as a tenant.
    #[must_use]
    pub fn as_tenant(&self, tenant: &str) -> Self {
        self.with_header("x-scope-orgid", tenant)
    }

    /// `GET path`.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn try_get(&self, path: &str) -> Result<Answer, String> {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// `GET path`.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn get(&self, path: &str) -> Answer {
        self.try_get(path).await.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// `GET path` as JSON.
    ///
    /// # Panics
    /// When the answer is not 200 with JSON.
    pub async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "GET {path}: {}", answer.text());
        answer.json()
    }

    /// The `data` of an enveloped answer to `GET path`.
    ///
    /// # Panics
    /// When the answer is not a success.
    pub async fn data(&self, path: &str) -> Value {
        let mut envelope = self.json(path).await;
        assert_eq!(envelope["status"], "success", "GET {path}: {envelope}");
        envelope["data"].take()
    }

    /// `POST path`.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn try_post(&self, path: &str, headers: &[(&str, &str)], body: Bytes) -> Result<Answer, String> {
        self.send(Method::POST, path, headers, body).await
    }

    /// `POST path`.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        self.try_post(path, headers, body.into()).await.unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// Runs a query and yields the rows as objects.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn sql(&self, query: &str) -> Vec<Value> {
        let body = serde_json::json!({ "query": query, "limit": 1_000_000 }).to_string();
        let answer = self.post("/api/v1/sql", &[("content-type", "application/json")], body).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        rows(&answer.json()["data"])
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        let own = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in own.chain(headers.iter().copied()) {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| format!("{error:?}"))?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        tokio::time::timeout(ANSWER_WITHIN, exchange).await.map_err(|_| "no answer in time".to_owned())?
    }
}

/// The rows of an SQL answer as objects by column name.
fn rows(data: &Value) -> Vec<Value> {
    if let Some(rows) = data.as_array() {
        return rows.clone();
    }
    let rows = data["rows"].as_array().unwrap_or_else(|| panic!("an SQL answer has rows: {data}"));
    let columns = data["columns"].as_array().cloned().unwrap_or_default();
    rows.iter()
        .map(|row| match row.as_array() {
            Some(values) => columns
                .iter()
                .zip(values)
                .map(|(column, value)| (column_name(column), value.clone()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            None => row.clone(),
        })
        .collect()
}

fn column_name(column: &Value) -> String {
    column.as_str().or_else(|| column["name"].as_str()).unwrap_or_default().to_owned()
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// A header's text, empty when absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}
