//! `trunkline tools`: the tools on the bus.

mod decide;

use std::process::ExitCode;

use anyhow::bail;
use bus_schema::{ServerId, integrity::Decision, subject::CallerClass};
use runtime::catalogue::{Item, Listed};
use serde_json::{Value, json};

use super::output;
use crate::{
    args::{self, ToolsCommand},
    config::Config,
    node::{NatsChoice, Node},
};

pub(crate) async fn run(config: Config, tools: args::Tools) -> anyhow::Result<ExitCode> {
    let mut node = Node::connect(&config, CallerClass::Cli, NatsChoice::Join(config.nats.clone())).await?;
    let done = match &tools.what {
        None => list(&mut node, &config, &tools).await,
        Some(ToolsCommand::Pending(ask)) => decide::pending(&mut node, &config, *ask).await,
        Some(ToolsCommand::Approve(wish)) => decide::run(&mut node, &config, Decision::Approve, wish).await,
        Some(ToolsCommand::Reject(wish)) => decide::run(&mut node, &config, Decision::Reject, wish).await,
    };
    node.stop().await;
    done.map(|()| ExitCode::SUCCESS)
}

async fn list(node: &mut Node, config: &Config, tools: &args::Tools) -> anyhow::Result<()> {
    let front = node.front(config).await?;
    let snapshot = front.directory().snapshot();
    let wanted: Option<ServerId> = tools.server.as_deref().map(str::parse).transpose()?;
    if let Some(server) = &wanted
        && snapshot.server(server).is_none()
    {
        bail!("no server `{server}` is on the bus; `trunkline servers` shows those that are");
    }
    let mut rows = Vec::new();
    let mut objects = Vec::new();
    for (id, _) in snapshot
        .servers()
        .filter(|(id, _)| wanted.as_ref().is_none_or(|wanted| wanted == *id))
    {
        for tool in &front.catalogue().list(id, Listed::Tools).await?.items {
            let description = described(tool);
            rows.push(vec![
                format!("{id}.{}", tool.key),
                output::short(&description, 90),
            ]);
            objects.push(json!({ "server": id, "name": tool.key, "tool": tool.json }));
        }
    }
    if tools.ask.json {
        output::json(&objects)?;
    } else {
        output::table(&["TOOL", "DESCRIPTION"], &rows);
    }
    Ok(())
}

fn described(tool: &Item) -> String {
    let value: Value = serde_json::from_str(tool.json.get()).unwrap_or_default();
    value["description"]
        .as_str()
        .or(value["title"].as_str())
        .unwrap_or_default()
        .to_owned()
}
