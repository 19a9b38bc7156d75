//! The calls that a server works on, found by the number that each has on its connection.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bus_schema::{
    RpcError,
    mcp::{Era, method},
    rpc::Message,
};
use runtime::{Outcome, Verdict};

use super::{
    answer,
    asks::Asks,
    request::{AsTask, Asked},
};
use crate::outbox::Outbox;

/// One call in flight.
pub(super) struct Entry {
    pub(super) from: Origin,
    /// What the server has said about it.
    pub(super) outbox: Outbox<Outcome>,
}

/// Where a call came from, which decides what its answer is made into.
pub(super) enum Origin {
    /// A caller on the bus, to be answered in the modern era.
    Bus(Box<BusCall>),
    /// This room itself; the answer stays as it came.
    Room,
    /// This room itself, to be told of changes until the call ends.
    Listen,
    /// This room itself, to be told what the task comes to that was made of this call. What is asked meanwhile is the task's.
    Task(Arc<Entry>),
}

/// A call from the bus. It may have several requests one after the other: each retry takes the place of the one before.
pub(super) struct BusCall {
    pub(super) era: Era,
    /// Its method may ask the client for input.
    may_ask: bool,
    as_task: AsTask,
    /// Held only to look at or exchange.
    task: Mutex<Task>,
    /// Held only to look at or exchange.
    waiting: Mutex<Waiting>,
    /// What the server has asked and nobody has answered yet.
    pub(super) asks: Asks,
}

/// Who waits for the answer.
enum Waiting {
    /// The caller of this request.
    Caller(Asked),
    /// Nobody at the moment: the caller has been asked for input, and has not come back yet.
    Nobody(Option<Early>),
}

/// What has become of a call that is to be a task.
#[derive(Default)]
enum Task {
    #[default]
    None,
    Made(Made),
    /// The call was dropped, and so must be what is still made of it.
    Unwanted,
}

/// The task that a server has made of a call.
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// Its id at the server.
    pub(super) id: String,
    /// The request that waits for what it comes to, when the call's own caller does.
    pub(super) awaited_by: Option<u64>,
    /// It has ended.
    pub(super) is_over: bool,
}

/// What has come while nobody waited.
enum Early {
    Line(Vec<u8>),
    Error(RpcError, Verdict),
}

impl Early {
    fn outcome(&self, asked: &Asked, era: Era) -> Outcome {
        match self {
            Self::Error(error, verdict) => Outcome::error(Some(&asked.id), error).saying(*verdict),
            Self::Line(line) => match Message::parse(line) {
                Ok(message) => answer::for_caller(line, &message, asked, era),
                Err(error) => Outcome::error(Some(&asked.id), &error),
            },
        }
    }
}

impl BusCall {
    pub(super) fn new(asked: Asked, era: Era) -> Self {
        Self {
            era,
            may_ask: method::ASKING.contains(&asked.method.as_str()),
            as_task: asked.as_task,
            task: Mutex::default(),
            waiting: Mutex::new(Waiting::Caller(asked)),
            asks: Asks::default(),
        }
    }

    /// What of the request that is being answered; `None` while nobody waits.
    pub(super) fn asked<T>(&self, look: impl FnOnce(&Asked) -> T) -> Option<T> {
        match &*self.waiting() {
            Waiting::Caller(asked) => Some(look(asked)),
            Waiting::Nobody(_) => None,
        }
    }

    /// The caller goes, to come back with another request.
    pub(super) fn leave(&self) -> Option<Asked> {
        match std::mem::replace(&mut *self.waiting(), Waiting::Nobody(None)) {
            Waiting::Caller(asked) => Some(asked),
            Waiting::Nobody(_) => None,
        }
    }

    /// How the call is made.
    pub(super) fn as_task(&self) -> AsTask {
        self.as_task
    }

    /// The server has made a task of it. `false` when nobody wants that any more.
    pub(super) fn made(&self, made: Made) -> bool {
        let mut task = self.task();
        if matches!(*task, Task::Unwanted) {
            return false;
        }
        *task = Task::Made(made);
        true
    }

