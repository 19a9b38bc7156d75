//! Foreign servers as child processes: real ones are used from both eras, and one that misbehaves is nobody else's trouble.

use std::{collections::BTreeSet, time::Duration};

use bus_schema::mcp::method;
use futures::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tests::{
    caller::Caller,
    children::{everything, scripted, server, time},
    eventually,
    http::{Client, events, text},
    mark::Mark,
    platform::Platform,
    within,
};
use tokio::{task::JoinSet, time::Instant};

/// The longest that a call may take which has to be quick, on a machine that has much else to do.
const QUICK: Duration = Duration::from_secs(2);

fn names(result: &Value, list: &str) -> BTreeSet<String> {
    let items = result[list].as_array().expect("a list");
    items
        .iter()
        .map(|item| item["name"].as_str().expect("a name").to_owned())
        .collect()
}

/// Servers that are still starting come when they are ready.
async fn platform_that_knows(file: &str, servers: &[&str]) -> Platform {
    let platform = Platform::start(file, servers).await;
    for server in servers {
        platform.knows(server).await;
    }
    platform
}

#[tokio::test]
async fn servers_of_other_people_are_used_through_both_endpoints_and_in_both_eras() {
    let file = everything("everything", "") + &time("time");
    let platform = platform_that_knows(&file, &["everything", "time"]).await;
    for (id, tool) in [("everything", "get-sum"), ("time", "convert_time")] {
        let one = platform.client(id);
        let listed = Caller::Modern(one.clone())
            .result(method::TOOLS_LIST, json!({}))
            .await;
        let own = names(&listed, "tools");
        assert!(own.contains(tool), "{own:?}");
        for (endpoint, prefix) in [
            (one, String::new()),
            (platform.client_of_all(), format!("{id}__")),
        ] {
            let expected: BTreeSet<_> = own.iter().map(|own| format!("{prefix}{own}")).collect();
            for caller in Caller::both(endpoint).await {
                let listed = names(&caller.result(method::TOOLS_LIST, json!({})).await, "tools");
                assert!(
                    listed.is_superset(&expected),
                    "{listed:?} lacks some of {expected:?}"
                );
                use_server(&caller, id, &prefix).await;
            }
        }
    }
}

/// Uses what each of the two servers is for.
async fn use_server(caller: &Caller, id: &str, prefix: &str) {
    if id == "time" {
        let zones = json!({ "source_timezone": "UTC", "time": "12:30", "target_timezone": "Asia/Tokyo" });
        let converted = caller.call(&format!("{prefix}convert_time"), zones).await;
        let words = converted["content"][0]["text"].as_str().expect("a text");
        assert!(words.contains("T21:30:00+09:00"), "{words}");
        return;
    }
    let sum = caller
        .call(&format!("{prefix}get-sum"), json!({ "a": 2, "b": 40 }))
        .await;
    assert_eq!(sum["content"][0]["text"], "The sum of 2 and 40 is 42.");
    let refused = caller
        .call(&format!("{prefix}get-sum"), json!({ "a": "two" }))
        .await;
    assert_eq!(refused["isError"], true, "{refused}");
    let uri = "demo://resource/static/document/features.md";
    let read = caller.result(method::RESOURCES_READ, json!({ "uri": uri })).await;
    assert_eq!(read["contents"][0]["uri"], uri);
    let params = json!({ "name": format!("{prefix}args-prompt"), "arguments": { "city": "Oslo" } });
    let prompt = caller.result(method::PROMPTS_GET, params).await;
    assert!(
        prompt["messages"][0]["content"]["text"]
            .as_str()
            .is_some_and(|text| text.contains("Oslo")),
        "{prompt}"
    );
    let reference = json!({ "type": "ref/prompt", "name": format!("{prefix}completable-prompt") });
    let params = json!({ "ref": reference, "argument": { "name": "department", "value": "E" } });
    let completed = caller.result(method::COMPLETE, params).await;
    assert_eq!(completed["completion"]["values"], json!(["Engineering"]));
}

