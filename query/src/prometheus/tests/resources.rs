//! The routes over a store in memory, without a port.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use futures::StreamExt as _;
use http::{Method, Request, StatusCode, header};
use object_store::memory::InMemory;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use windrose_promql::value::ABSENT;
use windrose_proto::hop::Derived;
use windrose_proto::metric::{Exemplar, Labels, Metadata, MetricKind};
use windrose_proto::span::Span;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::{ManualClock, UnixNanos};
use windrose_store::disk::SimDisk;
use windrose_store::metrics::{MetricConfig, MetricStore};
use windrose_store::sealed::WriterName;
use windrose_store::store::Store;

use crate::http::{QueryLimits, QueryState, router};
use crate::scrape_status::{DroppedTarget, Target, TargetSource};

/// The clock of the tests: half an hour after 1970, where their samples are.
pub(super) const NOW_SECS: u64 = 1_800;

#[derive(Debug)]
struct OneTarget;

impl TargetSource for OneTarget {
    fn targets(&self) -> Vec<Target> {
        let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        vec![Target {
            pool: "mesh".to_owned(),
            url: "http://10.0.0.1:15090/stats/prometheus".to_owned(),
            labels: labels(&[("instance", "10.0.0.1:15090"), ("job", "mesh")]),
            discovered_labels: labels(&[("__address__", "10.0.0.1:15090"), ("job", "mesh")]),
            up: Some(true),
            last_error: String::new(),
            last_scrape: Some(UnixNanos::from_secs(1_790)),
            last_success: Some(UnixNanos::from_secs(1_790)),
            last_duration_seconds: 0.002,
            interval_seconds: 15.0,
            timeout_seconds: 10.0,
            service: None,
            namespace: None,
        }]
    }

    fn dropped(&self) -> Vec<DroppedTarget> {
        let discovered_labels = [("__address__".to_owned(), "10.0.0.2:80".to_owned())].into();
        vec![DroppedTarget { pool: "mesh".to_owned(), discovered_labels }]
    }
}

/// The joins of single traces are not asked for.
fn derive(_: &[Arc<Span>]) -> Derived {
    panic!("no trace is asked for")
}

/// The API over samples: name and labels, then seconds and values.
pub(super) struct Api {
    router: Router,
    metrics: MetricStore,
}

/// What was answered.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: String,
}

impl Api {
    pub(super) async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(UnixNanos::from_secs(NOW_SECS)));
        let writer = WriterName::new("test").unwrap();
        let (disk, tables) = (Arc::new(SimDisk::new(1)), Arc::new(InMemory::new()));
        let config = MetricConfig::default();
        let opened = MetricStore::open(disk, Path::new("/metrics"), config, Arc::clone(&clock) as _, tables, writer);
        let (metrics, _) = opened.await.unwrap();
        let state = QueryState::new(
            Store::default(),
            metrics.clone(),
            clock,
            Arc::new(derive),
            Arc::new(OneTarget),
            QueryLimits::default(),
            tokio::runtime::Handle::current(),
        );
        Self { router: router(state), metrics }
    }

    /// Stores a series.
    pub(super) async fn store(&self, labels: &[(&str, &str)], samples: impl IntoIterator<Item = (i64, f64)>) {
        let mut append = self.metrics.append(&TenantId::default());
        let series = append.series(&Labels::from_pairs(labels.iter().copied())).unwrap();
        samples.into_iter().for_each(|(seconds, value)| append.sample(series, seconds * 1000, value));
        append.commit().await.unwrap();
    }

    pub(super) async fn send(&self, method: Method, path: &str, parameters: &[(String, String)]) -> Reply {
        let mut encoded = form_urlencoded::Serializer::new(String::new());
        encoded.extend_pairs(parameters);
        let encoded = encoded.finish();
        let (uri, body) = if method == Method::POST {
            (path.to_owned(), encoded)
        } else {
            (format!("{path}?{encoded}"), String::new())
        };
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(body))
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let mut chunks = response.into_body().into_data_stream();
        let mut body = Vec::new();
        while let Some(chunk) = chunks.next().await {
            body.extend_from_slice(&chunk.unwrap());
        }
        Reply { status, body: String::from_utf8(body).unwrap() }
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let parameters: Vec<_> = parameters.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let reply = self.send(Method::GET, path, &parameters).await;
        serde_json::from_str(&reply.body)
            .unwrap_or_else(|_| json!({"status": reply.status.as_u16(), "text": reply.body}))
    }

    async fn data(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let mut envelope = self.get(path, parameters).await;
        assert_eq!(envelope["status"], "success", "{path} {parameters:?}: {envelope}");
        envelope["data"].take()
    }
}

