//! A fleet as operators run it: registered by command and by file, changed while it runs, and kept over restarts.

use serde_json::{Value, json};
use tests::{eventually, http::text, program, remote::local, scripted::Scripted};

use super::{
    Cluster, terminate,
    up::{Up, begin},
};

async fn server(tool: &'static str) -> Scripted {
    Scripted::start(move |asked| async move {
        asked.modern(&json!([{ "name": tool, "inputSchema": { "type": "object" } }]))
    })
    .await
}

/// Runs a command in the platform's folder.
async fn run(up: &Up, words: &[&str]) -> (i32, String, String) {
    let data = up.folder().join("data").display().to_string();
    let joining = ["--data-dir", &data, "--nats", up.text("nats")];
    program::run(&[words, &joining].concat()).await
}

async fn shown(up: &Up, id: &str) -> Value {
    let (code, out, _) = run(up, &["servers", "show", id, "--json"]).await;
    match code {
        0 => serde_json::from_str(&out).expect("JSON"),
        _ => Value::Null,
    }
}

async fn calls(up: &Up, server: &str, tool: &str) -> bool {
    text(&up.client(server).call(tool, json!({ "a": 1 })).await) == r#"{"a":1}"#
}

#[tokio::test]
async fn servers_are_added_shown_and_removed_by_commands_and_outlive_a_restart() {
    let one = server("one").await;
    let up = Up::start("").await;
    let (code, out, err) = run(
        &up,
        &[
            "servers",
            "add",
            "mine",
            &one.url(),
            "--allow-private",
            "--tag",
            "a",
            "--title",
            "Mine",
        ],
    )
    .await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("registered server `mine`"), "{out}");
    eventually("it is healthy", async || {
        shown(&up, "mine").await["status"] == "healthy"
    })
    .await;
    assert!(calls(&up, "mine", "one").await);
    let (_, table, _) = run(&up, &["servers"]).await;
    assert!(
        table
            .lines()
            .any(|line| line.starts_with("mine") && line.contains("healthy")),
        "{table}"
    );
    let (code, _, err) = run(
        &up,
        &["servers", "add", "mine", "http://127.0.0.1:1/", "--allow-private"],
    )
    .await;
    assert!(code != 0 && err.contains("PUT"), "{err}");
    for (words, expected) in [
        (vec!["servers", "add", "x", "nowhere"], "https://host/path"),
        (vec!["servers", "add", "x"], "<URL>"),
        (
            vec!["servers", "add", "x", "https://a.example", "--era", "old"],
            "auto, legacy, modern",
        ),
        (vec!["servers", "show", "nobody"], "no server `nobody`"),
        (vec!["servers", "remove", "nobody"], "no server `nobody`"),
    ] {
        let (code, _, err) = run(&up, &words).await;
        assert!(code != 0 && err.contains(expected), "{words:?}: {err}");
    }
    let Up { program, folder, .. } = up;
    terminate(program).await;
    let up = Up::start_in(folder, "", "127.0.0.1:0").await;
    eventually("it is there again", async || {
        shown(&up, "mine").await["status"] == "healthy"
    })
    .await;
    assert!(calls(&up, "mine", "one").await);
    let (code, _, err) = run(&up, &["servers", "remove", "mine"]).await;
    assert_eq!(code, 0, "{err}");
    eventually("it is gone", async || shown(&up, "mine").await.is_null()).await;
    terminate(up.program).await;
}

