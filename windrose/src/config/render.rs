//! The configuration in force as YAML, each value with where it came from. What is printed can be
//! saved and loaded again: it means the same.

use super::reader::{Effective, EffectiveValue};
use super::tree::{Node, Value};

/// Keys of the scrape configuration whose values must not be shown.
const SECRET_KEYS: [&str; 8] = [
    "password",
    "credentials",
    "bearer_token",
    "client_secret",
    "secret_key",
    "access_key",
    "key",
    "proxy_authorization",
];

/// What is shown instead.
const REDACTED: &str = "<secret>";

/// Prints all values, nested as in a file.
#[must_use]
pub fn effective_yaml(effective: &[Effective], scrape_yaml: &str) -> String {
    let mut text = String::new();
    let mut open: Vec<&str> = Vec::new();
    for Effective { path, value, origin } in effective {
        let mut parents: Vec<&str> = path.split('.').collect();
        let key = parents.pop().unwrap_or_default();
        let shared = open.iter().zip(&parents).take_while(|(a, b)| a == b).count();
        open.truncate(shared);
        for parent in parents.iter().skip(shared) {
            line(&mut text, open.len(), &format!("{parent}:"));
            open.push(parent);
        }
        let depth = open.len();
        match value {
            EffectiveValue::Scalar(scalar) => {
                line(&mut text, depth, &format!("{key}: {}  # {origin}", quoted(scalar)));
            }
            EffectiveValue::List(items) => {
                let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
                line(&mut text, depth, &format!("{key}: [{}]  # {origin}", items.join(", ")));
            }
            EffectiveValue::Map(entries) if entries.is_empty() => {
                line(&mut text, depth, &format!("{key}: {{}}  # {origin}"));
            }
            EffectiveValue::Map(entries) => {
                line(&mut text, depth, &format!("{key}:  # {origin}"));
                for (name, item) in entries {
                    line(&mut text, depth + 1, &format!("{}: {}", quoted(name), quoted(item)));
                }
            }
        }
    }
    text.push_str(scrape_yaml);
    text
}

/// The mappings of `root` under `keys`, secrets blanked.
pub(super) fn foreign_yaml(root: &Node, keys: &[&str]) -> String {
    let mut text = String::new();
    if let Value::Map(entries) = &root.value {
        for (key, node) in entries.iter().filter(|(key, _)| keys.contains(&key.as_str())) {
            entry(&mut text, 0, key, node);
        }
    }
    text
}

fn entry(text: &mut String, depth: usize, key: &str, node: &Node) {
    let secret = SECRET_KEYS.contains(&key) && matches!(node.value, Value::Scalar(_));
    match &node.value {
        _ if secret => line(text, depth, &format!("{}: {}", quoted(key), quoted(REDACTED))),
        Value::Null => line(text, depth, &format!("{}:", quoted(key))),
        Value::Scalar(scalar) => line(text, depth, &format!("{}: {}", quoted(key), quoted(&without_password(scalar)))),
        Value::List(items) if items.is_empty() => line(text, depth, &format!("{}: []", quoted(key))),
        Value::Map(entries) if entries.is_empty() => line(text, depth, &format!("{}: {{}}", quoted(key))),
        Value::List(_) | Value::Map(_) => {
            line(text, depth, &format!("{}:", quoted(key)));
            block(text, depth + 1, node);
        }
    }
}

fn block(text: &mut String, depth: usize, node: &Node) {
    match &node.value {
        Value::Map(entries) => entries.iter().for_each(|(key, value)| entry(text, depth, key, value)),
        Value::List(items) => items.iter().for_each(|value| item(text, depth, value)),
        Value::Null => line(text, depth, "null"),
        Value::Scalar(scalar) => line(text, depth, &quoted(&without_password(scalar))),
    }
}

/// An item is written as its block one level deeper, with the dash put over the indentation.
fn item(text: &mut String, depth: usize, value: &Node) {
    let empty = matches!(&value.value, Value::List(items) if items.is_empty())
        || matches!(&value.value, Value::Map(entries) if entries.is_empty());
    if empty {
        let shape = if matches!(value.value, Value::List(_)) { "- []" } else { "- {}" };
        return line(text, depth, shape);
    }
    let mut inner = String::new();
    block(&mut inner, depth + 1, value);
    let indented = inner.split_off(2 * depth + 2);
    text.push_str(&format!("{}- {indented}", "  ".repeat(depth)));
}

fn line(text: &mut String, depth: usize, content: &str) {
    text.push_str(&"  ".repeat(depth));
    text.push_str(content);
    text.push('\n');
}

/// `http://user:secret@host/` → `http://user:<secret>@host/`.
fn without_password(scalar: &str) -> String {
    let blanked = scalar.split_once("://").and_then(|(scheme, rest)| {
        let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, _) = authority.rsplit_once('@')?;
        let (user, _) = login.split_once(':')?;
        Some(format!("{scheme}://{user}:{REDACTED}{}", rest.strip_prefix(login)?))
    });
    blanked.unwrap_or_else(|| scalar.to_owned())
}

/// Plain when YAML reads it back as the same text, else in JSON's quotes, which YAML understands.
fn quoted(text: &str) -> String {
    let plain_start = text.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_'));
    let plain_rest = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | ':' | '='));
    // Words and numbers that YAML would read as something else than their text.
    let special = text.eq_ignore_ascii_case("null") || (text.parse::<u64>().is_err() && text.parse::<f64>().is_ok());
    if plain_start && plain_rest && !special && !text.ends_with(':') {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}
