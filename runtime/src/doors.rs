//! Words to the doors of all processes, as any of them may run what a word is about.
//!
//! What the words say is the doors' own matter; here they are bytes.

use async_nats::Subscriber;
use bus_schema::subject::Subject;
use bytes::Bytes;
use futures::StreamExt as _;

use crate::bus::{Bus, BusError};

/// The words to all doors, as they come. A process hears its own too.
pub struct DoorWords(Subscriber);

impl DoorWords {
    /// Waits for the next word; `None` once the connection is closed.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            let message = self.0.next().await?;
            // What a consumer of JetStream delivers here keeps the subject that it was written under.
            if Subject::parse(&message.subject) == Ok(Subject::DoorCancel) {
                return Some(message.payload);
            }
        }
    }
}

impl Bus {
    /// Tells all doors that a legacy client has cancelled something.
    ///
    /// # Errors
    /// [`BusError::Closed`] when the connection is gone.
    pub async fn cancel_at_doors(&self, word: impl Into<Bytes>) -> Result<(), BusError> {
        self.publish(Subject::DoorCancel.to_string(), word).await
    }

    /// Hears what legacy clients cancel at any door.
    ///
    /// # Errors
    /// [`BusError::Subscribe`] when the bus refuses the subscription.
    pub async fn cancels_at_doors(&self) -> Result<DoorWords, BusError> {
        Ok(DoorWords(self.subscribe(Subject::DoorCancel.to_string()).await?))
    }
}
