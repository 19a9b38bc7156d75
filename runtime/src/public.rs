//! The public plane: calls that plain NATS clients publish, as they come, before any of it is believed.

use async_nats::{HeaderMap, Subscriber};
use bus_schema::{header, subject};
use bytes::Bytes;
use futures::StreamExt as _;
use tracing::debug;

use crate::bus::{Bus, BusError};

/// The calls of plain NATS clients.
pub struct PublicCalls {
    bus: Bus,
    calls: Subscriber,
}

/// One call of a plain NATS client.
pub struct PublicCall {
    /// The subject it came on.
    pub subject: String,
    /// Where its answers go.
    pub reply: Option<String>,
    /// The value of its `Content-Type` header.
    pub content_type: Option<String>,
    /// What the broker says of the client, as JSON.
    pub request_info: Option<String>,
    /// The trace that it is part of.
    pub trace: Option<(String, Option<String>)>,
    /// The message.
    pub payload: Bytes,
}

impl PublicCalls {
    /// Waits for the next call; `None` once the subscription has ended.
    pub async fn next(&mut self) -> Option<PublicCall> {
        let message = self.calls.next().await?;
        let get = |name: &str| {
            message
                .headers
                .as_ref()
                .and_then(|h| h.get_last(name))
                .map(|value| value.as_str().to_owned())
        };
        Some(PublicCall {
            content_type: get(header::CONTENT_TYPE),
            request_info: get(header::NATS_REQUEST_INFO),
            trace: get(header::TRACEPARENT).map(|parent| (parent, get(header::TRACESTATE))),
            subject: message.subject.to_string(),
            reply: message.reply.as_ref().map(ToString::to_string),
            payload: message.payload,
        })
    }

    /// Stops taking calls; those that have arrived are still delivered.
    pub async fn drain(&mut self) {
        if let Err(error) = self.calls.drain().await {
            debug!(%error, "the public subscription had ended already");
        }
    }

    /// Sends one message of an answer.
    ///
    /// # Errors
    /// [`BusError::Closed`] when the connection is gone.
    pub async fn answer(
        bus: &Bus,
        reply: String,
        content_type: &str,
        payload: Vec<u8>,
    ) -> Result<(), BusError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, content_type);
        bus.publish_with_headers(reply, headers, payload).await
    }

    /// The largest answer that one message can carry.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.bus.max_payload()
    }
}

impl Bus {
    /// Opens a subscription outside the internal protocol; the door for plain NATS clients uses it.
    ///
    /// # Errors
    /// [`BusError`] when the client library or the broker refuses the subject.
    pub async fn serve_public(&self) -> Result<PublicCalls, BusError> {
        let calls = self.queue_subscribe(subject::all_public_calls()).await?;
        self.round_trip().await?;
        Ok(PublicCalls {
            bus: self.clone(),
            calls,
        })
    }
}
