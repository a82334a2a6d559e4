use std::time::Duration;

use proptest::prelude::*;
use windrose_proto::edge::SEALED_WINDOW_NANOS;
use windrose_proto::time::UnixNanos;

use super::{Candidate, CompactionPolicy, DAY_NANOS, HOUR_MILLIS, HOUR_NANOS, plan};
use crate::sealed::layout::date_of;
use crate::tables::Table;

/// 2026-11-21 00:00 UTC.
const MIDNIGHT: UnixNanos = UnixNanos(1_795_219_200_000_000_000);

const POLICY: CompactionPolicy = CompactionPolicy {
    target_bytes: 4 << 20,
    files_min: 3,
    hours_after: Duration::from_secs(2 * 24 * 3600),
    days_after: Duration::from_secs(14 * 24 * 3600),
};

/// A file of `kib`, sealed that many minutes after midnight.
fn file(place: usize, minutes: i64, kib: u64) -> Candidate {
    let sealed_millis = MIDNIGHT.as_millis() as i64 + minutes * 60_000;
    Candidate {
        tenant: "t".to_owned(),
        date: date_of(UnixNanos(sealed_millis as u64 * 1_000_000)),
        path: format!("{place:03}"),
        bytes: kib << 10,
        sealed_millis,
        window_nanos: None,
    }
}

/// Files as (minute of seal, KiB), looked at some minutes after midnight.
#[track_caller]
fn check(now_minutes: u64, sizes: &[(i64, u64)], expect: &[&[usize]]) {
    let files: Vec<Candidate> =
        sizes.iter().enumerate().map(|(place, (minutes, kib))| file(place, *minutes, *kib)).collect();
    let now = MIDNIGHT.plus(Duration::from_secs(now_minutes * 60));
    let groups: Vec<Vec<usize>> =
        plan(Table::Hops, &files, now, &POLICY).into_iter().map(|group| group.files).collect();
    assert_eq!(groups, expect);
}

#[test]
fn an_open_hour_merges_files_of_one_size_when_there_are_enough() {
    check(30, &[], &[]);
    check(30, &[(5, 10), (10, 20)], &[]);
    check(30, &[(5, 10), (10, 20), (15, 30)], &[&[0, 1, 2]]);
    check(30, &[(5, 10), (10, 600), (15, 20), (20, 30)], &[&[0, 2, 3]]);
}

#[test]
fn an_hour_that_is_over_becomes_one_file() {
    check(69, &[(5, 10), (55, 300)], &[]);
    check(70, &[(5, 10), (55, 300)], &[&[0, 1]]);
    check(70, &[(55, 300), (5, 10), (61, 1)], &[&[1, 0]]);
    check(130, &[(5, 10), (61, 20)], &[]);
    check(130, &[(5, 10), (61, 20), (62, 20)], &[&[1, 2]]);
}

#[test]
fn a_day_that_is_over_becomes_one_file() {
    check(24 * 60 + 9, &[(5, 10), (61, 20), (1439, 30)], &[]);
    check(24 * 60 + 10, &[(5, 10), (61, 20), (1439, 30)], &[&[0, 1, 2]]);
    check(24 * 60 + 10, &[(5, 10), (1441, 20)], &[]);
}

#[test]
fn groups_end_at_the_target_and_large_files_are_left_alone() {
    check(70, &[(1, 2048), (2, 8192), (3, 600)], &[]);
    check(70, &[(1, 1600), (2, 1600), (3, 1600)], &[&[0, 1]]);
    check(70, &[(1, 2000), (2, 2000), (3, 2000), (4, 2000), (5, 2000)], &[&[0, 1], &[2, 3]]);
    let many: Vec<(i64, u64)> = (0..70).map(|_| (1, 1)).collect();
    check(70, &many, &[&(0..64).collect::<Vec<_>>(), &(64..70).collect::<Vec<_>>()]);
}

