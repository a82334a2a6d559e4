//! The scraper against a real HTTP server of this process.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use windrose_proto::time::SystemClock;
use windrose_store::metrics::{DropReason, MetricStore};

use super::client::USER_AGENT_HEADER;
use super::protocol::{DEFAULT_SCRAPE_PROTOCOLS, accept_header};
use super::series::tests::{empty_store, stored};
use super::{EVENTS_WAITING_MAX, Health, ScrapeConfig, ScrapeEvent, ScrapeHandle, Scraped, Scraper};
use crate::in_force::InForce;

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers per path, and what was asked.
#[derive(Clone, Default)]
struct Proxy {
    asked: Arc<Mutex<Vec<(Uri, HeaderMap)>>>,
}

/// A scraper at work on a server.
struct Bench {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(Uri, HeaderMap)>>>,
    handle: ScrapeHandle,
    events: mpsc::Receiver<ScrapeEvent>,
    store: MetricStore,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

async fn answer(State(proxy): State<Proxy>, uri: Uri, headers: HeaderMap) -> Response {
    let count = {
        let mut asked = proxy.asked.lock().unwrap();
        asked.push((uri.clone(), headers.clone()));
        asked.iter().filter(|(before, _)| before.path() == uri.path()).count() as u64
    };
    let text = [("content-type", "text/plain; version=0.0.4")];
    match uri.path() {
        "/metrics" => {
            let page = format!(
                "envoy_cluster_upstream_rq{{response_code=\"200\",cluster_name=\"outbound|80||users.shop.svc.cluster.local\"}} {}\n",
                10 * count
            );
            (text, page).into_response()
        }
        "/gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(b"a 1\nb 2\n").unwrap();
            ([("content-type", "text/plain"), ("content-encoding", "gzip")], encoder.finish().unwrap()).into_response()
        }
        "/bomb" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(&vec![b'\n'; 8 << 20]).unwrap();
            ([("content-type", "text/plain"), ("content-encoding", "gzip")], encoder.finish().unwrap()).into_response()
        }
        "/protobuf" => {
            let kind = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
            ([("content-type", kind)], protobuf_page(count)).into_response()
        }
        "/large" => (text, "#".repeat(3 << 20)).into_response(),
        "/html" => ([("content-type", "text/html")], "<html>").into_response(),
        "/broken" => (text, "a 1\nb{\n").into_response(),
        "/sd" => {
            let groups = format!(
                "[{{\"targets\": [{}], \"labels\": {{\"app\": \"found\"}}}}]",
                headers["host"].to_str().map(|host| format!("\"{host}\"")).unwrap()
            );
            ([("content-type", "application/json; charset=utf-8")], groups).into_response()
        }
        "/api/v1/namespaces/shop/pods" => pods(&uri, &headers),
        "/slow" => std::future::pending().await,
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// What `/metrics` answers, in protobuf, and a histogram `h` that is native only.
fn protobuf_page(count: u64) -> Vec<u8> {
    let field =
        |number: u8, message: &[u8]| [&[number << 3 | 2, u8::try_from(message.len()).unwrap()], message].concat();
    let label = |name: &str, value: &str| field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat());
    let family = |name: &str, kind: u8, metric: &[u8]| {
        let message = [field(1, name.as_bytes()), vec![0x18, kind], field(4, metric)].concat();
        [vec![u8::try_from(message.len()).unwrap()], message].concat()
    };
    let value = [&[0x09], (10.0 * count as f64).to_le_bytes().as_slice()].concat();
    let code = label("response_code", "200");
    let cluster = label("cluster_name", "outbound|80||users");
    let counter = [code, cluster, field(3, &value)].concat();
    // Three observations, and a span of one bucket.
    let native = field(7, &[vec![0x08, 0x03], field(12, &[0x08, 0x02, 0x10, 0x01])].concat());
    [family("envoy_cluster_upstream_rq", 0, &counter), family("h", 4, &native)].concat()
}

/// A cluster with one pod, and another as soon as it is watched. Both are this server.
fn pods(uri: &Uri, headers: &HeaderMap) -> Response {
    if headers.get("authorization").is_none_or(|token| token != "Bearer abc") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let port = headers["host"].to_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
    let pod = |name: &str, version: u32| {
        format!(
            "{{\"metadata\": {{\"name\": \"{name}\", \"namespace\": \"shop\", \"resourceVersion\": \"{version}\"}}, \
             \"spec\": {{\"containers\": [{{\"name\": \"c\", \"ports\": [{{\"containerPort\": {port}}}]}}]}}, \
             \"status\": {{\"podIP\": \"127.0.0.1\", \"phase\": \"Running\"}}}}"
        )
    };
    let query = uri.query().unwrap_or_default();
    if !query.contains("watch=1") {
        let list = format!("{{\"metadata\": {{\"resourceVersion\": \"7\"}}, \"items\": [{}]}}", pod("one", 5));
        return list.into_response();
    }
    assert!(query.starts_with("labelSelector=mesh%3Dyes&") && query.ends_with("&resourceVersion=7"), "{query}");
    // An event may come in pieces; after it nothing more happens.
    let event = format!("{{\"type\": \"ADDED\", \"object\": {}}}\n", pod("two", 8));
    let (first, second) = event.split_at(30);
    let pieces = [first.to_owned(), second.to_owned()].map(Ok::<_, std::io::Error>);
    let events = futures::stream::iter(pieces).chain(futures::stream::pending());
    axum::body::Body::from_stream(events).into_response()
}

