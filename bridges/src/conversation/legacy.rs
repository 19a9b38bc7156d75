//! The legacy side of a conversation: the handshake, calls that ask back, batches, and notices of changes.

use std::sync::{Arc, Mutex, PoisonError};

use bus_schema::{
    RpcError,
    mcp::meta,
    rpc::{self, Kind, Message},
};
use bytes::Bytes;
use tracing::debug;

use super::{Conversation, forward};
use crate::{
    front::{Staying, Watching},
    legacy::{
        Driving, Local, Parties, Said, Session, Subscription, answer_locally,
        batch::{self, Batch},
        done,
        notices::{Notices, changing},
        questions::Taken,
    },
    request::Incoming,
};

/// The answers to one batch, which leave together.
pub(super) struct Joint(Mutex<Due>);

struct Due {
    answers: Vec<Bytes>,
    due: usize,
}

impl Joint {
    fn new(due: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Due {
            answers: Vec::with_capacity(due),
            due,
        })))
    }

    /// Adds what one request came to, nothing if it was cancelled; gives all answers with the last.
    fn add(&self, answer: Option<Bytes>) -> Option<Bytes> {
        let mut due = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        due.answers.extend(answer);
        due.due -= 1;
        (due.due == 0).then(|| batch::join(&due.answers))?
    }
}

/// What an answer becomes: itself, or with the last one of a batch the whole.
fn joined(joint: Option<&Arc<Joint>>, answer: Option<Bytes>) -> Option<Bytes> {
    match joint {
        Some(joint) => joint.add(answer),
        None => answer,
    }
}

impl Conversation {
    pub(super) async fn initialize(&mut self, incoming: &Incoming) {
        let opened = Session::open(
            &self.front,
            self.endpoint.clone(),
            self.principal.clone(),
            incoming,
        );
        match opened {
            Ok((session, result)) => {
                self.staying = Some(Staying::here(session.opened_ms, session.versions.clone()));
                self.session = Some(Arc::new(session));
                let id = incoming.id.as_deref().unwrap_or("null");
                self.send(rpc::result_response(id, result.to_string().as_bytes()).into())
                    .await;
            }
            Err(error) => self.send(incoming.error(&error)).await,
        }
    }

    /// Takes a request of a session; its answer leaves with those of its batch, if it came in one.
    pub(super) async fn legacy(
        &mut self,
        session: &Arc<Session>,
        incoming: Incoming,
        joint: Option<Arc<Joint>>,
    ) {
        match answer_locally(&self.front, session, &incoming) {
            Local::Answer(body) => self.reply(joint.as_ref(), body).await,
            Local::SetLevel(level) => {
                let mut changed = Session::clone(session);
                changed.log_level = Some(level);
                self.session = Some(Arc::new(changed));
                self.reply(joint.as_ref(), done(&incoming)).await;
            }
            Local::Subscribe(uri, subscription) => {
                let mut changed = Session::clone(session);
                changed.subscribe(&uri, subscription);
                if let Err(error) = changed.check_size() {
                    return self.reply(joint.as_ref(), incoming.error(&error)).await;
                }
                // Held until the notices follow, so that the server is asked once.
                let watching = match subscription {
                    Subscription::Begin => match self
                        .front
                        .watch_resource(&session.principal, &session.endpoint, &uri)
                        .await
                    {
                        Ok(watching) => Some(watching),
                        Err(error) => return self.reply(joint.as_ref(), incoming.error(&error)).await,
                    },
                    Subscription::End => None,
                };
                self.session = Some(Arc::new(changed.clone()));
                self.follow(&changed, done(&incoming), joint, watching).await;
            }
            Local::Forward => self.call(Arc::clone(session), incoming, joint).await,
        }
    }

    /// Takes an array of messages.
    pub(super) async fn batch(&mut self, session: &Arc<Session>, text: &Bytes) {
        let refused = |error: &RpcError| rpc::error_response(Some("null"), error).into();
        if !batch::is_allowed(session.version) {
            let error = RpcError::invalid_request(format!(
                "version {} has no batches; send one message at a time",
                session.version
            ));
            return self.send(refused(&error)).await;
        }
        let messages = match batch::split(text) {
            Ok(Batch::Asking(messages)) => messages,
            Ok(Batch::Answering(responses)) => {
                responses
                    .into_iter()
                    .for_each(|response| self.take_response(response));
                return;
            }
            Err(error) => return self.send(refused(&error)).await,
        };
        let messages: Vec<_> = messages.into_iter().map(Incoming::read).collect();
        let due = messages.iter().filter(|read| match read {
            Ok(incoming) => incoming.kind == Kind::Request,
            Err(refused) => refused.id.is_some(),
        });
        let joint = Joint::new(due.count());
        for read in messages {
            match read {
                Ok(incoming) if incoming.kind == Kind::Request => {
                    // One before it in the array may have changed the session.
                    let session = self.session.clone().unwrap_or_else(|| Arc::clone(session));
                    self.legacy(&session, incoming, Some(Arc::clone(&joint))).await;
                }
                Ok(incoming) => self.notification(incoming).await,
                Err(refused) => {
                    if let Some(id) = &refused.id {
                        let error = rpc::error_response(Some(id), &refused.error);
                        self.reply(Some(&joint), error.into()).await;
                    }
                }
            }
        }
    }

