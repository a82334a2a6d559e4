//! The labels of a point: its attributes in Prometheus' spelling, and whose it is.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use windrose_proto::attributes::{Attributes, KeyValue, Value};
use windrose_proto::limits;
use windrose_proto::metric::labels::METRIC_NAME;

use super::names::label_name;
use crate::decode::remote_write::RemoteLabels;

/// Attributes of a resource that name it; the others describe it.
const IDENTIFYING: [&str; 3] = ["service.namespace", "service.name", "service.instance.id"];

/// What labels of a point may hold altogether. The store allows a quarter of it unless told otherwise,
/// and says so; this only bounds what is copied and hashed for every bucket until it does.
const POINT_LABELS_MAX_BYTES: usize = limits::ATTRIBUTE_VALUE_MAX_BYTES;

/// Whose metrics these are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    job: Option<String>,
    instance: Option<String>,
}

/// Labels without a metric name: sorted by name, unique, none empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PointLabels<'p>(Vec<(Cow<'p, str>, Cow<'p, str>)>);

impl Identity {
    /// `job` is `service.namespace/service.name`, `instance` is `service.instance.id`.
    pub(super) fn of_resource(resource: &Attributes) -> Self {
        let text = |key| resource.get(key).map(|value| value_text(value).into_owned());
        let job = text("service.name").map(|name| match text("service.namespace") {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name,
        });
        Self { job, instance: text("service.instance.id") }
    }

    fn labels(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [("job", self.job.as_deref()), ("instance", self.instance.as_deref())]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)))
    }
}

impl<'p> PointLabels<'p> {
    /// From the attributes of a point of `identity`, whose labels win. Keys that are spelled alike share a
    /// label, their values joined with semicolons in the order of the keys.
    ///
    /// # Errors
    /// With what cannot be a label.
    pub(super) fn new(
        attributes: impl Iterator<Item = &'p KeyValue>,
        identity: &'p Identity,
    ) -> Result<Self, &'static str> {
        let mut keyed: Vec<&KeyValue> = attributes.collect();
        keyed.sort_by(|one, other| one.key.cmp(&other.key));
        let mut spelled = Vec::with_capacity(keyed.len() + 2);
        for attribute in keyed {
            let name = label_name(&attribute.key).ok_or("an attribute whose key has no letter or digit")?;
            spelled.push((name, value_text(&attribute.value)));
        }
        spelled.sort_by(|one, other| one.0.cmp(&other.0));
        let mut labels: Vec<(Cow<'p, str>, Cow<'p, str>)> = Vec::with_capacity(spelled.len() + 2);
        for (name, value) in spelled {
            match labels.last_mut() {
                Some((last, values)) if *last == name => {
                    let values = values.to_mut();
                    values.push(';');
                    values.push_str(&value);
                }
                _ => labels.push((name, value)),
            }
        }
        labels.retain(|(name, value)| {
            !value.is_empty() && name != METRIC_NAME && identity.labels().all(|(theirs, _)| name != theirs)
        });
        labels.extend(identity.labels().map(|(name, value)| (Cow::Borrowed(name), Cow::Borrowed(value))));
        labels.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        let bytes: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > POINT_LABELS_MAX_BYTES {
            return Err("labels of more than 64 KiB");
        }
        Ok(Self(labels))
    }

    /// From the attributes that describe a resource; `None` when there are none, or nothing says whose
    /// they are.
    ///
    /// # Errors
    /// With what cannot be a label.
    pub(super) fn of_target(resource: &'p Attributes, identity: &'p Identity) -> Result<Option<Self>, &'static str> {
        let describing = || resource.iter().filter(|attribute| !IDENTIFYING.contains(&&*attribute.key));
        if describing().next().is_none() || identity.labels().next().is_none() {
            return Ok(None);
        }
        Self::new(describing(), identity).map(Some)
    }

    /// The labels of one series: with the metric's name and, for a bucket or a quantile, its bound.
    pub(super) fn series<'a>(&'a self, name: &'a str, bound: Option<(&'static str, &'a str)>) -> RemoteLabels<'a> {
        let own = self.0.iter().map(|(name, value)| (&**name, &**value));
        let mut labels: RemoteLabels<'a> =
            own.filter(|(label, _)| bound.is_none_or(|(bound, _)| *label != bound)).collect();
        labels.push((METRIC_NAME, name));
        labels.extend(bound);
        labels.sort_unstable_by_key(|(name, _)| *name);
        labels
    }
}

/// A value as text: numbers as JSON writes them, bytes in base64, lists and maps as JSON.
pub(super) fn value_text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Empty => Cow::Borrowed(""),
        Value::Str(text) => Cow::Borrowed(text),
        Value::Bool(true) => Cow::Borrowed("true"),
        Value::Bool(false) => Cow::Borrowed("false"),
        Value::Int(number) => Cow::Owned(number.to_string()),
        Value::Double(number) => Cow::Owned(double_text(*number)),
        Value::Bytes(bytes) => Cow::Owned(STANDARD.encode(bytes)),
        Value::Array(_) | Value::Map(_) => Cow::Owned(json(value).to_string()),
    }
}

