//! `trunkline serve`: servers in a process of their own.

use std::process::ExitCode;

use bus_schema::subject::CallerClass;
use tracing::info;

use super::stopping;
use crate::{
    args,
    config::Config,
    node::{NatsChoice, Node},
};

pub(crate) async fn run(config: Config, serve: args::Serve) -> anyhow::Result<ExitCode> {
    let mut node = Node::connect(
        &config,
        CallerClass::Bridge,
        NatsChoice::Join(config.nats_to_join()),
    )
    .await?;
    let started = async {
        let metrics = node.open_admin(serve.metrics_listen).await?;
        node.serve(&config, &serve.servers).await?;
        info!(servers = serve.servers.join(", "), instance = node.bus().instance(), metrics = %format!("http://{metrics}/metrics"), "serving");
        stopping::stop_requested().await
    };
    let ended = started.await;
    node.stop().await;
    ended.map(|()| ExitCode::SUCCESS)
}
