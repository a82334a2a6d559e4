use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use windrose_proto::edge::{EdgeKey, EdgeRow, EdgeStats, Largest};
use windrose_proto::hop::Entry;
use windrose_proto::model::Direction;

use super::{Adder, Detail, EdgeSums, EntryCalls, is_entry_edge};
use crate::tables::arbitrary::edge_row;

/// Everything that sums say, in an order.
type Said = BTreeMap<EdgeKey, (EdgeStats, BTreeMap<Entry, (i64, i64)>)>;

fn said(sums: &EdgeSums) -> Said {
    let entries = |edge| sums.entries_of(edge).map(|(entry, n)| (entry.clone(), (n.calls, n.server_errors))).collect();
    sums.edges.iter().map(|edge| (EdgeKey::clone(&edge.key), (edge.stats.clone(), entries(edge)))).collect()
}

/// Rows of few keys, so that there is something to add up; keys of some are shared, of others only equal. Without the
/// lists of the slowest: which of them are still known after corrections depends on the order of merging.
fn rows() -> impl Strategy<Value = Vec<EdgeRow>> {
    (vec(edge_row(), 1..6), vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>()), 0..30))
        .prop_map(|(some, picks)| {
            let pick = |(key, stats, is_shared): (prop::sample::Index, prop::sample::Index, bool)| {
                let key = &key.get(&some).key;
                let key = if is_shared { Arc::clone(key) } else { Arc::new(EdgeKey::clone(key)) };
                let mut row = EdgeRow { key, ..stats.get(&some).clone() };
                let spans = &mut Arc::make_mut(&mut row.stats).spans;
                let lists = [&mut spans.client.slowest, &mut spans.server.slowest, &mut spans.latest_errors];
                lists.into_iter().for_each(|list| *list = Largest::default());
                row
            };
            picks.into_iter().map(pick).collect()
        })
}

/// The same by the book: every row looked up by itself.
fn by_the_book(rows: &[EdgeRow], detail: Detail) -> Said {
    let mut sums: BTreeMap<EdgeKey, (EdgeStats, BTreeMap<Entry, EntryCalls>)> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.key.direction != Direction::Local) {
        let is_whole = detail == Detail::Routes || is_entry_edge(&row.key) || row.key.direction == Direction::Egress;
        let plain = EdgeKey { entry: None, origin: None, ..EdgeKey::clone(&row.key) };
        let key = if is_whole { EdgeKey::clone(&row.key) } else { plain };
        let (stats, entries) = sums.entry(key).or_default();
        stats.merge(&row.stats);
        if let Some(entry) = &row.key.entry {
            entries.entry(entry.clone()).or_default().merge(EntryCalls::of(&row.stats.spans));
        }
    }
    let plain = |n: EntryCalls| (n.calls, n.server_errors);
    sums.into_iter()
        .map(|(key, (stats, entries))| {
            (key, (stats, entries.into_iter().map(|(entry, calls)| (entry, plain(calls))).collect()))
        })
        .collect()
}

proptest! {
    #[test]
    fn sums_are_what_the_rows_say(rows in rows()) {
        for detail in [Detail::Calls, Detail::Routes] {
            prop_assert_eq!(said(&EdgeSums::of(&rows, detail)), by_the_book(&rows, detail));
        }
    }

    #[test]
    fn sums_of_sums_are_sums_of_the_rows(rows in rows(), cut in any::<prop::sample::Index>()) {
        let (left, right) = rows.split_at(cut.index(rows.len() + 1));
        for detail in [Detail::Calls, Detail::Routes] {
            let mut adder = Adder::new(detail);
            adder.add(&EdgeSums::of(right, detail));
            adder.add(&EdgeSums::of(left, detail));
            prop_assert_eq!(said(&adder.finish()), said(&EdgeSums::of(&rows, detail)));
        }
    }
}