    /// The task that the server has made of it.
    pub(super) fn task_made(&self) -> Option<Made> {
        match &*self.task() {
            Task::Made(made) => Some(made.clone()),
            Task::None | Task::Unwanted => None,
        }
    }

    /// The task has ended at the server.
    pub(super) fn task_is_over(&self) {
        if let Task::Made(made) = &mut *self.task() {
            made.is_over = true;
        }
    }

    /// Nobody wants a task of it any more; gives the one that there is.
    pub(super) fn let_go(&self) -> Option<Made> {
        match std::mem::replace(&mut *self.task(), Task::Unwanted) {
            Task::Made(made) => Some(made),
            Task::None | Task::Unwanted => None,
        }
    }

    fn task(&self) -> MutexGuard<'_, Task> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    pub(super) fn new(from: Origin) -> Self {
        Self {
            from,
            outbox: Outbox::default(),
        }
    }

    /// The caller is back with this request.
    pub(super) fn come_back(&self, asked: Asked) {
        let Origin::Bus(call) = &self.from else { return };
        let mut waiting = call.waiting();
        if let Waiting::Nobody(Some(early)) = &*waiting {
            self.outbox.put_answer(early.outcome(&asked, call.era));
        }
        *waiting = Waiting::Caller(asked);
    }

    /// Takes the server's answer; the line holds the message.
    pub(super) fn answer(&self, line: &[u8], message: &Message<'_>) {
        let Origin::Bus(call) = &self.from else {
            return self.outbox.put_answer(Outcome {
                code: None,
                body: line.to_vec().into(),
                verdict: Verdict::Answered,
            });
        };
        match &mut *call.waiting() {
            Waiting::Caller(asked) => self
                .outbox
                .put_answer(answer::for_caller(line, message, asked, call.era)),
            Waiting::Nobody(early) => *early = Some(Early::Line(line.to_vec())),
        }
    }

    /// Answers with an error of this side, as the server could not be asked, was lost, or answered nothing that can be used.
    pub(super) fn fail(&self, error: &RpcError) {
        self.refuse(error, Verdict::Failed);
    }

    /// Answers with an error of this side that says this of the server.
    pub(super) fn refuse(&self, error: &RpcError, verdict: Verdict) {
        let Origin::Bus(call) = &self.from else {
            return self
                .outbox
                .put_answer(Outcome::error(None, error).saying(verdict));
        };
        match &mut *call.waiting() {
            Waiting::Caller(asked) => {
                let outcome = Outcome::error(Some(&asked.id), error).saying(verdict);
                self.outbox.put_answer(outcome);
            }
            Waiting::Nobody(early) => *early = Some(Early::Error(error.clone(), verdict)),
        }
    }

    /// The call from the bus that it is.
    pub(super) fn bus(&self) -> Option<&BusCall> {
        match &self.from {
            Origin::Bus(call) => Some(call),
            Origin::Room | Origin::Listen | Origin::Task(_) => None,
        }
    }
}

#[derive(Default)]
pub(super) struct Pending(Mutex<Table>);

#[derive(Default)]
struct Table {
    entries: HashMap<u64, Arc<Entry>>,
    /// The calls that the server has made tasks of, by its own ids of those, with the numbers that they were made under.
    tasks: HashMap<String, (u64, Arc<Entry>)>,
    /// Why there are no more calls.
    closed: Option<RpcError>,
}

impl Pending {
    /// Adds a call.
    ///
    /// # Errors
    /// Why there are no more calls.
    pub(super) fn insert(&self, id: u64, entry: Arc<Entry>) -> Result<(), RpcError> {
        let mut table = self.table();
        match &table.closed {
            Some(error) => Err(error.clone()),
            None => {
                table.entries.insert(id, entry);
                Ok(())
            }
        }
    }

    pub(super) fn get(&self, id: u64) -> Option<Arc<Entry>> {
        self.table().entries.get(&id).cloned()
    }

