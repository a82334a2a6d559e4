use proptest::prelude::*;

use super::{Bucket, Sketch};

/// Nearest rank over the values themselves.
fn exact(values: &mut [u64], q: f64) -> u64 {
    values.sort_unstable();
    values[((q * values.len() as f64).ceil() as usize).clamp(1, values.len()) - 1]
}

proptest! {
    #[test]
    fn a_value_lies_in_its_bucket(nanos in 2_u64..u64::MAX) {
        let bucket = Bucket::of(nanos);
        prop_assert!(bucket.lower_nanos() <= nanos as f64 * (1.0 + 1e-12));
        prop_assert!(nanos as f64 <= bucket.upper_nanos() * (1.0 + 1e-12));
    }

    #[test]
    fn a_quantile_is_within_two_point_two_percent(
        mut values in prop::collection::vec(1_000_u64..100_000_000_000, 1..200),
        q in 0.0_f64..=1.0,
    ) {
        let mut sketch = Sketch::default();
        values.iter().for_each(|value| sketch.add(*value, 1));
        let got = sketch.quantile_nanos(q).expect("not empty");
        let want = exact(&mut values, q) as f64;
        prop_assert!((got - want).abs() <= want * 0.022_2, "q {q}: got {got}, want {want}");
    }

    #[test]
    fn merging_commutes_and_can_be_taken_back(
        left in prop::collection::vec(0_u64..1_000_000_000, 0..50),
        right in prop::collection::vec(0_u64..1_000_000_000, 0..50),
    ) {
        let of = |values: &[u64]| {
            let mut sketch = Sketch::default();
            values.iter().for_each(|value| sketch.add(*value, 1));
            sketch
        };
        let (a, b) = (of(&left), of(&right));
        let (mut ab, mut ba) = (a.clone(), b.clone());
        ab.merge(&b);
        ba.merge(&a);
        prop_assert_eq!(&ab, &ba);
        ab.subtract(&b);
        prop_assert_eq!(ab, a);
    }
}

#[test]
fn empty_has_no_quantile() {
    assert_eq!(Sketch::default().quantile_nanos(0.5), None);
}

#[test]
fn bucket_bounds_are_the_powers() {
    assert_eq!(Bucket::of(0), Bucket(0));
    assert_eq!(Bucket::of(1), Bucket(0));
    assert_eq!(Bucket::of(2), Bucket(16));
    assert_eq!(Bucket::of(1 << 40), Bucket(640));
    assert!((Bucket(16).lower_nanos() - 2.0).abs() < 1e-12);
}
