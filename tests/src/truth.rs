//! What really happened in a recorded run: what the client and the applications logged, and the gateways' own access logs.
//!
//! Nothing here comes from spans or metrics, so it can judge both. A request that was not traced (the client asked for that,
//! or sent a malformed context) is left out of what spans must show; a counter counts it all the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::capture::read_zstd;

/// The node name of everyone outside.
pub const CLIENT: &str = "(client)";
/// The node name of a caller that nobody names.
pub const UNKNOWN: &str = "(unknown)";
pub const GATEWAY: &str = "istio-ingressgateway";
pub const EGRESS: &str = "istio-egressgateway";

/// gRPC codes that say the server failed.
const GRPC_FAILURES: [u32; 8] = [2, 4, 8, 10, 12, 13, 14, 15];

/// Which requests the tracer of a run let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracer {
    /// W3C contexts: `-00` is honoured, a malformed one makes no span on any hop.
    OpenTelemetry,
    /// B3 contexts only, the others are not even read; and what counters count. Every request.
    Everything,
}

/// An edge's name: who calls whom.
pub type Pair = (String, String);

/// What must come out for one edge.
#[derive(Clone, Debug, Default)]
pub struct EdgeTruth {
    pub calls: u64,
    /// Fewest and most failed calls; they differ only where the caller hung up and no access log tells which proxy noticed.
    pub errors: (u64, u64),
    /// Arrivals at the callee, retries included; absent where nobody counted.
    pub arrivals: Option<u64>,
    /// Calls by the public path they served. Empty when the context was lost on the way.
    pub routes: BTreeMap<String, u64>,
}

/// Envoy's own totals of a whole run for one upstream cluster of one proxy.
#[derive(Clone, Debug, Deserialize)]
pub struct ProxyTotal {
    pub proxy: String,
    pub listener: String,
    pub cluster: String,
    pub count: u64,
    pub e5xx: u64,
    pub zero: u64,
    pub attempts: u64,
    pub flags: BTreeMap<String, u64>,
    pub code: BTreeMap<String, u64>,
    pub reached_upstream: u64,
}

/// One workload of a run.
#[derive(Clone, Debug, Deserialize)]
pub struct Workload {
    pub name: String,
    pub ns: String,
    pub app: String,
    pub version: String,
    pub kind: String,
    pub pod: String,
}

#[derive(Clone, Debug, Deserialize)]
struct ClientRow {
    rid: String,
    ctx: String,
    path: String,
    status: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "k", rename_all = "lowercase")]
enum AppRow {
    Call { id: String, rid: String, src: String, dst: String, status: u32, grpc: Option<u32> },
    Server { call: Option<String>, rid: String, svc: String },
}

#[derive(Clone, Debug, Deserialize)]
struct LogRow {
    rid: Option<String>,
    cluster: Option<String>,
    code: u32,
    up: Option<String>,
}

#[derive(Deserialize)]
struct RunFile {
    workloads: Vec<Workload>,
}

#[derive(Deserialize)]
struct TotalsFile {
    proxies: Vec<ProxyTotal>,
}

/// The logs of one run.
#[derive(Debug)]
pub struct Truth {
    tracer: Tracer,
    clients: HashMap<String, ClientRow>,
    apps: Vec<AppRow>,
    gateway_log: Vec<LogRow>,
    egress_log: Vec<LogRow>,
    pub totals: Vec<ProxyTotal>,
    pub workloads: Vec<Workload>,
}

impl Truth {
    /// Reads a capture's folder, trimmed or not.
    ///
    /// # Panics
    /// When a file is missing or not readable: the tests' data is broken.
    #[must_use]
    pub fn load(folder: &Path, tracer: Tracer) -> Self {
        let clients: Vec<ClientRow> = rows(&folder.join("truth/client.jsonl.zst"));
        Self {
            tracer,
            clients: clients.into_iter().map(|row| (row.rid.clone(), row)).collect(),
            apps: rows(&folder.join("truth/apps.jsonl.zst")),
            gateway_log: optional_rows(&folder.join("accesslog/ingress.jsonl.zst")),
            egress_log: optional_rows(&folder.join("accesslog/egress.jsonl.zst")),
            totals: json::<TotalsFile>(&folder.join("truth.json")).proxies,
            workloads: json::<RunFile>(&folder.join("run.json")).workloads,
        }
    }

