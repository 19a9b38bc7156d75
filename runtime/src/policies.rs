//! The policies in force, ready to decide, as [`documents`] holds them.
//!
//! Where none is kept and none configured, what is known is allowed. Until a process knows what is kept it lets nobody do anything.
//! What depends on nothing that changes between calls is decided once for each principal and version (`decided`).

mod decided;

use std::{
    sync::{Arc, LazyLock},
    time::SystemTime,
};

use bus_schema::{
    Principal, ServerId,
    policy::{
        self, Action, Annotations, BadPolicy, Decision, Document, Effect, Explanation, Otherwise, Policy,
        ROLLBACK, Rule, SET,
    },
};
use tracing::debug;

use crate::{
    bus::Bus,
    catalogue::{Item, Listed},
    documents::{self, Documents, Kind, Unusable},
    store::BucketOptions,
};
use decided::Decided;

/// The rule by which everything is denied while nothing is known.
const UNKNOWN: &str = "the policy is not known yet";
/// The rule by which everything is denied of a tenant whose policy this process cannot read.
const UNREADABLE: &str = "the policy cannot be read by this process";

/// Policies, as a kind of document.
#[derive(Debug)]
pub struct Rules;

/// The policies of all tenants, as this process knows them.
pub type Policies = Documents<Rules>;
/// The policy of a tenant, ready to decide.
pub type InForce = documents::InForce<Rules>;
/// The versions of all tenants' policies.
pub type PolicyStore = documents::Store<Rules>;

impl Kind for Rules {
    type Document = Document;
    type Configured = Configured;
    type Ready = Arc<Ready>;

    const WHAT: &'static str = "policy";
    const CURRENT: BucketOptions = documents::current("policy");
    const HISTORY: BucketOptions = documents::history("policy_history");
    const SET: &'static str = SET;
    const ROLLBACK: &'static str = ROLLBACK;

    fn heard(bus: &Bus) -> Policies {
        bus.policies()
    }

    fn ready(document: &Document, configured: &Configured) -> Result<Arc<Ready>, Unusable> {
        let policy = Policy::compile(document).map_err(|bad| Unusable {
            why: bad.to_string(),
            at: bad.at,
        })?;
        Ok(Arc::new(Ready::new(configured.operated(policy))))
    }

    fn otherwise(configured: &Configured) -> Arc<Ready> {
        let nothing = Document {
            default: Otherwise::Allow,
            roles: Default::default(),
            scopes: Default::default(),
            rules: Vec::new(),
        };
        let document = configured.document.as_ref().unwrap_or(&nothing);
        Self::ready(document, configured).unwrap_or_else(|_| Self::not_read())
    }

    fn not_known() -> Arc<Ready> {
        Arc::clone(&NOT_KNOWN)
    }

    fn not_read() -> Arc<Ready> {
        Arc::clone(&NOT_READ)
    }
}

/// A policy, and what it has decided.
#[derive(Debug)]
pub struct Ready {
    policy: Policy,
    decided: Decided,
}

impl Ready {
    fn new(policy: Policy) -> Self {
        Self {
            policy,
            decided: Decided::default(),
        }
    }

    /// What decides.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}

impl InForce {
    /// Decides at this moment.
    #[must_use]
    pub fn decide(&self, principal: &Principal, action: &Action<'_>) -> Decision {
        policy::decide(&self.ready.policy, principal, action, SystemTime::now())
    }

    /// The same decision, remembered where it is the same for every such call: for what is asked about one thing again and again. Long lists
    /// would push out what calls need.
    #[must_use]
    pub fn decide_call(&self, principal: &Principal, action: &Action<'_>) -> Decision {
        let Ready { policy, decided } = &*self.ready;
        decided.recall(principal, action, || {
            let decision = policy::decide(policy, principal, action, SystemTime::now());
            let is_settled = policy.is_settled(action);
            (decision, is_settled)
        })
    }

    /// The same, with the reasons.
    #[must_use]
    pub fn explain(&self, principal: &Principal, action: &Action<'_>) -> Explanation {
        policy::explain(&self.ready.policy, principal, action, SystemTime::now())
    }