#[tokio::test]
async fn whatever_a_declaration_says_can_be_said_by_flags_and_is_shown() {
    let up = Up::start("").await;
    let declared = json!({
        "id": "all", "name": "com.example/all", "title": "All", "description": "Everything.",
        "url": "https://all.example.com/mcp", "transport": "http", "era": "modern", "version": "1.2.0",
        "tags": ["a", "b"],
        "auth": {
            "type": "oauth2", "tokenEndpoint": "https://id.example.com/token", "clientId": "me",
            "clientSecretEnv": "TRUNKLINE_SECRET_ALL", "scopes": ["read", "write"]
        },
        "headers": { "X-One": "1" }, "allowPrivate": true, "healthUrl": "https://all.example.com/health",
        "owner": "team-a", "maxInFlight": 3, "replicas": 2, "callTimeoutMs": 500,
        "breaker": { "failures": 2, "withinSecs": 7, "openSecs": 4 }, "retry": { "attempts": 5, "backoffMs": 30 }
    });
    let flags = "servers add all https://all.example.com/mcp --name com.example/all --title All --description Everything. \
        --transport http --era modern --server-version 1.2.0 --tag a --tag b --owner team-a --replicas 2 --max-in-flight 3 \
        --oauth-token-endpoint https://id.example.com/token --oauth-client-id me --oauth-client-secret-env TRUNKLINE_SECRET_ALL \
        --oauth-scope read --oauth-scope write --allow-private --health-url https://all.example.com/health \
        --call-timeout-ms 500 --breaker-failures 2 --breaker-within-secs 7 --breaker-open-secs 4 \
        --retry-attempts 5 --retry-backoff-ms 30";
    let mut words: Vec<_> = flags.split_whitespace().collect();
    words.extend(["--header", "X-One: 1"]);
    let (code, _, err) = run(&up, &words).await;
    assert_eq!(code, 0, "{err}");
    // The command line has its own picture of the registry.
    eventually("it is shown", async || !shown(&up, "all").await.is_null()).await;
    let told = shown(&up, "all").await;
    assert_eq!(told["declaration"], declared);
    assert_eq!(
        told["limits"],
        json!({ "maxInFlight": 3, "callTimeoutMs": 500, "breaker": declared["breaker"], "retry": declared["retry"] })
    );
    // A file that says the same is no second registration.
    let file = up.folder().join("all.json");
    std::fs::write(&file, declared.to_string()).expect("the file is written");
    let (code, out, err) = run(&up, &["servers", "add", "--file", &file.display().to_string()]).await;
    assert!(
        code == 0 && out.contains("has already server `all`"),
        "{out}{err}"
    );
    let begin = ["servers", "add", "x", "https://a.example"];
    for (flags, expected) in [
        (["--max-in-flight", "0"], "1 to 10000"),
        (["--call-timeout-ms", "0"], "1 to 86400000"),
        (["--breaker-open-secs", "0"], "use 1 to 3600"),
        (["--breaker-failures", "many"], "--breaker-failures"),
        (["--retry-attempts", "11"], "use 1 to 10"),
        (["--oauth-client-id", "me"], "--oauth-client-secret-name"),
        (["--bearer-env", "HOME"], "TRUNKLINE_SECRET_"),
    ] {
        let (code, _, err) = run(&up, &[&begin[..], &flags].concat()).await;
        assert!(code != 0 && err.contains(expected), "{flags:?}: {err}");
    }
    terminate(up.program).await;
}

#[tokio::test]
async fn a_bootstrap_file_registers_what_is_new_and_leaves_what_was_changed() {
    let (one, two, other) = (server("one").await, server("two").await, server("other").await);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let fleet = folder.path().join("fleet.toml");
    let line = |id: &str, server: &Scripted| {
        format!(
            "[[servers]]\nid = \"{id}\"\nurl = {}\nallowPrivate = true\n",
            json!(server.url())
        )
    };
    std::fs::write(&fleet, line("one", &one) + &line("two", &two)).expect("the file is written");
    let file = format!("bootstrap = {}\n", json!(fleet));
    let up = Up::start_in(folder, &file, "127.0.0.1:0").await;
    eventually("both answer", async || {
        calls(&up, "one", "one").await && calls(&up, "two", "two").await
    })
    .await;
    let (code, _, err) = run(
        &up,
        &[
            "servers",
            "add",
            "two",
            &other.url(),
            "--allow-private",
            "--replace",
        ],
    )
    .await;
    assert_eq!(code, 0, "{err}");
    let Up { program, folder, .. } = up;
    terminate(program).await;
    let mut up = Up::start_in(folder, &file, "127.0.0.1:0").await;
    up.program.logged("stays so").await;
    eventually("both answer", async || {
        calls(&up, "one", "one").await && calls(&up, "two", "other").await
    })
    .await;
    terminate(up.program).await;
}

