//! From a sample to the edges and fields it counts for: one function per vendor (rules M6–M9).

use std::borrow::Cow;
use std::collections::BTreeMap;

use smallvec::{SmallVec, smallvec};
use windrose_proto::Text;
use windrose_proto::model::{NodeRole, Protocol, ProxyKind, Reason, Reporters};

use super::envoy::{self, Shape};
use super::flags;
use super::state::{EdgeShape, Origin};
use super::sums::{Code, Field};
use super::table::{self, Canonical, Family, Layer, Part};
use super::{Options, Page, Peer, PeerNode, TargetIdentity};
use crate::exposition::{Dialect, Labels, Parser};
use crate::normalise::cluster::{ClusterForm, parse_cluster_with};

/// What is known while a page is read.
#[derive(Debug)]
pub struct Context<'a> {
    identity: &'a TargetIdentity,
    options: &'a Options,
    pub(super) proxy_kind: ProxyKind,
    /// The handler whose series count each request of a Caddy exactly once (rule MX4).
    caddy_handler: Option<String>,
    /// For an egress gateway on APISIX: the outside host that each of its services stands for.
    apisix_hosts: BTreeMap<String, String>,
}

/// Where a field belongs.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    Edge(Box<EdgeShape>),
    /// The proxy as a whole.
    Proxy,
}

/// What a series counts for; the factor turns the difference into base units.
pub(super) enum Bound {
    /// Known, but no fact about an edge.
    Nothing,
    /// The proxy's own dealings.
    Internal,
    Fields(Fields),
}

type Fields = Vec<(Place, Field, f64)>;

fn at(edge: &EdgeShape) -> Place {
    Place::Edge(Box::new(edge.clone()))
}

/// The family of a sample name and its place in it. `None` for families nobody maps.
pub(super) fn shape_of(name: &str) -> Option<Shape<'_>> {
    match table::find(name) {
        Some((rule, part)) => Some(Shape { rule, part, infix: None }),
        None => envoy::dotted(name),
    }
}

/// Works out what a series counts for.
pub(super) fn bind(context: &Context<'_>, shape: Shape<'_>, labels: Labels<'_>) -> Bound {
    if shape.part == Part::Created {
        return Bound::Nothing;
    }
    let sample = Reading { context, shape, labels };
    match shape.rule.family {
        Family::Istio => sample.istio(),
        Family::Envoy if shape.rule.name.starts_with("envoy_cluster_") => sample.envoy_cluster(),
        Family::Envoy => sample.envoy_entry(),
        Family::Linkerd => sample.linkerd(),
        Family::Kong => sample.kong(),
        Family::Apisix => sample.apisix(),
        Family::Traefik => sample.traefik(),
        Family::IngressNginx => sample.ingress_nginx(),
        Family::Nginx => sample.nginx(),
        Family::Haproxy => sample.haproxy(),
        Family::Caddy => sample.caddy(),
        Family::SpringCloudGateway => sample.spring_cloud_gateway(),
        Family::Agentgateway => sample.agentgateway(),
    }
}

// === impl Context ===

impl<'a> Context<'a> {
    pub(super) fn of(identity: &'a TargetIdentity, page: Page<'_>, options: &'a Options) -> Self {
        let kind = identity.proxy_kind.unwrap_or_else(|| proxy_kind_of(page.body));
        let apisix_hosts = match (kind, identity.role) {
            (ProxyKind::Apisix, Some(NodeRole::Egress)) => apisix_hosts(page, options),
            _ => BTreeMap::new(),
        };
        Self { identity, options, proxy_kind: kind, caddy_handler: caddy_handler(page), apisix_hosts }
    }

    fn own(&self) -> Peer {
        Peer::Node(PeerNode::of_target(self.identity))
    }
}

/// Rule M1, the most telling family first. A page may hold several kinds; the kind of the proxy is
/// that of its data plane.
fn proxy_kind_of(page: &[u8]) -> ProxyKind {
    let has_line = |prefix: &str| {
        page.starts_with(prefix.as_bytes())
            || memchr::memmem::find(page, [b"\n", prefix.as_bytes()].concat().as_slice()).is_some()
    };
    [
        ("istio_", ProxyKind::Istio),
        ("envoy_", ProxyKind::Envoy),
        ("kong_", ProxyKind::Kong),
        ("apisix_", ProxyKind::Apisix),
        ("traefik_", ProxyKind::Traefik),
        ("nginx_", ProxyKind::Nginx),
        ("haproxy_", ProxyKind::Haproxy),
        ("caddy_", ProxyKind::Caddy),
        ("spring_cloud_gateway", ProxyKind::SpringCloudGateway),
        ("agentgateway_", ProxyKind::Agentgateway),
        ("response_latency_ms_bucket", ProxyKind::Linkerd),
        ("inbound_http_", ProxyKind::Linkerd),
        ("outbound_http_", ProxyKind::Linkerd),
    ]
    .into_iter()
    .find_map(|(prefix, kind)| has_line(prefix).then_some(kind))
    .map_or(ProxyKind::None, |kind| if kind == ProxyKind::Envoy { envoy_kind_of(page) } else { kind })
}

