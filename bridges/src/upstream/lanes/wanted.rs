//! Who needs a lane, and which lanes are for whom.

use std::time::Duration;

use bus_schema::{Principal, mcp::Era};

use crate::upstream::{
    capabilities::Declared,
    connection::{Opening, Session},
    remote::Whose,
};

/// Who asks, as far as nobody else may see or answer what is asked back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::upstream) struct Owner {
    tenant: String,
    issuer: String,
    subject: String,
}

impl Owner {
    pub(in crate::upstream) fn of(principal: &Principal) -> Self {
        let [tenant, issuer, subject] = principal.identity().pieces().map(str::to_owned);
        Self {
            tenant,
            issuer,
            subject,
        }
    }
}

/// Whose lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::upstream) struct Key {
    /// `None` for callers that can be asked nothing and declare extensions only; they share.
    pub(super) owner: Option<Owner>,
    fingerprint: String,
}

/// How a call uses its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Manner {
    /// Beside any others.
    Along,
    /// As the only one that may be asked.
    Alone,
}

/// A caller that needs a lane.
pub(in crate::upstream) struct Wanted {
    pub(in crate::upstream) key: Key,
    pub(in crate::upstream) opening: Opening,
    pub(in crate::upstream) manner: Manner,
    /// How long the call can wait for its turn.
    pub(in crate::upstream) limit: Duration,
}

impl Wanted {
    /// What a caller needs. `Manner` counts only where the transport tells nothing.
    pub(in crate::upstream) fn new(
        principal: &Principal,
        declared: &Declared,
        shared: &Session,
        manner: Manner,
        limit: Duration,
    ) -> Self {
        let owner = declared.can_be_asked().then(|| Owner::of(principal));
        Self {
            key: Key {
                owner,
                fingerprint: declared.fingerprint(),
            },
            opening: Opening::lane(shared.version, declared.clone()),
            manner,
            limit,
        }
    }

    /// The same with the credential of its user, which no other conversation has.
    pub(in crate::upstream) fn with_credential(mut self, principal: &Principal, user: Whose) -> Self {
        self.key.owner = Some(Owner::of(principal));
        if self.opening.version.era() == Era::Modern {
            // Each request says what its caller can be asked.
            self.key.fingerprint = String::new();
            self.opening.declared = Declared::default();
            self.manner = Manner::Along;
        }
        self.opening = self.opening.for_user(user);
        self
    }

    /// Whether the shared conversation would do as well, if with less.
    pub(super) fn may_share(&self) -> bool {
        self.key.owner.is_none()
    }
}
