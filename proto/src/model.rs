//! The closed vocabularies of the normalised model. The wire words are public: they stand in
//! API answers, in table columns and in documentation, so they never change meaning.

use std::fmt;

use crate::Text;

macro_rules! wire_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident => $wire:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every value, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The wire word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $wire,)+ }
            }

            /// From the wire word.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($wire => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

wire_enum! {
    /// Which proxy wrote a span or a metric page; `None` is an application.
    ProxyKind {
        Istio => "istio", Envoy => "envoy", Consul => "consul", AppMesh => "appmesh",
        EnvoyGateway => "envoy_gateway",
        /// Also Gloo.
        Kgateway => "kgateway",
        Contour => "contour", Agentgateway => "agentgateway", Kong => "kong", Apisix => "apisix",
        Traefik => "traefik", Nginx => "nginx", Haproxy => "haproxy", Linkerd => "linkerd",
        Caddy => "caddy", SpringCloudGateway => "spring_cloud_gateway", Zuul => "zuul", None => "none",
    }
}

impl ProxyKind {
    /// Whether the data plane is Envoy, whatever the control plane is called.
    #[must_use]
    pub const fn is_envoy_family(self) -> bool {
        matches!(
            self,
            Self::Istio
                | Self::Envoy
                | Self::Consul
                | Self::AppMesh
                | Self::EnvoyGateway
                | Self::Kgateway
                | Self::Contour
        )
    }
}

wire_enum! {
    /// What a node is on the path of a request.
    NodeRole {
        Gateway => "gateway", Egress => "egress",
        /// A gateway between clusters of one mesh.
        Eastwest => "eastwest",
        Sidecar => "sidecar", Waypoint => "waypoint",
        /// ztunnel: one proxy for all workloads of a node.
        NodeProxy => "node_proxy",
        App => "app", External => "external", Unknown => "unknown",
    }
}

wire_enum! {
    /// Where a hop lies.
    Direction {
        /// Client to gateway, and gateway to the first service.
        NorthSouth => "north_south",
        EastWest => "east_west",
        /// To the egress gateway, and to anything outside.
        Egress => "egress",
        /// Between a proxy and its own application.
        Local => "local",
        Unknown => "unknown",
    }
}

wire_enum! {
    /// From where in the path a span was observed.
    Vantage {
        /// The entry of a process.
        Downstream => "downstream",
        /// One attempt towards an upstream.
        Upstream => "upstream",
        /// The client half that covers all attempts.
        UpstreamLogical => "upstream_logical",
        /// One span for entry and exit at once.
        Single => "single",
        /// Work inside the process.
        Phase => "phase",
    }
}

wire_enum! {
    /// Which sides reported a hop.
    Reporters { Client => "client", Server => "server", Both => "both", Waypoint => "waypoint", Inferred => "inferred", }
}

wire_enum! {
    /// Who wrote the failing answer.
    Fault { None => "none", Client => "client", Proxy => "proxy", Upstream => "upstream", Unknown => "unknown", }
}

wire_enum! {
    /// Which proxy of the hop wrote the failing answer.
    FaultAt { ClientProxy => "client_proxy", ServerProxy => "server_proxy", }
}

wire_enum! {
    /// Application protocol of a hop.
    Protocol {
        Http1 => "http1", Http2 => "http2", Http3 => "http3",
        /// HTTP of an unknown version.
        Http => "http",
        Grpc => "grpc", Tcp => "tcp", Messaging => "messaging", Unknown => "unknown",
    }
}

wire_enum! {
    /// Transport security of a hop.
    Tls { Mutual => "mutual_tls", Tls => "tls", Plaintext => "plaintext", Unknown => "unknown", }
}

wire_enum! {
    /// OTLP span kind.
    SpanKind {
        Unspecified => "unspecified", Internal => "internal", Server => "server",
        Client => "client", Producer => "producer", Consumer => "consumer",
    }
}

impl SpanKind {
    /// From the OTLP number; unknown numbers are unspecified.
    #[must_use]
    pub const fn from_otlp(number: i32) -> Self {
        match number {
            1 => Self::Internal,
            2 => Self::Server,
            3 => Self::Client,
            4 => Self::Producer,
            5 => Self::Consumer,
            _ => Self::Unspecified,
        }
    }

    /// The OTLP number.
    #[must_use]
    pub const fn to_otlp(self) -> i32 {
        match self {
            Self::Unspecified => 0,
            Self::Internal => 1,
            Self::Server => 2,
            Self::Client => 3,
            Self::Producer => 4,
            Self::Consumer => 5,
        }
    }
}

