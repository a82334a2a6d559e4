#!/usr/bin/env python3
"""A small mesh of real Envoy processes with applications that count: python mesh.py --envoy PATH --out DIR --otlp HOST:PORT

    client -> ingress -> front -> stock                     (the sidecar of front retries a 503 of stock once)
                            \\--> pay -> egress -> partner.example.com   (egress gives up after 0.3 s)

Every workload has an address of its own in 127.0.0.0/8; ports are the same everywhere. Needs Python's standard library only.
What happens to request number i is a function of i, so the run is the same every time:
    i % 10   0-4 /api/shop (stock and pay)   5-7 /api/list (stock)   8 /api/old (410 by the gateway)   9 /nope (404, no route)
    i % 7 == 0   stock answers 503 to the first attempt      i % 21 == 0   and to the second
    i % 11 == 0  the partner answers 500                     i % 13 == 0   the partner answers too late
Steps: start; write DIR/targets.json (file_sd); wait until every proxy was scraped twice; send the requests; wait until every
proxy was scraped twice again; write DIR/truth.json; print "done"; serve on until standard input ends. What a scrape is, is
seen in the proxies' own admin logs. Exit code 1: something did not happen in time (the reason is printed).

truth.json: {"requests": n, "edges": [{"source", "target", "calls", "errors", "arrivals"}]}, counted by the client and the
applications: calls and errors as the caller saw them, arrivals as the callee did (retries are arrivals).
"""
import argparse
import collections
import concurrent.futures
import ctypes
import http.client
import http.server
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

ADMIN, OUTBOUND, INBOUND, APP, GATEWAY = 15000, 15001, 15006, 8080, 8080
PARTNER = "partner.example.com"
PARTNER_DEADLINE = 0.3
COLLECTOR = "outbound|4317||collector.observability.svc.cluster.local"
TYPE = "type.googleapis.com/envoy."
PROPAGATED = ("traceparent", "tracestate", "x-request-id", "x-number")
LIMIT_SECONDS = 60


class Workload:
    def __init__(self, name, last, namespace, kind):
        self.name, self.last, self.namespace, self.kind = name, last, namespace, kind
        self.pod = f"{name}-7c6f8b7d4f-x2x9k"

    def bind(self, subnet):
        self.ip = f"{subnet}.{self.last}"
        kind = "sidecar" if self.kind == "sidecar" else "router"
        self.node_id = f"{kind}~{self.ip}~{self.pod}.{self.namespace}~{self.namespace}.svc.cluster.local"


WORKLOADS = {w.name: w for w in (
    Workload("ingress", 10, "edge", "gateway"), Workload("front", 11, "shop", "sidecar"), Workload("stock", 12, "shop", "sidecar"),
    Workload("pay", 13, "shop", "sidecar"), Workload("egress", 18, "edge", "egress"), Workload("partner", 21, "", "external"))}
CLIENT_LAST = 9
PROXIES = [w for w in WORKLOADS.values() if w.kind != "external"]


def cluster_name(name):
    if name == "partner":
        return f"outbound|80||{PARTNER}"
    return f"outbound|8080||{name}.{WORKLOADS[name].namespace}.svc.cluster.local"


# ---- Envoy's configuration, in the shape that Istio gives it

def address(ip, port):
    return {"socket_address": {"address": ip, "port_value": port}}


