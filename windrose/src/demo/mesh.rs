//! The synthetic mesh: which services there are, what they call and how they misbehave.
//!
//! A small shop on Istio. Everything an operator would want to find is planted in it: a canary that
//! fails more often than the stable version, a callee that is retried, a route timeout shorter than
//! its callee, a circuit breaker, a service without a sidecar, a service that loses the trace
//! context, and two external partners behind an egress gateway.

/// Mean and spread of a service's own time: log-normal with this median and sigma.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnTime {
    pub(crate) median_ms: f64,
    pub(crate) sigma: f64,
}

/// One version of a service, with the one pod that runs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pod {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) ip: &'static str,
    /// Share of the service's requests.
    pub(crate) weight: f64,
    pub(crate) own_time: OwnTime,
    /// How often it answers with each of these codes by itself.
    pub(crate) failures: &'static [(u16, f64)],
}

/// Where a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callee {
    /// A service of the mesh.
    Service(&'static str),
    /// A service that runs without a sidecar: only its callers report it.
    Bare(&'static str),
    /// An external host, through the egress gateway.
    External(&'static str),
}

/// One call that a service makes while it answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) to: Callee,
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    /// How often the call is made.
    pub(crate) probability: f64,
    /// Starts together with the call before it.
    pub(crate) parallel: bool,
    /// Its failure fails the caller.
    pub(crate) critical: bool,
    pub(crate) retries: u32,
    /// Part of the calls that the circuit breaker refuses while it is open.
    pub(crate) breaker: Option<Breaker>,
}

/// A circuit breaker that opens now and then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Breaker {
    /// Chance per call that it opens.
    pub(crate) opens: f64,
    pub(crate) open_secs: f64,
    /// Part of the calls refused meanwhile.
    pub(crate) refuses: f64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Service {
    pub(crate) name: &'static str,
    pub(crate) pods: &'static [Pod],
    pub(crate) calls: &'static [Call],
    /// Forwards the trace context to what it calls.
    pub(crate) propagates: bool,
}

/// One public route of the gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) method: &'static str,
    /// `{}` becomes a number.
    pub(crate) path: &'static str,
    /// What Istio puts into the name of the span.
    pub(crate) decorator: &'static str,
    pub(crate) service: &'static str,
    pub(crate) share: f64,
    pub(crate) timeout_ms: Option<f64>,
}

/// An external host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Partner {
    pub(crate) host: &'static str,
    pub(crate) port: u16,
    pub(crate) address: &'static str,
    pub(crate) own_time: OwnTime,
    pub(crate) failures: &'static [(u16, f64)],
}

pub(crate) const NAMESPACE: &str = "shop";
pub(crate) const GATEWAY_NAMESPACE: &str = "istio-system";
pub(crate) const PUBLIC_HOST: &str = "shop.example.com";

/// A gateway or a sidecar: what pushes spans and is scraped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proxy {
    pub(crate) pod: &'static str,
    pub(crate) app: &'static str,
    pub(crate) namespace: &'static str,
    pub(crate) version: &'static str,
    pub(crate) ip: &'static str,
    pub(crate) is_gateway: bool,
}

pub(crate) const INGRESS: Proxy = Proxy {
    pod: "istio-ingressgateway-6c9f8b7d4-x2x9k",
    app: "istio-ingressgateway",
    namespace: GATEWAY_NAMESPACE,
    version: "v1",
    ip: "10.1.0.10",
    is_gateway: true,
};

pub(crate) const EGRESS: Proxy = Proxy {
    pod: "istio-egressgateway-5d8f6c5b9-q7k2m",
    app: "istio-egressgateway",
    namespace: GATEWAY_NAMESPACE,
    version: "v1",
    ip: "10.1.0.18",
    is_gateway: true,
};

/// Part of the public requests that no route matches: scanners looking for what is not there.
pub(crate) const NO_ROUTE_SHARE: f64 = 0.012;
pub(crate) const NO_ROUTE_PATHS: [&str; 3] = ["/wp-login.php", "/.env", "/admin/"];

const fn ms(median_ms: f64, sigma: f64) -> OwnTime {
    OwnTime { median_ms, sigma }
}

const fn pod(name: &'static str, ip: &'static str, own_time: OwnTime, failures: &'static [(u16, f64)]) -> Pod {
    Pod { name, version: "v1", ip, weight: 1.0, own_time, failures }
}

const fn call(to: Callee, method: &'static str, path: &'static str) -> Call {
    Call { to, method, path, probability: 1.0, parallel: false, critical: true, retries: 0, breaker: None }
}

pub(crate) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/api/orders/{}",
        decorator: "orders.shop.svc.cluster.local:8080/api/orders*",
        service: "orders",
        share: 0.38,
        timeout_ms: None,
    },
    Route {
        method: "GET",
        path: "/api/search?q=shoes&page={}",
        decorator: "search.shop.svc.cluster.local:8080/api/search*",
        service: "search",
        share: 0.27,
        timeout_ms: None,
    },
    Route {
        method: "GET",
        path: "/api/users/{}",
        decorator: "users.shop.svc.cluster.local:8080/api/users/*",
        service: "users",
        share: 0.2,
        // Shorter than the slowest hundredth of the answers: the classic of inverted timeouts.
        timeout_ms: Some(120.0),
    },
    Route {
        method: "POST",
        path: "/api/checkout",
        decorator: "checkout.shop.svc.cluster.local:8080/api/checkout",
        service: "checkout",
        share: 0.15,
        timeout_ms: None,
    },
];

