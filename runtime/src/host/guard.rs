//! Keeps a host's tools to what was approved: what is withheld is neither shown nor called, whichever door asks.
//!
//! What was approved is heard from the registry (`pins`); what the server offers, the host itself knows. So a server that changes a
//! tool is stopped by its own host, as soon as that has read the changed list and before anybody else can.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bus_schema::{
    Request, RpcError, ServerId,
    audit::{Kind, Record},
    integrity::{OFFERED, Policy, Standing, Tool},
    mcp::{error, meta, method},
    rpc::{Message, Params, splice},
    subject::EventKind,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    HostOptions, Outcome,
    describe::{Description, describe},
    run::Shared,
    tool_list,
};
use crate::{
    bus::Bus,
    own_request::PLATFORM,
    pins::{Known, Pinned},
};

/// How often a server is looked at that says nothing: some do not say when their tools change, and some only say that they do.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long nobody looks at the tools of a server under quarantine while they are called.
const LOOK_AFTER: Duration = Duration::from_millis(500);
/// How many spellings of its lists are remembered.
const MAX_SEEN: usize = 64;

/// What may be shown and called of one server.
pub(super) struct Guard {
    pinned: Pinned,
    tenant: String,
    server: ServerId,
    /// Lists that were found to hold what was described. Held only to look up, add or clear.
    seen: Mutex<HashSet<[u8; 32]>>,
    /// Told when a list went out that holds something else than what was described.
    stale: Notify,
    /// When the server began to describe itself last. Held only to read or replace it.
    looked: Mutex<Instant>,
}

impl Guard {
    pub(super) async fn new(bus: &Bus, options: &HostOptions) -> Self {
        let pinned = bus.pins();
        pinned.ready().await;
        Self {
            pinned,
            tenant: options.tenant.clone(),
            server: options.id.clone(),
            seen: Mutex::default(),
            stale: Notify::new(),
            looked: Mutex::new(Instant::now()),
        }
    }

    /// Has a server under quarantine looked at that is called and was not looked at just now. The call does not wait for that.
    fn look_soon(&self, known: &Known) {
        if is_quarantined(known) && self.looked().elapsed() > LOOK_AFTER {
            self.stale.notify_one();
        }
    }

