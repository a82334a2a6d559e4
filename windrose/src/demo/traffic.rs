//! The generator: seed and time in, what every proxy of the mesh would report out.
//!
//! Pure: no clock, no socket. A request is simulated as a whole when it begins; what a proxy reports
//! of it becomes an [`Event`] at the time the proxy would have known, so that spans and counters of
//! the same instant agree.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use super::counters::{self, INBOUND, OUTBOUND, Series};
use super::mesh::{
    self, BARE_OWN_TIME, Call, Callee, NAMESPACE, NO_ROUTE_PATHS, NO_ROUTE_SHARE, PARTNERS, PUBLIC_HOST, Partner, Pod,
    Proxy, ROUTES, Route, SERVICES, Service,
};
use super::random::{Chance, nanos};
use super::span::{Context, Ending, Interval, RequestFacts, request_span, router_span};
use super::truth::{TruthCall, TruthCounts, TruthEdge};

#[cfg(test)]
mod tests;

/// Part of the traces whose spans are sent. Half, so that the difference between what spans show
/// and what counters know can be seen in the answers.
pub(crate) const SAMPLED_SHARE: f64 = 0.5;

/// What one proxy comes to know at one moment.
#[derive(Debug)]
pub(crate) struct Event {
    /// Nanoseconds since the epoch.
    pub(crate) at: u64,
    /// Place in [`mesh::proxies`].
    pub(crate) proxy: usize,
    pub(crate) span: Option<Span>,
    pub(crate) counted: Vec<(Series, u64)>,
    pub(crate) truth: Option<TruthCall>,
}

/// An endless stream of public requests.
#[derive(Debug)]
pub(crate) struct Traffic {
    chance: Chance,
    ids: Chance,
    requests_per_second: f64,
    next_at: u64,
    proxies: Vec<Proxy>,
    /// Until when the breaker of a callee is open.
    open_until: BTreeMap<&'static str, u64>,
    events: Vec<Event>,
}

/// What all hops of a trace share.
#[derive(Clone, Debug)]
struct Trip {
    trace_id: [u8; 16],
    is_sampled: bool,
    request_id: String,
    user_agent: &'static str,
}

/// A request as it reaches a sidecar.
struct Arrival<'a> {
    caller_span: [u8; 8],
    caller_ip: &'a str,
    start: u64,
    /// When the caller gives up.
    deadline: Option<u64>,
    method: &'a str,
    url: &'a str,
    decorator: &'a str,
}

/// How a request looks from its caller.
#[derive(Clone, Copy, Debug)]
struct Answer {
    code: u16,
    end: u64,
}

