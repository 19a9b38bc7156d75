//! How the calls of servers are spread is said and taken back here, for REST and the command line alike.

use bus_schema::{
    Principal, ServerId,
    registry::{BadDeclaration, Over, Was},
    traffic::{Kept, Traffic},
};
use runtime::{moment, store::KeepError};
use tracing::info;

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
    /// What is kept does not allow it.
    #[error(transparent)]
    Kept(#[from] KeepError),
}

impl Front {
    /// Keeps the rule for a server's calls, which need not be on the bus. Every process follows it as soon as it hears of that.
    ///
    /// # Errors
    /// [`RuleError`] when it cannot be used, or may not replace what is there.
    pub async fn set_traffic(
        &self,
        by: &Principal,
        rule: &Traffic,
        over: Over,
    ) -> Result<(Kept, u64, Was), RuleError> {
        rule.check()?;
        if self.virtuals().get(&rule.id).is_some() {
            return Err(RuleError::IsVirtual(rule.id.clone()));
        }
        let is_same = |known: &Kept| known.rule == *rule;
        let make = |known: Option<&Kept>| Kept {
            rule: rule.clone(),
            since_ms: known
                .filter(|known| known.rule.splits())
                .map_or_else(moment::now_ms, |known| known.since_ms),
            updated_at: moment::now(),
            updated_by: by.subject.clone(),
        };
        let kept = self
            .directory()
            .rules()
            .keep(&rule.id, over, is_same, make)
            .await?;
        info!(server.id = %rule.id, by = by.subject, revision = kept.1, was = ?kept.2, "set how a server's calls are spread");
        Ok(kept)
    }

    /// Forgets the rule for a server's calls; only that of a revision, if one is given.
    ///
    /// # Errors
    /// [`RuleError`] when there is none, or another.
    pub async fn clear_traffic(
        &self,
        by: &Principal,
        id: &ServerId,
        wanted: Option<u64>,
    ) -> Result<(), RuleError> {
        self.directory().rules().forget(id, wanted).await?;
        info!(server.id = %id, by = by.subject, "a server's calls are spread by the broker again");
        Ok(())
    }
}