wire_enum! {
    /// How a span reached us. Numbers in the log are places in this list: append only.
    IngestProtocol {
        OtlpGrpc => "otlp_grpc", OtlpHttp => "otlp_http", Zipkin => "zipkin", Skywalking => "skywalking",
        /// Not as a span: an entry of a proxy's access log, sent as an OTLP log record.
        AccessLog => "access_log",
    }
}

/// Why a request did not go the plain way. Closed but for new Envoy flags, which must not be lost.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    NoRoute,
    NoHealthyUpstream,
    ConnFail,
    ConnTimeout,
    TlsFail,
    UpstreamReset,
    UpstreamProtocol,
    Timeout,
    CircuitOpen,
    Overload,
    RetryLimit,
    RateLimited,
    RateLimitError,
    Denied,
    FaultInjected,
    DelayInjected,
    ClientAbort,
    ClientProtocol,
    Cache,
    DnsFail,
    LocalReset,
    HedgeLost,
    Cancelled,
    /// A response flag we do not know, as written by the proxy.
    OtherFlag(Text),
}

impl Reason {
    const NAMED: &'static [(Self, &'static str)] = &[
        (Self::NoRoute, "no_route"),
        (Self::NoHealthyUpstream, "no_healthy_upstream"),
        (Self::ConnFail, "conn_fail"),
        (Self::ConnTimeout, "conn_timeout"),
        (Self::TlsFail, "tls_fail"),
        (Self::UpstreamReset, "upstream_reset"),
        (Self::UpstreamProtocol, "upstream_protocol"),
        (Self::Timeout, "timeout"),
        (Self::CircuitOpen, "circuit_open"),
        (Self::Overload, "overload"),
        (Self::RetryLimit, "retry_limit"),
        (Self::RateLimited, "rate_limited"),
        (Self::RateLimitError, "rate_limit_error"),
        (Self::Denied, "denied"),
        (Self::FaultInjected, "fault_injected"),
        (Self::DelayInjected, "delay_injected"),
        (Self::ClientAbort, "client_abort"),
        (Self::ClientProtocol, "client_protocol"),
        (Self::Cache, "cache"),
        (Self::DnsFail, "dns_fail"),
        (Self::LocalReset, "local_reset"),
        (Self::HedgeLost, "hedge_lost"),
        (Self::Cancelled, "cancelled"),
    ];

    /// The wire word; unknown flags are `other:FLAG`.
    #[must_use]
    pub fn word(&self) -> std::borrow::Cow<'static, str> {
        match self {
            Self::OtherFlag(flag) => std::borrow::Cow::Owned(format!("other:{flag}")),
            named => {
                let found = Self::NAMED.iter().find(|(reason, _)| reason == named);
                std::borrow::Cow::Borrowed(found.map_or("unknown", |(_, word)| word))
            }
        }
    }

    /// From the wire word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        if let Some(flag) = word.strip_prefix("other:") {
            return Some(Self::OtherFlag(Text::from(flag)));
        }
        Self::NAMED.iter().find(|(_, name)| *name == word).map(|(reason, _)| reason.clone())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.word())
    }
}

impl serde::Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The id of the rule that decided a value, for example `P1a`. Stored so that every derived value
/// can be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Rule(pub &'static str);

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Direction, NodeRole, ProxyKind, Reason, SpanKind};

    #[test]
    fn every_word_reads_back() {
        for kind in ProxyKind::ALL {
            assert_eq!(ProxyKind::parse(kind.as_str()), Some(*kind));
        }
        for role in NodeRole::ALL {
            assert_eq!(NodeRole::parse(role.as_str()), Some(*role));
        }
        for direction in Direction::ALL {
            assert_eq!(Direction::parse(direction.as_str()), Some(*direction));
        }
        for (reason, word) in Reason::NAMED {
            assert_eq!(Reason::parse(word).as_ref(), Some(reason));
        }
        assert_eq!(Reason::parse("other:XYZ"), Some(Reason::OtherFlag("XYZ".into())));
    }

    #[test]
    fn span_kind_numbers_are_those_of_otlp() {
        for number in 0..=5 {
            assert_eq!(SpanKind::from_otlp(number).to_otlp(), number);
        }
        assert_eq!(SpanKind::from_otlp(99), SpanKind::Unspecified);
    }
}
