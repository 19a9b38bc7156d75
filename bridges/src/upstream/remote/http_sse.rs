//! HTTP+SSE, the transport of 2024-11-05: one stream of events brings everything, and messages are posted to where it says.
//!
//! Source: MCP 2024-11-05, transports. The stream is the session: when it ends, so does the conversation.

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderMap, Uri};
use bus_schema::mcp::method;
use bytes::Bytes;
use serde_json::json;
use tokio::time::timeout;
use tracing::debug;
use url::Url;

use crate::upstream::link::Link;

use super::{
    client::Client,
    error::{RemoteError, chain},
    exchange::{Asking, Exchange},
    health::Watched,
    options::{shown, to_uri},
    pump::{Carrier, Drops},
    reply::{Body, Events, refused},
    sse::{Data, Event},
};

/// How long the server may take to say where messages go.
const ENDPOINT_LIMIT: Duration = Duration::from_secs(10);
/// The type of the event that says so.
const ENDPOINT: &str = "endpoint";
/// A longer one is none.
const MAX_ENDPOINT_BYTES: usize = 8 * 1024;

/// A server that is written to by itself, and answers on its stream.
pub(super) struct HttpSse {
    /// Its address is the one that messages are posted to.
    pub(super) exchange: Exchange,
}

impl HttpSse {
    /// Opens the stream, and learns where to post.
    ///
    /// # Errors
    /// [`RemoteError`] when there is no such stream.
    pub(super) async fn open(
        link: Arc<Link>,
        client: Arc<Client>,
        url: &Url,
    ) -> Result<(Self, Box<Events>), RemoteError> {
        let mut exchange = Exchange::new(link, client, to_uri(url)?);
        let opening = async {
            let reply = exchange.get(&HeaderMap::new()).await?;
            let mut events = match reply.body {
                Body::Events(events) => events,
                Body::Refusal(body) => return Err(refused(reply.status, &body)),
                _ => return Err(RemoteError::Unusable("it is no stream of events".to_owned())),
            };
            match events.next().await? {
                Some(Event {
                    kind,
                    data: Data::Whole(data),
                }) if kind == ENDPOINT => Ok((endpoint(url, &data)?, events)),
                Some(_) => Err(RemoteError::Unusable(
                    "its stream does not begin with an `endpoint` event".to_owned(),
                )),
                None => Err(RemoteError::Unanswered),
            }
        };
        let (uri, events) = timeout(ENDPOINT_LIMIT, opening)
            .await
            .unwrap_or(Err(RemoteError::Late(ENDPOINT_LIMIT)))?;
        exchange.uri = uri;
        Ok((Self { exchange }, events))
    }

    /// Takes what the stream brings, until it ends.
    pub(super) async fn read(&self, mut events: Box<Events>) {
        let _broken = self.exchange.link.break_guard();
        let why = loop {
            match events.next().await {
                Ok(Some(event)) => self.exchange.take_event(event).await,
                Ok(None) => break "its event stream ended".to_owned(),
                Err(error) => break chain(&error),
            }
        };
        self.exchange.health.give_up(why);
    }
}

impl Watched for HttpSse {
    async fn check(&self) -> Result<(), RemoteError> {
        let link = &self.exchange.link;
        if link.ask(method::PING, &json!({})).await.is_ok() {
            return Ok(());
        }
        // Whether that was the server's own error is told by whether it takes a message at all.
        let ping = json!({ "jsonrpc": "2.0", "id": link.next_number(), "method": method::PING });
        self.exchange
            .tell(&HeaderMap::new(), ping.to_string().into())
            .await
    }
}

impl Carrier for HttpSse {
    async fn call(&self, call: &Asking, line: Bytes) {
        // The answer comes on the stream.
        if let Err(error) = self.exchange.tell(&HeaderMap::new(), line).await {
            self.exchange.fail(call.number, &error);
        }
    }

    async fn tell(&self, line: Bytes) {
        if let Err(error) = self.exchange.tell(&HeaderMap::new(), line).await {
            debug!(server.id = %self.exchange.link.server, %error, "a remote server does not take a message");
        }
    }

    fn drops(&self) -> Drops {
        Drops::Told
    }
}

/// Where to post, as the stream says. It must be at the same origin, so that a server cannot send the platform elsewhere.
fn endpoint(url: &Url, data: &[u8]) -> Result<Uri, RemoteError> {
    let unusable = |why: String| RemoteError::Unusable(format!("its `endpoint` event {why}"));
    let text = std::str::from_utf8(data)
        .ok()
        .filter(|text| text.len() <= MAX_ENDPOINT_BYTES && !text.trim().is_empty())
        .ok_or_else(|| unusable("holds no address".to_owned()))?;
    let mut target = url
        .join(text.trim())
        .map_err(|error| unusable(format!("holds no address ({error})")))?;
    target.set_fragment(None);
    let same = (target.scheme(), target.host(), target.port_or_known_default())
        == (url.scheme(), url.host(), url.port_or_known_default());
    let plain = target.username().is_empty() && target.password().is_none();
    if !same || !plain {
        let target = shown(target.as_str());
        return Err(unusable(format!("leads to `{target}`, which is another origin")));
    }
    to_uri(&target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_posted_where_the_stream_says_if_that_is_the_same_origin() {
        let url = Url::parse("https://a.example/base/sse?x=1").unwrap();
        for (data, expected) in [
            ("/message?id=1", Some("https://a.example/message?id=1")),
            ("message", Some("https://a.example/base/message")),
            ("?id=1", Some("https://a.example/base/sse?id=1")),
            (" ../up/ ", Some("https://a.example/up/")),
            ("https://a.example:443/m", Some("https://a.example/m")),
            ("https://b.example/m", None),
            ("http://a.example/m", None),
            ("https://a.example:8443/m", None),
            ("//b.example/m", None),
            ("https://me@a.example/m", None),
            ("javascript:alert(1)", None),
            ("", None),
        ] {
            let uri = endpoint(&url, data.as_bytes()).ok().map(|uri| uri.to_string());
            assert_eq!(uri.as_deref(), expected, "{data:?}");
        }
    }
}
