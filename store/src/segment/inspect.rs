//! What a sealed file is made of, for people.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

use crate::disk::{Disk, read_file};

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

/// Largest file that is taken apart: it is read whole.
const FILE_MAX_BYTES: u64 = 4 << 30;

/// A file column by column and row group by row group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    pub bytes: u64,
    pub rows: u64,
    pub created_by: Option<String>,
    /// In the order of the file.
    pub columns: Vec<ColumnReport>,
    pub row_groups: Vec<RowGroupReport>,
}

/// One leaf column over all row groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnReport {
    /// Path of names, joined by dots.
    pub name: String,
    pub physical_type: String,
    pub codec: String,
    pub encodings: String,
    pub compressed_bytes: u64,
    pub uncompressed_bytes: u64,
}

/// One row group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowGroupReport {
    pub rows: u64,
    pub compressed_bytes: u64,
    /// Why its rows cannot be read, if so.
    pub damage: Option<String>,
}

/// Reads a file and takes it apart; every row group is decoded, so that damage is found.
///
/// # Errors
/// When it cannot be read, or its footer is not one of Parquet.
pub fn inspect_file(disk: &dyn Disk, path: &Path) -> io::Result<FileReport> {
    let file = Bytes::from(read_file(disk, path, FILE_MAX_BYTES)?);
    report(&file).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn report(file: &Bytes) -> Result<FileReport, ParquetError> {
    let metadata = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Skip).parse_and_finish(file)?;
    let groups = metadata.row_groups().iter().enumerate().map(|(place, group)| RowGroupReport {
        rows: group.num_rows() as u64,
        compressed_bytes: group.compressed_size() as u64,
        damage: decode_group(file, place).err().map(|error| error.to_string()),
    });
    Ok(FileReport {
        bytes: file.len() as u64,
        rows: metadata.file_metadata().num_rows() as u64,
        created_by: metadata.file_metadata().created_by().map(str::to_owned),
        columns: columns(&metadata),
        row_groups: groups.collect(),
    })
}

fn columns(metadata: &ParquetMetaData) -> Vec<ColumnReport> {
    let schema = metadata.file_metadata().schema_descr();
    let report = |place: usize| {
        let chunks = || metadata.row_groups().iter().map(move |group| group.column(place));
        let words = |words: BTreeSet<String>| words.into_iter().collect::<Vec<_>>().join(" ");
        ColumnReport {
            name: schema.column(place).path().string(),
            physical_type: format!("{:?}", schema.column(place).physical_type()),
            codec: words(chunks().map(|chunk| codec_name(&format!("{:?}", chunk.compression()))).collect()),
            encodings: words(
                chunks().flat_map(|chunk| chunk.encodings().map(|encoding| format!("{encoding:?}"))).collect(),
            ),
            compressed_bytes: chunks().map(|chunk| chunk.compressed_size() as u64).sum(),
            uncompressed_bytes: chunks().map(|chunk| chunk.uncompressed_size() as u64).sum(),
        }
    };
    (0..schema.num_columns()).map(report).collect()
}

/// Without the level, which files do not keep.
fn codec_name(debug: &str) -> String {
    debug.split('(').next().unwrap_or(debug).to_owned()
}

fn decode_group(file: &Bytes, place: usize) -> Result<(), ParquetError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file.clone())?.with_row_groups(vec![place]);
    builder.build()?.try_for_each(|batch| batch.map(drop)).map_err(ParquetError::from)
}
