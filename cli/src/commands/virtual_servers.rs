//! `trunkline virtual`: endpoints of chosen tools, prompts and resources, defined from the command line.

use std::{collections::BTreeMap, io::Read as _, process::ExitCode};

use anyhow::{Context as _, bail};
use bridges::front::Front;
use bus_schema::{
    Principal, ServerId,
    registry::{Over, Was},
    subject::CallerClass,
    virtual_server::{Choice, VirtualServer},
};
use runtime::virtuals::Virtual;
use serde_json::{Value, json};

use super::output;
use crate::{
    args::{self, VirtualCommand},
    config::Config,
    node::{NatsChoice, Node},
};

pub(crate) async fn run(config: Config, command: args::Virtual) -> anyhow::Result<ExitCode> {
    // What is wrong with a definition is said before anything is connected to.
    let definition = match &command.command {
        VirtualCommand::Add(add) => Some(read(add)?),
        _ => None,
    };
    let mut node = Node::connect(&config, CallerClass::Cli, NatsChoice::Join(config.nats.clone())).await?;
    let done = match node.front(&config).await {
        Ok(front) => obey(&front, &config.operator(), command.command, definition).await,
        Err(error) => Err(error),
    };
    node.stop().await;
    done.map(|()| ExitCode::SUCCESS)
}

async fn obey(
    front: &Front,
    by: &Principal,
    command: VirtualCommand,
    definition: Option<VirtualServer>,
) -> anyhow::Result<()> {
    match (command, definition) {
        (VirtualCommand::Add(add), Some(definition)) => {
            let over = if add.replace {
                Over::Anything
            } else {
                Over::Nothing
            };
            let kept = front.define(by, &definition, over).await?;
            let what = match kept.was {
                Was::New => "added",
                Was::Changed => "changed",
                Was::Same => "is there already:",
            };
            let id = &definition.id;
            output::line(&format!(
                "{what} {id} (revision {}), at /servers/{id}/mcp",
                kept.revision
            ));
        }
        (VirtualCommand::Remove(remove), _) => {
            let id: ServerId = remove.id.parse()?;
            front.undefine(by, &id, None).await?;
            output::line(&format!("removed {id}"));
        }
        (VirtualCommand::Show(show), _) => {
            let id: ServerId = show.id.parse()?;
            let Some(known) = front.virtuals().get(&id) else {
                bail!("no virtual server `{id}` is defined; `trunkline virtual list` shows those that are");
            };
            output::json(&known.definition)?;
        }
        (VirtualCommand::List(ask), _) => list(front, ask)?,
        (VirtualCommand::Add(_), None) => {}
    }
    Ok(())
}

fn list(front: &Front, ask: args::Ask) -> anyhow::Result<()> {
    let table = front.virtuals().table();
    let servers: Vec<&Virtual> = table.servers.values().map(AsRef::as_ref).collect();
    if ask.json {
        let objects: Vec<Value> = servers
            .iter()
            .map(|known| {
                json!({ "definition": known.definition, "revision": known.kept.as_ref().map(|(_, revision)| revision) })
            })
            .collect();
        return output::json(&objects);
    }
    let rows: Vec<_> = servers.into_iter().map(row).collect();
    output::table(&["ID", "CHOOSES FROM", "TITLE"], &rows);
    Ok(())
}

fn row(known: &Virtual) -> Vec<String> {
    let definition = &known.definition;
    let from = definition.items.iter().map(|item| match &item.server {
        Some(server) => server.to_string(),
        None => format!("tags {}", item.tags.join("+")),
    });
    vec![
        definition.id.to_string(),
        from.collect::<Vec<_>>().join(", "),
        output::short(definition.title.as_deref().unwrap_or_default(), 50),
    ]
}

/// A definition from a file, or from flags.
fn read(add: &args::VirtualAdd) -> anyhow::Result<VirtualServer> {
    let Some(file) = &add.file else {
        return from_flags(add);
    };
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin()
            .read_to_string(&mut text)
            .context("cannot read the definition from standard input")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    }
    let mut definition: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))?;
    if let (Some(id), Some(members)) = (&add.id, definition.as_object_mut()) {
        members.insert("id".to_owned(), json!(id));
    }
    serde_json::from_value(definition)
        .with_context(|| format!("{} is no definition of a virtual server", file.display()))
}

fn from_flags(add: &args::VirtualAdd) -> anyhow::Result<VirtualServer> {
    let Some(id) = &add.id else {
        bail!("name the virtual server with --id, or give a file with its definition");
    };
    let mut items: Vec<Choice> = Vec::new();
    for (kind, chosen) in [
        ("tool", &add.tools),
        ("prompt", &add.prompts),
        ("resource", &add.resources),
    ] {
        for text in chosen {
            let (server, rest) = text.split_once('.').with_context(|| {
                format!("--{kind} `{text}` is none; write <server>.<{kind}>, such as products.get*")
            })?;
            let (pattern, other) = match rest.split_once('=') {
                Some((own, other)) if kind != "resource" => (own, Some(other)),
                _ => (rest, None),
            };
            let item = item_of(&mut items, server.parse()?);
            let patterns = match kind {
                "tool" => &mut item.tools,
                "prompt" => &mut item.prompts,
                _ => &mut item.resources,
            };
            patterns.push(pattern.to_owned());
            item.rename
                .extend(other.map(|other| (pattern.to_owned(), other.to_owned())));
        }
    }
    Ok(VirtualServer {
        id: id.parse()?,
        title: add.title.clone(),
        description: add.description.clone(),
        items,
    })
}

fn item_of(items: &mut Vec<Choice>, server: ServerId) -> &mut Choice {
    let at = items
        .iter()
        .position(|item| item.server.as_ref() == Some(&server));
    let at = at.unwrap_or_else(|| {
        items.push(Choice {
            server: Some(server),
            rename: BTreeMap::new(),
            ..Choice::default()
        });
        items.len() - 1
    });
    &mut items[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_make_one_choice_for_each_server() {
        let add = args::VirtualAdd {
            id: Some("v".to_owned()),
            tools: vec!["a.get*".to_owned(), "b.x=y".to_owned(), "a.put".to_owned()],
            resources: vec!["a.file://x=1".to_owned()],
            ..args::VirtualAdd::default()
        };
        let definition = from_flags(&add).expect("a definition");
        let items = serde_json::to_value(&definition.items).expect("JSON");
        assert_eq!(
            items,
            json!([
                { "server": "a", "tools": ["get*", "put"], "resources": ["file://x=1"] },
                { "server": "b", "tools": ["x"], "rename": { "x": "y" } },
            ])
        );
    }

    #[test]
    fn a_flag_that_says_nothing_is_named() {
        let add = |id: Option<&str>, tool: &str| args::VirtualAdd {
            id: id.map(str::to_owned),
            tools: vec![tool.to_owned()],
            ..args::VirtualAdd::default()
        };
        for (add, words) in [
            (add(None, "a.b"), "--id"),
            (add(Some("v"), "b"), "<server>.<tool>"),
            (add(Some("V"), "a.b"), "`V`"),
        ] {
            let error = format!("{:#}", from_flags(&add).expect_err(words));
            assert!(error.contains(words), "{error}");
        }
    }
}
