//! One received span to one normalised span.
//!
//! Budget: 1 µs per span. One pass over the attributes, hand matchers instead of regular
//! expressions, shared parts looked up by slices; `benches/normalise.rs` holds it.

use std::sync::Arc;

use windrose_proto::Text;
use windrose_proto::attributes::Value;
use windrose_proto::model::{IngestProtocol, Protocol, ProxyKind};
use windrose_proto::normal::{Connections, Destination, Hints, Identity, Leg, NormalSpan};
use windrose_proto::span::{Span, StatusCode};

use super::attrs::{Key, View};
use super::cluster::ClusterSide;
use super::destination::destination;
use super::fact;
use super::host::host_of;
use super::identity::identity;
use super::intern::{Interner, KnownIdentity};
use super::outcome::{local_reply, outcome};
use super::overrides::Overrides;
use super::protocol::{protocol, tls};
use super::proxy_kind::proxy_kind;
use super::reading::Reading;
use super::resource::Resources;
use super::role::role;
use super::route::path_of;
use super::source::{peer, source};
use super::vantage::vantage;

/// Applies the span-level rules. Keeps shared copies of what recurs, bounded; the result for a
/// span does not depend on the spans before it.
#[derive(Debug, Default)]
pub struct Normaliser {
    overrides: Arc<Overrides>,
    resources: Resources,
    interner: Interner,
}

// === impl Normaliser ===

impl Normaliser {
    /// With what the operator says.
    #[must_use]
    pub fn new(overrides: impl Into<Arc<Overrides>>) -> Self {
        Self { overrides: overrides.into(), ..Self::default() }
    }

    /// What the operator says at present.
    #[must_use]
    pub fn overrides(&self) -> &Arc<Overrides> {
        &self.overrides
    }

    /// The normalised span. Total: every span gives one, if only with unknowns.
    #[must_use]
    pub fn normalise(&mut self, span: &Span) -> NormalSpan {
        let Self { overrides, resources, interner } = self;
        let facts = resources.facts(&span.resource);
        let reading = Reading::new(span, &facts, &overrides.hosts);
        let view = &reading.view;

        let (proxy_kind, proxy_rule) = proxy_kind(&reading);
        let (vantage, vantage_rule) = vantage(&reading, proxy_kind);
        let (parts, identity_rule) = identity(&reading, proxy_kind);
        let known = interner.identity(parts, |raw| {
            let role = overrides.role_of(&raw.service);
            let identity = Arc::new(overrides.rename(raw));
            let role = overrides.role_of(&identity.service).or(role);
            KnownIdentity { identity, role }
        });
        let identity = Arc::clone(&known.identity);
        let (role, role_rule) = role(&reading, proxy_kind, &identity.service, identity.ip, known.role);
        let destination = destination(&reading, proxy_kind, vantage)
            .map(|parts| interner.destination(parts, |raw| renamed(raw, overrides)));
        let protocol = protocol(view);
        let (peer_ip, peer_port) = peer(&reading, vantage);
        let host = host(view);
        let mirror = proxy_kind.is_envoy_family()
            && (&*span.name == MIRROR_SPAN
                || host.as_ref().is_some_and(|host| {
                    let is_called_so = [Some(&identity.service), destination.as_ref().map(|to| &to.service)];
                    host.ends_with(SHADOW) && !is_called_so.into_iter().flatten().any(|name| name.ends_with(SHADOW))
                }));

        NormalSpan {
            trace_id: span.trace_id,
            span_id: span.span_id,
            parent_span_id: span.parent_span_id,
            start: span.start,
            end: span.end,
            kind: span.kind,
            name: span.name.clone(),
            status_error: span.status == StatusCode::Error,
            shared: span.shared,
            parent_is_remote: span.parent_is_remote(),
            process: interner.process(facts.hash, view.text(Key::NodeId).map(|text| &**text)),
            identity,
            identity_rule,
            proxy_kind,
            proxy_rule,
            vantage,
            vantage_rule,
            role,
            role_rule,
            destination,
            source: source(&reading, proxy_kind, vantage),
            outcome: outcome(&reading, proxy_kind),
            protocol,
            tls: tls(view, vantage),
            method: view.first_text(&[Key::HttpRequestMethod, Key::HttpMethod]).cloned(),
            host,
            path: path(view, protocol),
            route: view.first_text(&[Key::HttpRoute, Key::KongRouteName]).cloned(),
            request_id: view.first_text(&[Key::RequestId, Key::KongRequestId]).cloned(),
            request_bytes: bytes(view, &[Key::RequestSize, Key::RequestBodySize, Key::RequestContentLength]),
            response_bytes: bytes(view, &[Key::ResponseSize, Key::ResponseBodySize, Key::ResponseContentLength]),
            upstream_cluster: reading.cluster_text.cloned(),
            upstream_is_own_app: reading.cluster.is_some_and(|cluster| cluster.side == ClusterSide::Inbound),
            peer_ip,
            peer_port,
            leg: leg(view, proxy_kind),
            kong_next: view.text(Key::KongBalancerState).is_some_and(|state| &**state == "next"),
            hints: hints(view),
            local_reply: local_reply(view),
            logged: (span.ingest == IngestProtocol::AccessLog).then(|| Arc::new(connections(view))),
            mirror,
            fact: fact::read(span).map(Arc::new),
        }
    }
}

