//! Tasks of a legacy server, for callers of the modern era.
//!
//! A server of 2025-11-25 makes a task of a call when its client wishes so, and who asks is this room: always for a tool whose calls
//! must be tasks, and for one whose calls may be when the caller declares the extension. A caller that does not gets the result, as
//! of any call. What has become of a task is asked of the server each time ([`held`]); only the process that made it can ask, as it
//! holds the server's session, so its id names that process. What the words of both eras have to do with each other is in
//! [`crate::legacy::task`].

mod held;
mod support;

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bus_schema::{
    Request, RoutedState, RpcError,
    mcp::{method, task as names},
    rpc::Message,
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use ring::rand::{SecureRandom as _, SystemRandom};
use runtime::Outcome;
use serde_json::{json, value::RawValue};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tracing::debug;

use crate::{legacy::task::server, lines::end_line};

use super::{
    asks::Answered,
    call::Call,
    expiry::until_or_notified,
    lanes::Owner,
    link::{Link, own_request},
    pending::{Entry, Made},
    request::{AsTask, Asked, Reading},
    server::UpstreamServer,
};
use held::Held;
pub(super) use support::Supports;

/// How many tasks of one caller are held. When there are more, one goes that has ended and whose end was told.
const MAX_PER_OWNER: usize = 128;
/// How many tasks are held at all.
const MAX_TASKS: usize = 4_096;
/// How long a task is held at most, and what a server is asked to keep it for.
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// What a server is asked to keep a task for whose result a caller waits for.
const DRIVEN_TTL: Duration = Duration::from_secs(60 * 60);
/// How often tasks are asked about that nobody asks about.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How many at the same time, and how long each may take.
const LOOKS_AT_ONCE: usize = 8;
const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// Nobody guesses so many bytes.
const ID_BYTES: usize = 16;
const ACKNOWLEDGED: &str = r#"{"resultType":"complete"}"#;

/// The tasks that this process holds of one server.
pub(super) struct Tasks {
    instance: String,
    random: SystemRandom,
    /// Held only to look, add or remove.
    table: Mutex<HashMap<String, Arc<Held>>>,
    added: Notify,
}

impl Tasks {
    /// No tasks yet, of a server on this instance of the bus.
    pub(super) fn new(instance: String) -> Arc<Self> {
        Arc::new(Self {
            instance,
            random: SystemRandom::new(),
            table: Mutex::default(),
            added: Notify::new(),
        })
    }

    /// Holds the task that a server has made of a call, and gives the result that hands it to its caller. `nested` is the server's.
    ///
    /// # Errors
    /// The error for a caller whose task cannot be held or read. The call is dropped, and with it the task.
    fn hold(&self, call: Call, made: &Made, nested: &RawValue) -> Result<String, RpcError> {
        let flat = server::created(nested)?;
        let owner = call
            .owner
            .clone()
            .ok_or_else(|| RpcError::internal("the task would be nobody's"))?;
        let id = self.new_id();
        let (held, result) = Held::new(id.clone(), owner, call, made.id.clone(), nested, &flat);
        let (room, left) = {
            let mut table = self.table();
            let left = make_room(&mut table, held.owner());
            let room = table.len() < MAX_TASKS && own(&table, held.owner()).count() < MAX_PER_OWNER;
            if room {
                table.insert(id, Arc::new(held));
            }
            (room, left)
        };
        // A task that goes has much to tell, so it goes outside of the lock.
        drop(left);
        if !room {
            return Err(RpcError::internal(format!(
                "the server has made a task, and {MAX_PER_OWNER} tasks of this caller go on already; wait for one of those to end"
            )));
        }
        self.added.notify_one();
        Ok(result)
    }

    /// A task of this caller. Whose task an id is, nobody else is told.
    fn find(&self, id: &str, owner: &Owner) -> Option<Arc<Held>> {
        self.table()
            .get(id)
            .filter(|held| held.owner() == owner && held.expires() > Instant::now())
            .cloned()
    }

    /// Lets tasks go that nobody can ask about any more, for as long as it is waited for.
    pub(super) async fn sweep(&self) -> Infallible {
        loop {
            let next = self.table().values().map(|held| held.expires()).min();
            until_or_notified(next, &self.added).await;
            let now = Instant::now();
            self.remove(|held| held.expires() <= now);
        }
    }

    /// Looks after tasks that have ended without their callers' asking, for as long as it is waited for: a task that goes on needs its
    /// connection, and no other does.
    pub(super) async fn look_after(&self) -> Infallible {
        loop {
            sleep(LOOK_EVERY).await;
            self.look().await;
        }
    }

    /// Asks about all tasks once.
    pub(super) async fn look(&self) {
        let open: Vec<_> = {
            let table = self.table();
            table.values().filter(|held| !held.has_ended()).cloned().collect()
        };
        let looks = stream::iter(open).for_each_concurrent(LOOKS_AT_ONCE, |held| async move {
            if let Ok(Err(error)) = timeout(LOOK_LIMIT, held.look()).await {
                debug!(%error, "a server does not say how a task is doing");
            }
        });
        looks.await;
        self.remove(Held::is_lost);
    }

    /// Lets all tasks go.
    pub(super) fn clear(&self) {
        self.remove(|_| true);
    }

    /// How many tasks are held.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.table().len()
    }

    fn remove(&self, goes: impl Fn(&Held) -> bool) {
        let gone: Vec<_> = {
            let mut table = self.table();
            table.extract_if(|_, held| goes(held)).collect()
        };
        drop(gone);
    }

    fn new_id(&self) -> String {
        let mut bytes = [0; ID_BYTES];
        self.random
            .fill(&mut bytes)
            .expect("the system gives random numbers");
        let state = RoutedState {
            instance: &self.instance,
            sealed: &URL_SAFE_NO_PAD.encode(bytes),
        };
        state.to_string()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Arc<Held>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn own<'a>(table: &'a HashMap<String, Arc<Held>>, owner: &Owner) -> impl Iterator<Item = &'a Arc<Held>> {
    table.values().filter(move |held| held.owner() == owner)
}

