//! Envoy upstream cluster names: what each control plane writes into them (rules C1–C9).
//!
//! The name is the only thing a caller's Envoy says about the callee, in spans
//! (`upstream_cluster`) as in metrics (label `cluster_name`). Pure; every part is a slice of the name.

use super::host::HostRules;

#[cfg(test)]
mod tests;

/// Which control plane's naming matched, the rule that fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClusterForm {
    /// Istio's reserved clusters: BlackHole, Passthrough, InboundPassthrough.
    C1,
    /// Istio `outbound|PORT|SUBSET|HOST`.
    C2,
    /// Consul SNI.
    C3,
    /// AWS App Mesh.
    C4,
    /// Envoy Gateway.
    C5,
    /// kgateway and Gloo.
    C6,
    /// Contour.
    C7,
    /// The proxy's own application.
    C8,
    /// Anything else: the name is the service.
    C9,
}

/// Whether the cluster is the proxy's own application or somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClusterSide {
    /// The proxy's own application: never the target of an edge.
    Inbound,
    Outbound,
}

/// A parsed cluster name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster<'a> {
    pub form: ClusterForm,
    pub side: ClusterSide,
    pub port: Option<u16>,
    /// Subset of the destination, usually a version.
    pub subset: Option<&'a str>,
    pub host: Option<&'a str>,
    pub service: Option<&'a str>,
    pub namespace: Option<&'a str>,
    /// Consul datacenter, or peer name.
    pub datacenter: Option<&'a str>,
    /// `None` when the name does not decide it; the host of the URL then does.
    pub external: Option<bool>,
    /// Sent nowhere on purpose.
    pub is_blackhole: bool,
    /// Envoy lets anything through: the real destination is the host of the URL.
    pub is_passthrough: bool,
}

/// Reads a cluster name with the built-in rule for hosts. `None` for an empty name.
#[must_use]
pub fn parse_cluster(name: &str) -> Option<Cluster<'_>> {
    // Without operator lists the rules hold no allocation, so making them costs nothing.
    parse_cluster_with(name, &HostRules::default())
}

/// Reads a cluster name; `hosts` decides whether an Istio host is inside the mesh.
#[must_use]
pub fn parse_cluster_with<'a>(name: &'a str, hosts: &HostRules) -> Option<Cluster<'a>> {
    // Istio appends `;` to the observability name so that Envoy's tag extraction keeps its dots.
    let name = name.trim().trim_end_matches(';');
    if name.is_empty() {
        return None;
    }
    reserved(name)
        .or_else(|| istio(name, hosts))
        .or_else(|| consul(name))
        .or_else(|| own_app(name))
        .or_else(|| app_mesh(name))
        .or_else(|| envoy_gateway(name))
        .or_else(|| kgateway(name))
        .or_else(|| contour(name))
        .or(Some(Cluster { service: Some(name), external: None, ..Cluster::outbound(ClusterForm::C9) }))
}

// === impl ClusterForm ===

impl ClusterForm {
    /// The rule id.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::C1 => "C1",
            Self::C2 => "C2",
            Self::C3 => "C3",
            Self::C4 => "C4",
            Self::C5 => "C5",
            Self::C6 => "C6",
            Self::C7 => "C7",
            Self::C8 => "C8",
            Self::C9 => "C9",
        }
    }
}

// === impl Cluster ===

impl Cluster<'_> {
    /// Whether the cluster is the proxy's own application.
    #[must_use]
    pub fn is_own_app(&self) -> bool {
        self.side == ClusterSide::Inbound
    }

    const fn of(form: ClusterForm, side: ClusterSide) -> Self {
        Cluster {
            form,
            side,
            port: None,
            subset: None,
            host: None,
            service: None,
            namespace: None,
            datacenter: None,
            external: Some(false),
            is_blackhole: false,
            is_passthrough: false,
        }
    }

    const fn outbound(form: ClusterForm) -> Self {
        Self::of(form, ClusterSide::Outbound)
    }
}

