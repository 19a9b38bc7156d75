//! Whether there is room for a call, whether it goes to the server, to another replica, or back to its caller, and what its end says
//! of the server.
//!
//! A replica that fails answers quickest, and a queue group does not mind: so one whose breaker is open hands the calls of its share
//! to a replica that is well, under the caller's own reply subject. When there is none it refuses them.

use std::{sync::Arc, time::Duration};

use async_nats::Message;
use bus_schema::{
    Request, RpcError, ServerCard, Token,
    envelope::{FrameKind, MAX_BODY_BYTES},
    mcp::method,
    members::Members,
    rpc,
    subject::{self, InstanceVerb, Subject},
    traffic::MIRROR_DOOR,
};
use serde::Deserialize as _;
use serde_json::json;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    breaker::{Admitted, Went},
    frames::Frames,
    guard,
    health::{HostHealth, Source},
    run::Shared,
    server::{Outcome, Verdict},
};

/// The word in `error.data.reason` of a call that the breaker has kept from the server.
const REASON: &str = "circuit_open";
/// How long a server may take to say that it is there.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// A caller that waits no longer than this says nothing of the server when it stops waiting.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);
/// A caller's own deadline comes by the bus, and so a little early or late.
const ON_THE_WAY: Duration = Duration::from_millis(100);

/// How a call has come to this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// It may be answered by any replica.
    Group,
    /// It is for this one.
    Instance,
}

/// What becomes of a call before the server hears of it.
pub(super) enum Admission {
    /// Nothing is counted of it.
    Free,
    /// It goes, and its end is counted.
    Counted(Admitted),
    /// It does not go.
    Refused(RpcError),
}

/// A running call holds its slot, and room for its body.
pub(super) struct Permits {
    /// A listen call waits and works on nothing, so it takes none.
    _slot: Option<OwnedSemaphorePermit>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Permits {
    pub(super) fn take(shared: &Shared, request: &Request) -> Option<Self> {
        let slot = match request.method.as_str() {
            method::LISTEN => None,
            _ => Some(Arc::clone(&shared.slots).try_acquire_owned().ok()?),
        };
        let kib = u32::try_from(request.chunked_bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let room = match kib {
            0 => None,
            // A body over the limit is refused with a clear error later; it takes no room until then.
            _ if request.chunked_bytes > MAX_BODY_BYTES as u64 => None,
            _ => Some(
                Arc::clone(&shared.large_bodies)
                    .try_acquire_many_owned(kib)
                    .ok()?,
            ),
        };
        Some(Self {
            _slot: slot,
            _room: room,
        })
    }
}

/// How long a call may take.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    began: Instant,
    length: Duration,
    /// That it was not answered within this says something of the server.
    counts: bool,
}

impl Limit {
    pub(super) fn of(shared: &Shared, request: &Request) -> Self {
        let asked = Duration::from_millis(request.timeout_ms);
        let length = shared.call_budget(request);
        Self {
            began: Instant::now(),
            length,
            counts: length < asked || length > SHORT_PATIENCE,
        }
    }

    pub(super) fn length(&self) -> Duration {
        self.length
    }

    pub(super) fn deadline(&self) -> Instant {
        self.began + self.length
    }

