//! `trunkline servers import`: servers of registries and documents become servers of the platform.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Json, Router, extract::RawQuery, http::StatusCode, routing::get};
use serde_json::{Value, json};
use tests::{eventually, http::text, platform::Platform, program, remote};

/// Runs the command for a platform; gives its exit code, what it prints, and what it complains of.
async fn import(platform: &Platform, words: &[&str]) -> (i32, String, String) {
    let data_dir = platform.folder().join("data").display().to_string();
    let config = platform.folder().join("trunkline.toml").display().to_string();
    let mut all = vec!["servers", "import"];
    all.extend(words);
    all.extend(["--data-dir", &data_dir, "--config", &config]);
    program::run(&all).await
}

async fn imported(platform: &Platform, words: &[&str]) -> (i32, Value) {
    let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
    let (code, out, err) = import(platform, &words).await;
    let told = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
    (code, told)
}

fn outcomes(told: &Value) -> Vec<(&str, &str)> {
    let all = told.as_array().expect("a list");
    all.iter()
        .map(|one| {
            let id = one["id"].as_str().unwrap_or_default();
            (id, one["outcome"].as_str().expect("an outcome"))
        })
        .collect()
}

async fn shown(platform: &Platform, id: &str) -> Option<Value> {
    let response = reqwest::get(platform.url(&format!("/servers/{id}")))
        .await
        .expect("an answer");
    (response.status() == StatusCode::OK).then_some(())?;
    response.json().await.ok()
}

fn write(folder: &Path, document: &Value) -> String {
    let path = folder.join("server.json");
    std::fs::write(&path, document.to_string()).expect("the file is written");
    path.display().to_string()
}

fn entry(name: &str, version: &str, is_latest: bool, more: Value) -> Value {
    let mut server = json!({ "name": name, "description": "d", "version": version });
    for (key, value) in more.as_object().expect("members") {
        server[key] = value.clone();
    }
    json!({ "server": server, "_meta": { "io.modelcontextprotocol.registry/official": {
        "status": "active", "isLatest": is_latest
    } } })
}

/// A registry of two pages. The URL of its first server can be another.
async fn registry(moved: Arc<AtomicBool>) -> String {
    let list = move |RawQuery(query): RawQuery| {
        let moved = moved.load(Ordering::SeqCst);
        async move {
            let query = query.unwrap_or_default();
            if !query.contains("version=latest") {
                return (StatusCode::BAD_REQUEST, Json(json!({ "error": query })));
            }
            let url = if moved {
                "https://new.example.com/mcp"
            } else {
                "https://old.example.com/mcp"
            };
            let page = if query.contains("cursor=next%2Fpage") {
                json!({ "servers": [
                    entry("com.example/files", "1.0.0", true, json!({ "packages": [{
                        "registryType": "npm", "identifier": "@example/files", "version": "1.0.0", "transport": { "type": "stdio" }
                    }] })),
                    entry("org.example/weather", "1.0.0", true, json!({
                        "remotes": [{ "type": "sse", "url": "https://other.example.com/sse" }]
                    })),
                ], "metadata": { "count": 2 } })
            } else {
                json!({ "servers": [
                    entry("com.example/weather", "0.9.0", false, json!({
                        "remotes": [{ "type": "sse", "url": "https://ancient.example.com" }]
                    })),
                    entry("com.example/weather", "1.0.0", true, json!({
                        "remotes": [{ "type": "streamable-http", "url": url }]
                    })),
                    entry("com.example/keyed", "1.0.0", true, json!({ "remotes": [{
                        "type": "streamable-http", "url": "https://keyed.example.com/mcp",
                        "headers": [{ "name": "X-Key", "isRequired": true, "isSecret": true }]
                    }] })),
                ], "metadata": { "count": 3, "nextCursor": "next/page" } })
            };
            (StatusCode::OK, Json(page))
        }
    };
    let router = Router::new().route("/v0.1/servers", get(list));
    format!("http://{}", remote::serve(router).await)
}

