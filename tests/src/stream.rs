//! An event stream that is read as it comes.

use std::collections::VecDeque;

use futures::StreamExt as _;
use reqwest::Response;
use serde_json::Value;

use crate::within;

/// One event of a stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// Its id, if it has one.
    pub id: Option<String>,
    /// Its data, if it has any.
    pub data: Option<String>,
}

/// An open event stream.
pub struct Stream {
    body: std::pin::Pin<Box<dyn futures::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    unread: String,
    events: VecDeque<Event>,
    /// How many comment lines have come.
    pub comments: usize,
}

impl Stream {
    /// Reads on where a response begins.
    ///
    /// # Panics
    /// When the response is no event stream.
    #[must_use]
    pub fn of(response: Response) -> Self {
        let content_type = response.headers().get("content-type").cloned();
        assert_eq!(content_type.expect("a content type"), "text/event-stream");
        Self {
            body: Box::pin(response.bytes_stream()),
            unread: String::new(),
            events: VecDeque::new(),
            comments: 0,
        }
    }

    /// The next event; `None` at the end of the stream, in order or not.
    pub async fn event(&mut self) -> Option<Event> {
        within("the next event", async {
            loop {
                if let Some(event) = self.events.pop_front() {
                    return Some(event);
                }
                match self.body.next().await {
                    Some(Ok(piece)) => self.take(&String::from_utf8_lossy(&piece)),
                    Some(Err(_)) | None => return None,
                }
            }
        })
        .await
    }

    /// The next message.
    ///
    /// # Panics
    /// When the stream ends before it.
    pub async fn message(&mut self) -> Value {
        loop {
            let event = self.event().await.expect("a further message");
            if let Some(data) = event.data.filter(|data| !data.is_empty()) {
                return serde_json::from_str(&data).expect("JSON");
            }
        }
    }

    fn take(&mut self, piece: &str) {
        self.unread.push_str(piece);
        while let Some((block, rest)) = self.unread.split_once("\n\n") {
            let mut event = Event::default();
            let mut data = Vec::new();
            for line in block.lines() {
                match line.split_once(':') {
                    Some(("", _)) => self.comments += 1,
                    Some(("id", id)) => event.id = Some(id.trim_start().to_owned()),
                    Some(("data", text)) => data.push(text.trim_start().to_owned()),
                    _ => {}
                }
            }
            if !data.is_empty() {
                event.data = Some(data.join("\n"));
            }
            if event != Event::default() {
                self.events.push_back(event);
            }
            self.unread = rest.to_owned();
        }
    }
}
