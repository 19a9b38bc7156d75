//! A caller without the scopes hears which are needed, and its call goes nowhere.

use bus_schema::header;
use futures::{SinkExt as _, StreamExt as _};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tests::{
    http::{Client, modern_body},
    issuer::Issuer,
    platform::Platform,
    remote,
    scripted::Scripted,
    session::Session,
    stream::Stream,
    within,
};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use super::{challenge, send};

const POLICY: &str = "[policy.scopes]\n\"knowledge:read\" = [\"knowledge__search_*\"]\n\
    \"knowledge:write\" = [\"knowledge__*\"]\n";

/// A platform before a recording server, whose tools need scopes.
struct Library {
    issuer: Issuer,
    platform: Platform,
    server: Scripted,
}

impl Library {
    async fn start() -> Self {
        let issuer = Issuer::start().await;
        let tool = |name: &str| json!({ "name": name, "inputSchema": { "type": "object" } });
        let tools = json!([tool("search_text"), tool("drop")]);
        let server = Scripted::start(move |asked| {
            let tools = tools.clone();
            async move { asked.modern(&tools) }
        })
        .await;
        let section = issuer
            .section("")
            .replacen("[auth]\n", "[auth]\nrequired_scopes = [\"mcp\"]\n", 1);
        let file = section + &remote::local("knowledge", &server.url(), "") + POLICY;
        let platform = Platform::start(&file, &["knowledge"]).await;
        platform.knows("knowledge").await;
        Self {
            issuer,
            platform,
            server,
        }
    }

    fn token(&self, scopes: &str) -> String {
        self.issuer
            .token("ann", &self.platform.url(""), json!({ "scope": scopes }))
    }

    fn client(&self, scopes: &str) -> Client {
        self.platform.client("knowledge").with_token(&self.token(scopes))
    }

    fn calls(&self) -> usize {
        self.server.asked("tools/call").len()
    }

    /// Expects a refusal that names these scopes, and no call.
    async fn refuses(&self, what: &str, request: RequestBuilder, scopes: &str, endpoint: &str) {
        let before = self.calls();
        let refused = send(request).await;
        assert_eq!(refused.status(), 403, "{what}");
        let challenge = challenge(&refused);
        assert!(
            challenge.starts_with("Bearer error=\"insufficient_scope\", "),
            "{what}: {challenge}"
        );
        let at = self
            .platform
            .url(&format!("/.well-known/oauth-protected-resource{endpoint}"));
        let rest = format!(", scope=\"{scopes}\", resource_metadata=\"{at}\"");
        assert!(
            challenge.ends_with(&rest),
            "{what}: {challenge} does not end with {rest}"
        );
        assert_eq!(self.calls(), before, "{what}");
    }
}

fn call(client: &Client, tool: &str) -> RequestBuilder {
    client.modern("tools/call", json!({ "name": tool, "arguments": {} }))
}

#[tokio::test]
async fn a_call_that_needs_more_scopes_hears_all_of_them_and_goes_nowhere() {
    let library = Library::start().await;
    let own = "/servers/knowledge/mcp";
    let few = library.client("mcp");
    library
        .refuses("a read", call(&few, "search_text"), "knowledge:read mcp", own)
        .await;
    library
        .refuses("a write", call(&few, "drop"), "knowledge:write mcp", own)
        .await;
    let reader = library.client("mcp knowledge:read");
    library
        .refuses(
            "more than it has",
            call(&reader, "drop"),
            "knowledge:write mcp",
            own,
        )
        .await;
    let all = library.platform.client_of_all().with_token(&library.token("mcp"));
    library
        .refuses(
            "under its other name",
            call(&all, "knowledge__drop"),
            "knowledge:write mcp",
            "/mcp",
        )
        .await;
    let refused: Value = send(call(&few, "drop")).await.json().await.expect("JSON");
    assert_eq!(
        (&refused["id"], &refused["error"]["data"]["reason"]),
        (&json!(1), &json!("insufficient_scope"))
    );
    for (client, tool) in [
        (&reader, "search_text"),
        (&library.client("mcp knowledge:write"), "search_text"),
        (&library.client("knowledge:write mcp"), "drop"),
    ] {
        let before = library.calls();
        assert_eq!(send(call(client, tool)).await.status(), 200);
        assert_eq!(library.calls(), before + 1);
    }
    // Looking needs none of them.
    assert_eq!(send(few.modern("tools/list", json!({}))).await.status(), 200);
    library.platform.stop().await;
}

