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
    // Selectors alone may say what no query may, for example nothing; each must come to an end.
    drop(parse_selector(query));
}
