//! From a document to guardrails that can be used, or to what is wrong with it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{
    Check, Course, Document, OnFailure, Side, Step, Target, Then,
    injection::Injection,
    sensitive::{self, Sensitive},
};
use crate::{
    card::NAME_SEPARATOR,
    policy::{self, Pattern},
};

/// How many steps there may be.
pub const MAX_STEPS: usize = 64;
const MAX_NAME_BYTES: usize = 64;
/// How many patterns, expressions or phrases one step may have.
const MAX_LISTED: usize = 100;
/// How long a hook is waited for if nobody says.
const HOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest that a hook may be waited for; the broker forgets after two minutes where an answer from another account goes.
const LONGEST_HOOK_TIMEOUT_MS: u64 = 100_000;

/// Says what is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {why}")]
pub struct BadGuardrails {
    /// The field, such as `steps[2].find`.
    pub at: String,
    /// What is wrong with it, and what would be right.
    pub why: String,
}

/// Guardrails, ready to use.
#[derive(Debug, Default)]
pub struct Guardrails {
    steps: Vec<Arc<Ready>>,
}

/// A step, ready to use.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) name: String,
    of: Vec<Pattern>,
    pub(super) on: BTreeSet<Side>,
    pub(super) then: Then,
    pub(super) looks: Looks,
}

/// What a step looks at, with what it needs for it.
#[derive(Debug)]
pub(super) enum Looks {
    Schema,
    Size {
        arguments: Option<u64>,
        results: Option<u64>,
    },
    Sensitive(Sensitive),
    Injection(Injection),
    Hook(Hook),
}

/// A hook that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Which step asks it.
    pub step: String,
    /// What it is called: the last token of its subject.
    pub name: String,
    /// How long it is waited for.
    pub timeout: Duration,
    /// What becomes of the call when it does not answer.
    pub on_failure: OnFailure,
}

impl Ready {
    pub(super) const fn check(&self) -> Check {
        match self.looks {
            Looks::Schema => Check::Schema,
            Looks::Size { .. } => Check::Size,
            Looks::Sensitive(_) => Check::Sensitive,
            Looks::Injection(_) => Check::Injection,
            Looks::Hook(_) => Check::Hook,
        }
    }

    fn concerns(&self, target: &Target<'_>) -> bool {
        if self.of.is_empty() {
            return true;
        }
        let names = |name: &str| {
            let whole = format!("{}{NAME_SEPARATOR}{name}", target.server);
            self.of.iter().any(|pattern| pattern.matches(&whole))
        };
        match target.name {
            // A URI may be spelled in ways that its server takes for the same.
            Some(name) => names(name) || policy::resolved(name).is_some_and(|name| names(&name)),
            None => self.of.iter().any(|pattern| pattern.may_name_of(target.server)),
        }
    }
}

