//! The catalogue as clients of the official MCP registry read it: VS Code, Docker's gateway, and those that mirror registries.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tests::{eventually, http::Client, http::text, platform::Platform, within};

const OFFICIAL: &str = "io.modelcontextprotocol.registry/official";

async fn get(platform: &Platform, path: &str) -> (StatusCode, Value) {
    let response = within("an answer", reqwest::get(platform.url(path)))
        .await
        .expect("an answer");
    let status = response.status();
    (status, response.json().await.unwrap_or_default())
}

async fn page(platform: &Platform, query: &str) -> Value {
    let (status, page) = get(platform, &format!("/v0.1/servers{query}")).await;
    assert_eq!(status, StatusCode::OK, "{query}: {page}");
    page
}

fn names(page: &Value) -> Vec<&str> {
    let servers = page["servers"].as_array().expect("servers");
    servers
        .iter()
        .map(|entry| entry["server"]["name"].as_str().expect("a name"))
        .collect()
}

async fn register(platform: &Platform, declaration: &Value) {
    let asked = reqwest::Client::new()
        .post(platform.url("/servers"))
        .header("content-type", "application/json")
        .body(declaration.to_string())
        .send();
    let response = within("an answer", asked).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::CREATED, "{declaration}");
    let id = declaration["id"].as_str().expect("an id");
    // The door hears of it by its own watch.
    eventually("the door knows the declaration", async || {
        get(platform, &format!("/servers/{id}")).await.0 == StatusCode::OK
    })
    .await;
}

fn declared(id: &str, name: Option<&str>, version: &str) -> Value {
    let mut declared =
        json!({ "id": id, "url": format!("https://{id}.example.com/mcp"), "version": version });
    if let Some(name) = name {
        declared["name"] = name.into();
    }
    declared
}

#[tokio::test]
async fn what_vs_code_asks_is_answered_and_what_it_installs_connects_through_the_platform() {
    let platform = Platform::start("", &["products", "registry"]).await;
    for id in ["desk-a", "desk-b", "other"] {
        register(&platform, &declared(id, None, "1.0.0")).await;
    }
    let all = page(&platform, "?limit=50&version=latest").await;
    assert_eq!(
        names(&all),
        ["desk-a", "desk-b", "other", "products"].map(|id| format!("local.trunkline/{id}"))
    );
    assert_eq!(all["metadata"], json!({ "count": 4 }));
    for entry in all["servers"].as_array().expect("servers") {
        let server = &entry["server"];
        for member in ["name", "description", "version", "$schema"] {
            assert!(
                server[member].as_str().is_some_and(|text| !text.is_empty()),
                "{member}: {entry}"
            );
        }
        assert_eq!(entry["_meta"][OFFICIAL]["status"], "active");
        assert_eq!(entry["_meta"][OFFICIAL]["isLatest"], true);
    }
    // It pastes the cursor into the URL as it is, and leaves the search out from the second page on.
    let first = page(&platform, "?limit=1&version=latest&search=DESK").await;
    assert_eq!(names(&first), ["local.trunkline/desk-a"]);
    let cursor = first["metadata"]["nextCursor"].as_str().expect("a cursor");
    let second = page(&platform, &format!("?limit=1&version=latest&cursor={cursor}")).await;
    assert_eq!(names(&second), ["local.trunkline/desk-b"]);
    assert!(second["metadata"].get("nextCursor").is_none(), "{second}");
    let (_, one) = get(
        &platform,
        "/v0.1/servers/local.trunkline%2Fproducts/versions/latest",
    )
    .await;
    let remote = &one["server"]["remotes"][0];
    assert_eq!(remote["type"], "streamable-http");
    let url = remote["url"].as_str().expect("a URL");
    assert_eq!(url, platform.url("/servers/products/mcp"));
    let answer = Client::new(url).call("search", json!({ "query": "desk" })).await;
    assert!(
        text(&answer).contains("desk") || answer["result"].is_object(),
        "{answer}"
    );
    platform.stop().await;
}

