//! One test per kind of damage, then any single flipped bit, then garbage.

use super::super::frame::{FORMAT_VERSION, RecordHeader, SegmentHeader};
use super::*;
use crate::disk::Fault;
use crate::disk::Operation;

/// A log of `count` records, one group each, in several segments; where each record is.
fn written(count: u64) -> (SimDisk, Vec<Appended>) {
    let disk = SimDisk::new(3);
    let (mut wal, _) = open(&disk, small_config());
    let appended = (1..=count).map(|id| wal.append_batch(&[&record(id, 500)]).unwrap()[0]).collect();
    (disk, appended)
}

fn path_of(segment: u64) -> std::path::PathBuf {
    Path::new(DIR).join(format!("wal-{segment:020}.segment"))
}

fn without(count: u64, missing: &[u64]) -> Vec<u64> {
    (1..=count).filter(|id| !missing.contains(id)).collect()
}

#[track_caller]
fn check(disk: &SimDisk, expected_ids: &[u64], expected_damages: &[(WalPosition, DamageReason)]) {
    let (records, damages) = read_all(disk, WalPosition::START);
    assert_eq!(records.iter().map(id_of).collect::<Vec<_>>(), expected_ids);
    let damages: Vec<_> = damages.iter().map(|damage| (damage.position, damage.reason)).collect();
    assert_eq!(damages, expected_damages);
}

#[test]
fn a_flipped_bit_in_a_body_costs_that_record() {
    let (disk, places) = written(20);
    let place = places[4].position;
    disk.flip_bit(&path_of(place.segment), place.offset + 100, 3);
    check(&disk, &without(20, &[5]), &[(place, DamageReason::RecordBody)]);
}

#[test]
fn a_flipped_bit_in_a_record_header_costs_that_record() {
    for byte in 0..32 {
        let (disk, places) = written(20);
        let place = places[8].position;
        disk.flip_bit(&path_of(place.segment), place.offset + byte, 1);
        check(&disk, &without(20, &[9]), &[(place, DamageReason::RecordHeader)]);
    }
}

#[test]
fn one_damaged_copy_of_a_segment_header_costs_nothing() {
    for byte in 0..SEGMENT_HEADER_BYTES {
        let (disk, _) = written(20);
        disk.flip_bit(&path_of(2), byte, 5);
        check(&disk, &without(20, &[]), &[]);
    }
}

#[test]
fn both_copies_damaged_cost_the_segment() {
    let (disk, places) = written(20);
    disk.flip_bit(&path_of(2), 20, 0);
    disk.flip_bit(&path_of(2), 64 + 20, 0);
    let lost: Vec<u64> = (1..=20).filter(|id| places[*id as usize - 1].position.segment == 2).collect();
    assert!(!lost.is_empty());
    check(&disk, &without(20, &lost), &[(WalPosition::new(2, 0), DamageReason::SegmentHeader)]);
}

#[test]
fn a_newest_segment_without_a_header_is_kept_and_its_number_not_used_again() {
    let (disk, places) = written(20);
    let newest = places[19].position.segment;
    disk.flip_bit(&path_of(newest), 20, 0);
    disk.flip_bit(&path_of(newest), 64 + 20, 0);
    let (mut wal, recovery) = open(&disk, small_config());
    assert_eq!(recovery.damages[0].reason, DamageReason::SegmentHeader);
    assert_eq!(wal.append_batch(&[&record(21, 10)]).unwrap()[0].position.segment, newest + 1);
    assert!(disk.content(&path_of(newest)).is_some());
}

#[test]
fn a_shortened_segment_is_reported() {
    let (disk, places) = written(20);
    let place = places[9];
    let path = path_of(place.position.segment);
    let content = disk.content(&path).unwrap();
    disk.put(&path, &content[..place.position.offset as usize + 40]);
    let lost: Vec<u64> =
        (10..=20).filter(|id| places[*id as usize - 1].position.segment == place.position.segment).collect();
    check(&disk, &without(20, &lost), &[(place.position, DamageReason::RecordHeader)]);
}

#[test]
fn a_missing_segment_is_reported() {
    let (disk, places) = written(20);
    disk.remove(&path_of(2)).unwrap();
    let lost: Vec<u64> = (1..=20).filter(|id| places[*id as usize - 1].position.segment == 2).collect();
    let end_of_first = places.iter().rfind(|place| place.position.segment == 1).unwrap().after;
    check(&disk, &without(20, &lost), &[(end_of_first, DamageReason::MissingSegment)]);
}

