//! Conditions of rules, in the Common Expression Language: checked when a document is taken, compiled once, evaluated in microseconds.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

use cel::{
    Env, ExecutionError, IdedExpr, Program, Value,
    common::ast::{ComprehensionExpr, EntryExpr, Expr},
};

use super::facts::Facts;

/// How many bytes a condition may have.
const MAX_BYTES: usize = 4096;
/// How many signs it may have that are no letters, digits or spaces, how many of them open a bracket or ask `?`, and how many `!` and `-` may stand in a
/// row. The parser goes down with each.
const MAX_SIGNS: usize = 200;
const MAX_BRACKETS: usize = 32;
const MAX_SIGNS_BEFORE: usize = 2;
/// How many bytes of stack the parser may need for that: it takes some 100 KiB for a bracket when it is built without optimisations.
pub(super) const STACK: usize = 32 * 1024 * 1024;
/// How deep the parts of a condition may stand in each other; evaluation goes down with each on the stack of whoever asks.
const MAX_DEPTH: usize = 40;
/// How deep loops over lists may stand in each other.
const MAX_LOOPS: usize = 2;
/// How much of an evaluation's error is told.
const TOLD: usize = 300;

/// The functions of the language; nothing of ours is added, so that a condition means the same wherever it is tried.
pub(super) fn environment() -> Arc<Env> {
    static STANDARD: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));
    Arc::clone(&STANDARD)
}

/// Which facts a condition asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Uses {
    pub(super) principal: Members,
    /// The server, the method, and what is named.
    pub(super) name: Members,
    pub(super) annotations: Members,
    pub(super) arguments: Members,
    pub(super) time: Members,
}

/// Which members of a fact a condition asks for: making the others would be for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Members {
    #[default]
    None,
    Some(BTreeSet<String>),
    All,
}

impl Members {
    pub(super) fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Whether a member is asked for.
    pub(super) fn has(&self, member: &str) -> bool {
        match self {
            Self::None => false,
            Self::Some(members) => members.contains(member),
            Self::All => true,
        }
    }

    fn add(&mut self, member: Option<&str>) {
        match (&mut *self, member) {
            (Self::All, _) => {}
            (_, None) => *self = Self::All,
            (Self::None, Some(member)) => *self = Self::Some([member.to_owned()].into()),
            (Self::Some(members), Some(member)) => {
                members.insert(member.to_owned());
            }
        }
    }

    fn and(&mut self, other: &Self) {
        match other {
            Self::None => {}
            Self::Some(members) => members.iter().for_each(|member| self.add(Some(member))),
            Self::All => *self = Self::All,
        }
    }
}

impl Uses {
    /// Whether what is asked for stays what it is from one call to the next.
    pub(super) fn is_lasting(&self) -> bool {
        self.arguments.is_none() && self.time.is_none()
    }

    /// Adds what another condition asks for.
    pub(super) fn and(&mut self, other: &Self) {
        self.principal.and(&other.principal);
        self.name.and(&other.name);
        self.annotations.and(&other.annotations);
        self.arguments.and(&other.arguments);
        self.time.and(&other.time);
    }

    /// A variable, and the member of it that is asked for if it is one.
    fn add(&mut self, variable: &str, member: Option<&str>) -> Result<(), String> {
        let fact = match variable {
            "principal" => &mut self.principal,
            "server" | "method" | "name" | "tool" => {
                self.name.add(Some(variable));
                return Ok(());
            }
            "annotations" => &mut self.annotations,
            "arguments" => &mut self.arguments,
            "time" => &mut self.time,
            other => {
                return Err(format!(
                    "it asks for `{other}`; there are `principal`, `server`, `method`, `name`, `tool`, `annotations`, `arguments` and `time`"
                ));
            }
        };
        fact.add(member);
        Ok(())
    }
}

/// A condition, ready to be evaluated.
#[derive(Debug)]
pub(super) struct Condition {
    program: Program,
    pub(super) uses: Uses,
}

