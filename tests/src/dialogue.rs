//! A client of any protocol version, written by hand: it asks, answers what it is asked in return, and hears of changes, each in the
//! way of its version.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use bus_schema::{
    ProtocolVersion, header,
    mcp::{Era, meta, method},
};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use crate::{http::Client, stream::Stream, within};

/// A client.
pub struct Dialogue {
    client: Client,
    version: ProtocolVersion,
    capabilities: Value,
    session: Option<String>,
    next_id: AtomicU64,
    /// From which level on it wants log lines.
    level: Option<&'static str>,
    /// What a handshake, or `server/discover`, has said of the server.
    pub opened: Value,
}

/// Everything that came of one request.
#[derive(Debug, Default)]
pub struct Exchange {
    /// The notifications, in order.
    pub parts: Vec<Value>,
    /// What the client was asked in return: the method and its parameters.
    pub asked: Vec<(String, Value)>,
    /// The response.
    pub answer: Value,
}

impl Exchange {
    /// The text of the first content block.
    #[must_use]
    pub fn text(&self) -> &str {
        crate::http::text(&self.answer)
    }

    /// The notifications of one method.
    #[must_use]
    pub fn parts_of(&self, method: &str) -> Vec<&Value> {
        self.parts
            .iter()
            .filter(|part| part["method"] == method)
            .collect()
    }
}

