//! Finds out which era a child speaks, and opens the conversation in it.
//!
//! The modern question goes first. What a child makes of it tells the era, save for silence: a child that starts slowly may still
//! answer both questions, and one that knows `initialize` is then taken as legacy. Source: MCP 2026-07-28, stdio transport.

use std::{sync::Arc, time::Duration};

use bus_schema::{
    RpcError,
    mcp::{Era, ProtocolVersion, error, meta, method},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::{
    capabilities::Declared,
    child::Child,
    connection::{Offers, Opening, Session},
    error::UpstreamError,
    legacy::InitializeResult,
    link::Link,
    options::{ChildOptions, EraKnob, Limits},
};

/// How long a server may take to answer the ping that ends a handshake.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);

/// Starts a child and opens the conversation with it.
///
/// # Errors
/// [`UpstreamError`] when it does not start, ends, or does not complete the handshake in time.
pub(super) async fn connect(
    options: &ChildOptions,
    opening: &Opening,
    limits: Limits,
) -> Result<(Child, Session), UpstreamError> {
    let deadline = Instant::now() + limits.handshake;
    let mut child = Child::spawn(options, &opening.declared, limits)?;
    match open(&mut child, opening, limits, deadline).await {
        Ok(session) => Ok((child, session)),
        // Some servers end on any request that comes before `initialize`.
        Err(UpstreamError::Ended(how)) if opening.era == EraKnob::Auto => {
            debug!(server.id = %options.id, how, "the server ended on a modern question; starting it again with a legacy one");
            let mut child = Child::spawn(options, &opening.declared, limits)?;
            let legacy = Opening {
                era: EraKnob::Legacy,
                ..opening.clone()
            };
            let session = open(&mut child, &legacy, limits, deadline).await?;
            Ok((child, session))
        }
        Err(error) => Err(error),
    }
}

async fn open(
    child: &mut Child,
    opening: &Opening,
    limits: Limits,
    deadline: Instant,
) -> Result<Session, UpstreamError> {
    let link = Arc::clone(child.link());
    let opened = converse(&link, opening, limits);
    // The child's own end comes first: it explains whatever else went wrong.
    let (session, listen) = tokio::select! {
        biased;
        error = child.ended() => return Err(error),
        opened = opened => opened?,
        () = sleep_until(deadline) => return Err(UpstreamError::Silent {
            secs: limits.handshake.as_secs(),
            garbage: link.garbage(),
        }),
    };
    if let Some(wanted) = listen {
        child.accompany(listen_to(link, wanted));
    }
    Ok(session)
}

/// A session, and the changes of lists that a modern child must be asked to tell of.
pub(super) type Opened = (Session, Option<Value>);

/// Makes the handshake.
///
/// # Errors
/// [`UpstreamError`] when the server refuses, or answers what cannot be used.
pub(super) async fn converse(
    link: &Arc<Link>,
    opening: &Opening,
    limits: Limits,
) -> Result<Opened, UpstreamError> {
    match opening.era {
        EraKnob::Modern => discover(link).await,
        EraKnob::Legacy => initialize(link, opening).await.map(|session| (session, None)),
        EraKnob::Auto => find_out(link, opening, limits).await,
    }
}

async fn find_out(link: &Arc<Link>, opening: &Opening, limits: Limits) -> Result<Opened, UpstreamError> {
    let mut probe = std::pin::pin!(discover(link));
    let legacy = async { initialize(link, opening).await.map(|session| (session, None)) };
    match timeout(limits.probe, &mut probe).await {
        Ok(Ok(modern)) => return Ok(modern),
        Ok(Err(error)) => {
            debug!(server.id = %link.server, %error, "the server is not modern");
            return legacy.await;
        }
        Err(_) => debug!(server.id = %link.server, "the server does not answer a modern question"),
    }
    let mut legacy = std::pin::pin!(legacy);
    tokio::select! {
        biased;
        late = &mut probe => match late {
            Ok(modern) => match timeout(limits.probe, legacy).await {
                Ok(Ok(opened)) => Ok(opened),
                _ => Ok(modern),
            },
            Err(_) => legacy.await,
        },
        opened = &mut legacy => match opened {
            Ok(opened) => Ok(opened),
            Err(error) => match timeout(limits.probe, probe).await {
                Ok(Ok(modern)) => Ok(modern),
                _ => Err(error),
            },
        },
    }
}

/// The metadata of a modern request of our own.
pub(super) fn own_meta(version: ProtocolVersion) -> Value {
    json!({
        meta::PROTOCOL_VERSION: version.as_str(),
        meta::CLIENT_CAPABILITIES: {},
        meta::CLIENT_INFO: own_name(),
    })
}

fn own_name() -> Value {
    json!({ "name": "trunkline", "version": env!("CARGO_PKG_VERSION") })
}

async fn discover(link: &Arc<Link>) -> Result<Opened, UpstreamError> {
    let mut asked = ProtocolVersion::MODERN;
    let mut answer = link
        .ask(method::DISCOVER, &json!({ "_meta": own_meta(asked) }))
        .await;
    if let Err(refusal) = &answer
        && let Some(version) = named_in(refusal, Era::Modern)
    {
        asked = version;
        answer = link
            .ask(method::DISCOVER, &json!({ "_meta": own_meta(asked) }))
            .await;
    }
    let result = answer.map_err(|source| UpstreamError::Refused {
        method: method::DISCOVER,
        source,
    })?;
    read_discovered(&result)
}

/// Reads the answer to `server/discover`.
///
/// # Errors
/// [`UpstreamError`] when it describes no server that can be spoken with in the modern way.
pub(super) fn read_discovered(result: &RawValue) -> Result<Opened, UpstreamError> {
    let result: Value = serde_json::from_str(result.get()).map_err(|error| UpstreamError::Unusable {
        method: method::DISCOVER,
        why: error.to_string(),
    })?;
    let version = newest(&result["supportedVersions"], Era::Modern)
        .ok_or_else(|| UpstreamError::NotModern(result["supportedVersions"].to_string()))?;
    let session = Session {
        version,
        discovered: None,
        offers: Offers::of(&result["capabilities"]),
    };
    Ok((session, changes_of(&result["capabilities"])))
}

/// Whether an error is one that only servers of the modern era give.
pub(super) fn is_modern(refusal: &RpcError) -> bool {
    matches!(
        refusal.code,
        error::HEADER_MISMATCH | error::MISSING_CAPABILITY | error::UNSUPPORTED_VERSION
    )
}

/// A version of the era that a refusal offers: a child that gives one of the modern era's own errors may be asked again.
pub(super) fn named_in(refusal: &RpcError, era: Era) -> Option<ProtocolVersion> {
    let supported = refusal.data.as_ref()?.get("supported")?;
    newest(supported, era).filter(|_| era == Era::Legacy || is_modern(refusal))
}

/// The newest version of the era in a list, among those spoken here.
fn newest(versions: &Value, era: Era) -> Option<ProtocolVersion> {
    let versions = versions.as_array()?;
    versions
        .iter()
        .filter_map(|version| version.as_str()?.parse::<ProtocolVersion>().ok())
        .filter(|version| version.era() == era)
        .max()
}

/// What `initialize` is asked with.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InitializeParams {
    protocol_version: &'static str,
    capabilities: Box<RawValue>,
    client_info: Value,
}

