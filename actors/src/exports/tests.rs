//! What is promised of files: that real readers find every value in them, and that an interruption leaves no trace.

use std::sync::Arc;

use ::parquet::{
    file::reader::{FileReader as _, SerializedFileReader},
    record::{Field, ListAccessor as _, RowAccessor as _},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use proptest::prelude::*;

use super::*;

/// Rows in memory, by number.
struct Rows(Vec<Vec<Value>>);

const COLUMNS: [Column; 7] = [
    Column::new("number", Kind::Integer),
    Column::new("text", Kind::Text),
    Column {
        presence: Presence::Maybe,
        ..Column::new("maybe", Kind::Text)
    },
    Column {
        presence: Presence::Maybe,
        ..Column::new("real", Kind::Real)
    },
    Column::new("yes", Kind::Boolean),
    Column::new("at", Kind::Moment),
    Column::new("texts", Kind::Texts),
];

impl Dataset for Rows {
    fn name(&self) -> &'static str {
        "rows"
    }

    fn description(&self) -> &'static str {
        "Rows of a test."
    }

    fn columns(&self) -> &[Column] {
        &COLUMNS
    }

    fn rows<'a>(&'a self, wanted: Wanted<'a>) -> BoxFuture<'a, Result<Vec<Entry>, DatasetError>> {
        let after: usize = wanted
            .after
            .map_or(0, |cursor| cursor.0.parse().expect("a cursor of ours"));
        let numbered = self.0.iter().zip(1..).skip(after).take(wanted.limit as usize);
        let entry = |(values, number): (&Vec<Value>, usize)| Entry {
            cursor: Cursor(number.to_string()),
            values: values.clone(),
        };
        let entries = numbered.map(entry).collect();
        Box::pin(async { Ok(entries) })
    }

    fn count(&self, _range: DateRange) -> BoxFuture<'_, Result<u64, DatasetError>> {
        Box::pin(async { Ok(self.0.len() as u64) })
    }
}

/// A file in memory.
#[derive(Default)]
struct Memory(Vec<u8>);

impl Written for Memory {
    fn read(&self, range: std::ops::Range<u64>) -> BoxFuture<'_, Result<Bytes, ExportError>> {
        let range = range.start as usize..range.end as usize;
        Box::pin(async { Ok(Bytes::copy_from_slice(&self.0[range])) })
    }
}

fn plan(format: Format, batch_rows: u32) -> Plan {
    let plan = Plan::new(format, DateRange::default(), 0);
    plan.in_batches_of(batch_rows).expect("a size")
}

/// Exports, and is interrupted behind each batch that the mask has a bit for: then what was not committed is done again by another.
async fn exported(rows: &Arc<Rows>, plan: &Plan, interrupted: u64) -> (Vec<u8>, Checkpoint) {
    let mut file = Memory::default();
    let mut export = Export::new(rows.clone(), plan.clone());
    for batch in 0.. {
        let before = serde_json::to_value(export.checkpoint()).expect("JSON");
        if interrupted >> (batch % 64) & 1 == 1 {
            // A batch that nobody commits.
            export.next(&file).await.expect("a batch");
            let checkpoint = Checkpoint::read(&before).expect("a checkpoint");
            export = Export::resume(rows.clone(), checkpoint).expect("goes on");
        }
        let Some(batch) = export.next(&file).await.expect("a batch") else {
            break;
        };
        file.0.extend_from_slice(&batch.bytes);
        assert_eq!(batch.checkpoint.bytes(), file.0.len() as u64);
    }
    (file.0, export.checkpoint().clone())
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(future)
}

fn any_row() -> impl Strategy<Value = Vec<Value>> {
    let maybe = prop_oneof![Just(Value::Null), any::<String>().prop_map(Value::Text)];
    let real = prop_oneof![
        Just(Value::Null),
        (-1e9..1e9).prop_map(|number: f64| Value::Real(number))
    ];
    let texts = prop::collection::vec(any::<String>(), 0..4).prop_map(Value::Texts);
    (
        any::<i64>().prop_map(Value::Integer),
        any::<String>().prop_map(Value::Text),
        maybe,
        real,
        any::<bool>().prop_map(Value::Boolean),
        (0..4_000_000_000_000_i64).prop_map(Value::Moment),
        texts,
    )
        .prop_map(|(a, b, c, d, e, f, g)| vec![a, b, c, d, e, f, g])
}

