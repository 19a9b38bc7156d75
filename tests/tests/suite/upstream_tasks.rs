//! Tasks of legacy servers, as clients of both eras use them: the experimental tasks of 2025-11-25 upstream, on real servers.

use bus_schema::{
    Body, Principal, ProtocolVersion as Version, Request, RoutedState, header,
    mcp::{error, meta, method, task},
};
use futures::future::join_all;
use runtime::Retry;
use serde_json::{Value, json};
use tests::{
    children::{everything, tasks},
    dialogue::{Dialogue, Exchange},
    eventually,
    http::{Client, modern_body, text},
    platform::Platform,
    remote::{Process, local},
    within,
};

const SERVER: &str = "tasks";
const RESEARCH: &str = "simulate-research-query";

fn knows_tasks() -> Value {
    json!({ "elicitation": { "form": {} }, "extensions": { meta::TASKS_EXTENSION: {} } })
}

fn takes_forms() -> Value {
    json!({ "elicitation": { "form": {} } })
}

async fn platform() -> Platform {
    let platform = Platform::start(&tasks(SERVER), &[SERVER]).await;
    platform.knows(SERVER).await;
    platform
}

async fn modern(platform: &Platform) -> Dialogue {
    Dialogue::open(platform.client(SERVER), Version::MODERN, knows_tasks()).await
}

async fn legacy(platform: &Platform) -> Dialogue {
    Dialogue::open(platform.client(SERVER), Version::V2025_11_25, takes_forms()).await
}

async fn about(client: &Dialogue, called: &str, id: &Value) -> Value {
    client.ask(called, json!({ "taskId": id })).await.answer
}

/// Makes a task as a modern client, and gives its id.
async fn make(client: &Dialogue, tool: &str, arguments: Value) -> Value {
    let made = client.call(tool, arguments).await.answer;
    let task = &made["result"];
    assert_eq!(task["resultType"], "task", "{made}");
    assert!(task["task"].is_null() && task["ttlMs"].is_u64(), "{made}");
    task["taskId"].clone()
}

/// Makes a task as a legacy client, and gives its id.
async fn make_legacy(client: &Dialogue, tool: &str, arguments: Value) -> Value {
    let params = json!({ "name": tool, "arguments": arguments, "task": { "ttl": 60_000 } });
    let made = client.ask(method::TOOLS_CALL, params).await.answer;
    let task = &made["result"]["task"];
    assert_eq!(task["status"], "working", "{made}");
    assert!(
        task["ttl"].is_u64() && made["result"].get("resultType").is_none(),
        "{made}"
    );
    task["taskId"].clone()
}

async fn becomes(client: &Dialogue, id: &Value, status: &str) -> Value {
    let mut told = Value::Null;
    eventually(&format!("the task is {status}"), async || {
        told = about(client, method::TASKS_GET, id).await["result"].clone();
        told["status"] == status
    })
    .await;
    assert_eq!(&told["taskId"], id, "{told}");
    told
}

/// The keys of what a task asks, by the words.
fn asked(told: &Value) -> Vec<(String, String)> {
    let requests = told["inputRequests"].as_object().into_iter().flatten();
    let mut asked: Vec<_> = requests
        .map(|(key, request)| {
            assert!(request["params"].get("_meta").is_none(), "{told}");
            let words = request["params"]["message"].as_str().expect("words");
            (words.to_owned(), key.clone())
        })
        .collect();
    asked.sort();
    asked
}

async fn update(client: &Dialogue, id: &Value, answers: Value) {
    let params = json!({ "taskId": id, "inputResponses": answers });
    let taken = client.ask(method::TASKS_UPDATE, params).await.answer;
    assert_eq!(taken["result"], json!({ "resultType": "complete" }), "{taken}");
}

fn named(name: &str) -> Value {
    json!({ "action": "accept", "content": { "name": name } })
}