#[test]
fn a_record_of_an_unknown_kind_is_skipped_and_reported() {
    let (disk, places) = written(20);
    let place = places[4].position;
    rewrite_header(&disk, place, |header| header.kind = 200);
    check(&disk, &without(20, &[5]), &[(place, DamageReason::UnknownKind)]);
}

#[test]
fn an_absurd_length_is_not_believed() {
    let (disk, places) = written(20);
    let place = places[4].position;
    rewrite_header(&disk, place, |header| header.body_bytes = u32::MAX);
    check(&disk, &without(20, &[5]), &[(place, DamageReason::RecordHeader)]);
}

/// Changes a record's header and gives it a valid checksum.
fn rewrite_header(disk: &SimDisk, place: WalPosition, change: impl FnOnce(&mut RecordHeader)) {
    let path = path_of(place.segment);
    let mut content = disk.content(&path).unwrap();
    let seed = SegmentHeader::decode(&content).unwrap().seed();
    let at = place.offset as usize;
    let mut header = RecordHeader::decode(&content[at..], seed, place.offset).unwrap();
    change(&mut header);
    content[at..at + 32].copy_from_slice(&header.encode(seed, place.offset));
    disk.put(&path, &content);
}

#[test]
fn a_torn_end_is_cut_and_counted() {
    let (disk, places) = written(20);
    let last = places[19];
    disk.flip_bit(&path_of(last.position.segment), last.position.offset + 50, 0);
    let (mut wal, recovery) = open(&disk, small_config());
    let torn_bytes = last.after.offset - last.position.offset;
    assert_eq!((recovery.end, recovery.torn_bytes), (places[18].after, torn_bytes));
    assert_eq!(recovery.damages, []);
    assert_eq!(wal.stats().torn_bytes.load(std::sync::atomic::Ordering::Relaxed), torn_bytes);
    wal.append_batch(&[&record(21, 10)]).unwrap();
    check(&disk, &without(21, &[20]), &[]);
}

#[test]
fn a_gap_in_the_last_group_is_torn_but_an_older_one_is_a_loss() {
    let disk = SimDisk::new(3);
    let (mut wal, _) = open(&disk, WalConfig { segment_bytes: 1 << 16, ..small_config() });
    let group = |first: u64| (first..first + 3).map(|id| record(id, 100)).collect::<Vec<_>>();
    let mut places = Vec::new();
    for first in [1, 4, 7] {
        places.extend(wal.append_batch(&group(first).iter().collect::<Vec<_>>()).unwrap());
    }
    drop(wal);
    let damaged = [places[1].position, places[7].position];
    for place in damaged {
        disk.flip_bit(&path_of(1), place.offset + 4, 0);
    }
    let expected = [(damaged[0], DamageReason::RecordHeader), (damaged[1], DamageReason::Torn)];
    check(&disk, &without(9, &[2, 8]), &expected);
    let (_wal, recovery) = open(&disk, small_config());
    assert_eq!(recovery.damages.len(), 1);
    assert_eq!(recovery.end, places[8].after);
}

#[test]
fn a_newer_format_is_refused() {
    let (disk, _) = written(3);
    let mut content = disk.content(&path_of(1)).unwrap();
    content[8..10].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
    let checksum = crc32c::crc32c(&content[..60]).to_le_bytes();
    content[60..64].copy_from_slice(&checksum);
    disk.put(&path_of(1), &content);
    let message = try_open(&disk, small_config()).unwrap_err().to_string();
    assert!(message.contains("format version 2 is newer than 1"), "{message}");
}

#[test]
fn a_segment_that_was_never_started_is_emptied_and_its_number_not_used_again() {
    let (original, places) = written(20);
    let next = places[19].position.segment + 1;
    let reused = original.content(&path_of(1)).unwrap();
    let mut half_started = vec![0; 4096];
    half_started[..20].copy_from_slice(&reused[..20]);
    for content in [vec![0; 4096], reused, half_started, Vec::new()] {
        let (disk, _) = written(20);
        disk.put(&path_of(next), &content);
        let (mut wal, recovery) = open(&disk, small_config());
        assert_eq!((recovery.end, recovery.damages), (places[19].after, Vec::new()));
        assert!(disk.content(&path_of(next)).unwrap().is_empty());
        assert_eq!(wal.append_batch(&[&record(21, 10)]).unwrap()[0].position.segment, next + 1);
        check(&disk, &without(21, &[]), &[]);
    }
}

