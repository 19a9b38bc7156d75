//! What schemas accept and refuse, what cannot be used as one, and that no schema and no value make much work.

use serde_json::{Map, json};

use super::*;

fn schema(schema: &Value) -> Schema {
    Schema::compile(&schema.to_string()).unwrap_or_else(|why| panic!("{schema}: {why}"))
}

fn wrong(schema_json: &Value, value: &str) -> String {
    schema(schema_json)
        .check(value)
        .expect_err("a misfit")
        .to_string()
}

#[test]
fn a_misfit_names_the_place_and_what_would_be_right() {
    let search = json!({
        "type": "object",
        "properties": {
            "query": { "type": "string", "minLength": 1 },
            "limit": { "type": "integer", "minimum": 1, "maximum": 50 },
            "tags": { "type": "array", "items": { "enum": ["new", "used"] } },
        },
        "required": ["query"], "additionalProperties": false,
    });
    let fits = schema(&search);
    assert_eq!(fits.check(r#"{"query":"a","limit":50,"tags":["new"]}"#), Ok(()));
    for (value, words) in [
        ("{}", ["at the top", "\"query\" is a required property"]),
        (
            r#"{"query":"a","limit":"10"}"#,
            ["at `/limit`", "the schema says type: \"integer\""],
        ),
        (r#"{"query":"a","limit":51}"#, ["at `/limit`", "maximum: 50"]),
        (
            r#"{"query":"a","tags":["old"]}"#,
            ["at `/tags/0`", "[\"new\",\"used\"]"],
        ),
        (r#"{"query":"a","more":1}"#, ["at the top", "'more'"]),
        ("[]", ["at the top", "\"object\""]),
    ] {
        let told = wrong(&search, value);
        assert!(words.iter().all(|word| told.contains(word)), "{value}: {told}");
    }
    // All that is wrong is told at once.
    let told = wrong(&search, r#"{"limit":0,"tags":["old"]}"#);
    assert!(
        told.contains("/limit") && told.contains("/tags/0") && told.contains("query"),
        "{told}"
    );
}

#[test]
fn keywords_of_2020_12_hold_and_older_dialects_are_understood() {
    let tuple = json!({ "prefixItems": [{ "type": "string" }], "items": false });
    assert!(schema(&tuple).check(r#"["a"]"#).is_ok() && schema(&tuple).check(r#"["a",1]"#).is_err());
    let dependent = json!({ "dependentRequired": { "a": ["b"] }, "unevaluatedProperties": false, "allOf": [{ "properties": { "a": {}, "b": {} } }] });
    assert!(schema(&dependent).check(r#"{"a":1,"b":2}"#).is_ok());
    assert!(
        schema(&dependent).check(r#"{"a":1}"#).is_err() && schema(&dependent).check(r#"{"c":1}"#).is_err()
    );
    let seven = json!({ "$schema": "http://json-schema.org/draft-07/schema#", "items": [{ "type": "string" }], "additionalItems": false });
    assert!(schema(&seven).check(r#"["a"]"#).is_ok() && schema(&seven).check(r#"["a",1]"#).is_err());
    let tree = json!({ "$defs": { "node": { "type": "object", "properties": { "next": { "$ref": "#/$defs/node" } }, "required": ["v"] } }, "$ref": "#/$defs/node" });
    assert!(schema(&tree).check(r#"{"v":1,"next":{"v":2}}"#).is_ok());
    assert!(wrong(&tree, r#"{"v":1,"next":{"w":2}}"#).contains("/next"));
}

#[test]
fn what_cannot_be_used_is_named() {
    for (text, words) in [
        (
            r#"{"$ref":"https://example.com/a.json"}"#,
            "`https://example.com/a.json`",
        ),
        (
            r#"{"properties":{"a":{"$ref":"other.json#/x"}}}"#,
            "is ever fetched",
        ),
        (r##"{"$ref":"#/$defs/none"}"##, "`#/$defs/none`"),
        (r#"{"$schema":"https://example.com/dialect"}"#, "no JSON Schema"),
        (r#"{"type":"text"}"#, "no JSON Schema"),
        (r#"{"pattern":"(?<=a)b"}"#, "no JSON Schema"),
        (r#"{"pattern":"(a{500}){500}"}"#, "no JSON Schema"),
        (r##"{"$defs":{"a":{"$id":"x","type":"string"}}}"##, "`$id`"),
        ("7", "no JSON Schema"),
        ("{", "no JSON Schema"),
    ] {
        let why = Schema::compile(text).expect_err(text).to_string();
        assert!(why.contains(words), "{text}: {why}");
    }
    let long = json!({ "enum": ["x".repeat(MAX_SCHEMA)] }).to_string();
    assert!(matches!(Schema::compile(&long), Err(Unusable::TooLarge(_))));
    let deep = format!("{}{{}}{}", r#"{"items":"#.repeat(110), "}".repeat(110));
    assert!(matches!(Schema::compile(&deep), Err(Unusable::TooLarge(_))));
}

#[test]
fn expressions_run_in_linear_time() {
    // With backtracking this is 2^60 steps, and the test would not end.
    let evil = schema(&json!({ "type": "string", "pattern": "^(a+)+$" }));
    let text = json!(format!("{}!", "a".repeat(60))).to_string();
    assert!(evil.check(&text).is_err());
}

#[test]
fn no_schema_makes_much_work_of_a_small_value() {
    // Each level of the value may be looked at in two ways, which are two more below.
    let both = |key: &str| json!({ "type": "object", "properties": { key: { "$ref": "#/$defs/f" } }, "required": [key] });
    let tree = schema(
        &json!({ "$ref": "#/$defs/f", "$defs": { "f": { "anyOf": [both("a"), both("a"), { "const": 1 }] } } }),
    );
    for (value, depth) in [("1", 60), ("2", 60)] {
        let nested = format!("{}{value}{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        assert_eq!(tree.check(&nested).is_ok(), value == "1");
    }
    let many: Vec<u32> = (0..200_000).collect();
    let wide = schema(
        &json!({ "items": { "anyOf": (0..200).map(|at| json!({ "const": at })).collect::<Vec<_>>() } }),
    );
    let told = wide
        .check(&serde_json::to_string(&many).expect("JSON"))
        .expect_err("too much");
    assert!(matches!(told, Misfit::TooMuch(_)), "{told}");
}

#[test]
fn neither_schema_nor_value_exhausts_the_stack() {
    let chain = |length: usize| {
        let mut defs = Map::new();
        for at in 0..length {
            defs.insert(
                format!("d{at}"),
                json!({ "allOf": [{ "$ref": format!("#/$defs/d{}", at + 1) }] }),
            );
        }
        defs.insert(format!("d{length}"), json!({ "items": { "$ref": "#/$defs/d0" } }));
        json!({ "$ref": "#/$defs/d0", "$defs": defs })
    };
    let nested = format!("{}1{}", "[".repeat(120), "]".repeat(120));
    let small = std::thread::Builder::new().stack_size(1024 * 1024);
    let checked = small.spawn(move || {
        for length in [1, 5, 20, 45] {
            if let Ok(schema) = Schema::compile(&chain(length).to_string()) {
                let _ = schema.check(&nested);
            }
        }
        // In a circle without a step into the value.
        let circle = schema(&json!({ "allOf": [{ "$ref": "#" }] }));
        circle.check(&nested).is_ok()
    });
    assert!(checked.expect("a thread").join().expect("it does not overflow"));
}

#[test]
fn the_schemas_of_a_tool_are_read_from_its_definition() {
    let tool =
        json!({ "name": "t", "inputSchema": { "type": "object" }, "outputSchema": { "$ref": "http://x/y" } })
            .to_string();
    let schemas = ToolSchemas::of(&tool);
    assert!(matches!(schemas.input, Ok(Some(_))));
    assert_eq!(
        schemas.output.err(),
        Some(Unusable::External("http://x/y".to_owned()))
    );
    assert!(matches!(ToolSchemas::of(r#"{"name":"t"}"#).input, Ok(None)));
    assert!(
        ToolSchemas::of(r#"{"inputSchema":1,"inputSchema":2}"#)
            .input
            .is_err()
    );
}
