//! What can go wrong with objects.

use super::{StoreError, WHOLE_BYTES};

/// Says why an object cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// The broker did not take or give a record.
    #[error("results cannot be read or written at the moment")]
    Store(#[source] StoreError),
    /// There is no room for more, whoever asks.
    #[error("the store of results is full; try again when older results have expired, or delete some")]
    Full,
    /// There is no room for more of this tenant.
    #[error(
        "the results of this tenant take {0} bytes, which is all that they may; try again when older ones have expired, or delete some"
    )]
    Quota(u64),
    /// Another writer has taken over, or the object was deleted.
    #[error("the result is written by somebody else by now, or was deleted")]
    Taken,
    /// Something else is kept under the key.
    #[error("there is a result under this id already, and another one")]
    Exists,
    /// A piece is not there any more.
    #[error("the result has expired, or was deleted")]
    Gone,
    /// It is too large to be given whole.
    #[error("the result has {0} bytes, and at most {WHOLE_BYTES} are given at once; read it in pieces")]
    TooLarge(u64),
    /// What is told of the object, or noted beside it, is too long.
    #[error("{what} takes {bytes} bytes, and at most {most} are kept")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        most: usize,
    },
    /// What was to be kept could not be had.
    #[error("the result could not be read where it comes from")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<StoreError> for ObjectError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::Full,
            error => Self::Store(error),
        }
    }
}
