//! A tree as text: one line ([`std::fmt::Display`]) or broken over lines as `format_query` does ([`pretty`]).

use std::fmt;

use crate::ast::{
    Aggregate, At, Binary, BinaryOp, Cardinality, Duration, DurationExpr, Expr, Extension, MatrixSelector,
    NumberLiteral, Subquery, VectorSelector,
};
use crate::duration;
use crate::number::{format_fixed, format_general};
use windrose_proto::metric::labels::{METRIC_NAME, is_legacy_label_name};
use windrose_proto::metric::matcher::MatchOp;
use windrose_proto::metric::quote::quote;

/// A line longer than this is split where the tree allows it.
const MAX_LINE_CHARS: usize = 100;

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(node) => f.write_str(&number(node)),
            Self::String(node) => f.write_str(&node.quoted()),
            Self::Vector(node) => write!(f, "{node}"),
            Self::Matrix(node) => write!(f, "{node}"),
            Self::Subquery(node) => write!(f, "{}{}", node.expr, subquery_suffix(node)),
            Self::Call(node) => {
                write!(f, "{}(", node.function.name)?;
                for (index, arg) in node.args.iter().enumerate() {
                    if index > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{arg}")?;
                }
                f.write_str(")")
            }
            Self::Aggregate(node) => {
                write!(f, "{}(", aggregate_head(node))?;
                if let Some(param) = &node.param {
                    write!(f, "{param}, ")?;
                }
                write!(f, "{})", node.expr)
            }
            Self::Binary(node) if has_infinite_base(node) => write!(f, "Inf {} {}", operator(node), node.rhs),
            Self::Binary(node) => write!(f, "{} {} {}", node.lhs, operator(node), node.rhs),
            Self::Unary(node) => write!(f, "{}{}", if node.negate { "-" } else { "+" }, node.expr),
            Self::Paren(node) => write!(f, "({})", node.expr),
        }
    }
}

impl fmt::Display for VectorSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_series(f, self)?;
        f.write_str(&at_suffix(self.at))?;
        f.write_str(extension_suffix(self.extension))?;
        f.write_str(&offset_suffix(&self.offset))
    }
}

impl fmt::Display for MatrixSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_series(f, &self.vector)?;
        write!(f, "[{}]", duration_text(&self.range))?;
        f.write_str(extension_suffix(self.vector.extension))?;
        f.write_str(&at_suffix(self.vector.at))?;
        f.write_str(&offset_suffix(&self.vector.offset))
    }
}

fn write_series(f: &mut fmt::Formatter<'_>, node: &VectorSelector) -> fmt::Result {
    f.write_str(&node.name)?;
    let implied = |name: &str, op: MatchOp, value: &str| {
        name == METRIC_NAME && op == MatchOp::Equal && value == node.name && !value.is_empty()
    };
    let mut matchers: Vec<String> = node
        .matchers
        .iter()
        .filter(|matcher| !implied(&matcher.name, matcher.op, &matcher.value))
        .map(ToString::to_string)
        .collect();
    if matchers.is_empty() {
        return if node.name.is_empty() { f.write_str("{}") } else { Ok(()) };
    }
    matchers.sort();
    write!(f, "{{{}}}", matchers.join(","))
}

fn number(node: &NumberLiteral) -> String {
    if !node.is_duration {
        return format_fixed(node.value);
    }
    let text = duration::format(duration::from_seconds(node.value.abs()).unwrap_or(duration::MAX_DURATION_MS));
    if node.value < 0.0 { format!("-{text}") } else { text }
}

fn at_suffix(at: Option<At>) -> String {
    match at {
        None => String::new(),
        Some(At::Start) => " @ start()".to_owned(),
        Some(At::End) => " @ end()".to_owned(),
        Some(At::Timestamp(millis)) => format!(" @ {:.3}", millis as f64 / 1000.0),
    }
}

fn extension_suffix(extension: Extension) -> &'static str {
    match extension {
        Extension::None => "",
        Extension::Anchored => " anchored",
        Extension::Smoothed => " smoothed",
    }
}

fn offset_suffix(offset: &Duration) -> String {
    if offset.is_set() { format!(" offset {}", duration_text(offset)) } else { String::new() }
}

fn duration_text(duration: &Duration) -> String {
    match duration {
        Duration::Millis(millis) => duration::format(*millis),
        Duration::Expr(expr) => duration_expr(expr),
    }
}

fn duration_expr(expr: &DurationExpr) -> String {
    match expr {
        DurationExpr::Number(node) => number(node),
        DurationExpr::Step => "step()".to_owned(),
        DurationExpr::Range => "range()".to_owned(),
        DurationExpr::Negate(inner) => format!("-{}", duration_expr(inner)),
        DurationExpr::Binary(op, lhs, rhs) => {
            format!("{} {} {}", duration_expr(lhs), op.as_str(), duration_expr(rhs))
        }
        DurationExpr::Min(lhs, rhs) => format!("min_of({}, {})", duration_expr(lhs), duration_expr(rhs)),
        DurationExpr::Max(lhs, rhs) => format!("max_of({}, {})", duration_expr(lhs), duration_expr(rhs)),
        DurationExpr::Paren(inner) => format!("({})", duration_expr(inner)),
    }
}

