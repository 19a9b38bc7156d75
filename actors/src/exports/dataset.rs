//! What a domain server offers for export: rows in a stable order, batch by batch.

use std::{fmt, sync::Arc};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::{error::ExportError, moment::DateRange};

/// Why a dataset cannot be read.
pub type DatasetError = Box<dyn std::error::Error + Send + Sync>;

/// Rows that can be exported.
///
/// They have an order that no change of a row changes, and a cursor behind each of them; so whoever asks for what comes after a cursor misses nothing
/// that was there and gets nothing twice, whatever happens in between.
pub trait Dataset: Send + Sync {
    /// Its name, as callers send it.
    fn name(&self) -> &'static str;

    /// What its rows are and which of their dates a range is about, in a sentence for a model.
    fn description(&self) -> &'static str;

    /// The columns of its rows, in the order of a row's values.
    fn columns(&self) -> &[Column];

    /// The rows that are wanted, in order. Fewer than the limit are the last ones.
    fn rows<'a>(&'a self, wanted: Wanted<'a>) -> BoxFuture<'a, Result<Vec<Entry>, DatasetError>>;

    /// How many rows have a date in a range, for whoever shows how far an export is.
    fn count(&self, range: DateRange) -> BoxFuture<'_, Result<u64, DatasetError>>;
}

/// Which rows are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Those after this one; from the beginning without.
    pub after: Option<&'a Cursor>,
    /// Those with a date in this range.
    pub range: DateRange,
    /// So many at most; one at least.
    pub limit: u32,
}

/// A place behind a row. What it says is its dataset's own matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(pub String);

/// A row, and the place behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The place behind it.
    pub cursor: Cursor,
    /// Its values, one for each column.
    pub values: Vec<Value>,
}

/// A column of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name: lower-case letters, digits and `_`.
    pub name: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// Whether each row has one.
    pub presence: Presence,
}

impl Column {
    /// A column in which each row has a value.
    #[must_use]
    pub const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            presence: Presence::Always,
        }
    }

    /// Whether a value may stand in it.
    pub(super) fn takes(&self, value: &Value) -> bool {
        match (self.kind, value) {
            (Kind::Texts, Value::Null) => false,
            (_, Value::Null) => self.presence == Presence::Maybe,
            (Kind::Text, Value::Text(_))
            | (Kind::Integer, Value::Integer(_))
            | (Kind::Real, Value::Real(_))
            | (Kind::Boolean, Value::Boolean(_))
            | (Kind::Moment, Value::Moment(_))
            | (Kind::Texts, Value::Texts(_)) => true,
            _ => false,
        }
    }
}

/// Whether every row has a value in a column. A column of lists always has one, which may be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Every row has.
    Always,
    /// Some may not.
    Maybe,
}

/// What the values of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Real,
    /// Yes or no.
    Boolean,
    /// A moment, to the millisecond.
    Moment,
    /// A list of texts.
    Texts,
}

/// A value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// None.
    Null,
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number; what is none becomes no value in JSON, which knows of none.
    Real(f64),
    /// Yes or no.
    Boolean(bool),
    /// A moment, in milliseconds since 1970.
    Moment(i64),
    /// A list of texts.
    Texts(Vec<String>),
}

/// The datasets of a server, by name.
#[derive(Clone, Default)]
pub struct Datasets(Vec<Arc<dyn Dataset>>);

impl Datasets {
    /// Several datasets, each with a name of its own.
    #[must_use]
    pub fn new(datasets: Vec<Arc<dyn Dataset>>) -> Self {
        Self(datasets)
    }

    /// All of them.
    pub fn each(&self) -> impl Iterator<Item = &Arc<dyn Dataset>> {
        self.0.iter()
    }

    /// The one of a name.
    ///
    /// # Errors
    /// [`ExportError::UnknownDataset`] with the names that there are.
    pub fn find(&self, name: &str) -> Result<Arc<dyn Dataset>, ExportError> {
        let found = self.each().find(|dataset| dataset.name() == name.trim());
        found.cloned().ok_or_else(|| ExportError::UnknownDataset {
            name: name.to_owned(),
            known: self.each().map(|dataset| dataset.name().to_owned()).collect(),
        })
    }
}

impl fmt::Debug for Datasets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.each().map(|dataset| dataset.name()))
            .finish()
    }
}
