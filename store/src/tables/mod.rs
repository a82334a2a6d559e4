//! The columns of the tables: how rows become Arrow batches and come back.
//!
//! Column names are public: they stand in files that other tools read. Columns are only ever
//! added. Only types that Delta Lake knows are used: signed integers, booleans, UTF-8, binary,
//! decimals, lists, structs and maps of these. Times are nanoseconds since the epoch in 64-bit
//! integers, because Delta timestamps stop at microseconds.
//!
//! Invariants: `hops`, `requests` and `edges` read back equal; `spans` read back the span as
//! received, every attribute with its type and in its place. A batch that other tools rewrote
//! (other string or binary types, columns reordered, optional columns missing) reads the same.

#[cfg(test)]
pub(crate) mod arbitrary;
mod columns;
pub mod edges;
pub mod hops;
mod node;
mod otlp_json;
pub mod requests;
mod rule;
pub mod spans;
#[cfg(test)]
mod tests;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    Spans,
    Hops,
    Requests,
    Edges,
}

impl Table {
    /// Every table, in the order in which a seal commits them.
    pub const ALL: [Self; 4] = [Self::Spans, Self::Hops, Self::Requests, Self::Edges];

    /// Its public name and directory.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spans => "spans",
            Self::Hops => "hops",
            Self::Requests => "requests",
            Self::Edges => "edges",
        }
    }

    /// From its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }

    /// Its columns, without the partition columns `tenant` and `date`.
    #[must_use]
    pub fn schema(self) -> SchemaRef {
        match self {
            Self::Spans => spans::schema(),
            Self::Hops => hops::schema(),
            Self::Requests => requests::schema(),
            Self::Edges => edges::schema(),
        }
    }

    /// The column that says when a row happened: what files are pruned by.
    #[must_use]
    pub const fn time_column(self) -> &'static str {
        match self {
            Self::Spans | Self::Hops | Self::Requests => "start_ns",
            Self::Edges => "window_start_ns",
        }
    }
}

/// Why a batch could not be read as rows of its table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A column the rows cannot do without.
    #[error("column {0} is missing")]
    MissingColumn(String),
    /// A value outside the vocabulary.
    #[error("column {column} holds {value:?}, which this version does not know")]
    UnknownWord { column: String, value: String },
    /// A value that contradicts another column.
    #[error("column {column} is inconsistent: {why}")]
    Inconsistent { column: String, why: &'static str },
    /// The file around the batch could not be read or written.
    #[error("Parquet failed")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// The Arrow library refused.
    #[error("reading columns failed")]
    Arrow(#[from] ArrowError),
}

/// The batch with exactly the columns and types of `table`, whoever wrote it.
///
/// # Errors
/// When a required column is missing or cannot be converted.
pub fn conform(batch: &RecordBatch, table: Table) -> Result<RecordBatch, TableError> {
    columns::conform(batch, &table.schema())
}
