//! Who a scraped target is, read from its labels (rules I and R for targets).

use windrose_proto::Text;
use windrose_proto::attributes::Attributes;
use windrose_proto::model::{NodeRole, ProxyKind};

use crate::normalise::names::{names_eastwest, names_egress};
use crate::normalise::node_id::{NodeId, NodeType, workload_of_pod};

/// The process behind a scraped page. Its own page rarely says who it is, so the labels of the
/// scrape configuration or of service discovery do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TargetIdentity {
    pub service: Text,
    pub namespace: Option<Text>,
    pub workload: Option<Text>,
    pub version: Option<Text>,
    pub cluster: Option<Text>,
    pub pod: Option<Text>,
    /// What the labels say about the role; the traces may know better.
    pub role: Option<NodeRole>,
    pub proxy_kind: Option<ProxyKind>,
    pub instance: Text,
    pub job: Text,
}

/// Labels that name the service, the most deliberate first.
const SERVICE_LABELS: &[&str] = &[
    "service_istio_io_canonical_name",
    "canonical_service",
    "app_kubernetes_io_name",
    "app",
    "service",
    "deployment",
    "workload",
];
const NAMESPACE_LABELS: &[&str] = &["namespace", "kubernetes_namespace", "pod_namespace", "ns"];
const VERSION_LABELS: &[&str] = &["service_istio_io_canonical_revision", "version", "app_kubernetes_io_version"];
const WORKLOAD_LABELS: &[&str] = &["workload", "deployment", "statefulset", "daemonset"];
const CLUSTER_LABELS: &[&str] = &["cluster", "cluster_id"];
const POD_LABELS: &[&str] = &["pod", "kubernetes_pod_name", "pod_name"];
const ROLE_LABELS: &[&str] = &["kind", "role", "istio", "node_role"];

impl TargetIdentity {
    /// From the labels of a target. A target without any naming label is called after its job, or
    /// after its address when several targets share the job.
    #[must_use]
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let labels: Vec<(&str, &str)> = labels.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let get = |name: &str| labels.iter().find(|(label, _)| *label == name).map(|(_, value)| *value);
        let first = |names: &[&str]| names.iter().find_map(|name| get(name));
        let pod = first(POD_LABELS);
        let workload = first(WORKLOAD_LABELS).or_else(|| pod.map(workload_of_pod));
        let instance = get("instance").unwrap_or_default();
        let job = get("job").unwrap_or_default();
        let service = first(SERVICE_LABELS).or(workload).unwrap_or(if job.is_empty() { instance } else { job });
        let role = first(ROLE_LABELS).and_then(role_of_word).map(|role| refine_gateway(role, service));
        Self {
            service: Text::from(service),
            namespace: first(NAMESPACE_LABELS).map(Text::from),
            workload: workload.map(Text::from),
            version: first(VERSION_LABELS).filter(|version| *version != "latest").map(Text::from),
            cluster: first(CLUSTER_LABELS).map(Text::from),
            pod: pod.map(Text::from),
            role,
            proxy_kind: get("proxy_kind").and_then(ProxyKind::parse),
            instance: Text::from(instance),
            job: Text::from(job),
        }
    }
}

/// Attributes that may hold Envoy's node id.
const NODE_ID_KEYS: &[&str] = &["node_id", "node_name", "service.instance.id"];
const RESOURCE_WORKLOAD_KEYS: &[&str] = &["k8s.deployment.name", "k8s.statefulset.name", "k8s.daemonset.name"];
/// What tells a process from its replicas.
const RESOURCE_INSTANCE_KEYS: &[&str] =
    &["service.instance.id", "k8s.pod.name", "k8s.pod.uid", "host.name", "host.ip", "node_id"];

