//! Envoy's three shapes of stat names, and which of its clusters and listeners carry the mesh's
//! traffic (rules MX1, MX2, MX5).
//!
//! With Istio's tags the cluster is a label `cluster_name`. Plain Envoy uses
//! `envoy_cluster_name`, but its tag extraction stops at the first dot: of
//! `outbound|80||users.shop.svc.cluster.local` the label keeps `outbound|80||users` and the rest
//! ends up, dots turned into underscores, in the middle of the metric's name.

use std::borrow::Cow;
use std::sync::LazyLock;

use hashbrown::HashMap;

use super::table::{self, Part, Rule};
use crate::normalise::cluster::Cluster;

/// A metric name taken apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape<'a> {
    pub(super) rule: &'static Rule,
    pub(super) part: Part,
    /// What belongs behind the name in the label.
    pub(super) infix: Option<&'a str>,
}

/// Where a family's own part of a name can begin behind an infix.
const MARKERS: &[&str] = &[
    "_upstream_",
    "_outlier_detection_",
    "_membership_",
    "_ssl_handshake",
    "_downstream_",
    "_no_route",
    "_no_cluster",
];

static BY_SUFFIX: LazyLock<HashMap<(&'static str, &'static str), &'static Rule>> = LazyLock::new(|| {
    let split = |rule: &'static Rule| {
        let prefix = PREFIXES.iter().find(|prefix| rule.name.starts_with(**prefix))?;
        Some(((*prefix, &rule.name[prefix.len()..]), rule))
    };
    table::rules().filter_map(split).collect()
});

const PREFIXES: &[&str] = &["envoy_cluster_", "envoy_http_"];

/// Takes apart a name whose infix hides the family. Names of sub-counts have no shape.
pub(super) fn dotted(name: &str) -> Option<Shape<'_>> {
    let prefix = PREFIXES.iter().find(|prefix| name.starts_with(**prefix))?;
    let rest = &name[prefix.len()..];
    let (infix, suffix) = MARKERS.iter().find_map(|marker| {
        let at = rest.find(marker)?;
        Some((&rest[..at], &rest[at + 1..]))
    })?;
    if is_sub_count(infix) {
        return None;
    }
    let find = |suffix: &str| BY_SUFFIX.get(&(*prefix, suffix)).copied();
    let (rule, part) = match find(suffix) {
        Some(rule) => (rule, Part::Value),
        None => [("_bucket", Part::Bucket), ("_sum", Part::Sum), ("_count", Part::Count)]
            .into_iter()
            .find_map(|(ending, part)| Some((find(suffix.strip_suffix(ending)?)?, part)))?,
    };
    Some(Shape { rule, part, infix: Some(infix) })
}

/// The raw name, put together again from the label and the infix. Dots, dashes and underscores all
/// became underscores; in Kubernetes names the ones before `svc` were dashes, elsewhere dots are
/// the best guess.
pub(super) fn reattach<'a>(label: &'a str, infix: Option<&str>) -> Cow<'a, str> {
    let Some(infix) = infix else { return Cow::Borrowed(label) };
    let tail = match infix.find("_svc_") {
        Some(at) => format!("{}{}", infix[..at].replace('_', "-"), infix[at..].replace('_', ".")),
        None => infix.replace('_', "."),
    };
    Cow::Owned(format!("{label}.{tail}"))
}

/// `internal_upstream_rq` and kin count a part of the same requests.
fn is_sub_count(infix: &str) -> bool {
    let ends = ["internal", "external", "canary", "retry"]
        .iter()
        .any(|word| infix.strip_suffix(word).is_some_and(|stem| stem.is_empty() || stem.ends_with('_')));
    ends || infix.starts_with("zone_") || infix.contains("_zone_")
}

