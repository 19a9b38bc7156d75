//! Finding tools on the bus and calling them by name: what an agent or a program wants that does not care which server has them.
//!
//! ```no_run
//! use bus_schema::{Principal, card::Place, principal::DEFAULT_TENANT, subject::CallerClass};
//! use runtime::{Bus, BusOptions, Discovery};
//! use serde_json::json;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let bus = Bus::connect(BusOptions {
//!     url: "nats://127.0.0.1:4222".to_owned(),
//!     credentials: None,
//!     class: CallerClass::Cli,
//!     place: Place::default(),
//! })
//! .await?;
//! // The servers with these labels, wherever they run and whenever they come.
//! let catalogue = Discovery::connect(&bus, DEFAULT_TENANT).await?.with_tags(["catalogue"]);
//! for tool in catalogue.tools().await.tools {
//!     println!("{} is a tool of {}", tool.name(), tool.server);
//! }
//! let best = catalogue.search("find a product", 3).await;
//! println!("{} fits best", best.tools[0].prefixed());
//! // The call goes to whoever has the tool; were there several, the error would name them.
//! let arguments = json!({ "query": "desk" }).as_object().cloned().unwrap_or_default();
//! let result = catalogue.call("search", arguments, Principal::developer()).await?;
//! println!("{result}");
//! # Ok(())
//! # }
//! ```

use std::{collections::HashMap, sync::Arc, time::Duration};

use bus_schema::{Principal, Request, RpcError, ServerCard, ServerId, mcp::method, rpc::Message};
use futures::future::join_all;
use serde_json::{Map, Value, json, value::RawValue};
use tokio::time::timeout;
use tracing::debug;

use crate::{
    bus::{Bus, BusError},
    call::{Call, CallError},
    catalogue::{Catalogue, Item, List, Listed},
    directory::{Directory, Snapshot},
    own_request::own_request,
    policies::Sight,
    search::{Indexes, rank},
    traffic::{Begun, Plan},
};

/// How long a server may take to say what it offers.
const LIST_LIMIT: Duration = Duration::from_secs(2);
/// How long a call may take unless somebody says otherwise.
const CALL_LIMIT: Duration = Duration::from_secs(300);
/// How many names are suggested for one that nobody has.
const NEAREST: usize = 3;
/// How alike two names are that may be mistaken for each other; 1 is the same.
const ALIKE: f64 = 0.8;

/// The tools of some or all servers on the bus.
#[derive(Clone)]
pub struct Discovery {
    bus: Bus,
    catalogue: Catalogue,
    indexes: Arc<Indexes>,
    tags: Vec<String>,
    server: Option<ServerId>,
    call_limit: Duration,
    /// For whom it looks; `None` for somebody who sees all.
    sight: Option<Sight>,
}

/// A tool and whose it is.
#[derive(Clone, Debug)]
pub struct Found {
    /// The server that has it.
    pub server: ServerId,
    list: Arc<List>,
    place: usize,
}

impl Found {
    /// The tool as its server wrote it.
    #[must_use]
    pub fn item(&self) -> &Item {
        &self.list.items[self.place]
    }

    /// Its name at its server.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.item().key
    }

    /// Its name among the tools of all servers.
    #[must_use]
    pub fn prefixed(&self) -> String {
        self.server.prefixed(self.name())
    }
}

/// Tools, and the servers whose tools could not be had.
#[derive(Clone, Debug, Default)]
pub struct Tools {
    /// The tools.
    pub tools: Vec<Found>,
    /// Servers that are on the bus, and did not say in time what they offer.
    pub missing: Vec<ServerId>,
}

