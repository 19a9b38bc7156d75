//! Virtual servers are defined and forgotten: what may be is judged here, for REST and the command line alike.

use bus_schema::{
    Principal, ServerId,
    registry::{BadDeclaration, GONE_FOR_DAYS, Gone, Over, Record, Removed, Was},
    virtual_server::{Defined, VirtualServer},
};
use runtime::{
    catalogue::Listed,
    moment,
    store::{KeepError, StoreError},
};
use tracing::{debug, info};

use super::{Endpoint, Front, faces::LeftOut};

/// Says why a virtual server is not defined, or not forgotten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DefineError {
    /// The definition cannot be used.
    #[error(transparent)]
    Bad(#[from] BadDeclaration),
    /// A server has the id.
    #[error("a server `{0}` is on the bus; choose another id")]
    IsServer(ServerId),
    /// It stands in the configuration.
    #[error("virtual server `{0}` stands in the configuration of the platform; change it there")]
    Configured(ServerId),
    /// What is kept does not allow it.
    #[error(transparent)]
    Kept(#[from] KeepError),
}

impl Front {
    /// Keeps the definition of a virtual server. Every door serves it as soon as it hears of that.
    ///
    /// # Errors
    /// [`DefineError`] when it cannot be used, or may not replace what is there.
    pub async fn define(
        &self,
        by: &Principal,
        definition: &VirtualServer,
        over: Over,
    ) -> Result<(Defined, u64, Was), DefineError> {
        self.check_definition(definition).await?;
        let id = &definition.id;
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
        let kept = self.virtuals().kept().keep(id, over, is_same, make).await?;
        let (record, revision, was) = kept;
        info!(virtual.id = %id, by = by.subject, revision, ?was, "defined a virtual server");
        match record {
            Record::Declared(defined) => Ok((*defined, revision, was)),
            Record::Removed(_) => Err(KeepError::from(StoreError::Conflict).into()),
        }
    }

    /// Forgets a virtual server; only that of a revision, if one is given.
    ///
    /// # Errors
    /// [`DefineError`] when there is none, or another.
    pub async fn undefine(
        &self,
        by: &Principal,
        id: &ServerId,
        wanted: Option<u64>,
    ) -> Result<(), DefineError> {
        self.check_configured(id)?;
        let version = self.card(&Endpoint::Server(id.clone())).map(|card| card.version);
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
        self.virtuals().kept().forget_but(id, wanted, leave).await?;
        info!(virtual.id = %id, by = by.subject, "removed a virtual server");
        // Whoever removes one clears away what nobody is told of any more.
        let before = moment::days_ago(GONE_FOR_DAYS);
        if let Err(error) = self.virtuals().forget_before(&before).await {
            debug!(%error, "could not forget removed virtual servers");
        }
        Ok(())
    }

    async fn check_definition(&self, definition: &VirtualServer) -> Result<(), DefineError> {
        definition.check()?;
        self.check_configured(&definition.id)?;
        if self.directory().snapshot().server(&definition.id).is_some() {
            return Err(DefineError::IsServer(definition.id.clone()));
        }
        for list in Listed::ALL {
            let merged = self.0.faces.build(definition, list).await;
            if let Some(LeftOut { name, server }) = merged.left_out.first() {
                let first = merged.owners.get(name).map(|(server, _)| server.as_str());
                let why = format!(
                    "chooses two things with the name `{name}` in {}, of `{}` and of `{server}`; rename one, or give one entry a `prefix`",
                    list.key(),
                    first.unwrap_or_default()
                );
                return Err(BadDeclaration { field: "items", why }.into());
            }
        }
        Ok(())
    }

    fn check_configured(&self, id: &ServerId) -> Result<(), DefineError> {
        match self.virtuals().get(id) {
            Some(known) if known.kept.is_none() => Err(DefineError::Configured(id.clone())),
            _ => Ok(()),
        }
    }
}
