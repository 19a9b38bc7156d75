//! What belongs to one caller is as unknown to every other as what is not there.

use bus_schema::mcp::{error, meta};
use serde_json::{Value, json};
use tests::{
    children::asking, conformance::fixture::serve, eventually, http::text, issuer::Issuer,
    platform::Platform, session::Session, stream::Stream, within,
};

use super::{Stage, send, status};

#[tokio::test]
async fn a_session_is_its_own_callers_and_unknown_to_every_other() {
    let stage = Stage::start("").await;
    let (ann, bob) = (stage.client_of("ann"), stage.client_of("bob"));
    let session = Session::open(&ann, "2025-11-25").await;
    let call = |session: &str, client: &tests::http::Client| {
        let body =
            json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": { "name": "whoami" } });
        client
            .raw(body.to_string())
            .header(bus_schema::header::SESSION_ID, session)
    };
    let answer = async |request: reqwest::RequestBuilder| {
        let answer = send(request).await;
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    };
    let foreign = answer(call(session.id(), &bob)).await;
    assert_eq!(foreign.0, 404);
    assert_eq!(
        foreign,
        answer(call("0".repeat(64).as_str(), &bob)).await,
        "as if there were none"
    );
    for method in [reqwest::Method::GET, reqwest::Method::DELETE] {
        let request = bob
            .request(method)
            .header(bus_schema::header::SESSION_ID, session.id());
        assert_eq!(answer(request).await.0, 404);
    }
    // Neither does a subject of the same name at another issuer have it: the operator's keys are such.
    let own = answer(call(session.id(), &ann)).await;
    assert!(own.0 == 200 && own.1.contains("\"ann\""), "{own:?}");
    // Another token of the same caller goes on with it, and DELETE ends it.
    let again = stage.client_of("ann");
    assert_eq!(answer(call(session.id(), &again)).await.0, 200);
    let end = again
        .request(reqwest::Method::DELETE)
        .header(bus_schema::header::SESSION_ID, session.id());
    assert_eq!(answer(end).await.0, 204);
    assert_eq!(answer(call(session.id(), &ann)).await.0, 404);
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_lost_stream_is_taken_up_by_its_own_caller_only() {
    let stage = Stage::start("").await;
    let (ann, bob) = (stage.client_of("ann"), stage.client_of("bob"));
    let (mine, other) = (
        Session::open(&ann, "2025-11-25").await,
        Session::open(&bob, "2025-11-25").await,
    );
    let mut stream = Stream::of(send(mine.listening(&ann)).await);
    let id = stream.event().await.expect("an event").id.expect("an id");
    for (session, client, expected) in [(&mine, &bob, 404), (&other, &bob, 200), (&mine, &ann, 200)] {
        let request = session.listening(client).header("last-event-id", &id);
        assert_eq!(send(request).await.status(), expected);
    }
    stage.platform.stop().await;
}

#[tokio::test]
async fn the_state_of_a_call_is_worth_nothing_to_another_caller() {
    let issuer = Issuer::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let heard = folder.path().join("heard");
    let platform = Platform::start(&(issuer.section("") + &asking("asking", &heard, "")), &["asking"]).await;
    platform.knows("asking").await;
    let client = |who: &str| {
        let token = issuer.token(who, &platform.url(""), json!({}));
        platform.client("asking").with_token(&token)
    };
    let params = json!({
        "name": "confirm", "arguments": { "n": 1 },
        "_meta": { (meta::CLIENT_CAPABILITIES): { "elicitation": { "form": {} } } }
    });
    let ask = async |who: &str, params: &Value| -> Value {
        let request = client(who).modern("tools/call", params.clone());
        within("an answer", send(request).await.json())
            .await
            .expect("JSON")
    };
    let asked = ask("ann", &params).await;
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    let mut back = params.clone();
    back["requestState"] = asked["result"]["requestState"].clone();
    let questions = asked["result"]["inputRequests"].as_object().expect("questions");
    let answer = json!({ "action": "accept", "content": { "colour": "blue" } });
    back["inputResponses"] = questions
        .keys()
        .map(|key| (key.clone(), answer.clone()))
        .collect();
    let calls = || {
        let heard = std::fs::read_to_string(&heard).unwrap_or_default();
        heard.matches("\"tools/call\"").count()
    };
    let before = calls();
    let foreign = ask("bob", &back).await;
    assert_eq!(foreign["error"]["code"], error::INVALID_PARAMS, "{foreign}");
    let mut unknown = back.clone();
    let state = back["requestState"].as_str().expect("a state");
    unknown["requestState"] = json!(format!("{}AAAA", &state[..state.len() - 4]));
    assert_eq!(
        ask("bob", &unknown).await["error"],
        foreign["error"],
        "as if there were none"
    );
    assert_eq!(calls(), before, "the server hears nothing of it");
    // Another token of the caller who was asked will do.
    let last = ask("ann", &back).await;
    assert!(text(&last).contains("blue"), "{last}");
    platform.stop().await;
}

#[tokio::test]
async fn a_task_is_unknown_to_everybody_but_the_caller_it_was_made_for() {
    let issuer = Issuer::start().await;
    let platform = Platform::start(&issuer.section(""), &[]).await;
    let _host = serve::on_bus(platform.node.bus(), "fixture").await;
    platform.knows("fixture").await;
    let client = |who: &str| {
        let token = issuer.token(who, &platform.url(""), json!({}));
        platform.client("fixture").with_token(&token)
    };
    let ask = async |who: &str, called: &str, mut params: Value| -> Value {
        let capabilities = json!({ "elicitation": {}, "extensions": { (meta::TASKS_EXTENSION): {} } });
        params["_meta"][meta::CLIENT_CAPABILITIES] = capabilities;
        send(client(who).modern(called, params))
            .await
            .json()
            .await
            .expect("JSON")
    };
    let made = ask(
        "ann",
        "tools/call",
        json!({ "name": "multi_input", "arguments": {} }),
    )
    .await;
    assert_eq!(made["result"]["resultType"], "task", "{made}");
    let task = &made["result"]["taskId"];
    let got = ask("ann", "tasks/get", json!({ "taskId": task })).await;
    assert_eq!(&got["result"]["taskId"], task, "{got}");
    for called in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let about = |id: &Value| json!({ "taskId": id, "inputResponses": {} });
        let foreign = ask("bob", called, about(task)).await;
        assert_eq!(
            foreign["error"]["code"],
            error::INVALID_PARAMS,
            "{called}: {foreign}"
        );
        assert_eq!(
            foreign,
            ask("bob", called, about(&json!("nobody's"))).await,
            "{called}"
        );
    }
    let mut last = Value::Null;
    eventually("the task waits for its own caller", async || {
        last = ask("ann", "tasks/get", json!({ "taskId": task })).await;
        last["result"]["status"] == "input_required"
    })
    .await;
    let cancelled = ask("ann", "tasks/cancel", json!({ "taskId": task })).await;
    assert!(cancelled["result"].is_object(), "{cancelled}");
    platform.stop().await;
}

