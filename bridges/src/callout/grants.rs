//! What a principal's policy comes to as subjects: the one place where the broker's grants are worked out.
//!
//! Tools are granted one by one, as many as there are when the client comes in, so that one that appears later is closed until it comes
//! again. Resources have URIs without number, most of them in no list, so a server's are granted together; the door looks at each.

use std::sync::Arc;

use bus_schema::{
    Principal, ServerId, Token,
    mcp::method,
    policy::Action,
    subject::{self, MethodPath, Subject},
};
use futures::future::join_all;
use runtime::{catalogue::Listed, virtuals::Virtual};

use crate::front::Front;

/// The public subjects that somebody may publish on.
pub(super) async fn publish(front: &Front, principal: &Principal) -> Vec<String> {
    let tenant = Token::encode(&principal.tenant);
    if front.permits_everything() {
        return vec![subject::public_calls_of(&tenant)];
    }
    // Those of other tenants are not here, and so nothing that could be granted.
    if front.directory().tenant() != principal.tenant {
        return Vec::new();
    }
    let grants = Grants {
        front,
        principal,
        tenant,
    };
    let snapshot = front.directory().snapshot();
    let servers = join_all(snapshot.servers().map(|(id, _)| grants.of_server(id))).await;
    let table = front.virtuals().table();
    let virtuals = join_all(table.servers.values().map(|defined| grants.of_virtual(defined))).await;
    let mut all: Vec<String> = servers.into_iter().chain(virtuals).flatten().collect();
    all.sort_unstable();
    all.dedup();
    all
}

struct Grants<'a> {
    front: &'a Front,
    principal: &'a Principal,
    tenant: Token,
}

/// The lists whose entries are granted by name, with the methods that name them.
const BY_NAME: [(Listed, &str); 2] = [
    (Listed::Tools, method::TOOLS_CALL),
    (Listed::Prompts, method::PROMPTS_GET),
];

impl Grants<'_> {
    async fn of_server(&self, id: &ServerId) -> Vec<String> {
        let mut all = self.of_every(id);
        for (list, called) in BY_NAME {
            // What cannot be had now is granted when the client comes again.
            let Some(known) = self.front.catalogue().list_soon(id, list).await else {
                continue;
            };
            let permitted = known
                .items
                .iter()
                .filter(|item| self.permits(called, id, Some(&item.key)));
            all.extend(permitted.map(|item| self.named(id, called, &item.key)));
        }
        all
    }

    /// The entries of a virtual server are permitted as those of their owners, and go by the names that it shows.
    async fn of_virtual(&self, defined: &Arc<Virtual>) -> Vec<String> {
        let id = &defined.definition.id;
        let mut all = self.of_every(id);
        for (list, called) in BY_NAME {
            let chosen = self.front.chosen(defined, list).await;
            let permitted = chosen
                .iter()
                .filter(|(_, owner, own)| self.permits(called, owner, Some(own)));
            all.extend(permitted.map(|(shown, _, _)| self.named(id, called, shown)));
        }
        all
    }

    /// What is granted of every server, whatever it has.
    fn of_every(&self, id: &ServerId) -> Vec<String> {
        let unnamed = method::SERVED
            .into_iter()
            .filter(|called| !method::NAMED.contains(called))
            .chain(method::TASKS)
            .filter(|called| self.permits(called, id, None))
            .map(|called| self.subject(id, called, None).to_string());
        let mut all: Vec<String> = unnamed.collect();
        if self.permits(method::RESOURCES_READ, id, None) {
            all.push(subject::every_name(
                &self.tenant,
                &Token::encode(id.as_str()),
                method::RESOURCES_READ,
            ));
        }
        all
    }

    fn named(&self, id: &ServerId, called: &str, name: &str) -> String {
        self.subject(id, called, Some(name)).to_string()
    }

    fn subject(&self, id: &ServerId, called: &str, name: Option<&str>) -> Subject {
        Subject::Public {
            tenant: self.tenant.clone(),
            server: Token::encode(id.as_str()),
            method: MethodPath::encode(called),
            name: name.map(Token::encode),
        }
    }

    fn permits(&self, called: &str, server: &ServerId, name: Option<&str>) -> bool {
        let action = Action {
            method: called,
            server: server.as_str(),
            name,
        };
        self.front.permits(self.principal, &action)
    }
}
