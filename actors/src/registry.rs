//! The registry: takes declarations of servers, judges them, and keeps them.
//!
//! It is an actor without a state of its own: any number of them share the wishes, and every write is fenced by the revision that was
//! read. It is on no call's way; what it keeps, every process has its own picture of.

mod blocking;
mod deciding;
mod desk;
mod documents;
mod forgetting;
mod keeping;
mod pinning;
mod telling;

use std::sync::Arc;

use bus_schema::{
    Request, RpcError, ServerId, block, guardrails,
    integrity::{self, Decide, Decided, Decision, Policies, Undecided},
    mcp::error,
    policy,
    registry::{
        self, Declaration, Entry, GONE_FOR_DAYS, Gone, Over, Put, Record, Refusal, Remove, Removed, Was,
        Written, with_gone,
    },
    rpc::Message,
    traffic, virtual_server,
};
use futures::{
    FutureExt as _,
    future::{BoxFuture, join_all},
};
use runtime::{
    Bus, Directory, Host, HostOptions, McpServer, Outcome, Parts, Visibility,
    blocks::Blocks,
    documents::{Documents, Kind},
    host::HostError,
    moment,
    placement::Owners,
    registry::Registry,
    store::StoreError,
    virtuals::Virtuals,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use desk::CommandLine;
use pinning::Pinning;
use telling::Telling;

/// How often a write is tried again that may replace anything and met another one.
const ATTEMPTS: usize = 8;
/// The code of errors that say why a wish was not granted; the reason stands in their data.
const REFUSED: i64 = error::INVALID_PARAMS;

/// What a registry writes, and what it has to know for that.
pub struct Books {
    /// What is declared.
    pub registry: Registry,
    /// Who runs what is declared.
    pub owners: Owners,
    /// Who is there, of the registry's tenant, and how calls to them are spread.
    pub directory: Directory,
    /// The tenant's virtual servers.
    pub virtuals: Virtuals,
    /// Who is stopped.
    pub blocks: Blocks,
}

/// The registry of a tenant as a server on the bus.
pub struct RegistryServer {
    bus: Bus,
    registry: Registry,
    owners: Owners,
    directory: Directory,
    virtuals: Virtuals,
    blocks: Blocks,
    pinning: Pinning,
    policies: runtime::policies::Policies,
    guardrails: runtime::guardrails::AllGuardrails,
}

/// A registry at work.
pub struct RunningRegistry {
    hosts: [Host; 2],
    stop: CancellationToken,
    looking: JoinHandle<()>,
    forgetting: JoinHandle<()>,
    telling: JoinHandle<()>,
}

impl RunningRegistry {
    /// Takes it off the bus: what was begun is finished.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = tokio::join!(self.looking, self.forgetting, self.telling);
        join_all(self.hosts.map(Host::stop)).await;
    }
}

impl RegistryServer {
    /// The registry of the directory's tenant, over its books. The policies become those of the platform, now and whenever they change, if there
    /// are any.
    #[must_use]
    pub fn new(bus: Bus, books: Books, policies: watch::Receiver<Option<Policies>>) -> Self {
        let Books {
            registry,
            owners,
            directory,
            virtuals,
            blocks,
        } = books;
        Self {
            registry,
            owners,
            policies: bus.policies(),
            guardrails: bus.guardrails(),
            pinning: Pinning::new(bus.clone(), directory.clone(), policies),
            directory,
            virtuals,
            blocks,
            bus,
        }
    }

