#!/usr/bin/env python3
"""Makes the captures in this folder from the full ones: python trim.py CAPTURES_DIR

A capture is what real Envoys sent and served (container WRC1, layout in ../src/capture.rs), together with what the
client and the applications of the same run logged. The full captures are far larger than a test needs, so this keeps
  full      the first 600 of 3000 requests, whole: every span of their traces, every truth record that names them; and of the
            nine Prometheus pages the first and the last, which count the whole run, with the run's own totals
  variants  all requests (240 or fewer); pages only where a test reads them
Truth records lose the fields that no test reads. The same input gives the same bytes: run it twice and compare.
Needs: pip install zstandard opentelemetry-proto
"""
import io
import json
import os
import struct
import sys

import zstandard
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

FULL_REQUESTS = 600
VARIANTS_WITH_PAGES = ("plain", "pushed-metrics")
# Captured with OTLP access logs; folder here -> folder there.
WITH_LOGS = {"access-logs": "als-metrics"}
VARIANTS = ("spawn-all", "spawn-none", "plain", "app-spans", "zipkin-shared", "add-user-agent", "pushed-metrics",
            "pushed-deltas")
GRPC_TRACES, GRPC_LOGS, GRPC_METRICS, ZIPKIN, PROMETHEUS_TEXT = 1, 2, 3, 4, 10
CLIENT_FIELDS = ("rid", "ctx", "trace", "method", "path", "route", "status", "start", "end")
CALL_FIELDS = ("k", "id", "rid", "src", "sver", "dst", "op", "status", "grpc", "start", "end", "trace")
SERVER_FIELDS = ("k", "call", "rid", "svc", "ver", "op", "status", "grpc", "start", "end", "trace")
LOG_FIELDS = ("rid", "l", "cluster", "code", "flags", "up", "us")


def unpacked(path):
    for candidate in (path, path + ".zst"):
        if os.path.exists(candidate):
            with open(candidate, "rb") as f:
                raw = f.read()
            if candidate.endswith(".zst"):
                return zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(io.BytesIO(raw)).read()
            return raw
    return None


def pack(path, raw):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(zstandard.ZstdCompressor(level=19, write_content_size=True).compress(raw))


def records(raw):
    assert raw[:4] == b"WRC1", "not a WRC1 container"
    at = 4
    while at < len(raw):
        arrival, kind, meta_len = struct.unpack_from("<QBH", raw, at)
        at += 11
        meta = raw[at:at + meta_len]
        at += meta_len
        (body_len,) = struct.unpack_from("<I", raw, at)
        at += 4
        yield arrival, kind, json.loads(meta), raw[at:at + body_len]
        at += body_len


def container(rows):
    out = io.BytesIO()
    out.write(b"WRC1")
    for arrival, kind, meta, body in rows:
        meta = json.dumps(meta, separators=(",", ":")).encode()
        out.write(struct.pack("<QBH", arrival, kind, len(meta)) + meta + struct.pack("<I", len(body)) + body)
    return out.getvalue()


def lines(raw):
    for line in (raw or b"").splitlines():
        if line.startswith(b"{"):
            yield json.loads(line)


def jsonl(rows):
    return b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows)


def fields(row, names):
    return {name: row[name] for name in names if name in row}


def kept_spans(body, traces):
    request = ExportTraceServiceRequest.FromString(body)
    kept = 0
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            spans = [span for span in scope.spans if span.trace_id.hex() in traces]
            kept += len(spans)
            del scope.spans[:]
            scope.spans.extend(spans)
    return request.SerializeToString(deterministic=True) if kept else None


def truth(source, target, wanted):
    """Copies the truth of the wanted requests; returns the traces that belong to them."""
    client = [r for r in lines(unpacked(f"{source}/truth/client.jsonl")) if r["rid"] in wanted]
    apps = [r for r in lines(unpacked(f"{source}/truth/apps.jsonl")) if r["rid"] in wanted]
    pack(f"{target}/truth/client.jsonl.zst", jsonl(fields(r, CLIENT_FIELDS) for r in client))
    pack(f"{target}/truth/apps.jsonl.zst", jsonl(fields(r, CALL_FIELDS if r["k"] == "call" else SERVER_FIELDS) for r in apps))
    traces = {r["trace"] for r in client + apps if r.get("trace")}
    for name in ("ingress", "egress"):
        log = [r for r in lines(unpacked(f"{source}/accesslog/{name}.jsonl")) if r["rid"] in wanted]
        if log:
            pack(f"{target}/accesslog/{name}.jsonl.zst", jsonl(fields(r, LOG_FIELDS) for r in log))
            traces |= {r["trace"] for r in log if r.get("trace")}
    return traces


def describe(source, target):
    """The run's workloads and Envoy's own totals per proxy and cluster."""
    with open(f"{source}/run.json") as f:
        run = json.load(f)
    with open(f"{source}/truth.json") as f:
        whole = json.load(f)
    os.makedirs(target, exist_ok=True)
    with open(f"{target}/run.json", "w") as f:
        json.dump({"workloads": run["workloads"]}, f, indent=1)
        f.write("\n")
    with open(f"{target}/truth.json", "w") as f:
        json.dump({"requests": whole["meta"]["requests"], "proxies": whole["proxies"]}, f, indent=1)
        f.write("\n")


def pages(source, target):
    """The first and the last text page of every proxy."""
    by_proxy = {}
    for arrival, kind, meta, body in records(unpacked(f"{source}/capture/prom.bin")):
        if kind == PROMETHEUS_TEXT and body:
            by_proxy.setdefault(meta["name"], []).append((arrival, kind, {"name": meta["name"]}, body))
    rows = sorted((page for pages in by_proxy.values() for page in (pages[0], pages[-1])), key=lambda row: row[0])
    pack(f"{target}/capture/prom.bin.zst", container(rows))


def trim(source, target, requests, kinds=(GRPC_TRACES, GRPC_METRICS, ZIPKIN)):
    rids = sorted(r["rid"] for r in lines(unpacked(f"{source}/truth/client.jsonl")))
    traces = truth(source, target, set(rids[:requests]))
    rows = []
    for arrival, kind, _, body in records(unpacked(f"{source}/capture/otlp.bin")):
        if kind == GRPC_TRACES and requests < len(rids):
            body = kept_spans(body, traces)
        if body and kind in kinds:
            rows.append((arrival, kind, {}, body))
    pack(f"{target}/capture/otlp.bin.zst", container(rows))
    describe(source, target)


def main():
    here, captures = os.path.dirname(os.path.abspath(__file__)), sys.argv[1]
    trim(f"{captures}/full", f"{here}/full", FULL_REQUESTS)
    pages(f"{captures}/full", f"{here}/full")
    for name in VARIANTS:
        trim(f"{captures}/variants/{name}", f"{here}/{name}", sys.maxsize)
        if name in VARIANTS_WITH_PAGES:
            pages(f"{captures}/variants/{name}", f"{here}/{name}")
    for name, source in WITH_LOGS.items():
        trim(f"{captures}/variants/{source}", f"{here}/{name}", sys.maxsize, (GRPC_TRACES, GRPC_LOGS))


if __name__ == "__main__":
    main()
