//! What the platform shows to servers: where it comes from, how it is exchanged while everything runs, and where it never appears.

mod accounts;
mod issuers;
mod legacy_accounts;
mod stage;
mod traces;
mod users;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use bus_schema::mcp::method;
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{
    children, eventually,
    http::{Client, text},
    platform::Platform,
    program::{Program, http_of},
    remote::local,
    scripted::{Asked, Scripted, status},
    within,
};

/// A server with one tool that lets in who shows what is wanted now, in a header; `|` stands between what will do.
async fn guarded(header: &'static str, wanted: &Arc<Mutex<String>>) -> Scripted {
    let wanted = Arc::clone(wanted);
    Scripted::start(move |asked: Asked| {
        let wanted = wanted.lock().expect("no panic").clone();
        let answer = if wanted.split('|').any(|wanted| wanted == asked.header(header)) {
            asked.modern(&json!([{ "name": "t", "inputSchema": { "type": "object" } }]))
        } else {
            status(401)
        };
        async move { answer }
    })
    .await
}

fn wanted(value: &str) -> Arc<Mutex<String>> {
    Arc::new(Mutex::new(value.to_owned()))
}

fn want(wanted: &Mutex<String>, value: &str) {
    value.clone_into(&mut wanted.lock().expect("no panic"));
}

/// A secret as Kubernetes mounts it: a link through a folder that is exchanged as a whole.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(value: &str) -> Self {
        let mounted = Self(tempfile::tempdir().expect("a folder"));
        mounted.put("1", value);
        symlink("..data/token", mounted.path()).expect("a link");
        mounted
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("token")
    }

    fn put(&self, generation: &str, value: &str) {
        let (folder, new) = (self.0.path(), self.0.path().join("..new"));
        let name = format!("..{generation}");
        fs::create_dir(folder.join(&name)).expect("a folder");
        fs::write(folder.join(&name).join("token"), format!("{value}\n")).expect("written");
        symlink(&name, &new).expect("a link");
        fs::rename(new, folder.join("..data")).expect("exchanged");
    }
}

/// Something that stands for the client of a vault: a program that prints what the vault has now, and notes that it ran.
struct Vault(tempfile::TempDir);

impl Vault {
    fn new(value: &str) -> Self {
        let vault = Self(tempfile::tempdir().expect("a folder"));
        vault.put(value);
        vault
    }

    fn put(&self, value: &str) {
        fs::write(self.0.path().join("value"), value).expect("written");
    }

    /// The command, with what it is told as an argument.
    fn command(&self) -> Value {
        let folder = self.0.path().display();
        let script = format!("echo ran >> '{folder}/runs'; cat '{folder}/value'");
        json!(["sh", "-c", script, "vault"])
    }

    fn runs(&self) -> usize {
        fs::read_to_string(self.0.path().join("runs")).map_or(0, |runs| runs.lines().count())
    }
}

#[tokio::test]
async fn a_secret_in_a_file_is_exchanged_while_calls_go_on() {
    let wanted = wanted("one");
    let server = guarded("x-key", &wanted).await;
    let secret = Mounted::new("one");
    let more = format!("headers = {{ X-Key = {{ file = {} }} }}", json!(secret.path()));
    let platform = Platform::start(&local("there", &server.url(), &more), &["there"]).await;
    let client = platform.client("there");
    assert!(client.call("t", json!({})).await["result"].is_object());
    // The server takes both for a while, as servers do.
    want(&wanted, "one|two");
    secret.put("2", "two");
    eventually(
        "the new secret is shown before the old one is refused",
        async || {
            client.call("t", json!({})).await;
            let shown = server.asked(method::TOOLS_CALL);
            shown.last().is_some_and(|asked| asked.header("x-key") == "two")
        },
    )
    .await;
    want(&wanted, "three");
    secret.put("3", "three");
    let answer = client.call("t", json!({ "n": 1 })).await;
    assert_eq!(
        text(&answer),
        r#"{"n":1}"#,
        "refused once, it is read at once: {answer}"
    );
    platform.stop().await;
}

