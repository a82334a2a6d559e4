use proptest::prelude::*;
use windrose_proto::metric::STALE_MARKER_BITS;

use super::*;

fn fill(samples: &[(i64, f64)]) -> OpenChunk {
    let mut chunk = OpenChunk::new(samples[0].0, samples[0].1);
    samples[1..].iter().for_each(|(timestamp, value)| chunk.push(*timestamp, *value));
    chunk
}

fn bits(chunk: &Chunk) -> Vec<(i64, u64)> {
    let (mut timestamps, mut values) = (Vec::new(), Vec::new());
    chunk.decode(&mut timestamps, &mut values);
    timestamps.into_iter().zip(values.iter().map(|value| value.to_bits())).collect()
}

/// Both forms of the chunk give everything back; the closed one takes at most this many bytes.
#[track_caller]
fn check(values: impl IntoIterator<Item = f64>, max_bytes: usize) {
    let samples: Vec<(i64, f64)> = (0..).map(|index| 1_000 + index * 15_000).zip(values).collect();
    let open = fill(&samples);
    let expect: Vec<(i64, u64)> = samples.iter().map(|(timestamp, value)| (*timestamp, value.to_bits())).collect();
    assert_eq!(bits(&open.snapshot()), expect);
    assert_eq!(open.last_value().to_bits(), expect[expect.len() - 1].1);
    let closed = open.close(|bytes| bytes.into());
    assert_eq!(bits(&closed), expect);
    assert!(closed.values.len() <= max_bytes, "{} bytes for {} samples", closed.values.len(), closed.count());
    assert!(closed.times.is_none());
}

#[test]
fn what_proxies_report_is_small() {
    check((0..240).map(|_| 123_456.0), 5);
    check((0..240).map(|index| f64::from(index) * 30.0), 241);
    check((0..240).map(|index| 1e9 + f64::from(index * index)), 480);
    check((0..240).map(|index| f64::from(index % 7) / 4.0), 480);
    check([f64::from_bits(STALE_MARKER_BITS), 1.0, 2.0, f64::from_bits(STALE_MARKER_BITS)], 4);
}

#[test]
fn any_float_survives() {
    check([0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE, 5e-324], 100);
    check([0.1, 0.2, 0.1 + 0.2, 1.0 / 3.0, 1e300, -1e-300], 60);
    check([9_007_199_254_740_991.0, 9_007_199_254_740_992.0, 9_007_199_254_740_994.0], 40);
    check([1.0, 0.000_000_001, 9_000_000_000_000.0, 0.5], 40);
    check((0..240).map(|index| (f64::from(index) * 0.7).sin()), 240 * 9);
}

#[test]
fn a_rare_odd_value_does_not_spoil_a_counter() {
    let values = (0..240).map(|index| if index % 60 == 3 { f64::NAN } else { f64::from(index) });
    check(values, 240 + 4 * 9);
}

#[test]
fn irregular_times_are_shared_when_closed() {
    let times: Vec<i64> = (0..100).map(|index| index * 15_000 + i64::from(index % 9 == 4) * 3).collect();
    let fill_with = |value: f64| fill(&times.iter().map(|time| (*time, value)).collect::<Vec<_>>());
    let first = fill_with(1.0).close(|bytes| bytes.into());
    let stream = first.times.clone().unwrap();
    let second = fill_with(2.0).close(|bytes| {
        assert_eq!(bytes, &stream[..]);
        Arc::clone(&stream)
    });
    assert!(Arc::ptr_eq(second.times.as_ref().unwrap(), &stream));
    assert!(bits(&second).iter().map(|(time, _)| *time).eq(times));
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (0_i64..1000).prop_map(|value| value as f64),
        2 => (-1_000_000_i64..1_000_000).prop_map(|value| value as f64 / 1000.0),
        1 => any::<i64>().prop_map(|value| value as f64),
        1 => any::<u64>().prop_map(f64::from_bits),
        1 => Just(f64::from_bits(STALE_MARKER_BITS)),
    ]
}

proptest! {
    #[test]
    fn decoding_gives_back_what_was_appended(
        start in -1_000_000_000_000_i64..2_000_000_000_000,
        samples in prop::collection::vec((prop_oneof![3 => Just(15_000_i64), 1 => 1..1_000_000_i64], value()), 1..240),
    ) {
        let mut at = start;
        let samples: Vec<(i64, f64)> = samples.into_iter().map(|(step, value)| { at += step; (at, value) }).collect();
        let open = fill(&samples);
        let expect: Vec<(i64, u64)> = samples.iter().map(|(time, value)| (*time, value.to_bits())).collect();
        prop_assert_eq!(bits(&open.snapshot()), expect.clone());
        prop_assert_eq!(bits(&open.close(|bytes| bytes.into())), expect);
    }
}
