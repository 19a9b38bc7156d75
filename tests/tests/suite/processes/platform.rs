//! What `trunkline up` says when it is ready, and that all of it is there.

use std::path::Path;

use serde_json::{Value, json};
use tests::{
    children::scripted,
    http::{Client, text},
    program::{self, Program},
    within,
};
use tokio::process::Command;

use super::{
    ANY_PORT, line_of, page, terminate,
    up::{self, Up},
};

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
        ("products", "up", json!(9)),
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
    let mut program = up::begin(folder.path(), "", ANY_PORT, &[]);
    let banner = banner(&mut program).await;
    paste_command(&banner, folder.path()).await;
    terminate(program).await;
}
