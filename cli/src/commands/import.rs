//! `trunkline servers import`: registers the servers of an MCP registry, or of a server.json, as far as they are remotes.
//!
//! A server is known by its name in registries. What was imported before and is the same stays as it is; what differs is replaced only on
//! demand, and then only what the document speaks of.

mod manifest;
mod package;
mod source;

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::{Context as _, bail};
use bus_schema::{
    ServerId,
    registry::{Declaration, Over, Put},
};
use runtime::{Bus, registry::Registry};
use serde_json::{Value, json};

use super::{output, servers::add};
use crate::{
    args::Import,
    config::{self, Config},
    node::Node,
};
use manifest::{Skipped, Wish};

/// How many characters of a reason stand in the table.
const SHOWN_CHARS: usize = 160;

pub(super) async fn run(node: &mut Node, config: &Config, import: Import) -> anyhow::Result<ExitCode> {
    let entries = source::read(&import).await?;
    if entries.is_empty() {
        bail!(
            "{} has no server{}",
            import.source,
            match &import.search {
                Some(search) => format!(" with `{search}` in its name"),
                None => String::new(),
            }
        );
    }
    if import.name.is_some() && entries.len() > 1 {
        bail!(
            "--name is for one server, and {} has {}",
            import.source,
            entries.len()
        );
    }
    let mut known = Known::read(node, config).await?;
    let mut done = Vec::with_capacity(entries.len());
    for entry in &entries {
        done.push(import_one(node.bus(), config, &import, &mut known, entry).await);
    }
    print(&import, &done)?;
    let failed = done
        .iter()
        .any(|done| matches!(done.outcome, Outcome::Differs | Outcome::Refused));
    let none = done.iter().all(|done| done.outcome == Outcome::Skipped);
    Ok(if failed || none {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The ids that are in use.
struct Known {
    /// What is declared under them, with its revision; `None` for servers that are on the bus by themselves.
    ids: BTreeMap<ServerId, Option<(Declaration, u64)>>,
}

impl Known {
    async fn read(node: &mut Node, config: &Config) -> anyhow::Result<Self> {
        let registry = Registry::open(node.bus())
            .await
            .context("nothing can be registered on this bus")?;
        let snapshot = node.front(config).await?.directory().snapshot();
        let mut ids: BTreeMap<_, _> = snapshot.servers().map(|(id, _)| (id.clone(), None)).collect();
        for entry in registry.all(&config.tenant) {
            let declaration = entry.value.declaration;
            ids.insert(declaration.id.clone(), Some((declaration, entry.revision)));
        }
        Ok(Self { ids })
    }

    /// The id of the server with a name: the one that it has, or the first that is free.
    fn id_for(&self, name: &str) -> anyhow::Result<ServerId> {
        let has_name = |known: &Option<(Declaration, u64)>| {
            known
                .as_ref()
                .is_some_and(|(declaration, _)| declaration.name.as_deref() == Some(name))
        };
        if let Some((id, _)) = self.ids.iter().find(|(_, known)| has_name(known)) {
            return Ok(id.clone());
        }
        let last = name.rsplit('/').next().unwrap_or(name);
        let wishes = [slug(last), slug(name)];
        let usable = wishes.iter().filter_map(|wish| wish.parse::<ServerId>().ok());
        let free = usable.into_iter().find(|id| !self.ids.contains_key(id));
        free.with_context(|| {
            format!(
                "no id is free for `{name}`: `{}` is in use; choose one with --name",
                wishes.join("` and `")
            )
        })
    }
}

/// A text as the nearest server id, if it has any letter or digit.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.chars().map(|c| c.to_ascii_lowercase()) {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(48);
    slug.trim_end_matches('-').to_owned()
}

/// What has become of a server.
struct Done {
    id: Option<ServerId>,
    name: String,
    outcome: Outcome,
    /// Why, or what its operator should know.
    notes: Vec<String>,
    /// What can be put into trunkline.toml instead.
    lines: Option<String>,
    declaration: Option<Declaration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It was not there.
    New,
    /// It was there, and was replaced.
    Changed,
    /// It was there, and the same.
    Same,
    /// It is there, and otherwise.
    Differs,
    /// It is none that the registry can hold.
    Skipped,
    /// The registry does not take it.
    Refused,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Changed => "changed",
            Self::Same => "same",
            Self::Differs => "differs",
            Self::Skipped => "skipped",
            Self::Refused => "refused",
        }
    }
}

async fn import_one(
    bus: &Bus,
    config: &Config,
    import: &Import,
    known: &mut Known,
    entry: &source::Entry,
) -> Done {
    let name = entry.server["name"].as_str().unwrap_or_default().to_owned();
    let mut done = Done {
        id: None,
        name,
        outcome: Outcome::Skipped,
        notes: Vec::new(),
        lines: None,
        declaration: None,
    };
    if entry.status == "deleted" {
        done.notes.push("its registry has deleted it".to_owned());
        return done;
    }
    let id = match &import.name {
        Some(id) => id.parse().map_err(anyhow::Error::new),
        None => known.id_for(&done.name),
    };
    let id = match id {
        Ok(id) => id,
        Err(error) => {
            done.outcome = Outcome::Refused;
            done.notes.push(format!("{error:#}"));
            return done;
        }
    };
    done.id = Some(id.clone());
    let there = known.ids.get(&id).cloned().flatten();
    let base = match &there {
        Some((declaration, _)) => declaration.clone(),
        None => Declaration::new(id, ""),
    };
    let secrets = config::secrets_of(&config.tenant);
    let (mut declaration, notes) = match manifest::read(&entry.server, &entry.status, base, &secrets) {
        Wish::Declare(declaration, notes) => (*declaration, notes),
        Wish::Skip(Skipped { reason, lines }) => {
            done.notes.push(reason);
            done.lines = lines;
            return done;
        }
    };
    done.notes = notes;
    declaration.allow_private |= import.allow_private;
    for tag in &import.tags {
        if !declaration.tags.contains(tag) {
            declaration.tags.push(tag.clone());
        }
    }
    declare(bus, config, import, there.as_ref(), declaration, &mut done).await;
    if let (Some(declaration), Outcome::New | Outcome::Changed) = (&done.declaration, done.outcome) {
        known
            .ids
            .insert(declaration.id.clone(), Some((declaration.clone(), 0)));
    }
    done
}

