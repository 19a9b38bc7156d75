//! JSON Schema 2020-12 as tools use it: whether arguments fit what a tool says of itself, and results what it promises.
//!
//! Schemas come from servers, which nobody has to trust. So nothing that a schema refers to is ever fetched, expressions in it run in
//! linear time, and how much work a schema can make of a value is worked out before anything is checked (`measure`); what would be too
//! much is not begun. Each dialect from draft 4 on is understood, as its `$schema` says.

mod measure;
mod value;

use jsonschema::{PatternOptions, Retrieve, Uri, ValidationError, Validator};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use measure::Measure;

/// How long a schema may be, in bytes.
pub const MAX_SCHEMA: usize = 256 * 1024;
/// The most work that one check may make, in looks of a part of a schema at a part of a value.
pub const MAX_WORK: u64 = 20_000_000;
/// How deep a schema and a value may nest together, so that no check runs out of stack.
const MAX_NESTING: u64 = 1_500;
/// How many things that are wrong are told at once.
const MAX_TOLD: usize = 5;
/// Values above this many parts are checked up to the first thing that is wrong.
const MAX_PARTS_FOR_ALL: u64 = 2_000;
/// How much of a value or a schema is shown, in characters.
const SHOWN: usize = 200;
/// How many bytes of program one expression may become.
const MAX_PROGRAM: usize = 256 * 1024;

/// Says why nothing can be checked by a schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// It refers to something outside of itself.
    #[error(
        "it refers to `{0}`, and nothing outside of a schema is ever fetched; a server has to put what it means under `$defs` and refer to it as `#/$defs/…`"
    )]
    External(String),
    /// It refers to something that is not there.
    #[error("it refers to `{0}`, which is not in it")]
    Missing(String),
    /// It is larger or deeper than can be taken.
    #[error("it is too large: {0}")]
    TooLarge(String),
    /// It is no schema.
    #[error("it is no JSON Schema that can be used: {0}")]
    Bad(String),
}

/// Says why a value does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misfit {
    /// It is not as the schema wants it: each place with what is wrong there.
    #[error("{}", .0.join("; "))]
    Wrong(Vec<String>),
    /// It cannot be read in one way only, or not at all.
    #[error("{0}")]
    Unreadable(String),
    /// To check it would be too much work.
    #[error("it is too large to be checked by this schema ({0})")]
    TooMuch(String),
}

/// The schemas of one tool, ready to check.
#[derive(Debug)]
pub struct ToolSchemas {
    /// What its arguments have to fit.
    pub input: Result<Option<Schema>, Unusable>,
    /// What its structured results have to fit.
    pub output: Result<Option<Schema>, Unusable>,
}

impl ToolSchemas {
    /// Those of a tool whose definition is longer than what is kept.
    #[must_use]
    pub fn too_long() -> Self {
        let too_long =
            || Unusable::TooLarge("the tool's definition is longer than what the platform keeps".to_owned());
        Self {
            input: Err(too_long()),
            output: Err(too_long()),
        }
    }

    /// Reads those of a tool's definition.
    #[must_use]
    pub fn of(definition: &str) -> Self {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Tool<'a> {
            #[serde(borrow, default)]
            input_schema: Option<&'a RawValue>,
            #[serde(borrow, default)]
            output_schema: Option<&'a RawValue>,
        }
        match serde_json::from_str::<Tool<'_>>(definition) {
            Ok(tool) => {
                let compiled = |raw: Option<&RawValue>| raw.map(|raw| Schema::compile(raw.get())).transpose();
                Self {
                    input: compiled(tool.input_schema),
                    output: compiled(tool.output_schema),
                }
            }
            Err(error) => {
                let bad = Unusable::Bad(error.to_string());
                Self {
                    input: Err(bad.clone()),
                    output: Err(bad),
                }
            }
        }
    }
}

/// A schema, ready to check.
pub struct Schema {
    validator: Validator,
    source: Value,
    measure: Measure,
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schema")
            .field("measure", &self.measure)
            .finish_non_exhaustive()
    }
}

/// Fetches nothing. What is outside was found before; this stands where the library would ask for it.
struct Nothing;

impl Retrieve for Nothing {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err(format!("`{uri}` is outside of the schema, and is not fetched").into())
    }
}

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    /// [`Unusable`] when nothing can be checked by it.
    pub fn compile(text: &str) -> Result<Self, Unusable> {
        if text.len() > MAX_SCHEMA {
            let why = format!("it has {} bytes, and {MAX_SCHEMA} are taken", text.len());
            return Err(Unusable::TooLarge(why));
        }
        let source: Value = serde_json::from_str(text).map_err(|error| Unusable::Bad(error.to_string()))?;
        let measure = Measure::of(&source)?;
        let validator = jsonschema::options()
            .with_retriever(Nothing)
            .should_validate_formats(false)
            .with_pattern_options(PatternOptions::regex().size_limit(MAX_PROGRAM))
            .build(&source)
            .map_err(|error| Unusable::Bad(shown(&error.to_string())))?;
        Ok(Self {
            validator,
            source,
            measure,
        })
    }

    /// Checks a JSON text.
    ///
    /// # Errors
    /// [`Misfit`] that names the places and what would be right.
    pub fn check(&self, text: &str) -> Result<(), Misfit> {
        let (value, size) = value::read(text).map_err(Misfit::Unreadable)?;
        let (work, nesting) = self.measure.work(&size);
        if work > MAX_WORK || nesting > MAX_NESTING {
            let why = format!("{} parts, {} levels", size.parts, size.depth);
            return Err(Misfit::TooMuch(why));
        }
        if self.validator.is_valid(&value) {
            return Ok(());
        }
        Err(Misfit::Wrong(self.wrong(&value, &size)))
    }

    /// What is wrong, in words. The library remembers what it has looked at only while it does not tell; so of a schema that refers to
    /// itself it is told only about small values.
    fn wrong(&self, value: &Value, size: &value::Size) -> Vec<String> {
        let is_told = !self.measure.is_recursive() || size.depth <= 6;
        let mut told: Vec<String> = match (is_told, size.parts <= MAX_PARTS_FOR_ALL) {
            (false, _) => Vec::new(),
            (true, true) => self
                .validator
                .iter_errors(value)
                .take(MAX_TOLD)
                .map(|error| self.tell(&error))
                .collect(),
            (true, false) => self
                .validator
                .validate(value)
                .err()
                .iter()
                .map(|error| self.tell(error))
                .collect(),
        };
        if told.is_empty() {
            told.push("something in it is not as the schema wants it".to_owned());
        }
        told
    }

    fn tell(&self, error: &ValidationError<'_>) -> String {
        let place = match error.instance_path().as_str() {
            "" => "at the top".to_owned(),
            place => format!("at `{}`", shown(place)),
        };
        let said = shown(&error.to_string());
        let rule = error.schema_path().as_str();
        match self.source.pointer(rule) {
            // What a long rule wants is in the words already.
            Some(wanted) => {
                let keyword = rule.rsplit('/').next().unwrap_or(rule);
                format!(
                    "{place}: {said} (the schema says {keyword}: {})",
                    shown(&wanted.to_string())
                )
            }
            None => format!("{place}: {said}"),
        }
    }
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
