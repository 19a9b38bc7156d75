//! Makes a policy of a document, or says what in it cannot be meant.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    str::FromStr as _,
    thread,
    time::{Duration, UNIX_EPOCH},
};

use super::{
    Action, CompiledRule, Condition, Document, Effect, Openings, Pattern, Policy, Rule, Scope, Targets,
    condition::{Held, STACK, Uses},
    facts::Facts,
};
use crate::Principal;

/// How many roles, scopes, rules and patterns a document may have, each.
const MOST: usize = 1000;
/// How many bytes the name of a role or rule may have.
const MAX_NAME: usize = 100;
/// How deep roles may include each other.
const MAX_DEPTH: usize = 32;
/// A time at which conditions are tried.
const SOME_TIME: Duration = Duration::from_secs(1_800_000_000);

/// Says what is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {why}")]
pub struct BadPolicy {
    /// The place, as keys with dots between.
    pub at: String,
    /// What is wrong there, and what would be right.
    pub why: String,
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "errors and texts stand where it is called"
)]
fn bad(at: impl Into<String>, why: impl ToString) -> BadPolicy {
    BadPolicy {
        at: at.into(),
        why: why.to_string(),
    }
}

impl Policy {
    /// Checks a document, and makes it ready to decide.
    ///
    /// # Errors
    /// [`BadPolicy`] for whatever cannot be meant: what is no scope or pattern, roles that are not there or include themselves, scopes that
    /// open nothing, rules of one name, and conditions that cannot be evaluated.
    pub fn compile(document: &Document) -> Result<Self, BadPolicy> {
        // The parser of conditions may need more stack than the thread of a caller has.
        thread::scope(|scope| {
            let compiling = thread::Builder::new().stack_size(STACK);
            let compiling = compiling.spawn_scoped(scope, || Self::compiled(document));
            let failed = || {
                bad(
                    "policy",
                    "it cannot be checked now, as no thread can be had for it",
                )
            };
            compiling.map_err(|_| failed())?.join().map_err(|_| failed())?
        })
    }

    fn compiled(document: &Document) -> Result<Self, BadPolicy> {
        for (at, length) in [
            ("roles", document.roles.len()),
            ("scopes", document.scopes.len()),
            ("rules", document.rules.len()),
        ] {
            if length > MOST {
                return Err(bad(at, format!("there are {length}; {MOST} at most")));
            }
        }
        let mut openings: [Openings; 5] = Default::default();
        for (name, opens) in &document.scopes {
            let at = format!("scopes.\"{name}\"");
            let scope = Scope::from_str(name).map_err(|error| bad(&at, error))?;
            for (kind, patterns) in patterns(&at, &opens.targets())?.into_iter().enumerate() {
                for pattern in patterns {
                    openings[kind].add(scope.as_str(), pattern);
                }
            }
        }
        let mut names = HashSet::new();
        let mut rules = Vec::with_capacity(document.rules.len());
        for rule in &document.rules {
            let at = format!("rules.\"{}\"", rule.name);
            if rule.name.trim().is_empty() || rule.name.len() > MAX_NAME {
                return Err(bad(
                    &at,
                    format!("a rule needs a name of {MAX_NAME} bytes at most"),
                ));
            }
            if !names.insert(&rule.name) {
                return Err(bad(&at, "two rules have this name; give one another"));
            }
            rules.push(CompiledRule::compile(&at, rule)?);
        }
        let mut uses = Uses::default();
        for condition in rules.iter().filter_map(|rule| rule.condition.as_ref()) {
            uses.and(&condition.uses);
        }
        Ok(Self {
            otherwise: document.default,
            roles: roles(document)?,
            openings,
            rules,
            operator: None,
            uses,
        })
    }
}

impl Openings {
    fn add(&mut self, scope: &str, pattern: Pattern) {
        let known = match pattern.server() {
            Some(server) => self.of_server.entry(server.to_owned()).or_default(),
            None => &mut self.of_any,
        };
        known.push((scope.to_owned(), pattern));
    }
}