async fn small() -> Api {
    let api = Api::new().await;
    api.store(&[("__name__", "up"), ("instance", "a"), ("job", "x")], [(1_780, 1.0), (1_795, 1.0)]).await;
    api.store(&[("__name__", "up"), ("instance", "b"), ("job", "x")], [(1_780, 1.0), (1_795, ABSENT)]).await;
    api.store(&[("__name__", "up"), ("instance", "c"), ("job", "y")], [(10, 1.0)]).await;
    api
}

#[tokio::test]
async fn series_labels_and_values() {
    let api = small().await;
    let up = ("match[]", "up");
    assert_eq!(api.data("/api/v1/series", &[up]).await.as_array().unwrap().len(), 3);
    assert_eq!(api.data("/api/v1/series", &[up, ("start", "1000")]).await.as_array().unwrap().len(), 2);
    assert_eq!(api.data("/api/v1/labels", &[]).await, json!(["__name__", "instance", "job"]));
    assert_eq!(api.data("/api/v1/label/job/values", &[]).await, json!(["x", "y"]));
    assert_eq!(api.data("/api/v1/label/instance/values", &[("match[]", "{job=\"y\"}")]).await, json!(["c"]));
    let cut = api.get("/api/v1/label/instance/values", &[("limit", "2")]).await;
    assert_eq!(cut, json!({"status": "success", "data": ["a", "b"], "warnings": ["results truncated due to limit"]}));
}

#[tokio::test]
async fn queries_see_what_is_stored_and_stale_series_end() {
    let api = small().await;
    let count = api.data("/api/v1/query", &[("query", "count(up)"), ("time", "1796")]).await;
    assert_eq!(count["result"][0]["value"][1], "1", "b has ended and c is too old: {count}");
    let parameters = [("query", "sum(up)"), ("start", "1780"), ("end", "1800"), ("step", "10")];
    let sums = api.data("/api/v1/query_range", &parameters).await;
    assert_eq!(sums["result"][0]["values"], json!([[1780, "2"], [1790, "2"], [1800, "1"]]));
    let stats = api.data("/api/v1/query", &[("query", "up"), ("time", "1796"), ("stats", "true")]).await;
    assert!(stats["stats"]["timings"]["execTotalTime"].is_number(), "{stats}");
    let info = api.get("/api/v1/query", &[("query", "rate(up[1m])"), ("time", "1796")]).await;
    assert!(info["infos"][0].as_str().unwrap().contains("metric might not be a counter"), "{info}");
}

#[tokio::test]
async fn limits_are_errors_that_clients_show() {
    let api = small().await;
    let timeout = api.get("/api/v1/query", &[("query", "up"), ("timeout", "0")]).await;
    assert_eq!(timeout["errorType"], "timeout", "{timeout}");
    let lookback = api.get("/api/v1/query", &[("query", "up"), ("lookback_delta", "x")]).await;
    assert_eq!(lookback["error"], "error parsing lookback delta duration: cannot parse \"x\" to a valid duration");
}