fn subquery_suffix(node: &Subquery) -> String {
    let step = if node.step.is_set() { duration_text(&node.step) } else { String::new() };
    format!("[{}:{step}]{}{}", duration_text(&node.range), at_suffix(node.at), offset_suffix(&node.offset))
}

fn label_list(labels: &[String]) -> String {
    let quoted: Vec<String> =
        labels.iter().map(|label| if is_legacy_label_name(label) { label.clone() } else { quote(label) }).collect();
    quoted.join(", ")
}

fn aggregate_head(node: &Aggregate) -> String {
    let name = node.op.as_str();
    if node.without {
        format!("{name} without ({}) ", label_list(&node.grouping))
    } else if node.grouping.is_empty() {
        name.to_owned()
    } else {
        format!("{name} by ({}) ", label_list(&node.grouping))
    }
}

/// `+Inf ^ x` would be read as `+(Inf ^ x)`, and be printed with one more sign each time.
fn has_infinite_base(node: &Binary) -> bool {
    let is_infinite = |number: &NumberLiteral| number.value == f64::INFINITY;
    node.op == BinaryOp::Pow && matches!(&node.lhs, Expr::Number(number) if is_infinite(number))
}

/// The operator with its modifiers.
fn operator(node: &Binary) -> String {
    let mut out = node.op.as_str().to_owned();
    if node.return_bool {
        out.push_str(" bool");
    }
    let Some(matching) = &node.matching else { return out };
    let grouped = matches!(matching.cardinality, Cardinality::ManyToOne | Cardinality::OneToMany);
    if !matching.labels.is_empty() || matching.on || grouped {
        let tag = if matching.on { "on" } else { "ignoring" };
        out.push_str(&format!(" {tag} ({})", label_list(&matching.labels)));
    }
    if grouped {
        let side = if matching.cardinality == Cardinality::ManyToOne { "left" } else { "right" };
        out.push_str(&format!(" group_{side} ({})", label_list(&matching.include)));
    }
    match (matching.fill_left, matching.fill_right) {
        (Some(left), Some(right)) if left.to_bits() == right.to_bits() => {
            out.push_str(&format!(" fill ({})", format_general(left)));
        }
        (left, right) => {
            for (side, value) in [("left", left), ("right", right)] {
                if let Some(value) = value {
                    out.push_str(&format!(" fill_{side} ({})", format_general(value)));
                }
            }
        }
    }
    out
}

/// The query broken over lines where it is longer than a line.
pub fn pretty(expr: &Expr) -> String {
    let mut out = String::new();
    write_pretty(&mut out, expr, 0);
    out
}

fn write_pretty(out: &mut String, expr: &Expr, level: usize) {
    let flat = expr.to_string();
    let splits = matches!(
        expr,
        Expr::Aggregate(_) | Expr::Binary(_) | Expr::Call(_) | Expr::Paren(_) | Expr::Subquery(_) | Expr::Unary(_)
    );
    if !splits || flat.chars().count() <= MAX_LINE_CHARS {
        indent(out, level);
        out.push_str(&flat);
        return;
    }
    match expr {
        Expr::Aggregate(node) => {
            indent(out, level);
            out.push_str(&aggregate_head(node));
            out.push_str("(\n");
            if let Some(param) = &node.param {
                write_pretty(out, param, level + 1);
                out.push_str(",\n");
            }
            write_pretty(out, &node.expr, level + 1);
            close(out, level);
        }
        Expr::Binary(node) => {
            write_pretty(out, &node.lhs, level + 1);
            out.push('\n');
            indent(out, level);
            out.push_str(&operator(node));
            out.push('\n');
            write_pretty(out, &node.rhs, level + 1);
        }
        Expr::Call(node) => {
            indent(out, level);
            out.push_str(node.function.name);
            out.push_str("(\n");
            for (index, arg) in node.args.iter().enumerate() {
                if index > 0 {
                    out.push_str(",\n");
                }
                write_pretty(out, arg, level + 1);
            }
            close(out, level);
        }
        Expr::Paren(node) => {
            indent(out, level);
            out.push_str("(\n");
            write_pretty(out, &node.expr, level + 1);
            close(out, level);
        }
        Expr::Subquery(node) => {
            write_pretty(out, &node.expr, level);
            out.push_str(&subquery_suffix(node));
        }
        Expr::Unary(node) => {
            let mut child = String::new();
            write_pretty(&mut child, &node.expr, level);
            indent(out, level);
            out.push(if node.negate { '-' } else { '+' });
            out.push_str(child.trim_start_matches(' '));
        }
        Expr::Number(_) | Expr::String(_) | Expr::Vector(_) | Expr::Matrix(_) => out.push_str(&flat),
    }
}

fn indent(out: &mut String, level: usize) {
    out.extend(std::iter::repeat_n("  ", level));
}

fn close(out: &mut String, level: usize) {
    out.push('\n');
    indent(out, level);
    out.push(')');
}
