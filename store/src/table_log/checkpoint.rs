//! Checkpoints: all live actions up to a version in one Parquet file (protocol: "V1 checkpoint").

use std::io::Cursor;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::{LineDelimitedWriter, ReaderBuilder};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::action::{self, Action, BadLine};

/// A checkpoint could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("checkpoint is not Parquet")]
    Parquet(#[from] ParquetError),
    #[error("checkpoint does not have the columns of the protocol")]
    Arrow(#[from] ArrowError),
    #[error("checkpoint row is not an action")]
    Row(#[from] BadLine),
}

/// Actions as a Parquet file. They go by way of their JSON, so that commits and checkpoints cannot
/// disagree about a field.
pub(super) fn encode(actions: &[Action]) -> Result<Vec<u8>, CheckpointError> {
    let schema = schema();
    let json = action::encode(actions);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_created_by(concat!("windrose ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties))?;
    for batch in ReaderBuilder::new(schema).build(Cursor::new(json))? {
        writer.write(&batch?)?;
    }
    Ok(writer.into_inner()?)
}

/// The actions of a checkpoint, ours or another writer's.
pub(super) fn decode(file: Bytes) -> Result<Vec<Action>, CheckpointError> {
    let mut json = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut json);
    for batch in ParquetRecordBatchReaderBuilder::try_new(file)?.build()? {
        writer.write(&batch?)?;
    }
    writer.finish()?;
    drop(writer);
    Ok(action::decode(&json)?)
}

fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let long = |name: &str| Field::new(name, DataType::Int64, true);
    let int = |name: &str| Field::new(name, DataType::Int32, true);
    let flag = |name: &str| Field::new(name, DataType::Boolean, true);
    let group = |name: &str, members: Vec<Field>| Field::new(name, DataType::Struct(Fields::from(members)), true);
    let map = |name: &str| {
        let pair = vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)];
        let entries = Field::new("key_value", DataType::Struct(Fields::from(pair)), false);
        Field::new(name, DataType::Map(Arc::new(entries), false), true)
    };
    let texts =
        |name: &str| Field::new(name, DataType::List(Arc::new(Field::new("element", DataType::Utf8, true))), true);
    Arc::new(Schema::new(vec![
        group("txn", vec![text("appId"), long("version"), long("lastUpdated")]),
        group(
            "add",
            vec![
                text("path"),
                map("partitionValues"),
                long("size"),
                long("modificationTime"),
                flag("dataChange"),
                text("stats"),
                map("tags"),
            ],
        ),
        group(
            "remove",
            vec![
                text("path"),
                long("deletionTimestamp"),
                flag("dataChange"),
                flag("extendedFileMetadata"),
                map("partitionValues"),
                long("size"),
            ],
        ),
        group(
            "metaData",
            vec![
                text("id"),
                text("name"),
                text("description"),
                group("format", vec![text("provider"), map("options")]),
                text("schemaString"),
                texts("partitionColumns"),
                map("configuration"),
                long("createdTime"),
            ],
        ),
        group("protocol", vec![int("minReaderVersion"), int("minWriterVersion")]),
    ]))
}
