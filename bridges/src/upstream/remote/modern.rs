//! Streamable HTTP of the modern era: every message stands for itself, and headers repeat what routes it.
//!
//! Source: MCP 2026-07-28, Streamable HTTP. A stream that breaks off is not resumed, and dropping a request cancels it.

use std::{borrow::Cow, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use bus_schema::{
    RpcError, header,
    mcp::{ProtocolVersion, error, meta, method},
    rpc::Message,
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tracing::debug;

use crate::upstream::handshake;

use super::{
    error::RemoteError,
    exchange::{Asking, Exchange, Told},
    health::Watched,
    pump::{Carrier, Drops},
    reply::{Body, Reply, answer_in, refused},
};

/// How long a question of this room's own may take.
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// How many pages of tools are read again when a server says that a header is wrong.
const MAX_PAGES: usize = 100;

/// A modern server.
pub(super) struct Modern {
    pub(super) exchange: Exchange,
    pub(super) version: ProtocolVersion,
}

impl Modern {
    async fn try_call(&self, call: &Asking, line: Bytes) -> Result<(), RemoteError> {
        let headers = self.headers(&line);
        let mut reply = self.exchange.post_call(call, &headers, &line).await?;
        if is_mismatch(&reply) && call.method == method::TOOLS_CALL {
            self.list_tools().await;
            let corrected = self.headers(&line);
            if corrected != headers {
                reply = self.exchange.post(&corrected, line).await?;
            }
        }
        let answered = match reply.body {
            Body::Message(line) => self.exchange.deliver(call, line),
            Body::Events(mut events) => {
                let answered = self.exchange.relay(call, &mut events).await?;
                if answered {
                    events.end().await;
                }
                answered
            }
            Body::Refusal(body) => {
                let answer = answer_in(&body, call.number).ok_or_else(|| refused(reply.status, &body))?;
                self.exchange.deliver(call, answer)
            }
            Body::Nothing => return Err(RemoteError::Unanswered),
        };
        if answered {
            Ok(())
        } else {
            Err(RemoteError::Unanswered)
        }
    }

    /// The headers that a message needs; what cannot be said in a header is left to the body.
    fn headers(&self, line: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let Ok(message) = Message::parse(line) else {
            return headers;
        };
        let params = message.peek_params().unwrap_or_default();
        let mut put = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        let version = params
            .meta
            .and_then(|raw| meta::RequestMeta::deserialize(raw).ok())
            .and_then(|meta| meta::as_text(meta.protocol_version?));
        put(
            header::PROTOCOL_VERSION,
            version.as_deref().unwrap_or(self.version.as_str()),
        );
        let Some(called) = message.method.as_deref() else {
            return headers;
        };
        put(header::METHOD, called);
        let named = match method::name_key(called) {
            Some("uri") => params.uri,
            Some("taskId") => params.task_id,
            Some(_) => params.name,
            None => None,
        };
        let name = named.and_then(meta::as_text);
        if let Some(name) = &name {
            put(header::NAME, &header::encode_value(name));
        }
        if let (method::TOOLS_CALL, Some(tool)) = (called, &name) {
            headers.extend(self.exchange.tools.headers(tool, params.arguments));
        }
        headers
    }

    /// Reads the list of tools again, so that headers are what the server expects by now.
    async fn list_tools(&self) {
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let mut params = json!({ "_meta": handshake::own_meta(self.version) });
            if let Some(cursor) = &cursor {
                params["cursor"] = json!(cursor);
            }
            let Ok(Told { result: Ok(page), .. }) = self.ask(method::TOOLS_LIST, &params).await else {
                return;
            };
            self.exchange.tools.learn_page(&self.exchange.link.server, &page);
            #[derive(Deserialize)]
            #[serde(rename_all = "camelCase")]
            struct Next {
                next_cursor: Option<String>,
            }
            let next = Next::deserialize(&*page).ok().and_then(|next| next.next_cursor);
            if next.is_none() || next == cursor {
                return;
            }
            cursor = next;
        }
    }

    /// Asks something for this room itself.
    ///
    /// # Errors
    /// [`RemoteError`] when there is no answer; an error that the server gives is one.
    pub(super) async fn ask(&self, called: &str, params: &serde_json::Value) -> Result<Told, RemoteError> {
        ask(&self.exchange, self.version, called, params, ASK_LIMIT).await
    }
}

impl Watched for Modern {
    async fn check(&self) -> Result<(), RemoteError> {
        let params = json!({ "_meta": handshake::own_meta(self.version) });
        self.ask(method::DISCOVER, &params).await.map(|_| ())
    }
}

impl Carrier for Modern {
    async fn call(&self, call: &Asking, line: Bytes) {
        if let Err(error) = self.try_call(call, line).await {
            self.exchange.fail(call.number, &error);
        }
    }

    /// Only what no revision defines is told over HTTP. A modern client must not answer.
    async fn tell(&self, line: Bytes) {
        let called = Message::parse(&line)
            .ok()
            .and_then(|message| message.method.map(Cow::into_owned));
        let Some(called) = called.filter(|called| !method::NOTIFICATIONS.contains(&called.as_str())) else {
            return;
        };
        let mut headers = self.headers(&line);
        headers.remove(header::METHOD);
        if let Err(error) = self.exchange.tell(&headers, line).await {
            debug!(server.id = %self.exchange.link.server, %error, called, "a remote server does not take a notification");
        }
    }

    fn drops(&self) -> Drops {
        Drops::Cancelled
    }
}

/// Asks in the modern way, before anything is known of the server.
///
/// # Errors
/// [`RemoteError`] when there is no answer; an error that the server gives is one.
pub(super) async fn ask(
    exchange: &Exchange,
    version: ProtocolVersion,
    called: &str,
    params: &serde_json::Value,
    limit: Duration,
) -> Result<Told, RemoteError> {
    let mut headers = HeaderMap::new();
    headers.insert(
        HeaderName::from_static(header::PROTOCOL_VERSION),
        HeaderValue::from_static(version.as_str()),
    );
    let called_value = HeaderValue::from_str(called)
        .map_err(|_| RemoteError::Unusable(format!("`{called}` is no method")))?;
    headers.insert(HeaderName::from_static(header::METHOD), called_value);
    exchange.ask(&headers, called, params, limit).await
}

/// Whether a server says that a header does not repeat the body as it expects.
fn is_mismatch(reply: &Reply) -> bool {
    let Body::Refusal(body) = &reply.body else {
        return false;
    };
    let code = Message::parse(body)
        .ok()
        .and_then(|message| serde_json::from_str::<RpcError>(message.error?.get()).ok())
        .map(|error| error.code);
    reply.status == StatusCode::BAD_REQUEST && code == Some(error::HEADER_MISMATCH)
}
