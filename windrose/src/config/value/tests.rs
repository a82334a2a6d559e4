use super::*;

#[track_caller]
fn check<T: Setting + PartialEq + std::fmt::Debug>(text: &str, expect: Option<T>) {
    assert_eq!(T::read(text), expect, "reading {text:?}");
    if let Some(value) = expect {
        assert_eq!(T::read(&value.write()), Some(value), "what is written reads back");
    }
}

#[test]
fn durations() {
    check("10s", Some(Duration::from_secs(10)));
    check("500ms", Some(Duration::from_millis(500)));
    check("1h30m", Some(Duration::from_secs(5400)));
    check("2d", Some(Duration::from_secs(172_800)));
    check("0", Some(Duration::ZERO));
    check("1m1ms", Some(Duration::from_millis(60_001)));
    for wrong in
        ["", "10", "s", "10 s", "-1s", "1s1m", "1s1s", "1.5s", "10sec", "99999999999999999999s", "9999999999999y"]
    {
        check::<Duration>(wrong, None);
    }
}

#[test]
fn sizes() {
    check("64MiB", Some(ByteSize::mib(64)));
    check("64 MiB", Some(ByteSize::mib(64)));
    check("1GB", Some(ByteSize(1_000_000_000)));
    check("1025", Some(ByteSize(1025)));
    check("0", Some(ByteSize(0)));
    for wrong in ["", "MiB", "-1", "1.5GiB", "64mib", "64M", "99999999999TiB"] {
        check::<ByteSize>(wrong, None);
    }
    assert_eq!(ByteSize::mib(1024).write(), "1GiB");
    assert_eq!(ByteSize(1_000_000).write(), "1MB");
}

#[test]
fn words_are_exact() {
    check("always", Some(WalSync::Always));
    check::<WalSync>("Always", None);
    check("json", Some(LogFormat::Json));
    check::<LogFormat>("pretty", None);
}
