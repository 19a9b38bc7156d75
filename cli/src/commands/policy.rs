//! `trunkline policy`: who may do what, from the command line. What needs no platform, such as a test of a file, asks none.

mod cases;
mod question;
mod replay;

use std::{io::Read as _, path::Path, process::ExitCode};

use anyhow::{Context as _, bail};
use bus_schema::{
    Principal, integrity,
    policy::{self, Document, Rollback, Set, Version},
    subject::CallerClass,
};
use runtime::policies::PolicyStore;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::output;
use crate::{
    args::{self, PolicyCommand},
    config::Config,
    node::{NatsChoice, Node},
};

/// What is asked of a platform, and of whom there.
struct Desk<'a> {
    node: &'a Node,
    tenant: &'a str,
}

pub(crate) async fn run(config: Config, command: args::Policy) -> anyhow::Result<ExitCode> {
    if let Some(code) = alone(&config, &command)? {
        return Ok(code);
    }
    let node = Node::connect(&config, CallerClass::Cli, NatsChoice::Join(config.nats.clone())).await?;
    let desk = Desk {
        node: &node,
        tenant: &config.tenant,
    };
    let done = desk.obey(&config, &command.command).await;
    node.stop().await;
    done
}

/// Does what needs no platform; `None` for all else.
fn alone(config: &Config, command: &args::Policy) -> anyhow::Result<Option<ExitCode>> {
    Ok(Some(match &command.command {
        PolicyCommand::Set(set) if set.check => {
            compiled(config, &read_document(&set.file)?)?;
            output::line("the policy can be taken");
            ExitCode::SUCCESS
        }
        PolicyCommand::Test(test) => match &test.candidate.policy {
            Some(file) => cases::run(
                &compiled(config, &read_document(file)?)?,
                &test.cases,
                &config.tenant,
            )?,
            None => return Ok(None),
        },
        PolicyCommand::Explain(explain) => match &explain.candidate.policy {
            Some(file) => question::run(&compiled(config, &read_document(file)?)?, explain, &config.tenant)?,
            None => return Ok(None),
        },
        PolicyCommand::Replay(replay) => {
            replay::run(&compiled(config, &read_document(&replay.policy)?)?, replay)?
        }
        // What is wrong with a policy is said before anything is connected to.
        PolicyCommand::Set(set) if set.file != Path::new("-") => {
            compiled(config, &read_document(&set.file)?)?;
            return Ok(None);
        }
        _ => return Ok(None),
    }))
}

