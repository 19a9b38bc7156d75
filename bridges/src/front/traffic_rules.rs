//! How the calls of servers are spread is said and taken back here, for REST and the command line alike. The registry decides who may, and
//! writes it.

use bus_schema::{
    Principal, ServerId,
    registry::{BadDeclaration, Keeping, Over, Remove},
    traffic::{Kept, Set, Traffic},
};
use runtime::registry::RegistryError;

use super::Front;

/// Says why a traffic rule is not kept, or not forgotten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// It cannot be used.
    #[error(transparent)]
    Bad(#[from] BadDeclaration),
    /// It is for what has no replicas of its own.
    #[error(
        "`{0}` is a virtual server and has no replicas; write rules for the servers that it chooses from"
    )]
    IsVirtual(ServerId),
    /// The registry does not do it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Front {
    /// Has the rule kept for a server's calls, which need not be on the bus. Every process follows it as soon as it hears of that.
    ///
    /// # Errors
    /// [`RuleError`] when it cannot be used, may not replace what is there, or is not for `by` to say.
    pub async fn set_traffic(
        &self,
        by: &Principal,
        rule: &Traffic,
        over: Over,
    ) -> Result<Keeping<Kept>, RuleError> {
        rule.check()?;
        if self.virtuals().get(&rule.id).is_some() {
            return Err(RuleError::IsVirtual(rule.id.clone()));
        }
        let rule = rule.clone();
        Ok(self.bus().set_traffic(by, &Set { rule, over }).await?)
    }

    /// Has the rule for a server's calls forgotten; only that of a revision, if one is given.
    ///
    /// # Errors
    /// [`RuleError`] when there is none, another, or it is not for `by` to say.
    pub async fn clear_traffic(
        &self,
        by: &Principal,
        id: &ServerId,
        wanted: Option<u64>,
    ) -> Result<(), RuleError> {
        let wish = Remove {
            id: id.clone(),
            revision: wanted,
        };
        Ok(self.bus().clear_traffic(by, &wish).await?)
    }
}
