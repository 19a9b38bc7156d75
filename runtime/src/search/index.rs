//! The index of one list of tools, and the ranking over several of them as if they were one.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use serde::Deserialize;
use serde_json::Value;

use super::words::words;
use crate::catalogue::{Item, List};

/// How much a word counts by where it stands.
const IN_NAME: f32 = 4.0;
const IN_TITLE: f32 = 3.0;
const IN_DESCRIPTION: f32 = 1.0;
const IN_SCHEMA: f32 = 0.5;
/// How soon a word that comes again says nothing new.
const SATURATION: f32 = 1.2;
/// How much a long text counts against its words.
const BY_LENGTH: f32 = 0.75;
/// How much a word counts that only begins as one of the query does.
const BEGINNING: f32 = 0.5;
/// How long the beginning of a word must be to be looked for.
const SHORTEST_BEGINNING: usize = 3;
/// How many words a beginning may stand for.
const MOST_CONTINUED: usize = 64;
/// How many words of a query count.
const MOST_ASKED: usize = 64;

/// The words of one list of tools, and where they stand.
#[derive(Debug, Default)]
pub struct Index {
    /// How long each tool's texts are, each word weighted by its place.
    lengths: Vec<f32>,
    /// The tools that have a word, with how much it counts there.
    places: BTreeMap<String, Vec<(usize, f32)>>,
}

/// A tool that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// In which of the lists.
    pub list: usize,
    /// Where it stands there.
    pub place: usize,
    /// How well it fits; only good for comparing within one search.
    pub score: f32,
}

impl Index {
    /// Reads a list.
    #[must_use]
    pub fn new(list: &List) -> Self {
        let mut index = Self::default();
        for (place, item) in list.items.iter().enumerate() {
            let counted = count(item);
            index.lengths.push(counted.values().sum());
            for (word, weight) in counted {
                index.places.entry(word).or_default().push((place, weight));
            }
        }
        index
    }

    fn having(&self, word: &str) -> &[(usize, f32)] {
        self.places.get(word).map(Vec::as_slice).unwrap_or_default()
    }

    fn continued<'a>(&'a self, beginning: &'a str) -> impl Iterator<Item = &'a str> {
        self.places
            .range(beginning.to_owned()..)
            .map(|(word, _)| word.as_str())
            .take_while(move |word| word.starts_with(beginning))
            .take(MOST_CONTINUED)
    }
}

/// The best of all tools of these lists for a query, at most `limit`. Tools that fit as well stand in the order of their lists.
#[must_use]
pub fn rank(query: &str, lists: &[&Index], limit: usize) -> Vec<Hit> {
    let mut found: BTreeMap<(usize, usize), f32> = BTreeMap::new();
    let tools: usize = lists.iter().map(|list| list.lengths.len()).sum();
    let length: f32 = lists.iter().flat_map(|list| &list.lengths).sum();
    let average = (length / as_f32(tools)).max(f32::MIN_POSITIVE);
    for (word, weight) in asked(query, lists) {
        let having: usize = lists.iter().map(|list| list.having(&word).len()).sum();
        let rarity = (1.0 + (as_f32(tools - having) + 0.5) / (as_f32(having) + 0.5)).ln();
        for (list, index) in lists.iter().enumerate() {
            for (place, count) in index.having(&word) {
                let long = 1.0 - BY_LENGTH + BY_LENGTH * index.lengths[*place] / average;
                let fits = count * (SATURATION + 1.0) / (count + SATURATION * long);
                *found.entry((list, *place)).or_default() += weight * rarity * fits;
            }
        }
    }
    let mut hits: Vec<_> = found
        .into_iter()
        .map(|((list, place), score)| Hit { list, place, score })
        .collect();
    hits.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal));
    hits.truncate(limit);
    hits
}

/// The words to look for. One that no tool has stands for those that begin with it.
fn asked(query: &str, lists: &[&Index]) -> Vec<(String, f32)> {
    let mut asked = Vec::new();
    let unique: BTreeSet<String> = words(query).into_iter().take(MOST_ASKED).collect();
    for word in unique {
        if lists.iter().any(|list| !list.having(&word).is_empty()) {
            asked.push((word, 1.0));
        } else if word.chars().count() >= SHORTEST_BEGINNING {
            let continued: BTreeSet<&str> = lists.iter().flat_map(|list| list.continued(&word)).collect();
            asked.extend(continued.into_iter().map(|word| (word.to_owned(), BEGINNING)));
        }
    }
    asked
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of tools are far below what a float holds"
)]
fn as_f32(count: usize) -> f32 {
    count as f32
}

