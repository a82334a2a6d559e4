//! Linkerd: both directions of a proxy, and the routes of its policies.

use windrose_proto::Text;
use windrose_proto::model::{Protocol, Reason, Reporters};

use super::reading::{Reading, field_of_reason};
use super::{Bound, Fields, at};
use crate::metrics_map::state::{EdgeShape, Origin};
use crate::metrics_map::sums::{Code, Field};
use crate::metrics_map::table::Canonical;
use crate::metrics_map::{Peer, PeerNode};

impl Reading<'_> {
    pub(super) fn linkerd(&self) -> Bound {
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
