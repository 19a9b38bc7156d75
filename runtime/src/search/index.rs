//! The index of one list of tools, and the ranking over several of them as if they were one.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use serde::Deserialize;
use serde_json::Value;

use super::words::words;
use crate::{
    catalogue::{Item, List},
    host::is_marked,
};

/// How much the fields of a tool count: its name, its title, its description and its input schema.
const WEIGHTS: [f32; FIELDS] = [3.0, 1.5, 1.0, 0.3];
const FIELDS: usize = 4;
const NAME: usize = 0;
const TITLE: usize = 1;
const DESCRIPTION: usize = 2;
const SCHEMA: usize = 3;
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
/// What a tool that is marked as deprecated counts beside its successor.
const DEPRECATED: f32 = 0.5;
/// How many words of a query count.
const MOST_ASKED: usize = 64;

/// Words that say nothing beside others.
const EMPTY: [&str; 24] = [
    "a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "how", "in", "is", "it", "me", "my",
    "of", "on", "or", "that", "the", "there", "to", "with",
];

/// The words of one list of tools, and where they stand.
#[derive(Debug, Default)]
pub struct Index {
    /// How many words each field of each tool has.
    lengths: Vec<[f32; FIELDS]>,
    /// How much each tool counts.
    weights: Vec<f32>,
    /// The tools that have a word, with how often it stands in each field.
    places: BTreeMap<String, Vec<(usize, [f32; FIELDS])>>,
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
            let (counted, weight) = count(item);
            index.weights.push(weight);
            let length = |field: usize| counted.values().map(|count| count[field]).sum();
            index.lengths.push(std::array::from_fn(length));
            for (word, count) in counted {
                index.places.entry(word).or_default().push((place, count));
            }
        }
        index
    }

    fn having(&self, word: &str) -> &[(usize, [f32; FIELDS])] {
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
///
/// How rare a word is counts for each field by itself: one that stands in nearly every description may be in few names, and means
/// those.
#[must_use]
pub fn rank(query: &str, lists: &[&Index], limit: usize) -> Vec<Hit> {
    let mut found: BTreeMap<(usize, usize), f32> = BTreeMap::new();
    let tools = as_f32(lists.iter().map(|list| list.lengths.len()).sum());
    let averages: [f32; FIELDS] = std::array::from_fn(|field| {
        let lengths = lists.iter().flat_map(|list| &list.lengths);
        let whole: f32 = lengths.map(|lengths| lengths[field]).sum();
        (whole / tools).max(f32::MIN_POSITIVE)
    });
    for (word, weight) in asked(query, lists) {
        let rarities: [f32; FIELDS] = std::array::from_fn(|field| {
            let having = lists.iter().flat_map(|list| list.having(&word));
            let having = as_f32(having.filter(|(_, counts)| counts[field] > 0.0).count());
            (1.0 + (tools - having + 0.5) / (having + 0.5)).ln()
        });
        for (list, index) in lists.iter().enumerate() {
            for (place, counts) in index.having(&word) {
                let fits = (0..FIELDS).map(|field| {
                    let length = index.lengths[*place][field] / averages[field];
                    let long = 1.0 - BY_LENGTH + BY_LENGTH * length;
                    let often = counts[field] * (SATURATION + 1.0) / (counts[field] + SATURATION * long);
                    WEIGHTS[field] * rarities[field] * often
                });
                *found.entry((list, *place)).or_default() +=
                    index.weights[*place] * weight * fits.sum::<f32>();
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
    let mut unique: BTreeSet<String> = words(query).into_iter().take(MOST_ASKED).collect();
    if unique.iter().any(|word| !EMPTY.contains(&word.as_str())) {
        unique.retain(|word| !EMPTY.contains(&word.as_str()));
    }
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

/// The words of a tool, with how often each stands in each field, and how much the tool counts.
fn count(item: &Item) -> (BTreeMap<String, [f32; FIELDS]>, f32) {
    #[derive(Deserialize, Default)]
    #[serde(default, rename_all = "camelCase")]
    struct Tool {
        title: Value,
        description: Value,
        annotations: Value,
        input_schema: Value,
    }
    let whole: Value = serde_json::from_str(item.json.get()).unwrap_or_default();
    let weight = if is_marked(&whole) { DEPRECATED } else { 1.0 };
    let tool: Tool = serde_json::from_value(whole).unwrap_or_default();
    let mut counted: BTreeMap<String, [f32; FIELDS]> = BTreeMap::new();
    let mut add = |text: &str, field: usize| {
        for word in words(text) {
            counted.entry(word).or_default()[field] += 1.0;
        }
    };
    add(&item.key, NAME);
    let title = tool.title.as_str().or(tool.annotations["title"].as_str());
    add(title.unwrap_or_default(), TITLE);
    add(tool.description.as_str().unwrap_or_default(), DESCRIPTION);
    schema(&tool.input_schema, &mut |text| add(text, SCHEMA));
    (counted, weight)
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
            ("an address", "send"),
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
    fn a_word_that_is_rare_in_names_counts_there_however_common_it_is_elsewhere() {
        let tool = |name: &str| json!({ "name": name, "description": "Takes the id that the list of orders gives." });
        let all: Vec<Value> = ["order_get", "order_put", "order_list", "order_drop"]
            .map(tool)
            .to_vec();
        assert_eq!(found("list orders", &[list(&all)])[0], "order_list");
    }

    #[test]
    fn a_deprecated_tool_comes_after_its_successor() {
        let old = json!({ "name": "get_order", "description": "Gives an order.", "_meta": { "io.trunkline/deprecated": true } });
        let new = json!({ "name": "read_order", "description": "Gives an order with its lines." });
        assert_eq!(
            found("give an order", &[list(&[old, new])]),
            ["read_order", "get_order"]
        );
    }

    #[test]
    fn a_rare_word_decides_and_what_nobody_has_finds_nothing() {
        assert_eq!(found("order lines", &shops())[0], "get_order");
        for nothing in ["", "  ", "zebra", "xy", "the zebra for an"] {
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
