//! Looks at the tools of every server that comes or changes, and keeps what was approved of them.
//!
//! Any number of registries do the same work: every write is fenced by the record that was read, what follows from it is the same
//! whoever writes, and only who has written tells of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bus_schema::{
    ServerCard, ServerId,
    integrity::{
        Decide, Decided, Decision, Event, Known, Lookalikes, Offered, Pin, Pins, Policies, Policy, Tool,
        Undecided, What,
    },
};
use futures::{TryStreamExt as _, stream};
use runtime::{
    Bus, Directory, moment,
    pins::{PinStore, Pinned},
    store::StoreError,
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::ATTEMPTS;

/// How often what could not be done is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How many definitions are written at once.
const WRITES: usize = 16;

/// How many changed fields an event names, and how many characters of each.
const MAX_FIELDS: usize = 32;
const MAX_PATH: usize = 200;

/// What was approved, and who has what to be looked at.
#[derive(Clone)]
pub(super) struct Pinning {
    bus: Bus,
    directory: Directory,
    pinned: Pinned,
    tenant: String,
    /// What this process's settings say, if they say anything.
    settings: watch::Receiver<Option<Policies>>,
    /// What of that was written. Another registry may have written something else since, and meant it.
    written: Option<Policies>,
}

/// Says why the tools of a server could not be looked at.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error("its host does not say what it offers")]
    Host(#[from] runtime::registry::RegistryError),
    #[error("what was approved cannot be read or written")]
    Store(#[from] StoreError),
}

impl Pinning {
    pub(super) fn new(bus: Bus, directory: Directory, settings: watch::Receiver<Option<Policies>>) -> Self {
        Self {
            pinned: bus.pins(),
            bus,
            tenant: directory.tenant().to_owned(),
            directory,
            settings,
            written: None,
        }
    }

    /// Looks at servers until it is stopped.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let (mut servers, mut settings) = (self.directory.changes(), self.settings.clone());
        let mut again = interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked_at = BTreeMap::new();
        let mut is_behind = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = servers.changed() => {}
                Ok(()) = settings.changed() => {}
                () = self.pinned.changed() => {}
                _ = again.tick(), if is_behind => {}
            }
            let looking = self.look(&mut looked_at);
            is_behind = tokio::select! {
                () = stop.cancelled() => return,
                is_done = looking => !is_done,
            };
        }
    }

    /// Looks at every server that offers something else than it did. `false` when that was not possible for all.
    async fn look(&mut self, looked_at: &mut BTreeMap<ServerId, (Policy, BTreeSet<String>)>) -> bool {
        let Some(store) = self.pinned.store().cloned() else {
            return false;
        };
        if !self.write_policies(&store).await {
            return false;
        }
        let policies = self.pinned.policies();
        let snapshot = self.directory.snapshot();
        let mut is_done = true;
        for (id, _) in snapshot.servers() {
            let offering = snapshot
                .replicas(id)
                .iter()
                .filter(|card| !card.offered.is_empty());
            let digests: BTreeSet<String> = offering.clone().map(|card| card.offered.clone()).collect();
            let present = (policies.of(&self.tenant, id), digests);
            if present.0 == Policy::Off || present.1.is_empty() || looked_at.get(id) == Some(&present) {
                continue;
            }
            match self.look_at(&store, id, offering).await {
                Ok(()) => drop(looked_at.insert(id.clone(), present)),
                Err(error) => {
                    debug!(%error, server.id = %id, "could not look at a server's tools yet");
                    is_done = false;
                }
            }
        }
        looked_at.retain(|id, _| snapshot.server(id).is_some());
        is_done
    }

    /// Makes what the settings say the platform's policies, if they say something else than before. `false` when that was not possible.
    async fn write_policies(&mut self, store: &PinStore) -> bool {
        let wanted = self.settings.borrow().clone();
        let Some(policies) = wanted.filter(|wanted| self.written.as_ref() != Some(wanted)) else {
            return true;
        };
        match store.set_policies(&policies).await {
            Ok(()) => {
                info!(policy = ?policies.policy, servers = ?policies.servers, "the policies for changed tools are these");
                self.written = Some(policies);
                true
            }
            Err(error) => {
                debug!(%error, "the policies could not be written");
                false
            }
        }
    }

    async fn look_at(
        &self,
        store: &PinStore,
        id: &ServerId,
        offering: impl Iterator<Item = &ServerCard>,
    ) -> Result<(), LookError> {
        let offering: BTreeMap<&str, &ServerCard> =
            offering.map(|card| (card.offered.as_str(), card)).collect();
        for _ in 0..ATTEMPTS {
            let known = store.read(&self.tenant, id).await?;
            // What is offered is asked for after the record was read, so that nothing older than the record is written over it.
            let mut offered = Vec::new();
            for card in offering.values() {
                offered.push(self.bus.offered(id, &self.tenant, &card.instance).await?);
            }
            // Nor is it judged by a policy that is older than it.
            let policy = self.pinned.policies().of(&self.tenant, id);
            if policy == Policy::Off {
                return Ok(());
            }
            let (is_known, before, revision) = match known {
                Some((pins, revision)) => (Known::Yes, pins, Some(revision)),
                None => (Known::No, Pins::default(), None),
            };
            let mut pins = before.clone();
            let became = pins.take(is_known, &offered, policy, &moment::now());
            if pins == before && revision.is_some() {
                return Ok(());
            }
            keep_definitions(store, &before, &pins, &offered).await?;
            match store.write(&self.tenant, id, pins.clone(), revision).await {
                Ok(_) => {
                    self.tell((store, id), policy, &pins, &before, &became).await;
                    return Ok(());
                }
                // Another registry has looked as well, or an operator has decided.
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Tells the log and the bus what has become of a server's tools.
    async fn tell(
        &self,
        (store, id): (&PinStore, &ServerId),
        policy: Policy,
        pins: &Pins,
        before: &Pins,
        became: &[(String, What)],
    ) {
        let others = Lookalikes::of(&self.pinned.all(&self.tenant));
        for (name, what) in became {
            let Some(pin) = pins.tools.get(name) else { continue };
            let was = before.tools.get(name).and_then(|pin| pin.approved.as_ref());
            let event = Event {
                server: id.clone(),
                tool: name.clone(),
                what: *what,
                digest: digest_now(pin).to_owned(),
                was: was.map(|approved| approved.digest.clone()),
                by: None,
                fields: fields(store, pin).await,
                withheld: pin.now().is_withheld(policy),
            };
            match what {
                What::Changed => {
                    warn!(server.id = %id, tool.name = ?name, withheld = event.withheld, fields = ?event.fields, "a tool is not as it was approved")
                }
                What::New => {
                    warn!(server.id = %id, tool.name = ?name, withheld = event.withheld, "a tool has come that was never approved")
                }
                _ => {
                    info!(server.id = %id, tool.name = ?name, what = ?what, "the definition of a tool is known")
                }
            }
            let hidden = pin
                .pending
                .as_ref()
                .map(|pending| &pending.hidden)
                .or(pin.approved.as_ref().map(|approved| &approved.hidden));
            for place in hidden.into_iter().flatten() {
                warn!(server.id = %id, tool.name = ?name, path = ?place.path, characters = ?place.characters, "a tool has characters that nobody sees");
            }
            for (server, other) in others.of_others(id, name) {
                warn!(server.id = %id, tool.name = ?name, other.server = %server, other.tool = ?other, "a tool can be taken for another server's");
            }
            self.bus.tell(&self.tenant, &event).await;
        }
    }

    /// Does what an operator has decided.
    pub(super) async fn decide(
        &self,
        wish: &Decide,
        decision: Decision,
        tenant: &str,
        by: &str,
    ) -> Result<Result<Decided, Undecided>, StoreError> {
        self.pinned.ready().await;
        let store = self.pinned.store().ok_or(StoreError::Conflict)?;
        for _ in 0..ATTEMPTS {
            let Some((mut pins, revision)) = store.read(tenant, &wish.server).await? else {
                return Ok(Err(Undecided::Unknown));
            };
            let before = pins.clone();
            let tools = match pins.decide(wish, decision, by, &moment::now()) {
                Ok(tools) => tools,
                Err(undecided) => return Ok(Err(undecided)),
            };
            if tools.is_empty() {
                return Ok(Ok(Decided { tools }));
            }
            match store
                .write(tenant, &wish.server, pins.clone(), Some(revision))
                .await
            {
                Ok(_) => {
                    self.tell_decided(wish, decision, by, &tools, (&before, &pins))
                        .await;
                    return Ok(Ok(Decided { tools }));
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Conflict)
    }

    async fn tell_decided(
        &self,
        wish: &Decide,
        decision: Decision,
        by: &str,
        tools: &[String],
        (before, pins): (&Pins, &Pins),
    ) {
        let policy = self.pinned.policies().of(&self.tenant, &wish.server);
        for name in tools {
            let Some(pin) = pins.tools.get(name) else { continue };
            info!(server.id = %wish.server, tool.name = ?name, by, ?decision, "an operator has decided over a tool");
            let was = before.tools.get(name).and_then(|pin| pin.approved.as_ref());
            let event = Event {
                server: wish.server.clone(),
                tool: name.clone(),
                what: match decision {
                    Decision::Approve => What::Approved,
                    Decision::Reject => What::Rejected,
                },
                digest: digest_now(pin).to_owned(),
                was: was.map(|approved| approved.digest.clone()),
                by: Some(by.to_owned()),
                fields: Vec::new(),
                withheld: pin.now().is_withheld(policy),
            };
            self.bus.tell(&self.tenant, &event).await;
        }
    }
}

fn digest_now(pin: &Pin) -> &str {
    let pending = pin.pending.as_ref().map(|pending| &pending.digest);
    pending
        .or(pin.approved.as_ref().map(|approved| &approved.digest))
        .map_or("", String::as_str)
}

/// The fields of a tool that are not what was approved.
async fn fields(store: &PinStore, pin: &Pin) -> Vec<String> {
    let changes = store.changes(pin).await.unwrap_or_default();
    let paths = changes.into_iter().map(|change| change.path);
    paths
        .take(MAX_FIELDS)
        .map(|path| path.chars().take(MAX_PATH).collect())
        .collect()
}

/// Keeps the definitions that a record will name and did not name before.
async fn keep_definitions(
    store: &PinStore,
    before: &Pins,
    pins: &Pins,
    offered: &[Offered],
) -> Result<(), StoreError> {
    let known = before.digests();
    let wanted = pins.digests();
    let tools: BTreeMap<&str, &Tool> = offered
        .iter()
        .flat_map(|offered| &offered.tools)
        .map(|tool| (tool.digest.as_str(), tool))
        .filter(|(digest, _)| wanted.contains(digest) && !known.contains(digest))
        .collect();
    let kept = stream::iter(tools.into_values().map(Ok::<_, StoreError>))
        .try_for_each_concurrent(WRITES, |tool| store.keep_definition(tool))
        .await;
    match kept {
        // What is full shows no differences, and guards tools all the same.
        Err(StoreError::Full) => {
            warn!("no more definitions of tools can be kept for comparison");
            Ok(())
        }
        kept => kept,
    }
}
