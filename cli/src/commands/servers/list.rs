//! `trunkline servers`: all of them, one a line.

use serde_json::Value;

use super::output;
use crate::{args, config::Config, node::Node};

const HEADINGS: [&str; 10] = [
    "SERVER",
    "STATUS",
    "VERSION",
    "REPLICAS",
    "TOOLS",
    "PROMPTS",
    "RESOURCES",
    "PROTOCOL",
    "TAGS",
    "TITLE",
];

pub(super) async fn run(node: &mut Node, config: &Config, ask: args::Ask) -> anyhow::Result<()> {
    let servers = node.fleet(config).await?.list();
    if ask.json {
        return output::json(&servers);
    }
    if servers.is_empty() {
        output::line("no server is on the bus; start one with `trunkline serve products`");
        return Ok(());
    }
    let rows: Vec<_> = servers.iter().map(row).collect();
    output::table(&HEADINGS, &rows);
    for server in servers.iter().filter(|server| server["reason"].is_string()) {
        output::line(&format!(
            "\n{} is {}: {}",
            text(&server["id"]),
            text(&server["status"]),
            text(&server["reason"])
        ));
    }
    Ok(())
}

fn row(server: &Value) -> Vec<String> {
    let count = |kind: &str| {
        server["counts"][kind]
            .as_u64()
            .map_or_else(|| "-".to_owned(), |count| count.to_string())
    };
    let tags: Vec<_> = server["tags"]
        .as_array()
        .into_iter()
        .flatten()
        .map(text)
        .collect();
    vec![
        text(&server["id"]),
        text(&server["status"]),
        text(&server["version"]),
        server["replicas"].as_array().map_or(0, Vec::len).to_string(),
        count("tools"),
        count("prompts"),
        count("resources"),
        text(&server["protocol"]["version"]),
        tags.join(","),
        output::short(&text(&server["title"]), 50),
    ]
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}
