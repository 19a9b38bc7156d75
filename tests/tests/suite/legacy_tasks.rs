//! Tasks in both eras, of one modern server: the extension as modern clients use it, and the experimental tasks of 2025-11-25.

use bridges::{front::Endpoint, stdio};
use bus_schema::{
    ProtocolVersion as Version,
    mcp::{meta, method, task},
};
use runtime::Host;
use serde_json::{Value, json};
use tests::{
    conformance::fixture::serve,
    dialogue::Dialogue,
    eventually,
    http::{Client, text},
    nats::Nats,
    platform::Platform,
    program::Program,
    session::Session,
    stream::Stream,
    within,
};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, duplex, split};
use tokio_util::sync::CancellationToken;

const SERVER: &str = "conformance";

/// A platform with one server that has tasks.
struct Stage {
    platform: Platform,
    _host: Host,
}

impl Stage {
    async fn start() -> Self {
        let platform = Platform::start("", &[]).await;
        let host = serve::on_bus(platform.node.bus(), SERVER).await;
        platform.knows(SERVER).await;
        Self {
            platform,
            _host: host,
        }
    }

    fn client(&self) -> Client {
        self.platform.client(SERVER)
    }

    /// A client of 2025-11-25 that answers forms.
    async fn legacy(&self) -> Dialogue {
        let forms = json!({ "elicitation": {} });
        Dialogue::open(self.client(), Version::V2025_11_25, forms).await
    }

    /// A modern client that knows tasks.
    async fn modern(&self) -> Dialogue {
        Dialogue::open(self.client(), Version::MODERN, knows_tasks()).await
    }
}

fn knows_tasks() -> Value {
    json!({ "elicitation": { "form": {} }, "extensions": { meta::TASKS_EXTENSION: {} } })
}

/// Makes a task of a call and gives the task.
async fn make(client: &Dialogue, tool: &str, arguments: Value) -> Value {
    let params = json!({ "name": tool, "arguments": arguments, "task": { "ttl": 60_000 } });
    let made = client.ask(method::TOOLS_CALL, params).await.answer;
    let task = made["result"]["task"].clone();
    assert_eq!(task["status"], "working", "a new task works: {made}");
    assert!(
        task["taskId"].is_string() && task["createdAt"].is_string(),
        "{made}"
    );
    assert!(task["ttl"].is_u64() && task.get("ttlMs").is_none(), "{made}");
    assert!(made["result"].get("resultType").is_none(), "{made}");
    task
}

/// Makes a task of a call as a modern client, and gives its id.
async fn make_modern(client: &Dialogue, tool: &str, arguments: Value) -> String {
    let made = client.call(tool, arguments).await.answer;
    assert_eq!(made["result"]["resultType"], "task", "{made}");
    made["result"]["taskId"].as_str().expect("flat").to_owned()
}

async fn about(client: &Dialogue, called: &str, id: &str) -> Value {
    client.ask(called, json!({ "taskId": id })).await.answer
}

async fn becomes(client: &Dialogue, id: &str, status: &str) -> Value {
    let mut told = Value::Null;
    eventually("the status", async || {
        told = about(client, method::TASKS_GET, id).await;
        told["result"]["status"] == status
    })
    .await;
    told["result"].clone()
}

fn id(task: &Value) -> &str {
    task["taskId"].as_str().expect("an id")
}

#[tokio::test]
async fn tasks_are_offered_where_the_version_and_the_endpoint_have_them() {
    let stage = Stage::start().await;
    let one = stage.client();
    let all = stage.platform.client_of_all();
    let offered = json!({ "cancel": {}, "requests": { "tools": { "call": {} } } });
    for (client, tool, version, expected) in [
        (&one, "slow_compute", Version::V2025_11_25, Some(&offered)),
        (&one, "slow_compute", Version::V2025_06_18, None),
        (&one, "slow_compute", Version::V2024_11_05, None),
        (&all, "conformance__slow_compute", Version::V2025_11_25, None),
    ] {
        let session = Dialogue::open(client.clone(), version, json!({})).await;
        let capabilities = &session.opened["capabilities"];
        assert_eq!(capabilities.get("tasks"), expected, "{version}: {capabilities}");
        assert!(capabilities["extensions"].get(meta::TASKS_EXTENSION).is_none());
        let listed = session.ask(method::TOOLS_LIST, json!({})).await.answer;
        let tools = listed["result"]["tools"].as_array().expect("tools");
        assert!(tools.iter().any(|listed| listed["name"] == tool), "{listed}");
        for tool in tools {
            let execution = expected.map(|_| json!({ "taskSupport": "optional" }));
            assert_eq!(tool.get("execution"), execution.as_ref(), "{version}: {tool}");
        }
        if expected.is_some() {
            continue;
        }
        // The wish for a task is ignored, and nothing can be asked of tasks.
        let params = json!({ "name": tool, "arguments": { "seconds": 0.01, "label": "l" }, "task": {} });
        let plain = session.ask(method::TOOLS_CALL, params).await;
        assert!(plain.text().starts_with("l: done"), "{:?}", plain.answer);
        for called in [method::TASKS_GET, method::TASKS_CANCEL, task::RESULT, task::LIST] {
            let refused = about(&session, called, "t").await;
            assert_eq!(refused["error"]["code"], -32601, "{version} {called}: {refused}");
        }
    }
}

