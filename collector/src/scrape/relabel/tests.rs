use super::{LabelSet, RelabelConfig, Rule, apply};

fn labels(text: &str) -> LabelSet {
    text.split_whitespace()
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn rules(yaml: &str) -> Vec<Rule> {
    let written: Vec<RelabelConfig> = serde_saphyr::from_str(yaml).unwrap();
    written.iter().map(|rule| Rule::compile(rule).unwrap()).collect()
}

/// `expect` is `None` when the set is dropped.
#[track_caller]
fn check(yaml: &str, before: &str, expect: Option<&str>) {
    let mut set = labels(before);
    let kept = apply(&rules(yaml), &mut set);
    assert_eq!(kept.then_some(set), expect.map(labels), "{yaml}");
}

#[test]
fn every_action_does_what_prometheus_does() {
    check(
        "[{source_labels: [a], regex: 'f(.*)', target_label: d, replacement: 'ch${1}-ch${1}', action: replace}]",
        "a=foo b=bar",
        Some("a=foo b=bar d=choo-choo"),
    );
    check(
        "[{source_labels: [a, b], regex: 'f(.*);(.*)r', target_label: a, replacement: 'b${1}${2}m'}]",
        "a=foo b=bar",
        Some("a=boobam b=bar"),
    );
    check("[{source_labels: [a, b], separator: '-', target_label: c}]", "a=x b=y", Some("a=x b=y c=x-y"));
    check("[{source_labels: [a], regex: 'o', target_label: d}]", "a=foo", Some("a=foo"));
    check("[{source_labels: [a], regex: '(.*)', target_label: b, replacement: ''}]", "a=foo b=bar", Some("a=foo"));
    check(
        "[{source_labels: [a], regex: '(.*)', target_label: 'x_${1}', replacement: y}]",
        "a=foo",
        Some("a=foo x_foo=y"),
    );
    check("[{target_label: env, replacement: prod}]", "a=foo", Some("a=foo env=prod"));
    check("[{source_labels: [a], regex: '.*o.*', action: drop}]", "a=foo", None);
    check("[{source_labels: [a], regex: 'fo', action: drop}]", "a=foo", Some("a=foo"));
    check("[{source_labels: [a], regex: 'foo|bar', action: keep}]", "a=foo", Some("a=foo"));
    check("[{source_labels: [a], regex: 'no', action: keep}]", "a=foo", None);
    check("[{source_labels: [missing], regex: '', action: drop}]", "a=foo", None);
    check("[{source_labels: [a], target_label: b, action: keepequal}]", "a=1 b=1", Some("a=1 b=1"));
    check("[{source_labels: [a], target_label: b, action: keepequal}]", "a=1 b=2", None);
    check("[{source_labels: [a], target_label: b, action: dropequal}]", "a=1 b=1", None);
    check("[{source_labels: [c], target_label: d, action: hashmod, modulus: 1000}]", "c=baz", Some("c=baz d=976"));
    check(
        "[{regex: '(b.*)', replacement: 'bar_${1}', action: labelmap}]",
        "a=foo b1=bar b2=baz",
        Some("a=foo b1=bar b2=baz bar_b1=bar bar_b2=baz"),
    );
    check(
        "[{regex: '__meta_(my.*)', action: labelmap}]",
        "__meta_my_bar=aaa a=b",
        Some("__meta_my_bar=aaa a=b my_bar=aaa"),
    );
    check("[{regex: '(b.*)', action: labeldrop}]", "a=foo b1=bar", Some("a=foo"));
    check("[{regex: '(b.*)', action: labelkeep}]", "a=foo b1=bar", Some("b1=bar"));
    check("[{source_labels: [a], target_label: a, action: uppercase}]", "a=fOo", Some("a=FOO"));
    check("[{source_labels: [a], target_label: b, action: lowercase}]", "a=fOo", Some("a=fOo b=foo"));
}

#[test]
fn rules_work_on_what_earlier_rules_left() {
    check(
        "[{source_labels: [__address__], regex: '([^:]+):.*', target_label: host}, {source_labels: [host], regex: a, action: drop}]",
        "__address__=a:80",
        None,
    );
}

#[test]
fn rules_without_what_they_need_are_refused() {
    for (yaml, message) in [
        ("{action: replace}", "relabel rule: action Replace needs `target_label`"),
        ("{action: hashmod, target_label: a}", "relabel rule: action HashMod needs `modulus`"),
        ("{action: keep}", "relabel rule: action Keep needs `source_labels`"),
        ("{action: labeldrop, source_labels: [a]}", "relabel rule: action LabelDrop takes no `source_labels`"),
    ] {
        let written: RelabelConfig = serde_saphyr::from_str(yaml).unwrap();
        assert_eq!(Rule::compile(&written).unwrap_err().to_string(), message);
    }
    let written: RelabelConfig = serde_saphyr::from_str("{source_labels: [a], regex: '(', action: drop}").unwrap();
    assert!(
        Rule::compile(&written).unwrap_err().to_string().starts_with("relabel rule: `(` is not a regular expression")
    );
    assert!(serde_saphyr::from_str::<RelabelConfig>("{action: explode}").is_err());
    assert!(serde_saphyr::from_str::<RelabelConfig>("{regexp: a}").is_err());
}
