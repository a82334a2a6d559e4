//! `http_sd_configs`: a web service that lists targets.

use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, Uri};

use super::{Found, poll};
use crate::scrape::client::Client;
use crate::scrape::config::{HttpDiscovery, TargetGroup};

/// Largest answer: ten thousand targets with many labels are about 5 MB.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// Longest wait for an answer; after it the targets stay as they are.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Asks until it is dropped.
pub(super) async fn follow(config: &HttpDiscovery, found: &Found) {
    let client = match Client::new(&config.tls) {
        Ok(client) => client,
        Err(error) => return found.fail(&config.url, error.to_string()),
    };
    poll(&config.url, config.refresh_interval, found, || ask(&client, config)).await;
}

async fn ask(client: &Client, config: &HttpDiscovery) -> Result<Vec<TargetGroup>, String> {
    let uri: Uri = config.url.parse().map_err(|error: http::uri::InvalidUri| format!("url: {error}"))?;
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, http::HeaderValue::from_static("application/json"));
    headers.insert("x-prometheus-refresh-interval-seconds", config.refresh_interval.as_secs().into());
    let asking = client.get(&uri, headers, config.authorization.as_ref(), ANSWER_MAX_BYTES);
    let (headers, body) = tokio::time::timeout(ANSWER_TIMEOUT, asking)
        .await
        .map_err(|_elapsed| format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))?
        .map_err(|error| error.to_string())?;
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(format!("unsupported content type {kind:?}: application/json is expected"));
    }
    let mut groups: Vec<TargetGroup> = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    for group in &mut groups {
        group.labels.insert("__meta_url".to_owned(), config.url.clone());
    }
    Ok(groups)
}
