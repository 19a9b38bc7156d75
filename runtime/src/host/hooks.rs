//! Asks an actor of the operator's about a call: one request on the hook's subject, and one answer within a time.
//!
//! The answer comes to an inbox of this process that nobody else knows of, by way of the service import of the tenant's account; in that
//! account only those may answer who are let listen to the hook (`nats.conf`).

use std::time::Duration;

use bus_schema::{
    Request, Token,
    guardrails::{
        Check, Hook, OnFailure, Refusal, Side,
        hook::{self, Answer, MAX_QUESTION, Question},
    },
    rpc::Message,
    subject::Subject,
};
use bytes::Bytes;
use tracing::{info, warn};

use super::rails::Guarded;

/// One question.
pub(super) struct Asking<'a> {
    guarded: &'a Guarded,
    request: &'a Request,
    hook: &'a Hook,
    side: Side,
    /// The message that may be changed.
    present: &'a [u8],
}

impl<'a> Asking<'a> {
    pub(super) fn about(
        side: Side,
        guarded: &'a Guarded,
        request: &'a Request,
        hook: &'a Hook,
        present: &'a [u8],
    ) -> Self {
        Self {
            guarded,
            request,
            hook,
            side,
            present,
        }
    }

    /// Asks. `Some` with the message as the hook has changed it.
    pub(super) async fn ask(&self) -> Result<Option<Vec<u8>>, Refusal> {
        let step = self.hook.step.as_str();
        let went = match self.answer().await {
            Ok(Answer::Allow) => {
                self.count("allowed");
                return Ok(None);
            }
            Ok(Answer::Deny { reason }) => {
                self.count("denied");
                let why = match reason.as_str() {
                    "" => String::new(),
                    reason => format!(": {reason}"),
                };
                return Err(self.refusal(format!("the guardrail `{step}` has denied this{why}")));
            }
            Ok(Answer::Change(changed)) => match self.changed(&changed) {
                Some(changed) => {
                    self.count("changed");
                    info!(server.id = %self.guarded.shared.options.id, step, on = self.side.as_str(), "a hook has changed a call");
                    return Ok(Some(changed));
                }
                None => "it changes what cannot be changed in such a call".to_owned(),
            },
            Err(why) => why,
        };
        self.count("failed");
        warn!(server.id = %self.guarded.shared.options.id, hook = self.hook.name, step, why = went, then = ?self.hook.on_failure, "a hook did not answer as it should");
        match self.hook.on_failure {
            OnFailure::Allow => Ok(None),
            OnFailure::Deny => Err(self.refusal(format!(
                "the guardrail `{step}` has to be asked, and its hook does not answer; try again later"
            ))),
        }
    }

    fn count(&self, went: &'static str) {
        self.guarded.shared.bus.metrics().guardrail(&self.hook.step, went);
    }

    fn refusal(&self, why: String) -> Refusal {
        Refusal {
            step: self.hook.step.clone(),
            check: Check::Hook,
            side: self.side,
            why,
        }
    }

    fn changed(&self, changed: &str) -> Option<Vec<u8>> {
        match self.side {
            Side::Arguments => hook::with_arguments(self.present, changed),
            Side::Results | Side::Lists | Side::Completions => hook::with_result(self.present, changed),
        }
    }

    async fn answer(&self) -> Result<Answer, String> {
        let question = self.question().ok_or("the question cannot be written")?;
        if question.len() > MAX_QUESTION {
            return Err(format!(
                "the question has {} bytes, and {MAX_QUESTION} are sent",
                question.len()
            ));
        }
        let subject = Subject::Hook {
            tenant: Token::encode(&self.request.principal.tenant),
            name: Token::encode(&self.hook.name),
        };
        let bus = &self.guarded.shared.bus;
        // A tenth of the call's time is left, so that a late hook is not taken for a late server.
        let most = Duration::from_millis(self.request.timeout_ms / 10 * 9);
        let asked = bus.ask_outside(subject.to_string(), question, self.hook.timeout.min(most));
        Answer::read(&asked.await?, self.side)
    }

    fn question(&self) -> Option<Bytes> {
        let asked = Message::parse(&self.request.body.0).ok()?;
        let present = Message::parse(self.present).ok()?;
        let (arguments, result) = match self.side {
            Side::Arguments => (present.peek_params().ok()?.arguments, None),
            Side::Results | Side::Lists | Side::Completions => {
                (asked.peek_params().ok()?.arguments, present.result)
            }
        };
        let question = Question {
            step: &self.hook.step,
            on: self.side,
            principal: (&self.request.principal).into(),
            server: self.guarded.shared.options.id.as_str(),
            method: &self.request.method,
            name: self.guarded.name.as_deref(),
            arguments,
            result,
            trace_id: self
                .request
                .trace
                .as_ref()
                .map(bus_schema::TraceContext::trace_id),
        };
        serde_json::to_vec(&question).ok().map(Bytes::from)
    }
}