/// What comes of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Held {
    Yes,
    No,
    /// That depends on arguments, which are not known yet.
    Open,
    /// It cannot be evaluated.
    Failed(String),
}

impl Condition {
    /// Compiles a condition.
    ///
    /// # Errors
    /// What is wrong with it.
    ///
    /// To be called with a stack of [`STACK`] bytes.
    pub(super) fn compile(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("it has more than {MAX_BYTES} bytes"));
        }
        if is_too_deep(text) {
            return Err(format!(
                "it is too long: {MAX_SIGNS} signs and {MAX_BRACKETS} brackets at most; make several rules of it"
            ));
        }
        let program = environment()
            .compile(text)
            .map_err(|error| error.to_string().replace('\n', " "))?;
        let mut uses = Uses::default();
        check(program.expression(), &mut Vec::new(), Place::default(), &mut uses)?;
        Ok(Self { program, uses })
    }

    /// Evaluates it.
    pub(super) fn holds(&self, facts: &mut Facts<'_>) -> Held {
        let is_open = !self.uses.arguments.is_none() && facts.is_open();
        let context = match facts.told(&self.uses) {
            Ok(context) => context,
            Err(why) => return Held::Failed(why),
        };
        match self.program.execute(context) {
            Ok(Value::Bool(true)) => Held::Yes,
            Ok(Value::Bool(false)) => Held::No,
            // The language lets one side of `&&` and `||` decide while the other cannot be told; beyond that all is open.
            Ok(_) | Err(_) if is_open => Held::Open,
            Ok(other) => Held::Failed(format!("it gives {} and not true or false", other.type_of())),
            Err(error) => Held::Failed(shortened(&error)),
        }
    }
}

/// Whether a condition may be deeper than a stack. What stands in texts counts as well; that is only stricter.
fn is_too_deep(text: &str) -> bool {
    let (mut signs, mut brackets, mut row) = (0, 0, 0);
    for character in text.chars().filter(|character| !character.is_whitespace()) {
        row = if matches!(character, '!' | '-') {
            row + 1
        } else {
            0
        };
        signs += usize::from(!character.is_alphanumeric());
        brackets += usize::from(matches!(character, '(' | '[' | '{' | '?'));
        if row > MAX_SIGNS_BEFORE || signs > MAX_SIGNS || brackets > MAX_BRACKETS {
            return true;
        }
    }
    false
}

fn shortened(error: &ExecutionError) -> String {
    let text = error.to_string();
    match text.char_indices().nth(TOLD) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Where a part of a condition stands.
#[derive(Clone, Copy, Default)]
struct Place {
    depth: usize,
    loops: usize,
}

/// Finds what a condition asks for, and refuses what nobody tells it and what could take long.
fn check<'e>(
    expr: &'e IdedExpr,
    bound: &mut Vec<&'e str>,
    place: Place,
    uses: &mut Uses,
) -> Result<(), String> {
    if place.depth == MAX_DEPTH {
        return Err(format!(
            "its parts stand more than {MAX_DEPTH} deep in each other; make several rules of it"
        ));
    }
    let inner = Place {
        depth: place.depth + 1,
        ..place
    };
    match &expr.expr {
        Expr::Unspecified | Expr::Literal(_) => {}
        Expr::Ident(name) if bound.contains(&name.as_str()) || is_type(name) => {}
        Expr::Ident(name) => uses.add(name.trim_start_matches('.'), None)?,
        Expr::Call(call) => {
            for part in call.target.as_deref().into_iter().chain(&call.args) {
                check(part, bound, inner, uses)?;
            }
        }
        Expr::Select(select) => match &select.operand.expr {
            Expr::Ident(name) if !bound.contains(&name.as_str()) && !is_type(name) => {
                uses.add(name.trim_start_matches('.'), Some(&select.field))?;
            }
            _ => check(&select.operand, bound, inner, uses)?,
        },
        Expr::List(list) => {
            for element in &list.elements {
                check(element, bound, inner, uses)?;
            }
        }
        Expr::Map(map) => {
            for entry in &map.entries {
                if let EntryExpr::MapEntry(entry) = &entry.expr {
                    check(&entry.key, bound, inner, uses)?;
                    check(&entry.value, bound, inner, uses)?;
                }
            }
        }
        Expr::Struct(_) => return Err("it makes an object of a type, of which there are none".to_owned()),
        Expr::Comprehension(each) => check_loop(each, bound, inner, uses)?,
    }
    Ok(())
}

