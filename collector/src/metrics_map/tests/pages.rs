//! Pages of every proxy: nothing on them is lost, and what is mapped counts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use windrose_proto::time::UnixNanos;

use super::families::{ModelRow, model, reason_not_to_count};
use super::{Options, Scraped};
use crate::exposition::{Dialect, Entry, Parser};
use crate::metrics_map::Page;
use crate::metrics_map::bind::{self, Bound, Context};
use crate::metrics_map::table::Part;
use crate::tests::{shared, skip};

/// A line of a page as this test reads it: the metric's name and the value.
#[derive(Debug, PartialEq)]
struct Sample<'a> {
    name: &'a str,
    /// As bits: some values are no numbers.
    value: u64,
}

/// Reads a sample without our parser; `None` for prose, remarks and blank lines.
fn sample(line: &str) -> Option<Sample<'_>> {
    let line = line.trim();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'.');
    let end = line.bytes().position(|byte| !is_name(byte))?;
    let (name, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let rest = if rest.starts_with('{') { rest.get(labels_length(rest)?..)? } else { rest };
    let value: f64 = rest.split_whitespace().next()?.parse().ok()?;
    let is_metric = name.starts_with(|first: char| first.is_ascii_alphabetic() || "_:".contains(first));
    is_metric.then(|| Sample { name, value: bits(value) })
}

/// All that is not a number is one.
fn bits(value: f64) -> u64 {
    if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }
}

/// Bytes up to and with the brace that closes the labels, which may hold braces too.
fn labels_length(text: &str) -> Option<usize> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b'}' if !is_quoted => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// What our parser makes of the same page.
fn parsed(page: &[u8], dialect: Dialect) -> (Vec<(String, u64)>, Vec<String>) {
    let (mut samples, mut errors) = (Vec::new(), Vec::new());
    for entry in Parser::new(page, dialect) {
        match entry {
            Ok(Entry::Sample(sample)) => samples.push((sample.name.into_owned(), bits(sample.value))),
            Ok(_) => {}
            Err(error) => errors.push(error.to_string()),
        }
    }
    (samples, errors)
}

/// Every exposition page of the collection. `.raw` ones are cut out of manuals, prose and all.
fn pages(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if [".prom", ".prom.raw", ".prom.txt", ".om.txt"].iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn no_line_of_a_page_is_lost() {
    let Some(root) = shared("proxies") else {
        return skip("pages of every proxy: no line is lost", "TESTS_SHARED names no folder with proxies");
    };
    let pages = pages(&root);
    assert!(pages.len() >= 30, "{} pages", pages.len());
    for path in pages {
        let page = std::fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&page);
        let lines: Vec<Sample<'_>> =
            text.lines().filter(|line| !line.trim_start().starts_with('#')).filter_map(sample).collect();
        let expect: Vec<(String, u64)> = lines.iter().map(|sample| (sample.name.to_owned(), sample.value)).collect();
        let name = path.strip_prefix(&root).unwrap().display();
        assert!(!expect.is_empty(), "{name} holds no sample");
        let (found, errors) = parsed(&page, Dialect::Text);
        assert_eq!(found, expect, "{name}");
        let is_prose = path.extension().is_some_and(|ending| ending == "raw");
        assert!(is_prose || errors.is_empty(), "{name}: {errors:?}");
        println!("{name}: {} samples", found.len());
    }
}

/// Which of the model's proxies the pages of a folder are of.
fn proxies_of(folder: &str) -> &'static [&'static str] {
    match folder {
        "apisix" => &["apisix"],
        "caddy" => &["caddy"],
        "haproxy" => &["haproxy"],
        "istio" | "ztunnel" => &["istio", "envoy"],
        "kong" => &["kong"],
        "linkerd" => &["linkerd"],
        "nginx" => &["ingress-nginx", "nginx"],
        "openresty" => &["nginx"],
        "zuul-scg" => &["scg"],
        "appmesh" | "contour-envoygateway" | "gloo-kgateway" => &["envoy"],
        // Of the format only: Envoy's own tests of it name clusters by a label that no Envoy writes.
        "envoy" | "prometheus-format" => &[],
        other => panic!("say which proxies the pages in {other} are of"),
    }
}

