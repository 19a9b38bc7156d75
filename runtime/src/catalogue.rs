//! What the servers on the bus offer: their lists, fetched once for each revision and kept as raw JSON.

mod kept;
mod page;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bus_schema::{
    Principal, Request, RpcError, ServerCard, ServerId,
    mcp::{method, mirrored::Mirrored},
};
use bytes::Bytes;
use serde_json::{Map, Value, json, value::RawValue};
use tokio::time::timeout;
use tracing::debug;

use crate::{
    bus::Bus,
    call::{CallError, Retry},
    directory::{Directory, Snapshot},
    own_request::own_request,
    traffic::{Begun, Plan},
};

use kept::{Kept, Lists};
#[cfg(test)]
use page::read_item;
use page::read_page;

/// How long a call waits for a list that says how it is to be made.
const SOON: Duration = Duration::from_secs(1);
/// How many bytes all pages of one list may have.
const MAX_LIST_BYTES: usize = 64 * 1024 * 1024;
/// How often a page is asked for until a replica of the right revision answers; replicas are picked at random.
const REVISION_ATTEMPTS: usize = 8;
/// For how long a list is kept that only clients of certain capabilities see.
pub const LISTS_OF_SOME: Duration = Duration::from_secs(300);
/// The most pages that a server's list may have.
pub(crate) const MAX_PAGES: usize = 1_000;

/// One tool, prompt, resource or template of a server.
#[derive(Debug)]
pub struct Item {
    /// Its name, or its URI or URI template for resources.
    pub key: String,
    /// The whole item as the server wrote it.
    pub json: Box<RawValue>,
    /// Whether it is marked read-only or idempotent (tools only).
    pub retry: Retry,
    /// The arguments that HTTP clients repeat in headers (tools only).
    pub mirrored: Vec<Mirrored>,
}

/// Which of a server's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// Its tools.
    Tools,
    /// Its prompts.
    Prompts,
    /// Its resources.
    Resources,
    /// Its resource templates.
    Templates,
}

impl Listed {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Tools, Self::Prompts, Self::Resources, Self::Templates];

    /// The list that a method asks for.
    #[must_use]
    pub fn of(called: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|list| list.method() == called)
    }

    /// The method that asks for it.
    #[must_use]
    pub const fn method(self) -> &'static str {
        match self {
            Self::Tools => method::TOOLS_LIST,
            Self::Prompts => method::PROMPTS_LIST,
            Self::Resources => method::RESOURCES_LIST,
            Self::Templates => method::TEMPLATES_LIST,
        }
    }

    /// Where the items stand in the result.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
        }
    }

    /// The capability that a server with such a list declares.
    #[must_use]
    pub const fn capability(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources | Self::Templates => "resources",
        }
    }
}

/// One list of a server at one revision.
#[derive(Debug, Default)]
pub struct List {
    /// What stands in it, in the server's order.
    pub items: Vec<Item>,
    /// Where each item stands, by its key.
    places: HashMap<String, usize>,
}

impl List {
    fn new(items: Vec<Item>) -> Self {
        let places = items
            .iter()
            .enumerate()
            .map(|(at, item)| (item.key.clone(), at))
            .collect();
        Self { items, places }
    }

    /// A list of items that are written out; those that have no name are left out.
    #[cfg(test)]
    pub(crate) fn read(items: &[&str]) -> Self {
        let raw = items.iter().map(|item| serde_json::from_str(item).expect("JSON"));
        Self::new(raw.filter_map(read_item).collect())
    }

    /// Where an item stands, by its name or URI.
    pub(crate) fn place(&self, key: &str) -> Option<usize> {
        self.places.get(key).copied()
    }

    /// Whether it consists of just these items.
    fn shows(&self, items: &[Item]) -> bool {
        items.len() == self.items.len()
            && items
                .iter()
                .zip(&self.items)
                .all(|(a, b)| a.json.get() == b.json.get())
    }

    /// An item by its name or URI.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Item> {
        self.places.get(key).map(|place| &self.items[*place])
    }
}

/// Says why a server's lists are not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// The server is not on the bus.
    #[error("no server `{0}` is on the bus")]
    UnknownServer(ServerId),
    /// Only replicas of another revision have answered.
    #[error("server `{0}` is being upgraded, and its replicas disagree; ask again shortly")]
    Upgrading(ServerId),
    /// It could not be asked.
    #[error("cannot list what server `{server}` offers")]
    Call {
        /// Which server.
        server: ServerId,
        /// Why not.
        #[source]
        source: CallError,
    },
    /// It answered with an error.
    #[error("server `{server}` does not list what it offers")]
    Refused {
        /// Which server.
        server: ServerId,
        /// What it answered.
        #[source]
        source: RpcError,
    },
}

