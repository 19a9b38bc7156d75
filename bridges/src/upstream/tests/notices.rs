//! What servers tell of, subscriptions, log levels, and messages that no revision of the protocol defines.

use std::collections::BTreeSet;

use runtime::McpServer as _;
use serde_json::{Value, json};

use super::{
    scripted::within,
    served::{Asking, EVERYTHING, Served, code, is, serve, serve_script, tool},
};
use crate::upstream::{AskingOptions, EraKnob};

/// A legacy server with subscriptions and log levels. It refuses resources that it does not have, and tells of one when it is asked.
const LEGACY: &str = r#"next; result '{"protocolVersion":"2025-06-18","capabilities":{"logging":{},"resources":{"subscribe":true}}}'; next
    while next; do case "$line" in
        *missing*) error '{"code":-32002,"message":"no"}';;
        *com.example/touch*) say '{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a://1"}}'; result '{}';;
        *com.example/list*) say '{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'; result '{}';;
        *tools/call*) for level in debug warning emergency; do
            say "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"$level\",\"data\":1}}"; done; result '{}';;
        *'"id"'*) result '{}';; esac; done"#;

async fn legacy() -> Served {
    serve_script(LEGACY, EraKnob::Legacy, AskingOptions::default()).await
}

fn set(uris: &[&str]) -> BTreeSet<String> {
    uris.iter().map(|&uri| uri.to_owned()).collect()
}

async fn watch(served: &Served, uris: &[&str]) -> BTreeSet<String> {
    within(served.server.clone().watch(set(uris))).await
}

/// The methods and resources of what was heard about subscriptions.
fn subscribed(served: &Served) -> Vec<String> {
    let heard = served.heard();
    let about = heard
        .iter()
        .filter(|message| message["params"]["uri"].is_string());
    about
        .map(|message| format!("{} {}", message["method"], message["params"]["uri"]).replace('"', ""))
        .collect()
}

fn plain(method: &str) -> Asking<'_> {
    Asking {
        method,
        params: json!({}),
        ..tool("t").declaring("{}")
    }
}

#[tokio::test]
async fn a_legacy_server_is_subscribed_to_each_resource_once() {
    let served = legacy().await;
    assert_eq!(watch(&served, &["a://1", "a://missing"]).await, set(&["a://1"]));
    assert_eq!(watch(&served, &["a://1", "a://missing"]).await, set(&["a://1"]));
    assert_eq!(
        watch(&served, &["a://1", "a://2"]).await,
        set(&["a://1", "a://2"])
    );
    assert_eq!(watch(&served, &["a://2"]).await, set(&["a://2"]));
    assert_eq!(watch(&served, &[]).await, set(&[]));
    let mut all = subscribed(&served);
    all.sort();
    assert_eq!(
        all,
        [
            "resources/subscribe a://1",
            "resources/subscribe a://2",
            "resources/subscribe a://missing",
            "resources/unsubscribe a://1",
            "resources/unsubscribe a://2",
        ]
    );
}

#[tokio::test]
async fn a_changed_resource_is_told_of() {
    let served = legacy().await;
    let mut updates = served.server.updates().unwrap();
    watch(&served, &["a://1"]).await;
    served.answer(&plain("com.example/touch")).await;
    assert_eq!(&*within(updates.recv()).await.unwrap(), "a://1");
}

/// A caller that can be asked, and so has a process of the server to itself.
fn own(method: &str) -> Asking<'_> {
    plain(method).declaring(EVERYTHING)
}

#[tokio::test]
async fn what_changes_in_a_process_of_one_caller_is_told_to_all() {
    let served = legacy().await;
    let mut updates = served.server.updates().unwrap();
    // Subscribed to before the process is there, and after.
    watch(&served, &["a://2"]).await;
    served.answer(&own("com.example/x")).await;
    watch(&served, &["a://1", "a://2"]).await;
    served.answer(&own("com.example/touch")).await;
    assert_eq!(&*within(updates.recv()).await.unwrap(), "a://1");
    let mut all = subscribed(&served);
    all.sort();
    assert_eq!(
        all,
        [["resources/subscribe a://1"; 2], ["resources/subscribe a://2"; 2]].concat()
    );
    watch(&served, &[]).await;
    assert_eq!(
        subscribed(&served).len(),
        8,
        "both processes are told that nobody listens"
    );
    // A list of that caller's is another one, whatever the platform sees of it.
    let mut changes = served.server.list_changes().unwrap();
    changes.mark_unchanged();
    served.answer(&own("com.example/list")).await;
    within(changes.changed()).await.unwrap();
    assert_eq!(served.server.private_changes(), [1, 0, 0]);
}

