//! From a sample to the edges and fields it counts for (rules M6–M9): one file per vendor.
//!
//! | file | what |
//! |---|---|
//! | `reading.rs` | a sample's labels, and what several vendors make of them |
//! | `page_kind.rs` | which proxy a page is of |
//! | `istio.rs`, `envoy.rs`, `linkerd.rs` | meshes; Envoy also for Consul, App Mesh, Contour and other gateways made of it |
//! | `kong.rs`, `apisix.rs`, `traefik.rs`, `ingress_nginx.rs`, `nginx.rs`, `haproxy.rs`, `caddy.rs`, `spring_cloud_gateway.rs`, `agentgateway.rs` | gateways |
//!
//! Which families there are, and under which name they mean what, is [`table`].

use std::collections::BTreeMap;

use windrose_proto::model::{NodeRole, ProxyKind};

use super::envoy_names::{self, Shape};
use super::state::EdgeShape;
use super::sums::Field;
use super::table::{self, Family, Part};
use super::{Options, Page, Peer, PeerNode, TargetIdentity};
use crate::exposition::Labels;

mod agentgateway;
mod apisix;
mod caddy;
mod envoy;
mod haproxy;
mod ingress_nginx;
mod istio;
mod kong;
mod linkerd;
mod nginx;
mod page_kind;
mod reading;
mod spring_cloud_gateway;
mod traefik;

use reading::Reading;

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
        None => envoy_names::dotted(name),
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
        let kind = identity.proxy_kind.unwrap_or_else(|| page_kind::proxy_kind_of(page.body));
        let apisix_hosts = match (kind, identity.role) {
            (ProxyKind::Apisix, Some(NodeRole::Egress)) => apisix::hosts(page, options),
            _ => BTreeMap::new(),
        };
        Self { identity, options, proxy_kind: kind, caddy_handler: caddy::handler(page), apisix_hosts }
    }

    fn own(&self) -> Peer {
        Peer::Node(PeerNode::of_target(self.identity))
    }
}
