//! The calls of legacy sessions that this process runs, so that their clients can cancel them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bus_schema::RpcError;
use tokio_util::sync::CancellationToken;

/// How many calls of one session one process may run at once.
pub(crate) const MAX_CALLS: usize = 256;

/// The running calls of one process.
#[derive(Default)]
pub(crate) struct Calls {
    /// By the session's key. Held only to look up, insert or remove.
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    last: u64,
    by_session: HashMap<String, HashMap<u64, Call>>,
}

struct Call {
    /// The id of the request as spelled.
    id: String,
    cancelled: CancellationToken,
}

/// A running call. It is forgotten when this is dropped.
pub(crate) struct RunningCall {
    calls: Arc<Calls>,
    session: String,
    number: u64,
    /// Cancelled when the client says so.
    pub(crate) cancelled: CancellationToken,
}

impl Calls {
    /// Adds a call, which ends with `parent` too.
    ///
    /// # Errors
    /// The error for a client that has as many calls running as it may.
    pub(crate) fn begin(
        self: &Arc<Self>,
        session: &str,
        id: &str,
        parent: &CancellationToken,
    ) -> Result<RunningCall, RpcError> {
        let cancelled = parent.child_token();
        let call = Call {
            id: id.to_owned(),
            cancelled: cancelled.clone(),
        };
        let mut running = self.lock();
        running.last += 1;
        let number = running.last;
        let calls = running.by_session.entry(session.to_owned()).or_default();
        if calls.len() >= MAX_CALLS {
            return Err(too_many());
        }
        calls.insert(number, call);
        Ok(RunningCall {
            calls: Arc::clone(self),
            session: session.to_owned(),
            number,
            cancelled,
        })
    }

    /// Cancels a session's call, or all of them; one that is not here runs elsewhere, or has ended.
    pub(crate) fn cancel(&self, session: &str, id: Option<&str>) {
        let running = self.lock();
        for call in running
            .by_session
            .get(session)
            .into_iter()
            .flat_map(HashMap::values)
        {
            if id.is_none_or(|id| id == call.id) {
                call.cancelled.cancel();
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error for a client that has as many calls running as it may.
pub(crate) fn too_many() -> RpcError {
    RpcError::internal(format!(
        "{MAX_CALLS} calls of this client are running; wait for one to end"
    ))
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        let mut running = self.calls.lock();
        if let Some(calls) = running.by_session.get_mut(&self.session) {
            calls.remove(&self.number);
            if calls.is_empty() {
                running.by_session.remove(&self.session);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_cancels_its_own_calls_only() {
        let (calls, parent) = (Arc::<Calls>::default(), CancellationToken::new());
        let begin = |session, id| calls.begin(session, id, &parent).unwrap();
        let (mine, other, foreign) = (begin("mine", "1"), begin("mine", "2"), begin("foreign", "1"));
        calls.cancel("mine", Some("1"));
        let cancelled = || [&mine, &other, &foreign].map(|call| call.cancelled.is_cancelled());
        assert_eq!(cancelled(), [true, false, false]);
        calls.cancel("mine", None);
        assert_eq!(cancelled(), [true, true, false]);
        drop((mine, other, foreign));
        assert!(calls.lock().by_session.is_empty());
    }

    #[test]
    fn a_session_has_so_many_calls_and_one_more_when_one_has_ended() {
        let (calls, parent) = (Arc::<Calls>::default(), CancellationToken::new());
        let mut running: Vec<_> = (0..MAX_CALLS)
            .map(|id| calls.begin("mine", &id.to_string(), &parent).unwrap())
            .collect();
        let refused = calls.begin("mine", "one more", &parent).err().unwrap();
        assert!(refused.message.contains("256 calls"), "{}", refused.message);
        calls.begin("foreign", "1", &parent).unwrap();
        running.pop();
        calls.begin("mine", "one more", &parent).unwrap();
        drop(running);
        assert!(calls.lock().by_session.is_empty());
    }
}
