//! Secrets in files, as Kubernetes and Docker mount them. A file is changed by writing it, or by a link that leads elsewhere.

use std::{fs::Metadata, os::unix::fs::MetadataExt as _, path::Path};

use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use super::{MAX_BYTES, Secret};

/// What tells one state of a file from another: which file it is, how long, and when it was last written or exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp([i64; 5], u64);

impl Stamp {
    fn of(about: &Metadata) -> Self {
        let times = [
            about.mtime(),
            about.mtime_nsec(),
            about.ctime(),
            about.ctime_nsec(),
            about.len().cast_signed(),
        ];
        Self(times, about.ino())
    }
}

/// Looks at the file that the path leads to now.
pub(super) async fn stamp(path: &Path) -> Result<Stamp, String> {
    let about = tokio::fs::metadata(path).await;
    about
        .map(|about| Stamp::of(&about))
        .map_err(|error| error.to_string())
}

/// Reads it. The stamp is that of the very file that was read.
pub(super) async fn read(path: &Path) -> Result<(Secret, Stamp), String> {
    let failed = |error: std::io::Error| error.to_string();
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let stamp = Stamp::of(&file.metadata().await.map_err(failed)?);
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .await
        .map_err(failed)?;
    Ok((super::command::read(&text)?, stamp))
}
