//! `trunkline policy`, and the examples that its page gives.

use runtime::watch::{CallEvent, CallWatch};
use serde_json::{Value, json};
use tests::{program, root, within};

use super::World;
use crate::processes::up::Up;

/// The block of the page that follows a mark.
fn example(mark: &str) -> String {
    let page = std::fs::read_to_string(root().join("docs/policy.md")).expect("the page is there");
    let mark = format!("<!-- test: {mark} -->\n```toml\n");
    let block = page
        .split(&mark)
        .nth(1)
        .unwrap_or_else(|| panic!("docs/policy.md has no block after {mark}"));
    block.split("\n```").next().expect("a block ends").to_owned() + "\n"
}

/// A folder with the page's policy and its cases.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files = Self(folder);
        files.write("policy.toml", &example("policy"));
        files.write("cases.toml", &example("cases"));
        files
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).expect("the file is written");
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

#[tokio::test]
async fn the_example_of_the_page_decides_its_cases_and_a_wrong_case_is_told() {
    let files = Files::new();
    let (policy, cases) = (files.path("policy.toml"), files.path("cases.toml"));
    let (code, out, err) = program::run(&["policy", "test", &cases, "--policy", &policy]).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("cases are decided as expected"), "{out}");
    files.write(
        "wrong.toml",
        &example("cases").replacen("expect = \"allow\"", "expect = \"hidden\"", 1),
    );
    let (code, out, _) =
        program::run(&["policy", "test", &files.path("wrong.toml"), "--policy", &policy]).await;
    assert!(
        code == 1 && out.contains("employees find things") && out.contains("knowledge:read"),
        "{out}"
    );
    files.write("bad.toml", "[[cases]]\ntool = \"a.b\"\nexpect = \"maybe\"\n");
    let (code, _, err) =
        program::run(&["policy", "test", &files.path("bad.toml"), "--policy", &policy]).await;
    assert!(
        code == 1 && err.contains("maybe") && err.contains("needs_scopes"),
        "{err}"
    );
}

#[tokio::test]
async fn an_explanation_names_the_role_the_scope_and_the_rule() {
    let files = Files::new();
    let policy = files.path("policy.toml");
    let explain = async |words: &[&str]| {
        let mut all = vec!["policy", "explain", "--policy", &policy];
        all.extend(words);
        let (code, out, err) = program::run(&all).await;
        assert_eq!(code, 0, "{err}");
        out
    };
    let out = explain(&["knowledge.search_text", "--role", "manager"]).await;
    assert!(out.starts_with("allow"), "{out}");
    assert!(
        out.contains("`knowledge:read`") && out.contains("role `manager`"),
        "{out}"
    );
    let out = explain(&[
        "payments.send",
        "--role",
        "manager",
        "--arguments",
        "{\"amount\":1,\"amount\":2}",
    ])
    .await;
    assert!(
        out.starts_with("denied by rule `payments`") && out.contains("stands twice"),
        "{out}"
    );
    let out = explain(&[
        "actions.delete_x",
        "--role",
        "admin",
        "--at",
        "2026-11-23T23:00:00Z",
        "--json",
    ])
    .await;
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (&told["decision"], &told["rule"]),
        (&json!("denied"), &json!("no deletions at night"))
    );
    let (code, _, err) = program::run(&["policy", "explain", "nothing", "--policy", &policy]).await;
    assert!(code == 1 && err.contains("<server>.<name>"), "{err}");
}