#[tokio::test]
async fn a_server_without_subscriptions_is_not_asked_for_any() {
    let served = serve("result '{}'").await;
    assert_eq!(watch(&served, &["a://1"]).await, set(&[]));
    served.answer(&plain("com.example/x")).await;
    assert_eq!(subscribed(&served), Vec::<String>::new());
}

/// A modern server that answers no listen call, but tells of all that it was asked for but `a://missing`.
const MODERN: &str = r#"next; result '{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"resources":{"subscribe":true}}}'
    while next; do case "$line" in
        *subscriptions/listen*) listens=$((listens+1)); listen=$id
            honoured='"a://1"'; case "$line" in *a://2*) honoured='"a://1","a://2"';; esac
            say "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\",\"params\":{\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":$id},\"notifications\":{\"resourceSubscriptions\":[$honoured]}}}";;
        *com.example/touch*) say "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/resources/updated\",\"params\":{\"uri\":\"a://1\",\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":$listen}}}"; result '{"resultType":"complete"}';;
        *com.example/end*) call=$id; id=$listen; result '{"resultType":"complete"}'; id=$call; result '{"resultType":"complete"}';;
        *'"id"'*) result '{"resultType":"complete"}';; esac; done"#;

#[tokio::test]
async fn a_modern_server_is_listened_to_with_one_call_for_all_resources() {
    let served = serve_script(MODERN, EraKnob::Modern, AskingOptions::default()).await;
    let mut updates = served.server.updates().unwrap();
    assert_eq!(watch(&served, &["a://1", "a://missing"]).await, set(&["a://1"]));
    assert_eq!(watch(&served, &["a://1", "a://missing"]).await, set(&["a://1"]));
    assert_eq!(
        watch(&served, &["a://1", "a://2"]).await,
        set(&["a://1", "a://2"])
    );
    served.answer(&plain("com.example/touch")).await;
    assert_eq!(&*within(updates.recv()).await.unwrap(), "a://1");
    assert_eq!(watch(&served, &[]).await, set(&[]));
    served
        .hears(|heard| {
            heard
                .iter()
                .filter(|message| message["method"] == "notifications/cancelled")
                .count()
                == 2
        })
        .await;
    let heard = served.heard();
    let about: Vec<(String, Value)> = heard
        .iter()
        .filter_map(|message| match message["method"].as_str()? {
            "subscriptions/listen" => Some(("listen".to_owned(), message["id"].clone())),
            "notifications/cancelled" => Some(("end".to_owned(), message["params"]["requestId"].clone())),
            _ => None,
        })
        .collect();
    let [(first, one), (second, two), (third, ended), (fourth, last)] = &about[..] else {
        panic!("{about:?}");
    };
    assert_eq!([first, second, third, fourth], ["listen", "listen", "end", "end"]);
    assert_eq!(
        (one, two),
        (ended, last),
        "the new one is open before the old one ends"
    );
}

#[tokio::test]
async fn a_listen_call_that_a_modern_server_ends_is_made_again() {
    let served = serve_script(MODERN, EraKnob::Modern, AskingOptions::default()).await;
    let mut updates = served.server.updates().unwrap();
    watch(&served, &["a://1"]).await;
    served.answer(&plain("com.example/end")).await;
    // Nobody knows what has changed in between.
    assert_eq!(&*within(updates.recv()).await.unwrap(), "a://1");
    assert_eq!(served.times("subscriptions/listen"), 2);
}

#[tokio::test]
async fn the_level_that_a_call_wants_is_set_and_its_lines_are_chosen() {
    let served = legacy().await;
    let wants = |level: &str| {
        tool("t")
            .declaring("{}")
            .with_meta(json!({ "io.modelcontextprotocol/logLevel": level }))
    };
    let levels = |told: &[String]| -> Vec<String> {
        told.iter()
            .map(|line| {
                assert!(is(line, "notifications/message"));
                let line: Value = serde_json::from_str(line).unwrap();
                line["params"]["level"].as_str().unwrap().to_owned()
            })
            .collect()
    };
    assert_eq!(
        served.ask(&tool("t").declaring("{}")).await.0,
        Vec::<String>::new()
    );
    assert_eq!(served.times("logging/setLevel"), 0);
    let (told, _) = served.ask(&wants("warning")).await;
    assert_eq!(levels(&told), ["warning", "emergency"]);
    served.ask(&wants("warning")).await;
    let (told, _) = served.ask(&wants("debug")).await;
    assert_eq!(levels(&told), ["debug", "warning", "emergency"]);
    let set: Vec<Value> = served
        .heard()
        .into_iter()
        .filter(|message| message["method"] == "logging/setLevel")
        .map(|message| message["params"]["level"].clone())
        .collect();
    assert_eq!(set, ["warning", "debug"]);
}

