//! Names of OTLP in Prometheus' spelling: the default of Prometheus 3 (`UnderscoreEscapingWithSuffixes`).
//!
//! A metric's name is split into words at everything that is no letter, digit or colon, and joined
//! again with underscores; behind it stand the unit in full (`s` → `seconds`, `By/s` →
//! `bytes_per_second`), then `_total` for counters and `_ratio` for gauges of unit `1`. Words that are
//! there already are not repeated.

use std::borrow::Cow;

/// What the suffix of a name depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameKind {
    Counter,
    Gauge,
    /// Histograms, summaries, and sums that may fall.
    Other,
}

/// Units as UCUM writes them, and in words. What is not listed is its own word.
const UNITS: [(&str, &str); 25] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("%", "percent"),
];

/// The same behind a stroke, where `m` is a minute.
const UNITS_PER: [(&str, &str); 7] =
    [("s", "second"), ("m", "minute"), ("h", "hour"), ("d", "day"), ("w", "week"), ("mo", "month"), ("y", "year")];

/// The name of a family; `None` when nothing of the name can be spelled.
pub(super) fn metric_name(name: &str, unit: &str, kind: NameKind) -> Option<String> {
    let mut words: Vec<&str> =
        name.split(|letter: char| !is_name_letter(letter)).filter(|word| !word.is_empty()).collect();
    let (main, per) = unit_words(unit);
    if !main.is_empty() && !words.contains(&main.as_str()) {
        words.push(&main);
    }
    if !per.is_empty() && !words.ends_with(&["per", &per]) {
        words.extend(["per", &per]);
    }
    let suffix = match kind {
        NameKind::Counter => Some("total"),
        NameKind::Gauge if unit == "1" => Some("ratio"),
        NameKind::Gauge | NameKind::Other => None,
    };
    if let Some(suffix) = suffix {
        words.retain(|word| *word != suffix);
        words.push(suffix);
    }
    let joined = words.join("_");
    match joined.bytes().next() {
        None => None,
        Some(first) if first.is_ascii_digit() => Some(format!("_{joined}")),
        Some(_) => Some(joined),
    }
}

/// A unit in words, as metadata has it.
pub(super) fn unit_name(unit: &str) -> String {
    let (main, per) = unit_words(unit);
    match (main.is_empty(), per.is_empty()) {
        (_, true) => main,
        (true, false) => format!("per_{per}"),
        (false, false) => format!("{main}_per_{per}"),
    }
}

/// The name of a label; `None` when nothing of the key can be spelled.
pub(super) fn label_name(key: &str) -> Option<Cow<'_, str>> {
    let is_spelled = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let name = if is_spelled {
        Cow::Borrowed(key)
    } else {
        let letters = key.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' });
        Cow::Owned(letters.collect())
    };
    let first = name.bytes().next()?;
    if !is_spelled && name.bytes().all(|byte| byte == b'_') {
        return None;
    }
    if first.is_ascii_digit() {
        return Some(Cow::Owned(format!("key_{name}")));
    }
    // Two underscores are for names that mean something to Prometheus itself; one is no beginning.
    if first == b'_' && !name.starts_with("__") {
        return Some(Cow::Owned(format!("key{name}")));
    }
    Some(name)
}

const fn is_name_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == ':'
}

