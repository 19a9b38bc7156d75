//! CSV as RFC 4180 has it: CRLF behind each record, quotes where they are needed. No value is an empty field, an empty text is `""`.
//!
//! Values stand there as they are. A spreadsheet takes a text that begins with `=` for a formula; who opens files of others in one knows that.

use super::{
    dataset::{Column, Entry, Value},
    moment::iso8601,
};

/// The line of names.
pub(super) fn begin(columns: &[Column], out: &mut Vec<u8>) {
    record(columns.iter().map(|column| quoted(column.name)), out);
}

/// A line for each row.
pub(super) fn rows(rows: &[Entry], out: &mut Vec<u8>) {
    for row in rows {
        record(row.values.iter().map(field), out);
    }
}

fn record(fields: impl Iterator<Item = String>, out: &mut Vec<u8>) {
    for (at, field) in fields.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(field.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn field(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Text(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Boolean(yes) => yes.to_string(),
        Value::Moment(unix_ms) => iso8601(*unix_ms),
        Value::Texts(texts) => quoted(&serde_json::Value::from(texts.clone()).to_string()),
    }
}

fn quoted(text: &str) -> String {
    let needs = text.is_empty() || text.contains([',', '"', '\r', '\n']) || text.trim().len() != text.len();
    match needs {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}