// === the forms ===

fn reserved(name: &str) -> Option<Cluster<'_>> {
    let outside = Cluster { external: Some(true), ..Cluster::outbound(ClusterForm::C1) };
    match name {
        "BlackHoleCluster" | "block_all" => {
            Some(Cluster { service: Some("BlackHoleCluster"), is_blackhole: true, ..outside })
        }
        "PassthroughCluster" | "allow_any" => {
            Some(Cluster { service: Some("PassthroughCluster"), is_passthrough: true, ..outside })
        }
        _ if name.starts_with("InboundPassthroughCluster") => Some(Cluster::of(ClusterForm::C1, ClusterSide::Inbound)),
        _ => None,
    }
}

/// `outbound|8080|v1|orders.shop.svc.cluster.local`; SNI form `outbound_.8080_.v1_.host`.
fn istio<'a>(name: &'a str, hosts: &HostRules) -> Option<Cluster<'a>> {
    // The longer word first: `inbound` is a prefix of `inbound-vip`.
    let (word, rest) = ["outbound", "inbound-vip", "inbound"]
        .into_iter()
        .find_map(|word| name.strip_prefix(word).map(|rest| (word, rest)))?;
    let separator = ["|", "_.", "_"].into_iter().find(|separator| rest.starts_with(separator))?;
    let (port, rest) = rest[separator.len()..].split_once(separator)?;
    let (subset, host) = rest.split_once(separator)?;
    let port = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse::<u16>().ok())??;
    let is_outbound = word == "outbound";
    let named = hosts.service_of(host);
    let side = if is_outbound { ClusterSide::Outbound } else { ClusterSide::Inbound };
    Some(Cluster {
        port: Some(port),
        // The third field of a waypoint's `inbound-vip` is the protocol.
        subset: (word != "inbound-vip").then_some(subset).filter(|subset| !subset.is_empty()),
        host: Some(host).filter(|host| !host.is_empty()),
        service: named.service,
        namespace: named.namespace,
        external: Some(is_outbound && !hosts.is_internal(host)),
        ..Cluster::of(ClusterForm::C2, side)
    })
}

/// `[subset.]service.namespace.[partition.]datacenter.internal[-v1].TRUST.consul`, or with a peer
/// name and `external`. A partition is there only in the versioned form.
fn consul(name: &str) -> Option<Cluster<'_>> {
    let name = match name.split_once('~') {
        Some((hash, rest)) if is_hex(hash) => rest,
        _ => name,
    };
    let rest = name.strip_suffix(".consul")?;
    let (rest, trust_domain) = rest.rsplit_once('.')?;
    let (rest, kind) = rest.rsplit_once('.')?;
    let has_partition = kind.strip_prefix("internal-v").is_some_and(is_number);
    let is_trusted = trust_domain.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if !(has_partition || matches!(kind, "internal" | "external")) || !is_trusted || trust_domain.is_empty() {
        return None;
    }
    let mut labels = rest.rsplit('.');
    let datacenter = labels.next()?;
    if has_partition {
        labels.next()?;
    }
    let (namespace, service, subset) = (labels.next()?, labels.next()?, labels.next());
    if labels.next().is_some() || [datacenter, namespace, service].contains(&"") {
        return None;
    }
    Some(Cluster {
        subset,
        service: Some(service),
        namespace: Some(namespace),
        datacenter: Some(datacenter),
        ..Cluster::outbound(ClusterForm::C3)
    })
}

fn own_app(name: &str) -> Option<Cluster<'_>> {
    matches!(name, "local_app" | "local_agent" | "local_service")
        .then(|| Cluster::of(ClusterForm::C8, ClusterSide::Inbound))
}