    /// Every edge that the spans of the run must show.
    #[must_use]
    pub fn edges(&self) -> BTreeMap<Pair, EdgeTruth> {
        let mut edges = BTreeMap::new();
        self.add_entry(&mut edges);
        self.add_gateway(&mut edges);
        self.add_calls(&mut edges);
        self.add_probes(&mut edges);
        edges
    }

    /// How many requests of each public path were traced.
    #[must_use]
    pub fn traced_requests(&self) -> BTreeMap<String, u64> {
        let mut requests = BTreeMap::new();
        for client in self.clients.values().filter(|client| self.traces(&client.ctx)) {
            *requests.entry(public_path(&client.path)).or_default() += 1;
        }
        requests
    }

    fn traces(&self, context: &str) -> bool {
        self.tracer == Tracer::Everything || !matches!(context, "tp00" | "bad")
    }

    fn is_traced(&self, rid: &str) -> bool {
        self.clients.get(rid).is_some_and(|client| self.traces(&client.ctx))
    }

    /// `(client)` to the gateway: every request.
    fn add_entry(&self, edges: &mut BTreeMap<Pair, EdgeTruth>) {
        let edge = edges.entry((CLIENT.to_owned(), GATEWAY.to_owned())).or_default();
        for client in self.clients.values().filter(|client| self.traces(&client.ctx)) {
            edge.calls += 1;
            edge.errors.0 += u64::from(client.status >= 500);
            edge.errors.1 += u64::from(client.status >= 500 || client.status == 0);
            *edge.routes.entry(public_path(&client.path)).or_default() += 1;
        }
        if let Some(errors) = self.logged_errors(&self.gateway_log, |_| true) {
            edge.errors = (errors, errors);
        }
    }

    /// The gateway to the first service: what arrived there. A request that the gateway refused itself never went on.
    fn add_gateway(&self, edges: &mut BTreeMap<Pair, EdgeTruth>) {
        let mut arrived: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for row in &self.apps {
            if let AppRow::Server { call: Some(call), rid, svc } = row
                && call.starts_with("client:")
                && self.is_traced(rid)
            {
                arrived.entry(svc).or_default().insert(rid);
            }
        }
        for (service, requests) in arrived {
            let edge = edges.entry((GATEWAY.to_owned(), service.to_owned())).or_default();
            edge.calls = requests.len() as u64;
            edge.arrivals = Some(edge.calls);
            for rid in requests {
                let client = &self.clients[rid];
                edge.errors.0 += u64::from(client.status >= 500);
                edge.errors.1 += u64::from(client.status >= 500 || client.status == 0);
                *edge.routes.entry(public_path(&client.path)).or_default() += 1;
            }
            let goes_there =
                |row: &LogRow| row.up.is_some() && row.cluster.as_deref().and_then(target) == Some(service);
            if let Some(errors) = self.logged_errors(&self.gateway_log, goes_there) {
                edge.errors = (errors, errors);
            }
        }
    }

