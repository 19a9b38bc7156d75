//! `trunkline up`: one command, the whole platform, and nothing of it left behind.

use std::path::Path;

use bus_schema::mcp::method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{
    children::scripted,
    http::{Client, events, text},
    mark::{Mark, expect_none_with_environment, with_environment},
    nats,
    program::{self, Program},
    session::Session,
    within,
};
use tokio::{net::TcpStream, process::Command};

use super::{ends_well, line_of, page, terminate};

const ANY_PORT: &str = "127.0.0.1:0";

/// A running `trunkline up` on free ports.
struct Up {
    program: Program,
    ready: Value,
    folder: tempfile::TempDir,
}

impl Up {
    async fn start(file: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut program = begin(folder.path(), file, &["--json"]);
        let line = within("the ready banner", program.output.next_line()).await;
        let line = line.expect("output").expect("a line");
        let ready = serde_json::from_str(&line).expect("JSON");
        Self {
            program,
            ready,
            folder,
        }
    }

    fn text(&self, key: &str) -> &str {
        self.ready[key]
            .as_str()
            .unwrap_or_else(|| panic!("no {key}: {}", self.ready))
    }

    fn client(&self, server: &str) -> Client {
        Client::new(format!("{}/servers/{server}/mcp", self.text("http")))
    }
}

fn begin(folder: &Path, file: &str, more: &[&str]) -> Program {
    let path = folder.join("trunkline.toml");
    std::fs::write(&path, file).expect("the file is written");
    let (path, data) = (
        path.display().to_string(),
        folder.join("data").display().to_string(),
    );
    let words = [
        "up",
        "--listen",
        ANY_PORT,
        "--nats-listen",
        ANY_PORT,
        "--config",
        &path,
        "--data-dir",
        &data,
    ];
    Program::start(&words.into_iter().chain(more.iter().copied()).collect::<Vec<_>>())
}

/// What its nats-server has in its environment, and no other process.
fn nats_store(folder: &Path) -> String {
    let store = folder.join("data/nats").canonicalize();
    store.expect("a data folder").to_string_lossy().into_owned()
}

