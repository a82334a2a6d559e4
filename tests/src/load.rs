//! A mesh as large as one wants: spans of gateways and sidecars, the same for the same seed, none twice.
//!
//! A hundred services in twelve namespaces, ten pods each; a request enters at the gateway by one of its public
//! routes and passes two to six sidecars, each of which sends a client and a server span with the attributes of
//! Istio's Envoy. Ids, paths, request ids, sizes and durations are random, so that they compress as badly as real ones.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const SERVICES: usize = 100;
const PODS: usize = 10;
const NAMESPACES: usize = 12;
const NODES: usize = 40;
/// Callees of a service.
const FAN_OUT: usize = 4;
/// Services that the gateway has routes to.
const PUBLIC: usize = 20;
/// The gateway's place among the services.
const GATEWAY: usize = 0;
/// The host by which requests enter.
const PUBLIC_HOST: &str = "shop.example.com";
/// The signs of which Kubernetes makes the names of pods.
const NAME_SIGNS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const ROUTES: [&str; 6] = ["list", "get/{id}", "create", "update/{id}", "health", "search?q={id}"];
const KINDS: [&str; 10] = ["orders", "cart", "user", "payment", "catalog", "search", "ship", "mail", "ads", "auth"];
/// Share of requests whose last hop fails.
const FAILURES: f64 = 0.01;
/// Traces generated before their spans are sorted into the order in which they end.
const TRACES_AT_ONCE: usize = 512;

/// Makes requests of spans, one after the other.
#[derive(Debug)]
pub struct MeshLoad {
    rng: StdRng,
    services: Vec<Service>,
    next_start: u64,
    trace_every: u64,
    waiting: Vec<(usize, Span)>,
}

#[derive(Debug)]
struct Service {
    name: String,
    namespace: String,
    pods: Vec<Pod>,
    callees: Vec<usize>,
}

#[derive(Debug)]
struct Pod {
    name: String,
    address: String,
    node: String,
}

/// One side of a hop, before it becomes a span.
struct Side {
    service: usize,
    pod: usize,
    peer: Option<(usize, usize)>,
    /// The service that is called next.
    callee: usize,
    is_client: bool,
    route: usize,
    start: u64,
    duration: u64,
    failed: bool,
}

impl MeshLoad {
    /// A mesh whose first trace starts at `start` (nanoseconds since 1970), and each next one `trace_every` nanoseconds
    /// later.
    #[must_use]
    pub fn new(seed: u64, start: u64, trace_every: u64) -> Self {
        // The mesh is the same for every seed; only the traffic differs.
        let mut rng = StdRng::seed_from_u64(7);
        let services = (0..SERVICES).map(|index| Service::new(index, &mut rng)).collect();
        Self { rng: StdRng::seed_from_u64(seed), services, next_start: start, trace_every, waiting: Vec::new() }
    }

    /// The next request, of `size` spans in the order in which they ended, as a collector in between would send it.
    pub fn next_request(&mut self, size: usize) -> ExportTraceServiceRequest {
        while self.waiting.len() < size {
            for _ in 0..TRACES_AT_ONCE {
                self.trace();
            }
            self.waiting.sort_by_key(|(_, span)| std::cmp::Reverse(span.end_time_unix_nano));
        }
        let spans = self.waiting.split_off(self.waiting.len() - size);
        let mut by_pod: std::collections::BTreeMap<usize, Vec<Span>> = std::collections::BTreeMap::new();
        for (pod, span) in spans.into_iter().rev() {
            by_pod.entry(pod).or_default().push(span);
        }
        let resource_spans = by_pod.into_iter().map(|(pod, spans)| ResourceSpans {
            resource: Some(self.resource(pod)),
            scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        });
        ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
    }

