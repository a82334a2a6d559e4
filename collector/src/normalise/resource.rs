//! What the rules read from a resource, once per resource instead of once per span.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use windrose_proto::Text;
use windrose_proto::attributes::{Attributes, Value};
use windrose_proto::span::Resource;

/// Resources remembered. A mesh has as many as it has processes; 16 384 facts are about 10 MB.
const KEPT_MAX: usize = 16_384;

/// A hasher without a random key: hashes end up in results, which must not differ between runs.
pub(super) type FixedHasher = BuildHasherDefault<DefaultHasher>;

/// What a resource says.
#[derive(Debug, Default)]
pub(super) struct ResourceFacts {
    /// Over all attributes, independent of their order; 0 when there are none.
    pub(super) hash: u64,
    pub(super) service_name: Option<Text>,
    pub(super) service_namespace: Option<Text>,
    pub(super) service_version: Option<Text>,
    pub(super) k8s_namespace: Option<Text>,
    pub(super) k8s_deployment: Option<Text>,
    pub(super) k8s_stateful_set: Option<Text>,
    pub(super) k8s_cluster: Option<Text>,
    pub(super) pod: Option<Text>,
    pub(super) pod_ip: Option<IpAddr>,
    pub(super) host_ip: Option<Text>,
    pub(super) host_name: Option<Text>,
    /// Linkerd's plain `app` and `version` labels.
    pub(super) app: Option<Text>,
    pub(super) version: Option<Text>,
    pub(super) linkerd_workload: Option<Text>,
    pub(super) linkerd_namespace: Option<Text>,
    pub(super) sdk_is_envoy: bool,
    pub(super) is_caddy: bool,
    pub(super) has_process_start: bool,
    pub(super) names_linkerd: bool,
    pub(super) names_zuul: bool,
    pub(super) names_haproxy: bool,
}

/// Facts by resource.
#[derive(Debug, Default)]
pub(super) struct Resources {
    /// Spans of one batch share their resource.
    last: Option<(Arc<Resource>, Arc<ResourceFacts>)>,
    known: HashMap<u64, Arc<ResourceFacts>, FixedHasher>,
}

// === impl Resources ===

impl Resources {
    /// The facts of `resource`.
    pub(super) fn facts(&mut self, resource: &Arc<Resource>) -> Arc<ResourceFacts> {
        if let Some((last, facts)) = &self.last
            && Arc::ptr_eq(last, resource)
        {
            return Arc::clone(facts);
        }
        let hash = hash_of(&resource.attributes);
        let facts = match self.known.get(&hash) {
            Some(facts) => Arc::clone(facts),
            None => {
                if self.known.len() >= KEPT_MAX {
                    self.known.clear();
                }
                let facts = Arc::new(ResourceFacts::read(&resource.attributes, hash));
                self.known.insert(hash, Arc::clone(&facts));
                facts
            }
        };
        self.last = Some((Arc::clone(resource), Arc::clone(&facts)));
        facts
    }
}

// === impl ResourceFacts ===

impl ResourceFacts {
    fn read(attributes: &Attributes, hash: u64) -> Self {
        // Facts outlive the request they came with: texts are copied out of its buffer.
        let text = |key: &str| attributes.text(key).map(|text| Text::from(&**text));
        let first = |keys: &[&str]| keys.iter().find_map(|key| text(key));
        let service_name = text("service.name");
        let lower = service_name.as_deref().unwrap_or_default().to_lowercase();
        Self {
            hash,
            service_namespace: text("service.namespace"),
            service_version: text("service.version"),
            k8s_namespace: text("k8s.namespace.name"),
            k8s_deployment: text("k8s.deployment.name"),
            k8s_stateful_set: text("k8s.statefulset.name"),
            k8s_cluster: text("k8s.cluster.name"),
            pod: text("k8s.pod.name"),
            pod_ip: text("k8s.pod.ip").and_then(|ip| ip.parse().ok()),
            host_ip: text("host.ip"),
            host_name: text("host.name"),
            app: text("app"),
            version: text("version"),
            linkerd_workload: first(&[
                "linkerd.io/proxy-deployment",
                "linkerd.io/proxy-statefulset",
                "linkerd.io/proxy-daemonset",
                "linkerd.io/proxy-replicaset",
                "linkerd.io/proxy-job",
                "k8s.deployment.name",
            ]),
            linkerd_namespace: first(&["linkerd.io/workload-ns", "k8s.namespace.name"]),
            sdk_is_envoy: attributes.text("telemetry.sdk.name").is_some_and(|name| &**name == "envoy"),
            is_caddy: attributes.text("webengine.name").is_some_and(|name| &**name == "Caddy"),
            has_process_start: attributes.get("process.start_timestamp").is_some(),
            names_linkerd: lower.contains("linkerd"),
            names_zuul: lower.contains("zuul"),
            names_haproxy: lower.contains("haproxy"),
            service_name,
        }
    }

    /// `host.ip` as an address.
    pub(super) fn host_address(&self) -> Option<IpAddr> {
        self.host_ip.as_deref().and_then(|ip| ip.parse().ok())
    }
}

/// Equal for equal sets of attributes: the sum does not depend on their order.
fn hash_of(attributes: &Attributes) -> u64 {
    let state = FixedHasher::default();
    attributes.iter().fold(0, |sum, attribute| {
        let mut hasher = state.build_hasher();
        attribute.key.as_bytes().hash(&mut hasher);
        hash_value(&attribute.value, &mut hasher);
        sum.wrapping_add(std::hash::Hasher::finish(&hasher))
    })
}

fn hash_value(value: &Value, hasher: &mut DefaultHasher) {
    std::mem::discriminant(value).hash(hasher);
    match value {
        Value::Empty => {}
        Value::Str(text) => text.as_bytes().hash(hasher),
        Value::Bool(flag) => flag.hash(hasher),
        Value::Int(number) => number.hash(hasher),
        Value::Double(number) => number.to_bits().hash(hasher),
        Value::Bytes(bytes) => bytes.hash(hasher),
        Value::Array(values) => values.iter().for_each(|value| hash_value(value, hasher)),
        Value::Map(entries) => entries.iter().for_each(|entry| {
            entry.key.as_bytes().hash(hasher);
            hash_value(&entry.value, hasher);
        }),
    }
}
