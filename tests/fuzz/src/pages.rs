//! Exposition pages.

use crate::exposition::protobuf::{self, TextPage};
use crate::exposition::{Dialect, Entry, Labels, Parser};

/// Prometheus' text format.
pub fn check_text(page: &[u8]) {
    check(page, Dialect::Text);
}

/// OpenMetrics.
pub fn check_openmetrics(page: &[u8]) {
    check(page, Dialect::OpenMetrics);
}

/// What a page in protobuf is rewritten to can be read, line by line, and stays within its limit.
pub fn check_protobuf(page: &[u8]) {
    const MAX_BYTES: usize = 1 << 20;
    let Ok(TextPage { text, .. }) = protobuf::to_text(page, MAX_BYTES) else { return };
    assert!(text.len() <= MAX_BYTES);
    let mut parser = Parser::new(text.as_bytes(), Dialect::Text);
    if let Some(Err(error)) = parser.find(Result::is_err) {
        panic!("{error}");
    }
    check_text(text.as_bytes());
}

/// Every line yields at most one entry, the walk over labels agrees with their count, and a series
/// read alone, as its cache key stands in the page, is the same series.
fn check(page: &[u8], dialect: Dialect) {
    let lines = page.split(|byte| *byte == b'\n').count();
    let mut entries = 0;
    for entry in Parser::new(page, dialect) {
        entries += 1;
        match entry {
            Ok(Entry::Sample(sample)) => {
                let alone = format!("{} 1\n", sample.series);
                let mut again = Parser::new(alone.as_bytes(), Dialect::Text);
                let Some(Ok(Entry::Sample(again))) = again.next() else { panic!("{alone:?} is no sample") };
                assert_eq!(again.name, sample.name);
                assert_eq!(walk(again.labels), walk(sample.labels));
                if let Some(exemplar) = sample.exemplar {
                    walk(exemplar.labels);
                }
            }
            Ok(Entry::Type { .. } | Entry::Help { .. } | Entry::Unit { .. }) => {}
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    // A missing `# EOF` is the one error that has no line.
    assert!(entries <= lines + 1, "{entries} entries in {lines} lines");
}

fn walk(labels: Labels<'_>) -> Vec<(String, String)> {
    let pairs: Vec<_> = labels.iter().map(|label| (label.name.into_owned(), label.value.into_owned())).collect();
    assert_eq!(pairs.len(), labels.len());
    pairs
}