    /// What the silence of the server until now says of it.
    pub(super) fn silence(&self) -> Option<Went> {
        let passed = self.began.elapsed() + ON_THE_WAY >= self.length;
        (passed && self.counts)
            .then(|| Went::Badly(format!("it did not answer within {} ms", self.length.as_millis())))
    }
}

/// Decides about a call. `None` when it has gone to another replica.
pub(super) fn admit(
    shared: &Arc<Shared>,
    message: &Message,
    request: &Request,
    via: Via,
) -> Option<Admission> {
    let Some(breaker) = &shared.options.breaker else {
        return Some(Admission::Free);
    };
    // Those the host answers itself.
    if request.method == method::LISTEN || guard::is_own(request) {
        return Some(Admission::Free);
    }
    let refused = match breaker.admit() {
        Ok(admitted) => return Some(Admission::Counted(admitted)),
        Err(refused) => refused,
    };
    if via == Via::Group
        && let Some(peer) = shared.peer_for(request)
    {
        pass_on(shared, message, &peer);
        shared
            .bus
            .metrics()
            .kept_away(shared.options.metered(), "to another replica");
        return None;
    }
    shared.bus.metrics().kept_away(shared.options.metered(), "back");
    let server = &shared.options.id;
    let millis = u64::try_from(refused.again_in.as_millis()).unwrap_or(u64::MAX);
    let text = format!(
        "server `{server}` is not asked at the moment, as its calls fail: {}; try again in {millis} ms",
        refused.why
    );
    let error = RpcError::internal(text).with_data(json!({
        "reason": REASON,
        "server": server.as_str(),
        "retryable": true,
        "retryAfterMs": millis,
    }));
    Some(Admission::Refused(error))
}

/// Whether a call means just the version that it has come to.
fn is_bound(request: &Request) -> bool {
    let brings_state = || {
        let message = rpc::Message::parse(&request.body.0).ok();
        let params = message.and_then(|message| Members::of(message.params?));
        params.is_some_and(|params| params.get("requestState").is_some())
    };
    request.door == MIRROR_DOOR || method::TASKS.contains(&request.method.as_str()) || brings_state()
}

/// Says that there is no room for a call.
pub(super) fn answer_busy(shared: &Arc<Shared>, request: Request, frames: Frames) {
    shared.bus.metrics().busy(shared.options.metered());
    let shared = Arc::clone(shared);
    shared.running.clone().spawn(async move {
        debug!(server.id = %shared.options.id, mcp.method.name = %request.method, "answered busy");
        if let Err(error) = frames.signal(FrameKind::Busy, 0).await {
            debug!(%error, "could not answer busy");
        }
    });
}

/// Whether a call has gone to another replica, as it is for a version that the server has had here before.
pub(super) fn goes_to_its_version(shared: &Arc<Shared>, message: &Message) -> bool {
    let Some(version) = subject::version_of_call(&message.subject) else {
        return false;
    };
    let is_meant = |card: &ServerCard| Token::encode(&card.version).as_str() == version;
    if is_meant(&shared.description().card) {
        return false;
    }
    let call = message.reply.as_deref().and_then(subject::call_of_inbox);
    let peer = shared.well_peer(call.unwrap_or_default(), is_meant);
    if let Some(peer) = &peer {
        pass_on(shared, message, peer);
    }
    // Where nobody has that version any more, this one is as good as another.
    peer.is_some()
}

/// Hands a call to another replica. It was not begun here, so it may be any call.
fn pass_on(shared: &Arc<Shared>, message: &Message, peer: &str) {
    let subject = Subject::Instance {
        tenant: Token::encode(&shared.options.tenant),
        server: Token::encode(shared.options.id.as_str()),
        instance: Token::encode(peer),
        verb: InstanceVerb::Call,
    };
    let (reply, headers) = (message.reply.clone(), message.headers.clone());
    let (payload, peer, shared) = (message.payload.clone(), peer.to_owned(), Arc::clone(shared));
    shared.running.clone().spawn(async move {
        debug!(server.id = %shared.options.id, peer, "handed a call to a replica that is well");
        let Some(reply) = reply else { return };
        let handed = shared
            .bus
            .hand_on(subject.to_string(), reply.to_string(), headers, payload)
            .await;
        if let Err(error) = handed {
            warn!(%error, server.id = %shared.options.id, "could not hand a call to another replica");
        }
    });
}

impl Admission {
    /// The call has ended with this answer; `None` when nobody waits for it any more.
    pub(super) fn ended(self, outcome: Option<&Outcome>, limit: &Limit) {
        let Self::Counted(admitted) = self else { return };
        let went = match outcome.map(|outcome| (outcome.verdict, outcome)) {
            Some((Verdict::Answered, _)) => Some(Went::Well),
            Some((Verdict::Failed, outcome)) => Some(Went::Badly(why(outcome))),
            Some((Verdict::Unasked, _)) => None,
            None | Some((Verdict::Late, _)) => limit.silence(),
        };
        if let Some(went) = went {
            admitted.ended(went);
        }
    }
}

/// What an answer says that is an error.
fn why(outcome: &Outcome) -> String {
    let message = rpc::Message::parse(&outcome.body).ok();
    let error = message.and_then(|message| RpcError::deserialize(message.error?).ok());
    error.map_or_else(|| "it failed".to_owned(), |error| error.message)
}

impl Shared {
    /// Another replica that is well: of the same version if there is one, and else of one that has a share, or of one that the rule
    /// does not name. What only this version knows, and what is to try it, goes to no other.
    fn peer_for(&self, request: &Request) -> Option<String> {
        let version = self.description().card.version.clone();
        let peer = self.well_peer(request.call, |card| card.version == version);
        if peer.is_some() || is_bound(request) {
            return peer;
        }
        let snapshot = self.options.peers.as_ref()?.snapshot();
        let Some(rule) = snapshot.rule(&self.options.id).map(|rule| &rule.kept.rule) else {
            return self.well_peer(request.call, |_| true);
        };
        let share = |card: &ServerCard| rule.versions.get(&card.version).copied();
        let with_share = self.well_peer(request.call, |card| share(card).is_some_and(|share| share > 0));
        with_share.or_else(|| self.well_peer(request.call, |card| share(card).is_none()))
    }

    fn well_peer(&self, call: u64, is_meant: impl Fn(&ServerCard) -> bool) -> Option<String> {
        let snapshot = self.options.peers.as_ref()?.snapshot();
        let own = self.bus.instance();
        let well: Vec<_> = snapshot
            .replicas(&self.options.id)
            .iter()
            .filter(|card| card.instance != own && card.trouble.is_none() && is_meant(card))
            .collect();
        let turn = usize::try_from(call).unwrap_or_default();
        Some(well.get(turn % well.len().max(1))?.instance.clone())
    }

    /// Tells the bus how the breaker stands, and asks the server whether it is there when it was left alone for long enough.
    pub(super) async fn keep_breaker(self: Arc<Self>, stop: CancellationToken) {
        let Some(breaker) = self.options.breaker.clone() else {
            return;
        };
        let mut changes = breaker.changes();
        let health = HostHealth::of(&self);
        loop {
            health.set(Source::Calls, breaker.trouble()).await;
            let asks_at = breaker.asks_at();
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = sleep_until(asks_at.unwrap_or_else(Instant::now)), if asks_at.is_some() => {
                    breaker.asked(&self.probe().await);
                }
                () = stop.cancelled() => return,
            }
        }
    }

    async fn probe(&self) -> Went {
        let asked = Arc::clone(&self.server).probe();
        let went = match timeout(PROBE_LIMIT, asked).await {
            Ok(Ok(())) => Went::Well,
            Ok(Err(why)) => Went::Badly(why),
            Err(_) => Went::Badly(format!("no answer within {} s", PROBE_LIMIT.as_secs())),
        };
        debug!(server.id = %self.options.id, ?went, "asked a server whose calls failed whether it is there");
        went
    }
}