    /// Whether a list shows an item. Its text is asked for when it matters what the server says of it.
    #[must_use]
    pub fn shows<'t>(
        &self,
        principal: &Principal,
        server: &str,
        list: Listed,
        key: &str,
        item: impl FnOnce() -> &'t str,
    ) -> bool {
        let action = match list {
            Listed::Tools if self.ready.policy.reads().annotations => {
                Action::tool(server, key).with_annotations(Annotations::of_tool(item()))
            }
            Listed::Tools => Action::tool(server, key),
            Listed::Prompts => Action::prompt(server, key),
            Listed::Resources | Listed::Templates => Action::resource(server, key),
        };
        self.decide(principal, &action).is_shown()
    }

    /// The policy itself.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.ready.policy
    }
}

/// What somebody sees of lists that are made for everybody.
#[derive(Clone, Debug)]
pub struct Sight {
    in_force: Arc<InForce>,
    principal: Principal,
}

impl Sight {
    /// Whether it sees an item of a server's list.
    #[must_use]
    pub fn shows(&self, server: &ServerId, list: Listed, item: &Item) -> bool {
        self.shows_as(server, list, &item.key, item.json.get())
    }

    /// The same of an item that is known by this key at its server, whatever its text calls it.
    #[must_use]
    pub fn shows_as(&self, server: &ServerId, list: Listed, key: &str, item: &str) -> bool {
        self.in_force
            .shows(&self.principal, server.as_str(), list, key, || item)
    }

    /// Whether it sees a resource of a server.
    #[must_use]
    pub fn shows_resource(&self, server: &ServerId, uri: &str) -> bool {
        let action = Action::resource(server.as_str(), uri);
        self.in_force.decide(&self.principal, &action).is_shown()
    }
}

/// What holds where nothing is kept.
#[derive(Clone, Debug, Default)]
pub struct Configured {
    /// What stands in the configuration.
    pub document: Option<Document>,
    /// The role that may do whatever operators do.
    pub operator: Option<String>,
}

impl Configured {
    fn operated(&self, policy: Policy) -> Policy {
        match &self.operator {
            Some(role) => policy.with_operator(role),
            None => policy,
        }
    }
}

/// The policy that denies everything, by a rule that says why.
fn closed(rule: &str) -> Arc<Ready> {
    let document = Document {
        default: Otherwise::Allow,
        roles: Default::default(),
        scopes: Default::default(),
        rules: vec![Rule {
            name: rule.to_owned(),
            effect: Effect::Deny,
            tools: Vec::new(),
            prompts: Vec::new(),
            resources: Vec::new(),
            methods: Vec::new(),
            admin: Vec::new(),
            scopes: Vec::new(),
            when: None,
        }],
    };
    let policy = Policy::compile(&document).expect("a document without patterns compiles");
    Arc::new(Ready::new(policy))
}

static NOT_KNOWN: LazyLock<Arc<Ready>> = LazyLock::new(|| closed(UNKNOWN));
static NOT_READ: LazyLock<Arc<Ready>> = LazyLock::new(|| closed(UNREADABLE));

impl Bus {
    /// The policies, as this process hears of them; the first who asks begins to listen.
    #[must_use]
    pub fn policies(&self) -> Policies {
        self.policies_once().get_or_init(|| Policies::hear(self)).clone()
    }
}

impl Policies {
    /// Says what holds where nothing is kept, and waits until it is known whether something is, or for long enough. Called before doors
    /// open and hosts start.
    ///
    /// # Errors
    /// [`BadPolicy`] when the document cannot be meant.
    pub async fn configure(&self, configured: Configured) -> Result<(), BadPolicy> {
        if let Some(document) = &configured.document {
            Policy::compile(document)?;
        }
        self.put_configured(configured);
        if !self.ready().await {
            debug!("which policies are kept is not known yet");
        }
        Ok(())
    }

    /// What somebody sees of lists at this moment; `None` when nothing can be hidden.
    #[must_use]
    pub fn sight(&self, principal: &Principal) -> Option<Sight> {
        let in_force = self.of(&principal.tenant);
        in_force.policy().may_hide().then(|| Sight {
            in_force,
            principal: principal.clone(),
        })
    }
}