/// Takes out the oldest task of a caller that has too many, if one has ended.
fn make_room(table: &mut HashMap<String, Arc<Held>>, owner: &Owner) -> Option<Arc<Held>> {
    if own(table, owner).count() < MAX_PER_OWNER {
        return None;
    }
    let ended = own(table, owner).filter(|held| held.was_told());
    let oldest = ended.min_by_key(|held| held.since())?.id().to_owned();
    table.remove(&oldest)
}

/// The error for whoever names a task that is not there, or is another's: both hear the same.
fn unknown() -> RpcError {
    RpcError::invalid_params(
        "there is no such task: `params.taskId` names one that never was, is over for long, or is not yours",
    )
}

impl UpstreamServer {
    /// The call as a task of the server, if it is to be one.
    pub(super) async fn as_task(
        &self,
        link: &Arc<Link>,
        reading: &Reading<'_>,
        asked: &mut Asked,
    ) -> Option<Bytes> {
        if !self.session.offers.tasks || reading.method() != method::TOOLS_CALL {
            return None;
        }
        let support = link.support(&reading.name()?).await;
        let ttl = match (support, asked.declared.tasks) {
            (server::Support::Forbidden, _) | (server::Support::Optional, false) => return None,
            (_, true) => {
                asked.as_task = AsTask::Handed;
                MAX_TTL
            }
            (server::Support::Required, false) => {
                asked.as_task = AsTask::Driven;
                DRIVEN_TTL
            }
        };
        let ttl = u64::try_from(ttl.as_millis()).ok();
        server::augment(reading.body(), ttl)
    }

    /// Hands the task to its caller that the server has made of a call.
    pub(super) fn hand_over(&self, call: Call, made: &Made, outcome: &Outcome) -> Outcome {
        let Ok(message) = Message::parse(&outcome.body) else {
            return Outcome::error(None, &RpcError::internal("the server's task cannot be read"));
        };
        let id = message.id.map_or("null", RawValue::get);
        let nested = message
            .result
            .ok_or_else(|| RpcError::internal("the server's task cannot be read"));
        match nested.and_then(|nested| self.tasks.hold(call, made, nested)) {
            Ok(result) => Outcome::result(id, result.as_bytes()),
            Err(error) => Outcome::error(Some(id), &error),
        }
    }

