use windrose_proto::time::UnixNanos;

use super::{bound_text, check_labels, sample_millis, series_labels};
use crate::exposition::{Dialect, Series};
use crate::scrape::config::ScrapeConfig;
use crate::scrape::target::{Resolved, Target, resolve_group};

pub(in crate::scrape) fn target(more: &str) -> Target {
    let yaml = format!(
        "scrape_configs:\n- job_name: j\n{more}  static_configs: [{{targets: ['a:1'], labels: {{app: orders}}}}]\n"
    );
    let config = ScrapeConfig::parse(&yaml).unwrap();
    match resolve_group(&config.pools[0], &config.pools[0].static_configs[0]).next().unwrap() {
        Resolved::Target(target) => *target,
        other => panic!("{other:?}"),
    }
}

/// The labels of the only sample of a page, or `dropped`.
#[track_caller]
fn check_series(more: &str, line: &str, expect: &str) {
    let labels = series_labels(&target(more), &Series::parse(line, Dialect::Text).unwrap()).unwrap();
    let text =
        labels.map(|labels| labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "));
    assert_eq!(text.as_deref().unwrap_or("dropped"), expect, "{line}");
}

#[test]
fn target_and_page_share_labels() {
    check_series("", "up{x=\"1\"} 1", "__name__=up app=orders instance=a:1 job=j x=1");
    check_series("", "m{job=\"own\"} 1", "__name__=m app=orders exported_job=own instance=a:1 job=j");
    check_series(
        "",
        "m{job=\"own\",exported_job=\"y\"} 1",
        "__name__=m app=orders exported_exported_job=own exported_job=y instance=a:1 job=j",
    );
    check_series("  honor_labels: true\n", "m{job=\"own\"} 1", "__name__=m app=orders instance=a:1 job=own");
    check_series("  honor_labels: true\n", "m{job=\"\"} 1", "__name__=m app=orders instance=a:1");
    check_series("", "m{le=\"1\"} 1", "__name__=m app=orders instance=a:1 job=j le=1.0");
    check_series("", "m{le=\"+Inf\"} 1", "__name__=m app=orders instance=a:1 job=j le=+Inf");
}

#[test]
fn a_label_given_twice_names_no_series() {
    let twice = Series::parse("m{a=\"1\",b=\"\",a=\"1\"} 1", Dialect::Text).unwrap();
    let error = series_labels(&target(""), &twice).unwrap_err();
    assert_eq!(error.to_string(), "label name \"a\" is not unique: invalid sample of m");
}

/// What `strconv.FormatFloat(x, 'g', -1, 64)` makes of them, and a fraction.
#[test]
fn bounds_are_written_as_prometheus_writes_them() {
    for (number, text) in [
        (0.0, "0.0"),
        (1.0, "1.0"),
        (-2.5, "-2.5"),
        (0.0001, "0.0001"),
        (0.000_01, "1e-05"),
        (0.000_012_5, "1.25e-05"),
        (999_999.0, "999999.0"),
        (1e6, "1e+06"),
        (1_800_000.0, "1.8e+06"),
        (1_234_567.5, "1.2345675e+06"),
        (1e100, "1e+100"),
    ] {
        assert_eq!(bound_text(number), text);
    }
    for line in ["m{le=\"3600000\"} 1", "m{le=\"3.6e6\"} 1", "m{le=\"3.6e+06\"} 1"] {
        check_series("", line, "__name__=m app=orders instance=a:1 job=j le=3.6e+06");
    }
}

#[test]
fn metric_relabelling_sees_the_final_labels() {
    let rules = "  metric_relabel_configs:\n  - {source_labels: [__name__], regex: 'noise_.*', action: drop}\n  - {regex: x, action: labeldrop}\n";
    check_series(rules, "noise_a 1", "dropped");
    check_series(rules, "m{x=\"1\"} 1", "__name__=m app=orders instance=a:1 job=j");
}

#[test]
fn labels_have_limits() {
    for (more, series, expect) in [
        ("  label_limit: 4\n", "a{x=\"1\"}", "label_limit exceeded (metric: a, number of labels: 5, limit: 4)"),
        (
            "  label_value_length_limit: 6\n",
            "a{x=\"1234567\"}",
            "label_value_length_limit exceeded (metric: a, label name: x, limit: 6)",
        ),
        (
            "  label_name_length_limit: 8\n",
            "a{abcdefghi=\"1\"}",
            "label_name_length_limit exceeded (metric: a, label name: abcdefghi, limit: 8)",
        ),
    ] {
        let target = target(more);
        let labels = series_labels(&target, &Series::parse(series, Dialect::Text).unwrap()).unwrap().unwrap();
        assert_eq!(check_labels(&target, &labels).unwrap_err().to_string(), expect);
    }
}

#[test]
fn the_page_may_state_its_own_time() {
    let at = UnixNanos::from_secs(100);
    for (more, stated, millis) in
        [("", None, 100_000), ("", Some(7000), 7000), ("  honor_timestamps: false\n", Some(7000), 100_000)]
    {
        assert_eq!(sample_millis(&target(more), stated, at), millis, "{more}{stated:?}");
    }
}
