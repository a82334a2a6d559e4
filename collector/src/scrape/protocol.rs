//! Which formats a target is asked for, and which one it answered in. Pure.

use std::fmt::Write as _;

use crate::exposition::Dialect;

/// A format by the name that Prometheus' configuration has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrapeProtocol {
    PrometheusProto,
    OpenMetricsText1_0_0,
    OpenMetricsText0_0_1,
    PrometheusText1_0_0,
    PrometheusText0_0_4,
}

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFormat {
    Text(Dialect),
    /// `io.prometheus.client.MetricFamily`, each behind its length.
    Protobuf,
}

/// Prometheus' default, which asks for protobuf only where native histograms are stored.
pub const DEFAULT_SCRAPE_PROTOCOLS: [ScrapeProtocol; 4] = [
    ScrapeProtocol::OpenMetricsText1_0_0,
    ScrapeProtocol::OpenMetricsText0_0_1,
    ScrapeProtocol::PrometheusText1_0_0,
    ScrapeProtocol::PrometheusText0_0_4,
];

impl ScrapeProtocol {
    /// Every format.
    pub const ALL: [Self; 5] = [
        Self::PrometheusProto,
        Self::OpenMetricsText1_0_0,
        Self::OpenMetricsText0_0_1,
        Self::PrometheusText1_0_0,
        Self::PrometheusText0_0_4,
    ];

    /// The name in a configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PrometheusProto => "PrometheusProto",
            Self::OpenMetricsText1_0_0 => "OpenMetricsText1.0.0",
            Self::OpenMetricsText0_0_1 => "OpenMetricsText0.0.1",
            Self::PrometheusText1_0_0 => "PrometheusText1.0.0",
            Self::PrometheusText0_0_4 => "PrometheusText0.0.4",
        }
    }

    /// From its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.as_str() == name)
    }

    /// How its pages are read.
    #[must_use]
    pub const fn format(self) -> PageFormat {
        match self {
            Self::PrometheusProto => PageFormat::Protobuf,
            Self::OpenMetricsText1_0_0 | Self::OpenMetricsText0_0_1 => PageFormat::Text(Dialect::OpenMetrics),
            Self::PrometheusText1_0_0 | Self::PrometheusText0_0_4 => PageFormat::Text(Dialect::Text),
        }
    }

    /// What stands for it in an `Accept` header. Only the newer texts can say how names are escaped.
    const fn media_range(self) -> &'static str {
        match self {
            Self::PrometheusProto => {
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
            }
            Self::OpenMetricsText1_0_0 => "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8",
            Self::OpenMetricsText0_0_1 => "application/openmetrics-text;version=0.0.1",
            Self::PrometheusText1_0_0 => "text/plain;version=1.0.0;escaping=allow-utf-8",
            Self::PrometheusText0_0_4 => "text/plain;version=0.0.4",
        }
    }
}

/// The `Accept` header that asks for these formats, the first one first, in Prometheus' words:
/// exporters choose by it.
#[must_use]
pub fn accept_header(protocols: &[ScrapeProtocol]) -> String {
    let mut header = String::new();
    let mut weight = ScrapeProtocol::ALL.len() + 1;
    for range in protocols.iter().map(|protocol| protocol.media_range()).chain(["*/*"]) {
        let comma = if header.is_empty() { "" } else { "," };
        // Writing to a string cannot fail.
        let _written = write!(header, "{comma}{range};q=0.{weight}");
        weight = weight.saturating_sub(1);
    }
    header
}

impl PageFormat {
    /// From a `Content-Type` header. `None` when it names none of them: Prometheus then refuses the
    /// page unless the scrape configuration names a fall-back.
    #[must_use]
    pub fn from_content_type(header: &str) -> Option<Self> {
        if let Some(dialect) = Dialect::from_content_type(header) {
            return Some(Self::Text(dialect));
        }
        let mut parts = header.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case("application/vnd.google.protobuf") {
            return None;
        }
        let is_ours = parts.filter_map(|parameter| parameter.split_once('=')).all(|(name, value)| {
            let value = value.trim_matches('"');
            match name.to_ascii_lowercase().as_str() {
                "proto" => value == "io.prometheus.client.MetricFamily",
                "encoding" => value == "delimited",
                _ => true,
            }
        });
        is_ours.then_some(Self::Protobuf)
    }
}

#[cfg(test)]
mod tests {
    use super::{DEFAULT_SCRAPE_PROTOCOLS, PageFormat, ScrapeProtocol, accept_header};
    use crate::exposition::Dialect;

    #[test]
    fn targets_are_asked_in_the_words_of_prometheus() {
        assert_eq!(
            accept_header(&DEFAULT_SCRAPE_PROTOCOLS),
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        );
        assert_eq!(
            accept_header(&ScrapeProtocol::ALL),
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
             application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
        );
        assert_eq!(accept_header(&[ScrapeProtocol::PrometheusText0_0_4]), "text/plain;version=0.0.4;q=0.6,*/*;q=0.5");
    }

    #[test]
    fn names() {
        for protocol in ScrapeProtocol::ALL {
            assert_eq!(ScrapeProtocol::parse(protocol.as_str()), Some(protocol));
        }
        assert_eq!(ScrapeProtocol::parse("PrometheusText2.0.0"), None);
    }

    #[test]
    fn formats_of_answers() {
        for (header, expect) in [
            ("text/plain", Some(PageFormat::Text(Dialect::Text))),
            ("application/openmetrics-text; version=1.0.0", Some(PageFormat::Text(Dialect::OpenMetrics))),
            ("application/vnd.google.protobuf", Some(PageFormat::Protobuf)),
            (
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
                Some(PageFormat::Protobuf),
            ),
            (
                "Application/Vnd.Google.Protobuf;PROTO=\"io.prometheus.client.MetricFamily\";escaping=values",
                Some(PageFormat::Protobuf),
            ),
            ("application/vnd.google.protobuf; encoding=text", None),
            ("application/vnd.google.protobuf; proto=other.Message", None),
            ("text/html", None),
            ("", None),
        ] {
            assert_eq!(PageFormat::from_content_type(header), expect, "{header}");
        }
    }
}
