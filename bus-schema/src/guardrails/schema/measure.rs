//! How much work a schema can make of a value, worked out from the schema alone.
//!
//! A schema is a graph, as references lead from one part to another. Walked as a tree it may be exponentially larger than it is
//! written, so the tree is counted and not walked: each part is counted once, and a part that leads back to itself is counted as a
//! place where the walk begins anew for what lies deeper in the value.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{Unusable, value::Size};

/// How large a schema may be when each reference is followed, in parts.
const MAX_TREE: u64 = 50_000;
/// How deep it may be then.
const MAX_DEPTH: u64 = 100;

/// Keywords whose value is a schema.
const ONE: [&str; 12] = [
    "additionalProperties",
    "additionalItems",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "extends",
];
/// Keywords whose value is a list of schemas.
const LISTS: [&str; 5] = ["allOf", "anyOf", "oneOf", "prefixItems", "items"];
/// Keywords whose value has a schema under each name.
const NAMED: [&str; 4] = [
    "properties",
    "patternProperties",
    "dependentSchemas",
    "dependencies",
];
/// Keywords that keep schemas for others to refer to.
const KEPT: [&str; 2] = ["$defs", "definitions"];
/// Keywords that refer to others.
const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];

/// What a schema comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Measure {
    /// Its parts, with each reference followed.
    tree: u64,
    /// How deep that is.
    depth: u64,
    /// How many of its parts lead back to themselves.
    loops: u64,
}

impl Measure {
    /// # Errors
    /// [`Unusable`] when it refers to what is not in it, or is too large.
    pub(super) fn of(schema: &Value) -> Result<Self, Unusable> {
        let mut walk = Walk {
            root: schema,
            anchors: HashMap::new(),
            known: HashMap::new(),
            loops: 0,
        };
        walk.keep_anchors(schema, 0)?;
        let (tree, depth) = walk.part(schema, 1)?;
        // What nothing refers to is read by the library as well.
        walk.kept(schema)?;
        Ok(Self {
            tree,
            depth,
            loops: walk.loops,
        })
    }

    pub(super) const fn is_recursive(&self) -> bool {
        self.loops > 0
    }

    /// The most looks at a value of this size, and how deep they can nest.
    pub(super) fn work(&self, size: &Size) -> (u64, u64) {
        let work = self
            .tree
            .saturating_mul(size.parts)
            .saturating_mul(self.loops.max(1));
        let nesting = match self.loops {
            0 => self.depth,
            _ => self.depth.saturating_mul(size.depth.max(1)),
        };
        (work, nesting)
    }
}

enum Known {
    /// It is being counted: who comes here again has gone in a circle.
    Begun,
    Counted(u64, u64),
}

struct Walk<'a> {
    root: &'a Value,
    anchors: HashMap<&'a str, &'a Value>,
    known: HashMap<*const Value, Known>,
    loops: u64,
}

impl<'a> Walk<'a> {
    /// Names that parts have given to themselves. A part with an id of its own would give references another meaning.
    fn keep_anchors(&mut self, schema: &'a Value, depth: u64) -> Result<(), Unusable> {
        let Value::Object(schema) = schema else {
            return Ok(());
        };
        if depth > 0
            && let Some(id) = schema.get("$id").and_then(Value::as_str)
        {
            let why =
                format!("a part of it has the `$id` `{id}`, which is not taken; use `$defs` and `#/$defs/…`");
            return Err(Unusable::Bad(why));
        }
        for key in ["$anchor", "$dynamicAnchor"] {
            if let Some(name) = schema.get(key).and_then(Value::as_str) {
                self.anchors.entry(name).or_insert(self.root);
            }
        }
        for part in parts(schema).chain(kept(schema)) {
            if let Value::Object(named) = part {
                for key in ["$anchor", "$dynamicAnchor"] {
                    if let Some(name) = named.get(key).and_then(Value::as_str) {
                        self.anchors.insert(name, part);
                    }
                }
            }
            self.keep_anchors(part, depth + 1)?;
        }
        Ok(())
    }

    /// Looks at the parts that are kept for others, also where nobody refers to them.
    fn kept(&mut self, schema: &'a Value) -> Result<(), Unusable> {
        let Value::Object(schema) = schema else {
            return Ok(());
        };
        for part in kept(schema) {
            self.part(part, 1)?;
            self.kept(part)?;
        }
        for part in parts(schema) {
            self.kept(part)?;
        }
        Ok(())
    }

    fn part(&mut self, schema: &'a Value, level: u64) -> Result<(u64, u64), Unusable> {
        let Value::Object(members) = schema else {
            return Ok((1, 1));
        };
        let key: *const Value = schema;
        match self.known.get(&key) {
            Some(Known::Counted(tree, depth)) => return Ok((*tree, *depth)),
            Some(Known::Begun) => {
                self.loops += 1;
                return Ok((1, 1));
            }
            None => {}
        }
        // Counted on the way down as well, so that the walk itself does not run out of stack.
        if level > MAX_DEPTH {
            return Err(too_deep());
        }
        self.known.insert(key, Known::Begun);
        let (mut tree, mut depth) = (own_weight(members), 0);
        let mut referred = Vec::new();
        for keyword in REFERENCES {
            if let Some(reference) = members.get(keyword).and_then(Value::as_str) {
                referred.push(self.resolve(reference)?);
            }
        }
        for part in parts(members).chain(referred) {
            let (below, deep) = self.part(part, level + 1)?;
            tree = tree.saturating_add(below);
            depth = depth.max(deep);
            if tree > MAX_TREE {
                let why = format!("with each reference followed it has more than {MAX_TREE} parts");
                return Err(Unusable::TooLarge(why));
            }
            if depth >= MAX_DEPTH {
                return Err(too_deep());
            }
        }
        self.known.insert(key, Known::Counted(tree, depth + 1));
        Ok((tree, depth + 1))
    }

