//! The difference between what a trace has emitted and what it derives to now.

use std::cmp::Ordering;

use windrose_proto::hop::Hop;
use windrose_proto::id::SpanId;

/// Calls `retract` for every hop of `before` that is not in `after`, and `add` for every hop of
/// `after` that was not in `before`. Both are multisets; equal hops are left alone.
pub(super) fn diff<'a>(
    before: &'a [Hop],
    after: &'a [Hop],
    mut retract: impl FnMut(&'a Hop),
    mut add: impl FnMut(&'a Hop),
) {
    let old = by_key(before);
    let new = by_key(after);
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        let order = match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) => key(a).cmp(&key(b)),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        match order {
            Ordering::Less => {
                retract(old[i]);
                i += 1;
            }
            Ordering::Greater => {
                add(new[j]);
                j += 1;
            }
            Ordering::Equal => {
                if old[i] != new[j] {
                    retract(old[i]);
                    add(new[j]);
                }
                i += 1;
                j += 1;
            }
        }
    }
}

type Key = (Option<SpanId>, Option<SpanId>, u8);

/// Which hop of a trace it is: the spans it joins are unlike those of any other hop.
fn key(hop: &Hop) -> Key {
    (hop.client_span, hop.server_span, hop.retry)
}

fn by_key(hops: &[Hop]) -> Vec<&Hop> {
    let mut sorted: Vec<&Hop> = hops.iter().collect();
    sorted.sort_by_key(|hop| key(hop));
    sorted
}
