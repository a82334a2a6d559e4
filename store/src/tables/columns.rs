//! Building and reading columns by name.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, FixedSizeBinaryBuilder, Int32Array,
    Int64Array, ListArray, ListBuilder, RecordBatch, RecordBatchOptions, StringArray, StringBuilder, StructArray,
    new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::TableError;

/// Collects named columns of equal length.
#[derive(Debug, Default)]
pub(super) struct Columns {
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
}

impl Columns {
    /// Adds a finished array.
    pub(super) fn push(&mut self, name: impl Into<String>, nullable: bool, array: ArrayRef) {
        self.fields.push(Field::new(name, array.data_type().clone(), nullable));
        self.arrays.push(array);
    }

    pub(super) fn text<'a>(&mut self, name: impl Into<String>, values: impl Iterator<Item = &'a str>) {
        self.push(name, false, Arc::new(StringArray::from_iter_values(values)));
    }

    pub(super) fn text_opt<'a>(&mut self, name: impl Into<String>, values: impl Iterator<Item = Option<&'a str>>) {
        self.push(name, true, Arc::new(values.collect::<StringArray>()));
    }

    pub(super) fn text_array(&mut self, name: impl Into<String>, nullable: bool, values: StringArray) {
        self.push(name, nullable, Arc::new(values));
    }

    /// Nanoseconds, bytes, counts. Unsigned values keep their bits.
    pub(super) fn long(&mut self, name: impl Into<String>, values: impl Iterator<Item = i64>) {
        self.push(name, false, Arc::new(Int64Array::from_iter_values(values)));
    }

    pub(super) fn long_opt(&mut self, name: impl Into<String>, values: impl Iterator<Item = Option<i64>>) {
        self.push(name, true, Arc::new(values.collect::<Int64Array>()));
    }

    pub(super) fn int(&mut self, name: impl Into<String>, values: impl Iterator<Item = i32>) {
        self.push(name, false, Arc::new(Int32Array::from_iter_values(values)));
    }

    pub(super) fn int_opt(&mut self, name: impl Into<String>, values: impl Iterator<Item = Option<i32>>) {
        self.push(name, true, Arc::new(values.collect::<Int32Array>()));
    }

    pub(super) fn flag(&mut self, name: impl Into<String>, values: impl Iterator<Item = bool>) {
        self.push(name, false, Arc::new(values.map(Some).collect::<BooleanArray>()));
    }

    /// Whole numbers beyond 64 bits, as `decimal(38,0)`.
    pub(super) fn decimal(&mut self, name: impl Into<String>, values: impl Iterator<Item = i128>) {
        let array = Decimal128Array::from_iter_values(values.map(|value| value.clamp(-DECIMAL_MAX, DECIMAL_MAX)));
        self.push(name, false, Arc::new(array.with_data_type(DataType::Decimal128(38, 0))));
    }

    pub(super) fn id<const N: usize>(&mut self, name: impl Into<String>, values: impl Iterator<Item = [u8; N]>) {
        self.push(name, false, Arc::new(ids(values.map(Some))));
    }

    pub(super) fn id_opt<const N: usize>(
        &mut self,
        name: impl Into<String>,
        values: impl Iterator<Item = Option<[u8; N]>>,
    ) {
        self.push(name, true, Arc::new(ids(values)));
    }

    /// Lists of words; an empty list is an empty list, never null.
    pub(super) fn words<I, S>(&mut self, name: impl Into<String>, values: impl Iterator<Item = I>)
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let item = Field::new("element", DataType::Utf8, false);
        let mut builder = ListBuilder::new(StringBuilder::new()).with_field(item);
        for list in values {
            for word in list {
                builder.values().append_value(word);
            }
            builder.append(true);
        }
        self.push(name, false, Arc::new(builder.finish()));
    }

    /// Lists of structs, given the length of each list and the members of all items in a row.
    pub(super) fn structs(
        &mut self,
        name: impl Into<String>,
        lengths: impl Iterator<Item = usize>,
        members: Vec<(&'static str, bool, ArrayRef)>,
    ) {
        let fields: Fields = members
            .iter()
            .map(|(member, nullable, array)| Field::new(*member, array.data_type().clone(), *nullable))
            .collect();
        let arrays = members.into_iter().map(|(.., array)| array).collect();
        let items = StructArray::new(fields, arrays, None);
        let element = Arc::new(Field::new("element", items.data_type().clone(), false));
        let list = ListArray::new(element, OffsetBuffer::from_lengths(lengths), Arc::new(items), None);
        self.push(name, false, Arc::new(list));
    }

    /// The batch.
    pub(super) fn finish(self, rows: usize) -> RecordBatch {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(self.fields)), self.arrays, &options)
            .expect("every column was made from the same rows")
    }
}

/// Largest magnitude of `decimal(38,0)`.
const DECIMAL_MAX: i128 = 10_i128.pow(38) - 1;

/// Ids as an array.
pub(super) fn ids<const N: usize>(values: impl Iterator<Item = Option<[u8; N]>>) -> FixedSizeBinaryArray {
    let mut builder = FixedSizeBinaryBuilder::with_capacity(values.size_hint().0, N as i32);
    for value in values {
        match value {
            Some(id) => builder.append_value(id).expect("the array has the width of the id"),
            None => builder.append_null(),
        }
    }
    builder.finish()
}

