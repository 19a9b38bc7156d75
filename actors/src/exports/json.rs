//! JSON: one array, so that any tool reads the file whole, with each row on a line of its own, so that people can look at it in pieces.

use super::{
    dataset::{Column, Entry, Value},
    moment::iso8601,
};

/// Rows as objects, of which `before` are in the file already.
pub(super) fn rows(columns: &[Column], rows: &[Entry], before: u64, out: &mut Vec<u8>) {
    for (row, at) in rows.iter().zip(before..) {
        out.extend_from_slice(if at == 0 { b"[\n" } else { b",\n" });
        for (at, (column, value)) in columns.iter().zip(&row.values).enumerate() {
            out.push(if at == 0 { b'{' } else { b',' });
            out.extend_from_slice(quoted(column.name).as_bytes());
            out.push(b':');
            out.extend_from_slice(member(value).as_bytes());
        }
        out.push(b'}');
    }
}

/// The end of a file of so many rows.
pub(super) fn end(rows: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(if rows == 0 { b"[]\n" } else { b"\n]\n" });
}

fn member(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Text(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => serde_json::Value::from(*number).to_string(),
        Value::Boolean(yes) => yes.to_string(),
        Value::Moment(unix_ms) => quoted(&iso8601(*unix_ms)),
        Value::Texts(texts) => serde_json::Value::from(texts.clone()).to_string(),
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
