//! The guardrails of calls, where no door goes around them: between the host and its server.
//!
//! What a call is for is read from its own text. What is looked for and what becomes of it, [`bus_schema::guardrails`] says; here are the
//! schemas of the server's tools, the questions to hooks, and what the log and the meters hear.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bus_schema::{
    Request, RpcError,
    audit::{Kind, Record},
    guardrails::{Course, Note, Refusal, Side, Target, Then, schema::ToolSchemas},
    integrity::Offered,
    mcp::{meta, method},
    members::Members,
    rpc::Message,
};
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tracing::{debug, info};

use super::{Outcome, Parts, Verdict, hooks::Asking, run::Shared};
use crate::{
    bus::Bus,
    guardrails::{AllGuardrails, InForce},
    own_request::PLATFORM,
};

/// How many notifications of one call may wait to be looked at.
const PARTS_AHEAD: usize = 16;

/// What the server offers, and the schemas of its tools by the digests of their definitions, as far as they were needed.
type Compiled = (Arc<Offered>, HashMap<String, Arc<ToolSchemas>>);

/// The guardrails of one server's calls.
pub(super) struct Rails {
    all: AllGuardrails,
    /// Held only to look up, insert or clear.
    schemas: Mutex<Compiled>,
}

impl Rails {
    pub(super) async fn new(bus: &Bus) -> Self {
        let all = bus.guardrails();
        all.ready().await;
        Self {
            all,
            schemas: Mutex::default(),
        }
    }

    /// What is in force of a tenant.
    pub(super) fn of(&self, tenant: &str) -> Arc<InForce> {
        self.all.of(tenant)
    }

    /// The schemas of a tool; `None` when the server does not offer it to the platform.
    fn schemas(&self, offered: &Arc<Offered>, tool: &str) -> Option<Arc<ToolSchemas>> {
        let tool = offered.tools.iter().find(|offered| offered.name == tool)?;
        let mut known = self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&known.0, offered) {
            // What has not changed need not be read again.
            let digests: Vec<&String> = offered.tools.iter().map(|tool| &tool.digest).collect();
            known.1.retain(|digest, _| digests.contains(&digest));
            known.0 = Arc::clone(offered);
        }
        let schemas = known.1.entry(tool.digest.clone());
        let schemas = schemas.or_insert_with(|| {
            let definition = tool.definition.as_deref();
            Arc::new(definition.map_or_else(ToolSchemas::too_long, ToolSchemas::of))
        });
        Some(Arc::clone(schemas))
    }
}

/// A call that guardrails look at.
pub(super) struct Guarded {
    pub(super) shared: Arc<Shared>,
    pub(super) course: Course,
    /// The tool, the prompt, the URI or the method.
    pub(super) name: Option<String>,
    /// Whether the server offers it, if it is a tool.
    is_offered: bool,
    /// What of it is looked at.
    looks: Looks,
    schemas: Option<Arc<ToolSchemas>>,
}

/// What of a request is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looks {
    /// What is sent and what is answered.
    Call,
    /// What is offered to complete an argument with.
    Completion,
}

/// Has the server handle a request, with whatever is to be done before and after.
pub(super) fn handle(shared: &Arc<Shared>, request: Request, parts: Parts) -> BoxFuture<'static, Outcome> {
    match Guarded::of(shared, &request) {
        Ok(None) => Arc::clone(&shared.server).handle(request, parts),
        Ok(Some(guarded)) => guarded.handle(request, parts).boxed(),
        Err(error) => {
            let outcome = Outcome::error_for(&request.body.0, &error).saying(Verdict::Unasked);
            std::future::ready(outcome).boxed()
        }
    }
}

/// What a request is for, if guardrails are for such requests. The result of a task may be of any tool.
fn target<'a>(called: &str, message: &'a Message<'a>) -> Result<Option<Option<Cow<'a, str>>>, RpcError> {
    if method::is_custom(called) {
        return Ok(Some(Some(called.to_owned().into())));
    }
    if called == method::TASKS_GET {
        return Ok(Some(None));
    }
    if called == method::COMPLETE {
        return completed(message).map(|name| Some(Some(name)));
    }
    if !method::NAMED.contains(&called) {
        return Ok(None);
    }
    let params = message.peek_params()?;
    let named = if called == method::RESOURCES_READ {
        params.uri
    } else {
        params.name
    };
    let name = named.and_then(meta::as_text).ok_or_else(|| {
        RpcError::invalid_params(format!(
            "`{called}` names nothing in a way that can be read; write it once, as a string"
        ))
    })?;
    Ok(Some(Some(name)))
}