#[tokio::test]
async fn a_call_becomes_a_task_whose_result_is_waited_for() {
    let stage = Stage::start().await;
    let client = stage.legacy().await;
    let task = make(&client, "slow_compute", json!({ "seconds": 0.2, "label": "l" })).await;
    let told = about(&client, method::TASKS_GET, id(&task)).await;
    assert_eq!(told["result"]["taskId"], task["taskId"], "{told}");
    let done = about(&client, task::RESULT, id(&task)).await;
    assert!(text(&done).starts_with("l: done"), "{done}");
    assert_eq!(
        done["result"]["_meta"][task::RELATED],
        json!({ "taskId": task["taskId"] })
    );
    assert!(done["result"].get("resultType").is_none(), "{done}");
    let told = becomes(&client, id(&task), "completed").await;
    assert!(
        ["result", "resultType", "ttlMs", "pollIntervalMs"]
            .iter()
            .all(|modern| told.get(modern).is_none()),
        "{told}"
    );
    // A task may be asked for by any session of its owner, and its result more than once.
    let other = stage.legacy().await;
    assert!(text(&about(&other, task::RESULT, id(&task)).await).starts_with("l: done"));
}

#[tokio::test]
async fn a_call_that_no_task_was_wanted_for_never_becomes_one() {
    let stage = Stage::start().await;
    let client = stage.legacy().await;
    let plain = client
        .call("slow_compute", json!({ "seconds": 0.01, "label": "l" }))
        .await;
    assert!(plain.text().starts_with("l: done"), "{:?}", plain.answer);
    let only_as_task = client.call("failing_job", json!({})).await.answer;
    assert_eq!(only_as_task["error"]["code"], -32603, "{only_as_task}");
    assert_eq!(
        only_as_task["error"]["data"]["original"]["code"], -32021,
        "{only_as_task}"
    );
}

#[tokio::test]
async fn a_tool_that_failed_is_completed_for_a_modern_client_and_failed_for_a_legacy_one() {
    let stage = Stage::start().await;
    let (modern, legacy) = (stage.modern().await, stage.legacy().await);
    let of_modern = make_modern(&modern, "failing_job", json!({})).await;
    let of_legacy = make(&legacy, "failing_job", json!({})).await;
    let completed = becomes(&modern, &of_modern, "completed").await;
    assert_eq!(completed["result"]["isError"], true, "{completed}");
    let failed = becomes(&legacy, id(&of_legacy), "failed").await;
    assert!(failed.get("result").is_none(), "{failed}");
    let result = about(&legacy, task::RESULT, id(&of_legacy)).await["result"].clone();
    assert_eq!(result["isError"], true, "{result}");
    assert_eq!(result["content"][0]["text"], "The job has failed.");
    assert_eq!(
        result["_meta"][task::RELATED],
        json!({ "taskId": of_legacy["taskId"] })
    );
}

#[tokio::test]
async fn a_task_that_broke_down_answers_with_its_own_error() {
    let stage = Stage::start().await;
    let client = stage.legacy().await;
    let task = make(&client, "protocol_error_job", json!({})).await;
    let answer = about(&client, task::RESULT, id(&task)).await;
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    assert_eq!(answer["error"]["message"], "the job broke down", "{answer}");
    becomes(&client, id(&task), "failed").await;
}

