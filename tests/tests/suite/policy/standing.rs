//! Who listens already hears no more of what a policy hides from then on: streams of listen requests, of legacy sessions and on sockets.

use std::sync::Arc;

use bus_schema::{Principal, mcp::method};
use runtime::{Host, policies::Rules};
use serde_json::{Value, json};
use tests::{
    changing::Changing, channel::Channel, eventually, http::modern_body, platform::Platform,
    session::Session, stream::Stream, within,
};

use super::set;

const SHUT: &str = "test://shut";
const OPEN: &str = "test://open";

struct Setting {
    platform: Platform,
    server: Arc<Changing>,
    _host: Host,
}

impl Setting {
    async fn start() -> Self {
        let platform = Platform::start("", &["registry"]).await;
        let server = Arc::<Changing>::default();
        let host = server.serve(platform.node.bus(), "changing").await;
        platform.knows("changing").await;
        Self {
            platform,
            server,
            _host: host,
        }
    }

    /// Has a policy kept that hides these things from everybody, and waits until it is in force.
    async fn hide(&self, hidden: Value) {
        let mut rule = json!({ "name": "shut", "effect": "hide" });
        for (kind, patterns) in hidden.as_object().expect("patterns") {
            rule[kind] = patterns.clone();
        }
        let bus = self.platform.node.bus();
        let wish = set(&json!({ "default": "allow", "rules": [rule] }), None);
        let kept = bus.set_document::<Rules>(&Principal::developer(), &wish).await;
        let version = kept.expect("taken").version;
        let policies = bus.policies();
        let mut changes = policies.changes();
        within("the policy is in force", async {
            while policies.of("default").version != Some(version) {
                changes.changed().await.expect("the policies live");
            }
        })
        .await;
    }

    async fn listen(&self, path: &str, wanted: Value) -> (Stream, Value) {
        let client = tests::http::Client::new(self.platform.url(path));
        let request = client.modern(method::LISTEN, json!({ "notifications": wanted }));
        let mut stream = Stream::of(within("a stream", request.send()).await.expect("an answer"));
        let first = stream.message().await;
        assert_eq!(first["method"], method::ACKNOWLEDGED, "{first}");
        (stream, first["params"]["notifications"].clone())
    }
}

/// The URI that the next notice is about; notices of lists are passed over.
async fn updated(mut next: impl AsyncFnMut() -> Value) -> Value {
    loop {
        let message = next().await;
        if message["method"] == method::UPDATED {
            return message["params"]["uri"].clone();
        }
        let called = message["method"].as_str().unwrap_or_default();
        assert!(called.ends_with("list_changed"), "{message}");
    }
}

#[tokio::test]
async fn a_listen_request_ends_when_less_is_granted_and_the_next_one_is_told_of_the_rest() {
    let setting = Setting::start().await;
    let path = "/servers/changing/mcp";
    let wanted = json!({ "resourceSubscriptions": [OPEN, SHUT] });
    let (mut both, granted) = setting.listen(path, wanted.clone()).await;
    assert_eq!(granted, wanted);
    let (mut one, _) = setting
        .listen(path, json!({ "resourceSubscriptions": [OPEN] }))
        .await;
    setting.server.touch(SHUT);
    assert_eq!(updated(async || both.message().await).await, SHUT);
    setting
        .hide(json!({ "resources": [format!("changing__{SHUT}")] }))
        .await;
    setting.server.touch(SHUT);
    setting.server.touch(OPEN);
    // What may be told of stays, and the other stream has ended in order, without a further word of what is hidden.
    assert_eq!(updated(async || one.message().await).await, OPEN);
    let last = both.message().await;
    assert_eq!(last["result"]["resultType"], "complete", "{last}");
    assert!(both.event().await.is_none());
    let (mut again, granted) = setting.listen(path, wanted).await;
    assert_eq!(granted, json!({ "resourceSubscriptions": [OPEN] }));
    setting.server.touch(SHUT);
    setting.server.touch(OPEN);
    assert_eq!(updated(async || again.message().await).await, OPEN);
    setting.platform.stop().await;
}

