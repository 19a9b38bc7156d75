//! Asks the policy once more, behind every door: whatever has come to a host, it answers only what the principal in the envelope may have.
//!
//! What is asked for is read from the request's own text; what stands beside it in the envelope is the word of a door. The platform's own
//! processes see everything, as they make the lists that doors filter.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bus_schema::{
    Principal, Request, RpcError,
    audit::{Kind, Record},
    integrity::Offered,
    mcp::{error, meta, method},
    policy::{Action, Annotations, Decision, What},
    rpc::{Message, Params, splice},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tracing::info;

use super::{Outcome, run::Shared};
use crate::{
    bus::Bus,
    catalogue::Listed,
    own_request::PLATFORM,
    policies::{InForce, Policies},
};

/// Decides about the requests to one server.
pub(super) struct Authorizer {
    policies: Policies,
    /// What the server says of its tools, read once for each list. Held only to look up or replace.
    annotated: Mutex<(Arc<Offered>, HashMap<String, Annotations>)>,
}

/// A request on its way to the server whose answer is looked at.
pub(super) struct Watched {
    in_force: Arc<InForce>,
    principal: Principal,
    look: Look,
}

enum Look {
    /// Some items may be hidden.
    List(Listed),
    /// When it fails, it must sound like what is hidden.
    Unlisted(RpcError),
}

/// What a request asks for.
struct Asked<'a> {
    method: Cow<'a, str>,
    name: Option<Cow<'a, str>>,
    prompt: Option<Cow<'a, str>>,
    uris: Vec<Cow<'a, str>>,
    arguments: &'a str,
}

impl Authorizer {
    pub(super) async fn new(bus: &Bus) -> Self {
        let policies = bus.policies();
        policies.ready().await;
        Self {
            policies,
            annotated: Mutex::default(),
        }
    }

    fn annotations(&self, offered: &Arc<Offered>, tool: &str) -> Annotations {
        let mut annotated = self.annotated.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&annotated.0, offered) {
            let each = offered.tools.iter().filter_map(|tool| {
                let definition = tool.definition.as_deref()?;
                Some((tool.name.clone(), Annotations::of_tool(definition)))
            });
            *annotated = (Arc::clone(offered), each.collect());
        }
        annotated.1.get(tool).copied().unwrap_or_default()
    }
}

/// Judges a request before the server hears of it. `Some` when something may have to be left out of its answer.
///
/// # Errors
/// The answer to a request that does not go.
pub(super) fn judge(shared: &Shared, request: &Request) -> Result<Option<Box<Watched>>, Outcome> {
    let Some(authorizer) = &shared.authorizer else {
        return Ok(None);
    };
    if request.door == PLATFORM && request.principal.is_platform() {
        return Ok(None);
    }
    let in_force = authorizer.policies.of(&request.principal.tenant);
    if in_force.policy().allows_all() {
        return Ok(None);
    }
    let refuse = |error: &RpcError| Outcome::error_for(&request.body.0, error);
    let asked = Asked::read(request).map_err(|error| {
        let refused = Record::refused(Kind::Request, "unreadable").of_request(request);
        shared.bus.audit().put(
            refused.because("what the request asks for cannot be told, or its envelope says something else"),
        );
        refuse(&error)
    })?;
    let server = shared.options.id.as_str();
    let may_hide = in_force.policy().may_hide();
    let reads_annotations = in_force.policy().reads().annotations;
    let mut look = Listed::of(&asked.method).filter(|_| may_hide).map(Look::List);
    for action in asked.actions(server) {
        let action = match action.what {
            What::Tool(tool) if reads_annotations => {
                let offered = Arc::clone(&shared.description().offered);
                action.with_annotations(authorizer.annotations(&offered, tool))
            }
            _ => action,
        };
        let decision = in_force.decide_call(&request.principal, &action);
        if let Some(error) = decision.refusal(&action) {
            refused(server, &request.principal, &action, &decision);
            let record = Record::refused(Kind::Policy, decision.rule()).of_request(request);
            shared
                .bus
                .audit()
                .put(record.asking(action.method, Some(action.name())));
            return Err(refuse(&error));
        }
        if may_hide && is_unlisted(shared, &action) {
            look = Some(Look::Unlisted(action.unknown()));
        }
    }
    Ok(look.map(|look| {
        Box::new(Watched {
            in_force,
            principal: request.principal.clone(),
            look,
        })
    }))
}

