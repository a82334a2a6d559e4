use proptest::prelude::*;

use super::{Largest, SLOWEST_KEPT};
use crate::id::TraceId;

fn trace(n: u8) -> TraceId {
    TraceId::new([n.max(1); 16]).expect("not zero")
}

fn slowest(of: &[(u64, u8)]) -> Largest {
    let mut all = Largest::default();
    of.iter().for_each(|(nanos, n)| all.add(*nanos, trace(*n)));
    all
}

proptest! {
    #[test]
    fn the_maximum_is_exact_whatever_the_order(values in prop::collection::vec((0_u64..1000, 1_u8..9), 1..30)) {
        let want = values.iter().map(|(nanos, _)| *nanos).max();
        prop_assert_eq!(slowest(&values).max_nanos(), want);
    }

    #[test]
    fn merging_rows_is_adding_their_values(
        left in prop::collection::vec((0_u64..1000, 1_u8..9), 0..12),
        right in prop::collection::vec((0_u64..1000, 1_u8..9), 0..12),
    ) {
        let mut merged = slowest(&left);
        merged.merge(&slowest(&right));
        let all: Vec<_> = left.into_iter().chain(right).collect();
        let direct = slowest(&all);
        prop_assert_eq!(merged.entries(), direct.entries());
    }
}

#[test]
fn a_correction_row_takes_the_maximum_back() {
    let sealed = slowest(&[(900, 1), (50, 2)]);
    let mut correction = Largest::default();
    correction.remove(900, trace(1));
    let mut early = correction.clone();
    early.merge(&sealed);
    let mut late = sealed;
    late.merge(&correction);
    assert_eq!(late.max_nanos(), Some(50));
    assert_eq!(early.max_nanos(), Some(50), "the order of rows does not matter");
}

#[test]
fn used_up_is_unknown_not_wrong() {
    let mut all = slowest(&[(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]);
    assert!(all.overflowed());
    for (nanos, id) in all.entries().to_vec() {
        all.remove(nanos, id);
    }
    assert_eq!(all.entries().len(), 0);
    assert_eq!(all.max_nanos(), None);
    assert_eq!(SLOWEST_KEPT, 4);
}