def cluster(name, ip, port, source=None):
    found = {"name": name, "alt_stat_name": name + ";", "type": "STATIC", "connect_timeout": "1s",
             "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(ip, port)}}]}]}}
    if source:
        found["upstream_bind_config"] = {"source_address": {"address": source, "port_value": 0}}
    return found


def collector(otlp):
    ip, port = otlp.rsplit(":", 1)
    found = cluster(COLLECTOR, ip, int(port))
    found["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}}
    return found


def tracing(w):
    tags = (("istio.canonical_service", w.name), ("istio.canonical_revision", "v1"), ("istio.mesh_id", "cluster.local"), ("istio.namespace", w.namespace))
    return {"client_sampling": {"value": 100}, "overall_sampling": {"value": 100}, "random_sampling": {"value": 100},
            "spawn_upstream_span": w.kind != "sidecar", "custom_tags": [{"tag": k, "literal": {"value": v}} for k, v in tags],
            "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": {
                "@type": TYPE + "config.trace.v3.OpenTelemetryConfig", "service_name": f"{w.name}.{w.namespace}",
                "grpc_service": {"timeout": "5s", "envoy_grpc": {"cluster_name": COLLECTOR, "authority": "collector.observability.svc.cluster.local"}}}}}


def listener(w, port, direction, hosts):
    manager = {"@type": TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
               "stat_prefix": f"{direction.lower()}_0.0.0.0_{port};", "codec_type": "AUTO", "use_remote_address": w.kind == "gateway",
               "tracing": tracing(w), "route_config": {"virtual_hosts": hosts},
               "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": TYPE + "extensions.filters.http.router.v3.Router"}}]}
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {"name": f"{w.ip}_{port}", "address": address(w.ip, port), "traffic_direction": direction, "filter_chains": [{"filters": filters}]}


def route(target, prefix="/", **more):
    return {"match": {"prefix": prefix}, "route": {"cluster": cluster_name(target), **more}, "decorator": {"operation": f"{target}:8080{prefix}*"}}


def host(name, domains, routes):
    return {"name": name, "domains": domains, "routes": routes, "include_request_attempt_count": not name.startswith("inbound")}


def retried():
    return {"retry_on": "retriable-status-codes", "retriable_status_codes": [503], "num_retries": 1}


def gateway(w):
    routes = [route("front", "/api/shop", timeout="5s"), route("front", "/api/list", timeout="5s"),
              {"match": {"prefix": "/api/old"}, "direct_response": {"status": 410}}]
    return [listener(w, GATEWAY, "OUTBOUND", [host("public", ["*"], routes)])], [cluster(cluster_name("front"), WORKLOADS["front"].ip, INBOUND, w.ip)]


def egress(w):
    routes = [route("partner", timeout=f"{PARTNER_DEADLINE}s")]
    return [listener(w, GATEWAY, "OUTBOUND", [host("partner", ["*"], routes)])], [cluster(cluster_name("partner"), WORKLOADS["partner"].ip, APP, w.ip)]


def sidecar(w):
    own = cluster("inbound|8080||", w.ip, APP)
    inbound = host("inbound|http|8080", ["*"], [{"match": {"prefix": "/"}, "route": {"cluster": "inbound|8080||", "timeout": "0s"}}])
    hosts, clusters = [], [own]
    for target in {"front": ("stock", "pay"), "pay": ("egress",)}.get(w.name, ()):
        domains = [PARTNER] if target == "egress" else [f"{target}.shop"]
        retry = {"retry_policy": retried()} if target == "stock" else {}
        hosts.append(host(target, domains, [route(target, timeout="5s", **retry)]))
        clusters.append(cluster(cluster_name(target), WORKLOADS[target].ip, GATEWAY if target == "egress" else INBOUND, w.ip))
    return [listener(w, INBOUND, "INBOUND", [inbound]), listener(w, OUTBOUND, "OUTBOUND", hosts)], clusters


STATS_TAGS = (("cluster_name", r"^cluster(\.(.+);)"), ("http_conn_manager_prefix", r"^http\.(((?:[_.[:digit:]\w]*));\.)"),
              ("response_code", r"_rq(_(\d{3}))$"), ("response_code_class", r"_rq(_(\dxx))$"))