    /// Takes the client's response to what a server has asked in the middle of a call.
    pub(super) fn take_response(&self, body: Bytes) {
        let id = Message::parse(&body)
            .ok()
            .and_then(|message| message.id.and_then(meta::as_text))
            .map(std::borrow::Cow::into_owned);
        let taken = match (id, &self.session) {
            (Some(id), Some(session)) => self.questions.answer(&session.key, &id, body),
            _ => Taken::No,
        };
        if taken == Taken::No {
            debug!("ignored a response that nothing waits for");
        }
    }

    /// Begins to tell the client of changes, unless it has begun.
    pub(super) fn listen(&mut self) {
        let Some(session) = self.session.clone().filter(|_| self.notices.is_none()) else {
            return;
        };
        let (changing, changed) = changing();
        self.notices = Some(changing);
        let (front, out, principal) = (self.front.clone(), self.out.clone(), self.principal.clone());
        let (ending, ended) = (self.ending.clone(), self.ended.clone());
        self.running.spawn(async move {
            let tell = async {
                let (who, uris) = ((principal, session.endpoint.clone()), session.subscribed.clone());
                let mut notices = Notices::begin(front, who, session.promised, uris, (None, changed)).await;
                loop {
                    for message in notices.next().await.messages {
                        if out.send(message).await.is_err() {
                            return;
                        }
                    }
                }
            };
            tokio::select! { () = ending.cancelled() => {} () = ended.cancelled() => {} () = tell => {} }
        });
    }

    /// Has the notices follow what the client wants, and then answers.
    async fn follow(
        &mut self,
        session: &Session,
        answer: Bytes,
        joint: Option<Arc<Joint>>,
        watching: Option<Watching>,
    ) {
        self.listen();
        let Some(notices) = &self.notices else { return };
        let effect = notices.tell(session.subscribed.clone()).await;
        let out = self.out.clone();
        let ended = self.ended.clone();
        self.running.spawn(async move {
            tokio::select! { () = effect.wait() => {} () = ended.cancelled() => return }
            drop(watching);
            if let Some(answer) = joined(joint.as_ref(), Some(answer)) {
                let _ = out.send(answer).await;
            }
        });
    }

    async fn call(&mut self, session: Arc<Session>, incoming: Incoming, joint: Option<Arc<Joint>>) {
        let mut running = match self.enter(&incoming) {
            Ok(running) => running,
            Err(error) => return self.reply(joint.as_ref(), incoming.error(&error)).await,
        };
        let parties = Parties {
            front: self.front.clone(),
            caller: self.caller(session.version),
            session,
            questions: Arc::clone(&self.questions),
            ledger: Arc::clone(&self.ledger),
        };
        let (out, cancelled) = (self.out.clone(), running.cancelled.clone());
        self.running.spawn(async move {
            let work = forward(&out, async |sender| {
                let mut call = Driving::begin(parties, incoming).await;
                loop {
                    match call.next().await {
                        Said::Part(message) | Said::Question(message) => sender.offer(message).await,
                        Said::Answer(answer) => {
                            // Who has the answer may use the id again.
                            running.id.take();
                            if let Some(answer) = joined(joint.as_ref(), Some(answer)) {
                                sender.answer(answer);
                            }
                            return;
                        }
                    }
                }
            });
            tokio::select! {
                () = work => {}
                () = cancelled.cancelled() => {
                    if let Some(others) = joint.and_then(|joint| joint.add(None)) {
                        let _ = out.send(others).await;
                    }
                }
            }
        });
    }

    async fn reply(&self, joint: Option<&Arc<Joint>>, answer: Bytes) {
        if let Some(answer) = joined(joint, Some(answer)) {
            self.send(answer).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_a_batch_leave_together_and_without_the_cancelled() {
        let joint = Joint::new(3);
        assert_eq!(joint.add(Some("1".into())), None);
        assert_eq!(joint.add(None), None);
        assert_eq!(joint.add(Some("2".into())).as_deref(), Some(&b"[1,2]"[..]));
        let joint = Joint::new(1);
        assert_eq!(joint.add(None), None);
    }
}
