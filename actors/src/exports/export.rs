//! From rows to the bytes of a file, batch by batch. Where an export stands is a checkpoint; from the same checkpoint and the same rows come the
//! same bytes.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    csv,
    dataset::{Cursor, Dataset, Entry, Wanted},
    error::ExportError,
    format::Format,
    json,
    moment::DateRange,
    parquet,
};

/// How many rows a batch has unless somebody says otherwise.
const BATCH_ROWS: u32 = 5_000;
/// How many it has at most: it is held in memory, as rows and as bytes.
const MAX_BATCH_ROWS: u32 = 50_000;

/// What is exported, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    format: Format,
    range: DateRange,
    batch_rows: u32,
}

impl Plan {
    /// Rows of a range in a format. A range without an end ends now, so that an export of rows that go on coming has an end.
    #[must_use]
    pub fn new(format: Format, range: DateRange, now_ms: i64) -> Self {
        let until_ms = range.until_ms.or(Some(now_ms));
        Self {
            format,
            range: DateRange { until_ms, ..range },
            batch_rows: BATCH_ROWS,
        }
    }

    /// The same in batches of another size.
    ///
    /// # Errors
    /// [`ExportError::BatchRows`] when that is nothing, or too much to be held.
    pub fn in_batches_of(self, batch_rows: u32) -> Result<Self, ExportError> {
        if !(1..=MAX_BATCH_ROWS).contains(&batch_rows) {
            return Err(ExportError::BatchRows { most: MAX_BATCH_ROWS });
        }
        Ok(Self { batch_rows, ..self })
    }

    /// In which format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Of which dates.
    #[must_use]
    pub fn range(&self) -> DateRange {
        self.range
    }
}

/// Where an export stands: behind a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    dataset: String,
    plan: Plan,
    /// The last row so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cursor: Option<Cursor>,
    rows: u64,
    bytes: u64,
    /// Whether that was all.
    is_complete: bool,
}

impl Checkpoint {
    /// Reads what was noted of one.
    ///
    /// # Errors
    /// [`ExportError::Checkpoint`] when it is none.
    pub fn read(note: &Value) -> Result<Self, ExportError> {
        Self::deserialize(note).map_err(ExportError::Checkpoint)
    }

    /// What is exported, and how.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The name of the dataset.
    #[must_use]
    pub fn dataset(&self) -> &str {
        &self.dataset
    }

    /// How many rows are in the file so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How many bytes it has so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the file is whole.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }
}

/// Some bytes of a file, and where the export stands behind them.
#[derive(Clone, Debug)]
pub struct Batch {
    /// What is to be put at the end of the file; may be nothing.
    pub bytes: Bytes,
    /// How many rows they are.
    pub rows: u64,
    /// From where to go on once they are there for good.
    pub checkpoint: Checkpoint,
}

/// What was written of a file so far: parquet looks back when it ends.
pub trait Written: Sync {
    /// Some bytes of it, which are there.
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ExportError>>;
}

/// An export under way.
pub struct Export {
    dataset: Arc<dyn Dataset>,
    at: Checkpoint,
}

impl Export {
    /// Begins an export.
    #[must_use]
    pub fn new(dataset: Arc<dyn Dataset>, plan: Plan) -> Self {
        let at = Checkpoint {
            dataset: dataset.name().to_owned(),
            plan,
            cursor: None,
            rows: 0,
            bytes: 0,
            is_complete: false,
        };
        Self { dataset, at }
    }

    /// Goes on with one from where it stood.
    ///
    /// # Errors
    /// [`ExportError::Other`] when the checkpoint is of another dataset.
    pub fn resume(dataset: Arc<dyn Dataset>, checkpoint: Checkpoint) -> Result<Self, ExportError> {
        if checkpoint.dataset != dataset.name() {
            return Err(ExportError::Other {
                found: checkpoint.dataset,
                wanted: dataset.name().to_owned(),
            });
        }
        Ok(Self {
            dataset,
            at: checkpoint,
        })
    }

    /// Where it stands.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.at
    }

    /// The next bytes of the file, of which `written` has all that came before; `None` when it is whole.
    ///
    /// # Errors
    /// [`ExportError`] when rows cannot be read or not be written so. The export stands where it stood then.
    pub async fn next(&mut self, written: &impl Written) -> Result<Option<Batch>, ExportError> {
        if self.at.is_complete {
            return Ok(None);
        }
        let Plan {
            format,
            range,
            batch_rows,
        } = self.at.plan;
        let wanted = Wanted {
            after: self.at.cursor.as_ref(),
            range,
            limit: batch_rows,
        };
        let rows = self.dataset.rows(wanted).await.map_err(ExportError::Dataset)?;
        self.check(&rows)?;
        let is_complete = rows.len() < batch_rows as usize;
        let bytes = self.encode(format, &rows, is_complete, written).await?;
        let mut at = self.at.clone();
        at.cursor = rows.last().map(|row| row.cursor.clone()).or(at.cursor);
        at.rows += rows.len() as u64;
        at.bytes += bytes.len() as u64;
        at.is_complete = is_complete;
        self.at = at.clone();
        Ok(Some(Batch {
            bytes: bytes.into(),
            rows: rows.len() as u64,
            checkpoint: at,
        }))
    }

    /// Holds rows against the columns that they should have.
    fn check(&self, rows: &[Entry]) -> Result<(), ExportError> {
        let columns = self.dataset.columns();
        for row in rows {
            let given = row.values.iter().map(Some).chain(std::iter::repeat(None));
            let misfit = columns
                .iter()
                .zip(given)
                .find(|(column, value)| !value.is_some_and(|value| column.takes(value)));
            if let Some((column, _)) = misfit {
                return Err(ExportError::Mismatch {
                    dataset: self.at.dataset.clone(),
                    column: column.name,
                });
            }
        }
        Ok(())
    }

    async fn encode(
        &self,
        format: Format,
        rows: &[Entry],
        is_last: bool,
        written: &impl Written,
    ) -> Result<Vec<u8>, ExportError> {
        let columns = self.dataset.columns();
        let mut out = Vec::new();
        match format {
            Format::Csv => {
                if self.at.bytes == 0 {
                    csv::begin(columns, &mut out);
                }
                csv::rows(rows, &mut out);
            }
            Format::Json => {
                json::rows(columns, rows, self.at.rows, &mut out);
                if is_last {
                    json::end(self.at.rows + rows.len() as u64, &mut out);
                }
            }
            Format::Parquet => {
                if !rows.is_empty() {
                    parquet::rows(columns, rows, self.at.bytes, &mut out)?;
                }
                if is_last {
                    parquet::end(columns, written, self.at.bytes, &mut out).await?;
                }
            }
        }
        Ok(out)
    }
}
