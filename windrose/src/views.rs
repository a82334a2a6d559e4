//! Answers of the API as tables. Every function takes the `data` of one answer.
//!
//! Absent numbers are shown as `-`: the API says `null` for what is not known, never 0.

use serde_json::Value;

use crate::table::Align::{Left, Right};
use crate::table::Table;

#[cfg(test)]
mod tests;

/// What stands for an unknown number.
const UNKNOWN: &str = "-";

/// The edges of `/api/v1/topology`, busiest first.
#[must_use]
pub fn topology(data: &Value) -> Table {
    let mut table = Table::new(&[
        ("SOURCE", Left),
        ("", Left),
        ("TARGET", Left),
        ("DIRECTION", Left),
        ("CALLS/S", Right),
        ("FROM", Left),
        ("ERRORS", Right),
        ("P50 MS", Right),
        ("P99 MS", Right),
        ("MAX MS", Right),
        ("COVERAGE", Right),
        ("CONFIDENCE", Left),
    ]);
    let mut edges: Vec<&Value> = list(data, "/edges").collect();
    edges.sort_by(|a, b| number(b, "/calls/per_second").total_cmp(&number(a, "/calls/per_second")));
    for edge in edges {
        table.push(vec![
            node_name(data, edge, "/source"),
            "→".to_owned(),
            node_name(data, edge, "/target"),
            text(edge, "/direction"),
            decimal(edge, "/calls/per_second", 2),
            text(edge, "/calls/source"),
            percent(edge, "/errors/ratio"),
            latency(edge, "p50"),
            latency(edge, "p99"),
            latency(edge, "max"),
            percent(edge, "/evidence/coverage_ratio"),
            text(edge, "/evidence/confidence"),
        ]);
    }
    table
}

/// `/api/v1/latency`: the whole range first, then its steps.
#[must_use]
pub fn latency_series(data: &Value) -> Table {
    let mut table = Table::new(&[
        ("TIME", Left),
        ("CALLS", Right),
        ("ERRORS", Right),
        ("MEAN MS", Right),
        ("QUANTILES MS", Left),
        ("MAX MS", Right),
    ]);
    let row = |time: String, point: &Value| {
        vec![
            time,
            plain(point, "/calls"),
            plain(point, "/errors"),
            decimal(point, "/mean_ms", 1),
            quantiles(point),
            decimal(point, "/max_ms", 1),
        ]
    };
    table.push(row("all".to_owned(), data));
    for point in list(data, "/series") {
        table.push(row(text(point, "/time"), point));
    }
    table
}

/// The routes of `/api/v1/routes`.
#[must_use]
pub fn routes(data: &Value) -> Table {
    let mut table = Table::new(&[
        ("ROUTE", Left),
        ("HOST", Left),
        ("REQUESTS", Right),
        ("SUCCESS", Right),
        ("P50 MS", Right),
        ("P99 MS", Right),
        ("MAX MS", Right),
        ("REACHES", Left),
    ]);
    for route in list(data, "/routes") {
        table.push(vec![
            text(route, "/route"),
            text(route, "/host"),
            plain(route, "/requests"),
            percent(route, "/success_ratio"),
            latency(route, "p50"),
            latency(route, "p99"),
            latency(route, "max"),
            short_names(route, &["/services", "/egress_hosts"]),
        ]);
    }
    table
}

/// The external hosts of `/api/v1/egress`.
#[must_use]
pub fn egress(data: &Value) -> Table {
    let mut table = Table::new(&[
        ("HOST", Left),
        ("CALLER", Left),
        ("ROUTE", Left),
        ("CALLS", Right),
        ("SUCCESS", Right),
        ("MEAN MS", Right),
        ("P99 MS", Right),
        ("MAX MS", Right),
    ]);
    for row in list(data, "/egress") {
        table.push(vec![
            text(row, "/host"),
            text(row, "/caller"),
            text(row, "/route"),
            plain(row, "/calls"),
            percent(row, "/success_ratio"),
            latency(row, "mean"),
            latency(row, "p99"),
            latency(row, "max"),
        ]);
    }
    table
}

/// The inventory of `/api/v1/services`.
#[must_use]
pub fn services(data: &Value) -> Table {
    let mut table = Table::new(&[
        ("SERVICE", Left),
        ("NAMESPACE", Left),
        ("ROLE", Left),
        ("PROXY", Left),
        ("VERSIONS", Left),
        ("IN/S", Right),
        ("OUT/S", Right),
        ("ERRORS", Right),
    ]);
    for service in list(data, "/services") {
        table.push(vec![
            text(service, "/name"),
            text(service, "/namespace"),
            text(service, "/role"),
            text(service, "/proxy_kind"),
            names(service, &["/versions"]),
            decimal(service, "/in/per_second", 2),
            decimal(service, "/out/per_second", 2),
            percent(service, "/in/error_ratio"),
        ]);
    }
    table
}