/// What of a call may be done more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    /// Whether it may be made again when its host is lost.
    pub retry: Retry,
    /// Whether the version on trial may be asked the same, if there is one.
    pub copy: bool,
}

/// The lists of all servers, as far as anybody has asked for them.
#[derive(Clone)]
pub struct Catalogue {
    bus: Bus,
    directory: Directory,
    /// By server and version. Held only to look up or insert a cell; whoever comes first fills it.
    kept: Arc<Mutex<HashMap<ServerId, BTreeMap<String, Kept>>>>,
}

impl Catalogue {
    /// A catalogue of the servers that a directory knows.
    #[must_use]
    pub fn new(bus: Bus, directory: Directory) -> Self {
        Self {
            bus,
            directory,
            kept: Arc::default(),
        }
    }

    /// The directory that it stands on.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// One list of a server as every client sees it, fetched if it is not known at the server's present revision.
    ///
    /// # Errors
    /// [`CatalogueError`] when the server is not there or does not answer.
    pub async fn list(&self, server: &ServerId, list: Listed) -> Result<Arc<List>, CatalogueError> {
        self.list_for(server, list, &Map::new()).await
    }

    /// The same as clients see it that declare these capabilities. What the server shows to them only may have changed up to
    /// [`LISTS_OF_SOME`] ago.
    ///
    /// # Errors
    /// [`CatalogueError`] when the server is not there or does not answer.
    pub async fn list_for(
        &self,
        server: &ServerId,
        list: Listed,
        capabilities: &Map<String, Value>,
    ) -> Result<Arc<List>, CatalogueError> {
        let snapshot = self.directory.snapshot();
        let unknown = || CatalogueError::UnknownServer(server.clone());
        let card = snapshot.server(server).ok_or_else(unknown)?;
        self.list_of(&snapshot, card, list, capabilities).await
    }

    /// The same of the version that a card is of.
    async fn list_of(
        &self,
        snapshot: &Snapshot,
        card: &ServerCard,
        list: Listed,
        capabilities: &Map<String, Value>,
    ) -> Result<Arc<List>, CatalogueError> {
        let lists = self.lists(snapshot, card, capabilities);
        lists[list as usize]
            .get_or_try_init(|| self.fetch(snapshot, card, list, capabilities))
            .await
            .cloned()
    }

    /// What of a planned call may be done more than once, as the versions say that it goes to.
    pub async fn may_be_done_again(&self, server: &ServerId, plan: &Plan, request: &Request) -> Again {
        let (called, name) = (request.method.as_str(), request.name.as_deref());
        let retry = self.retry(server, plan.version(), called, name).await;
        let copy = match plan.trial().filter(|_| retry == Retry::Reads) {
            Some(trial) => self.retry(server, Some(trial), called, name).await == Retry::Reads,
            None => false,
        };
        Again { retry, copy }
    }

    /// Whether a call may be made again when its host is lost: reading methods, and tools that are marked so by the version that
    /// is called, or by the one that stands for the server.
    async fn retry(
        &self,
        server: &ServerId,
        version: Option<&str>,
        called: &str,
        name: Option<&str>,
    ) -> Retry {
        let reads = method::is_read_only(called);
        let tool = name.filter(|_| called == method::TOOLS_CALL);
        if !reads && tool.is_none() {
            return Retry::Never;
        }
        let snapshot = self.directory.snapshot();
        let card = match version {
            Some(version) => snapshot.of_version(server, version),
            None => snapshot.server(server),
        };
        let (card, name) = match (card, tool) {
            (Some(card), _) if card.at_most_once => return Retry::Never,
            _ if reads => return Retry::Reads,
            (Some(card), Some(name)) => (card, name),
            _ => return Retry::Never,
        };
        let everybody = Map::new();
        let tools = self.list_of(&snapshot, card, Listed::Tools, &everybody);
        match soon(server, tools).await {
            Some(tools) => tools.get(name).map_or(Retry::Never, |tool| tool.retry),
            None => Retry::Never,
        }
    }

    /// One list of a server, if it can be had without keeping a call waiting.
    pub async fn list_soon(&self, server: &ServerId, list: Listed) -> Option<Arc<List>> {
        soon(server, self.list(server, list)).await
    }
    fn lists(&self, snapshot: &Snapshot, card: &ServerCard, capabilities: &Map<String, Value>) -> Lists {
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let versions = all.entry(card.id.clone()).or_default();
        if !versions.contains_key(&card.version) {
            versions.retain(|version, _| snapshot.of_version(&card.id, version).is_some());
        }
        let revision = format!("{}.{}", card.revision, snapshot.looks);
        let kept = versions
            .entry(card.version.clone())
            .or_insert_with(|| Kept::new(&revision));
        if kept.revision != revision {
            *kept = Kept::new(&revision);
        }
        kept.see(&card.lists);
        kept.lists(capabilities)
    }

