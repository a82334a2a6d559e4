//! What tests of several modules need: data that is kept outside the repository.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Pages and documents of other projects and data too large to ship: a file or folder of them, when
/// they are on this machine. `TESTS_SHARED` names the place, as for the tests of the whole product.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let base = variable("TESTS_SHARED").map_or_else(beside, PathBuf::from);
    let found = base.join(path);
    found.try_exists().unwrap_or(false).then_some(found)
}

/// Says that a test could not run and why, in the output and in the file that `tests/run` counts.
pub(crate) fn skip(test: &str, reason: &str) {
    println!("skipped {test}: {reason}");
    let binary = std::env::current_exe().unwrap();
    let profile = binary.parent().and_then(Path::parent).unwrap();
    let mut file = OpenOptions::new().create(true).append(true).open(profile.join("tests-skipped.txt")).unwrap();
    file.write_all(format!("{test}: {reason}\n").as_bytes()).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "the tests' own switch; the product is configured by files and flags")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
