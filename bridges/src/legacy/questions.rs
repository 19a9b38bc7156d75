//! What this process has asked legacy clients, and who waits for the answers.
//!
//! A question's id names the process that asked, so that a client's response finds its way from whichever door it comes to. Only the
//! session that was asked can answer: the id alone is worth nothing.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::oneshot;

/// The questions of one process.
pub(crate) struct Questions {
    /// The instance of this process.
    door: String,
    asked: AtomicU64,
    /// Held only to add, find or remove.
    open: Mutex<HashMap<u64, Open>>,
}

struct Open {
    /// The key of the session that was asked.
    session: String,
    response: oneshot::Sender<Bytes>,
}

/// A question that waits for its answer. It is forgotten when this is dropped.
pub(crate) struct Question {
    questions: Arc<Questions>,
    number: u64,
    /// The id of the JSON-RPC request to the client.
    pub(crate) id: String,
    /// The client's JSON-RPC response.
    pub(crate) response: oneshot::Receiver<Bytes>,
}

impl Drop for Question {
    fn drop(&mut self) {
        self.questions.lock().remove(&self.number);
    }
}

/// What became of a client's response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is where it was waited for.
    Yes,
    /// This session was not asked that, or the question is closed.
    No,
}

impl Questions {
    pub(crate) fn new(door: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            door: door.into(),
            asked: AtomicU64::new(1),
            open: Mutex::default(),
        })
    }

    /// Opens a question to a session.
    pub(crate) fn ask(self: &Arc<Self>, session: &str) -> Question {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let (sender, response) = oneshot::channel();
        let open = Open {
            session: session.to_owned(),
            response: sender,
        };
        self.lock().insert(number, open);
        Question {
            questions: Arc::clone(self),
            number,
            id: format!("{}-{number}", self.door),
            response,
        }
    }

    /// Takes a session's response to a question of this process.
    pub(crate) fn answer(&self, session: &str, id: &str, response: Bytes) -> Taken {
        let number = split(id)
            .filter(|(door, _)| *door == self.door)
            .map(|(_, number)| number);
        let Some(number) = number else { return Taken::No };
        let mut open = self.lock();
        if open.get(&number).is_none_or(|open| open.session != session) {
            return Taken::No;
        }
        let Some(question) = open.remove(&number) else {
            return Taken::No;
        };
        match question.response.send(response) {
            Ok(()) => Taken::Yes,
            Err(_) => Taken::No,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The instance of the process that asked, and the number of the question.
pub(crate) fn split(id: &str) -> Option<(&str, u64)> {
    let (door, number) = id.rsplit_once('-')?;
    Some((door, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_session_that_was_asked_can_answer_and_once() {
        let questions = Questions::new("00ff");
        let mut question = questions.ask("mine");
        let id = question.id.clone();
        assert_eq!(split(&id).map(|(door, _)| door), Some("00ff"));
        let answer = |session: &str, id: &str| questions.answer(session, id, Bytes::from_static(b"{}"));
        assert_eq!(answer("foreign", &id), Taken::No);
        assert_eq!(answer("mine", &id.replace("00ff", "00fe")), Taken::No);
        assert_eq!(answer("mine", "7"), Taken::No);
        assert_eq!(answer("mine", &id), Taken::Yes);
        assert_eq!(answer("mine", &id), Taken::No);
        assert_eq!(
            (&mut question.response).await.expect("an answer"),
            Bytes::from_static(b"{}")
        );
    }

    #[test]
    fn a_question_that_nobody_waits_for_is_closed() {
        let questions = Questions::new("00ff");
        let id = questions.ask("mine").id.clone();
        assert_eq!(questions.answer("mine", &id, Bytes::new()), Taken::No);
        assert!(questions.lock().is_empty());
    }
}
