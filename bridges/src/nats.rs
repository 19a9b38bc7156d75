//! The NATS door: plain NATS clients call tools by publishing JSON-RPC requests on public subjects.
//!
//! `mcp.pub.<tenant>.<server>.<method>[.<name>]`, with `/` in the method as `.`; the payload is JSON, or MessagePack when the
//! `Content-Type` header says so, and the answer comes in the same. Who calls is what the broker says, never what the client does.

use std::{collections::HashMap, sync::Arc};

use bus_schema::{
    ContentType, Principal, ProtocolVersion, RpcError, ServerId, Token, TraceContext,
    mcp::{error, meta, method},
    rpc::{self, Kind},
    subject::{self, MethodPath, Subject},
};
use bytes::Bytes;
use runtime::{
    Bus, BusError,
    callout::account_of,
    public::{PublicCall, PublicCalls},
};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use crate::{
    front::{Caller, Endpoint, Front, Met, Step},
    request::Incoming,
    tenants::Tenants,
};

/// The name of this door in envelopes and meters.
const DOOR: &str = "nats";
/// Who vouches for those that the broker names.
const ISSUER: &str = bus_schema::limits::NATS_ISSUER;
/// How many public calls one door works on; beyond, callers hear "busy".
const MAX_CALLS: usize = 1_024;
/// What an answer's headers may take of a NATS message.
const ENVELOPE_BYTES: usize = 1_024;

/// Whose word is taken for who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The broker's: our `nats.conf` keeps plain clients in an account of their own, and they cannot write what it adds.
    FromBroker,
    /// Nobody's: on another NATS every caller is the developer.
    Developer,
    /// Nobody's, where callers have to say who they are: nobody is served.
    Nobody,
}

/// The door for plain NATS clients.
pub struct NatsDoor {
    shared: Arc<Shared>,
    calls: PublicCalls,
}

/// What the answers to all calls need.
struct Shared {
    bus: Bus,
    identity: Identity,
    fronts: Tenants<Front>,
    /// The tenants by the accounts of their plain clients.
    accounts: HashMap<String, String>,
}

impl NatsDoor {
    /// Opens the door, one for all tenants; several doors share the calls.
    ///
    /// # Errors
    /// [`BusError`] when the bus refuses the subscription.
    pub async fn open(bus: Bus, fronts: Tenants<Front>, identity: Identity) -> Result<Self, BusError> {
        let calls = bus.serve_public().await?;
        let names = fronts.names().into_iter();
        let shared = Arc::new(Shared {
            accounts: names.map(|tenant| (account_of(&tenant), tenant)).collect(),
            bus,
            identity,
            fronts,
        });
        Ok(Self { shared, calls })
    }

    /// Serves until `stop`; then finishes the calls that have come.
    pub async fn serve(mut self, stop: CancellationToken) {
        let max_payload = self.calls.max_payload();
        let slots = Arc::new(Semaphore::new(MAX_CALLS));
        let running = TaskTracker::new();
        let mut draining = false;
        loop {
            let call = tokio::select! {
                () = stop.cancelled(), if !draining => {
                    draining = true;
                    self.calls.drain().await;
                    continue;
                }
                call = self.calls.next() => call,
            };
            let Some(call) = call else { break };
            let Some(reply) = call.reply.clone().filter(|reply| subject::is_client_reply(reply)) else {
                debug!(subject = %call.subject, "ignored a public call whose reply is no client's inbox");
                continue;
            };
            let slot = Arc::clone(&slots).try_acquire_owned().ok();
            let (shared, ending) = (Arc::clone(&self.shared), stop.clone());
            running.spawn(async move {
                let answers = Answers {
                    shared,
                    reply,
                    codec: ContentType::Json,
                    max_payload,
                    ending,
                };
                answers.serve(call, slot.is_some()).await;
            });
        }
        running.close();
        running.wait().await;
    }
}

/// The answers to one public call.
struct Answers {
    shared: Arc<Shared>,
    reply: String,
    codec: ContentType,
    max_payload: usize,
    ending: CancellationToken,
}

/// What the broker says of a client that comes through a service import.
#[derive(Deserialize)]
struct RequestInfo {
    #[serde(default)]
    acc: String,
    #[serde(default)]
    user: String,
    #[serde(default)]
    name: String,
}

impl Answers {
    async fn serve(mut self, call: PublicCall, has_slot: bool) {
        match self.read(&call) {
            Ok((.., incoming)) if !has_slot => {
                let error = RpcError::internal("all slots of this door are taken; try again shortly")
                    .with_data(json!({ "reason": "busy" }));
                self.send(incoming.error(&error)).await;
            }
            Ok((front, caller, incoming)) => {
                let mut answering = front.ask(&caller, &incoming).await;
                loop {
                    match answering.next().await {
                        // A client that asks for progress, or listens, takes more than one message.
                        Step::Part(part)
                            if incoming.meta.wants_progress || incoming.method == method::LISTEN =>
                        {
                            self.send(part).await
                        }
                        Step::Part(_) => {}
                        Step::Final(last) => return self.send(last.body).await,
                    }
                }
            }
            Err((id, error)) => self.send(rpc::error_response(id.as_deref(), &error).into()).await,
        }
    }

