//! Exports of whole datasets as files: csv, json or parquet, in batches, so that one that is interrupted goes on where it was.
//!
//! A domain server says what it has by implementing [`Dataset`]; nothing here knows any of them. [`Export`] turns the rows of one into the bytes of
//! a file, one batch at a time, and knows nothing of where they go: the same bytes come out whether it was interrupted or not. [`Delivery`]
//! puts them into the store of results, each batch in one commit with the checkpoint behind it.
//!
//! An export is no snapshot. Each row that is there from beginning to end is in it once, as it was when its batch was read.

mod csv;
mod dataset;
mod delivery;
mod error;
mod export;
mod format;
mod json;
mod moment;
mod parquet;

#[cfg(test)]
mod tests;

pub use dataset::{Column, Cursor, Dataset, DatasetError, Datasets, Entry, Kind, Presence, Value, Wanted};
pub use delivery::{Delivered, Delivery, Step};
pub use error::ExportError;
pub use export::{Batch, Checkpoint, Export, Plan, Written};
pub use format::Format;
pub use moment::{DateRange, iso8601, read_iso8601};
