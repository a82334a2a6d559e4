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

/// The series of `/api/v1/latency`.
#[must_use]
pub fn latency_series(data: &Value) -> Table {
    let mut table = Table::new(&[
        ("TIME", Left),
        ("COUNT", Right),
        ("ERRORS", Right),
        ("MEAN MS", Right),
        ("QUANTILES MS", Left),
        ("MAX MS", Right),
    ]);
    let points = ["/series", "/points", "/steps"].iter().find_map(|place| data.pointer(place)?.as_array());
    for point in points.into_iter().flatten() {
        table.push(vec![
            first_text(point, &["/time", "/start", "/window_start", "/t"]),
            plain(point, "/count"),
            plain(point, "/errors"),
            first_decimal(point, &["/mean_ms", "/latency_ms/mean"], 1),
            quantiles(point),
            first_decimal(point, &["/max_ms", "/latency_ms/max"], 1),
        ]);
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
    for route in list_or_self(data, "/routes") {
        table.push(vec![
            first_text(route, &["/route", "/name"]),
            text(route, "/host"),
            first_plain(route, &["/requests/total", "/requests", "/calls/total"]),
            percent(route, "/success_ratio"),
            latency(route, "p50"),
            latency(route, "p99"),
            latency(route, "max"),
            names(route, &["/services", "/reaches"]),
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
    for row in list_or_self(data, "/egress") {
        table.push(vec![
            first_text(row, &["/host", "/target"]),
            first_text(row, &["/caller", "/source"]),
            first_text(row, &["/route", "/entry_route"]),
            first_plain(row, &["/calls/total", "/calls"]),
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
    for service in list_or_self(data, "/services") {
        table.push(vec![
            first_text(service, &["/name", "/service", "/id"]),
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
    for hop in list_or_self(data, "/hops") {
        table.push(vec![
            end_name(hop, "/source"),
            "→".to_owned(),
            end_name(hop, "/destination"),
            text(hop, "/direction"),
            first_plain(hop, &["/http_status", "/status"]),
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
    for proxy in list_or_self(data, "/proxies") {
        table.push(vec![
            first_text(proxy, &["/service", "/name", "/proxy"]),
            text(proxy, "/namespace"),
            text(proxy, "/proxy_kind"),
            first_plain(proxy, &["/reported_sent", "/sent"]),
            plain(proxy, "/received"),
            plain(proxy, "/stored"),
            plain(proxy, "/duplicate"),
            plain(proxy, "/late"),
            first_percent(proxy, &["/completeness_ratio", "/complete_ratio"]),
        ]);
    }
    table
}

fn list<'v>(data: &'v Value, pointer: &str) -> impl Iterator<Item = &'v Value> {
    data.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// The list at `pointer`, or the answer itself where it is the list.
fn list_or_self<'v>(data: &'v Value, pointer: &str) -> impl Iterator<Item = &'v Value> {
    data.pointer(pointer).unwrap_or(data).as_array().into_iter().flatten()
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
    let name = part("name").or_else(|| part("service")).or_else(|| part("id")).unwrap_or(UNKNOWN);
    let namespace = part("namespace").map(|namespace| format!("{namespace}/")).unwrap_or_default();
    let version = part("version").map(|version| format!("@{version}")).unwrap_or_default();
    format!("{namespace}{name}{version}")
}

fn end_name(hop: &Value, pointer: &str) -> String {
    match hop.pointer(pointer) {
        Some(Value::String(name)) => name.clone(),
        Some(node @ Value::Object(_)) => qualified_name(node),
        _ => UNKNOWN.to_owned(),
    }
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or(UNKNOWN).to_owned()
}

fn first_text(value: &Value, pointers: &[&str]) -> String {
    pointers.iter().map(|pointer| text(value, pointer)).find(|found| found != UNKNOWN).unwrap_or_else(unknown)
}

fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NEG_INFINITY)
}

fn decimal(value: &Value, pointer: &str, digits: usize) -> String {
    value.pointer(pointer).and_then(Value::as_f64).map_or_else(unknown, |number| format!("{number:.digits$}"))
}

fn first_decimal(value: &Value, pointers: &[&str], digits: usize) -> String {
    pointers.iter().map(|at| decimal(value, at, digits)).find(|found| found != UNKNOWN).unwrap_or_else(unknown)
}

fn plain(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) => text.clone(),
        _ => unknown(),
    }
}

fn first_plain(value: &Value, pointers: &[&str]) -> String {
    pointers.iter().map(|at| plain(value, at)).find(|found| found != UNKNOWN).unwrap_or_else(unknown)
}

fn percent(value: &Value, pointer: &str) -> String {
    let ratio = value.pointer(pointer).and_then(Value::as_f64);
    ratio.map_or_else(unknown, |ratio| format!("{:.1} %", ratio * 100.0))
}

fn first_percent(value: &Value, pointers: &[&str]) -> String {
    pointers.iter().map(|at| percent(value, at)).find(|found| found != UNKNOWN).unwrap_or_else(unknown)
}

/// What the caller waited; where only the callee was seen, what the callee took.
fn latency(value: &Value, which: &str) -> String {
    let places = ["/latency_ms/client/", "/latency_ms/server/", "/latency_ms/"].map(|place| format!("{place}{which}"));
    first_decimal(value, &places.each_ref().map(String::as_str), 1)
}

fn quantiles(point: &Value) -> String {
    let found = ["/quantiles_ms", "/quantiles"].iter().find_map(|place| point.pointer(place)?.as_object());
    let shown = found.into_iter().flatten().map(|(quantile, value)| {
        let value = value.as_f64().map_or_else(unknown, |number| format!("{number:.1}"));
        format!("{quantile}={value}")
    });
    shown.collect::<Vec<_>>().join(" ")
}

fn names(value: &Value, pointers: &[&str]) -> String {
    let items = pointers.iter().find_map(|place| value.pointer(place)?.as_array());
    let shown = items.into_iter().flatten().map(|item| match item {
        Value::String(name) => name.clone(),
        Value::Object(_) if item.get("version").is_some() && item.get("name").is_none() => text(item, "/version"),
        other => qualified_name(other),
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn unknown() -> String {
    UNKNOWN.to_owned()
}