/// The same of a loop over a list.
fn check_loop<'e>(
    each: &'e ComprehensionExpr,
    bound: &mut Vec<&'e str>,
    inner: Place,
    uses: &mut Uses,
) -> Result<(), String> {
    if inner.loops == MAX_LOOPS {
        return Err(format!(
            "it has loops over lists that stand more than {MAX_LOOPS} deep in each other"
        ));
    }
    check(&each.iter_range, bound, inner, uses)?;
    check(&each.accu_init, bound, inner, uses)?;
    let looped = Place {
        loops: inner.loops + 1,
        ..inner
    };
    let outside = bound.len();
    bound.push(&each.iter_var);
    bound.extend(each.iter_var2.as_deref());
    bound.push(&each.accu_var);
    for part in [&each.loop_cond, &each.loop_step, &each.result] {
        check(part, bound, looped, uses)?;
    }
    bound.truncate(outside);
    Ok(())
}

/// The names of types, which the language has as values.
fn is_type(name: &str) -> bool {
    matches!(
        name,
        "bool" | "bytes" | "double" | "int" | "list" | "map" | "null_type" | "string" | "type" | "uint"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(text: &str) -> Result<Condition, String> {
        std::thread::scope(|scope| {
            let parsing = std::thread::Builder::new().stack_size(STACK);
            let parsing = parsing.spawn_scoped(scope, || Condition::compile(text));
            parsing.expect("a thread").join().expect("does not panic")
        })
    }

    #[test]
    fn the_deepest_condition_that_is_taken_needs_no_more_stack_than_there_is() {
        let wide = [
            format!("{}true{}", "(".repeat(MAX_BRACKETS), ")".repeat(MAX_BRACKETS)),
            format!("{}true", "(!!".repeat(MAX_DEPTH / 2 - 1)) + &")".repeat(MAX_DEPTH / 2 - 1),
            format!("1{} == {}", "+1".repeat(MAX_DEPTH - 2), MAX_DEPTH - 1),
            format!("true{}", " && true".repeat(MAX_SIGNS / 2)),
            format!("true{}", " ? true : true".repeat(MAX_BRACKETS)),
            format!(
                "{}1{}.size() == 1",
                "[".repeat(MAX_BRACKETS - 1),
                "]".repeat(MAX_BRACKETS - 1)
            ),
        ];
        for text in wide {
            let condition = compiled(&text).expect(&text);
            let (principal, action) = (
                crate::Principal::developer(),
                super::super::Action::tool("a", "b"),
            );
            let held = condition.holds(&mut Facts::new(
                &condition.uses,
                &principal,
                &action,
                std::time::UNIX_EPOCH,
            ));
            assert_eq!(held, Held::Yes, "{text}");
        }
        let chain = format!("1{} == 7", "+1".repeat(MAX_DEPTH));
        assert!(compiled(&chain).is_err_and(|why| why.contains("deep")), "{chain}");
        for text in [
            "(".repeat(MAX_BRACKETS + 1),
            "- ".repeat(9),
            "!".repeat(9),
            ".a".repeat(401),
        ] {
            assert!(
                Condition::compile(&text).is_err_and(|why| why.contains("too long")),
                "{text}"
            );
        }
    }
}