#[tokio::test]
async fn a_policy_is_kept_shown_compared_and_taken_back_from_the_command_line() {
    let up = Up::start("").await;
    let data = up.folder_of_data();
    let run = async |words: &[&str]| {
        let mut all = vec!["policy"];
        all.extend(words);
        all.extend(["--data-dir", data.as_str(), "--nats", up.text("nats")]);
        program::run(&all).await
    };
    let files = Files::new();
    let open = "default = \"deny\"\n[[rules]]\nname = \"products\"\neffect = \"allow\"\ntools = [\"products__search\"]\n";
    files.write("open.toml", open);
    files.write("wider.toml", &open.replace("products__search", "products__*"));
    let (code, _, err) = run(&["show"]).await;
    assert!(code == 1 && err.contains("trunkline policy set"), "{err}");
    let (code, out, err) = run(&[
        "set",
        &files.path("open.toml"),
        "--comment",
        "only search",
        "--over",
        "0",
    ])
    .await;
    assert!(code == 0 && out.starts_with("version 1, "), "{out}{err}");
    let products = up.client("products");
    tests::eventually("it is in force", async || {
        products.tool_names().await == ["search"]
    })
    .await;
    files.write(
        "bad.toml",
        &open.replace(
            "effect = \"allow\"",
            "effect = \"deny\"\nwhen = \"principle.subject == ''\"",
        ),
    );
    let (code, _, err) = run(&["set", &files.path("bad.toml")]).await;
    assert!(
        code == 1 && err.contains("rules.\"products\".when") && err.contains("principal"),
        "{err}"
    );
    let (_, out, _) = run(&["diff", &files.path("wider.toml")]).await;
    assert!(
        out.contains("- \"products__search\"") && out.contains("+ \"products__*\""),
        "{out}"
    );
    let (code, _, err) = run(&["set", &files.path("wider.toml"), "--over", "0"]).await;
    assert!(code == 1 && err.contains("version 1 and not 0"), "{err}");
    let (code, out, err) = run(&["set", &files.path("wider.toml"), "--over", "1"]).await;
    assert!(code == 0 && out.starts_with("version 2, "), "{out}{err}");
    let (code, out, err) = run(&["rollback", "1"]).await;
    assert!(
        code == 0 && out.contains("version 3, ") && out.contains("version 1 again"),
        "{out}{err}"
    );
    let (_, out, _) = run(&["history", "--json"]).await;
    let versions: Value = serde_json::from_str(&out).expect("JSON");
    let told: Vec<_> = versions
        .as_array()
        .expect("a list")
        .iter()
        .map(|version| version["version"].clone())
        .collect();
    assert_eq!(told, [3, 2, 1]);
    assert_eq!(versions[2]["comment"], "only search");
    // What is shown can be kept again.
    let (_, shown, _) = run(&["show"]).await;
    files.write("shown.toml", &shown);
    let (_, out, err) = run(&["diff", &files.path("shown.toml")]).await;
    assert!(out.contains("there is no difference"), "{out}{err}");
    let (_, out, _) = run(&["explain", "products.get", "--role", "x"]).await;
    assert!(out.starts_with("hidden"), "{out}");
    tests::eventually("it is in force", async || {
        products.tool_names().await == ["search"]
    })
    .await;
}

#[tokio::test]
async fn recorded_calls_are_decided_anew() {
    let files = Files::new();
    let call = |role: &str, tool: &str, arguments: Value, code: Option<i64>| {
        json!({
            "tenant": "default", "server": "payments", "instance": "i", "method": "tools/call", "name": tool, "subject": "ann",
            "door": "http", "protocol_version": "2026-07-28", "ended": "answered", "duration_us": 1, "request_bytes": 1,
            "answer_bytes": 1, "roles": [role], "arguments": arguments, "code": code, "at": "2026-11-23T12:00:00Z",
        })
        .to_string()
    };
    let lines = [
        call("manager", "send", json!({ "amount": 5 }), None),
        call("manager", "send", json!({ "amount": 5000 }), None),
        call("manager", "send", json!({ "amount": 6000 }), None),
        call("employee", "send", json!({ "amount": 5 }), None),
        call("employee", "send", json!({ "amount": 5 }), Some(-32600)),
    ];
    files.write("calls.jsonl", &lines.join("\n"));
    let words = [
        "policy",
        "replay",
        &files.path("calls.jsonl"),
        "--policy",
        &files.path("policy.toml"),
    ];
    let (code, out, err) = program::run(&words).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("3 of 5 calls would end otherwise"), "{out}");
    assert!(
        out.contains("2 × ann") && out.contains("payments:large") && out.contains("hidden"),
        "{out}"
    );
    files.write("calls.jsonl", "{}\n");
    let (code, _, err) = program::run(&words).await;
    assert!(code == 1 && err.contains("line 1"), "{err}");
}

#[tokio::test]
async fn what_calls_are_given_is_told_only_to_who_asks_for_it() {
    let world = World::start("").await;
    let bus = world.platform.node.bus();
    let client = world.client("/servers/vault/mcp");
    let given = json!({ "name": "pay", "arguments": { "amount": 7 } });
    let told = async |watch: &mut CallWatch, is_wanted: fn(&CallEvent) -> bool| {
        let calls = async {
            loop {
                tests::session::messages(client.modern("tools/call", given.clone())).await;
            }
        };
        let seen = async {
            loop {
                let event = watch.next().await.expect("the bus is there");
                if event.name.as_deref() == Some("pay") && is_wanted(&event) {
                    return event;
                }
            }
        };
        within("a call is told of", async {
            tokio::select! { () = calls => panic!("calls go on"), event = seen => event }
        })
        .await
    };
    let mut plain = CallWatch::start(bus, "default").await.expect("watches");
    let event = told(&mut plain, |_| true).await;
    assert!(event.arguments.is_none() && event.at.is_some(), "{event:?}");
    let mut curious = CallWatch::with_arguments(bus, "default").await.expect("watches");
    let event = told(&mut curious, |event| event.arguments.is_some()).await;
    let arguments = event.arguments.as_ref().expect("arguments").get();
    assert_eq!(
        serde_json::from_str::<Value>(arguments).expect("JSON"),
        given["arguments"]
    );
    world.platform.stop().await;
}
