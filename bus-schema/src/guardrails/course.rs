//! The steps that concern one call, and what they make of its texts.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use serde_json::value::RawValue;

use super::{
    Check, Hook, Looked, Note, Refusal, Side, Then,
    compile::{Looks, Ready},
    injection::Injection,
    result,
    schema::{Misfit, ToolSchemas, Unusable},
    sensitive::{Found, Sensitive},
    texts::{self, Kind},
};
use crate::{
    mcp::{RpcError, method},
    members::{Members, is_key},
    rpc::Message,
};

/// What a call is for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Which server.
    pub server: &'a str,
    /// The tool, the prompt, the URI or a method of the server's own; `None` where it may be any of them, as for the result of a task.
    pub name: Option<&'a str>,
}

/// What has to be done about one call.
#[derive(Clone, Debug)]
pub struct Course {
    steps: Vec<Arc<Ready>>,
}

/// A place, and what is put there.
type Change = (Range<usize>, String);
/// What was found, with how often.
type Counts = BTreeMap<String, u64>;

/// What of a message is looked at: pieces of it.
struct Pieces<'a> {
    whole: &'a [u8],
    pieces: Vec<&'a str>,
}

impl<'a> Pieces<'a> {
    /// What a caller has written: the arguments of a call, and answers to what its server has asked.
    fn of_request(body: &'a [u8]) -> Result<Self, RpcError> {
        let message = Message::parse(body)?;
        if message.method.as_deref().is_some_and(method::is_custom) {
            return Ok(Self::of_custom(body, message.params));
        }
        let params = message.peek_params()?;
        let pieces = [params.arguments, params.input_responses].into_iter().flatten();
        Ok(Self {
            whole: body,
            pieces: pieces.map(RawValue::get).collect(),
        })
    }

    /// All parameters but the metadata, of a method that nobody knows here.
    fn of_custom(body: &'a [u8], params: Option<&'a RawValue>) -> Self {
        let pieces = match params.and_then(Members::of) {
            Some(members) => {
                let members = members.iter().filter(|(key, _)| !is_key(key, "_meta"));
                members.map(|(_, value)| value.get()).collect()
            }
            None => params.into_iter().map(RawValue::get).collect(),
        };
        Self { whole: body, pieces }
    }

    /// What a server has written; not what only servers read again.
    fn of_response(body: &'a [u8]) -> Result<Self, RpcError> {
        let message = Message::parse(body)?;
        let mut pieces = Vec::new();
        match (message.result, message.error) {
            (Some(result), _) => match Members::of(result) {
                Some(members) => {
                    let is_own = |key: &RawValue| is_key(key, "requestState") || is_key(key, "resultType");
                    pieces.extend(
                        members
                            .iter()
                            .filter(|(key, _)| !is_own(key))
                            .map(|(_, value)| value.get()),
                    );
                }
                None => pieces.push(result.get()),
            },
            (None, Some(error)) => pieces.push(error.get()),
            (None, None) => {}
        }
        Ok(Self { whole: body, pieces })
    }

    /// An item of a list, but for its metadata.
    fn of_item(item: &'a [u8]) -> Result<Self, RpcError> {
        let unreadable = || RpcError::internal("it is no JSON");
        let read: &RawValue = serde_json::from_slice(item).map_err(|_| unreadable())?;
        let pieces = match Members::of(read) {
            Some(members) => {
                let members = members.iter().filter(|(key, _)| !is_key(key, "_meta"));
                members.map(|(_, value)| value.get()).collect()
            }
            None => vec![read.get()],
        };
        Ok(Self { whole: item, pieces })
    }

    /// The parameters of a notification.
    fn of_notification(body: &'a [u8]) -> Option<Self> {
        let pieces = vec![Message::parse(body).ok()?.params?.get()];
        Some(Self { whole: body, pieces })
    }

    fn start(&self, piece: &str) -> usize {
        piece.as_ptr() as usize - self.whole.as_ptr() as usize
    }

    fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    /// What of the sensitive stands in them: the places in the whole, with what is put there, and what that was.
    fn sensitive(&self, sensitive: &Sensitive) -> (Vec<Change>, Counts) {
        let (mut changes, mut counts) = (Vec::new(), BTreeMap::new());
        let (mut steps, mut names) = (0, 0);
        for piece in &self.pieces {
            let start = self.start(piece);
            texts::each(piece, |text| {
                let decoded = text.decode();
                let found = match text.kind {
                    Kind::Number => sensitive.find_in_number(&decoded.text, &mut steps),
                    Kind::Name | Kind::Text => sensitive.find(&decoded.text, &mut steps),
                };
                for Found { place, what } in found {
                    *counts.entry(what.to_owned()).or_default() += 1;
                    let place = match text.kind {
                        // A part of a number is no JSON.
                        Kind::Number => text.place.clone(),
                        Kind::Name | Kind::Text => decoded.place(&place),
                    };
                    names += u64::from(text.kind == Kind::Name);
                    let put = match text.kind {
                        Kind::Number => format!("\"[redacted {what}]\""),
                        Kind::Text => format!("[redacted {what}]"),
                        // No two members may have one name.
                        Kind::Name => format!("[redacted {what} {names}]"),
                    };
                    changes.push((start + place.start..start + place.end, put));
                    if text.kind == Kind::Number {
                        break;
                    }
                }
            });
        }
        (changes, counts)
    }