    /// Puts it on the bus, where only those find it who know its name, and begins to look at the tools of servers.
    ///
    /// # Errors
    /// [`HostError`] when the bus refuses.
    pub async fn start(self, bus: Bus) -> Result<RunningRegistry, HostError> {
        let tenant = self.directory.tenant().to_owned();
        let options = |id| HostOptions {
            tenant: tenant.clone(),
            visibility: Visibility::Hidden,
            ..HostOptions::new(id)
        };
        let (own, operators) = (options(ServerId::registry()), options(ServerId::operators()));
        // Nobody may do anything as long as it is not known what is allowed.
        self.policies.ready().await;
        let (stop, pinning) = (CancellationToken::new(), self.pinning.clone());
        let forgetting = forgetting::run(self.registry.clone(), tenant.clone(), stop.clone());
        let telling = Telling {
            bus: bus.clone(),
            directory: self.directory.clone(),
            registry: self.registry.clone(),
            owners: self.owners.clone(),
            tenant: tenant.clone(),
        };
        let registry = Arc::new(self);
        let desk = Arc::new(CommandLine(Arc::clone(&registry)));
        let hosts = [
            Box::pin(Host::start(bus.clone(), registry, own)).await?,
            Box::pin(Host::start(bus, desk, operators)).await?,
        ];
        Ok(RunningRegistry {
            hosts,
            looking: tokio::spawn(pinning.run(stop.clone())),
            forgetting: tokio::spawn(forgetting),
            telling: tokio::spawn(telling.run(stop.clone())),
            stop,
        })
    }

    async fn answer(&self, request: &Request) -> Result<serde_json::Value, RpcError> {
        let Some(action) = deciding::action_of(&request.method) else {
            let why = format!("the registry has no method `{}`", request.method);
            return Err(RpcError::new(error::METHOD_NOT_FOUND, why));
        };
        deciding::judge(&self.bus, &self.policies, request, action)?;
        let by = &request.principal;
        match request.method.as_str() {
            registry::PUT => to_json(&self.put(&by.tenant, &by.subject, read(request)?).await?),
            registry::REMOVE => to_json(&self.remove(&by.tenant, &read::<Remove>(request)?).await?),
            integrity::APPROVE => to_json(&self.decide(request, Decision::Approve).await?),
            integrity::REJECT => to_json(&self.decide(request, Decision::Reject).await?),
            policy::SET | policy::ROLLBACK => {
                let fits =
                    |ready: &Arc<runtime::policies::Ready>| deciding::leaves_a_way_back(by, ready.policy());
                self.document(&self.policies, request, &fits).await
            }
            guardrails::SET | guardrails::ROLLBACK => {
                self.document(&self.guardrails, request, &|_| Ok(())).await
            }
            traffic::SET => to_json(&keeping::set_traffic(&self.directory, by, &read(request)?).await?),
            traffic::CLEAR => to_json(&keeping::clear_traffic(&self.directory, by, &read(request)?).await?),
            virtual_server::DEFINE => {
                to_json(&keeping::define(&self.directory, &self.virtuals, by, &read(request)?).await?)
            }
            virtual_server::UNDEFINE => {
                to_json(&keeping::undefine(&self.virtuals, by, read(request)?).await?)
            }
            block::PUT => to_json(&blocking::block(&self.blocks, by, read(request)?).await?),
            _ => to_json(&blocking::unblock(&self.blocks, by, read(request)?).await?),
        }
    }

    /// Takes a document, or takes an earlier one again.
    async fn document<K: Kind>(
        &self,
        documents: &Documents<K>,
        request: &Request,
        fits: &documents::Fits<'_, K>,
    ) -> Result<serde_json::Value, RpcError> {
        let by = documents::Author {
            tenant: &request.principal.tenant,
            subject: &request.principal.subject,
        };
        let version = match request.method == K::SET {
            true => documents::set(documents, &by, read(request)?, fits).await?,
            false => documents::roll_back(documents, &by, read(request)?, fits).await?,
        };
        to_json(&version)
    }

    async fn decide(&self, request: &Request, decision: Decision) -> Result<Decided, RpcError> {
        let (wish, by) = (read::<Decide>(request)?, &request.principal);
        let decided = self
            .pinning
            .decide(&wish, decision, &by.tenant, &by.subject)
            .await;
        let is_new = || self.registry.get(&by.tenant, &wish.server).is_some();
        match decided.map_err(unavailable)? {
            // Nothing was seen of its tools yet.
            Err(Undecided::Unknown) if wish.tool.is_none() && is_new() => Ok(Decided { tools: Vec::new() }),
            decided => decided.map_err(|undecided| undecided_of(&wish, undecided)),
        }
    }