pub(crate) const SERVICES: &[Service] = &[
    Service {
        name: "orders",
        pods: &[
            Pod { weight: 0.9, ..pod("orders-v1-7d4b9c6f5-l2x8q", "10.1.0.11", ms(6.0, 0.5), &[(500, 0.004)]) },
            Pod {
                version: "v2",
                weight: 0.1,
                ..pod("orders-v2-5f6c7b8d9-m4z7w", "10.1.0.12", ms(9.0, 0.6), &[(500, 0.05)])
            },
        ],
        calls: &[
            call(Callee::Service("users"), "GET", "/users/{}"),
            Call { parallel: true, retries: 2, ..call(Callee::Service("inventory"), "GET", "/stock/{}") },
        ],
        propagates: true,
    },
    Service {
        name: "search",
        pods: &[pod("search-v1-6b7c9d5f4-k8v2t", "10.1.0.13", ms(12.0, 0.4), &[])],
        calls: &[
            Call { probability: 0.7, ..call(Callee::Service("inventory"), "GET", "/stock/{}") },
            Call {
                critical: false,
                breaker: Some(Breaker { opens: 0.004, open_secs: 4.0, refuses: 0.6 }),
                ..call(Callee::Service("recommend"), "GET", "/recommend?user={}")
            },
        ],
        propagates: true,
    },
    Service {
        name: "users",
        pods: &[pod("users-v1-5c8d7f9b6-w9s4n", "10.1.0.14", ms(4.0, 1.4), &[(404, 0.02)])],
        calls: &[],
        propagates: true,
    },
    Service {
        name: "checkout",
        pods: &[pod("checkout-v1-77d9b6c84-z5h2p", "10.1.0.15", ms(5.0, 0.4), &[(409, 0.01)])],
        calls: &[
            call(Callee::Service("orders"), "GET", "/orders/{}"),
            call(Callee::Bare("ledger"), "POST", "/entries"),
            call(Callee::Service("payments"), "POST", "/payments"),
            Call { critical: false, ..call(Callee::Service("notify"), "POST", "/notifications") },
        ],
        propagates: true,
    },
    Service {
        name: "inventory",
        pods: &[pod("inventory-v1-84c6d5b97-t6j9r", "10.1.0.16", ms(3.0, 0.5), &[(503, 0.1)])],
        calls: &[],
        propagates: true,
    },
    Service {
        name: "recommend",
        pods: &[pod("recommend-v1-9d8c5f7b4-n2m6x", "10.1.0.17", ms(18.0, 0.7), &[])],
        calls: &[],
        propagates: true,
    },
    Service {
        name: "payments",
        pods: &[pod("payments-v1-9b2f6d8c5-d7g5k", "10.1.0.19", ms(4.0, 0.4), &[(402, 0.04)])],
        calls: &[call(Callee::External("partner-pay.example.com"), "POST", "/v1/charges")],
        propagates: true,
    },
    Service {
        name: "notify",
        pods: &[pod("notify-v1-8c3d1f6b9-j4q8v", "10.1.0.20", ms(2.0, 0.4), &[])],
        calls: &[call(Callee::External("partner-sms.example.com"), "POST", "/messages")],
        propagates: false,
    },
];

pub(crate) const PARTNERS: &[Partner] = &[
    Partner {
        host: "partner-pay.example.com",
        port: 443,
        address: "203.0.113.21:443",
        own_time: ms(45.0, 0.4),
        failures: &[(500, 0.015)],
    },
    Partner {
        host: "partner-sms.example.com",
        port: 80,
        address: "203.0.113.22:80",
        own_time: ms(90.0, 0.8),
        failures: &[(500, 0.03)],
    },
];

/// Answers of services without a sidecar.
pub(crate) const BARE_OWN_TIME: OwnTime = ms(7.0, 0.5);

/// All proxies: ingress, every pod's sidecar in the order of [`SERVICES`], egress.
pub(crate) fn proxies() -> Vec<Proxy> {
    let sidecars = SERVICES.iter().flat_map(|service| {
        service.pods.iter().map(|pod| Proxy {
            pod: pod.name,
            app: service.name,
            namespace: NAMESPACE,
            version: pod.version,
            ip: pod.ip,
            is_gateway: false,
        })
    });
    std::iter::once(INGRESS).chain(sidecars).chain(std::iter::once(EGRESS)).collect()
}

impl Proxy {
    /// `sidecar~10.1.0.11~orders-v1-….shop~shop.svc.cluster.local`.
    pub(crate) fn node_id(&self) -> String {
        let kind = if self.is_gateway { "router" } else { "sidecar" };
        let Self { pod, namespace, ip, .. } = self;
        format!("{kind}~{ip}~{pod}.{namespace}~{namespace}.svc.cluster.local")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_called_exists() {
        let services: Vec<&str> = SERVICES.iter().map(|service| service.name).collect();
        for route in ROUTES {
            assert!(services.contains(&route.service), "{}", route.service);
        }
        for call in SERVICES.iter().flat_map(|service| service.calls) {
            match call.to {
                Callee::Service(name) => assert!(services.contains(&name), "{name}"),
                Callee::Bare(name) => assert!(!services.contains(&name), "{name}"),
                Callee::External(host) => assert!(PARTNERS.iter().any(|partner| partner.host == host), "{host}"),
            }
        }
        for service in SERVICES {
            let weights: f64 = service.pods.iter().map(|pod| pod.weight).sum();
            assert!((weights - 1.0).abs() < 1e-9, "{}", service.name);
        }
        let shares: f64 = ROUTES.iter().map(|route| route.share).sum();
        assert!((shares - 1.0).abs() < 1e-9);
    }

    #[test]
    fn names_and_addresses_are_unique() {
        let proxies = proxies();
        for key in [|proxy: &Proxy| proxy.pod, |proxy: &Proxy| proxy.ip] {
            let mut keys: Vec<&str> = proxies.iter().map(key).collect();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), proxies.len());
        }
    }
}
