//! `trunkline up` stopped, killed and started again: nothing begun is lost in order, and nothing is left behind.

use bus_schema::mcp::method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tests::{
    children::scripted,
    eventually,
    http::{Client, events},
    mark::{Mark, expect_none_with_environment, with_environment},
    nats,
    program::Program,
    session::Session,
    within,
};
use tokio::net::TcpStream;

use super::{
    ANY_PORT, ends_well, terminate,
    up::{self, Up},
};

#[cfg(target_os = "linux")]
#[tokio::test]
async fn up_leaves_nothing_behind_when_it_is_stopped() {
    let mark = Mark::new();
    let env = format!("env = {{ MARK = \"{}\" }}", mark.word());
    let up = Up::start(&(scripted("steady", "none", &env) + &scripted("stubborn", "stubborn", &env))).await;
    let (nats, store) = (up.nats().to_owned(), up.nats_store());
    TcpStream::connect(&nats).await.expect("NATS takes connections");
    // One server, and one with a process that it has started.
    let running = (with_environment(&store).len(), mark.processes().len());
    assert_eq!(running, (1, 3));
    terminate(up.program).await;
    let refused = TcpStream::connect(&nats).await.expect_err("NATS is gone");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    mark.expect_gone().await;
    expect_none_with_environment(&store).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn up_leaves_nothing_behind_when_it_is_stopped_while_it_starts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mark = Mark::new();
    // It is not ready before this one has said its first word, which it never does.
    let file = scripted(
        "silent",
        "silent",
        &format!("env = {{ MARK = \"{}\" }}", mark.word()),
    );
    let mut program = up::begin(folder.path(), &file, ANY_PORT, &["--json"]);
    program.logged("server is on the bus").await;
    eventually("the silent child runs", async || mark.processes().len() == 1).await;
    terminate(program).await;
    mark.expect_gone().await;
    expect_none_with_environment(&up::nats_store(folder.path())).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_second_word_to_stop_ends_up_at_once_and_leaves_nothing_behind() {
    let mark = Mark::new();
    let env = format!("env = {{ MARK = \"{}\" }}", mark.word());
    let up = Up::start(&scripted("stubborn", "stubborn", &env)).await;
    let store = up.nats_store();
    let endless = json!({ "batch_size": 1, "pause_ms": 1000 });
    let params = json!({ "name": "reindex", "arguments": endless, "_meta": { "progressToken": 1 } });
    let call = up.client("products").modern(method::TOOLS_CALL, params);
    let _begun = within("progress", call.send()).await.expect("an answer");
    let mut program = up.program;
    program.signal(Signal::TERM);
    program.logged("stopping").await;
    program.signal(Signal::TERM);
    let ended = within("its end", program.child.wait()).await;
    ended.expect("it ends");
    mark.expect_gone().await;
    expect_none_with_environment(&store).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn up_that_was_killed_comes_back_in_the_same_folder_and_on_the_same_port() {
    let mut killed = Up::start("").await;
    let (nats, store) = (killed.nats().to_owned(), killed.nats_store());
    killed.program.signal(Signal::KILL);
    within("its end", killed.program.child.wait())
        .await
        .expect("it ends");
    let up = Up::start_in(killed.folder, "", &nats).await;
    assert_eq!(up.nats(), nats);
    assert_eq!(
        with_environment(&store).len(),
        1,
        "the nats-server that was left behind is gone"
    );
    let answer = up.client("products").call("list_categories", json!({})).await;
    assert!(answer["result"].is_object(), "{answer}");
    terminate(up.program).await;
    expect_none_with_environment(&store).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_nats_server_that_was_killed_is_started_again_and_calls_go_on() {
    let up = Up::start("").await;
    let running = with_environment(&up.nats_store());
    let [(pid, _)] = running.as_slice() else {
        panic!("one nats-server: {running:?}")
    };
    let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process id"), Signal::KILL).expect("it runs");
    let client = up.client("products");
    eventually("calls go on", async || {
        let answer = client.call("list_categories", json!({})).await;
        answer["result"].is_object()
    })
    .await;
    TcpStream::connect(up.nats())
        .await
        .expect("NATS takes connections");
    terminate(up.program).await;
}

#[tokio::test]
async fn a_call_in_flight_when_up_is_stopped_is_answered() {
    let up = Up::start("").await;
    let arguments = json!({ "batch_size": 60, "pause_ms": 20 });
    let params = json!({ "name": "reindex", "arguments": arguments, "_meta": { "progressToken": 1 } });
    let call = up.client("products").modern(method::TOOLS_CALL, params);
    // The answer's head comes with the first word of progress.
    let begun = within("progress", call.send()).await.expect("an answer");
    up.program.signal(Signal::TERM);
    let told = within("the answer", events(begun)).await;
    let answer = told.last().expect("an answer");
    assert_eq!(answer["result"]["structuredContent"]["products"], 420, "{answer}");
    ends_well(up.program).await;
}

#[tokio::test]
async fn a_legacy_call_in_flight_when_up_is_stopped_is_answered() {
    let up = Up::start("").await;
    let session = Session::open(&up.client("products"), "2025-11-25").await;
    let arguments = json!({ "batch_size": 60, "pause_ms": 20 });
    let params = json!({ "name": "reindex", "arguments": arguments, "_meta": { "progressToken": 1 } });
    let begun = within("progress", session.request(method::TOOLS_CALL, &params).send())
        .await
        .expect("an answer");
    terminate(up.program).await;
    let told = within("the answer", events(begun)).await;
    let answer = told.last().expect("an answer");
    assert_eq!(answer["result"]["structuredContent"]["products"], 420, "{answer}");
}

#[tokio::test]
async fn up_uses_a_nats_that_is_there_and_leaves_it_there() {
    let nats = nats::Nats::start().await;
    let data = nats.data_dir().display().to_string();
    let mut program = Program::start(&[
        "up",
        "--json",
        "--listen",
        ANY_PORT,
        "--nats",
        nats.url(),
        "--data-dir",
        &data,
    ]);
    let line = within("the ready banner", program.output.next_line())
        .await
        .expect("output")
        .expect("a line");
    let ready: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(ready["nats"], nats.url());
    let client = Client::new(format!(
        "{}/servers/products/mcp",
        ready["http"].as_str().expect("an address")
    ));
    assert!(client.call("list_categories", json!({})).await["result"].is_object());
    terminate(program).await;
    // Its folder is in use all the time, and the broker there is as good as before.
    nats.bus().await;
}