    pub(super) fn remove(&self, id: u64) -> Option<Arc<Entry>> {
        self.table().entries.remove(&id)
    }

    /// The call whose progress is told under this number, which may go on as a task.
    pub(super) fn progressing(&self, number: u64) -> Option<Arc<Entry>> {
        let table = self.table();
        let driven = |entry: &Entry| entry.bus().is_some_and(|call| call.as_task() == AsTask::Driven);
        let of_task = || {
            let mut tasks = table.tasks.values();
            tasks.find(|(made, entry)| *made == number && driven(entry))
        };
        let entry = table.entries.get(&number);
        entry.or_else(|| of_task().map(|(_, entry)| entry)).cloned()
    }

    /// A call, made under this number, goes on as a task of the server.
    pub(super) fn add_task(&self, id: &str, number: u64, entry: &Arc<Entry>) {
        let task = (number, Arc::clone(entry));
        self.table().tasks.insert(id.to_owned(), task);
    }

    pub(super) fn remove_task(&self, id: &str) {
        self.table().tasks.remove(id);
    }

    /// Whether there are no more calls.
    pub(super) fn is_closed(&self) -> bool {
        self.table().closed.is_some()
    }

    /// Whether a call still waits for its answer.
    pub(super) fn contains(&self, id: u64) -> bool {
        self.table().entries.contains_key(&id)
    }

    /// The call from the bus that a message of the server demonstrably belongs to: the one on whose stream it came, or the only one.
    pub(super) fn only_one(&self, stream: Option<u64>) -> Option<Arc<Entry>> {
        self.one(stream, |_| true)
    }

    /// The call from the bus in whose course the server asks for input. `task` is the task that the server names with that.
    pub(super) fn asking(&self, stream: Option<u64>, task: Option<&str>) -> Option<Arc<Entry>> {
        {
            let table = self.table();
            if let Some((_, of_task)) = task.and_then(|id| table.tasks.get(id)) {
                return Some(Arc::clone(of_task));
            }
            let waiting = stream.and_then(|number| table.entries.get(&number));
            if let Some(Origin::Task(of_task)) = waiting.map(|entry| &entry.from) {
                return Some(Arc::clone(of_task));
            }
        }
        // A task that is not known yet can only be of a call that is to be one.
        let is_about_none = task.is_none() || stream.is_some();
        self.one(stream, |call| {
            call.may_ask && (is_about_none || call.as_task != AsTask::No)
        })
    }

    /// Takes back a request of the server, which it names by its id as spelled.
    pub(super) fn withdraw(&self, id: &str) -> bool {
        let table = self.table();
        let entries = table.entries.values();
        let tasks = table.tasks.values().map(|(_, entry)| entry);
        let mut calls = entries.chain(tasks).filter_map(|entry| entry.bus());
        calls.any(|call| call.asks.withdraw(id))
    }

    fn one(&self, stream: Option<u64>, fits: impl Fn(&BusCall) -> bool) -> Option<Arc<Entry>> {
        let table = self.table();
        let fits = |entry: &&Arc<Entry>| entry.bus().is_some_and(&fits);
        if let Some(number) = stream {
            return table.entries.get(&number).filter(fits).cloned();
        }
        let mut calls = table.entries.values().filter(fits);
        calls.next().filter(|_| calls.next().is_none()).cloned()
    }

    /// Answers every call with one error, and later ones with the other.
    pub(super) fn close(&self, running: &RpcError, later: RpcError) {
        self.close_saying(Verdict::Failed, running, later);
    }

    /// The same with an error that says this of the server.
    pub(super) fn close_saying(&self, verdict: Verdict, running: &RpcError, later: RpcError) {
        let entries = {
            let mut table = self.table();
            table.closed.get_or_insert(later);
            table.tasks.clear();
            std::mem::take(&mut table.entries)
        };
        for entry in entries.into_values() {
            entry.refuse(running, verdict);
        }
    }

    /// Held only to look up, insert or remove.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
