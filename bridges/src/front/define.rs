//! Virtual servers are defined and forgotten: what may be is judged here, for REST and the command line alike.

use bus_schema::{
    Principal, ServerId,
    registry::{BadDeclaration, GONE_FOR_DAYS, Gone, Over, Record, Removed, Was},
    virtual_server::{Defined, VirtualServer},
};
use runtime::{catalogue::Listed, moment, store::StoreError};
use tracing::{debug, info};

use super::{Endpoint, Front, faces::LeftOut};

/// How often a write is tried again that may replace anything and met another one.
const ATTEMPTS: usize = 8;

/// Says why a virtual server is not defined, or not forgotten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DefineError {
    /// The definition cannot be used.
    #[error(transparent)]
    Bad(#[from] BadDeclaration),
    /// Another one is defined under the id.
    #[error(
        "virtual server `{0}` is defined already, and otherwise; replace it with PUT, or choose another id"
    )]
    Exists(ServerId),
    /// A server has the id.
    #[error("a server `{0}` is on the bus; choose another id")]
    IsServer(ServerId),
    /// It stands in the configuration.
    #[error("virtual server `{0}` stands in the configuration of the platform; change it there")]
    Configured(ServerId),
    /// None is defined under the id.
    #[error("no virtual server `{0}` is defined")]
    Unknown(ServerId),
    /// It has another revision.
    #[error("virtual server `{id}` has revision {is} and not {wanted}; read it again")]
    Changed {
        /// Which one.
        id: ServerId,
        /// Its revision.
        is: u64,
        /// The one that was meant.
        wanted: u64,
    },
    /// It cannot be written at this moment.
    #[error("virtual servers cannot be written at the moment")]
    Unavailable(#[from] StoreError),
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
        for _ in 0..ATTEMPTS {
            let record = self.virtuals().read(id).await?;
            let known = record.as_ref().and_then(defined);
            match (&known, over) {
                (Some((_, is)), Over::Revision(wanted)) if *is != wanted => {
                    let (id, is) = (id.clone(), *is);
                    return Err(DefineError::Changed { id, is, wanted });
                }
                (Some((defined, revision)), _) if defined.definition == *definition => {
                    return Ok((defined.clone(), *revision, Was::Same));
                }
                (Some(_), Over::Nothing) => return Err(DefineError::Exists(id.clone())),
                (None, Over::Revision(_)) => return Err(DefineError::Unknown(id.clone())),
                _ => {}
            }
            let now = moment::now();
            let registered_at = known.as_ref().map(|(defined, _)| defined.registered_at.clone());
            let defined = Defined {
                definition: definition.clone(),
                registered_at: registered_at.unwrap_or_else(|| now.clone()),
                updated_at: now,
                registered_by: by.subject.clone(),
            };
            let over = record.as_ref().map(|(_, revision)| *revision);
            match self.virtuals().write(&defined, over).await {
                Ok(revision) => {
                    info!(virtual.id = %id, by = by.subject, revision, "defined a virtual server");
                    let was = if known.is_some() { Was::Changed } else { Was::New };
                    return Ok((defined, revision, was));
                }
                // Somebody else was quicker; what is there now decides.
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
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
        let record = self.virtuals().read(id).await?;
        let known = record.as_ref().and_then(defined);
        let (known, is) = known.ok_or_else(|| DefineError::Unknown(id.clone()))?;
        if let Some(wanted) = wanted.filter(|wanted| *wanted != is) {
            let id = id.clone();
            return Err(DefineError::Changed { id, is, wanted });
        }
        let now = moment::now();
        let card = self.card(&Endpoint::Server(id.clone()));
        let left = Removed {
            gone: vec![Gone {
                name: None,
                version: card.map(|card| card.version),
                title: known.definition.title,
                description: known.definition.description,
                published_at: known.registered_at,
                gone_at: now.clone(),
            }],
            removed_at: now,
        };
        self.virtuals().remove(id, &left, is).await?;
        info!(virtual.id = %id, by = by.subject, "removed a virtual server");
        // Whoever removes one clears away what nobody is told of any more.
        if let Err(error) = self
            .virtuals()
            .forget_before(&moment::days_ago(GONE_FOR_DAYS))
            .await
        {
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

fn defined((record, revision): &(Record<Defined>, u64)) -> Option<(Defined, u64)> {
    Some((record.entry()?.clone(), *revision))
}
