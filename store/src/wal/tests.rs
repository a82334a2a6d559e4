//! Tests of the log as a whole; see the submodules for crashes, damage and the commit thread.

mod commit;
mod damage;
mod model;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::{ManualClock, UnixNanos};

use super::frame::SEGMENT_HEADER_BYTES;
use super::group::{Decision, Gathering, decide};
use super::*;
use crate::disk::{Disk, OsDisk, SimDisk};

const DIR: &str = "/data/wal";

/// Small segments, so that every test rotates.
pub(super) fn small_config() -> WalConfig {
    WalConfig { segment_bytes: 4096, max_bytes: 1 << 20, keep_free_bytes: 0, ..WalConfig::default() }
}

pub(super) fn open(disk: &SimDisk, config: WalConfig) -> (Wal, Recovery) {
    try_open(disk, config).unwrap()
}

pub(super) fn try_open(disk: &SimDisk, config: WalConfig) -> Result<(Wal, Recovery), OpenError> {
    let clock = Arc::new(ManualClock::new(UnixNanos::from_secs(1_700_000_000)));
    Wal::open(Arc::new(disk.process()), Path::new(DIR), config, clock)
}

/// A record that carries a number, and is about this long.
pub(super) fn record(id: u64, filler_bytes: usize) -> Record {
    let kind = RecordKind::OtlpTracesProtobuf;
    let filler: Vec<u8> = (0..filler_bytes).map(|index| (index as u64 ^ id) as u8).collect();
    let parts = [Bytes::copy_from_slice(&id.to_le_bytes()), Bytes::from(filler)];
    Record::new(kind, ContentEncoding::Identity, TenantId::default(), UnixNanos(id), parts)
}

pub(super) fn id_of(record: &StoredRecord) -> u64 {
    let id = u64::from_le_bytes(*record.payload.first_chunk().unwrap());
    let intact = record.payload[8..].iter().enumerate().all(|(index, byte)| *byte == (index as u64 ^ id) as u8);
    assert!(intact && record.arrival == UnixNanos(id), "the record is not the one appended");
    id
}

/// All records from `from` on, and the damages.
pub(super) fn read_all(disk: &SimDisk, from: WalPosition) -> (Vec<StoredRecord>, Vec<Damage>) {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut reader = WalReader::read_from(disk, Path::new(DIR), from, None);
    let mut records = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        records.push(record);
    }
    (records, reader.damages().to_vec())
}

pub(super) fn read_ids(disk: &SimDisk, from: WalPosition) -> Vec<u64> {
    let (records, damages) = read_all(disk, from);
    assert_eq!(damages, []);
    records.iter().map(id_of).collect()
}

#[test]
fn what_is_appended_is_read_back() {
    let disk = SimDisk::new(1);
    let (mut wal, recovery) = open(&disk, small_config());
    assert_eq!(recovery, Recovery::default());
    let tenant = TenantId::new("team-a").unwrap();
    let parts = [Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"c")];
    let record = Record::new(RecordKind::ZipkinJson, ContentEncoding::Gzip, tenant.clone(), UnixNanos(7), parts);
    let empty = Record::new(RecordKind::SealIntent, ContentEncoding::Zstd, tenant.clone(), UnixNanos(8), []);
    let appended = wal.append_batch(&[&record, &empty]).unwrap();

    let (records, damages) = read_all(&disk, WalPosition::START);
    assert_eq!(damages, []);
    let expected = StoredRecord {
        position: WalPosition::new(1, SEGMENT_HEADER_BYTES),
        after: WalPosition::new(1, SEGMENT_HEADER_BYTES + 48),
        kind: RecordKind::ZipkinJson,
        encoding: ContentEncoding::Gzip,
        tenant,
        arrival: UnixNanos(7),
        payload: Bytes::from_static(b"abc"),
    };
    assert_eq!(records[0], expected);
    assert_eq!((records[1].kind, records[1].payload.len()), (RecordKind::SealIntent, 0));
    let positions: Vec<Appended> = records.iter().map(|r| Appended { position: r.position, after: r.after }).collect();
    assert_eq!(positions, appended);
    assert_eq!(wal.end(), records[1].after);
}

#[test]
fn every_kind_and_encoding_keeps_its_number() {
    let numbers: Vec<u8> = RecordKind::ALL.iter().map(|kind| *kind as u8).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    for kind in RecordKind::ALL {
        assert_eq!(RecordKind::from_byte(kind as u8), Some(kind));
    }
    let encodings = [0, 1, 2].map(ContentEncoding::from_byte);
    assert_eq!(encodings, [ContentEncoding::Identity, ContentEncoding::Gzip, ContentEncoding::Zstd].map(Some));
    assert_eq!((RecordKind::from_byte(0), ContentEncoding::from_byte(3)), (None, None));
}

