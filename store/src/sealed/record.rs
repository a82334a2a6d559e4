//! The record of a seal: written after its files and before its commits.
//!
//! Once it is there, the seal is decided: whoever opens the tables next finishes the commits.
//! Without it, the files of the seal are garbage that the next attempt overwrites. It also holds
//! what only the writer needs: up to where the write-ahead log is in the tables, and which traces
//! were still open there. (In the object store and not in the write-ahead log, so that the tables
//! can be finished without it, and next to the tables because Delta checkpoints keep no provenance.)
//!
//! # In the file
//! Two equal lines, so that a flipped bit costs neither a seal nor the start of the process:
//! ```text
//! {"crc32c":<of the record's JSON as written>,"record":{"seal":12,"at":…,"wal_segment":3,…}}
//! ```
//! Records of earlier versions are one line, the record itself.

use std::collections::BTreeMap;

use object_store::path::Path;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use windrose_proto::id::TraceId;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;

use super::layout::WriterName;
use crate::table_log::Add;
use crate::tables::Table;

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    crc32c: u32,
    record: SealRecord,
}

/// One seal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SealRecord {
    pub(super) seal: u64,
    pub(super) at: UnixNanos,
    pub(super) wal_segment: u64,
    pub(super) wal_offset: u64,
    /// By table name.
    pub(super) files: BTreeMap<String, Vec<Add>>,
    /// By tenant, ids in hexadecimal.
    pub(super) open_traces: BTreeMap<String, Vec<String>>,
}

/// Up to where the tables hold the write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The last seal that all tables have.
    pub seal_number: u64,
    /// Segment and offset up to which the log is in the tables.
    pub wal: (u64, u64),
    /// Traces whose spans lie before that position but were not settled.
    pub open_traces: BTreeMap<TenantId, Vec<TraceId>>,
}

impl SealRecord {
    /// The content of the record's file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let line = Line { crc32c: self.checksum(), record: self.clone() };
        let mut text = serde_json::to_vec(&line).expect("a record is made of texts and numbers");
        text.push(b'\n');
        text.repeat(2)
    }

    /// The first good line.
    ///
    /// # Errors
    /// What is wrong with the last one, when none is good.
    pub(super) fn decode(content: &[u8]) -> Result<Self, serde_json::Error> {
        let mut outcome = Self::decode_line(b"");
        for line in content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            outcome = Self::decode_line(line);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    fn decode_line(line: &[u8]) -> Result<Self, serde_json::Error> {
        let Ok(Line { crc32c, record }) = first_value(line) else { return first_value(line) };
        if record.checksum() == crc32c {
            Ok(record)
        } else {
            Err(serde::de::Error::custom("the checksum does not match"))
        }
    }

    fn checksum(&self) -> u32 {
        crc32c::crc32c(&serde_json::to_vec(self).expect("a record is made of texts and numbers"))
    }

    pub(super) fn files_of(&self, table: Table) -> &[Add] {
        self.files.get(table.name()).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) const fn wal(&self) -> (u64, u64) {
        (self.wal_segment, self.wal_offset)
    }

    pub(super) fn recovered(&self) -> Recovered {
        let traces = |ids: &Vec<String>| ids.iter().filter_map(|id| TraceId::parse(id)).collect();
        let tenants = self.open_traces.iter().filter_map(|(name, ids)| Some((TenantId::new(name).ok()?, traces(ids))));
        Recovered { seal_number: self.seal, wal: self.wal(), open_traces: tenants.collect() }
    }

    /// Where the records of all writers lie.
    pub(super) fn root() -> Path {
        Path::from("_seals")
    }

    pub(super) fn directory(writer: &WriterName) -> Path {
        Self::root().join(writer.to_string())
    }

    pub(super) fn path(writer: &WriterName, seal: u64) -> Path {
        Self::directory(writer).join(format!("{seal:012}.json"))
    }

    /// The seal a record file is about.
    pub(super) fn seal_of(path: &Path) -> Option<u64> {
        path.filename()?.strip_suffix(".json")?.parse().ok()
    }
}

/// What a line begins with: the end of a line may be damaged too.
fn first_value<T: DeserializeOwned>(line: &[u8]) -> Result<T, serde_json::Error> {
    match serde_json::Deserializer::from_slice(line).into_iter::<T>().next() {
        Some(value) => value,
        None => Err(serde::de::Error::custom("the record is empty")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> SealRecord {
        SealRecord {
            seal: 12,
            at: UnixNanos::from_secs(1_800_000_000),
            wal_segment: 3,
            wal_offset: 4096,
            files: BTreeMap::from([("spans".to_owned(), Vec::new())]),
            open_traces: BTreeMap::from([("default".to_owned(), vec!["0af7651916cd43dd8448eb211c80319c".to_owned()])]),
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed_and_the_other_copy_read() {
        let content = record().encode();
        for place in 0..content.len() {
            for bit in 0..8 {
                let mut damaged = content.clone();
                damaged[place] ^= 1 << bit;
                assert_eq!(SealRecord::decode(&damaged).unwrap(), record(), "bit {bit} of byte {place}");
            }
        }
    }

    #[test]
    fn damage_of_both_copies_is_an_error() {
        let content = record().encode();
        let mut damaged = content.clone();
        for start in [0, content.len() / 2] {
            let place = start + content[start..].windows(4).position(|text| text == b"4096").unwrap();
            damaged[place] = b'5';
        }
        assert!(SealRecord::decode(&damaged).unwrap_err().to_string().contains("checksum"));
        assert!(SealRecord::decode(b"").is_err());
    }

    /// As versions before the checksum wrote it.
    #[test]
    fn records_of_earlier_versions_are_read() {
        let golden = r#"{"seal":12,"at":1800000000000000000,"wal_segment":3,"wal_offset":4096,"files":{"spans":[]},"open_traces":{"default":["0af7651916cd43dd8448eb211c80319c"]}}"#;
        assert_eq!(SealRecord::decode(golden.as_bytes()).unwrap(), record());
    }
}
