//! Label sets: sorted by name, without empty values, shared by reference.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::quote::quote;

/// The label that holds the metric name.
pub const METRIC_NAME: &str = "__name__";

/// The label that holds the upper bound of a classic histogram bucket.
pub const BUCKET: &str = "le";

/// Labels that describe the metric rather than the series; dropped together when an operation changes its meaning.
const METADATA: [&str; 3] = [METRIC_NAME, "__type__", "__unit__"];

/// One label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label {
    /// Its name, any UTF-8 but empty.
    pub name: Arc<str>,
    /// Its value, never empty in a [`Labels`].
    pub value: Arc<str>,
}

/// An immutable, sorted label set. Cloning is one reference count.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Arc<[Label]>);

impl Default for Labels {
    fn default() -> Self {
        Self(Arc::from(Vec::new()))
    }
}

impl Labels {
    /// Builds a set from pairs in any order. Empty values vanish; of equal names the last wins.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.set(name.as_ref(), value.as_ref());
        }
        builder.build()
    }

    /// Takes labels that are already sorted by name, unique and without empty values, without copying strings.
    pub fn from_sorted(labels: Vec<Label>) -> Self {
        debug_assert!(labels.windows(2).all(|pair| pair[0].name < pair[1].name), "labels must be sorted and unique");
        Self(labels.into())
    }

    /// The labels in name order.
    pub fn iter(&self) -> std::slice::Iter<'_, Label> {
        self.0.iter()
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a label, empty when the set does not have it.
    pub fn get(&self, name: &str) -> &str {
        self.find(name).map_or("", |label| &label.value)
    }

    /// The metric name, empty when there is none.
    pub fn metric_name(&self) -> &str {
        self.get(METRIC_NAME)
    }

    fn find(&self, name: &str) -> Option<&Label> {
        // Sets are short; a linear pass beats a binary search up to a few dozen labels.
        self.0.iter().find(|label| &*label.name == name)
    }

    /// The set without the metric name (and, with `metadata`, without type and unit).
    pub fn without_name(&self, metadata: bool) -> Self {
        let drops = |label: &Label| {
            if metadata { METADATA.contains(&&*label.name) } else { &*label.name == METRIC_NAME }
        };
        if !self.0.iter().any(drops) {
            return self.clone();
        }
        Self(self.0.iter().filter(|label| !drops(label)).cloned().collect())
    }

    /// Only the named labels.
    pub fn keep(&self, names: &[String]) -> Self {
        Self(self.0.iter().filter(|label| names.iter().any(|name| **name == *label.name)).cloned().collect())
    }

    /// All but the named labels and the metric name.
    pub fn drop_all(&self, names: &[String]) -> Self {
        Self(
            self.0
                .iter()
                .filter(|label| &*label.name != METRIC_NAME && !names.iter().any(|name| **name == *label.name))
                .cloned()
                .collect(),
        )
    }

    /// A builder that starts from this set.
    pub fn builder(&self) -> LabelsBuilder {
        LabelsBuilder { labels: self.0.to_vec() }
    }

    /// Prometheus' order: label by label, name before value, the shorter set first.
    pub fn compare(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, label) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            if is_legacy_label_name(&label.name) {
                f.write_str(&label.name)?;
            } else {
                f.write_str(&quote(&label.name))?;
            }
            write!(f, "={}", quote(&label.value))?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Changes a label set.
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    labels: Vec<Label>,
}

impl LabelsBuilder {
    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) {
        match (self.labels.binary_search_by(|label| (*label.name).cmp(name)), value.is_empty()) {
            (Ok(index), true) => {
                self.labels.remove(index);
            }
            (Ok(index), false) => self.labels[index].value = value.into(),
            (Err(_), true) => {}
            (Err(index), false) => {
                self.labels.insert(index, Label { name: name.into(), value: value.into() });
            }
        }
    }

    /// The present value of a label, empty when unset.
    pub fn get(&self, name: &str) -> &str {
        self.labels.binary_search_by(|label| (*label.name).cmp(name)).map_or("", |index| &self.labels[index].value)
    }

    /// Finishes.
    pub fn build(self) -> Labels {
        Labels(self.labels.into())
    }
}

/// Whether a label name needs no quotes: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub fn is_legacy_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first == b'_' || first.is_ascii_alphabetic())
        && bytes.all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
}

/// Whether a metric name needs no quotes: a label name that may also hold colons.
pub fn is_legacy_metric_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| matches!(first, b'_' | b':') || first.is_ascii_alphabetic())
        && bytes.all(|byte| matches!(byte, b'_' | b':') || byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_sorted_and_without_empty_values() {
        let labels = Labels::from_pairs([("b", "2"), ("__name__", "up"), ("a", "1"), ("c", "")]);
        assert_eq!(labels.to_string(), "{__name__=\"up\", a=\"1\", b=\"2\"}");
        assert_eq!(labels.without_name(true).to_string(), "{a=\"1\", b=\"2\"}");
        assert_eq!(labels.get("c"), "");
    }

    #[test]
    fn order_is_label_by_label() {
        let short = Labels::from_pairs([("a", "1")]);
        let long = Labels::from_pairs([("a", "1"), ("b", "0")]);
        let other = Labels::from_pairs([("a", "0"), ("b", "9")]);
        assert_eq!(short.compare(&long), Ordering::Less);
        assert_eq!(other.compare(&short), Ordering::Less);
    }
}
