//! What a call tells the instance that works on it: credit, chunks of its body, and that nobody waits any more.

use bus_schema::{
    Body, Token,
    envelope::{CHUNK_BYTES, Control},
    subject::{InstanceVerb, Subject},
};
use bytes::Bytes;
use tokio::time::timeout_at;
use tracing::debug;

use super::{
    CallError,
    running::{Call, encode},
};

impl Call {
    /// A word of credit may have been lost with a connection: what has been read is said again at each heartbeat.
    pub(super) async fn repeat_credit(&self) -> Result<(), CallError> {
        match self.attempt.as_ref().map(|attempt| attempt.expected_seq) {
            None | Some(0) => Ok(()),
            Some(seq) => self.tell_instance(InstanceVerb::Credit, seq, Bytes::new()).await,
        }
    }

    pub(super) async fn send_chunks(&mut self, credit: u32) -> Result<(), CallError> {
        let body = self.request.body.0.clone();
        loop {
            let attempt = self.attempt.as_mut().expect("chunks belong to an attempt");
            attempt.chunk_credit = attempt.chunk_credit.max(credit);
            let start = attempt.next_chunk as usize * CHUNK_BYTES;
            if attempt.next_chunk >= attempt.chunk_credit || start >= body.len() {
                return Ok(());
            }
            let seq = attempt.next_chunk;
            attempt.next_chunk += 1;
            let end = body.len().min(start + CHUNK_BYTES);
            self.tell_instance(InstanceVerb::Body, seq, body.slice(start..end))
                .await?;
        }
    }

    pub(super) async fn tell_instance(
        &self,
        verb: InstanceVerb,
        seq: u32,
        body: Bytes,
    ) -> Result<(), CallError> {
        let Some((subject, mut control)) = self.control(verb) else {
            return Ok(());
        };
        control.seq = seq;
        control.body = Body(body);
        match timeout_at(self.deadline, self.bus.publish(subject, encode(&control))).await {
            Ok(published) => published.map_err(CallError::Bus),
            Err(_) => Err(self.deadline_passed()),
        }
    }

    /// A word to the instance that works on the call, when it is known.
    fn control(&self, verb: InstanceVerb) -> Option<(String, Control)> {
        let attempt = self.attempt.as_ref()?;
        let instance = Token::encode(attempt.instance.as_ref()?);
        let subject = Subject::Instance {
            tenant: Token::encode(&self.request.principal.tenant),
            server: Token::encode(&self.request.server),
            instance,
            verb,
        };
        Some((subject.to_string(), self.empty_control(attempt.call)))
    }

    fn empty_control(&self, call: u64) -> Control {
        Control {
            caller: self.request.caller.clone(),
            call,
            seq: 0,
            body: Body::default(),
        }
    }

    /// Tells the host, or all hosts while it is unknown which one works, to stop.
    pub(super) fn cancel(&self) {
        let Some(attempt) = &self.attempt else { return };
        let (subject, control) = self.control(InstanceVerb::Cancel).unwrap_or_else(|| {
            let tenant = Token::encode(&self.request.principal.tenant);
            let subject = Subject::Cancel {
                tenant,
                server: Token::encode(&self.request.server),
            };
            (subject.to_string(), self.empty_control(attempt.call))
        });
        let bus = self.bus.clone();
        self.bus.spawn(async move {
            if let Err(error) = bus.publish(subject, encode(&control)).await {
                debug!(%error, "could not cancel a call");
            }
        });
    }
}
