//! The topology as a picture or a table: Graphviz, Mermaid, CSV.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::answer::{EdgeAnswer, NodeAnswer, TopologyAnswer};

/// Graphviz.
#[must_use]
pub fn dot(topology: &TopologyAnswer) -> String {
    let mut out = String::from("digraph windrose {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n");
    for node in &topology.nodes {
        line(
            &mut out,
            format_args!(
                "  {} [label={}, shape={}];",
                dot_quote(&node.id),
                dot_quote(&node_label(node)),
                dot_shape(node.role)
            ),
        );
    }
    for edge in &topology.edges {
        let label = dot_quote(&edge_label(edge));
        line(&mut out, format_args!("  {} -> {} [label={label}];", dot_quote(&edge.source), dot_quote(&edge.target)));
    }
    out.push_str("}\n");
    out
}

/// Mermaid flowchart.
#[must_use]
pub fn mermaid(topology: &TopologyAnswer) -> String {
    let names: BTreeMap<&str, String> =
        topology.nodes.iter().enumerate().map(|(place, node)| (node.id.as_str(), format!("n{place}"))).collect();
    let mut out = String::from("flowchart LR\n");
    for node in &topology.nodes {
        let label = mermaid_quote(&node_label(node));
        let name = &names[node.id.as_str()];
        match node.role {
            "gateway" | "egress" | "waypoint" => line(&mut out, format_args!("  {name}{{{{{label}}}}}")),
            "external" | "client" => line(&mut out, format_args!("  {name}([{label}])")),
            _ => line(&mut out, format_args!("  {name}[{label}]")),
        }
    }
    for edge in &topology.edges {
        if let (Some(source), Some(target)) = (names.get(edge.source.as_str()), names.get(edge.target.as_str())) {
            line(&mut out, format_args!("  {source} -->|{}| {target}", mermaid_quote(&edge_label(edge))));
        }
    }
    out
}

/// One line per edge.
#[must_use]
pub fn csv(topology: &TopologyAnswer) -> String {
    let mut out = String::from(
        "source,target,direction,protocol,calls,calls_per_second,calls_source,error_ratio,client_p50_ms,client_p90_ms,client_p99_ms,client_max_ms,server_p50_ms,server_p99_ms,coverage_ratio\n",
    );
    for edge in &topology.edges {
        let (client, server) = (&edge.latency_ms.client, &edge.latency_ms.server);
        let source = match edge.calls.source {
            crate::graph::VolumeSource::Counter => "counter",
            crate::graph::VolumeSource::Spans => "spans",
        };
        let cells = [
            csv_quote(&edge.source),
            csv_quote(&edge.target),
            edge.direction.to_owned(),
            edge.protocol.to_owned(),
            edge.calls.total.to_string(),
            edge.calls.per_second.to_string(),
            source.to_owned(),
            number(edge.errors.ratio),
            number(client.p50),
            number(client.p90),
            number(client.p99),
            number(client.max),
            number(server.p50),
            number(server.p99),
            number(edge.evidence.coverage_ratio),
        ];
        line(&mut out, format_args!("{}", cells.join(",")));
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a string cannot fail");
}

fn node_label(node: &NodeAnswer) -> String {
    match node.namespace.as_deref() {
        Some(namespace) => format!("{}\n{namespace} · {}", node.name, node.role),
        None => format!("{}\n{}", node.name, node.role),
    }
}

fn edge_label(edge: &EdgeAnswer) -> String {
    let mut label = format!("{:.1}/s", edge.calls.per_second);
    if let Some(ratio) = edge.errors.ratio.filter(|ratio| *ratio > 0.0) {
        label.push_str(&format!(" {:.1}% err", ratio * 100.0));
    }
    if let Some(p99) = edge.latency_ms.client.p99.or(edge.latency_ms.server.p99) {
        label.push_str(&format!(" p99 {p99:.0}ms"));
    }
    label
}

fn dot_shape(role: &str) -> &'static str {
    match role {
        "gateway" | "egress" | "waypoint" => "hexagon",
        "external" | "client" => "ellipse",
        _ => "box",
    }
}

fn dot_quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn mermaid_quote(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "#quot;").replace('\n', "<br/>"))
}

/// Quoted where RFC 4180 asks for it, and where a spreadsheet would take the text for a formula.
fn csv_quote(text: &str) -> String {
    let risky = text.starts_with(['=', '+', '-', '@']);
    if risky || text.contains([',', '"', '\n']) {
        let prefix = if risky { "'" } else { "" };
        format!("\"{prefix}{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}
