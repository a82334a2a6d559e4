//! Which format a page is written in, from its `Content-Type`.

/// How strictly and in which units a page is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Prometheus text 0.0.4 or 1.0.0, with the leniencies of this module.
    Text,
    /// OpenMetrics 1.0: single spaces, seconds, `# EOF` at the end and nothing after it.
    OpenMetrics,
}

impl Dialect {
    /// From a `Content-Type` header. `None` when it names neither format: Prometheus then refuses
    /// the page unless the scrape configuration names a fall-back.
    #[must_use]
    pub fn from_content_type(header: &str) -> Option<Self> {
        let media_type = header.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/openmetrics-text") {
            Some(Self::OpenMetrics)
        } else if media_type.eq_ignore_ascii_case("text/plain") {
            Some(Self::Text)
        } else {
            None
        }
    }
}
