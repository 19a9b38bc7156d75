//! The way to a decision: what hides, what opens, what denies, what another scope would help.

use std::time::SystemTime;

use super::{
    CompiledRule, Decision, Effect, Openings, Otherwise, Pattern, Policy,
    action::{Action, Kind, What},
    condition::Held,
    facts::Facts,
};
use crate::Principal;

/// A decision, and what was found on the way to it, in that order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What comes of it.
    pub decision: Decision,
    /// One sentence for each thing that mattered.
    pub found: Vec<String>,
}

/// Who hears what is found on the way.
pub(super) trait Hears {
    fn hear(&mut self, say: impl FnOnce() -> String);
}

impl Hears for () {
    fn hear(&mut self, _: impl FnOnce() -> String) {}
}

impl Hears for Vec<String> {
    fn hear(&mut self, say: impl FnOnce() -> String) {
        self.push(say());
    }
}

/// Whether anything lets somebody have a thing, from the worst to the best.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Opened {
    No,
    /// A rule would, with other arguments.
    Otherwise(String),
    /// With these scopes as well.
    With(Vec<String>),
    Yes,
}

impl Opened {
    /// The worse of two: what is known under two names must be open under both.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Otherwise(rule), _) | (_, Self::Otherwise(rule)) => Self::Otherwise(rule),
            (Self::With(mut one), Self::With(other)) => {
                add(&mut one, other);
                Self::With(one)
            }
            (Self::With(scopes), Self::Yes) | (Self::Yes, Self::With(scopes)) => Self::With(scopes),
            (Self::Yes, Self::Yes) => Self::Yes,
        }
    }
}