impl Bench {
    /// `yaml` with `ADDRESS` for the server's address.
    async fn start(yaml: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Proxy::default();
        let asked = Arc::clone(&proxy.asked);
        let router = Router::new().fallback(answer).with_state(proxy);
        let mut tasks = JoinSet::new();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                served = async { axum::serve(listener, router).await } => served.unwrap(),
            }
        });
        let config = ScrapeConfig::parse(&yaml.replace("ADDRESS", &address.to_string())).unwrap();
        let (sender, events) = mpsc::channel(EVENTS_WAITING_MAX);
        let store = empty_store().await;
        let (handle, scraper) = Scraper::new(config, Arc::new(SystemClock), store.clone(), sender, InForce::default());
        tasks.spawn(scraper.run(shutdown.clone()));
        Self { address, asked, handle, events, store, shutdown, tasks }
    }

    async fn event(&mut self) -> ScrapeEvent {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("a running scraper")
    }

    async fn scraped(&mut self) -> Scraped {
        loop {
            if let ScrapeEvent::Scraped(scraped) = self.event().await {
                return *scraped;
            }
        }
    }

    fn reload(&self, yaml: &str) {
        self.handle.reload(ScrapeConfig::parse(&yaml.replace("ADDRESS", &self.address.to_string())).unwrap());
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        tokio::time::timeout(PATIENCE, all).await.expect("every task ends");
    }
}

fn job(name: &str, path: &str, more: &str) -> String {
    timed_job(name, path, "200ms", more)
}

/// A timeout as long as the interval, because a busy machine must not make a good answer late.
fn timed_job(name: &str, path: &str, interval: &str, more: &str) -> String {
    format!(
        "- job_name: {name}\n  scrape_interval: {interval}\n  scrape_timeout: {interval}\n  metrics_path: {path}\n{more}  static_configs: [{{targets: [ADDRESS], labels: {{app: orders, namespace: shop}}}}]\n"
    )
}

#[tokio::test]
async fn pages_come_with_their_counters() {
    let mut bench = Bench::start(&format!("scrape_configs:\n{}", job("mesh", "/metrics", ""))).await;
    let first = bench.scraped().await;
    assert_eq!(first.report.error, None);
    assert_eq!((first.report.counts.samples, first.counters), (1, None), "nothing to compare the first page with");
    let second = bench.scraped().await;
    let counters = second.counters.unwrap();
    let edge = &counters.edges[0];
    assert_eq!(edge.calls, 10);
    assert_eq!(edge.destination.as_ref().unwrap().service, "users");
    assert_eq!(edge.source.as_ref().unwrap().service, "orders");
    assert_eq!(edge.interval_start_unix_nano, first.report.scraped_at.0);
    assert_eq!(edge.interval_end_unix_nano, second.report.scraped_at.0);
    let status = &bench.handle.targets()[0];
    assert_eq!((status.health, status.last_error.as_str()), (Health::Up, ""));
    assert!(status.scrapes >= 2 && status.failures == 0);

    let (uri, headers) = bench.asked.lock().unwrap()[0].clone();
    assert_eq!(uri.path(), "/metrics");
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(header("accept").as_deref(), Some(accept_header(&DEFAULT_SCRAPE_PROTOCOLS).as_str()));
    assert_eq!(header("user-agent").as_deref(), Some(USER_AGENT_HEADER));
    assert_eq!(header("accept-encoding").as_deref(), Some("gzip"));
    assert_eq!(header("x-prometheus-scrape-timeout-seconds").as_deref(), Some("0.2"));
    bench.stop().await;
}