#[test]
fn old_rollup_rows_get_wider_windows_even_alone_and_large() {
    let edges = |days: u64, window: u64, kib: u64| {
        let mut file = file(0, 5, kib);
        file.window_nanos = Some(window);
        let groups = plan(Table::Edges, &[file], MIDNIGHT.plus(Duration::from_secs(days * 24 * 3600 + 3600)), &POLICY);
        groups.first().map(|group| group.window_nanos)
    };
    assert_eq!(edges(1, SEALED_WINDOW_NANOS, 10), None);
    assert_eq!(edges(2, SEALED_WINDOW_NANOS, 10), Some(HOUR_NANOS));
    assert_eq!(edges(2, SEALED_WINDOW_NANOS, 16_384), Some(HOUR_NANOS));
    assert_eq!(edges(2, HOUR_NANOS, 10), None);
    assert_eq!(edges(14, HOUR_NANOS, 10), Some(DAY_NANOS));
    assert_eq!(edges(14, SEALED_WINDOW_NANOS, 10), Some(DAY_NANOS));
    assert_eq!(edges(99, DAY_NANOS, 10), None);
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let window = prop::sample::select(vec![SEALED_WINDOW_NANOS, HOUR_NANOS, DAY_NANOS]);
    let any_file = (0_u8..2, 0_i64..30 * 24 * 60, 0_u64..12_000, window);
    prop::collection::vec(any_file, 0..60).prop_map(|files| {
        let file = |(place, (tenant, minutes, kib, window)): (usize, (u8, i64, u64, u64))| Candidate {
            tenant: tenant.to_string(),
            window_nanos: Some(window),
            ..file(place, minutes, kib)
        };
        files.into_iter().enumerate().map(file).collect()
    })
}

/// What executing a group leaves: sums never get larger than their parts.
fn merged(group: &super::Group, files: &[Candidate], shrink_percent: u64, place: usize) -> Candidate {
    let parts: Vec<&Candidate> = group.files.iter().map(|place| &files[*place]).collect();
    Candidate {
        path: format!("m{place:05}"),
        bytes: parts.iter().map(|file| file.bytes).sum::<u64>() * shrink_percent / 100,
        sealed_millis: parts.iter().map(|file| file.sealed_millis).max().unwrap(),
        window_nanos: parts.iter().map(|file| file.window_nanos.unwrap().max(group.window_nanos)).min(),
        ..parts[0].clone()
    }
}

proptest! {
    #[test]
    fn plans_keep_to_partitions_and_come_to_an_end(
        mut files in candidates(),
        edges: bool,
        hours in 0_i64..40 * 24,
        shrink_percent in 1_u64..=100,
    ) {
        let table = if edges { Table::Edges } else { Table::Spans };
        let now = MIDNIGHT.plus(Duration::from_millis((hours * HOUR_MILLIS) as u64));
        // Each round leaves fewer files or wider windows: never more rounds than that.
        let mut rounds_left = files.len() * 3 + 1;
        let mut made = 0;
        loop {
            let groups = plan(table, &files, now, &POLICY);
            if groups.is_empty() {
                break;
            }
            prop_assert!(rounds_left > 0, "planning does not end");
            rounds_left -= 1;
            let mut used: Vec<usize> = groups.iter().flat_map(|group| group.files.clone()).collect();
            for group in &groups {
                let parts: Vec<&Candidate> = group.files.iter().map(|place| &files[*place]).collect();
                prop_assert!(parts.iter().all(|file| file.tenant == parts[0].tenant && file.date == parts[0].date));
                prop_assert!(parts.windows(2).all(|pair| pair[0].sealed_millis <= pair[1].sealed_millis));
                let bytes: u64 = parts.iter().map(|file| file.bytes).sum();
                prop_assert!(parts.len() == 1 || bytes <= POLICY.target_bytes);
                let widens = parts.iter().any(|file| file.window_nanos.unwrap() < group.window_nanos);
                prop_assert!(parts.len() >= 2 || (edges && widens));
            }
            let outputs: Vec<Candidate> = groups
                .iter()
                .map(|group| {
                    made += 1;
                    merged(group, &files, shrink_percent, made)
                })
                .collect();
            used.sort_unstable();
            prop_assert!(used.windows(2).all(|pair| pair[0] < pair[1]), "a file is in one group at most");
            for place in used.into_iter().rev() {
                files.swap_remove(place);
            }
            files.extend(outputs);
        }
    }
}
