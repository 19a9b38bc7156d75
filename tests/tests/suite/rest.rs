//! The REST interface against what is written of it: its description, and the page with an example of every route.

use std::{collections::BTreeSet, process::Stdio};

use bus_schema::{
    Principal,
    task::{Order, TaskId},
};
use runtime::tasks::Tasks;
use serde_json::Value;
use tests::{
    eventually,
    parts::{printed, python, script},
    platform::Platform,
    root, within,
};
use tokio::process::Command;

use crate::tasks::engine::order;

/// Nothing here connects to what is registered.
const SERVED: [&str; 2] = ["products", "registry"];

fn document() -> Value {
    let text = std::fs::read(root().join("bridges/src/admin/openapi.json")).expect("the document is there");
    serde_json::from_slice(&text).expect("it is JSON")
}

fn described(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().expect("paths");
    paths.keys().cloned().collect()
}

/// Every path that the admin room routes, and that of results, as their code spells it.
fn routed() -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    let mut folders = vec![root().join("bridges/src/admin")];
    let mut files = vec![
        root().join("bridges/src/admin.rs"),
        root().join("bridges/src/http/results.rs"),
    ];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                files.push(path);
            }
        }
    }
    for file in files {
        let text = std::fs::read_to_string(file).expect("the file is read");
        for (_, rest) in text
            .match_indices(".route(")
            .map(|(at, call)| text.split_at(at + call.len()))
        {
            let quoted = rest.trim_start().strip_prefix('"').expect("a path in quotes");
            paths.insert(quoted.split('"').next().expect("its end").to_owned());
        }
    }
    paths
}

#[test]
fn every_route_is_described_and_nothing_else_is() {
    assert_eq!(described(&document()), routed());
}

