//! How servers are found out, left, and got back, as clients see it.

use std::sync::{Arc, Mutex, PoisonError};

use bus_schema::mcp::{error, method};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{
    children,
    http::{Client, text},
    parts,
    platform::Platform,
    scripted::{Events, Scripted, status},
    stream::Stream,
    within,
};

use super::{before, plain_tool};
use crate::processes::up::Up;

fn probed(id: &str, answer: &str) -> String {
    let program = parts::script("probed.py");
    children::server(id, &["python3", &program.to_string_lossy(), answer], "")
}

#[tokio::test]
async fn a_child_that_knows_no_modern_question_is_asked_the_old_one_and_one_that_names_versions_is_not() {
    let answers = [
        ("unknown", "-32601"),
        ("invalid", "-32602"),
        ("old", "-32000"),
        ("mute", "silent"),
        ("modern", "-32022"),
    ];
    let file: String = answers.iter().map(|(id, answer)| probed(id, answer)).collect();
    let ids = answers.map(|(id, _)| id);
    let platform = Platform::start(&file, &ids).await;
    for id in ids {
        platform.knows(id).await;
        let answer = platform.client(id).call("heard", json!({})).await;
        let heard: Vec<&str> = text(&answer).split(',').collect();
        assert_eq!(heard[0], method::DISCOVER, "{id}: {heard:?}");
        let expected = if id == "modern" {
            method::DISCOVER
        } else {
            method::INITIALIZE
        };
        assert_eq!(heard[1], expected, "{id}: {heard:?}");
        assert_eq!(
            heard.contains(&method::INITIALIZE),
            id != "modern",
            "{id}: {heard:?}"
        );
    }
}

/// The first transport: one stream of events, and messages that are posted to where it says.
async fn first_transport(refusal: u16) -> Scripted {
    let stream: Arc<Mutex<Option<Events>>> = Arc::default();
    Scripted::start(move |asked| {
        let stream = Arc::clone(&stream);
        async move {
            if asked.http == Method::GET {
                let (events, answer) = Events::open();
                events.write("event: endpoint\ndata: /post\n\n").await;
                *stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(events);
                return answer;
            }
            if asked.path != "/post" {
                return status(refusal);
            }
            let result = match asked.called() {
                method::INITIALIZE => json!({
                    "protocolVersion": "2024-11-05", "capabilities": { "tools": {} },
                    "serverInfo": { "name": "first", "version": "1" },
                }),
                method::TOOLS_LIST => json!({ "tools": [plain_tool("echo")] }),
                method::TOOLS_CALL => json!({ "content": [{ "type": "text", "text": "by the stream" }] }),
                _ => json!({}),
            };
            let events = stream.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if !asked.body["id"].is_null() {
                let events = events.expect("the stream is open");
                events.send(&asked.result_message(&result)).await;
            }
            status(202)
        }
    })
    .await
}

#[tokio::test]
async fn a_server_that_takes_no_posts_is_spoken_with_over_the_first_transport() {
    let (not_found, not_allowed) = (first_transport(404).await, first_transport(405).await);
    let platform = before(&[("not-found", &not_found), ("not-allowed", &not_allowed)]).await;
    for (id, server) in [("not-found", &not_found), ("not-allowed", &not_allowed)] {
        let answer = platform.client(id).call("echo", json!({})).await;
        assert_eq!(text(&answer), "by the stream", "{id}: {answer}");
        let posted = server.asked(method::TOOLS_CALL);
        assert!(posted.iter().all(|asked| asked.path == "/post"));
        // It was asked in the newer ways before.
        let opened = server.asked(method::INITIALIZE);
        assert!(opened.iter().any(|asked| asked.path == "/mcp"));
    }
}

#[tokio::test]
async fn a_child_is_read_on_its_standard_output_alone_and_listeners_outlive_its_end() {
    let mut up = Up::start(&probed("probed", "-32601")).await;
    let client = up.client("probed");
    let own = async |client: &Client| -> Option<String> {
        let answer = within("a list", client.modern(method::TOOLS_LIST, json!({})).send()).await;
        let listed: Value = answer.ok()?.json().await.ok()?;
        let tools = listed["result"]["tools"].as_array()?;
        let names = tools.iter().filter_map(|tool| tool["name"].as_str());
        names
            .into_iter()
            .find(|name| name.starts_with("pid-"))
            .map(str::to_owned)
    };
    let wanted = json!({ "notifications": { "toolsListChanged": true } });
    let request = client.modern(method::LISTEN, wanted.clone());
    let mut listener = Stream::of(within("an answer", request.send()).await.expect("an answer"));
    let granted = listener.message().await;
    assert_eq!(
        granted["params"]["notifications"],
        json!({ "toolsListChanged": true }),
        "{granted}"
    );
    let answer = client.call("noisy", json!({})).await;
    assert_eq!(text(&answer), "the truth", "{answer}");
    let line = up.program.logged("skipped a line that is no message").await;
    assert!(line.contains("probed"), "{line}");
    let before = own(&client).await.expect("the process names itself");
    let crashed = client.call("crash", json!({})).await;
    assert_eq!(crashed["error"]["code"], error::INTERNAL, "{crashed}");
    // Whoever listens is told of the new process by the same stream.
    loop {
        let told = listener.message().await;
        assert_eq!(told["method"], method::TOOLS_CHANGED, "{told}");
        if own(&client).await.is_some_and(|now| now != before) {
            break;
        }
    }
    assert_eq!(text(&client.call("noisy", json!({})).await), "the truth");
}
