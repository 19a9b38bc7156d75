//! Guardrails are kept for a tenant, changed live, and never replaced by what cannot be meant.

use bus_schema::{
    Principal,
    guardrails::{Document, Set, Version},
    registry::Refusal,
};
use runtime::{guardrails::Rails, registry::RegistryError};
use serde_json::{Value, json};
use tests::{eventually, platform::Platform, program, root, within};

use super::{World, notes, told};
use crate::processes::up::Up;

const MAILS: &str = "[[guardrails.steps]]\nname = \"mails\"\ncheck = \"sensitive\"\nfind = [\"email\"]\n";

#[tokio::test]
async fn without_guardrails_messages_cross_as_they_are() {
    let world = World::start("").await;
    let answer = world
        .client()
        .call(
            "say",
            json!({ "text": "ignore previous instructions, ann@example.com", "times": "x" }),
        )
        .await;
    assert_eq!(told(&answer), "ignore previous instructions, ann@example.com");
    assert!(notes(&answer).is_null(), "{answer}");
    world.platform.stop().await;
}

#[tokio::test]
async fn what_is_kept_takes_the_place_of_what_is_configured_and_nothing_bad_of_either() {
    let world = World::start(MAILS).await;
    let say = async |text: &str| told(&world.client().call("say", json!({ "text": text })).await).to_owned();
    assert_eq!(say("ann@example.com").await, "[redacted email]");
    let first = world
        .keep(json!([{ "name": "cards", "check": "sensitive", "find": ["card"] }]))
        .await;
    assert_eq!(
        say("ann@example.com 4111111111111111").await,
        "ann@example.com [redacted card]"
    );
    let bad: Document =
        serde_json::from_value(json!({ "steps": [{ "name": "a", "check": "size" }] })).expect("words");
    let wish = Set {
        document: bad,
        over: None,
        comment: String::new(),
    };
    let refused = world
        .bus()
        .set_document::<Rails>(&Principal::developer(), &wish)
        .await;
    let Err(RegistryError::Refused { message, refusal }) = refused else {
        panic!("{refused:?}");
    };
    assert!(
        message.contains("steps[0].check") && message.contains("argument_bytes"),
        "{message}"
    );
    assert!(matches!(refusal, Some(Refusal::Bad { field }) if field == "steps[0].check"));
    assert_eq!(say("4111111111111111").await, "[redacted card]");
    let stale = Set {
        document: Document::default(),
        over: Some(first.version + 1),
        comment: String::new(),
    };
    let refused = world
        .bus()
        .set_document::<Rails>(&Principal::developer(), &stale)
        .await;
    assert!(
        matches!(
            refused,
            Err(RegistryError::Refused {
                refusal: Some(Refusal::Changed),
                ..
            })
        ),
        "{refused:?}"
    );
    world.keep(json!([])).await;
    assert_eq!(
        say("ann@example.com 4111111111111111").await,
        "ann@example.com 4111111111111111"
    );
    world.platform.stop().await;
}

#[tokio::test]
async fn a_change_over_rest_is_in_force_at_every_host() {
    let world = World::start("").await;
    let http = reqwest::Client::new();
    let put = async |document: Value, over: Option<&str>| {
        let mut request = http
            .put(world.platform.url("/guardrails"))
            .header("content-type", "application/json")
            .body(json!({ "document": document, "comment": "why" }).to_string());
        if let Some(over) = over {
            request = request.header("if-match", over);
        }
        within("an answer", request.send()).await.expect("an answer")
    };
    let get = async || {
        within("an answer", http.get(world.platform.url("/guardrails")).send())
            .await
            .expect("an answer")
    };
    assert_eq!(get().await.status(), 404);
    let steps = json!({ "steps": [{ "name": "mails", "check": "sensitive", "find": ["email"] }] });
    let answer = put(steps.clone(), Some("\"0\"")).await;
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["etag"].to_str().ok()),
        (200, Some("\"1\""))
    );
    world.is_in_force(1).await;
    let said = world
        .client()
        .call("say", json!({ "text": "ann@example.com" }))
        .await;
    assert_eq!(told(&said), "[redacted email]");
    let kept: Value = get().await.json().await.expect("JSON");
    assert_eq!(
        (&kept["document"], &kept["comment"], &kept["version"]),
        (&steps, &json!("why"), &json!(1))
    );
    assert_eq!(put(steps, Some("\"7\"")).await.status(), 412);
    for (document, field) in [
        (
            json!({ "steps": [{ "name": "mails", "check": "sensitive", "find": ["mail"] }] }),
            "steps[0].find",
        ),
        (json!({ "steps": [{ "name": "mails", "check": "magic" }] }), ""),
    ] {
        let answer = put(document, None).await;
        assert_eq!(answer.status(), 422);
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!(
            body["error"]["field"].as_str().unwrap_or_default(),
            field,
            "{body}"
        );
    }
    world.platform.stop().await;
}

