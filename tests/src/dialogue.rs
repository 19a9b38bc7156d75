//! A client of any protocol version, written by hand: it asks, answers what it is asked in return, gives up, and hears of changes,
//! each in the way of its version and of its door.

mod line;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bus_schema::{
    ProtocolVersion, header,
    mcp::{Era, meta, method},
};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use self::line::Line;
use crate::{
    channel::Channel,
    http::{Client, modern_body},
    stream::Stream,
    within,
};

/// A client.
pub struct Dialogue {
    way: Way,
    version: ProtocolVersion,
    capabilities: Value,
    next_id: AtomicU64,
    /// From which level on it wants log lines.
    level: Option<&'static str>,
    /// What a handshake, or `server/discover`, has said of the server.
    pub opened: Value,
}

/// How it reaches its door.
enum Way {
    /// By requests over HTTP, those of a legacy client in a session.
    Http { client: Client, session: Option<String> },
    /// By messages on one channel.
    Channel(Arc<Line>),
}

/// Where a client is told of changes.
pub enum Notices {
    /// On a stream for nothing else.
    Stream(Box<Stream>),
    /// On the client's one channel, if it is modern under the id of its listen request.
    Channel(ChannelNotices),
}

/// The notices on a channel.
pub struct ChannelNotices {
    line: Arc<Line>,
    listener: Option<u64>,
}