#[tokio::test]
async fn failures_say_why() {
    let jobs: String = [
        timed_job("missing", "/nothing", "2s", ""),
        timed_job("html", "/html", "2s", ""),
        timed_job("broken", "/broken", "2s", ""),
        timed_job("bomb", "/bomb", "2s", "  body_size_limit: 1MB\n"),
        timed_job("large", "/large", "2s", "  body_size_limit: 1MB\n"),
        timed_job("slow", "/slow", "2s", ""),
        timed_job("many", "/gzip", "2s", "  sample_limit: 1\n"),
        timed_job("tls", "/metrics", "2s", "  tls_config: {ca_file: /nowhere}\n"),
        timed_job("targets", "/metrics", "2s", "  target_limit: 1\n  relabel_configs: []\n")
            .replace("[ADDRESS]", "[ADDRESS, 'other:1']"),
    ]
    .concat();
    let mut bench = Bench::start(&format!("scrape_configs:\n{jobs}")).await;
    let mut errors: BTreeMap<String, String> = BTreeMap::new();
    while errors.len() < 9 {
        let scraped = bench.scraped().await;
        assert!(scraped.counters.is_none());
        errors.insert(scraped.target.pool.job_name.clone(), scraped.report.error.unwrap());
    }
    for (job, error) in [
        ("missing", "server returned HTTP status 404 Not Found"),
        (
            "html",
            "received unsupported Content-Type \"text/html\" and no fallback_scrape_protocol specified for target",
        ),
        ("broken", "expected a label name in line \"b{\""),
        ("bomb", "body size limit exceeded: more than 1048576 bytes"),
        ("large", "body size limit exceeded: more than 1048576 bytes"),
        ("slow", "context deadline exceeded"),
        ("many", "sample limit exceeded: 1 samples"),
        ("tls", "TLS configuration: /nowhere: No such file or directory (os error 2)"),
        ("targets", "target_limit exceeded (number of targets: 2, limit: 1)"),
    ] {
        assert_eq!(errors[job], error, "{job}");
    }
    assert!(bench.handle.targets().iter().all(|status| status.health != Health::Up));
    bench.stop().await;
}

#[tokio::test]
async fn packed_pages_and_credentials_work() {
    let more = "  params: {a: ['b c']}\n  basic_auth: {username: user, password: pass}\n  fallback_scrape_protocol: PrometheusText0.0.4\n";
    let mut bench = Bench::start(&format!("scrape_configs:\n{}", job("gzip", "/gzip", more))).await;
    let scraped = bench.scraped().await;
    assert_eq!(scraped.report.error, None);
    assert_eq!(scraped.report.counts.samples, 2);
    let series = stored(&bench.store, "b").await;
    assert!(series[0].starts_with("{__name__=\"b\", app=\"orders\",") && series[0].contains("=2"), "{series:?}");
    let (uri, headers) = bench.asked.lock().unwrap()[0].clone();
    assert_eq!(uri.query(), Some("a=b+c"));
    assert_eq!(headers["authorization"], "Basic dXNlcjpwYXNz");
    bench.stop().await;
}

