//! Takes policies and guardrails: checks a document before it takes the place of another, and numbers it.
//!
//! Every write is over the version that was read, so of two that come at once the second sees the first. A document that cannot be meant
//! is never written, and so never in force anywhere.

use bus_schema::{
    RpcError,
    kept::{Rollback, Set, Version},
    registry::Refusal,
};
use runtime::{
    documents::{Documents, Kind, Store},
    moment,
    store::StoreError,
};
use tracing::info;

use super::{ATTEMPTS, refused, unavailable};

/// How many bytes a document may have as JSON.
const MAX_BYTES: usize = 400 * 1024;
/// How many bytes a comment may have.
const MAX_COMMENT: usize = 1000;

/// Who wants a document, and whose it is.
pub(super) struct Author<'a> {
    pub(super) tenant: &'a str,
    pub(super) subject: &'a str,
}

/// What a document has to be beside one that can be meant; says why it is not.
pub(super) type Fits<'a, K> = dyn Fn(&<K as Kind>::Ready) -> Result<(), String> + Sync + 'a;

/// Keeps a document as the next version.
pub(super) async fn set<K: Kind>(
    documents: &Documents<K>,
    by: &Author<'_>,
    wish: Set<K::Document>,
    fits: &Fits<'_, K>,
) -> Result<Version<K::Document>, RpcError> {
    check(documents, &wish.document, &wish.comment, fits)?;
    let store = opened(documents)?;
    for _ in 0..ATTEMPTS {
        let known = store.read(by.tenant).await.map_err(unavailable)?;
        let present = known.as_ref().map_or(0, |(version, _)| version.version);
        if let Some(over) = wish.over.filter(|over| *over != present) {
            return Err(refused(
                format!(
                    "{}: there is version {present} and not {over}; read it again",
                    K::WHAT
                ),
                &Refusal::Changed,
            ));
        }
        if let Some((version, _)) = &known
            && version.document == wish.document
        {
            return Ok(version.clone());
        }
        let version = Version {
            version: present + 1,
            at: moment::now(),
            by: by.subject.to_owned(),
            comment: wish.comment.clone(),
            document: wish.document.clone(),
        };
        match store.write(by.tenant, &version, known.as_ref()).await {
            Ok(()) => {
                let (tenant, version_number) = (by.tenant, version.version);
                info!(
                    tenant,
                    version = version_number,
                    by = by.subject,
                    "took {}",
                    K::WHAT
                );
                return Ok(version);
            }
            // Somebody else was quicker; what is there now decides.
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(unavailable(error)),
        }
    }
    Err(refused(
        format!("{}: changed by others all the time; try again", K::WHAT),
        &Refusal::Changed,
    ))
}

/// Makes an earlier version the next one.
pub(super) async fn roll_back<K: Kind>(
    documents: &Documents<K>,
    by: &Author<'_>,
    wish: Rollback,
    fits: &Fits<'_, K>,
) -> Result<Version<K::Document>, RpcError> {
    let store = opened(documents)?;
    let known = store.version(by.tenant, wish.to).await.map_err(unavailable)?;
    let earlier = known.ok_or_else(|| {
        refused(
            format!(
                "{what}: there is no version {}; `trunkline {what} history` shows which there are",
                wish.to,
                what = K::WHAT,
            ),
            &Refusal::Unknown,
        )
    })?;
    let comment = match wish.comment.as_str() {
        "" => format!("version {} again", wish.to),
        comment => comment.to_owned(),
    };
    let wish = Set {
        document: earlier.document,
        over: wish.over,
        comment,
    };
    set(documents, by, wish, fits).await
}

fn check<K: Kind>(
    documents: &Documents<K>,
    document: &K::Document,
    comment: &str,
    fits: &Fits<'_, K>,
) -> Result<(), RpcError> {
    let bad = |field: &str, why: String| {
        let field = field.to_owned();
        refused(why, &Refusal::Bad { field })
    };
    let length = serde_json::to_vec(document).map_or(usize::MAX, |text| text.len());
    if length > MAX_BYTES {
        let why = format!("{}: {length} bytes as JSON; {MAX_BYTES} at most", K::WHAT);
        return Err(bad("document", why));
    }
    if comment.len() > MAX_COMMENT {
        let why = format!("the comment has {} bytes; {MAX_COMMENT} at most", comment.len());
        return Err(bad("comment", why));
    }
    match K::ready(document, &documents.configured()) {
        Ok(ready) => fits(&ready).map_err(|why| bad("document", format!("{}: not taken, {why}", K::WHAT))),
        Err(error) => Err(bad(&error.at, format!("{}: not taken, {error}", K::WHAT))),
    }
}

fn opened<K: Kind>(documents: &Documents<K>) -> Result<&Store<K>, RpcError> {
    documents.store().ok_or_else(|| {
        let why = format!(
            "{}: none can be kept, as this NATS has no JetStream, or does not answer yet",
            K::WHAT
        );
        refused(why, &Refusal::Unavailable)
    })
}