#[tokio::test]
async fn progress_of_a_foreign_server_reaches_callers_of_both_eras_before_the_answer() {
    let platform = platform_that_knows(&everything("everything", ""), &["everything"]).await;
    for (endpoint, prefix) in [
        (platform.client("everything"), ""),
        (platform.client_of_all(), "everything__"),
    ] {
        for caller in Caller::both(endpoint).await {
            let name = format!("{prefix}trigger-long-running-operation");
            let arguments = json!({ "duration": 0.1, "steps": 4 });
            let params =
                json!({ "name": name, "arguments": arguments, "_meta": { "progressToken": "mine" } });
            let mut told = caller.messages(method::TOOLS_CALL, params).await;
            let answer = told.pop().expect("an answer");
            assert!(text(&answer).contains("completed"), "{answer}");
            let told: Vec<_> = told
                .iter()
                .map(|part| {
                    let params = &part["params"];
                    assert_eq!(
                        (&part["method"], &params["progressToken"]),
                        (&json!(method::PROGRESS), &json!("mine"))
                    );
                    (params["progress"].as_u64(), params["total"].as_u64())
                })
                .collect();
            assert_eq!(
                told,
                (1..=4).map(|step| (Some(step), Some(4))).collect::<Vec<_>>()
            );
        }
    }
}

/// Calls a tool, which has to answer quickly.
async fn quick_call(client: &Client, tool: &str, arguments: Value) -> Value {
    let called = Instant::now();
    let answer = within("the answer", client.call(tool, arguments)).await;
    let took = called.elapsed();
    assert!(took < QUICK, "{tool} took {took:?}: {answer}");
    answer
}

/// Uses healthy servers on both endpoints for a number of rounds.
async fn use_healthy_servers(products: Client, steady: Client, all: Client, rounds: usize) {
    for round in 0..rounds {
        let word = format!("round {round}");
        let found = quick_call(&products, "search", json!({ "query": "desk", "limit": 1 })).await;
        assert!(found["result"]["isError"] != true, "{found}");
        assert_eq!(
            text(&quick_call(&steady, "echo", json!({ "text": word })).await),
            word
        );
        assert_eq!(
            text(&quick_call(&all, "steady__echo", json!({ "text": word })).await),
            word
        );
        let listed = Instant::now();
        let tools = Caller::Modern(all.clone())
            .result(method::TOOLS_LIST, json!({}))
            .await;
        let took = listed.elapsed();
        assert!(took < QUICK, "tools/list took {took:?}");
        let tools = names(&tools, "tools");
        assert!(
            tools.contains("products__search") && tools.contains("steady__echo"),
            "{tools:?}"
        );
    }
}

#[tokio::test]
async fn children_that_exit_or_write_garbage_or_never_answer_are_not_noticed_by_others() {
    let faults = ["exits", "leaves", "garbage", "silent"];
    let file = faults.iter().map(|fault| scripted(fault, fault, ""));
    let missing = server("missing", &["/does/not/exist"], "");
    let file = file.collect::<String>() + &missing + &scripted("steady", "none", "");
    let mut platform = platform_that_knows(&file, &["products", "steady"]).await;
    let misbehaving: Vec<String> = faults.into_iter().chain(["missing"]).map(str::to_owned).collect();
    let (products, steady) = (platform.client("products"), platform.client("steady"));
    let all = platform.client_of_all();
    let config = platform.config.clone();
    // Their start is over when each has said its first word, which the silent one does not for long.
    let mut healthy = std::pin::pin!(use_healthy_servers(
        products.clone(),
        steady.clone(),
        all.clone(),
        60
    ));
    tokio::select! {
        started = platform.node.serve(&config, &misbehaving) => {
            started.expect("the servers are known");
            healthy.await;
        }
        () = &mut healthy => {}
    }
    // By now they have been started again, some more than once, and still nobody else notices.
    for restarted in ["exits", "leaves", "garbage", "missing"] {
        let restarts = format!(r#"part="{restarted}""#);
        eventually(&format!("a restart of {restarted}"), async || {
            let meters = platform.node.bus().metrics().render();
            meters
                .lines()
                .any(|line| line.contains("restarts") && line.contains(&restarts))
        })
        .await;
    }
    use_healthy_servers(products, steady, all, 20).await;
    platform.stop().await;
}

#[tokio::test]
async fn a_child_that_babbles_is_understood() {
    let platform = platform_that_knows(&scripted("babbles", "babbles", ""), &["babbles"]).await;
    for caller in Caller::both(platform.client("babbles")).await {
        let said = caller.call("echo", json!({ "text": "through the noise" })).await;
        assert_eq!(said["content"][0]["text"], "through the noise");
    }
}

#[tokio::test]
async fn a_child_that_falls_mute_does_not_hold_up_the_lists_of_all() {
    let file = scripted("mute", "mute", "") + &scripted("steady", "none", "");
    let platform = platform_that_knows(&file, &["mute", "steady"]).await;
    let all = platform.client_of_all();
    let mut lists = JoinSet::new();
    let asked = Instant::now();
    for _ in 0..8 {
        let all = all.clone();
        lists.spawn(async move { Caller::Modern(all).result(method::TOOLS_LIST, json!({})).await });
    }
    for listed in lists.join_all().await {
        let listed = names(&listed, "tools");
        assert!(listed.contains("steady__echo"), "{listed:?}");
    }
    // One list may wait for the mute server, to find out that it is; not each client in turn.
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(8), "eight lists at once took {took:?}");
    let asked = Instant::now();
    assert_eq!(
        text(&quick_call(&all, "steady__echo", json!({ "text": "meanwhile" })).await),
        "meanwhile"
    );
    Caller::Modern(all).result(method::TOOLS_LIST, json!({})).await;
    let took = asked.elapsed();
    assert!(
        took < QUICK,
        "a list of servers that were listed just before took {took:?}"
    );
}

