//! `trunkline servers`: which there are, and what is registered.

pub(super) mod add;
mod list;
mod show;
mod watch;

use std::process::ExitCode;

use bus_schema::subject::CallerClass;

use super::{import, output};
use crate::{
    args::{self, ServersCommand},
    config::Config,
    node::{NatsChoice, Node},
};

pub(crate) async fn run(config: Config, servers: args::Servers) -> anyhow::Result<ExitCode> {
    let mut node = Node::connect(&config, CallerClass::Cli, NatsChoice::Join(config.nats.clone())).await?;
    let done = match servers.what {
        None => list::run(&mut node, &config, servers.ask).await,
        Some(ServersCommand::Add(add)) => add::run(&node, &config, *add).await,
        Some(ServersCommand::Remove(named)) => show::remove(&node, &config, &named).await,
        Some(ServersCommand::Import(import)) => {
            let done = import::run(&mut node, &config, *import).await;
            node.stop().await;
            return done;
        }
        Some(ServersCommand::Show(named)) => show::run(&mut node, &config, &named).await,
        Some(ServersCommand::Watch(ask)) => watch::run(&node, &config, ask).await,
    };
    node.stop().await;
    done.map(|()| ExitCode::SUCCESS)
}