    fn read(&mut self, call: &PublicCall) -> Result<(Front, Caller, Incoming), (Option<String>, RpcError)> {
        let unread = |error: RpcError| (None, error);
        if let Some(content_type) = &call.content_type {
            self.codec = ContentType::parse(content_type)
                .map_err(|error| unread(RpcError::invalid_request(error.to_string())))?;
        }
        let json = match self.codec {
            ContentType::Json => call.payload.clone(),
            codec => codec
                .to_json(&call.payload)
                .map_err(|error| unread(RpcError::new(error::PARSE, error.to_string())))?
                .into(),
        };
        let incoming = Incoming::read(with_metadata(json)).map_err(|refused| (refused.id, refused.error))?;
        let of_request = |error: RpcError| (incoming.id.clone(), error);
        let (tenant, endpoint) = check(call, &incoming).map_err(of_request)?;
        let shared = &self.shared;
        let principal =
            principal(shared.identity, &shared.accounts, call.request_info.as_deref()).map_err(of_request)?;
        let own = shared.fronts.of(&principal.tenant);
        // Somebody else's tenant is none to this caller, whether there is one or not.
        let front = own.filter(|_| tenant == Token::encode(&principal.tenant));
        let unknown = || RpcError::invalid_params(format!("there is no tenant `{tenant}`"));
        let front = front.ok_or_else(|| of_request(unknown()))?.clone();
        front
            .check_method(&endpoint, &incoming.method)
            .map_err(of_request)?;
        let trace = call
            .trace
            .as_ref()
            .and_then(|(parent, state)| TraceContext::parse(parent, state.as_deref()));
        let caller = Caller {
            principal,
            door: DOOR,
            endpoint,
            protocol_version: ProtocolVersion::MODERN,
            trace,
            staying: None,
            met: Met::default(),
            ending: self.ending.clone(),
        };
        Ok((front, caller, incoming))
    }

    async fn send(&self, json: Bytes) {
        let payload = match self.codec.from_json(&json) {
            Ok(payload) if payload.len() + ENVELOPE_BYTES <= self.max_payload => payload,
            Ok(payload) => {
                let size = payload.len();
                self.instead(&json, "too_large", &format!("the answer of {size} bytes is larger than one NATS message; ask for less, or use the HTTP door"))
            }
            Err(error) => {
                debug!(%error, "a public answer cannot be written in the caller's encoding");
                self.instead(
                    &json,
                    "encoding",
                    "the answer has values that MessagePack cannot carry; ask for it as JSON",
                )
            }
        };
        let sent =
            PublicCalls::answer(&self.shared.bus, self.reply.clone(), self.codec.as_str(), payload).await;
        if let Err(error) = sent {
            debug!(%error, "could not answer a public call");
        }
    }

    /// An error with the id of an answer that cannot be sent.
    fn instead(&self, json: &[u8], reason: &str, message: &str) -> Vec<u8> {
        let id = rpc::Message::parse(json)
            .ok()
            .and_then(|message| message.id.map(|id| id.get().to_owned()));
        let error = RpcError::internal(message).with_data(json!({ "reason": reason }));
        let error = rpc::error_response(id.as_deref(), &error);
        self.codec.from_json(&error).unwrap_or(error)
    }
}

/// The subject is what the broker has let this client use, so the message must say the same. Gives whose server it is for.
fn check(call: &PublicCall, incoming: &Incoming) -> Result<(Token, Endpoint), RpcError> {
    let Ok(Subject::Public {
        tenant,
        server,
        method,
        name,
    }) = Subject::parse(&call.subject)
    else {
        return Err(RpcError::invalid_request(format!(
            "subject `{}` is not mcp.pub.<tenant>.<server>.<method>, with the name as last token for {}",
            call.subject,
            method::NAMED.join(", ")
        )));
    };
    if incoming.kind != Kind::Request {
        return Err(RpcError::invalid_request(
            "only requests are served here; a call ends at its deadline",
        ));
    }
    let mismatch = |what: &str, subject: String, body: &str| {
        RpcError::header_mismatch(format!(
            "the subject says {what} `{subject}`, but the body says `{body}`"
        ))
    };
    if method != MethodPath::encode(&incoming.method) {
        return Err(mismatch("method", method.to_string(), &incoming.method));
    }
    let named = incoming.name.as_ref().map(|piece| piece.value.as_str());
    let right = named.map(Token::encode);
    if name != right {
        let (told, right) = (
            name.as_ref().map_or("", Token::as_str),
            right.as_ref().map_or("", Token::as_str),
        );
        let named = named.unwrap_or_default();
        return Err(RpcError::header_mismatch(format!(
            "the subject says name `{told}`, but the body says `{named}`, which is `{right}` in a subject"
        )));
    }
    if let Some(version) = &incoming.meta.protocol_version
        && version != ProtocolVersion::MODERN.as_str()
    {
        return Err(RpcError::unsupported_version(version));
    }
    let id: ServerId = server
        .as_str()
        .parse()
        .map_err(|_| RpcError::invalid_params(format!("`{server}` is no server id")))?;
    Ok((tenant, Endpoint::Server(id)))
}

