//! Two tenants on one platform: each has its own servers, and what the other has is to it as what is not there.

mod commands;
mod doors;
mod events;
mod own;
mod rest;

use std::sync::Arc;

use futures::{SinkExt as _, StreamExt as _};
use reqwest::Method;
use runtime::Host;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tests::{
    eventually,
    forger::Forger,
    http::{Client, modern_body},
    issuer::Issuer,
    notes::Notes,
    platform::Platform,
    session::Session,
    stream::Stream,
    within,
};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

/// The tenants, each with its mark, the server that only it has, and the mark and that server of the other one.
const TENANTS: [Sides; 2] = [
    Sides {
        tenant: "default",
        mark: "homely",
        own: "atlas",
        other_tenant: "acme",
        other_mark: "foreign",
        other: "ledger",
    },
    Sides {
        tenant: "acme",
        mark: "foreign",
        own: "ledger",
        other_tenant: "default",
        other_mark: "homely",
        other: "atlas",
    },
];
/// A server that nobody has.
const NOWHERE: &str = "nowhere";

#[derive(Clone, Copy, Debug)]
struct Sides {
    tenant: &'static str,
    mark: &'static str,
    own: &'static str,
    other_tenant: &'static str,
    other_mark: &'static str,
    other: &'static str,
}

/// A platform with a server `notes` of each tenant, and one more of each that the other does not have.
struct Stage {
    issuer: Issuer,
    platform: Platform,
    /// Those of `default`, then those of `acme`.
    notes: [Arc<Notes>; 2],
    hosts: Vec<Host>,
}

impl Stage {
    /// `more` are further sections.
    async fn start(more: &str) -> Self {
        Self::start_with(more, &["registry"]).await
    }

    async fn start_with(more: &str, servers: &[&str]) -> Self {
        let issuer = Issuer::start().await;
        let file = format!(
            "tenants = [\"acme\"]\n{}{}{more}",
            if more.contains("[[limits]]") {
                ""
            } else {
                "limits = []\n"
            },
            issuer.section("tenant_claim = \"tenant\"")
        );
        let mut platform = Platform::start(&file, servers).await;
        let (bus, mut hosts) = (platform.node.bus().clone(), Vec::new());
        let notes = TENANTS.map(|sides| Notes::new(sides.mark));
        for (notes, sides) in notes.iter().zip(TENANTS) {
            for id in ["notes", sides.own] {
                hosts.push(notes.serve(&bus, sides.tenant, id).await);
            }
            let (config, own) = (platform.config.clone(), sides.own.parse().expect("an id"));
            let front = platform
                .node
                .front_of(&config, sides.tenant)
                .await
                .expect("a front");
            eventually("the doors know the servers", async || {
                front.directory().snapshot().server(&own).is_some()
            })
            .await;
        }
        Self {
            issuer,
            platform,
            notes,
            hosts,
        }
    }

    fn token(&self, tenant: &str, more: Value) -> String {
        let mut claims = json!({ "tenant": tenant });
        for (key, value) in more.as_object().into_iter().flatten() {
            claims[key] = value.clone();
        }
        self.issuer.token("ann", &self.platform.url(""), claims)
    }

    /// A client of somebody of a tenant, of the same name in each.
    fn client(&self, tenant: &str, path: &str) -> Client {
        Client::new(self.platform.url(path)).with_token(&self.token(tenant, json!({})))
    }

    /// The same of an operator.
    fn operator(&self, tenant: &str, path: &str) -> Client {
        Client::new(self.platform.url(path)).with_token(&self.token(tenant, json!({ "roles": ["operator"] })))
    }

    async fn stop(self) {
        for host in self.hosts {
            host.stop().await;
        }
        self.platform.stop().await;
    }
}

/// The ways to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Modern,
    Session,
    Sse,
    WebSocket,
    Nats,
}

impl Way {
    const ALL: [Self; 5] = [
        Self::Modern,
        Self::Session,
        Self::Sse,
        Self::WebSocket,
        Self::Nats,
    ];

    /// Makes a request in the name of somebody of a tenant, and gives all that comes back: a response, or the status and words of a refusal.
    async fn ask(self, stage: &Stage, tenant: &str, server: &str, called: &str, params: Value) -> Value {
        let at = |path: &str| stage.client(tenant, &format!("/servers/{server}/{path}"));
        match self {
            Self::Modern => whole(at("mcp").modern(called, params)).await,
            Self::Session => in_session(&at("mcp"), called, &params).await,
            Self::Sse => by_sse(stage, tenant, server, called, &params).await,
            Self::WebSocket => by_websocket(stage, tenant, server, called, params).await,
            Self::Nats => by_nats(stage, tenant, tenant, server, called, params).await,
        }
    }
}

