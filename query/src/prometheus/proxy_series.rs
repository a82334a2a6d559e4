//! Which edge a proxy's latency series is about. Envoy and most gateways measure without knowing traces; the rollup
//! knows the slow calls of the same edge with theirs.

use windrose_proto::edge::EdgeKey;
use windrose_proto::hop::Node;
use windrose_proto::metric::Labels;

/// A family of latency histograms whose labels name an edge.
struct Shape {
    /// The name of the bucket series.
    name: &'static str,
    /// Seconds per unit of the values.
    unit_seconds: f64,
    /// Labels that may name the called service, its namespace, the caller and its namespace; the first that is there.
    target: &'static [&'static str],
    target_namespace: &'static [&'static str],
    source: &'static [&'static str],
    source_namespace: &'static [&'static str],
}

const MILLI: f64 = 1e-3;

const SHAPES: [Shape; 9] = [
    Shape {
        name: "istio_request_duration_milliseconds_bucket",
        unit_seconds: MILLI,
        target: &["destination_canonical_service", "destination_service_name", "destination_workload"],
        target_namespace: &["destination_service_namespace", "destination_workload_namespace"],
        source: &["source_canonical_service", "source_workload"],
        source_namespace: &["source_workload_namespace"],
    },
    Shape {
        name: "envoy_cluster_upstream_rq_time_bucket",
        unit_seconds: MILLI,
        target: &["envoy_cluster_name"],
        target_namespace: &[],
        source: &[],
        source_namespace: &[],
    },
    Shape {
        name: "response_latency_ms_bucket",
        unit_seconds: MILLI,
        target: &["dst_service", "dst_deployment"],
        target_namespace: &["dst_namespace"],
        source: &["deployment"],
        source_namespace: &["namespace"],
    },
    gateway("kong_request_latency_ms_bucket", MILLI),
    gateway("kong_upstream_latency_ms_bucket", MILLI),
    gateway("apisix_http_latency_bucket", MILLI),
    gateway("traefik_service_request_duration_seconds_bucket", 1.0),
    gateway("nginx_ingress_controller_request_duration_seconds_bucket", 1.0),
    gateway("nginx_ingress_controller_response_duration_seconds_bucket", 1.0),
];

/// A gateway that names the service it calls and, at most, its namespace.
const fn gateway(name: &'static str, unit_seconds: f64) -> Shape {
    Shape {
        name,
        unit_seconds,
        target: &["service"],
        target_namespace: &["exported_namespace"],
        source: &[],
        source_namespace: &[],
    }
}

/// The edges that a series is about, and how to write their latencies in it.
#[derive(Debug, PartialEq)]
pub(super) struct ProxySeries {
    target: End,
    source: Option<End>,
    /// The caller's side measured it.
    pub(super) at_client: bool,
    unit_seconds: f64,
}

#[derive(Debug, PartialEq, Eq)]
struct End {
    name: String,
    namespace: Option<String>,
}

impl ProxySeries {
    /// Reads the labels of a bucket series; `None` when its family is not known or the labels name no service.
    pub(super) fn of(labels: &Labels) -> Option<Self> {
        let name = labels.metric_name();
        let shape = SHAPES.iter().find(|shape| shape.name == name)?;
        let value = |names: &[&str]| {
            let found =
                names.iter().map(|name| labels.get(name)).find(|value| !value.is_empty() && *value != "unknown");
            found.map(str::to_owned)
        };
        let target = End::new(&value(shape.target)?, value(shape.target_namespace));
        let source = value(shape.source).map(|source| End::new(&source, value(shape.source_namespace)));
        let at_client = labels.get("reporter") != "destination" && labels.get("direction") != "inbound";
        Some(Self { target, source, at_client, unit_seconds: shape.unit_seconds })
    }

    /// The names of all known bucket series.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        SHAPES.iter().map(|shape| shape.name)
    }

    /// Whether the series measures this edge.
    pub(super) fn is_about(&self, key: &EdgeKey) -> bool {
        self.target.is(&key.destination) && self.source.as_ref().is_none_or(|source| source.is(&key.source))
    }

    /// A latency in the unit of the series.
    pub(super) fn value(&self, seconds: f64) -> f64 {
        seconds / self.unit_seconds
    }
}

