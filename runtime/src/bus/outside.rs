//! Questions to those who are no part of the platform, such as the actors of teams.

use std::time::Duration;

use async_nats::{Request, RequestErrorKind};
use bytes::Bytes;

use super::Bus;

impl Bus {
    /// Asks somebody who is no part of the platform, and waits for the one answer.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(crate) async fn ask_outside(
        &self,
        subject: String,
        question: Bytes,
        limit: Duration,
    ) -> Result<Bytes, String> {
        let request = Request::new().payload(question).timeout(Some(limit));
        match self.0.client.send_request(subject, request).await {
            Ok(answer) => Ok(answer.payload),
            Err(error) => Err(match error.kind() {
                RequestErrorKind::NoResponders => "nobody answers on its subject".to_owned(),
                RequestErrorKind::TimedOut => format!("it did not answer within {} ms", limit.as_millis()),
                _ => error.to_string(),
            }),
        }
    }
}
