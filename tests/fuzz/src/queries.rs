//! PromQL.

use windrose_promql::{ParseOptions, parse_expr, parse_selector};

/// No text makes the parser panic, and what it accepts it prints so that it accepts it again, as
/// the same expression.
pub fn check(query: &str) {
    if let Ok(expr) = parse_expr(query, ParseOptions::ALL) {
        let printed = expr.to_string();
        match parse_expr(&printed, ParseOptions::ALL) {
            Ok(again) => assert_eq!(again.to_string(), printed, "{query:?}"),
            Err(error) => panic!("{query:?} was printed as {printed:?}: {error}"),
        }
    }
    // Both must come to an end; a selector is also an expression.
    if parse_selector(query).is_ok() {
        assert!(parse_expr(query, ParseOptions::ALL).is_ok(), "{query:?}");
    }
}