/// Reads columns by name. The batch must have been conformed to its table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    batch: &'a RecordBatch,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(batch: &'a RecordBatch) -> Self {
        Self { batch }
    }

    pub(super) fn column(self, name: &str) -> Result<&'a ArrayRef, TableError> {
        self.batch.column_by_name(name).ok_or_else(|| TableError::MissingColumn(name.to_owned()))
    }

    fn typed<T: 'static>(self, name: &str) -> Result<&'a T, TableError> {
        let array = self.column(name)?;
        array
            .as_any()
            .downcast_ref()
            .ok_or(TableError::Inconsistent { column: name.to_owned(), why: "unexpected column type" })
    }

    pub(super) fn text(self, name: &str) -> Result<&'a StringArray, TableError> {
        self.typed(name)
    }

    pub(super) fn long(self, name: &str) -> Result<&'a Int64Array, TableError> {
        self.typed(name)
    }

    pub(super) fn int(self, name: &str) -> Result<&'a Int32Array, TableError> {
        self.typed(name)
    }

    pub(super) fn flag(self, name: &str) -> Result<&'a BooleanArray, TableError> {
        self.typed(name)
    }

    pub(super) fn decimal(self, name: &str) -> Result<&'a Decimal128Array, TableError> {
        self.typed(name)
    }

    pub(super) fn id(self, name: &str) -> Result<&'a FixedSizeBinaryArray, TableError> {
        self.typed(name)
    }

    pub(super) fn list(self, name: &str) -> Result<&'a ListArray, TableError> {
        self.typed(name)
    }
}

/// The text at `row`, or nothing.
pub(super) fn text_at(array: &StringArray, row: usize) -> Option<&str> {
    array.is_valid(row).then(|| array.value(row))
}

/// The number at `row`, or nothing.
pub(super) fn long_at(array: &Int64Array, row: usize) -> Option<i64> {
    array.is_valid(row).then(|| array.value(row))
}

/// The number at `row`, or nothing.
pub(super) fn int_at(array: &Int32Array, row: usize) -> Option<i32> {
    array.is_valid(row).then(|| array.value(row))
}

/// The id at `row`, or nothing.
pub(super) fn id_at<const N: usize>(array: &FixedSizeBinaryArray, row: usize) -> Option<[u8; N]> {
    if array.is_null(row) {
        return None;
    }
    array.value(row).try_into().ok()
}

/// The words at `row`.
pub(super) fn words_at(array: &ListArray, row: usize) -> Vec<String> {
    if array.is_null(row) {
        return Vec::new();
    }
    let list = array.value(row);
    list.as_string::<i32>().iter().flatten().map(str::to_owned).collect()
}

/// Reads a word of a closed vocabulary.
pub(super) fn parse_word<T>(column: &str, word: &str, parse: fn(&str) -> Option<T>) -> Result<T, TableError> {
    parse(word).ok_or_else(|| TableError::UnknownWord { column: column.to_owned(), value: word.to_owned() })
}

/// Columns that files of older versions lack: nothing of the kind was looked for, so none was counted.
const ADDED_LATER: [&str; 2] = ["mirror", "mirrored"];

/// `false` or 0 in every row.
fn none_counted(data_type: &DataType, rows: usize) -> Result<ArrayRef, ArrowError> {
    cast(&Int64Array::from(vec![0; rows]), data_type)
}

/// See [`super::conform`].
pub(super) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, TableError> {
    if batch.schema_ref().fields() == schema.fields() {
        return Ok(batch.clone());
    }
    let mut arrays = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let array = match batch.column_by_name(field.name()) {
            Some(array) if array.data_type() == field.data_type() => Arc::clone(array),
            Some(array) => cast(array, field.data_type())?,
            None if field.is_nullable() => new_null_array(field.data_type(), batch.num_rows()),
            None if ADDED_LATER.contains(&field.name().as_str()) => none_counted(field.data_type(), batch.num_rows())?,
            None => return Err(TableError::MissingColumn(field.name().clone())),
        };
        arrays.push(array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?)
}

/// Members of a list column of structs, by position inside the struct.
pub(super) struct StructList<'a> {
    list: &'a ListArray,
    items: &'a StructArray,
}

impl<'a> StructList<'a> {
    pub(super) fn new(reader: Reader<'a>, name: &str) -> Result<Self, TableError> {
        let list = reader.list(name)?;
        let items = list
            .values()
            .as_struct_opt()
            .ok_or(TableError::Inconsistent { column: name.to_owned(), why: "list items are not structs" })?;
        Ok(Self { list, items })
    }

    /// Positions of the items of `row` in the member arrays.
    pub(super) fn range(&self, row: usize) -> std::ops::Range<usize> {
        let offsets = self.list.value_offsets();
        offsets[row] as usize..offsets[row + 1] as usize
    }

    pub(super) fn longs(&self, member: usize) -> &'a Int64Array {
        self.items.column(member).as_primitive::<Int64Type>()
    }

    pub(super) fn ints(&self, member: usize) -> &'a Int32Array {
        self.items.column(member).as_primitive::<Int32Type>()
    }

    pub(super) fn texts(&self, member: usize) -> &'a StringArray {
        self.items.column(member).as_string::<i32>()
    }

    pub(super) fn ids(&self, member: usize) -> &'a FixedSizeBinaryArray {
        self.items.column(member).as_fixed_size_binary()
    }
}

/// The decimal at `row`.
pub(super) fn decimal_at(array: &Decimal128Array, row: usize) -> i128 {
    array.value(row)
}
