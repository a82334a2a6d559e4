//! Error texts against a table of upstream cases, when it is at hand beside the repository.

use std::path::{Path, PathBuf};

use windrose_promql::{ParseOptions, parse_expr};

/// Cases that must agree: all of them.
const FLOOR: usize = 236;

fn table() -> Option<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("shared/prometheus/parse_cases.json"))
        .find(|file| file.is_file())
}

#[test]
fn parser_agrees_with_the_table() {
    let Some(file) = table() else {
        println!("skipped: no file shared/prometheus/parse_cases.json beside the repository");
        return;
    };
    // One case holds a byte that is not UTF-8, written as a lone surrogate, which JSON here refuses; whoever decodes
    // such a query replaces the byte, as this does.
    let text = std::fs::read_to_string(file).unwrap().replace("\\udcff", "\\ufffd");
    let cases: serde_json::Value = serde_json::from_str(&text).unwrap();
    let cases = cases.as_array().unwrap();
    let mut agreed = 0;
    for case in cases {
        let query = case["query"].as_str().unwrap();
        let outcome = parse_expr(query, ParseOptions::ALL);
        let verdict = match (&outcome, case["fail"].as_bool().unwrap()) {
            (Ok(_), false) => Ok(()),
            (Ok(expr), true) => Err(format!("accepted as {expr}, want {}", case["err"])),
            (Err(error), false) => Err(format!("refused: {error}")),
            (Err(error), true) if error.message.contains(case["err"].as_str().unwrap_or("")) => Ok(()),
            (Err(error), true) => Err(format!("{error}, want {}", case["err"])),
        };
        match verdict {
            Ok(()) => agreed += 1,
            Err(message) => println!("{query}: {message}"),
        }
    }
    println!("parse cases: {agreed} of {}", cases.len());
    assert!(agreed >= FLOOR.min(cases.len()), "{agreed} agree, want {FLOOR}");
}