impl CompiledRule {
    fn compile(at: &str, rule: &Rule) -> Result<Self, BadPolicy> {
        let targets = rule.targets();
        let is_of_all = targets == Targets::default();
        let condition = match &rule.when {
            Some(text) => {
                let at = format!("{at}.when");
                let condition = Condition::compile(text).map_err(|why| bad(&at, why))?;
                condition.try_out().map_err(|why| bad(&at, why))?;
                Some(condition)
            }
            None => None,
        };
        if rule.effect == Effect::Hide
            && condition
                .as_ref()
                .is_some_and(|condition| !condition.uses.arguments.is_none())
        {
            let why = "a list cannot know the arguments of calls, so nothing can be hidden by them; write effect = \"deny\"";
            return Err(bad(format!("{at}.when"), why));
        }
        if rule.effect == Effect::Allow && is_of_all && condition.is_none() && rule.scopes.is_empty() {
            let why = "it allows everything to everybody; write default = \"allow\" if that is meant, or name what it allows";
            return Err(bad(at, why));
        }
        for scope in &rule.scopes {
            Scope::from_str(scope).map_err(|error| bad(format!("{at}.scopes"), error))?;
        }
        Ok(Self {
            name: rule.name.clone(),
            effect: rule.effect,
            targets: if is_of_all {
                None
            } else {
                Some(patterns(at, &targets)?)
            },
            scopes: rule.scopes.clone(),
            condition,
        })
    }
}

impl Condition {
    /// Evaluates a condition over a principal and a time that lack nothing, so that a wrong name is found before somebody is refused by it.
    fn try_out(&self) -> Result<(), String> {
        let principal = Principal {
            issuer: Some("https://id.example".to_owned()),
            client: Some("client".to_owned()),
            roles: vec!["role".to_owned()],
            scopes: vec!["scope".to_owned()],
            ..Principal::developer()
        };
        let action = Action::tool("server", "tool");
        match self.holds(&mut Facts::new(
            &self.uses,
            &principal,
            &action,
            UNIX_EPOCH + SOME_TIME,
        )) {
            Held::Failed(why) => Err(format!("it cannot be evaluated: {why}")),
            Held::Yes | Held::No | Held::Open => Ok(()),
        }
    }
}

/// The patterns of each kind, in the order of the kinds.
fn patterns(at: &str, targets: &Targets) -> Result<[Vec<Pattern>; 5], BadPolicy> {
    let Targets {
        tools,
        prompts,
        resources,
        methods,
        admin,
    } = targets;
    let read = |kind: &str, texts: &[String]| {
        if texts.len() > MOST {
            return Err(bad(
                format!("{at}.{kind}"),
                format!("there are {}; {MOST} at most", texts.len()),
            ));
        }
        let each = texts.iter().map(|text| text.parse::<Pattern>());
        each.collect::<Result<Vec<_>, _>>()
            .map_err(|error| bad(format!("{at}.{kind}"), error))
    };
    Ok([
        read("tools", tools)?,
        read("prompts", prompts)?,
        read("resources", resources)?,
        read("methods", methods)?,
        admin.iter().map(|text| Pattern::plain(text)).collect(),
    ])
}

/// The scopes of each role, its own and those of the roles that it includes.
fn roles(document: &Document) -> Result<HashMap<String, HashSet<String>>, BadPolicy> {
    let of_rules = document.rules.iter().flat_map(|rule| &rule.scopes);
    let meant: BTreeSet<&String> = document.scopes.keys().chain(of_rules).collect();
    let mut roles = HashMap::new();
    for (name, role) in &document.roles {
        let at = format!("roles.\"{name}\"");
        if let Some(scope) = role.scopes.iter().find(|scope| !meant.contains(scope)) {
            let why = format!("it has the scope `{scope}`, which opens nothing; add it under [scopes]");
            return Err(bad(at, why));
        }
        let mut gathered = Gathered::default();
        gathered.add(document, name, &mut vec![])?;
        roles.insert(name.clone(), gathered.scopes);
    }
    Ok(roles)
}

/// What a role comes to.
#[derive(Default)]
struct Gathered<'d> {
    scopes: HashSet<String>,
    /// The roles that are in it already.
    roles: HashSet<&'d str>,
}

impl<'d> Gathered<'d> {
    fn add(
        &mut self,
        document: &'d Document,
        name: &'d str,
        within: &mut Vec<&'d str>,
    ) -> Result<(), BadPolicy> {
        let at = || format!("roles.\"{}\"", within.first().unwrap_or(&name));
        if within.contains(&name) {
            return Err(bad(
                at(),
                format!("it includes itself: {} → {name}", within.join(" → ")),
            ));
        }
        if within.len() > MAX_DEPTH {
            return Err(bad(at(), format!("it includes roles more than {MAX_DEPTH} deep")));
        }
        let Some(role) = document.roles.get(name) else {
            return Err(bad(
                at(),
                format!("there is no role `{name}` that it could include"),
            ));
        };
        if !self.roles.insert(name) {
            return Ok(());
        }
        self.scopes.extend(role.scopes.iter().cloned());
        within.push(name);
        for included in &role.includes {
            self.add(document, included, within)?;
        }
        within.pop();
        Ok(())
    }
}