/// Clusters of the proxy's own dealings (rule MX1): control plane, telemetry, admin.
pub(super) fn is_internal_cluster(name: &str, cluster: &Cluster<'_>, further: &[String]) -> bool {
    let exact = [
        "xds-grpc",
        "sds-grpc",
        "prometheus_stats",
        "agent",
        "zipkin",
        "jaeger",
        "tracing",
        "opentelemetry_collector",
        "self_admin",
        "local_agent",
        "consul-dataplane",
        "prometheus_backend",
        "accesslog-cluster",
        "wasm_cluster",
        "admin",
        "xds_cluster",
        "service-stats",
    ];
    let begins = ["otel", "envoy_prometheus", "ratelimit"];
    let is_named = exact.contains(&name)
        || begins.iter().any(|prefix| name.starts_with(prefix))
        || name.ends_with("_xds")
        || is_external_authorization(name);
    // The exporter's own cluster in a mesh has a service name like any other.
    let is_telemetry_port = matches!(cluster.port, Some(4317 | 4318 | 9411 | 15010 | 15012 | 15014));
    let is_telemetry_service = cluster.service.is_some_and(|service| {
        let begins = ["otel-", "opentelemetry-", "jaeger", "zipkin", "windrose", "istiod"];
        cluster.host.is_some() && begins.iter().any(|prefix| service.starts_with(prefix))
    });
    is_named || is_telemetry_port || is_telemetry_service || further.iter().any(|pattern| pattern == name)
}

fn is_external_authorization(name: &str) -> bool {
    name.strip_prefix("ext").is_some_and(|rest| rest.trim_start_matches(['-', '_']).starts_with("auth"))
}

/// Listeners of the proxy's own dealings (rule MX2).
pub(super) fn is_internal_listener(prefix: &str) -> bool {
    matches!(prefix, "admin" | "stats" | "envoy_prometheus_metrics_listener" | "eg-ready-http" | "agent")
        || prefix.starts_with("readiness")
}

#[cfg(test)]
mod tests {
    use super::{dotted, is_internal_cluster, reattach};
    use crate::metrics_map::table::Part;
    use crate::normalise::cluster::parse_cluster;

    #[test]
    fn names_with_an_infix_are_taken_apart() {
        for (name, family, part, infix) in [
            (
                "envoy_cluster_shop_svc_cluster_local_upstream_rq_total",
                "envoy_cluster_upstream_rq_total",
                Part::Value,
                "shop_svc_cluster_local",
            ),
            (
                "envoy_cluster_example_com_upstream_rq_time_bucket",
                "envoy_cluster_upstream_rq_time",
                Part::Bucket,
                "example_com",
            ),
            ("envoy_cluster_a_upstream_rq_xx", "envoy_cluster_upstream_rq_xx", Part::Value, "a"),
            ("envoy_http_0_0_0_8080_downstream_rq_total", "envoy_http_downstream_rq_total", Part::Value, "0_0_0_8080"),
        ] {
            let shape = dotted(name).unwrap();
            assert_eq!((shape.rule.name, shape.part, shape.infix), (family, part, Some(infix)), "{name}");
        }
    }

    #[test]
    fn sub_counts_are_no_family() {
        for name in [
            "envoy_cluster_internal_upstream_rq",
            "envoy_cluster_retry_upstream_rq",
            "envoy_cluster_zone_z1_z1_upstream_rq",
            "envoy_cluster_shop_svc_cluster_local_external_upstream_rq_time_bucket",
            "envoy_cluster_shop_svc_cluster_local_zone_z1_z1_upstream_rq",
            "envoy_cluster_upstream_rq_total",
            "envoy_server_uptime",
            "envoy_listener_http_inbound_0_0_0_0_8080__downstream_rq",
        ] {
            assert_eq!(dotted(name), None, "{name}");
        }
    }

    #[test]
    fn raw_names_are_put_together_again() {
        for (label, infix, raw) in [
            ("outbound|8080||users", Some("shop_svc_cluster_local"), "outbound|8080||users.shop.svc.cluster.local"),
            (
                "outbound|8080||users",
                Some("my_shop_svc_cluster_local"),
                "outbound|8080||users.my-shop.svc.cluster.local",
            ),
            ("outbound|443||partner-pay", Some("example_com"), "outbound|443||partner-pay.example.com"),
            ("payments", None, "payments"),
        ] {
            assert_eq!(reattach(label, infix), raw);
        }
    }

    #[test]
    fn the_proxys_own_dealings_are_not_traffic() {
        for (name, internal) in [
            ("xds-grpc", true),
            ("outbound|4317||otel-collector.observability.svc.cluster.local", true),
            ("ext-authz", true),
            ("ext_authz", true),
            ("extras", false),
            ("listener_0_xds", true),
            ("mine", true),
            ("outbound|8080||users.shop.svc.cluster.local", false),
            ("outbound|8080||agent.shop.svc.cluster.local", false),
            ("payments", false),
        ] {
            let cluster = parse_cluster(name).unwrap();
            assert_eq!(is_internal_cluster(name, &cluster, &["mine".to_owned()]), internal, "{name}");
        }
    }
}
