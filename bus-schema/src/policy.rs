//! What a caller may do: a pure decision over a document, a verified principal, what it wants, and the time, with nothing looked up and
//! nothing remembered.
//!
//! [`decide`] is asked for everything alike: calls and the lists that lead to them, resources, prompts, completions, tasks, and what
//! operators do. Doors ask it, and hosts ask it again. [`explain`] goes the very same way and says what was found on it.

mod action;
mod compile;
mod condition;
mod document;
mod facts;
mod judge;
mod pattern;
mod refusal;
mod servers;

use std::{
    collections::{HashMap, HashSet},
    time::SystemTime,
};

use crate::{kept, principal::Principal};

pub use action::{Action, Annotations, Arguments, What};
pub use compile::BadPolicy;
use condition::{Condition, Uses};
pub use document::{Document, Effect, Opens, Otherwise, Role, Rule, Targets};
pub use judge::Explanation;
pub(crate) use pattern::resolved;
pub use pattern::{BadPattern, BadScope, Pattern, Scope};

/// The method by which the registry is asked to take a document; its parameters are a [`Set`], its result is a [`Version`].
pub const SET: &str = "policy/set";
/// The method by which it is asked to take an earlier one again; its parameters are a [`Rollback`](kept::Rollback), its result is a [`Version`].
pub const ROLLBACK: &str = "policy/rollback";

/// One version of a tenant's policy.
pub type Version = kept::Version<Document>;
/// A wish to have a policy kept.
pub type Set = kept::Set<Document>;

/// A document that was checked, in the form in which it decides.
#[derive(Debug)]
pub struct Policy {
    otherwise: Otherwise,
    /// The scopes of each role, with those of the roles that it includes.
    roles: HashMap<String, HashSet<String>>,
    /// What scopes open, for each kind of thing.
    openings: [Openings; 5],
    rules: Vec<CompiledRule>,
    /// The role that may do whatever operators do.
    operator: Option<String>,
    /// What the conditions of its rules ask for, all together.
    uses: Uses,
}

/// What some rule of a policy looks at that costs something to have at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// What servers say of their tools.
    pub annotations: bool,
    /// What calls are given.
    pub arguments: bool,
}

/// What scopes open of one kind.
#[derive(Debug, Default)]
struct Openings {
    /// By the one server that a pattern is for.
    of_server: HashMap<String, Vec<(String, Pattern)>>,
    /// Those that may be for any.
    of_any: Vec<(String, Pattern)>,
}

impl Openings {
    fn is_empty(&self) -> bool {
        self.of_server.is_empty() && self.of_any.is_empty()
    }
}

/// A rule that was checked.
#[derive(Debug)]
struct CompiledRule {
    name: String,
    effect: Effect,
    /// For each kind of thing; `None` when it concerns everything.
    targets: Option<[Vec<Pattern>; 5]>,
    scopes: Vec<String>,
    condition: Option<Condition>,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may go on.
    Allow,
    /// It may go on once the caller has all of these as well.
    NeedsScopes(Vec<String>),
    /// It may not, and hears which rule says so. Other arguments may do.
    Denied {
        /// The rule's name.
        rule: String,
    },
    /// It may not, and is to see nothing of it: the answer is that of what does not exist.
    Hidden,
}

impl Decision {
    /// Whether lists show what was asked for.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        *self != Self::Hidden
    }

    /// What has decided so: the rule, if one did, and else the name of the decision.
    #[must_use]
    pub fn rule(&self) -> &str {
        match self {
            Self::Denied { rule } => rule,
            other => other.as_str(),
        }
    }

    /// Its name in texts and records.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::NeedsScopes(_) => "needs_scopes",
            Self::Denied { .. } => "denied",
            Self::Hidden => "hidden",
        }
    }
}

impl Policy {
    /// What it looks at.
    #[must_use]
    pub fn reads(&self) -> Reads {
        Reads {
            annotations: !self.uses.annotations.is_none(),
            arguments: !self.uses.arguments.is_none(),
        }
    }

    /// Whether it allows everything to everybody, but what operators do.
    #[must_use]
    pub fn allows_all(&self) -> bool {
        self.otherwise == Otherwise::Allow
            && self.rules.is_empty()
            && self.openings.iter().all(Openings::is_empty)
    }

    /// Whether lists may have to leave something out.
    #[must_use]
    pub fn may_hide(&self) -> bool {
        self.otherwise == Otherwise::Deny || self.rules.iter().any(|rule| rule.effect == Effect::Hide)
    }

    /// Whether the decision about a thing is the same at any time and with any arguments, so that it may be remembered for a principal.
    #[must_use]
    pub fn is_settled(&self, action: &Action<'_>) -> bool {
        if self.uses.is_lasting() {
            return true;
        }
        let names = action.spellings();
        let changing = |rule: &&CompiledRule| {
            let condition = rule.condition.as_ref();
            condition.is_some_and(|condition| !condition.uses.is_lasting())
        };
        !self
            .rules
            .iter()
            .filter(changing)
            .any(|rule| names.all().any(|name| rule.concerns(action.what.kind(), name)))
    }

    /// The same with a role that may do whatever operators do.
    #[must_use]
    pub fn with_operator(self, role: impl Into<String>) -> Self {
        Self {
            operator: Some(role.into()),
            ..self
        }
    }

    /// The same caller with that role, for a platform that asks nobody who they are: everybody operates it, as far as no rule denies that.
    #[must_use]
    pub fn operated_by(&self, principal: &Principal) -> Principal {
        let roles = principal.roles.iter().chain(&self.operator);
        Principal {
            roles: roles.cloned().collect(),
            ..principal.clone()
        }
    }

    /// Whether a principal has a scope, by its token or by a role.
    fn grants(&self, principal: &Principal, scope: &str) -> bool {
        principal.scopes.iter().any(|granted| granted == scope)
            || principal
                .roles
                .iter()
                .any(|role| self.roles.get(role).is_some_and(|scopes| scopes.contains(scope)))
    }
}

/// Decides whether somebody may do something. Where several scopes would do, the one is asked for that names the thing most closely, as
/// it allows the least beside.
///
/// While the arguments are [`Arguments::Open`], the question is whether there are any with which it would be allowed: what is hidden then
/// is hidden with all.
#[must_use]
pub fn decide(policy: &Policy, principal: &Principal, action: &Action<'_>, now: SystemTime) -> Decision {
    judge::judge(policy, principal, action, now, &mut ())
}

/// The same decision, with what was found on the way to it.
#[must_use]
pub fn explain(policy: &Policy, principal: &Principal, action: &Action<'_>, now: SystemTime) -> Explanation {
    let mut found = Vec::new();
    let decision = judge::judge(policy, principal, action, now, &mut found);
    Explanation { decision, found }
}

#[cfg(test)]
mod tests;