/// The words of a unit before and behind its stroke; what stands in braces is a remark, no unit.
fn unit_words(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let words = |part: &str, known: &[(&str, &'static str)]| {
        let part = part.trim();
        if part == "1" || part.contains(['{', '}']) {
            return String::new();
        }
        match known.iter().find(|(short, _)| *short == part) {
            Some((_, word)) => (*word).to_owned(),
            None => cleaned(part),
        }
    };
    (words(main, &UNITS), words(per, &UNITS_PER))
}

/// Words joined by single underscores.
fn cleaned(text: &str) -> String {
    let words: Vec<&str> = text.split(|letter: char| !is_name_letter(letter)).filter(|word| !word.is_empty()).collect();
    words.join("_")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use windrose_proto::metric::labels::{is_legacy_label_name, is_legacy_metric_name};

    use super::{NameKind, label_name, metric_name, unit_name};

    #[test]
    fn metrics() {
        for (name, unit, kind, expect) in [
            ("requests", "", NameKind::Counter, "requests_total"),
            ("http.requests", "1", NameKind::Counter, "http_requests_total"),
            ("requests_total", "", NameKind::Counter, "requests_total"),
            ("requests.total.failed", "{request}", NameKind::Counter, "requests_failed_total"),
            ("requests", "1/s", NameKind::Counter, "requests_per_second_total"),
            ("cpu.seconds", "s", NameKind::Counter, "cpu_seconds_total"),
            ("cpu_usage", "1", NameKind::Gauge, "cpu_usage_ratio"),
            ("cpu_usage_ratio", "1", NameKind::Gauge, "cpu_usage_ratio"),
            ("cpu_usage", "%", NameKind::Gauge, "cpu_usage_percent"),
            ("active.connections", "1", NameKind::Other, "active_connections"),
            ("http.server.request.duration", "s", NameKind::Other, "http_server_request_duration_seconds"),
            ("response_time_seconds", "s", NameKind::Other, "response_time_seconds"),
            ("throughput", "By/s", NameKind::Gauge, "throughput_bytes_per_second"),
            ("throughput_per_second", "By/s", NameKind::Gauge, "throughput_per_second_bytes_per_second"),
            ("requests_per_second", "1/s", NameKind::Gauge, "requests_per_second"),
            ("flow", " By / m ", NameKind::Gauge, "flow_bytes_per_minute"),
            ("flow", "By/{hop}", NameKind::Gauge, "flow_bytes"),
            ("flow", "By/", NameKind::Gauge, "flow_bytes"),
            ("flow", "/", NameKind::Gauge, "flow"),
            ("custom", "1/custom_unit", NameKind::Gauge, "custom_per_custom_unit"),
            ("custom", "unit@with#special/chars", NameKind::Gauge, "custom_unit_with_special_per_chars"),
            ("a__b", "x__y", NameKind::Gauge, "a_b_x_y"),
            ("metric@@##name", "", NameKind::Gauge, "metric_name"),
            ("123.metric", "", NameKind::Gauge, "_123_metric"),
            ("job:rate", "", NameKind::Gauge, "job:rate"),
            ("größe", "", NameKind::Gauge, "gr_e"),
            ("envoy.cluster.upstream_rq_total", "", NameKind::Counter, "envoy_cluster_upstream_rq_total"),
        ] {
            assert_eq!(metric_name(name, unit, kind).as_deref(), Some(expect), "{name} {unit} {kind:?}");
        }
        assert_eq!(metric_name("@#$%", "", NameKind::Gauge), None);
        assert_eq!(metric_name("", "", NameKind::Other), None);
    }

    #[test]
    fn units() {
        for (unit, expect) in
            [("s", "seconds"), ("By/s", "bytes_per_second"), ("1/s", "per_second"), ("1", ""), ("{x}", ""), ("", "")]
        {
            assert_eq!(unit_name(unit), expect, "{unit}");
        }
    }

    #[test]
    fn labels() {
        for (key, expect) in [
            ("http.method", Some("http_method")),
            ("http..method", Some("http__method")),
            ("envoy.cluster_name", Some("envoy_cluster_name")),
            ("größe", Some("gr__e")),
            ("1st", Some("key_1st")),
            ("_private", Some("key_private")),
            (".private", Some("key_private")),
            ("__reserved__", Some("__reserved__")),
            ("", None),
            ("..", None),
            ("ü", None),
        ] {
            assert_eq!(label_name(key).as_deref(), expect, "{key}");
        }
    }

    proptest! {
        #[test]
        fn any_name_can_be_written_without_quotes(name in ".{0,12}", unit in ".{0,6}") {
            for kind in [NameKind::Counter, NameKind::Gauge, NameKind::Other] {
                if let Some(spelled) = metric_name(&name, &unit, kind) {
                    prop_assert!(is_legacy_metric_name(&spelled), "{spelled}");
                }
            }
            if let Some(spelled) = label_name(&name) {
                prop_assert!(is_legacy_label_name(&spelled), "{spelled}");
            }
        }
    }
}