impl InitializeParams {
    pub(super) fn new(version: ProtocolVersion, declared: &Declared) -> Self {
        Self {
            protocol_version: version.as_str(),
            capabilities: declared.for_handshake(),
            client_info: own_name(),
        }
    }
}

async fn initialize(link: &Arc<Link>, opening: &Opening) -> Result<Session, UpstreamError> {
    let params = |version: ProtocolVersion| InitializeParams::new(version, &opening.declared);
    let mut answer = link.ask(method::INITIALIZE, &params(opening.version)).await;
    if let Err(refusal) = &answer
        && let Some(version) = named_in(refusal, Era::Legacy)
    {
        answer = link.ask(method::INITIALIZE, &params(version)).await;
    }
    let result = answer.map_err(|source| UpstreamError::Refused {
        method: method::INITIALIZE,
        source,
    })?;
    let session = read_initialized(&result)?;
    link.notify(method::INITIALIZED)
        .await
        .map_err(|_| UpstreamError::Unread)?;
    if opening.declared.can_be_asked() {
        settle(link).await;
    }
    Ok(session)
}

/// Waits until the server has said what it says to the end of a handshake. Many ask for the client's roots then, which is about no
/// call and refused; once a call runs on a pipe, the same words could not be told from a question about that.
async fn settle(link: &Arc<Link>) {
    // Whatever it answers, it has read what came before.
    let answer = timeout(SETTLE_LIMIT, link.ask(method::PING, &json!({}))).await;
    if answer.is_err() {
        debug!(server.id = %link.server, "the server does not answer a ping; going on without");
    }
}

/// Reads the answer to `initialize`.
///
/// # Errors
/// [`UpstreamError`] when no session can be made of it.
pub(super) fn read_initialized(result: &RawValue) -> Result<Session, UpstreamError> {
    let result = InitializeResult::deserialize(result).map_err(|error| UpstreamError::Unusable {
        method: method::INITIALIZE,
        why: error.to_string(),
    })?;
    let version = meta::as_text(result.protocol_version)
        .and_then(|text| text.parse().ok())
        .filter(|version: &ProtocolVersion| version.era() == Era::Legacy)
        .ok_or_else(|| {
            UpstreamError::UnknownVersion(result.protocol_version.get().trim_matches('"').to_owned())
        })?;
    Ok(Session {
        version,
        discovered: Some(result.discovered(version)),
        offers: result.offers(version),
    })
}

/// What to listen for, of what a modern child says that it can tell.
fn changes_of(capabilities: &Value) -> Option<Value> {
    let mut wanted = serde_json::Map::new();
    for (capability, key) in [
        ("tools", "toolsListChanged"),
        ("prompts", "promptsListChanged"),
        ("resources", "resourcesListChanged"),
    ] {
        if capabilities[capability]["listChanged"] == true {
            wanted.insert(key.to_owned(), Value::Bool(true));
        }
    }
    (!wanted.is_empty()).then_some(Value::Object(wanted))
}

/// A modern child tells of changed lists only for as long as somebody has asked it to.
pub(super) async fn listen_to(link: Arc<Link>, wanted: Value) {
    let params = json!({ "notifications": wanted, "_meta": own_meta(ProtocolVersion::MODERN) });
    let ended = link.ask(method::LISTEN, &params).await;
    debug!(server.id = %link.server, error = ?ended.err(), "the server no longer tells of changed lists");
}