impl TargetIdentity {
    /// From the resource of what a proxy pushes, named as its spans are (rules I). `None` when it names no
    /// service, or nothing that tells the process from its replicas.
    #[must_use]
    pub fn from_resource(resource: &Attributes) -> Option<Self> {
        let get = |key: &str| resource.text(key).map(|text| &**text).filter(|text| !text.is_empty());
        let first = |keys: &[&str]| keys.iter().find_map(|key| get(key));
        let node = NODE_ID_KEYS.iter().find_map(|key| NodeId::parse(get(key)?));
        let is_envoy = get("telemetry.sdk.name") == Some("envoy") || node.is_some();
        let pod = get("k8s.pod.name").or(node.and_then(|node| node.pod));
        let workload =
            first(RESOURCE_WORKLOAD_KEYS).or(node.and_then(|node| node.workload)).or_else(|| pod.map(workload_of_pod));
        let named = get("service.name").filter(|name| !name.starts_with("unknown_service"));
        let mut namespace =
            first(&["k8s.namespace.name", "service.namespace"]).or(node.and_then(|node| node.namespace));
        // Istio calls its proxies `service.namespace`.
        let service = match named.and_then(|name| Some((name, name.rsplit_once('.')?))) {
            Some((_, (service, suffix))) if is_envoy && namespace.is_none_or(|namespace| namespace == suffix) => {
                namespace = Some(suffix);
                Some(service)
            }
            _ => named,
        };
        let service = service.or(workload)?;
        let instance = first(RESOURCE_INSTANCE_KEYS)?;
        let role = match node.map(|node| node.node_type) {
            Some(NodeType::Sidecar) => Some(NodeRole::Sidecar),
            Some(NodeType::Waypoint | NodeType::Agentgateway) => Some(NodeRole::Waypoint),
            Some(NodeType::Ztunnel) => Some(NodeRole::NodeProxy),
            Some(NodeType::Router) => Some(NodeRole::Gateway),
            None if names_egress(service) || names_eastwest(service) || service.contains("ingress") => {
                Some(NodeRole::Gateway)
            }
            None => None,
        };
        Some(Self {
            service: Text::from(service),
            namespace: namespace.map(Text::from),
            workload: workload.map(Text::from),
            // Others tell the version of the proxy there; an Envoy has it from who configured it.
            version: get("service.version").filter(|version| is_envoy && *version != "latest").map(Text::from),
            cluster: get("k8s.cluster.name").map(Text::from),
            pod: pod.map(Text::from),
            role: role.map(|role| refine_gateway(role, service)),
            proxy_kind: None,
            instance: Text::from(instance),
            job: Text::from(named.unwrap_or_default()),
        })
    }

    /// Whether both may be the same process, as far as they tell: the same pod, or else the same service.
    #[must_use]
    pub fn may_be(&self, other: &Self) -> bool {
        let agrees = |one: &Option<Text>, other: &Option<Text>| match (one, other) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        agrees(&self.namespace, &other.namespace)
            && match (&self.pod, &other.pod) {
                (Some(one), Some(other)) => one == other,
                _ => self.service == other.service,
            }
    }
}

fn role_of_word(word: &str) -> Option<NodeRole> {
    match word {
        "ingressgateway" | "ingress" | "router" => Some(NodeRole::Gateway),
        "egressgateway" => Some(NodeRole::Egress),
        "eastwestgateway" => Some(NodeRole::Eastwest),
        "ztunnel" => Some(NodeRole::NodeProxy),
        word => NodeRole::parse(word),
    }
}

/// Rule R3: a gateway whose name says so is an egress or east-west gateway.
fn refine_gateway(role: NodeRole, service: &str) -> NodeRole {
    if role != NodeRole::Gateway {
        role
    } else if names_egress(service) {
        NodeRole::Egress
    } else if names_eastwest(service) {
        NodeRole::Eastwest
    } else {
        role
    }
}

#[cfg(test)]
mod tests {
    use windrose_proto::Text;
    use windrose_proto::attributes::{Attributes, KeyValue, Value};
    use windrose_proto::model::NodeRole;

    use super::TargetIdentity;

    #[test]
    fn labels_name_the_target() {
        let identity = TargetIdentity::from_labels([
            ("instance", "127.0.0.18:15000"),
            ("job", "mesh"),
            ("pod", "istio-egressgateway-5d8f6c5b9-q7k2m"),
            ("app", "istio-egressgateway"),
            ("version", "v1"),
            ("namespace", "istio-system"),
            ("kind", "gateway"),
        ]);
        assert_eq!(identity.service, "istio-egressgateway");
        assert_eq!(identity.workload.as_deref(), Some("istio-egressgateway"));
        assert_eq!(identity.namespace.as_deref(), Some("istio-system"));
        assert_eq!(identity.role, Some(NodeRole::Egress));
    }