#[tokio::test]
async fn a_legacy_server_with_tasks_has_the_extension_and_its_tools_do_not_say_so() {
    let platform = platform().await;
    let modern = modern(&platform).await;
    let capabilities = &modern.opened["capabilities"];
    assert_eq!(
        capabilities["extensions"],
        json!({ meta::TASKS_EXTENSION: {} }),
        "{capabilities}"
    );
    assert!(capabilities.get("tasks").is_none(), "{capabilities}");
    let legacy = legacy(&platform).await;
    let offered = json!({ "cancel": {}, "requests": { "tools": { "call": {} } } });
    assert_eq!(legacy.opened["capabilities"]["tasks"], offered);
    let old = Dialogue::open(platform.client(SERVER), Version::V2025_06_18, json!({})).await;
    assert!(old.opened["capabilities"].get("tasks").is_none());
    for client in [&modern, &old] {
        let listed = client.ask(method::TOOLS_LIST, json!({})).await.answer;
        let tools = listed["result"]["tools"].as_array().expect("tools");
        assert_eq!(tools.len(), 8, "{listed}");
        assert!(
            tools.iter().all(|tool| tool.get("execution").is_none()),
            "{listed}"
        );
    }
    // A tool whose calls are no tasks answers at once, whoever calls it.
    assert_eq!(modern.call("greet", json!({})).await.text(), "Hello!");
    let kept = make_legacy(&legacy, "greet", json!({})).await;
    assert_eq!(text(&about(&legacy, task::RESULT, &kept).await), "Hello!");
    platform.stop().await;
}