/// Says why a name does not lead to one tool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// Several servers have it.
    #[error(
        "several servers have a tool `{name}`; call it by one of the names {}",
        listed(owners.iter().map(|owner| owner.prefixed(name)))
    )]
    Ambiguous {
        /// The name.
        name: String,
        /// Whose tools have it, in the order of their ids.
        owners: Vec<ServerId>,
    },
    /// No server has it.
    #[error("there is no tool `{name}`{}{}", suggestion(nearest), absence(missing))]
    Unknown {
        /// The name.
        name: String,
        /// Names that are like it, the likest first, as [`Found::prefixed`] spells them.
        nearest: Vec<String>,
        /// Servers that may have it, as nobody knows what they offer.
        missing: Vec<ServerId>,
    },
}

/// Says why a call by name has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// It is not known whom to call.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The server gave no answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The server answered with an error.
    #[error("server `{server}` refuses the call")]
    Refused {
        /// Which server.
        server: ServerId,
        /// What it answered.
        #[source]
        source: RpcError,
    },
}

fn listed(names: impl Iterator<Item = String>) -> String {
    names
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn suggestion(nearest: &[String]) -> String {
    if nearest.is_empty() {
        return String::new();
    }
    format!("; the nearest are {}", listed(nearest.iter().cloned()))
}

fn absence(missing: &[ServerId]) -> String {
    if missing.is_empty() {
        return String::new();
    }
    let missing = listed(missing.iter().map(ToString::to_string));
    format!("; what {missing} may offer is not known at the moment")
}

impl Discovery {
    /// The tools of all servers of a tenant. Waits until those that are there have answered.
    ///
    /// # Errors
    /// [`BusError`] when the bus refuses a subscription.
    pub async fn connect(bus: &Bus, tenant: &str) -> Result<Self, BusError> {
        let directory = Directory::start(bus, tenant).await?;
        Ok(Self::new(bus.clone(), Catalogue::new(bus.clone(), directory)))
    }

    /// The tools of all servers that a catalogue knows.
    #[must_use]
    pub fn new(bus: Bus, catalogue: Catalogue) -> Self {
        Self {
            bus,
            catalogue,
            indexes: Arc::default(),
            tags: Vec::new(),
            server: None,
            call_limit: CALL_LIMIT,
            sight: None,
        }
    }

    /// The same for servers that have all of these labels.
    #[must_use]
    pub fn with_tags<T: Into<String>>(&self, tags: impl IntoIterator<Item = T>) -> Self {
        let mut narrowed = self.clone();
        narrowed.tags.extend(tags.into_iter().map(Into::into));
        narrowed
    }

    /// The same for one server.
    #[must_use]
    pub fn with_server(&self, server: ServerId) -> Self {
        Self {
            server: Some(server),
            ..self.clone()
        }
    }

    /// The same for somebody who may not see everything.
    #[must_use]
    pub fn seen_with(&self, sight: Option<Sight>) -> Self {
        Self {
            sight,
            ..self.clone()
        }
    }

    /// The same with another limit to how long a call may take.
    #[must_use]
    pub fn with_call_limit(&self, limit: Duration) -> Self {
        Self {
            call_limit: limit,
            ..self.clone()
        }
    }

    /// The servers whose tools these are, as they are at this moment, in the order of their ids.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerCard> {
        let snapshot = self.catalogue.directory().snapshot();
        self.chosen(&snapshot).cloned().collect()
    }

    /// All tools, in the order of the servers' ids and then as their servers list them.
    pub async fn tools(&self) -> Tools {
        let (lists, missing) = self.lists().await;
        let all = lists.into_iter().flat_map(|(server, list)| {
            (0..list.items.len()).map(move |place| Found {
                server: server.clone(),
                list: Arc::clone(&list),
                place,
            })
        });
        Tools {
            tools: all.filter(|found| self.sees(found)).collect(),
            missing,
        }
    }

    /// The tools that fit some words best, the best first, at most `limit`.
    pub async fn search(&self, query: &str, limit: usize) -> Tools {
        let (lists, missing) = self.lists().await;
        Tools {
            tools: self.ranked(query, &lists, limit).await,
            missing,
        }
    }

    /// The one tool that a name means: that of a tool, or with its server before it as `<server>__<tool>` or `<server>.<tool>`.
    ///
    /// # Errors
    /// [`FindError`] when it means none or several.
    pub async fn find(&self, name: &str) -> Result<Found, FindError> {
        // The usual case asks one server only.
        if let Some((server, own)) = ServerId::split_prefixed(name)
            && let Some(list) = self.list_of(&server).await
            && let Some(found) = self.at(&server, &list, own)
        {
            return Ok(found);
        }
        let (lists, missing) = self.lists().await;
        let dotted = name.split_once('.');
        let mut found: Vec<Found> = Vec::new();
        for (server, list) in &lists {
            let own = dotted
                .filter(|(id, _)| *id == server.as_str())
                .map(|(_, own)| own);
            found.extend(
                self.at(server, list, name)
                    .or_else(|| self.at(server, list, own?)),
            );
        }
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(FindError::Unknown {
                name: name.to_owned(),
                nearest: self.nearest(name, &lists).await,
                missing,
            }),
            _ => Err(FindError::Ambiguous {
                name: name.to_owned(),
                owners: found.into_iter().map(|found| found.server).collect(),
            }),
        }
    }

    /// Calls the tool that a name means, at its server and in somebody's name. Gives the result as the server wrote it; that of a tool
    /// that has failed says so by `isError`. The caller is one that can be asked nothing, and hears no progress.
    ///
    /// # Errors
    /// [`DiscoveryError`] when the name is not that of one tool, or its server has no result.
    pub async fn call(
        &self,
        name: &str,
        arguments: Map<String, Value>,
        principal: Principal,
    ) -> Result<Box<RawValue>, DiscoveryError> {
        // Calls go where their caller belongs; somebody of another tenant has none of these tools.
        if principal.tenant != self.catalogue.directory().tenant() {
            return Err(FindError::Unknown {
                name: name.to_owned(),
                nearest: Vec::new(),
                missing: Vec::new(),
            }
            .into());
        }
        let found = self.find(name).await?;
        let mut params = Map::new();
        params.insert("name".to_owned(), json!(found.name()));
        params.insert("arguments".to_owned(), Value::Object(arguments));
        let mut request = own_request(
            found.server.as_str(),
            method::TOOLS_CALL,
            params,
            &Map::new(),
            principal,
        );
        request.name = Some(found.name().to_owned());
        request.timeout_ms = u64::try_from(self.call_limit.as_millis()).unwrap_or(u64::MAX);
        let (_, body) = self.prepare(&found.server, request).await.last().await?;
        let refused = |source| DiscoveryError::Refused {
            server: found.server.clone(),
            source,
        };
        let message = Message::parse(&body).map_err(refused)?;
        match (message.result, message.error) {
            (Some(result), _) => Ok(result.to_owned()),
            (None, Some(error)) => Err(refused(serde_json::from_str(error.get()).unwrap_or_else(|_| {
                RpcError::internal("the server answered with an error that cannot be read")
            }))),
            (None, None) => Err(refused(RpcError::internal("the server's answer has no result"))),
        }
    }

    async fn prepare(&self, server: &ServerId, request: Request) -> Call {
        let snapshot = self.catalogue.directory().snapshot();
        let (called, principal) = (request.method.as_str(), &request.principal);
        let plan = Plan::new(&self.bus, &snapshot, server, called, principal, Begun::Nowhere);
        let may = self.catalogue.may_be_done_again(server, &plan, &request).await;
        let copy = may.copy.then(|| request.clone());
        plan.call(&self.bus, request, may.retry, copy)
    }

    fn chosen<'a>(&'a self, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a ServerCard> {
        let well = snapshot.well().map(|(_, card)| card);
        well.filter(|card| self.is_chosen(card))
    }

    fn is_chosen(&self, card: &ServerCard) -> bool {
        self.server.as_ref().is_none_or(|server| *server == card.id)
            && self.tags.iter().all(|tag| card.tags.contains(tag))
    }

    /// Who names a server means it, also while it is not well.
    async fn list_of(&self, server: &ServerId) -> Option<Arc<List>> {
        let snapshot = self.catalogue.directory().snapshot();
        snapshot.server(server).filter(|card| self.is_chosen(card))?;
        let list = timeout(LIST_LIMIT, self.catalogue.list(server, Listed::Tools)).await;
        list.ok()?.ok()
    }

    async fn lists(&self) -> (Vec<(ServerId, Arc<List>)>, Vec<ServerId>) {
        let snapshot = self.catalogue.directory().snapshot();
        self.indexes.keep(|id| snapshot.server(id).is_some());
        let asked = self.chosen(&snapshot).map(|card| async {
            let list = self.catalogue.list(&card.id, Listed::Tools);
            (card.id.clone(), timeout(LIST_LIMIT, list).await)
        });
        let (mut lists, mut missing) = (Vec::new(), Vec::new());
        for (id, answer) in join_all(asked).await {
            match answer {
                Ok(Ok(list)) => lists.push((id, list)),
                Ok(Err(error)) => {
                    debug!(%error, server.id = %id, "tools are found without this server's");
                    missing.push(id);
                }
                Err(_) => missing.push(id),
            }
        }
        (lists, missing)
    }

    async fn ranked(&self, query: &str, lists: &[(ServerId, Arc<List>)], limit: usize) -> Vec<Found> {
        let indexes = join_all(lists.iter().map(|(server, list)| self.indexes.of(server, list))).await;
        // What is not seen must not take the places of what is.
        let most = match &self.sight {
            Some(_) => usize::MAX,
            None => limit,
        };
        let hits = rank(
            query,
            &indexes.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
            most,
        );
        let found = hits.into_iter().map(|hit| {
            let (server, list) = &lists[hit.list];
            Found {
                server: server.clone(),
                list: Arc::clone(list),
                place: hit.place,
            }
        });
        found.filter(|found| self.sees(found)).take(limit).collect()
    }

    fn sees(&self, found: &Found) -> bool {
        let sight = self.sight.as_ref();
        sight.is_none_or(|sight| sight.shows(&found.server, Listed::Tools, found.item()))
    }

    fn at(&self, server: &ServerId, list: &Arc<List>, name: &str) -> Option<Found> {
        at(server, list, name).filter(|found| self.sees(found))
    }

    /// Names that may have been meant: those that are spelled alike, then those of tools that the words of the name find.
    async fn nearest(&self, name: &str, lists: &[(ServerId, Arc<List>)]) -> Vec<String> {
        let mut alike: HashMap<String, f64> = HashMap::new();
        for (server, list) in lists {
            let sight = self.sight.as_ref();
            let seen = list.items.iter();
            let seen = seen.filter(|item| sight.is_none_or(|sight| sight.shows(server, Listed::Tools, item)));
            for item in seen {
                let prefixed = server.prefixed(&item.key);
                let likeness =
                    strsim::jaro_winkler(name, &item.key).max(strsim::jaro_winkler(name, &prefixed));
                if likeness >= ALIKE {
                    alike.insert(prefixed, likeness);
                }
            }
        }
        let mut alike: Vec<_> = alike.into_iter().collect();
        alike.sort_by(|(a, one), (b, other)| other.total_cmp(one).then_with(|| a.cmp(b)));
        let mut nearest: Vec<String> = alike.into_iter().map(|(name, _)| name).take(NEAREST).collect();
        for found in self.ranked(name, lists, NEAREST).await {
            let prefixed = found.prefixed();
            if nearest.len() < NEAREST && !nearest.contains(&prefixed) {
                nearest.push(prefixed);
            }
        }
        nearest
    }
}

fn at(server: &ServerId, list: &Arc<List>, name: &str) -> Option<Found> {
    Some(Found {
        server: server.clone(),
        place: list.place(name)?,
        list: Arc::clone(list),
    })
}
