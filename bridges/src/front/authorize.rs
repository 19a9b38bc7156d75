//! What a caller may do and see, asked of the policy before anything is asked of a server. Hosts ask again.

use std::sync::Arc;

use bus_schema::{
    Principal, RpcError, ServerId,
    audit::{Kind, Record},
    card::NAME_SEPARATOR,
    mcp::{error, meta, method},
    policy::{Action, Annotations, Decision, What},
    rpc::Message,
};
use runtime::{
    catalogue::Listed,
    policies::{InForce, Sight},
    virtuals::Virtual,
};
use tracing::info;

use super::{Caller, Endpoint, Front};
use crate::{
    askable::Askable,
    request::{Incoming, Reference},
};

/// Why a request goes nowhere.
#[derive(Clone, Debug, PartialEq)]
pub enum Barred {
    /// It would with these scopes as well.
    Scopes(Vec<String>),
    /// It would not; this answers it.
    Error(RpcError),
}

/// A refusal, and what is to be put on record of it.
pub(super) struct Judged {
    pub(super) barred: Barred,
    pub(super) record: Record,
}

/// A request whose door has had it judged, because it has statuses of its own, and which goes on with that.
pub struct Weighed<'r> {
    pub(super) caller: &'r Caller,
    pub(super) incoming: &'r Incoming,
    pub(super) judged: Result<(), Box<Judged>>,
}

impl Weighed<'_> {
    /// Why it goes nowhere, if it does not.
    #[must_use]
    pub fn barred(&self) -> Option<&Barred> {
        self.judged.as_ref().err().map(|judged| &judged.barred)
    }
}

impl From<Barred> for RpcError {
    fn from(barred: Barred) -> Self {
        match barred {
            Barred::Scopes(scopes) => Self::insufficient_scope(&scopes),
            Barred::Error(error) => error,
        }
    }
}

/// What a request asks for, in the words of the server that it is for.
struct Asked<'i> {
    server: String,
    method: String,
    name: Option<String>,
    /// What a completion is for.
    reference: Option<Referred>,
    arguments: &'i str,
}

enum Referred {
    Prompt(String),
    Resource(String),
}

impl Asked<'_> {
    fn action(&self) -> Action<'_> {
        let reference = self.reference.as_ref().map(|referred| match referred {
            Referred::Prompt(name) => What::Prompt(name),
            Referred::Resource(uri) => What::Resource(uri),
        });
        Action::of(&self.server, &self.method, self.name.as_deref(), reference).with_arguments(self.arguments)
    }
}

impl Front {
    /// Whether somebody may do this with some arguments; for whoever has no request in hand.
    pub(crate) async fn permits(&self, principal: &Principal, action: Action<'_>) -> bool {
        let in_force = self.in_force(principal);
        let action = match action.what {
            What::Tool(tool) if in_force.policy().reads().annotations => {
                action.with_annotations(self.annotations(action.server, tool).await)
            }
            _ => action,
        };
        in_force.decide(principal, &action) == Decision::Allow
    }

    /// Whether somebody may do everything, also what is not there yet.
    pub(crate) fn permits_everything(&self, principal: &Principal) -> bool {
        self.in_force(principal).policy().allows_all()
    }

    /// The policy for a principal at this moment.
    pub(crate) fn in_force(&self, principal: &Principal) -> Arc<InForce> {
        self.bus().policies().of(&principal.tenant)
    }

    /// What somebody sees of lists; `None` when nothing can be hidden.
    pub(super) fn sight(&self, principal: &Principal) -> Option<Sight> {
        self.bus().policies().sight(principal)
    }

    /// Judges a request for a door with statuses of its own, so that [`Front::ask_weighed`] need not judge it again.
    pub async fn weigh<'r>(&self, caller: &'r Caller, incoming: &'r Incoming) -> Weighed<'r> {
        Weighed {
            judged: self.judge(&caller.principal, &caller.endpoint, incoming).await,
            caller,
            incoming,
        }
    }

