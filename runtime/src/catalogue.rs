//! What the servers on the bus offer: their lists, fetched once for each revision and kept as raw JSON.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bus_schema::{
    Principal, RpcError, ServerCard, ServerId,
    mcp::{
        meta, method,
        mirrored::{self, Mirrored},
    },
    rpc,
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tokio::sync::OnceCell;
use tracing::{debug, warn};

use crate::{
    bus::Bus,
    call::{CallError, Retry},
    directory::{Directory, LISTS, list_request},
};

/// The most pages that a server's list may have.
const MAX_PAGES: usize = 1_000;

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

/// The lists of one server at one revision.
#[derive(Debug, Default)]
pub struct Lists {
    /// Its tools.
    pub tools: Vec<Item>,
    /// Its prompts.
    pub prompts: Vec<Item>,
    /// Its resources.
    pub resources: Vec<Item>,
    /// Its resource templates.
    pub templates: Vec<Item>,
    /// Where each tool stands in `tools`.
    tool_places: HashMap<String, usize>,
}

impl Lists {
    /// A tool by name.
    #[must_use]
    pub fn tool(&self, name: &str) -> Option<&Item> {
        self.tool_places.get(name).map(|place| &self.tools[*place])
    }
}

/// Says why a server's lists are not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// The server is not on the bus.
    #[error("no server `{0}` is on the bus")]
    UnknownServer(ServerId),
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
    #[error("server `{server}` does not list what it offers: {source}")]
    Refused {
        /// Which server.
        server: ServerId,
        /// What it answered.
        #[source]
        source: RpcError,
    },
}

/// The lists of all servers, as far as anybody has asked for them.
#[derive(Clone)]
pub struct Catalogue {
    bus: Bus,
    directory: Directory,
    /// Held only to look up or insert a cell; whoever comes first fills it.
    cells: Arc<Mutex<HashMap<ServerId, Cell>>>,
}

#[derive(Clone)]
struct Cell {
    revision: String,
    lists: Arc<OnceCell<Arc<Lists>>>,
}

impl Catalogue {
    /// A catalogue of the servers that a directory knows.
    #[must_use]
    pub fn new(bus: Bus, directory: Directory) -> Self {
        Self {
            bus,
            directory,
            cells: Arc::default(),
        }
    }

    /// The directory that it stands on.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The lists of one server, fetched if they are not known at its present revision.
    ///
    /// # Errors
    /// [`CatalogueError`] when the server is not there or does not answer.
    pub async fn lists(&self, server: &ServerId) -> Result<Arc<Lists>, CatalogueError> {
        let snapshot = self.directory.snapshot();
        let card = snapshot
            .server(server)
            .ok_or_else(|| CatalogueError::UnknownServer(server.clone()))?;
        let cell = self.cell(card);
        cell.get_or_try_init(|| self.fetch(card)).await.cloned()
    }

    /// Whether a call may be made again when its host is lost: reading methods, and tools that are marked so.
    pub async fn retry(&self, server: &ServerId, called: &str, name: Option<&str>) -> Retry {
        if method::is_read_only(called) {
            return Retry::Safe;
        }
        let Some(name) = name.filter(|_| called == method::TOOLS_CALL) else {
            return Retry::Never;
        };
        match self.lists(server).await {
            Ok(lists) => lists
                .tools
                .iter()
                .find(|tool| tool.key == name)
                .map_or(Retry::Never, |tool| tool.retry),
            Err(error) => {
                debug!(%error, "cannot tell whether a tool may be called again");
                Retry::Never
            }
        }
    }

