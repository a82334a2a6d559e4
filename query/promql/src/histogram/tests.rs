//! Tables for histogram arithmetic.

use super::*;

fn histogram(schema: i32, zero: (f64, f64), positive: &[(i32, f64)]) -> FloatHistogram {
    FloatHistogram {
        schema,
        zero_threshold: zero.0,
        zero_count: zero.1,
        count: zero.1 + positive.iter().map(|(_, count)| count).sum::<f64>(),
        sum: 1.0,
        positive: positive.to_vec(),
        ..FloatHistogram::default()
    }
}

#[test]
fn bounds_follow_the_schema() {
    for (index, schema, expect) in
        [(0, 0, 1.0), (1, 0, 2.0), (-1, 0, 0.5), (1, 1, std::f64::consts::SQRT_2), (1, -1, 4.0), (1024, 0, f64::MAX)]
    {
        let bound = buckets::exponential_bound(index, schema);
        assert!((bound - expect).abs() <= expect * 1e-15, "{index} at {schema}: {bound}");
    }
    assert_eq!(buckets::exponential_bound(1025, 0), f64::INFINITY);
    assert_eq!(buckets::exponential_bound(i32::MAX, 20), f64::INFINITY.min(buckets::exponential_bound(i32::MAX, 20)));
}

#[test]
fn addition_meets_at_the_coarser_resolution() {
    let mut fine = histogram(1, (0.0, 0.0), &[(1, 1.0), (2, 2.0), (3, 3.0)]);
    let coarse = histogram(0, (0.0, 0.0), &[(1, 10.0)]);
    fine.add(&coarse).unwrap();
    assert_eq!(fine.schema, 0);
    assert_eq!(fine.positive, vec![(1, 13.0), (2, 3.0)]);
    assert_eq!(fine.count, 16.0);
}

#[test]
fn addition_meets_at_the_wider_zero_bucket() {
    let mut narrow = histogram(0, (0.25, 1.0), &[(-1, 5.0), (1, 2.0)]);
    let wide = histogram(0, (0.4, 3.0), &[(1, 1.0)]);
    narrow.add(&wide).unwrap();
    // The wide zero bucket would cut the bucket (0.25, 0.5], so it grows to its end.
    assert_eq!((narrow.zero_threshold, narrow.zero_count), (0.5, 9.0));
    assert_eq!(narrow.positive, vec![(1, 3.0)]);
}

#[test]
fn custom_bounds_meet_at_what_they_share() {
    let custom = |bounds: &[f64], counts: &[(i32, f64)]| FloatHistogram {
        schema: CUSTOM_SCHEMA,
        custom_values: bounds.into(),
        count: 1.0,
        positive: counts.to_vec(),
        ..FloatHistogram::default()
    };
    let mut a = custom(&[1.0, 5.0, 10.0], &[(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0)]);
    let outcome = a.add(&custom(&[5.0, 20.0], &[(0, 10.0), (1, 20.0), (2, 30.0)])).unwrap();
    assert!(outcome.bounds_reconciled);
    assert_eq!(&*a.custom_values, &[5.0]);
    assert_eq!(a.positive, vec![(0, 13.0), (1, 57.0)]);
    assert_eq!(a.add(&histogram(0, (0.0, 0.0), &[])), Err(IncompatibleSchema));
}

#[test]
fn resets_are_seen_in_any_bucket() {
    let before = histogram(0, (0.0, 1.0), &[(1, 2.0), (2, 2.0)]);
    let mut after = histogram(0, (0.0, 1.0), &[(1, 3.0), (2, 3.0)]);
    assert!(!after.detect_reset(&before));
    after.positive[0].1 = 1.0;
    after.count = 10.0;
    assert!(after.detect_reset(&before));
    after.hint = ResetHint::NotReset;
    assert!(!after.detect_reset(&before));
}

#[test]
fn text_lists_buckets_upwards() {
    let mut histogram = histogram(0, (0.001, 2.0), &[(0, 1.0), (1, 2.0)]);
    histogram.negative = vec![(0, 1.0), (1, 2.0)];
    (histogram.count, histogram.sum) = (20.0, 10.0);
    assert_eq!(
        histogram.to_string(),
        "{count:20, sum:10, [-2,-1):2, [-1,-0.5):1, [-0.001,0.001]:2, (0.5,1]:1, (1,2]:2}"
    );
}