    async fn put(&self, tenant: &str, by: &str, put: Put) -> Result<Written, RpcError> {
        let Put { declaration, over } = put;
        declaration.check().map_err(|bad| {
            let field = bad.field.to_owned();
            refused(bad.to_string(), &Refusal::Bad { field })
        })?;
        for _ in 0..ATTEMPTS {
            let record = self
                .registry
                .read(tenant, &declaration.id)
                .await
                .map_err(unavailable)?;
            let known = record.as_ref().and_then(declared);
            if let Some((entry, revision)) = &known
                && entry.declaration == declaration
                && !matches!(over, Over::Revision(wanted) if wanted != *revision)
            {
                return Ok(Written {
                    entry: entry.clone(),
                    revision: *revision,
                    was: Was::Same,
                });
            }
            self.may_replace(tenant, &declaration, known.as_ref(), over)?;
            let entry = self.entry(&declaration, by, record.as_ref());
            let written = self
                .registry
                .write(tenant, &entry, record.as_ref().map(|(_, revision)| *revision))
                .await;
            match written {
                Ok(revision) => {
                    info!(server.id = %declaration.id, by, revision, "registered a server");
                    let hidden = declaration.hidden();
                    if !hidden.is_empty() {
                        warn!(server.id = %declaration.id, places = ?hidden, "a declaration has characters that nobody sees");
                    }
                    let was = if known.is_some() { Was::Changed } else { Was::New };
                    return Ok(Written { entry, revision, was });
                }
                // Somebody else was quicker; what is there now decides.
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(unavailable(error)),
            }
        }
        Err(refused(
            format!(
                "server `{}` is being changed by others all the time; try again",
                declaration.id
            ),
            &Refusal::Changed,
        ))
    }

    /// What is kept of a declaration in the place of a record.
    fn entry(&self, declaration: &Declaration, by: &str, record: Option<&(Record, u64)>) -> Entry {
        let now = moment::now();
        let before = record.and_then(|(record, _)| record.entry());
        let replaced = before.and_then(|entry| {
            let told = self.version_told(&declaration.id);
            entry.replaced(declaration, told.as_deref(), &now)
        });
        Entry {
            gone: left_of(record, replaced),
            registered_at: before.map_or_else(|| now.clone(), |entry| entry.registered_at.clone()),
            updated_at: now,
            registered_by: by.to_owned(),
            declaration: declaration.clone(),
        }
    }

    fn may_replace(
        &self,
        tenant: &str,
        declaration: &Declaration,
        known: Option<&(Entry, u64)>,
        over: Over,
    ) -> Result<(), RpcError> {
        let id = &declaration.id;
        match (known, over) {
            (Some(_), Over::Nothing) => Err(refused(
                format!(
                    "server `{id}` is registered already, and otherwise; replace it (PUT, or `trunkline servers add --replace`), or choose another id"
                ),
                &Refusal::Exists,
            )),
            (Some((_, is)), Over::Revision(wanted)) if *is != wanted => Err(refused(
                format!("server `{id}` has revision {is} and not {wanted}; read it again"),
                &Refusal::Changed,
            )),
            (None, Over::Revision(_)) => Err(unknown(id)),
            // What was registered until now may still be on its way out.
            (None, _)
                if self.owners.of(tenant, id).is_empty()
                    && self.directory.snapshot().server(id).is_some() =>
            {
                Err(refused(
                    format!("a server `{id}` is on the bus that was not registered here; choose another id"),
                    &Refusal::OnTheBus,
                ))
            }
            _ => Ok(()),
        }
    }