fn refused(server: &str, principal: &Principal, action: &Action<'_>, decision: &Decision) {
    info!(
        server.id = server,
        subject = %principal.subject,
        tenant = %principal.tenant,
        mcp.method.name = action.method,
        name = action.name(),
        decision = decision.as_str(),
        ?decision,
        "the policy refuses a request"
    );
}

/// Whether something may not exist: then the server's own words for that must not tell it from what is hidden.
fn is_unlisted(shared: &Shared, action: &Action<'_>) -> bool {
    match action.what {
        What::Tool(name) => {
            let offered = Arc::clone(&shared.description().offered);
            !offered.tools.iter().any(|tool| tool.name == name)
        }
        // No list of theirs is kept here; but a read and a method of its own have little else to be wrong.
        What::Resource(_) => action.method == method::RESOURCES_READ,
        What::Method => method::is_custom(action.method),
        What::Prompt(_) | What::Admin(_) => false,
    }
}

impl<'a> Asked<'a> {
    fn read(request: &'a Request) -> Result<Self, RpcError> {
        let message = Message::parse(&request.body.0)?;
        let called = message.method.clone().unwrap_or_default();
        if *called != request.method {
            let why = format!(
                "the request says `{called}`, and its envelope `{}`",
                request.method
            );
            return Err(RpcError::invalid_request(why));
        }
        let params = match message.peek_params() {
            Err(_) if method::is_custom(&called) => Params::default(),
            params => params?,
        };
        let named = method::name_key(&called).or(match &*called {
            method::SUBSCRIBE | method::UNSUBSCRIBE => Some("uri"),
            _ => None,
        });
        let name = match named {
            Some("uri") => params.uri,
            Some("taskId") | None => None,
            Some(_) => params.name,
        };
        if named.is_some_and(|key| key != "taskId") && name.and_then(meta::as_text).is_none() {
            return Err(RpcError::invalid_params(format!(
                "`{called}` names nothing in a way that can be read; write it once, as a string"
            )));
        }
        let (mut prompt, mut uris) = (None, Vec::new());
        match &*called {
            method::COMPLETE => match Reference::read(params.reference)? {
                Reference::Prompt(name) => prompt = Some(name),
                Reference::Resource(uri) => uris.push(uri),
            },
            method::LISTEN => uris = listened(params.notifications)?,
            _ => {}
        }
        Ok(Self {
            method: called,
            name: name.and_then(meta::as_text),
            prompt,
            uris,
            arguments: params.arguments.map_or("{}", RawValue::get),
        })
    }

    /// Everything that has to be allowed.
    fn actions(&self, server: &'a str) -> impl Iterator<Item = Action<'_>> {
        let one = |what| {
            Action::of(server, &self.method, self.name.as_deref(), what).with_arguments(self.arguments)
        };
        let prompt = self.prompt.as_deref().map(What::Prompt);
        let first = match (&*self.method, prompt, self.uris.first()) {
            (method::COMPLETE, None, Some(uri)) => Some(What::Resource(uri)),
            (_, prompt, _) => prompt,
        };
        let listened = self.uris.iter().filter(|_| self.method == method::LISTEN);
        std::iter::once(one(first)).chain(listened.map(move |uri| Action::resource(server, uri)))
    }
}

enum Reference<'a> {
    Prompt(Cow<'a, str>),
    Resource(Cow<'a, str>),
}

impl<'a> Reference<'a> {
    fn read(raw: Option<&'a RawValue>) -> Result<Self, RpcError> {
        #[derive(Deserialize)]
        struct Peek<'a> {
            #[serde(borrow, rename = "type")]
            kind: Cow<'a, str>,
            #[serde(borrow, default)]
            name: Option<&'a RawValue>,
            #[serde(borrow, default)]
            uri: Option<&'a RawValue>,
        }
        let peek = raw.and_then(|raw| serde_json::from_str::<Peek<'_>>(raw.get()).ok());
        let reference = peek.and_then(|peek| match &*peek.kind {
            "ref/prompt" => Some(Self::Prompt(meta::as_text(peek.name?)?)),
            "ref/resource" => Some(Self::Resource(meta::as_text(peek.uri?)?)),
            _ => None,
        });
        reference.ok_or_else(|| {
            RpcError::invalid_params(
                "`ref` must be {\"type\":\"ref/prompt\",\"name\":…} or {\"type\":\"ref/resource\",\"uri\":…}",
            )
        })
    }
}

fn listened(raw: Option<&RawValue>) -> Result<Vec<Cow<'_, str>>, RpcError> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Filter {
        resource_subscriptions: Vec<String>,
    }
    let filter = raw.map_or(Ok(Filter::default()), |raw| {
        serde_json::from_str::<Filter>(raw.get())
    });
    let filter = filter.map_err(|error| RpcError::invalid_params(format!("`notifications`: {error}")))?;
    Ok(filter
        .resource_subscriptions
        .into_iter()
        .map(Cow::Owned)
        .collect())
}

