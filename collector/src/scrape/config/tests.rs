use std::time::Duration;

use super::{Authorization, Credential, Scheme, ScrapeConfig};
use crate::scrape::protocol::{DEFAULT_SCRAPE_PROTOCOLS, PageFormat, ScrapeProtocol};
use crate::scrape::value::Secret;

#[test]
fn a_pasted_configuration_means_what_it_meant() {
    let config = ScrapeConfig::parse(
        r#"
data_dir: ./data
global:
  scrape_interval: 5s
  sample_limit: 1000
scrape_configs:
- job_name: envoy
  metrics_path: /stats/prometheus
  scheme: https
  params: {usedonly: ['']}
  honor_labels: true
  honor_timestamps: false
  scrape_timeout: 3s
  body_size_limit: 10MB
  static_configs:
  - targets: ['10.0.0.1:15000', "10.0.0.2:15000"]
    labels: {app: orders, version: "1"}
  file_sd_configs:
  - files: [targets/*.json]
    refresh_interval: 1m
  basic_auth: {username: u, password: hunter2}
  tls_config: {insecure_skip_verify: true, server_name: mesh, min_version: TLS12}
  relabel_configs:
  - {source_labels: [__address__], regex: '10\.0\.0\.2.*', action: drop}
  metric_relabel_configs:
  - {regex: zone, action: labeldrop}
- job_name: plain
"#,
    )
    .unwrap();
    let [envoy, plain] = &config.pools[..] else { panic!("{config:?}") };
    assert_eq!((envoy.interval, envoy.timeout), (Duration::from_secs(5), Duration::from_secs(3)));
    assert_eq!((envoy.scheme, envoy.honor_labels, envoy.honor_timestamps), (Scheme::Https, true, false));
    assert_eq!((envoy.limits.sample, envoy.limits.body_bytes), (1000, 10 << 20));
    assert_eq!(envoy.static_configs[0].labels["version"], "1");
    assert_eq!((envoy.relabel.rules.len(), envoy.metric_relabel.rules.len()), (1, 1));
    let password = Credential::Given(Secret("hunter2".to_owned()));
    assert_eq!(envoy.authorization, Some(Authorization::Basic { username: "u".to_owned(), password }));
    // The default timeout of 10 s shrinks to the interval of 5 s.
    assert_eq!((plain.interval, plain.timeout), (Duration::from_secs(5), Duration::from_secs(5)));
    assert_eq!(plain.metrics_path, "/metrics");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn formats_are_asked_for_in_the_order_of_the_configuration() {
    let config = ScrapeConfig::parse(
        "global: {scrape_protocols: [PrometheusProto, OpenMetricsText1.0.0]}\n\
         scrape_configs: [{job_name: a}, {job_name: b, scrape_protocols: [PrometheusText0.0.4], fallback_scrape_protocol: PrometheusProto}]",
    )
    .unwrap();
    let [a, b] = &config.pools[..] else { panic!("{config:?}") };
    assert_eq!(a.scrape_protocols, [ScrapeProtocol::PrometheusProto, ScrapeProtocol::OpenMetricsText1_0_0]);
    assert_eq!((a.fallback_format, b.fallback_format), (None, Some(PageFormat::Protobuf)));
    assert_eq!(b.scrape_protocols, [ScrapeProtocol::PrometheusText0_0_4]);
    let default = ScrapeConfig::parse("scrape_configs: [{job_name: a}]").unwrap();
    assert_eq!(default.pools[0].scrape_protocols, DEFAULT_SCRAPE_PROTOCOLS);
    check_errors(
        "scrape_configs: [{job_name: a, scrape_protocols: [PrometheusText]}, \
         {job_name: b, scrape_protocols: [PrometheusProto, PrometheusProto]}]",
        &[
            "job `a`: scrape_protocols: `PrometheusText` is not supported, PrometheusProto, OpenMetricsText1.0.0, \
             OpenMetricsText0.0.1, PrometheusText1.0.0, PrometheusText0.0.4 are",
            "job `b`: scrape_protocols: `PrometheusProto` is there twice",
        ],
    );
}

#[track_caller]
fn check_errors(yaml: &str, expect: &[&str]) {
    let errors: Vec<String> = ScrapeConfig::parse(yaml).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(errors, expect, "{yaml}");
}

#[test]
fn every_key_that_is_not_understood_is_named() {
    check_errors(
        "global: {external_labels: {a: b}, colour: red}\nscrape_configs:\n- job_name: a\n  consul_sd_configs: []\n  scrape_intervall: 5s\n- job_name: b\n  proxy_url: http://x\n",
        &[
            "global: `colour` is not a key of Prometheus' configuration",
            "global: `external_labels` is not supported yet; remove it, or scrape this job elsewhere",
            "scrape_configs[0]: `consul_sd_configs` is not supported yet; remove it, or scrape this job elsewhere",
            "scrape_configs[0]: `scrape_intervall` is not a key of Prometheus' configuration",
            "scrape_configs[1]: `proxy_url` is not supported yet; remove it, or scrape this job elsewhere",
        ],
    );
}

#[test]
fn mistakes_are_told_together() {
    check_errors(
        "scrape_configs:\n- job_name: a\n  scrape_interval: 5s\n  scrape_timeout: 6s\n  relabel_configs: [{action: drop}]\n- job_name: a\n  basic_auth: {}\n  authorization: {}\n",
        &[
            "job `a`: scrape timeout cannot be greater than scrape interval (6s > 5s)",
            "job `a`: relabel rule: action Drop needs `source_labels`",
            "job `a`: a second job of this name",
            "job `a`: give basic_auth or authorization, not both",
        ],
    );
}

#[test]
fn bad_values_are_errors() {
    for yaml in [
        "scrape_configs:\n- job_name: a\n  scrape_interval: fast\n",
        "scrape_configs:\n- job_name: a\n  scheme: ftp\n",
        "scrape_configs:\n- job_name: a\n  static_configs: [{target: [x]}]\n",
        "scrape_configs:\n- job_name: a\n  tls_config: {verify: false}\n",
        "scrape_configs: 7\n",
        "scrape_configs:\n- scheme: http\n",
    ] {
        assert!(ScrapeConfig::parse(yaml).is_err(), "{yaml}");
    }
    assert!(ScrapeConfig::parse("").unwrap().pools.is_empty());
    assert!(ScrapeConfig::parse("data_dir: x\n").unwrap().pools.is_empty());
}

#[test]
fn equal_text_makes_equal_pools() {
    let yaml = "scrape_configs:\n- job_name: a\n  relabel_configs: [{source_labels: [x], regex: y, action: drop}]\n";
    assert_eq!(ScrapeConfig::parse(yaml).unwrap(), ScrapeConfig::parse(yaml).unwrap());
    let other = yaml.replace("regex: y", "regex: z");
    assert_ne!(ScrapeConfig::parse(yaml).unwrap(), ScrapeConfig::parse(&other).unwrap());
}