#[tokio::test]
async fn up_says_what_is_there_when_it_is_ready() {
    let up = Up::start(&(scripted("scripted", "none", "") + &scripted("exits", "exits", ""))).await;
    let http = up.text("http").to_owned();
    assert_eq!(up.text("mcp"), format!("{http}/mcp"));
    let websocket = format!("{}/ws", http.replacen("http", "ws", 1));
    assert_eq!(up.text("websocket"), websocket);
    assert!(up.text("natsVersion").starts_with("2."));
    let servers = up.ready["servers"].as_array().expect("servers");
    for (id, status, tools) in [
        ("products", "up", json!(7)),
        ("scripted", "up", json!(5)),
        ("exits", "failed", Value::Null),
    ] {
        let shown = servers.iter().find(|server| server["id"] == id);
        let mut shown = shown.expect("every server is shown").clone();
        assert_eq!(shown["error"].take().is_string(), status == "failed", "{shown}");
        let url = format!("{http}/servers/{id}/mcp");
        let expected = json!({ "id": id, "status": status, "error": null, "url": url, "tools": tools });
        assert_eq!(shown, expected);
    }
    let said = json!({ "text": "at once" });
    let answer = up.client("scripted").call("echo", said).await;
    assert_eq!(text(&answer), "at once");
    let all = Client::new(up.text("mcp"));
    let answer = all.call("products__list_categories", json!({})).await;
    assert!(answer["result"].is_object(), "{answer}");
    page(&format!("{http}/healthz")).await;
    page(&format!("{http}/readyz")).await;
    let metrics = page(&format!("{http}/metrics")).await;
    for side in ["server", "client"] {
        let name = format!("mcp_{side}_operation_duration_seconds_count");
        assert!(metrics.contains(&name), "no {name} in\n{metrics}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn up_leaves_nothing_behind_when_it_is_stopped() {
    let mark = Mark::new();
    let env = format!("env = {{ MARK = \"{}\" }}", mark.word());
    let up = Up::start(&(scripted("steady", "none", &env) + &scripted("stubborn", "stubborn", &env))).await;
    let nats = up.text("nats").trim_start_matches("nats://").to_owned();
    TcpStream::connect(&nats).await.expect("NATS takes connections");
    let store = nats_store(up.folder.path());
    // One server, and one with a process that it has started.
    let running = (with_environment(&store).len(), mark.processes().len());
    assert_eq!(running, (1, 3));
    terminate(up.program).await;
    let refused = TcpStream::connect(&nats).await.expect_err("NATS is gone");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    mark.expect_gone().await;
    expect_none_with_environment(&store).await;
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

/// What `up` says to people when it is ready.
async fn banner(program: &mut Program) -> String {
    let mut banner = String::new();
    within("the ready banner", async {
        while !banner.contains("Ctrl-C") {
            banner += &line_of(program, |_| true).await;
            banner.push('\n');
        }
    })
    .await;
    banner
}

/// Pastes the banner's `trunkline call` into a shell, and expects its answer.
async fn paste_command(banner: &str, folder: &Path) {
    let from = banner.find("trunkline call").expect("a command to paste");
    let command = banner[from..].lines().next().expect("a line");
    let command = command
        .split("  (")
        .next()
        .expect("the command before the remark");
    let beside = program::path();
    let beside = beside.parent().expect("a folder").display();
    let said = shell(folder, &format!("PATH='{beside}':$PATH; {command}")).await;
    assert!(said.contains("\"items\""), "`{command}` said {said}");
}

/// Runs a line as a shell does and gives what it said, of both kinds.
async fn shell(folder: &Path, line: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(folder).kill_on_drop(true);
    let output = within("the end of a command", command.output()).await;
    let output = output.expect("a shell");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[tokio::test]
async fn calls_that_the_banner_shows_work_when_they_are_pasted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let words = ["up", "--listen", ANY_PORT, "--nats-listen", ANY_PORT];
    let mut program = Program::start_in(folder.path(), &words);
    let banner = banner(&mut program).await;
    for word in ["products", "/mcp", "nats://", "/metrics"] {
        assert!(banner.contains(word), "no {word} in {banner}");
    }
    // The shell takes the pasted words apart; the test sends them, as not every machine has curl.
    let from = banner.find("curl ").expect("a call to paste");
    let length = banner[from..].find("}}'").expect("its end") + 3;
    let curl = &banner[from..from + length];
    let line = format!("curl() {{ printf '%s\\n' \"$@\"; }}; {curl}");
    let words = shell(folder.path(), &line).await;
    let words: Vec<&str> = words.lines().collect();
    let after = |flag: &'static str| {
        let pairs = words.windows(2).filter(move |pair| pair[0] == flag);
        pairs.map(|pair| pair[1])
    };
    let url = words.iter().find(|word| word.starts_with("http://"));
    let body = after("-d").next().expect("a body").to_owned();
    let mut request = reqwest::Client::new().post(*url.expect("an address")).body(body);
    for header in after("-H") {
        let (name, value) = header.split_once(": ").expect("a header");
        request = request.header(name, value);
    }
    let answer = within("an answer", request.send()).await.expect("an answer");
    let answer: Value = answer.json().await.expect("JSON");
    let total = &answer["result"]["structuredContent"]["total"];
    assert!(total.as_u64() > Some(0), "{answer}");
    paste_command(&banner, folder.path()).await;
    terminate(program).await;
}

#[tokio::test]
async fn calls_that_the_banner_shows_work_with_a_data_folder_elsewhere_as_well() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut program = begin(folder.path(), "", &[]);
    let banner = banner(&mut program).await;
    paste_command(&banner, folder.path()).await;
    terminate(program).await;
}