def bootstrap(w, out, otlp):
    listeners, clusters = {"gateway": gateway, "egress": egress, "sidecar": sidecar}[w.kind](w)
    log = {"name": "envoy.access_loggers.file", "typed_config": {
        "@type": TYPE + "extensions.access_loggers.file.v3.FileAccessLog", "path": admin_log(w, out),
        "log_format": {"text_format_source": {"inline_string": "%REQ(:PATH)%\n"}}}}
    return {"node": {"id": w.node_id, "cluster": f"{w.name}.{w.namespace}"}, "admin": {"address": address(w.ip, ADMIN), "access_log": [log]},
            "static_resources": {"listeners": listeners, "clusters": clusters + [collector(otlp)]},
            "stats_config": {"use_all_default_tags": False, "stats_tags": [{"tag_name": k, "regex": v} for k, v in STATS_TAGS]},
            "layered_runtime": {"layers": [{"name": "static", "static_layer": {"tracing.opentelemetry.flush_interval_ms": 500}}]}}


def admin_log(w, out):
    return os.path.join(out, f"{w.name}.admin.log")


# ---- applications

class Counts:
    """Who called whom, how often, with what result; and what arrived."""

    def __init__(self):
        self.lock = threading.Lock()
        self.calls, self.errors, self.arrivals = collections.Counter(), collections.Counter(), collections.Counter()

    def call(self, source, target, status):
        with self.lock:
            self.calls[source, target] += 1
            self.errors[source, target] += status >= 500 or status == 0

    def fail(self, source, target):
        with self.lock:
            self.errors[source, target] += 1

    def arrive(self, source, target):
        with self.lock:
            self.arrivals[source, target] += 1


def fetch(ip, port, host, path, headers, source=None):
    """The status of a request; 0 when nobody answered."""
    connection = http.client.HTTPConnection(ip, port, timeout=10, source_address=source)
    try:
        connection.request("GET", path, headers={"host": host, **headers})
        response = connection.getresponse()
        response.read()
        return response.status
    except OSError:
        return 0
    finally:
        connection.close()


class Applications:
    def __init__(self, counts):
        self.counts = counts

    def call(self, w, target, host, path, headers):
        status = fetch(w.ip, OUTBOUND, host, path, headers)
        self.counts.call(w.name, target, status)
        return status

    def front(self, w, path, headers, number, _):
        self.counts.arrive("ingress", "front")
        worst = self.call(w, "stock", "stock.shop", f"/items/{number}", headers)
        if path.startswith("/api/shop"):
            worst = max(worst, self.call(w, "pay", "pay.shop", "/charges", headers))
        failed = worst >= 500
        if failed:
            self.counts.fail("ingress", "front")
        return 502 if failed else 200

    def stock(self, w, path, headers, number, attempt):
        self.counts.arrive("front", "stock")
        return 503 if number % 21 == 0 or number % 7 == 0 and attempt == 1 else 200

    def pay(self, w, path, headers, number, _):
        self.counts.arrive("front", "pay")
        status = fetch(w.ip, OUTBOUND, PARTNER, "/v1/charges", headers)
        self.counts.call("pay", "egress", status)
        self.counts.call("egress", PARTNER, status)
        return 200 if status == 200 else 502

    def partner(self, w, path, headers, number, _):
        self.counts.arrive("egress", PARTNER)
        if number % 13 == 0:
            time.sleep(PARTNER_DEADLINE * 2)
        return 500 if number % 11 == 0 else 200

    def serve(self, w):
        answer = getattr(self, w.name)

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                headers = {k: self.headers[k] for k in PROPAGATED if self.headers[k]}
                attempt = int(self.headers.get("x-envoy-attempt-count", "1"))
                status = answer(w, self.path, headers, int(self.headers.get("x-number", "0")), attempt)
                try:
                    self.send_response(status)
                    self.send_header("content-length", "3")
                    self.end_headers()
                    self.wfile.write(b"ok\n")
                except OSError:
                    self.close_connection = True

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_):
                """Proxies drop connections when they give up; that is part of the run."""

        threading.Thread(target=Server((w.ip, APP), Handler).serve_forever, daemon=True).start()


# ---- the run

def die_with_parent():
    ctypes.CDLL("libc.so.6").prctl(1, signal.SIGKILL)