fn add(scopes: &mut Vec<String>, more: Vec<String>) {
    for scope in more {
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
}

/// One question, with what is known of it.
struct Question<'q, 'a, H> {
    policy: &'q Policy,
    principal: &'q Principal,
    action: &'q Action<'a>,
    facts: Facts<'q>,
    hears: &'q mut H,
}

pub(super) fn judge(
    policy: &Policy,
    principal: &Principal,
    action: &Action<'_>,
    now: SystemTime,
    hears: &mut impl Hears,
) -> Decision {
    let names = action.spellings();
    let mut question = Question {
        policy,
        principal,
        action,
        facts: Facts::new(&policy.uses, principal, action, now),
        hears,
    };
    let refusals = |effect: Effect| policy.rules.iter().filter(move |rule| rule.effect == effect);
    let concerns = |rule: &CompiledRule| names.all().any(|name| rule.concerns(action.what.kind(), name));
    let mut scopes = Vec::new();
    for rule in refusals(Effect::Hide).filter(|rule| concerns(rule)) {
        if question.refuses(rule).is_some() {
            return Decision::Hidden;
        }
    }
    let mut opened = Opened::Yes;
    for name in names.all() {
        let of_name = question.opened(name);
        opened = opened.and(of_name);
    }
    let mut denied = match opened {
        Opened::No => return Decision::Hidden,
        Opened::Otherwise(rule) => Some(rule),
        Opened::With(needed) => {
            scopes = needed;
            None
        }
        Opened::Yes => None,
    };
    for rule in refusals(Effect::Deny).filter(|rule| concerns(rule)) {
        match question.refuses(rule) {
            None => {}
            Some(missing) if missing.is_empty() => {
                denied.get_or_insert_with(|| rule.name.clone());
            }
            Some(missing) => add(&mut scopes, missing),
        }
    }
    match denied {
        Some(rule) => Decision::Denied { rule },
        None if scopes.is_empty() => Decision::Allow,
        None => Decision::NeedsScopes(scopes),
    }
}

impl<H: Hears> Question<'_, '_, H> {
    /// Whether a rule that refuses does so: with the scopes that would spare who asks.
    fn refuses(&mut self, rule: &CompiledRule) -> Option<Vec<String>> {
        let missing = self.missing(rule);
        let verb = if rule.effect == Effect::Hide {
            "hides"
        } else {
            "denies"
        };
        let name = &rule.name;
        if !rule.scopes.is_empty() && missing.is_empty() {
            self.hears.hear(|| {
                format!(
                    "rule `{name}` {verb} it, but not from who has `{}`",
                    rule.scopes.join(" ")
                )
            });
            return None;
        }
        match self.held(rule) {
            Held::Yes => self.hears.hear(|| format!("rule `{name}` {verb} it")),
            Held::No => {
                self.hears
                    .hear(|| format!("rule `{name}` concerns it, but its condition does not hold"));
                return None;
            }
            Held::Open => {
                self.hears
                    .hear(|| format!("rule `{name}` {verb} it with some arguments"));
                return None;
            }
            Held::Failed(why) => self
                .hears
                .hear(|| format!("rule `{name}` {verb} it, as its condition cannot be evaluated: {why}")),
        }
        Some(missing)
    }

    /// Whether anything lets the principal have what goes by this name.
    fn opened(&mut self, name: &str) -> Opened {
        let mut best = self.by_rules(name);
        if best == Opened::Yes || self.is_operators() {
            return Opened::Yes;
        }
        let kind = self.action.what.kind();
        let mut closest: Option<(&str, usize)> = None;
        for (scope, pattern) in self.policy.openings[kind as usize].of(self.action.server) {
            if !pattern.matches(name) {
                continue;
            }
            if self.policy.grants(self.principal, scope) {
                self.hears.hear(|| {
                    format!(
                        "scope `{scope}` opens it by `{}`{}",
                        pattern.as_str(),
                        self.policy.source(self.principal, scope)
                    )
                });
                return Opened::Yes;
            }
            if closest.is_none_or(|(_, precision)| pattern.precision() > precision) {
                closest = Some((scope, pattern.precision()));
            }
        }
        if let Some((scope, _)) = closest {
            self.hears
                .hear(|| format!("scope `{scope}` would open it, and is not there"));
            return Opened::With(vec![scope.to_owned()]);
        }
        if self.is_open_to_all() {
            best = Opened::Yes;
        } else if best == Opened::No {
            self.hears.hear(|| "nothing in the policy opens it".to_owned());
        }
        best
    }

    /// What operators do is open to them, whatever names it.
    fn is_operators(&mut self) -> bool {
        let What::Admin(_) = self.action.what else {
            return false;
        };
        if self.principal.is_command_line() {
            self.hears.hear(|| "it is open to the command line".to_owned());
            return true;
        }
        let Some(role) = &self.policy.operator else {
            return false;
        };
        let is_operator = self.principal.roles.contains(role);
        if is_operator {
            self.hears.hear(|| "the role of operators opens it".to_owned());
        }
        is_operator
    }

    /// What nothing names.
    fn is_open_to_all(&mut self) -> bool {
        if let What::Admin(_) = self.action.what {
            return false;
        }
        if self.action.is_of_protocol() {
            self.hears
                .hear(|| "it is a method of the protocol that names nothing".to_owned());
            return true;
        }
        if self.policy.otherwise == Otherwise::Allow {
            self.hears
                .hear(|| "no scope names it, and the default is to allow".to_owned());
            return true;
        }
        false
    }

    /// What the rules that allow come to.
    fn by_rules(&mut self, name: &str) -> Opened {
        let policy = self.policy;
        let mut best = Opened::No;
        let kind = self.action.what.kind();
        let allowing = policy.rules.iter().filter(|rule| rule.effect == Effect::Allow);
        for rule in allowing.filter(|rule| rule.concerns(kind, name)) {
            let held = self.held(rule);
            let called = &rule.name;
            match held {
                Held::Yes | Held::Open => {
                    let missing = self.missing(rule);
                    if missing.is_empty() {
                        self.hears.hear(|| match held {
                            Held::Open => format!("rule `{called}` allows it with some arguments"),
                            _ => format!("rule `{called}` allows it"),
                        });
                        return Opened::Yes;
                    }
                    self.hears.hear(|| {
                        format!(
                            "rule `{called}` would allow it to who has `{}`",
                            missing.join(" ")
                        )
                    });
                    if !matches!(best, Opened::With(_)) {
                        best = Opened::With(missing);
                    }
                }
                Held::No | Held::Failed(_) => {
                    self.hears.hear(|| match &held {
                        Held::Failed(why) => {
                            format!("rule `{called}` does not allow it, as its condition cannot be evaluated: {why}")
                        }
                        _ => format!("rule `{called}` concerns it, but its condition does not hold"),
                    });
                    // A list shows what some arguments would allow, so a call with others is not told that there is no such thing.
                    if best == Opened::No && self.would_hold(rule) {
                        best = Opened::Otherwise(called.clone());
                    }
                }
            }
        }
        best
    }

    fn held(&mut self, rule: &CompiledRule) -> Held {
        let condition = rule.condition.as_ref();
        condition.map_or(Held::Yes, |condition| condition.holds(&mut self.facts))
    }

    /// Whether a condition that does not hold might with other arguments.
    fn would_hold(&self, rule: &CompiledRule) -> bool {
        let Some(condition) = rule
            .condition
            .as_ref()
            .filter(|condition| !condition.uses.arguments.is_none())
        else {
            return false;
        };
        let open = Action {
            arguments: super::Arguments::Open,
            ..*self.action
        };
        let mut facts = Facts::new(&self.policy.uses, self.principal, &open, self.facts.now());
        matches!(condition.holds(&mut facts), Held::Yes | Held::Open)
    }

    /// The scopes of a rule that the principal lacks.
    fn missing(&self, rule: &CompiledRule) -> Vec<String> {
        let lacks = |scope: &&String| !self.policy.grants(self.principal, scope);
        rule.scopes.iter().filter(lacks).cloned().collect()
    }
}

impl CompiledRule {
    pub(super) fn concerns(&self, kind: Kind, name: &str) -> bool {
        match &self.targets {
            Some(targets) => targets[kind as usize].iter().any(|pattern| pattern.matches(name)),
            None => true,
        }
    }
}

impl Openings {
    pub(super) fn of<'o>(&'o self, server: &str) -> impl Iterator<Item = &'o (String, Pattern)> {
        self.of_server
            .get(server)
            .into_iter()
            .flatten()
            .chain(&self.of_any)
    }
}

impl Policy {
    /// Where a scope comes from, for an explanation.
    fn source(&self, principal: &Principal, scope: &str) -> String {
        if principal.scopes.iter().any(|granted| granted == scope) {
            return ", and the caller has been granted it".to_owned();
        }
        let mut roles = principal.roles.iter();
        let role = roles.find(|role| self.roles.get(*role).is_some_and(|scopes| scopes.contains(scope)));
        role.map_or_else(String::new, |role| format!(", which the role `{role}` has"))
    }
}
