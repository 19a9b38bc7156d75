//! Takes policies: checks a document before it takes the place of another, and numbers it.
//!
//! Every write is over the version that was read, so of two that come at once the second sees the first. A document that cannot be meant
//! is never written, and so never in force anywhere.

use bus_schema::{
    RpcError,
    policy::{Document, Policy, Rollback, Set, Version},
    registry::Refusal,
};
use runtime::{
    moment,
    policies::{Policies, PolicyStore},
    store::StoreError,
};
use tracing::info;

use super::{ATTEMPTS, refused, unavailable};

/// How many bytes a document may have as JSON.
pub(super) const MAX_BYTES: usize = 400 * 1024;
/// How many bytes a comment may have.
pub(super) const MAX_COMMENT: usize = 1000;

/// Who wants a policy, and whose it is.
pub(super) struct Author<'a> {
    pub(super) tenant: &'a str,
    pub(super) subject: &'a str,
}

/// Keeps a document as the next version.
pub(super) async fn set(policies: &Policies, by: &Author<'_>, wish: Set) -> Result<Version, RpcError> {
    check(&wish.document, &wish.comment)?;
    let store = opened(policies)?;
    for _ in 0..ATTEMPTS {
        let known = store.read(by.tenant).await.map_err(unavailable)?;
        let present = known.as_ref().map_or(0, |(version, _)| version.version);
        if let Some(over) = wish.over.filter(|over| *over != present) {
            return Err(refused(
                format!("the policy has version {present} and not {over}; read it again"),
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
                info!(tenant, version = version_number, by = by.subject, "took a policy");
                return Ok(version);
            }
            // Somebody else was quicker; what is there now decides.
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(unavailable(error)),
        }
    }
    Err(refused(
        "the policy is being changed by others all the time; try again",
        &Refusal::Changed,
    ))
}

/// Makes an earlier version the next one.
pub(super) async fn roll_back(
    policies: &Policies,
    by: &Author<'_>,
    wish: Rollback,
) -> Result<Version, RpcError> {
    let store = opened(policies)?;
    let known = store.version(by.tenant, wish.to).await.map_err(unavailable)?;
    let earlier = known.ok_or_else(|| {
        refused(
            format!(
                "there is no version {} of the policy; `trunkline policy history` shows which there are",
                wish.to
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
    set(policies, by, wish).await
}

fn check(document: &Document, comment: &str) -> Result<(), RpcError> {
    let bad = |field: &str, why: String| {
        let field = field.to_owned();
        refused(why, &Refusal::Bad { field })
    };
    let length = serde_json::to_vec(document).map_or(usize::MAX, |text| text.len());
    if length > MAX_BYTES {
        let why = format!("the policy has {length} bytes as JSON; {MAX_BYTES} at most");
        return Err(bad("document", why));
    }
    if comment.len() > MAX_COMMENT {
        let why = format!("the comment has {} bytes; {MAX_COMMENT} at most", comment.len());
        return Err(bad("comment", why));
    }
    match Policy::compile(document) {
        Ok(_) => Ok(()),
        Err(error) => Err(bad(&error.at, format!("the policy is not taken: {error}"))),
    }
}

fn opened(policies: &Policies) -> Result<&PolicyStore, RpcError> {
    let why = "policies cannot be kept: this NATS has no JetStream, or does not answer yet";
    policies
        .store()
        .ok_or_else(|| refused(why, &Refusal::Unavailable))
}