/// Registers one server, or says why not.
async fn declare(
    bus: &Bus,
    config: &Config,
    import: &Import,
    there: Option<&(Declaration, u64)>,
    declaration: Declaration,
    done: &mut Done,
) {
    done.declaration = Some(declaration.clone());
    if let Err(error) = judge(config, import, &declaration) {
        done.outcome = Outcome::Refused;
        done.notes = vec![format!("{error:#}")];
        return;
    }
    let (outcome, over) = match there {
        None => (Outcome::New, Over::Nothing),
        Some((declared, _)) if *declared == declaration => {
            done.outcome = Outcome::Same;
            return;
        }
        Some((_, revision)) if import.replace => (Outcome::Changed, Over::Revision(*revision)),
        Some((declared, _)) => {
            done.outcome = Outcome::Differs;
            done.notes = vec![format!(
                "it is registered with {}; --replace replaces that",
                differences(declared, &declaration)
            )];
            return;
        }
    };
    done.outcome = outcome;
    if import.dry_run {
        return;
    }
    let put = Put { declaration, over };
    if let Err(error) = bus.register(&config.operator(), &put).await {
        done.outcome = Outcome::Refused;
        done.notes = vec![format!("{:#}", anyhow::Error::new(error))];
    }
}

/// All that can be judged here.
fn judge(config: &Config, import: &Import, declaration: &Declaration) -> anyhow::Result<()> {
    let judged = add::judge(config, declaration);
    if import.allow_private {
        return judged;
    }
    judged.context(
        "it cannot be reached as it is declared; --allow-private allows private addresses and http://",
    )
}

/// Which members of a declaration are otherwise.
fn differences(there: &Declaration, wanted: &Declaration) -> String {
    let members = |declaration| match serde_json::to_value(declaration) {
        Ok(Value::Object(members)) => members,
        _ => serde_json::Map::new(),
    };
    let (there, wanted) = (members(there), members(wanted));
    let mut names: Vec<&String> = there.keys().chain(wanted.keys()).collect();
    names.sort();
    names.dedup();
    names.retain(|name| there.get(*name) != wanted.get(*name));
    let names: Vec<String> = names
        .into_iter()
        .map(|name| format!("another `{name}`"))
        .collect();
    names.join(", ")
}

fn print(import: &Import, all: &[Done]) -> anyhow::Result<()> {
    if import.ask.json {
        let told: Vec<Value> = all.iter().map(to_json).collect();
        return output::json(&told);
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|done| {
            let id = done.id.as_ref().map(ToString::to_string);
            let first = done.notes.first().map(String::as_str).unwrap_or_default();
            vec![
                done.outcome.as_str().to_owned(),
                id.unwrap_or_else(|| "-".to_owned()),
                output::short(&done.name, 80),
                output::short(first, SHOWN_CHARS),
            ]
        })
        .collect();
    output::table(&["OUTCOME", "SERVER", "NAME", "NOTE"], &rows);
    for done in all {
        // What has not stood in the table as a whole.
        let is_cut = done
            .notes
            .first()
            .is_some_and(|note| note.chars().count() > SHOWN_CHARS);
        for note in done.notes.iter().skip(usize::from(!is_cut)) {
            output::line(&format!("{}: {note}", done.name));
        }
        if let Some(lines) = &done.lines {
            output::line(&format!("\n# {}\n{}", done.name, lines.trim_end()));
        }
    }
    if import.dry_run {
        output::line("nothing was registered, as this was a dry run");
    }
    Ok(())
}

fn to_json(done: &Done) -> Value {
    let mut told =
        json!({ "id": done.id, "name": done.name, "outcome": done.outcome.as_str(), "notes": done.notes });
    if let Some(lines) = &done.lines {
        told["lines"] = lines.as_str().into();
    }
    if let Some(declaration) = &done.declaration {
        told["declaration"] = json!(declaration);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_ids_that_are_free() {
        let mut known = Known { ids: BTreeMap::new() };
        let id = |known: &Known, name| known.id_for(name).unwrap().to_string();
        assert_eq!(id(&known, "com.example/My_Weather.v2"), "my-weather-v2");
        // On the bus by itself, and so nobody's to register.
        known.ids.insert("weather".parse().unwrap(), None);
        assert_eq!(id(&known, "com.example/weather"), "com-example-weather");
        let mut mine = Declaration::new("w".parse().unwrap(), "https://a.example");
        mine.name = Some("com.example/weather".to_owned());
        known.ids.insert("w".parse().unwrap(), Some((mine, 1)));
        assert_eq!(id(&known, "com.example/weather"), "w");
        assert!(known.id_for("/___").unwrap_err().to_string().contains("--name"));
        assert_eq!(slug(&"a-".repeat(40)).len(), 47);
    }

    #[test]
    fn differences_are_named() {
        let there = Declaration::new("a".parse().unwrap(), "https://a.example");
        let mut wanted = there.clone();
        wanted.url = "https://b.example".to_owned();
        wanted.title = Some("A".to_owned());
        assert_eq!(differences(&there, &wanted), "another `title`, another `url`");
    }
}
