//! `trunkline bridge`: one door in a process of its own.

use std::process::ExitCode;

use bridges::{
    front::{Endpoint, Front},
    http::Serves,
    stdio,
};
use bus_schema::{ServerId, subject::CallerClass};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{reload, stopping::Stop};
use crate::{
    args::{self, Door},
    config::Config,
    node::{Adds, NatsChoice, Node},
};

pub(crate) async fn run(mut config: Config, bridge: args::Bridge) -> anyhow::Result<ExitCode> {
    config.listen = bridge.http.listen.unwrap_or(config.listen);
    let endpoint = match &bridge.server {
        Some(server) => Endpoint::Server(server.parse::<ServerId>()?),
        None => config.endpoint.clone(),
    };
    let mut stop = Stop::listen()?;
    // It hosts nothing, as the command line does, and ends with its client: the others need not fear for their calls then.
    let class = match bridge.door {
        Door::Stdio => CallerClass::Cli,
        Door::Http | Door::Ws | Door::Nats | Door::Callout => CallerClass::Bridge,
    };
    let mut node = Node::connect(&config, class, NatsChoice::Join(config.nats.clone())).await?;
    let ended = open(&mut node, &config, &bridge, endpoint, &mut stop).await;
    stop.unless_hurried(node.stop()).await;
    ended.map(|()| ExitCode::SUCCESS)
}

async fn open(
    node: &mut Node,
    config: &Config,
    bridge: &args::Bridge,
    endpoint: Endpoint,
    stop: &mut Stop,
) -> anyhow::Result<()> {
    match bridge.door {
        Door::Http => {
            let address = node.open_http(config, Serves::Http).await?;
            info!(mcp = %format!("{}://{address}/mcp", config.scheme().as_str()), "bridge is ready");
        }
        Door::Ws => {
            let address = node.open_http(config, Serves::WebSocket).await?;
            let scheme = config.scheme().as_str().replacen("http", "ws", 1);
            info!(websocket = %format!("{scheme}://{address}/ws"), "bridge is ready");
        }
        Door::Nats => {
            let metrics = node.open_admin(bridge.metrics_listen).await?;
            node.open_nats(config).await?;
            info!(metrics = %format!("http://{metrics}/metrics"), "bridge is ready");
        }
        Door::Callout => {
            let metrics = node.open_admin(bridge.metrics_listen).await?;
            node.open_callout(config).await?;
            info!(metrics = %format!("http://{metrics}/metrics"), "the auth callout is ready");
        }
        Door::Stdio => {
            node.open_admin(bridge.metrics_listen).await?;
            return talk(node.front(config).await?, endpoint, stop).await;
        }
    }
    tokio::select! {
        () = stop.requested() => Ok(()),
        never = reload::keep(node, config.clone(), Adds::None) => match never {},
    }
}

/// A desktop client ends its bridge by closing its side.
async fn talk(front: Front, endpoint: Endpoint, stop: &mut Stop) -> anyhow::Result<()> {
    let stopping = CancellationToken::new();
    let serving = stdio::serve(
        front,
        endpoint,
        tokio::io::stdin(),
        tokio::io::stdout(),
        stopping.clone(),
    );
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return Ok(ended?),
        () = stop.requested() => stopping.cancel(),
    }
    Ok(serving.await?)
}
