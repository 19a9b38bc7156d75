//! The commands by which operators look at changed tools and decide over them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};
use tests::{changing::Changing, eventually, remote::local, scripted::Scripted};

use super::{Cluster, terminate, up::Up};

#[tokio::test]
async fn changed_tools_are_shown_and_decided_over_by_command() {
    let cluster = Cluster::start().await;
    let file = cluster.file("trunkline.toml", "[integrity]\npolicy = \"quarantine\"\n");
    let file = file.display().to_string();
    let registry = cluster.serve(&["registry", "--config", &file]).await;
    let (bus, server) = (cluster.nats.bus().await, Arc::<Changing>::default());
    let _host = server.serve(&bus, "a").await;
    bus.pins().ready().await;
    let id = "a".parse().expect("an id");
    eventually("its tools are approved", async || {
        bus.pins().of("default", &id).pins().is_some()
    })
    .await;
    let good = [
        "servers",
        "add",
        "r",
        "https://weather.example.com/mcp",
        "--description",
        "Good.\u{202E}",
    ];
    let (code, _, err) = cluster.run(&good).await;
    assert!(code == 0 && err.contains("U+202E at /description"), "{err}");
    let (code, out, _) = cluster.run(&["tools", "pending"]).await;
    assert_eq!((code, out.trim()), (0, "every tool is as it was approved"));

    server.redefine(json!({ "description": "Clears the screen \u{1b}[2J\u{200b}." }));
    let waits = async || {
        let known = bus.pins().of("default", &id);
        known
            .pins()
            .is_some_and(|pins| pins.tools["n0"].pending.is_some())
    };
    eventually("the change is known", waits).await;
    let (code, out, err) = cluster.run(&["tools", "pending"]).await;
    assert_eq!(code, 0, "{err}");
    for words in [
        "a.n0: changed, quarantined, since ",
        "  digest sha256:",
        "  ! 2 hidden characters at /description: U+001B U+200B",
        "  /description\n    + \"Clears the screen \\u001b[2J\\u{200b}.\"",
        "  /inputSchema\n    - {\"type\":\"object\"}",
    ] {
        assert!(out.contains(words), "`{words}` is not in:\n{out}");
    }
    let shown = cluster.json(&["tools", "pending", "--json"]).await;
    assert_eq!(shown[0]["tools"][0]["diff"][1]["path"], "/inputSchema", "{shown}");

    let (code, out, err) = cluster.run(&["call", "a.n0"]).await;
    assert!(
        code != 0 && err.contains("trunkline tools approve a.n0"),
        "{out}{err}"
    );
    let (code, _, err) = cluster
        .run(&["tools", "approve", "a.n0", "--digest", "sha256:0"])
        .await;
    assert!(code != 0 && err.contains("changed again"), "{err}");
    let (code, out, err) = cluster.run(&["tools", "approve", "a.n0"]).await;
    assert_eq!((code, out.trim()), (0, "approved a.n0"), "{err}");
    eventually("it is called", async || {
        cluster.run(&["call", "a.n0"]).await.0 == 0
    })
    .await;

    server.redefine(json!({ "description": "Again." }));
    eventually("the change is known", waits).await;
    let (_, out, _) = cluster.run(&["tools", "reject", "--all", "a"]).await;
    assert_eq!(out.trim(), "rejected a.n0");
    let (code, _, err) = cluster.run(&["tools", "approve", "n0"]).await;
    assert!(code != 0 && err.contains("<server>.<tool>"), "{err}");
    let (code, _, err) = cluster.run(&["tools", "approve", "nobody.n0"]).await;
    assert!(code != 0 && err.contains("no such tool"), "{err}");
    terminate(registry.program).await;
}

#[tokio::test]
async fn a_policy_that_changes_in_the_file_holds_at_once_and_one_that_cannot_be_used_does_not() {
    let changed = Arc::new(AtomicBool::new(false));
    let is_changed = Arc::clone(&changed);
    let server = Scripted::start(move |asked| {
        let words = if is_changed.load(Ordering::SeqCst) {
            "Other."
        } else {
            "Works."
        };
        let tools = json!([{ "name": "work", "description": words, "inputSchema": { "type": "object" } }]);
        async move { asked.modern(&tools) }
    })
    .await;
    let line = local("x", &server.url(), "");
    let mut up = Up::start(&line).await;
    let path = up.folder().join("trunkline.toml");
    let write = |policy: &str| {
        let text = format!("[integrity]\npolicy = \"{policy}\"\n{line}");
        std::fs::write(&path, text).expect("the file is written");
    };
    let url = format!("{}/servers/x/tools", up.text("http"));
    let told = async || -> Value {
        let answer = reqwest::get(&url).await.expect("an answer");
        answer.json().await.unwrap_or_default()
    };
    let client = up.client("x");
    let is_called = async || client.call("work", json!({})).await["result"].is_object();
    eventually("the tool is approved", async || {
        told().await["tools"][0]["state"] == "approved"
    })
    .await;
    changed.store(true, Ordering::SeqCst);
    eventually("the change is known", async || {
        client.tool_names().await;
        told().await["tools"][0]["state"] == "changed"
    })
    .await;
    // By the usual policy it is told of, and no more.
    assert!(is_called().await);
    write("quarantine");
    eventually("calls have stopped", async || !is_called().await).await;
    assert_eq!(told().await["policy"], "quarantine");
    write("qarantine");
    let said = up.program.logged("everything stays as it was").await;
    assert!(
        said.contains("qarantine") && said.contains("quarantine"),
        "{said}"
    );
    assert!(!is_called().await);
    // A section that goes takes nothing back.
    std::fs::write(&path, &line).expect("the file is written");
    up.program.logged("policies of the platform stay").await;
    assert!(!is_called().await);
    write("warn");
    eventually("it is called again", is_called).await;
    assert_eq!(told().await["policy"], "warn");
    terminate(up.program).await;
}