    fn trace(&mut self) {
        let hops = match self.rng.random_range(0..100) {
            0..15 => 2,
            15..40 => 3,
            40..70 => 4,
            70..90 => 5,
            _ => 6,
        };
        let failed = self.rng.random_bool(FAILURES);
        let trace_id: [u8; 16] = self.rng.random();
        let request_id = request_id(self.rng.random());
        let agent = self.rng.random_range(90..125_u32);
        let mut durations: Vec<u64> = (0..=2 * hops).map(|_| log_normal(&mut self.rng, 15.5, 1.0)).collect();
        durations.sort_unstable_by(|left, right| right.cmp(left));
        let mut start = self.next_start;
        self.next_start += self.trace_every;
        let mut here = (GATEWAY, self.rng.random_range(0..PODS));
        let mut peer = None;
        let mut parent = Vec::new();
        for hop in 0..=hops {
            let route = self.rng.random_range(0..ROUTES.len());
            let is_last = hop == hops;
            let callees = &self.services[here.0].callees;
            let callee = callees[self.rng.random_range(0..callees.len())];
            let side = Side {
                service: here.0,
                pod: here.1,
                peer,
                callee,
                is_client: false,
                route,
                start,
                duration: durations[2 * hop],
                failed: failed && is_last,
            };
            parent = self.push(&trace_id, parent, &request_id, agent, &side);
            start += self.rng.random_range(50_000..600_000);
            if is_last {
                break;
            }
            let next = (callee, self.rng.random_range(0..PODS));
            let duration = durations[2 * hop + 1];
            let side = Side { peer: Some(next), is_client: true, start, duration, failed: false, ..side };
            parent = self.push(&trace_id, parent, &request_id, agent, &side);
            start += self.rng.random_range(50_000..600_000);
            (peer, here) = (Some(here), next);
        }
    }

    /// Adds a span and returns its id.
    fn push(&mut self, trace_id: &[u8], parent: Vec<u8>, request_id: &str, agent: u32, side: &Side) -> Vec<u8> {
        let span_id = self.rng.random::<[u8; 8]>().to_vec();
        let number: u32 = self.rng.random_range(10_000..99_999_999);
        let (request_size, response_size) = (self.rng.random_range(0..800), log_normal(&mut self.rng, 7.0, 1.2));
        let service = &self.services[side.service];
        let is_entry = side.service == GATEWAY && !side.is_client;
        let target = if side.is_client { &self.services[side.callee] } else { service };
        let host = format!("{}.{}.svc.cluster.local", target.name, target.namespace);
        let authority = if is_entry { PUBLIC_HOST.to_owned() } else { format!("{host}:8080") };
        let kind = if is_entry { self.services[side.callee].kind() } else { target.kind() };
        let path = ROUTES[side.route].replace("{id}", &number.to_string());
        let cluster = if side.is_client { format!("outbound|8080||{host}") } else { "inbound|8080||".to_owned() };
        let peer =
            side.peer.map_or_else(|| "203.0.113.7".to_owned(), |(at, pod)| self.services[at].pods[pod].address.clone());
        let method = if side.route % 3 == 2 { "POST" } else { "GET" };
        let pod = &service.pods[side.pod];
        let (node_type, ns) = (if side.service == GATEWAY { "router" } else { "sidecar" }, &service.namespace);
        let node_id = format!("{node_type}~{}~{}.{ns}~{ns}.svc.cluster.local", pod.address, pod.name);
        let attributes = [
            ("node_id", node_id),
            ("zone", "eu-central-1a".to_owned()),
            ("guid:x-request-id", request_id.to_owned()),
            ("http.url", format!("http://{authority}/api/v1/{kind}/{path}")),
            ("http.method", method.to_owned()),
            ("downstream_cluster", "-".to_owned()),
            (
                "user_agent",
                format!("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/{agent}.0.0.0 Safari/537.36"),
            ),
            ("http.protocol", "HTTP/1.1".to_owned()),
            ("peer.address", peer),
            ("request_size", request_size.to_string()),
            ("response_size", response_size.to_string()),
            ("component", "proxy".to_owned()),
            ("upstream_cluster", cluster.clone()),
            ("upstream_cluster.name", cluster),
            ("http.status_code", if side.failed { "503" } else { "200" }.to_owned()),
            ("response_flags", if side.failed { "UH" } else { "-" }.to_owned()),
            ("istio.mesh_id", "cluster.local".to_owned()),
            ("istio.canonical_service", service.name.clone()),
            ("istio.canonical_revision", "v1".to_owned()),
            ("istio.cluster_id", "Kubernetes".to_owned()),
            ("istio.namespace", service.namespace.clone()),
        ];
        let span = Span {
            trace_id: trace_id.to_vec(),
            span_id: span_id.clone(),
            parent_span_id: parent,
            name: format!("{authority}/*"),
            kind: if side.is_client { 3 } else { 2 },
            start_time_unix_nano: side.start,
            end_time_unix_nano: side.start + side.duration,
            attributes: attributes.into_iter().map(|(key, value)| text(key, value)).collect(),
            status: side.failed.then(|| Status { code: 2, ..Status::default() }),
            flags: 257,
            ..Span::default()
        };
        self.waiting.push((side.service * PODS + side.pod, span));
        span_id
    }

