//! One `trunkline up` for two tenants, and the commands that act in one of them.

use serde_json::{Value, json};
use tests::{
    children::scripted,
    eventually,
    http::{Client, text},
    program,
    program::Program,
    session::Session,
    within,
};
use tokio::io::AsyncWriteExt as _;

/// A platform in a process of its own, with the same id in both tenants.
struct Up {
    _program: Program,
    folder: tempfile::TempDir,
    ready: Value,
}

impl Up {
    async fn start() -> Self {
        let text = [
            scripted("small", "none", "tags = [\"home\"]"),
            scripted("small", "none", "tenant = \"acme\"\ntags = [\"abroad\"]"),
            scripted("further", "none", "tenant = \"acme\""),
        ];
        Self::start_with(&text.concat()).await
    }

    async fn start_with(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("t.toml");
        let text =
            format!("tenants = [\"acme\"]\nlisten = \"127.0.0.1:0\"\nnats_listen = \"127.0.0.1:0\"\n{text}");
        std::fs::write(&file, text).expect("a file");
        let data = folder.path().join("data");
        let arguments = [
            "up",
            "--json",
            "--config",
            &file.display().to_string(),
            "--data-dir",
            &data.display().to_string(),
        ]
        .map(str::to_owned);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut program = Program::start(&arguments);
        let mut text = String::new();
        let ready = within("the banner", async {
            loop {
                let line = program.output.next_line().await.expect("reads").expect("a line");
                text.push_str(&line);
                if let Ok(ready) = serde_json::from_str::<Value>(&text) {
                    return ready;
                }
            }
        })
        .await;
        Self {
            _program: program,
            folder,
            ready,
        }
    }

    /// Starts one more process of the platform, with a configuration of its own.
    fn join(&self, name: &str, text: &str, arguments: &[&str]) -> Program {
        let file = self.folder.path().join(name);
        let text = format!("tenants = [\"acme\"]\n{text}");
        std::fs::write(&file, text).expect("a file");
        let data = self.folder.path().join("data").display().to_string();
        let file = file.display().to_string();
        Program::start(&[arguments, &["--data-dir", &data, "--config", &file]].concat())
    }

    async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let data = self.folder.path().join("data").display().to_string();
        let file = self.folder.path().join("t.toml").display().to_string();
        let all = [arguments, &["--data-dir", &data, "--config", &file]].concat();
        program::run(&all).await
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let (code, out, err) = self.run(arguments).await;
        assert_eq!(code, 0, "{arguments:?}: {err}");
        serde_json::from_str(&out).expect("JSON")
    }
}

fn ids(servers: &Value) -> Vec<String> {
    let servers = servers.as_array().expect("a list").iter();
    servers
        .map(|server| server["id"].as_str().expect("an id").to_owned())
        .collect()
}

