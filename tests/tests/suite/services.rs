//! The NATS services protocol (ADR-32): a plain client with the observer's credentials sees every server, as `nats micro` shows them.

use serde_json::{Value, json};
use tests::parts::{printed, python, script};

use crate::processes::{Cluster, terminate};

async fn asked(url: &str, name: &str) -> Value {
    let mut command = python(&script("micro.py"));
    command.args([url, name]);
    serde_json::from_str(&printed(command).await).expect("JSON")
}

fn list<'a>(told: &'a Value, verb: &str, whom: &str) -> &'a [Value] {
    told[verb][whom].as_array().expect("answers")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    let text = value[key].as_str();
    text.unwrap_or_else(|| panic!("no text `{key}`: {value}"))
}

/// What every answer of the protocol has to say, in the form that it has to have.
fn check(answer: &Value, verb: &str) {
    let kind = format!("io.nats.micro.v1.{}_response", verb.to_lowercase());
    assert_eq!(text(answer, "type"), kind);
    let name = text(answer, "name");
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    assert!(!name.is_empty() && name.bytes().all(fits), "{answer}");
    assert!(!text(answer, "id").is_empty());
    let version: Vec<_> = text(answer, "version")
        .split('.')
        .map(str::parse::<u64>)
        .collect();
    assert!(
        version.len() == 3 && version.iter().all(Result::is_ok),
        "{answer}"
    );
    let metadata = answer["metadata"].as_object().expect("metadata");
    assert!(metadata.values().all(Value::is_string), "{answer}");
}

fn check_endpoints(answer: &Value) {
    let endpoints = answer["endpoints"].as_array().expect("endpoints");
    assert_eq!(endpoints.len(), 1, "{answer}");
    for key in ["name", "subject", "queue_group"] {
        assert!(!text(&endpoints[0], key).is_empty(), "{answer}");
    }
}

#[tokio::test]
async fn a_plain_client_sees_each_replica_what_it_is_and_how_it_does() {
    let cluster = Cluster::start().await;
    let (one, two) = tokio::join!(cluster.serve(&["products"]), cluster.serve(&["products"]));
    let bridge = cluster.bridge().await;
    for _ in 0..4 {
        let answer = bridge.client("products").call("list_categories", json!({})).await;
        assert!(answer["result"].is_object(), "{answer}");
    }
    let told = asked(&cluster.nats.observer_url(), "products").await;
    for verb in ["PING", "INFO", "STATS"] {
        let named = list(&told, verb, "named");
        assert_eq!(named.len(), 2, "{verb}: {named:?}");
        assert_eq!(list(&told, verb, "one"), &named[..1], "{verb}");
        assert_eq!(list(&told, verb, "nobody"), &[] as &[Value], "{verb}");
        for answer in list(&told, verb, "all") {
            check(answer, verb);
        }
        let all = list(&told, verb, "all").iter();
        let products = all.filter(|answer| answer["name"] == "products").count();
        assert_eq!(products, 2, "{verb}");
    }
    for answer in list(&told, "INFO", "all") {
        check_endpoints(answer);
        assert!(answer["description"].is_string(), "{answer}");
    }
    let mut calls = 0;
    for answer in list(&told, "STATS", "named") {
        check_endpoints(answer);
        assert!(text(answer, "started").ends_with('Z'), "{answer}");
        let endpoint = &answer["endpoints"][0];
        assert_eq!(endpoint["num_errors"], 0, "{answer}");
        assert!(endpoint["processing_time"].is_u64() && endpoint["average_processing_time"].is_u64());
        calls += endpoint["num_requests"].as_u64().expect("a number");
    }
    assert!(calls >= 4, "{calls}");
    for program in [one, two] {
        terminate(program.program).await;
    }
    // Who has left does not answer, and what is the platform's own is nobody's to see.
    let told = asked(&cluster.nats.observer_url(), "products").await;
    assert_eq!(list(&told, "PING", "all"), &[] as &[Value]);
    terminate(bridge.program).await;
}
