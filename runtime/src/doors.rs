//! Words to the doors of all processes of a tenant, as any of them may run what a word is about.
//!
//! What the words say is the doors' own matter; here they are bytes.

use async_nats::Subscriber;
use bus_schema::{Token, subject::Subject};
use bytes::Bytes;
use futures::StreamExt as _;

use crate::bus::{Bus, BusError};

/// The words to all doors of a tenant, as they come. A process hears its own too.
pub struct DoorWords {
    words: Subscriber,
    /// What each was written under.
    subject: Subject,
}

impl DoorWords {
    /// Waits for the next word; `None` once the connection is closed.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            let message = self.words.next().await?;
            // What a consumer of JetStream delivers here keeps the subject that it was written under.
            if Subject::parse(&message.subject).as_ref() == Ok(&self.subject) {
                return Some(message.payload);
            }
        }
    }
}

impl Bus {
    /// Tells all doors of a tenant that a legacy client has cancelled something.
    ///
    /// # Errors
    /// [`BusError::Closed`] when the connection is gone.
    pub async fn cancel_at_doors(&self, tenant: &str, word: impl Into<Bytes>) -> Result<(), BusError> {
        self.publish(door_cancel(tenant).to_string(), word).await
    }

    /// Hears what a tenant's legacy clients cancel at any door.
    ///
    /// # Errors
    /// [`BusError::Subscribe`] when the bus refuses the subscription.
    pub async fn cancels_at_doors(&self, tenant: &str) -> Result<DoorWords, BusError> {
        let subject = door_cancel(tenant);
        let words = self.subscribe(subject.to_string()).await?;
        Ok(DoorWords { words, subject })
    }
}

fn door_cancel(tenant: &str) -> Subject {
    Subject::DoorCancel {
        tenant: Token::encode(tenant),
    }
}
