//! `trunkline servers`: what is on the bus.

use std::process::ExitCode;

use bus_schema::subject::CallerClass;
use serde_json::json;

use super::{import, output};
use crate::{
    args::{self, ServersCommand},
    config::Config,
    node::{NatsChoice, Node},
};

pub(crate) async fn run(config: Config, servers: args::Servers) -> anyhow::Result<ExitCode> {
    let mut node = Node::connect(&config, CallerClass::Cli, NatsChoice::Join(config.nats.clone())).await?;
    if let Some(ServersCommand::Import(import)) = servers.what {
        let done = import::run(&mut node, &config, *import).await;
        node.stop().await;
        return done;
    }
    let ask = servers.ask;
    let front = node.front(&config).await?;
    let snapshot = front.directory().snapshot();
    let mut rows = Vec::new();
    let mut objects = Vec::new();
    for (id, card) in snapshot.servers() {
        let replicas = snapshot.replicas(id);
        let instances: Vec<&str> = replicas.iter().map(|replica| replica.instance.as_str()).collect();
        rows.push(vec![
            id.to_string(),
            card.version.clone(),
            replicas.len().to_string(),
            card.tools.to_string(),
            card.prompts.to_string(),
            card.resources.to_string(),
            card.protocol_version.clone(),
            card.tags.join(","),
            output::short(&card.title, 50),
        ]);
        objects.push(json!({
            "id": id, "title": card.title, "version": card.version, "replicas": instances, "tools": card.tools,
            "prompts": card.prompts, "resources": card.resources, "protocolVersion": card.protocol_version,
            "tags": card.tags, "capabilities": card.capabilities, "revision": card.revision,
        }));
    }
    if ask.json {
        output::json(&objects)?;
    } else if rows.is_empty() {
        output::line("no server is on the bus; start one with `trunkline serve products`");
    } else {
        output::table(
            &[
                "SERVER",
                "VERSION",
                "REPLICAS",
                "TOOLS",
                "PROMPTS",
                "RESOURCES",
                "PROTOCOL",
                "TAGS",
                "TITLE",
            ],
            &rows,
        );
    }
    node.stop().await;
    Ok(ExitCode::SUCCESS)
}
