//! The write-ahead log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::{ManualClock, UnixNanos};

use crate::disk::{Disk, SimDisk};
use crate::store::wal::frame::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::store::wal::{
    ContentEncoding, Record, RecordKind, SEGMENT_MIN_BYTES, StoredRecord, Wal, WalConfig, WalPosition, WalReader,
};

const DIR: &str = "/wal";

/// Records written per input: enough for three segments.
const RECORDS_MAX: usize = 12;

/// The first byte chooses: a segment of any bytes, records of any bytes behind a good header, or a
/// good log in which the rest of the input damages bytes.
pub fn check(input: &[u8]) {
    match input.split_first() {
        Some((0, segment)) => check_segments(&[segment]),
        Some((1, records)) => {
            let header = SegmentHeader {
                number: 1,
                created: UnixNanos(1),
                previous_end: WalPosition::START,
                previous_proven: 0,
            };
            check_segments(&[&[&header.encode(), records].concat()]);
        }
        Some((_, plan)) => check_damage(plan),
        None => {}
    }
}

/// Whatever lies there, reading comes to an end, and opening the log for writing too.
fn check_segments(segments: &[&[u8]]) {
    let disk = SimDisk::new(1);
    for (index, segment) in segments.iter().enumerate() {
        disk.put(&path_of(index as u64 + 1), segment);
    }
    read(&disk);
    if let Ok(mut wal) = open(&disk) {
        let appended = wal.append_batch(&[&record(7, 20)]).expect("the disk is good");
        let newest = read(&disk).pop().expect("what was appended after recovery is read");
        assert_eq!((newest.position, newest.after), (appended[0].position, appended[0].after));
    }
}

/// A byte for the length of each record until a zero, then places and bits: each flips a bit. One
/// flipped bit costs at most the record it is in; any number of them panics nothing.
fn check_damage(plan: &[u8]) {
    let lengths = plan.iter().copied().take(RECORDS_MAX).take_while(|length| *length > 0);
    let lengths: Vec<usize> = lengths.map(|length| usize::from(length) * 3).collect();
    let flips = plan.get(lengths.len() + 1..).unwrap_or_default();
    let disk = SimDisk::new(1);
    let mut wal = open(&disk).expect("an empty directory");
    let records: Vec<Record> = lengths.iter().zip(1..).map(|(length, id)| record(id, *length)).collect();
    let places: Vec<WalPosition> = records
        .iter()
        .flat_map(|record| wal.append_batch(&[record]).expect("the disk is good"))
        .map(|appended| appended.position)
        .collect();
    drop(wal);
    let written = read(&disk);
    assert_eq!(written.iter().map(|record| record.position).collect::<Vec<_>>(), places);

    let flips: Vec<&[u8]> = flips.chunks_exact(4).collect();
    let mut hits = 0;
    for flip in &flips {
        let segment = u64::from(flip[0] % 4) + 1;
        let offset = u64::from(u16::from_le_bytes([flip[1], flip[2]]));
        hits += usize::from(disk.flip_bit(&path_of(segment), offset, flip[3] % 8));
    }
    let left = read(&disk);
    if hits == 0 {
        assert_eq!(left, written);
    }
    if hits == 1 {
        let kept = left.iter().filter(|record| written.contains(record)).count();
        assert_eq!(kept, left.len(), "a record that nobody wrote");
        assert!(left.len() + 1 >= written.len(), "one bit cost {} records", written.len() - left.len());
    }
    drop(open(&disk));
}

fn path_of(segment: u64) -> PathBuf {
    Path::new(DIR).join(format!("wal-{segment:020}.segment"))
}

fn open(disk: &SimDisk) -> Result<Wal, crate::store::wal::OpenError> {
    let config = WalConfig {
        segment_bytes: 2 * SEGMENT_MIN_BYTES,
        max_bytes: 1 << 20,
        keep_free_bytes: 0,
        ..WalConfig::default()
    };
    let clock = Arc::new(ManualClock::new(UnixNanos::from_secs(1_700_000_000)));
    Wal::open(Arc::new(disk.process()), Path::new(DIR), config, clock).map(|(wal, _)| wal)
}

fn record(id: u64, length: usize) -> Record {
    let parts = [Bytes::copy_from_slice(&id.to_le_bytes()), Bytes::from(vec![id as u8; length])];
    Record::new(RecordKind::OtlpTracesProtobuf, ContentEncoding::Identity, TenantId::default(), UnixNanos(id), parts)
}

/// Everything that can be read; positions only grow.
fn read(disk: &SimDisk) -> Vec<StoredRecord> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut reader = WalReader::read_from(disk, Path::new(DIR), WalPosition::START, None);
    let mut records: Vec<StoredRecord> = Vec::new();
    // A segment of a newer version is an error, and ends the reading.
    while let Ok(Some(record)) = reader.next_record() {
        assert!(record.position.offset >= SEGMENT_HEADER_BYTES && record.position < record.after);
        assert!(records.last().is_none_or(|last| last.after <= record.position));
        records.push(record);
    }
    records
}
