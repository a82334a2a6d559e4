//! The vocabulary of metrics: label sets, matchers over them, and what else a series carries.
//!
//! Names, order and quoting are those of Prometheus 3.x; `windrose-promql`, the store and the scraper share them.

use serde::{Deserialize, Serialize};

pub mod labels;
pub mod matcher;
pub mod quote;

pub use labels::{Label, Labels, LabelsBuilder};
pub use matcher::{MatchOp, Matcher};

/// The bit pattern of the staleness marker: the value of a series that ended.
pub const STALE_MARKER_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Whether a value is the staleness marker; other NaNs are values.
#[must_use]
pub const fn is_stale_marker(value: f64) -> bool {
    value.to_bits() == STALE_MARKER_BITS
}

/// What kind of metric a family is, in the words of exposition and of `/api/v1/metadata`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
    GaugeHistogram,
    Summary,
    Info,
    StateSet,
    /// No `# TYPE` was seen, or `untyped`.
    #[default]
    Unknown,
}

impl MetricKind {
    /// From the word in a `# TYPE` line.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "counter" => Self::Counter,
            "gauge" => Self::Gauge,
            "histogram" => Self::Histogram,
            "gaugehistogram" => Self::GaugeHistogram,
            "summary" => Self::Summary,
            "info" => Self::Info,
            "stateset" => Self::StateSet,
            "unknown" | "untyped" => Self::Unknown,
            _ => return None,
        })
    }

    /// The word of the Prometheus metadata API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
            Self::Unknown => "unknown",
        }
    }
}

/// What the exposition says about a metric family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Metadata {
    #[serde(rename = "type")]
    pub kind: MetricKind,
    pub help: String,
    pub unit: String,
}

/// An example behind a number: for proxies, the trace that was slow.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Usually `trace_id` and `span_id`.
    pub labels: Labels,
    pub value: f64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
}