impl Guardrails {
    /// Reads a document.
    ///
    /// # Errors
    /// [`BadGuardrails`] that names the field and what would be right.
    pub fn compile(document: &Document) -> Result<Self, BadGuardrails> {
        let bad = |at: String, why: &str| {
            Err(BadGuardrails {
                at,
                why: why.to_owned(),
            })
        };
        if document.steps.len() > MAX_STEPS {
            return bad(
                "steps".to_owned(),
                &format!("there are {}; {MAX_STEPS} are taken", document.steps.len()),
            );
        }
        let mut names = BTreeSet::new();
        let mut steps = Vec::with_capacity(document.steps.len());
        for (at, step) in document.steps.iter().enumerate() {
            if !names.insert(&step.name) {
                let why = format!("two steps are named `{}`; give each a name of its own", step.name);
                return bad(format!("steps[{at}].name"), &why);
            }
            let ready = ready(step).map_err(|(field, why)| BadGuardrails {
                at: format!("steps[{at}].{field}"),
                why,
            })?;
            steps.push(Arc::new(ready));
        }
        Ok(Self { steps })
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The hooks, each once.
    #[must_use]
    pub fn hooks(&self) -> BTreeSet<&str> {
        let named = self.steps.iter().filter_map(|step| match &step.looks {
            Looks::Hook(hook) => Some(hook.name.as_str()),
            _ => None,
        });
        named.collect()
    }

    /// Whether anything is looked for in lists.
    #[must_use]
    pub fn look_at_lists(&self) -> bool {
        self.steps.iter().any(|step| step.on.contains(&Side::Lists))
    }

    /// What is to be done about an item of a list, or about a completion of its arguments; `None` when that is nothing.
    #[must_use]
    pub fn course_beside(&self, target: &Target<'_>, side: Side) -> Option<Course> {
        let steps = self.steps.iter().filter(|step| step.on.contains(&side));
        let steps: Vec<_> = steps.filter(|step| step.concerns(target)).cloned().collect();
        (!steps.is_empty()).then(|| Course::new(steps))
    }

    /// What is to be done about a call; `None` when that is nothing.
    #[must_use]
    pub fn course_of(&self, target: &Target<'_>) -> Option<Course> {
        let of_calls = |step: &&Arc<Ready>| CALLS.iter().any(|side| step.on.contains(side));
        let steps = self.steps.iter().filter(of_calls);
        let steps = steps.filter(|step| step.concerns(target));
        // What a task comes to is no more than that.
        let is_task = target.name.is_none();
        let steps: Vec<_> = steps
            .filter(|step| !is_task || step.on.contains(&Side::Results))
            .cloned()
            .collect();
        (!steps.is_empty()).then(|| Course::new(steps))
    }
}

/// The texts of calls.
const CALLS: [Side; 2] = [Side::Arguments, Side::Results];

type Bad = (String, String);

fn bad<T>(field: &str, why: impl Into<String>) -> Result<T, Bad> {
    Err((field.to_owned(), why.into()))
}

fn ready(step: &Step) -> Result<Ready, Bad> {
    let is_name = |name: &str| {
        (1..=MAX_NAME_BYTES).contains(&name.len())
            && name
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    if !is_name(&step.name) {
        return bad(
            "name",
            format!(
                "`{}` is no name: use 1 to {MAX_NAME_BYTES} lower-case letters, digits and `-`",
                step.name
            ),
        );
    }
    only_its_own(step)?;
    only_its_sides(step)?;
    for (field, count) in [
        ("for", step.of.len()),
        ("patterns", step.patterns.len()),
        ("phrases", step.phrases.len()),
    ] {
        if count > MAX_LISTED {
            return bad(field, format!("there are {count}; {MAX_LISTED} are taken"));
        }
    }
    let mut of = Vec::with_capacity(step.of.len());
    for pattern in &step.of {
        of.push(
            pattern
                .parse()
                .map_err(|error: policy::BadPattern| ("for".to_owned(), error.to_string()))?,
        );
    }
    let (looks, usual, allowed) = looks(step)?;
    let then = step.then.unwrap_or(usual);
    if !allowed.contains(&then) {
        let allowed: Vec<_> = allowed
            .iter()
            .map(|then| format!("\"{}\"", then.as_str()))
            .collect();
        let why = format!(
            "check = \"{}\" does not {}; use {}",
            step.check.as_str(),
            then.as_str(),
            allowed.join(" or ")
        );
        return bad("then", why);
    }
    Ok(Ready {
        name: step.name.clone(),
        of,
        on: on(step),
        then,
        looks,
    })
}

/// Fields of other checks would be without effect, and whoever wrote them means something by them.
fn only_its_own(step: &Step) -> Result<(), Bad> {
    let given = [
        (
            "find",
            !step.find.is_empty(),
            [Check::Sensitive, Check::Injection].as_slice(),
        ),
        ("patterns", !step.patterns.is_empty(), &[Check::Sensitive]),
        ("phrases", !step.phrases.is_empty(), &[Check::Injection]),
        ("argument_bytes", step.argument_bytes.is_some(), &[Check::Size]),
        ("result_bytes", step.result_bytes.is_some(), &[Check::Size]),
        ("hook", step.hook.is_some(), &[Check::Hook]),
        ("timeout_ms", step.timeout_ms.is_some(), &[Check::Hook]),
        ("on_failure", step.on_failure.is_some(), &[Check::Hook]),
        (
            "on",
            !step.on.is_empty(),
            &[Check::Schema, Check::Sensitive, Check::Injection, Check::Hook],
        ),
        (
            "then",
            step.then.is_some(),
            &[Check::Schema, Check::Size, Check::Sensitive, Check::Injection],
        ),
    ];
    for (field, is_given, checks) in given {
        if is_given && !checks.contains(&step.check) {
            let checks: Vec<_> = checks
                .iter()
                .map(|check| format!("\"{}\"", check.as_str()))
                .collect();
            return bad(
                field,
                format!(
                    "it belongs to check = {}, and this is \"{}\"",
                    checks.join(" or "),
                    step.check.as_str()
                ),
            );
        }
    }
    Ok(())
}

/// What is not looked at by a check would be thought to be.
fn only_its_sides(step: &Step) -> Result<(), Bad> {
    let sides: &[Side] = match step.check {
        Check::Injection => &[Side::Arguments, Side::Results, Side::Lists, Side::Completions],
        Check::Sensitive => &[Side::Arguments, Side::Results, Side::Completions],
        Check::Schema | Check::Size | Check::Hook => &CALLS,
    };
    let Some(other) = step.on.iter().find(|side| !sides.contains(side)) else {
        return Ok(());
    };
    let sides: Vec<_> = sides
        .iter()
        .map(|side| format!("\"{}\"", side.as_str()))
        .collect();
    let why = format!(
        "check = \"{}\" does not look at {}; use {}",
        step.check.as_str(),
        other.as_str(),
        sides.join(", ")
    );
    bad("on", why)
}

/// What a step looks at, what it usually does about it, and what it can do.
fn looks(step: &Step) -> Result<(Looks, Then, &'static [Then]), Bad> {
    Ok(match step.check {
        Check::Schema => (Looks::Schema, Then::Block, &[Then::Block, Then::Flag]),
        Check::Size => {
            let (arguments, results) = (step.argument_bytes, step.result_bytes);
            if arguments.is_none() && results.is_none() {
                return bad("check", "a size needs `argument_bytes`, `result_bytes` or both");
            }
            for (field, bytes) in [("argument_bytes", arguments), ("result_bytes", results)] {
                if bytes == Some(0) {
                    return bad(field, "nothing would be let through; use 1 or more");
                }
            }
            (
                Looks::Size { arguments, results },
                Then::Block,
                &[Then::Block, Then::Flag],
            )
        }
        Check::Sensitive => {
            if step.find.is_empty() && step.patterns.is_empty() {
                return bad(
                    "find",
                    format!("say what is looked for: {}, or `patterns`", sensitive::NAMES),
                );
            }
            let all = Sensitive::of(&step.find, &step.patterns)?;
            (
                Looks::Sensitive(all),
                Then::Redact,
                &[Then::Redact, Then::Flag, Then::Block],
            )
        }
        Check::Injection => {
            let all = Injection::of(&step.find, &step.phrases)?;
            (Looks::Injection(all), Then::Flag, &[Then::Flag, Then::Block])
        }
        Check::Hook => (Looks::Hook(hook(step)?), Then::Block, &[Then::Block]),
    })
}

fn hook(step: &Step) -> Result<Hook, Bad> {
    let Some(name) = &step.hook else {
        return bad(
            "hook",
            "name the hook; its actor answers on the subject mcp.hook.<tenant>.<hook>",
        );
    };
    let is_name = (1..=MAX_NAME_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if !is_name {
        return bad(
            "hook",
            format!("`{name}` is no name: use 1 to {MAX_NAME_BYTES} lower-case letters, digits and `-`"),
        );
    }
    let timeout = match step.timeout_ms {
        Some(millis) if !(1..=LONGEST_HOOK_TIMEOUT_MS).contains(&millis) => {
            return bad(
                "timeout_ms",
                format!("{millis} ms cannot be waited for; use 1 to {LONGEST_HOOK_TIMEOUT_MS}"),
            );
        }
        Some(millis) => Duration::from_millis(millis),
        None => HOOK_TIMEOUT,
    };
    Ok(Hook {
        step: step.name.clone(),
        name: name.clone(),
        timeout,
        on_failure: step.on_failure.unwrap_or_default(),
    })
}

fn on(step: &Step) -> BTreeSet<Side> {
    if !step.on.is_empty() {
        return step.on.iter().copied().collect();
    }
    match step.check {
        Check::Schema | Check::Hook => BTreeSet::from([Side::Arguments]),
        Check::Sensitive | Check::Injection => BTreeSet::from([Side::Results]),
        Check::Size => [
            (Side::Arguments, step.argument_bytes),
            (Side::Results, step.result_bytes),
        ]
        .into_iter()
        .filter_map(|(side, bytes)| bytes.map(|_| side))
        .collect(),
    }
}
