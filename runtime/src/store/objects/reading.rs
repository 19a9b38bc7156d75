//! Reading an object, piece by piece and no faster than its reader takes it.

use std::ops::Range;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};

use super::{Info, ObjectError, ObjectKey, Objects, PIECE_BYTES};

/// How many pieces are asked for at a time: while one is on its way to a client, the next comes.
const AHEAD: usize = 2;

/// A finished object.
#[derive(Clone)]
pub struct Reading {
    objects: Objects,
    key: ObjectKey,
    info: Info,
}

impl Reading {
    pub(super) fn new(objects: Objects, key: ObjectKey, info: Info) -> Self {
        Self { objects, key, info }
    }

    /// What it is.
    #[must_use]
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Its bytes from the first place of the range up to the other, as far as it has them. Two pieces are held at most.
    ///
    /// # Errors
    /// The stream ends with [`ObjectError::Gone`] when the object is deleted meanwhile.
    pub fn pieces(&self, range: Range<u64>) -> impl Stream<Item = Result<Bytes, ObjectError>> + Send + use<> {
        let end = range.end.min(self.info.bytes);
        pieces(self.objects.clone(), self.key.clone(), range.start..end)
    }
}

/// The bytes of a range of an object that has them all.
pub(super) fn pieces(
    objects: Objects,
    key: ObjectKey,
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes, ObjectError>> + Send {
    stream::iter(cut(range))
        .map(move |part| {
            let (objects, key) = (objects.clone(), key.clone());
            async move { objects.piece(&key, part).await }
        })
        .buffered(AHEAD)
}

/// The same as one text of bytes, for a range that is small.
pub(super) async fn whole(objects: Objects, key: ObjectKey, range: Range<u64>) -> Result<Bytes, ObjectError> {
    let parts: Vec<Bytes> = pieces(objects, key, range).try_collect().await?;
    Ok(match <[Bytes; 1]>::try_from(parts) {
        Ok([only]) => only,
        Err(parts) => parts.concat().into(),
    })
}

/// A range as the parts of it that lie in one piece each.
fn cut(range: Range<u64>) -> impl Iterator<Item = Range<u64>> + Send {
    let size = PIECE_BYTES as u64;
    let mut at = range.start;
    std::iter::from_fn(move || {
        if at >= range.end {
            return None;
        }
        let start = at;
        at = range.end.min((start / size + 1) * size);
        Some(start..at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_where_pieces_end() {
        let size = PIECE_BYTES as u64;
        let cut = |start: u64, end: u64| {
            let parts = cut(Range { start, end });
            parts.map(|part| (part.start, part.end)).collect::<Vec<_>>()
        };
        assert_eq!(cut(0, 0), []);
        assert_eq!(cut(5, 3), []);
        assert_eq!(cut(3, 5), [(3, 5)]);
        assert_eq!(cut(0, size), [(0, size)]);
        assert_eq!(
            cut(size - 1, 2 * size + 1),
            [(size - 1, size), (size, 2 * size), (2 * size, 2 * size + 1)]
        );
    }
}