/// Which control plane an Envoy belongs to, by the clusters it names (rules P1a–P1z), so that its
/// counters and its spans are the same reporter's.
fn envoy_kind_of(page: &[u8]) -> ProxyKind {
    let has = |text: &str| memchr::memmem::find(page, text.as_bytes()).is_some();
    [
        ("name=\"outbound|", ProxyKind::Istio),
        ("name=\"inbound|", ProxyKind::Istio),
        ("name=\"InboundPassthroughCluster", ProxyKind::Istio),
        ("name=\"cds_egress_", ProxyKind::AppMesh),
        ("name=\"cds_ingress_", ProxyKind::AppMesh),
        ("consul_destination_service", ProxyKind::Consul),
        ("name=\"httproute/", ProxyKind::EnvoyGateway),
        ("name=\"grpcroute/", ProxyKind::EnvoyGateway),
        ("name=\"kube_", ProxyKind::Kgateway),
        ("gloo-system\"", ProxyKind::Kgateway),
    ]
    .into_iter()
    .find_map(|(text, kind)| has(text).then_some(kind))
    .unwrap_or(ProxyKind::Envoy)
}

fn caddy_handler(page: Page<'_>) -> Option<String> {
    const FAMILY: &str = "caddy_http_request_duration_seconds_count";
    memchr::memmem::find(page.body, FAMILY.as_bytes())?;
    let samples = Parser::new(page.body, Dialect::Text).samples();
    let handlers = samples.filter(|sample| sample.name == FAMILY).filter_map(|sample| sample.labels.get("handler"));
    // `subroute` wraps the others; without it, any one handler of the chain sees every request.
    handlers
        .min_by_key(|handler| (handler != "subroute", handler != "reverse_proxy", handler.clone().into_owned()))
        .map(Cow::into_owned)
}

/// The one outside host of each service of an egress gateway, by which its spans call the service
/// too (T5). Latencies name the service only, so the host is looked up rather than read.
fn apisix_hosts(page: Page<'_>, options: &Options) -> BTreeMap<String, String> {
    let mut hosts: BTreeMap<String, Option<String>> = BTreeMap::new();
    for sample in Parser::new(page.body, Dialect::Text).samples().filter(|sample| sample.name == "apisix_http_status") {
        let (Some(service), Some(host)) = (sample.labels.get("service"), sample.labels.get("matched_host")) else {
            continue;
        };
        if service.is_empty() || host.is_empty() || options.overrides.hosts.is_internal(&host) {
            continue;
        }
        let known = hosts.entry(service.into_owned()).or_insert_with(|| Some(host.clone().into_owned()));
        if known.as_deref() != Some(&*host) {
            *known = None;
        }
    }
    hosts.into_iter().filter_map(|(service, host)| Some((service, host?))).collect()
}

/// A sample with everything needed to interpret it.
struct Reading<'a> {
    context: &'a Context<'a>,
    shape: Shape<'a>,
    labels: Labels<'a>,
}

impl<'a> Reading<'a> {
    // --- labels ---

