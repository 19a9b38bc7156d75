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

/// One thing that somebody was given, by what it was given for: so it can be asked later whether it still would be, whatever is there to be
/// listed then.
pub(super) enum Ground {
    /// Everything of the tenant.
    Everything,
    /// A method of a server, with the name that it has there.
    Called {
        /// Whose.
        server: ServerId,
        /// The method.
        called: &'static str,
        /// What it names.
        name: Option<String>,
    },
    /// The resources of a server.
    Resources(ServerId),
    /// A hook that it answers.
    Hook(String),
}

/// Something that is granted, and why.
type Granted = (String, Ground);

/// Whether somebody would be given all of this again.
pub(super) async fn would_hold(front: &Front, principal: &Principal, grounds: &[Ground]) -> bool {
    for ground in grounds {
        let holds = match ground {
            Ground::Everything => front.permits_everything(principal),
            Ground::Called { server, called, name } => {
                let action = Action::of(server.as_str(), called, name.as_deref(), None);
                front.permits(principal, action).await
            }
            Ground::Resources(server) => front.may_use(principal, server),
            Ground::Hook(name) => may_answer(front, principal, name),
        };
        if !holds {
            return false;
        }
    }
    true
}

/// The public subjects that somebody may publish on, of the servers of their own tenant.
pub(super) async fn publish(front: &Front, principal: &Principal) -> Vec<Granted> {
    let tenant = Token::encode(&principal.tenant);
    if front.permits_everything(principal) {
        return vec![(subject::public_calls_of(&tenant), Ground::Everything)];
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
    let mut all: Vec<Granted> = servers.into_iter().chain(virtuals).flatten().collect();
    all.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    all.dedup_by(|(one, _), (other, _)| one == other);
    all
}

/// The hooks that somebody may answer: of those in force each that the policy opens to them, as `hooks:<name>` among what operators do.
pub(super) fn hooks(front: &Front, principal: &Principal) -> Vec<Granted> {
    let tenant = Token::encode(&principal.tenant);
    let guardrails = front.bus().guardrails().of(&principal.tenant);
    let Ok(rails) = guardrails.rails() else {
        return Vec::new();
    };
    let hooks = rails.hooks().into_iter();
    hooks
        .filter(|hook| may_answer(front, principal, hook))
        .map(|hook| {
            let subject = Subject::Hook {
                tenant: tenant.clone(),
                name: Token::encode(hook),
            };
            (subject.to_string(), Ground::Hook(hook.to_owned()))
        })
        .collect()
}

fn may_answer(front: &Front, principal: &Principal, hook: &str) -> bool {
    let action = format!("hooks:{hook}");
    let decision = front
        .in_force(principal)
        .decide(principal, &Action::admin(&action));
    decision == Decision::Allow
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
    async fn of_server(&self, id: &ServerId) -> Vec<Granted> {
        let mut all = self.of_every(id).await;
        for (list, called) in BY_NAME {
            // What cannot be had now is granted when the client comes again.
            let Some(known) = self.front.catalogue().list_soon(id, list).await else {
                continue;
            };
            for item in &known.items {
                all.extend(self.named((id, &item.key), called, (id, &item.key)).await);
            }
        }
        all
    }

    /// The entries of a virtual server are permitted as those of their owners, and go by the names that it shows.
    async fn of_virtual(&self, defined: &Arc<Virtual>) -> Vec<Granted> {
        let id = &defined.definition.id;
        let mut all = self.of_every(id).await;
        for (list, called) in BY_NAME {
            for (shown, owner, own) in self.front.all_chosen(defined, list).await {
                all.extend(self.named((id, &shown), called, (&owner, &own)).await);
            }
        }
        all
    }

    /// What is granted of every server, whatever it has.
    async fn of_every(&self, id: &ServerId) -> Vec<Granted> {
        let unnamed = method::SERVED
            .into_iter()
            .filter(|called| !method::NAMED.contains(called))
            .chain(method::TASKS);
        let mut all = Vec::new();
        for called in unnamed {
            if self.permits(called, id, None).await {
                let ground = Ground::Called {
                    server: id.clone(),
                    called,
                    name: None,
                };
                all.push((self.subject(id, called, None).to_string(), ground));
            }
        }
        if self.reads_resources(id) {
            let server = Token::encode(id.as_str());
            let subject = subject::every_name(&self.tenant, &server, method::RESOURCES_READ);
            all.push((subject, Ground::Resources(id.clone())));
        }
        all
    }

    /// What goes by a name of a server, if whoever owns it there may be asked for it.
    async fn named(
        &self,
        (id, shown): (&ServerId, &str),
        called: &'static str,
        (owner, own): (&ServerId, &str),
    ) -> Option<Granted> {
        let ground = Ground::Called {
            server: owner.clone(),
            called,
            name: Some(own.to_owned()),
        };
        let is_open = self.permits(called, owner, Some(own)).await;
        is_open.then(|| (self.subject(id, called, Some(shown)).to_string(), ground))
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