/// The prompt or the resource template whose argument is to be completed.
fn completed<'a>(message: &'a Message<'a>) -> Result<Cow<'a, str>, RpcError> {
    #[derive(Deserialize)]
    struct Reference<'a> {
        #[serde(borrow, default)]
        name: Option<&'a RawValue>,
        #[serde(borrow, default)]
        uri: Option<&'a RawValue>,
    }
    let reference = message.peek_params()?.reference;
    let reference = reference.and_then(|raw| serde_json::from_str::<Reference<'_>>(raw.get()).ok());
    let named = reference.and_then(|reference| meta::as_text(reference.name.or(reference.uri)?));
    named.ok_or_else(|| {
        RpcError::invalid_params("`ref` names nothing in a way that can be read; write it once")
    })
}

/// Whether what is said of a task has its result in it.
fn has_result(body: &[u8]) -> bool {
    let result = Message::parse(body).ok().and_then(|message| message.result);
    result
        .and_then(Members::of)
        .is_some_and(|members| members.get("result").is_some())
}

impl Guarded {
    /// `None` when nothing is to be done.
    fn of(shared: &Arc<Shared>, request: &Request) -> Result<Option<Self>, RpcError> {
        let Some(rails) = &shared.rails else {
            return Ok(None);
        };
        if request.door == PLATFORM && request.principal.is_platform() {
            return Ok(None);
        }
        let in_force = rails.all.of(&request.principal.tenant);
        let guardrails = match in_force.rails() {
            Ok(guardrails) if guardrails.is_empty() => return Ok(None),
            Ok(guardrails) => Some(guardrails),
            Err(_) => None,
        };
        let message = Message::parse(&request.body.0)?;
        // The server goes by the text.
        let called = message.method.as_deref().unwrap_or_default();
        let Some(name) = target(called, &message)? else {
            return Ok(None);
        };
        let Some(guardrails) = guardrails else {
            let why = in_force.rails().err().unwrap_or_default();
            return Err(RpcError::internal(format!(
                "{why}, and until then no call goes through; try again shortly"
            )));
        };
        let server = shared.options.id.as_str();
        let target = Target {
            server,
            name: name.as_deref(),
        };
        let looks = match called {
            method::COMPLETE => Looks::Completion,
            _ => Looks::Call,
        };
        let course = match looks {
            Looks::Completion => guardrails.course_beside(&target, Side::Completions),
            Looks::Call => guardrails.course_of(&target),
        };
        let Some(course) = course else {
            return Ok(None);
        };
        let is_tool = called == method::TOOLS_CALL;
        let offered = Arc::clone(&shared.description().offered);
        let tool = name.as_deref().filter(|_| is_tool);
        let reads_schemas = [Side::Arguments, Side::Results]
            .into_iter()
            .any(|side| course.reads_schemas(side));
        Ok(Some(Self {
            is_offered: tool.is_some_and(|tool| offered.tools.iter().any(|known| known.name == tool)),
            schemas: tool
                .filter(|_| reads_schemas)
                .and_then(|tool| rails.schemas(&offered, tool)),
            name: name.map(Cow::into_owned),
            looks,
            course,
            shared: Arc::clone(shared),
        }))
    }

    async fn handle(self, mut request: Request, parts: Parts) -> Outcome {
        if self.looks == Looks::Completion {
            return self.complete(request, parts).await;
        }
        let mut notes = Vec::new();
        match self.before(&request, &mut notes).await {
            Ok(Some(body)) => request.body = body.into(),
            Ok(None) => {}
            Err(refusal) => return self.refused(&request, &refusal).saying(Verdict::Unasked),
        }
        // What hooks are told of the call, when they are asked about its result.
        let asked = self.course.looks_at(Side::Results).then(|| request.clone());
        let outcome = self.ask_server(request, parts).await;
        let outcome = match asked {
            Some(request) => self.after(&request, outcome, &mut notes).await,
            None => outcome,
        };
        match Course::annotate(&outcome.body, &notes) {
            Some(body) => Outcome {
                body: body.into(),
                ..outcome
            },
            None => outcome,
        }
    }

    /// Has an argument completed, and looks at what is offered.
    async fn complete(&self, request: Request, parts: Parts) -> Outcome {
        let asked = request.clone();
        let outcome = Arc::clone(&self.shared.server).handle(request, parts).await;
        let looked = match self.course.look_at_completion(&outcome.body) {
            Ok(looked) => looked,
            Err(refusal) => return self.refused(&asked, &refusal).saying(outcome.verdict),
        };
        let mut notes = Vec::new();
        self.note(&asked, looked.notes, &mut notes);
        let body = looked.body.map_or_else(|| outcome.body.clone(), Bytes::from);
        let body = Course::annotate(&body, &notes).map_or(body, Bytes::from);
        Outcome { body, ..outcome }
    }

