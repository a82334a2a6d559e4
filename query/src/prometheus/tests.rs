mod golden;
mod resources;

use super::request::{Form, MAX_TIME, MIN_TIME, parse_duration, parse_time};

#[track_caller]
fn check_time(text: &str, expect: Result<i64, &str>) {
    assert_eq!(parse_time(text), expect.map_err(str::to_owned), "{text}");
}

#[test]
fn times() {
    check_time("4", Ok(4_000));
    check_time("1700000000.1234", Ok(1_700_000_000_123));
    check_time("-1.5", Ok(-1_500));
    check_time("2026-11-21T12:00:00.5Z", Ok(1_795_262_400_500));
    check_time("1970-01-01T00:10:00.123Z", Ok(600_123));
    // Grafana's probe for exemplars sends milliseconds.
    check_time("1795196091868", Ok(1_795_196_091_868_000));
    check_time("1e300", Ok(MAX_TIME));
    check_time("-292273086-05-16T16:47:06Z", Ok(MIN_TIME));
    check_time("292277025-08-18T07:12:54.999999999Z", Ok(MAX_TIME));
    check_time("", Err("cannot parse \"\" to a valid timestamp"));
    check_time("abc", Err("cannot parse \"abc\" to a valid timestamp"));
    check_time("NaN", Err("cannot parse \"NaN\" to a valid timestamp"));
}

#[track_caller]
fn check_duration(text: &str, expect: Result<i64, &str>) {
    assert_eq!(parse_duration(text), expect.map_err(str::to_owned), "{text}");
}

#[test]
fn durations() {
    check_duration("15", Ok(15_000_000_000));
    check_duration("0.5", Ok(500_000_000));
    check_duration("1m0s", Ok(60_000_000_000));
    check_duration("1x", Err("cannot parse \"1x\" to a valid duration"));
    check_duration("9223372036.854775807", Ok(i64::MIN));
    check_duration("1e12", Err("cannot parse \"1e12\" to a valid duration. It overflows int64"));
}

#[test]
fn parameters_that_cannot_be_read_are_named() {
    let error = |form: &Form| form.limit().unwrap_err().message;
    assert_eq!(
        error(&Form::of(&[("limit", "x")])),
        "invalid parameter \"limit\": strconv.Atoi: parsing \"x\": invalid syntax"
    );
    assert_eq!(error(&Form::of(&[("limit", "-1")])), "invalid parameter \"limit\": limit must be non-negative");
    let time = Form::of(&[("time", "abc")]).time_or("time", 0).unwrap_err().message;
    assert_eq!(
        time,
        "invalid parameter \"time\": invalid time value for 'time': cannot parse \"abc\" to a valid timestamp"
    );
}

#[test]
fn matchers_must_match_something() {
    let sets = |texts: &[&str]| {
        let pairs: Vec<_> = texts.iter().map(|text| ("match[]", *text)).collect();
        Form::of(&pairs).matchers().map(|sets| sets.len()).map_err(|error| error.message)
    };
    assert_eq!(sets(&["up", "{job=\"a\",}"]), Ok(2));
    assert_eq!(sets(&[]), Ok(0));
    assert_eq!(
        sets(&["up", "{__name__=~\".*\"}"]),
        Err("match[] must contain at least one non-empty matcher".to_owned())
    );
    assert_eq!(sets(&["{}"]), Err("match[] must contain at least one non-empty matcher".to_owned()));
    assert_eq!(sets(&["up[5m]"]), Err("1:3: parse error: unexpected \"[\"".to_owned()));
}
