//! What the protocol promises at every door and what no other file shows; `docs/statements.md` says which test proves which statement.

mod answers;
mod channels;
mod listening;
mod page;
mod requests;
mod tasks;
mod untouched;
mod upstreams;

use reqwest::RequestBuilder;
use runtime::Host;
use serde_json::{Value, json};
use tests::{
    conformance::fixture::serve,
    http::Client,
    platform::Platform,
    remote,
    scripted::{Asked, Scripted},
    within,
};

/// A platform with the conformance fixture on its bus.
async fn with_fixture() -> (Platform, Host) {
    let platform = Platform::start("", &[]).await;
    let host = serve::on_bus(platform.node.bus(), "fixture").await;
    platform.knows("fixture").await;
    (platform, host)
}

/// A platform before servers at a URL, each under its id.
async fn before(servers: &[(&str, &Scripted)]) -> Platform {
    let lines = servers
        .iter()
        .map(|(id, server)| remote::local(id, &server.url(), ""));
    let ids: Vec<&str> = servers.iter().map(|(id, _)| *id).collect();
    let platform = Platform::start(&lines.collect::<String>(), &ids).await;
    for id in ids {
        platform.knows(id).await;
    }
    platform
}

/// A server that speaks one era, and answers some methods in its own way.
async fn scripted(era: Era, tools: Value, own: fn(&Asked) -> Option<axum::response::Response>) -> Scripted {
    Scripted::start(move |asked| {
        let tools = tools.clone();
        async move {
            match own(&asked) {
                Some(answer) => answer,
                None if era == Era::Modern => asked.modern(&tools),
                None => asked.legacy("a-session", &tools),
            }
        }
    })
    .await
}

/// Which era a scripted server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Era {
    Modern,
    Legacy,
}

/// The status and the message of an answer that is JSON.
async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = within("an answer", request.send()).await.expect("an answer");
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or_default())
}

/// The result of a modern request that succeeds.
async fn result(client: &Client, called: &str, params: Value) -> Value {
    let (status, answer) = answer(client.modern(called, params)).await;
    assert!(
        status == 200 && answer["result"].is_object(),
        "{called}: {status} {answer}"
    );
    answer["result"].clone()
}

/// A modern request of a client with these capabilities.
fn declaring(client: &Client, called: &str, mut params: Value, capabilities: Value) -> RequestBuilder {
    params["_meta"][bus_schema::mcp::meta::CLIENT_CAPABILITIES] = capabilities;
    client.modern(called, params)
}

/// A tool without arguments.
fn plain_tool(name: &str) -> Value {
    json!({ "name": name, "inputSchema": { "type": "object" } })
}