    fn cell(&self, card: &ServerCard) -> Arc<OnceCell<Arc<Lists>>> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        match cells.get(&card.id) {
            Some(cell) if cell.revision == card.revision => Arc::clone(&cell.lists),
            _ => {
                let lists = Arc::default();
                cells.insert(
                    card.id.clone(),
                    Cell {
                        revision: card.revision.clone(),
                        lists: Arc::clone(&lists),
                    },
                );
                lists
            }
        }
    }

    async fn fetch(&self, card: &ServerCard) -> Result<Arc<Lists>, CatalogueError> {
        let mut lists = Lists::default();
        for (capability, list, key) in LISTS {
            if !card.capabilities.contains_key(capability) {
                continue;
            }
            let items = match self.fetch_list(card, list, key).await {
                Err(CatalogueError::Refused { .. }) if list == method::TEMPLATES_LIST => Vec::new(),
                items => items?,
            };
            match list {
                method::TOOLS_LIST => lists.tools = items,
                method::PROMPTS_LIST => lists.prompts = items,
                method::RESOURCES_LIST => lists.resources = items,
                _ => lists.templates = items,
            }
        }
        lists.tool_places = lists
            .tools
            .iter()
            .enumerate()
            .map(|(at, tool)| (tool.key.clone(), at))
            .collect();
        Ok(Arc::new(lists))
    }

    async fn fetch_list(
        &self,
        card: &ServerCard,
        list: &str,
        key: &str,
    ) -> Result<Vec<Item>, CatalogueError> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let principal = Principal {
                subject: "catalogue".to_owned(),
                tenant: card.tenant.clone(),
                client: None,
            };
            let request = list_request(card.id.as_str(), list, cursor.as_deref(), principal);
            let (_, body) =
                self.bus
                    .ask(request, Retry::Safe)
                    .await
                    .map_err(|source| CatalogueError::Call {
                        server: card.id.clone(),
                        source,
                    })?;
            cursor = read_page(&body, key, &mut items).map_err(|source| CatalogueError::Refused {
                server: card.id.clone(),
                source,
            })?;
            if cursor.is_none() {
                break;
            }
        }
        Ok(items)
    }
}

/// Adds a page's items, and gives the cursor of the next page. An item that has no key is left out, and the others stay.
fn read_page(body: &[u8], key: &str, items: &mut Vec<Item>) -> Result<Option<String>, RpcError> {
    let message = rpc::Message::parse(body)?;
    if let Some(error) = message.error {
        let fallback = |_| RpcError::internal("the server answered with an error that cannot be read");
        return Err(serde_json::from_str(error.get()).unwrap_or_else(fallback));
    }
    let result = message
        .result
        .ok_or_else(|| RpcError::internal("the server's answer has no result"))?;
    let bad =
        |error: serde_json::Error| RpcError::internal(format!("the server's list cannot be read: {error}"));
    let fields: HashMap<String, &RawValue> = serde_json::from_str(result.get()).map_err(bad)?;
    let page: Vec<&RawValue> = fields
        .get(key)
        .map_or(Ok(Vec::new()), |raw| serde_json::from_str(raw.get()))
        .map_err(bad)?;
    for raw in page {
        match read_item(raw) {
            Some(item) => items.push(item),
            None => debug!("left out an item of a list that has no name"),
        }
    }
    Ok(fields
        .get("nextCursor")
        .and_then(|raw| meta::as_text(raw))
        .map(std::borrow::Cow::into_owned))
}

fn read_item(raw: &RawValue) -> Option<Item> {
    #[derive(Deserialize)]
    struct Peek<'a> {
        #[serde(borrow, default, rename = "uri")]
        uri: Option<&'a RawValue>,
        #[serde(borrow, default, rename = "uriTemplate")]
        uri_template: Option<&'a RawValue>,
        #[serde(borrow, default)]
        name: Option<&'a RawValue>,
        #[serde(default, deserialize_with = "lenient")]
        annotations: Annotations,
        #[serde(default, rename = "inputSchema")]
        input_schema: Value,
    }
    let peek: Peek<'_> = serde_json::from_str(raw.get()).ok()?;
    let key = meta::as_text(peek.uri.or(peek.uri_template).or(peek.name)?)?.into_owned();
    let repeatable = peek.annotations.read_only_hint || peek.annotations.idempotent_hint;
    let mirrored = mirrored::mirrored(&peek.input_schema).unwrap_or_else(|error| {
        warn!(%error, tool.name = %key, "the tool's header annotations cannot be used");
        Vec::new()
    });
    let retry = if repeatable { Retry::Safe } else { Retry::Never };
    Some(Item {
        key,
        json: raw.to_owned(),
        retry,
        mirrored,
    })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Annotations {
    read_only_hint: bool,
    idempotent_hint: bool,
}

/// Annotations are hints of a server; malformed ones count as none.
fn lenient<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Annotations, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).unwrap_or_default())
}
