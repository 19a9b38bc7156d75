//! A platform whose users have accounts of their own at a server, and the browsers by which they connect them.

use std::{fs, path::Path};

use bus_schema::mcp::{meta, method};
use reqwest::{Response, StatusCode, Url, header, redirect::Policy};
use serde_json::{Value, json};
use tests::{
    accounts::{Accounts, Knows},
    http::Client,
    issuer::Issuer,
    platform::Platform,
    remote::local,
    within,
};

/// Where users reach the platform, for all that they know.
pub(super) const PUBLIC: &str = "https://mcp.example.com";

pub(super) struct Stage {
    pub(super) accounts: Accounts,
    pub(super) issuer: Issuer,
    pub(super) platform: Platform,
    _keys: tempfile::TempDir,
}

/// A platform with two users, and a server where each has an account.
pub(super) async fn stage(knows: Knows, public: &str) -> Stage {
    staged(knows, public, |_, _| UNPROVEN.to_owned()).await
}

/// Who runs the platform.
pub(super) const OPERATOR: &str = "oscar";

/// Users know not to follow links of others.
pub(super) const UNPROVEN: &str = "unproven_links = true";

/// The same, with what is said of who follows links. That gets the issuer, and a folder.
pub(super) async fn staged(knows: Knows, public: &str, proof: impl Fn(&Issuer, &Path) -> String) -> Stage {
    let accounts = Accounts::start(knows).await;
    let line = local("there", &accounts.url(), "credentials = \"user\"");
    Stage::with(accounts, public, proof, (&line, &["there"])).await
}

impl Stage {
    /// A platform with these servers, and what they are.
    pub(super) async fn with(
        accounts: Accounts,
        public: &str,
        proof: impl Fn(&Issuer, &Path) -> String,
        (lines, servers): (&str, &[&str]),
    ) -> Self {
        let issuer = Issuer::start().await;
        let keys = tempfile::tempdir().expect("a folder");
        let key = keys.path().join("key");
        fs::write(&key, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").expect("written");
        let file = format!(
            "limits = []\nallowed_hosts = [\"mcp.example.com\"]\n{}\n[credentials]\nkey = {{ file = {} }}\npublic_url = {}\n{}\n{lines}",
            issuer.section(""),
            json!(key),
            json!(public),
            proof(&issuer, keys.path()),
        );
        let platform = Platform::start(&file, servers).await;
        if servers.contains(&"there") {
            platform.knows("there").await;
        }
        Self {
            accounts,
            issuer,
            platform,
            _keys: keys,
        }
    }

    /// A request to a page for people who run the platform, or for its users.
    pub(super) fn rest(&self, who: &str, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.rest_at(&self.platform.url(""), who, method, path)
    }

    /// The same at another door.
    pub(super) fn rest_at(
        &self,
        base: &str,
        who: &str,
        method: reqwest::Method,
        path: &str,
    ) -> reqwest::RequestBuilder {
        let roles = match who {
            OPERATOR => json!(["operator"]),
            _ => json!([]),
        };
        let token = self.issuer.token(who, base, json!({ "roles": roles }));
        reqwest::Client::new()
            .request(method, format!("{base}{path}"))
            .header(header::CONTENT_TYPE, "application/json")
            .bearer_auth(token)
    }

    pub(super) fn client_of(&self, user: &str) -> Client {
        let token = self.issuer.token(user, &self.platform.url(""), json!({}));
        self.platform.client("there").with_token(&token)
    }

    /// Calls the tool as a client that opens pages.
    pub(super) async fn call(&self, user: &str, more: &Value) -> Value {
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

    /// A browser that believes the platform to be elsewhere.
    pub(super) fn browser(&self) -> Browser<'_> {
        Browser {
            base: self.platform.url(""),
            accounts: &self.accounts,
        }
    }

    pub(super) async fn browse(&self, method: reqwest::Method, url: &str, cookie: Option<&str>) -> Response {
        self.browser().browse(method, url, cookie).await
    }

    pub(super) async fn follow(&self, link: &str) -> (String, String) {
        self.browser().follow(link).await
    }

    pub(super) async fn agree(&self, page: &str, login: &str) -> String {
        self.browser().agree(page, login).await
    }

    pub(super) async fn connect(&self, link: &str, login: &str) {
        self.browser().connect(link, login).await;
    }

    pub(super) async fn link_for(&self, user: &str) -> String {
        link_in(&self.call(user, &json!({})).await)
    }
}

/// A browser, and the server where its user has an account.
pub(super) struct Browser<'a> {
    /// Where the platform really is.
    pub(super) base: String,
    pub(super) accounts: &'a Accounts,
}

impl Browser<'_> {
    /// A page of the platform, as a browser gets it that believes to be elsewhere.
    pub(super) async fn browse(&self, method: reqwest::Method, url: &str, cookie: Option<&str>) -> Response {
        let url = Url::parse(url).expect("a URL");
        let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
        let browser = reqwest::Client::builder()
            .redirect(Policy::none())
            .build()
            .expect("a client");
        let mut request = browser.request(method, format!("{}{}{query}", self.base, url.path()));
        if let Some(cookie) = cookie {
            request = request.header(header::COOKIE, format!("other=1; {cookie}"));
        }
        within("a page", request.send()).await.expect("a page")
    }

    /// Follows a link up to the issuer: where that is, and the cookie.
    pub(super) async fn follow(&self, link: &str) -> (String, String) {
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
    pub(super) async fn agree(&self, page: &str, login: &str) -> String {
        if self.accounts.ca.is_some() {
            // Browsers of this test speak no TLS.
            return self.accounts.agree(page, login).await;
        }
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
    pub(super) async fn connect(&self, link: &str, login: &str) {
        let (page, cookie) = self.follow(link).await;
        let back = self.agree(&page, login).await;
        let done = self.browse(reqwest::Method::GET, &back, Some(&cookie)).await;
        assert_eq!(done.status(), StatusCode::OK);
    }
}

pub(super) fn said(answer: &Response, name: header::HeaderName) -> String {
    let value = answer
        .headers()
        .get(&name)
        .unwrap_or_else(|| panic!("no {name}: {answer:?}"));
    value.to_str().expect("visible").to_owned()
}

/// The link that a client is asked to open.
pub(super) fn link_in(asked: &Value) -> String {
    let page = &asked["result"]["inputRequests"]["page-1"];
    assert_eq!(page["method"], "elicitation/create", "{asked}");
    assert_eq!(page["params"]["mode"], "url", "{asked}");
    page["params"]["url"].as_str().expect("a link").to_owned()
}

pub(super) fn again(asked: &Value, action: &str) -> Value {
    json!({
        "requestState": asked["result"]["requestState"],
        "inputResponses": { "page-1": { "action": action } }
    })
}
