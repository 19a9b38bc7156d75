//! `trunkline tools pending`, `approve` and `reject`: tools that are not as they were approved.

use anyhow::{Context as _, bail};
use bridges::admin::{Flag, ToolState};
use bus_schema::{
    ServerId,
    integrity::{Change, Decide, Decision},
};

use super::output;
use crate::{
    args::{Ask, DecideTools},
    config::Config,
    node::Node,
};

pub(super) async fn pending(node: &mut Node, config: &Config, ask: Ask) -> anyhow::Result<()> {
    let fleet = node.fleet(config).await?;
    let mut all = Vec::new();
    for server in fleet.pending().await? {
        let Some(mut known) = fleet.tools(&server).await? else {
            continue;
        };
        known.tools.retain(|tool| tool.seen_at.is_some());
        all.push(known);
    }
    if ask.json {
        return output::json(&all);
    }
    if all.is_empty() {
        output::line("every tool is as it was approved");
    }
    for known in &all {
        for tool in &known.tools {
            tell(&known.server, tool);
        }
    }
    Ok(())
}

/// What a server says is shown with everything escaped that could act on a terminal, or not be seen on it.
fn tell(server: &ServerId, tool: &ToolState) {
    let state = tool.state.map_or("not looked at", |state| state.as_str());
    let quarantined = if tool.quarantined { ", quarantined" } else { "" };
    let since = tool.seen_at.as_deref().unwrap_or("-");
    output::line(&format!(
        "{server}.{}: {state}{quarantined}, since {since}",
        tool.name.escape_debug()
    ));
    output::line(&format!("  digest {}", tool.digest));
    for flag in &tool.flags {
        output::line(&match flag {
            Flag::HiddenCharacters(hidden) => format!(
                "  ! {} hidden characters at {}: {}",
                hidden.count,
                hidden.path.escape_debug(),
                hidden.characters.join(" ")
            ),
            Flag::Shadows { server, tool } => {
                format!("  ! can be taken for {server}.{}", tool.escape_debug())
            }
        });
    }
    match &tool.diff {
        Some(changes) => changes.iter().for_each(tell_change),
        None if tool.approved.is_some() => {
            output::line("  what has changed cannot be shown: a definition was not kept");
        }
        None => {}
    }
}

fn tell_change(change: &Change) {
    output::line(&format!("  {}", change.path.escape_debug()));
    for (sign, value) in [('-', &change.old), ('+', &change.new)] {
        if let Some(value) = value {
            let text = value.to_string();
            let text: String = text.chars().map(visible).collect();
            output::line(&format!("    {sign} {text}"));
        }
    }
}

/// A character of JSON text, which is escaped there already if it is a quote or a line break.
fn visible(c: char) -> String {
    match c {
        '"' | '\\' | '\'' => c.to_string(),
        c => c.escape_debug().to_string(),
    }
}

pub(super) async fn run(
    node: &mut Node,
    config: &Config,
    decision: Decision,
    typed: &DecideTools,
) -> anyhow::Result<()> {
    let (server, tool) = match (&typed.tool, &typed.all) {
        (Some(tool), _) => {
            let (server, tool) = tool.split_once('.').with_context(|| {
                format!("`{tool}` names no tool; write <server>.<tool>, or --all <server>")
            })?;
            (server, Some(tool.to_owned()))
        }
        (None, Some(server)) => (server.as_str(), None),
        (None, None) => bail!("write <server>.<tool>, or --all <server>"),
    };
    let wish = Decide {
        server: server.parse()?,
        tool,
        digest: typed.digest.clone(),
    };
    let decided = node
        .fleet(config)
        .await?
        .decide(&config.operator(), decision, &wish)
        .await?;
    if typed.ask.json {
        return output::json(&decided);
    }
    let done = match decision {
        Decision::Approve => "approved",
        Decision::Reject => "rejected",
    };
    if decided.tools.is_empty() {
        output::line(&format!("no tool of `{}` waits for a decision", wish.server));
    }
    for tool in &decided.tools {
        output::line(&format!("{done} {}.{}", wish.server, tool.escape_debug()));
    }
    Ok(())
}
