//! Accounts that users have connected are declared for, seen and forgotten: by whom they belong to, by operators, and in every process at once.

use bridges::http::Serves;
use bus_schema::subject::CallerClass;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tests::{
    accounts::{Accounts, Knows},
    eventually,
    http::text,
    platform::Platform,
    program,
    recorded::Recorded,
    remote::local,
    within,
};
use trunkline::node::{NatsChoice, Node};

use super::stage::{OPERATOR, PUBLIC, Stage, UNPROVEN, link_in, stage};

async fn send(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let answer: Response = within("an answer", request.send()).await.expect("an answer");
    let status = answer.status();
    let body = answer.bytes().await.expect("a body");
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// Further processes of the platform, with nothing but what their roles may do.
async fn joined(stage: &Stage, class: CallerClass) -> Node {
    let nats = stage.platform.node.nats_url().expect("its own NATS").to_owned();
    Node::connect(&stage.platform.config, class, NatsChoice::Join(Some(nats)))
        .await
        .expect("the bus is there")
}

async fn serving(stage: &Stage) -> Node {
    let mut node = joined(stage, CallerClass::Host).await;
    let there = ["there".to_owned()];
    Box::pin(node.serve(&stage.platform.config, &there))
        .await
        .expect("it is served");
    node
}

fn refused(node: &Node) -> Vec<String> {
    node.bus().refused()
}

#[tokio::test]
async fn a_declared_server_can_work_with_its_users_own_accounts() {
    let (accounts, other) = (
        Accounts::start(Knows::Registration).await,
        Accounts::start(Knows::Registration).await,
    );
    let parts = ("[registry]\nallow_private = true\n", ["registry", "upstreams"]);
    let stage = Stage::with(accounts, PUBLIC, |_, _| UNPROVEN.to_owned(), (parts.0, &parts.1)).await;
    let mut wanted = json!({
        "id": "there", "url": stage.accounts.url(), "allowPrivate": true, "credentials": "user",
        "connect": { "issuer": "here", "scopes": ["whoami"] },
    });
    let declare = async |wanted: &Value| {
        let request = stage.rest(OPERATOR, Method::POST, "/servers");
        send(request.body(wanted.to_string())).await
    };
    let (status, said) = declare(&wanted).await;
    assert_eq!(
        (status.as_u16(), &said["error"]["field"]),
        (422, &json!("connect.issuer")),
        "{said}"
    );
    wanted["connect"]["issuer"] = json!("http://169.254.169.254/");
    let (status, said) = declare(&wanted).await;
    assert_eq!(
        (status.as_u16(), &said["error"]["field"]),
        (422, &json!("connect.issuer")),
        "{said}"
    );
    wanted["connect"] = json!({ "scopes": ["whoami"] });
    let (status, said) = declare(&wanted).await;
    assert_eq!(
        (status, &said["credentials"]),
        (StatusCode::CREATED, &json!("user")),
        "{said}"
    );
    stage.platform.knows("there").await;
    for (user, account) in [("ann", "ann-at-work"), ("bob", "bob-at-work")] {
        stage.connect(&stage.link_for(user).await, account).await;
        let answer = stage.client_of(user).call("whoami", json!({})).await;
        assert_eq!(text(&answer), account, "{answer}");
    }
    let (_, shown) = send(stage.rest(OPERATOR, Method::GET, "/servers/there")).await;
    assert_eq!(shown["credentials"], "user", "{shown}");
    // What was given for one server is not shown to another that takes its name.
    wanted["url"] = json!(other.url());
    let replaced = stage.rest(OPERATOR, Method::PUT, "/servers/there");
    let (status, said) = send(replaced.body(wanted.to_string())).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    eventually("the other server asks for accounts of its own", async || {
        let asked = stage.call("ann", &json!({})).await;
        if asked["result"]["inputRequests"].is_null() {
            return false;
        }
        let (page, _) = stage.follow(&link_in(&asked)).await;
        page.starts_with(&format!("http://{}/", other.addr))
    })
    .await;
    assert_eq!(other.called(), []);
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_process_without_a_key_says_that_it_cannot_run_a_server_with_users_accounts() {
    let platform = Platform::start("", &["registry", "upstreams"]).await;
    let declaration = json!({ "id": "there", "url": "https://there.example/mcp", "credentials": "user" });
    let request = reqwest::Client::new()
        .post(platform.url("/servers"))
        .header("content-type", "application/json")
        .body(declaration.to_string());
    let (status, said) = send(request).await;
    assert_eq!(status, StatusCode::CREATED, "{said}");
    eventually("it says what it needs", async || {
        let (_, shown) = send(reqwest::Client::new().get(platform.url("/servers/there"))).await;
        shown["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("[credentials]"))
    })
    .await;
    let (status, said) = send(reqwest::Client::new().get(platform.url("/credentials"))).await;
    assert_eq!(
        (status.as_u16(), &said["error"]["code"]),
        (404, &json!("not_configured")),
        "{said}"
    );
    platform.stop().await;
}

#[tokio::test]
async fn users_see_and_forget_their_own_accounts_and_operators_those_of_the_tenant() {
    let stage = stage(Knows::Registration, PUBLIC).await;
    let recorded = Recorded::start(&stage.platform).await;
    for user in ["ann", "bob", "eve"] {
        stage
            .connect(&stage.link_for(user).await, &format!("{user}-at-work"))
            .await;
    }
    let whose = async |who: &str, path: &str| {
        let (status, said) = send(stage.rest(who, Method::GET, path)).await;
        assert_eq!(status, StatusCode::OK, "{said}");
        for secret in stage.accounts.secrets() {
            assert!(!said.to_string().contains(&secret), "{said}");
        }
        let listed = said["credentials"].as_array().expect("a list").clone();
        for account in &listed {
            assert_eq!(account["server"], "there", "{account}");
            assert_eq!(
                account["grantedBy"],
                format!("http://{}", stage.accounts.addr),
                "{account}"
            );
            assert_eq!(account["renews"], true, "{account}");
            let (since, until) = (account["connectedAt"].as_str(), account["expiresAt"].as_str());
            assert!(since.expect("a time") < until.expect("a time"), "{account}");
        }
        let subjects = listed
            .iter()
            .map(|account| account["subject"].as_str().unwrap_or_default().to_owned());
        subjects.collect::<Vec<_>>()
    };
    assert_eq!(whose("ann", "/credentials").await, ["ann"]);
    assert_eq!(whose("nobody", "/credentials").await, [""; 0]);
    assert_eq!(whose(OPERATOR, "/credentials").await, ["ann", "bob", "eve"]);
    assert_eq!(whose(OPERATOR, "/credentials?user=bob").await, ["bob"]);
    assert_eq!(whose(OPERATOR, "/credentials?server=elsewhere").await, [""; 0]);
    for (who, method, path, expected) in [
        ("ann", Method::GET, "/credentials?user=bob", 403),
        ("ann", Method::DELETE, "/credentials/there?user=bob", 403),
        ("ann", Method::DELETE, "/credentials/there?everybody=true", 403),
        ("ann", Method::DELETE, "/credentials/elsewhere", 404),
        ("nobody", Method::DELETE, "/credentials/there", 404),
        (OPERATOR, Method::DELETE, "/credentials/there", 404),
        (
            OPERATOR,
            Method::DELETE,
            "/credentials/there?user=ann&everybody=true",
            400,
        ),
        (OPERATOR, Method::DELETE, "/credentials/there?issuer=x", 400),
        (OPERATOR, Method::GET, "/credentials?tenant=x", 400),
        (
            OPERATOR,
            Method::DELETE,
            "/credentials/there?user=ann&issuer=https://other.example",
            404,
        ),
    ] {
        let (status, said) = send(stage.rest(who, method.clone(), path)).await;
        assert_eq!(status.as_u16(), expected, "{who} {method} {path}: {said}");
    }
    assert_eq!(
        whose(OPERATOR, "/credentials").await.len(),
        3,
        "nothing was forgotten"
    );
    let (status, said) = send(stage.rest("ann", Method::DELETE, "/credentials/there")).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    assert_eq!(said["forgotten"][0]["revocation"], "revoked", "{said}");
    assert_eq!(said["forgotten"].as_array().map(Vec::len), Some(1));
    assert_eq!(stage.accounts.revoked().len(), 2, "both of her tokens");
    let answer = stage.client_of("ann").call("whoami", json!({})).await;
    assert_eq!(answer["error"]["code"], -32042, "{answer}");
    // An issuer that takes nothing back is no reason to keep anything.
    stage.accounts.take_none_back();
    let (_, said) = send(stage.rest(OPERATOR, Method::DELETE, "/credentials/there?user=bob")).await;
    assert_eq!(said["forgotten"][0]["revocation"], "failed", "{said}");
    let reason = said["forgotten"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("unsupported_token_type"), "{said}");
    assert_eq!(whose(OPERATOR, "/credentials").await, ["eve"]);
    recorded
        .comes("the refusal is on record", |record| record.rule == "not_yours")
        .await;
    let told = format!("{:?}", recorded.all());
    assert!(told.contains("ann") && !told.contains("user=bob"), "{told}");
    recorded.stop().await;
    stage.platform.stop().await;
}

#[tokio::test]
async fn what_is_forgotten_ends_at_once_in_every_process() {
    let stage = stage(Knows::Registration, PUBLIC).await;
    let (replica, mut door) = (serving(&stage).await, joined(&stage, CallerClass::Bridge).await);
    let at = Box::pin(door.open_http(&stage.platform.config, Serves::Http))
        .await
        .expect("HTTP opens");
    for user in ["ann", "bob"] {
        stage.connect(&stage.link_for(user).await, user).await;
    }
    let hold = |user: &str| {
        let client = stage.client_of(user);
        tokio::spawn(async move { client.call("hold", json!({})).await })
    };
    let (of_ann, of_bob): (Vec<_>, _) = ((0..12).map(|_| hold("ann")).collect(), hold("bob"));
    eventually("all calls are held", async || stage.accounts.held() == 13).await;
    let busy = |node: &Node| node.bus().metrics().render();
    assert!(
        busy(&replica).contains("there"),
        "the other replica has some of them"
    );
    let base = format!("http://{at}");
    let forgetting = stage.rest_at(&base, "ann", Method::DELETE, "/credentials/there");
    let (status, said) = send(forgetting).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    for call in of_ann {
        let answer = within("its end", call).await.expect("it ends");
        let words = answer["error"]["message"].as_str().expect("an error");
        assert!(
            words.contains("not connected to this platform any more"),
            "{answer}"
        );
    }
    assert_eq!(stage.accounts.held(), 1, "bob's goes on");
    assert!(!of_bob.is_finished());
    for _ in 0..8 {
        let answer = stage.client_of("ann").call("whoami", json!({})).await;
        assert_eq!(answer["error"]["code"], -32042, "{answer}");
    }
    // With another account nothing of the first is used, in neither process.
    stage.connect(&stage.link_for("ann").await, "ann-at-home").await;
    for _ in 0..8 {
        let answer = stage.client_of("ann").call("whoami", json!({})).await;
        assert_eq!(text(&answer), "ann-at-home", "{answer}");
    }
    of_bob.abort();
    assert_eq!([refused(&replica), refused(&door)], [[""; 0], [""; 0]]);
    door.stop().await;
    replica.stop().await;
    stage.platform.stop().await;
}

#[tokio::test]
async fn the_command_line_lists_and_forgets() {
    let stage = stage(Knows::Registration, PUBLIC).await;
    for user in ["ann", "bob"] {
        stage.connect(&stage.link_for(user).await, user).await;
    }
    let folder = stage.platform.folder();
    let path = |name: &str| folder.join(name).display().to_string();
    let (config, data) = (path("trunkline.toml"), path("data"));
    let nats = stage.platform.node.nats_url().expect("its own NATS");
    let run = async |words: &[&str]| {
        let common = ["--config", &config, "--data-dir", &data, "--nats", nats];
        program::run(&[&["credentials"], words, &common].concat()).await
    };
    let (code, listed, log) = run(&["list"]).await;
    assert_eq!(code, 0, "{log}");
    assert!(
        listed.contains("ann") && listed.contains("bob") && listed.contains("there"),
        "{listed}"
    );
    for secret in stage.accounts.secrets() {
        assert!(!listed.contains(&secret), "{listed}");
    }
    let (code, said, log) = run(&["forget", "there", "--user", "ann"]).await;
    assert_eq!(code, 0, "{log}");
    assert!(
        said.contains("account of ann") && said.contains("taken the token back"),
        "{said}"
    );
    let (code, _, log) = run(&["forget", "there", "--user", "ann"]).await;
    assert_eq!(code, 1);
    assert!(log.contains("no account at server `there`"), "{log}");
    let (_, listed, _) = run(&["list", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(
        listed["credentials"].as_array().map(Vec::len),
        Some(1),
        "{listed}"
    );
    assert_eq!(listed["credentials"][0]["subject"], "bob");
    let (code, said, log) = run(&["forget", "there", "--json"]).await;
    assert_eq!(code, 0, "{log}");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["forgotten"][0]["revocation"], "revoked", "{said}");
    for user in ["ann", "bob"] {
        let answer = stage.client_of(user).call("whoami", json!({})).await;
        assert_eq!(answer["error"]["code"], -32042, "{answer}");
    }
    // Whoever forgets everybody forgets who the platform was there, too.
    assert_eq!(stage.accounts.registered(), 2, "it has registered itself anew");
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_fleet_registers_itself_once_and_again_when_its_issuer_knows_it_no_more() {
    let stage = stage(Knows::Registration, PUBLIC).await;
    let replicas = [serving(&stage).await, serving(&stage).await];
    let links = (0..12).map(|n| {
        let stage = &stage;
        async move { stage.link_for(&format!("user-{n}")).await }
    });
    let links = futures::future::join_all(links).await;
    assert_eq!(stage.accounts.registered(), 1, "three processes are one client");
    stage.connect(&links[0], "zero").await;
    // A process that begins later finds it.
    for replica in replicas {
        assert_eq!(refused(&replica), [""; 0]);
        replica.stop().await;
    }
    let late = serving(&stage).await;
    for n in 20..28 {
        stage.link_for(&format!("user-{n}")).await;
    }
    assert_eq!(stage.accounts.registered(), 1);
    late.stop().await;
    // An issuer that has lost its clients says so when a code is exchanged, and is told of the platform again.
    let (page, cookie) = stage.follow(&links[1]).await;
    let back = stage.agree(&page, "one").await;
    stage.accounts.forget_clients();
    let failed = stage.browse(Method::GET, &back, Some(&cookie)).await;
    assert_eq!(failed.status(), StatusCode::BAD_GATEWAY);
    stage.connect(&stage.link_for("user-1").await, "one").await;
    assert_eq!(stage.accounts.registered(), 2);
    let answer = stage.client_of("user-1").call("whoami", json!({})).await;
    assert_eq!(text(&answer), "one", "{answer}");
    stage.platform.stop().await;
}

#[tokio::test]
async fn an_issuer_behind_an_authority_of_ones_own_is_checked_against_that() {
    let accounts = Accounts::over_tls(Knows::Registration).await;
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, accounts.ca.as_deref().expect("an authority")).expect("written");
    let more = format!("credentials = \"user\"\nca_file = {}", json!(ca));
    let line = local("there", &accounts.url(), &more);
    let stage = Stage::with(accounts, PUBLIC, |_, _| UNPROVEN.to_owned(), (&line, &["there"])).await;
    stage.accounts.set_life(1);
    let link = stage.link_for("ann").await;
    // The door has no such file to look into.
    std::fs::remove_file(&ca).expect("removed");
    stage.connect(&link, "ann-at-work").await;
    stage.accounts.set_life(3_600);
    let answer = stage.client_of("ann").call("whoami", json!({})).await;
    assert_eq!(text(&answer), "ann-at-work", "{answer}");
    assert_eq!(stage.accounts.refreshed(), (1, 0), "it was exchanged there, too");
    let (_, said) = send(stage.rest("ann", Method::DELETE, "/credentials/there")).await;
    assert_eq!(said["forgotten"][0]["revocation"], "revoked", "{said}");
    stage.platform.stop().await;
}
