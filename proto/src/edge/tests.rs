use std::collections::BTreeMap;

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
    fn the_maximum_is_exact_whatever_the_order(values in distinct(1..30)) {
        let want = values.iter().map(|(nanos, _)| *nanos).max();
        prop_assert_eq!(slowest(&values).max_nanos(), want);
    }

    #[test]
    fn merging_rows_is_adding_their_values(
        values in distinct(0..24),
        left in any::<prop::sample::Index>(),
    ) {
        let (left, right) = values.split_at(left.index(values.len() + 1));
        let mut merged = slowest(left);
        merged.merge(&slowest(right));
        prop_assert_eq!(merged, slowest(&values));
    }

    /// Rows of additions and removals, merged in any order: what is said is so.
    #[test]
    fn what_corrections_leave_is_exact_or_unknown(
        steps in prop::collection::vec((0_u64..12, 1_u8..4, 0_usize..3, any::<bool>()), 0..60),
        order in Just([0, 1, 2]).prop_shuffle(),
    ) {
        let mut rows = [Largest::default(), Largest::default(), Largest::default()];
        let mut all: BTreeMap<(u64, TraceId), i64> = BTreeMap::new();
        for (nanos, id, row, is_removal) in steps {
            let count = all.entry((nanos, trace(id))).or_default();
            if is_removal && *count > 0 {
                rows[row].remove(nanos, trace(id));
                *count -= 1;
            } else {
                rows[row].add(nanos, trace(id));
                *count += 1;
            }
        }
        let mut merged = Largest::default();
        order.iter().for_each(|row| merged.merge(&rows[*row]));
        let remaining = all.iter().rev().flat_map(|(observation, count)| std::iter::repeat_n(*observation, *count as usize));
        let known: Vec<_> = remaining.take_while(|observation| merged.cut().is_none_or(|cut| *observation > cut)).collect();
        prop_assert_eq!(merged.entries(), known);
        prop_assert_eq!(merged.removals(), &[]);
    }
}

fn distinct(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<(u64, u8)>> {
    prop::collection::btree_set((0_u64..1000, 1_u8..9), count).prop_map(|set| set.into_iter().collect()).prop_shuffle()
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
    assert_eq!(all.cut(), Some((1, trace(1))));
    for (nanos, id) in all.entries().to_vec() {
        all.remove(nanos, id);
    }
    assert_eq!(all.entries().len(), 0);
    assert_eq!(all.max_nanos(), None);
    assert_eq!(SLOWEST_KEPT, 4);
    all.add(0, trace(6));
    assert_eq!(all.max_nanos(), None, "the one that was cut off may be larger");
    all.add(2, trace(7));
    assert_eq!(all.max_nanos(), Some(2));
}