#[tokio::test]
async fn what_a_task_wants_to_know_is_asked_by_the_request_for_its_result() {
    let stage = Stage::start().await;
    let client = stage.legacy().await;
    for (tool, arguments, questions, expected) in [
        (
            "confirm_delete",
            json!({ "filename": "f" }),
            vec!["Delete f?"],
            "f was deleted",
        ),
        (
            "multi_input",
            json!({}),
            vec!["Who is the first?", "Who is the second?"],
            "blue and blue",
        ),
    ] {
        let task = make(&client, tool, arguments).await;
        becomes(&client, id(&task), "input_required").await;
        let done = client
            .ask(task::RESULT, json!({ "taskId": task["taskId"] }))
            .await;
        assert_eq!(done.text(), expected, "{:?}", done.answer);
        let mut asked = Vec::new();
        for (method, params) in &done.asked {
            assert_eq!(method, method::ELICIT);
            assert_eq!(
                params["_meta"][task::RELATED],
                json!({ "taskId": task["taskId"] }),
                "{params}"
            );
            asked.push(params["message"].as_str().expect("a message"));
        }
        asked.sort_unstable();
        assert_eq!(asked, questions);
    }
}

#[tokio::test]
async fn what_is_asked_before_a_task_is_made_is_asked_by_the_call() {
    let stage = Stage::start().await;
    let client = stage.legacy().await;
    let params = json!({ "name": "test_tool_with_task", "arguments": {}, "task": {} });
    let made = client.ask(method::TOOLS_CALL, params).await;
    assert_eq!(made.asked.len(), 1, "{:?}", made.answer);
    assert_eq!(made.asked[0].1["message"], "What is your name?");
    let task = &made.answer["result"]["task"];
    let done = about(&client, task::RESULT, id(task)).await;
    assert_eq!(text(&done), "Hello, blue!", "{done}");
}

#[tokio::test]
async fn a_call_that_is_answered_at_once_is_kept_as_a_task() {
    let stage = Stage::start().await;
    let client = stage.legacy().await;
    let task = make(&client, "greet", json!({ "name": "Ada" })).await;
    assert_eq!(task["ttl"], 60_000);
    // It is there for every session of its owner, and told as any other.
    for client in [&client, &stage.legacy().await] {
        let told = about(client, method::TASKS_GET, id(&task)).await["result"].clone();
        assert_eq!(told["status"], "completed", "{told}");
        assert!(told.get("result").is_none(), "{told}");
        let done = about(client, task::RESULT, id(&task)).await;
        assert_eq!(text(&done), "Hello, Ada!", "{done}");
        assert_eq!(
            done["result"]["_meta"][task::RELATED],
            json!({ "taskId": task["taskId"] })
        );
        let refused = about(client, method::TASKS_CANCEL, id(&task)).await;
        assert_eq!(refused["error"]["code"], -32602, "{refused}");
    }
    // What is wrong with the call itself is no task.
    let params = json!({ "name": "greet", "arguments": {}, "task": {} });
    let refused = client.ask(method::TOOLS_CALL, params).await.answer;
    assert_eq!(refused["error"]["code"], -32602, "{refused}");
}

#[tokio::test]
async fn a_cancelled_task_stays_cancelled_whatever_its_server_makes_of_it() {
    let stage = Stage::start().await;
    let (modern, client) = (stage.modern().await, stage.legacy().await);
    // This job does not care, and comes to a result.
    let task = make(&client, "failing_job", json!({})).await;
    let waiting = stage.legacy().await;
    let (cancelled, waited) = within("the end of the task", async {
        tokio::join!(
            about(&client, method::TASKS_CANCEL, id(&task)),
            about(&waiting, task::RESULT, id(&task)),
        )
    })
    .await;
    assert_eq!(cancelled["result"]["status"], "cancelled", "{cancelled}");
    assert_eq!(cancelled["result"]["taskId"], task["taskId"]);
    assert_eq!(waited["error"]["message"], "the task was cancelled", "{waited}");
    becomes(&modern, id(&task), "completed").await;
    for client in [&client, &stage.legacy().await] {
        let told = about(client, method::TASKS_GET, id(&task)).await;
        assert_eq!(told["result"]["status"], "cancelled", "{told}");
        let hidden = about(client, task::RESULT, id(&task)).await;
        assert_eq!(hidden["error"]["message"], "the task was cancelled", "{hidden}");
        let again = about(client, method::TASKS_CANCEL, id(&task)).await;
        assert_eq!(again["error"]["code"], -32602, "{again}");
    }
}