    fn injected(&self, injection: &Injection) -> Counts {
        let (mut counts, mut steps) = (BTreeMap::new(), 0);
        for piece in &self.pieces {
            texts::each(piece, |text| {
                if text.kind != Kind::Number {
                    injection.count(&text.decode().text, &mut counts, &mut steps);
                }
            });
        }
        counts
    }
}

fn changed(whole: &[u8], mut changes: Vec<Change>) -> Vec<u8> {
    changes.sort_by_key(|(place, _)| place.start);
    let mut out = Vec::with_capacity(whole.len());
    let mut from = 0;
    for (place, put) in changes {
        out.extend_from_slice(&whole[from..place.start]);
        out.extend_from_slice(put.as_bytes());
        from = place.end;
    }
    out.extend_from_slice(&whole[from..]);
    out
}

impl Course {
    pub(super) fn new(steps: Vec<Arc<Ready>>) -> Self {
        Self { steps }
    }

    fn on(&self, side: Side) -> impl Iterator<Item = &Ready> {
        self.steps
            .iter()
            .map(|step| &**step)
            .filter(move |step| step.on.contains(&side))
    }

    /// Whether anything is done about one side.
    #[must_use]
    pub fn looks_at(&self, side: Side) -> bool {
        self.on(side).next().is_some()
    }

    /// Whether schemas are needed for one side.
    #[must_use]
    pub fn reads_schemas(&self, side: Side) -> bool {
        self.on(side).any(|step| step.check() == Check::Schema)
    }

    /// Whether notifications are changed.
    #[must_use]
    pub fn redacts_notifications(&self) -> bool {
        self.on(Side::Results)
            .any(|step| matches!(step.looks, Looks::Sensitive(_)) && step.then != Then::Flag)
    }

    /// The hooks that are asked about one side, in their order.
    pub fn hooks(&self, side: Side) -> impl Iterator<Item = &Hook> {
        self.on(side).filter_map(|step| match &step.looks {
            Looks::Hook(hook) => Some(hook),
            _ => None,
        })
    }

    /// Looks at what a caller has sent. `schemas` are those of the tool, if it is one that has some.
    ///
    /// # Errors
    /// A [`Refusal`] when the call does not go on.
    pub fn look_at_request(&self, body: &[u8], schemas: Option<&ToolSchemas>) -> Result<Looked, Refusal> {
        self.look(Side::Arguments, body, schemas)
    }

    /// Looks at what a server has answered: a result or an error.
    ///
    /// # Errors
    /// A [`Refusal`] when it does not go out.
    pub fn look_at_response(&self, body: &[u8], schemas: Option<&ToolSchemas>) -> Result<Looked, Refusal> {
        self.look(Side::Results, body, schemas)
    }

    /// Looks at what a server offers to complete an argument with.
    ///
    /// # Errors
    /// A [`Refusal`] when it does not go out.
    pub fn look_at_completion(&self, body: &[u8]) -> Result<Looked, Refusal> {
        self.look(Side::Completions, body, None)
    }

    /// Looks at an item of a list, and gives it with what was found in its `_meta`; `None` when it goes as it is.
    ///
    /// # Errors
    /// A [`Refusal`] when the list goes without it.
    pub fn look_at_item(&self, item: &RawValue) -> Result<Option<(String, Vec<Note>)>, Refusal> {
        let notes = self.look(Side::Lists, item.get().as_bytes(), None)?.notes;
        Ok(result::annotated(item, &notes).map(|item| (item, notes)))
    }

    /// A notification without what is redacted in results, or blocked there; `None` when it goes as it is.
    #[must_use]
    pub fn redact_notification(&self, body: &[u8]) -> Option<Vec<u8>> {
        let mut whole: Option<Vec<u8>> = None;
        for step in self.on(Side::Results).filter(|step| step.then != Then::Flag) {
            if let Looks::Sensitive(sensitive) = &step.looks {
                let pieces = Pieces::of_notification(whole.as_deref().unwrap_or(body))?;
                let (changes, _) = pieces.sensitive(sensitive);
                if !changes.is_empty() {
                    whole = Some(changed(pieces.whole, changes));
                }
            }
        }
        whole
    }

