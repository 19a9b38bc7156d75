//! What belongs to somebody else, to another endpoint, or to nobody any more.

use bus_schema::{
    audit::Kind,
    header,
    mcp::{error, meta},
};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tests::{http::Client, session::Session, stream::Stream, within};

use super::{Case, Refused, World, tool};

const SESSION: (Kind, &str) = (Kind::Owner, "session");
const CHANNEL: (Kind, &str) = (Kind::Owner, "channel");
const EVENT: (Kind, &str) = (Kind::Owner, "event_id");
const TASK: (Kind, &str) = (Kind::Owner, "task");
const STATE: (Kind, &str) = (Kind::Owner, "request_state");

pub(super) async fn cases(world: &mut World) -> Vec<Case> {
    let mut cases = sessions(world).await;
    cases.extend(streams(world).await);
    cases.extend(channels(world).await);
    cases.extend(tasks(world).await);
    cases.extend(states(world).await);
    cases
}

fn call() -> String {
    json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": tool("whoami") }).to_string()
}

async fn sessions(world: &World) -> Vec<Case> {
    let at = |path: &str, who: &str| world.of(path, who);
    let (ann, bob) = (at("/servers/whoami/mcp", "ann"), at("/servers/whoami/mcp", "bob"));
    let session = Session::open(&ann, "2025-11-25").await;
    let ended = Session::open(&ann, "2025-11-25").await;
    let end = ann.request(Method::DELETE).header(header::SESSION_ID, ended.id());
    assert_eq!(
        within("an end", end.send()).await.expect("an answer").status(),
        204
    );
    let post = |client: &Client, id: &str| client.raw(call()).header(header::SESSION_ID, id);
    let batch = bob
        .raw(format!("[{}]", call()))
        .header(header::SESSION_ID, session.id());
    let with = |method: Method| bob.request(method).header(header::SESSION_ID, session.id());
    let mut cases = Vec::new();
    for (what, request) in [
        ("a call by another caller", post(&bob, session.id())),
        ("a batch by another caller", batch),
        (
            "another caller listens",
            with(Method::GET).header("accept", "text/event-stream"),
        ),
        ("another caller ends it", with(Method::DELETE)),
        (
            "at another server",
            post(&at("/servers/vault/mcp", "ann"), session.id()),
        ),
        (
            "at the endpoint of all servers",
            post(&at("/mcp", "ann"), session.id()),
        ),
        (
            "at a virtual server",
            post(&at("/servers/v/mcp", "ann"), session.id()),
        ),
        ("a guessed id", post(&ann, &"0".repeat(64))),
        ("an id without end", post(&ann, &"a".repeat(4000))),
        ("one that has ended", post(&ann, ended.id())),
        ("an id with a dot", post(&ann, &format!("{}.x", session.id()))),
    ] {
        cases.push(Case::http(
            format!("a session: {what}"),
            request,
            Refused::Status(404),
            SESSION,
        ));
    }
    let answer = json!({ "jsonrpc": "2.0", "id": "x-1", "result": {} }).to_string();
    for (what, body) in [
        ("nobody has asked for", answer.clone()),
        ("is of another door", answer.replace("x-1", "0192-7")),
    ] {
        let request = ann.raw(body).header(header::SESSION_ID, session.id());
        cases.push(Case::http(
            format!("an answer that {what}"),
            request,
            Refused::Status(400),
            (Kind::Owner, "answer"),
        ));
    }
    let twice = post(&ann, session.id()).header(header::SESSION_ID, "other");
    cases.push(Case::http(
        "two sessions in one request",
        twice,
        Refused::Status(400),
        (Kind::Request, "header_mismatch"),
    ));
    cases
}

/// The ids of events lead back into a stream.
async fn streams(world: &World) -> Vec<Case> {
    let (ann, bob) = (
        world.of("/servers/fixture/mcp", "ann"),
        world.of("/servers/fixture/mcp", "bob"),
    );
    let mine = Session::open(&ann, "2025-11-25").await;
    let other = Session::open(&bob, "2025-11-25").await;
    // A call whose answer is a stream, as it tells of its progress.
    let params = json!({ "name": "progress", "arguments": {}, "_meta": { "progressToken": 1 } });
    let params = match mine
        .ask("tools/list", &json!({}))
        .await
        .to_string()
        .contains("test_tool_with_progress")
    {
        true => {
            json!({ "name": "test_tool_with_progress", "arguments": {}, "_meta": { "progressToken": 1 } })
        }
        false => params,
    };
    let answer = within("a stream", mine.request("tools/call", &params).send())
        .await
        .expect("an answer");
    let mut stream = Stream::of(answer);
    let id = within("an event", stream.event())
        .await
        .expect("an event")
        .id
        .expect("an id");
    assert!(id.starts_with("c."), "{id}");
    let resume = |client: &Client, session: &Session, id: &str| {
        session.listening(client).header(header::LAST_EVENT_ID, id)
    };
    vec![
        Case::http(
            "an event id: another caller's session",
            resume(&bob, &mine, &id),
            Refused::Status(404),
            SESSION,
        ),
        Case::http(
            "an event id: in a session of one's own",
            resume(&bob, &other, &id),
            Refused::Without("\"result\""),
            EVENT,
        ),
        Case::http(
            "an event id: of a stream that never was",
            resume(&ann, &mine, &id.replace("c.", "c.0")),
            Refused::Without("\"result\""),
            EVENT,
        ),
        Case::http(
            "an event id: no id at all",
            resume(&ann, &mine, "../../etc"),
            Refused::Status(400),
            EVENT,
        ),
    ]
}

