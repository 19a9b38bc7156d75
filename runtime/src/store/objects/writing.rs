//! Writing an object at its end, so that whoever is interrupted can be replaced.
//!
//! A piece is written over the revision that its writer knows, as is the record. A writer that meets another revision of a piece looks at the
//! record: when that is still its own, the piece is what somebody has left there without a commit, and is overwritten; else it has been replaced.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;

use super::{
    ABOUT_BYTES, About, Bucket, Checksum, Info, Manifest, NOTE_BYTES, ObjectError, ObjectKey, Objects,
    PIECE_BYTES, StoreError, reading,
};
use crate::moment::now_ms;

/// How many pieces of one commit are written at a time.
const AT_ONCE: usize = 4;
/// How often a piece is tried again that a writer before this one may still be writing.
const ATTEMPTS: usize = 4;
/// After how many pieces it is looked again whether the tenant has room.
const QUOTA_AFTER: u64 = 64;

/// An object that was opened for writing.
pub enum Opened {
    /// It is finished already.
    Finished(Info),
    /// It is to be written from where its last commit ended.
    Unfinished(Writing),
}

/// An object that is being written.
pub struct Writing {
    objects: Objects,
    key: ObjectKey,
    manifest: Manifest,
    revision: u64,
    /// The last piece as far as it counts, when it is not full, and its revision.
    tail: BytesMut,
    tail_revision: Option<u64>,
    /// How many pieces were written since the tenant's room was looked at.
    unchecked: u64,
}

impl Writing {
    pub(super) async fn open(
        objects: &Objects,
        key: &ObjectKey,
        about: About,
    ) -> Result<Opened, ObjectError> {
        fits(
            "what is told of the result",
            about.media_type.len() + about.file_name.len(),
            ABOUT_BYTES,
        )?;
        let (manifest, found) = match objects.manifest(key).await? {
            Some((manifest, revision)) => match manifest.info(objects.0.limits.kept) {
                Some(info) if info.expires_ms > now_ms() => return Ok(Opened::Finished(info)),
                Some(_) => (begun(about), Some(revision)),
                None => (manifest, Some(revision)),
            },
            None => (begun(about), None),
        };
        objects.check_quota(key).await?;
        // This write is what replaces another writer.
        let revision = keep(objects, key, &manifest, found).await?;
        let mut writing = Self {
            objects: objects.clone(),
            key: key.clone(),
            manifest,
            revision,
            tail: BytesMut::new(),
            tail_revision: None,
            unchecked: 0,
        };
        writing.load_tail().await?;
        Ok(Opened::Unfinished(writing))
    }

    /// Reads the last piece, if it is not full.
    async fn load_tail(&mut self) -> Result<(), ObjectError> {
        let filled = self.bytes() % PIECE_BYTES as u64;
        if filled == 0 {
            return Ok(());
        }
        let name = self.key.piece(self.bytes() / PIECE_BYTES as u64);
        let found = self
            .objects
            .within(async |bucket| bucket.get(&name).await)
            .await?
            .ok_or(ObjectError::Gone)?;
        let counts = usize::try_from(filled).unwrap_or(usize::MAX);
        let counted = found.value.get(..counts).ok_or(ObjectError::Gone)?;
        self.tail = counted.into();
        self.tail_revision = Some(found.revision);
        Ok(())
    }