/// The answer without what is hidden.
pub(super) fn shown(
    watched: Option<Box<Watched>>,
    shared: &Shared,
    request: &[u8],
    outcome: Outcome,
) -> Outcome {
    let Some(watched) = watched else { return outcome };
    match &watched.look {
        Look::List(list) => watched.list(shared, *list, request, outcome),
        Look::Unlisted(unknown) if has_failed(&outcome, unknown) => {
            Outcome::error_for(request, unknown).saying(outcome.verdict)
        }
        Look::Unlisted(_) => outcome,
    }
}

impl Watched {
    fn list(&self, shared: &Shared, list: Listed, request: &[u8], outcome: Outcome) -> Outcome {
        if outcome.code.is_some() {
            return outcome;
        }
        let Some((whole, items)) = read_list(&outcome.body, list) else {
            let why = "the server's list cannot be read, so nobody can say what of it the caller may see";
            return Outcome::error_for(request, &RpcError::internal(why));
        };
        let server = shared.options.id.as_str();
        let kept: Vec<&str> = items
            .iter()
            .filter(|item| is_shown(&self.in_force, &self.principal, server, list, item))
            .map(|item| item.get())
            .collect();
        if kept.len() == items.len() {
            return outcome;
        }
        let body = splice(&outcome.body, whole.get(), &format!("[{}]", kept.join(",")));
        Outcome {
            body: body.into(),
            ..outcome
        }
    }
}

/// The list in an answer, as it is spelled, and the items in it. An answer without the list has none.
pub(super) fn read_list(body: &[u8], list: Listed) -> Option<(&RawValue, Vec<&RawValue>)> {
    let result = Message::parse(body).ok()?.result?;
    let mut found = None;
    let members: Members<'_> = serde_json::from_str(result.get()).ok()?;
    for (key, value) in members.0 {
        if key == list.key() && found.replace(value).is_some() {
            return None;
        }
    }
    let whole = found?;
    Some((whole, serde_json::from_str(whole.get()).ok()?))
}

/// The members of an object in their order, also those that stand twice.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> serde::de::Visitor<'de> for Reader {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut members: A,
            ) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = members.next_entry()? {
                    all.push(member);
                }
                Ok(all)
            }
        }
        deserializer.deserialize_map(Reader).map(Self)
    }
}

/// Whether a list shows an item. What has no name that can be read is shown to nobody.
fn is_shown(in_force: &InForce, principal: &Principal, server: &str, list: Listed, item: &RawValue) -> bool {
    list.key_of(item)
        .is_some_and(|key| in_force.shows(principal, server, list, &key, || item.get()))
}

/// Whether an answer says that something went wrong which may be that it does not exist.
fn has_failed(outcome: &Outcome, unknown: &RpcError) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Peek {
        #[serde(default)]
        is_error: bool,
    }
    match outcome.code {
        Some(error::METHOD_NOT_FOUND) => true,
        Some(_) if unknown.code == error::METHOD_NOT_FOUND => false,
        Some(error::INVALID_PARAMS | error::LEGACY_RESOURCE_NOT_FOUND) => true,
        Some(_) => unknown.data.is_none(),
        None => {
            let message = Message::parse(&outcome.body).ok();
            let result = message.and_then(|message| message.result);
            result.is_some_and(|result| {
                serde_json::from_str::<Peek>(result.get()).is_ok_and(|peek| peek.is_error)
            })
        }
    }
}