#[tokio::test]
async fn a_legacy_task_is_unknown_to_another_caller_as_well() {
    let issuer = Issuer::start().await;
    let platform = Platform::start(&issuer.section(""), &[]).await;
    let _host = serve::on_bus(platform.node.bus(), "fixture").await;
    platform.knows("fixture").await;
    let client = |who: &str| {
        let token = issuer.token(who, &platform.url(""), json!({}));
        platform.client("fixture").with_token(&token)
    };
    assert_eq!(status(&platform.client("fixture"), "tlk_x").await, 401);
    let (ann, bob) = (
        Session::open(&client("ann"), "2025-11-25").await,
        Session::open(&client("bob"), "2025-11-25").await,
    );
    let call = json!({ "name": "slow_compute", "arguments": { "seconds": 0 }, "task": { "ttl": 60_000 } });
    let made = ann.ask("tools/call", &call).await;
    let task = &made["result"]["task"]["taskId"];
    assert!(task.is_string(), "{made}");
    let about = json!({ "taskId": task });
    assert_eq!(&ann.ask("tasks/get", &about).await["result"]["taskId"], task);
    for called in ["tasks/get", "tasks/cancel", "tasks/result"] {
        let foreign = bob.ask(called, &about).await;
        assert_eq!(
            foreign["error"]["code"],
            error::INVALID_PARAMS,
            "{called}: {foreign}"
        );
        let unknown = bob.ask(called, &json!({ "taskId": "nobodys" })).await;
        assert_eq!(foreign["error"]["code"], unknown["error"]["code"], "{called}");
        assert_eq!(
            foreign["error"]["message"], unknown["error"]["message"],
            "{called}"
        );
    }
    platform.stop().await;
}
