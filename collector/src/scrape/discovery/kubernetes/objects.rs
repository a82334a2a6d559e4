//! From an object of Kubernetes to targets, under Prometheus' names. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::scrape::config::{KubernetesRole, TargetGroup};

#[cfg(test)]
mod tests;

type Labels = BTreeMap<String, String>;

/// Any object that is looked at; what its kind does not have is empty.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Object {
    metadata: Meta,
    spec: Spec,
    status: Status,
    /// Of endpoints.
    #[serde(deserialize_with = "null_is_empty")]
    subsets: Vec<Subset>,
    /// Of an endpoint slice.
    address_type: String,
    #[serde(deserialize_with = "null_is_empty")]
    endpoints: Vec<Endpoint>,
    #[serde(deserialize_with = "null_is_empty")]
    ports: Vec<Port>,
}

/// Lists of endpoint slices are written as `null` when they are empty.
fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
    labels: Labels,
    annotations: Labels,
    owner_references: Vec<Owner>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Owner {
    kind: String,
    name: String,
    controller: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    #[serde(rename = "type")]
    service_type: String,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    external_name: String,
    ports: Vec<Port>,
    #[serde(rename = "providerID")]
    provider_id: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Container {
    name: String,
    image: String,
    ports: Vec<Port>,
}

/// A port of a container, service or endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    name: Option<String>,
    container_port: Option<u16>,
    port: Option<u16>,
    protocol: Option<String>,
    app_protocol: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "hostIP")]
    host_ip: String,
    conditions: Vec<Condition>,
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
    addresses: Vec<NodeAddress>,
    daemon_endpoints: DaemonEndpoints,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeAddress {
    r#type: String,
    address: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DaemonEndpoints {
    kubelet_endpoint: KubeletEndpoint,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct KubeletEndpoint {
    #[serde(rename = "Port")]
    port: u16,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Subset {
    addresses: Vec<Address>,
    not_ready_addresses: Vec<Address>,
    ports: Vec<Port>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Address {
    ip: String,
    hostname: String,
    node_name: String,
    target_ref: TargetRef,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Endpoint {
    addresses: Vec<String>,
    conditions: EndpointConditions,
    hostname: String,
    node_name: String,
    zone: String,
    target_ref: TargetRef,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct EndpointConditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct TargetRef {
    kind: String,
    name: String,
}

impl Object {
    /// Namespace and name.
    pub(super) fn key(&self) -> (String, String) {
        (self.metadata.namespace.clone(), self.metadata.name.clone())
    }

    pub(super) fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

/// The targets of one object.
pub(super) fn groups_of(role: KubernetesRole, object: &Object) -> Vec<TargetGroup> {
    match role {
        KubernetesRole::Pod => pod(object),
        KubernetesRole::Service => service(object),
        KubernetesRole::Node => node(object),
        KubernetesRole::Endpoints => endpoints(object),
        KubernetesRole::EndpointSlice => slice(object),
    }
}

/// Labels under `__meta_kubernetes_<kind>_`.
struct Target {
    kind: &'static str,
    labels: Labels,
}

impl Target {
    fn new(kind: &'static str, meta: &Meta) -> Self {
        let mut target = Self { kind, labels: Labels::new() };
        if !meta.namespace.is_empty() {
            target.labels.insert("__meta_kubernetes_namespace".to_owned(), meta.namespace.clone());
        }
        target.set("name", &meta.name);
        for (name, value) in &meta.labels {
            target.set(&format!("label_{}", sanitised(name)), value);
            target.set(&format!("labelpresent_{}", sanitised(name)), "true");
        }
        for (name, value) in &meta.annotations {
            target.set(&format!("annotation_{}", sanitised(name)), value);
            target.set(&format!("annotationpresent_{}", sanitised(name)), "true");
        }
        target
    }

    fn set(&mut self, name: &str, value: &str) {
        self.labels.insert(format!("__meta_kubernetes_{}_{name}", self.kind), value.to_owned());
    }

    fn set_some(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.set(name, value);
        }
    }

    fn with(&self, address: String, more: &[(&str, &str)]) -> TargetGroup {
        let mut target = Self { kind: self.kind, labels: self.labels.clone() };
        for (name, value) in more {
            target.set_some(name, value);
        }
        TargetGroup { targets: vec![address], labels: target.labels }
    }
}

fn pod(object: &Object) -> Vec<TargetGroup> {
    let (meta, spec, status) = (&object.metadata, &object.spec, &object.status);
    if status.pod_ip.is_empty() {
        return Vec::new();
    }
    let mut base = Target::new("pod", meta);
    base.set("ip", &status.pod_ip);
    let ready = status.conditions.iter().find(|condition| condition.r#type == "Ready");
    base.set("ready", &ready.map_or("unknown", |condition| condition.status.as_str()).to_lowercase());
    base.set("phase", &status.phase);
    base.set("node_name", &spec.node_name);
    base.set("host_ip", &status.host_ip);
    base.set("uid", &meta.uid);
    if let Some(owner) = meta.owner_references.iter().find(|owner| owner.controller) {
        base.set_some("controller_kind", &owner.kind);
        base.set_some("controller_name", &owner.name);
    }
    let containers = spec.containers.iter().map(|container| (container, &status.container_statuses, "false"));
    let init = spec.init_containers.iter().map(|container| (container, &status.init_container_statuses, "true"));
    let mut groups = Vec::new();
    for (container, statuses, is_init) in containers.chain(init) {
        let id = statuses.iter().find(|status| status.name == container.name).map_or("", |status| &status.container_id);
        let about = [
            ("container_name", container.name.as_str()),
            ("container_image", container.image.as_str()),
            ("container_id", id),
            ("container_init", is_init),
        ];
        if container.ports.is_empty() {
            // Relabelling may add the port.
            groups.push(base.with(host(&status.pod_ip), &about));
        }
        for port in &container.ports {
            let number = port.container_port.unwrap_or_default().to_string();
            let mut more = about.to_vec();
            more.extend([
                ("container_port_name", port.name.as_deref().unwrap_or_default()),
                ("container_port_number", number.as_str()),
                ("container_port_protocol", port.protocol.as_deref().unwrap_or("TCP")),
            ]);
            groups.push(base.with(format!("{}:{number}", host(&status.pod_ip)), &more));
        }
    }
    groups
}

fn service(object: &Object) -> Vec<TargetGroup> {
    let (meta, spec) = (&object.metadata, &object.spec);
    let mut base = Target::new("service", meta);
    base.set_some("type", &spec.service_type);
    if spec.service_type == "ExternalName" {
        base.set_some("external_name", &spec.external_name);
    } else {
        base.set_some("cluster_ip", &spec.cluster_ip);
    }
    let ports = spec.ports.iter().map(|port| {
        let number = port.port.unwrap_or_default().to_string();
        let more = [
            ("port_name", port.name.as_deref().unwrap_or_default()),
            ("port_number", number.as_str()),
            ("port_protocol", port.protocol.as_deref().unwrap_or("TCP")),
        ];
        base.with(format!("{}.{}.svc:{number}", meta.name, meta.namespace), &more)
    });
    ports.collect()
}

fn node(object: &Object) -> Vec<TargetGroup> {
    const ADDRESS_ORDER: [&str; 5] = ["InternalIP", "InternalDNS", "ExternalIP", "ExternalDNS", "Hostname"];
    let status = &object.status;
    let of_type = |kind: &str| status.addresses.iter().find(|address| address.r#type == kind);
    let Some(address) = ADDRESS_ORDER.into_iter().find_map(of_type) else { return Vec::new() };
    let mut base = Target::new("node", &object.metadata);
    base.set_some("provider_id", &object.spec.provider_id);
    for other in &status.addresses {
        base.set(&format!("address_{}", sanitised(&other.r#type)), &other.address);
    }
    let mut group =
        base.with(format!("{}:{}", host(&address.address), status.daemon_endpoints.kubelet_endpoint.port), &[]);
    group.labels.insert("instance".to_owned(), object.metadata.name.clone());
    vec![group]
}

fn endpoints(object: &Object) -> Vec<TargetGroup> {
    let base = Target::new("endpoints", &object.metadata);
    let mut groups = Vec::new();
    for subset in &object.subsets {
        let addresses = subset.addresses.iter().map(|address| (address, "true"));
        let not_ready = subset.not_ready_addresses.iter().map(|address| (address, "false"));
        for (address, ready) in addresses.chain(not_ready) {
            for port in &subset.ports {
                let number = port.port.unwrap_or_default();
                let mut group = base.with(format!("{}:{number}", host(&address.ip)), &[]);
                let mut endpoint = Target { kind: "endpoint", labels: Labels::new() };
                endpoint.set_some("port_name", port.name.as_deref().unwrap_or_default());
                endpoint.set("port_protocol", port.protocol.as_deref().unwrap_or("TCP"));
                endpoint.set("ready", ready);
                endpoint.set_some("hostname", &address.hostname);
                endpoint.set_some("node_name", &address.node_name);
                endpoint.set_some("address_target_kind", &address.target_ref.kind);
                endpoint.set_some("address_target_name", &address.target_ref.name);
                group.labels.extend(endpoint.labels);
                groups.push(group);
            }
        }
    }
    groups
}

fn slice(object: &Object) -> Vec<TargetGroup> {
    let mut base = Target::new("endpointslice", &object.metadata);
    base.set("address_type", &object.address_type);
    let flag = |value: Option<bool>| value.map_or("", |value| if value { "true" } else { "false" });
    let mut groups = Vec::new();
    for port in &object.ports {
        let number = port.port.unwrap_or_default().to_string();
        for endpoint in &object.endpoints {
            let more = [
                ("port_name", port.name.as_deref().unwrap_or_default()),
                ("port", number.as_str()),
                ("port_protocol", port.protocol.as_deref().unwrap_or("TCP")),
                ("port_app_protocol", port.app_protocol.as_deref().unwrap_or_default()),
                ("endpoint_conditions_ready", flag(endpoint.conditions.ready)),
                ("endpoint_conditions_serving", flag(endpoint.conditions.serving)),
                ("endpoint_conditions_terminating", flag(endpoint.conditions.terminating)),
                ("endpoint_hostname", endpoint.hostname.as_str()),
                ("endpoint_node_name", endpoint.node_name.as_str()),
                ("endpoint_zone", endpoint.zone.as_str()),
                ("address_target_kind", endpoint.target_ref.kind.as_str()),
                ("address_target_name", endpoint.target_ref.name.as_str()),
            ];
            let addresses = endpoint.addresses.iter().map(|address| format!("{}:{number}", host(address)));
            groups.extend(addresses.map(|address| base.with(address, &more)));
        }
    }
    groups
}

/// As in an address with a port.
fn host(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

/// As part of a label name.
fn sanitised(name: &str) -> String {
    name.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '_' }).collect()
}