#[tokio::test]
async fn one_process_serves_both_and_each_command_acts_in_one() {
    let up = Up::start().await;
    let started = up.ready["servers"].as_array().expect("servers");
    let of_acme = started.iter().filter(|server| server["tenant"] == "acme");
    assert_eq!(of_acme.count(), 2, "{}", up.ready);
    assert_eq!(
        ids(&up.json(&["servers", "--json"]).await),
        ["jobs", "products", "small"]
    );
    let acme = up.json(&["servers", "--json", "--tenant", "acme"]).await;
    assert_eq!(ids(&acme), ["further", "small"]);
    assert_eq!(acme[1]["tags"], json!(["abroad"]));
    let (code, _, err) = up.run(&["servers", "show", "further"]).await;
    assert!(code != 0 && err.contains("no server `further`"), "{err}");
    let tools = up
        .json(&["tools", "--json", "--tenant", "acme"])
        .await
        .to_string();
    assert!(
        tools.contains("further") && !tools.contains("products"),
        "{tools}"
    );
    let (code, _, err) = up.run(&["call", "products.list", "--tenant", "acme"]).await;
    assert!(code != 0 && err.contains("products"), "{err}");
    let (code, out, err) = up
        .run(&["call", "further.echo", r#"{"text":"x"}"#, "--tenant", "acme"])
        .await;
    assert_eq!((code, out.trim()), (0, "x"), "{err}");
    let (code, _, err) = up.run(&["up", "--tenant", "acme"]).await;
    assert!(code != 0 && err.contains("--tenant means nothing here"), "{err}");
    // A line that comes while it runs is its tenant's.
    let file = up.folder.path().join("t.toml");
    let lines = std::fs::read_to_string(&file).expect("a file");
    let later = scripted("later", "none", "tenant = \"acme\"");
    std::fs::write(&file, lines + &later).expect("a file");
    eventually("it is there", async || {
        let acme = up.json(&["servers", "--json", "--tenant", "acme"]).await;
        ids(&acme) == ["further", "later", "small"]
    })
    .await;
    assert_eq!(
        ids(&up.json(&["servers", "--json"]).await),
        ["jobs", "products", "small"]
    );
    // Unauthenticated clients on this machine are of the tenant `default`.
    let http = up.ready["http"].as_str().expect("a URL");
    let client = Client::new(format!("{http}/servers/further/mcp"));
    let told = client.list_tools().await;
    assert!(told["error"].is_object(), "{told}");
    let client = Client::new(format!("{http}/mcp"));
    let told = client.list_tools().await.to_string();
    assert!(told.contains("small__") && !told.contains("further__"), "{told}");
}

#[tokio::test]
async fn a_stdio_bridge_is_of_the_tenant_that_it_is_told() {
    let up = Up::start().await;
    let data = up.folder.path().join("data").display().to_string();
    let ask = async |more: &[&str]| {
        let arguments = [&["bridge", "stdio", "--data-dir", &data], more].concat();
        let mut bridge = Program::start(&arguments);
        let mut input = bridge.input.take().expect("its input");
        let request = tests::http::modern_body("tools/list", json!({}));
        input
            .write_all(format!("{request}\n").as_bytes())
            .await
            .expect("writes");
        let line = within("an answer", bridge.output.next_line()).await;
        line.expect("reads").expect("a line")
    };
    let own = ask(&[]).await;
    assert!(own.contains("products__") && !own.contains("further__"), "{own}");
    let acme = ask(&["--tenant", "acme"]).await;
    assert!(
        acme.contains("further__") && !acme.contains("products__"),
        "{acme}"
    );
    let one = ask(&["--server", "further"]).await;
    assert!(one.contains("error"), "{one}");
}

#[tokio::test]
async fn a_fleet_of_processes_serves_both_each_with_the_rights_of_its_role() {
    let key = async |tenant: &str| {
        let made = program::run(&["keys", "new", "--json", "--subject", "ann", "--tenant", tenant]).await;
        let made: Value = serde_json::from_str(&made.1).expect("JSON");
        (
            made["key"].as_str().expect("a key").to_owned(),
            made["config"].as_str().expect("lines").to_owned(),
        )
    };
    let keys = [key("default").await, key("acme").await];
    let auth = format!("[auth]\nmode = \"api_keys\"\n{}{}", keys[0].1, keys[1].1);
    let up = Up::start_with(&auth).await;
    let line = scripted("small", "none", "tenant = \"acme\"");
    let mut host = up.join("host.toml", &line, &["serve", "acme/small"]);
    host.logged("serving").await;
    let mut bridge = up.join(
        "bridge.toml",
        &auth,
        &["bridge", "http", "--listen", "127.0.0.1:0"],
    );
    let ready = bridge.logged("bridge is ready").await;
    let at = ready
        .split_once("mcp=")
        .expect("a URL")
        .1
        .trim()
        .trim_matches('"');
    let further = at.trim_end_matches("/mcp").to_owned();
    for base in [up.ready["http"].as_str().expect("a URL"), &further] {
        let client = |key: &str, path: &str| Client::new(format!("{base}{path}")).with_token(key);
        let acme = client(&keys[1].0, "/servers/small/mcp");
        eventually("the server is known", async || {
            acme.list_tools().await["result"].is_object()
        })
        .await;
        let said = acme.call("echo", json!({ "text": "x" })).await;
        assert_eq!(text(&said), "x", "{said}");
        let session = Session::open(&acme, "2025-11-25").await;
        let said = session
            .ask(
                "tools/call",
                &json!({ "name": "echo", "arguments": { "text": "y" } }),
            )
            .await;
        assert_eq!(text(&said), "y", "{said}");
        // Another bridge serves the same session.
        let other = Client::new(format!("{further}/servers/small/mcp")).with_token(&keys[1].0);
        let said = session
            .at(&other)
            .ask(
                "tools/call",
                &json!({ "name": "echo", "arguments": { "text": "z" } }),
            )
            .await;
        assert_eq!(text(&said), "z", "{said}");
        let told = client(&keys[0].0, "/servers/small/mcp").list_tools().await;
        assert_eq!(told["error"]["data"]["reason"], "unknown_server", "{told}");
        let tools = client(&keys[0].0, "/mcp").tool_names().await;
        assert!(
            tools
                .iter()
                .all(|tool| tool.starts_with("products__") || tool.starts_with("jobs__")),
            "{tools:?}"
        );
        let tools = client(&keys[1].0, "/mcp").tool_names().await;
        assert!(tools.iter().all(|tool| tool.starts_with("small__")), "{tools:?}");
    }
}
