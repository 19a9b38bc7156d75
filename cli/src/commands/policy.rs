//! `trunkline policy`: who may do what, from the command line. What needs no platform, such as a test of a file, asks none.

mod cases;
mod question;
mod replay;

use std::{path::Path, process::ExitCode};

use anyhow::Context as _;
use bus_schema::{
    integrity,
    policy::{self, Document},
    subject::CallerClass,
};
use runtime::policies::Rules;
use serde_json::json;

use super::{
    documents::{Desk, read, read_text},
    output,
};
use crate::{
    args::{self, PolicyCommand},
    config::Config,
    node::{NatsChoice, Node},
};

pub(crate) async fn run(config: Config, command: args::Policy) -> anyhow::Result<ExitCode> {
    if let Some(code) = alone(&config, &command)? {
        return Ok(code);
    }
    let node = Node::connect(&config, CallerClass::Cli, NatsChoice::Join(config.nats.clone())).await?;
    let desk = Desk::<Rules>::new(&node, &config);
    let done = obey(&desk, &config, &command.command).await;
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

async fn obey(desk: &Desk<'_, Rules>, config: &Config, command: &PolicyCommand) -> anyhow::Result<ExitCode> {
    match command {
        PolicyCommand::Show(show) => desk.show(show).await?,
        PolicyCommand::Set(set) => desk.set(set, read_document(&set.file)?).await?,
        PolicyCommand::Test(test) => {
            return cases::run(&present(desk, config).await?, &test.cases, desk.tenant());
        }
        PolicyCommand::Explain(explain) => {
            return question::run(&present(desk, config).await?, explain, desk.tenant());
        }
        PolicyCommand::Diff(wish) => diff(desk, wish).await?,
        PolicyCommand::Replay(_) => {}
        PolicyCommand::History(history) => desk.history(history).await?,
        PolicyCommand::Rollback(back) => desk.roll_back(back).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn diff(desk: &Desk<'_, Rules>, diff: &args::PolicyDiff) -> anyhow::Result<()> {
    let from = desk.version(diff.from).await?.document;
    let to = match &diff.file {
        Some(file) => read_document(file)?,
        None => desk.version(diff.to).await?.document,
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

async fn present(desk: &Desk<'_, Rules>, config: &Config) -> anyhow::Result<policy::Policy> {
    compiled(config, &desk.version(None).await?.document)
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
