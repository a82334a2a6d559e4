//! Pages of a real mesh against the access logs of the same proxies.
//!
//! The captured pages were trimmed to the families mapped here and their sub-counts. The truth is
//! one row per proxy and upstream cluster, counted in the proxy's own access log.

use std::collections::BTreeMap;

use windrose_proto::time::UnixNanos;

use super::{Reporters, Scraped, total};
use crate::metrics_map::{CounterDelta, EdgeCounts};
use crate::normalise::cluster::parse_cluster;
use crate::tests::{shared, skip};

#[derive(serde::Deserialize)]
struct TruthRow {
    proxy: String,
    listener: String,
    cluster: String,
    count: i64,
    e5xx: i64,
    zero: i64,
    flags: BTreeMap<String, i64>,
    code: BTreeMap<String, i64>,
}

#[test]
fn istio_tags_reproduce_the_access_log() {
    let pages = zstd::decode_all(&include_bytes!("../testdata/mesh-istio-tags.prom.zst")[..]).unwrap();
    let truth = include_str!("../testdata/mesh-istio-tags.truth.json");
    check_truth(&String::from_utf8(pages).unwrap(), serde_json::from_str(truth).unwrap());
}

#[test]
fn plain_tags_reproduce_the_access_log() {
    let pages = zstd::decode_all(&include_bytes!("../testdata/mesh-plain-tags.prom.zst")[..]).unwrap();
    let truth = include_str!("../testdata/mesh-plain-tags.truth.json");
    check_truth(&String::from_utf8(pages).unwrap(), serde_json::from_str(truth).unwrap());
}

/// Pages are separated by `#= NANOS PROXY label=value …`.
pub(super) fn replay(pages: &str) -> BTreeMap<String, Vec<CounterDelta>> {
    let mut targets: BTreeMap<String, Scraped> = BTreeMap::new();
    let mut deltas: BTreeMap<String, Vec<CounterDelta>> = BTreeMap::new();
    for page in pages.split("#= ").filter(|page| !page.is_empty()) {
        let (head, body) = page.split_once('\n').unwrap();
        let mut words = head.split(' ');
        let at = UnixNanos(words.next().unwrap().parse().unwrap());
        let proxy = words.next().unwrap().to_owned();
        let labels: Vec<(&str, &str)> = words.filter_map(|word| word.split_once('=')).collect();
        let target = targets.entry(proxy.clone()).or_insert_with(|| Scraped::new(&labels));
        let seen = target.page_at(at, body);
        assert_eq!(seen.stats.over_limit, 0, "{proxy}");
        deltas.entry(proxy).or_default().extend(seen.edges);
    }
    deltas
}

/// What the counters must say about a row. Three kinds of requests are in the access log of a
/// cluster without ever being counted for it: injected aborts (FI), and what a gateway's own
/// filters refuse after routing, rate limits (RL) and authentication (401).
fn check_truth(pages: &str, truth: Vec<TruthRow>) {
    let deltas = replay(pages);
    let mut rows = 0;
    for row in truth {
        let flag = |wanted: &str| -> i64 {
            row.flags
                .iter()
                .filter(|(flags, _)| flags.split(',').any(|flag| flag == wanted))
                .map(|(_, count)| count)
                .sum()
        };
        let of_proxy = &deltas[&row.proxy];
        let (found, expect_gateway): (EdgeCounts, bool) =
            match parse_cluster(&row.cluster).filter(|_| row.cluster != "-") {
                Some(cluster) if !cluster.is_own_app() => (counts_towards(of_proxy, &row.cluster), false),
                _ => continue,
            };
        assert!(!expect_gateway);
        let refused_early = flag("FI") + flag("RL") + own_401(&row);
        let name = format!("{} {} {}", row.proxy, row.listener, row.cluster);
        assert_eq!(found.calls(), row.count - refused_early, "calls of {name}");
        assert_eq!(found.answered, row.count - row.zero - refused_early, "answered of {name}");
        assert_eq!(found.aborted, row.zero, "aborted of {name}");
        assert_eq!(found.errors, row.e5xx - flag("FI"), "5xx of {name}");
        assert_eq!(found.timeouts, flag("UT"), "timeouts of {name}");
        assert_eq!(found.circuit_rejected, flag("UO"), "rejected by the breaker of {name}");
        assert_eq!(found.retries_exhausted, flag("URX"), "exhausted retries of {name}");
        assert_eq!(found.connect_failures, flag("UF"), "connect failures of {name}");
        for (code, count) in &found.by_code {
            let of_code = row.code.get(code.as_ref() as &str).copied().unwrap_or_default();
            let early = match code.as_ref() as &str {
                "503" => flag("FI"),
                "429" => flag("RL"),
                "401" => own_401(&row),
                _ => 0,
            };
            assert_eq!(*count, of_code - early, "code {code} of {name}");
        }
        // Every attempt is a call that got a stream, or a retry of one.
        let without_stream = flag("UO") + flag("UF");
        assert_eq!(found.attempts - found.retries, found.calls() - without_stream, "attempts of {name}");
        rows += 1;
    }
    assert!(rows >= 19, "only {rows} rows were compared");
    check_entry(&total(&deltas["ingress"]));
}

