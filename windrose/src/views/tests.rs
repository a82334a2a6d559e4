use serde_json::json;

use super::*;

#[test]
fn edges_are_named_by_their_nodes_and_unknown_numbers_are_dashes() {
    let data = json!({
        "nodes": [
            {"id": "n1", "name": "ingress", "namespace": "istio-system"},
            {"id": "n2", "name": "orders", "namespace": "shop", "version": "v1"},
        ],
        "edges": [
            {"source": "n2", "target": "(unknown)", "direction": "unknown", "calls": {"per_second": 0.5, "source": "spans"},
             "errors": {"ratio": null}, "latency_ms": {"client": null, "server": {"p50": 3.0}}},
            {"source": "n1", "target": "n2", "direction": "north_south", "calls": {"per_second": 41.25, "source": "counter"},
             "errors": {"ratio": 0.0041}, "latency_ms": {"client": {"p50": 4.12, "p99": 61.0, "max": 2004.0}},
             "evidence": {"coverage_ratio": 0.0098, "confidence": "high"}},
        ],
    });
    let text = topology(&data).render();
    let rows: Vec<Vec<&str>> =
        text.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
    assert_eq!(
        rows[1],
        [
            "istio-system/ingress",
            "→",
            "shop/orders@v1",
            "north_south",
            "41.25",
            "counter",
            "0.4 %",
            "4.1",
            "61.0",
            "2004.0",
            "1.0 %",
            "high"
        ]
    );
    assert_eq!(
        rows[2],
        ["shop/orders@v1", "→", "(unknown)", "unknown", "0.50", "spans", "-", "3.0", "-", "-", "-", "-"]
    );
}

#[test]
fn an_answer_of_another_shape_is_an_empty_table_not_a_panic() {
    for odd in [json!(null), json!([]), json!({"edges": 3}), json!("text"), json!({"edges": [null, 7]})] {
        for view in [topology, latency_series, routes, egress, services, trace, completeness] {
            assert!(!view(&odd).render().is_empty());
        }
    }
}
