//! Who looks at what is told of servers: operators see all of it, others the servers that they may use, and of those what they need.

use bus_schema::{Principal, ServerId, principal::DEFAULT_TENANT};
use serde_json::{Map, Value};

use super::fleet::{Fleet, Server};

/// Members that say what stands behind the platform, or how it is run.
const FOR_OPERATORS: [&str; 7] = [
    "reason",
    "url",
    "subject",
    "auth",
    "healthUrl",
    "registeredBy",
    "declaration",
];

/// Somebody who looks.
#[derive(Clone, Debug)]
pub(crate) enum Viewer {
    /// Who runs the platform.
    Operator,
    /// Anybody else who was let in.
    Reader(Principal),
}

impl Viewer {
    /// Somebody of whom nothing is known.
    pub(crate) fn anybody() -> Self {
        Self::Reader(Principal::new("anybody", DEFAULT_TENANT))
    }

    /// Whether a server is shown to them.
    pub(super) fn sees(&self, fleet: &Fleet, id: &ServerId) -> bool {
        match self {
            Self::Operator => true,
            Self::Reader(principal) => fleet.front.may_use(principal, id),
        }
    }

    /// What of that which is known of a server is told to them.
    pub(super) fn of(&self, mut told: Map<String, Value>) -> Map<String, Value> {
        if let Self::Reader(_) = self {
            told.retain(|member, _| !FOR_OPERATORS.contains(&member.as_str()));
        }
        told
    }

    /// The same of a server in a list.
    pub(super) fn of_server(&self, server: &Server) -> Map<String, Value> {
        self.of(server.to_json())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_stands_behind_the_platform_is_for_operators() {
        let told = json!({ "id": "a", "status": "down", "reason": "cannot connect to 10.0.0.1", "url": "http://10.0.0.1/" });
        let Value::Object(told) = told else {
            unreachable!("it is one")
        };
        assert_eq!(Viewer::Operator.of(told.clone()), told);
        let seen = Viewer::anybody().of(told);
        assert_eq!(Value::Object(seen), json!({ "id": "a", "status": "down" }));
    }
}