impl Notices {
    /// The next notice.
    ///
    /// # Panics
    /// When none comes, or when it is for another listener.
    pub async fn message(&mut self) -> Value {
        match self {
            Self::Stream(stream) => stream.message().await,
            Self::Channel(ChannelNotices { line, listener }) => {
                let notice = line.notice().await;
                let told = notice["params"]["_meta"][meta::SUBSCRIPTION_ID].as_u64();
                assert_eq!(told, *listener, "{notice}");
                notice
            }
        }
    }
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
    /// Opens a conversation over HTTP in the way of a version.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn open(client: Client, version: ProtocolVersion, capabilities: Value) -> Self {
        let way = Way::Http {
            client,
            session: None,
        };
        Self::open_by(way, version, capabilities).await
    }

    /// Opens a conversation on a channel.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn open_on(channel: Channel, version: ProtocolVersion, capabilities: Value) -> Self {
        Self::open_by(Way::Channel(Arc::new(Line::new(channel))), version, capabilities).await
    }

    async fn open_by(way: Way, version: ProtocolVersion, capabilities: Value) -> Self {
        let mut dialogue = Self {
            way,
            version,
            capabilities,
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
        let answer = match &mut dialogue.way {
            Way::Http { client, session } => {
                let answer = within("an answer", client.raw(body.to_string()).send())
                    .await
                    .expect("an answer");
                let id = answer.headers().get(header::SESSION_ID).expect("a session id");
                *session = Some(id.to_str().expect("visible ASCII").to_owned());
                answer.json().await.expect("JSON")
            }
            Way::Channel(line) => line.open().await.ask(&body).await,
        };
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
    pub async fn listen(&self, uri: &str) -> Notices {
        match self.version.era() {
            Era::Modern => {
                let wanted = json!({
                    "toolsListChanged": true, "promptsListChanged": true, "resourceSubscriptions": [uri],
                });
                let (notices, granted) = self.listen_for(wanted).await;
                assert_eq!(granted["resourceSubscriptions"], json!([uri]), "{granted}");
                notices
            }
            Era::Legacy => {
                let notices = match &self.way {
                    Way::Http { client, .. } => {
                        let request = self.in_session(client.request(reqwest::Method::GET));
                        let response = send(request.header("accept", "text/event-stream")).await;
                        Notices::Stream(Box::new(Stream::of(response)))
                    }
                    Way::Channel(line) => self.notices_of(line, None),
                };
                let subscribed = self.ask(method::SUBSCRIBE, json!({ "uri": uri })).await;
                assert_eq!(subscribed.answer["result"], json!({}), "{:?}", subscribed.answer);
                notices
            }
        }
    }

    /// Asks in the modern era to be told of tasks. Those of other ids than the first are not to be granted.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn listen_for_tasks(&self, ids: &[&str]) -> Notices {
        let (notices, granted) = self.listen_for(json!({ "taskIds": ids })).await;
        assert_eq!(granted["taskIds"], json!(ids[..1]), "{granted}");
        notices
    }

    /// Asks in the modern era to be told of this. Gives what was granted as well.
    async fn listen_for(&self, wanted: Value) -> (Notices, Value) {
        let (id, params) = (self.id(), json!({ "notifications": wanted }));
        let mut notices = match &self.way {
            Way::Http { client, .. } => {
                let request = client.modern_with_id(method::LISTEN, self.with_meta(params), id);
                Notices::Stream(Box::new(Stream::of(send(request).await)))
            }
            Way::Channel(line) => {
                line.open()
                    .await
                    .send(&self.body(method::LISTEN, params, id))
                    .await;
                self.notices_of(line, Some(id))
            }
        };
        let first = notices.message().await;
        assert_eq!(first["method"], method::ACKNOWLEDGED, "{first}");
        let granted = first["params"]["notifications"].clone();
        (notices, granted)
    }

    /// Calls a tool, and gives the call up in the way of the version and the door as soon as it tells of its progress.
    ///
    /// # Panics
    /// When it tells of none.
    pub async fn give_up(&self, tool: &str, arguments: Value) {
        let id = self.id();
        let params = json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": id } });
        let cancel = json!({ "jsonrpc": "2.0", "method": method::CANCELLED, "params": { "requestId": id } });
        let is_modern = self.version.era() == Era::Modern;
        match &self.way {
            Way::Http { client, .. } => {
                let request = if is_modern {
                    client.modern_with_id(method::TOOLS_CALL, self.with_meta(params), id)
                } else {
                    self.in_session(client.raw(self.body(method::TOOLS_CALL, params, id).to_string()))
                };
                let mut stream = Stream::of(send(request).await);
                let begun = stream.message().await;
                assert_eq!(begun["method"], method::PROGRESS, "{begun}");
                // The end of its stream gives up a modern call, and means nothing to a legacy one.
                if !is_modern {
                    self.tell(&cancel).await;
                }
            }
            Way::Channel(line) => {
                let mut channel = line.open().await;
                let begun = channel.ask(&self.body(method::TOOLS_CALL, params, id)).await;
                assert_eq!(begun["method"], method::PROGRESS, "{begun}");
                channel.send(&cancel).await;
            }
        }
    }

    /// Ends the conversation; over HTTP there is nothing to end.
    pub async fn end(self) {
        if let Way::Channel(line) = &self.way {
            line.open().await.end().await;
        }
    }

    fn notices_of(&self, line: &Arc<Line>, listener: Option<u64>) -> Notices {
        Notices::Channel(ChannelNotices {
            line: Arc::clone(line),
            listener,
        })
    }

    /// The client's answer to what a server asks.
    pub(crate) fn reply(method: &str, params: &Value) -> Value {
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
            let answer = match &self.way {
                Way::Http { client, .. } => {
                    let request = client.modern_with_id(called, self.with_meta(round), id);
                    self.read_modern(send(request).await, &mut exchange).await
                }
                Way::Channel(line) => {
                    let (body, asked) = (self.body(called, round, id), exchange.asked.len());
                    let answer = line.exchange(&body, &mut exchange).await;
                    assert_eq!(
                        exchange.asked.len(),
                        asked,
                        "a modern client is sent no requests: {exchange:?}"
                    );
                    answer
                }
            };
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
        let body = self.body(called, params, id);
        let client = match &self.way {
            Way::Http { client, .. } => client,
            Way::Channel(line) => {
                exchange.answer = line.exchange(&body, &mut exchange).await;
                assert_eq!(exchange.answer["id"], id, "{exchange:?}");
                return exchange;
            }
        };
        let response = send(self.in_session(client.raw(body.to_string()))).await;
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

    /// A request of its version.
    fn body(&self, called: &str, params: Value, id: u64) -> Value {
        if self.version.era() == Era::Legacy {
            return json!({ "jsonrpc": "2.0", "id": id, "method": called, "params": params });
        }
        let mut body = modern_body(called, self.with_meta(params));
        body["id"] = id.into();
        body
    }

    /// What a modern client says of itself with every request.
    fn with_meta(&self, mut params: Value) -> Value {
        let mut own: BTreeMap<&str, Value> =
            BTreeMap::from([(meta::CLIENT_CAPABILITIES, self.capabilities.clone())]);
        if let Some(level) = self.level {
            own.insert(meta::LOG_LEVEL, json!(level));
        }
        for (key, value) in own {
            params["_meta"][key] = value;
        }
        params
    }

    /// A notification or response of a legacy client.
    async fn tell(&self, message: &Value) {
        match &self.way {
            Way::Http { client, .. } => {
                let told = send(self.in_session(client.raw(message.to_string()))).await;
                assert_eq!(told.status(), 202, "{message}");
            }
            Way::Channel(line) => line.open().await.send(message).await,
        }
    }

    fn in_session(&self, request: RequestBuilder) -> RequestBuilder {
        let request = match &self.way {
            Way::Http {
                session: Some(session),
                ..
            } => request.header(header::SESSION_ID, session),
            _ => request,
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
