//! `trunkline tools`: the tools on the bus, all of them or those that fit some words.

mod decide;

use std::process::ExitCode;

use anyhow::bail;
use bus_schema::{ServerId, integrity::Decision, subject::CallerClass};
use runtime::{
    Discovery,
    catalogue::Item,
    discovery::{Found, Tools},
};
use serde_json::{Value, json};

use super::output;
use crate::{
    args::{self, ToolsCommand},
    config::Config,
    node::{NatsChoice, Node},
};

/// How many tools a search shows unless somebody asks for more or fewer.
const BEST: usize = 20;

pub(crate) async fn run(config: Config, tools: args::Tools) -> anyhow::Result<ExitCode> {
    let mut node = Node::connect(&config, CallerClass::Cli, NatsChoice::Join(config.nats.clone())).await?;
    let done = match &tools.what {
        None => match find(&mut node, &config, &tools).await {
            Ok(found) => print(&found, &tools),
            Err(error) => Err(error),
        },
        Some(ToolsCommand::Pending(ask)) => decide::pending(&mut node, &config, *ask).await,
        Some(ToolsCommand::Approve(wish)) => decide::run(&mut node, &config, Decision::Approve, wish).await,
        Some(ToolsCommand::Reject(wish)) => decide::run(&mut node, &config, Decision::Reject, wish).await,
    };
    node.stop().await;
    done.map(|()| ExitCode::SUCCESS)
}

async fn find(node: &mut Node, config: &Config, tools: &args::Tools) -> anyhow::Result<Tools> {
    let front = node.front(config).await?;
    let mut discovery =
        Discovery::new(front.bus().clone(), front.catalogue().clone()).with_tags(tools.tags.iter().cloned());
    if let Some(server) = &tools.server {
        let server: ServerId = server.parse()?;
        if front.directory().snapshot().server(&server).is_none() {
            bail!("no server `{server}` is on the bus; `trunkline servers` shows those that are");
        }
        discovery = discovery.with_server(server);
    }
    if discovery.servers().is_empty() && !tools.tags.is_empty() {
        let tags = tools.tags.join("` and `");
        bail!(
            "no server with the tag `{tags}` is on the bus; `trunkline servers` shows which tags there are"
        );
    }
    let mut found = match &tools.search {
        Some(words) => discovery.search(words, tools.limit.unwrap_or(BEST)).await,
        None => discovery.tools().await,
    };
    found.tools.truncate(tools.limit.unwrap_or(usize::MAX));
    Ok(found)
}

fn print(found: &Tools, tools: &args::Tools) -> anyhow::Result<()> {
    if let [missing @ .., last] = found.missing.as_slice() {
        let missing: String = missing.iter().map(|id| format!("{id}, ")).collect();
        output::warn(&format!(
            "without {missing}{last}, which did not say in time what they offer"
        ));
    }
    if tools.ask.json {
        let objects: Vec<Value> = found.tools.iter().map(object).collect();
        return output::json(&objects);
    }
    if let (Some(words), []) = (&tools.search, found.tools.as_slice()) {
        output::line(&format!("no tool fits `{words}`"));
        return Ok(());
    }
    let rows: Vec<_> = found.tools.iter().map(row).collect();
    output::table(&["TOOL", "DESCRIPTION"], &rows);
    Ok(())
}

fn object(found: &Found) -> Value {
    json!({ "server": found.server, "name": found.name(), "tool": found.item().json })
}

fn row(found: &Found) -> Vec<String> {
    vec![
        format!("{}.{}", found.server, found.name()),
        output::short(&described(found.item()), 90),
    ]
}

fn described(tool: &Item) -> String {
    let value: Value = serde_json::from_str(tool.json.get()).unwrap_or_default();
    value["description"]
        .as_str()
        .or(value["title"].as_str())
        .unwrap_or_default()
        .to_owned()
}
