//! Envoy and every mesh and gateway made of it: statistics of clusters and of listeners.

use windrose_proto::Text;
use windrose_proto::model::{NodeRole, ProxyKind, Reason};

use super::reading::Reading;
use super::{Bound, Fields, Place, at};
use crate::metrics_map::state::{EdgeShape, Origin};
use crate::metrics_map::sums::{Code, Field};
use crate::metrics_map::table::Canonical;
use crate::metrics_map::{Peer, PeerNode, envoy_names};
use crate::normalise::cluster::{ClusterForm, parse_cluster_with};

impl Reading<'_> {
    pub(super) fn envoy_cluster(&self) -> Bound {
        let Some(label) = self.label("cluster_name").or_else(|| self.label("envoy_cluster_name")) else {
            return Bound::Nothing;
        };
        let name = envoy_names::reattach(&label, self.shape.infix);
        let options = self.context.options;
        let Some(cluster) = parse_cluster_with(&name, &options.overrides.hosts) else { return Bound::Nothing };
        if envoy_names::is_internal_cluster(name.trim_end_matches(';'), &cluster, &options.internal_clusters) {
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

    pub(super) fn envoy_entry(&self) -> Bound {
        let name = self.shape.rule.name;
        match self.canonical() {
            Canonical::SpansExported if name.ends_with("_sent") => return self.proxy(Field::SpansSent),
            Canonical::SpansExported => return self.proxy(Field::SpansDropped),
            Canonical::SpanReports | Canonical::TraceDecisions => return Bound::Nothing,
            _ => {}
        }
        let label = self.label("http_conn_manager_prefix").or_else(|| self.label("envoy_http_conn_manager_prefix"));
        let Some(label) = label else { return Bound::Nothing };
        let prefix = envoy_names::reattach(&label, self.shape.infix);
        if envoy_names::is_internal_listener(&prefix) {
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
}
