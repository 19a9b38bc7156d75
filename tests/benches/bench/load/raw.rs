//! Requests over NATS without any of ours: callers that share one connection, as those of any client library do.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use anyhow::Context as _;
use tokio::{select, sync::Notify, task::JoinSet};

use super::{Callers, window::Window};
use crate::nats_raw::{Outbound, RawNats};

/// Where requests go: below what the user of the benchmark may both publish to and hear.
pub(crate) const RAW_SUBJECT: &str = "_INBOX_node.bench.raw";
/// What reply subjects begin with, before a caller and a number that is new for each request, as client libraries have it.
const REPLY_PREFIX: &str = "_INBOX_node.reply.";

/// What the callers and their connection share.
struct Shared {
    request: String,
    /// What the callers want to be written. Held only to add to it or take it.
    outbound: Mutex<Outbound>,
    /// Something has changed for the connection: there is more to write, or a caller less.
    changed: Notify,
    /// One for each caller: its answer has come.
    answered: Vec<Notify>,
    working: AtomicUsize,
}

impl Shared {
    fn outbound(&self) -> MutexGuard<'_, Outbound> {
        self.outbound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn start(
    window: &Arc<Window>,
    callers: usize,
    nats: &str,
    request: String,
) -> anyhow::Result<Callers> {
    let mut client = RawNats::connect(nats).await?;
    client.outbound().subscribe(&format!("{REPLY_PREFIX}>"));
    client.round_trip().await?;
    let shared = Arc::new(Shared {
        request,
        outbound: Mutex::default(),
        changed: Notify::new(),
        answered: (0..callers).map(|_| Notify::new()).collect(),
        working: AtomicUsize::new(callers),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(carry(client, Arc::clone(&shared)));
    for caller in 0..callers {
        tasks.spawn(call(Arc::clone(window), Arc::clone(&shared), caller));
    }
    Ok(tasks)
}

/// The connection: writes together what is there together, and wakes the callers whose answers have come.
async fn carry(mut client: RawNats, shared: Arc<Shared>) -> anyhow::Result<Vec<u64>> {
    while shared.working.load(Ordering::Acquire) > 0 {
        select! {
            received = client.receive(|message, _| {
                let rest = message.subject.strip_prefix(REPLY_PREFIX);
                let caller = rest.and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
                anyhow::ensure!(!message.payload.is_empty(), "an answer without a body");
                let answered = caller.and_then(|caller| shared.answered.get(caller));
                answered.context("an answer to somebody else")?.notify_one();
                Ok(())
            }) => received?,
            () = shared.changed.notified() => {
                client.outbound().append(&mut shared.outbound());
                client.flush().await?;
            }
        }
    }
    Ok(Vec::new())
}

async fn call(window: Arc<Window>, shared: Arc<Shared>, caller: usize) -> anyhow::Result<Vec<u64>> {
    let mut latencies = Vec::new();
    for number in 0_u64.. {
        let begun = Instant::now();
        let reply = format!("{REPLY_PREFIX}{caller}.{number}");
        shared
            .outbound()
            .publish(RAW_SUBJECT, &reply, shared.request.as_bytes());
        shared.changed.notify_one();
        shared.answered[caller].notified().await;
        if !window.count(begun, &mut latencies) {
            break;
        }
    }
    shared.working.fetch_sub(1, Ordering::Release);
    shared.changed.notify_one();
    Ok(latencies)
}
