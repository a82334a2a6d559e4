//! What must hold for any bytes, shared by the fuzz targets.
//!
//! | file | for what |
//! |---|---|
//! | `spans.rs`, `metrics.rs` | decoders of request bodies |
//! | `pages.rs` | exposition pages |
//! | `log.rs` | the write-ahead log |
//! | `tables.rs` | table logs and trace indexes |
//! | `queries.rs` | PromQL |
//!
//! The parsers are pure or need no more than a simulated disk; they are compiled from their sources
//! here, because through their crates every fuzz build would instrument arrow and parquet as well,
//! which takes ten times as long as all of this.

#[expect(dead_code, unused_imports, reason = "only the parsers are called here")]
#[path = "../../../collector/src"]
mod collector {
    pub mod decode;
    pub mod exposition;
}
#[expect(dead_code, unused_imports, reason = "only the readers are called here")]
#[path = "../../../store/src"]
mod store {
    pub mod disk;
    pub mod wal;
    #[path = "segment"]
    pub mod segment {
        pub mod trace_index;

        pub fn encode_index(rows: impl Iterator<Item = windrose_proto::id::TraceId>) -> Vec<u8> {
            trace_index::encode(rows).bytes
        }
    }
    #[path = "table_log"]
    pub mod table_log {
        pub mod action;

        pub fn decode(commit: &[u8]) -> Option<Vec<action::Action>> {
            action::decode(commit).ok()
        }

        pub fn encode(actions: &[action::Action]) -> Vec<u8> {
            action::encode(actions)
        }
    }
}
// Where those sources expect them.
use collector::{decode, exposition};
use store::disk;

pub mod log;
pub mod metrics;
pub mod pages;
pub mod queries;
pub mod spans;
pub mod tables;
