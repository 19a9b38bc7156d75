//! Requests over NATS without any of ours: one loop that has a number of them under way.

use std::{sync::Arc, time::Instant};

use anyhow::Context as _;
use tokio::task::JoinSet;

use super::{Callers, window::Window};
use crate::nats_raw::{Outbound, RawNats};

/// Where requests go.
pub(crate) const RAW_SUBJECT: &str = "bench.raw";
/// What the reply subjects begin with, before a caller and a number that is new for each request, as client libraries do.
const REPLY_PREFIX: &str = "bench.reply.";

pub(super) fn start(window: &Arc<Window>, callers: usize, nats: String, request: String) -> Callers {
    let mut tasks = JoinSet::new();
    tasks.spawn(run(Arc::clone(window), callers, nats, request));
    tasks
}

async fn run(window: Arc<Window>, callers: usize, nats: String, request: String) -> anyhow::Result<Vec<u64>> {
    let mut client = RawNats::connect(&nats).await?;
    let mut latencies = Vec::new();
    let mut begun = vec![Instant::now(); callers];
    let mut count: u64 = 0;
    let mut send = |caller: usize, out: &mut Outbound| {
        count += 1;
        out.publish(
            RAW_SUBJECT,
            &format!("{REPLY_PREFIX}{caller}.{count}"),
            request.as_bytes(),
        );
    };
    client.outbound().subscribe(&format!("{REPLY_PREFIX}>"));
    for caller in 0..callers {
        send(caller, client.outbound());
    }
    client.flush().await?;
    let mut working = callers;
    while working > 0 {
        client
            .receive(|message, out| {
                let caller = message
                    .subject
                    .strip_prefix(REPLY_PREFIX)
                    .and_then(|rest| rest.split('.').next());
                let caller: usize = caller.context("an answer to somebody else")?.parse()?;
                anyhow::ensure!(!message.payload.is_empty(), "an answer without a body");
                if window.count(begun[caller], &mut latencies) {
                    begun[caller] = Instant::now();
                    send(caller, out);
                } else {
                    working -= 1;
                }
                Ok(())
            })
            .await?;
    }
    Ok(latencies)
}