fn double_text(number: f64) -> String {
    match number {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        number if number != 0.0 && (number.abs() < 1e-6 || number.abs() >= 1e21) => {
            let text = format!("{number:e}");
            // JSON writers spell the sign of large exponents.
            if text.contains("e-") { text } else { text.replace('e', "e+") }
        }
        number => number.to_string(),
    }
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Empty => serde_json::Value::Null,
        Value::Bool(flag) => (*flag).into(),
        Value::Int(number) => (*number).into(),
        Value::Double(number) if number.is_finite() => (*number).into(),
        Value::Array(items) => items.iter().map(json).collect(),
        Value::Map(entries) => {
            let entries = entries.iter().map(|entry| (entry.key.to_string(), json(&entry.value)));
            serde_json::Value::Object(entries.collect())
        }
        Value::Str(_) | Value::Bytes(_) | Value::Double(_) => value_text(value).into(),
    }
}

#[cfg(test)]
mod tests {
    use windrose_proto::Text;
    use windrose_proto::attributes::{Attributes, KeyValue, Value};

    use super::{Identity, PointLabels, value_text};

    fn attributes(pairs: &[(&'static str, &'static str)]) -> Attributes {
        let pair = |(key, value): &(&'static str, &'static str)| KeyValue {
            key: Text::from_static(key),
            value: Value::Str(Text::from_static(value)),
        };
        Attributes(pairs.iter().map(pair).collect())
    }

    #[track_caller]
    fn check(resource: &[(&'static str, &'static str)], point: &[(&'static str, &'static str)], expect: &str) {
        let identity = Identity::of_resource(&attributes(resource));
        let point = attributes(point);
        let labels = PointLabels::new(point.iter(), &identity).unwrap();
        let pairs: Vec<String> =
            labels.series("m", Some(("le", "1"))).iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(pairs.join(" "), expect);
    }

    #[test]
    fn whose_a_series_is() {
        let resource = &[("service.name", "pay"), ("service.namespace", "shop"), ("service.instance.id", "i-1")];
        check(resource, &[], "__name__=m instance=i-1 job=shop/pay le=1");
        check(&resource[..1], &[("job", "mine")], "__name__=m job=pay le=1");
        check(&resource[1..2], &[("job", "mine")], "__name__=m job=mine le=1");
        check(&[("service.name", "")], &[], "__name__=m le=1");
    }

    #[test]
    fn keys_that_are_spelled_alike_share_a_label() {
        check(&[], &[("a.b", "2"), ("a_b", "3"), ("a-b", "1")], "__name__=m a_b=1;2;3 le=1");
        check(&[], &[("empty", ""), ("__name__", "x"), ("le", "5"), ("B", "2")], "B=2 __name__=m le=1");
    }

    #[test]
    fn what_describes_a_resource() {
        let resource = attributes(&[("service.name", "pay"), ("host.name", "h")]);
        let identity = Identity::of_resource(&resource);
        let info = PointLabels::of_target(&resource, &identity).unwrap().unwrap();
        assert_eq!(
            info.series("target_info", None).as_slice(),
            [("__name__", "target_info"), ("host_name", "h"), ("job", "pay")]
        );
        for lacking in [&[("service.name", "pay")][..], &[("host.name", "h")]] {
            let resource = attributes(lacking);
            let identity = Identity::of_resource(&resource);
            assert_eq!(PointLabels::of_target(&resource, &identity), Ok(None));
        }
    }

    #[test]
    fn what_cannot_be_a_label() {
        let identity = Identity::default();
        assert!(PointLabels::new(attributes(&[("", "x")]).iter(), &identity).is_err());
        let long = Attributes(vec![KeyValue { key: "k".into(), value: Value::Str("x".repeat(65 << 10).into()) }]);
        assert!(PointLabels::new(long.iter(), &identity).is_err());
    }

    #[test]
    fn values() {
        let entry = |key: &str, value| KeyValue { key: key.into(), value };
        for (value, expect) in [
            (Value::Empty, ""),
            (Value::Bool(true), "true"),
            (Value::Int(-5), "-5"),
            (Value::Double(1.0), "1"),
            (Value::Double(0.25), "0.25"),
            (Value::Double(1e-7), "1e-7"),
            (Value::Double(2.5e21), "2.5e+21"),
            (Value::Double(f64::NAN), "NaN"),
            (Value::Double(f64::INFINITY), "+Inf"),
            (Value::Bytes(b"hi"[..].into()), "aGk="),
            (Value::Array(vec![Value::Int(1), Value::Str("a".into())]), r#"[1,"a"]"#),
            (Value::Map(vec![entry("k", Value::Double(f64::NAN))]), r#"{"k":"NaN"}"#),
        ] {
            assert_eq!(value_text(&value), expect);
        }
    }
}
