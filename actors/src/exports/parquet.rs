//! Parquet, whose readers begin at the end: the footer there says where the row groups are.
//!
//! A batch is written as a whole small file of one row group, and the small files stand one behind the other. Each has its own footer, which also says where
//! its file begins; nobody but us reads those. The last batch walks back over them, and ends the file with one footer that knows all row groups.
//! So a checkpoint need not hold the footers of thousands of batches, and what was committed is never written again.

use std::sync::Arc;

use bytes::Bytes;
use parquet::{
    basic::Compression,
    column::writer::ColumnWriterImpl,
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type},
    errors::ParquetError,
    file::{
        FOOTER_SIZE,
        metadata::{
            FileMetaData, FooterTail, KeyValue, ParquetMetaData, ParquetMetaDataReader,
            ParquetMetaDataWriter, RowGroupMetaData,
        },
        properties::{EnabledStatistics, WriterProperties},
        writer::{SerializedColumnWriter, SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::{parser::parse_message_type, types::TypePtr},
};

use super::{
    dataset::{Column, Entry, Kind, Presence, Value},
    error::ExportError,
    export::Written,
};

/// Under what a small file says where it begins.
const BEGINS: &str = "trunkline.begins";
/// How much is read to get a footer in one go: that of a dataset of some dozen columns.
const FOOTER_GUESS: u64 = 16 * 1024;
/// What a file begins with.
const MAGIC: &[u8] = b"PAR1";
/// Who writes, as footers tell.
const CREATED_BY: &str = concat!("trunkline version ", env!("CARGO_PKG_VERSION"));

/// Writes a batch as a small file that begins at a place of the whole one.
pub(super) fn rows(
    columns: &[Column],
    rows: &[Entry],
    begins: u64,
    out: &mut Vec<u8>,
) -> Result<(), ExportError> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by(CREATED_BY.to_owned())
        // Indexes of pages would stand outside of row groups, at places that would have to be moved as well.
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_key_value_metadata(Some(vec![KeyValue::new(BEGINS.to_owned(), begins.to_string())]))
        .build();
    let mut file = SerializedFileWriter::new(&mut *out, schema(columns)?, Arc::new(properties))?;
    let mut group = file.next_row_group()?;
    for (at, column) in columns.iter().enumerate() {
        write_column(&mut group, column, rows.iter().map(|row| &row.values[at]))?;
    }
    group.close()?;
    file.close()?;
    Ok(())
}

/// Writes the end of a file whose bytes up to `last_begins` are written, and of whose last batch these are all.
pub(super) async fn end(
    columns: &[Column],
    written: &impl Written,
    last_begins: u64,
    last: &mut Vec<u8>,
) -> Result<(), ExportError> {
    let mut groups = Vec::new();
    if !last.is_empty() {
        let (group, begins) = footer(last)?.ok_or_else(damaged)?;
        groups.push(moved(&group, begins)?);
    }
    let mut end = last_begins;
    while end > 0 {
        let tail = written.read(end.saturating_sub(FOOTER_GUESS)..end).await?;
        let (group, begins) = match footer(&tail)? {
            Some(found) => found,
            None => {
                let length = footer_bytes(&tail)?.ok_or_else(damaged)?;
                let whole = written.read(end.saturating_sub(length)..end).await?;
                footer(&whole)?.ok_or_else(damaged)?
            }
        };
        if begins >= end {
            return Err(damaged());
        }
        groups.push(moved(&group, begins)?);
        end = begins;
    }
    groups.reverse();
    if groups.is_empty() {
        last.extend_from_slice(MAGIC);
    }
    let count = groups.iter().map(RowGroupMetaData::num_rows).sum();
    let descriptor = match groups.first() {
        Some(group) => group.schema_descr_ptr(),
        None => Arc::new(parquet::schema::types::SchemaDescriptor::new(schema(columns)?)),
    };
    let file = FileMetaData::new(1, count, Some(CREATED_BY.to_owned()), None, descriptor, None);
    let whole = ParquetMetaData::new(file, groups);
    ParquetMetaDataWriter::new(last, &whole).finish()?;
    Ok(())
}

/// The row group of the small file whose last bytes these are, and where it begins; `None` when these are too few.
fn footer(tail: &[u8]) -> Result<Option<(RowGroupMetaData, u64)>, ExportError> {
    let Some(length) = footer_bytes(tail)? else {
        return Ok(None);
    };
    let Some(start) = usize::try_from(length)
        .ok()
        .and_then(|length| tail.len().checked_sub(length))
    else {
        return Ok(None);
    };
    let metadata = ParquetMetaDataReader::decode_metadata(&tail[start..tail.len() - FOOTER_SIZE])?;
    let noted = metadata.file_metadata().key_value_metadata();
    let begins = noted
        .into_iter()
        .flatten()
        .find(|pair| pair.key == BEGINS)
        .and_then(|pair| pair.value.as_deref()?.parse().ok());
    match (metadata.row_groups(), begins) {
        ([group], Some(begins)) => Ok(Some((group.clone(), begins))),
        _ => Err(damaged()),
    }
}

