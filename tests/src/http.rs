//! A plain HTTP client that writes MCP messages by hand, so that tests see exactly what is on the wire.

use bus_schema::{
    ProtocolVersion, header,
    mcp::{meta, method},
};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

/// A client of one endpoint.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

impl Client {
    /// A client of an endpoint.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            http: reqwest::Client::new(),
            url: url.into(),
            token: None,
        }
    }

    /// The same client with a token that it shows with every request.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    /// The same client with whatever another one shows.
    #[must_use]
    pub fn with_token_of(&self, other: &Self) -> Self {
        Self {
            token: other.token.clone(),
            ..self.clone()
        }
    }

    /// A modern request as a correct client sends it; tests take it apart.
    pub fn modern(&self, called: &str, params: Value) -> RequestBuilder {
        self.modern_with_id(called, params, 1)
    }

    /// The same under another id.
    pub fn modern_with_id(&self, called: &str, params: Value, id: u64) -> RequestBuilder {
        let mut body = modern_body(called, params);
        body["id"] = id.into();
        let name = method::name_key(called).and_then(|key| {
            body["params"][key]
                .as_str()
                .map(header::encode_value)
                .map(String::from)
        });
        let request = self
            .raw(body.to_string())
            .header(header::PROTOCOL_VERSION, ProtocolVersion::MODERN.as_str())
            .header(header::METHOD, called);
        match name {
            Some(name) => request.header(header::NAME, name),
            None => request,
        }
    }

    /// A POST with the headers that every client of either era sends.
    pub fn raw(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.request(reqwest::Method::POST)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .body(body)
    }

    /// Any other request to the endpoint.
    pub fn request(&self, method: reqwest::Method) -> RequestBuilder {
        let request = self.http.request(method, &self.url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Calls a tool and gives its answer, which may be an error.
    ///
    /// # Panics
    /// When the answer is no JSON.
    pub async fn call(&self, tool: &str, arguments: Value) -> Value {
        let params = json!({ "name": tool, "arguments": arguments });
        self.ask(method::TOOLS_CALL, params).await
    }

    /// Asks for the list of tools and gives the answer, which may be an error.
    ///
    /// # Panics
    /// When the answer is no JSON.
    pub async fn list_tools(&self) -> Value {
        self.ask(method::TOOLS_LIST, json!({})).await
    }

    /// The names of the tools that are shown.
    ///
    /// # Panics
    /// When the answer is no list.
    pub async fn tool_names(&self) -> Vec<String> {
        let answer = self.list_tools().await;
        let tools = answer["result"]["tools"].as_array().expect("a list");
        let names = tools.iter().map(|tool| tool["name"].as_str().expect("a name"));
        names.map(str::to_owned).collect()
    }

    /// Makes a request that is answered as JSON, and gives the answer, which may be an error.
    async fn ask(&self, called: &str, params: Value) -> Value {
        let response = self.modern(called, params).send().await;
        response.expect("an answer").json().await.expect("JSON")
    }
}

/// A modern request's body.
#[must_use]
pub fn modern_body(called: &str, mut params: Value) -> Value {
    let keys = json!({
        meta::PROTOCOL_VERSION: ProtocolVersion::MODERN.as_str(),
        meta::CLIENT_CAPABILITIES: {},
        meta::CLIENT_INFO: { "name": "test", "version": "1" },
    });
    let own = params
        .get("_meta")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let mut all = keys.as_object().cloned().unwrap_or_default();
    all.extend(own);
    params["_meta"] = Value::Object(all);
    json!({ "jsonrpc": "2.0", "id": 1, "method": called, "params": params })
}

/// The text of the first content block of a tool's result.
#[must_use]
pub fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"]
        .as_str()
        .unwrap_or_default()
}

/// Takes the messages out of a complete event stream.
///
/// # Panics
/// When an event is no JSON.
pub async fn events(response: Response) -> Vec<Value> {
    let text = response.text().await.expect("the whole stream");
    text.split("\n\n")
        .filter_map(|event| {
            let data: Vec<&str> = event
                .lines()
                .filter_map(|line| line.strip_prefix("data: "))
                .collect();
            (!data.is_empty()).then(|| serde_json::from_str(&data.join("\n")).expect("JSON"))
        })
        .collect()
}
