//! What `serde_json` reads, reads equal; what only real senders write, reads too.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value as Json;

use super::{DEPTH_MAX, JsonError, Kind, Reader};
use crate::decode::text::Source;

/// Builds a value with nothing but the reader.
fn read_value(reader: &mut Reader<'_>) -> Result<Json, JsonError> {
    Ok(match reader.kind()? {
        Kind::Null => {
            reader.null()?;
            Json::Null
        }
        Kind::Bool => Json::Bool(reader.bool()?),
        Kind::Number => {
            let digits = std::str::from_utf8(reader.raw_number()?).expect("ASCII");
            serde_json::from_str(digits).unwrap_or_else(|_| Json::String(digits.to_owned()))
        }
        Kind::String => {
            let content = reader.raw_string()?.content().into_owned();
            Json::String(String::from_utf8_lossy(&content).into_owned())
        }
        Kind::Array => {
            let mut array = reader.array()?;
            let mut items = Vec::new();
            while reader.next_item(&mut array)? {
                items.push(read_value(reader)?);
            }
            Json::Array(items)
        }
        Kind::Object => {
            let mut object = reader.object()?;
            let mut members = serde_json::Map::new();
            while let Some(name) = reader.next_member(&mut object)? {
                let name = String::from_utf8_lossy(&name.content()).into_owned();
                members.insert(name, read_value(reader)?);
            }
            Json::Object(members)
        }
    })
}

fn read(document: &[u8]) -> Result<Json, JsonError> {
    let body = Bytes::copy_from_slice(document);
    let mut reader = Reader::new(Source::new(&body));
    let value = read_value(&mut reader)?;
    reader.end()?;
    Ok(value)
}

fn skips(document: &[u8]) -> bool {
    let body = Bytes::copy_from_slice(document);
    let mut reader = Reader::new(Source::new(&body));
    reader.skip().is_ok() && reader.end().is_ok() && reader.depth() == 0
}

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn reads_what_serde_json_writes(value in json(), is_pretty in any::<bool>()) {
        let document = if is_pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
        // Read back, because it does not always read its own floating point numbers exactly.
        prop_assert_eq!(read(&document).unwrap(), serde_json::from_slice::<Json>(&document).unwrap());
        prop_assert!(skips(&document));
    }

    #[test]
    fn accepts_whatever_serde_json_accepts(
        value in json(),
        at in any::<prop::sample::Index>(),
        with in prop_oneof![Just(b'"'), Just(b'\\'), Just(b','), Just(b'}'), Just(b'0'), any::<u8>()],
    ) {
        let mut document = serde_json::to_vec(&value).unwrap();
        let at = at.index(document.len());
        document[at] = with;
        let ours = read(&document);
        prop_assert_eq!(ours.is_ok(), skips(&document), "skipping and reading agree");
        if let Ok(theirs) = serde_json::from_slice::<Json>(&document) {
            prop_assert_eq!(ours.unwrap(), theirs);
        }
    }

    #[test]
    fn random_bytes_never_panic(document in prop::collection::vec(any::<u8>(), 0..64)) {
        let ours = read(&document);
        prop_assert_eq!(ours.is_ok(), skips(&document));
    }
}

#[track_caller]
fn check_broken(document: &str, expect: &str) {
    let error = read(document.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), expect);
    assert!(!skips(document.as_bytes()));
}

#[test]
fn broken_documents_say_where() {
    check_broken("", "the document ends too early at byte 0");
    check_broken("{\"a\":", "the document ends too early at byte 5");
    check_broken("{\"a\" 1}", "a colon expected at byte 5");
    check_broken("{a:1}", "a name expected at byte 1");
    check_broken("[1 2]", "a comma expected at byte 3");
    check_broken("[1,]", "a trailing comma at byte 3");
    check_broken("[,1]", "a value expected at byte 1");
    check_broken("\"abc", "a string does not end at byte 0");
    check_broken("\"\\x\"", "an unknown escape at byte 1");
    check_broken("\"\\u12\"", "an unknown escape at byte 1");
    check_broken("nul", "an unknown word at byte 0");
    check_broken("--1", "not a number at byte 0");
    check_broken("1 2", "something follows the document at byte 2");
    check_broken("<html>", "a value expected at byte 0");
}