    /// Calls between services, and calls that leave through the egress gateway: two edges each.
    fn add_calls(&self, edges: &mut BTreeMap<Pair, EdgeTruth>) {
        let mut arrivals: HashMap<&str, u64> = HashMap::new();
        for row in &self.apps {
            if let AppRow::Server { call: Some(call), .. } = row {
                *arrivals.entry(call).or_default() += 1;
            }
        }
        for row in &self.apps {
            let AppRow::Call { id, rid, src, dst, status, grpc } = row else { continue };
            // Whoever loses the context starts traces of its own, whatever the client had asked for.
            let lost = src == "notify";
            if !lost && !self.is_traced(rid) {
                continue;
            }
            let error = u64::from(failed(*status, *grpc));
            let arrived = arrivals.get(id.as_str()).copied().unwrap_or(0);
            let external = dst.ends_with(".example.com");
            let mut add = |source: &str, target: &str, errors: u64, arrived: Option<u64>| {
                let edge = edges.entry((source.to_owned(), target.to_owned())).or_default();
                edge.calls += 1;
                edge.errors.0 += errors;
                edge.errors.1 += errors;
                edge.arrivals = arrived.map(|arrived| edge.arrivals.unwrap_or(0) + arrived);
                if !lost {
                    *edge.routes.entry(public_path(&self.clients[rid].path)).or_default() += 1;
                }
            };
            if external {
                add(src, EGRESS, error, None);
                add(EGRESS, dst, error, Some(arrived));
            } else {
                add(src, dst, error, Some(arrived));
            }
        }
        for (pair, edge) in edges.iter_mut().filter(|(pair, _)| pair.0 == EGRESS) {
            let lost = edge.routes.is_empty();
            let goes_there = |row: &LogRow| row.cluster.as_deref().and_then(target) == Some(&pair.1);
            let logged = self.egress_log.iter().filter(|row| goes_there(row) && (lost || self.row_is_traced(row)));
            if !self.egress_log.is_empty() {
                let errors = logged.filter(|row| row.code >= 500 || row.code == 0).count() as u64;
                edge.errors = (errors, errors);
            }
        }
    }

    /// A prober asks a sidecar directly: nobody knows who it is.
    fn add_probes(&self, edges: &mut BTreeMap<Pair, EdgeTruth>) {
        for row in &self.apps {
            if let AppRow::Server { call: Some(call), svc, .. } = row
                && call == "probe"
            {
                edges.entry((UNKNOWN.to_owned(), svc.clone())).or_default().calls += 1;
            }
        }
    }

    fn row_is_traced(&self, row: &LogRow) -> bool {
        row.rid.as_deref().is_some_and(|rid| self.is_traced(rid))
    }

    fn logged_errors(&self, log: &[LogRow], counts: impl Fn(&LogRow) -> bool) -> Option<u64> {
        let failed = |row: &&LogRow| row.code >= 500 || row.code == 0;
        let rows = log.iter().filter(|row| self.row_is_traced(row) && counts(row));
        (!log.is_empty()).then(|| rows.filter(failed).count() as u64)
    }
}

fn failed(status: u32, grpc: Option<u32>) -> bool {
    match grpc {
        None | Some(0) => status == 0 || status >= 500,
        Some(code) => GRPC_FAILURES.contains(&code),
    }
}

/// The service or host that an upstream cluster's name stands for: `outbound|8080|v1|orders.shop.svc.cluster.local` is
/// `orders`. Written apart from the product's reader, which is what it judges.
#[must_use]
pub fn target(cluster: &str) -> Option<&str> {
    let host = cluster.trim_end_matches(';').strip_prefix("outbound|")?.split('|').nth(2)?;
    if host.ends_with(".svc.cluster.local") { host.split('.').next() } else { Some(host) }
}

/// What stands for the path of every request that no route took.
const NO_ROUTE: &str = "(no route)";

/// The part of a path that tells the public routes of the recorded mesh apart: `/api/orders/7?x=1` is `/api/orders`. The
/// gateway has routes below `/api` only.
#[must_use]
pub fn public_path(path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let mut parts = path.split('/').skip(1);
    match (parts.next(), parts.next()) {
        (Some("api"), Some(name)) => format!("/api/{name}"),
        _ => NO_ROUTE.to_owned(),
    }
}

fn rows<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let raw = read_zstd(path);
    let lines = raw.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{"));
    lines
        .map(|line| serde_json::from_slice(line).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        .collect()
}

fn optional_rows<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    if path.is_file() { rows(path) } else { Vec::new() }
}

fn json<T: DeserializeOwned>(path: &Path) -> T {
    let raw = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&raw).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
