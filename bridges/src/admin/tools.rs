//! `/servers/{id}/tools`: what was approved of a server's tools, what has changed, and what an operator makes of it.

use std::collections::BTreeMap;

use axum::{
    Router,
    extract::{Extension, Path, Request},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use bus_schema::{
    Principal, ServerId,
    integrity::{Change, Decide, Decided, Decision, Hidden, Lookalikes, Pin, Pins, Policy, Standing, Tool},
};
use runtime::{catalogue::Listed, pins::Pinned, registry::RegistryError};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    fleet::Fleet,
    kept::{self, Refused, read_whole},
};
use crate::auth::Admitted;

/// How many bytes a decision may have.
const MAX_DECISION_BYTES: usize = 16 * 1024;

/// What is known of the tools of one server.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerTools {
    /// Whose they are.
    pub server: ServerId,
    /// What is done about those that are not as they were approved.
    pub policy: Policy,
    /// Each tool that was ever seen, by name.
    pub tools: Vec<ToolState>,
}

/// What is known of one tool.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolState {
    /// Its name.
    pub name: String,
    /// The digest of its definition now.
    pub digest: String,
    /// What that is to what was approved; `None` where no registry has looked at it yet.
    pub state: Option<Standing>,
    /// Whether it is neither shown nor called.
    pub quarantined: bool,
    /// Whether clients see it.
    pub listed: bool,
    /// What was approved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved: Option<ApprovedState>,
    /// Since when it is as it is, if that is not approved; as RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<String>,
    /// What is strange about it.
    pub flags: Vec<Flag>,
    /// In what it differs from what was approved; `None` when that cannot be told, as a definition was too long to be kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff: Option<Vec<Change>>,
}

/// What was approved of a tool.
#[derive(Clone, Debug, Serialize)]
pub struct ApprovedState {
    /// Which definition.
    pub digest: String,
    /// Since when, as RFC 3339.
    pub at: String,
    /// By whom; `None` when it was the first that was seen.
    pub by: Option<String>,
}

/// Something strange about a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "flag", rename_all = "camelCase")]
pub enum Flag {
    /// It has characters that nobody sees.
    HiddenCharacters(Hidden),
    /// It can be taken for the tool of another server.
    Shadows {
        /// Which server.
        server: ServerId,
        /// Which tool.
        tool: String,
    },
}

/// Says that nobody can tell now what was approved.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("what was approved of tools cannot be read now; it is kept in JetStream")]
pub struct NotKnown;

impl From<NotKnown> for Refused {
    fn from(error: NotKnown) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error.to_string())
    }
}

impl Fleet {
    /// What is known of a server's tools; `None` for a server that nobody knows.
    ///
    /// # Errors
    /// [`NotKnown`] when that cannot be read.
    pub async fn tools(&self, id: &ServerId) -> Result<Option<ServerTools>, NotKnown> {
        let pinned = self.pinned().await?;
        let known = pinned.of(self.tenant(), id);
        if known.pins().is_none() && self.server(id).is_none() {
            return Ok(None);
        }
        let listed = self.front.catalogue().list_soon(id, Listed::Tools).await;
        let listed: BTreeMap<String, String> = listed
            .iter()
            .flat_map(|list| &list.items)
            .filter_map(|item| Tool::read(&item.json))
            .map(|tool| (tool.name, tool.digest))
            .collect();
        let alike = Lookalikes::of(&pinned.all(self.tenant()));
        let mut tools = Vec::new();
        for (name, pin) in known.pins().iter().flat_map(|pins| &pins.tools) {
            let diff = match pinned.store() {
                Some(store) => store.changes(pin).await,
                None => None,
            };
            tools.push(ToolState::of(name, pin, known.policy, diff));
        }
        let unknown = |name: &String| !known.pins().is_some_and(|pins| pins.tools.contains_key(name));
        tools.extend(
            listed
                .iter()
                .filter(|(name, _)| unknown(name))
                .map(|(name, digest)| ToolState::unpinned(name, digest)),
        );
        for tool in &mut tools {
            tool.listed = listed.contains_key(&tool.name);
            let shadowed = alike.of_others(id, &tool.name);
            tool.flags.extend(shadowed.map(|(server, tool)| Flag::Shadows {
                server: server.clone(),
                tool: tool.clone(),
            }));
        }
        Ok(Some(ServerTools {
            server: id.clone(),
            policy: known.policy,
            tools,
        }))
    }

    /// The servers of which tools wait for a decision.
    ///
    /// # Errors
    /// [`NotKnown`] when that cannot be read.
    pub async fn pending(&self) -> Result<Vec<ServerId>, NotKnown> {
        let waits = |pins: &Pins| pins.tools.values().any(|pin| pin.pending.is_some());
        let all = self.pinned().await?.all(self.tenant());
        let waiting = all.into_iter().filter(|(_, pins)| waits(pins));
        Ok(waiting.map(|(id, _)| id).collect())
    }

    /// Approves or rejects tools.
    ///
    /// # Errors
    /// [`RegistryError`] when the registry does not.
    pub async fn decide(
        &self,
        operator: &Principal,
        decision: Decision,
        wish: &Decide,
    ) -> Result<Decided, RegistryError> {
        self.front.bus().decide(operator, decision, wish).await
    }

