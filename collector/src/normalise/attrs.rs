//! The attributes the rules read, found in one pass over a span's attributes.
//!
//! A span carries about 17 attributes and the rules ask for about a hundred keys; asking the list
//! for each key costs microseconds. [`View::read`] hashes every key once into a table made at
//! compile time, and every later question is an array access.

use windrose_proto::Text;
use windrose_proto::attributes::{Attributes, Value};

macro_rules! keys {
    ($($name:ident = $key:literal,)+) => {
        /// An attribute key the rules know.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Key { $($name,)+ }

        const NAMES: &[&str] = &[$($key,)+];
    };
}

keys! {
    Component = "component",
    NodeId = "node_id",
    ResponseFlags = "response_flags",
    ResponseCodeDetails = "response_code_details",
    UpstreamCluster = "upstream_cluster",
    UpstreamClusterName = "upstream_cluster.name",
    UpstreamAddress = "upstream_address",
    DownstreamCluster = "downstream_cluster",
    DownstreamRemoteAddress = "downstream_remote_address",
    UpstreamLocalAddress = "upstream_local_address",
    UpstreamHost = "upstream_host",
    PeerAddress = "peer.address",
    SourcePrincipal = "source.principal",
    DestinationPrincipal = "destination.principal",

    HttpMethod = "http.method",
    HttpRequestMethod = "http.request.method",
    HttpUrl = "http.url",
    UrlFull = "url.full",
    HttpUri = "http.uri",
    HttpTarget = "http.target",
    UrlPath = "url.path",
    HttpPath = "http.path",
    UrlScheme = "url.scheme",
    HttpScheme = "http.scheme",
    HttpHost = "http.host",
    NetHostName = "net.host.name",
    HttpServerName = "http.server_name",
    ServerAddress = "server.address",
    HttpRoute = "http.route",
    HttpProtocol = "http.protocol",
    NetworkProtocolVersion = "network.protocol.version",
    HttpFlavor = "http.flavor",
    HttpStatusCode = "http.status_code",
    HttpResponseStatusCode = "http.response.status_code",
    HttpStatus = "http.status",
    Status = "status",
    RequestContentType = "http.request.header.content-type",

    RpcGrpcStatus = "rpc.grpc.status_code",
    GrpcStatusCode = "grpc.status_code",
    GrpcStatus = "grpc.status",
    GrpcPath = "grpc.path",
    GrpcContentType = "grpc.content_type",
    RpcSystem = "rpc.system",
    RpcService = "rpc.service",
    RpcMethod = "rpc.method",
    MessagingSystem = "messaging.system",

    Error = "error",
    ErrorReason = "error.reason",
    Canceled = "canceled",
    ResendCount = "http.request.resend_count",
    OldResendCount = "http.resend_count",
    RetryCount = "retry.count",
    RetryAttempt = "retry.attempt",
    Reason = "reason",

    RequestSize = "request_size",
    ResponseSize = "response_size",
    RequestBodySize = "http.request.body.size",
    ResponseBodySize = "http.response.body.size",
    RequestContentLength = "http.request_content_length",
    ResponseContentLength = "http.response_content_length",

    NetPeerName = "net.peer.name",
    PeerHostname = "peer.hostname",
    NetPeerIp = "net.peer.ip",
    NetPeerPort = "net.peer.port",
    NetworkPeerAddress = "network.peer.address",
    NetworkPeerPort = "network.peer.port",
    NetSockPeerAddr = "net.sock.peer.addr",
    NetSockPeerPort = "net.sock.peer.port",
    ClientAddress = "client.address",
    HttpClientIp = "http.client_ip",
    ZipkinRemoteName = "zipkin.remote.name",
    ZipkinRemoteIp = "zipkin.remote.ip",
    ZipkinRemotePort = "zipkin.remote.port",

    RequestId = "guid:x-request-id",
    KongRequestId = "kong.request.id",
    KongConsumer = "kong.consumer",
    KongRouteName = "kong.route_name",
    KongServiceName = "kong.service_name",
    KongBalancerTry = "kong.balancer.try",
    KongBalancerState = "kong.balancer.state",
    TryCount = "try_count",
    Lc = "lc",

    ApisixResponseSource = "apisix.response_source",
    ApisixServiceName = "apisix.service_name",
    AgentgatewayOutboundKind = "agentgateway.outbound.kind",
    Endpoint = "endpoint",
    LinkerdDirection = "direction",
    GatewayRouteUri = "spring.cloud.gateway.route.uri",

    IstioService = "istio.canonical_service",
    IstioRevision = "istio.canonical_revision",
    IstioNamespace = "istio.namespace",
    IstioClusterId = "istio.cluster_id",
    IstioSourceWorkload = "istio.source_workload",
    IstioSourceService = "istio.source_canonical_service",
    IstioSourceNamespace = "istio.source_namespace",
    IstioDestinationWorkload = "istio.destination_workload",
    IstioDestinationService = "istio.destination_canonical_service",
    IstioDestinationNamespace = "istio.destination_namespace",
    IstioDestinationRevision = "istio.destination_canonical_revision",
}

/// What the rules know of one span's attributes.
#[derive(Debug)]
pub(super) struct View<'a> {
    slots: [Option<&'a Value>; NAMES.len()],
    pub(super) has_istio: bool,
    pub(super) has_kong: bool,
    pub(super) has_apisix: bool,
    pub(super) has_spring_gateway: bool,
    all: &'a Attributes,
}

// === impl View ===

