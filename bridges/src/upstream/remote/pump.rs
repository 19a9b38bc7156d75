//! Takes what is queued for a server and gives each message a task of its own, so that no call waits for another.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bus_schema::{
    mcp::{meta, method},
    rpc::{Kind, Message},
};
use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::upstream::link::{Link, Outgoing};

use super::exchange::Asking;

/// How many messages may be on their way. The host bounds the calls that run; those that wait for a client's word come on top.
const MAX_TASKS: usize = 4096;
/// How often calls are looked for that nobody waits for any more, as not every one of them is told of.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How long what is still on its way may take when nothing more will be sent.
const LAST_LIMIT: Duration = Duration::from_secs(2);

/// A way to send messages to a server, each by itself.
pub(super) trait Carrier: Send + Sync + 'static {
    /// Makes a call, to its end: with its answer, or with an error.
    fn call(&self, call: &Asking, line: Bytes) -> impl Future<Output = ()> + Send;

    /// Sends what is not answered.
    fn tell(&self, line: Bytes) -> impl Future<Output = ()> + Send;

    /// What a server makes of a call that is dropped.
    fn drops(&self) -> Drops;
}

/// What a server makes of a call whose connection is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drops {
    /// It is cancelled by that, and no message must say so.
    Cancelled,
    /// Nothing; it has to be told.
    Told,
}

/// What a message is to a pump.
enum Said {
    Call(Asking),
    Cancel(u64),
    /// A message that must be there before any that follows.
    First,
    /// A notification of ours, or an answer to a request of the server.
    Other,
}

/// Sends what is queued until the conversation is closed.
pub(super) async fn pump<C: Carrier>(link: Arc<Link>, carrier: Arc<C>, mut queue: mpsc::Receiver<Outgoing>) {
    let _broken = link.break_guard();
    let mut running = Running {
        link: Arc::clone(&link),
        carrier,
        tasks: JoinSet::new(),
        calls: HashMap::new(),
    };
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let full = running.tasks.len() >= MAX_TASKS;
        tokio::select! {
            biased;
            Some(ended) = running.tasks.join_next() => match ended {
                Ok(call) => drop(call.and_then(|call| running.calls.remove(&call))),
                Err(_) => running.calls.retain(|_, call| !call.is_finished()),
            },
            next = queue.recv(), if !full => match next {
                Some(outgoing) => running.send(outgoing).await,
                None => break,
            },
            _ = look.tick() => running.drop_unwanted(),
            () = link.closed() => break,
        }
    }
    running.drop_unwanted();
    let last = async { while running.tasks.join_next().await.is_some() {} };
    // Whoever still waits for an answer hears of the end from the link.
    let _ = timeout(LAST_LIMIT, last).await;
}

struct Running<C> {
    link: Arc<Link>,
    carrier: Arc<C>,
    /// Each gives the number of the call that has ended with it.
    tasks: JoinSet<Option<u64>>,
    /// The calls that run, to be dropped when nobody waits for them.
    calls: HashMap<u64, AbortHandle>,
}

impl<C: Carrier> Running<C> {
    fn drop_unwanted(&mut self) {
        let pending = &self.link.pending;
        self.calls.retain(|number, call| {
            let wanted = pending.contains(*number);
            if !wanted {
                call.abort();
            }
            wanted
        });
    }

    async fn send(&mut self, outgoing: Outgoing) {
        let (line, room) = outgoing.into_message();
        let carrier = Arc::clone(&self.carrier);
        match read(&line) {
            Said::Call(call) => {
                let number = call.number;
                let answered = Answered(Arc::clone(&self.link), number);
                let task = self.tasks.spawn(async move {
                    let _answered = answered;
                    carrier.call(&call, line).await;
                    drop(room);
                    Some(number)
                });
                self.calls.insert(number, task);
            }
            Said::Cancel(number) => {
                let call = self.calls.remove(&number);
                match self.carrier.drops() {
                    Drops::Cancelled => abort(call),
                    Drops::Told => {
                        self.tasks.spawn(async move {
                            carrier.tell(line).await;
                            abort(call);
                            None
                        });
                    }
                }
            }
            Said::First => carrier.tell(line).await,
            Said::Other => {
                self.tasks.spawn(async move {
                    carrier.tell(line).await;
                    None
                });
            }
        }
    }
}

/// Sees to it that a call is answered if its task panics.
struct Answered(Arc<Link>, u64);

impl Drop for Answered {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(entry) = self.0.pending.remove(self.1)
        {
            entry.fail(&bus_schema::RpcError::internal(format!(
                "the call to server `{}` was lost",
                self.0.server
            )));
        }
    }
}

fn abort(call: Option<AbortHandle>) {
    if let Some(call) = call {
        call.abort();
    }
}

fn read(line: &[u8]) -> Said {
    let Ok(message) = Message::parse(line) else {
        return Said::Other;
    };
    let number = |raw: &RawValue| raw.get().parse().ok();
    match (message.kind(), message.method.as_deref()) {
        (Ok(Kind::Request), Some(called)) => match message.id.and_then(number) {
            Some(number) => Said::Call(Asking {
                number,
                method: called.to_owned(),
                name: message
                    .peek_params()
                    .ok()
                    .and_then(|params| meta::as_text(params.name?))
                    .map(std::borrow::Cow::into_owned),
            }),
            None => Said::Other,
        },
        (Ok(Kind::Notification), Some(method::INITIALIZED)) => Said::First,
        (Ok(Kind::Notification), Some(method::CANCELLED)) => {
            let request = message.peek_params().ok().and_then(|params| params.request_id);
            request.and_then(number).map_or(Said::Other, Said::Cancel)
        }
        _ => Said::Other,
    }
}