#[tokio::test]
async fn what_dockers_gateway_asks_is_answered_under_v0() {
    let platform = Platform::start("", &["products", "registry"]).await;
    let (_, all) = get(&platform, "/v0/servers?version=latest&limit=100").await;
    assert_eq!(names(&all), ["local.trunkline/products"]);
    let (status, one) = get(
        &platform,
        "/v0/servers/local.trunkline%2Fproducts/versions/latest",
    )
    .await;
    assert_eq!((status, &one), (StatusCode::OK, &all["servers"][0]));
    let (_, versions) = get(&platform, "/v0/servers/local.trunkline%2Fproducts/versions").await;
    assert_eq!(versions["servers"], all["servers"]);
    platform.stop().await;
}

#[tokio::test]
async fn servers_of_one_name_are_its_versions_and_the_highest_is_the_latest() {
    let platform = Platform::start("", &["registry"]).await;
    let name = Some("com.example/weather");
    for (id, version) in [("w-9", "1.9.0"), ("w-10", "1.10.0"), ("w-pre", "1.10.0-rc.1")] {
        register(&platform, &declared(id, name, version)).await;
    }
    // The same name and version once more, and a name that belongs to another server.
    register(&platform, &declared("w-twin", name, "1.9.0")).await;
    register(
        &platform,
        &declared("thief", Some("local.trunkline/w-twin"), "1.0.0"),
    )
    .await;
    let (_, latest) = get(&platform, "/v0.1/servers/com.example%2Fweather/versions/latest").await;
    assert_eq!(latest["server"]["version"], "1.10.0");
    assert_eq!(latest["_meta"]["trunkline/server"]["id"], "w-10");
    let (_, versions) = get(&platform, "/v0.1/servers/com.example%2Fweather/versions").await;
    assert_eq!(versions["metadata"]["count"], 3, "{versions}");
    let newest_first: Vec<_> = versions["servers"]
        .as_array()
        .expect("servers")
        .iter()
        .map(|entry| entry["server"]["version"].as_str().expect("a version"))
        .collect();
    assert_eq!(
        newest_first,
        ["1.10.0-rc.1", "1.10.0", "1.9.0"],
        "by their publication"
    );
    let (status, old) = get(&platform, "/v0.1/servers/com.example%2Fweather/versions/1.9.0").await;
    assert_eq!(
        (status, &old["_meta"][OFFICIAL]["isLatest"]),
        (StatusCode::OK, &json!(false))
    );
    let latest = page(&platform, "?version=latest").await;
    assert_eq!(
        names(&latest),
        [
            "com.example/weather",
            "local.trunkline/thief",
            "local.trunkline/w-twin"
        ]
    );
    for (path, words) in [
        ("com.example%2Fweather/versions/2.0.0", "no version `2.0.0`"),
        ("com.example%2Fnobody/versions/latest", "com.example/nobody"),
        ("com.example%2Fnobody/versions", "com.example/nobody"),
    ] {
        let (status, refused) = get(&platform, &format!("/v0.1/servers/{path}")).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(
            refused["error"]
                .as_str()
                .is_some_and(|error| error.contains(words)),
            "{refused}"
        );
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_mirror_reads_what_has_changed_and_its_cursor_survives_what_comes_and_goes() {
    let platform = Platform::start("", &["registry"]).await;
    for id in ["b", "d", "f"] {
        register(&platform, &declared(id, None, "1.0.0")).await;
    }
    let all = page(&platform, "").await;
    let updated = |at: usize| {
        all["servers"][at]["_meta"][OFFICIAL]["updatedAt"]
            .as_str()
            .expect("a moment")
            .to_owned()
    };
    let since_last = page(&platform, &format!("?updated_since={}", updated(2))).await;
    assert_eq!(names(&since_last), ["local.trunkline/f"]);
    let none = page(&platform, "?updated_since=2999-01-01T00:00:00Z").await;
    assert_eq!(none, json!({ "servers": [], "metadata": { "count": 0 } }));
    let first = page(&platform, "?limit=2").await;
    let cursor = first["metadata"]["nextCursor"]
        .as_str()
        .expect("a cursor")
        .to_owned();
    register(&platform, &declared("a", None, "1.0.0")).await;
    register(&platform, &declared("e", None, "1.0.0")).await;
    let gone = reqwest::Client::new().delete(platform.url("/servers/d")).send();
    assert_eq!(
        within("an answer", gone).await.expect("an answer").status(),
        StatusCode::NO_CONTENT
    );
    let second = page(&platform, &format!("?cursor={cursor}")).await;
    assert_eq!(names(&second), ["local.trunkline/e", "local.trunkline/f"]);
    for wrong in ["limit=0", "limit=101", "cursor=x", "updated_since=soon"] {
        let (status, refused) = get(&platform, &format!("/v0.1/servers?{wrong}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
        assert!(refused["error"].is_string(), "{refused}");
    }
    platform.stop().await;
}

async fn ask(platform: &Platform, method: Method, path: &str, body: &Value) -> StatusCode {
    let asked = reqwest::Client::new()
        .request(method, platform.url(path))
        .header("content-type", "application/json")
        .body(body.to_string())
        .send();
    within("an answer", asked).await.expect("an answer").status()
}

/// What is told of each entry: its version, its status, and whether it is the latest.
fn told(page: &Value) -> Vec<(&str, &str, bool)> {
    let servers = page["servers"].as_array().expect("servers");
    servers
        .iter()
        .map(|entry| {
            let official = &entry["_meta"][OFFICIAL];
            (
                entry["server"]["version"].as_str().expect("a version"),
                official["status"].as_str().expect("a status"),
                official["isLatest"].as_bool().expect("a bool"),
            )
        })
        .collect()
}

#[tokio::test]
async fn a_mirror_learns_what_is_gone_and_nobody_else_sees_it() {
    let platform = Platform::start("", &["registry"]).await;
    let name = Some("com.example/desk");
    let mut first = declared("desk", name, "1.0.0");
    first["description"] = json!("Sells desks.");
    register(&platform, &first).await;
    let all = page(&platform, "").await;
    let since = all["servers"][0]["_meta"][OFFICIAL]["updatedAt"]
        .as_str()
        .expect("a moment")
        .to_owned();
    let since = format!("?updated_since={since}");
    let changed = ask(
        &platform,
        Method::PUT,
        "/servers/desk",
        &declared("desk", name, "1.1.0"),
    )
    .await;
    assert_eq!(changed, StatusCode::OK);
    eventually("the mirror hears of both", async || {
        told(&page(&platform, &since).await) == [("1.0.0", "deleted", false), ("1.1.0", "active", true)]
    })
    .await;
    assert_eq!(told(&page(&platform, "").await), [("1.1.0", "active", true)]);
    assert_eq!(
        ask(&platform, Method::DELETE, "/servers/desk", &Value::Null).await,
        StatusCode::NO_CONTENT
    );
    let both = [("1.0.0", "deleted", false), ("1.1.0", "deleted", true)];
    eventually("the mirror hears that all is gone", async || {
        told(&page(&platform, &since).await) == both
    })
    .await;
    let gone = page(&platform, &since).await;
    assert_eq!(gone["servers"][0]["server"]["description"], "Sells desks.");
    let official = &gone["servers"][1]["_meta"][OFFICIAL];
    assert_eq!(official["statusChangedAt"], official["updatedAt"]);
    assert!(official["updatedAt"].as_str() > official["publishedAt"].as_str());
    // The newest alone is asked for as well, as mirrors do.
    let latest = page(&platform, &format!("{since}&version=latest")).await;
    assert_eq!(told(&latest), both[1..]);
    assert_eq!(told(&page(&platform, "?include_deleted=true").await), both);
    for hidden in ["", "?include_deleted=false", "?search=desk"] {
        assert_eq!(told(&page(&platform, hidden).await), [], "{hidden}");
    }
    let later = page(&platform, "?updated_since=2999-01-01T00:00:00Z").await;
    assert_eq!(told(&later), []);
    for (path, status, asked) in [
        ("versions", 404, "versions?include_deleted=true"),
        ("versions/1.1.0", 404, "versions/latest?include_deleted=true"),
    ] {
        let base = "/v0.1/servers/com.example%2Fdesk";
        assert_eq!(get(&platform, &format!("{base}/{path}")).await.0.as_u16(), status);
        assert_eq!(get(&platform, &format!("{base}/{asked}")).await.0, StatusCode::OK);
    }
    let (_, servers) = get(&platform, "/servers").await;
    assert_eq!(servers["servers"], json!([]));
    // What comes again is there, and is not told of twice.
    register(&platform, &declared("desk", name, "1.1.0")).await;
    assert_eq!(
        told(&page(&platform, &since).await),
        [("1.0.0", "deleted", false), ("1.1.0", "active", true)]
    );
    platform.stop().await;
}

#[tokio::test]
async fn a_mirror_learns_that_a_virtual_server_is_gone() {
    let platform = Platform::start("", &["products", "registry"]).await;
    let desk =
        json!({ "id": "desk", "title": "Desk", "items": [{ "server": "products", "tools": ["search"] }] });
    let made = ask(&platform, Method::POST, "/virtual-servers", &desk).await;
    assert_eq!(made, StatusCode::CREATED);
    let is = async |status: &str| {
        let (_, versions) = get(
            &platform,
            "/v0.1/servers/local.trunkline%2Fdesk/versions?include_deleted=true",
        )
        .await;
        versions["metadata"]["count"] == 1 && versions["servers"][0]["_meta"][OFFICIAL]["status"] == status
    };
    eventually("it is there", async || is("active").await).await;
    let before = page(&platform, "?search=desk").await;
    let gone = ask(&platform, Method::DELETE, "/virtual-servers/desk", &Value::Null).await;
    assert_eq!(gone, StatusCode::NO_CONTENT);
    eventually("it is told of as gone", async || is("deleted").await).await;
    let after = page(&platform, "?search=desk&updated_since=2020-01-01T00:00:00Z").await;
    for member in ["name", "version", "title"] {
        assert_eq!(
            after["servers"][0]["server"][member], before["servers"][0]["server"][member],
            "{member}"
        );
    }
    for path in ["/virtual-servers/desk", "/servers/desk"] {
        assert_eq!(get(&platform, path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    let again = ask(&platform, Method::POST, "/virtual-servers", &desk).await;
    assert_eq!(again, StatusCode::CREATED);
    eventually("it is there again", async || is("active").await).await;
    platform.stop().await;
}

#[tokio::test]
async fn names_and_places_are_those_that_the_operator_gives() {
    let file = "public_url = \"https://mcp.example.com/x/\"\n[registry]\nnamespace = \"com.example\"\n";
    let platform = Platform::start(file, &["products", "registry"]).await;
    let mut old = declared("old", None, "1.0.0");
    old["tags"] = json!(["deprecated"]);
    old["description"] = json!("d".repeat(300));
    register(&platform, &old).await;
    let all = page(&platform, "").await;
    assert_eq!(names(&all), ["com.example/old", "com.example/products"]);
    let server = &all["servers"][0];
    assert_eq!(
        server["server"]["remotes"][0]["url"],
        "https://mcp.example.com/x/servers/old/mcp"
    );
    assert_eq!(server["_meta"][OFFICIAL]["status"], "deprecated");
    assert_eq!(
        server["server"]["description"]
            .as_str()
            .expect("a text")
            .chars()
            .count(),
        100
    );
    platform.stop().await;
}

#[tokio::test]
async fn pages_read_the_catalogue_from_origins_that_are_let_in_and_from_no_others() {
    let platform = Platform::start("allowed_hosts = [\"app.example.com\"]", &["products"]).await;
    let client = reqwest::Client::new();
    for (origin, status) in [
        ("https://app.example.com", StatusCode::OK),
        ("http://localhost:3000", StatusCode::OK),
        ("https://evil.example", StatusCode::FORBIDDEN),
    ] {
        let asked = client
            .get(platform.url("/v0.1/servers"))
            .header("origin", origin)
            .send();
        let answer = within("an answer", asked).await.expect("an answer");
        assert_eq!(answer.status(), status, "{origin}");
        let open = answer.headers().get("access-control-allow-origin");
        assert_eq!(open.is_some(), status == StatusCode::OK, "{origin}");
    }
    let asked = client
        .request(reqwest::Method::OPTIONS, platform.url("/v0.1/servers"))
        .header("origin", "https://app.example.com")
        .header("access-control-request-method", "GET")
        .send();
    let answer = within("an answer", asked).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert!(answer.headers().contains_key("access-control-allow-methods"));
    platform.stop().await;
}