#[tokio::test]
async fn a_command_is_run_once_and_again_when_what_it_said_is_refused() {
    let wanted = wanted("Bearer one");
    let server = guarded("authorization", &wanted).await;
    let vault = Vault::new("one\n");
    let more = format!("bearer = {{ command = {}, every_secs = 3600 }}", vault.command());
    let platform = Platform::start(&local("there", &server.url(), &more), &["there"]).await;
    let client = platform.client("there");
    for _ in 0..3 {
        assert!(client.call("t", json!({})).await["result"].is_object());
    }
    assert_eq!(vault.runs(), 1);
    want(&wanted, "Bearer two");
    vault.put("two\n");
    let answer = client.call("t", json!({ "n": 1 })).await;
    assert_eq!(text(&answer), r#"{"n":1}"#, "{answer}");
    assert_eq!(vault.runs(), 2);
    let shown = server.asked(method::TOOLS_CALL);
    let refused = shown
        .iter()
        .filter(|asked| asked.header("authorization") == "Bearer one");
    assert_eq!(
        refused.count(),
        4,
        "three calls, and one that was refused and made once more"
    );
    platform.stop().await;
}

#[tokio::test]
async fn a_child_is_started_again_when_its_secrets_change() {
    let secret = Mounted::new("one");
    let env = format!(", PLAIN = \"p\", KEY = {{ file = {} }}", json!(secret.path()));
    let file = children::everything("there", &env);
    let platform = Platform::start(&file, &["there"]).await;
    platform.knows("there").await;
    let client = platform.client("there");
    let has = async |value: &str| {
        let answer = client.call("get-env", json!({})).await;
        let text = answer["result"]["content"][0]["text"]
            .as_str()
            .unwrap_or_default();
        let env: Value = serde_json::from_str(text).unwrap_or_default();
        env["KEY"] == value && env["PLAIN"] == "p"
    };
    assert!(has("one").await);
    secret.put("2", "two");
    eventually("the child has the new secret", async || has("two").await).await;
    platform.stop().await;
}

struct Registering<'a>(&'a Platform);

impl Registering<'_> {
    async fn declare(&self, id: &str, url: &str, auth: Value) -> StatusCode {
        let declaration = json!({ "id": id, "url": url, "allowPrivate": true, "auth": auth });
        let request = reqwest::Client::new()
            .request(Method::POST, self.0.url("/servers"))
            .header("content-type", "application/json")
            .body(declaration.to_string());
        within("an answer", request.send())
            .await
            .expect("an answer")
            .status()
    }

    async fn says(&self, id: &str, words: &str) {
        eventually(&format!("{id} says `{words}`"), async || {
            let url = self.0.url(&format!("/servers/{id}"));
            let shown = within("an answer", reqwest::get(url)).await.expect("an answer");
            let shown: Value = shown.json().await.expect("JSON");
            shown["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains(words))
        })
        .await;
    }
}

#[tokio::test]
async fn a_registration_names_secrets_that_are_configured_and_sends_them_where_they_may_go() {
    let wanted = wanted("Bearer one");
    let server = guarded("authorization", &wanted).await;
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("in-a-file"), "one").expect("written");
    let vault = Vault::new("one");
    let file = format!(
        "[secrets]\nfiles = {}\n[secrets.named.here]\ncommand = {}\nhosts = [\"127.0.0.1\"]\n\
         [secrets.named.elsewhere]\nfile = {}\nhosts = [\"vault.example\"]\n",
        json!(folder.path()),
        vault.command(),
        json!(folder.path().join("in-a-file"))
    );
    let platform = Platform::start(&file, &["registry", "upstreams"]).await;
    let rest = Registering(&platform);
    let named = |name: &str| json!({ "type": "bearer", "tokenName": name });
    for (id, name) in [
        ("a", "in-a-file"),
        ("b", "here"),
        ("c", "elsewhere"),
        ("d", "nowhere"),
    ] {
        let status = rest.declare(id, &server.url(), named(name)).await;
        assert_eq!(status, StatusCode::CREATED, "{name}");
    }
    for id in ["a", "b"] {
        platform.knows(id).await;
        let answer = platform.client(id).call("t", json!({})).await;
        assert!(answer["result"].is_object(), "{answer}");
    }
    rest.says("c", "may not be sent to `127.0.0.1`").await;
    rest.says("d", "`nowhere`").await;
    // What is no name of a secret is refused before anybody looks for a file.
    for auth in [
        named("../in-a-file"),
        named("/etc/passwd"),
        json!({ "type": "bearer", "command": ["cat", "/etc/passwd"] }),
        json!({ "type": "bearer", "tokenName": { "command": ["id"] } }),
        json!({ "type": "bearer" }),
    ] {
        let status = rest.declare("e", &server.url(), auth.clone()).await;
        assert!(status.is_client_error(), "{auth}: {status}");
    }
    platform.stop().await;
}

