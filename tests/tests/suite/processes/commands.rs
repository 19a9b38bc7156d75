//! The commands that ask: what they print for programs and for people, and their exit codes.

use std::{io::pipe, process::Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{children::scripted, eventually, program, within};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
};

use super::{Cluster, ends_well, line_of, terminate};

#[tokio::test]
async fn servers_and_tools_show_what_is_on_the_bus() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.json(&["servers", "--json"]).await, json!([]));
    let (_, out, _) = cluster.run(&["servers"]).await;
    assert!(out.contains("trunkline serve"), "{out}");

    let file = cluster.file(
        "trunkline.toml",
        &scripted("scripted", "none", "tags = [\"small\"]"),
    );
    let file = file.display().to_string();
    let replica = cluster.serve(&["products", "scripted", "--config", &file]).await;
    let servers = cluster.json(&["servers", "--json"]).await;
    let shown: Vec<Value> = servers
        .as_array()
        .expect("a list")
        .iter()
        .map(|server| {
            json!([
                server["id"],
                server["counts"]["tools"],
                server["replicas"][0]["instance"],
                server["protocol"]["version"],
                server["tags"],
                server["status"]
            ])
        })
        .collect();
    assert_eq!(
        shown,
        [
            json!([
                "products",
                9,
                replica.instance,
                "2026-07-28",
                ["catalogue"],
                "healthy"
            ]),
            json!([
                "scripted",
                5,
                replica.instance,
                "2025-11-25",
                ["small"],
                "healthy"
            ]),
        ]
    );
    let (_, out, _) = cluster.run(&["servers"]).await;
    let rows: Vec<&str> = out
        .lines()
        .map(|line| line.split_whitespace().next().unwrap_or_default())
        .collect();
    assert_eq!(rows, ["SERVER", "products", "scripted"]);

    let tools = cluster.json(&["tools", "--json"]).await;
    let tools = tools.as_array().expect("a list");
    assert_eq!(tools.len(), 14);
    let search = tools
        .iter()
        .find(|tool| tool["name"] == "search")
        .expect("search");
    assert_eq!(
        (&search["server"], &search["tool"]["name"]),
        (&json!("products"), &json!("search"))
    );
    assert_eq!(search["tool"]["inputSchema"]["type"], "object");
    let (_, out, _) = cluster.run(&["tools", "--server", "scripted"]).await;
    assert!(
        out.contains("scripted.echo") && !out.contains("products."),
        "{out}"
    );
    let (code, _, err) = cluster.run(&["tools", "--server", "nobody"]).await;
    assert!(
        code == 1 && err.contains("nobody") && err.contains("trunkline servers"),
        "{err}"
    );
}