#[test]
fn reading_starts_at_any_record_and_crosses_segments() {
    let disk = SimDisk::new(1);
    let (mut wal, _) = open(&disk, small_config());
    let records: Vec<Record> = (1..=40).map(|id| record(id, 300)).collect();
    let appended = wal.append_batch(&records.iter().collect::<Vec<_>>()).unwrap();
    assert!(appended.last().unwrap().position.segment >= 4, "the test must rotate");
    for (index, place) in appended.iter().enumerate() {
        let rest: Vec<u64> = (index as u64 + 1..=40).collect();
        assert_eq!(read_ids(&disk, place.position), rest);
        assert_eq!(read_ids(&disk, place.after), rest[1..]);
    }
}

#[test]
fn a_reader_stops_where_it_is_told() {
    let disk = SimDisk::new(1);
    let (mut wal, _) = open(&disk, small_config());
    let records: Vec<Record> = (1..=20).map(|id| record(id, 300)).collect();
    let appended = wal.append_batch(&records.iter().collect::<Vec<_>>()).unwrap();
    for (index, place) in appended.iter().enumerate() {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let mut reader = WalReader::read_from(shared, Path::new(DIR), WalPosition::START, Some(place.after));
        let mut ids = Vec::new();
        while let Some(record) = reader.next_record().unwrap() {
            ids.push(id_of(&record));
        }
        assert_eq!(ids, (1..=index as u64 + 1).collect::<Vec<_>>());
        assert_eq!((reader.position(), reader.damages()), (place.after, &[][..]));
    }
}

#[test]
fn reopening_continues_in_a_new_segment_and_numbers_never_repeat() {
    let disk = SimDisk::new(1);
    let mut end = WalPosition::START;
    for round in 1..=5_u64 {
        let (mut wal, recovery) = open(&disk, small_config());
        assert_eq!((recovery.end, recovery.segments), (end, round - 1));
        // Opening and closing without a record changes nothing.
        drop(wal);
        wal = open(&disk, small_config()).0;
        let appended = wal.append_batch(&[&record(round, 10)]).unwrap();
        assert_eq!(appended[0].position.segment, round);
        end = appended[0].after;
        if round % 2 == 0 {
            wal.close().unwrap();
        }
    }
    assert_eq!(read_ids(&disk, WalPosition::START), [1, 2, 3, 4, 5]);
}

#[test]
fn crash_loops_do_not_eat_the_budget() {
    let disk = SimDisk::new(1);
    let config = WalConfig { max_bytes: 4 * 4096, ..small_config() };
    for id in 1..=50 {
        let (mut wal, recovery) = open(&disk, config.clone());
        assert_eq!(recovery.segments, id - 1);
        wal.append_batch(&[&record(id, 10)]).unwrap();
        disk.kill_process();
    }
    assert_eq!(read_ids(&disk, WalPosition::START).len(), 50);
}

#[test]
fn a_second_process_is_refused() {
    let disk = SimDisk::new(1);
    let (_wal, _) = open(&disk, small_config());
    let error = try_open(&disk, small_config()).unwrap_err();
    assert!(error.to_string().contains("/data/wal is in use by another process"), "{error}");
}

#[test]
fn impossible_settings_are_refused() {
    let disk = SimDisk::new(1);
    let check = |config: WalConfig, expected: &str| {
        let message = try_open(&disk, config).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    check(WalConfig { segment_bytes: 10, ..small_config() }, "segment_bytes is 10; use 1024 to 1073741824");
    check(WalConfig { max_bytes: 4097, ..small_config() }, "at least two segments");
    check(WalConfig { queue_max_bytes: 0, ..small_config() }, "must not be 0");
    assert_eq!(WalConfig::default().validate(), Ok(()));
}

#[test]
fn cut_segments_are_reused_and_their_old_records_stay_dead() {
    let disk = SimDisk::new(1);
    let config = WalConfig { max_bytes: 4 * 4096, ..small_config() };
    let (mut wal, _) = open(&disk, config);
    let mut id = 0;
    let mut expected = Vec::new();
    for _ in 0..30 {
        let first = id + 1;
        let records: Vec<Record> = (0..12)
            .map(|_| {
                id += 1;
                record(id, 300)
            })
            .collect();
        let appended = wal.append_batch(&records.iter().collect::<Vec<_>>()).unwrap();
        let cut = appended[6].position;
        wal.cut_before(cut).unwrap();
        let ids = read_ids(&disk, cut);
        expected = (first + 6..=id).collect();
        assert_eq!(ids, expected);
    }
    assert!(wal.stats().cut_segments.load(std::sync::atomic::Ordering::Relaxed) > 20);
    let from = read_all(&disk, WalPosition::START).0.last().unwrap().position;
    wal.cut_before(WalPosition::new(u64::MAX, 0)).unwrap();
    drop(wal);
    let (wal, recovery) = open(&disk, small_config());
    assert_eq!(recovery.segments, 1, "the newest segment stays");
    assert_eq!(read_ids(&disk, from), expected[expected.len() - 1..]);
    drop(wal);
}

#[test]
fn the_real_file_system_works_the_same() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let clock = Arc::new(ManualClock::new(UnixNanos::from_secs(5)));
    let open = || Wal::open(Arc::clone(&disk), &dir, small_config(), Arc::clone(&clock) as _);
    let (mut wal, _) = open().unwrap();
    assert!(matches!(open(), Err(OpenError::Lock(_))));
    let records: Vec<Record> = (1..=40).map(|id| record(id, 300)).collect();
    let appended = wal.append_batch(&records.iter().collect::<Vec<_>>()).unwrap();
    wal.cut_before(appended[20].position).unwrap();
    wal.append_batch(&(41..=60).map(|id| record(id, 300)).collect::<Vec<_>>().iter().collect::<Vec<_>>()).unwrap();
    drop(wal);
    let (wal, recovery) = open().unwrap();
    assert_eq!((recovery.torn_bytes, recovery.damages), (0, Vec::new()));
    let mut reader = WalReader::read_from(Arc::clone(&disk), &dir, appended[20].position, None);
    let mut ids = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        ids.push(id_of(&record));
    }
    assert_eq!(ids, (21..=60).collect::<Vec<_>>());
    wal.close().unwrap();
}