impl Desk<'_> {
    async fn obey(&self, config: &Config, command: &PolicyCommand) -> anyhow::Result<ExitCode> {
        match command {
            PolicyCommand::Show(show) => self.show(show).await?,
            PolicyCommand::Set(set) => self.set(set).await?,
            PolicyCommand::Test(test) => {
                return cases::run(&self.present(config).await?, &test.cases, self.tenant);
            }
            PolicyCommand::Explain(explain) => {
                return question::run(&self.present(config).await?, explain, self.tenant);
            }
            PolicyCommand::Diff(diff) => self.diff(diff).await?,
            PolicyCommand::Replay(_) => {}
            PolicyCommand::History(history) => self.history(history).await?,
            PolicyCommand::Rollback(rollback) => self.roll_back(rollback).await?,
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn show(&self, show: &args::PolicyShow) -> anyhow::Result<()> {
        let version = self.version(show.number).await?;
        if show.ask.json {
            return output::json(&version);
        }
        output::line(&format!("# {}", told(&version)));
        output::line(toml::to_string_pretty(&version.document)?.trim_end());
        Ok(())
    }

    async fn set(&self, set: &args::PolicySet) -> anyhow::Result<()> {
        let wish = Set {
            document: read_document(&set.file)?,
            over: set.over,
            comment: set.comment.clone(),
        };
        let version = self.node.bus().set_policy(&self.me(), &wish).await?;
        output::line(&told(&version));
        Ok(())
    }

    async fn roll_back(&self, rollback: &args::PolicyRollback) -> anyhow::Result<()> {
        let wish = Rollback {
            to: rollback.to,
            over: rollback.over,
            comment: rollback.comment.clone(),
        };
        let version = self.node.bus().roll_policy_back(&self.me(), &wish).await?;
        output::line(&told(&version));
        Ok(())
    }

    async fn history(&self, history: &args::PolicyHistory) -> anyhow::Result<()> {
        let policies = self.node.bus().policies();
        policies.ready().await;
        let versions = store(policies.store())?
            .versions(self.tenant, history.limit)
            .await?;
        if history.ask.json {
            return output::json(&versions);
        }
        let rows: Vec<_> = versions
            .into_iter()
            .map(|version| {
                vec![
                    version.version.to_string(),
                    version.at,
                    version.by,
                    version.comment,
                ]
            })
            .collect();
        output::table(&["VERSION", "WRITTEN", "BY", "COMMENT"], &rows);
        Ok(())
    }

    async fn diff(&self, diff: &args::PolicyDiff) -> anyhow::Result<()> {
        let from = self.version(diff.from).await?.document;
        let to = match &diff.file {
            Some(file) => read_document(file)?,
            None => self.version(diff.to).await?.document,
        };
        let node = |document: &Document| -> anyhow::Result<_> {
            let text = serde_json::to_string(document)?;
            integrity::read(&text).context("a policy is an object")
        };
        let changes = integrity::diff(&node(&from)?, &node(&to)?);
        if diff.ask.json {
            return output::json(&changes);
        }
        if changes.is_empty() {
            output::line("there is no difference");
        }
        for change in changes {
            output::line(&change.path);
            for (sign, value) in [('-', change.old), ('+', change.new)] {
                if let Some(value) = value {
                    output::line(&format!("  {sign} {value}"));
                }
            }
        }
        Ok(())
    }

    /// One version, or the present one.
    async fn version(&self, number: Option<u64>) -> anyhow::Result<Version> {
        let policies = self.node.bus().policies();
        policies.ready().await;
        let store = store(policies.store())?;
        let known = match number {
            Some(number) => store.version(self.tenant, number).await?,
            None => store.read(self.tenant).await?.map(|(version, _)| version),
        };
        match (known, number) {
            (Some(version), _) => Ok(version),
            (None, Some(number)) => {
                bail!("there is no version {number}; `trunkline policy history` shows which there are")
            }
            (None, None) => bail!(
                "no policy is kept for tenant `{}`; `trunkline policy set` keeps one, and until then `[policy]` of each process's configuration counts",
                self.tenant
            ),
        }
    }

    async fn present(&self, config: &Config) -> anyhow::Result<policy::Policy> {
        compiled(config, &self.version(None).await?.document)
    }

    fn me(&self) -> Principal {
        Principal {
            tenant: self.tenant.to_owned(),
            ..Principal::developer()
        }
    }
}

fn store(store: Option<&PolicyStore>) -> anyhow::Result<&PolicyStore> {
    store.context("policies cannot be read: this NATS has no JetStream, or does not answer")
}

fn told(version: &Version) -> String {
    let Version {
        version: number,
        at,
        by,
        comment,
        ..
    } = version;
    let why = if comment.is_empty() {
        String::new()
    } else {
        format!(": {comment}")
    };
    format!("version {number}, written {at} by {by}{why}")
}

fn compiled(config: &Config, document: &Document) -> anyhow::Result<policy::Policy> {
    let policy = policy::Policy::compile(document)?;
    Ok(match config.policy()?.operator {
        Some(role) => policy.with_operator(role),
        None => policy,
    })
}

fn read_document(path: &Path) -> anyhow::Result<Document> {
    read(path).with_context(|| format!("{} is no policy", path.display()))
}

/// Reads what is written as TOML or JSON.
fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = read_text(path)?;
    if text.trim_start().starts_with('{') {
        return Ok(serde_json::from_str(&text)?);
    }
    Ok(toml::from_str(&text)?)
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A decision as output and cases spell it.
fn decided(decision: &policy::Decision) -> serde_json::Value {
    let mut told = json!({ "decision": decision.as_str() });
    match decision {
        policy::Decision::NeedsScopes(scopes) => told["scopes"] = json!(scopes),
        policy::Decision::Denied { rule } => told["rule"] = json!(rule),
        policy::Decision::Allow | policy::Decision::Hidden => {}
    }
    told
}