    /// How many bytes are committed.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.manifest.bytes()
    }

    /// What was noted with the last commit; `null` before the first.
    #[must_use]
    pub fn note(&self) -> &Value {
        &self.manifest.note
    }

    /// The checksum of what is committed.
    #[must_use]
    pub fn checksum(&self) -> &Checksum {
        &self.manifest.checksum
    }

    /// Commits bytes at the end, with a note that replaces the one before. Both are there afterwards, or neither.
    ///
    /// After an error that is not [`ObjectError::Full`] nobody knows whether it has; open the object again, and see.
    ///
    /// # Errors
    /// [`ObjectError::Taken`] when somebody else writes the object by now, [`ObjectError::Full`] and [`ObjectError::Quota`] when there is no room.
    pub async fn append(&mut self, bytes: Bytes, note: Value) -> Result<(), ObjectError> {
        fits("the note", note.to_string().len(), NOTE_BYTES)?;
        if self.unchecked >= QUOTA_AFTER {
            self.objects.check_quota(&self.key).await?;
            self.unchecked = 0;
        }
        let mut next = self.manifest.clone();
        next.checksum.update(&bytes);
        next.note = note;
        let first = self.bytes() / PIECE_BYTES as u64;
        let pieces = self.with_tail(bytes);
        let last = pieces.last().cloned().unwrap_or_default();
        let written = pieces.len() as u64;
        let last_revision = self.write_pieces(first, pieces).await?;
        self.revision = keep(&self.objects, &self.key, &next, Some(self.revision)).await?;
        self.manifest = next;
        self.unchecked += written;
        let is_full = last.len() == PIECE_BYTES;
        if written > 0 {
            self.tail = if is_full { BytesMut::new() } else { last.into() };
            self.tail_revision = last_revision.filter(|_| !is_full);
        }
        Ok(())
    }

    /// What is to be written, from the beginning of the last piece on.
    fn with_tail(&self, mut bytes: Bytes) -> Vec<Bytes> {
        let mut pieces = Vec::with_capacity(bytes.len() / PIECE_BYTES + 2);
        if bytes.is_empty() {
            return pieces;
        }
        if !self.tail.is_empty() {
            let added = bytes.split_to(bytes.len().min(PIECE_BYTES - self.tail.len()));
            pieces.push([&self.tail[..], &added].concat().into());
        }
        while !bytes.is_empty() {
            pieces.push(bytes.split_to(bytes.len().min(PIECE_BYTES)));
        }
        pieces
    }

    /// Writes pieces, and gives the revision of the last.
    async fn write_pieces(&self, first: u64, pieces: Vec<Bytes>) -> Result<Option<u64>, ObjectError> {
        let numbered = pieces.into_iter().zip(first..);
        let written = stream::iter(numbered.map(|(piece, number)| {
            let over = self.tail_revision.filter(|_| number == first);
            self.write_piece(number, piece, over)
        }));
        written
            .buffered(AT_ONCE)
            .try_fold(None, async |_, revision| Ok(Some(revision)))
            .await
    }

    async fn write_piece(&self, number: u64, piece: Bytes, over: Option<u64>) -> Result<u64, ObjectError> {
        let name = self.key.piece(number);
        let mut over = over;
        for _ in 0..ATTEMPTS {
            let written = self
                .objects
                .within(async |bucket| put(bucket, &name, piece.clone(), over).await)
                .await;
            match written {
                Err(ObjectError::Store(StoreError::Conflict)) => {}
                done => return done,
            }
            // In this order: what is there may only be overwritten if nobody has replaced this writer after it was read.
            let found = self
                .objects
                .within(async |bucket| bucket.get(&name).await)
                .await?;
            self.check_ours().await?;
            over = found.map(|found| found.revision);
        }
        Err(ObjectError::Taken)
    }

    /// Whether nobody has replaced this writer.
    async fn check_ours(&self) -> Result<(), ObjectError> {
        let found = self.objects.manifest(&self.key).await?;
        match found {
            Some((_, revision)) if revision == self.revision => Ok(()),
            _ => Err(ObjectError::Taken),
        }
    }

    /// Some committed bytes.
    ///
    /// # Errors
    /// [`ObjectError::Gone`] when the object was deleted meanwhile, or has fewer bytes.
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes, ObjectError> {
        if range.end > self.bytes() {
            return Err(ObjectError::Gone);
        }
        reading::whole(self.objects.clone(), self.key.clone(), range).await
    }

    /// Finishes the object: from now on it can be read, and not written.
    ///
    /// # Errors
    /// [`ObjectError::Taken`] when somebody else writes the object by now.
    pub async fn finish(mut self) -> Result<Info, ObjectError> {
        self.manifest.finished_ms = Some(now_ms());
        keep(&self.objects, &self.key, &self.manifest, Some(self.revision)).await?;
        let info = self.manifest.info(self.objects.0.limits.kept);
        info.ok_or(ObjectError::Gone)
    }
}

fn begun(about: About) -> Manifest {
    Manifest {
        about,
        checksum: Checksum::default(),
        note: Value::Null,
        begun_ms: now_ms(),
        finished_ms: None,
    }
}

fn fits(what: &'static str, bytes: usize, most: usize) -> Result<(), ObjectError> {
    match bytes > most {
        true => Err(ObjectError::TooLong { what, bytes, most }),
        false => Ok(()),
    }
}

/// Writes what is kept beside the bytes.
async fn keep(
    objects: &Objects,
    key: &ObjectKey,
    manifest: &Manifest,
    over: Option<u64>,
) -> Result<u64, ObjectError> {
    let record = key.record();
    let written = objects.within(async |bucket| bucket.write(&record, manifest, over).await);
    written.await.map_err(|error| match error {
        ObjectError::Store(StoreError::Conflict) => ObjectError::Taken,
        error => error,
    })
}

async fn put(bucket: &Bucket, name: &str, piece: Bytes, over: Option<u64>) -> Result<u64, StoreError> {
    match over {
        Some(revision) => bucket.update(name, piece, revision).await,
        None => bucket.create(name, piece).await,
    }
}
