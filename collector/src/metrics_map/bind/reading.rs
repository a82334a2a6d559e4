//! A sample while it is interpreted: its labels, and the edges and fields that several vendors make.

use std::borrow::Cow;

use windrose_proto::Text;
use windrose_proto::model::{Protocol, Reason, Reporters};

use super::{Bound, Context, Fields, at};
use crate::exposition::Labels;
use crate::metrics_map::envoy_names::Shape;
use crate::metrics_map::state::{EdgeShape, Origin};
use crate::metrics_map::sums::{Code, Field};
use crate::metrics_map::table::{Canonical, Part};
use crate::metrics_map::{Peer, PeerNode};

/// A sample with everything needed to interpret it.
pub(super) struct Reading<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) shape: Shape<'a>,
    pub(super) labels: Labels<'a>,
}

impl<'a> Reading<'a> {
    // --- labels ---

    pub(super) fn label(&self, name: &str) -> Option<Cow<'a, str>> {
        self.labels.get(name).filter(|value| !value.is_empty())
    }

    /// Istio writes `unknown` where it does not know.
    pub(super) fn known(&self, names: &[&str]) -> Option<Text> {
        let mut values = names.iter().filter_map(|name| self.label(name));
        values.find(|value| value != "unknown").map(|value| Text::from(value.into_owned()))
    }

    pub(super) fn code(&self, name: &str) -> Code {
        self.label(name).map_or(Code::NoAnswer, |code| Code::of_label(&code))
    }

    pub(super) fn canonical(&self) -> Canonical {
        self.shape.rule.canonical
    }

    // --- ends and edges ---

    pub(super) fn node_of_host(&self, host: &str) -> PeerNode {
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

    pub(super) fn edge(
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
    pub(super) fn outgoing(&self, destination: PeerNode, origin: Origin) -> EdgeShape {
        self.edge(self.context.own(), Peer::Node(destination), Reporters::Client, Protocol::Http, origin)
    }

    /// From whoever calls to this target.
    pub(super) fn incoming(&self, origin: Origin) -> EdgeShape {
        self.edge(Peer::Caller, self.context.own(), Reporters::Server, Protocol::Http, origin)
    }

    // --- results ---

    pub(super) fn one(&self, edge: &EdgeShape, field: Field) -> Bound {
        Bound::Fields(vec![(at(edge), field, self.shape.rule.scale)])
    }

    pub(super) fn optional(&self, edge: &EdgeShape, field: Option<Field>) -> Bound {
        field.map_or(Bound::Nothing, |field| self.one(edge, field))
    }

    /// A duration's sum is scaled, its counts are not.
    pub(super) fn duration_of(&self, edge: &EdgeShape) -> Bound {
        let Some(field) = self.duration() else { return Bound::Nothing };
        let factor = if field == Field::DurationSum { self.shape.rule.scale } else { 1.0 };
        Bound::Fields(vec![(at(edge), field, factor)])
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

    /// Requests by code and what follows from the code.
    pub(super) fn requests(&self, edge: &EdgeShape, code: Code, is_proxy_made: bool) -> Bound {
        let mut fields: Fields = vec![(at(edge), Field::Code(code), 1.0)];
        if is_proxy_made && (code.is_error() || code == Code::NoAnswer) {
            fields.push((at(edge), Field::ProxyFault, 1.0));
        }
        Bound::Fields(fields)
    }

    // --- gateways that name a service ---

    /// Requests seen at the entry of a gateway and, where they got past it, on their way to the
    /// service.
    pub(super) fn gateway_requests(&self, destination: Option<PeerNode>, code: Code, is_proxy_made: bool) -> Bound {
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

    /// `ingress` comes from the client, `egress` goes to it; Kong 2 calls the label `type`.
    pub(super) fn gateway_bytes(&self, kind: Option<&str>) -> Bound {
        let direction = self.label("direction");
        let field = match direction.as_deref().or(kind) {
            Some("ingress") => Field::BytesSent,
            Some("egress") => Field::BytesReceived,
            _ => return Bound::Nothing,
        };
        self.one(&self.incoming(Origin::Primary), field)
    }
}

/// The counted field a reason has beside its entry among the reasons.
pub(super) fn field_of_reason(reason: &Reason) -> Option<Field> {
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