    fn look(&self, side: Side, body: &[u8], schemas: Option<&ToolSchemas>) -> Result<Looked, Refusal> {
        let mut looked = Looked::default();
        for step in self.on(side).filter(|step| step.check() != Check::Hook) {
            let refuse = |why: String| Refusal {
                step: step.name.clone(),
                check: step.check(),
                side,
                why,
            };
            let whole = looked.body.as_deref().unwrap_or(body);
            let pieces = match side {
                Side::Arguments => Pieces::of_request(whole),
                Side::Results | Side::Completions => Pieces::of_response(whole),
                Side::Lists => Pieces::of_item(whole),
            };
            let pieces = pieces.map_err(|error| refuse(format!("it cannot be read: {}", error.message)))?;
            let found = step.look(side, &pieces, schemas);
            let Some(Finding { why, found, changes }) = found else {
                continue;
            };
            if step.then == Then::Block {
                return Err(refuse(why));
            }
            looked.notes.push(Note {
                step: step.name.clone(),
                check: step.check(),
                side,
                done: step.then,
                why: (step.then == Then::Flag && found.is_empty()).then_some(why),
                found,
            });
            if step.then == Then::Redact {
                looked.body = Some(changed(pieces.whole, changes));
            }
        }
        Ok(looked)
    }

    /// A result that tells in its `_meta` what was found in the call; `None` when it stays as it is, as errors do.
    #[must_use]
    pub fn annotate(body: &[u8], notes: &[Note]) -> Option<Vec<u8>> {
        result::annotate(body, notes)
    }
}

/// Something that a step does not let pass in silence.
struct Finding {
    why: String,
    found: Counts,
    changes: Vec<Change>,
}

impl Finding {
    fn of(why: String) -> Self {
        Self {
            why,
            found: BTreeMap::new(),
            changes: Vec::new(),
        }
    }
}

impl Ready {
    fn look(&self, side: Side, pieces: &Pieces<'_>, schemas: Option<&ToolSchemas>) -> Option<Finding> {
        let named = |found: &Counts| found.keys().cloned().collect::<Vec<_>>().join(", ");
        let name = &self.name;
        match &self.looks {
            Looks::Size { arguments, results } => {
                let bytes = pieces.bytes();
                let (most, why) = match side {
                    Side::Arguments => (arguments, "the arguments have"),
                    Side::Results => (results, "the result has"),
                    Side::Lists | Side::Completions => return None,
                };
                let most = (*most)?;
                let why = format!(
                    "{why} {bytes} bytes, and the guardrail `{name}` lets {most} through; less at a time would pass"
                );
                (bytes > most).then(|| Finding::of(why))
            }
            Looks::Sensitive(sensitive) => {
                let (changes, found) = pieces.sensitive(sensitive);
                let holds = match side {
                    Side::Arguments => "the arguments hold",
                    Side::Results => "the result holds",
                    Side::Lists => "the item holds",
                    Side::Completions => "what was offered holds",
                };
                let why = format!(
                    "{holds} what the guardrail `{name}` does not let through: {}",
                    named(&found)
                );
                (!found.is_empty()).then_some(Finding { why, found, changes })
            }
            Looks::Injection(injection) => {
                let found = pieces.injected(injection);
                let speaks = match side {
                    Side::Arguments => "the arguments speak",
                    Side::Results => "the result speaks",
                    Side::Lists => "the item speaks",
                    Side::Completions => "what was offered speaks",
                };
                let why = format!(
                    "{speaks} to the model, or hides something, and the guardrail `{name}` keeps that back: {}",
                    named(&found)
                );
                (!found.is_empty()).then_some(Finding {
                    why,
                    found,
                    changes: Vec::new(),
                })
            }
            Looks::Schema => self.misfit(side, pieces, schemas?).map(Finding::of),
            Looks::Hook(_) => None,
        }
    }

    /// Why the arguments do not fit the tool's schema, or its result does not.
    fn misfit(&self, side: Side, pieces: &Pieces<'_>, schemas: &ToolSchemas) -> Option<String> {
        let (schema, called) = match side {
            Side::Arguments => (&schemas.input, "inputSchema"),
            Side::Results => (&schemas.output, "outputSchema"),
            Side::Lists | Side::Completions => return None,
        };
        let cannot = |unusable: &Unusable| {
            format!(
                "the guardrail `{}` cannot check this by the tool's {called}: {unusable}",
                self.name
            )
        };
        let schema = match schema {
            Ok(schema) => schema.as_ref()?,
            Err(unusable) => return Some(cannot(unusable)),
        };
        let misfit = |misfit: Misfit| match side {
            Side::Arguments => format!("the arguments do not fit the tool's inputSchema: {misfit}"),
            _ => format!("the server's structuredContent does not fit the tool's outputSchema: {misfit}"),
        };
        match side {
            Side::Arguments => schema.check(result::arguments(pieces.whole)).err().map(misfit),
            _ => match result::structured(pieces.whole) {
                result::Structured::Absent => Some(
                    "the tool has an outputSchema, and the server's result has no structuredContent"
                        .to_owned(),
                ),
                result::Structured::Unasked => None,
                result::Structured::Is(text) => schema.check(text).err().map(misfit),
            },
        }
    }
}