impl End {
    /// From a label's value: a plain name, a host (`orders.shop.svc.cluster.local`), an Istio cluster
    /// (`outbound|80|v1|orders.shop.svc.cluster.local`), a Traefik service (`shop-orders-80@kubernetes`), or
    /// `namespace/name` and its kin.
    fn new(text: &str, namespace: Option<String>) -> Self {
        let text = text.rsplit('|').next().unwrap_or(text);
        let text = text.split_once('@').map_or(text, |(name, _)| name);
        if let Some((place, name)) = text.split_once('/') {
            return Self { name: name.to_owned(), namespace: namespace.or_else(|| Some(place.to_owned())) };
        }
        match text.split_once(".svc") {
            Some((inside, _)) => {
                let (name, place) = inside.split_once('.').map_or((inside, None), |(name, place)| (name, Some(place)));
                Self { name: name.to_owned(), namespace: namespace.or_else(|| place.map(str::to_owned)) }
            }
            None => Self { name: text.to_owned(), namespace },
        }
    }

    fn is(&self, node: &Node) -> bool {
        let named = *node.service == *self.name || node.workload.as_deref() == Some(self.name.as_str());
        let place = node.namespace.as_deref();
        named && (self.namespace.is_none() || place.is_none() || place == self.namespace.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use windrose_proto::Text;
    use windrose_proto::model::{Direction, NodeRole, Protocol, ProxyKind};

    use super::*;

    fn key(source: &str, target: &str) -> EdgeKey {
        let node = |text: &str| {
            let (namespace, service) = text.split_once('/').unwrap();
            Arc::new(Node {
                cluster: None,
                namespace: Some(Text::from(namespace)),
                service: Text::from(service),
                workload: Some(Text::from(format!("{service}-v1"))),
                version: None,
                role: NodeRole::Sidecar,
                proxy_kind: ProxyKind::None,
            })
        };
        EdgeKey {
            source: node(source),
            destination: node(target),
            direction: Direction::EastWest,
            protocol: Protocol::Http1,
            entry: None,
            origin: None,
        }
    }

    #[track_caller]
    fn check(labels: &[(&str, &str)], expect: bool) {
        let series = ProxySeries::of(&Labels::from_pairs(labels.iter().copied())).expect("a known family");
        assert_eq!(series.is_about(&key("shop/orders", "shop/users")), expect, "{labels:?}");
    }

    #[test]
    fn labels_name_the_edge() {
        let istio = ("__name__", "istio_request_duration_milliseconds_bucket");
        check(&[istio, ("source_workload", "orders-v1"), ("destination_service_name", "users")], true);
        check(&[istio, ("source_workload", "unknown"), ("destination_service_name", "users")], true);
        check(&[istio, ("source_workload", "gateway"), ("destination_service_name", "users")], false);
        check(&[istio, ("destination_service_name", "users"), ("destination_service_namespace", "other")], false);
        let envoy = ("__name__", "envoy_cluster_upstream_rq_time_bucket");
        check(&[envoy, ("envoy_cluster_name", "outbound|80||users.shop.svc.cluster.local")], true);
        check(&[envoy, ("envoy_cluster_name", "outbound|80||users.other.svc.cluster.local")], false);
        check(&[envoy, ("envoy_cluster_name", "shop/users")], true);
        check(&[("__name__", "traefik_service_request_duration_seconds_bucket"), ("service", "users@docker")], true);
    }

    #[test]
    fn values_are_in_the_unit_of_the_series() {
        let labels = [("__name__", "istio_request_duration_milliseconds_bucket"), ("destination_workload", "users-v1")];
        let series = ProxySeries::of(&Labels::from_pairs(labels)).unwrap();
        assert!((series.value(0.25) - 250.0).abs() < 1e-9);
        assert!(ProxySeries::of(&Labels::from_pairs([("__name__", "up"), ("service", "users")])).is_none());
    }
}
