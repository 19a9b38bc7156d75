//! `trunkline guardrails`: what is looked for in calls, from the command line.

use std::{path::Path, process::ExitCode};

use anyhow::{Context as _, bail};
use bus_schema::{
    guardrails::{Document, Guardrails, Looked, Refusal, Target},
    mcp::method,
    rpc,
    subject::CallerClass,
};
use runtime::guardrails::Rails;
use serde_json::{Value, json, value::RawValue};

use super::{
    documents::{Desk, read},
    output,
};
use crate::{
    args::{self, GuardrailsCommand},
    config::Config,
    node::{NatsChoice, Node},
};

pub(crate) async fn run(config: Config, command: args::Guardrails) -> anyhow::Result<ExitCode> {
    // What is wrong with a file is said before anything is connected to.
    let document = match &command.command {
        GuardrailsCommand::Try(wish) => return attempt(wish),
        GuardrailsCommand::Set(set) => Some(document(&set.file)?),
        _ => None,
    };
    if let GuardrailsCommand::Set(set) = &command.command
        && set.check
    {
        output::line("the guardrails can be taken");
        return Ok(ExitCode::SUCCESS);
    }
    let node = Node::connect(&config, CallerClass::Cli, NatsChoice::Join(config.nats.clone())).await?;
    let desk = Desk::<Rails>::new(&node, &config);
    let done = match (&command.command, document) {
        (GuardrailsCommand::Set(set), Some(document)) => desk.set(set, document).await,
        (GuardrailsCommand::Show(show), _) => desk.show(show).await,
        (GuardrailsCommand::History(history), _) => desk.history(history).await,
        (GuardrailsCommand::Rollback(back), _) => desk.roll_back(back).await,
        _ => Ok(()),
    };
    node.stop().await;
    done.map(|()| ExitCode::SUCCESS)
}

fn document(path: &Path) -> anyhow::Result<Document> {
    let document = read(path).with_context(|| format!("{} holds no guardrails", path.display()))?;
    Guardrails::compile(&document).with_context(|| format!("{} cannot be used", path.display()))?;
    Ok(document)
}

/// Shows what becomes of a call. Fails when it would be refused, so that scripts can tell.
fn attempt(wish: &args::GuardrailsTry) -> anyhow::Result<ExitCode> {
    let guardrails = Guardrails::compile(&document(&wish.file)?)?;
    let (server, name) = wish
        .tool
        .split_once('.')
        .with_context(|| format!("`{}` is no tool; write it as <server>.<tool>", wish.tool))?;
    let target = Target {
        server,
        name: Some(name),
    };
    let Some(course) = guardrails.course_of(&target) else {
        output::line("no step is for this tool");
        return Ok(ExitCode::SUCCESS);
    };
    let mut is_refused = false;
    let mut tell = |what: &str, looked: Result<Looked, Refusal>, key: &str| -> anyhow::Result<()> {
        let told = match looked {
            Ok(looked) => {
                let body: Option<Value> = looked
                    .body
                    .map(|body| serde_json::from_slice(&body))
                    .transpose()?;
                let found: Vec<_> = looked
                    .notes
                    .iter()
                    .map(|note| json!({ "step": note.step, "done": note.done, "found": note.found, "why": note.why }))
                    .collect();
                json!({ "goes": what, "notes": found, "changed": body.and_then(|body| body.pointer(key).cloned()) })
            }
            Err(refusal) => {
                is_refused = true;
                json!({ "refused": what, "step": refusal.step, "why": refusal.why })
            }
        };
        output::json(&told)
    };
    if let Some(arguments) = &wish.arguments {
        let arguments = object("--arguments", arguments)?;
        let params = format!(r#"{{"name":{},"arguments":{arguments}}}"#, json!(name));
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"{}","params":{params}}}"#,
            method::TOOLS_CALL
        );
        let looked = course.look_at_request(body.as_bytes(), None);
        tell("arguments", looked, "/params/arguments")?;
    }
    if let Some(result) = &wish.result {
        let body = rpc::result_response("1", object("--result", result)?.as_bytes());
        tell("result", course.look_at_response(&body, None), "/result")?;
    }
    Ok(if is_refused {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn object<'a>(flag: &str, text: &'a str) -> anyhow::Result<&'a str> {
    let raw: &RawValue = serde_json::from_str(text).with_context(|| format!("{flag} is no JSON"))?;
    if !raw.get().starts_with('{') {
        bail!("{flag} is no JSON object");
    }
    Ok(raw.get())
}
