//! The formats of files, and what each of them is called.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::ExportError;

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Format {
    /// A line for each row behind a line of names, as RFC 4180 has it. Lists are JSON arrays in a field.
    Csv,
    /// One JSON array with an object for each row, each on a line of its own.
    Json,
    /// Apache Parquet with Snappy; one row group for each batch.
    Parquet,
}

impl Format {
    /// Its name, which is the ending of its files as well.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Parquet => "parquet",
        }
    }

    /// The media type of its files.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Json => "application/json",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = ExportError;

    fn from_str(text: &str) -> Result<Self, ExportError> {
        let all = [Self::Csv, Self::Json, Self::Parquet];
        let found = all.into_iter().find(|format| format.name() == text.trim());
        found.ok_or_else(|| ExportError::UnknownFormat(text.to_owned()))
    }
}