fn hints(view: &View<'_>) -> Option<Box<Hints>> {
    let hints = Hints {
        consumer: view.text(Key::KongConsumer).cloned(),
        inferred_service: view.text(Key::ApisixServiceName).cloned(),
        downstream_cluster: view.text(Key::DownstreamCluster).cloned(),
    };
    hints.boxed()
}

/// What Envoy calls the span of a request it mirrors.
const MIRROR_SPAN: &str = "mirror";
/// What Envoy appends to the host of a mirrored request. A service may also be called like that.
const SHADOW: &str = "-shadow";

/// Aliases also apply to how callers name a node, or an aliased node would be two.
fn renamed(raw: &Destination, overrides: &Overrides) -> Option<Destination> {
    let named = Identity { service: raw.service.clone(), namespace: raw.namespace.clone(), ..Identity::default() };
    let renamed = overrides.rename(named);
    let is_same = renamed.service == raw.service && renamed.namespace == raw.namespace;
    (!is_same).then(|| Destination { service: renamed.service, namespace: renamed.namespace, ..raw.clone() })
}

/// The host the client asked for, without port.
fn host(view: &View<'_>) -> Option<Text> {
    let named = view.first_text(&[Key::ServerAddress, Key::NetHostName, Key::HttpHost, Key::HttpServerName]);
    let text = named.or_else(|| view.first_text(&[Key::HttpUrl, Key::UrlFull]))?;
    host_of(text).map(|host| text.slice_ref(host))
}

/// The path without query: query strings carry secrets.
fn path(view: &View<'_>, protocol: Protocol) -> Option<Text> {
    if protocol == Protocol::Grpc
        && let Some(path) = view.text(Key::GrpcPath)
    {
        return path_of(path).map(|found| slice(path, found));
    }
    let keys = [Key::UrlPath, Key::HttpPath, Key::HttpTarget, Key::HttpUrl, Key::UrlFull, Key::HttpUri];
    let from_url = keys.iter().find_map(|key| {
        let text = view.text(*key)?;
        path_of(text).map(|path| slice(text, path))
    });
    from_url.or_else(|| rpc_path(view))
}

/// `path_of` may answer with a constant, which is no slice of `text`.
fn slice(text: &Text, part: &str) -> Text {
    if part == "/" { Text::from_static("/") } else { text.slice_ref(part) }
}

fn rpc_path(view: &View<'_>) -> Option<Text> {
    let (service, method) = (view.text(Key::RpcService)?, view.text(Key::RpcMethod)?);
    Some(Text::from(format!("/{}/{}", &**service, &**method)))
}

fn bytes(view: &View<'_>, keys: &[Key]) -> Option<u64> {
    view.number(keys).and_then(|bytes| u64::try_from(bytes).ok())
}

fn connections(view: &View<'_>) -> Connections {
    let address = |key| view.text(key).and_then(|text| text.parse().ok());
    Connections {
        caller: address(Key::DownstreamRemoteAddress),
        outgoing: address(Key::UpstreamLocalAddress),
        endpoint: address(Key::UpstreamHost),
    }
}

fn leg(view: &View<'_>, kind: ProxyKind) -> Option<Leg> {
    if kind != ProxyKind::Linkerd {
        return None;
    }
    match view.get(Key::LinkerdDirection).and_then(Value::as_str) {
        Some("inbound") => Some(Leg::Inbound),
        Some("outbound") => Some(Leg::Outbound),
        _ => None,
    }
}