#[tokio::test]
async fn call_prints_the_answer_and_fails_when_the_call_does() {
    let cluster = Cluster::start().await;
    let _replica = cluster.serve(&["products"]).await;
    let answer = cluster
        .json(&[
            "call",
            "products.search",
            r#"{"query":"desk","limit":2}"#,
            "--json",
        ])
        .await;
    assert_eq!(
        answer["structuredContent"]["items"].as_array().map(Vec::len),
        Some(2)
    );
    let (code, out, err) = cluster
        .run(&["call", "products.reindex", r#"{"batch_size":500}"#])
        .await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let text: Value = serde_json::from_str(&out).expect("the text of the answer");
    assert_eq!(text["products"], 420);

    let refused = cluster
        .run(&["call", "products.get", r#"{"sku":"NO-1"}"#, "--json"])
        .await;
    let result: Value = serde_json::from_str(&refused.1).expect("JSON");
    assert_eq!((refused.0, &result["isError"]), (1, &json!(true)));
    for (tool, arguments, expected) in [
        ("products.no_such_tool", "{}", "-32602"),
        ("products.get", "{}", "sku"),
        ("nobody.get", "{}", "nobody"),
        ("products", "{}", "<server>.<tool>"),
        ("products.get", "[1]", "not a JSON object"),
        ("products.get", "{", "not JSON"),
    ] {
        let (code, out, err) = cluster.run(&["call", tool, arguments]).await;
        assert!(
            code == 1 && (err + &out).contains(expected),
            "{tool} {arguments}: {code} {out}"
        );
    }
}

#[tokio::test]
async fn call_reads_its_arguments_from_standard_input() {
    let cluster = Cluster::start().await;
    let _replica = cluster.serve(&["products"]).await;
    let mut program = cluster.begin(&["call", "products.get", "-", "--json"]);
    let mut input = program.input.take().expect("piped");
    input.write_all(br#"{"sku":"OFF-0001"}"#).await.expect("it reads");
    drop(input);
    let line = within("the answer", program.output.next_line())
        .await
        .expect("output")
        .expect("a line");
    let answer: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(answer["structuredContent"]["sku"], "OFF-0001", "{answer}");
    ends_well(program).await;
}

#[tokio::test]
async fn a_call_that_is_interrupted_is_cancelled_at_its_host() {
    let cluster = Cluster::start().await;
    let replica = cluster.serve(&["products"]).await;
    let mut program = cluster.begin(&["call", "products.reindex", r#"{"batch_size":1,"pause_ms":1000}"#]);
    eventually("the call is in flight", async || replica.in_flight().await == 1).await;
    program.signal(Signal::INT);
    let ended = within("its end", program.child.wait()).await.expect("it ends");
    assert_eq!(ended.code(), Some(1));
    eventually("the call is cancelled", async || replica.in_flight().await == 0).await;
}

#[tokio::test]
async fn tail_shows_calls_as_they_end() {
    let cluster = Cluster::start().await;
    let replica = cluster.serve(&["products"]).await;
    let mut programs = [cluster.begin(&["tail", "--json"]), cluster.begin(&["tail"])];
    let calls = async {
        loop {
            cluster
                .run(&["call", "products.get", r#"{"sku":"OFF-0001"}"#])
                .await;
        }
    };
    let [json_tail, text_tail] = &mut programs;
    let shown = async {
        let event = line_of(json_tail, |line| line.contains(r#""name":"get""#)).await;
        (event, line_of(text_tail, |line| line.contains(" get ")).await)
    };
    let both = async {
        tokio::select! { () = calls => panic!("calls go on"), shown = shown => shown }
    };
    let (event, line) = within("a call in both views", both).await;
    let event: Value = serde_json::from_str(&event).expect("a line of JSON");
    for (key, expected) in [
        ("server", json!("products")),
        ("instance", json!(replica.instance)),
        ("method", json!("tools/call")),
        ("door", json!("cli")),
        ("ended", json!("answered")),
        ("protocol_version", json!("2026-07-28")),
    ] {
        assert_eq!(event[key], expected, "{key} in {event}");
    }
    assert!(
        event["duration_us"].as_u64() > Some(0) && event["answer_bytes"].as_u64() > Some(0),
        "{event}"
    );
    assert!(
        line.contains("products") && line.contains("tools/call") && line.contains(" ok "),
        "{line}"
    );
    for program in programs {
        terminate(program).await;
    }
}

#[tokio::test]
async fn servers_that_change_are_told_of_as_they_do() {
    let cluster = Cluster::start().await;
    let registry = cluster.serve(&["registry"]).await;
    let mut programs = [
        cluster.begin(&["servers", "watch", "--json"]),
        cluster.begin(&["servers", "watch"]),
    ];
    // Nobody says when they have begun to listen, so there is always something new.
    let adding = async {
        for number in 0.. {
            let (id, url) = (format!("w{number}"), "https://nobody.example/mcp");
            let (code, _, said) = cluster.run(&["servers", "add", &id, url]).await;
            assert_eq!(code, 0, "{said}");
        }
    };
    let [json_watch, text_watch] = &mut programs;
    let shown = async {
        let event = line_of(json_watch, |line| line.contains(r#""server":"w"#)).await;
        (
            event,
            line_of(text_watch, |line| line.contains("new -> down")).await,
        )
    };
    let both = async {
        tokio::select! { () = adding => panic!("it goes on"), shown = shown => shown }
    };
    let (event, line) = within("a change in both views", both).await;
    let event: Value = serde_json::from_str(&event).expect("a line of JSON");
    assert_eq!(event["status"], "down", "{event}");
    assert!(line.contains("no process of the fleet runs it"), "{line}");
    for program in programs {
        terminate(program).await;
    }
    terminate(registry.program).await;
}

#[tokio::test]
async fn serve_tells_where_its_metrics_are() {
    let cluster = Cluster::start().await;
    let replica = cluster.serve(&["products"]).await;
    cluster
        .json(&["call", "products.list_categories", "--json"])
        .await;
    assert_eq!(replica.calls().await, 1);
    let metrics = super::page(&replica.metrics).await;
    for label in [
        "server_id=\"products\"",
        "gen_ai_tool_name=\"list_categories\"",
        "mcp_method_name=\"tools/call\"",
    ] {
        let shown = metrics.lines().any(|line| {
            line.starts_with("mcp_server_operation_duration_seconds_count{") && line.contains(label)
        });
        assert!(shown, "no {label} in\n{metrics}");
    }
    for page in ["healthz", "readyz"] {
        super::page(&replica.metrics.replace("metrics", page)).await;
    }
}

#[tokio::test]
async fn completions_are_a_script_for_the_shell() {
    let (code, script, err) = program::run(&["completions", "bash"]).await;
    assert_eq!((code, err.as_str()), (0, ""));
    for word in ["_trunkline()", "complete -F _trunkline", "serve", "--data-dir"] {
        assert!(script.contains(word), "no {word}");
    }
    for shell in ["zsh", "fish"] {
        let (code, script, _) = program::run(&["completions", shell]).await;
        assert!(code == 0 && script.contains("trunkline"), "{shell}");
    }
}

#[tokio::test]
async fn a_reader_that_has_gone_is_no_error() {
    let cluster = Cluster::start().await;
    for words in [
        vec!["completions", "bash"],
        vec!["servers"],
        vec!["tools"],
        vec!["--help"],
    ] {
        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        let mut child = Command::new(program::path())
            .args(cluster.joining(&words))
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let mut said = String::new();
        let mut log = child.stderr.take().expect("piped");
        within("its last words", log.read_to_string(&mut said))
            .await
            .expect("UTF-8");
        assert!(!said.contains("panicked"), "{words:?}: {said}");
        within("its end", child.wait()).await.expect("it ends");
    }
}

#[tokio::test]
async fn every_command_helps_with_examples() {
    for command in [
        "up",
        "serve",
        "bridge",
        "servers",
        "tools",
        "call",
        "tail",
        "tasks",
        "completions",
    ] {
        let (code, help, _) = program::run(&[command, "--help"]).await;
        assert!(
            code == 0 && help.contains(&format!("trunkline {command}")),
            "{command}: {help}"
        );
        assert!(help.contains("Example"), "{command}: {help}");
    }
    let (_, version, _) = program::run(&["--version"]).await;
    assert!(version.starts_with("trunkline "), "{version}");
}
