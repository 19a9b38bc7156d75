//! What an endpoint of many servers can do: what any of them can, as far as that can be told apart there.

use bus_schema::ServerCard;
use serde_json::{Map, Value, json};

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
