//! Takes guardrails: checks a document before it takes the place of another, and numbers it.
//!
//! Every write is over the version that was read, so of two that come at once the second sees the first. A document that cannot be meant
//! is never written, and so never in force anywhere.

use bus_schema::{
    RpcError,
    guardrails::{Document, Guardrails, Set, Version},
    registry::Refusal,
};
use runtime::{guardrails::AllGuardrails, moment, store::StoreError};
use tracing::info;

use super::{
    ATTEMPTS,
    policy::{Author, MAX_BYTES, MAX_COMMENT},
    refused, unavailable,
};

/// Keeps a document as the next version.
pub(super) async fn set(all: &AllGuardrails, by: &Author<'_>, wish: Set) -> Result<Version, RpcError> {
    check(&wish.document, &wish.comment)?;
    let why = "guardrails cannot be kept: this NATS has no JetStream, or does not answer yet";
    let store = all.store().ok_or_else(|| refused(why, &Refusal::Unavailable))?;
    for _ in 0..ATTEMPTS {
        let known = store.read(by.tenant).await.map_err(unavailable)?;
        let present = known.as_ref().map_or(0, |(version, _)| version.version);
        if let Some(over) = wish.over.filter(|over| *over != present) {
            return Err(refused(
                format!("the guardrails have version {present} and not {over}; read them again"),
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
        let over = known.as_ref().map(|(_, revision)| *revision);
        match store.write(by.tenant, &version, over).await {
            Ok(()) => {
                let (tenant, version_number) = (by.tenant, version.version);
                info!(
                    tenant,
                    version = version_number,
                    by = by.subject,
                    "took guardrails"
                );
                return Ok(version);
            }
            // Somebody else was quicker; what is there now decides.
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(unavailable(error)),
        }
    }
    Err(refused(
        "the guardrails are being changed by others all the time; try again",
        &Refusal::Changed,
    ))
}

fn check(document: &Document, comment: &str) -> Result<(), RpcError> {
    let bad = |field: &str, why: String| {
        let field = field.to_owned();
        refused(why, &Refusal::Bad { field })
    };
    let length = serde_json::to_vec(document).map_or(usize::MAX, |text| text.len());
    if length > MAX_BYTES {
        let why = format!("the guardrails have {length} bytes as JSON; {MAX_BYTES} at most");
        return Err(bad("document", why));
    }
    if comment.len() > MAX_COMMENT {
        let why = format!("the comment has {} bytes; {MAX_COMMENT} at most", comment.len());
        return Err(bad("comment", why));
    }
    match Guardrails::compile(document) {
        Ok(_) => Ok(()),
        Err(error) => Err(bad(&error.at, format!("the guardrails are not taken: {error}"))),
    }
}