async fn pid_of(client: &Client) -> Pid {
    let answer = client.call("pid", json!({})).await;
    let pid = text(&answer)
        .parse()
        .unwrap_or_else(|_| panic!("no process id in {answer}"));
    Pid::from_raw(pid).expect("a process id is not 0")
}

#[tokio::test]
async fn a_killed_child_fails_its_calls_once_and_at_once_and_comes_back() {
    let platform = platform_that_knows(&scripted("scripted", "none", ""), &["scripted"]).await;
    let client = platform.client("scripted");
    let pid = pid_of(&client).await;
    // The first word of progress tells that a call is under way.
    let params = json!({ "name": "hold", "arguments": {}, "_meta": { "progressToken": 1 } });
    let streams = (0..4).map(|_| client.modern(method::TOOLS_CALL, params.clone()).send());
    let streams = within("the calls have begun", join_all(streams)).await;
    let killed = Instant::now();
    kill_process(pid, Signal::KILL).expect("it runs");
    for stream in streams {
        let told = within("the end of the call", events(stream.expect("an answer"))).await;
        let took = killed.elapsed();
        assert!(took < Duration::from_secs(1), "the error took {took:?}");
        assert_eq!(told.len(), 2, "one word of progress, then one error: {told:?}");
        assert_eq!(
            (&told[1]["id"], &told[1]["error"]["code"]),
            (&json!(1), &json!(-32603))
        );
        let words = told[1]["error"]["message"].as_str().expect("a message");
        assert!(words.contains("`scripted`"), "{words}");
    }
    // Until it is back, every call is answered at once as well.
    eventually("the child is back", async || {
        let answer = quick_call(&client, "pid", json!({})).await;
        answer["result"].is_object() && text(&answer) != pid.as_raw_nonzero().to_string()
    })
    .await;
    assert_eq!(
        text(&client.call("echo", json!({ "text": "again" })).await),
        "again"
    );
}

#[tokio::test]
async fn a_call_that_kills_its_child_fails_and_the_next_ones_do_not() {
    let platform = platform_that_knows(&scripted("scripted", "none", ""), &["scripted"]).await;
    for caller in Caller::both(platform.client("scripted")).await {
        let crashed = caller
            .messages(method::TOOLS_CALL, json!({ "name": "crash", "arguments": {} }))
            .await;
        assert_eq!(crashed.len(), 1);
        assert_eq!(crashed[0]["error"]["code"], -32603, "{crashed:?}");
        eventually("the child is back", async || {
            let params = json!({ "name": "echo", "arguments": { "text": "again" } });
            let answer = caller.messages(method::TOOLS_CALL, params).await;
            text(&answer[0]) == "again"
        })
        .await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_stopped_platform_leaves_no_process_of_any_child() {
    let mark = Mark::new();
    let env = format!("env = {{ MARK = \"{}\" }}", mark.word());
    let file = everything("everything", &format!(", MARK = \"{}\"", mark.word()))
        + &scripted("steady", "none", &env)
        + &scripted("stubborn", "stubborn", &env)
        + &scripted("exits", "exits", &env);
    let platform = platform_that_knows(&file, &["everything", "steady", "stubborn"]).await;
    // npx, what it starts, the two scripted ones, and what the stubborn one has started.
    let running = mark.processes();
    assert!(running.len() >= 5, "{running:?}");
    platform.stop().await;
    mark.expect_gone().await;
}