#[tokio::test]
async fn a_task_that_has_ended_cannot_be_cancelled_and_an_unknown_one_not_found() {
    let stage = Stage::start().await;
    let client = stage.legacy().await;
    let task = make(&client, "slow_compute", json!({ "seconds": 0 })).await;
    becomes(&client, id(&task), "completed").await;
    let refused = about(&client, method::TASKS_CANCEL, id(&task)).await;
    assert_eq!(refused["error"]["code"], -32602, "{refused}");
    assert!(
        refused["error"]["message"]
            .as_str()
            .expect("words")
            .contains("completed")
    );
    for called in [method::TASKS_GET, method::TASKS_CANCEL, task::RESULT] {
        let unknown = about(&client, called, "nobody-made-this").await;
        assert_eq!(unknown["error"]["code"], -32602, "{called}: {unknown}");
        let nameless = client.ask(called, json!({})).await.answer;
        assert_eq!(nameless["error"]["code"], -32602, "{called}: {nameless}");
    }
    let listed = client.ask(task::LIST, json!({})).await.answer;
    assert_eq!(listed["error"]["code"], -32601, "{listed}");
}

#[tokio::test]
async fn a_modern_client_gets_a_task_only_when_it_knows_tasks() {
    let stage = Stage::start().await;
    let params = json!({ "name": "failing_job", "arguments": {}, "task": { "ttl": 1 } });
    let refused = within(
        "an answer",
        stage.client().modern(method::TOOLS_CALL, params).send(),
    )
    .await
    .expect("an answer");
    assert_eq!(refused.status(), 400);
    let refused: Value = refused.json().await.expect("JSON");
    assert_eq!(refused["error"]["code"], -32021, "{refused}");
    let required = &refused["error"]["data"]["requiredCapabilities"];
    assert_eq!(
        required["extensions"][meta::TASKS_EXTENSION],
        json!({}),
        "{refused}"
    );
    let modern = stage.modern().await;
    for _ in 0..5 {
        let id = make_modern(&modern, "slow_compute", json!({ "seconds": 30 })).await;
        let told = about(&modern, method::TASKS_GET, &id).await;
        assert_eq!(told["result"]["status"], "working", "{told}");
        assert_eq!(told["result"]["resultType"], "complete", "{told}");
    }
}

#[tokio::test]
async fn a_task_asks_on_for_what_was_not_answered() {
    let stage = Stage::start().await;
    let modern = stage.modern().await;
    let id = make_modern(&modern, "multi_input", json!({})).await;
    let pending = |told: &Value| -> Vec<String> {
        let requests = told["result"]["inputRequests"].as_object();
        requests
            .map(|requests| requests.keys().cloned().collect())
            .unwrap_or_default()
    };
    let get = async || about(&modern, method::TASKS_GET, &id).await;
    let mut keys = Vec::new();
    eventually("both questions", async || {
        keys = pending(&get().await);
        keys.len() == 2
    })
    .await;
    let answer = json!({ "action": "accept", "content": { "name": "Ada" } });
    let update = async |responses: Value| {
        let params = json!({ "taskId": id, "inputResponses": responses });
        let acknowledged = modern.ask(method::TASKS_UPDATE, params).await.answer;
        assert_eq!(acknowledged["result"]["resultType"], "complete", "{acknowledged}");
    };
    update(json!({ &keys[0]: answer, "nobody-asked": answer })).await;
    let left = &keys[1..];
    eventually("one question is left", async || pending(&get().await) == left).await;
    // What is answered once is not asked, or taken, again.
    update(json!({ &keys[0]: { "action": "cancel" } })).await;
    let told = get().await;
    assert_eq!(told["result"]["status"], "input_required", "{told}");
    assert_eq!(pending(&told), left);
    update(json!({ &keys[1]: answer })).await;
    let done = becomes(&modern, &id, "completed").await;
    assert_eq!(done["result"]["content"][0]["text"], "Ada and Ada", "{done}");
}

/// A bridge in a process of its own, and the URL of its endpoint of the server.
async fn bridge(nats: &Nats) -> (Program, Client) {
    let data_dir = nats.data_dir().display().to_string();
    let mut words = vec!["bridge", "http", "--listen", "127.0.0.1:0", "--log-json"];
    words.extend(["--nats", nats.url(), "--data-dir", &data_dir]);
    let mut program = Program::start(&words);
    let line = program.logged("bridge is ready").await;
    let line: Value = serde_json::from_str(&line).expect("a line of JSON");
    let all = line["fields"]["mcp"].as_str().expect("an address");
    let base = all.strip_suffix("/mcp").expect("the endpoint of all servers");
    let client = Client::new(format!("{base}/servers/{SERVER}/mcp"));
    eventually("the bridge knows the server", async || {
        let known = client.modern(method::DISCOVER, json!({})).send().await;
        known.expect("an answer").status() == 200
    })
    .await;
    (program, client)
}

