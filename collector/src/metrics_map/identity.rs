//! Who a scraped target is, read from its labels (rules I and R for targets).

use windrose_proto::Text;
use windrose_proto::model::{NodeRole, ProxyKind};

use crate::normalise::names::{names_eastwest, names_egress};
use crate::normalise::node_id::workload_of_pod;

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

    #[test]
    fn a_target_without_names_is_called_after_its_job() {
        let named =
            |labels: &[(&'static str, &'static str)]| TargetIdentity::from_labels(labels.iter().copied()).service;
        assert_eq!(named(&[("job", "kong"), ("instance", "10.0.0.1:8100")]), "kong");
        assert_eq!(named(&[("job", ""), ("instance", "10.0.0.1:8100")]), "10.0.0.1:8100");
        assert_eq!(named(&[("job", "k8s"), ("pod", "orders-v1-7d4b9c6f5-x2x9k")]), "orders-v1");
    }
}
