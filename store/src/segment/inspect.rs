//! What a sealed file is made of, for people.

use std::collections::BTreeMap;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};

/// Where the bytes of a file are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileBytes {
    pub rows: u64,
    pub row_groups: usize,
    /// Compressed bytes by top-level column.
    pub columns: BTreeMap<String, u64>,
    /// Footer, page index and what else is no column data.
    pub overhead: u64,
}

/// Takes a file apart.
///
/// # Errors
/// When it is not Parquet.
pub fn file_bytes(file: &Bytes) -> Result<FileBytes, ParquetError> {
    let metadata = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Skip).parse_and_finish(file)?;
    let mut columns: BTreeMap<String, u64> = BTreeMap::new();
    for column in metadata.row_groups().iter().flat_map(|group| group.columns()) {
        let name = column.column_path().parts().first().cloned().unwrap_or_default();
        *columns.entry(name).or_default() += column.compressed_size() as u64;
    }
    let data: u64 = columns.values().sum();
    Ok(FileBytes {
        rows: metadata.file_metadata().num_rows() as u64,
        row_groups: metadata.num_row_groups(),
        columns,
        overhead: (file.len() as u64).saturating_sub(data),
    })
}
