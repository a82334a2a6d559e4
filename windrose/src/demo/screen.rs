//! What the demo shows: the server's own answers, as one screen.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::fleet::Progress;
use crate::views;

/// Edges shown; a terminal has about this many lines to spare.
const EDGES_SHOWN: usize = 24;

/// What the server said.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) topology: Value,
    pub(crate) routes: Value,
    pub(crate) completeness: Value,
}

/// Whether every kind of node of the mesh is in the answer.
pub(crate) fn is_whole(topology: &Value) -> bool {
    let roles = roles(topology);
    let has = |role: &str| roles.get(role).is_some_and(|count| *count > 0);
    has("gateway") && (has("workload") || has("sidecar")) && has("egress")
}

/// Whether counters have been scraped often enough that most edges show them.
pub(crate) fn has_counters(topology: &Value) -> bool {
    let edges = || topology.get("edges").and_then(Value::as_array).into_iter().flatten();
    let is_counted = |edge: &&Value| edge.pointer("/calls/source").and_then(Value::as_str) == Some("counter");
    2 * edges().filter(is_counted).count() > edges().count()
}

fn roles(topology: &Value) -> BTreeMap<String, usize> {
    let mut roles = BTreeMap::new();
    for node in topology.get("nodes").and_then(Value::as_array).into_iter().flatten() {
        let role = node.get("role").and_then(Value::as_str).unwrap_or("unknown");
        *roles.entry(role.to_owned()).or_default() += 1;
    }
    roles
}

/// The screen.
pub(crate) fn render(answers: &Answers, progress: &Progress, running: Duration, urls: &str) -> String {
    let roles: Vec<String> = roles(&answers.topology).iter().map(|(role, count)| format!("{count} {role}")).collect();
    let edges = views::topology(&answers.topology);
    let hidden = edges.len().saturating_sub(EDGES_SHOWN);
    let more = if hidden > 0 { format!("\n… and {hidden} more edges") } else { String::new() };
    let received = answers.completeness.get("spans_received").and_then(Value::as_u64);
    let received = received.map_or_else(|| "-".to_owned(), |count| count.to_string());
    let lost = match (&progress.last_error, progress.spans_lost) {
        (Some(error), lost) if lost > 0 => format!(" · {lost} not acknowledged ({error})"),
        _ => String::new(),
    };
    format!(
        "windrose demo · {} s · {} spans pushed, {received} received{lost} · {}\n\n{}{more}\n\n{}\n\n{urls}",
        running.as_secs(),
        progress.spans_sent,
        roles.join(", "),
        edges.truncated(EDGES_SHOWN).render(),
        views::routes(&answers.routes).render(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mesh_without_egress_is_not_whole() {
        let nodes =
            |roles: &[&str]| json!({"nodes": roles.iter().map(|role| json!({"role": role})).collect::<Vec<_>>()});
        assert!(is_whole(&nodes(&["gateway", "workload", "egress", "client"])));
        for missing in [&["gateway", "workload"][..], &["workload", "egress"], &["gateway", "egress"], &[]] {
            assert!(!is_whole(&nodes(missing)), "{missing:?}");
        }
        assert!(!is_whole(&Value::Null));
    }
}
