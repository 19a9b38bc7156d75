//! A certified provider, `oidc-provider` of npm, in a process of its own that ends with the test. What no honest provider would sign is
//! signed in [`crate::issuer`].

use std::process::Stdio;

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Child,
};

use crate::{parts, within};

/// A client that gets tokens for itself, and its secret.
pub const ROBOT: (&str, &str) = ("robot", "a-secret");
/// Who the platform is when it asks about tokens. Both parts are written as in a form, so the secret has what forms encode.
pub const PLATFORM: (&str, &str) = ("trunkline", "a secret: with/signs");
/// Who is logged in.
pub const USER: &str = "ann";

/// A running provider.
pub struct Provider {
    url: String,
    /// What it tells of itself.
    metadata: Value,
    http: reqwest::Client,
    _child: Child,
}

impl Provider {
    /// Starts one, all of whose resources know these scopes.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(scopes: &[&str]) -> Self {
        let program = parts::npm().join("fixtures/oidc.mjs");
        let clients = json!({ ROBOT.0: ROBOT.1, PLATFORM.0: PLATFORM.1 });
        let argument = json!({ "user": USER, "scopes": scopes, "clients": clients });
        let mut child = parts::node(&program)
            .arg(argument.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the provider starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let line = within("the provider listens", lines.next_line()).await;
        let line = line.expect("a line").expect("it has not ended");
        let told: Value = serde_json::from_str(&line).expect("JSON");
        let url = told["issuer"].as_str().expect("a URL").to_owned();
        let http = reqwest::Client::new();
        let metadata = http.get(format!("{url}/.well-known/openid-configuration"));
        let metadata = within("its metadata", metadata.send()).await.expect("an answer");
        Self {
            metadata: metadata.json().await.expect("JSON"),
            url,
            http,
            _child: child,
        }
    }

    /// Its name.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it is asked for something, such as `introspection_endpoint`.
    ///
    /// # Panics
    /// When it does not tell.
    #[must_use]
    pub fn endpoint(&self, name: &str) -> &str {
        self.metadata[name].as_str().expect("it tells of the endpoint")
    }

    /// The section that makes a platform take its tokens. `more` are further lines about it.
    #[must_use]
    pub fn section(&self, more: &str) -> String {
        format!(
            "[auth]\nmode = \"oauth\"\nrequired_scopes = [\"mcp\"]\n[[auth.issuers]]\nissuer = {}\nallow_private = true\n{more}\n",
            json!(self.url)
        )
    }

    /// A token for [`ROBOT`] itself.
    ///
    /// # Panics
    /// When it gives none.
    pub async fn token(&self, resource: &str, scope: &str) -> String {
        let form = [
            ("grant_type", "client_credentials"),
            ("resource", resource),
            ("scope", scope),
        ];
        let answer = self.post(self.endpoint("token_endpoint"), &form).await;
        let answer: Value = answer.json().await.expect("JSON");
        answer["access_token"].as_str().expect("a token").to_owned()
    }

    /// Takes a token of [`ROBOT`] back.
    pub async fn revoke(&self, token: &str) {
        self.post(self.endpoint("revocation_endpoint"), &[("token", token)])
            .await;
    }

    /// Signs with a new key from now on; the old ones are still shown.
    pub async fn rotate(&self) {
        self.control(json!({ "rotate": true })).await;
    }

    /// Shows the newest key only.
    pub async fn forget_old_keys(&self) {
        self.control(json!({ "forget": true })).await;
    }

    /// Gives out tokens that last so many seconds from now on.
    pub async fn set_life(&self, seconds: u32) {
        self.control(json!({ "life": seconds })).await;
    }

    /// Gives out tokens that say nothing from now on.
    pub async fn set_opaque(&self) {
        self.control(json!({ "format": "opaque" })).await;
    }

    async fn control(&self, what: Value) {
        let request = self.http.post(format!("{}/control", self.url));
        let sent = request.body(what.to_string()).send();
        let answer = within("the provider changes", sent).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    }

    async fn post(&self, url: &str, form: &[(&str, &str)]) -> Response {
        let encoded = reqwest::Url::parse_with_params("form:", form).expect("a form");
        let request = self.http.post(url).basic_auth(ROBOT.0, Some(ROBOT.1));
        let sent = request
            .header("content-type", "application/x-www-form-urlencoded")
            .body(encoded.query().unwrap_or_default().to_owned())
            .send();
        let answer = within("the provider answers", sent).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{url} {form:?}");
        answer
    }
}