/// The addresses of HTTP+SSE.
async fn channels(world: &World) -> Vec<Case> {
    let ann = world.of("/servers/whoami/sse", "ann");
    let opened = within("a stream", ann.request(Method::GET).send())
        .await
        .expect("an answer");
    let mut stream = Stream::of(opened);
    let address = stream.event().await.expect("an event").data.expect("an address");
    // The stream stays open while it is tried.
    tokio::spawn(async move { while stream.event().await.is_some() {} });
    let post = |path: &str, who: &str| world.of(path, who).raw(call());
    let id = address.rsplit('/').next().expect("an id").to_owned();
    vec![
        Case::http(
            "an address: another caller",
            post(&address, "bob"),
            Refused::Status(404),
            CHANNEL,
        ),
        Case::http(
            "an address: nobody",
            world.client(&address).raw(call()),
            Refused::Status(401),
            (Kind::Auth, "no_token"),
        ),
        Case::http(
            "an address: at another server",
            post(&format!("/servers/vault/messages/{id}"), "ann"),
            Refused::Status(404),
            CHANNEL,
        ),
        Case::http(
            "an address: at all servers",
            post(&format!("/messages/{id}"), "ann"),
            Refused::Status(404),
            CHANNEL,
        ),
        Case::http(
            "an address: a guessed one",
            post("/servers/whoami/messages/nobody.s", "ann"),
            Refused::Status(404),
            CHANNEL,
        ),
    ]
}

fn about(client: &Client, called: &str, task: &Value) -> RequestBuilder {
    let capabilities = json!({ "elicitation": {}, "extensions": { (meta::TASKS_EXTENSION): {} } });
    let params = json!({ "taskId": task, "inputResponses": {}, "_meta": { (meta::CLIENT_CAPABILITIES): capabilities } });
    client.modern(called, params)
}

async fn tasks(world: &World) -> Vec<Case> {
    let (ann, bob) = (
        world.of("/servers/fixture/mcp", "ann"),
        world.of("/servers/fixture/mcp", "bob"),
    );
    let capabilities = json!({ "elicitation": {}, "extensions": { (meta::TASKS_EXTENSION): {} } });
    let params = json!({ "name": "multi_input", "arguments": {}, "_meta": { (meta::CLIENT_CAPABILITIES): capabilities } });
    let made: Value = within("a task", ann.modern("tools/call", params).send())
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    let task = &made["result"]["taskId"];
    assert!(task.is_string(), "{made}");
    let mut cases = Vec::new();
    for called in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let code = Refused::Code(error::INVALID_PARAMS);
        cases.push(Case::http(
            format!("another caller's task: {called}"),
            about(&bob, called, task),
            code,
            TASK,
        ));
        cases.push(Case::http(
            format!("nobody's task: {called}"),
            about(&bob, called, &json!("nobody's")),
            code,
            TASK,
        ));
    }
    let session = Session::open(&bob, "2025-11-25").await;
    for called in ["tasks/get", "tasks/cancel", "tasks/result"] {
        let request = session.request(called, &json!({ "taskId": task }));
        let code = Refused::Code(error::INVALID_PARAMS);
        cases.push(Case::http(
            format!("another caller's task in a session: {called}"),
            request,
            code,
            TASK,
        ));
    }
    cases
}

/// What a caller holds whose call waits for its input.
async fn states(world: &World) -> Vec<Case> {
    let client = |who: &str| world.of("/servers/asking/mcp", who);
    let params = |n: u64| {
        json!({
            "name": "confirm", "arguments": { "n": n },
            "_meta": { (meta::CLIENT_CAPABILITIES): { "elicitation": { "form": {} } } }
        })
    };
    let asked: Value = within("a question", client("ann").modern("tools/call", params(1)).send())
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    let questions = asked["result"]["inputRequests"]
        .as_object()
        .expect("questions")
        .clone();
    let state = asked["result"]["requestState"]
        .as_str()
        .expect("a state")
        .to_owned();
    let back = |mut params: Value, state: &str| {
        params["requestState"] = json!(state);
        let answer = json!({ "action": "accept", "content": { "colour": "blue" } });
        params["inputResponses"] = questions
            .keys()
            .map(|key| (key.clone(), answer.clone()))
            .collect();
        params
    };
    let (head, sealed) = state.rsplit_once('.').expect("a sealed part");
    let flipped = format!("{head}.{}AAAA", &sealed[..sealed.len() - 4]);
    let elsewhere = format!("tl1.0192f0c1a2b3.{sealed}");
    let mut cases = Vec::new();
    for (what, who, params) in [
        ("another caller", "bob", back(params(1), &state)),
        ("other arguments", "ann", back(params(2), &state)),
        ("a changed one", "ann", back(params(1), &flipped)),
        ("an empty one", "ann", back(params(1), &format!("{head}."))),
        (
            "one of a process that is not there",
            "ann",
            back(params(1), &elsewhere),
        ),
    ] {
        let request = client(who).modern("tools/call", params);
        cases.push(Case::http(
            format!("a state: {what}"),
            request,
            Refused::Code(error::INVALID_PARAMS),
            STATE,
        ));
    }
    cases
}