    fn label(&self, name: &str) -> Option<Cow<'a, str>> {
        self.labels.get(name).filter(|value| !value.is_empty())
    }

    /// Istio writes `unknown` where it does not know.
    fn known(&self, names: &[&str]) -> Option<Text> {
        let mut values = names.iter().filter_map(|name| self.label(name));
        values.find(|value| value != "unknown").map(|value| Text::from(value.into_owned()))
    }

    fn code(&self, name: &str) -> Code {
        self.label(name).map_or(Code::NoAnswer, |code| Code::of_label(&code))
    }

    fn canonical(&self) -> Canonical {
        self.shape.rule.canonical
    }

    // --- results ---

    fn edge(
        &self,
        source: Peer,
        destination: Peer,
        reporter: Reporters,
        protocol: Protocol,
        origin: Origin,
    ) -> EdgeShape {
        EdgeShape { source, destination, reporter, protocol, origin }
    }

    /// From this target to a node.
    fn outgoing(&self, destination: PeerNode, origin: Origin) -> EdgeShape {
        self.edge(self.context.own(), Peer::Node(destination), Reporters::Client, Protocol::Http, origin)
    }

    /// From whoever calls to this target.
    fn incoming(&self, origin: Origin) -> EdgeShape {
        self.edge(Peer::Caller, self.context.own(), Reporters::Server, Protocol::Http, origin)
    }

    fn one(&self, edge: &EdgeShape, field: Field) -> Bound {
        Bound::Fields(vec![(at(edge), field, self.shape.rule.scale)])
    }

    fn optional(&self, edge: &EdgeShape, field: Option<Field>) -> Bound {
        field.map_or(Bound::Nothing, |field| self.one(edge, field))
    }

    /// The part of a duration histogram or summary this sample is.
    fn duration(&self) -> Option<Field> {
        match self.shape.part {
            Part::Count => Some(Field::DurationCount),
            Part::Sum => Some(Field::DurationSum),
            Part::Bucket => self.bucket_bound().map(|bound| Field::DurationBucket(bound.to_bits())),
            Part::Value | Part::Created => None,
        }
    }

    fn bucket_bound(&self) -> Option<f64> {
        let bound: f64 = self.labels.get("le")?.trim().parse().ok()?;
        (bound >= 0.0).then_some(bound * self.shape.rule.scale)
    }

    /// A duration's sum is scaled, its counts are not.
    fn duration_of(&self, edge: &EdgeShape) -> Bound {
        let Some(field) = self.duration() else { return Bound::Nothing };
        let factor = if field == Field::DurationSum { self.shape.rule.scale } else { 1.0 };
        Bound::Fields(vec![(at(edge), field, factor)])
    }

    /// Requests by code and what follows from the code.
    fn requests(&self, edge: &EdgeShape, code: Code, is_proxy_made: bool) -> Bound {
        let mut fields: Fields = vec![(at(edge), Field::Code(code), 1.0)];
        if is_proxy_made && (code.is_error() || code == Code::NoAnswer) {
            fields.push((at(edge), Field::ProxyFault, 1.0));
        }
        Bound::Fields(fields)
    }

    fn node_of_host(&self, host: &str) -> PeerNode {
        let host = crate::normalise::host::host_of(host).unwrap_or(host);
        let hosts = &self.context.options.overrides.hosts;
        let named = hosts.service_of(host);
        PeerNode {
            service: Text::from(named.service.unwrap_or(host)),
            namespace: named.namespace.map(Text::from),
            external: Some(!hosts.is_internal(host)),
            ..PeerNode::default()
        }
    }

    // --- Istio ---

    fn istio(&self) -> Bound {
        let reporter = match self.label("reporter").as_deref() {
            Some("source") => Reporters::Client,
            Some("destination") => Reporters::Server,
            Some("waypoint") => Reporters::Waypoint,
            _ => return Bound::Nothing,
        };
        let is_tcp = self.shape.rule.name.starts_with("istio_tcp_");
        let protocol = match (is_tcp, self.label("request_protocol").as_deref()) {
            (true, _) | (_, Some("tcp")) => Protocol::Tcp,
            (_, Some("grpc")) => Protocol::Grpc,
            _ => Protocol::Http,
        };
        let edge = self.edge(self.istio_source(), self.istio_destination(), reporter, protocol, Origin::Istio);
        match self.canonical() {
            Canonical::Requests => self.istio_requests(&edge, protocol),
            Canonical::Duration => self.duration_of(&edge),
            // Sizes are histograms; their sums are the bytes.
            Canonical::RequestSize if self.shape.part == Part::Sum => self.one(&edge, Field::BytesSent),
            Canonical::ResponseSize if self.shape.part == Part::Sum => self.one(&edge, Field::BytesReceived),
            Canonical::BytesFromClient => self.one(&edge, Field::BytesSent),
            Canonical::BytesToClient => self.one(&edge, Field::BytesReceived),
            Canonical::ConnectionsOpened => self.istio_connections(&edge),
            Canonical::ConnectionsFailed => self.istio_failed_connections(&edge),
            _ => Bound::Nothing,
        }
    }

    fn istio_source(&self) -> Peer {
        let service = self.known(&["source_canonical_service", "source_app", "source_workload"]);
        let Some(service) = service else { return Peer::Caller };
        Peer::Node(PeerNode {
            service,
            namespace: self.known(&["source_workload_namespace"]),
            workload: self.known(&["source_workload"]),
            version: self.known(&["source_canonical_revision", "source_version"]).filter(|text| *text != "latest"),
            cluster: self.known(&["source_cluster"]),
            role: None,
            external: Some(false),
        })
    }

    fn istio_destination(&self) -> Peer {
        let host = self.label("destination_service").unwrap_or_default();
        let workload = self.known(&["destination_workload"]);
        let of_host = self.node_of_host(&host);
        let named = self
            .known(&["destination_canonical_service", "destination_service_name"])
            // Passthrough's name hides the host, which is the real destination.
            .filter(|name| {
                !matches!(name.as_ref() as &str, "PassthroughCluster" | "BlackHoleCluster") || host.is_empty()
            });
        let service = named.unwrap_or_else(|| of_host.service.clone());
        if service.is_empty() || service == "unknown" {
            return Peer::Caller;
        }
        // An outside host keeps its whole name; Istio's short name would cut it.
        let is_outside = workload.is_none() && of_host.external == Some(true) && !host.is_empty();
        Peer::Node(PeerNode {
            service: if is_outside { of_host.service } else { service },
            namespace: self.known(&["destination_workload_namespace", "destination_service_namespace"]),
            version: self
                .known(&["destination_canonical_revision", "destination_version"])
                .filter(|text| *text != "latest"),
            cluster: self.known(&["destination_cluster"]),
            role: None,
            external: Some(is_outside),
            workload,
        })
    }

    fn istio_requests(&self, edge: &EdgeShape, protocol: Protocol) -> Bound {
        let grpc = self.label("grpc_response_status").and_then(|status| status.parse::<u8>().ok());
        let code = match grpc {
            Some(status) if protocol == Protocol::Grpc && status != 0 => Code::Grpc(status),
            _ => self.code("response_code"),
        };
        let flags = self.label("response_flags").unwrap_or_default();
        let mut fields: Fields = vec![(at(edge), Field::Code(code), 1.0)];
        let mut add = |field| fields.push((at(edge), field, 1.0));
        for reason in flags::reasons(&flags) {
            if let Some(field) = field_of_reason(&reason) {
                add(field);
            }
            add(Field::Reason(reason));
        }
        if flags::is_proxy_made(&flags) && (code.is_error() || code == Code::NoAnswer) {
            add(Field::ProxyFault);
        }
        self.istio_tls().into_iter().for_each(add);
        Bound::Fields(fields)
    }

    /// The source's proxy never knows; the destination's does.
    fn istio_tls(&self) -> SmallVec<[Field; 2]> {
        match self.label("connection_security_policy").as_deref() {
            Some("mutual_tls") => smallvec![Field::TlsKnown, Field::TlsMutual],
            Some("none") => smallvec![Field::TlsKnown],
            _ => SmallVec::new(),
        }
    }

    /// Connections stand in for calls where there is nothing else to count (rule M14).
    fn istio_connections(&self, edge: &EdgeShape) -> Bound {
        let mut fields: Fields = vec![(at(edge), Field::ConnectionsOpened, 1.0), (at(edge), Field::Completed, 1.0)];
        fields.extend(self.istio_tls().into_iter().map(|field| (at(edge), field, 1.0)));
        Bound::Fields(fields)
    }

    fn istio_failed_connections(&self, edge: &EdgeShape) -> Bound {
        let flags = self.label("response_flags").unwrap_or_default();
        let mut fields: Fields = vec![(at(edge), Field::ConnectionsFailed, 1.0)];
        let reasons = flags::reasons(&flags).into_iter().map(Field::Reason);
        fields.extend(reasons.map(|field| (at(edge), field, 1.0)));
        Bound::Fields(fields)
    }

    // --- Envoy ---

    fn envoy_cluster(&self) -> Bound {
        let Some(label) = self.label("cluster_name").or_else(|| self.label("envoy_cluster_name")) else {
            return Bound::Nothing;
        };
        let name = envoy::reattach(&label, self.shape.infix);
        let options = self.context.options;
        let Some(cluster) = parse_cluster_with(&name, &options.overrides.hosts) else { return Bound::Nothing };
        if envoy::is_internal_cluster(name.trim_end_matches(';'), &cluster, &options.internal_clusters) {
            return Bound::Internal;
        }
        // The leg to the proxy's own application is not an edge.
        if cluster.is_own_app() {
            return Bound::Nothing;
        }
        let destination = match self.consul_destination() {
            Some(named) => named,
            None if cluster.form == ClusterForm::C9 => self.plain_destination(&name),
            None => PeerNode {
                service: Text::from(cluster.service.or(cluster.host).unwrap_or(&name)),
                namespace: cluster.namespace.map(Text::from),
                version: cluster.subset.map(Text::from),
                cluster: cluster.datacenter.map(Text::from),
                external: cluster.external,
                ..PeerNode::default()
            },
        };
        let mut edge = self.outgoing(destination, Origin::EnvoyStats);
        if let (Peer::Node(own), Some(service)) = (&mut edge.source, self.consul_self()) {
            own.service = service;
        }
        self.cluster_fields(&edge)
    }

    fn cluster_fields(&self, edge: &EdgeShape) -> Bound {
        let name = self.shape.rule.name;
        let field = match self.canonical() {
            Canonical::RequestsUpstream if name.ends_with("_total") => Field::Attempts,
            Canonical::RequestsUpstream if name.ends_with("_completed") => Field::Completed,
            Canonical::RequestsUpstream | Canonical::RequestsUpstreamClass => match self.envoy_code() {
                Some(field) => field,
                None => return Bound::Nothing,
            },
            Canonical::DurationUpstream => return self.duration_of(edge),
            Canonical::Timeouts => Field::Timeouts,
            Canonical::Retries => Field::Retries,
            Canonical::RetriesSucceeded => Field::RetriesSucceeded,
            Canonical::RetriesExhausted => Field::RetriesExhausted,
            Canonical::CircuitRejected => return self.refused(edge, Some(Field::CircuitRejected)),
            Canonical::NoHealthyUpstream => return self.refused(edge, Some(Field::NoHealthyUpstream)),
            // Several requests may wait for one connection that fails: these are the requests.
            Canonical::PendingFailures => return self.refused(edge, Some(Field::ConnectFailures)),
            Canonical::MaintenanceRejected => return self.refused(edge, None),
            Canonical::ConnectFailures => Field::ConnectionsFailed,
            Canonical::ConnectionsOpened => Field::ConnectionsOpened,
            Canonical::TlsHandshakes => Field::TlsHandshakes,
            Canonical::UpstreamResets | Canonical::LocalResets => Field::Resets,
            // The family without `enforced` also counts ejections that were not carried out.
            Canonical::Ejections if name.contains("enforced") => Field::Ejections,
            Canonical::BytesSentUpstream => Field::BytesSent,
            Canonical::BytesReceivedUpstream => Field::BytesReceived,
            Canonical::RequestsInflight => Field::Inflight,
            _ => return Bound::Nothing,
        };
        self.one(edge, field)
    }

    /// Answered by the proxy without an attempt.
    fn refused(&self, edge: &EdgeShape, field: Option<Field>) -> Bound {
        let mut fields: Fields = vec![(at(edge), Field::NoStream, 1.0)];
        fields.extend(field.map(|field| (at(edge), field, 1.0)));
        Bound::Fields(fields)
    }

    /// With Istio's tags one family holds codes and classes.
    fn envoy_code(&self) -> Option<Field> {
        if let Some(code) = self.label("response_code").or_else(|| self.label("envoy_response_code")) {
            return Some(Field::Code(Code::of_label(&code)));
        }
        let class = self.label("response_code_class").or_else(|| self.label("envoy_response_code_class"))?;
        match Code::of_label(&class) {
            Code::Class(class) => Some(Field::Class(class)),
            _ => None,
        }
    }

    fn consul_destination(&self) -> Option<PeerNode> {
        let service = self.label("consul_destination_service")?;
        Some(PeerNode {
            service: Text::from(service.into_owned()),
            namespace: self.known(&["consul_destination_namespace"]),
            version: self.known(&["consul_destination_service_subset"]),
            cluster: self.known(&["consul_destination_datacenter"]),
            external: Some(false),
            ..PeerNode::default()
        })
    }

    fn consul_self(&self) -> Option<Text> {
        self.known(&["consul_source_service", "local_cluster"])
    }

    /// Contour's observability names read `NAMESPACE_NAME_PORT`, like many a plain name, so they
    /// are taken apart only where the target is known to be Contour's.
    fn plain_destination(&self, name: &str) -> PeerNode {
        let parts: Vec<&str> = name.splitn(4, '_').collect();
        let is_contour =
            self.context.proxy_kind == ProxyKind::Contour || self.context.identity.service.contains("contour");
        match parts[..] {
            [namespace, service, port] if is_contour && port.parse::<u16>().is_ok() => PeerNode {
                service: Text::from(service),
                namespace: Some(Text::from(namespace)),
                external: Some(false),
                ..PeerNode::default()
            },
            _ => PeerNode { service: Text::from(name), ..PeerNode::default() },
        }
    }

    fn envoy_entry(&self) -> Bound {
        let name = self.shape.rule.name;
        match self.canonical() {
            Canonical::SpansExported if name.ends_with("_sent") => return self.proxy(Field::SpansSent),
            Canonical::SpansExported => return self.proxy(Field::SpansDropped),
            Canonical::SpanReports | Canonical::TraceDecisions => return Bound::Nothing,
            _ => {}
        }
        let label = self.label("http_conn_manager_prefix").or_else(|| self.label("envoy_http_conn_manager_prefix"));
        let Some(label) = label else { return Bound::Nothing };
        let prefix = envoy::reattach(&label, self.shape.infix);
        if envoy::is_internal_listener(&prefix) {
            return Bound::Internal;
        }
        // A sidecar's outbound listener is entered by its own application: no edge.
        let is_gateway = matches!(
            self.context.identity.role,
            Some(NodeRole::Gateway | NodeRole::Egress | NodeRole::Eastwest | NodeRole::Waypoint)
        );
        if prefix.starts_with("outbound") && !is_gateway {
            return Bound::Nothing;
        }
        let edge = self.incoming(Origin::EnvoyStats);
        let field = match self.canonical() {
            Canonical::Requests => self.envoy_code(),
            Canonical::RequestsReceived => Some(Field::Received),
            Canonical::RequestsInflight => Some(Field::Inflight),
            Canonical::Duration => return self.duration_of(&edge),
            Canonical::Timeouts => Some(Field::Timeouts),
            Canonical::NoRoute | Canonical::NoCluster => return self.one(&edge, Field::Reason(Reason::NoRoute)),
            Canonical::ConnectionsOpened => Some(Field::ConnectionsOpened),
            Canonical::TlsHandshakes => Some(Field::TlsHandshakes),
            Canonical::BytesFromClient => Some(Field::BytesSent),
            Canonical::BytesToClient => Some(Field::BytesReceived),
            _ => None,
        };
        self.optional(&edge, field)
    }

    fn proxy(&self, field: Field) -> Bound {
        Bound::Fields(vec![(Place::Proxy, field, 1.0)])
    }

    // --- Linkerd ---

    fn linkerd(&self) -> Bound {
        if self.shape.rule.name.starts_with("outbound_http_route_") {
            return self.linkerd_route();
        }
        let is_outbound = match self.label("direction").as_deref() {
            Some("outbound") => true,
            Some("inbound") => false,
            // What policies allow and deny says it by its name.
            None if self.shape.rule.name.starts_with("inbound_") => false,
            _ => return Bound::Nothing,
        };
        // The proxy's own admin and tap ports.
        if matches!(self.label("target_port").as_deref(), Some("4190" | "4191")) {
            return Bound::Internal;
        }
        let is_tcp = self.shape.rule.name.starts_with("tcp_");
        let protocol = if is_tcp { Protocol::Tcp } else { Protocol::Http };
        // `peer="src"` is the connection from the own application, or from whoever called.
        let is_own_leg = is_tcp && self.label("peer").as_deref() == Some(if is_outbound { "src" } else { "dst" });
        if is_own_leg {
            return Bound::Nothing;
        }
        let edge = if is_outbound {
            let Some(destination) = self.linkerd_destination() else { return Bound::Nothing };
            self.edge(self.context.own(), Peer::Node(destination), Reporters::Client, protocol, Origin::Primary)
        } else {
            self.edge(self.linkerd_client(), self.context.own(), Reporters::Server, protocol, Origin::Primary)
        };
        // Read and written are meant from the proxy: from its peer, to its peer.
        let (towards, back) = if is_outbound {
            (Canonical::BytesWritten, Canonical::BytesRead)
        } else {
            (Canonical::BytesRead, Canonical::BytesWritten)
        };
        match self.canonical() {
            Canonical::Requests => self.linkerd_responses(&edge, "status_code"),
            Canonical::Duration => self.duration_of(&edge),
            Canonical::ConnectionsOpened => self.istio_connections(&edge),
            canonical if canonical == towards => self.one(&edge, Field::BytesSent),
            canonical if canonical == back => self.one(&edge, Field::BytesReceived),
            Canonical::Denied => self.one(&edge, Field::Denied),
            _ => Bound::Nothing,
        }
    }

    fn linkerd_responses(&self, edge: &EdgeShape, code_label: &str) -> Bound {
        let grpc = self.label("grpc_status").and_then(|status| grpc_code(&status)).filter(|status| *status != 0);
        let code = grpc.map_or_else(|| self.code(code_label), Code::Grpc);
        let error = self.label("error");
        let mut fields: Fields = vec![(at(edge), Field::Code(code), 1.0)];
        let mut add = |field| fields.push((at(edge), field, 1.0));
        if let Some(reason) = error.as_deref().and_then(linkerd_reason) {
            if let Some(field) = field_of_reason(&reason) {
                add(field);
            }
            add(Field::Reason(reason));
        }
        // A non-empty error says that the proxy wrote the failure (rule M7).
        if error.is_some() {
            add(Field::ProxyFault);
        }
        match self.label("tls").as_deref() {
            Some("true") => [Field::TlsKnown, Field::TlsMutual].into_iter().for_each(add),
            Some(_) => add(Field::TlsKnown),
            None => {}
        }
        Bound::Fields(fields)
    }

    fn linkerd_destination(&self) -> Option<PeerNode> {
        let service = self.known(&["dst_deployment", "dst_statefulset", "dst_daemonset", "dst_service"]);
        let Some(service) = service else {
            return self.label("authority").map(|authority| self.node_of_host(&authority));
        };
        Some(PeerNode {
            service,
            namespace: self.known(&["dst_namespace"]),
            workload: self.known(&["dst_deployment", "dst_statefulset", "dst_daemonset"]),
            external: Some(false),
            ..PeerNode::default()
        })
    }

    /// `ACCOUNT.NAMESPACE.serviceaccount.identity…`; the account `default` names nobody.
    fn linkerd_client(&self) -> Peer {
        let id = self.label("client_id").unwrap_or_default();
        let mut parts = id.split('.');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(account), Some(namespace), Some("serviceaccount")) if account != "default" => Peer::Node(PeerNode {
                service: Text::from(account),
                namespace: Some(Text::from(namespace)),
                external: Some(false),
                ..PeerNode::default()
            }),
            _ => Peer::Caller,
        }
    }

    fn linkerd_route(&self) -> Bound {
        let named = self.known(&["backend_name", "parent_name"]);
        let destination = match (named, self.label("hostname")) {
            (_, Some(host)) => self.node_of_host(&host),
            (Some(service), None) => PeerNode {
                service,
                namespace: self.known(&["backend_namespace", "parent_namespace"]),
                external: Some(self.label("parent_kind").as_deref() == Some("EgressNetwork")),
                ..PeerNode::default()
            },
            (None, None) => return Bound::Nothing,
        };
        let edge = self.outgoing(destination, Origin::LinkerdRoute);
        match self.shape.rule.name {
            "outbound_http_route_request_statuses" | "outbound_http_route_request_statuses_total" => {
                self.linkerd_responses(&edge, "http_status")
            }
            "outbound_http_route_request_duration_seconds" => self.duration_of(&edge),
            "outbound_http_route_backend_requests_total" => self.one(&edge, Field::Attempts),
            "outbound_http_route_retry_requests_total" => self.one(&edge, Field::Retries),
            "outbound_http_route_retry_limit_exceeded_total" => self.one(&edge, Field::RetriesExhausted),
            // The same requests once more, per backend.
            _ => Bound::Nothing,
        }
    }

    // --- gateways that name a service ---

    /// Requests seen at the entry of a gateway and, where they got past it, on their way to the
    /// service.
    fn gateway_requests(&self, destination: Option<PeerNode>, code: Code, is_proxy_made: bool) -> Bound {
        let Bound::Fields(mut fields) = self.requests(&self.incoming(Origin::Primary), code, is_proxy_made) else {
            return Bound::Nothing;
        };
        // What a gateway refuses by itself (a 401, a 429) never was a call to the service; what it
        // answers in the service's place (a 503, a 504) was.
        let is_call = !is_proxy_made || code.is_error();
        if let Some(destination) = destination.filter(|_| is_call) {
            let edge = self.outgoing(destination, Origin::Primary);
            if let Bound::Fields(outgoing) = self.requests(&edge, code, is_proxy_made) {
                fields.extend(outgoing);
            }
        }
        Bound::Fields(fields)
    }

    fn kong(&self) -> Bound {
        let destination = self.label("service").map(|service| self.node_of_host(&service));
        let latency = self.label("type");
        match (self.canonical(), latency.as_deref()) {
            (Canonical::Requests, _) => {
                let is_own = self.label("source").as_deref() == Some("kong");
                self.gateway_requests(destination, self.code("code"), is_own)
            }
            (Canonical::Duration, _) | (Canonical::DurationByType, Some("request")) => {
                self.duration_of(&self.incoming(Origin::Primary))
            }
            (Canonical::DurationUpstream, _) | (Canonical::DurationByType, Some("upstream")) => match destination {
                Some(destination) => self.duration_of(&self.outgoing(destination, Origin::Primary)),
                None => Bound::Nothing,
            },
            (Canonical::Bytes, kind) => self.gateway_bytes(kind),
            _ => Bound::Nothing,
        }
    }

    /// `ingress` comes from the client, `egress` goes to it; Kong 2 calls the label `type`.
    fn gateway_bytes(&self, kind: Option<&str>) -> Bound {
        let direction = self.label("direction");
        let field = match direction.as_deref().or(kind) {
            Some("ingress") => Field::BytesSent,
            Some("egress") => Field::BytesReceived,
            _ => return Bound::Nothing,
        };
        self.one(&self.incoming(Origin::Primary), field)
    }

    fn apisix(&self) -> Bound {
        let latency = self.label("type");
        match (self.canonical(), latency.as_deref()) {
            (Canonical::Requests, _) => {
                // Before 3.17 nobody says who answered.
                let is_own = self.label("response_source").is_some_and(|source| source != "upstream");
                self.gateway_requests(self.apisix_destination(), self.code("code"), is_own)
            }
            (Canonical::DurationByType, Some("request")) => self.duration_of(&self.incoming(Origin::Primary)),
            (Canonical::DurationByType, Some("upstream")) => match self.apisix_destination() {
                Some(destination) => self.duration_of(&self.outgoing(destination, Origin::Primary)),
                None => Bound::Nothing,
            },
            (Canonical::Bytes, kind) => self.gateway_bytes(kind),
            _ => Bound::Nothing,
        }
    }

    /// The service's name; of an egress gateway the outside host it stands for. An outside address
    /// makes the edge external.
    fn apisix_destination(&self) -> Option<PeerNode> {
        let node = self.label("node");
        let outside =
            node.as_deref().and_then(|node| node.parse().ok()).map(|ip| !crate::normalise::host::is_private_ip(ip));
        let name = self.label("service").or_else(|| self.label("matched_host")).or(node)?;
        let host = self.context.apisix_hosts.get(&*name).map(String::as_str);
        let named = self.node_of_host(host.unwrap_or(&name));
        let external = outside.or(named.external);
        Some(PeerNode { external, ..named })
    }

    fn traefik(&self) -> Bound {
        let is_entry = self.shape.rule.name.starts_with("traefik_entrypoint_");
        let edge = if is_entry {
            self.incoming(Origin::Primary)
        } else {
            match self.label("service") {
                Some(service) if self.shape.rule.name.starts_with("traefik_service_") => {
                    self.outgoing(traefik_service(&service), Origin::Primary)
                }
                // Routers tell the entry's requests once more.
                _ => return Bound::Nothing,
            }
        };
        match self.canonical() {
            Canonical::Requests | Canonical::RequestsUpstream => self.requests(&edge, self.code("code"), false),
            Canonical::Duration | Canonical::DurationUpstream => self.duration_of(&edge),
            Canonical::Retries => self.one(&edge, Field::Retries),
            Canonical::BytesFromClient | Canonical::BytesSentUpstream => self.one(&edge, Field::BytesSent),
            Canonical::BytesToClient | Canonical::BytesReceivedUpstream => self.one(&edge, Field::BytesReceived),
            _ => Bound::Nothing,
        }
    }

    fn ingress_nginx(&self) -> Bound {
        let destination = self.label("service").map(|service| PeerNode {
            service: Text::from(service.into_owned()),
            namespace: self.known(&["namespace"]),
            external: Some(false),
            ..PeerNode::default()
        });
        match self.canonical() {
            Canonical::Requests => self.gateway_requests(destination, self.code("status"), false),
            Canonical::Duration => self.duration_of(&self.incoming(Origin::Primary)),
            Canonical::DurationUpstream => match destination {
                Some(destination) => self.duration_of(&self.outgoing(destination, Origin::Primary)),
                None => Bound::Nothing,
            },
            Canonical::RequestSize if self.shape.part == Part::Sum => {
                self.one(&self.incoming(Origin::Primary), Field::BytesSent)
            }
            Canonical::ResponseBytes if self.shape.part == Part::Sum => {
                self.one(&self.incoming(Origin::Primary), Field::BytesReceived)
            }
            _ => Bound::Nothing,
        }
    }

    fn nginx(&self) -> Bound {
        let edge = self.incoming(Origin::Primary);
        match self.canonical() {
            Canonical::RequestsNginx => match self.label("status") {
                Some(status) => self.requests(&edge, Code::of_label(&status), false),
                None => self.one(&edge, Field::Completed),
            },
            // The handled ones are the same connections again.
            Canonical::ConnectionsOpened if self.shape.rule.name.ends_with("_accepted") => {
                self.one(&edge, Field::ConnectionsOpened)
            }
            Canonical::Duration => self.duration_of(&edge),
            _ => Bound::Nothing,
        }
    }

    fn haproxy(&self) -> Bound {
        let Some(proxy) = self.label("proxy") else { return Bound::Nothing };
        if matches!(proxy.as_ref(), "stats" | "prom" | "prometheus" | "admin") || proxy.starts_with("health") {
            return Bound::Internal;
        }
        let layer = self.shape.rule.layer;
        let edge = if layer == Layer::Plain {
            self.incoming(Origin::Primary)
        } else {
            let service = PeerNode { service: Text::from(proxy.into_owned()), ..PeerNode::default() };
            self.outgoing(service, Origin::Primary)
        };
        if layer == Layer::Server {
            // A failure the backend counts and no server does was made by HAProxy itself.
            let is_failure = self.canonical() == Canonical::Requests && self.code("code").is_error();
            return if is_failure { Bound::Fields(vec![(at(&edge), Field::ProxyFault, -1.0)]) } else { Bound::Nothing };
        }
        match self.canonical() {
            // Codes `other` are requests without a valid answer.
            Canonical::Requests => self.requests(&edge, self.code("code"), layer == Layer::Backend),
            Canonical::Retries => self.one(&edge, Field::Retries),
            Canonical::ConnectFailures => self.one(&edge, Field::ConnectFailures),
            Canonical::UpstreamResets => self.one(&edge, Field::Resets),
            Canonical::Denied => self.one(&edge, Field::Denied),
            Canonical::BytesFromClient => self.one(&edge, Field::BytesSent),
            Canonical::BytesToClient => self.one(&edge, Field::BytesReceived),
            _ => Bound::Nothing,
        }
    }

    fn caddy(&self) -> Bound {
        if self.label("handler").as_deref() != self.context.caddy_handler.as_deref() {
            return Bound::Nothing;
        }
        let edge = self.incoming(Origin::Primary);
        match (self.canonical(), self.shape.part) {
            // The count of durations is the count of requests, with their codes.
            (Canonical::Duration, Part::Count) => Bound::Fields(vec![
                (at(&edge), Field::Code(self.code("code")), 1.0),
                (at(&edge), Field::DurationCount, 1.0),
            ]),
            (Canonical::Duration, _) => self.duration_of(&edge),
            (Canonical::RequestSize, Part::Sum) => self.one(&edge, Field::BytesSent),
            (Canonical::ResponseSize, Part::Sum) => self.one(&edge, Field::BytesReceived),
            _ => Bound::Nothing,
        }
    }

    fn spring_cloud_gateway(&self) -> Bound {
        let (edge, code) = match self.shape.rule.name {
            "spring_cloud_gateway_requests_seconds" => {
                let Some(uri) = self.label("routeUri") else { return Bound::Nothing };
                (self.outgoing(self.node_of_host(&uri), Origin::Primary), self.code("httpStatusCode"))
            }
            "http_client_requests_seconds" => {
                let Some(client) = self.label("client_name").or_else(|| self.label("clientName")) else {
                    return Bound::Nothing;
                };
                (self.outgoing(self.node_of_host(&client), Origin::HttpClient), self.code("status"))
            }
            _ => (self.incoming(Origin::Primary), self.code("status")),
        };
        if self.shape.part != Part::Count {
            return self.duration_of(&edge);
        }
        Bound::Fields(vec![(at(&edge), Field::Code(code), 1.0), (at(&edge), Field::DurationCount, 1.0)])
    }

    fn agentgateway(&self) -> Bound {
        let destination = self.label("backend").map(|backend| self.node_of_host(&backend));
        match self.canonical() {
            Canonical::Requests => {
                let is_own = self.label("reason").is_some_and(|reason| reason != "Upstream");
                self.gateway_requests(destination, self.code("status"), is_own)
            }
            Canonical::Duration => self.duration_of(&self.incoming(Origin::Primary)),
            _ => Bound::Nothing,
        }
    }
}