impl Traffic {
    /// Requests from `start` on. The seed decides what happens; the ids depend on `start` too, so
    /// that a second run is not taken for duplicates of the first.
    pub(crate) fn new(seed: u64, requests_per_second: f64, start: u64) -> Self {
        Self {
            chance: Chance::new(seed),
            ids: Chance::new(seed ^ start.rotate_left(17)),
            requests_per_second,
            next_at: start,
            proxies: mesh::proxies(),
            open_until: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// The events of all requests that begin before `until`. They may lie after `until`.
    pub(crate) fn until(&mut self, until: u64) -> Vec<Event> {
        while self.next_at < until {
            self.public_request(self.next_at);
            self.next_at += nanos(self.chance.gap_secs(self.requests_per_second) * 1000.0).max(1_000);
        }
        std::mem::take(&mut self.events)
    }

    fn trip(&mut self, user_agent: &'static str) -> Trip {
        let [a, b, c, d]: [u32; 4] = std::array::from_fn(|_| u32::from_be_bytes(self.ids.id()));
        let request_id =
            format!("{a:08x}-{:04x}-9{:03x}-{:04x}-{c:08x}{:04x}", b >> 16, b & 0xfff, d >> 16, d & 0xffff);
        let is_sampled = self.chance.happens(SAMPLED_SHARE);
        Trip { trace_id: self.ids.id(), is_sampled, request_id, user_agent }
    }

    fn public_request(&mut self, at: u64) {
        let trip = self.trip("shop-mobile/3.2");
        if self.chance.happens(NO_ROUTE_SHARE) {
            return self.unrouted(&trip, at);
        }
        let route = &ROUTES[self.chance.pick(ROUTES.iter().map(|route| route.share))];
        self.routed(&trip, route, at);
    }

    /// The gateway answers 404 by itself.
    fn unrouted(&mut self, trip: &Trip, at: u64) {
        let path = NO_ROUTE_PATHS[self.chance.below(NO_ROUTE_PATHS.len() as u32) as usize];
        let interval = Interval { start: at, end: at + nanos(0.2) };
        let url = format!("http://{PUBLIC_HOST}{path}");
        let ending = Ending { code: 404, flags: "NR", canceled: false };
        self.ingress_span(trip, "ingress", interval, ending, "GET", &url, None);
        let counted = vec![(counters::no_route(), 1)];
        let event = Event { at: interval.end, proxy: 0, span: None, counted, truth: None };
        self.events.push(event);
    }

    fn routed(&mut self, trip: &Trip, route: &Route, at: u64) {
        let callee = service_named(route.service);
        let (pod, proxy) = self.choose_pod(callee);
        let cluster = service_cluster(callee, pod);
        let path = self.fill(route.path);
        let url = format!("http://{PUBLIC_HOST}{path}");
        let start = at + nanos(self.chance.between(0.08, 0.25));
        let deadline = route.timeout_ms.map(|timeout| start + nanos(timeout));
        let router_id = self.ids.id();
        let arrival = Arrival {
            caller_span: router_id,
            caller_ip: mesh::INGRESS.ip,
            start: start + self.network(),
            deadline,
            method: route.method,
            url: &url,
            decorator: route.decorator,
        };
        let answer = self.arrive(trip, callee, proxy, &arrival);
        let timed_out = deadline.filter(|deadline| answer.end > *deadline);
        let end = timed_out.unwrap_or(answer.end) + self.network();
        let (outer, inner) = match timed_out {
            Some(_) => {
                (Ending { code: 504, flags: "UT", canceled: false }, Ending { code: 0, flags: "-", canceled: true })
            }
            None => (Ending::of(answer.code), Ending::of(answer.code)),
        };
        let mut counted = forwarded(&cluster, outer.code, 1);
        if timed_out.is_some() {
            counted.push((Series::cluster("envoy_cluster_upstream_rq_timeout", &cluster), 1));
        }
        let root = self.ingress_span(
            trip,
            route.decorator,
            Interval { start: at, end: end + nanos(0.1) },
            outer,
            route.method,
            &url,
            Some(&cluster),
        );
        let context = Context { trace_id: trip.trace_id, parent: Some(root), parent_is_remote: false };
        let address = format!("{}:15006", pod.ip);
        let span =
            || router_span(&mesh::INGRESS, &cluster, &address, router_id, context, Interval { start, end }, inner);
        let truth = truth_call(&mesh::INGRESS, &qualified(&self.proxies[proxy]), 1, outer.code, trip);
        self.report(end, 0, trip.is_sampled.then(span), counted, Some(truth));
    }

    /// The gateway's own span and what it counts of an arriving request.
    #[expect(clippy::too_many_arguments, reason = "the parts of a request, each of its own type")]
    fn ingress_span(
        &mut self,
        trip: &Trip,
        name: &str,
        interval: Interval,
        ending: Ending,
        method: &str,
        url: &str,
        upstream_cluster: Option<&str>,
    ) -> [u8; 8] {
        let span_id = self.ids.id();
        let context = Context { trace_id: trip.trace_id, parent: None, parent_is_remote: false };
        let facts = RequestFacts {
            method,
            url,
            user_agent: trip.user_agent,
            request_id: &trip.request_id,
            peer: "198.51.100.7",
            upstream_cluster,
        };
        let span = || request_span(&mesh::INGRESS, SpanKind::Server, name, span_id, context, interval, ending, facts);
        let counted = counters::arrived(OUTBOUND, ending.code).into_iter().map(|series| (series, 1)).collect();
        let truth = TruthCall {
            edge: TruthEdge { source: "(client)".to_owned(), target: qualified(&mesh::INGRESS) },
            counts: counts(1, ending.code),
            is_sampled: trip.is_sampled,
        };
        self.report(interval.end, 0, trip.is_sampled.then(span), counted, Some(truth));
        span_id
    }

    /// A service answers: its sidecar's inbound span, and everything it calls meanwhile.
    fn arrive(&mut self, trip: &Trip, service: &'static Service, proxy: usize, arrival: &Arrival<'_>) -> Answer {
        let reporter = self.proxies[proxy];
        let pod = service.pods.iter().find(|pod| pod.name == reporter.pod).unwrap_or(&service.pods[0]);
        let span_id = self.ids.id();
        let half = self.chance.own_time_nanos(pod.own_time) / 2;
        let own_failure = self.failure(pod.failures);
        let begin = arrival.start + nanos(0.1) + half;
        let (called, passed_on) = match own_failure {
            Some(_) => (begin, None),
            None => self.call_all(trip, service, proxy, span_id, begin),
        };
        let answer = Answer { code: own_failure.or(passed_on).unwrap_or(200), end: called + half + nanos(0.1) };
        let given_up = arrival.deadline.filter(|deadline| answer.end > *deadline);
        let ending = match given_up {
            Some(_) => Ending { code: 0, flags: "DC", canceled: false },
            None => Ending::of(answer.code),
        };
        let end = given_up.map_or(answer.end, |deadline| deadline + nanos(0.3));
        let context = Context { trace_id: trip.trace_id, parent: Some(arrival.caller_span), parent_is_remote: true };
        let facts = RequestFacts {
            method: arrival.method,
            url: arrival.url,
            user_agent: trip.user_agent,
            request_id: &trip.request_id,
            peer: arrival.caller_ip,
            upstream_cluster: Some("inbound|8080||"),
        };
        let interval = Interval { start: arrival.start, end };
        let span =
            || request_span(&reporter, SpanKind::Server, arrival.decorator, span_id, context, interval, ending, facts);
        let mut counted: Vec<_> =
            counters::arrived(INBOUND, ending.code).into_iter().map(|series| (series, 1)).collect();
        counted.extend(forwarded("inbound|8080||", ending.code, 1));
        self.report(end, proxy, trip.is_sampled.then(span), counted, None);
        answer
    }

    /// Makes the calls of a service; says when the last one is done and which failure to pass on.
    fn call_all(
        &mut self,
        trip: &Trip,
        service: &'static Service,
        proxy: usize,
        parent: [u8; 8],
        begin: u64,
    ) -> (u64, Option<u16>) {
        let mut begun = begin;
        let mut done = begin;
        let mut failure = None;
        for call in service.calls {
            if (failure.is_some() && !call.parallel) || !self.chance.happens(call.probability) {
                continue;
            }
            if !call.parallel {
                begun = done + nanos(0.2);
            }
            let answer = self.call_out(trip, service, proxy, call, parent, begun);
            done = done.max(answer.end);
            if call.critical && answer.code >= 400 {
                failure = failure.or(Some(if answer.code >= 500 { 502 } else { answer.code }));
            }
        }
        (done, failure)
    }

    /// A service calls: its sidecar's outbound span, and the other side.
    fn call_out(
        &mut self,
        trip: &Trip,
        service: &Service,
        proxy: usize,
        call: &'static Call,
        parent: [u8; 8],
        start: u64,
    ) -> Answer {
        let (trip, context) = if service.propagates {
            (trip.clone(), Context { trace_id: trip.trace_id, parent: Some(parent), parent_is_remote: true })
        } else {
            // The context is lost: the outbound span begins a trace of its own.
            let fresh = self.trip("Go-http-client/1.1");
            let context = Context { trace_id: fresh.trace_id, parent: None, parent_is_remote: false };
            (fresh, context)
        };
        let trip = Trip { user_agent: "Go-http-client/1.1", ..trip };
        let path = self.fill(call.path);
        let outgoing = Outgoing { proxy, span_id: self.ids.id(), context, start, call, path: &path };
        match call.to {
            Callee::Service(name) => self.call_service(&trip, &outgoing, service_named(name)),
            Callee::Bare(name) => self.call_bare(&trip, &outgoing, name),
            Callee::External(host) => self.call_partner(&trip, &outgoing, partner_named(host)),
        }
    }

    fn call_service(&mut self, trip: &Trip, out: &Outgoing<'_>, callee: &'static Service) -> Answer {
        let (pod, callee_proxy) = self.choose_pod(callee);
        let cluster = service_cluster(callee, pod);
        let host = format!("{}.{NAMESPACE}.svc.cluster.local:8080", callee.name);
        let url = format!("http://{host}{}", out.path);
        let name = format!("{host}/*");
        let target = qualified(&self.proxies[callee_proxy]);
        if self.is_refused(callee.name, out) {
            let answer = Answer { code: 503, end: out.start + nanos(0.15) };
            let ending = Ending { code: 503, flags: "UO", canceled: false };
            let mut counted: Vec<_> = counters::answered(&cluster, 503).map(|series| (series, 1)).to_vec();
            counted.push((Series::cluster("envoy_cluster_upstream_rq_pending_overflow", &cluster), 1));
            self.outbound_span(trip, out, &name, &url, &cluster, answer.end, ending, counted, &target, 0);
            return answer;
        }
        let mut attempts = 0;
        let mut at = out.start;
        let answer = loop {
            attempts += 1;
            let arrival = Arrival {
                caller_span: out.span_id,
                caller_ip: self.proxies[out.proxy].ip,
                start: at + self.network(),
                deadline: None,
                method: out.call.method,
                url: &url,
                decorator: &name,
            };
            let answer = self.arrive(trip, callee, callee_proxy, &arrival);
            if answer.code < 500 || attempts > u64::from(out.call.retries) {
                break answer;
            }
            // Envoy's default back-off: 25 ms, jittered.
            at = answer.end + nanos(self.chance.between(1.0, 25.0));
        };
        let end = answer.end + self.network();
        let exhausted = attempts > 1 && answer.code >= 500;
        let ending = Ending { code: answer.code, flags: if exhausted { "URX" } else { "-" }, canceled: false };
        let mut counted = forwarded(&cluster, answer.code, attempts);
        if attempts > 1 {
            counted.push((Series::cluster("envoy_cluster_upstream_rq_retry", &cluster), attempts - 1));
            let outcome = if exhausted {
                "envoy_cluster_upstream_rq_retry_limit_exceeded"
            } else {
                "envoy_cluster_upstream_rq_retry_success"
            };
            counted.push((Series::cluster(outcome, &cluster), 1));
        }
        self.outbound_span(trip, out, &name, &url, &cluster, end, ending, counted, &target, attempts);
        Answer { code: answer.code, end }
    }

    fn call_bare(&mut self, trip: &Trip, out: &Outgoing<'_>, callee: &str) -> Answer {
        let host = format!("{callee}.{NAMESPACE}.svc.cluster.local:8080");
        let cluster = format!("outbound|8080||{callee}.{NAMESPACE}.svc.cluster.local");
        let end = out.start + self.chance.own_time_nanos(BARE_OWN_TIME) + 2 * self.network();
        let url = format!("http://{host}{}", out.path);
        let counted = forwarded(&cluster, 200, 1);
        let target = format!("{NAMESPACE}/{callee}");
        let name = format!("{host}/*");
        self.outbound_span(trip, out, &name, &url, &cluster, end, Ending::of(200), counted, &target, 1);
        Answer { code: 200, end }
    }

    /// Through the egress gateway, which writes a SERVER and a CLIENT span of its own.
    fn call_partner(&mut self, trip: &Trip, out: &Outgoing<'_>, partner: &'static Partner) -> Answer {
        let Partner { host, port, .. } = partner;
        let code = self.failure(partner.failures).unwrap_or(200);
        let arrived = out.start + self.network();
        let sent = arrived + nanos(self.chance.between(0.1, 0.3));
        let answered = sent + self.chance.own_time_nanos(partner.own_time);
        let returned = answered + nanos(0.1);
        let egress = self.proxies.len() - 1;
        let cluster = format!("outbound|{port}||{host}");
        let server_id = self.ids.id();
        let server_context = Context { trace_id: trip.trace_id, parent: Some(out.span_id), parent_is_remote: true };
        let url = format!("https://{host}{}", out.path);
        let facts = RequestFacts {
            method: out.call.method,
            url: &url,
            user_agent: trip.user_agent,
            request_id: &trip.request_id,
            peer: self.proxies[out.proxy].ip,
            upstream_cluster: Some(&cluster),
        };
        let name = format!("{host}:{port}/*");
        let interval = Interval { start: arrived, end: returned };
        let server = || {
            let ending = Ending::of(code);
            request_span(&mesh::EGRESS, SpanKind::Server, &name, server_id, server_context, interval, ending, facts)
        };
        let counted = counters::arrived(OUTBOUND, code).into_iter().map(|series| (series, 1)).collect();
        let server = trip.is_sampled.then(server);
        let router_id = self.ids.id();
        let router = || {
            let context = Context { trace_id: trip.trace_id, parent: Some(server_id), parent_is_remote: false };
            let interval = Interval { start: sent, end: answered };
            router_span(&mesh::EGRESS, &cluster, partner.address, router_id, context, interval, Ending::of(code))
        };
        let router = trip.is_sampled.then(router);
        let truth = truth_call(&mesh::EGRESS, host, 1, code, trip);
        self.report(answered, egress, router, forwarded(&cluster, code, 1), Some(truth));
        self.report(returned, egress, server, counted, None);

        let end = returned + self.network();
        let cluster = "outbound|80||istio-egressgateway.istio-system.svc.cluster.local";
        let url = format!("http://{host}{}", out.path);
        let target = qualified(&mesh::EGRESS);
        let counted = forwarded(cluster, code, 1);
        let name = format!("{host}:80/*");
        self.outbound_span(trip, out, &name, &url, cluster, end, Ending::of(code), counted, &target, 1);
        Answer { code, end }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a call, each of its own type")]
    fn outbound_span(
        &mut self,
        trip: &Trip,
        out: &Outgoing<'_>,
        name: &str,
        url: &str,
        cluster: &str,
        end: u64,
        ending: Ending,
        counted: Vec<(Series, u64)>,
        target: &str,
        attempts: u64,
    ) {
        let reporter = self.proxies[out.proxy];
        let facts = RequestFacts {
            method: out.call.method,
            url,
            user_agent: trip.user_agent,
            request_id: &trip.request_id,
            peer: reporter.ip,
            upstream_cluster: Some(cluster),
        };
        let interval = Interval { start: out.start, end };
        let span =
            || request_span(&reporter, SpanKind::Client, name, out.span_id, out.context, interval, ending, facts);
        let truth = truth_call(&reporter, target, attempts, ending.code, trip);
        self.report(end, out.proxy, trip.is_sampled.then(span), counted, Some(truth));
    }

    fn report(
        &mut self,
        at: u64,
        proxy: usize,
        span: Option<Span>,
        counted: Vec<(Series, u64)>,
        truth: Option<TruthCall>,
    ) {
        self.events.push(Event { at, proxy, span, counted, truth });
    }

    fn choose_pod(&mut self, service: &'static Service) -> (&'static Pod, usize) {
        let pod = &service.pods[self.chance.pick(service.pods.iter().map(|pod| pod.weight))];
        let proxy = self.proxies.iter().position(|proxy| proxy.pod == pod.name);
        (pod, proxy.expect("every pod has a sidecar"))
    }

    fn failure(&mut self, failures: &[(u16, f64)]) -> Option<u16> {
        failures.iter().find(|(_, probability)| self.chance.happens(*probability)).map(|(code, _)| *code)
    }

    /// Whether the caller's breaker is open and refuses this call.
    fn is_refused(&mut self, callee: &'static str, out: &Outgoing<'_>) -> bool {
        let Some(breaker) = out.call.breaker else { return false };
        if self.chance.happens(breaker.opens) {
            self.open_until.insert(callee, out.start + nanos(breaker.open_secs * 1000.0));
        }
        let open = self.open_until.get(callee).is_some_and(|until| out.start < *until);
        open && self.chance.happens(breaker.refuses)
    }

    /// One way over the wire, proxies included.
    fn network(&mut self) -> u64 {
        nanos(self.chance.between(0.1, 0.5))
    }

    fn fill(&mut self, path: &str) -> String {
        path.replace("{}", &self.chance.below(900).to_string())
    }
}

/// A call as its caller's sidecar begins it.
struct Outgoing<'a> {
    proxy: usize,
    span_id: [u8; 8],
    context: Context,
    start: u64,
    call: &'static Call,
    path: &'a str,
}

/// What a proxy counts of a request that it sent on: `attempts` got a stream, `code` went back.
fn forwarded(cluster: &str, code: u16, attempts: u64) -> Vec<(Series, u64)> {
    let mut counted = vec![
        (Series::cluster("envoy_cluster_upstream_rq_total", cluster), attempts),
        (Series::cluster("envoy_cluster_upstream_cx_tx_bytes_total", cluster), 412 * attempts),
        (Series::cluster("envoy_cluster_upstream_cx_rx_bytes_total", cluster), 1_210 * attempts),
    ];
    if code != 0 {
        counted.extend(counters::answered(cluster, code).map(|series| (series, 1)));
    }
    counted
}

const fn counts(attempts: u64, code: u16) -> TruthCounts {
    TruthCounts { calls: 1, attempts, errors: if code == 0 || code >= 500 { 1 } else { 0 } }
}

fn truth_call(source: &Proxy, target: &str, attempts: u64, code: u16, trip: &Trip) -> TruthCall {
    TruthCall {
        edge: TruthEdge { source: qualified(source), target: target.to_owned() },
        counts: counts(attempts, code),
        is_sampled: trip.is_sampled,
    }
}

/// `shop/orders@v1`.
fn qualified(proxy: &Proxy) -> String {
    format!("{}/{}@{}", proxy.namespace, proxy.app, proxy.version)
}

/// With several versions Istio routes to subsets.
fn service_cluster(service: &Service, pod: &Pod) -> String {
    let subset = if service.pods.len() > 1 { pod.version } else { "" };
    format!("outbound|8080|{subset}|{}.{NAMESPACE}.svc.cluster.local", service.name)
}

fn service_named(name: &str) -> &'static Service {
    SERVICES.iter().find(|service| service.name == name).expect("routes and calls name services of the mesh")
}

fn partner_named(host: &str) -> &'static Partner {
    PARTNERS.iter().find(|partner| partner.host == host).expect("calls name partners of the mesh")
}
