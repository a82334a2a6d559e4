//! Attribute values as OTLP has them, and lenient reading: proxies write numbers as strings,
//! doubles or integers as they please.

use crate::Text;

/// One attribute value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Present without a value.
    Empty,
    Str(Text),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(bytes::Bytes),
    Array(Vec<Self>),
    Map(Vec<KeyValue>),
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyValue {
    pub key: Text,
    pub value: Value,
}

/// Attributes in the order they were received. Spans carry 10–30 of them, where a linear search
/// over contiguous memory beats hashing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes(pub Vec<KeyValue>);

impl Value {
    /// The text of a string value.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The shared text of a string value, without copying.
    #[must_use]
    pub fn as_text(&self) -> Option<&Text> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number, however it was written; fractions are cut off.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Double(number) if number.is_finite() => Some(*number as i64),
            Self::Str(text) => {
                let trimmed = text.trim();
                trimmed.parse().ok().or_else(|| trimmed.parse::<f64>().ok().filter(|n| n.is_finite()).map(|n| n as i64))
            }
            Self::Bool(_) | Self::Empty | Self::Double(_) | Self::Bytes(_) | Self::Array(_) | Self::Map(_) => None,
        }
    }

    /// Scalars as text, the way they would be printed; arrays, maps and bytes have none.
    #[must_use]
    pub fn to_text(&self) -> Option<Text> {
        match self {
            Self::Str(text) => Some(text.clone()),
            Self::Bool(flag) => Some(Text::from_static(if *flag { "true" } else { "false" })),
            Self::Int(number) => Some(Text::from(number.to_string())),
            Self::Double(number) => Some(Text::from(number.to_string())),
            Self::Empty | Self::Bytes(_) | Self::Array(_) | Self::Map(_) => None,
        }
    }
}

impl Attributes {
    /// Bytes the keys and values hold in memory, without those inside of arrays and maps, which are rare.
    #[must_use]
    pub fn heap_estimate_bytes(&self) -> usize {
        self.0.capacity() * size_of::<KeyValue>() + self.text_bytes()
    }

    /// Bytes of the keys and values themselves: about what the attributes took of the body they came in.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let texts = self.0.iter().map(|entry| {
            let value = match &entry.value {
                Value::Str(text) => text.len(),
                Value::Bytes(bytes) => bytes.len(),
                Value::Array(values) => values.len() * size_of::<Value>(),
                Value::Map(entries) => entries.len() * size_of::<KeyValue>(),
                Value::Empty | Value::Bool(_) | Value::Int(_) | Value::Double(_) => 0,
            };
            entry.key.len() + value
        });
        texts.sum()
    }

    /// The value of `key`; the first one when a sender repeats a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|kv| &*kv.key == key).map(|kv| &kv.value)
    }

    /// The text of `key`, when it is a non-empty string.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&Text> {
        self.get(key).and_then(Value::as_text).filter(|text| !text.is_empty())
    }

    /// Whether any key starts with `prefix`.
    #[must_use]
    pub fn any_key_starts_with(&self, prefix: &str) -> bool {
        self.0.iter().any(|kv| kv.key.starts_with(prefix))
    }

    /// Appends an attribute.
    pub fn push(&mut self, key: impl Into<Text>, value: Value) {
        self.0.push(KeyValue { key: key.into(), value });
    }

    /// Number of attributes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In received order.
    pub fn iter(&self) -> std::slice::Iter<'_, KeyValue> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Attributes {
    type Item = &'a KeyValue;
    type IntoIter = std::slice::Iter<'a, KeyValue>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
