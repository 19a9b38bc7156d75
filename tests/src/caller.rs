//! A client of either era, for tests of what is the same in both.

use bus_schema::{ProtocolVersion, mcp::method};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::{
    http::Client,
    session::{Session, messages},
};

/// A client of one endpoint, in either era.
pub enum Caller {
    /// A modern one.
    Modern(Client),
    /// One with a session.
    Legacy(Session),
}

impl Caller {
    /// One of each era, the legacy one of the latest version.
    pub async fn both(client: Client) -> [Self; 2] {
        let session = Session::open(&client, ProtocolVersion::V2025_11_25.as_str()).await;
        [Self::Modern(client), Self::Legacy(session)]
    }

    /// A request that was not sent yet.
    pub fn request(&self, called: &str, params: Value) -> RequestBuilder {
        match self {
            Self::Modern(client) => client.modern(called, params),
            Self::Legacy(session) => session.request(called, &params),
        }
    }

    /// Makes a request, and gives all messages that answer it; the last one is the response.
    pub async fn messages(&self, called: &str, params: Value) -> Vec<Value> {
        messages(self.request(called, params)).await
    }

    /// Makes a request, and gives its result.
    ///
    /// # Panics
    /// When the response has none.
    pub async fn result(&self, called: &str, params: Value) -> Value {
        let answer = self.messages(called, params).await.pop().expect("a response");
        assert!(answer["result"].is_object(), "{called}: {answer}");
        answer["result"].clone()
    }

    /// Calls a tool, and gives its result.
    pub async fn call(&self, tool: &str, arguments: Value) -> Value {
        self.result(
            method::TOOLS_CALL,
            json!({ "name": tool, "arguments": arguments }),
        )
        .await
    }
}