/// What a reader of JSON finds in a row.
fn as_json(row: &[Value]) -> serde_json::Value {
    let members = COLUMNS.iter().zip(row).map(|(column, value)| {
        let value = match value {
            Value::Null => serde_json::Value::Null,
            Value::Text(text) => text.as_str().into(),
            Value::Integer(number) => (*number).into(),
            Value::Real(number) => (*number).into(),
            Value::Boolean(yes) => (*yes).into(),
            Value::Moment(unix_ms) => iso8601(*unix_ms).into(),
            Value::Texts(texts) => texts.clone().into(),
        };
        (column.name.to_owned(), value)
    });
    members.collect::<serde_json::Map<_, _>>().into()
}

/// What parquet's own reader finds.
fn parquet_rows(file: Vec<u8>) -> Vec<Vec<Value>> {
    let reader = SerializedFileReader::new(Bytes::from(file)).expect("a parquet file");
    let rows = reader.get_row_iter(None).expect("rows");
    let value = |field: &Field| match field {
        Field::Null => Value::Null,
        Field::Str(text) => Value::Text(text.clone()),
        Field::Long(number) => Value::Integer(*number),
        Field::Double(number) => Value::Real(*number),
        Field::Bool(yes) => Value::Boolean(*yes),
        Field::TimestampMillis(unix_ms) => Value::Moment(*unix_ms),
        Field::ListInternal(list) => Value::Texts(
            (0..list.len())
                .map(|at| list.get_string(at).expect("a text").clone())
                .collect(),
        ),
        other => panic!("unexpected {other:?}"),
    };
    rows.map(|row| {
        let row = row.expect("a row");
        let _ = row.get_long(0).expect("a number");
        row.get_column_iter().map(|(_, field)| value(field)).collect()
    })
    .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_interrupted_export_gives_the_same_bytes(
        rows in prop::collection::vec(any_row(), 0..24),
        batch_rows in 1_u32..9,
        interrupted in any::<u64>(),
    ) {
        let rows = Arc::new(Rows(rows));
        for format in [Format::Csv, Format::Json, Format::Parquet] {
            let plan = plan(format, batch_rows);
            let (whole, at) = block_on(exported(&rows, &plan, 0));
            prop_assert!(at.is_complete());
            prop_assert_eq!(at.rows(), rows.0.len() as u64);
            prop_assert_eq!(at.bytes(), whole.len() as u64);
            let again = block_on(exported(&rows, &plan, interrupted));
            prop_assert_eq!(&again, &(whole, at));
        }
    }

    #[test]
    fn json_is_one_array_of_all_rows(rows in prop::collection::vec(any_row(), 0..12), batch_rows in 1_u32..5) {
        let rows = Arc::new(Rows(rows));
        let (file, _) = block_on(exported(&rows, &plan(Format::Json, batch_rows), 0));
        let read: Vec<serde_json::Value> = serde_json::from_slice(&file).expect("JSON");
        let expected: Vec<_> = rows.0.iter().map(|row| as_json(row)).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn parquet_has_all_values_of_all_rows(rows in prop::collection::vec(any_row(), 0..12), batch_rows in 1_u32..5) {
        let rows = Arc::new(Rows(rows));
        let (file, _) = block_on(exported(&rows, &plan(Format::Parquet, batch_rows), 0));
        prop_assert_eq!(&parquet_rows(file), &rows.0);
    }
}

fn row(number: i64, text: &str, maybe: Value) -> Vec<Value> {
    vec![
        Value::Integer(number),
        Value::Text(text.to_owned()),
        maybe,
        Value::Null,
        Value::Boolean(true),
        Value::Moment(1_767_225_599_007),
        Value::Texts(vec!["a".to_owned(), "b, c".to_owned()]),
    ]
}

#[tokio::test]
async fn csv_quotes_what_needs_it_and_tells_no_value_from_an_empty_one() {
    let rows = Arc::new(Rows(vec![
        row(1, "plain", Value::Null),
        row(-2, "a \"b\",\nc", Value::Text(String::new())),
    ]));
    let (file, at) = exported(&rows, &plan(Format::Csv, 1), 0).await;
    let expected = "number,text,maybe,real,yes,at,texts\r\n\
        1,plain,,,true,2025-12-31T23:59:59.007Z,\"[\"\"a\"\",\"\"b, c\"\"]\"\r\n\
        -2,\"a \"\"b\"\",\nc\",\"\",,true,2025-12-31T23:59:59.007Z,\"[\"\"a\"\",\"\"b, c\"\"]\"\r\n";
    assert_eq!(String::from_utf8(file).expect("text"), expected);
    assert_eq!(at.rows(), 2);
}

#[tokio::test]
async fn a_batch_is_a_row_group_and_footers_are_found_however_long_they_are() {
    let long = "x".repeat(40_000);
    // Footers tell the least and the greatest value, so these are longer than what is read at first.
    let rows: Vec<_> = (0..7)
        .map(|number| row(number, &long, Value::Text(format!("{number}{long}"))))
        .collect();
    let rows = Arc::new(Rows(rows));
    let (file, _) = exported(&rows, &plan(Format::Parquet, 3), 0b101).await;
    let reader = SerializedFileReader::new(Bytes::from(file.clone())).expect("a parquet file");
    let groups = reader.metadata().row_groups().iter();
    assert_eq!(
        groups.map(|group| group.num_rows()).collect::<Vec<_>>(),
        [3, 3, 1]
    );
    assert_eq!(parquet_rows(file), rows.0);
}

#[tokio::test]
async fn nothing_is_a_file_too() {
    let nothing = Arc::new(Rows(Vec::new()));
    let (csv, _) = exported(&nothing, &plan(Format::Csv, 5), 0).await;
    assert_eq!(csv, b"number,text,maybe,real,yes,at,texts\r\n");
    let (json, _) = exported(&nothing, &plan(Format::Json, 5), 0).await;
    assert_eq!(json, b"[]\n");
    let (parquet, _) = exported(&nothing, &plan(Format::Parquet, 5), 0).await;
    let reader = SerializedFileReader::new(Bytes::from(parquet)).expect("a parquet file");
    let file = reader.metadata().file_metadata();
    assert_eq!((file.num_rows(), file.schema().get_fields().len()), (0, 7));
}

#[tokio::test]
async fn a_row_that_does_not_fit_its_columns_is_told_by_its_column() {
    let mut bad = row(1, "a", Value::Null);
    bad[4] = Value::Null;
    for (row, column) in [(bad, "yes"), (vec![Value::Integer(1)], "text")] {
        let mut export = Export::new(Arc::new(Rows(vec![row])), plan(Format::Csv, 5));
        let error = export.next(&Memory::default()).await.expect_err("no batch");
        assert!(matches!(error, ExportError::Mismatch { column: found, .. } if found == column));
        assert_eq!(export.checkpoint().rows(), 0);
    }
}

#[test]
fn what_cannot_be_exported_is_told_with_what_can() {
    let datasets = Datasets::new(vec![Arc::new(Rows(Vec::new()))]);
    assert!(datasets.find("rows").is_ok());
    let told = [
        datasets.find("row").err().expect("none").to_string(),
        "xls".parse::<Format>().expect_err("none").to_string(),
        plan(Format::Csv, 5)
            .in_batches_of(0)
            .expect_err("none")
            .to_string(),
    ];
    assert_eq!(
        told,
        [
            "there is no dataset row: use one of rows",
            "there is no format xls: use csv, json or parquet",
            "batch_rows must be between 1 and 50000",
        ]
    );
    let checkpoint = Export::new(Arc::new(Rows(Vec::new())), plan(Format::Csv, 5));
    let mut note = serde_json::to_value(checkpoint.checkpoint()).expect("JSON");
    note["dataset"] = "others".into();
    let other = Checkpoint::read(&note).expect("a checkpoint");
    assert!(matches!(
        Export::resume(Arc::new(Rows(Vec::new())), other),
        Err(ExportError::Other { .. })
    ));
}
