use std::collections::BTreeSet;
use std::time::Duration;

use super::{Resolved, Target, resolve_group};
use crate::scrape::config::ScrapeConfig;

fn resolve(yaml: &str) -> Vec<Resolved> {
    let config = ScrapeConfig::parse(yaml).unwrap();
    let pool = &config.pools[0];
    pool.static_configs.iter().flat_map(|group| resolve_group(pool, group).collect::<Vec<_>>()).collect()
}

fn target(yaml: &str) -> Target {
    match resolve(yaml).remove(0) {
        Resolved::Target(target) => *target,
        other => panic!("{other:?}"),
    }
}

fn job(more: &str, group: &str) -> String {
    format!(
        "scrape_configs:\n- job_name: mesh\n  scrape_interval: 10s\n  scrape_timeout: 5s\n{more}  static_configs:\n  - {group}\n"
    )
}

#[test]
fn labels_make_a_target() {
    let target = target(&job(
        "  metrics_path: /stats\n  params: {usedonly: [''], filter: ['a b', c]}\n",
        "{targets: ['10.0.0.1:15000'], labels: {app: orders, __metrics_path__: /stats/prometheus, __param_filter: 'x&y', empty: ''}}",
    ));
    assert_eq!(target.url, "http://10.0.0.1:15000/stats/prometheus?filter=x%26y&filter=c&usedonly=");
    let labels: Vec<String> = target.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(labels, ["app=orders", "instance=10.0.0.1:15000", "job=mesh"]);
    assert_eq!(target.discovered["__address__"], "10.0.0.1:15000");
    assert_eq!((target.interval, target.timeout), (Duration::from_secs(10), Duration::from_secs(5)));
    assert_eq!(target.identity.service, "orders");
}

#[test]
fn relabelling_may_change_everything() {
    let target = target(&job(
        "  relabel_configs:\n\
         \x20 - {source_labels: [__meta_port], target_label: __address__, replacement: 'h:$1'}\n\
         \x20 - {target_label: __scheme__, replacement: https}\n\
         \x20 - {target_label: __scrape_interval__, replacement: 30s}\n\
         \x20 - {target_label: instance, replacement: mine}\n",
        "{targets: ['x'], labels: {__meta_port: '99'}}",
    ));
    assert_eq!(target.url, "https://h:99/metrics");
    assert_eq!((target.interval, target.labels["instance"].as_str()), (Duration::from_secs(30), "mine"));
}

#[test]
fn what_cannot_be_scraped_says_why() {
    let drop = "  relabel_configs: [{source_labels: [app], regex: a, action: drop}]\n";
    assert!(matches!(resolve(&job(drop, "{targets: [x], labels: {app: a}}"))[0], Resolved::Dropped(_)));
    for (group, expect) in [
        ("{targets: ['']}", "no address"),
        ("{targets: ['http://x/']}", "\"http://x/\" is not a valid hostname"),
        ("{targets: [x], labels: {__scheme__: ftp}}", "invalid scheme `ftp`"),
        (
            "{targets: [x], labels: {__scrape_timeout__: 20s}}",
            "scrape timeout cannot be greater than scrape interval (\"20s\" > \"10s\")",
        ),
        ("{targets: [x], labels: {__scrape_interval__: 0s}}", "scrape interval cannot be 0"),
    ] {
        match resolve(&job("", group)).remove(0) {
            Resolved::Invalid { reason, .. } => assert_eq!(reason, expect, "{group}"),
            other => panic!("{group}: {other:?}"),
        }
    }
}

#[test]
fn offsets_spread_the_targets_and_stay() {
    let addresses: Vec<String> = (0..100).map(|number| format!("'10.0.0.{number}:80'")).collect();
    let yaml = job("", &format!("{{targets: [{}]}}", addresses.join(", ")));
    let offsets = |yaml: &str| -> Vec<u64> {
        let targets = resolve(yaml).into_iter();
        targets
            .map(|resolved| if let Resolved::Target(target) = resolved { target.offset_nanos() } else { panic!() })
            .collect()
    };
    let first = offsets(&yaml);
    assert_eq!(first, offsets(&yaml));
    assert!(first.iter().all(|offset| *offset < 10_000_000_000));
    // A hundred targets land in most of the ten seconds.
    let seconds: BTreeSet<u64> = first.iter().map(|offset| offset / 1_000_000_000).collect();
    assert!(seconds.len() >= 9, "{seconds:?}");
}
