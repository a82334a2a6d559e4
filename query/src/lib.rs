//! Topology, latency, traces, SQL and the HTTP API over the store.