#[tokio::test]
async fn every_described_method_is_answered_and_others_are_refused() {
    let platform = Platform::start("", &SERVED).await;
    let document = document();
    let client = reqwest::Client::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        let url = platform.url(
            &path
                .replace("{id}", "nobody")
                .replace("{server}", "nobody")
                .replace("{tool}", "nothing")
                .replace("{name}", "a%2Fb")
                .replace("{version}", "latest"),
        );
        for method in ["get", "post", "put", "delete", "patch"] {
            let asked = client
                .request(method.to_uppercase().parse().expect("a method"), &url)
                .send();
            let answer = within("an answer", asked).await.expect("an answer");
            let is_described = item.get(method).is_some();
            assert_eq!(
                answer.status() != 405,
                is_described,
                "{method} {path}: {}",
                answer.status()
            );
            if is_described {
                let status = answer.status().as_str().to_owned();
                assert!(
                    item[method]["responses"].get(&status).is_some(),
                    "{method} {path}: {status}"
                );
            }
        }
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_property_based_tester_finds_nothing_that_the_document_forbids() {
    let platform = Platform::start("", &SERVED).await;
    // Something to be shown, replaced and removed.
    let body = r#"{"id":"weather","url":"https://weather.example.com/mcp"}"#;
    let made = reqwest::Client::new()
        .post(platform.url("/servers"))
        .header("content-type", "application/json")
        .body(body)
        .send();
    assert_eq!(within("an answer", made).await.expect("an answer").status(), 201);
    let mut tester = python(&script("described.py"));
    tester.arg(platform.url("")).arg(platform.folder());
    let run = tester.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(tests::LIMIT * 8, run)
        .await
        .expect("the tester comes to an end")
        .expect("the tester runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // A run that tried nothing would find nothing. The tester leaves out the route that it has the document from.
    let methods = ["get", "head", "post", "put", "delete"];
    let of = |item: &Value| {
        methods
            .iter()
            .filter(|method| item.get(**method).is_some())
            .count()
    };
    let document = document();
    let operations: usize = document["paths"]
        .as_object()
        .expect("paths")
        .values()
        .map(of)
        .sum();
    assert!(said.contains(&format!("Tested: {}", operations - 1)), "{said}");
    platform.stop().await;
}

/// An example of the page.
#[derive(Debug)]
struct Example {
    command: String,
    status: u16,
    /// A member that the answer has.
    member: Option<String>,
}

fn examples(page: &str) -> Vec<Example> {
    let mut found = Vec::new();
    for block in page.split("```sh\n").skip(1) {
        let (command, after) = block.split_once("```").expect("the end of a block");
        let told = after.trim_start().lines().next().unwrap_or_default();
        let told = told
            .strip_prefix("Answers ")
            .unwrap_or_else(|| panic!("no answer is told after {command}"));
        let mut words = told.trim_end_matches('.').split('`');
        let status = words.next().unwrap_or_default();
        let status: String = status.chars().take_while(char::is_ascii_digit).collect();
        found.push(Example {
            command: command.to_owned(),
            status: status.parse().expect("a status"),
            member: words.next().map(str::to_owned),
        });
    }
    found
}

#[tokio::test]
async fn docs_rest_examples_answer_as_the_page_says() {
    let page = std::fs::read_to_string(root().join("docs/rest.md")).expect("the page is there");
    let examples = examples(&page);
    let platform = Platform::start("", &SERVED).await;
    eventually("the tools on the page are approved", async || {
        let known = platform
            .node
            .bus()
            .pins()
            .of("default", &"products".parse().expect("an id"));
        known.pins().is_some_and(|pins| pins.tools.contains_key("search"))
    })
    .await;
    let order = Order {
        id: TaskId::of(1),
        ..order("search", &Principal::developer())
    };
    let tasks = Tasks::new(platform.node.bus().clone());
    tasks.create(order).await.expect("the task on the page is made");
    let body = platform.folder().join("body");
    let base = platform.url("");
    let mut asked = BTreeSet::new();
    for example in &examples {
        assert!(example.command.starts_with("curl "), "{example:?}");
        let command = example.command.replace("http://127.0.0.1:8080", &base).replacen(
            "curl ",
            &format!("curl -sS -w '%{{http_code}}' -o '{}' ", body.display()),
            1,
        );
        std::fs::write(&body, "").expect("the answer's place is empty");
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(&command);
        let status = printed(shell).await;
        let answer = std::fs::read_to_string(&body).expect("an answer");
        assert_eq!(status, example.status.to_string(), "{command}\n{answer}");
        if let Some(member) = &example.member {
            let answer: Value = serde_json::from_str(&answer).expect("JSON");
            assert!(
                answer.get(member).is_some(),
                "{command}: no `{member}` in {answer}"
            );
        }
        asked.insert(asked_route(&example.command));
    }
    for path in described(&document()) {
        assert!(asked.contains(&path), "no example of {path} on the page");
    }
    platform.stop().await;
}

/// The route of an example, as the document spells it.
fn asked_route(command: &str) -> String {
    let (_, rest) = command.split_once("http://127.0.0.1:8080").expect("an address");
    let path = rest.split(['?', '\'', ' ', '\n']).next().unwrap_or_default();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    match parts.as_slice() {
        ["servers", _] => "/servers/{id}".to_owned(),
        ["servers", _, "traffic"] => "/servers/{id}/traffic".to_owned(),
        ["servers", _, "tools"] => "/servers/{id}/tools".to_owned(),
        ["servers", _, "tools", decision] => format!("/servers/{{id}}/tools/{decision}"),
        ["servers", _, "tools", _, decision] => format!("/servers/{{id}}/tools/{{tool}}/{decision}"),
        ["credentials", _] => "/credentials/{server}".to_owned(),
        ["results", _] => "/results/{id}".to_owned(),
        ["tasks", _] => "/tasks/{id}".to_owned(),
        ["tasks", _, done] => format!("/tasks/{{id}}/{done}"),
        ["policy", "versions", _] => "/policy/versions/{version}".to_owned(),
        ["guardrails", "history", _] => "/guardrails/history/{version}".to_owned(),
        ["virtual-servers", _] => "/virtual-servers/{id}".to_owned(),
        [version, "servers", _, "versions"] => format!("/{version}/servers/{{name}}/versions"),
        [version, "servers", _, "versions", _] => format!("/{version}/servers/{{name}}/versions/{{version}}"),
        _ => path.to_owned(),
    }
}