/// How many bytes the footer has that ends with these, with its own length and the magic word behind it.
fn footer_bytes(tail: &[u8]) -> Result<Option<u64>, ExportError> {
    let Some(end) = tail.last_chunk::<FOOTER_SIZE>() else {
        return Ok(None);
    };
    let length = FooterTail::try_new(end)?.metadata_length();
    Ok(Some((length + FOOTER_SIZE) as u64))
}

fn damaged() -> ExportError {
    ParquetError::General("a row group that was written cannot be found again".to_owned()).into()
}

/// A row group as the whole file has it, in which its small file begins at a place.
fn moved(group: &RowGroupMetaData, begins: u64) -> Result<RowGroupMetaData, ExportError> {
    let by = i64::try_from(begins).map_err(|_| damaged())?;
    let mut columns = Vec::with_capacity(group.num_columns());
    for column in group.columns() {
        let (data, dictionary) = (column.data_page_offset(), column.dictionary_page_offset());
        let moved = column
            .clone()
            .into_builder()
            .set_data_page_offset(data + by)
            .set_dictionary_page_offset(dictionary.map(|offset| offset + by));
        columns.push(moved.build()?);
    }
    let built = RowGroupMetaData::builder(group.schema_descr_ptr())
        .set_num_rows(group.num_rows())
        .set_total_byte_size(group.total_byte_size())
        .set_column_metadata(columns)
        .set_file_offset(group.file_offset().unwrap_or_default() + by);
    Ok(built.build()?)
}

/// The columns as parquet says them.
fn schema(columns: &[Column]) -> Result<TypePtr, ExportError> {
    let mut message = String::from("message rows {\n");
    for column in columns {
        let name = column.name;
        let presence = match column.presence {
            Presence::Always => "REQUIRED",
            Presence::Maybe => "OPTIONAL",
        };
        let field = match column.kind {
            Kind::Text => format!("{presence} BYTE_ARRAY {name} (STRING);"),
            Kind::Integer => format!("{presence} INT64 {name};"),
            Kind::Real => format!("{presence} DOUBLE {name};"),
            Kind::Boolean => format!("{presence} BOOLEAN {name};"),
            Kind::Moment => format!("{presence} INT64 {name} (TIMESTAMP(MILLIS,true));"),
            Kind::Texts => format!(
                "REQUIRED GROUP {name} (LIST) {{ REPEATED GROUP list {{ REQUIRED BYTE_ARRAY element (STRING); }} }}"
            ),
        };
        message.push_str(&field);
        message.push('\n');
    }
    message.push('}');
    Ok(Arc::new(parse_message_type(&message)?))
}

fn write_column<'a>(
    group: &mut SerializedRowGroupWriter<'_, &mut Vec<u8>>,
    column: &Column,
    values: impl Iterator<Item = &'a Value>,
) -> Result<(), ExportError> {
    let writer = group.next_column()?.ok_or_else(damaged)?;
    match column.kind {
        Kind::Text => write::<ByteArrayType>(writer, column, values, |value| match value {
            Value::Text(text) => Some(text.as_str().into()),
            _ => None,
        }),
        Kind::Integer | Kind::Moment => write::<Int64Type>(writer, column, values, |value| match value {
            Value::Integer(number) | Value::Moment(number) => Some(*number),
            _ => None,
        }),
        Kind::Real => write::<DoubleType>(writer, column, values, |value| match value {
            Value::Real(number) => Some(*number),
            _ => None,
        }),
        Kind::Boolean => write::<BoolType>(writer, column, values, |value| match value {
            Value::Boolean(yes) => Some(*yes),
            _ => None,
        }),
        Kind::Texts => write_lists(writer, values),
    }
}

fn write<'a, T: DataType>(
    mut writer: SerializedColumnWriter<'_>,
    column: &Column,
    values: impl Iterator<Item = &'a Value>,
    of: impl Fn(&Value) -> Option<T::T>,
) -> Result<(), ExportError> {
    let (mut present, mut levels) = (Vec::new(), Vec::new());
    for value in values {
        let value = of(value);
        levels.push(i16::from(value.is_some()));
        present.extend(value);
    }
    let levels = match column.presence {
        Presence::Always => None,
        Presence::Maybe => Some(&levels[..]),
    };
    let typed: &mut ColumnWriterImpl<'_, T> = writer.typed();
    typed.write_batch(&present, levels, None)?;
    Ok(writer.close()?)
}

/// A list has a level for each of its elements, or one that says that it has none.
fn write_lists<'a>(
    mut writer: SerializedColumnWriter<'_>,
    values: impl Iterator<Item = &'a Value>,
) -> Result<(), ExportError> {
    let mut elements: Vec<ByteArray> = Vec::new();
    let (mut defined, mut repeated) = (Vec::new(), Vec::new());
    for value in values {
        let texts = match value {
            Value::Texts(texts) => &texts[..],
            _ => &[],
        };
        if texts.is_empty() {
            defined.push(0);
            repeated.push(0);
        }
        for (at, text) in texts.iter().enumerate() {
            defined.push(1);
            repeated.push(i16::from(at > 0));
            elements.push(Bytes::copy_from_slice(text.as_bytes()).into());
        }
    }
    let typed: &mut ColumnWriterImpl<'_, ByteArrayType> = writer.typed();
    typed.write_batch(&elements, Some(&defined), Some(&repeated))?;
    Ok(writer.close()?)
}