/// Bytes of format version 1. They must be readable for ever, and this version must still write
/// exactly them; a new version gets a file of its own.
#[test]
fn golden_bytes_of_version_1() {
    let golden = include_bytes!("golden/v1.segment");
    let disk = SimDisk::new(1);
    let path = Path::new(DIR).join("wal-00000000000000000001.segment");
    disk.put(&path, golden);
    let (records, damages) = read_all(&disk, WalPosition::START);
    assert_eq!(damages, []);
    let seen: Vec<_> = records.iter().map(|r| (r.kind, r.encoding, r.tenant.as_str(), &r.payload[..])).collect();
    let default = TenantId::DEFAULT_NAME;
    assert_eq!(
        seen,
        [
            (RecordKind::OtlpTracesProtobuf, ContentEncoding::Identity, default, &b"\x0a\x00"[..]),
            (RecordKind::ZipkinJson, ContentEncoding::Gzip, "team-a", &b"[]"[..]),
            (RecordKind::SealIntent, ContentEncoding::Zstd, default, &b""[..]),
        ]
    );
    assert_eq!(records[0].arrival, UnixNanos(1_700_000_000_123_456_789));

    let fresh = SimDisk::new(1);
    let (mut wal, _) = open(&fresh, small_config());
    wal.append_batch(&golden_records().iter().collect::<Vec<_>>()).unwrap();
    wal.close().unwrap();
    assert_eq!(fresh.content(&path).unwrap(), golden);
}

fn golden_records() -> Vec<Record> {
    let arrival = UnixNanos(1_700_000_000_123_456_789);
    let make = |kind, encoding, tenant: &str, payload: &'static [u8]| {
        Record::new(kind, encoding, TenantId::new(tenant).unwrap(), arrival, [Bytes::from_static(payload)])
    };
    vec![
        make(RecordKind::OtlpTracesProtobuf, ContentEncoding::Identity, TenantId::DEFAULT_NAME, b"\x0a\x00"),
        make(RecordKind::ZipkinJson, ContentEncoding::Gzip, "team-a", b"[]"),
        make(RecordKind::SealIntent, ContentEncoding::Zstd, TenantId::DEFAULT_NAME, b""),
    ]
}

#[test]
fn groups_wait_only_for_senders_that_take_turns() {
    let window = Duration::from_millis(5);
    let check = |records, bytes, waited_ms, previous_records, expected| {
        let oldest_waited = Duration::from_millis(waited_ms);
        let decision = decide(Gathering { records, bytes, oldest_waited, previous_records }, window, 1000);
        assert_eq!(decision, expected);
    };
    let wait = |ms| Decision::Wait(Duration::from_millis(ms));
    check(1, 10, 0, 0, Decision::Commit);
    check(1, 10, 0, 1, Decision::Commit);
    check(1, 10, 0, 4, wait(5));
    check(3, 10, 2, 4, wait(3));
    check(4, 10, 2, 4, Decision::Commit);
    check(2, 1000, 0, 4, Decision::Commit);
    check(2, 10, 5, 4, Decision::Commit);
    check(2, 10, 50, 4, Decision::Commit);
}

proptest! {
    /// Whatever was committed and is open: every record that some table has not committed, or that
    /// an open trace needs, is at or after the cut; and the cut is the furthest such place.
    #[test]
    fn the_cut_keeps_what_anybody_needs(
        tables in prop::collection::vec((0_u64..5, 0_u64..5), 0..5),
        open in prop::option::of((0_u64..5, 0_u64..5)),
    ) {
        let tables: Vec<WalPosition> = tables.into_iter().map(WalPosition::from).collect();
        let open = open.map(WalPosition::from);
        let cut = cut_point(&tables, open);
        for segment in 0..5 {
            for offset in 0..5 {
                let position = WalPosition::new(segment, offset);
                let all_committed = !tables.is_empty() && tables.iter().all(|committed| position < *committed);
                let needed = !all_committed || open.is_some_and(|open| position >= open);
                prop_assert_eq!(position >= cut, needed);
            }
        }
    }
}
