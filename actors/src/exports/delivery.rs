//! An export on its way into the store of results: one step commits one batch, and whoever repeats a step goes on behind it.
//!
//! The store has the checkpoint beside the bytes, in one commit. So nothing is to be remembered elsewhere: who is interrupted opens the delivery
//! again under the same key, in any process, and who was replaced meanwhile is told at its next step.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::future::BoxFuture;
use runtime::store::objects::{About, Info, ObjectKey, Objects, Opened, Writing};
use serde_json::Value;

use super::{
    dataset::Dataset,
    error::ExportError,
    export::{Checkpoint, Export, Plan, Written},
};

/// An export that is being delivered.
pub struct Delivery {
    at: At,
}

enum At {
    Writing(Box<(Export, Writing)>),
    Finished(Delivered),
}

/// What has come of a step.
#[derive(Clone, Debug)]
pub enum Step {
    /// A batch is committed; so many rows are in the file by now.
    Committed {
        /// How many.
        rows: u64,
    },
    /// The file is whole, and its owner can get it.
    Finished(Delivered),
}

/// A file that was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The file.
    pub file: Info,
    /// How many rows are in it.
    pub rows: u64,
}

impl Written for Writing {
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ExportError>> {
        Box::pin(async move { Ok(Writing::read(self, range).await?) })
    }
}

impl Delivery {
    /// Begins a delivery, or takes over where the last one under the key has committed. What was planned then counts.
    ///
    /// # Errors
    /// [`ExportError::Other`] when under the key another dataset or format is exported; [`ExportError::Store`] when the store does not take it.
    pub async fn open(
        objects: &Objects,
        key: &ObjectKey,
        dataset: Arc<dyn Dataset>,
        plan: Plan,
    ) -> Result<Self, ExportError> {
        let wanted = Export::new(Arc::clone(&dataset), plan);
        let about = About {
            media_type: wanted.checkpoint().plan().format().media_type().to_owned(),
            file_name: named(wanted.checkpoint()),
        };
        let at = match objects.write(key, about).await? {
            Opened::Finished(file) => {
                let checkpoint = read_checkpoint(&file.note, &wanted)?;
                let rows = checkpoint.rows();
                At::Finished(Delivered { file, rows })
            }
            Opened::Unfinished(writing) if writing.note().is_null() => {
                At::Writing(Box::new((wanted, writing)))
            }
            Opened::Unfinished(writing) => {
                let checkpoint = read_checkpoint(writing.note(), &wanted)?;
                let export = Export::resume(dataset, checkpoint)?;
                At::Writing(Box::new((export, writing)))
            }
        };
        Ok(Self { at })
    }

    /// How many rows are committed.
    #[must_use]
    pub fn rows(&self) -> u64 {
        match &self.at {
            At::Writing(writing) => writing.0.checkpoint().rows(),
            At::Finished(delivered) => delivered.rows,
        }
    }

    /// Commits the next batch; behind the last one it finishes the file. Once that is done, it says so again.
    ///
    /// # Errors
    /// [`ExportError`] with what stands in the way. A step that has failed may have been done; the delivery is to be opened again, and knows.
    pub async fn step(mut self) -> Result<(Self, Step), ExportError> {
        let (mut export, mut writing) = match self.at {
            At::Writing(writing) => *writing,
            At::Finished(delivered) => {
                let step = Step::Finished(delivered.clone());
                self.at = At::Finished(delivered);
                return Ok((self, step));
            }
        };
        if let Some(batch) = export.next(&writing).await? {
            let note = serde_json::to_value(&batch.checkpoint).map_err(ExportError::Checkpoint)?;
            writing.append(batch.bytes, note).await?;
        }
        let rows = export.checkpoint().rows();
        if !export.checkpoint().is_complete() {
            self.at = At::Writing(Box::new((export, writing)));
            return Ok((self, Step::Committed { rows }));
        }
        let file = writing.finish().await?;
        let delivered = Delivered { file, rows };
        self.at = At::Finished(delivered.clone());
        Ok((self, Step::Finished(delivered)))
    }
}

fn named(checkpoint: &Checkpoint) -> String {
    format!("{}.{}", checkpoint.dataset(), checkpoint.plan().format())
}

/// Reads where an export stood, if it is the one that is wanted.
fn read_checkpoint(note: &Value, wanted: &Export) -> Result<Checkpoint, ExportError> {
    let checkpoint = Checkpoint::read(note)?;
    let (found, wanted) = (named(&checkpoint), named(wanted.checkpoint()));
    match found == wanted {
        true => Ok(checkpoint),
        false => Err(ExportError::Other { found, wanted }),
    }
}