#[test]
fn a_payload_that_imitates_records_is_not_taken_for_one() {
    let (donor, places) = written(6);
    let frames = donor.content(&path_of(1)).unwrap()[SEGMENT_HEADER_BYTES as usize..].to_vec();
    let disk = SimDisk::new(4);
    let (mut wal, _) = open(&disk, small_config());
    let hostile = Record::new(
        RecordKind::OtlpTracesProtobuf,
        ContentEncoding::Identity,
        TenantId::default(),
        UnixNanos(0),
        [Bytes::from(frames[..1700].to_vec())],
    );
    let hostile = wal.append_batch(&[&hostile]).unwrap()[0];
    wal.append_batch(&[&record(1, 10)]).unwrap();
    // The header that says how long the hostile record is gets lost.
    disk.flip_bit(&path_of(1), hostile.position.offset + 9, 0);
    check(&disk, &[1], &[(hostile.position, DamageReason::RecordHeader)]);
    assert_eq!(places[0].position.offset, SEGMENT_HEADER_BYTES);
}

#[test]
fn a_read_error_is_an_error_and_the_same_place_is_tried_again() {
    let (disk, _) = written(20);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut reader = WalReader::read_from(shared, Path::new(DIR), WalPosition::START, None);
    let mut ids = Vec::new();
    loop {
        disk.fail_next(Operation::Read, Fault::Io, u32::from(ids.len() % 3 == 0));
        match reader.next_record() {
            Ok(Some(record)) => ids.push(id_of(&record)),
            Ok(None) => break,
            Err(_) => {
                disk.heal();
                ids.extend(reader.next_record().unwrap().map(|record| id_of(&record)));
            }
        }
    }
    assert_eq!(ids, without(20, &[]));
}

proptest! {
    /// One flipped bit anywhere: no panic, at most one record gone, and unless it was in the last
    /// group it is reported.
    #[test]
    fn any_flipped_bit_costs_at_most_one_record(segment in 1_u64..4, offset in 0_u64..4096, bit in 0_u8..8) {
        let (disk, places) = written(20);
        disk.flip_bit(&path_of(segment), offset, bit);
        let (records, damages) = read_all(&disk, WalPosition::START);
        let ids: Vec<u64> = records.iter().map(id_of).collect();
        let missing: Vec<u64> = (1..=20).filter(|id| !ids.contains(id)).collect();
        prop_assert!(ids.is_sorted());
        prop_assert!(missing.len() <= 1, "{:?}", missing);
        if let Some(id) = missing.first() {
            let place = places[*id as usize - 1].position;
            prop_assert_eq!(damages.len(), 1);
            prop_assert_eq!(damages[0].position, place);
            prop_assert_eq!(damages[0].reason.is_loss(), *id != 20);
        } else {
            let end = places[19].after;
            let all_after_the_end = damages.iter().all(|damage| !damage.reason.is_loss() && damage.position >= end);
            prop_assert!(all_after_the_end, "{:?}", damages);
        }
    }

    /// Random bytes, with and without a valid start: no panic, opening works, appending works.
    #[test]
    fn garbage_is_survived(
        garbage in prop::collection::vec(any::<u8>(), 0..3000),
        has_header: bool,
        kept in 0_usize..2000,
    ) {
        let (disk, _) = written(3);
        let mut content = disk.content(&path_of(1)).unwrap();
        content.truncate(if has_header { kept.max(SEGMENT_HEADER_BYTES as usize) } else { 0 });
        content.extend(garbage);
        disk.put(&path_of(1), &content);
        let (records, _) = read_all(&disk, WalPosition::START);
        let ids: Vec<u64> = records.iter().map(id_of).collect();
        prop_assert!(without(3, &[]).starts_with(&ids));
        let (mut wal, _) = open(&disk, small_config());
        wal.append_batch(&[&record(4, 10)]).unwrap();
        let (records, _) = read_all(&disk, WalPosition::START);
        prop_assert_eq!(records.iter().map(id_of).last(), Some(4));
    }
}