/// The words of a tool, with how much each counts.
fn count(item: &Item) -> BTreeMap<String, f32> {
    #[derive(Deserialize, Default)]
    #[serde(default, rename_all = "camelCase")]
    struct Tool {
        title: Value,
        description: Value,
        annotations: Value,
        input_schema: Value,
    }
    let tool: Tool = serde_json::from_str(item.json.get()).unwrap_or_default();
    let mut counted = BTreeMap::new();
    let mut add = |text: &str, weight: f32| {
        for word in words(text) {
            *counted.entry(word).or_default() += weight;
        }
    };
    add(&item.key, IN_NAME);
    let title = tool.title.as_str().or(tool.annotations["title"].as_str());
    add(title.unwrap_or_default(), IN_TITLE);
    add(tool.description.as_str().unwrap_or_default(), IN_DESCRIPTION);
    schema(&tool.input_schema, &mut |text| add(text, IN_SCHEMA));
    counted
}

/// The names of a schema's properties, and what it says of them.
fn schema(value: &Value, say: &mut impl FnMut(&str)) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                match (key.as_str(), value) {
                    ("title" | "description" | "const", Value::String(text)) => say(text),
                    ("enum" | "examples", Value::Array(values)) => {
                        values.iter().filter_map(Value::as_str).for_each(&mut *say);
                    }
                    ("properties" | "$defs" | "definitions", Value::Object(named)) => {
                        for (name, inner) in named {
                            if key == "properties" {
                                say(name);
                            }
                            schema(inner, say);
                        }
                    }
                    _ => schema(value, say),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| schema(value, say)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(tools: &[Value]) -> List {
        let tools: Vec<String> = tools.iter().map(Value::to_string).collect();
        List::read(&tools.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn found(query: &str, lists: &[List]) -> Vec<String> {
        let indexes: Vec<Index> = lists.iter().map(Index::new).collect();
        let hits = rank(query, &indexes.iter().collect::<Vec<_>>(), 10);
        hits.iter()
            .map(|hit| lists[hit.list].items[hit.place].key.clone())
            .collect()
    }

    fn shops() -> [List; 2] {
        [
            list(&[
                json!({ "name": "create_invoice", "description": "Writes a bill for an order.",
                    "inputSchema": { "type": "object", "properties": { "order": { "type": "string" } } } }),
                json!({ "name": "listCustomers", "title": "All customers", "description": "Pages through them." }),
                json!({ "name": "get_order", "description": "Reads one order with its lines." }),
            ]),
            list(&[
                json!({ "name": "send", "description": "Sends a mail.", "inputSchema": { "type": "object", "properties":
                    { "to": { "anyOf": [{ "description": "The customer's address" }] }, "urgency": { "enum": ["tomorrow"] } } } }),
                json!({ "name": "broken", "title": 7, "description": ["order"], "inputSchema": "customer" }),
            ]),
        ]
    }

    #[test]
    fn what_stands_in_a_name_counts_more_than_in_a_description_or_a_schema() {
        assert_eq!(found("order", &shops()), ["get_order", "create_invoice"]);
        assert_eq!(found("customer", &shops()), ["listCustomers", "send"]);
    }

    #[test]
    fn names_titles_descriptions_and_schemas_are_searched_in_every_spelling() {
        for (query, first) in [
            ("invoices", "create_invoice"),
            ("createInvoice", "create_invoice"),
            ("createinvoice", "create_invoice"),
            ("list customers", "listCustomers"),
            ("MAIL", "send"),
            ("tomorrow", "send"),
            ("address of a customer", "send"),
            // No tool has the word, and one has a word that begins so.
            ("invo", "create_invoice"),
        ] {
            assert_eq!(
                found(query, &shops()).first().map(String::as_str),
                Some(first),
                "{query}"
            );
        }
    }

    #[test]
    fn a_rare_word_decides_and_what_nobody_has_finds_nothing() {
        assert_eq!(found("order lines", &shops())[0], "get_order");
        for nothing in ["", "  ", "zebra", "xy"] {
            assert!(found(nothing, &shops()).is_empty(), "{nothing}");
        }
        assert!(found("order", &[]).is_empty());
    }

    #[test]
    fn a_search_gives_no_more_than_was_asked_for() {
        let many: Vec<Value> = (0..50).map(|n| json!({ "name": format!("tool_{n}") })).collect();
        let index = Index::new(&list(&many));
        let hits = rank("tool", &[&index], 7);
        let places: Vec<usize> = hits.iter().map(|hit| hit.place).collect();
        assert_eq!(places, (0..7).collect::<Vec<_>>());
    }
}
