//! Virtual servers are defined and forgotten: what may be is judged here, for REST and the command line alike. The registry decides who may,
//! and writes it.

use bus_schema::{
    Principal, ServerId,
    registry::{BadDeclaration, Keeping, Over},
    virtual_server::{Define, Defined, Undefine, VirtualServer},
};
use runtime::{catalogue::Listed, registry::RegistryError};

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
    /// The registry does not do it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Front {
    /// Has the definition of a virtual server kept. Every door serves it as soon as it hears of that.
    ///
    /// # Errors
    /// [`DefineError`] when it cannot be used, may not replace what is there, or is not for `by` to say.
    pub async fn define(
        &self,
        by: &Principal,
        definition: &VirtualServer,
        over: Over,
    ) -> Result<Keeping<Defined>, DefineError> {
        self.check_definition(definition).await?;
        let definition = definition.clone();
        Ok(self.bus().define(by, &Define { definition, over }).await?)
    }

    /// Has a virtual server forgotten; only that of a revision, if one is given.
    ///
    /// # Errors
    /// [`DefineError`] when there is none, another, or it is not for `by` to say.
    pub async fn undefine(
        &self,
        by: &Principal,
        id: &ServerId,
        wanted: Option<u64>,
    ) -> Result<(), DefineError> {
        self.check_configured(id)?;
        let wish = Undefine {
            id: id.clone(),
            revision: wanted,
            version: self.card(&Endpoint::Server(id.clone())).map(|card| card.version),
        };
        Ok(self.bus().undefine(by, &wish).await?)
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