    fn looked(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> Known {
        self.pinned.of(&self.tenant, &self.server)
    }

    /// Makes a description tell of what is shown.
    pub(super) fn show(&self, description: &mut Description) {
        let known = self.known();
        description.show(|tool| withheld(&known, tool));
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, HashSet<[u8; 32]>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn withheld(known: &Known, tool: &Tool) -> bool {
    // The first tools of a server are those that will be approved.
    let pins = known.pins();
    pins.is_some_and(|pins| pins.standing(&tool.name, &tool.digest).is_withheld(known.policy))
}

/// Whether only what was approved is shown.
fn is_quarantined(known: &Known) -> bool {
    known.policy == Policy::Quarantine && known.pins().is_some()
}

/// Whether anything at all can be withheld.
fn is_strict(known: &Known) -> bool {
    known.pins().is_some_and(|pins| match known.policy {
        Policy::Off => false,
        Policy::Warn => pins.tools.values().any(|pin| !pin.rejected.is_empty()),
        Policy::Quarantine => true,
    })
}

/// Whether it is the platform that asks its own host.
pub(super) fn is_own(request: &Request) -> bool {
    request.method == OFFERED && request.door == PLATFORM
}

/// The answer to a request that does not reach the server: a call to a tool that is withheld, and what the platform asks.
pub(super) fn answer(shared: &Shared, request: &Request) -> Option<Outcome> {
    let guard = shared.guard.as_ref()?;
    match request.method.as_str() {
        OFFERED if is_own(request) => {
            let offered = Arc::clone(&shared.description().offered);
            let message = Message::parse(&request.body.0).ok()?;
            let offered = serde_json::to_vec(&*offered).ok()?;
            Some(Outcome::result(message.id?.get(), &offered))
        }
        method::TOOLS_CALL => {
            let known = guard.known();
            if !is_strict(&known) {
                return None;
            }
            guard.look_soon(&known);
            let error = refusal(shared, &known, called(request))?;
            debug!(server.id = %guard.server, "refused a call to a tool that is withheld");
            let refused = Record::refused(Kind::Integrity, "quarantined").of_request(request);
            shared.bus.audit().put(refused);
            Some(Outcome::error_for(&request.body.0, &error))
        }
        _ => None,
    }
}

/// The tool that a request calls, by its own text: what stands beside it in the envelope is the word of a door.
fn called(request: &Request) -> Option<String> {
    let message = Message::parse(&request.body.0).ok()?;
    let params: Params<'_> = serde_json::from_str(message.params?.get()).ok()?;
    meta::as_text(params.name?).map(std::borrow::Cow::into_owned)
}

/// Why a tool may not be called; `None` when it may.
fn refusal(shared: &Shared, known: &Known, tool: Option<String>) -> Option<RpcError> {
    let server = &shared.options.id;
    let Some(tool) = tool else {
        return Some(RpcError::new(
            error::INVALID_PARAMS,
            "the request names no tool in a way that can be read; write `name` once, as a string",
        ));
    };
    let offered = Arc::clone(&shared.description().offered);
    let pins = known.pins()?;
    let mut now = offered
        .tools
        .iter()
        .filter(|offered| offered.name == tool)
        .peekable();
    // What the server does not show to the platform is what it was, if it was anything.
    let unlisted = now.peek().is_none().then(|| {
        let was_approved = pins.tools.get(&tool).is_some_and(|pin| pin.approved.is_some());
        if was_approved {
            Standing::Approved
        } else {
            Standing::New
        }
    });
    let standing = now
        .map(|offered| pins.standing(&tool, &offered.digest))
        .chain(unlisted)
        .find(|standing| standing.is_withheld(known.policy))?;
    let why = match standing {
        Standing::Rejected => "an operator has rejected its definition",
        Standing::New => "it is new, and was not approved yet",
        Standing::Changed | Standing::Approved => "its definition has changed since it was approved",
    };
    let message = format!(
        "tool `{tool}` of server `{server}` is quarantined: {why}. An operator looks at it with `trunkline tools pending` and \
         approves it with `trunkline tools approve {server}.{tool}`"
    );
    let data = json!({ "quarantined": standing.as_str(), "server": server, "tool": tool });
    Some(RpcError::new(error::INVALID_PARAMS, message).with_data(data))
}

/// An answer to `tools/list` as it goes out: without what cannot be used, and without what is withheld. One that holds something else than what was described has the server
/// described anew: not every server says when its tools change.
pub(super) fn shown(shared: &Shared, request: &[u8], outcome: Outcome) -> Outcome {
    // What cannot be used was told when the server described itself.
    let outcome = tool_list::edit(outcome, |_, _| {});
    let Some(guard) = &shared.guard else {
        return outcome;
    };
    let known = guard.known();
    if known.policy == Policy::Off {
        return outcome;
    }
    let Some((list, raw)) = tool_list::read(&outcome.body) else {
        return unreadable(&known, request, outcome);
    };
    let spelling: [u8; 32] = Sha256::digest(list.get()).into();
    let was_seen = guard.seen().contains(&spelling);
    if was_seen && !is_strict(&known) {
        return outcome;
    }
    let offered = Arc::clone(&shared.description().offered);
    let is_described = |tool: &Tool| {
        let mut all = offered.tools.iter();
        all.any(|known| known.name == tool.name && known.digest == tool.digest)
    };
    let mut kept = Vec::with_capacity(raw.len());
    let mut is_stale = false;
    for raw in &raw {
        let tool = Tool::read(raw);
        is_stale |= !was_seen && tool.as_ref().is_some_and(|tool| !is_described(tool));
        // What has no name was approved by nobody.
        let is_withheld = tool.map_or_else(|| is_quarantined(&known), |tool| withheld(&known, &tool));
        if !is_withheld {
            kept.push(raw.get());
        }
    }
    if !was_seen {
        let mut seen = guard.seen();
        if seen.len() == MAX_SEEN {
            seen.clear();
        }
        seen.insert(spelling);
    }
    if is_stale {
        guard.stale.notify_one();
    }
    if kept.len() == raw.len() {
        return outcome;
    }
    let body = splice(&outcome.body, list.get(), &format!("[{}]", kept.join(",")));
    Outcome {
        body: body.into(),
        ..outcome
    }
}

/// A list that cannot be read here may be read elsewhere, such as one that stands twice.
fn unreadable(known: &Known, request: &[u8], outcome: Outcome) -> Outcome {
    if outcome.code.is_some() || !is_quarantined(known) {
        return outcome;
    }
    let why = "the server's list of tools cannot be read, so nobody can say whether its tools were approved";
    Outcome::error_for(request, &RpcError::internal(why))
}

/// Describes the server anew whenever its lists have changed or may have, one time after the other, and tells of what is shown when
/// something else is approved.
pub(super) async fn keep_described(shared: Arc<Shared>, stop: CancellationToken) {
    let mut lists = shared.server.list_changes();
    let mut pinned = shared.guard.as_ref().map(|guard| guard.pinned.clone());
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks.reset();
    loop {
        let is_told = tokio::select! {
            () = changed(&mut lists) => true,
            () = approved(&mut pinned) => {
                show_approved(&shared).await;
                continue;
            }
            () = found_stale(&shared) => false,
            _ = looks.tick() => {
                if !is_to_be_looked_at(&shared) {
                    continue;
                }
                false
            }
            () = stop.cancelled() => return,
        };
        if let Some(guard) = &shared.guard {
            *guard.looked() = Instant::now();
        }
        match describe(&shared.bus, &shared.server, &shared.options).await {
            Ok(_) if shared.draining.is_cancelled() => return,
            Ok(mut description) => {
                shared.take_version(&description.card.version).await;
                let is_same = {
                    if let Some(guard) = &shared.guard {
                        guard.show(&mut description);
                        guard.seen().clear();
                    }
                    let mut known = shared.description();
                    let is_same = known.card == description.card;
                    *known = description;
                    is_same
                };
                if is_told || !is_same {
                    shared.announce(EventKind::Up).await;
                }
            }
            Err(error) if is_told => {
                warn!(%error, server.id = %shared.options.id, "could not describe the server again");
            }
            Err(error) => {
                debug!(%error, server.id = %shared.options.id, "could not look at the server's tools")
            }
        }
    }
}

async fn changed(lists: &mut Option<watch::Receiver<u64>>) {
    if let Some(changes) = lists
        && changes.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

async fn approved(pinned: &mut Option<Pinned>) {
    match pinned {
        Some(pinned) => pinned.changed().await,
        None => std::future::pending().await,
    }
}

async fn found_stale(shared: &Shared) {
    match &shared.guard {
        Some(guard) => guard.stale.notified().await,
        None => std::future::pending().await,
    }
}

/// Whether it has tools that may change without a word.
fn is_to_be_looked_at(shared: &Shared) -> bool {
    let Some(guard) = &shared.guard else { return false };
    let description = shared.description();
    let has_tools = description.card.capabilities.contains_key("tools");
    has_tools && guard.known().policy != Policy::Off
}

/// Tells everybody when something else is shown now.
async fn show_approved(shared: &Shared) {
    let Some(guard) = &shared.guard else { return };
    let is_same = {
        let mut description = shared.description();
        let before = description.card.lists.tools.clone();
        guard.show(&mut description);
        description.card.lists.tools == before
    };
    if !is_same && !shared.draining.is_cancelled() {
        shared.announce(EventKind::Up).await;
    }
}