    async fn fetch(
        &self,
        snapshot: &Snapshot,
        card: &ServerCard,
        list: Listed,
        capabilities: &Map<String, Value>,
    ) -> Result<Arc<List>, CatalogueError> {
        if !card.capabilities.contains_key(list.capability()) {
            return Ok(Arc::default());
        }
        let items = match self.fetch_items(card, list, capabilities).await {
            // A server may offer resources and know no templates.
            Err(CatalogueError::Refused { .. }) if list == Listed::Templates => return Ok(Arc::default()),
            items => items?,
        };
        // Most servers show the same to everybody, and then one copy is enough.
        let of_all = self.lists(snapshot, card, &Map::new());
        let same = of_all[list as usize].get().filter(|known| known.shows(&items));
        Ok(same.map_or_else(|| Arc::new(List::new(items)), Arc::clone))
    }

    async fn fetch_items(
        &self,
        card: &ServerCard,
        list: Listed,
        capabilities: &Map<String, Value>,
    ) -> Result<Vec<Item>, CatalogueError> {
        let mut items = Vec::new();
        let mut bytes = 0;
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let page = Question {
                method: list.method(),
                cursor: cursor.as_deref(),
                capabilities,
            };
            let body = self.fetch_page(card, &page).await?;
            bytes += body.len();
            let next =
                read_page(&body, list.key(), &mut items).map_err(|source| CatalogueError::Refused {
                    server: card.id.clone(),
                    source,
                })?;
            if next.is_none() || next == cursor || bytes > MAX_LIST_BYTES {
                break;
            }
            cursor = next;
        }
        Ok(items)
    }

    /// One page, from a replica with the revision that the list is kept under. During an upgrade the others answer as well.
    async fn fetch_page(&self, card: &ServerCard, page: &Question<'_>) -> Result<Bytes, CatalogueError> {
        for _ in 0..REVISION_ATTEMPTS {
            let principal = Principal::platform("catalogue", &card.tenant);
            let request = request_for(card.id.as_str(), page, principal);
            let snapshot = self.directory.snapshot();
            let begun = if snapshot.tells_apart(&card.id) {
                Begun::On(&card.version)
            } else {
                Begun::Nowhere
            };
            let plan = Plan::new(
                &self.bus,
                &snapshot,
                &card.id,
                page.method,
                &request.principal,
                begun,
            );
            let mut call = plan.call(&self.bus, request, Retry::Reads, None);
            let answer = call.last().await;
            let (_, body) = answer.map_err(|source| CatalogueError::Call {
                server: card.id.clone(),
                source,
            })?;
            let snapshot = self.directory.snapshot();
            let mut replicas = snapshot.replicas(&card.id).iter();
            let answered = replicas.find(|replica| call.answered_by() == Some(replica.instance.as_str()));
            if answered.is_none_or(|replica| replica.revision == card.revision) {
                return Ok(body);
            }
        }
        Err(CatalogueError::Upgrading(card.id.clone()))
    }
}

/// What comes in time for a call.
async fn soon(
    server: &ServerId,
    list: impl Future<Output = Result<Arc<List>, CatalogueError>>,
) -> Option<Arc<List>> {
    match timeout(SOON, list).await {
        Ok(Ok(list)) => Some(list),
        Ok(Err(error)) => {
            debug!(%error, "a list is not known");
            None
        }
        Err(_) => {
            debug!(server.id = %server, "a list did not come in time for a call");
            None
        }
    }
}

/// What the platform itself asks of a server, to learn what it offers.
pub(crate) struct Question<'a> {
    /// A method that describes, or lists.
    pub(crate) method: &'static str,
    /// Where a list goes on; absent for its first page.
    pub(crate) cursor: Option<&'a str>,
    /// Which clients the answer is for.
    pub(crate) capabilities: &'a Map<String, Value>,
}

/// The request that asks it.
pub(crate) fn request_for(server: &str, question: &Question<'_>, principal: Principal) -> Request {
    let Question {
        method,
        cursor,
        capabilities,
    } = question;
    let mut params = Map::new();
    if let Some(cursor) = cursor {
        params.insert("cursor".to_owned(), json!(cursor));
    }
    own_request(server, method, params, capabilities, principal)
}