    /// The version that a server tells of itself.
    fn version_told(&self, id: &ServerId) -> Option<String> {
        let snapshot = self.directory.snapshot();
        snapshot.server(id).map(|card| card.version.clone())
    }

    async fn remove(&self, tenant: &str, remove: &Remove) -> Result<Written, RpcError> {
        let id = &remove.id;
        for _ in 0..ATTEMPTS {
            let record = self.registry.read(tenant, id).await.map_err(unavailable)?;
            let (entry, revision) = record.as_ref().and_then(declared).ok_or_else(|| unknown(id))?;
            if let Some(wanted) = remove.revision.filter(|wanted| *wanted != revision) {
                return Err(refused(
                    format!("server `{id}` has revision {revision} and not {wanted}; read it again"),
                    &Refusal::Changed,
                ));
            }
            let now = moment::now();
            let going = entry.going(self.version_told(id).as_deref(), &now);
            let left = Removed {
                gone: left_of(record.as_ref(), Some(going)),
                removed_at: now,
            };
            match self.registry.remove(tenant, id, &left, revision).await {
                Ok(_) => {
                    info!(server.id = %id, "removed a registered server");
                    let was = Was::Changed;
                    return Ok(Written { entry, revision, was });
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(unavailable(error)),
            }
        }
        Err(refused(
            format!("server `{id}` is being changed by others all the time; try again"),
            &Refusal::Changed,
        ))
    }
}

impl McpServer for RegistryServer {
    fn handle(self: Arc<Self>, request: Request, _parts: Parts) -> BoxFuture<'static, Outcome> {
        async move {
            let id = Message::parse(&request.body.0)
                .ok()
                .and_then(|message| message.id)
                .map(ToString::to_string);
            match self.answer(&request).await {
                Ok(result) => {
                    let result = result.to_string();
                    Outcome::result(id.as_deref().unwrap_or("null"), result.as_bytes())
                }
                Err(error) => Outcome::error(id.as_deref(), &error),
            }
        }
        .boxed()
    }
}

fn declared((record, revision): &(Record, u64)) -> Option<(Entry, u64)> {
    Some((record.entry()?.clone(), *revision))
}

/// What is told of as gone after a write.
fn left_of(before: Option<&(Record, u64)>, going: Option<Gone>) -> Vec<Gone> {
    let known = before.map_or(&[][..], |(record, _)| record.gone());
    with_gone(known, going, &moment::days_ago(GONE_FOR_DAYS))
}

fn undecided_of(wish: &Decide, undecided: Undecided) -> RpcError {
    let refusal = match undecided {
        Undecided::Unknown => Refusal::Unknown,
        Undecided::Otherwise | Undecided::NothingPending => Refusal::Changed,
    };
    let tool = wish.tool.as_deref().unwrap_or("its tools");
    refused(format!("server `{}`, {tool}: {undecided}", wish.server), &refusal)
}

fn read<T: DeserializeOwned>(request: &Request) -> Result<T, RpcError> {
    let message = Message::parse(&request.body.0)?;
    let params = message.params.map_or("null", |params| params.get());
    serde_json::from_str(params).map_err(|error| {
        let field = "params".to_owned();
        refused(error.to_string(), &Refusal::Bad { field })
    })
}

fn to_json(written: &impl Serialize) -> Result<serde_json::Value, RpcError> {
    serde_json::to_value(written).map_err(|error| RpcError::internal(error.to_string()))
}

fn refused(why: impl Into<String>, refusal: &Refusal) -> RpcError {
    let data = serde_json::to_value(refusal).unwrap_or_default();
    RpcError::new(REFUSED, why).with_data(data)
}

fn unknown(id: &ServerId) -> RpcError {
    refused(format!("no server `{id}` is registered"), &Refusal::Unknown)
}

#[expect(clippy::needless_pass_by_value, reason = "it stands where errors are mapped")]
fn unavailable(error: StoreError) -> RpcError {
    refused(
        format!("the registry cannot be read or written now: {error}"),
        &Refusal::Unavailable,
    )
}
