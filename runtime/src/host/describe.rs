//! Asks a server to describe itself, and makes its card of the answers.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bus_schema::{
    Principal, Request, ServerCard,
    card::ListDigests,
    integrity::{Offered, Tool},
    mcp::{meta, method},
    rpc,
};
use bytes::Bytes;
use serde_json::{Map, Value, value::RawValue};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use tracing::warn;

use super::{HostError, HostOptions, McpServer, Parts, deprecated, tool_list};
use crate::{
    bus::Bus,
    catalogue::{Listed, MAX_PAGES, Question, request_for},
};

/// The `_meta` key by which a tool says how long its calls may take, in milliseconds.
const TIMEOUT_KEY: &str = "io.trunkline/timeoutMs";

/// What a server says of itself.
pub(super) struct Description {
    pub(super) card: ServerCard,
    /// The digests of the lists as all see them.
    lists: ListDigests,
    /// How often each list has changed for some callers only.
    private_changes: [u64; 3],
    /// How long calls of single tools may take, where they say so.
    pub(super) tool_timeouts: HashMap<String, Duration>,
    /// The tools that are marked as deprecated.
    pub(super) deprecated: HashSet<String>,
    /// All tools that the server offers, also those that are withheld.
    pub(super) offered: Arc<Offered>,
}

impl Description {
    /// That of a server which nobody has asked anything.
    pub(super) fn bare(bus: &Bus, options: &HostOptions) -> Self {
        Self {
            card: bare_card(bus, options),
            lists: ListDigests::default(),
            private_changes: [0; 3],
            tool_timeouts: options.tool_timeouts.clone(),
            deprecated: HashSet::new(),
            offered: Arc::default(),
        }
    }

    /// Makes the card tell of what is shown.
    pub(super) fn show(&mut self, withheld: impl Fn(&Tool) -> bool) {
        if self.card.offered.is_empty() {
            return;
        }
        let mut digest = Sha256::new();
        self.card.tools = 0;
        for tool in self.offered.tools.iter().filter(|tool| !withheld(tool)) {
            digest.update(&tool.digest);
            self.card.tools += 1;
        }
        self.lists.tools = short_digest(digest);
        tell(&mut self.card, &self.lists, self.private_changes);
    }
}

/// Makes a card tell of lists. What has changed for some callers only is told to all who listen; it makes no other revision of what
/// all see.
fn tell(card: &mut ServerCard, lists: &ListDigests, private_changes: [u64; 3]) {
    let mut digest = Sha256::new();
    digest.update(serde_json::to_vec(&card.capabilities).unwrap_or_default());
    digest.update(serde_json::to_vec(lists).unwrap_or_default());
    card.revision = short_digest(digest);
    card.lists = lists.clone();
    let lists = &mut card.lists;
    let counted = [&mut lists.tools, &mut lists.prompts, &mut lists.resources];
    for (digest, changes) in counted.into_iter().zip(private_changes) {
        if changes > 0 && !digest.is_empty() {
            *digest += &format!("-{changes}");
        }
    }
}

