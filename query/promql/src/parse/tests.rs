//! Tables for the parser, and the printer as its inverse.

use super::*;

#[track_caller]
fn check_error(query: &str, expect: &str) {
    let error = parse_expr(query, ParseOptions::ALL).map(|expr| expr.to_string()).unwrap_err();
    assert_eq!(error.to_string(), expect, "{query}");
}

#[track_caller]
fn check_print(query: &str, expect: &str) {
    let expr = parse_expr(query, ParseOptions::ALL).unwrap_or_else(|error| panic!("{query}: {error}"));
    assert_eq!(expr.to_string(), expect);
    let again = parse_expr(expect, ParseOptions::ALL).unwrap_or_else(|error| panic!("{expect}: {error}"));
    assert_eq!(again.to_string(), expect, "printing is stable");
}

#[test]
fn errors_name_the_place() {
    check_error("", "1:1: parse error: no expression found in input");
    check_error("1+", "1:3: parse error: unexpected end of input");
    check_error("sum(", "1:5: parse error: unclosed left parenthesis");
    check_error("foo bar", "1:5: parse error: unexpected identifier \"bar\"");
    check_error("1 == 1", "1:3: parse error: comparisons between scalars must use BOOL modifier");
    check_error("nosuch(foo)", "1:1: parse error: unknown function with name \"nosuch\"");
    check_error(
        "rate(foo)",
        "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
    );
    check_error("foo\n  + {", "2:6: parse error: unexpected end of input inside braces");
    check_error("foo[0m]", "1:5: parse error: duration must be greater than 0");
    check_error("sum(x) by test", "1:11: parse error: unexpected identifier \"test\" in grouping opts, expected \"(\"");
}

#[test]
fn experimental_parts_need_their_option() {
    for (query, expect) in [
        ("limitk(1, x)", "experimental"),
        ("mad_over_time(x[5m])", "is not enabled"),
        ("x[5m] smoothed", "experimental and not enabled"),
        ("x + fill(0) y", "experimental and not enabled"),
    ] {
        let error = parse_expr(query, ParseOptions::default()).map(|expr| expr.to_string()).unwrap_err();
        assert!(error.message.contains(expect), "{query}: {error}");
    }
}

#[test]
fn printing_is_canonical() {
    check_print("SUM(x) BY (job, a)", "sum by (job, a) (x)");
    check_print("sum without() (x)", "sum without () (x)");
    check_print("foo/bar", "foo / bar");
    check_print("a*on(x,y)group_left(z)b", "a * on (x, y) group_left (z) b");
    check_print("x{b=\"2\",a=~'1'}[90m] offset -5m", "x{a=~\"1\",b=\"2\"}[1h30m] offset -5m");
    check_print("x[5m:] @ start()", "x[5m:] @ start()");
    check_print("{\"utf8 name\", \"a b\"=\"c\"}", "{\"a b\"=\"c\",__name__=\"utf8 name\"}");
    check_print("foo[2m*(step()+5)]", "foo[2m * (step() + 5)]");
    check_print("-1^2", "-1 ^ 2");
    check_print("foo @ 3.3333", "foo @ 3.333");
    check_print("x == bool 1", "x == bool 1");
    check_print("1e3 + Inf", "1000 + +Inf");
}

#[test]
fn precedence_is_that_of_the_grammar() {
    fn shape(expr: &Expr) -> String {
        match expr {
            Expr::Binary(node) => format!("({} {} {})", shape(&node.lhs), node.op.as_str(), shape(&node.rhs)),
            Expr::Unary(node) => format!("(-{})", shape(&node.expr)),
            other => other.to_string(),
        }
    }
    for (query, expect) in [
        ("a + b * c ^ d ^ e", "(a + (b * (c ^ (d ^ e))))"),
        ("a or b and c", "(a or (b and c))"),
        ("-a ^ b", "(-(a ^ b))"),
        ("-a * b", "((-a) * b)"),
        ("a - b - c", "((a - b) - c)"),
        ("a offset 2 ^ b", "(a offset 2s ^ b)"),
    ] {
        let expr = parse_expr(query, ParseOptions::ALL).unwrap();
        assert_eq!(shape(&expr), expect, "{query}");
    }
}

#[test]
fn long_queries_are_split_over_lines() {
    let query = format!("sum by (job) (rate({}[5m])) / on (job) foo", "x".repeat(95));
    let expr = parse_expr(&query, ParseOptions::ALL).unwrap();
    let expect = format!("  sum by (job) (\n    rate(\n      {}[5m]\n    )\n  )\n/ on (job)\n  foo", "x".repeat(95));
    assert_eq!(crate::print::pretty(&expr), expect);
}

#[test]
fn nesting_is_bounded() {
    let deep = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(parse_expr(&deep, ParseOptions::ALL).unwrap_err().message.contains("too deeply"));
    let chain = "a + ".repeat(100_000) + "a";
    assert!(parse_expr(&chain, ParseOptions::ALL).unwrap_err().message.contains("too many operators"));
    let durations = format!("a[{}1]", "1+".repeat(100_000));
    assert!(parse_expr(&durations, ParseOptions::ALL).unwrap_err().message.contains("too many operators"));
    let signs = "-".repeat(100_000) + "x";
    assert!(parse_expr(&signs, ParseOptions::ALL).unwrap_err().message.contains("too deeply"));
}

#[test]
fn an_infinite_base_is_printed_without_a_sign() {
    for text in ["Inf ^ x", "1e999 ^ -x", "a % 5e999 ^ b"] {
        let printed = parse_expr(text, ParseOptions::ALL).unwrap().to_string();
        assert!(printed.contains("Inf ^") && !printed.contains('+'), "{printed}");
        assert_eq!(parse_expr(&printed, ParseOptions::ALL).unwrap().to_string(), printed);
    }
    assert_eq!(parse_expr("x ^ Inf", ParseOptions::ALL).unwrap().to_string(), "x ^ +Inf");
}

#[test]
fn selectors_take_no_range() {
    assert_eq!(parse_selector("temp[5m]").unwrap_err().to_string(), "1:5: parse error: unexpected \"[\"");
    assert_eq!(parse_selector("{a=\"b\"}").unwrap().len(), 1);
}

proptest::proptest! {
    /// No text makes the parser panic, and what it accepts it prints so that it accepts it again.
    #[test]
    fn any_text_is_parsed_or_refused(text in "[a-z0-9(){}\\[\\]\"'`=~!<>+*/^%@:,. \\\\-]{0,40}") {
        if let Ok(expr) = parse_expr(&text, ParseOptions::ALL) {
            let printed = expr.to_string();
            let again = parse_expr(&printed, ParseOptions::ALL).map(|expr| expr.to_string());
            proptest::prop_assert_eq!(again, Ok(printed));
        }
    }
}
