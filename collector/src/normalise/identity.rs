//! Who wrote a span (rules I): service, namespace, workload, version, pod, cluster, address.

use std::net::IpAddr;

use windrose_proto::model::{ProxyKind, Rule};
use windrose_proto::normal::Identity;

use super::attrs::Key;
use super::node_id::NodeForm;
use super::reading::Reading;

/// An identity in slices of the span it was read from, so that looking it up costs no allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct IdentityParts<'a> {
    pub(super) service: &'a str,
    pub(super) namespace: Option<&'a str>,
    pub(super) workload: Option<&'a str>,
    pub(super) version: Option<&'a str>,
    pub(super) pod: Option<&'a str>,
    pub(super) cluster: Option<&'a str>,
    pub(super) ip: Option<IpAddr>,
}

/// The identity and the rule that decided.
pub(super) fn identity<'a>(reading: &Reading<'a>, kind: ProxyKind) -> (IdentityParts<'a>, Rule) {
    let facts = reading.facts;
    let (mut parts, rule) = match kind {
        ProxyKind::Istio => istio(reading),
        ProxyKind::Linkerd => linkerd(reading),
        ProxyKind::AppMesh if reading.node_id.is_some_and(|id| id.form == NodeForm::AppMesh) => app_mesh(reading),
        _ => generic(reading, kind),
    };
    parts.pod = parts.pod.or(facts.pod.as_deref());
    if kind == ProxyKind::Linkerd {
        parts.pod = parts.pod.or(facts.host_name.as_deref());
    }
    parts.ip = parts.ip.or(facts.pod_ip).or_else(|| facts.host_address());
    parts.cluster = text(reading, Key::IstioClusterId).or(facts.k8s_cluster.as_deref());
    if parts.service.is_empty() {
        parts.service = kind.as_str();
    }
    (parts, Rule(rule))
}

/// I1, I1b.
fn istio<'a>(reading: &Reading<'a>) -> (IdentityParts<'a>, &'static str) {
    let facts = reading.facts;
    let node = reading.node_id;
    let mut parts = IdentityParts {
        pod: node.and_then(|id| id.pod),
        workload: node.and_then(|id| id.workload),
        namespace: text(reading, Key::IstioNamespace).or(node.and_then(|id| id.namespace)),
        version: text(reading, Key::IstioRevision)
            .filter(|revision| *revision != "latest")
            .or(facts.service_version.as_deref()),
        ip: node.and_then(|id| id.ip),
        ..IdentityParts::default()
    };
    if let Some(service) = text(reading, Key::IstioService).filter(|service| *service != "unknown") {
        parts.service = service;
        return (parts, "I1");
    }
    let named = facts.service_name.as_deref().filter(|name| !is_unknown_service(name));
    match named.map(|name| name.rsplit_once('.').ok_or(name)) {
        Some(Ok((service, namespace))) => {
            parts.service = service;
            parts.namespace = parts.namespace.or(Some(namespace));
        }
        Some(Err(service)) => parts.service = service,
        None => parts.service = parts.workload.unwrap_or_default(),
    }
    (parts, "I1b")
}

/// I2.
fn linkerd<'a>(reading: &Reading<'a>) -> (IdentityParts<'a>, &'static str) {
    let facts = reading.facts;
    let workload = facts.linkerd_workload.as_deref();
    let service = workload.or(facts.app.as_deref()).or(facts.service_name.as_deref());
    let parts = IdentityParts {
        service: service.unwrap_or_default(),
        namespace: facts.linkerd_namespace.as_deref(),
        workload,
        version: facts.version.as_deref(),
        ..IdentityParts::default()
    };
    (parts, "I2")
}

/// I3.
fn app_mesh<'a>(reading: &Reading<'a>) -> (IdentityParts<'a>, &'static str) {
    let workload = reading.node_id.and_then(|id| id.workload);
    (IdentityParts { service: workload.unwrap_or_default(), workload, ..IdentityParts::default() }, "I3")
}

/// I4, I4b, I8.
fn generic<'a>(reading: &Reading<'a>, kind: ProxyKind) -> (IdentityParts<'a>, &'static str) {
    let facts = reading.facts;
    let mut rule = "I4";
    let mut service = facts.service_name.as_deref();
    let mut namespace = facts.service_namespace.as_deref().or(facts.k8s_namespace.as_deref());
    let is_dotted_gateway = matches!(kind, ProxyKind::EnvoyGateway | ProxyKind::Kgateway | ProxyKind::Contour);
    if is_dotted_gateway
        && namespace.is_none()
        && let Some((name, suffix)) = service.and_then(|name| name.rsplit_once('.'))
    {
        (service, namespace, rule) = (Some(name), Some(suffix), "I4b");
    }
    service = service.filter(|name| !is_unknown_service(name));
    if service.is_none() {
        service = facts.host_ip.as_deref().or(facts.host_name.as_deref());
        rule = "I8";
    }
    let parts = IdentityParts {
        service: service.unwrap_or_default(),
        namespace,
        workload: facts.k8s_deployment.as_deref().or(facts.k8s_stateful_set.as_deref()),
        // A proxy's service.version is the version of the proxy.
        version: facts.service_version.as_deref().filter(|_| kind == ProxyKind::None),
        ..IdentityParts::default()
    };
    (parts, rule)
}

fn text<'a>(reading: &Reading<'a>, key: Key) -> Option<&'a str> {
    reading.view.text(key).map(|text| &**text)
}

/// What SDKs write when nobody named the service.
fn is_unknown_service(name: &str) -> bool {
    name.starts_with("unknown_service")
}

// === impl IdentityParts ===

impl IdentityParts<'_> {
    /// Whether `identity` is the same.
    pub(super) fn is(&self, identity: &Identity) -> bool {
        self.service == &*identity.service
            && self.namespace == identity.namespace.as_deref()
            && self.workload == identity.workload.as_deref()
            && self.version == identity.version.as_deref()
            && self.pod == identity.pod.as_deref()
            && self.cluster == identity.cluster.as_deref()
            && self.ip == identity.ip
    }

    /// An identity of its own.
    pub(super) fn to_identity(self) -> Identity {
        let text = |part: Option<&str>| part.map(Into::into);
        Identity {
            service: self.service.into(),
            namespace: text(self.namespace),
            workload: text(self.workload),
            version: text(self.version),
            pod: text(self.pod),
            cluster: text(self.cluster),
            ip: self.ip,
        }
    }
}