/// The status and everything that is said.
async fn whole(request: reqwest::RequestBuilder) -> Value {
    let answer = within("an answer", request.send()).await.expect("an answer");
    let status = answer.status().as_u16();
    let text = within("the whole answer", answer.text()).await.expect("a body");
    let last = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .next_back();
    let said = last.unwrap_or(&text);
    let said: Value = serde_json::from_str(said).unwrap_or_else(|_| json!(text));
    json!({ "status": status, "said": said })
}

fn initialize(version: &str) -> String {
    json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": version, "capabilities": {}, "clientInfo": { "name": "test", "version": "1" },
    } })
    .to_string()
}

async fn in_session(client: &Client, called: &str, params: &Value) -> Value {
    let opening = within("an answer", client.raw(initialize("2025-11-25")).send()).await;
    let opening = opening.expect("an answer");
    if !opening.headers().contains_key(bus_schema::header::SESSION_ID) {
        let status = opening.status().as_u16();
        let said: Value = opening.json().await.expect("JSON");
        return json!({ "status": status, "said": said });
    }
    let session = Session::open(client, "2025-11-25").await;
    whole(session.request(called, params)).await
}

async fn by_sse(stage: &Stage, tenant: &str, server: &str, called: &str, params: &Value) -> Value {
    let opened = stage
        .client(tenant, &format!("/servers/{server}/sse"))
        .request(Method::GET);
    let opened = within("an answer", opened.send()).await.expect("an answer");
    if opened.status() != 200 {
        return json!({ "status": opened.status().as_u16(), "said": opened.text().await.expect("a body") });
    }
    let mut stream = Stream::of(opened);
    let address = stream.event().await.expect("an event").data.expect("an address");
    let post = async |body: String| {
        let request = stage.client(tenant, &address).raw(body);
        within("an answer", request.send()).await.expect("an answer")
    };
    assert_eq!(post(initialize("2024-11-05")).await.status(), 202);
    let opened = stream.message().await;
    if opened["error"].is_object() {
        return opened;
    }
    let request = json!({ "jsonrpc": "2.0", "id": 5, "method": called, "params": params });
    assert_eq!(post(request.to_string()).await.status(), 202);
    stream.message().await
}

async fn by_websocket(stage: &Stage, tenant: &str, server: &str, called: &str, params: Value) -> Value {
    let url = stage.platform.url(&format!("/servers/{server}/ws"));
    let mut request = url
        .replacen("http", "ws", 1)
        .into_client_request()
        .expect("a request");
    let value = format!("Bearer {}", stage.token(tenant, json!({})));
    request
        .headers_mut()
        .insert("authorization", value.parse().expect("a header"));
    let (mut socket, _) = within("the connection", connect_async(request))
        .await
        .expect("a connection");
    let message = modern_body(called, params).to_string();
    socket.send(Message::text(message)).await.expect("sends");
    loop {
        let message = within("a message", socket.next()).await.expect("a message");
        if let Message::Text(text) = message.expect("a frame") {
            return serde_json::from_str(&text).expect("JSON");
        }
    }
}

/// Where the answers of somebody come who shows this.
fn inbox(shown: &str) -> String {
    let digest = Sha256::digest(shown.as_bytes());
    let hex: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("_INBOX_{hex}")
}

/// Asks as a plain NATS client of a tenant, on a subject of any tenant.
async fn by_nats(
    stage: &Stage,
    tenant: &str,
    subjects: &str,
    server: &str,
    called: &str,
    params: Value,
) -> Value {
    let token = stage.token(tenant, json!({}));
    let url = stage.platform.node.nats_url().expect("a NATS of its own");
    let mut client = Forger::enter_by(url, &token).await.expect("it comes in");
    let own = inbox(&token);
    assert!(client.subscribe(&format!("{own}.>"), None).await);
    let mut subject = format!("mcp.pub.{subjects}.{server}.{}", called.replace('/', "."));
    if let Some(key) = bus_schema::mcp::method::name_key(called) {
        let name = params[key].as_str().expect("a name");
        subject.push_str(&format!(".{}", bus_schema::Token::encode(name)));
    }
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": called, "params": params });
    let reply = format!("{own}.1");
    if !client
        .publish(&subject, Some(&reply), request.to_string().as_bytes())
        .await
    {
        return json!("the broker takes no such message");
    }
    let said = client.heard("\"jsonrpc\"").await;
    let at = said.find('{').expect("a message");
    let mut values = serde_json::Deserializer::from_str(&said[at..]).into_iter();
    values.next().expect("a message").expect("JSON")
}