impl Dialogue {
    /// Opens a conversation in the way of a version.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn open(client: Client, version: ProtocolVersion, capabilities: Value) -> Self {
        let mut dialogue = Self {
            client,
            version,
            capabilities,
            session: None,
            next_id: AtomicU64::new(1),
            level: None,
            opened: Value::Null,
        };
        if version.era() == Era::Modern {
            dialogue.opened = dialogue.ask(method::DISCOVER, json!({})).await.answer["result"].clone();
            return dialogue;
        }
        let params = json!({
            "protocolVersion": version.as_str(), "capabilities": dialogue.capabilities,
            "clientInfo": { "name": "test", "version": "1" },
        });
        let body = json!({ "jsonrpc": "2.0", "id": 0, "method": method::INITIALIZE, "params": params });
        let answer = within("an answer", dialogue.client.raw(body.to_string()).send())
            .await
            .expect("an answer");
        let id = answer.headers().get(header::SESSION_ID).expect("a session id");
        dialogue.session = Some(id.to_str().expect("visible ASCII").to_owned());
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!(answer["result"]["protocolVersion"], version.as_str(), "{answer}");
        dialogue.opened = answer["result"].clone();
        dialogue
            .tell(&json!({ "jsonrpc": "2.0", "method": method::INITIALIZED }))
            .await;
        dialogue
    }

    /// Asks for log lines from a level on.
    pub async fn want_log(&mut self, level: &'static str) {
        self.level = Some(level);
        if self.version.era() == Era::Legacy {
            let set = self.ask(method::SET_LEVEL, json!({ "level": level })).await;
            assert_eq!(set.answer["result"], json!({}), "{:?}", set.answer);
        }
    }

    /// Calls a tool.
    pub async fn call(&self, tool: &str, arguments: Value) -> Exchange {
        self.ask(
            method::TOOLS_CALL,
            json!({ "name": tool, "arguments": arguments }),
        )
        .await
    }

    /// Makes a request, and answers what it is asked meanwhile.
    ///
    /// # Panics
    /// When there is no answer in time.
    pub async fn ask(&self, called: &str, params: Value) -> Exchange {
        let asked = async {
            match self.version.era() {
                Era::Modern => self.ask_modern(called, params).await,
                Era::Legacy => self.ask_legacy(called, params).await,
            }
        };
        within("the whole answer", asked).await
    }

    /// Asks to be told of changes: of lists, and of one resource.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn listen(&self, uri: &str) -> Stream {
        match self.version.era() {
            Era::Modern => {
                let wanted = json!({
                    "toolsListChanged": true, "promptsListChanged": true, "resourceSubscriptions": [uri],
                });
                let request = self.modern(method::LISTEN, json!({ "notifications": wanted }), self.id());
                let mut stream = Stream::of(send(request).await);
                let first = stream.message().await;
                assert_eq!(first["method"], method::ACKNOWLEDGED, "{first}");
                assert_eq!(
                    first["params"]["notifications"]["resourceSubscriptions"],
                    json!([uri]),
                    "{first}"
                );
                stream
            }
            Era::Legacy => {
                let stream = Stream::of(
                    send(
                        self.in_session(self.client.request(reqwest::Method::GET))
                            .header("accept", "text/event-stream"),
                    )
                    .await,
                );
                let subscribed = self.ask(method::SUBSCRIBE, json!({ "uri": uri })).await;
                assert_eq!(subscribed.answer["result"], json!({}), "{:?}", subscribed.answer);
                stream
            }
        }
    }

    /// The client's answer to what a server asks.
    fn reply(method: &str, params: &Value) -> Value {
        match method {
            method::ELICIT if params["mode"] == "url" => json!({ "action": "accept" }),
            method::ELICIT => {
                let mut content = serde_json::Map::new();
                for (name, property) in params["requestedSchema"]["properties"]
                    .as_object()
                    .into_iter()
                    .flatten()
                {
                    let value = match property["type"].as_str() {
                        Some("string") => property["enum"][0]
                            .as_str()
                            .or(property["oneOf"][0]["const"].as_str())
                            .map_or(json!("blue"), |word| json!(word)),
                        Some("integer" | "number") => json!(7),
                        Some("boolean") => json!(true),
                        _ => continue,
                    };
                    content.insert(name.clone(), value);
                }
                json!({ "action": "accept", "content": content })
            }
            method::SAMPLE => {
                json!({ "role": "assistant", "model": "test", "content": { "type": "text", "text": "four" } })
            }
            _ => json!({ "roots": [{ "uri": "file:///home/test", "name": "home" }] }),
        }
    }

    async fn ask_modern(&self, called: &str, params: Value) -> Exchange {
        let mut exchange = Exchange::default();
        let mut round = params.clone();
        loop {
            let id = self.id();
            let response = send(self.modern(called, round, id)).await;
            let answer = self.read_modern(response, &mut exchange).await;
            assert_eq!(answer["id"], id, "{answer}");
            if answer["result"]["resultType"] != "input_required" {
                exchange.answer = answer;
                return exchange;
            }
            let mut responses = serde_json::Map::new();
            for (key, asked) in answer["result"]["inputRequests"]
                .as_object()
                .into_iter()
                .flatten()
            {
                let method = asked["method"].as_str().expect("a method").to_owned();
                responses.insert(key.clone(), Self::reply(&method, &asked["params"]));
                exchange.asked.push((method, asked["params"].clone()));
            }
            round = params.clone();
            if !responses.is_empty() {
                round["inputResponses"] = Value::Object(responses);
            }
            if let Some(state) = answer["result"].get("requestState") {
                round["requestState"] = state.clone();
            }
        }
    }

    async fn read_modern(&self, response: Response, exchange: &mut Exchange) -> Value {
        if !is_stream(&response) {
            return response.json().await.expect("JSON");
        }
        let mut stream = Stream::of(response);
        loop {
            let message = stream.message().await;
            if message.get("method").is_none() {
                return message;
            }
            assert!(
                message.get("id").is_none(),
                "a modern client is sent no requests: {message}"
            );
            exchange.parts.push(message);
        }
    }

    async fn ask_legacy(&self, called: &str, params: Value) -> Exchange {
        let mut exchange = Exchange::default();
        let id = self.id();
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": called, "params": params });
        let response = send(self.in_session(self.client.raw(body.to_string()))).await;
        assert_eq!(response.status(), 200);
        if !is_stream(&response) {
            exchange.answer = response.json().await.expect("JSON");
            return exchange;
        }
        let mut stream = Stream::of(response);
        loop {
            let message = stream.message().await;
            match (message.get("method"), message.get("id")) {
                (Some(method), Some(id)) => {
                    let method = method.as_str().expect("a method").to_owned();
                    let result = Self::reply(&method, &message["params"]);
                    self.tell(&json!({ "jsonrpc": "2.0", "id": id, "result": result }))
                        .await;
                    exchange.asked.push((method, message["params"].clone()));
                }
                (Some(_), None) => exchange.parts.push(message),
                (None, _) => {
                    assert_eq!(message["id"], id, "{message}");
                    exchange.answer = message;
                    return exchange;
                }
            }
        }
    }

    fn modern(&self, called: &str, mut params: Value, id: u64) -> RequestBuilder {
        let mut own: BTreeMap<&str, Value> =
            BTreeMap::from([(meta::CLIENT_CAPABILITIES, self.capabilities.clone())]);
        if let Some(level) = self.level {
            own.insert(meta::LOG_LEVEL, json!(level));
        }
        for (key, value) in own {
            params["_meta"][key] = value;
        }
        self.client.modern_with_id(called, params, id)
    }

    /// A notification or response of a legacy client.
    async fn tell(&self, message: &Value) {
        let told = send(self.in_session(self.client.raw(message.to_string()))).await;
        assert_eq!(told.status(), 202, "{message}");
    }

    fn in_session(&self, request: RequestBuilder) -> RequestBuilder {
        let request = match &self.session {
            Some(session) => request.header(header::SESSION_ID, session),
            None => request,
        };
        if self.version >= ProtocolVersion::V2025_06_18 {
            return request.header(header::PROTOCOL_VERSION, self.version.as_str());
        }
        request
    }

    fn id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

async fn send(request: RequestBuilder) -> Response {
    request.send().await.expect("an answer")
}

fn is_stream(response: &Response) -> bool {
    let content_type = response.headers().get("content-type");
    content_type.is_some_and(|value| value == "text/event-stream")
}