/// In this mesh only the gateway's filter answers 401.
fn own_401(row: &TruthRow) -> i64 {
    if row.listener == "gateway" { row.code.get("401").copied().unwrap_or_default() } else { 0 }
}

fn counts_towards(deltas: &[CounterDelta], cluster: &str) -> EdgeCounts {
    let cluster = parse_cluster(cluster).unwrap();
    let is_towards = |delta: &&CounterDelta| match &delta.destination {
        super::Peer::Node(node) => {
            delta.reporter == Reporters::Client
                && Some(node.service.as_ref() as &str) == cluster.service
                && node.namespace.as_deref() == cluster.namespace
                && node.version.as_deref() == cluster.subset
        }
        super::Peer::Caller => false,
    };
    let matching: Vec<CounterDelta> = deltas.iter().filter(is_towards).cloned().collect();
    total(&matching).into_values().next().unwrap_or_default()
}

/// The gateway's entry counts every request of every caller, aborted ones too.
fn check_entry(ingress: &BTreeMap<String, EdgeCounts>) {
    let entry = &ingress["server (caller)->istio-ingressgateway.istio-system"];
    let towards: i64 =
        ingress.iter().filter(|(title, _)| title.starts_with("client")).map(|(_, counts)| counts.calls()).sum();
    assert!(entry.calls() > towards, "the entry also counts what was routed nowhere");
    assert!(entry.by_code.contains_key("2xx") && entry.by_code.contains_key("0"));
    assert_eq!(entry.calls(), entry.by_code.values().sum::<i64>());
}

/// All captures, untrimmed and every page of them.
#[test]
fn whole_captures_reproduce_their_access_logs() {
    let Some(root) = shared("mesh/captures") else {
        return skip("counters of whole captures", "TESTS_SHARED names no folder with mesh/captures");
    };
    let mut folders = vec![root.join("full")];
    folders.extend(std::fs::read_dir(root.join("variants")).into_iter().flatten().flatten().map(|entry| entry.path()));
    let mut compared = 0;
    for folder in folders {
        let (Ok(pages), Ok(truth)) =
            (std::fs::read(folder.join("capture/prom.bin.zst")), std::fs::read(folder.join("truth.json")))
        else {
            continue;
        };
        let truth: serde_json::Value = serde_json::from_slice(&truth).unwrap();
        println!("{}", folder.display());
        check_truth(&pages_of_container(&pages), serde_json::from_value(truth["proxies"].clone()).unwrap());
        compared += 1;
    }
    assert_ne!(compared, 0, "captures without pages in {}", root.display());
}

/// `WRC1`, then records of: arrival u64, kind u8, length u16 and JSON, length u32 and body. Kind 10
/// is a page in the text format; other kinds and other paths are left out.
fn pages_of_container(compressed: &[u8]) -> String {
    let mut decoder = zstd::Decoder::new(compressed).unwrap();
    decoder.window_log_max(27).unwrap();
    let mut bytes = Vec::new();
    std::io::copy(&mut decoder, &mut bytes).unwrap();
    let mut rest = bytes.strip_prefix(b"WRC1").unwrap();
    let mut pages = String::new();
    let mut take = |length: usize| {
        let (head, tail) = rest.split_at(length);
        rest = tail;
        (head.to_vec(), tail.is_empty())
    };
    loop {
        let at = u64::from_le_bytes(take(8).0.try_into().unwrap());
        let kind = take(1).0[0];
        let meta_length = u16::from_le_bytes(take(2).0.try_into().unwrap());
        let meta: serde_json::Value = serde_json::from_slice(&take(usize::from(meta_length)).0).unwrap();
        let body_length = u32::from_le_bytes(take(4).0.try_into().unwrap());
        let (body, is_last) = take(body_length as usize);
        if kind == 10 && meta["path"] == "/stats/prometheus" {
            let word = |key: &str| meta[key].as_str().unwrap_or_default().to_owned();
            pages += &format!(
                "#= {at} {} app={} namespace={} version={} pod={} kind={}\n",
                word("name"),
                word("app"),
                word("ns"),
                word("version"),
                word("pod"),
                word("kind")
            );
            pages += std::str::from_utf8(&body).unwrap();
        }
        if is_last {
            return pages;
        }
    }
}
