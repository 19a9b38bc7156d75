//! The one channel of a client, where answers, questions and notices come as they like.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use bus_schema::mcp::method;
use serde_json::{Value, json};
use tokio::sync::MutexGuard;

use super::{Dialogue, Exchange};
use crate::channel::Channel;

/// What is said of changes, whoever asks for what meanwhile.
const NOTICES: [&str; 5] = [
    method::ACKNOWLEDGED,
    method::UPDATED,
    method::TOOLS_CHANGED,
    method::PROMPTS_CHANGED,
    method::RESOURCES_CHANGED,
];

/// The channel.
pub(super) struct Line {
    channel: tokio::sync::Mutex<Channel>,
    /// Notices that came while an answer was waited for.
    notices: Mutex<VecDeque<Value>>,
}

impl Line {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            channel: tokio::sync::Mutex::new(channel),
            notices: Mutex::default(),
        }
    }

    /// The channel, for one who knows what comes next.
    pub(super) async fn open(&self) -> MutexGuard<'_, Channel> {
        self.channel.lock().await
    }

    /// Makes a request and reads until its answer; answers the questions on the way.
    pub(super) async fn exchange(&self, body: &Value, exchange: &mut Exchange) -> Value {
        let mut channel = self.open().await;
        channel.send(body).await;
        loop {
            let message = channel.receive().await;
            let Some(method) = message["method"].as_str() else {
                return message;
            };
            if let Some(id) = message.get("id") {
                let result = Dialogue::reply(method, &message["params"]);
                let answer = json!({ "jsonrpc": "2.0", "id": id, "result": result });
                channel.send(&answer).await;
                exchange
                    .asked
                    .push((method.to_owned(), message["params"].clone()));
            } else if NOTICES.contains(&method) {
                self.kept().push_back(message);
            } else {
                exchange.parts.push(message);
            }
        }
    }

    /// The next notice.
    pub(super) async fn notice(&self) -> Value {
        if let Some(kept) = self.kept().pop_front() {
            return kept;
        }
        let message = self.open().await.receive().await;
        let is_notice = message["method"]
            .as_str()
            .is_some_and(|method| NOTICES.contains(&method));
        assert!(is_notice, "a notice was due, not {message}");
        message
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, VecDeque<Value>> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
