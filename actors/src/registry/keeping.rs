//! Keeps what operators say under the ids of servers beside declarations: how calls are spread, and virtual servers.

use bus_schema::{
    Principal, RpcError,
    registry::{BadDeclaration, GONE_FOR_DAYS, Gone, Keeping, Record, Refusal, Remove, Removed},
    traffic,
    virtual_server::{Define, Defined, Undefine},
};
use runtime::{
    Directory, moment,
    store::{KeepError, StoreError},
    virtuals::Virtuals,
};
use tracing::{debug, info};

use super::refused;

/// Keeps the rule for a server's calls, which need not be on the bus.
pub(super) async fn set_traffic(
    directory: &Directory,
    by: &Principal,
    wish: &traffic::Set,
) -> Result<Keeping<traffic::Kept>, RpcError> {
    let rule = &wish.rule;
    rule.check().map_err(|error| bad(&error))?;
    let is_same = |known: &traffic::Kept| known.rule == *rule;
    let make = |known: Option<&traffic::Kept>| traffic::Kept {
        rule: rule.clone(),
        since_ms: known
            .filter(|known| known.rule.splits())
            .map_or_else(moment::now_ms, |known| known.since_ms),
        updated_at: moment::now(),
        updated_by: by.subject.clone(),
    };
    let kept = directory.rules().keep(&rule.id, wish.over, is_same, make).await;
    let (record, revision, was) = kept.map_err(|error| not_kept(&error))?;
    info!(server.id = %rule.id, by = by.subject, revision, ?was, "set how a server's calls are spread");
    Ok(Keeping {
        record,
        revision,
        was,
    })
}

/// Forgets the rule for a server's calls.
pub(super) async fn clear_traffic(
    directory: &Directory,
    by: &Principal,
    wish: &Remove,
) -> Result<(), RpcError> {
    let forgotten = directory.rules().forget(&wish.id, wish.revision).await;
    forgotten.map_err(|error| not_kept(&error))?;
    info!(server.id = %wish.id, by = by.subject, "a server's calls are spread by the broker again");
    Ok(())
}

/// Keeps the definition of a virtual server. What it chooses from is looked at by the door that was asked, as only doors put lists together.
pub(super) async fn define(
    directory: &Directory,
    virtuals: &Virtuals,
    by: &Principal,
    wish: &Define,
) -> Result<Keeping<Defined>, RpcError> {
    let definition = &wish.definition;
    let id = &definition.id;
    definition.check().map_err(|error| bad(&error))?;
    if directory.snapshot().server(id).is_some() {
        let why = format!("a server `{id}` is on the bus; choose another id");
        return Err(refused(why, &Refusal::Exists));
    }
    let is_same =
        |known: &Record<Defined>| known.entry().is_some_and(|known| known.definition == *definition);
    let make = |known: Option<&Record<Defined>>| {
        let known = known.and_then(Record::entry);
        let now = moment::now();
        Record::Declared(Box::new(Defined {
            definition: definition.clone(),
            registered_at: known.map_or_else(|| now.clone(), |known| known.registered_at.clone()),
            updated_at: now,
            registered_by: by.subject.clone(),
        }))
    };
    let kept = virtuals.kept().keep(id, wish.over, is_same, make).await;
    let (record, revision, was) = kept.map_err(|error| not_kept(&error))?;
    info!(virtual.id = %id, by = by.subject, revision, ?was, "defined a virtual server");
    match record {
        Record::Declared(defined) => Ok(Keeping {
            record: *defined,
            revision,
            was,
        }),
        Record::Removed(_) => Err(not_kept(&StoreError::Conflict.into())),
    }
}

/// Forgets a virtual server.
pub(super) async fn undefine(virtuals: &Virtuals, by: &Principal, wish: Undefine) -> Result<(), RpcError> {
    let Undefine {
        id,
        revision,
        version,
    } = wish;
    let now = moment::now();
    let leave = |record: &Record<Defined>| {
        let gone = record.entry().map(|known| Gone {
            name: None,
            version,
            title: known.definition.title.clone(),
            description: known.definition.description.clone(),
            published_at: known.registered_at.clone(),
            gone_at: now.clone(),
        });
        Record::Removed(Removed {
            gone: gone.into_iter().collect(),
            removed_at: now.clone(),
        })
    };
    let forgotten = virtuals.kept().forget_but(&id, revision, leave).await;
    forgotten.map_err(|error| not_kept(&error))?;
    info!(virtual.id = %id, by = by.subject, "removed a virtual server");
    // Whoever removes one clears away what nobody is told of any more.
    let before = moment::days_ago(GONE_FOR_DAYS);
    if let Err(error) = virtuals.forget_before(&before).await {
        debug!(%error, "could not forget removed virtual servers");
    }
    Ok(())
}

fn bad(error: &BadDeclaration) -> RpcError {
    let field = error.field.to_owned();
    refused(error.to_string(), &Refusal::Bad { field })
}

fn not_kept(error: &KeepError) -> RpcError {
    let refusal = match error {
        KeepError::Exists { .. } => Refusal::Exists,
        KeepError::Unknown { .. } => Refusal::Unknown,
        KeepError::Changed { .. } => Refusal::Changed,
        _ => Refusal::Unavailable,
    };
    refused(error.to_string(), &refusal)
}
