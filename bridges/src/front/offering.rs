//! How an endpoint presents itself: what it can do, what it is called, and how a model should use it.
//!
//! One of many servers can do what any of them can, as far as that can be told apart there.

use bus_schema::{
    RpcError, ServerCard, ServerId,
    mcp::{meta, method},
};
use serde_json::{Map, Value, json};

use super::{Endpoint, Front, IMPLEMENTATION, search_first, tasks::hosts_tasks};

impl Front {
    /// The card of the one server that an endpoint shows, or what stands for one when that is virtual; `None` when it shows all, or the server is not there.
    #[must_use]
    pub fn card(&self, endpoint: &Endpoint) -> Option<ServerCard> {
        match endpoint {
            Endpoint::All | Endpoint::Search => None,
            Endpoint::Server(id) => match self.virtual_server(endpoint) {
                Some(defined) => Some(self.0.faces.card(&defined)),
                None => self.directory().snapshot().server(id).cloned(),
            },
        }
    }

    /// The capabilities that an endpoint really serves.
    #[must_use]
    pub fn capabilities(&self, endpoint: &Endpoint) -> Map<String, Value> {
        let snapshot = self.directory().snapshot();
        match endpoint {
            Endpoint::Server(id) => match self.virtual_server(endpoint) {
                Some(defined) => self.0.faces.capabilities(&defined),
                None => snapshot
                    .server(id)
                    .map(|card| hosting(card.capabilities.clone(), [card].into_iter()))
                    .unwrap_or_default(),
            },
            Endpoint::All => {
                let cards = || snapshot.servers().map(|(_, card)| card);
                hosting(union(cards()), cards())
            }
            Endpoint::Search => {
                let mut union = union(snapshot.servers().map(|(_, card)| card));
                // The two tools are always there, and never others.
                union.insert("tools".to_owned(), json!({}));
                union
            }
        }
    }

    /// Checks whether an endpoint serves a method at all.
    ///
    /// # Errors
    /// Method not found.
    pub fn check_method(&self, endpoint: &Endpoint, called: &str) -> Result<(), RpcError> {
        let served = if method::SERVED.contains(&called) {
            self.offers(endpoint, called)
        } else if method::TASKS.contains(&called) {
            match endpoint {
                Endpoint::Search => false,
                Endpoint::All => has_tasks(&self.capabilities(endpoint)),
                // A server that is away for a moment has not lost what it had.
                Endpoint::Server(_) => {
                    self.card(endpoint).is_none() || has_tasks(&self.capabilities(endpoint))
                }
            }
        } else {
            method::is_custom(called)
                && match endpoint {
                    Endpoint::Server(_) => self.virtual_server(endpoint).is_none(),
                    Endpoint::All | Endpoint::Search => ServerId::split_prefixed(called)
                        .is_some_and(|(id, _)| self.directory().snapshot().server(&id).is_some()),
                }
        };
        if served {
            Ok(())
        } else {
            Err(RpcError::method_not_found(called))
        }
    }

    /// Whether an endpoint advertises what a method needs. An unknown server advertises everything, as its calls say more.
    fn offers(&self, endpoint: &Endpoint, called: &str) -> bool {
        let Some(capability) = method::capability(called) else {
            return true;
        };
        let snapshot = self.directory().snapshot();
        match endpoint {
            Endpoint::Server(id) => match self.virtual_server(endpoint) {
                Some(defined) => self.0.faces.capabilities(&defined).contains_key(capability),
                None => snapshot
                    .server(id)
                    .is_none_or(|card| card.capabilities.contains_key(capability)),
            },
            // A platform without servers is not without tools; it has none at the moment.
            Endpoint::All | Endpoint::Search => {
                snapshot.servers().next().is_none()
                    || snapshot
                        .servers()
                        .any(|(_, card)| card.capabilities.contains_key(capability))
            }
        }
    }

    /// How an endpoint introduces itself.
    #[must_use]
    pub fn server_info(&self, endpoint: &Endpoint) -> Value {
        match (endpoint, self.card(endpoint)) {
            (Endpoint::Server(id), Some(card)) => {
                json!({ "name": id.as_str(), "title": card.title, "version": card.version })
            }
            _ => {
                json!({ "name": IMPLEMENTATION, "title": "Trunkline", "version": env!("CARGO_PKG_VERSION") })
            }
        }
    }

    /// How a model should use an endpoint.
    #[must_use]
    pub fn instructions(&self, endpoint: &Endpoint) -> Option<String> {
        match endpoint {
            Endpoint::Server(_) => self.card(endpoint).and_then(|card| card.instructions),
            Endpoint::Search => Some(search_first::INSTRUCTIONS.to_owned()),
            Endpoint::All => {
                let text = "This endpoint shows many servers. Tool and prompt names begin with the server's id and `__`.";
                Some(text.to_owned())
            }
        }
    }
}

/// Whether a server's capabilities have the extension for tasks.
pub(super) fn has_tasks(capabilities: &Map<String, Value>) -> bool {
    capabilities
        .get("extensions")
        .is_some_and(|extensions| extensions.get(meta::TASKS_EXTENSION).is_some())
}

/// Capabilities with what the platform does for these servers, which they need not know of.
fn hosting<'a>(
    mut capabilities: Map<String, Value>,
    mut cards: impl Iterator<Item = &'a ServerCard>,
) -> Map<String, Value> {
    if cards.any(hosts_tasks) {
        let extensions = capabilities.entry("extensions").or_insert_with(|| json!({}));
        if let Some(extensions) = extensions.as_object_mut() {
            extensions
                .entry(meta::TASKS_EXTENSION)
                .or_insert_with(|| json!({}));
        }
    }
    capabilities
}

/// The capabilities of these servers together.
pub(super) fn union<'a>(cards: impl Iterator<Item = &'a ServerCard>) -> Map<String, Value> {
    let mut union = Map::new();
    for capabilities in cards.map(|card| &card.capabilities) {
        let subscribe = capabilities
            .get("resources")
            .is_some_and(|resources| resources["subscribe"] == true);
        for key in capabilities.keys() {
            // What is not a plain list belongs to one server and is offered on its own endpoint.
            let one = match key.as_str() {
                "tools" | "prompts" => json!({ "listChanged": true }),
                "resources" if subscribe => json!({ "listChanged": true, "subscribe": true }),
                "resources" => json!({ "listChanged": true }),
                "completions" | "logging" => json!({}),
                _ => continue,
            };
            if subscribe || !union.contains_key(key) {
                union.insert(key.clone(), one);
            }
        }
    }
    union
}