#[tokio::test]
async fn protobuf_is_asked_for_and_read_where_it_is_configured() {
    let more = "  scrape_protocols: [PrometheusProto, PrometheusText0.0.4]\n";
    let mut bench = Bench::start(&format!("scrape_configs:\n{}", job("protobuf", "/protobuf", more))).await;
    let first = bench.scraped().await;
    assert_eq!(first.report.error, None);
    assert_eq!((first.report.counts.samples, first.report.body_bytes), (1, protobuf_page(1).len()));
    let second = bench.scraped().await;
    let counters = second.counters.unwrap();
    assert_eq!(counters.edges[0].calls, 10, "counters reach the edges");
    assert_eq!(counters.edges[0].destination.as_ref().unwrap().service, "users");
    let series = stored(&bench.store, "envoy_cluster_upstream_rq").await;
    assert!(series[0].contains(" response_code=\"200\"}") && series[0].contains("=10 "), "{series:?}");
    let dropped = bench.store.stats().dropped;
    let native = dropped.iter().find(|(reason, _)| *reason == DropReason::NativeHistogram).unwrap().1;
    assert!(native >= 2, "{dropped:?}");
    let (_, headers) = bench.asked.lock().unwrap()[0].clone();
    assert_eq!(
        headers["accept"],
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
         text/plain;version=0.0.4;q=0.5,*/*;q=0.4"
    );
    bench.stop().await;
}

#[tokio::test]
async fn a_reload_leaves_unchanged_targets_alone() {
    let stays = job("stays", "/metrics", "");
    let mut bench = Bench::start(&format!("scrape_configs:\n{stays}{}", job("goes", "/gzip", ""))).await;
    while bench.handle.targets().iter().filter(|status| status.scrapes > 0).count() < 2 {
        bench.event().await;
    }
    let before = bench.handle.targets().into_iter().find(|status| status.target.pool.job_name == "stays").unwrap();
    bench.reload(&format!("scrape_configs:\n{stays}{}", job("comes", "/gzip", "")));
    let (mut is_gone, mut has_come) = (false, false);
    while !(is_gone && has_come) {
        match bench.event().await {
            ScrapeEvent::Gone(target) => {
                assert_eq!(target.pool.job_name, "goes");
                is_gone = true;
            }
            ScrapeEvent::Scraped(scraped) => {
                has_come |= scraped.target.pool.job_name == "comes";
                // Its counters went on: had it begun anew, it would have had a first page again.
                let is_first = scraped.target.pool.job_name == "stays" && scraped.counters.is_none();
                assert!(!is_first || scraped.report.scraped_at <= before.last_scrape.unwrap());
            }
        }
    }
    let after = bench.handle.targets().into_iter().find(|status| status.target.pool.job_name == "stays").unwrap();
    assert!(Arc::ptr_eq(&before.target, &after.target));
    assert!(after.scrapes >= before.scrapes);
    bench.stop().await;
}

/// Waits until the last sample of `name` is a marker.
async fn ended(store: &MetricStore, name: &str) {
    let is_ended = async {
        while !stored(store, name).await.first().is_some_and(|line| line.ends_with("=stale")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, is_ended).await.expect("a marker in time");
}

#[tokio::test]
async fn a_target_that_goes_ends_its_series_unless_another_has_them() {
    let renamed = job("goes", "/gzip", "")
        .replace("interval: 200ms", "interval: 100ms")
        .replace("timeout: 200ms", "timeout: 100ms");
    let mut bench = Bench::start(&format!("scrape_configs:\n{}", job("goes", "/gzip", ""))).await;
    bench.scraped().await;
    bench.reload(&format!("scrape_configs:\n{renamed}"));
    while bench.handle.targets()[0].scrapes < 12 {
        bench.event().await;
    }
    assert!(!stored(&bench.store, "a").await[0].contains("stale"), "the faster target has the same series");
    bench.reload("scrape_configs: []");
    while !matches!(bench.event().await, ScrapeEvent::Gone(_)) {}
    ended(&bench.store, "a").await;
    ended(&bench.store, "up").await;
    bench.stop().await;
}

#[tokio::test]
async fn files_of_targets_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("targets.json");
    let yaml = format!(
        "scrape_configs:\n- job_name: files\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n  file_sd_configs: [{{files: ['{}']}}]\n  relabel_configs: [{{source_labels: [app], regex: unwanted, action: drop}}]\n",
        file.display()
    );
    let mut bench = Bench::start(&yaml).await;
    let groups = |app: &str| {
        format!(
            "[{{\"targets\": [\"{}\"], \"labels\": {{\"app\": \"{app}\"}}}}, {{\"targets\": [\"x\"], \"labels\": {{\"app\": \"unwanted\"}}}}]",
            bench.address
        )
    };
    let (orders, users) = (groups("orders"), groups("users"));
    std::fs::write(&file, orders).unwrap();
    assert_eq!(bench.scraped().await.target.labels["app"], "orders");
    assert_eq!(bench.handle.dropped()[0].discovered["app"], "unwanted");
    std::fs::write(&file, users).unwrap();
    loop {
        match bench.event().await {
            ScrapeEvent::Gone(target) => assert_eq!(target.labels["app"], "orders"),
            ScrapeEvent::Scraped(scraped) if scraped.target.labels["app"] == "users" => break,
            ScrapeEvent::Scraped(_) => {}
        }
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_web_service_may_list_targets() {
    let yaml = "scrape_configs:\n- job_name: sd\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n  http_sd_configs: [{url: 'http://ADDRESS/sd', refresh_interval: 100ms}]\n  relabel_configs: [{source_labels: [__meta_url], target_label: url}]\n";
    let mut bench = Bench::start(yaml).await;
    let labels = bench.scraped().await.target.labels.clone();
    assert_eq!((labels["app"].as_str(), labels["url"].clone()), ("found", format!("http://{}/sd", bench.address)));
    let (_, headers) = bench.asked.lock().unwrap()[0].clone();
    assert_eq!(headers["accept"], "application/json");
    bench.stop().await;
}

#[tokio::test]
async fn pods_of_a_cluster_are_followed() {
    let yaml = "scrape_configs:\n- job_name: pods\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n  kubernetes_sd_configs:\n  - role: pod\n    api_server: http://ADDRESS\n    namespaces: {names: [shop]}\n    selectors: [{role: pod, label: mesh=yes}]\n    authorization: {credentials: abc}\n  relabel_configs: [{source_labels: [__meta_kubernetes_pod_name], target_label: pod}]\n";
    let mut bench = Bench::start(yaml).await;
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 2 {
        let scraped = bench.scraped().await;
        assert_eq!(scraped.report.error, None);
        seen.insert(scraped.target.labels["pod"].clone());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["one", "two"]);
    bench.stop().await;
}