    /// Looks at the arguments, and asks hooks about them. What a hook changes is looked at again. `Some` with another body.
    async fn before(&self, request: &Request, notes: &mut Vec<Note>) -> Result<Option<Vec<u8>>, Refusal> {
        let schemas = self.schemas.as_deref();
        let mut body = None;
        let look = |body: &mut Option<Vec<u8>>, notes: &mut Vec<Note>| -> Result<(), Refusal> {
            let looked = self
                .course
                .look_at_request(body.as_deref().unwrap_or(&request.body.0), schemas)?;
            self.note(request, looked.notes, notes);
            if looked.body.is_some() {
                *body = looked.body;
            }
            Ok(())
        };
        look(&mut body, notes)?;
        for hook in self.course.hooks(Side::Arguments) {
            let present = body.as_deref().unwrap_or(&request.body.0);
            let asking = Asking::about(Side::Arguments, self, request, hook, present);
            if let Some(changed) = asking.ask().await? {
                body = Some(changed);
                look(&mut body, notes)?;
            }
        }
        Ok(body)
    }

    /// The same of a result.
    async fn after(&self, request: &Request, mut outcome: Outcome, notes: &mut Vec<Note>) -> Outcome {
        // Nobody is answered.
        if outcome.body.is_empty() {
            return outcome;
        }
        let schemas = self.schemas.as_deref();
        let look = |body: &Bytes, notes: &mut Vec<Note>| -> Result<Option<Vec<u8>>, Refusal> {
            let looked = self.course.look_at_response(body, schemas)?;
            self.note(request, looked.notes, notes);
            Ok(looked.body)
        };
        let mut looking = look(&outcome.body, notes);
        // A task that is not done has no result to ask about.
        let is_done = self.name.is_some() || has_result(&outcome.body);
        let is_asked = outcome.code.is_none() && is_done;
        for hook in self.course.hooks(Side::Results).filter(|_| is_asked) {
            match looking {
                Ok(Some(body)) => outcome.body = body.into(),
                Ok(None) => {}
                Err(_) => break,
            }
            let asked = Asking::about(Side::Results, self, request, hook, &outcome.body)
                .ask()
                .await;
            looking = match asked {
                Ok(Some(changed)) => {
                    outcome.body = changed.into();
                    look(&outcome.body, notes)
                }
                Ok(None) => Ok(None),
                Err(refusal) => Err(refusal),
            };
        }
        match looking {
            Ok(Some(body)) => outcome.body = body.into(),
            Ok(None) => {}
            Err(refusal) => return self.refused(request, &refusal).saying(outcome.verdict),
        }
        outcome
    }

    /// Hands the request to the server; what it notifies goes out without what is redacted.
    async fn ask_server(&self, request: Request, parts: Parts) -> Outcome {
        let server = Arc::clone(&self.shared.server);
        if !self.course.redacts_notifications() {
            return server.handle(request, parts).await;
        }
        let (parts_in, mut ahead) = mpsc::channel(PARTS_AHEAD);
        let mut handler = server.handle(request, Parts::new(parts_in));
        let outcome = loop {
            tokio::select! {
                biased;
                Some(part) = ahead.recv() => parts.send(self.redacted(part)).await,
                outcome = &mut handler => break outcome,
            }
        };
        while let Ok(part) = ahead.try_recv() {
            parts.send(self.redacted(part)).await;
        }
        outcome
    }

    fn redacted(&self, part: Bytes) -> Bytes {
        self.course.redact_notification(&part).map_or(part, Bytes::from)
    }

    /// Tells of what was found: the log and the meters each time, the result once for each step.
    fn note(&self, request: &Request, found: Vec<Note>, notes: &mut Vec<Note>) {
        for note in found {
            let went = match note.done {
                Then::Redact => "redacted",
                Then::Flag | Then::Block => "flagged",
            };
            self.shared.bus.metrics().guardrail(&note.step, went);
            debug!(
                server.id = %self.shared.options.id,
                subject = %request.principal.subject,
                step = note.step,
                check = note.check.as_str(),
                on = note.side.as_str(),
                found = ?note.found,
                went,
                "a guardrail has found something"
            );
            if !notes
                .iter()
                .any(|known| known.step == note.step && known.side == note.side)
            {
                notes.push(note);
            }
        }
    }

    fn refused(&self, request: &Request, refusal: &Refusal) -> Outcome {
        self.shared.bus.metrics().guardrail(&refusal.step, "blocked");
        info!(
            server.id = %self.shared.options.id,
            subject = %request.principal.subject,
            tenant = %request.principal.tenant,
            mcp.method.name = %request.method,
            name = self.name,
            step = refusal.step,
            check = refusal.check.as_str(),
            on = refusal.side.as_str(),
            "a guardrail refuses a call"
        );
        let rule = format!("{}.{}", refusal.step, refusal.side.as_str());
        let record = Record::refused(Kind::Guardrail, rule).of_request(request);
        self.shared.bus.audit().put(record);
        let id = Message::parse(&request.body.0)
            .ok()
            .and_then(|message| message.id);
        // A name that no tool has is anybody's invention, and gets an error, as from the server.
        let is_known = request.method != method::TOOLS_CALL || self.is_offered;
        let called = if is_known { request.method.as_str() } else { "" };
        let (code, body) = refusal.response(id.map(RawValue::get), called);
        Outcome {
            code,
            body: body.into(),
            verdict: Verdict::Answered,
        }
    }
}