/// Asks a server to describe itself, through the same requests that any client makes.
pub(super) async fn describe(
    bus: &Bus,
    server: &Arc<dyn McpServer>,
    options: &HostOptions,
) -> Result<Description, HostError> {
    let (discovered, _) = ask(bus, server, options, method::DISCOVER, None).await?;
    let capabilities = discovered
        .get("capabilities")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let info = discovered.pointer(&format!("/_meta/{}", meta::SERVER_INFO.replace('/', "~1")));
    let text = |key: &str| {
        info.and_then(|i| i.get(key))
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let lists = Lists::ask(bus, server, options, &capabilities).await?;
    let mut card = ServerCard {
        offered: lists.offered_digest,
        title: text("title")
            .or_else(|| text("name"))
            .unwrap_or_else(|| options.id.to_string()),
        version: text("version").unwrap_or_else(|| "0.0.0".to_owned()),
        instructions: discovered
            .get("instructions")
            .and_then(Value::as_str)
            .map(str::to_owned),
        protocol_version: server.protocol_version(),
        capabilities,
        tools: lists.counts[0],
        prompts: lists.counts[1],
        resources: lists.counts[2] + lists.counts[3],
        ..bare_card(bus, options)
    };
    let private_changes = server.private_changes();
    tell(&mut card, &lists.digests, private_changes);
    let mut tool_timeouts = lists.tool_timeouts;
    // What an operator says wins over what the tool says.
    tool_timeouts.extend(options.tool_timeouts.clone());
    Ok(Description {
        card,
        lists: lists.digests,
        private_changes,
        tool_timeouts,
        deprecated: lists.deprecated,
        offered: Arc::new(lists.offered),
    })
}

/// What a description takes of a server's lists.
struct Lists {
    digests: ListDigests,
    /// How long each of [`Listed::ALL`] is.
    counts: [u32; 4],
    tool_timeouts: HashMap<String, Duration>,
    deprecated: HashSet<String>,
    offered: Offered,
    offered_digest: String,
}

impl Lists {
    async fn ask(
        bus: &Bus,
        server: &Arc<dyn McpServer>,
        options: &HostOptions,
        capabilities: &Map<String, Value>,
    ) -> Result<Self, HostError> {
        let mut counts = [0; 4];
        let mut digests: [String; 4] = Default::default();
        let mut tool_timeouts = HashMap::new();
        let mut marked = HashSet::new();
        let mut offered = Offered::default();
        let mut offered_digest = String::new();
        for (at, list) in Listed::ALL.into_iter().enumerate() {
            if !capabilities.contains_key(list.capability()) {
                continue;
            }
            let Asked { items, tools } = ask_list(bus, server, options, list).await?;
            counts[at] = u32::try_from(items.len()).unwrap_or(u32::MAX);
            let mut digest = Sha256::new();
            digest.update(serde_json::to_vec(&items).unwrap_or_default());
            digests[at] = short_digest(digest);
            if list == Listed::Tools {
                let mut digest = Sha256::new();
                for tool in &tools {
                    digest.update(&tool.digest);
                }
                offered_digest = short_digest(digest);
                offered = Offered { tools };
                tool_timeouts.extend(items.iter().filter_map(own_timeout));
                marked = deprecated::names(&items);
            }
        }
        let [tools, prompts, resources, templates] = digests;
        let digests = ListDigests {
            tools,
            prompts,
            // A server that has the one has the other.
            resources: resources + &templates,
        };
        Ok(Self {
            digests,
            counts,
            tool_timeouts,
            deprecated: marked,
            offered,
            offered_digest,
        })
    }
}

fn own_timeout(tool: &Value) -> Option<(String, Duration)> {
    let name = tool.get("name")?.as_str()?;
    let millis = tool.get("_meta")?.get(TIMEOUT_KEY)?.as_u64()?;
    Some((name.to_owned(), Duration::from_millis(millis)))
}

/// The card of a server that nobody has asked anything.
fn bare_card(bus: &Bus, options: &HostOptions) -> ServerCard {
    ServerCard {
        id: options.id.clone(),
        instance: bus.instance().to_owned(),
        place: bus.place().clone(),
        tenant: options.tenant.clone(),
        title: options.id.to_string(),
        version: "0.0.0".to_owned(),
        instructions: None,
        tags: options.tags.clone(),
        protocol_version: bus_schema::ProtocolVersion::MODERN.to_string(),
        capabilities: serde_json::Map::new(),
        revision: String::new(),
        lists: ListDigests::default(),
        offered: String::new(),
        tools: 0,
        prompts: 0,
        resources: 0,
        max_in_flight: options.max_in_flight,
        tasks: options.tasks.clone(),
        at_most_once: options.retry.is_some_and(|retry| retry.is_never()),
        trouble: None,
    }
}

fn short_digest(digest: Sha256) -> String {
    digest.finalize()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What a list has in it.
#[derive(Default)]
struct Asked {
    items: Vec<Value>,
    /// The same as definitions, of a list of tools.
    tools: Vec<Tool>,
}

/// All pages of one list.
async fn ask_list(
    bus: &Bus,
    server: &Arc<dyn McpServer>,
    options: &HostOptions,
    list: Listed,
) -> Result<Asked, HostError> {
    let mut all = Asked::default();
    let mut cursor = None;
    for _ in 0..MAX_PAGES {
        // A server may offer resources and know no templates.
        let (mut page, body) = match ask(bus, server, options, list.method(), cursor.as_deref()).await {
            Ok(page) => page,
            Err(_) if list == Listed::Templates => break,
            Err(error) => return Err(error),
        };
        if list == Listed::Tools {
            let (_, tools) = tool_list::read(&body).unzip();
            all.tools
                .extend(tools.into_iter().flatten().filter_map(Tool::read));
        }
        if let Some(items) = page.get_mut(list.key()).and_then(Value::as_array_mut) {
            all.items.append(items);
        }
        cursor = page.get("nextCursor").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    Ok(all)
}

async fn ask(
    bus: &Bus,
    server: &Arc<dyn McpServer>,
    options: &HostOptions,
    called: &'static str,
    cursor: Option<&str>,
) -> Result<(Value, Bytes), HostError> {
    let wrong = |why: String| HostError::Description { method: called, why };
    let principal = Principal::platform("host", &options.tenant);
    let question = Question {
        method: called,
        cursor,
        capabilities: &Map::new(),
    };
    let request = Request {
        caller: bus.instance().to_owned(),
        ..request_for(options.id.as_str(), &question, principal)
    };
    // Nobody listens for notifications here: without a receiver they are dropped.
    let (parts, _) = mpsc::channel(1);
    let asked = Arc::clone(server).handle(request, Parts::new(parts));
    let limit = Instant::now() + Duration::from_secs(30);
    let outcome = timeout_at(limit, asked)
        .await
        .map_err(|_| wrong("none within 30 s".to_owned()))?;
    // A description is of what goes out.
    let outcome = if called == method::TOOLS_LIST {
        tool_list::edit(outcome, |tool, why| {
            warn!(server.id = %options.id, tool.name = tool, "left a tool out, as HTTP clients have to: {why}");
        })
    } else {
        outcome
    };
    let message = rpc::Message::parse(&outcome.body).map_err(|error| wrong(error.message))?;
    match (message.result, message.error) {
        (Some(result), _) => {
            let result = serde_json::from_str(result.get()).map_err(|error| wrong(error.to_string()))?;
            Ok((result, outcome.body))
        }
        (None, error) => Err(wrong(error.map_or("it is no response", RawValue::get).to_owned())),
    }
}