    fn resource(&self, pod: usize) -> Resource {
        let service = &self.services[pod / PODS];
        let pod = &service.pods[pod % PODS];
        let attributes = [
            ("service.name", format!("{}.{}", service.name, service.namespace)),
            ("k8s.namespace.name", service.namespace.clone()),
            ("k8s.pod.name", pod.name.clone()),
            ("k8s.node.name", pod.node.clone()),
            ("k8s.cluster.name", "prod-eu-1".to_owned()),
            ("telemetry.sdk.language", "cpp".to_owned()),
            ("telemetry.sdk.name", "envoy".to_owned()),
            ("telemetry.sdk.version", "e1e6d5aeb3a5/1.32.1/Clean/RELEASE/BoringSSL".to_owned()),
            ("host.name", pod.name.clone()),
            ("service.instance.id", pod.name.clone()),
        ];
        Resource {
            attributes: attributes.into_iter().map(|(key, value)| text(key, value)).collect(),
            ..Resource::default()
        }
    }
}

impl Service {
    fn new(index: usize, rng: &mut StdRng) -> Self {
        let name = match index {
            GATEWAY => "ingressgateway".to_owned(),
            1 => "egressgateway".to_owned(),
            _ => format!("svc-{}-{}", KINDS[index % KINDS.len()], index / KINDS.len()),
        };
        let replica_set = name_part(rng, 9);
        let pods = (0..PODS).map(|_| Pod {
            name: format!("{name}-{replica_set}-{}", name_part(rng, 5)),
            address: format!(
                "10.{}.{}.{}",
                rng.random_range(0..255),
                rng.random_range(0..255),
                rng.random_range(1..255)
            ),
            node: format!("ip-10-0-{}.ec2.internal", rng.random_range(0..NODES)),
        });
        let pods = pods.collect();
        let fan_out = if index == GATEWAY { PUBLIC } else { FAN_OUT };
        let callees = (0..fan_out).map(|_| rng.random_range(2..SERVICES)).collect();
        Self { name, namespace: format!("ns-{}", index % NAMESPACES), pods, callees }
    }

    fn kind(&self) -> &str {
        self.name.split('-').nth(1).unwrap_or("x")
    }
}

fn text(key: &str, value: String) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value)) }),
        ..KeyValue::default()
    }
}

/// A part of a pod's name, as Kubernetes makes it.
fn name_part(rng: &mut StdRng, length: usize) -> String {
    (0..length).map(|_| char::from(NAME_SIGNS[rng.random_range(0..NAME_SIGNS.len())])).collect()
}

/// A random UUID in the form of Envoy's `x-request-id`.
fn request_id(random: u128) -> String {
    let hex = format!("{random:032x}");
    format!("{}-{}-4{}-9{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

/// exp(N(mean, deviation)), by the method of Box and Muller.
fn log_normal(rng: &mut StdRng, mean: f64, deviation: f64) -> u64 {
    let (first, second): (f64, f64) = (rng.random_range(f64::EPSILON..1.0), rng.random());
    let normal = (-2.0 * first.ln()).sqrt() * (std::f64::consts::TAU * second).cos();
    (mean + deviation * normal).exp() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_one_load_and_no_span_comes_twice() {
        let spans = |seed| {
            let mut load = MeshLoad::new(seed, 1, 1_000_000);
            let requests = (0..4).map(|_| load.next_request(512));
            requests
                .flat_map(|request| request.resource_spans)
                .flat_map(|resource| resource.scope_spans)
                .flat_map(|scope| scope.spans)
                .map(|span| span.span_id)
                .collect::<Vec<_>>()
        };
        let first = spans(1);
        assert_eq!(first.len(), 4 * 512);
        assert_eq!(first, spans(1));
        assert_ne!(first, spans(2));
        let distinct: std::collections::BTreeSet<_> = first.iter().collect();
        assert_eq!(distinct.len(), first.len());
    }
}
