//! Istio and ztunnel: one set of series that names both ends.

use smallvec::{SmallVec, smallvec};
use windrose_proto::model::{Protocol, Reporters};

use super::reading::{Reading, field_of_reason};
use super::{Bound, Fields, at};
use crate::metrics_map::state::{EdgeShape, Origin};
use crate::metrics_map::sums::{Code, Field};
use crate::metrics_map::table::{Canonical, Part};
use crate::metrics_map::{Peer, PeerNode, flags};

impl Reading<'_> {
    pub(super) fn istio(&self) -> Bound {
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
    pub(super) fn istio_connections(&self, edge: &EdgeShape) -> Bound {
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
}