#[tokio::test]
async fn what_one_bridge_knows_of_a_task_holds_at_the_others() {
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    let host = serve::on_bus(&bus, SERVER).await;
    let ((_a, a), (_b, b)) = tokio::join!(bridge(&nats), bridge(&nats));
    let open = |client| Dialogue::open(client, Version::V2025_11_25, json!({}));
    let (a, b) = tokio::join!(open(a), open(b));
    let kept = make(&a, "greet", json!({ "name": "Ada" })).await;
    assert_eq!(text(&about(&b, task::RESULT, id(&kept)).await), "Hello, Ada!");
    let cancelled = make(&a, "failing_job", json!({})).await;
    about(&a, method::TASKS_CANCEL, id(&cancelled)).await;
    let told = about(&b, method::TASKS_GET, id(&cancelled)).await;
    assert_eq!(told["result"]["status"], "cancelled", "{told}");
    host.stop().await;
    bus.close().await;
}

#[tokio::test]
async fn a_client_that_waits_for_a_result_is_answered_when_its_door_ends() {
    let stage = Stage::start().await;
    let client = Session::open(&stage.client(), "2025-11-25").await;
    let params = json!({ "name": "slow_compute", "arguments": { "seconds": 600 }, "task": {} });
    let made = client.ask(method::TOOLS_CALL, &params).await;
    let id = &made["result"]["task"]["taskId"];
    let waiting = client.request(task::RESULT, &json!({ "taskId": id }));
    let waiting = within("a stream", waiting.send()).await.expect("an answer");
    let mut waiting = Stream::of(waiting);
    let (answer, ()) = tokio::join!(waiting.message(), stage.platform.stop());
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    let words = answer["error"]["message"].as_str().expect("words");
    assert!(words.contains("goes on"), "{answer}");
}

#[tokio::test]
async fn a_conversation_carries_tasks_like_sessions_do() {
    let mut stage = Stage::start().await;
    let Platform { node, config, .. } = &mut stage.platform;
    let front = node.front(config).await.expect("a front");
    let (near, far) = duplex(64 * 1024);
    let (read, write) = split(far);
    let endpoint = Endpoint::Server(SERVER.parse().expect("an id"));
    let end = CancellationToken::new();
    tokio::spawn(stdio::serve(front, endpoint, read, write, end.clone()));
    let (read, mut write) = split(near);
    let mut lines = BufReader::new(read).lines();
    let mut exchange = async |message: Value| -> Value {
        write
            .write_all(format!("{message}\n").as_bytes())
            .await
            .expect("sent");
        let line = within("a message", lines.next_line()).await.expect("readable");
        serde_json::from_str(&line.expect("open")).expect("JSON")
    };
    let info = json!({ "name": "test", "version": "1" });
    let params =
        json!({ "protocolVersion": "2025-11-25", "capabilities": { "elicitation": {} }, "clientInfo": info });
    let opened =
        exchange(json!({ "jsonrpc": "2.0", "id": 0, "method": method::INITIALIZE, "params": params })).await;
    assert!(opened["result"]["capabilities"]["tasks"].is_object(), "{opened}");
    let params = json!({ "name": "confirm_delete", "arguments": { "filename": "f" }, "task": {} });
    let made =
        exchange(json!({ "jsonrpc": "2.0", "id": 1, "method": method::TOOLS_CALL, "params": params })).await;
    let params = json!({ "taskId": made["result"]["task"]["taskId"] });
    let asked =
        exchange(json!({ "jsonrpc": "2.0", "id": 2, "method": task::RESULT, "params": params })).await;
    assert_eq!(asked["method"], method::ELICIT, "{asked}");
    assert_eq!(asked["params"]["_meta"][task::RELATED], params);
    let no = json!({ "action": "decline" });
    let done = exchange(json!({ "jsonrpc": "2.0", "id": asked["id"], "result": no })).await;
    assert_eq!((&done["id"], text(&done)), (&json!(2), "f was kept"));
    end.cancel();
}
