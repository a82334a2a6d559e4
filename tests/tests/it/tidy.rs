//! Rules of the repository that no compiler checks: which crate may use what, who touches the disk and the clock, what
//! every file begins with, which words stay out, and that what is committed describes what is served.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use windrose_tests::places::repository;
use windrose_tests::server::Home;

/// Which of our crates each of our crates may depend on: arrows point one way only.
const MAY_DEPEND_ON: [(&str, &[&str]); 7] = [
    ("windrose-proto", &[]),
    ("windrose-promql", &["windrose-proto"]),
    ("windrose-store", &["windrose-proto"]),
    ("windrose-collector", &["windrose-proto", "windrose-store"]),
    ("windrose-query", &["windrose-proto", "windrose-store", "windrose-promql"]),
    ("windrose", &["windrose-proto", "windrose-store", "windrose-collector", "windrose-query"]),
    ("windrose-tests", &["windrose-proto"]),
];

/// Libraries that may stand only in some crates' own dependencies.
const ONLY_IN: [(&str, &[&str]); 5] = [
    ("datafusion", &["windrose-query"]),
    ("arrow", &["windrose-store", "windrose-query"]),
    ("parquet", &["windrose-store", "windrose-query"]),
    ("object_store", &["windrose-store", "windrose-query"]),
    ("clap", &["windrose"]),
];

/// A text that only some files may contain.
struct Reserved {
    text: &'static str,
    /// Prefixes of paths.
    files: &'static [&'static str],
    why: &'static str,
}

const RESERVED: [Reserved; 4] = [
    Reserved {
        text: "std::fs",
        files: &["store/src/disk", "windrose/src", "collector/src/scrape/discovery", "collector/examples"],
        why: "only store::disk writes files; configuration and discovery read theirs",
    },
    Reserved { text: "SystemTime::now", files: &["proto/src/time.rs"], why: "only proto::time reads the clock" },
    Reserved {
        text: "std::env::var",
        files: &["windrose/src/config"],
        why: "only the configuration reads the environment",
    },
    Reserved {
        text: "std::process::exit",
        files: &["windrose/src/signals.rs"],
        why: "main returns an exit code; only a second signal ends at once",
    },
];

fn metadata() -> Value {
    let arguments = ["metadata", "--format-version=1", "--no-deps", "--offline"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(repository()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Every crate of ours with the names of its dependencies; those of tests and build scripts apart.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let named = packages.iter().map(|package| {
        let dependencies = package["dependencies"].as_array().unwrap();
        let normal = dependencies.iter().filter(|dependency| dependency["kind"].is_null());
        let names = normal.map(|dependency| dependency["name"].as_str().unwrap().to_owned()).collect();
        (package["name"].as_str().unwrap().to_owned(), names)
    });
    named.collect()
}

#[test]
fn dependencies_point_one_way() {
    let crates = dependencies();
    for (name, uses) in &crates {
        let allowed = MAY_DEPEND_ON.iter().find(|(known, _)| known == name);
        let (_, allowed) =
            allowed.unwrap_or_else(|| panic!("say in this test what the new crate {name} may depend on"));
        let ours = uses.iter().filter(|used| crates.contains_key(*used));
        let wrong: Vec<_> = ours.filter(|used| !allowed.contains(&used.as_str())).collect();
        assert!(wrong.is_empty(), "{name} must not depend on {wrong:?}");
    }
}

#[test]
fn heavy_libraries_stay_where_they_belong() {
    for (library, allowed) in ONLY_IN {
        for (name, uses) in dependencies() {
            assert!(!uses.contains(library) || allowed.contains(&name.as_str()), "{name} must not depend on {library}");
        }
    }
}

/// Every file that git knows, with one of the endings.
fn files(endings: &[&str]) -> Vec<(String, String)> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(repository()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).unwrap();
    let wanted = names.split('\0').filter(|name| endings.iter().any(|ending| name.ends_with(ending)));
    let existing = wanted.map(|name| (name.to_owned(), repository().join(name))).filter(|(_, path)| path.is_file());
    existing.map(|(name, path)| (name, read(&path))).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The sources that go into the product.
fn sources() -> Vec<(String, String)> {
    let all = files(&[".rs"]).into_iter();
    all.filter(|(name, _)| !name.starts_with("tests/") && !is_test(name)).collect()
}

fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs") || name.contains("/tests/") || name.contains("/benches/")
}

#[test]
fn reserved_things_stand_where_they_may() {
    for (name, text) in sources() {
        for Reserved { text: reserved, files, why } in RESERVED {
            let product = product_part(&text);
            let found = product.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(reserved));
            let may = files.iter().any(|prefix| name.starts_with(prefix));
            assert!(may || !found, "{name} contains {reserved}: {why}");
        }
    }
}

/// A file without its tests, which stand at its end.
fn product_part(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

#[test]
fn every_source_says_what_it_is() {
    let silent: Vec<_> =
        files(&[".rs"]).into_iter().filter(|(name, text)| !is_test(name) && !text.starts_with("//!")).collect();
    let names: Vec<_> = silent.iter().map(|(name, _)| name).collect();
    assert!(names.is_empty(), "no module doc on top: {names:?}");
}

#[test]
fn nothing_is_left_undone() {
    // Written in two parts, so that this file does not find itself.
    let marks = [["TO", "DO"], ["FIX", "ME"], ["#[ig", "nore"], ["unimple", "mented!"], ["to", "do!("]];
    for (name, text) in files(&[".rs", ".py", ".md", ".yaml", ".yml", ".toml", "run"]) {
        for mark in marks.map(|parts| parts.concat()) {
            assert!(!text.contains(&mark), "{name} contains {mark}");
        }
    }
}

#[test]
fn no_word_of_the_workplace() {
    let words = [["/wo", "rk/"], ["MODEL", ".md"], ["DESIGN", ".md"], ["FIELD", ".md"], ["ENVOY", ".md"]];
    for (name, text) in files(&[".rs", ".py", ".md", ".yaml", ".yml", ".toml", "run"]) {
        for word in words.map(|parts| parts.concat()) {
            assert!(!text.contains(&word), "{name} contains {word}");
        }
    }
}

#[tokio::test]
async fn the_committed_description_is_the_served_one() {
    let committed = openapi_file();
    let server = Home::brisk().start().await;
    let served = server.http().json("/api/v1/openapi.json").await;
    let committed: Value = serde_json::from_str(&read(&committed)).unwrap();
    assert!(committed == served, "commit what /api/v1/openapi.json serves as {}", openapi_file().display());
}

fn openapi_file() -> PathBuf {
    let found = files(&["openapi.json"]);
    assert_eq!(found.len(), 1, "one openapi.json is committed");
    repository().join(&found[0].0)
}
