//! Record batches as JSON, CSV or an Arrow IPC stream.

use arrow::csv::WriterBuilder as CsvWriterBuilder;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::WriterBuilder as JsonWriterBuilder;
use arrow::json::writer::JsonArray;
use serde::Serialize;
use utoipa::ToSchema;

use super::engine::SqlAnswer;

/// One column of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Column {
    pub name: String,
    /// Arrow type.
    #[serde(rename = "type")]
    pub data_type: String,
}

impl SqlAnswer {
    /// Names and types of the columns.
    #[must_use]
    pub fn columns(&self) -> Vec<Column> {
        let column = |field: &arrow::datatypes::FieldRef| Column {
            name: field.name().clone(),
            data_type: field.data_type().to_string(),
        };
        self.schema.fields().iter().map(column).collect()
    }
}

/// Rows as a JSON array of objects; ids and other bytes are hexadecimal.
///
/// # Errors
/// When a column's type has no JSON form.
pub fn json_rows(answer: &SqlAnswer) -> Result<Vec<u8>, ArrowError> {
    let mut writer = JsonWriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
    answer.batches.iter().try_for_each(|batch| writer.write(batch))?;
    writer.finish()?;
    let text = writer.into_inner();
    Ok(if text.is_empty() { b"[]".to_vec() } else { text })
}

/// Rows as CSV with a header.
///
/// # Errors
/// When a column holds lists or structures, which CSV cannot.
pub fn csv(answer: &SqlAnswer) -> Result<Vec<u8>, ArrowError> {
    let mut text = Vec::new();
    let mut writer = CsvWriterBuilder::new().with_header(true).build(&mut text);
    answer.batches.iter().try_for_each(|batch| writer.write(batch))?;
    drop(writer);
    Ok(text)
}

/// Rows as an Arrow IPC stream.
///
/// # Errors
/// When encoding fails.
pub fn arrow_stream(answer: &SqlAnswer) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), &answer.schema)?;
    answer.batches.iter().try_for_each(|batch| writer.write(batch))?;
    writer.finish()?;
    writer.into_inner()
}