    /// Answers a request about a task.
    ///
    /// # Errors
    /// The error for a caller that may not ask, names no task of its own, or whose server does not answer.
    pub(super) async fn about_task(
        &self,
        reading: &Reading<'_>,
        asked: &Asked,
        request: &Request,
    ) -> Result<Outcome, RpcError> {
        reading.check_tasks(&asked.declared)?;
        let id = reading.task_id().ok_or_else(|| {
            RpcError::invalid_params(format!("`{}` needs `params.taskId`, a string", reading.method()))
        })?;
        let owner = Owner::of(&request.principal);
        let held = self.tasks.find(&id, &owner).ok_or_else(unknown)?;
        let answer = async {
            match reading.method() {
                method::TASKS_GET => held.get().await,
                method::TASKS_UPDATE => {
                    let answers = reading.answers().ok().flatten();
                    let answers = answers.ok_or_else(|| {
                        RpcError::invalid_params(
                            "`tasks/update` needs `params.inputResponses`, an object with an answer under each key",
                        )
                    })?;
                    held.update(&answers).await
                }
                _ => held.cancel().await,
            }
        };
        let answer = tokio::select! {
            answer = answer => answer,
            () = self.over.cancelled() => Err(RpcError::internal(format!("server `{}` has ended", self.id()))),
        };
        if held.is_lost() {
            self.tasks.remove(|other| other.id() == id);
        }
        Ok(Outcome::result(&asked.id, answer?.as_bytes()))
    }
}

/// What becomes of an answer of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It answers its call.
    Answer,
    /// It is a task, whose result will.
    Later,
}

impl Link {
    /// Takes note of the task that an answer may hold, before anything else that the server says is read: it may ask for that task
    /// at once.
    pub(super) fn take_task(&self, number: u64, entry: &Arc<Entry>, message: &Message<'_>) -> Taken {
        let call = entry.bus().filter(|call| call.as_task() != AsTask::No);
        let Some(call) = call.filter(|call| call.task_made().is_none()) else {
            return Taken::Answer;
        };
        let Some(id) = message.result.and_then(server::created_id) else {
            return Taken::Answer;
        };
        let awaited_by = (call.as_task() == AsTask::Driven).then(|| self.next_number());
        self.pending.add_task(&id, number, entry);
        if let Some(awaited_by) = awaited_by
            && let Err(error) = self.pending.insert(awaited_by, Arc::clone(entry))
        {
            entry.fail(&error);
            return Taken::Later;
        }
        let made = Made {
            id,
            awaited_by,
            is_over: false,
        };
        let id = made.id.clone();
        if !call.made(made) {
            debug!(server.id = %self.server, "nobody waits any more for the task that the server has made");
            self.pending.remove_task(&id);
            awaited_by.map(|awaited_by| self.pending.remove(awaited_by));
            self.cancel_task(&id);
            return Taken::Answer;
        }
        let Some(awaited_by) = awaited_by else {
            return Taken::Answer;
        };
        let wait = own_request(awaited_by, names::RESULT, &json!({ "taskId": id }));
        if let Err(error) = self.offer(wait) {
            self.pending.remove(awaited_by);
            entry.fail(&error);
        }
        Taken::Later
    }

    /// Asks the server to cancel a task, and does not wait for what it makes of that.
    pub(super) fn cancel_task(&self, id: &str) {
        let cancel = own_request(self.next_number(), method::TASKS_CANCEL, &json!({ "taskId": id }));
        self.try_send(cancel);
    }

    /// Gives the server the answers to what it has asked.
    ///
    /// # Errors
    /// The error for a caller whose server is gone or does not read.
    pub(super) async fn answer_asks(&self, answers: Vec<Answered>) -> Result<(), RpcError> {
        for (ask, answer) in answers {
            for response in ask.responses(&answer) {
                self.send(end_line(response)).await?;
            }
        }
        Ok(())
    }
}
