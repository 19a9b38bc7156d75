//! A call that takes longer than its budget becomes a task, without being made again: this door goes on with it, and its client is told the
//! task's id. Should this process die, a worker makes the call again, with the same idempotency key.

use std::time::Duration;

use bus_schema::{
    RpcError,
    mcp::method,
    rpc::{self, Message},
    task::{KEPT_MS, Order},
};
use runtime::{
    Answer, moment,
    tasks::{
        Adopted, Ended, RENEW_EVERY, WatchedTasks, created,
        hosted::{Came, came, progress},
    },
};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{debug, warn};

use crate::front::answering::{Final, Remote};

/// A call that becomes a task when its time has come.
pub(in crate::front) struct Auto {
    order: Order,
    due: Instant,
}

/// A call on its way to become a task.
pub(in crate::front) struct Adopting(JoinHandle<Made>);

/// What came of that.
pub(in crate::front) enum Made {
    /// It is one; this answers its client.
    Task(Final),
    /// It could not be made one, and stays a call.
    Call(Box<Remote>),
}

impl Auto {
    pub(super) fn new(order: Order, budget_ms: u32) -> Self {
        let due = Instant::now() + Duration::from_millis(budget_ms.into());
        Self { order, due }
    }

    /// When it becomes a task.
    pub(in crate::front) fn due(&self) -> Instant {
        self.due
    }

    /// Makes a task of the call. What runs here goes on however often its client looks, or when it has gone.
    pub(in crate::front) fn adopt(self: Box<Self>, mut remote: Box<Remote>, id: Option<String>) -> Adopting {
        Adopting(tokio::spawn(async move {
            let order = Order {
                created_ms: moment::now_ms(),
                ..self.order
            };
            let tasks = remote.front.0.tasks.clone();
            // Whoever cancels the task right away is heard as well.
            let watched = tasks.watch(vec![order.id.clone()]).await;
            let adopted = match watched {
                Ok(watched) => tasks.adopt(order).await.map(|adopted| (adopted, watched)),
                Err(_) => return Made::Call(remote),
            };
            match adopted {
                Ok((adopted, watched)) => {
                    let told = created(adopted.task());
                    let body = rpc::result_response(id.as_deref().unwrap_or("null"), told.as_bytes());
                    // The limits on calls that run at once go on to hold.
                    tokio::spawn(async move { drive(&mut remote, adopted, watched).await });
                    Made::Task(Final {
                        code: None,
                        body: body.into(),
                        fault: None,
                    })
                }
                Err(error) => {
                    warn!(%error, "a long call cannot be made a task, and stays a call");
                    Made::Call(remote)
                }
            }
        }))
    }
}

impl Adopting {
    /// Waits for what came of it. It may be dropped and asked again.
    pub(in crate::front) async fn made(&mut self) -> Option<Made> {
        (&mut self.0).await.ok()
    }
}

/// Goes on with the call to its end.
async fn drive(remote: &mut Remote, mut adopted: Adopted, mut watched: WatchedTasks) {
    let stop = remote.front.stop(&adopted.task().order.request.principal);
    let mut renewing = interval(RENEW_EVERY);
    renewing.set_missed_tick_behavior(MissedTickBehavior::Delay);
    renewing.reset();
    loop {
        tokio::select! {
            answer = remote.call.next() => match answer {
                Ok(Answer::Part(part)) => tell(&mut adopted, &part).await,
                Ok(Answer::Final { body, .. }) => {
                    let round = adopted.task().round;
                    return match came(&body, round) {
                        Came::Result(result) => adopted.end(Ended::Completed(result)).await,
                        Came::Error(error) => adopted.end(Ended::Failed(error)).await,
                        Came::Unreadable => {
                            let error = RpcError::internal("the server's answer is no JSON-RPC response");
                            adopted.end(Ended::error(&error)).await;
                        }
                        Came::Asks { requests, state } => {
                            adopted.ask(requests, &state, moment::now_ms() + KEPT_MS).await;
                        }
                    };
                }
                // It may have taken effect, so nobody makes it again here.
                Err(error) => {
                    let error = RpcError::internal(error.to_string());
                    return adopted.end(Ended::error(&error)).await;
                }
            },
            () = stop.pulled() => {
                let error = RpcError::invalid_request("the caller of the task is blocked");
                return adopted.end(Ended::error(&error)).await;
            }
            happened = watched.next() => {
                if happened.iter().any(|happened| happened.standing == "cancelled") {
                    return;
                }
            }
            _ = renewing.tick() => {
                if let Err(error) = adopted.renew().await {
                    debug!(%error, "could not say that a task is still worked on");
                }
            }
        }
    }
}

async fn tell(adopted: &mut Adopted, part: &[u8]) {
    let Ok(message) = Message::parse(part) else { return };
    if message.method.as_deref() == Some(method::PROGRESS)
        && let Some((note, fraction)) = progress(&message)
    {
        adopted.tell(note, fraction).await;
    }
}