#[tokio::test]
async fn a_client_that_knows_no_tasks_gets_the_result_of_a_tool_that_is_a_task() {
    let platform = platform().await;
    let client = |version, declared| Dialogue::open(platform.client(SERVER), version, declared);
    for version in [Version::MODERN, Version::V2025_11_25, Version::V2025_06_18] {
        let plain = client(version, json!({})).await;
        for (tool, words) in [("quick", "done"), ("failing", "The job has failed.")] {
            let done = plain.call(tool, json!({})).await;
            assert_eq!(done.text(), words, "{version} {done:?}");
            assert!(
                done.answer["result"]
                    .get("_meta")
                    .is_none_or(|meta| meta.get(task::RELATED).is_none())
            );
            let expected = (version == Version::MODERN).then(|| json!("complete"));
            assert_eq!(done.answer["result"].get("resultType"), expected.as_ref());
        }
        let asking = client(version, takes_forms()).await;
        let Exchange { asked, answer, .. } = asking.call("both", json!({})).await;
        let mut words: Vec<_> = asked
            .iter()
            .map(|(_, params)| params["message"].clone())
            .collect();
        words.sort_by_key(ToString::to_string);
        assert_eq!(words, ["Who is the first?", "Who is the second?"], "{version}");
        assert_eq!(text(&answer), "blue and blue", "{version}");
    }
    // On the endpoint of all servers nobody could ask what becomes of a task.
    let all = Dialogue::open(platform.client_of_all(), Version::MODERN, knows_tasks()).await;
    for tool in ["tasks__quick", "tasks__failing"] {
        let done = all.call(tool, json!({})).await.answer;
        assert_eq!(done["result"]["resultType"], "complete", "{done}");
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_tool_that_fails_in_a_legacy_servers_task_completes_it_for_a_modern_client_only() {
    let platform = platform().await;
    let (modern, legacy) = (modern(&platform).await, legacy(&platform).await);
    let id = make(&modern, "failing", json!({})).await;
    let done = becomes(&modern, &id, "completed").await;
    assert_eq!(done["result"]["isError"], true, "{done}");
    assert_eq!(done["result"]["resultType"], "complete", "{done}");
    assert!(done["result"]["_meta"].get(task::RELATED).is_none(), "{done}");
    let id = make_legacy(&legacy, "failing", json!({})).await;
    becomes(&legacy, &id, "failed").await;
    let result = about(&legacy, task::RESULT, &id).await["result"].clone();
    assert_eq!(result["isError"], true, "{result}");
    assert_eq!(
        result["_meta"][task::RELATED],
        json!({ "taskId": id }),
        "{result}"
    );
    let id = make(&modern, "broken", json!({})).await;
    let failed = becomes(&modern, &id, "failed").await;
    assert_eq!(failed["error"]["code"], -32603, "{failed}");
    assert_eq!(failed["statusMessage"], "The job broke down.", "{failed}");
    platform.stop().await;
}

#[tokio::test]
async fn a_legacy_servers_task_waits_for_the_answers_that_are_missing() {
    let platform = platform().await;
    let client = modern(&platform).await;
    let id = make(&client, "both", json!({})).await;
    let mut questions = Vec::new();
    eventually("both are asked", async || {
        questions = asked(&becomes(&client, &id, "input_required").await);
        questions.len() == 2
    })
    .await;
    let (first, second) = (&questions[0].1, &questions[1].1);
    update(
        &client,
        &id,
        json!({ second: named("Bob"), "nobody-asked": named("Eve") }),
    )
    .await;
    let left = becomes(&client, &id, "input_required").await;
    assert_eq!(asked(&left), [questions[0].clone()]);
    update(&client, &id, json!({ second: named("Eve") })).await;
    update(&client, &id, json!({ first: named("Ann") })).await;
    let done = becomes(&client, &id, "completed").await;
    assert_eq!(done["result"]["content"][0]["text"], "Ann and Bob", "{done}");
    // A legacy client is asked by the request for the result.
    let legacy = legacy(&platform).await;
    let id = make_legacy(&legacy, "both", json!({})).await;
    let done = legacy.ask(task::RESULT, json!({ "taskId": id })).await;
    assert_eq!(done.text(), "blue and blue", "{:?}", done.answer);
    assert_eq!(done.asked.len(), 2);
    assert!(
        done.asked
            .iter()
            .all(|(_, params)| params["_meta"][task::RELATED]["taskId"] == id)
    );
    platform.stop().await;
}

#[tokio::test]
async fn a_legacy_servers_task_is_cancelled_in_the_words_of_each_era() {
    let platform = platform().await;
    let (modern, legacy) = (modern(&platform).await, legacy(&platform).await);
    let (held, quick) = (
        make(&modern, "hold", json!({})).await,
        make(&modern, "quick", json!({})).await,
    );
    becomes(&modern, &quick, "completed").await;
    for id in [&held, &held, &quick] {
        let taken = about(&modern, method::TASKS_CANCEL, id).await;
        assert_eq!(taken["result"], json!({ "resultType": "complete" }), "{taken}");
    }
    becomes(&modern, &held, "cancelled").await;
    becomes(&modern, &quick, "completed").await;
    let held = make_legacy(&legacy, "hold", json!({})).await;
    let quick = make_legacy(&legacy, "quick", json!({})).await;
    becomes(&legacy, &quick, "completed").await;
    let cancelled = about(&legacy, method::TASKS_CANCEL, &held).await;
    assert_eq!(cancelled["result"]["status"], "cancelled", "{cancelled}");
    becomes(&legacy, &held, "cancelled").await;
    for id in [&held, &quick] {
        let refused = about(&legacy, method::TASKS_CANCEL, id).await;
        assert_eq!(refused["error"]["code"], error::INVALID_PARAMS, "{refused}");
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_task_outlives_the_end_of_a_connection_that_is_not_its_own_and_fails_with_its_own() {
    let platform = platform().await;
    // Who can be asked has a process of the server for itself, and the others share one.
    let (own, shared) = (modern(&platform).await, {
        let knows = json!({ "extensions": { meta::TASKS_EXTENSION: {} } });
        Dialogue::open(platform.client(SERVER), Version::MODERN, knows).await
    });
    let kept = make(&own, "hold", json!({})).await;
    let lost = make(&shared, "hold", json!({})).await;
    let crashed = shared.call("crash", json!({})).await.answer;
    assert_eq!(crashed["error"]["code"], error::INTERNAL, "{crashed}");
    // While the server starts again it is away, but none of its tasks is unknown.
    let told = async |client: &Dialogue, id: &Value, status: &str| {
        eventually(&format!("the task is {status}"), async || {
            let told = about(client, method::TASKS_GET, id).await;
            if told["result"]["status"] == status {
                return true;
            }
            assert_eq!(told["error"]["code"], error::INTERNAL, "{told}");
            false
        })
        .await;
    };
    told(&own, &kept, "working").await;
    told(&shared, &lost, "failed").await;
    own.call("crash", json!({})).await;
    told(&own, &kept, "failed").await;
    platform.stop().await;
}

/// Asks about a task over the bus, as a door does for this caller.
async fn ask_as(platform: &Platform, who: &str, called: &str, id: &Value) -> Value {
    let params = json!({
        "taskId": id, "inputResponses": {}, "_meta": { meta::CLIENT_CAPABILITIES: knows_tasks() },
    });
    let request = Request {
        caller: String::new(),
        call: 0,
        server: SERVER.to_owned(),
        method: called.to_owned(),
        name: None,
        principal: Principal::new(who, "default"),
        protocol_version: Version::MODERN.to_string(),
        door: "test".to_owned(),
        timeout_ms: 20_000,
        trace: None,
        chunked_bytes: 0,
        body: Body(modern_body(called, params).to_string().into()),
    };
    let bus = platform.node.bus();
    let mut call = match id.as_str().and_then(RoutedState::parse) {
        Some(state) => bus.call_instance(request, state.instance),
        None => bus.call(request, Retry::Never),
    };
    let (_, body) = within("an answer", call.last()).await.expect("an answer");
    serde_json::from_slice(&body).expect("JSON")
}

#[tokio::test]
async fn a_legacy_servers_task_is_told_to_nobody_else_and_never_without_the_extension() {
    let platform = platform().await;
    let client = modern(&platform).await;
    let id = make(&client, "hold", json!({})).await;
    let plain = platform.client(SERVER);
    for called in method::TASKS {
        let foreign = ask_as(&platform, "somebody-else", called, &id).await;
        let unknown = ask_as(&platform, "somebody-else", called, &json!("unknown")).await;
        assert_eq!(foreign["error"]["code"], error::INVALID_PARAMS, "{foreign}");
        assert_eq!(foreign["error"], unknown["error"], "{called}");
        let params = json!({ "taskId": id, "inputResponses": {} });
        let (status, undeclared) = answer(plain.modern(called, params.clone())).await;
        assert_eq!(
            (status, &undeclared["error"]["code"]),
            (400, &json!(error::MISSING_CAPABILITY))
        );
        let mut other = declaring(&plain, called, params).build().expect("a request");
        let name = "another".parse().expect("a value");
        other.headers_mut().insert(header::NAME, name);
        let other = reqwest::Client::new().execute(other).await.expect("an answer");
        assert_eq!(other.status(), 400);
        let other: Value = other.json().await.expect("JSON");
        assert_eq!(other["error"]["code"], error::HEADER_MISMATCH, "{other}");
        let nowhere = client
            .ask(called, json!({ "taskId": "tl1.ffff.x", "inputResponses": {} }))
            .await;
        assert_eq!(nowhere.answer["error"]["code"], error::INVALID_PARAMS);
    }
    for called in [task::RESULT, task::LIST] {
        let (status, old) = answer(declaring(&plain, called, json!({ "taskId": id }))).await;
        assert_eq!(
            (status, &old["error"]["code"]),
            (404, &json!(error::METHOD_NOT_FOUND)),
            "{old}"
        );
    }
    assert_eq!(
        about(&client, method::TASKS_GET, &id).await["result"]["status"],
        "working"
    );
    platform.stop().await;
}

fn declaring(client: &Client, called: &str, mut params: Value) -> reqwest::RequestBuilder {
    params["_meta"] = json!({ meta::CLIENT_CAPABILITIES: knows_tasks() });
    client.modern(called, params)
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = within("an answer", request.send()).await.expect("an answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

#[tokio::test]
async fn the_reference_server_works_on_tasks_for_clients_of_every_kind_over_every_transport() {
    let streamable = Process::everything("streamableHttp").await;
    let sse = Process::everything("sse").await;
    let file = everything("child", "")
        + &local("streamable", &streamable.url("/mcp"), "")
        + &local("sse", &sse.url("/sse"), "");
    let servers = ["child", "streamable", "sse"];
    let platform = Platform::start(&file, &servers).await;
    join_all(servers.map(async |server| {
        platform.knows(server).await;
        let client = platform.client(server);
        let open = |version, declared| Dialogue::open(client.clone(), version, declared);
        let arguments = json!({ "topic": "python", "ambiguous": true });
        let task_of_modern = async {
            let modern = open(Version::MODERN, knows_tasks()).await;
            let id = make(&modern, RESEARCH, arguments.clone()).await;
            let mut questions = Vec::new();
            eventually("the user is asked", async || {
                questions = asked(&about(&modern, method::TASKS_GET, &id).await["result"]);
                !questions.is_empty()
            })
            .await;
            let snake = json!({ "action": "accept", "content": { "interpretation": "snake" } });
            update(&modern, &id, json!({ &questions[0].1: snake })).await;
            let done = becomes(&modern, &id, "completed").await;
            done["result"]["content"][0]["text"]
                .as_str()
                .expect("a text")
                .to_owned()
        };
        let task_of_legacy = async {
            let legacy = open(Version::V2025_11_25, takes_forms()).await;
            let id = make_legacy(&legacy, RESEARCH, arguments.clone()).await;
            let done = legacy.ask(task::RESULT, json!({ "taskId": id })).await;
            assert_eq!(done.asked.len(), 1, "{done:?}");
            done.text().to_owned()
        };
        let driven = async |version| {
            let plain = open(version, takes_forms()).await;
            let done = plain.call(RESEARCH, arguments.clone()).await;
            assert_eq!(done.asked.len(), 1, "{done:?}");
            done.text().to_owned()
        };
        let (modern, legacy, driven_modern, driven_old) = tokio::join!(
            task_of_modern,
            task_of_legacy,
            driven(Version::MODERN),
            driven(Version::V2025_06_18)
        );
        assert!(
            modern.contains("# Research Report: python (snake)"),
            "{server}: {modern}"
        );
        for report in [legacy, driven_modern, driven_old] {
            assert!(
                report.contains("# Research Report: python (programming)"),
                "{server}: {report}"
            );
        }
    }))
    .await;
    platform.stop().await;
}