/// `cds_egress_MESH_NODE_http_8080`.
fn app_mesh(name: &str) -> Option<Cluster<'_>> {
    let rest = name.strip_prefix("cds_")?;
    let (side, rest) = rest.split_once('_')?;
    let side = match side {
        "egress" => ClusterSide::Outbound,
        "ingress" => ClusterSide::Inbound,
        _ => return None,
    };
    let (rest, port) = rest.rsplit_once('_')?;
    let (rest, protocol) = rest.rsplit_once('_')?;
    let (mesh, node) = rest.rsplit_once('_')?;
    let is_protocol = matches!(protocol, "http" | "http2" | "grpc" | "tcp");
    if !is_protocol || mesh.is_empty() || node.is_empty() {
        return None;
    }
    let port = parse_port(port)?;
    Some(Cluster { service: Some(node), port: Some(port), ..Cluster::of(ClusterForm::C4, side) })
}

/// `httproute/NS/NAME/rule/0`, where the route's name stands in for the service's, or
/// `service/NS/NAME/PORT`.
fn envoy_gateway(name: &str) -> Option<Cluster<'_>> {
    let mut parts = name.split('/');
    let (kind, namespace, service, fourth) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if namespace.is_empty() || service.is_empty() {
        return None;
    }
    let named = Cluster { service: Some(service), namespace: Some(namespace), ..Cluster::outbound(ClusterForm::C5) };
    match kind {
        "httproute" | "grpcroute" | "tcproute" | "tlsroute" | "udproute" => {
            let rule = parts.next()?;
            let is_rule = is_number(rule.strip_prefix('-').unwrap_or(rule));
            (fourth == "rule" && is_rule && parts.next().is_none()).then_some(named)
        }
        "service" | "backend" | "serviceimport" => {
            let digits = fourth.bytes().take_while(u8::is_ascii_digit).count();
            parse_port(&fourth[..digits]).map(|port| Cluster { port: Some(port), ..named })
        }
        _ => None,
    }
}

/// `kube_NS_NAME_PORT`, `istio-se_NS_NAME_PORT`, `kube-svc:…`, Gloo's `NAME_gloo-system`.
fn kgateway(name: &str) -> Option<Cluster<'_>> {
    let base = Cluster::outbound(ClusterForm::C6);
    if let Some(rest) = name.strip_prefix("kube-svc:") {
        let parts: Vec<&str> = rest.splitn(6, '_').collect();
        let [_, _, namespace, service, port] = parts[..] else { return None };
        let are_names = parts[..4].iter().all(|part| is_kube_name(part));
        let port = parse_port(port)?;
        return are_names.then_some(Cluster {
            service: Some(service),
            namespace: Some(namespace),
            port: Some(port),
            ..base
        });
    }
    let parts: Vec<&str> = name.splitn(5, '_').collect();
    match parts[..] {
        [kind @ ("kube" | "backend" | "upstream" | "istio-se" | "service"), namespace, service, port] => {
            let are_names = is_kube_name(namespace) && !service.is_empty();
            let port = parse_port(port)?;
            are_names.then_some(Cluster {
                service: Some(service),
                namespace: Some(namespace),
                port: Some(port),
                external: Some(kind == "istio-se"),
                ..base
            })
        }
        [service, namespace] if namespace.contains("gloo") && is_kube_name(service) && is_kube_name(namespace) => {
            Some(Cluster { service: Some(service), ..base })
        }
        _ => None,
    }
}

/// `NS/NAME/PORT/HASH`.
fn contour(name: &str) -> Option<Cluster<'_>> {
    let mut parts = name.split('/');
    let (namespace, service, port, hash) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_port_name = is_number(port) || port.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let is_contour = parts.next().is_none()
        && is_kube_name(namespace)
        && !service.is_empty()
        && !port.is_empty()
        && is_port_name
        && (6..=10).contains(&hash.len())
        && is_hex(hash);
    is_contour.then_some(Cluster {
        service: Some(service),
        namespace: Some(namespace),
        port: parse_port(port),
        ..Cluster::outbound(ClusterForm::C7)
    })
}

// === helpers ===

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_kube_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn parse_port(text: &str) -> Option<u16> {
    if is_number(text) { text.parse().ok() } else { None }
}