#[tokio::test]
async fn what_everybody_needs_is_asked_for_beforehand_and_of_every_request() {
    let library = Library::start().await;
    let client = library.platform.client("knowledge");
    let nobody = send(client.modern("tools/list", json!({}))).await;
    assert_eq!(nobody.status(), 401);
    assert!(
        challenge(&nobody).starts_with("Bearer scope=\"mcp\", resource_metadata="),
        "{}",
        challenge(&nobody)
    );
    let without = library.client("knowledge:read").modern("tools/list", json!({}));
    library
        .refuses("a list", without, "mcp", "/servers/knowledge/mcp")
        .await;
    let document = library.platform.url("/.well-known/oauth-protected-resource/mcp");
    let document: Value = send(reqwest::Client::new().get(document))
        .await
        .json()
        .await
        .expect("JSON");
    assert_eq!(document["scopes_supported"], json!(["mcp"]));
    library.platform.stop().await;
}

#[tokio::test]
async fn clients_of_the_legacy_era_step_up_as_well() {
    let library = Library::start().await;
    let own = "/servers/knowledge/mcp";
    let client = library.client("mcp");
    let params = |tool: &str| json!({ "name": tool, "arguments": {} });
    let session = Session::open(&client, "2025-03-26").await;
    library
        .refuses(
            "a call",
            session.request("tools/call", &params("drop")),
            "knowledge:write mcp",
            own,
        )
        .await;
    let message = |id: u64, tool: &str| json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params(tool) });
    let batch = json!([message(1, "search_text"), message(2, "drop")]);
    let batch = client
        .raw(batch.to_string())
        .header(header::SESSION_ID, session.id());
    library
        .refuses("a batch", batch, "knowledge:read knowledge:write mcp", own)
        .await;
    // The session goes on with a token that was granted more.
    let more = library.client("mcp knowledge:write");
    let again = more
        .raw(message(3, "drop").to_string())
        .header(header::SESSION_ID, session.id());
    assert_eq!(send(again).await.status(), 200);
    let at = |path: &str| Client::new(library.platform.url(path)).with_token(&library.token("mcp"));
    let mut stream = Stream::of(send(at("/servers/knowledge/sse").request(reqwest::Method::GET)).await);
    let address = stream.event().await.expect("an event").data.expect("an address");
    let post = at(&address).raw(message(1, "drop").to_string());
    library
        .refuses("a message", post, "knowledge:write mcp", "/servers/knowledge/sse")
        .await;
    // On the same stream, a message with a better token is a call.
    let open = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" }
    }});
    assert_eq!(send(at(&address).raw(open.to_string())).await.status(), 202);
    assert_eq!(stream.message().await["id"], 0);
    let more = Client::new(library.platform.url(&address)).with_token(&library.token("mcp knowledge:write"));
    let before = library.calls();
    assert_eq!(send(more.raw(message(1, "drop").to_string())).await.status(), 202);
    let answer = stream.message().await;
    assert!(answer["result"].is_object(), "{answer}");
    assert_eq!(library.calls(), before + 1);
    library.platform.stop().await;
}

#[tokio::test]
async fn a_channel_without_statuses_says_the_same_in_the_answer() {
    let library = Library::start().await;
    let url = library
        .platform
        .url("/servers/knowledge/ws")
        .replacen("http", "ws", 1);
    let mut request = url.into_client_request().expect("a request");
    let value = format!("Bearer {}", library.token("mcp"))
        .parse()
        .expect("a header");
    request.headers_mut().insert("authorization", value);
    let (mut socket, _) = within("the connection", connect_async(request))
        .await
        .expect("connects");
    let before = library.calls();
    let body = modern_body("tools/call", json!({ "name": "drop" })).to_string();
    socket.send(Message::text(body)).await.expect("sends");
    let answer = within("an answer", socket.next())
        .await
        .expect("an answer")
        .expect("a frame");
    let answer: Value = serde_json::from_str(answer.to_text().expect("text")).expect("JSON");
    let data = &answer["error"]["data"];
    assert_eq!(
        *data,
        json!({ "reason": "insufficient_scope", "scopes": ["knowledge:write"] }),
        "{answer}"
    );
    assert_eq!(library.calls(), before);
    library.platform.stop().await;
}