/// Adds the metadata that plain clients may leave out.
fn with_metadata(json: Bytes) -> Bytes {
    let Ok(incoming) = Incoming::read(json.clone()) else {
        return json;
    };
    if incoming.kind != Kind::Request || incoming.meta.is_modern {
        return json;
    }
    incoming.with_metadata(&format!(
        r#""{}":"{}","{}":{{}}"#,
        meta::PROTOCOL_VERSION,
        ProtocolVersion::MODERN,
        meta::CLIENT_CAPABILITIES
    ))
}

/// Who calls, as the broker says: the auth callout has given its users the principal for a name, and others are somebody of the tenant whose
/// account they are in.
fn principal(
    identity: Identity,
    accounts: &HashMap<String, String>,
    request_info: Option<&str>,
) -> Result<Principal, RpcError> {
    let unknown = |why: &str| {
        RpcError::invalid_request(format!("nobody says who calls: {why}"))
            .with_data(json!({ "reason": "unauthenticated" }))
    };
    match identity {
        // One account for everybody, as on a NATS that is not ours: the developer's.
        Identity::Developer => return Ok(Principal::developer()),
        Identity::Nobody => return Err(unknown("this NATS does not tell it; use the HTTP door")),
        Identity::FromBroker => {}
    }
    let info = request_info.and_then(|text| serde_json::from_str::<RequestInfo>(text).ok());
    let Some(info) = info.filter(|info| !info.user.is_empty()) else {
        // It was not imported from a tenant's account, so it comes from one of our own.
        return Err(unknown("the call does not come from the account of a tenant"));
    };
    match Principal::of_user_name(&info.user) {
        Some(Ok(principal)) => Ok(principal),
        Some(Err(_)) => Err(unknown("the name of the user cannot be read")),
        None => {
            let tenant = accounts.get(&info.acc);
            let tenant = tenant.ok_or_else(|| unknown("the account is no tenant's"))?;
            Ok(Principal {
                issuer: Some(ISSUER.to_owned()),
                client: Some(info.name).filter(|name| !name.is_empty()),
                ..Principal::new(format!("{}/{}", info.acc, info.user), tenant)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(user: &str) -> String {
        json!({ "acc": "DEFAULT", "user": user, "name": "a program" }).to_string()
    }

    #[test]
    fn who_calls_is_what_the_broker_says_and_nothing_else() {
        let ann = Principal {
            issuer: Some("https://id.example".to_owned()),
            scopes: vec!["a".to_owned()],
            ..Principal::new("ann", "default")
        };
        let attested = told(&ann.to_user_name());
        let accounts = ["default", "acme"].map(|tenant| (account_of(tenant), tenant.to_owned()));
        let accounts = HashMap::from(accounts);
        let from_broker = |text: &str| principal(Identity::FromBroker, &accounts, Some(text));
        assert_eq!(from_broker(&attested).expect("ann"), ann);
        let named = from_broker(&told("developer")).expect("the developer");
        assert_eq!(
            (named.subject.as_str(), named.client.as_deref()),
            ("DEFAULT/developer", Some("a program"))
        );
        assert!(named.scopes.is_empty());
        assert_eq!(named.tenant, "default");
        let of = |account: &str| from_broker(&json!({ "acc": account, "user": "developer" }).to_string());
        assert_eq!(of("TENANT_acme").expect("somebody of acme").tenant, "acme");
        assert!(of("TENANT_other").is_err());
        for nobody in [told(""), told("{"), "{}".to_owned(), "no JSON".to_owned()] {
            assert!(from_broker(&nobody).is_err(), "{nobody}");
        }
        assert!(principal(Identity::FromBroker, &accounts, None).is_err());
        assert!(principal(Identity::Nobody, &accounts, Some(&attested)).is_err());
        assert_eq!(
            principal(Identity::Developer, &accounts, Some(&attested)).expect("the developer"),
            Principal::developer()
        );
    }
}
