//! Answers recorded from Prometheus 2.42 and from it behind Grafana, when they are at hand beside the repository. Each
//! difference that is meant stands here with its reason; any other fails.

use std::path::{Path, PathBuf};

use http::Method;
use serde_json::Value;
use windrose_promql::value::ABSENT;

use super::resources::Api;

fn beside_the_repository(path: &str) -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("shared").join(path));
    let found = found.into_iter().find(|path| path.exists());
    if found.is_none() {
        println!("skipped: no shared/{path} beside the repository");
    }
    found
}

/// The data that the answers were recorded over, as far as they show it.
async fn recorded_data() -> Api {
    let api = Api::new().await;
    let requests =
        |code, instance| [("__name__", "http_requests_total"), ("code", code), ("instance", instance), ("job", "api")];
    let every = |last: i64, per_second: f64| (0..=last / 10).map(move |n| (n * 10, n as f64 * 10.0 * per_second));
    api.store(&requests("200", "a"), every(1_810, 1.0)).await;
    api.store(&requests("500", "a"), every(1_810, 0.1)).await;
    api.store(&requests("200", "b"), every(1_200, 2.0).chain([(1_210, ABSENT)])).await;
    let values = [20.5, 21.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e21, 1e-7, 123_456_789.123, 1e-6];
    api.store(&[("__name__", "temp"), ("room", "k")], values.into_iter().zip(0..).map(|(value, n)| (n * 10, value)))
        .await;
    api.store(&[("__name__", "latency_bucket"), ("le", "1.0")], [(0, 1.0)]).await;
    api
}

/// Why an answer is not that of 2.42; `None` when it must be.
fn reason(case: &Value) -> Option<&'static str> {
    let (path, parameters) = (case["path"].as_str().unwrap(), &case["params"]);
    let query = parameters["query"].as_str().unwrap_or_default();
    Some(match (path, query) {
        (_, "h") => "native histograms are not stored",
        ("/api/v1/query", "temp[1m]") => "ranges are left-open since 3.0",
        ("/api/v1/query", "temp") if parameters["lookback_delta"].is_string() => "3.x honours lookback_delta",
        ("/api/v1/query", "temp") if parameters["stats"].is_string() => "times are never equal",
        ("/api/v1/query", "http_requests_total") if parameters["limit"].is_string() => "3.x honours limit",
        (
            _,
            "http_requests_total / on(job) http_requests_total"
            | "http_requests_total * on(job) group_left http_requests_total",
        ) => "3.x names the two series in sorted order",
        (_, "quantile(1.5,http_requests_total)") => "3.x warns",
        ("/api/v1/targets", _) => "the recorded server scraped nothing, this one has a target",
        ("/api/v1/query_range", "sum by (code)(rate(http_requests_total[5m]))") => "the last digit of a sum differs",
        (_, "rate(temp[1m])") => "3.x remarks that this is no counter, and its ranges are left-open",
        ("/api/v1/label/0bad/values", _) => "3.x allows any UTF-8 name",
        ("/api/v1/nosuch", _) => "a path that is not Prometheus' either is answered as by the rest of the API",
        ("/-/ready" | "/-/reload", _) => "the process serves these, not the query side",
        _ if case["method"] == "PUT" => "the text says which method is wrong",
        _ => return None,
    })
}

#[tokio::test]
async fn recorded_answers() {
    let Some(file) = beside_the_repository("prometheus/api_golden.json") else { return };
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let api = recorded_data().await;
    let (mut equal, mut meant, mut wrong) = (0, Vec::new(), Vec::new());
    for case in &cases {
        let parameters: Vec<(String, String)> = case["params"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
            .collect();
        let method = Method::from_bytes(case["method"].as_str().unwrap().as_bytes()).unwrap();
        let reply = api.send(method, case["path"].as_str().unwrap(), &parameters).await;
        let expect = case["body"].as_str().unwrap();
        let same = u64::from(reply.status.as_u16()) == case["status"].as_u64().unwrap()
            && match (serde_json::from_str::<Value>(&reply.body), serde_json::from_str::<Value>(expect)) {
                (Ok(own), Ok(expected)) => own == expected,
                _ => reply.body == expect,
            };
        let told = format!("{} {} {}", case["method"], case["path"], case["params"]);
        match (same, reason(case)) {
            (true, _) => equal += 1,
            (false, Some(why)) => meant.push(format!("{told}: {why}")),
            (false, None) => {
                wrong.push(format!("{told}: {} {}\n  not {} {expect}", reply.status, reply.body, case["status"]))
            }
        }
    }
    println!(
        "recorded answers: {equal} of {} equal, {} differ as meant:\n{}",
        cases.len(),
        meant.len(),
        meant.join("\n")
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Answers to requests of Grafana that do not depend on data, with the request.
type Request = (&'static str, &'static str, &'static [(&'static str, &'static str)]);
const GRAFANA: [Request; 12] = [
    ("err_matcher_empty", "/api/v1/series", &[("match[]", "{__name__=~\".*\"}")]),
    ("err_parse", "/api/v1/query", &[("query", "sum(")]),
    ("err_series_nomatch", "/api/v1/series", &[]),
    ("err_step", "/api/v1/query_range", &[("query", "up"), ("start", "0"), ("end", "11001"), ("step", "1")]),
    ("format_query", "/api/v1/format_query", &[("query", "sum by(a)(rate(x[5m]))")]),
    ("label_values_unknown", "/api/v1/label/nosuch/values", &[]),
    ("query_empty", "/api/v1/query", &[("query", "nosuch")]),
    ("query_exemplars_noselector", "/api/v1/query_exemplars", &[("query", "1")]),
    (
        "query_exemplars_probe_ms",
        "/api/v1/query_exemplars",
        &[("query", "test"), ("start", "1795196091868"), ("end", "1795196991868")],
    ),
    ("query_scalar_health", "/api/v1/query", &[("query", "1+1"), ("time", "4")]),
    ("query_string", "/api/v1/query", &[("query", "\"hi\""), ("time", "1795196091.868")]),
    (
        "query_range_nan",
        "/api/v1/query_range",
        &[("query", "NaN"), ("start", "1795196081"), ("end", "1795196091"), ("step", "5")],
    ),
];

#[tokio::test]
async fn recorded_answers_to_grafana() {
    let Some(folder) = beside_the_repository("grafana/prom") else { return };
    let api = recorded_data().await;
    for (name, path, parameters) in GRAFANA {
        let recorded = std::fs::read_to_string(folder.join(format!("{name}.txt"))).unwrap();
        let (head, body) = recorded.split_once('\n').unwrap();
        let parameters: Vec<_> = parameters.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let reply = api.send(Method::GET, path, &parameters).await;
        assert!(head.contains(&format!("HTTP {}", reply.status.as_u16())), "{name}: {} not {head}", reply.status);
        assert_eq!(reply.body.trim_end(), body.trim_end(), "{name}");
    }
    println!("recorded answers to Grafana: {} of {} equal", GRAFANA.len(), GRAFANA.len());
}
