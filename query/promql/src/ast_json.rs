//! The tree as the JSON that `/api/v1/parse_query` returns.

use serde_json::{Value, json};

use crate::ast::{At, Duration, Expr, VectorSelector};
use crate::number::format_fixed;
use windrose_proto::metric::matcher::Matcher;

/// Translates a tree.
pub fn to_json(expr: &Expr) -> Value {
    match expr {
        Expr::Number(node) => json!({"type": "numberLiteral", "val": format_fixed(node.value)}),
        Expr::String(node) => json!({"type": "stringLiteral", "val": node.value}),
        Expr::Vector(node) => selector(node, "vectorSelector", None),
        Expr::Matrix(node) => selector(&node.vector, "matrixSelector", Some(&node.range)),
        Expr::Subquery(node) => json!({
            "type": "subquery",
            "expr": to_json(&node.expr),
            "range": node.range.millis(),
            "offset": node.offset.millis(),
            "step": node.step.millis(),
            "timestamp": timestamp(node.at),
            "startOrEnd": start_or_end(node.at),
        }),
        Expr::Call(node) => json!({
            "type": "call",
            "func": {
                "name": node.function.name,
                "argTypes": node.function.args.iter().map(|arg| arg.api()).collect::<Vec<_>>(),
                "variadic": node.function.variadic,
                "returnType": node.function.returns.api(),
            },
            "args": node.args.iter().map(to_json).collect::<Vec<_>>(),
        }),
        Expr::Aggregate(node) => json!({
            "type": "aggregation",
            "op": node.op.as_str(),
            "expr": to_json(&node.expr),
            "param": node.param.as_ref().map(to_json),
            "grouping": node.grouping,
            "without": node.without,
        }),
        Expr::Binary(node) => json!({
            "type": "binaryExpr",
            "op": node.op.as_str(),
            "lhs": to_json(&node.lhs),
            "rhs": to_json(&node.rhs),
            "matching": node.matching.as_ref().map(|matching| json!({
                "card": matching.cardinality.as_str(),
                "labels": matching.labels,
                "on": matching.on,
                "include": matching.include,
                "fillValues": {"lhs": matching.fill_left, "rhs": matching.fill_right},
            })),
            "bool": node.return_bool,
        }),
        Expr::Unary(node) => json!({
            "type": "unaryExpr",
            "op": if node.negate { "-" } else { "+" },
            "expr": to_json(&node.expr),
        }),
        Expr::Paren(node) => json!({"type": "parenExpr", "expr": to_json(&node.expr)}),
    }
}

fn selector(node: &VectorSelector, kind: &str, range: Option<&Duration>) -> Value {
    let mut value = json!({
        "type": kind,
        "name": node.name,
        "offset": node.offset.millis(),
        "matchers": node.matchers.iter().map(matcher).collect::<Vec<_>>(),
        "timestamp": timestamp(node.at),
        "startOrEnd": start_or_end(node.at),
        "anchored": node.extension == crate::ast::Extension::Anchored,
        "smoothed": node.extension == crate::ast::Extension::Smoothed,
    });
    if let Some(range) = range {
        value["range"] = json!(range.millis());
    }
    value
}

fn matcher(matcher: &Matcher) -> Value {
    json!({"name": matcher.name, "value": matcher.value, "type": matcher.op.as_str()})
}

fn timestamp(at: Option<At>) -> Option<i64> {
    match at {
        Some(At::Timestamp(millis)) => Some(millis),
        _ => None,
    }
}

fn start_or_end(at: Option<At>) -> Option<&'static str> {
    match at {
        Some(At::Start) => Some("start"),
        Some(At::End) => Some("end"),
        _ => None,
    }
}
