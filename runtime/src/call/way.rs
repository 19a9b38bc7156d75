//! Where a call goes, and where it goes when nobody is there.

use std::{collections::VecDeque, sync::Arc};

use bus_schema::{
    Request, Token,
    subject::{self, InstanceVerb, MethodPath, Subject},
};

/// One place that takes calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// Any replica of the server.
    Group,
    /// Any replica of one version of it.
    Version(Arc<str>),
    /// A replica that is near to the caller. When it cannot take the call, it hands it to another.
    Near(Token),
    /// One replica, which alone can take it.
    Instance(Token),
}

/// The places that may take a call, in the order in which they are tried. A place is left for the next when nobody is there; a near replica
/// also when it is busy, or lost before it can have begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    to: To,
    others: VecDeque<To>,
    version: Option<Arc<str>>,
}

impl Way {
    /// To any replica.
    #[must_use]
    pub const fn group() -> Self {
        Self::only(To::Group)
    }

    /// To one place and nowhere else.
    #[must_use]
    pub const fn only(to: To) -> Self {
        Self {
            to,
            others: VecDeque::new(),
            version: None,
        }
    }

    /// To these places, of a server whose versions are told apart or not; to any replica when there are none.
    pub(crate) fn through(places: impl IntoIterator<Item = To>, version: Option<Arc<str>>) -> Self {
        let mut others: VecDeque<To> = places.into_iter().collect();
        let to = others.pop_front().unwrap_or(To::Group);
        Self { to, others, version }
    }

    /// The version that the call is for, where versions are told apart.
    #[must_use]
    pub fn version(&self) -> Option<&Arc<str>> {
        self.version.as_ref()
    }

    /// Turns to the next place, if there is one.
    pub(super) fn turn(&mut self) -> bool {
        let Some(next) = self.others.pop_front() else {
            return false;
        };
        if let To::Version(version) = &next {
            self.version = Some(Arc::clone(version));
        }
        self.to = next;
        true
    }

    /// Turns away from a near replica, if the call is for one and there are other places.
    pub(super) fn turn_from_near(&mut self) -> bool {
        matches!(self.to, To::Near(_)) && self.turn()
    }

    /// The subject of a call that goes this way.
    pub(super) fn subject(&self, request: &Request) -> String {
        let tenant = || Token::encode(&request.principal.tenant);
        let server = || Token::encode(&request.server);
        let word = |instance: &Token, verb| {
            let (server, instance) = (server(), instance.clone());
            Subject::Instance {
                tenant: tenant(),
                server,
                instance,
                verb,
            }
            .to_string()
        };
        match &self.to {
            To::Group => subject::call(&request.principal.tenant, &request.server, &request.method),
            To::Version(version) => Subject::Version {
                tenant: tenant(),
                server: server(),
                version: Token::encode(version),
                method: MethodPath::encode(&request.method),
            }
            .to_string(),
            To::Near(instance) => word(instance, InstanceVerb::Near),
            To::Instance(instance) => word(instance, InstanceVerb::Call),
        }
    }
}
