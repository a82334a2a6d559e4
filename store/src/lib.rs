//! Durability and columns: the write-ahead log, hot tables, Parquet segments, recovery.

pub mod row;
