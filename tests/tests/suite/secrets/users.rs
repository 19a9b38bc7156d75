//! Users connect their own accounts at a server: each works with his own, nobody with another's, and nothing of it is kept in clear.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bus_schema::mcp::{meta, method};
use reqwest::{Response, StatusCode, Url, header, redirect::Policy};
use serde_json::{Value, json};
use tests::{
    accounts::{Accounts, Knows},
    http::{Client, text},
    issuer::{self, Issuer},
    platform::Platform,
    remote::local,
    within,
};

/// Where users reach the platform, for all that they know.
const PUBLIC: &str = "https://mcp.example.com";

struct Stage {
    accounts: Accounts,
    issuer: Issuer,
    platform: Platform,
    _keys: tempfile::TempDir,
}

/// A platform with two users, and a server where each has an account.
async fn stage(knows: Knows, public: &str) -> Stage {
    staged(knows, public, |_, _| "unproven_links = true".to_owned()).await
}

/// The same, with what is said of who follows links. That gets the issuer, and a folder.
async fn staged(knows: Knows, public: &str, proof: impl Fn(&Issuer, &Path) -> String) -> Stage {
    let (accounts, issuer) = (Accounts::start(knows).await, Issuer::start().await);
    let keys = tempfile::tempdir().expect("a folder");
    let key = keys.path().join("key");
    fs::write(&key, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").expect("written");
    let file = format!(
        "limits = []\nallowed_hosts = [\"mcp.example.com\"]\n{}\n[credentials]\nkey = {{ file = {} }}\npublic_url = {}\n{}\n{}",
        issuer.section(""),
        json!(key),
        json!(public),
        proof(&issuer, keys.path()),
        local("there", &accounts.url(), "credentials = \"user\"")
    );
    let platform = Platform::start(&file, &["there"]).await;
    platform.knows("there").await;
    Stage {
        accounts,
        issuer,
        platform,
        _keys: keys,
    }
}

impl Stage {
    fn client_of(&self, user: &str) -> Client {
        let token = self.issuer.token(user, &self.platform.url(""), json!({}));
        self.platform.client("there").with_token(&token)
    }

    /// Calls the tool as a client that opens pages.
    async fn call(&self, user: &str, more: &Value) -> Value {
        let mut params = json!({
            "name": "whoami", "arguments": {},
            "_meta": { meta::CLIENT_CAPABILITIES: { "elicitation": { "url": {} } } }
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            params[key] = value.clone();
        }
        let called = self.client_of(user).modern(method::TOOLS_CALL, params);
        let answer = within("an answer", called.send()).await.expect("an answer");
        within("its text", answer.json()).await.expect("JSON")
    }

    /// A page of the platform, as a browser gets it that believes to be elsewhere.
    async fn browse(&self, method: reqwest::Method, url: &str, cookie: Option<&str>) -> Response {
        let url = Url::parse(url).expect("a URL");
        let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
        let browser = reqwest::Client::builder()
            .redirect(Policy::none())
            .build()
            .expect("a client");
        let mut request = browser.request(method, self.platform.url(&format!("{}{query}", url.path())));
        if let Some(cookie) = cookie {
            request = request.header(header::COOKIE, format!("other=1; {cookie}"));
        }
        within("a page", request.send()).await.expect("a page")
    }

    /// Follows a link up to the issuer: where that is, and the cookie.
    async fn follow(&self, link: &str) -> (String, String) {
        let followed = self.browse(reqwest::Method::POST, link, None).await;
        assert_eq!(followed.status(), StatusCode::SEE_OTHER);
        let cookie = said(&followed, header::SET_COOKIE);
        for word in ["HttpOnly", "SameSite=Lax", "Path=/"] {
            assert!(cookie.contains(word), "{cookie}");
        }
        let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        (said(&followed, header::LOCATION), cookie)
    }

    /// Agrees at the issuer as somebody: where that sends the browser back to.
    async fn agree(&self, page: &str, login: &str) -> String {
        let browser = reqwest::Client::builder()
            .redirect(Policy::none())
            .build()
            .expect("a client");
        let page = format!("{page}&login={login}");
        let agreed = within("an answer", browser.get(page).send())
            .await
            .expect("an answer");
        let status = agreed.status();
        if status == StatusCode::SEE_OTHER {
            return said(&agreed, header::LOCATION);
        }
        panic!(
            "the issuer answers {status}: {}",
            agreed.text().await.unwrap_or_default()
        )
    }

    /// Connects an account, from the link to the end.
    async fn connect(&self, link: &str, login: &str) {
        let (page, cookie) = self.follow(link).await;
        let back = self.agree(&page, login).await;
        let done = self.browse(reqwest::Method::GET, &back, Some(&cookie)).await;
        assert_eq!(done.status(), StatusCode::OK);
    }

    async fn link_for(&self, user: &str) -> String {
        link_in(&self.call(user, &json!({})).await)
    }
}

fn said(answer: &Response, name: header::HeaderName) -> String {
    let value = answer
        .headers()
        .get(&name)
        .unwrap_or_else(|| panic!("no {name}: {answer:?}"));
    value.to_str().expect("visible").to_owned()
}

/// The link that a client is asked to open.
fn link_in(asked: &Value) -> String {
    let page = &asked["result"]["inputRequests"]["page-1"];
    assert_eq!(page["method"], "elicitation/create", "{asked}");
    assert_eq!(page["params"]["mode"], "url", "{asked}");
    page["params"]["url"].as_str().expect("a link").to_owned()
}

fn again(asked: &Value, action: &str) -> Value {
    json!({
        "requestState": asked["result"]["requestState"],
        "inputResponses": { "page-1": { "action": action } }
    })
}

#[tokio::test]
async fn each_user_is_asked_once_and_works_with_the_account_that_he_has_connected() {
    let stage = stage(Knows::Registration, PUBLIC).await;
    for (user, account) in [("ann", "ann-at-work"), ("bob", "bob-at-work")] {
        let asked = stage.call(user, &json!({})).await;
        let link = link_in(&asked);
        assert!(link.starts_with(&format!("{PUBLIC}/connect/")), "{link}");
        let page = stage.browse(reqwest::Method::GET, &link, None).await;
        assert_eq!(said(&page, header::X_FRAME_OPTIONS), "DENY");
        let page = page.text().await.expect("a page");
        assert!(page.contains(user) && page.contains("there"), "{page}");
        stage.connect(&link, account).await;
        // The client comes back when its user says so.
        let answer = stage.call(user, &again(&asked, "accept")).await;
        assert_eq!(text(&answer), account, "{answer}");
    }
    for (user, account) in [
        ("ann", "ann-at-work"),
        ("bob", "bob-at-work"),
        ("ann", "ann-at-work"),
    ] {
        let answer = stage.client_of(user).call("whoami", json!({})).await;
        assert_eq!(text(&answer), account, "{answer}");
    }
    // A user who says no is not asked over and over by the same call.
    let asked = stage.call("eve", &json!({})).await;
    let answer = stage.call("eve", &again(&asked, "decline")).await;
    assert!(answer["error"].is_object(), "{answer}");
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_client_that_opens_no_pages_is_told_where_to_go() {
    let stage = stage(Knows::Registration, PUBLIC).await;
    let answer = stage.client_of("ann").call("whoami", json!({})).await;
    assert_eq!(answer["error"]["code"], -32042, "{answer}");
    let page = &answer["error"]["data"]["elicitations"][0];
    let link = page["url"].as_str().expect("a link").to_owned();
    assert_eq!(page["mode"], "url");
    let words = answer["error"]["message"].as_str().expect("words");
    assert!(words.contains(&link), "{words}");
    stage.connect(&link, "ann-at-work").await;
    let answer = stage.client_of("ann").call("whoami", json!({})).await;
    assert_eq!(text(&answer), "ann-at-work", "{answer}");
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_link_is_followed_once_and_ended_by_the_browser_that_followed_it() {
    let stage = stage(Knows::Registration, PUBLIC).await;
    let get = |url: String, cookie: Option<String>| {
        let stage = &stage;
        async move {
            stage
                .browse(reqwest::Method::GET, &url, cookie.as_deref())
                .await
                .status()
        }
    };
    let link = stage.link_for("ann").await;
    // Looking at it any number of times uses nothing up, as programs do that, too.
    for _ in 0..3 {
        assert_eq!(get(link.clone(), None).await, StatusCode::OK);
    }
    let (page, cookie) = stage.follow(&link).await;
    let twice = stage.browse(reqwest::Method::POST, &link, None).await;
    assert_eq!(twice.status(), StatusCode::GONE);
    assert_eq!(get(link.clone(), None).await, StatusCode::GONE);
    let back = stage.agree(&page, "eves-account").await;
    // Without the cookie, as when somebody is sent the issuer's page, and with a foreign one.
    assert_eq!(get(back.clone(), None).await, StatusCode::FORBIDDEN);
    let foreign = format!("{}=x", cookie.split('=').next().unwrap_or_default());
    assert_eq!(get(back.clone(), Some(foreign)).await, StatusCode::FORBIDDEN);
    // An answer that says it is another issuer's, or nobody's.
    let forged = back.replace("iss=http", "iss=https");
    assert_ne!(forged, back);
    assert_eq!(get(forged, Some(cookie.clone())).await, StatusCode::BAD_GATEWAY);
    assert_eq!(
        get(back, Some(cookie.clone())).await,
        StatusCode::GONE,
        "that used it up"
    );
    // What stands in a state is no link, and what stands in a link is no state.
    let state = Url::parse(&page).expect("a URL");
    let state = state
        .query_pairs()
        .find(|(key, _)| key == "state")
        .expect("a state")
        .1
        .into_owned();
    for nowhere in [
        state.as_str(),
        "guessed",
        "callback?state=guessed&code=x",
        "callback",
    ] {
        let status = get(format!("{PUBLIC}/connect/{nowhere}"), Some(cookie.clone())).await;
        assert_eq!(status, StatusCode::GONE, "{nowhere}");
    }
    let answer = stage.client_of("ann").call("whoami", json!({})).await;
    assert_eq!(answer["error"]["code"], -32042, "nobody was connected: {answer}");
    // The link that comes now is another, and one where the user says no connects nobody either.
    let other = stage.link_for("ann").await;
    assert_ne!(other, link);
    assert_eq!(
        stage.link_for("ann").await,
        other,
        "it is good until it is followed"
    );
    let (page, cookie) = stage.follow(&other).await;
    let back = stage.agree(&page, "").await;
    assert_eq!(get(back, Some(cookie)).await, StatusCode::FORBIDDEN);
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_token_is_exchanged_by_one_for_all_and_its_user_asked_anew_when_that_fails() {
    let stage = stage(Knows::Documents, PUBLIC).await;
    let document = stage
        .browse(
            reqwest::Method::GET,
            &format!("{PUBLIC}/connect/client.json"),
            None,
        )
        .await;
    let document: Value = document.json().await.expect("JSON");
    assert_eq!(document["client_id"], format!("{PUBLIC}/connect/client.json"));
    assert_eq!(
        document["redirect_uris"],
        json!([format!("{PUBLIC}/connect/callback")])
    );
    // It is over before it is used, so that every use needs another.
    stage.accounts.set_life(1);
    stage.connect(&stage.link_for("ann").await, "ann-at-work").await;
    stage.accounts.set_life(3_600);
    let client = stage.client_of("ann");
    let calls = (0..8).map(|_| client.call("whoami", json!({})));
    for answer in futures::future::join_all(calls).await {
        assert_eq!(text(&answer), "ann-at-work", "{answer}");
    }
    assert_eq!(stage.accounts.refreshed(), (1, 0));
    stage.accounts.revoke("ann-at-work");
    let answer = client.call("whoami", json!({})).await;
    let words = answer["error"]["message"].as_str().expect("words");
    assert!(words.contains("connect again"), "{words}");
    let asked = stage.call("ann", &json!({})).await;
    stage.connect(&link_in(&asked), "ann-at-home").await;
    let answer = stage.call("ann", &again(&asked, "accept")).await;
    assert_eq!(text(&answer), "ann-at-home", "{answer}");
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_link_that_was_sent_to_somebody_else_connects_nobody() {
    let stage = staged(Knows::Registration, PUBLIC, |issuer, folder| {
        let secret = folder.join("client");
        fs::write(&secret, issuer::CLIENT.1).expect("written");
        format!(
            "[credentials.login]\nissuer = {}\nclient_id = {}\nclient_secret = {{ file = {} }}\nallow_private = true",
            json!(issuer.url()),
            json!(issuer::CLIENT.0),
            json!(secret)
        )
    })
    .await;
    let get = async |url: &str, cookie: &str| stage.browse(reqwest::Method::GET, url, Some(cookie)).await;
    // Eve sends her link to Ann, who believes that it is hers.
    let (login, cookie) = stage.follow(&stage.link_for("eve").await).await;
    assert!(login.starts_with(&stage.issuer.at("/authorize")), "{login}");
    let back = stage.agree(&login, "ann").await;
    let refused = get(&back, &cookie).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert!(refused.text().await.expect("a page").contains("another user"));
    assert_eq!(get(&back, &cookie).await.status(), StatusCode::GONE);
    // The login cannot be left out: its state is none that a server's issuer answers.
    let (login, cookie) = stage.follow(&stage.link_for("eve").await).await;
    let past = stage
        .agree(&login, "eve")
        .await
        .replace("/connect/login", "/connect/callback");
    assert_eq!(get(&past, &cookie).await.status(), StatusCode::GONE);
    let answer = stage.client_of("eve").call("whoami", json!({})).await;
    assert_eq!(answer["error"]["code"], -32042, "{answer}");
    // Whoever it is for logs in and goes on.
    let (login, cookie) = stage.follow(&stage.link_for("ann").await).await;
    let back = stage.agree(&login, "ann").await;
    assert_eq!(
        stage.browse(reqwest::Method::GET, &back, None).await.status(),
        StatusCode::FORBIDDEN
    );
    let page = said(&get(&back, &cookie).await, header::LOCATION);
    let back = stage.agree(&page, "ann-at-work").await;
    assert_eq!(get(&back, &cookie).await.status(), StatusCode::OK);
    let answer = stage.client_of("ann").call("whoami", json!({})).await;
    assert_eq!(text(&answer), "ann-at-work", "{answer}");
    stage.platform.stop().await;
}

#[tokio::test]
async fn nothing_that_a_user_was_given_is_on_disk() {
    let stage = stage(Knows::Registration, PUBLIC).await;
    let link = stage.link_for("ann").await;
    stage.connect(&link, "ann-at-work").await;
    let answer = stage.client_of("ann").call("whoami", json!({})).await;
    assert_eq!(text(&answer), "ann-at-work", "{answer}");
    let secrets = stage.accounts.secrets();
    let called = stage.accounts.called();
    assert!(secrets.contains(&called[0].0), "it is a token that was given out");
    let in_link = link.rsplit('/').next().unwrap_or_default().to_owned();
    let folder = stage.platform.folder().to_owned();
    let kept: Vec<PathBuf> = super::files_of(&folder);
    let bytes: Vec<u8> = kept
        .iter()
        .flat_map(|file| fs::read(file).unwrap_or_default())
        .collect();
    let has = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(
        has("$KV.credentials."),
        "the credential is there, under its subject"
    );
    for secret in secrets.iter().chain([&in_link]) {
        assert!(!has(secret), "{secret}");
    }
    stage.platform.stop().await;
}
