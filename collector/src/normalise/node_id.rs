//! Envoy's `node_id` (rules N1, N2): the best witness in a mesh, since it names role, workload,
//! namespace and the address that callees see as their peer.

use std::net::IpAddr;

/// What kind of proxy a node id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeType {
    Sidecar,
    Router,
    Waypoint,
    Ztunnel,
    Agentgateway,
}

/// Whose convention the node id follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeForm {
    /// N1: Istio, `type~ip~pod.namespace~domain`.
    Istio,
    /// N2: App Mesh, `mesh/MESH/virtualNode/NAME`.
    AppMesh,
}

/// A parsed node id; the parts are slices of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeId<'a> {
    pub form: NodeForm,
    pub node_type: NodeType,
    pub ip: Option<IpAddr>,
    pub pod: Option<&'a str>,
    pub namespace: Option<&'a str>,
    pub workload: Option<&'a str>,
}

impl<'a> NodeId<'a> {
    /// Reads a node id; `None` when it follows no known convention.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        istio(text).or_else(|| app_mesh(text))
    }
}

fn istio(text: &str) -> Option<NodeId<'_>> {
    let mut parts = text.split('~');
    let (node_type, ip, name, _domain) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let node_type = match node_type {
        "sidecar" => NodeType::Sidecar,
        "router" => NodeType::Router,
        "waypoint" => NodeType::Waypoint,
        "ztunnel" => NodeType::Ztunnel,
        "agentgateway" => NodeType::Agentgateway,
        _ => return None,
    };
    let (pod, namespace) = match name.rsplit_once('.') {
        Some((pod, namespace)) if !pod.is_empty() => (pod, Some(namespace).filter(|ns| !ns.is_empty())),
        _ => (name, None),
    };
    // Dual-stack pods list several addresses.
    let ip = ip.split(',').next().and_then(|ip| ip.parse().ok());
    let pod = Some(pod).filter(|pod| !pod.is_empty());
    Some(NodeId { form: NodeForm::Istio, node_type, ip, pod, namespace, workload: pod.map(workload_of_pod) })
}

fn app_mesh(text: &str) -> Option<NodeId<'_>> {
    let mut parts = text.strip_prefix("mesh/")?.split('/');
    let (_mesh, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
    let node_type = match kind {
        "virtualNode" => NodeType::Sidecar,
        "virtualGateway" => NodeType::Router,
        _ => return None,
    };
    let name = name.split('@').next().filter(|name| !name.is_empty());
    Some(NodeId { form: NodeForm::AppMesh, node_type, ip: None, pod: None, namespace: None, workload: name })
}

/// The workload a pod belongs to: `orders-v1-6c9f8b7d4-x2x9k` → `orders-v1`, `db-0` → `db`.
#[must_use]
pub fn workload_of_pod(pod: &str) -> &str {
    let Some((base, last)) = pod.rsplit_once('-') else { return pod };
    if base.is_empty() {
        return pod;
    }
    let is_pod_hash = last.len() == 5 && last.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if !is_pod_hash {
        let is_ordinal = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
        return if is_ordinal { base } else { pod };
    }
    match base.rsplit_once('-') {
        Some((workload, hash)) if is_replica_set_hash(hash) => workload,
        _ => base,
    }
}

/// Kubernetes writes these hashes in an alphabet without vowels and look-alikes.
fn is_replica_set_hash(text: &str) -> bool {
    (6..=16).contains(&text.len()) && text.bytes().all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::{NodeForm, NodeId, NodeType, workload_of_pod};

    #[test]
    fn istio_node_ids() {
        let id =
            NodeId::parse("sidecar~10.1.2.3,fd00::3~orders-v1-6c9f8b7d4-x2x9k.shop~shop.svc.cluster.local").unwrap();
        assert_eq!(id.node_type, NodeType::Sidecar);
        assert_eq!(id.ip, Some("10.1.2.3".parse().unwrap()));
        assert_eq!((id.pod, id.namespace), (Some("orders-v1-6c9f8b7d4-x2x9k"), Some("shop")));
        assert_eq!(id.workload, Some("orders-v1"));
        assert_eq!(NodeId::parse("ztunnel~~zt-abcde.istio-system~x").unwrap().ip, None);
        assert_eq!(NodeId::parse("sidecar~1~2"), None);
        assert_eq!(NodeId::parse("proxy~1~2~3"), None);
    }

    #[test]
    fn app_mesh_node_ids() {
        let id = NodeId::parse("mesh/m1/virtualGateway/front@acc").unwrap();
        assert_eq!((id.form, id.node_type, id.workload), (NodeForm::AppMesh, NodeType::Router, Some("front")));
        assert_eq!(NodeId::parse("mesh/m1/other/front"), None);
    }

    #[test]
    fn workloads_of_pods() {
        for (pod, workload) in [
            ("orders-v1-6c9f8b7d4-x2x9k", "orders-v1"),
            ("orders-v1-abc12", "orders-v1"),
            ("orders-v1-abc", "orders-v1-abc"),
            ("db-0", "db"),
            ("db", "db"),
            ("-0", "-0"),
            ("", ""),
        ] {
            assert_eq!(workload_of_pod(pod), workload, "{pod}");
        }
    }
}
