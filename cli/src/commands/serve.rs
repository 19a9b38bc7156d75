//! `trunkline serve`: servers in a process of their own.

use std::process::ExitCode;

use bus_schema::subject::CallerClass;
use tracing::info;

use super::{reload, stopping::Stop};
use crate::{
    args,
    config::Config,
    node::{Adds, NatsChoice, Node},
};

pub(crate) async fn run(config: Config, serve: args::Serve) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::listen()?;
    let mut node = Node::connect(
        &config,
        role(&serve.servers),
        NatsChoice::Join(config.nats.clone()),
    )
    .await?;
    let ended = tokio::select! {
        ended = run_until_dropped(&mut node, &config, &serve) => ended,
        () = stop.requested() => Ok(()),
    };
    stop.unless_hurried(node.stop()).await;
    ended.map(|()| ExitCode::SUCCESS)
}

/// Whose work it is: the registry's, that of workers, that of hosts, or several of them, which takes the role of a whole node.
fn role(servers: &[String]) -> CallerClass {
    let mut roles = servers.iter().map(|name| match name.as_str() {
        "registry" => CallerClass::Registry,
        "workers" => CallerClass::Worker,
        _ => CallerClass::Host,
    });
    let first = roles.next().unwrap_or(CallerClass::Host);
    if roles.all(|role| role == first) {
        first
    } else {
        CallerClass::Node
    }
}

async fn run_until_dropped(node: &mut Node, config: &Config, serve: &args::Serve) -> anyhow::Result<()> {
    let metrics = node.open_admin(serve.metrics_listen).await?;
    node.serve(config, &serve.servers).await?;
    for (server, status) in node.servers() {
        info!(server, ?status, "started");
    }
    let metrics = format!("http://{metrics}/metrics");
    info!(servers = serve.servers.join(", "), instance = node.bus().instance(), %metrics, "serving");
    match reload::keep(node, config.clone(), Adds::None).await {}
}