#[test]
fn nesting_is_bounded() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = |depth: usize| format!("{}null{}", open.repeat(depth), close.repeat(depth));
        assert!(read(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert!(skips(nested(DEPTH_MAX).as_bytes()));
        assert!(read(nested(DEPTH_MAX + 1).as_bytes()).is_err());
        assert!(!skips(nested(1_000_000).as_bytes()));
    }
}

#[test]
fn strings() {
    for (document, expect) in [
        (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
        (r#""\u00fc\ud83d\ude00""#, "ü😀"),
        (r#""\ud83d""#, "\u{fffd}"),
        (r#""\ud83dx""#, "\u{fffd}x"),
        (r#""\ude00\ud83d\ude00""#, "\u{fffd}😀"),
        ("\"a\nb\"", "a\nb"),
    ] {
        assert_eq!(read(document.as_bytes()).unwrap(), Json::from(expect), "{document}");
    }
    assert_eq!(read(b"\xef\xbb\xbf\"\xff\"").unwrap(), Json::from("\u{fffd}"));
}

#[track_caller]
fn with<T>(document: &str, read: impl FnOnce(&mut Reader<'_>) -> T) -> T {
    let body = Bytes::copy_from_slice(document.as_bytes());
    let mut reader = Reader::new(Source::new(&body));
    let value = read(&mut reader);
    reader.end().expect("the whole value has been read, wanted or not");
    value
}

#[test]
fn numbers_in_any_spelling() {
    for (document, expect) in [
        ("5", Some(5)),
        ("\"5\"", Some(5)),
        ("\" 5 \"", Some(5)),
        ("1.6e18", Some(1_600_000_000_000_000_000)),
        ("\"1760000000000000001\"", Some(1_760_000_000_000_000_001)),
        ("1760000000000000001", Some(1_760_000_000_000_000_001)),
        ("7.9", Some(7)),
        ("-1", Some(0)),
        ("null", Some(0)),
        ("\"\"", Some(0)),
        ("1e40", Some(u64::MAX)),
        ("\"abc\"", None),
        ("\"NaN\"", None),
        ("true", None),
        ("{\"a\":[1]}", None),
    ] {
        assert_eq!(with(document, |reader| reader.lenient_u64().ok()), expect, "{document}");
    }
    for (document, expect) in [
        ("0.5", Some(0.5)),
        ("\"0.5\"", Some(0.5)),
        ("\"Infinity\"", Some(f64::INFINITY)),
        ("-Infinity", Some(f64::NEG_INFINITY)),
        ("\"inf\"", None),
    ] {
        assert_eq!(with(document, |reader| reader.lenient_f64().ok()), expect, "{document}");
    }
    assert!(with("NaN", |reader| reader.lenient_f64().unwrap().is_nan()));
    assert!(with("\"NaN\"", |reader| reader.lenient_f64().unwrap().is_nan()));
}

#[test]
fn text_and_booleans_in_any_spelling() {
    for (document, expect) in
        [("\"x\"", Some("x")), ("5", Some("5")), (" true ", Some("true")), ("null", Some("")), ("[1]", None)]
    {
        let text = with(document, |reader| reader.lenient_text(10).ok());
        assert_eq!(text.as_deref(), expect, "{document}");
    }
    for (document, expect) in [
        ("true", Some(true)),
        ("\"true\"", Some(true)),
        ("1", Some(true)),
        ("0", Some(false)),
        ("null", Some(false)),
        ("\"maybe\"", None),
        ("[]", None),
    ] {
        assert_eq!(with(document, |reader| reader.lenient_bool().ok()), expect, "{document}");
    }
}
