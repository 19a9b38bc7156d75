//! A legacy session over HTTP, written by hand.

use bus_schema::{header, mcp::method};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::{
    http::{Client, events},
    within,
};

/// An open session.
pub struct Session {
    client: Client,
    id: String,
    /// The answer to `initialize`.
    pub opened: Value,
}

impl Session {
    /// Opens one, as a client does: `initialize`, then the notification that it is done.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn open(client: &Client, version: &str) -> Self {
        Self::open_as(client, version, &json!({})).await
    }

    /// The same of a client that can be asked what these capabilities say.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn open_as(client: &Client, version: &str, capabilities: &Value) -> Self {
        let info = json!({ "name": "test", "version": "1" });
        let params = json!({ "protocolVersion": version, "capabilities": capabilities, "clientInfo": info });
        let body = json!({ "jsonrpc": "2.0", "id": 0, "method": method::INITIALIZE, "params": params });
        let answer = within("an answer", client.raw(body.to_string()).send())
            .await
            .expect("an answer");
        let id = answer.headers().get(header::SESSION_ID).expect("a session id");
        let id = id.to_str().expect("visible ASCII").to_owned();
        let opened = answer.json().await.expect("JSON");
        let session = Self {
            client: client.clone(),
            id,
            opened,
        };
        let body = json!({ "jsonrpc": "2.0", "method": method::INITIALIZED });
        let told = within("an answer", session.with_id(&body).send())
            .await
            .expect("an answer");
        assert_eq!(told.status(), 202);
        session
    }

    /// A request of this session.
    pub fn request(&self, called: &str, params: &Value) -> RequestBuilder {
        self.with_id(&json!({ "jsonrpc": "2.0", "id": 5, "method": called, "params": params }))
    }

    /// The client's answer to a request of the server.
    pub fn answer(&self, id: &Value, result: &Value) -> RequestBuilder {
        self.with_id(&json!({ "jsonrpc": "2.0", "id": id, "result": result }))
    }

    /// Everything that answers a request: notifications, if any, and then the one response.
    ///
    /// # Panics
    /// When there is no answer in time.
    pub async fn messages(&self, called: &str, params: &Value) -> Vec<Value> {
        messages(self.request(called, params)).await
    }

    /// The response to a request, which may be an error.
    ///
    /// # Panics
    /// When there is none in time.
    pub async fn ask(&self, called: &str, params: &Value) -> Value {
        self.messages(called, params).await.pop().expect("a response")
    }

    /// The same session at the endpoint of another bridge.
    #[must_use]
    pub fn at(&self, client: &Client) -> Self {
        Self {
            client: client.clone(),
            id: self.id.clone(),
            opened: self.opened.clone(),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A request of this session's stream of notices by a client, who may be somebody else.
    pub fn listening(&self, client: &Client) -> RequestBuilder {
        client
            .request(reqwest::Method::GET)
            .header("accept", "text/event-stream")
            .header(header::SESSION_ID, &self.id)
    }

    fn with_id(&self, body: &Value) -> RequestBuilder {
        self.client
            .raw(body.to_string())
            .header(header::SESSION_ID, &self.id)
    }
}

/// Everything that answers a request of either era, whether it comes as JSON or as an event stream.
///
/// # Panics
/// When there is no answer in time.
pub async fn messages(request: RequestBuilder) -> Vec<Value> {
    within("the answer", async {
        let answer = request.send().await.expect("an answer");
        let content_type = answer
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok());
        match content_type.unwrap_or_default() {
            "text/event-stream" => events(answer).await,
            _ => vec![answer.json().await.expect("JSON")],
        }
    })
    .await
}