    /// Whether somebody may ask this, for doors that look before others do; `ask` looks in any case.
    ///
    /// # Errors
    /// Why not.
    pub async fn authorize(
        &self,
        principal: &Principal,
        endpoint: &Endpoint,
        incoming: &Incoming,
    ) -> Result<(), Barred> {
        self.judge(principal, endpoint, incoming)
            .await
            .map_err(|judged| judged.barred)
    }

    /// The same, with what is to be put on record of a refusal.
    pub(super) async fn judge(
        &self,
        principal: &Principal,
        endpoint: &Endpoint,
        incoming: &Incoming,
    ) -> Result<(), Box<Judged>> {
        let in_force = self.in_force(principal);
        if in_force.policy().allows_all() {
            return Ok(());
        }
        // What belongs to no server is not found later.
        let Some(asked) = self.asked(principal, endpoint, incoming).await else {
            return Ok(());
        };
        let action = asked.action();
        let action = match action.what {
            What::Tool(tool) if in_force.policy().reads().annotations => {
                action.with_annotations(self.annotations(&asked.server, tool).await)
            }
            _ => action,
        };
        let decision = in_force.decide_call(principal, &action);
        let Some(error) = decision.refusal(&action) else {
            return Ok(());
        };
        info!(
            server.id = asked.server,
            subject = %principal.subject,
            mcp.method.name = action.method,
            name = action.name(),
            decision = decision.as_str(),
            ?decision,
            "the policy refuses a request"
        );
        let record = Record::refused(Kind::Policy, decision.rule())
            .at(&asked.server)
            .asking(action.method, Some(action.name()));
        let barred = match decision {
            Decision::NeedsScopes(scopes) => Barred::Scopes(scopes),
            _ => Barred::Error(error),
        };
        Err(Box::new(Judged { barred, record }))
    }