#[tokio::test]
async fn no_secret_is_in_a_log_in_an_error_or_in_anything_that_is_kept() {
    const SECRETS: [&str; 4] = [
        "s3cret-in-a-file",
        "s3cret-of-a-vault",
        "s3cret-of-a-child",
        "s3cret-of-a-client",
    ];
    let denied = Scripted::start(|asked: Asked| async move {
        match (asked.path.as_str(), asked.called()) {
            ("/token", _) => status(400),
            (_, method::TOOLS_CALL) => status(401),
            _ => asked.modern(&json!([{ "name": "t", "inputSchema": { "type": "object" } }])),
        }
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    for (name, secret) in ["file", "vault", "child", "client"].iter().zip(SECRETS) {
        fs::write(path(name), secret).expect("written");
    }
    let in_file = format!("headers = {{ X-Key = {{ file = {} }} }}\n", json!(path("file")));
    let of_vault = format!("bearer = {{ command = [\"cat\", {}] }}\n", json!(path("vault")));
    let token = format!("http://{}/token", denied.addr);
    let of_client = format!(
        "oauth = {{ token_endpoint = {}, client_id = \"me\", client_secret = {{ file = {} }} }}\n",
        json!(token),
        json!(path("client"))
    );
    let of_child = format!(", KEY = {{ file = {} }}", json!(path("child")));
    let lines = local("there", &denied.url(), &(in_file + &of_vault))
        + &local("unissued", &denied.url(), &of_client)
        + &children::everything("child", &of_child);
    let config = path("trunkline.toml");
    fs::write(&config, lines).expect("written");
    let data = path("data");
    let said = use_it(&config, &data).await;
    assert!(
        said.len() > 100,
        "the log has {} lines, and everything was to be logged",
        said.len()
    );
    for (line, secret) in said.iter().flat_map(|line| SECRETS.map(|secret| (line, secret))) {
        assert!(!line.contains(secret), "{line}");
    }
    let shown = &denied.asked(method::TOOLS_CALL)[0];
    assert_eq!(shown.header("x-key"), SECRETS[0]);
    assert_eq!(shown.header("authorization"), format!("Bearer {}", SECRETS[1]));
    let kept = files_of(&data);
    assert!(
        kept.iter().any(|file| file.ends_with("1.blk")),
        "JetStream has kept something: {kept:?}"
    );
    for file in kept {
        let bytes = fs::read(&file).unwrap_or_default();
        for secret in SECRETS {
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "{} has {secret}", file.display());
        }
    }
}

/// Runs a whole platform, calls its servers, and gives everything that it and they have said.
async fn use_it(config: &Path, data: &Path) -> Vec<String> {
    let mut up = Program::talkative(config, data);
    let pid = up.pid();
    let mut log = Vec::new();
    let using = async {
        let base = http_of(&mut up.output).await;
        let mut said = Vec::new();
        for (server, tool) in [("there", "t"), ("unissued", "t"), ("child", "echo")] {
            let client = Client::new(format!("{base}/servers/{server}/mcp"));
            let called = client.modern(
                method::TOOLS_CALL,
                json!({ "name": tool, "arguments": { "message": "x" } }),
            );
            let answer = within("an answer", called.send()).await.expect("an answer");
            said.push(answer.text().await.expect("text"));
        }
        for page in [
            "/servers",
            "/servers/there",
            "/servers/unissued",
            "/status",
            "/metrics",
        ] {
            let page = within("a page", reqwest::get(format!("{base}{page}"))).await;
            said.push(page.expect("a page").text().await.expect("text"));
        }
        assert!(said[0].contains("HTTP 401"), "{}", said[0]);
        rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
        said
    };
    let reading = async {
        while let Some(line) = up.log.next_line().await.expect("the log can be read") {
            log.push(line);
        }
    };
    let (mut said, ()) = tokio::join!(using, within("the end of the log", reading));
    said.extend(log);
    said
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => all.extend(files_of(&path)),
            false => all.push(path),
        }
    }
    all
}
