//! `trunkline servers show` and `remove`: one server.

use anyhow::anyhow;
use bus_schema::{ServerId, registry::Remove};

use super::output;
use crate::{args::NamedServer, config::Config, node::Node};

pub(super) async fn run(node: &mut Node, config: &Config, named: &NamedServer) -> anyhow::Result<()> {
    let id: ServerId = named.id.parse()?;
    let shown = node.fleet(config).await?.show(&id).await;
    let shown = shown.ok_or_else(|| {
        anyhow!("no server `{id}` is registered or on the bus; `trunkline servers` shows those that are")
    })?;
    if named.ask.json {
        return output::json(&shown);
    }
    output::line(&serde_json::to_string_pretty(&shown)?);
    Ok(())
}

pub(super) async fn remove(node: &Node, config: &Config, named: &NamedServer) -> anyhow::Result<()> {
    let remove = Remove {
        id: named.id.parse()?,
        revision: None,
    };
    let removed = node.bus().unregister(&config.operator(), &remove).await?;
    if named.ask.json {
        return output::json(&removed);
    }
    output::line(&format!("removed server `{}`", remove.id));
    Ok(())
}