#[tokio::test]
async fn a_server_that_has_forgotten_its_session_is_told_again() {
    let served = legacy().await;
    let mut updates = served.server.updates().unwrap();
    let wants = tool("t")
        .declaring("{}")
        .with_meta(json!({ "io.modelcontextprotocol/logLevel": "error" }));
    watch(&served, &["a://1", "a://missing"]).await;
    served.answer(&wants).await;
    served.server.link.was_forgotten();
    // Nobody knows what has changed in between.
    assert_eq!(&*within(updates.recv()).await.unwrap(), "a://1");
    served.answer(&wants).await;
    assert_eq!(served.times("logging/setLevel"), 2);
    let mut all = subscribed(&served);
    all.sort();
    assert_eq!(
        all,
        [
            "resources/subscribe a://1",
            "resources/subscribe a://1",
            "resources/subscribe a://missing",
            "resources/subscribe a://missing",
        ]
    );
    assert_eq!(watch(&served, &["a://1"]).await, set(&["a://1"]));
}

#[tokio::test]
async fn a_server_without_levels_is_not_told_any() {
    let served = serve("result '{}'").await;
    let wants = json!({ "io.modelcontextprotocol/logLevel": "debug" });
    served.answer(&tool("t").declaring("{}").with_meta(wants)).await;
    assert_eq!(served.times("logging/setLevel"), 0);
}

#[tokio::test]
async fn what_no_revision_defines_passes_in_both_directions_and_both_eras() {
    let custom = r#"say '{"jsonrpc":"2.0","method":"com.example/told","params":{"n":1.0}}'"#;
    let each = format!(
        r#"while next; do case "$line" in *com.example/ask*) {custom}; result "{{\"resultType\":\"complete\",\"n\":1.0}}";; esac; done"#
    );
    for (era, text) in [
        (EraKnob::Legacy, format!("next; initialized; {each}")),
        (EraKnob::Modern, format!("modern; {each}")),
    ] {
        let served = serve_script(&text, era, AskingOptions::default()).await;
        let ask = Asking {
            params: json!({ "x": { "y": [1.0] }, "_meta": {} }),
            ..plain("com.example/ask")
        };
        let (told, answer) = served
            .ask(&ask.clone().with_meta(json!({ "com.example/k": 1 })))
            .await;
        assert_eq!(answer["result"], json!({ "resultType": "complete", "n": 1.0 }));
        assert_eq!(
            told,
            [r#"{"jsonrpc":"2.0","method":"com.example/told","params":{"n":1.0}}"#]
        );
        for (method, arrives) in [
            ("com.example/x", true),
            ("notifications/com.example/x", true),
            ("notifications/roots/list_changed", false),
            ("notifications/cancelled", false),
            ("notifications/initialized", false),
        ] {
            let before = served.times(method);
            let taken = served.tell(&plain(method)).await;
            assert_eq!((taken.code, taken.body.len()), (None, 0));
            served.answer(&ask).await;
            assert_eq!(served.times(method) - before, usize::from(arrives), "{method}");
        }
        let heard = served.heard();
        let asked = heard
            .iter()
            .find(|message| message["method"] == "com.example/ask");
        let params = &asked.unwrap()["params"];
        assert_eq!(
            (&params["x"], &params["_meta"]["com.example/k"]),
            (&json!({ "y": [1.0] }), &json!(1))
        );
    }
}

#[tokio::test]
async fn a_state_of_ours_is_not_for_a_modern_server() {
    let served = serve_script(
        "modern; while next; do result '{}'; done",
        EraKnob::Modern,
        AskingOptions::default(),
    )
    .await;
    let mut call = tool("t");
    call.params["requestState"] = json!("tl1.00ff.abcd");
    assert_eq!(code(&served.answer(&call).await), -32602);
    // Its own passes.
    call.params["requestState"] = json!("its own");
    assert!(served.answer(&call).await["result"].is_object());
    let heard = served.heard();
    assert_eq!(heard.last().unwrap()["params"]["requestState"], "its own");
}