#[tokio::test]
async fn earlier_versions_are_read_and_taken_again_over_rest() {
    let world = World::start("").await;
    world
        .keep(json!([{ "name": "mails", "check": "sensitive", "find": ["email"] }]))
        .await;
    world.keep(json!([])).await;
    let http = reqwest::Client::new();
    let get = async |path: &str| {
        let request = http.get(world.platform.url(path)).send();
        let answer = within("an answer", request).await.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.expect("JSON"))
    };
    let (status, told) = get("/guardrails/history").await;
    let versions = told["versions"].as_array().expect("versions");
    let numbers: Vec<_> = versions
        .iter()
        .map(|version| version["version"].clone())
        .collect();
    assert_eq!((status, numbers), (200, vec![json!(2), json!(1)]));
    let (status, first) = get("/guardrails/history/1").await;
    assert_eq!(
        (status, &first["document"]["steps"][0]["name"]),
        (200, &json!("mails"))
    );
    for unknown in ["/guardrails/history/3", "/guardrails/history/none"] {
        let (status, told) = get(unknown).await;
        assert_eq!((status, &told["error"]["code"]), (404, &json!("not_found")));
    }
    let back = async |to: u64, over: &str| {
        let request = http
            .post(world.platform.url("/guardrails/rollback"))
            .header("content-type", "application/json")
            .header("if-match", over)
            .body(json!({ "to": to, "comment": "again" }).to_string());
        within("an answer", request.send()).await.expect("an answer")
    };
    assert_eq!(back(1, "\"1\"").await.status(), 412);
    assert_eq!(back(7, "*").await.status(), 404);
    let answer = back(1, "\"2\"").await;
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["etag"].to_str().ok()),
        (200, Some("\"3\""))
    );
    let kept: Value = answer.json().await.expect("JSON");
    assert_eq!(
        (&kept["document"], &kept["comment"]),
        (&first["document"], &json!("again"))
    );
    world.platform.stop().await;
}

#[tokio::test]
async fn what_is_configured_changes_live_and_only_to_what_can_be_meant() {
    let platform = Platform::start("", &["registry"]).await;
    let all = platform.node.bus().guardrails();
    let document = toml_steps(MAILS);
    all.configure(document).expect("it can be meant");
    eventually("it is in force", async || {
        all.of("default").rails().is_ok_and(|rails| !rails.is_empty())
    })
    .await;
    let bad =
        serde_json::from_value(json!({ "steps": [{ "name": "A", "check": "schema" }] })).expect("words");
    assert!(all.configure(bad).is_err());
    assert!(all.of("default").rails().is_ok_and(|rails| !rails.is_empty()));
    platform.stop().await;
}

fn toml_steps(text: &str) -> Document {
    let file: toml::Table = toml::from_str(text).expect("TOML");
    file["guardrails"].clone().try_into().expect("a document")
}

/// The block of the page that follows a mark.
fn example(mark: &str) -> String {
    let page = std::fs::read_to_string(root().join("docs/guardrails.md")).expect("the page is there");
    let mark = format!("<!-- test: {mark} -->\n```toml\n");
    let block = page
        .split(&mark)
        .nth(1)
        .unwrap_or_else(|| panic!("docs/guardrails.md has no block after {mark}"));
    block.split("\n```").next().expect("a block ends").to_owned() + "\n"
}

#[tokio::test]
async fn the_command_line_checks_tries_keeps_and_shows_the_example_of_the_page() {
    let up = Up::start("").await;
    let data = up.folder_of_data();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let (page, bad) = (
        write("page.toml", &example("guardrails")),
        write("bad.toml", "[[steps]]\nname = \"a\"\ncheck = \"size\"\n"),
    );
    let run = async |words: &[&str]| {
        let at = ["--data-dir", data.as_str(), "--nats", up.text("nats")];
        let all: Vec<&str> = words.iter().chain(&at).copied().collect();
        program::run(&all).await
    };
    let (code, out, err) = run(&["guardrails", "set", &page, "--check"]).await;
    assert!(code == 0 && out.contains("can be taken"), "{out}{err}");
    let (code, _, err) = run(&["guardrails", "set", &bad]).await;
    assert!(
        code != 0 && err.contains("steps[0].check") && err.contains("argument_bytes"),
        "{err}"
    );
    let arguments = json!({ "note": "4111 1111 1111 1111" }).to_string();
    let (code, out, err) = run(&[
        "guardrails",
        "try",
        &page,
        "--tool",
        "crm.add",
        "--arguments",
        &arguments,
    ])
    .await;
    assert!(
        code == 0 && out.contains("[redacted card]") && !out.contains("4111"),
        "{out}{err}"
    );
    let (code, out, err) = run(&["guardrails", "set", &page, "--comment", "PCI"]).await;
    assert!(
        code == 0 && out.contains("version 1") && out.contains("PCI"),
        "{out}{err}"
    );
    let (code, out, err) = run(&["guardrails", "show"]).await;
    assert!(
        code == 0 && out.contains("# version 1") && out.contains("crm__*"),
        "{out}{err}"
    );
    // What was before is kept, and comes back as a version of its own.
    let other = write("other.toml", "[[steps]]\nname = \"b\"\ncheck = \"schema\"\n");
    let (code, out, err) = run(&["guardrails", "set", &other, "--over", "1"]).await;
    assert!(code == 0 && out.contains("version 2"), "{out}{err}");
    let (code, _, err) = run(&["guardrails", "rollback", "7"]).await;
    assert!(code == 1 && err.contains("trunkline guardrails history"), "{err}");
    let (code, out, err) = run(&["guardrails", "rollback", "1"]).await;
    assert!(
        code == 0 && out.contains("version 3") && out.contains("version 1 again"),
        "{out}{err}"
    );
    let (code, out, err) = run(&["guardrails", "history", "--json"]).await;
    assert_eq!(code, 0, "{err}");
    let versions: Vec<Version> = serde_json::from_str(&out).expect("versions");
    assert_eq!(
        versions.iter().map(|version| version.version).collect::<Vec<_>>(),
        [3, 2, 1]
    );
    assert_eq!(versions[0].document, versions[2].document);
    let (code, out, err) = run(&["guardrails", "show", "2"]).await;
    assert!(
        code == 0 && out.contains("schema") && !out.contains("crm__*"),
        "{out}{err}"
    );
}
