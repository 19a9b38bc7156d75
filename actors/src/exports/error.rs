//! What can go wrong with an export, in words that say what to do.

use runtime::store::objects::ObjectError;

use super::dataset::DatasetError;

/// Says why there is no export.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// There is no such dataset.
    #[error("there is no dataset {name}: use one of {}", known.join(", "))]
    UnknownDataset {
        /// The one asked for.
        name: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// There is no such format.
    #[error("there is no format {0}: use csv, json or parquet")]
    UnknownFormat(String),
    /// A date cannot be read.
    #[error("{field} is {value}: send a date such as 2026-01-31, or a moment such as 2026-01-31T08:00:00Z")]
    BadDate {
        /// The argument at fault.
        field: &'static str,
        /// What it says.
        value: String,
    },
    /// The range has no moment in it.
    #[error("from is not before until: send a from that is earlier, or leave one of them out")]
    EmptyRange,
    /// A batch cannot have so many rows.
    #[error("batch_rows must be between 1 and {most}")]
    BatchRows {
        /// The most that one can have.
        most: u32,
    },
    /// Under the same key something else is exported.
    #[error("under this id {found} is exported: begin another export for {wanted}")]
    Other {
        /// What the checkpoint is of.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// The checkpoint was not written by this version of the program, or not by it at all.
    #[error("what was noted of the export cannot be read: begin it anew")]
    Checkpoint(#[source] serde_json::Error),
    /// The dataset gave a row that does not fit its own columns.
    #[error("the dataset {dataset} gave a row whose column {column} is not as it says")]
    Mismatch {
        /// Which dataset.
        dataset: String,
        /// Which of its columns.
        column: &'static str,
    },
    /// The dataset cannot be read.
    #[error("the dataset cannot be read at the moment; try again later")]
    Dataset(#[source] DatasetError),
    /// Parquet cannot be written, or not be read back.
    #[error("the parquet file cannot be written")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// The store of results does not take or give bytes.
    #[error(transparent)]
    Store(#[from] ObjectError),
}