/// How the series of a family fared on a page.
#[derive(Debug, Default)]
struct Fared {
    counts: usize,
    internal: usize,
    silent: usize,
}

#[test]
fn what_the_model_names_counts() {
    let (Some(root), Some(model)) = (shared("proxies"), model()) else {
        return skip(
            "pages of every proxy: what is named counts",
            "TESTS_SHARED names no folder with proxies and model",
        );
    };
    let (mut unknown, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for path in pages(&root) {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        let proxies = proxies_of(name.split('/').next().unwrap());
        let rows: Vec<_> = model.iter().filter(|(_, row)| proxies.contains(&row.proxy.as_str())).collect();
        let body = std::fs::read(&path).unwrap();
        let mut families: BTreeMap<&str, Fared> = BTreeMap::new();
        let target = Scraped::new(&[("app", "gw"), ("kind", "gateway")]);
        let options = Options::default();
        let page = Page { body: &body, dialect: Dialect::Text, scraped_at: UnixNanos(1) };
        let context = Context::of(&target.identity, page, &options);
        for sample in Parser::new(&body, Dialect::Text).samples() {
            let Some(row) = row_of(&rows, &sample.name) else { continue };
            let Some(shape) = bind::shape_of(&sample.name).filter(|shape| shape.rule.canonical_name() == row.canonical)
            else {
                unknown.insert(format!("{name}: {} is {}", sample.name, row.canonical));
                continue;
            };
            if shape.part == Part::Created {
                continue;
            }
            let fared = families.entry(shape.rule.name).or_default();
            match bind::bind(&context, shape, sample.labels) {
                Bound::Fields(fields) if !fields.is_empty() => fared.counts += 1,
                Bound::Internal => fared.internal += 1,
                Bound::Fields(_) | Bound::Nothing => fared.silent += 1,
            }
        }
        for (family, fared) in &families {
            if fared.counts == 0 && fared.silent > 0 && reason_not_to_count(family).is_none() {
                silent.insert(format!("{name}: {family} {fared:?}"));
            }
        }
        let counts: usize = families.values().map(|fared| fared.counts).sum();
        println!("{name}: {} families, {counts} series count", families.len());
        tells_edges(&body, counts > 0, &name);
    }
    assert_eq!(unknown, BTreeSet::new(), "named by the model and not known here");
    assert_eq!(silent, BTreeSet::new(), "known here, and count for nothing");
}

/// The row that a metric's name or the name of its family fits.
fn row_of<'a>(rows: &[&'a (regex::Regex, ModelRow)], name: &str) -> Option<&'a ModelRow> {
    let stem = ["_bucket", "_count", "_sum", "_created"].iter().find_map(|suffix| name.strip_suffix(suffix));
    let names = [Some(name.to_owned()), stem.map(str::to_owned), stem.map(|stem| format!("{stem}_total"))];
    let fits = |(pattern, _): &&&(regex::Regex, ModelRow)| names.iter().flatten().any(|name| pattern.is_match(name));
    rows.iter().find(fits).map(|(_, row)| row).filter(|row| row.canonical != "ignore_subcount")
}

/// Read as the scraper reads it, behind an empty page: every counter was born in between.
#[track_caller]
fn tells_edges(body: &[u8], expect: bool, name: &str) {
    let Ok(text) = std::str::from_utf8(body) else { return };
    let mut target = Scraped::new(&[("app", "gw"), ("kind", "gateway")]);
    assert!(target.page(1, "").edges.is_empty());
    // A page with prose in it is refused as a whole.
    let Ok(seen) = target.try_page(UnixNanos(2), text) else {
        return assert!(name.ends_with(".raw"), "{name} is refused");
    };
    assert_eq!(seen.stats.samples, parsed(body, Dialect::Text).0.len(), "{name}");
    assert_eq!(!seen.edges.is_empty(), expect, "{name}: {:?}", seen.stats);
}
