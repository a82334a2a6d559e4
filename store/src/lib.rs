//! Durability and columns: the write-ahead log, hot tables, Parquet segments, recovery.

pub mod cache;
pub mod disk;
pub mod edge_sums;
pub mod hot;
pub mod ledger;
pub mod metrics;
pub mod row;
pub mod sealed;
pub mod segment;
pub mod snapshot;
pub mod store;
pub mod table_log;
pub mod tables;
pub mod wal;