    async fn pinned(&self) -> Result<Pinned, NotKnown> {
        let pinned = self.front.bus().pins();
        if pinned.ready().await {
            Ok(pinned)
        } else {
            Err(NotKnown)
        }
    }
}

impl ToolState {
    fn of(name: &str, pin: &Pin, policy: Policy, diff: Option<Vec<Change>>) -> Self {
        let approved = pin.approved.as_ref();
        let pending = pin.pending.as_ref();
        let digest = pending
            .map(|pending| &pending.digest)
            .or(approved.map(|approved| &approved.digest));
        let hidden = pending
            .map(|pending| &pending.hidden)
            .or(approved.map(|approved| &approved.hidden));
        let state = pin.now();
        Self {
            name: name.to_owned(),
            digest: digest.cloned().unwrap_or_default(),
            state: Some(state),
            quarantined: state.is_withheld(policy),
            listed: false,
            approved: approved.map(|approved| ApprovedState {
                digest: approved.digest.clone(),
                at: approved.at.clone(),
                by: approved.by.clone(),
            }),
            seen_at: pending.map(|pending| pending.seen_at.clone()),
            flags: hidden
                .into_iter()
                .flatten()
                .cloned()
                .map(Flag::HiddenCharacters)
                .collect(),
            diff,
        }
    }

    fn unpinned(name: &str, digest: &str) -> Self {
        Self {
            name: name.to_owned(),
            digest: digest.to_owned(),
            state: None,
            quarantined: false,
            listed: true,
            approved: None,
            seen_at: None,
            flags: Vec::new(),
            diff: None,
        }
    }
}

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/servers/{id}/tools", get(show))
        .route("/servers/{id}/tools/approve", post(approve_all))
        .route("/servers/{id}/tools/reject", post(reject_all))
        .route("/servers/{id}/tools/{tool}/approve", post(approve))
        .route("/servers/{id}/tools/{tool}/reject", post(reject))
}

async fn show(Extension(fleet): Extension<Fleet>, Path(id): Path<String>) -> Result<Response, Refused> {
    let id = read_id(&fleet, &id)?;
    let tools = fleet.tools(&id).await?.ok_or_else(|| {
        let message = format!("no server `{id}` is registered or on the bus");
        Refused::new(StatusCode::NOT_FOUND, "not_found", message)
    })?;
    Ok(axum::Json(tools).into_response())
}

async fn approve_all(
    Extension(fleet): Extension<Fleet>,
    Path(id): Path<String>,
    Extension(operator): Extension<Admitted>,
    request: Request,
) -> Result<Response, Refused> {
    decide((&fleet, &operator), Decision::Approve, (&id, None), request).await
}

async fn reject_all(
    Extension(fleet): Extension<Fleet>,
    Path(id): Path<String>,
    Extension(operator): Extension<Admitted>,
    request: Request,
) -> Result<Response, Refused> {
    decide((&fleet, &operator), Decision::Reject, (&id, None), request).await
}

async fn approve(
    Extension(fleet): Extension<Fleet>,
    Path((id, tool)): Path<(String, String)>,
    Extension(operator): Extension<Admitted>,
    request: Request,
) -> Result<Response, Refused> {
    decide((&fleet, &operator), Decision::Approve, (&id, Some(tool)), request).await
}

async fn reject(
    Extension(fleet): Extension<Fleet>,
    Path((id, tool)): Path<(String, String)>,
    Extension(operator): Extension<Admitted>,
    request: Request,
) -> Result<Response, Refused> {
    decide((&fleet, &operator), Decision::Reject, (&id, Some(tool)), request).await
}

async fn decide(
    (fleet, operator): (&Fleet, &Admitted),
    decision: Decision,
    (id, tool): (&str, Option<String>),
    request: Request,
) -> Result<Response, Refused> {
    let wish = Decide {
        server: read_id(fleet, id)?,
        digest: read_digest(request, tool.as_deref()).await?,
        tool,
    };
    let decided = fleet.decide(&operator.principal, decision, &wish).await?;
    let key = match decision {
        Decision::Approve => "approved",
        Decision::Reject => "rejected",
    };
    Ok(axum::Json(json!({ "server": wish.server, key: decided.tools })).into_response())
}

/// The digest that is meant; a body is not needed.
async fn read_digest(request: Request, tool: Option<&str>) -> Result<Option<String>, Refused> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wish {
        digest: Option<String>,
    }
    let body = read_whole(request.into_body(), MAX_DECISION_BYTES).await?;
    if body.is_empty() {
        return Ok(None);
    }
    let wish: Wish = serde_json::from_slice(&body).map_err(|error| {
        Refused::bad_request(format!(
            "the body is no decision: {error}; send {{\"digest\":\"sha256:…\"}}, or nothing"
        ))
    })?;
    if wish.digest.is_some() && tool.is_none() {
        let message = "`digest` is of one tool; name it in the path, or leave the digest out";
        return Err(Refused::unusable("digest", message));
    }
    Ok(wish.digest)
}

fn read_id(fleet: &Fleet, id: &str) -> Result<ServerId, Refused> {
    let id = kept::read_id(id)?;
    if fleet.front.virtuals().get(&id).is_some() {
        let message = format!(
            "server `{id}` is a virtual one, and its tools are those of others; `/virtual-servers/{id}` says whose"
        );
        return Err(Refused::new(StatusCode::CONFLICT, "is_virtual", message));
    }
    Ok(id)
}
