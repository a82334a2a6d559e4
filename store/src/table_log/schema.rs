//! Columns in the words of Delta Lake.

use arrow::datatypes::{DataType, Field, Schema};
use serde_json::{Value, json};

/// A column type that Delta Lake has no word for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column} has type {data_type}, which Delta Lake does not know")]
pub struct UnsupportedType {
    column: String,
    data_type: String,
}

/// The schema string of a table with these columns and these text or date partition columns.
///
/// # Errors
/// When a column has a type that Delta Lake does not know.
pub fn delta_schema(schema: &Schema, partitions: &[(&str, &str)]) -> Result<String, UnsupportedType> {
    let mut fields = Vec::new();
    for (name, kind) in partitions {
        fields.push(json!({ "name": name, "type": kind, "nullable": true, "metadata": {} }));
    }
    for field in schema.fields() {
        fields.push(struct_field(field)?);
    }
    Ok(json!({ "type": "struct", "fields": fields }).to_string())
}

fn struct_field(field: &Field) -> Result<Value, UnsupportedType> {
    Ok(json!({
        "name": field.name(),
        "type": delta_type(field)?,
        "nullable": field.is_nullable(),
        "metadata": {},
    }))
}

fn delta_type(field: &Field) -> Result<Value, UnsupportedType> {
    Ok(match field.data_type() {
        DataType::Utf8 => json!("string"),
        DataType::Int64 => json!("long"),
        DataType::Int32 => json!("integer"),
        DataType::Float64 => json!("double"),
        DataType::Boolean => json!("boolean"),
        DataType::Binary | DataType::FixedSizeBinary(_) => json!("binary"),
        DataType::Decimal128(precision, scale) => json!(format!("decimal({precision},{scale})")),
        DataType::List(element) => json!({
            "type": "array",
            "elementType": delta_type(element)?,
            "containsNull": element.is_nullable(),
        }),
        DataType::Struct(members) => json!({
            "type": "struct",
            "fields": members.iter().map(|member| struct_field(member)).collect::<Result<Vec<_>, _>>()?,
        }),
        DataType::Map(entries, _) => {
            let DataType::Struct(pair) = entries.data_type() else { return Err(unsupported(field)) };
            let [key, value] = &pair[..] else { return Err(unsupported(field)) };
            json!({
                "type": "map",
                "keyType": delta_type(key)?,
                "valueType": delta_type(value)?,
                "valueContainsNull": value.is_nullable(),
            })
        }
        _ => return Err(unsupported(field)),
    })
}

fn unsupported(field: &Field) -> UnsupportedType {
    UnsupportedType { column: field.name().clone(), data_type: field.data_type().to_string() }
}

/// The names of the top-level columns in a schema string, in order.
pub(super) fn column_names(schema_string: &str) -> Vec<String> {
    let schema: Value = serde_json::from_str(schema_string).unwrap_or_default();
    let fields = schema["fields"].as_array().map(Vec::as_slice).unwrap_or_default();
    fields.iter().filter_map(|field| field["name"].as_str().map(str::to_owned)).collect()
}

/// `existing` with the columns of `wanted` that it lacks, all of these nullable because older
/// files do not have them. `None` when it lacks none.
pub(super) fn with_new_columns(existing: &str, wanted: &str) -> Option<String> {
    let known = column_names(existing);
    let wanted: Value = serde_json::from_str(wanted).ok()?;
    let mut merged: Value = serde_json::from_str(existing).ok()?;
    let fields = merged["fields"].as_array_mut()?;
    let before = fields.len();
    for field in wanted["fields"].as_array()? {
        if !known.iter().any(|name| Some(name.as_str()) == field["name"].as_str()) {
            let mut field = field.clone();
            field["nullable"] = Value::Bool(true);
            fields.push(field);
        }
    }
    (fields.len() > before).then(|| merged.to_string())
}