#[tokio::test]
async fn a_bootstrap_file_that_cannot_be_used_keeps_the_platform_from_starting() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let fleet = folder.path().join("fleet.toml");
    std::fs::write(&fleet, "[[servers]]\nid = \"a\"\nurl = \"nowhere\"\n").expect("the file is written");
    let mut program = begin(
        folder.path(),
        "",
        "127.0.0.1:0",
        &["--bootstrap", &fleet.display().to_string()],
    );
    let ended = tests::within("its end", program.child.wait())
        .await
        .expect("it ends");
    assert!(!ended.success());
    let said = program.logged("server `a`").await;
    assert!(said.contains("https://host/path"), "{said}");
}

#[tokio::test]
async fn changed_lines_of_the_file_are_taken_while_the_platform_runs() {
    let (one, two, three) = (server("one").await, server("two").await, server("three").await);
    let first = local("stays", &one.url(), "") + &local("changes", &two.url(), "");
    let mut up = Up::start(&first).await;
    assert!(calls(&up, "stays", "one").await && calls(&up, "changes", "two").await);
    let path = up.folder().join("trunkline.toml");
    // A file that cannot be used changes nothing.
    std::fs::write(&path, "[[servers]]\nid = \"stays\"\n").expect("the file is written");
    up.program.logged("everything stays as it was").await;
    assert!(calls(&up, "stays", "one").await && calls(&up, "changes", "two").await);
    let before = one.asked("server/discover").len();
    let second =
        local("stays", &one.url(), "") + &local("changes", &three.url(), "") + &local("new", &two.url(), "");
    std::fs::write(&path, second).expect("the file is written");
    up.program.logged("took the changed configuration file").await;
    eventually("the changed one is another", async || {
        calls(&up, "changes", "three").await
    })
    .await;
    eventually("the new one answers", async || calls(&up, "new", "two").await).await;
    assert_eq!(
        one.asked("server/discover").len(),
        before,
        "what has not changed goes on"
    );
    let tenants = "tenants = [\"acme\"]\n".to_owned();
    std::fs::write(&path, tenants + &local("stays", &one.url(), "")).expect("the file is written");
    let said = up.program.logged("RESTART NEEDED").await;
    assert!(said.contains("keys=\"tenants\""), "{said}");
    eventually("the others are gone", async || {
        shown(&up, "new").await.is_null() && shown(&up, "changes").await.is_null()
    })
    .await;
    assert!(calls(&up, "stays", "one").await);
    terminate(up.program).await;
}

#[tokio::test]
async fn a_bridge_by_itself_takes_changed_virtual_servers_of_its_file() {
    let cluster = Cluster::start().await;
    let line = |id: &str, tool: &str| {
        format!("[[virtual]]\nid = \"{id}\"\nitems = [{{ server = \"products\", tools = [\"{tool}\"] }}]\n")
    };
    let file = cluster.file("bridge.toml", &line("desk", "search"));
    let path = file.display().to_string();
    let configured = ["--config", &path];
    let (products, bridge) = tokio::join!(cluster.serve(&["products"]), cluster.bridge_with(&configured));
    let shows = async |id: &str, tool: &str| {
        let list = bridge.client(id).list_tools().await;
        list["result"]["tools"][0]["name"] == tool
    };
    eventually("it is there", async || shows("desk", "search").await).await;
    cluster.file("bridge.toml", &(line("desk", "get") + &line("shop", "search")));
    eventually("the change is taken", async || {
        shows("desk", "get").await && shows("shop", "search").await
    })
    .await;
    for program in [products.program, bridge.program] {
        terminate(program).await;
    }
}