/// The hops of `/api/v1/traces/{id}` in the order they began.
#[must_use]
pub fn trace(data: &Value) -> Table {
    let mut table = Table::new(&[
        ("SOURCE", Left),
        ("", Left),
        ("TARGET", Left),
        ("DIRECTION", Left),
        ("STATUS", Right),
        ("CLIENT MS", Right),
        ("SERVER MS", Right),
        ("SEEN BY", Left),
        ("WHY", Left),
    ]);
    for hop in list(data, "/hops") {
        table.push(vec![
            text(hop, "/source"),
            "→".to_owned(),
            text(hop, "/target"),
            text(hop, "/direction"),
            plain(hop, "/http_status"),
            decimal(hop, "/client_ms", 1),
            decimal(hop, "/server_ms", 1),
            text(hop, "/reporters"),
            names(hop, &["/reasons"]),
        ]);
    }
    table
}

/// The proxies of `/api/v1/completeness`.
#[must_use]
pub fn completeness(data: &Value) -> Table {
    let mut table = Table::new(&[
        ("PROXY", Left),
        ("NAMESPACE", Left),
        ("KIND", Left),
        ("SAYS SENT", Right),
        ("RECEIVED", Right),
        ("STORED", Right),
        ("DUPLICATE", Right),
        ("LATE", Right),
        ("COMPLETE", Right),
    ]);
    for proxy in list(data, "/reporters") {
        table.push(vec![
            text(proxy, "/service"),
            text(proxy, "/namespace"),
            text(proxy, "/proxy_kind"),
            plain(proxy, "/spans_reported_sent"),
            plain(proxy, "/spans_received"),
            plain(proxy, "/spans_stored"),
            plain(proxy, "/spans_duplicate"),
            plain(proxy, "/spans_late"),
            percent(proxy, "/completeness_ratio"),
        ]);
    }
    table
}

fn list<'v>(data: &'v Value, pointer: &str) -> impl Iterator<Item = &'v Value> {
    data.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// The readable name of the node an edge refers to by id.
fn node_name(data: &Value, edge: &Value, pointer: &str) -> String {
    let Some(id) = edge.pointer(pointer).and_then(Value::as_str) else {
        return UNKNOWN.to_owned();
    };
    let node = list(data, "/nodes").find(|node| node.get("id").and_then(Value::as_str) == Some(id));
    node.map_or_else(|| id.to_owned(), qualified_name)
}

/// `namespace/name@version`, as far as it is known.
fn qualified_name(node: &Value) -> String {
    let part = |key: &str| node.get(key).and_then(Value::as_str).filter(|part| !part.is_empty());
    let name = part("name").unwrap_or(UNKNOWN);
    let namespace = part("namespace").map(|namespace| format!("{namespace}/")).unwrap_or_default();
    let version = part("version").map(|version| format!("@{version}")).unwrap_or_default();
    format!("{namespace}{name}{version}")
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or(UNKNOWN).to_owned()
}

fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NEG_INFINITY)
}

fn decimal(value: &Value, pointer: &str, digits: usize) -> String {
    value.pointer(pointer).and_then(Value::as_f64).map_or_else(unknown, |number| format!("{number:.digits$}"))
}

fn plain(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) => text.clone(),
        _ => unknown(),
    }
}

fn percent(value: &Value, pointer: &str) -> String {
    let ratio = value.pointer(pointer).and_then(Value::as_f64);
    ratio.map_or_else(unknown, |ratio| format!("{:.1} %", ratio * 100.0))
}

/// What the caller waited; where only the callee was seen, what the callee took.
fn latency(value: &Value, which: &str) -> String {
    let places = ["/latency_ms/client/", "/latency_ms/server/", "/latency_ms/"].map(|place| format!("{place}{which}"));
    let shown = places.iter().map(|place| decimal(value, place, 1));
    shown.into_iter().find(|shown| shown != UNKNOWN).unwrap_or_else(unknown)
}

fn quantiles(point: &Value) -> String {
    let found = point.get("quantiles_ms").and_then(Value::as_object);
    let shown = found.into_iter().flatten().map(|(quantile, value)| {
        let value = value.as_f64().map_or_else(unknown, |number| format!("{number:.1}"));
        format!("{quantile}={value}")
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// The texts of all lists at `pointers`.
fn names(value: &Value, pointers: &[&str]) -> String {
    let items = pointers.iter().flat_map(|pointer| list(value, pointer));
    items.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

/// The same without clusters and namespaces, which the other views show.
fn short_names(value: &Value, pointers: &[&str]) -> String {
    let items = pointers.iter().flat_map(|pointer| list(value, pointer)).filter_map(Value::as_str);
    items.map(|name| name.rsplit_once('/').map_or(name, |(_, last)| last)).collect::<Vec<_>>().join(", ")
}

fn unknown() -> String {
    UNKNOWN.to_owned()
}