impl<'a> View<'a> {
    /// One pass; the first value wins when a sender repeats a key.
    pub(super) fn read(all: &'a Attributes) -> Self {
        let mut view = View {
            slots: [None; NAMES.len()],
            has_istio: false,
            has_kong: false,
            has_apisix: false,
            has_spring_gateway: false,
            all,
        };
        for attribute in all {
            let key: &str = &attribute.key;
            match key.as_bytes().first() {
                Some(b'i') => view.has_istio |= key.starts_with("istio."),
                Some(b'k') => view.has_kong |= key.starts_with("kong."),
                Some(b'a') => view.has_apisix |= key.starts_with("apisix."),
                Some(b's') => view.has_spring_gateway |= key.starts_with("spring.cloud.gateway."),
                _ => {}
            }
            if let Some(slot) = find(key) {
                view.slots[slot].get_or_insert(&attribute.value);
            }
        }
        view
    }

    /// The value as received, whatever it is.
    pub(super) fn get(&self, key: Key) -> Option<&'a Value> {
        self.slots[key as usize]
    }

    /// Whether the key is there at all.
    pub(super) fn has(&self, key: Key) -> bool {
        self.get(key).is_some()
    }

    /// The first of `keys` with a value that says something: proxies write `-` and `UNKNOWN` for
    /// what they do not know.
    pub(super) fn first(&self, keys: &[Key]) -> Option<&'a Value> {
        keys.iter().find_map(|key| self.get(*key).filter(|value| says_something(value)))
    }

    /// [`Self::first`] among texts.
    pub(super) fn first_text(&self, keys: &[Key]) -> Option<&'a Text> {
        keys.iter().find_map(|key| self.get(*key).filter(|value| says_something(value))?.as_text())
    }

    /// The text of `key`, when it says something.
    pub(super) fn text(&self, key: Key) -> Option<&'a Text> {
        self.first_text(&[key])
    }

    /// [`Self::first`] as a whole number.
    pub(super) fn number(&self, keys: &[Key]) -> Option<i64> {
        self.first(keys)?.as_i64()
    }

    /// Whether `key` is true, as a boolean, a number or a word.
    pub(super) fn is_true(&self, key: Key) -> bool {
        match self.get(key) {
            Some(Value::Bool(flag)) => *flag,
            Some(Value::Int(number)) => *number == 1,
            Some(Value::Str(text)) => text.eq_ignore_ascii_case("true") || &**text == "1",
            _ => false,
        }
    }

    /// Whether any key contains `word`; slow, for rules that few spans reach.
    pub(super) fn any_key_contains(&self, word: &str) -> bool {
        self.all.iter().any(|attribute| attribute.key.contains(word))
    }
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::Str(text) => !matches!(&**text, "" | "-" | "UNKNOWN"),
        Value::Empty => false,
        Value::Bool(_) | Value::Int(_) | Value::Double(_) | Value::Bytes(_) | Value::Array(_) | Value::Map(_) => true,
    }
}

// === the table ===

/// Slots of the table: four times the keys keeps the probe sequences short.
const TABLE_LEN: usize = 512;
const EMPTY: u8 = u8::MAX;
const _: () = assert!(NAMES.len() < EMPTY as usize && NAMES.len() * 4 <= TABLE_LEN, "the table must stay sparse");

static TABLE: [u8; TABLE_LEN] = table();

const fn table() -> [u8; TABLE_LEN] {
    let mut table = [EMPTY; TABLE_LEN];
    let mut i = 0;
    while i < NAMES.len() {
        let mut place = hash(NAMES[i].as_bytes());
        while table[place] != EMPTY {
            place = (place + 1) % TABLE_LEN;
        }
        table[place] = i as u8;
        i += 1;
    }
    table
}

/// Length and four bytes tell the known keys apart well enough; the comparison decides.
const fn hash(key: &[u8]) -> usize {
    let n = key.len();
    if n == 0 {
        return 0;
    }
    let mixed = n * 131
        + key[0] as usize * 7
        + key[n - 1] as usize * 37
        + key[n / 2] as usize * 101
        + key[n * 3 / 4] as usize * 257;
    (mixed ^ (mixed >> 7)) % TABLE_LEN
}

fn find(key: &str) -> Option<usize> {
    let mut place = hash(key.as_bytes());
    while TABLE[place] != EMPTY {
        let slot = TABLE[place] as usize;
        if NAMES[slot] == key {
            return Some(slot);
        }
        place = (place + 1) % TABLE_LEN;
    }
    None
}

#[cfg(test)]
mod tests {
    use windrose_proto::attributes::{Attributes, Value};

    use super::{Key, NAMES, TABLE, View, find};

    #[test]
    fn every_known_key_is_found_and_others_are_not() {
        for (slot, name) in NAMES.iter().enumerate() {
            assert_eq!(find(name), Some(slot), "{name}");
            assert_eq!(find(&format!("{name}x")), None);
        }
        assert_eq!(find(""), None);
    }

    #[test]
    fn the_table_has_short_runs() {
        let longest = TABLE.split(|slot| *slot == u8::MAX).map(<[u8]>::len).max().unwrap();
        assert!(longest <= 8, "{longest} neighbours: change the hash");
    }

    #[test]
    fn placeholders_say_nothing_and_the_first_of_repeated_keys_wins() {
        let mut attributes = Attributes::default();
        attributes.push("http.method", Value::Str("-".into()));
        attributes.push("http.request.method", Value::Str("GET".into()));
        attributes.push("http.request.method", Value::Str("POST".into()));
        attributes.push("error", Value::Bool(true));
        let view = View::read(&attributes);
        assert!(view.has(Key::HttpMethod));
        let method = view.first_text(&[Key::HttpMethod, Key::HttpRequestMethod]);
        assert_eq!(method.map(|text| &**text), Some("GET"));
        assert!(view.is_true(Key::Error));
    }
}