#[tokio::test]
async fn a_session_hears_no_more_of_a_subscribed_resource_that_is_hidden() {
    let setting = Setting::start().await;
    let client = setting.platform.client("changing");
    let session = Session::open(&client, "2025-11-25").await;
    let request = within("a stream", session.listening(&client).send());
    let mut stream = Stream::of(request.await.expect("an answer"));
    for uri in [SHUT, OPEN] {
        let answer = session.ask(method::SUBSCRIBE, &json!({ "uri": uri })).await;
        assert!(answer["result"].is_object(), "{answer}");
    }
    setting.server.touch(SHUT);
    assert_eq!(updated(async || stream.message().await).await, SHUT);
    setting
        .hide(json!({ "resources": [format!("changing__{SHUT}")] }))
        .await;
    setting.server.touch(SHUT);
    setting.server.touch(OPEN);
    assert_eq!(updated(async || stream.message().await).await, OPEN);
    // A stream that is opened anew, and so is told what may have changed, hears no more of it either.
    drop(stream);
    let request = session.listening(&client).header("last-event-id", "g.a.b.c.0");
    let mut stream = Stream::of(within("a stream", request.send()).await.expect("an answer"));
    assert_eq!(updated(async || stream.message().await).await, OPEN);
    setting.server.touch(SHUT);
    setting.server.touch(OPEN);
    assert_eq!(updated(async || stream.message().await).await, OPEN);
    setting.platform.stop().await;
}

#[tokio::test]
async fn a_websocket_hears_no_more_of_what_is_hidden_in_either_era() {
    let setting = Setting::start().await;
    let mut legacy = Channel::socket(&setting.platform, "/servers/changing/ws").await;
    let client = json!({ "name": "test", "version": "1" });
    let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client });
    let request = |called: &str, params: Value| json!({ "jsonrpc": "2.0", "id": 1, "method": called, "params": params });
    legacy.send(&request(method::INITIALIZE, params)).await;
    assert!(legacy.receive().await["result"].is_object());
    legacy
        .send(&json!({ "jsonrpc": "2.0", "method": method::INITIALIZED }))
        .await;
    for uri in [SHUT, OPEN] {
        legacy
            .send(&request(method::SUBSCRIBE, json!({ "uri": uri })))
            .await;
        assert!(legacy.receive().await["result"].is_object());
    }
    let mut modern = Channel::socket(&setting.platform, "/servers/changing/ws").await;
    let wanted = json!({ "notifications": { "resourceSubscriptions": [OPEN, SHUT] } });
    modern.send(&modern_body(method::LISTEN, wanted)).await;
    assert_eq!(modern.receive().await["method"], method::ACKNOWLEDGED);
    setting.server.touch(SHUT);
    assert_eq!(updated(async || legacy.receive().await).await, SHUT);
    assert_eq!(updated(async || modern.receive().await).await, SHUT);
    setting
        .hide(json!({ "resources": [format!("changing__{SHUT}")] }))
        .await;
    setting.server.touch(SHUT);
    setting.server.touch(OPEN);
    assert_eq!(updated(async || legacy.receive().await).await, OPEN);
    let last = modern.receive().await;
    assert_eq!(last["result"]["resultType"], "complete", "{last}");
    setting.platform.stop().await;
}

#[tokio::test]
async fn nobody_hears_of_the_lists_of_a_server_that_is_hidden_altogether() {
    let mut setting = Setting::start().await;
    let other = Arc::<Changing>::default();
    let _other = other.serve(setting.platform.node.bus(), "other").await;
    setting.platform.knows("other").await;
    let wanted = json!({ "toolsListChanged": true, "promptsListChanged": true });
    let (mut all, _) = setting.listen("/mcp", wanted).await;
    let (mut hidden, _) = setting
        .listen("/servers/changing/mcp", json!({ "toolsListChanged": true }))
        .await;
    let everything = json!(["changing__*"]);
    setting
        .hide(json!({ "tools": everything, "prompts": everything, "resources": everything, "methods": everything }))
        .await;
    // That the lists are others now is told once.
    let both = [all.message().await, all.message().await];
    assert_eq!(
        (&both[0]["method"], &both[1]["method"]),
        (&json!(method::TOOLS_CHANGED), &json!(method::PROMPTS_CHANGED))
    );
    assert_eq!(hidden.message().await["method"], method::TOOLS_CHANGED);
    let front = setting.platform.node.front(&setting.platform.config).await;
    let directory = front.expect("a front").directory().clone();
    let id = "changing".parse().expect("an id");
    let tools = || {
        directory
            .snapshot()
            .server(&id)
            .map(|card| card.lists.tools.clone())
    };
    let before = tools();
    setting.server.add_tool();
    eventually("the doors have heard of it", async || tools() != before).await;
    other.add_prompt();
    // Had the hidden tool been told of, it would have come before.
    assert_eq!(all.message().await["method"], method::PROMPTS_CHANGED);
    setting.hide(json!({ "tools": ["nothing__at_all"] })).await;
    assert_eq!(hidden.message().await["method"], method::TOOLS_CHANGED);
    setting.platform.stop().await;
}