#[tokio::test]
async fn what_grafana_asks_for_when_it_loads_a_data_source() {
    let api = small().await;
    assert_eq!(
        api.data("/api/v1/query", &[("query", "1+1"), ("time", "4")]).await,
        json!({"resultType": "scalar", "result": [4, "2"]})
    );
    assert_eq!(api.data("/api/v1/rules", &[]).await, json!({"groups": []}));
    let probe = [("query", "test"), ("start", "1795196091868"), ("end", "1795196991868")];
    assert_eq!(api.data("/api/v1/query_exemplars", &probe).await, json!([]));
    let parameters = [("query".to_owned(), "1".to_owned())];
    assert_eq!(api.send(Method::GET, "/api/v1/query_exemplars", &parameters).await.status, StatusCode::NO_CONTENT);
    let families = api.data("/api/v1/metadata", &[("limit", "40000")]).await;
    assert!(families.as_object().unwrap().values().all(|known| known[0]["type"].is_string()), "{families}");
    assert_eq!(api.data("/api/v1/parse_query", &[("query", "up")]).await["name"], "up");
}

#[tokio::test]
async fn targets_have_the_shape_of_prometheus() {
    let api = small().await;
    let targets = api.data("/api/v1/targets", &[]).await;
    let target = &targets["activeTargets"][0];
    assert_eq!(
        (&target["health"], &target["scrapeInterval"], &target["lastScrape"], &target["scrapePool"]),
        (&json!("up"), &json!("15s"), &json!("1970-01-01T00:29:50Z"), &json!("mesh"))
    );
    assert_eq!(api.data("/api/v1/targets", &[("scrapePool", "other")]).await["activeTargets"], json!([]));
    let dropped = json!([{"discoveredLabels": {"__address__": "10.0.0.2:80"}, "scrapePool": "mesh"}]);
    assert_eq!(
        api.data("/api/v1/targets", &[("state", "dropped")]).await,
        json!({"activeTargets": [], "droppedTargets": dropped, "droppedTargetCounts": {"mesh": 1}})
    );
    assert_eq!(api.data("/api/v1/scrape_pools", &[]).await, json!({"scrapePools": ["mesh"]}));
}

#[tokio::test]
async fn federation_gives_the_latest_samples_only() {
    let api = small().await;
    let parameters = [("match[]".to_owned(), "up".to_owned()), ("match[]".to_owned(), "{job=\"x\"}".to_owned())];
    let page = api.send(Method::GET, "/federate", &parameters).await;
    assert_eq!(page.body, "# TYPE up untyped\nup{instance=\"a\",job=\"x\"} 1 1795000\n");
}

#[tokio::test]
async fn stored_metadata_exemplars_and_cardinality() {
    let api = small().await;
    let mut append = api.metrics.append(&TenantId::default());
    let series = append.series(&Labels::from_pairs([("__name__", "up"), ("instance", "a"), ("job", "x")])).unwrap();
    append.exemplar(
        series,
        Exemplar { labels: Labels::from_pairs([("trace_id", "4bf9")]), value: 0.7, timestamp: 1_790_500 },
    );
    append.metadata("up", &Metadata { kind: MetricKind::Gauge, help: "Alive.".to_owned(), unit: String::new() });
    append.commit().await.unwrap();
    let exemplars = api.data("/api/v1/query_exemplars", &[("query", "sum(up)"), ("start", "0"), ("end", "1800")]).await;
    assert_eq!(
        exemplars,
        json!([{"seriesLabels": {"__name__": "up", "instance": "a", "job": "x"},
            "exemplars": [{"labels": {"trace_id": "4bf9"}, "value": "0.7", "timestamp": 1790.5}]}])
    );
    let known = api.data("/api/v1/metadata", &[("metric", "up")]).await;
    assert_eq!(known, json!({"up": [{"type": "gauge", "help": "Alive.", "unit": ""}]}));
    let tsdb = api.data("/api/v1/status/tsdb", &[]).await;
    assert_eq!(tsdb["seriesCountByMetricName"], json!([{"name": "up", "value": 3}]));
}
