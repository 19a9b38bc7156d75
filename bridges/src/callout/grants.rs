//! What a principal's policy comes to as subjects: the one place where the broker's grants are worked out.
//!
//! Tools are granted one by one, as many as there are when the client comes in, so that one that appears later is closed until it comes
//! again. Resources have URIs without number, most of them in no list, so a server's are granted together; the door looks at each.

use std::sync::Arc;

use bus_schema::{
    Principal, ServerId, Token,
    mcp::method,
    policy::{Action, Decision},
    subject::{self, MethodPath, Subject},
};
use futures::future::join_all;
use runtime::{catalogue::Listed, virtuals::Virtual};

use crate::front::Front;

/// The public subjects that somebody may publish on, of the servers of their own tenant.
pub(super) async fn publish(front: &Front, principal: &Principal) -> Vec<String> {
    let tenant = Token::encode(&principal.tenant);
    if front.permits_everything(principal) {
        return vec![subject::public_calls_of(&tenant)];
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

/// The hooks that somebody may answer: of those in force each that the policy opens to them, as `hooks:<name>` among what operators do.
pub(super) fn hooks(front: &Front, principal: &Principal) -> Vec<String> {
    let policy = front.in_force(principal);
    let may =
        |hook: &str| policy.decide(principal, &Action::admin(&format!("hooks:{hook}"))) == Decision::Allow;
    let tenant = Token::encode(&principal.tenant);
    let guardrails = front.bus().guardrails().of(&principal.tenant);
    let Ok(rails) = guardrails.rails() else {
        return Vec::new();
    };
    let hooks = rails.hooks().into_iter().filter(|hook| may(hook));
    hooks
        .map(|hook| Subject::Hook {
            tenant: tenant.clone(),
            name: Token::encode(hook),
        })
        .map(|subject| subject.to_string())
        .collect()
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
        let mut all = self.of_every(id).await;
        for (list, called) in BY_NAME {
            // What cannot be had now is granted when the client comes again.
            let Some(known) = self.front.catalogue().list_soon(id, list).await else {
                continue;
            };
            for item in &known.items {
                if self.permits(called, id, Some(&item.key)).await {
                    all.push(self.named(id, called, &item.key));
                }
            }
        }
        all
    }

    /// The entries of a virtual server are permitted as those of their owners, and go by the names that it shows.
    async fn of_virtual(&self, defined: &Arc<Virtual>) -> Vec<String> {
        let id = &defined.definition.id;
        let mut all = self.of_every(id).await;
        for (list, called) in BY_NAME {
            for (shown, owner, own) in self.front.all_chosen(defined, list).await {
                if self.permits(called, &owner, Some(&own)).await {
                    all.push(self.named(id, called, &shown));
                }
            }
        }
        all
    }

    /// What is granted of every server, whatever it has.
    async fn of_every(&self, id: &ServerId) -> Vec<String> {
        let unnamed = method::SERVED
            .into_iter()
            .filter(|called| !method::NAMED.contains(called))
            .chain(method::TASKS);
        let mut all = Vec::new();
        for called in unnamed {
            if self.permits(called, id, None).await {
                all.push(self.subject(id, called, None).to_string());
            }
        }
        if self.reads_resources(id) {
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

    /// Whether somebody may read anything of a server: the door looks at each URI.
    fn reads_resources(&self, id: &ServerId) -> bool {
        self.front.may_use(self.principal, id)
    }

    /// With some arguments: the door looks at those of each call.
    async fn permits(&self, called: &str, server: &ServerId, name: Option<&str>) -> bool {
        let action = Action::of(server.as_str(), called, name, None);
        self.front.permits(self.principal, action).await
    }
}