/// The counted field a reason has beside its entry among the reasons.
fn field_of_reason(reason: &Reason) -> Option<Field> {
    match reason {
        Reason::Timeout => Some(Field::Timeouts),
        Reason::CircuitOpen => Some(Field::CircuitRejected),
        Reason::RetryLimit => Some(Field::RetriesExhausted),
        Reason::ConnFail | Reason::ConnTimeout => Some(Field::ConnectFailures),
        Reason::UpstreamReset => Some(Field::Resets),
        Reason::NoHealthyUpstream => Some(Field::NoHealthyUpstream),
        Reason::Denied => Some(Field::Denied),
        _ => None,
    }
}

fn linkerd_reason(error: &str) -> Option<Reason> {
    Some(match error {
        "FAIL_FAST" => Reason::CircuitOpen,
        "LOAD_SHED" | "ENHANCE_YOUR_CALM" => Reason::Overload,
        "REFUSED" => Reason::ConnFail,
        "CANCEL" => Reason::Cancelled,
        "RESET" | "GO_AWAY" | "IO" => Reason::UpstreamReset,
        timeout if timeout.ends_with("_TIMEOUT") => Reason::Timeout,
        _ => return None,
    })
}

/// gRPC status as a number or, in Linkerd, as a word.
fn grpc_code(status: &str) -> Option<u8> {
    const WORDS: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    status.parse().ok().or_else(|| WORDS.iter().position(|word| *word == status).and_then(|at| u8::try_from(at).ok()))
}

/// `NAMESPACE-NAME-PORT@kubernetes`, `NAME@docker`. The namespace cannot be told from the name, so
/// both stay together.
fn traefik_service(label: &str) -> PeerNode {
    let (name, provider) = label.split_once('@').unwrap_or((label, ""));
    let name = match name.rsplit_once('-') {
        Some((stem, port)) if provider.starts_with("kubernetes") && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            stem
        }
        _ => name,
    };
    PeerNode { service: Text::from(name), external: Some(false), ..PeerNode::default() }
}
