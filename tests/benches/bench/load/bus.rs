//! Calls over the bus, as every door makes them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bus_schema::{Body, Principal, ProtocolVersion, Request, TraceContext, mcp::method, trace::Sampled};
use runtime::{Bus, Retry};
use tokio::task::JoinSet;

use super::{Callers, window::Window};
use crate::{
    messages::{CALLED, ECHO, Message},
    role::connect,
};

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn start(window: &Arc<Window>, callers: usize, nats: &str) -> anyhow::Result<Callers> {
    let bus = connect(nats).await?;
    let request = Request {
        caller: String::new(),
        call: 0,
        server: CALLED.to_owned(),
        method: method::TOOLS_CALL.to_owned(),
        name: Some(ECHO.to_owned()),
        principal: Principal::developer(),
        protocol_version: ProtocolVersion::MODERN.to_string(),
        door: "bench".to_owned(),
        timeout_ms: u64::try_from(TIMEOUT.as_millis()).unwrap_or(u64::MAX),
        trace: Some(TraceContext::root(1, 1, Sampled::No)),
        chunked_bytes: 0,
        body: Body(Message::call(ECHO).body.into()),
    };
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        tasks.spawn(call(Arc::clone(window), bus.clone(), request.clone()));
    }
    Ok(tasks)
}

async fn call(window: Arc<Window>, bus: Bus, request: Request) -> anyhow::Result<Vec<u64>> {
    let mut latencies = Vec::new();
    loop {
        let begun = Instant::now();
        let (code, _) = bus.ask(request.clone(), Retry::Safe).await?;
        anyhow::ensure!(code.is_none(), "the tool answered with error {code:?}");
        if !window.count(begun, &mut latencies) {
            return Ok(latencies);
        }
    }
}