#[tokio::test]
async fn a_registry_is_imported_to_its_end_and_again_without_a_change() {
    let moved = Arc::new(AtomicBool::new(false));
    let source = registry(Arc::clone(&moved)).await;
    let platform = Platform::start("", &["registry"]).await;
    let words = [source.as_str(), "--allow-private", "--tag", "imported"];
    let expected = [
        ("weather", "new"),
        ("keyed", "skipped"),
        ("files", "skipped"),
        ("org-example-weather", "new"),
    ];
    let dry: Vec<&str> = words.iter().copied().chain(["--dry-run"]).collect();
    let (code, told) = imported(&platform, &dry).await;
    assert_eq!((code, outcomes(&told)), (0, expected.to_vec()), "{told}");
    assert!(
        shown(&platform, "weather").await.is_none(),
        "a dry run registers nothing"
    );
    let (code, told) = imported(&platform, &words).await;
    assert_eq!((code, outcomes(&told)), (0, expected.to_vec()), "{told}");
    assert!(
        told[1]["notes"][0].as_str().expect("a reason").contains("X-Key"),
        "{told}"
    );
    assert!(
        told[2]["lines"].as_str().expect("lines").contains("\"npx\""),
        "{told}"
    );
    eventually("the door knows both", async || {
        shown(&platform, "weather").await.is_some() && shown(&platform, "org-example-weather").await.is_some()
    })
    .await;
    let weather = shown(&platform, "weather").await.expect("it is there");
    assert_eq!(
        (&weather["name"], &weather["url"], &weather["tags"]),
        (
            &json!("com.example/weather"),
            &json!("https://old.example.com/mcp"),
            &json!(["imported"])
        )
    );
    let (_, told) = imported(&platform, &words).await;
    assert_eq!(
        (told[0]["outcome"].as_str(), told[3]["outcome"].as_str()),
        (Some("same"), Some("same"))
    );
    moved.store(true, Ordering::SeqCst);
    let (code, told) = imported(&platform, &words).await;
    assert_eq!((code, &told[0]["outcome"]), (1, &json!("differs")));
    let note = told[0]["notes"][0].as_str().expect("a note");
    assert!(note.contains("`url`") && note.contains("--replace"), "{note}");
    let replacing: Vec<&str> = words.iter().copied().chain(["--replace"]).collect();
    let (code, told) = imported(&platform, &replacing).await;
    assert_eq!((code, &told[0]["outcome"]), (0, &json!("changed")), "{told}");
    eventually("the door knows the new URL", async || {
        shown(&platform, "weather").await.expect("it is there")["url"] == "https://new.example.com/mcp"
    })
    .await;
    platform.stop().await;
}

#[tokio::test]
async fn one_platform_imports_the_catalogue_of_another_and_serves_it() {
    let first = Platform::start("", &["products"]).await;
    let second = Platform::start("", &["registry", "upstreams"]).await;
    let source = first.url("/v0.1/servers/local.trunkline%2Fproducts");
    let (code, told) = imported(&second, &[&source, "--allow-private", "--name", "shop"]).await;
    assert_eq!((code, outcomes(&told)), (0, vec![("shop", "new")]), "{told}");
    second.knows("shop").await;
    let answer = second
        .client("shop")
        .call("search", json!({ "query": "desk" }))
        .await;
    let direct = first
        .client("products")
        .call("search", json!({ "query": "desk" }))
        .await;
    assert!(!text(&answer).is_empty(), "{answer}");
    assert_eq!(text(&answer), text(&direct));
    second.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn a_document_says_which_secret_is_to_be_set() {
    let platform = Platform::start("", &["registry"]).await;
    let document = json!({
        "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
        "name": "com.example/my-weather", "title": "Weather", "description": "Tells the weather.", "version": "1.2.3",
        "remotes": [{
            "type": "streamable-http", "url": "https://weather.example.com/mcp",
            "headers": [{ "name": "Authorization", "value": "Bearer {token}", "isRequired": true, "isSecret": true,
                          "variables": { "token": { "description": "from your account", "isRequired": true, "isSecret": true } } }],
        }],
    });
    let file = write(platform.folder(), &document);
    let (code, out, err) = import(&platform, &[&file]).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("set TRUNKLINE_SECRET_MY_WEATHER"), "{out}");
    eventually("the door knows it", async || {
        shown(&platform, "my-weather").await.is_some()
    })
    .await;
    let server = shown(&platform, "my-weather").await.expect("it is there");
    assert_eq!(
        (&server["auth"]["type"], &server["version"], &server["title"]),
        (&json!("bearer"), &json!("1.2.3"), &json!("Weather"))
    );
    platform.stop().await;
}

#[tokio::test]
async fn what_cannot_be_imported_is_told_with_what_to_do() {
    let platform = Platform::start("", &["products", "registry"]).await;
    let inside = platform.url("");
    let inside = inside.as_str();
    let package = write(
        platform.folder(),
        &json!({ "name": "com.example/x", "packages": [{ "registryType": "pypi", "identifier": "x" }] }),
    );
    let nowhere = platform.folder().join("nowhere.json").display().to_string();
    for (words, code, told) in [
        (vec![inside], 1, "--allow-private"),
        (vec!["https://192.168.0.1"], 1, "--allow-private"),
        (vec![&nowhere], 1, "nowhere.json"),
        (vec!["registry.example.com"], 1, "begins with https://"),
        (vec![&package], 1, "uvx"),
        (
            vec![inside, "--allow-private", "--search", "nothing"],
            1,
            "`nothing`",
        ),
        (
            vec!["http://127.0.0.1:1/server.json", "--allow-private"],
            1,
            "cannot connect",
        ),
        (vec![inside, "--allow-private", "--name", "A b"], 1, "lower-case"),
    ] {
        let (found, out, err) = import(&platform, &words).await;
        assert_eq!(found, code, "{words:?}: {out}{err}");
        assert!(format!("{out}{err}").contains(told), "{words:?}: {out}{err}");
    }
    platform.stop().await;
}