def wait(what, condition):
    """Looks until a condition holds."""
    end = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"waited {LIMIT_SECONDS} s for {what}")
        time.sleep(0.05)


def free_subnet():
    """Three octets below which nothing listens on our ports: another mesh may be running."""
    draw = random.Random(os.getpid())
    for _ in range(50):
        subnet = f"127.{draw.randrange(64, 250)}.{draw.randrange(1, 250)}"
        try:
            for w in WORKLOADS.values():
                for port in (ADMIN, OUTBOUND, INBOUND, APP):
                    with socket.socket() as s:
                        s.bind((f"{subnet}.{w.last}", port))
            return subnet
        except OSError:
            continue
    sys.exit("no free addresses in 127.0.0.0/8")


def scrapes(w, out):
    try:
        with open(admin_log(w, out)) as f:
            return sum(line.startswith("/stats/prometheus") for line in f)
    except FileNotFoundError:
        return 0


def wait_for_scrapes(out):
    before = {w.name: scrapes(w, out) for w in PROXIES}
    wait("every proxy to be scraped twice", lambda: all(scrapes(w, out) >= before[w.name] + 2 for w in PROXIES))


def send(number, subnet, counts):
    kind = number % 10
    path = "/api/shop" if kind < 5 else "/api/list" if kind < 8 else "/api/old" if kind == 8 else "/nope"
    headers = {"x-number": str(number), "user-agent": "shop-app/1.0"}
    status = fetch(WORKLOADS["ingress"].ip, GATEWAY, "shop.example.com", f"{path}/{number}", headers, (f"{subnet}.{CLIENT_LAST}", 0))
    counts.call("(client)", "ingress", status)


def targets():
    return [{"targets": [f"{w.ip}:{ADMIN}"], "labels": {"__metrics_path__": "/stats/prometheus", "pod": w.pod, "app": w.name, "version": "v1",
                                                        "namespace": w.namespace, "kind": w.kind}} for w in PROXIES]


def truth(requests, counts):
    pairs = sorted(set(counts.calls) | set(counts.arrivals))
    rows = [{"source": s, "target": t, "calls": counts.calls.get((s, t)) or counts.arrivals[s, t], "errors": counts.errors[s, t],
             "arrivals": counts.arrivals.get((s, t))} for s, t in pairs]
    return {"requests": requests, "edges": rows}


def write(path, value):
    """At once, so that nobody reads half of it."""
    with open(path + ".new", "w") as f:
        json.dump(value, f, indent=1)
    os.rename(path + ".new", path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envoy", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--otlp", required=True)
    parser.add_argument("--requests", type=int, default=300)
    o = parser.parse_args()
    subnet, counts, processes = free_subnet(), Counts(), []
    for w in WORKLOADS.values():
        w.bind(subnet)
    applications = Applications(counts)
    for w in WORKLOADS.values():
        if w.kind in ("sidecar", "external"):
            applications.serve(w)
    try:
        for w in PROXIES:
            config = os.path.join(o.out, f"{w.name}.json")
            write(config, bootstrap(w, o.out, o.otlp))
            processes.append(subprocess.Popen(
                [o.envoy, "-c", config, "--disable-hot-restart", "--concurrency", "1", "--log-path", os.path.join(o.out, f"{w.name}.log"),
                 "--log-level", "warning", "--file-flush-interval-msec", "100"], preexec_fn=die_with_parent, stdin=subprocess.DEVNULL))
        for w in PROXIES:
            wait(f"{w.name} to be ready", lambda w=w: fetch(w.ip, ADMIN, "admin", "/ready", {}) == 200)
        write(os.path.join(o.out, "targets.json"), targets())
        wait_for_scrapes(o.out)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: send(number, subnet, counts), range(1, o.requests + 1)))
        wait_for_scrapes(o.out)
        write(os.path.join(o.out, "truth.json"), truth(o.requests, counts))
        print("done", flush=True)
        sys.stdin.read()
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(10)


if __name__ == "__main__":
    main()