    /// Whether somebody may read a resource, and so may hear of it.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn authorize_resource(
        &self,
        principal: &Principal,
        server: &ServerId,
        uri: &str,
    ) -> Result<(), RpcError> {
        let action = Action::resource(server.as_str(), uri);
        match self
            .in_force(principal)
            .decide(principal, &action)
            .refusal(&action)
        {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    pub(super) async fn annotations(&self, server: &str, tool: &str) -> Annotations {
        let Ok(id) = server.parse() else {
            return Annotations::default();
        };
        let list = self.catalogue().list(&id, Listed::Tools).await.ok();
        let item = list.as_ref().and_then(|list| list.get(tool));
        item.map_or_else(Annotations::default, |item| Annotations::of_tool(item.json.get()))
    }

    /// What a request asks for; `None` when no server has it, and so it will not be found.
    async fn asked<'i>(
        &self,
        principal: &Principal,
        endpoint: &Endpoint,
        incoming: &'i Incoming,
    ) -> Option<Asked<'i>> {
        let called = incoming.method.as_str();
        let arguments = incoming.arguments.clone();
        let arguments = arguments.map_or(&b"{}"[..], |place| &incoming.body[place]);
        let mut asked = Asked {
            server: match endpoint {
                Endpoint::Server(id) => id.to_string(),
                Endpoint::All | Endpoint::Search => String::new(),
            },
            method: called.to_owned(),
            name: incoming.name.as_ref().map(|name| name.value.clone()),
            reference: incoming.reference.as_ref().map(|reference| match reference {
                Reference::Prompt(name) => Referred::Prompt(name.value.clone()),
                Reference::Resource(uri) => Referred::Resource(uri.clone()),
            }),
            // What is no text is no JSON either, and so no condition over it holds.
            arguments: std::str::from_utf8(arguments).unwrap_or_default(),
        };
        if called == method::SUBSCRIBE {
            asked.name = Some(subscribed(incoming)?);
        }
        if let (Endpoint::Search, method::TOOLS_CALL) = (endpoint, called)
            && !asked
                .name
                .as_deref()
                .is_some_and(|name| name.contains(NAME_SEPARATOR))
        {
            let (found, arguments) = self.called_tool(principal, incoming).await?;
            asked.server = found.server.to_string();
            asked.name = Some(found.name().to_owned());
            asked.arguments = arguments;
            return Some(asked);
        }
        match self.virtual_server(endpoint) {
            Some(defined) => self.of_virtual(&defined, &mut asked).await?,
            None if matches!(endpoint, Endpoint::Server(_)) => {}
            None => self.of_all(principal, incoming, &mut asked).await?,
        }
        Some(asked)
    }

    /// The same on a virtual server, where names are what its definition says.
    async fn of_virtual(&self, defined: &Arc<Virtual>, asked: &mut Asked<'_>) -> Option<()> {
        let list = match asked.method.as_str() {
            method::TOOLS_CALL => Listed::Tools,
            _ => Listed::Prompts,
        };
        match (asked.method.as_str(), &mut asked.name, &mut asked.reference) {
            (method::RESOURCES_READ | method::SUBSCRIBE, Some(uri), _)
            | (_, None, Some(Referred::Resource(uri))) => {
                asked.server = self.owner_of_chosen(defined, uri).await.ok()?.to_string();
            }
            (_, Some(name), _) | (_, None, Some(Referred::Prompt(name))) => {
                let (server, own) = self.chosen(defined, list, name).await?;
                (asked.server, *name) = (server.to_string(), own);
            }
            _ => {}
        }
        Some(())
    }

    /// The same on the endpoint of all servers, where names say whose they are.
    async fn of_all(&self, principal: &Principal, incoming: &Incoming, asked: &mut Asked<'_>) -> Option<()> {
        let split = |name: &str| {
            let (server, own) = ServerId::split_prefixed(name)?;
            Some((server.to_string(), own.to_owned()))
        };
        match (incoming.method.as_str(), &mut asked.name, &mut asked.reference) {
            (method::RESOURCES_READ | method::SUBSCRIBE, Some(uri), _)
            | (_, None, Some(Referred::Resource(uri))) => {
                asked.server = self
                    .owner_of_any(principal, Askable::of(incoming), uri)
                    .await
                    .ok()?
                    .to_string();
            }
            (_, Some(name), _) | (_, None, Some(Referred::Prompt(name))) => {
                (asked.server, *name) = split(name)?
            }
            (called, None, None) if method::is_custom(called) => {
                (asked.server, asked.method) = split(called)?;
            }
            _ => {}
        }
        Some(())
    }

    /// An error of this endpoint about what does not exist, in the words that it has for what is hidden. Or else they would differ.
    pub(super) fn veiled(&self, principal: &Principal, incoming: &Incoming, told: RpcError) -> RpcError {
        let is_plain = told
            .data
            .as_ref()
            .is_none_or(|data| data.get("servers").is_none());
        if told.code != error::INVALID_PARAMS || !is_plain || !self.in_force(principal).policy().may_hide() {
            return told;
        }
        let name = incoming.name.as_ref().map(|name| name.value.as_str());
        match (incoming.method.as_str(), name, &incoming.reference) {
            (method::TOOLS_CALL, Some(name), _) => Action::tool("", name).unknown(),
            (method::PROMPTS_GET, Some(name), _) => Action::prompt("", name).unknown(),
            (method::COMPLETE, _, Some(Reference::Prompt(name))) => Action::prompt("", &name.value).unknown(),
            _ => told,
        }
    }
}

/// The URI of a legacy client's subscription.
fn subscribed(incoming: &Incoming) -> Option<String> {
    let message = Message::parse(&incoming.body).ok()?;
    let uri = message.peek_params().ok()?.uri?;
    meta::as_text(uri).map(std::borrow::Cow::into_owned)
}