    fn resolve(&self, reference: &str) -> Result<&'a Value, Unusable> {
        let missing = || Unusable::Missing(reference.to_owned());
        let Some(fragment) = reference.strip_prefix('#') else {
            return Err(Unusable::External(reference.to_owned()));
        };
        let fragment = percent_encoding::percent_decode_str(fragment)
            .decode_utf8()
            .map_err(|_| missing())?;
        if fragment.is_empty() || fragment.starts_with('/') {
            return self.root.pointer(&fragment).ok_or_else(missing);
        }
        self.anchors.get(&*fragment).copied().ok_or_else(missing)
    }
}

fn too_deep() -> Unusable {
    let why = format!("with each reference followed it is more than {MAX_DEPTH} levels deep");
    Unusable::TooLarge(why)
}

/// The schemas in a schema that are applied where it is.
fn parts(schema: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let one = ONE
        .into_iter()
        .filter_map(|key| schema.get(key))
        .filter(|value| value.is_object());
    let lists = LISTS
        .into_iter()
        .filter_map(|key| schema.get(key)?.as_array())
        .flatten();
    let named = NAMED
        .into_iter()
        .filter_map(|key| schema.get(key)?.as_object())
        .flat_map(Map::values);
    one.chain(lists).chain(named)
}

fn kept(schema: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    KEPT.into_iter()
        .filter_map(|key| schema.get(key)?.as_object())
        .flat_map(Map::values)
}

/// What a part costs without those below it: keywords that compare do so with each value that they have.
fn own_weight(schema: &Map<String, Value>) -> u64 {
    let compared = ["enum", "required", "type"];
    let listed: usize = compared
        .into_iter()
        .filter_map(|key| schema.get(key)?.as_array())
        .map(Vec::len)
        .sum();
    1 + listed as u64 / 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn measure(schema: &Value) -> Result<Measure, Unusable> {
        Measure::of(schema)
    }

    #[test]
    fn references_are_followed_and_circles_counted() {
        let tree = measure(
            &json!({ "properties": { "a": { "type": "string" }, "b": { "$ref": "#/$defs/b" } }, "$defs": { "b": {} } }),
        );
        assert_eq!(
            tree,
            Ok(Measure {
                tree: 4,
                depth: 3,
                loops: 0
            })
        );
        let filter = json!({ "$ref": "#/$defs/f", "$defs": { "f": { "anyOf": [
            { "properties": { "and": { "items": { "$ref": "#/$defs/f" } } } }, { "type": "string" },
        ] } } });
        assert_eq!(measure(&filter).map(|measure| measure.loops), Ok(1));
        let anchored = json!({ "$defs": { "x": { "$anchor": "here", "type": "string" } }, "$ref": "#here" });
        assert!(measure(&anchored).is_ok());
    }

    #[test]
    fn what_is_outside_or_missing_is_named() {
        for reference in [
            "https://example.com/s.json",
            "s.json",
            "file:///etc/passwd",
            "//x/y",
            "",
        ] {
            let outside = Err(Unusable::External(reference.to_owned()));
            assert_eq!(
                measure(&json!({ "properties": { "a": { "$ref": reference } } })),
                outside
            );
            assert_eq!(
                measure(&json!({ "$defs": { "a": { "items": { "$ref": reference } } } })),
                outside
            );
        }
        assert_eq!(
            measure(&json!({ "$ref": "#/$defs/x" })),
            Err(Unusable::Missing("#/$defs/x".to_owned()))
        );
        // What is no reference but looks so.
        assert!(
            measure(
                &json!({ "properties": { "$ref": { "type": "string" } }, "enum": [{ "$ref": "http://x" }] })
            )
            .is_ok()
        );
    }

    #[test]
    fn a_short_schema_that_is_a_large_tree_is_refused() {
        let mut defs = Map::new();
        for at in 0..40 {
            let next = format!("#/$defs/d{}", at + 1);
            defs.insert(
                format!("d{at}"),
                json!({ "anyOf": [{ "$ref": next }, { "$ref": next }] }),
            );
        }
        defs.insert("d40".to_owned(), json!({ "type": "string" }));
        let schema = json!({ "$ref": "#/$defs/d0", "$defs": defs });
        assert!(matches!(measure(&schema), Err(Unusable::TooLarge(_))));
        let mut chain = Map::new();
        for at in 0..200 {
            chain.insert(
                format!("d{at}"),
                json!({ "$ref": format!("#/$defs/d{}", at + 1) }),
            );
        }
        chain.insert("d200".to_owned(), json!({}));
        let schema = json!({ "$ref": "#/$defs/d0", "$defs": chain });
        assert!(matches!(measure(&schema), Err(Unusable::TooLarge(_))));
    }
}
