//! One count for all doors: whatever door a call comes by, it is counted, and refused when the limit is reached.

use bridges::front::Endpoint;
use bus_schema::{
    ProtocolVersion, Token,
    mcp::method,
    principal::DEFAULT_TENANT,
    subject::{MethodPath, Subject},
};
use serde_json::{Value, json};
use tests::{
    channel::Channel,
    http::{Client, modern_body},
    parts::{printed, python, script},
    platform::Platform,
    session::Session,
    whoami::WhoAmI,
    within,
};

use super::HOUR;

/// Ways to have the same tool called.
const WAYS: u64 = 12;

const VIRTUAL: &str = "[[virtual]]\nid = \"desk\"\nitems = [{ server = \"whoami\", tools = [\"*\"] }]\n";

fn named(tool: &str) -> Value {
    json!({ "name": tool, "arguments": {} })
}

/// The answer to a call by each door, with the status where there is one.
async fn by_every_door(platform: &mut Platform) -> Vec<(&'static str, Option<u16>, Value)> {
    let mut answers = Vec::new();
    let own = platform.client("whoami");
    let all = platform.client_of_all();
    let search = Client::new(platform.url("/mcp/search"));
    let desk = platform.client("desk");
    for (way, client, params) in [
        ("one server", &own, named("whoami")),
        ("all servers", &all, named("whoami__whoami")),
        (
            "call_tool",
            &search,
            json!({ "name": "call_tool", "arguments": { "name": "whoami__whoami" } }),
        ),
        ("a virtual server", &desk, named("whoami")),
    ] {
        let request = client.modern(method::TOOLS_CALL, params);
        let answer = within(way, request.send()).await.expect("an answer");
        let status = answer.status().as_u16();
        answers.push((way, Some(status), answer.json().await.expect("JSON")));
    }
    let read = own.modern(method::RESOURCES_READ, json!({ "uri": tests::whoami::RESOURCE }));
    let answer = within("a resource", read.send()).await.expect("an answer");
    answers.push((
        "a resource",
        Some(answer.status().as_u16()),
        answer.json().await.expect("JSON"),
    ));
    let session = Session::open(&own, "2025-11-25").await;
    let answer = within(
        "a session",
        session.request(method::TOOLS_CALL, &named("whoami")).send(),
    )
    .await
    .expect("an answer");
    answers.push((
        "a session",
        Some(answer.status().as_u16()),
        answer.json().await.expect("JSON"),
    ));
    let session = Session::open(&own, ProtocolVersion::V2025_03_26.as_str()).await;
    let batch =
        json!([{ "jsonrpc": "2.0", "id": 1, "method": method::TOOLS_CALL, "params": named("whoami") }]);
    let request = own
        .raw(batch.to_string())
        .header(bus_schema::header::SESSION_ID, session.id());
    let answer: Value = within("a batch", request.send())
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    answers.push(("a batch", None, answer[0].clone()));
    let call = modern_body(method::TOOLS_CALL, named("whoami"));
    for (way, mut channel) in [
        (
            "a websocket",
            Channel::socket(platform, "/servers/whoami/ws").await,
        ),
        ("a websocket of all", Channel::socket(platform, "/ws").await),
        ("a pipe", Channel::pipe(platform, Endpoint::All).await),
    ] {
        let call = match way {
            "a websocket" => call.clone(),
            _ => modern_body(method::TOOLS_CALL, named("whoami__whoami")),
        };
        answers.push((way, None, channel.ask(&call).await));
    }
    let mut events = Channel::events(platform, "/servers/whoami/sse").await;
    let info = json!({ "protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    events
        .ask(&json!({ "jsonrpc": "2.0", "id": 0, "method": method::INITIALIZE, "params": info }))
        .await;
    let answer = events
        .ask(&json!({ "jsonrpc": "2.0", "id": 1, "method": method::TOOLS_CALL, "params": named("whoami") }))
        .await;
    answers.push(("http+sse", None, answer));
    answers.push(("plain nats", None, by_nats(platform).await));
    answers
}

async fn by_nats(platform: &Platform) -> Value {
    let subject = Subject::Public {
        tenant: Token::encode(DEFAULT_TENANT),
        server: Token::encode("whoami"),
        method: MethodPath::encode(method::TOOLS_CALL),
        name: Some(Token::encode("whoami")),
    };
    let request =
        json!({ "jsonrpc": "2.0", "id": 1, "method": method::TOOLS_CALL, "params": named("whoami") });
    let step = json!({ "call": subject.to_string(), "json": request });
    let url = platform.node.nats_url().expect("a NATS of its own");
    let mut command = python(&script("door.py"));
    command.arg(json!({ "url": url, "steps": [step] }).to_string());
    let told: Vec<Vec<Value>> = serde_json::from_str(&printed(command).await).expect("JSON");
    told[0].last().expect("an answer").clone()
}

#[tokio::test]
async fn every_door_counts_the_same_calls_and_refuses_the_same() {
    // Callers of the NATS door are others than those of HTTP, so all of the tenant count together.
    let limits = format!("{VIRTUAL}[[limits]]\nname = \"all\"\nby = \"tenant\"\ncalls = {WAYS}\n{HOUR}");
    let mut platform = Platform::start(&limits, &[]).await;
    let _host = WhoAmI::serve(platform.node.bus()).await;
    platform.knows("whoami").await;
    let first = by_every_door(&mut platform).await;
    assert_eq!(first.len() as u64, WAYS);
    for (way, status, answer) in &first {
        let answer = answer.get("body").unwrap_or(answer);
        assert!(answer["result"].is_object(), "{way}: {answer}");
        assert!(status.is_none_or(|status| status == 200), "{way}: {status:?}");
    }
    for (way, status, answer) in by_every_door(&mut platform).await {
        let answer = answer.get("body").unwrap_or(&answer);
        let data = &answer["error"]["data"];
        assert_eq!(
            (&data["reason"], &data["limit"]),
            (&json!("rate_limited"), &json!("all")),
            "{way}: {answer}"
        );
        assert!(
            data["retryAfterMs"].as_u64().is_some_and(|wait| wait > 0),
            "{way}: {answer}"
        );
        assert!(status.is_none_or(|status| status == 429), "{way}: {status:?}");
    }
    platform.stop().await;
}

#[tokio::test]
async fn users_have_sixty_calls_a_minute_and_a_developer_without_authentication_has_no_limit() {
    let issuer = tests::issuer::Issuer::start().await;
    let platform = Platform::start(&issuer.section(""), &[]).await;
    let _host = WhoAmI::serve(platform.node.bus()).await;
    platform.knows("whoami").await;
    let client = |who: &str| {
        let token = issuer.token(who, &platform.url(""), json!({}));
        platform.client("whoami").with_token(&token)
    };
    let (ann, bob) = (client("ann"), client("bob"));
    let answer = super::call(&ann, "whoami").await;
    assert_eq!(super::number(&answer, "ratelimit-limit"), Some(60));
    // Another caller has calls of its own.
    assert_eq!(super::status(&bob, "whoami").await, 200);
    let mut counted = 1;
    while super::status(&ann, "whoami").await == 200 {
        counted += 1;
        assert!(counted < 600, "no limit");
    }
    assert!(counted >= 57, "{counted}");
    platform.stop().await;

    let open = Platform::start("", &[]).await;
    let _host = WhoAmI::serve(open.node.bus()).await;
    open.knows("whoami").await;
    let answer = super::call(&open.client("whoami"), "whoami").await;
    assert_eq!(
        (
            answer.status().as_u16(),
            super::number(&answer, "ratelimit-limit")
        ),
        (200, None)
    );
    open.stop().await;
}
