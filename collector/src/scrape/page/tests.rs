use bytes::Bytes;

use windrose_proto::time::UnixNanos;

use super::{PageCounts, check, sample_millis, series_labels};
use crate::exposition::{Dialect, Parser};
use crate::scrape::config::ScrapeConfig;
use crate::scrape::target::{Resolved, Target, resolve_group};

fn target(more: &str) -> Target {
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
    let sample = Parser::new(line.as_bytes(), Dialect::Text).samples().next().unwrap();
    let labels = series_labels(&target(more), &sample);
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
fn metric_relabelling_sees_the_final_labels() {
    let rules = "  metric_relabel_configs:\n  - {source_labels: [__name__], regex: 'noise_.*', action: drop}\n  - {regex: x, action: labeldrop}\n";
    check_series(rules, "noise_a 1", "dropped");
    check_series(rules, "m{x=\"1\"} 1", "__name__=m app=orders instance=a:1 job=j");
    let page = Bytes::from_static(b"noise_a 1\nnoise_b 1\nm 1\n");
    let counts = check(&target(rules), page, Dialect::Text).unwrap().counts;
    assert_eq!(counts, PageCounts { samples: 3, samples_kept: 1 });
}

#[test]
fn a_page_beyond_a_limit_fails_whole() {
    for (more, page, expect) in [
        ("  sample_limit: 1\n", "a 1\nb 2\n", "sample limit exceeded: 1 samples"),
        ("  label_limit: 4\n", "a{x=\"1\"} 1\n", "label_limit exceeded (metric: a, number of labels: 5, limit: 4)"),
        (
            "  label_value_length_limit: 6\n",
            "a{x=\"1234567\"} 1\n",
            "label_value_length_limit exceeded (metric: a, label name: x, limit: 6)",
        ),
        (
            "  label_name_length_limit: 8\n",
            "a{abcdefghi=\"1\"} 1\n",
            "label_name_length_limit exceeded (metric: a, label name: abcdefghi, limit: 8)",
        ),
        ("", "a 1\nb{\n", "expected a label name in line \"b{\""),
    ] {
        let error = check(&target(more), Bytes::from_static(page.as_bytes()), Dialect::Text).unwrap_err();
        assert_eq!(error.to_string(), expect);
    }
    let limit = "  sample_limit: 1\n  metric_relabel_configs: [{source_labels: [__name__], regex: a, action: drop}]\n";
    assert!(
        check(&target(limit), Bytes::from_static(b"a 1\nb 2\n"), Dialect::Text).is_ok(),
        "limits count what is kept"
    );
}

#[test]
fn the_page_may_state_its_own_time() {
    let at = UnixNanos::from_secs(100);
    for (more, line, millis) in
        [("", "a 1", 100_000), ("", "a 1 7000", 7000), ("  honor_timestamps: false\n", "a 1 7000", 100_000)]
    {
        let sample = Parser::new(line.as_bytes(), Dialect::Text).samples().next().unwrap();
        assert_eq!(sample_millis(&target(more), &sample, at), millis, "{more}{line}");
    }
}