    fn resource(pairs: &[(&'static str, &'static str)]) -> Option<TargetIdentity> {
        let pair = |(key, value): &(&'static str, &'static str)| KeyValue {
            key: Text::from_static(key),
            value: Value::Str(Text::from_static(value)),
        };
        TargetIdentity::from_resource(&Attributes(pairs.iter().map(pair).collect()))
    }

    #[track_caller]
    fn check_resource(pairs: &[(&'static str, &'static str)], expect: (&str, Option<&str>, Option<NodeRole>)) {
        let identity = resource(pairs).unwrap();
        assert_eq!((&*identity.service, identity.namespace.as_deref(), identity.role), expect, "{pairs:?}");
    }

    #[test]
    fn resources_name_who_pushes() {
        let envoy = ("telemetry.sdk.name", "envoy");
        let pod = ("k8s.pod.name", "orders-v1-6c9f8b7d4-x2x9k");
        check_resource(&[envoy, ("service.name", "orders.shop"), pod], ("orders", Some("shop"), None));
        let namespace = ("k8s.namespace.name", "shop");
        check_resource(&[envoy, ("service.name", "orders.shop"), namespace, pod], ("orders", Some("shop"), None));
        // A dot that is no namespace, and one of another sender.
        check_resource(&[envoy, ("service.name", "orders.eu"), namespace, pod], ("orders.eu", Some("shop"), None));
        check_resource(&[("service.name", "kong.eu"), pod], ("kong.eu", None, None));
        check_resource(&[pod, namespace], ("orders-v1", Some("shop"), None));
        let node = "router~10.0.0.1~istio-egressgateway-5d8f6c5b9-q7k2m.istio-system~istio-system.svc.cluster.local";
        let expect = ("istio-egressgateway", Some("istio-system"), Some(NodeRole::Egress));
        check_resource(&[("node_name", node), ("host.name", "n1")], expect);
        let ingress = ("service.name", "istio-ingressgateway.istio-system");
        let expect = ("istio-ingressgateway", Some("istio-system"), Some(NodeRole::Gateway));
        check_resource(&[envoy, ingress, ("service.instance.id", "i-1")], expect);
    }

    #[test]
    fn who_cannot_be_told_from_replicas_is_nobody() {
        assert_eq!(resource(&[("telemetry.sdk.name", "envoy")]), None);
        assert_eq!(resource(&[("service.name", "orders")]), None);
        assert_eq!(resource(&[("service.name", "unknown_service:envoy"), ("host.name", "n1")]), None);
    }

    #[test]
    fn the_same_process_in_other_words() {
        let scraped = |labels: &[(&'static str, &'static str)]| TargetIdentity::from_labels(labels.iter().copied());
        let pushed =
            resource(&[("service.name", "orders"), ("k8s.pod.name", "orders-1"), ("k8s.namespace.name", "shop")]);
        let pushed = pushed.unwrap();
        for (labels, expect) in [
            (&[("pod", "orders-1"), ("app", "other"), ("namespace", "shop")][..], true),
            (&[("pod", "orders-2"), ("app", "orders"), ("namespace", "shop")], false),
            (&[("app", "orders"), ("instance", "10.0.0.1:15090")], true),
            (&[("app", "orders"), ("namespace", "other")], false),
            (&[("app", "users")], false),
        ] {
            assert_eq!(scraped(labels).may_be(&pushed), expect, "{labels:?}");
        }
    }

    #[test]
    fn a_target_without_names_is_called_after_its_job() {
        let named =
            |labels: &[(&'static str, &'static str)]| TargetIdentity::from_labels(labels.iter().copied()).service;
        assert_eq!(named(&[("job", "kong"), ("instance", "10.0.0.1:8100")]), "kong");
        assert_eq!(named(&[("job", ""), ("instance", "10.0.0.1:8100")]), "10.0.0.1:8100");
        assert_eq!(named(&[("job", "k8s"), ("pod", "orders-v1-7d4b9c6f5-x2x9k")]), "orders-v1");
    }
}
