//! Type checks over a parsed tree, in the order Prometheus makes them.

use super::{Parsed, fault};
use crate::ast::{Binary, Call, Cardinality, Expr, Span, ValueType, VectorSelector};
use windrose_proto::metric::labels::METRIC_NAME;
use windrose_proto::metric::quote::quote;

/// Checks a tree and settles the matching of its binary operators. Returns its type.
pub(super) fn check(expr: &mut Expr, input: &str) -> Parsed<ValueType> {
    let span = expr.span();
    match expr {
        Expr::Number(_) | Expr::String(_) => {}
        Expr::Aggregate(node) => {
            expect(&mut node.expr, ValueType::Vector, "aggregation expression", input)?;
            if let Some(param) = &mut node.param {
                let wanted =
                    if node.op == crate::ast::AggregateOp::CountValues { ValueType::String } else { ValueType::Scalar };
                expect(param, wanted, "aggregation parameter", input)?;
            }
        }
        Expr::Binary(node) => check_binary(node, span, input)?,
        Expr::Call(node) => check_call(node, input)?,
        Expr::Paren(node) => {
            check(&mut node.expr, input)?;
        }
        Expr::Unary(node) => {
            let inner = check(&mut node.expr, input)?;
            if !matches!(inner, ValueType::Scalar | ValueType::Vector) {
                return fault(
                    span,
                    format!(
                        "unary expression only allowed on expressions of type scalar or instant vector, got {}",
                        quote(inner.documented())
                    ),
                );
            }
        }
        Expr::Subquery(node) => {
            let inner = check(&mut node.expr, input)?;
            if inner != ValueType::Vector {
                return fault(span, format!("subquery is only allowed on instant vector, got {} instead", inner.api()));
            }
        }
        Expr::Matrix(node) => check_selector(&node.vector)?,
        Expr::Vector(node) => check_selector(node)?,
    }
    Ok(expr.value_type())
}

fn expect(expr: &mut Expr, wanted: ValueType, context: &str, input: &str) -> Parsed<()> {
    let got = check(expr, input)?;
    if got != wanted {
        let message = format!("expected type {} in {context}, got {}", wanted.documented(), got.documented());
        return fault(expr.span(), message);
    }
    Ok(())
}

fn check_binary(node: &mut Binary, span: Span, input: &str) -> Parsed<()> {
    let left = check(&mut node.lhs, input)?;
    let right = check(&mut node.rhs, input)?;
    let operator = operator_span(node, input);
    if node.return_bool && !node.op.is_comparison() {
        return fault(operator, "bool modifier can only be used on comparison operators");
    }
    let both_scalar = left == ValueType::Scalar && right == ValueType::Scalar;
    if node.op.is_comparison() && !node.return_bool && both_scalar {
        return fault(operator, "comparisons between scalars must use BOOL modifier");
    }
    let Some(matching) = &mut node.matching else { return Ok(()) };
    if node.op.is_set() && matching.cardinality == Cardinality::OneToOne {
        matching.cardinality = Cardinality::ManyToMany;
    }
    if matching.on
        && let Some(label) = matching.labels.iter().find(|label| matching.include.contains(label))
    {
        let message = format!("label {} must not occur in ON and GROUP clause at once", quote(label));
        return fault(operator, message);
    }
    for (side, value_type) in [(&node.lhs, left), (&node.rhs, right)] {
        if !matches!(value_type, ValueType::Scalar | ValueType::Vector) {
            return fault(side.span(), "binary expression must contain only scalar and instant vector types");
        }
    }
    let has_fill = matching.fill_left.is_some() || matching.fill_right.is_some();
    if left != ValueType::Vector || right != ValueType::Vector {
        if !matching.labels.is_empty() {
            return fault(span, "vector matching only allowed between instant vectors");
        }
        if has_fill {
            return fault(span, "filling in missing series only allowed between instant vectors");
        }
        node.matching = None;
        if node.op.is_set() {
            let message = format!("set operator {} not allowed in binary scalar expression", quote(node.op.as_str()));
            return fault(span, message);
        }
    } else if node.op.is_set() {
        if matching.cardinality != Cardinality::ManyToMany {
            return fault(span, format!("no grouping allowed for {} operation", quote(node.op.as_str())));
        }
        if has_fill {
            return fault(span, "filling in missing series not allowed for set operators");
        }
    }
    Ok(())
}

/// The operator itself: what lies between the operands, without blanks before it.
fn operator_span(node: &Binary, input: &str) -> Span {
    let (mut start, end) = (node.lhs.span().end, node.rhs.span().start);
    while start < end && input.as_bytes()[start].is_ascii_whitespace() {
        start += 1;
    }
    Span { start, end }
}

fn check_call(node: &mut Call, input: &str) -> Parsed<()> {
    let (function, count) = (node.function, node.args.len());
    let name = quote(function.name);
    let listed = function.args.len();
    if function.variadic == 0 {
        if listed != count {
            return fault(node.span, format!("expected {listed} argument(s) in call to {name}, got {count}"));
        }
    } else {
        let least = listed - 1;
        if count < least {
            return fault(node.span, format!("expected at least {least} argument(s) in call to {name}, got {count}"));
        }
        let most = usize::try_from(function.variadic).ok().map(|extra| least + extra);
        if let Some(most) = most
            && count > most
        {
            return fault(node.span, format!("expected at most {most} argument(s) in call to {name}, got {count}"));
        }
    }
    if function.name == "info" {
        check_info_selector(node)?;
    }
    for (index, arg) in node.args.iter_mut().enumerate() {
        let wanted = function.args[index.min(listed - 1)];
        let got = check(arg, input)?;
        if got != wanted {
            let message =
                format!("expected type {} in call to function {name}, got {}", wanted.documented(), got.documented());
            return fault(arg.span(), message);
        }
    }
    Ok(())
}

/// The second argument of `info` selects labels, not a metric.
fn check_info_selector(node: &mut Call) -> Parsed<()> {
    let span = node.span;
    let Some(selector) = node.args.get_mut(1) else { return Ok(()) };
    if selector.value_type() != ValueType::Vector {
        let got = selector.value_type().documented();
        return fault(span, format!("expected type instant vector in call to function \"info\", got {got}"));
    }
    match selector {
        Expr::Vector(selector) if selector.name.is_empty() => {
            selector.allow_empty = true;
            Ok(())
        }
        Expr::Vector(selector) => fault(selector.span, "expected label selectors only, got vector selector instead"),
        other => fault(other.span(), "expected label selectors only"),
    }
}

fn check_selector(node: &VectorSelector) -> Parsed<()> {
    if !node.name.is_empty() {
        // The last matcher is the one of the name outside the braces.
        let others = &node.matchers[..node.matchers.len() - 1];
        if let Some(second) = others.iter().find(|matcher| matcher.name == METRIC_NAME) {
            let message =
                format!("metric name must not be set twice: {} or {}", quote(&node.name), quote(&second.value));
            return fault(node.span, message);
        }
        return Ok(());
    }
    if !node.allow_empty && node.matchers.iter().all(|matcher| matcher.matches("")) {
        return fault(node.span, "vector selector must contain at least one non-empty matcher");
    }
    Ok(())
}
