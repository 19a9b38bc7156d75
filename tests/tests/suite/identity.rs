//! Who comes in by HTTP and WebSocket: tokens of a real issuer through the real doors, and what belongs to somebody else.

mod certified;
mod clients;
mod doors;
mod issuers;
mod owners;
mod readers;
mod scopes;
mod tokens;

use reqwest::{RequestBuilder, Response};
use runtime::Host;
use serde_json::{Value, json};
use tests::{http::Client, issuer::Issuer, platform::Platform, whoami::WhoAmI, within};

/// A platform that takes tokens of one issuer, with a server that tells callers who they are.
struct Stage {
    issuer: Issuer,
    platform: Platform,
    _host: Host,
}

impl Stage {
    /// `more` are further lines about the issuer, and further sections.
    async fn start(more: &str) -> Self {
        let issuer = Issuer::start().await;
        // Some ask until something holds, which takes as many calls as it takes.
        let file = format!("limits = []\n{}", issuer.section(more));
        let platform = Platform::start(&file, &[]).await;
        Self::with(issuer, platform).await
    }

    async fn with(issuer: Issuer, platform: Platform) -> Self {
        let host = WhoAmI::serve(platform.node.bus()).await;
        platform.knows("whoami").await;
        Self {
            issuer,
            platform,
            _host: host,
        }
    }

    /// A usual token for the whole platform.
    fn token(&self, subject: &str) -> String {
        self.issuer.token(subject, &self.platform.url(""), json!({}))
    }

    /// A client of the server that tells who it is.
    fn client(&self) -> Client {
        self.platform.client("whoami")
    }

    /// The same with a usual token.
    fn client_of(&self, subject: &str) -> Client {
        self.client().with_token(&self.token(subject))
    }
}

async fn send(request: RequestBuilder) -> Response {
    within("an answer", request.send()).await.expect("an answer")
}

/// A call of the tool that tells who calls.
fn whoami(client: &Client) -> RequestBuilder {
    client.modern("tools/call", json!({ "name": "whoami", "arguments": {} }))
}

/// The status of such a call with a token.
async fn status(client: &Client, token: &str) -> u16 {
    send(whoami(&client.with_token(token))).await.status().as_u16()
}

/// The principal that the server saw.
async fn seen(client: &Client) -> Value {
    let answer = send(whoami(client)).await;
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.expect("JSON");
    answer["result"]["structuredContent"].clone()
}

/// The challenge of a refusal.
fn challenge(response: &Response) -> String {
    let value = response.headers().get("www-authenticate");
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}
