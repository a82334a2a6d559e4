//! The page of our own metrics in the format that a client asks for, as Prometheus' client libraries
//! negotiate it.
//!
//! `prometheus-client` writes OpenMetrics, where a counter's family is called without `_total`.
//! Whoever does not ask for that by name gets text 0.0.4, where family and samples are called alike:
//! `promtool check metrics` and older agents miss the help of every counter otherwise.

/// A format of metric pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    OpenMetrics,
    Text,
}

impl Format {
    /// The one that an `Accept` header prefers; text when it names neither, or there is none.
    pub(crate) fn asked_for(accept: &str) -> Self {
        let quality = |media_type: &str| {
            let of = |range: &str| {
                let mut parts = range.split(';').map(str::trim);
                let is_named = parts.next()?.eq_ignore_ascii_case(media_type);
                let stated = parts.filter_map(|part| part.strip_prefix("q=")).next();
                is_named.then(|| stated.and_then(|text| text.parse::<f32>().ok()).unwrap_or(1.0))
            };
            accept.split(',').filter_map(of).fold(0.0, f32::max)
        };
        let open_metrics = quality("application/openmetrics-text");
        if open_metrics > 0.0 && open_metrics >= quality("text/plain") { Self::OpenMetrics } else { Self::Text }
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// A page of counters and gauges without exemplars, which is what ours holds, in this format.
    pub(crate) fn write(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Text => to_text(&open_metrics),
        }
    }
}

/// Samples are written alike; families of counters are renamed, and what the older format does not
/// know is left out.
fn to_text(page: &str) -> String {
    let mut text = String::with_capacity(page.len() + page.len() / 8);
    let mut help = None;
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // Whether the family is one of counters is said by the line after it.
            help = rest.split_once(' ');
        } else if let Some((family, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, words)) = help.take().filter(|(of, _)| *of == family) {
                text.extend(["# HELP ", family, suffix, " ", words, "\n"]);
            }
            text.extend(["# TYPE ", family, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            text.extend([line, "\n"]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::Format;

    #[test]
    fn the_format_is_the_one_that_is_preferred() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,*/*;q=0.2";
        for (accept, format) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/html, application/json", Format::Text),
            ("text/plain;version=0.0.4", Format::Text),
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text; version=0.0.1", Format::OpenMetrics),
            ("text/plain;q=0.8, application/openmetrics-text;q=0.4", Format::Text),
            ("application/openmetrics-text;q=0, */*", Format::Text),
        ] {
            assert_eq!(Format::asked_for(accept), format, "{accept}");
        }
    }

    #[test]
    fn families_of_counters_are_called_as_their_samples() {
        let page = "# HELP spans taken in\n# TYPE spans counter\n# UNIT spans spans\nspans_total{by=\"a # {b} c\"} 1.0\n\
            # HELP ready or not\n# TYPE ready gauge\nready 1.0\n# EOF\n";
        let text = "# HELP spans_total taken in\n# TYPE spans_total counter\nspans_total{by=\"a # {b} c\"} 1.0\n\
            # HELP ready or not\n# TYPE ready gauge\nready 1.0\n";
        assert_eq!(Format::Text.write(page.to_owned()), text);
        assert_eq!(Format::OpenMetrics.write(page.to_owned()), page);
    }
}
