//! The counters of one proxy and the page it shows to a scraper, in the shape Istio gives Envoy's
//! statistics (`cluster_name`, `response_code`, `response_code_class`).

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// One thing that is counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    family: &'static str,
    /// Rendered, without the braces.
    labels: String,
}

/// Everything one proxy has counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    values: BTreeMap<Series, u64>,
}

/// The listener of what a gateway or sidecar sends out.
pub(crate) const OUTBOUND: &str = "outbound_0.0.0.0_8080";
/// The listener of what arrives at a sidecar.
pub(crate) const INBOUND: &str = "inbound_0.0.0.0_8080";

/// Where the proxy sends its spans; scrapers have to leave this cluster out of the topology.
const EXPORTER_CLUSTER: &str = "outbound|4317||otel-collector.observability.svc.cluster.local";

impl Series {
    /// A family of `envoy_cluster_…` for one upstream.
    pub(crate) fn cluster(family: &'static str, cluster: &str) -> Self {
        Self { family, labels: format!("cluster_name=\"{cluster}\"") }
    }

    fn plain(family: &'static str) -> Self {
        Self { family, labels: String::new() }
    }

    fn listener(family: &'static str, listener: &str) -> Self {
        Self { family, labels: format!("http_conn_manager_prefix=\"{listener}\"") }
    }
}

/// An answer given to the caller: code and class live in one family, as in Istio.
pub(crate) fn answered(cluster: &str, code: u16) -> [Series; 3] {
    let with = |label: String| Series {
        family: "envoy_cluster_upstream_rq",
        labels: format!("cluster_name=\"{cluster}\",{label}"),
    };
    [
        with(format!("response_code=\"{code}\"")),
        with(format!("response_code_class=\"{}xx\"", code / 100)),
        Series::cluster("envoy_cluster_upstream_rq_completed", cluster),
    ]
}

/// A request that arrived at a listener and how it was answered (0: not at all).
pub(crate) fn arrived(listener: &str, code: u16) -> Vec<Series> {
    let mut counted = vec![Series::listener("envoy_http_downstream_rq_total", listener)];
    if code != 0 {
        counted.push(Series {
            family: "envoy_http_downstream_rq",
            labels: format!("response_code_class=\"{}xx\",http_conn_manager_prefix=\"{listener}\"", code / 100),
        });
        counted.push(Series::listener("envoy_http_downstream_rq_completed", listener));
    }
    counted
}

/// A request that no route matched.
pub(crate) fn no_route() -> Series {
    Series::listener("envoy_http_no_route", OUTBOUND)
}

/// A message of `spans` spans sent to the collector. Envoy counts attempts, answered or not.
pub(crate) fn exported(spans: usize) -> Vec<(Series, u64)> {
    let mut counted = vec![
        (Series::plain("envoy_tracing_opentelemetry_spans_sent"), spans as u64),
        (Series::cluster("envoy_cluster_upstream_rq_total", EXPORTER_CLUSTER), 1),
    ];
    counted.extend(answered(EXPORTER_CLUSTER, 200).map(|series| (series, 1)));
    counted
}

impl Counters {
    pub(crate) fn add(&mut self, series: Series, count: u64) {
        *self.values.entry(series).or_default() += count;
    }

    /// The page, `uptime_secs` after the proxy started.
    pub(crate) fn page(&self, uptime_secs: u64) -> String {
        let mut page = String::with_capacity(self.values.len() * 120);
        let mut family = "";
        for (series, value) in &self.values {
            if series.family != family {
                family = series.family;
                // Writing to a string cannot fail.
                writeln!(page, "# TYPE {family} counter").expect("writing to a string cannot fail");
            }
            writeln!(page, "{family}{{{}}} {value}", series.labels).expect("writing to a string cannot fail");
        }
        for (gauge, value) in [("envoy_server_live", 1), ("envoy_server_uptime", uptime_secs)] {
            writeln!(page, "# TYPE {gauge} gauge\n{gauge}{{}} {value}").expect("writing to a string cannot fail");
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_shape_of_istio() {
        let mut counters = Counters::default();
        for series in answered("outbound|8080||users.shop.svc.cluster.local", 200) {
            counters.add(series, 2);
        }
        counters.add(Series::plain("envoy_tracing_opentelemetry_spans_sent"), 5);
        assert_eq!(
            counters.page(66),
            "# TYPE envoy_cluster_upstream_rq counter\n\
             envoy_cluster_upstream_rq{cluster_name=\"outbound|8080||users.shop.svc.cluster.local\",response_code=\"200\"} 2\n\
             envoy_cluster_upstream_rq{cluster_name=\"outbound|8080||users.shop.svc.cluster.local\",response_code_class=\"2xx\"} 2\n\
             # TYPE envoy_cluster_upstream_rq_completed counter\n\
             envoy_cluster_upstream_rq_completed{cluster_name=\"outbound|8080||users.shop.svc.cluster.local\"} 2\n\
             # TYPE envoy_tracing_opentelemetry_spans_sent counter\n\
             envoy_tracing_opentelemetry_spans_sent{} 5\n\
             # TYPE envoy_server_live gauge\nenvoy_server_live{} 1\n\
             # TYPE envoy_server_uptime gauge\nenvoy_server_uptime{} 66\n"
        );
    }
}
